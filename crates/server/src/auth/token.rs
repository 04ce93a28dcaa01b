//! Tokens for Git and the API: 256 random bits, shown once, kept as a hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use towpath_core::ids::{Digest, RepoName};
use towpath_store::records::Scope;

use super::hex;

/// What every token begins with, so that scanners for leaked secrets know one when they see it.
pub const PREFIX: &str = "twp_";
/// Random bytes of a token. Source: trust S8.
const RANDOM_BYTES: usize = 32;
/// Characters by which a token is recognised in lists.
const SHOWN_CHARS: usize = 10;
/// Characters of a presented token that are looked at; ours have 68.
const PRESENTED_CHARS_MAX: usize = 200;

/// A new token. Its text is shown once and never stored.
pub struct Minted {
    /// The token.
    pub text: String,
    /// What is stored of it.
    pub hash: Digest,
    /// Its first characters.
    pub prefix: String,
}

/// Makes a token.
pub fn mint() -> Minted {
    let text = format!("{PREFIX}{}", hex(&crate::random::bytes::<RANDOM_BYTES>()));
    Minted { hash: Digest::of(text.as_bytes()), prefix: text[..SHOWN_CHARS].to_owned(), text }
}

/// The hash of the token in an `Authorization` header: `Bearer <token>`, or `Basic` with the token as the password, as
/// Git sends it. The name that comes with it decides nothing.
pub fn presented(header: &str) -> Option<Digest> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    let token = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.to_owned(),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            pair.split_once(':')?.1.to_owned()
        }
        _ => return None,
    };
    let plausible = token.starts_with(PREFIX) && token.len() <= PRESENTED_CHARS_MAX;
    plausible.then(|| Digest::of(token.as_bytes()))
}

/// What a token may be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenVerb {
    /// Look, fetch.
    Read,
    /// Push.
    Push,
    /// Say and do something about changes, runs and branches.
    Act,
    /// Settings, people, secrets, tokens.
    Administer,
}

impl TokenVerb {
    /// Every verb.
    pub const ALL: [TokenVerb; 4] = [TokenVerb::Read, TokenVerb::Push, TokenVerb::Act, TokenVerb::Administer];

    /// As it stands in a scope.
    pub fn word(self) -> &'static str {
        match self {
            TokenVerb::Read => "read",
            TokenVerb::Push => "push",
            TokenVerb::Act => "act",
            TokenVerb::Administer => "administer",
        }
    }

    /// Whether a scope holds it.
    pub fn allowed_by(self, scope: &Scope) -> bool {
        scope.verbs.as_ref().is_none_or(|verbs| verbs.iter().any(|verb| verb == self.word()))
    }
}

/// Whether a scope reaches a repo.
pub fn reaches(scope: &Scope, repo: &RepoName) -> bool {
    scope.repos.as_ref().is_none_or(|repos| repos.contains(repo))
}

/// Whether everything that `inner` allows is allowed by `outer` too: a token never makes a stronger one.
pub fn within(inner: &Scope, outer: &Scope) -> bool {
    within_reach(inner, outer) && is_part(&inner.verbs, &outer.verbs)
}

/// Whether `outer` reaches every repo that `inner` reaches.
pub fn within_reach(inner: &Scope, outer: &Scope) -> bool {
    is_part(&inner.repos, &outer.repos)
}

/// Of two lists, where the absent one holds everything.
fn is_part<T: PartialEq>(inner: &Option<Vec<T>>, outer: &Option<Vec<T>>) -> bool {
    match (inner, outer) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner.iter().all(|one| outer.contains(one)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_both_forms_and_nothing_else_is() {
        let minted = mint();
        assert_eq!(presented(&format!("Bearer {}", minted.text)), Some(minted.hash));
        let basic = STANDARD.encode(format!("ann:{}", minted.text));
        assert_eq!(presented(&format!("basic {basic}")), Some(minted.hash));
        let odd = [
            "",
            "Bearer",
            "Bearer x",
            "Basic !!",
            "Digest twp_1",
            &format!("Bearer {PREFIX}{}", "a".repeat(300)),
        ];
        for header in odd {
            assert_eq!(presented(header), None, "{header}");
        }
    }

    #[test]
    fn a_scope_never_grows() {
        let scope = |repos: Option<&[&str]>, verbs: Option<&[&str]>| Scope {
            repos: repos.map(|names| names.iter().map(|name| name.parse().unwrap()).collect()),
            verbs: verbs.map(|verbs| verbs.iter().map(|verb| (*verb).to_owned()).collect()),
        };
        let narrow = scope(Some(&["web"]), Some(&["read"]));
        assert!(within(&narrow, &scope(None, None)));
        assert!(within(&narrow, &scope(Some(&["web", "api"]), Some(&["read", "act"]))));
        assert!(!within(&scope(None, Some(&["read"])), &narrow));
        assert!(!within(&scope(Some(&["web"]), Some(&["read", "push"])), &narrow));
        assert!(!reaches(&narrow, &"api".parse().unwrap()));
        assert!(!TokenVerb::Push.allowed_by(&narrow));
    }
}
