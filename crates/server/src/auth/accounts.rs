//! Users and tokens as they are made: by the API, and by `towpath init` before there is a server.

use towpath_core::act::Act;
use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::{Timestamp, UserId};
use towpath_core::policy::Actor;
use towpath_store::records::{Scope, Token};
use towpath_store::{Tx, WriteError};

use super::token;

/// Characters of a user's name.
const NAME_CHARS_MAX: usize = 39;
/// Characters of a token's label.
const LABEL_CHARS_MAX: usize = 100;
/// Tokens of one user that still work: nobody can look over more.
const TOKENS_MAX: usize = 200;

/// What a new token is for.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose.
    pub owner: UserId,
    /// In the owner's words.
    pub label: String,
    /// What it may do.
    pub scope: Scope,
    /// The number of the token that asks for it, if one does.
    pub made_by: Option<u64>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A token that was just made.
pub struct Issued {
    /// Its number.
    pub number: u64,
    /// The token itself: this is the only time that it is seen.
    pub text: String,
    /// Its first characters.
    pub prefix: String,
}

/// Adds a user. `password` is a hash of [`super::password::hash`].
///
/// # Errors
/// The name is taken or malformed, or those of the disk.
pub fn add_user(
    tx: &mut Tx<'_>,
    name: &str,
    password: Option<&str>,
    (by, at): (Option<&Actor>, Timestamp),
) -> Result<UserId, WriteError> {
    check_name(name)?;
    let user = tx.add_user(name, password, at)?;
    note(tx, by, at, format!("added user {user} `{name}`"));
    Ok(user)
}

/// Whether a user can have this name.
///
/// # Errors
/// Which names there can be.
pub fn check_name(name: &str) -> Result<(), WriteError> {
    if is_user_name(name) {
        return Ok(());
    }
    let why = "a user's name has 1 to 39 of a-z, 0-9, `-`, `_`, `.`, and begins with a letter or digit";
    Err(WriteError::Refused(Refusal::new(RefusalClass::Invalid, why)))
}

/// Makes a token.
///
/// # Errors
/// There is no such user, the label or scope is malformed, or those of the disk.
pub fn issue_token(
    tx: &mut Tx<'_>,
    new: NewToken,
    (by, at): (Option<&Actor>, Timestamp),
) -> Result<Issued, WriteError> {
    let refuse = |class, why: &str| Err(WriteError::Refused(Refusal::new(class, why)));
    let label_ok = |c: char| !towpath_core::ids::is_unprintable(c);
    if !new.label.chars().all(label_ok) || new.label.chars().count() > LABEL_CHARS_MAX {
        return refuse(RefusalClass::Invalid, "a token's label has at most 100 printable characters");
    }
    let known = |verb: &String| token::TokenVerb::ALL.iter().any(|known| known.word() == verb);
    if !new.scope.verbs.iter().flatten().all(known) {
        return refuse(RefusalClass::Invalid, "a token's verbs are of `read`, `push`, `act`, `administer`");
    }
    if new.expires_at.is_some_and(|end| end <= at) {
        return refuse(RefusalClass::Invalid, "the token would be over before it begins");
    }
    let working = tx.tokens_of(new.owner)?.iter().filter(|token| token.is_valid(at)).count();
    if working >= TOKENS_MAX {
        return refuse(RefusalClass::Conflict, "200 tokens of this user still work; revoke some first");
    }
    let minted = token::mint();
    let number = tx.add_token(&Token {
        number: 0,
        hash: minted.hash,
        prefix: minted.prefix.clone(),
        owner: new.owner,
        label: new.label,
        scope: new.scope,
        made_by: new.made_by,
        created_at: at,
        expires_at: new.expires_at,
        used_at: None,
        revoked_at: None,
    })?;
    note(tx, by, at, format!("made token {number} ({}…) for user {}", minted.prefix, new.owner));
    Ok(Issued { number, text: minted.text, prefix: minted.prefix })
}

/// Puts an act of administration on record, in the same transaction.
pub fn note(tx: &mut Tx<'_>, by: Option<&Actor>, at: Timestamp, what: String) {
    tx.act(&Act::Administered { by: by.cloned(), what }, at);
}

/// Whether somebody can have this name.
pub fn is_user_name(name: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(ok)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_plain() {
        for name in ["a", "ann", "release-bot", "x.y_z", "0day"] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "Ann", "-a", "a b", "a\n", "ä", "../x", &"a".repeat(40)] {
            assert!(!is_user_name(name), "{name}");
        }
    }
}
