//! Rights on a repo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::cell::CellId;
use towpath_core::ids::RepoName;
use towpath_core::policy::{Rights, Role};

use super::{Nothing, Said, word};
use crate::auth::accounts::note;
use crate::auth::rights::is_admin;
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};
use crate::http::records::Names;

/// What somebody may do on a repo.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PersonView {
    /// Who.
    pub user: String,
    /// `reader`, `author`, `maintainer`, `admin`.
    pub role: String,
    /// Whether their uploads are tested without being asked for.
    pub authorised: bool,
}

/// `GET /api/v1/repos/{repo}/people`
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<PersonView>> {
    let repo = call.repo()?;
    call.read(move |view| {
        let mut names = Names::new(view);
        let mut all = Vec::new();
        for right in view.rights_on(&repo)? {
            let Rights { role, authorised } = right.rights;
            all.push(PersonView { user: names.get(right.holder)?, role: word(&role), authorised });
        }
        Ok(all)
    })
    .await
}

/// A right to give.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// `reader`, `author`, `maintainer` or `admin`.
    pub role: String,
    /// Whether their uploads are tested without being asked for; absent: for maintainers and admins.
    #[serde(default)]
    pub authorised: Option<bool>,
}

/// `PUT /api/v1/repos/{repo}/people/{user}`
pub async fn grant(call: Call, input: Grant) -> Answer<Said> {
    let role = match input.role.as_str() {
        "reader" => Role::Reader,
        "author" => Role::Author,
        "maintainer" => Role::Maintainer,
        "admin" => Role::Admin,
        _ => return Err(ApiError::invalid("`role` is `reader`, `author`, `maintainer` or `admin`")),
    };
    let authorised = input.authorised.unwrap_or(role >= Role::Maintainer);
    set(&call, Some(Rights { role, authorised })).await
}

/// `DELETE /api/v1/repos/{repo}/people/{user}`
pub async fn revoke(call: Call, _: Nothing) -> Answer<Said> {
    set(&call, None).await
}

async fn set(call: &Call, rights: Option<Rights>) -> Answer<Said> {
    let (repo, by, now) = (call.repo()?, call.actor()?, call.now());
    let user = super::users::named(call).await?;
    let sees_all = call.read(move |view| Ok(is_admin(view, user.id)?)).await?;
    let said = match rights {
        Some(Rights { role, authorised }) => {
            let tested = if authorised { "tested at once" } else { "not tested before somebody vouches" };
            format!("{} is {} on {repo}; uploads are {tested}", user.name, word(&role))
        }
        None if sees_all => format!(
            "{} has no right of their own on {repo} any more; as an admin of the server they still see it",
            user.name
        ),
        None => format!("{} may no longer see {repo}", user.name),
    };
    let (name, what) = (repo.clone(), said.clone());
    call.write(move |tx| {
        tx.set_right(&name, user.id, rights)?;
        note(tx, Some(&by), now, what);
        Ok(())
    })
    .await?;
    told(call, move |other| *other == repo, said).await
}

/// Rings every gate of the repos that are meant: who counts for what has changed (G06). Says what was done once they know of
/// it.
async fn told(
    call: &Call,
    is_meant: impl Fn(&RepoName) -> bool + Send + 'static,
    said: String,
) -> Answer<Said> {
    // By the cells themselves: a gate that is left out lands by the old rights until it looks by itself, whatever is wrong
    // with what else is stored of its repo.
    let gates = call.read(move |view| {
        let gate = |cell| match cell {
            CellId::Gate(gate) if is_meant(&gate.repo) => Some(gate),
            _ => None,
        };
        Ok(view.open_cells()?.into_iter().filter_map(gate).collect::<Vec<_>>())
    });
    let unread = match gates.await {
        Ok(gates) => call.shared().ring_all(gates).unread().await,
        // It has happened all the same.
        Err(error) => Some(format!("gates know of it when they look by themselves: {}", error.why)),
    };
    Ok(Said::with(said, unread))
}

/// The same of every repo: the server's admins count on each, whatever right they were given there.
pub async fn told_everywhere(call: &Call, said: String) -> Answer<Said> {
    told(call, |_| true, said).await
}
