//! Users of the server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::policy::Role;
use towpath_store::records::User;

use super::{Nothing, Said, TextOrNull, millis, word};
use crate::auth::accounts::{add_user, note};
use crate::auth::password;
use crate::auth::rights::{Means, is_admin, set_admin};
use crate::http::call::{Call, hashing};
use crate::http::error::{Answer, ApiError, Class};

/// A user.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UserView {
    /// The name.
    pub user: String,
    /// The number.
    pub number: u64,
    /// Looks after the whole server.
    pub admin: bool,
    /// May do nothing any more.
    pub disabled: bool,
    /// Can log in with a password.
    pub has_password: bool,
    /// Since when.
    pub created_at: i64,
}

fn view(user: &User, admin: bool) -> UserView {
    UserView {
        user: user.name.clone(),
        number: user.id.0,
        admin,
        disabled: user.disabled,
        has_password: user.password.is_some(),
        created_at: millis(user.created_at),
    }
}

/// Who one is, and what one may.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// The name.
    pub user: String,
    /// The number.
    pub number: u64,
    /// Looks after the whole server.
    pub admin: bool,
    /// The verbs of the token that asks; absent: all.
    pub verbs: Option<Vec<String>>,
    /// When that token ends.
    pub expires_at: Option<i64>,
    /// Roles by repo.
    pub repos: std::collections::BTreeMap<String, String>,
}

/// `GET /api/v1/me`
pub async fn me(call: Call, _: Nothing) -> Answer<Me> {
    let person = call.person()?.clone();
    call.read(move |view| {
        let role = |(repo, role): (towpath_core::ids::RepoName, Role)| (repo.to_string(), word(&role));
        let repos = person.repos(view)?.into_iter().map(role).collect();
        let (verbs, expires_at) = match person.by {
            Means::Token { scope, expires_at, .. } => (scope.verbs, expires_at.map(millis)),
            Means::Session { .. } => (None, None),
        };
        Ok(Me { user: person.name, number: person.user.0, admin: person.admin, verbs, expires_at, repos })
    })
    .await
}

/// `GET /api/v1/users`
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<UserView>> {
    call.read(|snapshot| {
        let users = snapshot.users()?;
        users.iter().map(|user| Ok(view(user, is_admin(snapshot, user.id)?))).collect()
    })
    .await
}

/// A user to be added.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The name.
    pub user: String,
    /// A first password; absent: only tokens.
    #[serde(default)]
    pub password: Option<String>,
    /// Looks after the whole server.
    #[serde(default)]
    pub admin: bool,
}

/// `POST /api/v1/users`
pub async fn create(call: Call, input: Create) -> Answer<UserView> {
    let hash = match input.password {
        Some(password) => Some(hashed(&call, password).await?),
        None => None,
    };
    let (by, now) = (call.actor()?, call.now());
    let (name, admin) = (input.user, input.admin);
    call.write(move |tx| {
        let user = add_user(tx, &name, hash.as_deref(), (Some(&by), now))?;
        if admin {
            set_admin(tx, user, true)?;
            note(tx, Some(&by), now, format!("{name} looks after the whole server"));
        }
        let user = tx.user(user)?.ok_or_else(|| missing(&name))?;
        Ok(view(&user, admin))
    })
    .await
}

fn missing(name: &str) -> towpath_store::WriteError {
    towpath_store::WriteError::Missing { what: format!("user `{name}`") }
}

async fn hashed(call: &Call, text: String) -> Answer<String> {
    let hash = move || password::hash(&text).map_err(|error| ApiError::invalid(error.to_string()));
    hashing(&call.edge.hashes, hash).await
}

/// The user of the path.
///
/// # Errors
/// `NotFound`.
pub async fn named(call: &Call) -> Answer<User> {
    let name = call.param("user")?.to_owned();
    let missing = no_user(&name);
    let user = call.read(move |view| Ok(view.user_by_name(&name)?)).await?;
    user.ok_or(missing)
}

/// There is no user of this name.
pub fn no_user(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no user `{}`", name.escape_debug()))
        .hint("`towpath user list` shows those that there are")
}

/// `POST /api/v1/users/{user}/disable`: tokens and sessions of the user end at once.
pub async fn disable(call: Call, _: Nothing) -> Answer<Said> {
    let user = named(&call).await?;
    if user.id == call.person()?.user {
        return Err(ApiError::new(Class::Conflict, "you would lock yourself out").hint("ask another admin"));
    }
    set_disabled(&call, user, true).await
}

/// `POST /api/v1/users/{user}/enable`
pub async fn enable(call: Call, _: Nothing) -> Answer<Said> {
    let user = named(&call).await?;
    set_disabled(&call, user, false).await
}

async fn set_disabled(call: &Call, user: User, disabled: bool) -> Answer<Said> {
    let (by, now) = (call.actor()?, call.now());
    let said = format!("{} {}", if disabled { "disabled" } else { "enabled" }, user.name);
    let what = said.clone();
    call.write(move |tx| {
        tx.set_disabled(user.id, disabled)?;
        note(tx, Some(&by), now, what);
        Ok(())
    })
    .await?;
    super::people::told_everywhere(call, said).await
}

/// Whether somebody looks after the whole server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// They do, or no longer.
    pub admin: bool,
}

/// `PUT /api/v1/users/{user}/admin`
pub async fn set_server_admin(call: Call, input: Admin) -> Answer<Said> {
    let user = named(&call).await?;
    if user.id == call.person()?.user && !input.admin {
        return Err(ApiError::new(Class::Conflict, "you would lock yourself out").hint("ask another admin"));
    }
    let (by, now) = (call.actor()?, call.now());
    let said = match input.admin {
        true => format!("{} looks after the whole server", user.name),
        false => format!("{} no longer looks after the server", user.name),
    };
    let what = said.clone();
    call.write(move |tx| {
        set_admin(tx, user.id, input.admin)?;
        note(tx, Some(&by), now, what);
        Ok(())
    })
    .await?;
    super::people::told_everywhere(&call, said).await
}

/// A new password.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The present one, if there is one and it is one's own.
    #[serde(default)]
    pub old: Option<String>,
    /// The new one; `null`: no login by password any more.
    pub new: TextOrNull,
}

/// `PUT /api/v1/me/password`: every session ends.
pub async fn own_password(call: Call, input: Password) -> Answer<Said> {
    let id = call.person()?.user;
    let user = call.read(move |view| Ok(view.user(id)?)).await?;
    let user = user.ok_or_else(|| ApiError::not_found("you are not there any more"))?;
    if let Some(stored) = user.password.clone() {
        let begun = call.edge.logins.begin(call.address, Some(&user.name), call.now()).map_err(|wait| {
            let error = ApiError::new(Class::Limited, "too many tries failed; wait a little");
            ApiError { retry_seconds: Some(wait.seconds), ..error }
        })?;
        let old = input.old.unwrap_or_default();
        let compare = move || Ok(password::verify(&old, Some(&stored)));
        let compared = hashing(&call.edge.hashes, compare).await;
        if !compared.inspect_err(|_| call.edge.logins.taken_back(&begun))? {
            return Err(ApiError::denied("the present password is another one")
                .hint("an admin can set a new one: `towpath user password NAME`"));
        }
        call.edge.logins.succeeded(begun);
    }
    set_password(&call, user, input.new.0).await
}

/// `PUT /api/v1/users/{user}/password`
pub async fn others_password(call: Call, input: Password) -> Answer<Said> {
    let user = named(&call).await?;
    set_password(&call, user, input.new.0).await
}

async fn set_password(call: &Call, user: User, new: Option<String>) -> Answer<Said> {
    let hash = match new {
        Some(new) => Some(hashed(call, new).await?),
        None => None,
    };
    let (by, now) = (call.actor()?, call.now());
    let what = match hash {
        Some(_) => format!("set the password of {}", user.name),
        None => format!("took the password of {} away", user.name),
    };
    let said = Said::new(format!("{what}; every session of theirs has ended"));
    call.write(move |tx| {
        tx.set_password(user.id, hash.as_deref())?;
        tx.remove_sessions_of(user.id)?;
        note(tx, Some(&by), now, what);
        Ok(())
    })
    .await?;
    Ok(said)
}
