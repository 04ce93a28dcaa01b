//! Colours of our own words. They are SGR sequences, and left out where a stream shows no colours.

use towpath_core::graph::Outcome;

/// How a word is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Good.
    Green,
    /// Not good.
    Red,
    /// To be looked at.
    Yellow,
    /// Under way.
    Cyan,
    /// Of less weight.
    Dim,
    /// Of more weight.
    Bold,
}

impl Style {
    /// The text in this style. It must be safe already, or go through a [`crate::terminal::Terminal`].
    pub fn paint(self, text: impl std::fmt::Display) -> String {
        let code = match self {
            Style::Green => 32,
            Style::Red => 31,
            Style::Yellow => 33,
            Style::Cyan => 36,
            Style::Dim => 2,
            Style::Bold => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The style of an outcome.
    pub fn of(outcome: Outcome) -> Style {
        match outcome {
            Outcome::Passed => Style::Green,
            Outcome::Failed | Outcome::TimedOut => Style::Red,
            Outcome::Errored => Style::Yellow,
            Outcome::Cancelled | Outcome::Skipped => Style::Dim,
        }
    }
}

/// An outcome in one word or two.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Errored => "errored",
        Outcome::Cancelled => "cancelled",
        Outcome::TimedOut => "timed out",
        Outcome::Skipped => "skipped",
    }
}

/// A span as people say it: `40 ms`, `1.2 s`, `3 min 05 s`, `2 h 10 min`.
pub fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1 job`, `2 jobs`.
pub fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        let spans = [40, 1_250, 185_000, 7_800_000].map(span);
        assert_eq!(spans, ["40 ms", "1.2 s", "3 min 05 s", "2 h 10 min"]);
    }
}
