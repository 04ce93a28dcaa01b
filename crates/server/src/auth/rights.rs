//! Who somebody is and what they may see and do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use towpath_core::ids::{Digest, RepoName, Timestamp, UserId};
use towpath_core::policy::{Actor, Rights, Role};
use towpath_store::records::{Scope, Session, Token};
use towpath_store::{ReadError, Tx, View, WriteError};

use super::token::{TokenVerb, reaches, within_reach};

/// The server-wide setting that names the server's admins.
const ADMINS: &str = "admins";

/// What a request brought to say who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// Something in which there is no token of ours: half of one, or a name and a password.
    NoToken,
    /// The hash of a token.
    Token(Digest),
    /// The hash of a session's cookie.
    Session(Digest),
}

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    /// Their number.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Whether they look after the whole server, and came in by what reaches it: they may do everything on every repo.
    pub admin: bool,
    /// How they came in.
    pub by: Means,
}

/// How somebody came in.
#[derive(Debug, Clone, PartialEq)]
pub enum Means {
    /// With a token.
    Token {
        /// Its hash.
        hash: Digest,
        /// What it may do.
        scope: Scope,
        /// When it ends.
        expires_at: Option<Timestamp>,
        /// When it was last noted as used.
        used_at: Option<Timestamp>,
    },
    /// With a login.
    Session {
        /// The hash of its cookie.
        hash: Digest,
        /// What its forms have to bring back.
        csrf: String,
    },
}

impl Means {
    /// Whether it reaches some repos only: what is of the whole server is out of its reach then.
    pub fn is_limited_to_repos(&self) -> bool {
        self.scope().is_some_and(|scope| scope.repos.is_some())
    }

    /// What it is limited to, if it is.
    fn scope(&self) -> Option<&Scope> {
        match self {
            Means::Token { scope, .. } => Some(scope),
            Means::Session { .. } => None,
        }
    }
}

/// Who a request is from.
#[derive(Debug, Clone, PartialEq)]
pub enum Identity {
    /// It does not say.
    Nobody,
    /// It says something that is not, or no longer, true.
    Unknown,
    /// Somebody.
    Known(Box<Person>),
}

/// Looks up who a request is from.
///
/// # Errors
/// Those of reading.
pub fn identify(view: &View, credentials: Credentials, now: Timestamp) -> Result<Identity, ReadError> {
    let found = match credentials {
        Credentials::None => return Ok(Identity::Nobody),
        Credentials::NoToken => None,
        Credentials::Token(hash) => view
            .token(&hash)?
            .filter(|token| super::same(&token.hash.0, &hash.0) && token.is_valid(now))
            .map(|token| (token.owner, of_token(token))),
        Credentials::Session(hash) => match view.session(&hash, now)? {
            Some(session) if holds(view, &session, now)? => {
                Some((session.owner, Means::Session { hash: session.hash, csrf: session.csrf }))
            }
            _ => None,
        },
    };
    let Some((owner, by)) = found else { return Ok(Identity::Unknown) };
    let user = view.user(owner)?.filter(|user| !user.disabled);
    let Some(user) = user else { return Ok(Identity::Unknown) };
    let admin = !by.is_limited_to_repos() && is_admin(view, owner)?;
    Ok(Identity::Known(Box::new(Person { user: owner, name: user.name, admin, by })))
}

/// Whether what a session was opened with still opens one: a token that was revoked takes its sessions with it.
fn holds(view: &View, session: &Session, now: Timestamp) -> Result<bool, ReadError> {
    let Some(hash) = session.token else { return Ok(true) };
    Ok(view.token(&hash)?.is_some_and(|token| token.is_valid(now)))
}

fn of_token(token: Token) -> Means {
    Means::Token {
        hash: token.hash,
        scope: token.scope,
        expires_at: token.expires_at,
        used_at: token.used_at,
    }
}

impl Person {
    /// As the record names them.
    pub fn actor(&self) -> Actor {
        Actor { user: self.user, name: self.name.clone() }
    }

    /// Whether the way they came in allows a verb at all.
    pub fn may(&self, verb: TokenVerb) -> bool {
        self.by.scope().is_none_or(|scope| verb.allowed_by(scope))
    }

    /// Whether the way they came in allows all that they may.
    pub fn may_all(&self) -> bool {
        self.by.scope().is_none_or(|scope| *scope == Scope::default())
    }

    /// Whether they may see and revoke a token: their own, as an admin anybody's, and none that reaches a repo which the
    /// way they came in does not.
    pub fn rules_over(&self, token: &Token) -> bool {
        let reached = self.by.scope().is_none_or(|scope| within_reach(&token.scope, scope));
        reached && (self.admin || token.owner == self.user)
    }

    /// Their role on a repo; `None`: for them there is no such repo.
    ///
    /// # Errors
    /// Those of reading.
    pub fn role_on(&self, view: &View, repo: &RepoName) -> Result<Option<Role>, ReadError> {
        match self.by.scope().is_none_or(|scope| reaches(scope, repo)) {
            true => role_on(view, repo, self.user),
            false => Ok(None),
        }
    }

    /// The repos that they may read, by name.
    ///
    /// # Errors
    /// Those of reading.
    pub fn repos(&self, view: &View) -> Result<Vec<(RepoName, Role)>, ReadError> {
        let all = view.repos()?.into_iter();
        let seen = all.map(|repo| Ok((self.role_on(view, &repo.name)?, repo.name)));
        let seen = seen.collect::<Result<Vec<_>, ReadError>>()?;
        Ok(seen.into_iter().filter_map(|(role, name)| Some((name, role?))).collect())
    }

    /// What they came in with, to look it up again.
    pub fn credentials(&self) -> Credentials {
        match &self.by {
            Means::Token { hash, .. } => Credentials::Token(*hash),
            Means::Session { hash, .. } => Credentials::Session(*hash),
        }
    }
}

/// A user's role on a repo that exists.
///
/// # Errors
/// Those of reading.
pub fn role_on(view: &View, repo: &RepoName, user: UserId) -> Result<Option<Role>, ReadError> {
    match view.repo(repo)? {
        Some(_) => Ok(rights_on(view, repo, user)?.map(|rights| rights.role)),
        None => Ok(None),
    }
}

/// A user's rights on a repo, for the edge, the forge and the gate alike: the server's admins are admins everywhere.
///
/// # Errors
/// Those of reading.
pub fn rights_on(view: &View, repo: &RepoName, user: UserId) -> Result<Option<Rights>, ReadError> {
    match is_admin(view, user)? {
        true => Ok(Some(ADMIN)),
        false => view.right(repo, user),
    }
}

/// Everybody's rights on a repo. The disabled have none.
///
/// # Errors
/// Those of reading.
pub fn people_on(view: &View, repo: &RepoName) -> Result<BTreeMap<UserId, Rights>, ReadError> {
    let given = view.rights_on(repo)?.into_iter().map(|right| (right.holder, right.rights));
    let mut people = BTreeMap::new();
    for (user, rights) in given.chain(admins(view)?.into_iter().map(|user| (user, ADMIN))) {
        if view.user(user)?.is_some_and(|user| !user.disabled) {
            people.insert(user, rights);
        }
    }
    Ok(people)
}

/// What the server's admins may do on every repo.
const ADMIN: Rights = Rights { role: Role::Admin, authorised: true };

#[derive(Debug, Default, Serialize, Deserialize)]
struct Admins(Vec<UserId>);

/// The admins of the whole server.
///
/// # Errors
/// Those of reading.
pub fn admins(view: &View) -> Result<Vec<UserId>, ReadError> {
    let Some(json) = view.setting(ADMINS)? else { return Ok(Vec::new()) };
    let admins: Admins = serde_json::from_str(&json)
        .map_err(|why| ReadError::Damaged { why: format!("setting `{ADMINS}`: {why}") })?;
    Ok(admins.0)
}

/// Whether a user looks after the whole server.
///
/// # Errors
/// Those of reading.
pub fn is_admin(view: &View, user: UserId) -> Result<bool, ReadError> {
    Ok(admins(view)?.contains(&user))
}

/// Makes a user an admin of the whole server, or no longer.
///
/// # Errors
/// Those of the disk.
pub fn set_admin(tx: &mut Tx<'_>, user: UserId, admin: bool) -> Result<(), WriteError> {
    let mut all = admins(tx)?;
    all.retain(|other| *other != user);
    if admin {
        all.push(user);
    }
    let json = serde_json::to_string(&Admins(all)).expect("invariant: numbers can be written as JSON");
    tx.put_setting(ADMINS, &json)
}
