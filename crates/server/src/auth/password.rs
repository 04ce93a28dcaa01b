//! Passwords, kept as argon2id hashes.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};

/// Bytes of a password at least. Source: NIST SP 800-63B, 8 characters.
pub const BYTES_MIN: usize = 8;
/// Bytes of a password at most: hashing a novel is work for nothing.
pub const BYTES_MAX: usize = 1024;

/// Bytes of salt. Source: RFC 9106, 3.1.
const SALT_BYTES: usize = 16;

/// Why a password cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {BYTES_MIN} to {BYTES_MAX} bytes")]
pub struct UnfitPassword;

/// Checked when there is no such user, so that the time of an answer does not say so.
static NOBODYS: LazyLock<String> = LazyLock::new(|| {
    let random = super::hex(&crate::random::bytes::<SALT_BYTES>());
    hash(&random).expect("invariant: 32 hex digits are a fit password")
});

/// The hash to store, in PHC form. Takes about 20 ms and 19 MiB on purpose: not for async code.
///
/// # Errors
/// The password is too short or too long.
pub fn hash(password: &str) -> Result<String, UnfitPassword> {
    if !(BYTES_MIN..=BYTES_MAX).contains(&password.len()) {
        return Err(UnfitPassword);
    }
    let salt = crate::random::bytes::<SALT_BYTES>();
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .expect("invariant: argon2's own parameters and a salt of 16 bytes are valid");
    Ok(hash.to_string())
}

/// Whether a password is the one that was hashed; `None`: there is nobody, or nobody with a password.
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    if password.len() > BYTES_MAX {
        return false;
    }
    let matches = |stored: &str| {
        PasswordHash::new(stored)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    };
    match stored {
        Some(stored) => matches(stored),
        None => {
            matches(&NOBODYS);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_passes() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("correct horse", Some(&stored)));
        assert!(!verify("correct hors", Some(&stored)));
        assert!(!verify("correct horse", None));
        assert!(!verify("correct horse", Some("damaged")));
        assert_eq!(hash("short"), Err(UnfitPassword));
    }
}
