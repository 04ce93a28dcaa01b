//! Logins of browsers: a cookie with 256 random bits, kept as a hash; a new one at every login (F10). One that a token
//! opened holds no longer than that token.

use towpath_core::ids::{Digest, Timestamp, UserId};
use towpath_store::records::Session;
use towpath_store::{Tx, WriteError};

use super::hex;
use super::rights::{Means, Person};

/// Seconds of a session: a working week, so that nobody logs in more than once in it.
pub const SESSION_SECONDS: u32 = 7 * 24 * 3600;
/// Random bytes of a cookie and of a form's token. Source: trust S8.
const RANDOM_BYTES: usize = 32;
/// Characters of a cookie that are looked at; ours have 64.
const COOKIE_CHARS_MAX: usize = 128;

/// Who logs in, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Login {
    owner: UserId,
    /// The token that it is by, and when that ends.
    token: Option<(Digest, Option<Timestamp>)>,
}

impl Login {
    /// With a name and a password.
    pub fn by_password(owner: UserId) -> Login {
        Login { owner, token: None }
    }

    /// With the token by which somebody is known; `None`: it is by no token that they are.
    pub fn by(person: Person) -> Option<Login> {
        match person.by {
            Means::Token { hash, expires_at, .. } => {
                Some(Login { owner: person.user, token: Some((hash, expires_at)) })
            }
            Means::Session { .. } => None,
        }
    }
}

/// A login that just began.
pub struct Begun {
    /// What the browser keeps; shown once and never stored.
    pub cookie: String,
    /// What is stored.
    pub session: Session,
}

/// Makes a session. Nothing is stored yet.
pub fn begin(login: Login, now: Timestamp) -> Begun {
    let end = now.plus_seconds(SESSION_SECONDS);
    let token_ends = login.token.and_then(|(_, end)| end);
    let cookie = hex(&crate::random::bytes::<RANDOM_BYTES>());
    let session = Session {
        hash: Digest::of(cookie.as_bytes()),
        csrf: hex(&crate::random::bytes::<RANDOM_BYTES>()),
        owner: login.owner,
        token: login.token.map(|(hash, _)| hash),
        created_at: now,
        expires_at: token_ends.map_or(end, |token_ends| token_ends.min(end)),
    };
    Begun { cookie, session }
}

impl Begun {
    /// The `Set-Cookie` header that begins it.
    pub fn set_cookie(&self, secure: bool) -> String {
        let Session { created_at, expires_at, .. } = self.session;
        let seconds = expires_at.millis_since(created_at) / 1000;
        format!("{}={}; {}; Max-Age={seconds}", cookie_name(secure), self.cookie, attributes(secure))
    }
}

/// Stores a session in the place of the one that the browser had before.
///
/// # Errors
/// Those of the disk.
pub fn store(tx: &mut Tx<'_>, session: &Session, before: Option<Digest>) -> Result<(), WriteError> {
    if let Some(before) = before {
        tx.remove_session(&before)?;
    }
    tx.remove_expired_sessions(session.created_at)?;
    tx.add_session(session)
}

/// How the cookie is called: under TLS its name itself forbids other hosts and plain connections to set it.
pub fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-towpath" } else { "towpath_session" }
}

/// The hash of the session cookie in a `Cookie` header.
pub fn presented(header: &str, secure: bool) -> Option<Digest> {
    let name = cookie_name(secure);
    let value = header.split(';').find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })?;
    (!value.is_empty() && value.len() <= COOKIE_CHARS_MAX).then(|| Digest::of(value.as_bytes()))
}

/// The `Set-Cookie` header that ends one.
pub fn clear_cookie(secure: bool) -> String {
    format!("{}=; {}; Max-Age=0", cookie_name(secure), attributes(secure))
}

fn attributes(secure: bool) -> &'static str {
    if secure { "Path=/; HttpOnly; SameSite=Lax; Secure" } else { "Path=/; HttpOnly; SameSite=Lax" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_only_under_its_own_name() {
        let begun = begin(Login::by_password(UserId(1)), Timestamp(0));
        let header = format!("theme=dark; towpath_session={}; x=y", begun.cookie);
        assert_eq!(presented(&header, false), Some(begun.session.hash));
        assert_eq!(presented(&header, true), None);
        assert_eq!(presented("towpath_session=", false), None);
        assert_eq!(presented(&format!("towpath_session={}", "a".repeat(200)), false), None);
    }

    #[test]
    fn cookies_are_closed_to_scripts_and_other_sites() {
        let begun = begin(Login::by_password(UserId(1)), Timestamp(0));
        let plain = begun.set_cookie(false);
        assert!(plain.contains("HttpOnly") && plain.contains("SameSite=Lax") && !plain.contains("Secure"));
        let (secure, name) = (begun.set_cookie(true), format!("__Host-towpath={}; Path=/;", begun.cookie));
        assert!(secure.starts_with(&name) && secure.contains("Secure"), "{secure}");
        assert!(clear_cookie(true).ends_with("Max-Age=0"));
    }

    #[test]
    fn a_session_ends_with_the_token_that_opened_it_or_before() {
        let seconds = |token_ends: Option<u32>| {
            let ends = token_ends.map(|seconds| Timestamp(0).plus_seconds(seconds));
            let login = Login { owner: UserId(1), token: Some((Digest::of(b"t"), ends)) };
            let begun = begin(login, Timestamp(0));
            let max_age = format!("Max-Age={}", begun.session.expires_at.0 / 1000);
            assert!(begun.set_cookie(true).ends_with(&max_age), "{}", begun.set_cookie(true));
            begun.session.expires_at.0 / 1000
        };
        let whole = i64::from(SESSION_SECONDS);
        assert_eq!([Some(60), Some(2 * SESSION_SECONDS), None].map(seconds), [60, whole, whole]);
    }
}
