//! Names of things. Each is a newtype, so that a tree can never be passed for a commit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// Why a text is not a valid name or id. The message says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct IdError {
    /// What the text should have been, in words.
    pub kind: &'static str,
    /// The offending text, cut to a printable length.
    pub text: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl IdError {
    pub(crate) fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        let text = text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
        IdError { kind, text, rule }
    }
}

/// Ids are printed thousands of times a second: a formatter for each byte would be a tenth of a turn (measured).
fn hex_digits(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; 2 * $bytes];
                hex_digits(&self.0, &mut digits);
                f.write_str(str::from_utf8(&digits).expect("invariant: digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $bytes];
                match parse_hex(text, &mut bytes) {
                    true => Ok($name(bytes)),
                    false => Err(IdError::new($kind, text, concat!("it is ", stringify!($bytes), " bytes in lower-case hex"))),
                }
            }
        }

        impl $name {
            /// The first twelve hex digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parse_visitor(deserializer)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $valid:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                match $valid(text) {
                    true => Ok($name(text.into())),
                    false => Err(IdError::new($kind, text, $rule)),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parse_visitor(deserializer)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map($name).map_err(|_| IdError::new($kind, text, "it is a whole number"))
            }
        }
    };
}

hex_id! {
    /// A Git commit (SHA-1, as Git's default object format has it).
    CommitId, 20, "commit id"
}
hex_id! {
    /// A Git tree.
    TreeId, 20, "tree id"
}
hex_id! {
    /// A SHA-256 over bytes that the context names.
    Digest, 32, "SHA-256 digest"
}
hex_id! {
    /// A candidate: the hash of the [`crate::candidate::CandidateSpec`] that makes it.
    CandidateId, 20, "candidate id"
}
hex_id! {
    /// One grant of one attempt of one job to one executor. Never used twice, also not after a restore.
    LeaseId, 16, "lease id"
}

number_id! {
    /// A change's number within its repo, from 1.
    ChangeNumber, "change number"
}
number_id! {
    /// A person or robot, by the forge's own number for them; never by a Git author field.
    UserId, "user number"
}
number_id! {
    /// Which server process wrote something. A higher epoch fences all lower ones.
    Epoch, "epoch"
}

text_id! {
    /// A repo's name on this server: `towpath`, `web.api`.
    RepoName, "repo name", is_slug, "1 to 64 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit, not ending in `.git` or `.lock`"
}
text_id! {
    /// A branch's name without `refs/heads/`.
    BranchName, "branch name", is_branch_name, "at most 200 bytes, printable, no `..`, `@{`, spaces or `~^:?*[\\`, no part that begins with `.` or ends in `.lock`, not hex like a commit id"
}
text_id! {
    /// An environment's name within its repo: `staging`.
    EnvironmentName, "environment name", is_environment_name, "1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`"
}
text_id! {
    /// A job's name within its pipeline, shards and matrix included: `unit`, `unit[3/4]`, `integration[salt=git]`.
    JobName, "job name", is_job_name, "1 to 200 printable characters without `/`, `,` or spaces"
}

/// A gate: one queue of one repo. Shown as `repo/branch`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GateId {
    /// The repo.
    pub repo: RepoName,
    /// The watched branch whose queue this is.
    pub branch: BranchName,
}

impl fmt::Display for GateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repo, self.branch)
    }
}

impl FromStr for GateId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (repo, branch) =
            text.split_once('/').ok_or_else(|| IdError::new("gate", text, "it is written repo/branch"))?;
        Ok(GateId { repo: repo.parse()?, branch: branch.parse()? })
    }
}

/// A run: the gate that started it and its number there, from 1. Shown as `repo/branch/12`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RunId {
    /// The gate that started the run.
    pub gate: GateId,
    /// Counts the runs of that gate.
    pub number: u64,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gate, self.number)
    }
}

impl FromStr for RunId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::new("run", text, "it is written repo/branch/number");
        let (gate, number) = text.rsplit_once('/').ok_or_else(wrong)?;
        Ok(RunId { gate: gate.parse()?, number: number.parse().map_err(|_| wrong())? })
    }
}

/// An environment: a place to which one repo deploys. Shown as `repo/environment`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EnvironmentId {
    /// The repo.
    pub repo: RepoName,
    /// The name that its definition gives the place.
    pub name: EnvironmentName,
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repo, self.name)
    }
}

impl FromStr for EnvironmentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::new("environment", text, "it is written repo/environment");
        let (repo, name) = text.split_once('/').ok_or_else(wrong)?;
        Ok(EnvironmentId { repo: repo.parse()?, name: name.parse()? })
    }
}

/// Milliseconds since 1970-01-01T00:00Z. Stored at intake; `core` never reads a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant and `seconds` more.
    pub fn plus_seconds(self, seconds: u32) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::from(seconds) * 1000))
    }

    /// Milliseconds from `earlier` to this instant; 0 where the clock went backwards.
    pub fn millis_since(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl Digest {
    /// The SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The SHA-256 over several fields, each with its length in front, so that no two lists of fields are alike.
    pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hasher = Sha256::new();
        for field in fields {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        Digest(hasher.finalize().into())
    }

    /// The first `N` bytes, for ids that are shorter than a digest.
    pub fn prefix<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|at| self.0[at])
    }
}

fn parse_hex(text: &str, out: &mut [u8]) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    text.len() == out.len() * 2
        && out.iter_mut().zip(text.chunks(2)).all(|(byte, pair)| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => {
                *byte = high << 4 | low;
                true
            }
            _ => false,
        })
}

/// Deserializes anything that has a text form, borrowed or owned.
pub(crate) fn parse_visitor<'de, D: Deserializer<'de>, T: FromStr<Err = IdError>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Parse<T>(std::marker::PhantomData<T>);
    impl<T: FromStr<Err = IdError>> de::Visitor<'_> for Parse<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name or id as text")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Parse(std::marker::PhantomData))
}

fn is_slug(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=64).contains(&text.len())
        && text.bytes().all(ok)
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && !text.contains("..")
        && !text.ends_with(".git")
        && !text.ends_with(".lock")
}

fn is_environment_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len())
        && text.bytes().all(ok)
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && !text.contains("..")
}

/// Git's own rules (`git check-ref-format`) and ours (trust S4): nothing hex-like, no control, bidi or zero-width characters.
fn is_branch_name(text: &str) -> bool {
    let part_ok = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let hex_like = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (1..=200).contains(&text.len())
        && text.split('/').all(part_ok)
        && !text.chars().any(|c| is_unprintable(c) || " ~^:?*[\\<>\"'`$;|&".contains(c))
        && !text.contains("..")
        && !text.contains("@{")
        && !text.starts_with('-')
        && !text.ends_with('.')
        && text != "@"
        && text != "HEAD"
        && !hex_like
}

fn is_job_name(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && !text.chars().any(|c| is_unprintable(c) || " ,".contains(c))
        && !text.contains("..")
        && !text.contains('/')
        || is_shard(text)
}

/// `unit[3/4]`: the only place where a job's name has a slash.
fn is_shard(text: &str) -> bool {
    let Some((name, rest)) = text.split_once('[') else { return false };
    let Some(rest) = rest.strip_suffix(']') else { return false };
    is_job_name(name)
        && rest.len() <= 100
        && !rest.chars().any(|c| is_unprintable(c) || " []".contains(c))
        && !rest.contains("..")
}

/// Control characters, and those that change the direction of text or have no width.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: FromStr<Err = IdError>>(texts: &[&str]) -> Vec<String> {
        texts.iter().filter(|text| text.parse::<T>().is_ok()).map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hostile_branch_names_are_refused() {
        let long = "a".repeat(201);
        let hex = "0123456789abcdef0123456789abcdef01234567";
        let names = [
            "",
            "a..b",
            "a\nb",
            "a$(id)",
            "a<img",
            "a\u{202e}b",
            ".a",
            "a/.b",
            "a.lock",
            "a/",
            "/a",
            "-a",
            "HEAD",
            "a b",
            "a~1",
            "@",
            "a@{1}",
            hex,
            &long,
        ];
        assert_eq!(refused::<BranchName>(&names), Vec::<String>::new());
        assert!("feature/über-42".parse::<BranchName>().is_ok());
    }

    #[test]
    fn shards_and_matrix_cells_are_job_names() {
        for name in ["unit", "unit[3/4]", "integration[salt=git]", "a.b-c_d"] {
            assert!(name.parse::<JobName>().is_ok(), "{name}");
        }
        assert_eq!(refused::<JobName>(&["", "a/b", "../x", "a b", "a[..]", "a\n"]), Vec::<String>::new());
    }

    #[test]
    fn ids_survive_their_text_form() {
        let run: RunId = "demo/release/1.0/12".parse().unwrap();
        assert_eq!((run.gate.branch.as_str(), run.number), ("release/1.0", 12));
        assert_eq!(run.to_string(), "demo/release/1.0/12");
        let digest = Digest::of(b"x");
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        assert!("ABCD".parse::<CommitId>().is_err());
        let environment: EnvironmentId = "demo/Live.eu-1".parse().unwrap();
        assert_eq!(
            (environment.name.as_str(), environment.to_string()),
            ("Live.eu-1", "demo/Live.eu-1".into())
        );
        assert_eq!(
            refused::<EnvironmentName>(&["", "-a", "a/b", "a..b", "a b", &"a".repeat(65)]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn fields_do_not_run_together() {
        assert_ne!(Digest::of_fields([&b"ab"[..], b"c"]), Digest::of_fields([&b"a"[..], b"bc"]));
    }
}
