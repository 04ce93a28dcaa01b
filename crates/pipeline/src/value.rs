//! How a value of each type is read from a node, refused, and described in the JSON Schema: one place for all three.

use std::collections::HashSet;
use std::fmt;

use serde_json::{Value as Json, json};
use towpath_core::glob::Glob;

use crate::diagnostic::{Place, Report, fault, shown};
use crate::nearest::nearest;
use crate::yaml::{Entry, Node, Tree};

/// Bytes in one `run` script or one variable. Linux allows 128 KiB in one argument or variable (`MAX_ARG_STRLEN`).
pub const TEXT_BYTES_MAX: usize = 100 * 1024;

/// A type that a value of the file can have.
pub(crate) trait Value: Sized {
    /// Completes "takes ...".
    const TAKES: &'static str;
    /// A value of the type, for hints.
    const EXAMPLE: &'static str;

    /// Reports everything that is wrong and answers what could be read.
    fn read(node: &Node, report: &mut Report) -> Option<Self>;

    /// The JSON Schema of the values that [`Value::read`] takes.
    fn schema() -> Json;

    /// Reports that something else stands here.
    fn refuse<T>(node: &Node, report: &mut Report) -> Option<T> {
        let found = match &node.value {
            Tree::Null => "nothing stands here".to_owned(),
            Tree::Scalar { text, plain: true } => format!("`{}` does not belong here", shown(text)),
            Tree::Scalar { text, .. } => format!("the text `\"{}\"` does not belong here", shown(text)),
            Tree::List(_) => "a list does not belong here".to_owned(),
            Tree::Map(_) => "a mapping does not belong here".to_owned(),
            Tree::Unknown => {
                report.counts_as_told();
                return None;
            }
        };
        let (why, hint) = match shown(report.key()).as_str() {
            "" => (
                format!("a pipeline file is {}", Self::TAKES),
                format!("write for example `{}`", Self::EXAMPLE),
            ),
            key => (
                format!("`{key}` takes {}", Self::TAKES),
                format!("write for example `{key}: {}`", Self::EXAMPLE),
            ),
        };
        report.error(node.place, fault(found, why, hint));
        None
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) place: Place,
    pub(crate) value: T,
}

impl<T: Value> At<T> {
    pub(crate) fn read(node: &Node, report: &mut Report) -> Option<At<T>> {
        T::read(node, report).map(|value| At { place: node.place, value })
    }
}

impl Node {
    /// The text of a scalar, quoted or not, as it is written.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Tree::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    fn plain(&self) -> Option<&str> {
        match &self.value {
            Tree::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; anything else is refused as not being a `T`.
    pub(crate) fn entries<T: Value>(&self, report: &mut Report) -> Option<&[Entry]> {
        match &self.value {
            Tree::Map(entries) => Some(entries),
            _ => T::refuse(self, report),
        }
    }
}

impl Value for bool {
    const TAKES: &'static str = "`true` or `false`";
    const EXAMPLE: &'static str = "true";

    fn read(node: &Node, report: &mut Report) -> Option<bool> {
        match node.plain() {
            Some("true" | "True" | "TRUE") => Some(true),
            Some("false" | "False" | "FALSE") => Some(false),
            _ => Self::refuse(node, report),
        }
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number within bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<const MIN: u32, const MAX: u32> Value for Count<MIN, MAX> {
    const TAKES: &'static str = "a whole number";
    const EXAMPLE: &'static str = "2";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.plain() else { return Self::refuse(node, report) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(count) if digits && (MIN..=MAX).contains(&count) => Some(Count(count)),
            _ => {
                let what = format!("`{}` is not a whole number from {MIN} to {MAX}", shown(text));
                let why = format!("`{}` takes no other value", shown(report.key()));
                report.error(node.place, fault(what, why, format!("write a number from {MIN} to {MAX}")));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// Text of any kind; what looks like a number or a boolean is kept as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for Text {
    const TAKES: &'static str = "text";
    const EXAMPLE: &'static str = "\"text\"";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.text() else { return Self::refuse(node, report) };
        check_text(text, node.place, report).then(|| Text(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// A shell script.
#[derive(Debug, Clone)]
pub(crate) struct Script(pub(crate) String);

impl Value for Script {
    const TAKES: &'static str = "one text, of one line or, after `|`, of several";
    const EXAMPLE: &'static str = "cargo test";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.text().filter(|text| !text.trim().is_empty()) else {
            return Self::refuse(node, report);
        };
        if text.contains("${{") {
            let why = "nothing is ever put into `run`, so the shell sees `${{` as it stands and stops at it";
            let hint =
                "use a variable of the shell: `$TOWPATH_MATRIX_<KEY>`, `$TOWPATH_SHARD`, or one of `env`";
            report.warn(node.place, fault("`${{` is not a template here", why, hint));
        }
        check_text(text, node.place, report).then(|| Script(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"], "pattern": "\\S" })
    }
}

fn check_text(text: &str, place: Place, report: &mut Report) -> bool {
    if text.len() > TEXT_BYTES_MAX {
        let why =
            format!("it has {} bytes; a program's argument or variable holds {TEXT_BYTES_MAX}", text.len());
        report.error(place, fault("this text is too long", why, "put it into a file of the repository"));
        return false;
    }
    if text.contains('\0') {
        let why = "a program's arguments and variables end at the first zero byte";
        report.error(place, fault("this text contains a zero byte", why, "delete the `\\0`"));
        return false;
    }
    true
}

/// A time span: `90s`, `15m`, `1h30m`, `2h`, at most a day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duration {
    pub(crate) seconds: u32,
}

/// The longest timeout or budget. Every wait has a deadline, and a run of more than a day is a service.
pub const DURATION_SECONDS_MAX: u32 = 24 * 60 * 60;

impl Value for Duration {
    const TAKES: &'static str =
        "a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`";
    const EXAMPLE: &'static str = "1h30m";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.text() else { return Self::refuse(node, report) };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let what = format!("`{}` has no unit", shown(text));
            let why = format!("`{}` takes {}", shown(report.key()), Self::TAKES);
            report.error(node.place, fault(what, why, format!("write `{0}m` or `{0}s`", shown(text))));
            return None;
        }
        match parse_duration(text) {
            Some(seconds @ 1..=DURATION_SECONDS_MAX) => Some(Duration { seconds }),
            _ => Self::refuse(node, report),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+h([0-9]+m)?([0-9]+s)?|[0-9]+m([0-9]+s)?|[0-9]+s)$" })
    }
}

fn parse_duration(text: &str) -> Option<u32> {
    let (mut seconds, mut rest) = (0u32, text);
    for (unit, worth) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((count, after)) = rest.split_once(unit) {
            let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            let count: u32 = digits.then(|| count.parse().ok()).flatten()?;
            seconds = seconds.checked_add(count.checked_mul(worth)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(seconds)
}

impl Value for Glob {
    const TAKES: &'static str = "a path below the repository's root, `*`, `?`, `[a-z]` and `**` allowed";
    const EXAMPLE: &'static str = "dist/*.whl";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.text() else { return Self::refuse(node, report) };
        match Glob::parse(text) {
            Ok(glob) => Some(glob),
            Err(error) => {
                let what = format!("`{}` is not a path in the work tree", shown(text));
                report.error(node.place, fault(what, error.to_string(), error.hint()));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "not": { "pattern": "^[/~]|(^|/)\\.\\.(/|$)|[\\\\{}]" } })
    }
}

/// One value, or a list of different ones.
#[derive(Debug, Clone)]
pub(crate) struct Many<T>(pub(crate) Vec<At<T>>);

impl<T: Value> Value for Many<T> {
    const TAKES: &'static str = T::TAKES;
    const EXAMPLE: &'static str = T::EXAMPLE;

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Tree::List(items) = &node.value else {
            return At::read(node, report).map(|one| Many(vec![one]));
        };
        let mut seen = HashSet::new();
        let mut values = Vec::new();
        for (at, item) in items.iter().enumerate() {
            if let Some(text) = item.text().filter(|text| !seen.insert((*text).to_owned())) {
                let what = format!("`{}` is listed twice", shown(text));
                report.error(item.place, fault(what, "each entry counts once", "delete one of the two"));
                continue;
            }
            values.extend(report.inside(&format!("[{at}]"), |report| At::read(item, report)));
        }
        Some(Many(values))
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema(), "uniqueItems": true }] })
    }
}

/// A mapping whose keys are names of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Named<K, V>(pub(crate) Vec<(At<K>, At<V>)>);

impl<K: Value, V: Value> Value for Named<K, V> {
    const TAKES: &'static str = "a mapping from names to values";
    const EXAMPLE: &'static str = "{ name: value }";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let entries = node.entries::<Self>(report)?;
        let mut values = Vec::new();
        for entry in entries {
            report.inside(&entry.key, |report| {
                let key = K::read(&entry.key_node(), report);
                let value = At::read(&entry.value, report);
                values.extend(
                    key.zip(value).map(|(key, value)| (At { place: entry.place, value: key }, value)),
                );
            });
        }
        Some(Named(values))
    }

    fn schema() -> Json {
        json!({ "type": "object", "propertyNames": K::schema(), "additionalProperties": V::schema() })
    }
}

/// Words of the file that stand for values, and words that come later.
macro_rules! choice {
    ($type:ty, $example:literal, { $($word:literal => $value:expr,)* } later { $($later:literal => $instead:literal,)* }) => {
        impl Value for $type {
            const TAKES: &'static str = concat!("one of", $(" `", $word, "`",)*);
            const EXAMPLE: &'static str = $example;

            fn read(node: &Node, report: &mut Report) -> Option<Self> {
                match node.text() {
                    $(Some($word) => return Some($value),)*
                    _ => {}
                }
                match crate::value::choice_word(node) {
                    $(Some($later) => report.error(node.place, crate::value::comes_later($later, $instead)),)*
                    _ => crate::value::unknown_word(node, [$($word),*], Self::TAKES, report),
                }
                None
            }

            fn schema() -> Json {
                json!({ "enum": [$($word),*] })
            }
        }
    };
}
pub(crate) use choice;

/// The word of a choice: a scalar, or the only key of a mapping, as in `{ schedule: "0 2 * * *" }`.
pub(crate) fn choice_word(node: &Node) -> Option<&str> {
    match &node.value {
        Tree::Map(entries) if entries.len() == 1 => Some(&entries[0].key),
        _ => node.text(),
    }
}

/// Reports a word that is none of the choices.
pub(crate) fn unknown_word<const N: usize>(
    node: &Node,
    words: [&'static str; N],
    takes: &str,
    report: &mut Report,
) {
    if matches!(node.value, Tree::Unknown) {
        report.counts_as_told();
        return;
    }
    let (what, near) = match node.text() {
        Some(word) => (format!("`{}` is not known here", shown(word)), nearest(word, words)),
        None => ("one word belongs here".to_owned(), None),
    };
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of: {}", words.join(", ")),
    };
    let why = format!("`{}` takes {takes}", shown(report.key()));
    report.error(node.place, fault(what, why, hint));
}

/// The finding for a word that a later version will understand.
pub(crate) fn comes_later(word: &str, instead: &str) -> crate::diagnostic::Fault {
    let why = "this version cannot do it, and leaving it out without a word would be a trap";
    fault(format!("`{word}` comes in a later version"), why, instead)
}

/// The finding for a key that no version knows.
pub(crate) fn unknown_key(entry: &Entry, known: &[&str], report: &mut Report) {
    if report.only_counts() {
        return;
    }
    let hint = match nearest(&entry.key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    let why = "a key that nothing reads would change nothing, unseen";
    report.error(entry.place, fault(format!("unknown key `{}`", shown(&entry.key)), why, hint));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_in_order() {
        for (text, seconds) in [("15m", 900), ("2h", 7200), ("90s", 90), ("1h30m", 5400), ("1h0m1s", 3601)] {
            assert_eq!(parse_duration(text), Some(seconds), "{text}");
        }
        for text in ["", "15", "m", "1m1h", "1h 30m", "1.5h", "-1s", "1d", "99999999999h", "1h1h", "1m1"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
