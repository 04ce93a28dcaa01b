//! Making a data folder ready before there is a server.

use std::path::Path;

use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::UserId;
use towpath_store::records::Scope;
use towpath_store::{DATABASE, OpenError, View, WriteError};

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

/// Whether a data folder has somebody who can administer its server. A folder that cannot be read has: opening it says
/// what is wrong with it.
pub fn is_made(data: &Path) -> bool {
    let database = data.join(DATABASE);
    if !database.is_file() {
        return false;
    }
    View::open_copy(&database).and_then(|view| view.users()).map_or(true, |users| !users.is_empty())
}

/// Whether somebody can have this name, before anything is made for them.
///
/// # Errors
/// Which names there can be.
pub fn check_name(name: &str) -> Result<(), SetupError> {
    Ok(accounts::check_name(name)?)
}

/// Makes the first admin of a new data folder, with a token (trust S8). `keep` is handed the token before anything is
/// durable: if it fails there is no admin, and all of this can be done again.
///
/// # Errors
/// There are users already, or the folder cannot be used: a server may have it open; the token was not kept.
pub fn first_admin(
    settings: &ServerSettings,
    name: &str,
    keep: impl FnOnce(&str) -> std::io::Result<()> + Send + 'static,
) -> Result<Person, SetupError> {
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
        let new = NewToken { owner: user, label, scope: Scope::default(), made_by: None, expires_at: None };
        let token = accounts::issue_token(tx, new, (None, now))?.text;
        keep(&token).map_err(|error| unkept(&error))?;
        Ok((user, token))
    })?;
    store.close();
    Ok(Person { name: name.to_owned(), user, token })
}

fn unkept(error: &std::io::Error) -> WriteError {
    let why = format!("the token cannot be written: {error}");
    WriteError::Refused(Refusal { class: RefusalClass::Invalid, why })
}
