//! Logins of browsers: a cookie with 256 random bits, kept as a hash; a new one at every login (F10).

use towpath_core::ids::{Digest, Timestamp, UserId};
use towpath_store::records::Session;
use towpath_store::{Tx, WriteError};

use super::hex;

/// Seconds of a session: a working week, so that nobody logs in more than once in it.
pub const SESSION_SECONDS: u32 = 7 * 24 * 3600;
/// Random bytes of a cookie and of a form's token. Source: trust S8.
const RANDOM_BYTES: usize = 32;
/// Characters of a cookie that are looked at; ours have 64.
const COOKIE_CHARS_MAX: usize = 128;

/// A login that just began.
pub struct Begun {
    /// What the browser keeps; shown once and never stored.
    pub cookie: String,
    /// What is stored.
    pub session: Session,
}

/// Makes a session. Nothing is stored yet.
pub fn begin(owner: UserId, now: Timestamp) -> Begun {
    let cookie = hex(&crate::random::bytes::<RANDOM_BYTES>());
    let session = Session {
        hash: Digest::of(cookie.as_bytes()),
        csrf: hex(&crate::random::bytes::<RANDOM_BYTES>()),
        owner,
        created_at: now,
        expires_at: now.plus_seconds(SESSION_SECONDS),
    };
    Begun { cookie, session }
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

/// The `Set-Cookie` header that begins a session.
pub fn set_cookie(cookie: &str, secure: bool) -> String {
    format!("{}={cookie}; {}; Max-Age={SESSION_SECONDS}", cookie_name(secure), attributes(secure))
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
        let begun = begin(UserId(1), Timestamp(0));
        let header = format!("theme=dark; towpath_session={}; x=y", begun.cookie);
        assert_eq!(presented(&header, false), Some(begun.session.hash));
        assert_eq!(presented(&header, true), None);
        assert_eq!(presented("towpath_session=", false), None);
        assert_eq!(presented(&format!("towpath_session={}", "a".repeat(200)), false), None);
    }

    #[test]
    fn cookies_are_closed_to_scripts_and_other_sites() {
        let plain = set_cookie("c", false);
        assert!(plain.contains("HttpOnly") && plain.contains("SameSite=Lax") && !plain.contains("Secure"));
        let secure = set_cookie("c", true);
        assert!(secure.starts_with("__Host-towpath=c; Path=/;") && secure.contains("Secure"));
        assert!(clear_cookie(true).ends_with("Max-Age=0"));
    }
}
