//! Making a data folder ready before there is a server.

use towpath_core::ids::UserId;
use towpath_store::records::Scope;
use towpath_store::{OpenError, WriteError};

use crate::auth::accounts::{self, NewToken};
use crate::auth::rights;
use crate::clock::system_time;
use crate::server::{ServerError, open_store};
use crate::settings::ServerSettings;

/// A person with a token of their own.
#[derive(Debug, Clone)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The number.
    pub user: UserId,
    /// The token; this is the only time that it is seen.
    pub token: String,
}

/// Why a folder could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The data folder cannot be opened.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The rows could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There are users already.
    #[error("the data folder has users already; `towpath user add` adds more while the server runs")]
    NotEmpty,
}

/// Makes the first admin of a new data folder, with a token (trust S8).
///
/// # Errors
/// There are users already, or the folder cannot be used: a server may have it open.
pub fn first_admin(settings: &ServerSettings, name: &str) -> Result<Person, SetupError> {
    let store = open_store(settings)?;
    let users = store.reader().snapshot().and_then(|view| view.users());
    if !users.map_err(OpenError::from).map_err(ServerError::from)?.is_empty() {
        return Err(SetupError::NotEmpty);
    }
    let (wanted, now) = (name.to_owned(), system_time());
    let (user, token) = store.writer().write(move |tx| {
        let user = accounts::add_user(tx, &wanted, None, (None, now))?;
        rights::set_admin(tx, user, true)?;
        accounts::note(tx, None, now, format!("made user {user} `{wanted}` an admin of the server"));
        let label = "made by `towpath init`".to_owned();
        let new = NewToken { owner: user, label, scope: Scope::default(), expires_at: None };
        Ok((user, accounts::issue_token(tx, new, (None, now))?.text))
    })?;
    store.close();
    Ok(Person { name: name.to_owned(), user, token })
}
