//! How answers of a server are shown: as they came for programs, in few words for people.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;
use towpath_core::policy::Role;

use crate::failure::{Exit, Failure};
use crate::remote::place::Place;
use crate::remote::{Client, Request};
use crate::terminal::style::Style;
use crate::terminal::table::{self, Cell};
use crate::terminal::{Terminal, inline};

/// Hex digits of a commit id.
pub const COMMIT_DIGITS: usize = 40;
/// Characters of a commit id that people are shown where nothing depends on it.
const SHORT: usize = 12;
/// Bytes of an answer at the keyboard.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Has something done, and says what the server says of it.
pub fn done(client: &Client, request: &Request, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let answer = client.ask(request)?;
    match terminal.is_json() {
        true => terminal.record(&answer)?,
        false => terminal.data(inline(text(&answer, "said")))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a list: an object a line, or a table. People are told of a list of no `things`, which is no data.
pub fn list(
    answer: &Value,
    things: &str,
    terminal: &Terminal,
    row: impl Fn(&Value) -> Vec<Cell>,
) -> Result<ExitCode, Failure> {
    let items = items(answer);
    match terminal.is_json() {
        true => items.iter().try_for_each(|item| terminal.record(item))?,
        false if items.is_empty() => terminal.talk(format!("no {things}")),
        false => rows(&items.iter().map(row).collect::<Vec<_>>(), "", terminal)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints rows below each other.
pub fn rows(rows: &[Vec<Cell>], indent: &str, terminal: &Terminal) -> Result<(), Failure> {
    Ok(table::lines(rows).iter().try_for_each(|line| terminal.data(format!("{indent}{line}")))?)
}

/// The elements of a list; none where there is no list.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text of an object; empty where there is none.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A flag of an object.
pub fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}

/// A number of an object as text; empty where there is none.
pub fn number(value: &Value, key: &str) -> String {
    value[key].as_u64().map(|number| number.to_string()).unwrap_or_default()
}

/// A list of texts, with commas.
pub fn joined(value: &Value, key: &str) -> String {
    items(&value[key]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The beginning of a commit id.
pub fn short(commit: &str) -> &str {
    commit.get(..SHORT).unwrap_or(commit)
}

/// A time in milliseconds since 1970 as `2026-11-21 11:37:03 UTC`; empty where there is none.
///
/// The date follows Howard Hinnant's `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).
pub fn time(value: &Value, key: &str) -> String {
    let Some(millis) = value[key].as_i64() else { return String::new() };
    let seconds = millis.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

/// A word about how something stands, in its colour.
pub fn verdict(word: &str) -> Cell {
    let style = match word {
        "passed" | "landed" | "success" => Style::Green,
        "failed" | "timed_out" | "failure" => Style::Red,
        "errored" => Style::Yellow,
        "running" | "pending" | "open" => Style::Cyan,
        _ => Style::Dim,
    };
    table::styled(style, word.replace('_', " "))
}

/// Asks a person, if one is there, whether to do what takes this role on the repo.
///
/// # Errors
/// `Denied` for whoever has not the role: what they answer would count for nothing. `Usage` without a person: `how` says
/// what to write instead. `Failed` if they do not say yes.
pub fn confirm(place: &Place, role: Role, question: &str, how: &str) -> Result<(), Failure> {
    let me = place.client.ask(&Request::get(&["me"]))?;
    if serde_json::from_value::<Role>(me["repos"][&place.repo].clone()).ok() < Some(role) {
        let word = format!("{role:?}").to_lowercase();
        let what = format!("this takes the role {word} on `{}`", inline(&place.repo));
        return Err(Failure::new(Exit::Denied, what)
            .hint("`towpath user me` says what you may; an admin can give you more, or do it for you"));
    }
    if !std::io::stdin().is_terminal() {
        let what = "this is asked about first, and nobody is here to answer";
        return Err(Failure::new(Exit::Usage, what).why(question).hint(how));
    }
    let mut err = std::io::stderr().lock();
    let safe = crate::terminal::sanitise::sanitise(&format!("{question} [y/N] "), false);
    err.write_all(&safe).and_then(|()| err.flush())?;
    let mut answer = String::new();
    std::io::Read::take(std::io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut answer)?;
    match matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        let shown = |millis: i64| time(&json!({ "at": millis }), "at");
        assert_eq!(shown(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(shown(1_709_209_799_999), "2024-02-29 12:29:59 UTC");
        assert_eq!(shown(1_795_263_423_000), "2026-11-21 12:17:03 UTC");
        assert_eq!(shown(-1), "1969-12-31 23:59:59 UTC");
        assert_eq!(time(&json!({}), "at"), "");
    }
}
