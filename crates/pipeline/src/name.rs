//! Names of things that a definition declares. Each kind has its alphabet, from which both the check and the schema's
//! pattern come; all are safe as a file name, as a variable and on a page.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::diagnostic::{Report, fault, shown};
use crate::value::Value;
use crate::yaml::Node;

/// What names of one kind are made of, written as in a regular expression's class.
struct Alphabet {
    first: &'static str,
    rest: &'static str,
    chars_max: usize,
    never_begins: Option<&'static str>,
}

impl Alphabet {
    fn allows(&self, text: &str) -> bool {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|byte| in_class(byte, self.first))
            && bytes.all(|byte| in_class(byte, self.rest))
            && text.len() <= self.chars_max
            && !text.contains("..")
            && !self.never_begins.is_some_and(|prefix| text.starts_with(prefix))
    }

    /// For the schema: what the classes alone do not rule out.
    fn never(&self) -> String {
        match self.never_begins {
            Some(prefix) => format!("\\.\\.|^{prefix}"),
            None => "\\.\\.".to_owned(),
        }
    }

    fn pattern(&self) -> String {
        format!("^[{}][{}]{{0,{}}}$", self.first, self.rest, self.chars_max - 1)
    }
}

fn in_class(byte: u8, class: &str) -> bool {
    let mut rest = class.as_bytes();
    while let [low, after @ ..] = rest {
        let (high, after) = match after {
            [b'-', high, after @ ..] => (high, after),
            after => (low, after),
        };
        if (low..=high).contains(&&byte) {
            return true;
        }
        rest = after;
    }
    false
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $example:literal, $rule:literal, $alphabet:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $type(Arc<str>);

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Value for $type {
            const TAKES: &'static str = concat!("the name of ", $kind, ": ", $rule);
            const EXAMPLE: &'static str = $example;

            fn read(node: &Node, report: &mut Report) -> Option<Self> {
                let Some(text) = node.text() else { return Self::refuse(node, report) };
                if $alphabet.allows(text) {
                    return Some($type(text.into()));
                }
                let what = format!("`{}` cannot be the name of {}", shown(text), $kind);
                report.error(node.place, fault(what, concat!("such a name has ", $rule), "choose another name"));
                None
            }

            fn schema() -> Json {
                json!({ "type": "string", "pattern": $alphabet.pattern(), "not": { "pattern": $alphabet.never() } })
            }
        }
    };
}

/// A job's whole name has at most 200 characters, of which its cell and shard take up to 100 and `@target` 7.
const JOB: Alphabet =
    Alphabet { first: "A-Za-z0-9", rest: "A-Za-z0-9._-", chars_max: 80, never_begins: None };
const FILE: Alphabet =
    Alphabet { first: "A-Za-z0-9", rest: "A-Za-z0-9._-", chars_max: 64, never_begins: None };
const VARIABLE: Alphabet =
    Alphabet { first: "A-Za-z_", rest: "A-Za-z0-9_", chars_max: 128, never_begins: Some("TOWPATH") };
const MATRIX: Alphabet = Alphabet { first: "a-z", rest: "a-z0-9_", chars_max: 32, never_begins: None };

name! {
    /// A key under `jobs`.
    JobKey, "a job", "[wheel]",
    "1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`", JOB
}
name! {
    /// An output of a job: a folder's name under `$TOWPATH_INPUTS/<job>/`.
    OutputKey, "an output", "{ dist: dist/** }",
    "1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`", FILE
}
name! {
    /// A secret of the server: a file's name.
    SecretKey, "a secret", "[registry-token]",
    "1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`", FILE
}
name! {
    /// An environment of the server.
    EnvironmentKey, "an environment", "staging",
    "1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`", FILE
}
name! {
    /// A variable of a job. Towpath's own carry facts that a job may rely on (attack A09).
    VariableKey, "a variable", "RUST_BACKTRACE",
    "1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH`, which only Towpath sets", VARIABLE
}
name! {
    /// A key of a matrix, seen by the job as `TOWPATH_MATRIX_<KEY>`.
    MatrixKey, "a matrix key", "python", "1 to 32 lower-case letters, digits and `_`, beginning with a letter", MATRIX
}

/// What the name of a variable of a job has to be like; `None` if `name` is.
pub fn variable_fault(name: &str) -> Option<&'static str> {
    (!VARIABLE.allows(name)).then_some(VariableKey::TAKES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets_mean_what_their_patterns_say() {
        let allowed = |text: &str| JOB.allows(text);
        assert!(["a", "0", "unit-2", "a.b_c", &"a".repeat(80)].iter().all(|text| allowed(text)));
        let refused = ["", "-a", ".a", "a b", "a/b", "a@target", "a[1]", "ü", "a..b", &"a".repeat(81)];
        assert!(!refused.iter().any(|text| allowed(text)));
        assert_eq!(JOB.pattern(), "^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$");
        assert!(!VARIABLE.allows("TOWPATH_X") && VARIABLE.allows("MY_TOWPATH"));
        assert_eq!(VARIABLE.never(), "\\.\\.|^TOWPATH");
        assert!(VARIABLE.allows("_A1") && !VARIABLE.allows("1A") && !VARIABLE.allows("A-B"));
    }
}
