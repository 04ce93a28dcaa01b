//! Lives of the data: a restore begins another one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Told apart by this from every other life of the same data: part of each lease and effect token, named by each
/// checkpoint, and new after a restore. In text it has 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Incarnation(pub [u8; 16]);

/// A text names no life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a life has 32 hex digits")]
pub struct NoIncarnation;

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Incarnation {
    type Err = NoIncarnation;
    fn from_str(text: &str) -> Result<Incarnation, NoIncarnation> {
        let number = u128::from_str_radix(text, 16).map_err(|_| NoIncarnation)?;
        let life = Incarnation(number.to_be_bytes());
        // There is one way to write it.
        if life.to_string() == text { Ok(life) } else { Err(NoIncarnation) }
    }
}

impl TryFrom<String> for Incarnation {
    type Error = NoIncarnation;
    fn try_from(text: String) -> Result<Incarnation, NoIncarnation> {
        text.parse()
    }
}

impl From<Incarnation> for String {
    fn from(life: Incarnation) -> String {
        life.to_string()
    }
}
