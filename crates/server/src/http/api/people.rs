//! Rights on a repo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::ids::RepoName;
use towpath_core::policy::{Rights, Role};

use super::{Nothing, Said, word};
use crate::auth::accounts::note;
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};
use crate::http::records::{self, Names};

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
    let said = match rights {
        Some(Rights { role, authorised }) => {
            let tested = if authorised { "tested at once" } else { "not tested before somebody vouches" };
            format!("{} is {} on {repo}; uploads are {tested}", user.name, word(&role))
        }
        None => format!("{} may no longer see {repo}", user.name),
    };
    let (name, what) = (repo.clone(), said.clone());
    call.write(move |tx| {
        tx.set_right(&name, user.id, rights)?;
        note(tx, Some(&by), now, what);
        Ok(())
    })
    .await?;
    told(call, vec![repo], said).await
}

/// Rings every gate of these repos: who counts for what has changed (G06). Says what was done once they know of it.
pub async fn told(call: &Call, repos: Vec<RepoName>, said: String) -> Answer<Said> {
    let gates = call.read(move |view| {
        // What cannot be read has no gate that could be rung, and keeps no other from it.
        let of_repo = |repo: &RepoName| Some(records::settings(view, repo).ok()?.gates(repo));
        Ok(repos.iter().filter_map(of_repo).collect::<Vec<_>>())
    });
    let rung = call.shared().ring_all(gates.await?.into_iter().flatten().map(|(gate, _)| gate));
    Ok(Said::with(said, rung.unread().await))
}

/// The same of every repo: the server's admins count on each, whatever right they were given there.
pub async fn told_everywhere(call: &Call, said: String) -> Answer<Said> {
    let repos = call.read(|view| Ok(view.repos()?)).await?;
    told(call, repos.into_iter().map(|repo| repo.name).collect(), said).await
}
