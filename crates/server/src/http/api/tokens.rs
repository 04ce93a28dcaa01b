//! Tokens: one's own, and those that an admin makes for robots.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::{Digest, RepoName, Timestamp, UserId};
use towpath_store::records::{Scope, Token};
use towpath_store::{Tx, WriteError};

use super::{Nothing, Said, millis};
use crate::auth::accounts::{NewToken, issue_token, note};
use crate::auth::rights::Means;
use crate::auth::token::within;
use crate::http::call::{Call, blocking, no_repo};
use crate::http::error::{Answer, ApiError, Class};

/// Seconds for which a token works at most when nobody says otherwise: a year, so that a forgotten one ends.
const SECONDS_DEFAULT: u32 = 365 * 24 * 3600;
/// Milliseconds of a day, in which people count.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A token, without the token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Its number.
    pub token: u64,
    /// Its first characters.
    pub prefix: String,
    /// What it is for.
    pub label: String,
    /// Repos that it reaches; absent: all.
    pub repos: Option<Vec<String>>,
    /// What it is for: `read`, `push`, `act`, `administer`; absent: all.
    pub verbs: Option<Vec<String>>,
    /// Whether it works now.
    pub works: bool,
    /// The token by which it was made, if it was by one: it ends with that one.
    pub made_by: Option<u64>,
    /// When it was made.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// When it was last used, to the minute or so.
    pub used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

fn view(token: &Token, now: Timestamp) -> TokenView {
    TokenView {
        token: token.number,
        prefix: token.prefix.clone(),
        label: token.label.clone(),
        repos: token.scope.repos.as_ref().map(|repos| repos.iter().map(ToString::to_string).collect()),
        verbs: token.scope.verbs.clone(),
        works: token.is_valid(now),
        made_by: token.made_by,
        created_at: millis(token.created_at),
        expires_at: token.expires_at.map(millis),
        used_at: token.used_at.map(millis),
        revoked_at: token.revoked_at.map(millis),
    }
}

/// `GET /api/v1/tokens`: one's own.
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<TokenView>> {
    let owner = call.person()?.user;
    all_of(&call, owner).await
}

/// `GET /api/v1/users/{user}/tokens`
pub async fn list_of(call: Call, _: Nothing) -> Answer<Vec<TokenView>> {
    let owner = super::users::named(&call).await?.id;
    all_of(&call, owner).await
}

async fn all_of(call: &Call, owner: UserId) -> Answer<Vec<TokenView>> {
    let (person, now) = (call.person()?.clone(), call.now());
    call.read(move |snapshot| {
        let tokens = snapshot.tokens_of(owner)?;
        Ok(tokens.iter().filter(|token| person.rules_over(token)).map(|token| view(token, now)).collect())
    })
    .await
}

/// A token to be made.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What it is for, in words.
    #[serde(default)]
    pub label: String,
    /// Repos that it reaches; absent: all of its owner's.
    #[serde(default)]
    pub repos: Option<Vec<String>>,
    /// What it is for: `read`, `push`, `act`, `administer`; absent: all.
    #[serde(default)]
    pub verbs: Option<Vec<String>>,
    /// Seconds for which it works, no longer than the token that asks; absent: a year, or as long as that.
    #[serde(default)]
    pub seconds: Option<u32>,
}

/// A token that was just made.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Its number.
    pub number: u64,
    /// The token itself: this is the only time that it is shown.
    pub token: String,
    /// When it ends.
    pub expires_at: i64,
}

/// `POST /api/v1/tokens`: for oneself, never stronger than the token that asks.
pub async fn create(call: Call, input: Create) -> Answer<Created> {
    let owner = call.person()?.user;
    make(&call, owner, input).await
}

/// `POST /api/v1/users/{user}/tokens`
pub async fn create_for(call: Call, input: Create) -> Answer<Created> {
    let owner = super::users::named(&call).await?.id;
    make(&call, owner, input).await
}

async fn make(call: &Call, owner: UserId, input: Create) -> Answer<Created> {
    let repos = input.repos.map(|repos| repos.iter().map(|repo| repo.parse()).collect::<Result<Vec<_>, _>>());
    let scope = Scope { repos: repos.transpose()?, verbs: input.verbs };
    check_repos(call, scope.repos.clone().unwrap_or_default()).await?;
    let (by, now) = (call.actor()?, call.now());
    let (mut end_max, mut asks) = (None, None);
    if let Means::Token { hash, scope: own, expires_at, .. } = &call.person()?.by {
        if !within(&scope, own) {
            return Err(ApiError::denied("a token makes no token that may do more than itself")
                .hint("name `repos` and `verbs` within its own, or log in with another"));
        }
        (end_max, asks) = (*expires_at, Some(*hash));
    }
    let expires_at = end_of(input.seconds, end_max, now)?;
    let label = input.label;
    let issued = call
        .write(move |tx| {
            let asks = asks.map(|hash| tx.token(&hash)).transpose()?.flatten();
            // It may have been revoked since it was looked up, and then ends nothing that it makes now.
            if asks.as_ref().is_some_and(|asks| !asks.is_valid(now)) {
                let why = "the token that asks was revoked just now";
                return Err(WriteError::Refused(Refusal::new(RefusalClass::Denied, why)));
            }
            let made_by = asks.map(|asks| asks.number);
            let new = NewToken { owner, label, scope, made_by, expires_at: Some(expires_at) };
            issue_token(tx, new, (Some(&by), now))
        })
        .await?;
    Ok(Created { number: issued.number, token: issued.text, expires_at: millis(expires_at) })
}

/// When a new token ends: as it is wished, and never after the token that asks for it.
fn end_of(seconds: Option<u32>, end_max: Option<Timestamp>, now: Timestamp) -> Answer<Timestamp> {
    let end = now.plus_seconds(seconds.unwrap_or(SECONDS_DEFAULT));
    match end_max.filter(|end_max| *end_max < end) {
        None => Ok(end),
        Some(end_max) if seconds.is_none() => Ok(end_max),
        Some(end_max) => {
            let days = match end_max.millis_since(now) / DAY_MS {
                0 => String::new(),
                days => format!("`--days {days}` is the most; "),
            };
            Err(ApiError::denied("a token makes no token that lives longer than itself").hint(format!(
                "{days}without `--days` (`seconds`) the new one ends when the one that asks for it does"
            )))
        }
    }
}

/// Whether whoever asks sees every one of these.
async fn check_repos(call: &Call, repos: Vec<RepoName>) -> Answer<()> {
    let person = call.person()?.clone();
    call.read(move |view| {
        for repo in &repos {
            if view.repo(repo)?.is_none() || person.role_on(view, repo)?.is_none() {
                return Err(no_repo(repo.as_str()));
            }
        }
        Ok(())
    })
    .await
}

/// What is revoked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Whether the tokens go on that were made by this one.
    #[serde(default)]
    pub only: bool,
}

/// `DELETE /api/v1/tokens/{token}`: one's own, or as an admin anybody's, and by a token none that reaches further; with it those
/// that were made by it.
pub async fn revoke(call: Call, input: Revoke) -> Answer<Said> {
    let missing =
        || ApiError::not_found("you have no such token").hint("`towpath token list` shows their numbers");
    let number: u64 = call.param("token")?.parse().map_err(|_| missing())?;
    let (person, by, now) = (call.person()?.clone(), call.actor()?, call.now());
    let token = call.read(move |view| Ok(view.token_by_number(number)?)).await?.ok_or_else(missing)?;
    if !person.rules_over(&token) {
        return Err(missing());
    }
    let rows = call.clone();
    let write = move |tx: &mut Tx<'_>| {
        let made = tx.tokens_made_by(number)?.into_iter();
        let (gone, mut with_it): (Vec<_>, Vec<_>) = made.partition(|made| made.revoked_at.is_some());
        with_it.retain(|made| !input.only && made.is_valid(now));
        for token in std::iter::once(&token).chain(&with_it) {
            tx.revoke_token(token.number, now)?;
            let Token { number, prefix, owner, .. } = token;
            note(tx, Some(&by), now, format!("revoked token {number} ({prefix}…) of user {owner}"));
        }
        // Those that went before may not be on the list yet: it could not be written then.
        let to_list: Vec<_> = [&token].into_iter().chain(&gone).chain(&with_it).map(|one| one.hash).collect();
        Ok((with_it, to_list))
    };
    // Both, also where nobody waits for the answer any more.
    let revoking = tokio::spawn(async move {
        let (with_it, to_list) = rows.write(write).await?;
        outlive_restores(&rows, number, to_list).await?;
        Ok(with_it)
    });
    let with_it = revoking.await.unwrap_or_else(|error| Err(ApiError::internal(error)))?;
    Ok(Said::new(revoked(number, &with_it)))
}

/// Has a restore not bring tokens back.
async fn outlive_restores(call: &Call, number: u64, hashes: Vec<Digest>) -> Answer<()> {
    let edge = call.edge.clone();
    blocking(move || {
        edge.shared.revoked.add(hashes).map_err(|error| {
            tracing::error!("token {number} is not put on the list of those that were revoked: {error}");
            let why = format!(
                "token {number} works no more, but it cannot be put on the list outside the data by which a restore knows \
                 that"
            );
            let again = format!("`towpath token revoke {number}` again, once the disk of the keys is well");
            ApiError::new(Class::Unavailable, why).hint(again)
        })
    })
    .await
}

/// That a token was revoked, and which with it.
fn revoked(number: u64, with_it: &[Token]) -> String {
    if with_it.is_empty() {
        return format!("token {number} works no more");
    }
    let numbers: Vec<String> = with_it.iter().map(|token| token.number.to_string()).collect();
    format!("token {number} works no more, and none that was made by it: {}", numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_no_later_than_the_one_that_asks_for_it() {
        let (now, day) = (Timestamp(7), 24 * 3600);
        let after = |days: u32| now.plus_seconds(days * day);
        let end = |days: Option<u32>, own: Option<Timestamp>| end_of(days.map(|days| days * day), own, now);
        assert_eq!(end(None, None), Ok(after(365)));
        assert_eq!(end(Some(400), None), Ok(after(400)));
        assert_eq!(end(None, Some(after(400))), Ok(after(365)));
        assert_eq!(end(None, Some(after(30))), Ok(after(30)));
        assert_eq!(end(Some(30), Some(after(30))), Ok(after(30)));
        let hint = |own: Timestamp| end(Some(31), Some(own)).unwrap_err().hint.unwrap();
        assert!(hint(after(30)).starts_with("`--days 30` is the most; without `--days`"));
        assert!(hint(now.plus_seconds(60)).starts_with("without `--days`"));
    }
}
