//! Small pieces of pages: times, durations, commits, sentences. What comes from outside is escaped here or by templates.

use std::fmt::Write as _;

use askama::filters::Safe;
use towpath_core::ids::is_unprintable;

use crate::http::links;

/// Text that is HTML already.
pub type Html = Safe<String>;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Characters of a commit's id that are shown: unique in any repository that people look at.
const SHA_CHARS: usize = 12;

/// Text within HTML. Characters that nobody sees are shown by their number.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

/// One character within HTML.
pub fn push_escaped(out: &mut String, c: char) {
    match c {
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '&' => out.push_str("&amp;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        '\n' | '\t' => out.push(c),
        c if is_unprintable(c) => {
            write!(out, "<span class=\"unseen\">U+{:04X}</span>", u32::from(c))
                .expect("invariant: a string takes any text");
        }
        c => out.push(c),
    }
}

/// Text of people or jobs, with what nobody sees made visible.
pub fn plain(text: &str) -> Html {
    Safe(escape(text))
}

/// A sentence of ours: what stands between backticks is code.
pub fn words(text: &str) -> Html {
    let mut out = String::with_capacity(text.len() + 16);
    let whole = text.matches('`').count() / 2 * 2;
    for (at, part) in text.split('`').enumerate() {
        match at {
            0 => {}
            at if at > whole => out.push('`'),
            at if at % 2 == 1 => out.push_str("<code>"),
            _ => out.push_str("</code>"),
        }
        out.push_str(&escape(part));
    }
    Safe(out)
}

/// A commit's id, short, with the whole one at hand.
pub fn sha(commit: &str) -> Html {
    let short: String = commit.chars().take(SHA_CHARS).collect();
    Safe(format!("<code class=\"sha\" title=\"{}\">{}</code>", escape(commit), escape(&short)))
}

/// A point in time, past or to come, as people say it, with the exact one at hand.
pub fn when(at: i64, now: i64) -> Html {
    let exact = utc(at);
    let machine = exact.replace(' ', "T");
    Safe(format!("<time datetime=\"{machine}Z\" title=\"{exact} UTC\">{}</time>", ago(at, now)))
}

fn ago(at: i64, now: i64) -> String {
    match now - at {
        gap if gap <= -DAY => format!("in {} d", -gap / DAY),
        gap if gap <= -HOUR => format!("in {} h", -gap / HOUR),
        gap if gap <= -MINUTE => format!("in {} min", -gap / MINUTE),
        gap if gap <= -10 * SECOND => format!("in {} s", -gap / SECOND),
        gap if gap < 10 * SECOND => "just now".into(),
        gap if gap < MINUTE => format!("{} s ago", gap / SECOND),
        gap if gap < HOUR => format!("{} min ago", gap / MINUTE),
        gap if gap < DAY => format!("{} h ago", gap / HOUR),
        gap if gap < 30 * DAY => format!("{} d ago", gap / DAY),
        _ => utc(at)[..10].to_owned(),
    }
}

/// `2026-01-31 23:59:59`. Source: Howard Hinnant, `civil_from_days`.
pub fn utc(at: i64) -> String {
    let seconds = at.div_euclid(SECOND);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// How long something took.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// How long something took that began and ended at two points in time; empty: it is not over.
pub fn took(began: &i64, ended: &Option<i64>) -> String {
    let ended = ended.map(|ended| u64::try_from(ended - began).unwrap_or_default());
    ended.map(duration).unwrap_or_default()
}

/// The page of a run that is named `repo/branch/12`.
pub fn run_url(run: &str) -> String {
    run.parse().map(|run| links::run(&run)).unwrap_or_default()
}

/// The number of a run that is named `repo/branch/12`.
pub fn run_number(run: &str) -> &str {
    run.rsplit('/').next().unwrap_or(run)
}

/// An outcome or state with its sign, so that no colour is needed to tell it.
pub fn pill(word: &str) -> Html {
    let (class, sign) = match word {
        "passed" | "landed" | "approve" | "authorised" | "current" => ("ok", "✓"),
        "failed" | "timed_out" | "request_changes" => ("bad", "✗"),
        "errored" | "frozen" | "halted" | "untrusted" | "invalidated" => ("warn", "!"),
        "running" | "pending" | "open" => ("run", "●"),
        _ => ("idle", "○"),
    };
    Safe(format!(
        "<span class=\"pill {class}\"><span aria-hidden=\"true\">{sign}</span> {}</span>",
        escape(&word.replace('_', " "))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_the_calendar_has_them() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(1_709_164_799_000), "2024-02-28 23:59:59");
        assert_eq!(utc(1_709_164_800_000), "2024-02-29 00:00:00");
        assert_eq!(utc(4_102_444_800_999), "2100-01-01 00:00:00");
        assert_eq!(utc(-1), "1969-12-31 23:59:59");
    }

    #[test]
    fn durations_and_ages_are_as_people_say_them() {
        let all: Vec<String> = [7, 1_250, 61_000, 3_660_000].map(duration).into();
        assert_eq!(all, ["7 ms", "1.2 s", "1 min 1 s", "1 h 1 min"]);
        assert_eq!(ago(0, 5_000), "just now");
        assert_eq!(ago(0, 125_000), "2 min ago");
        assert_eq!(ago(0, 40 * DAY), "1970-01-01");
        assert_eq!(ago(125_000, 0), "in 2 min");
        assert_eq!(ago(2 * DAY - 1, 0), "in 1 d");
    }

    #[test]
    fn f07_sentences_and_names_are_inert() {
        assert_eq!(words("run `a<b>` now").0, "run <code>a&lt;b&gt;</code> now");
        assert_eq!(words("a ` b").0, "a ` b");
        assert_eq!(words("`x` and `<svg onload=1>").0, "<code>x</code> and `&lt;svg onload=1&gt;");
        assert_eq!(
            plain("a\u{202e}b\u{1b}").0,
            "a<span class=\"unseen\">U+202E</span>b<span class=\"unseen\">U+001B</span>"
        );
        assert!(!sha("\"><script>").0.contains("<script"));
        assert!(!pill("<script>").0.contains("<script"));
    }
}
