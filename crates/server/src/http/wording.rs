//! What is wrong with JSON that somebody sent, in words of ours: where it is, what is there, and what belongs there.

use serde::de::DeserializeOwned;

use super::objects::Objects;

/// Reads JSON; a struct from an object alone.
///
/// # Errors
/// What is wrong with it, as a sentence without a point.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Objects(&mut reader)).map_err(|error| {
        let path = error.path().to_string();
        said(&path, error.inner())
    })?;
    reader.end().map_err(|error| said(".", &error))?;
    Ok(value)
}

/// The same of a value that is JSON already.
///
/// # Errors
/// As [`read`] has them.
pub fn taken<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, String> {
    read(value.to_string().as_bytes())
}

fn said(path: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return format!("it is not JSON: {text}");
    }
    // Whoever sent it by a command has never seen its lines.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    // A field that is not known is named by the sentence itself.
    let is_unknown = text.starts_with("unknown field ");
    let parent = path.rsplit_once('.').map_or(".", |(parent, _)| parent);
    match if is_unknown { parent } else { path } {
        "." | "?" | "" => in_words(text),
        path => format!("at `{path}`, {}", in_words(text)),
    }
}

/// The sentences of `serde` and `serde_json`, told in ours; one that is not known here as it is.
fn in_words(text: &str) -> String {
    if let Some(field) = text.strip_prefix("missing field ") {
        return format!("{field} is missing");
    }
    if let Some((field, rest)) = text.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) {
        return format!("there is no {field}{}", choice(rest));
    }
    if let Some((word, rest)) = text.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", ")) {
        return format!("{word} is none of what can stand there{}", choice(rest));
    }
    let wrong = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    match wrong.and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => format!("there is {}, where {} belongs", thing(found), kind(expected)),
        None => text.to_owned(),
    }
}

fn choice(expected: &str) -> String {
    let known = expected.strip_prefix("expected one of ").or_else(|| expected.strip_prefix("expected "));
    known.map_or(String::new(), |known| format!("; there is {known}"))
}

fn thing(found: &str) -> String {
    let words = [("string ", "the text "), ("integer ", "the number "), ("floating point ", "the number ")];
    let known =
        words.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", found.strip_prefix(theirs)?)));
    known.unwrap_or_else(|| match found {
        "null" => "nothing".into(),
        "map" => "an object".into(),
        "sequence" => "a list".into(),
        found => found.replace("boolean", "the word"),
    })
}

fn kind(expected: &str) -> String {
    match expected {
        "a string" => "a text".into(),
        "a boolean" => "`true` or `false`".into(),
        "a map" => "an object".into(),
        "a sequence" => "a list".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0,".into(),
        "i32" | "i64" => "a whole number".into(),
        // `struct RepoSettings` is a name of ours.
        expected if expected.starts_with("struct ") => "an object".into(),
        expected => expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only how they are refused is looked at")]
    struct Outer {
        days: u32,
        #[serde(default)]
        inner: Vec<Inner>,
        #[serde(default)]
        more: Option<Vec<Defaults>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    struct Defaults {
        hours: u32,
    }

    impl Default for Defaults {
        fn default() -> Defaults {
            Defaults { hours: 24 }
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Inner {
        One,
        Two,
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read::<Outer>(text.as_bytes()).unwrap_err(), expected);
    }

    #[test]
    fn what_is_wrong_is_said_without_words_of_a_library() {
        check("{}", "`days` is missing");
        check(
            r#"{"days": "x"}"#,
            "at `days`, there is the text \"x\", where a whole number, not below 0, belongs",
        );
        check(
            r#"{"days": -1}"#,
            "at `days`, there is the number `-1`, where a whole number, not below 0, belongs",
        );
        check(r#"{"days": 1, "hours": 2}"#, "there is no `hours`; there is `days`, `inner`, `more`");
        check(
            r#"{"days": 1, "inner": ["three"]}"#,
            "at `inner[0]`, `three` is none of what can stand there; there is `one` or `two`",
        );
        check("7", "there is the number `7`, where an object belongs");
        check("{", "it is not JSON: EOF while parsing an object at line 1 column 1");
        check(r#"{"days": 1, "days": 2}"#, "duplicate field `days`");
        check(r#"{"days": 1} x"#, "it is not JSON: trailing characters at line 1 column 13");
    }
    #[test]
    fn a_list_is_no_object_at_any_depth() {
        check("[]", "there is a list, where an object belongs");
        check("[1]", "there is a list, where an object belongs");
        check(r#"{"days": 1, "more": [{}, []]}"#, "at `more[1]`, there is a list, where an object belongs");
        let whole: Outer = read(br#"{"days": 1, "inner": ["one"], "more": [{}]}"#).unwrap();
        assert_eq!(whole.more.unwrap()[0].hours, 24);
    }
}
