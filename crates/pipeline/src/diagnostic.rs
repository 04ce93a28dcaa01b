//! What is wrong with a definition, where, why, and what to write instead.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use towpath_core::candidate::ERRORS_SHOWN_MAX;
use towpath_core::ids::is_unprintable;

/// Characters of a source line that are shown around a mark. Fits a terminal of 120 columns beside its line number.
const EXCERPT_CHARS_MAX: usize = 100;
/// Characters of a quoted value that are shown in a message.
const SHOWN_CHARS_MAX: usize = 60;

/// Whether a definition can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The definition cannot be used.
    Error,
    /// It can be used, and probably does not do what was meant.
    Warning,
}

/// One finding in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file, from the repository's root.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Characters that are marked, at least 1.
    pub width: u32,
    /// What is wrong.
    pub message: String,
    /// Why that is wrong.
    pub why: String,
    /// What to do about it.
    pub hint: String,
    /// The line, cut around the mark, with tabs shown as `→` and everything else that cannot be seen as `?`.
    pub excerpt: String,
    /// Where in `excerpt` the mark begins, in characters from 0.
    pub mark: u32,
}

/// Everything that was found in one file, by place. There is at least one error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", self.render())]
pub struct Diagnostics {
    /// At most [`ERRORS_SHOWN_MAX`] findings.
    pub items: Vec<Diagnostic>,
    /// Findings beyond that.
    pub left_off: usize,
}

/// One line for lists and checks: place, what, why, hint.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { file, line, column, message, why, hint, .. } = self;
        write!(f, "{file}:{line}:{column}: {message}; why: {why}; hint: {hint}")
    }
}

impl Diagnostic {
    /// Several lines for people: what, the source line with a caret, why, hint.
    pub fn render(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let before = " ".repeat(self.mark as usize);
        let caret = "^".repeat(self.width as usize);
        let Diagnostic { file, column, message, why, hint, excerpt, .. } = self;
        format!(
            "{severity}: {message}\n{gutter}--> {file}:{number}:{column}\n{gutter} |\n{number} | {excerpt}\n\
             {gutter} | {before}{caret}\n  why: {why}\n hint: {hint}\n"
        )
    }
}

impl Diagnostics {
    /// All findings as one text, the way a terminal shows them.
    pub fn render(&self) -> String {
        let mut text = self.items.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n");
        if self.left_off > 0 {
            text.push_str(&format!("\nand {} more\n", self.left_off));
        }
        text
    }

    /// Each finding as one line, for a candidate that cannot be made and for checks; the last line says how many were
    /// left off.
    pub fn lines(&self) -> Vec<String> {
        let more = format!(
            "and {} more; `towpath config check` shows what is left once these are mended",
            self.left_off
        );
        let more = (self.left_off > 0).then_some(more);
        self.items.iter().map(ToString::to_string).chain(more).collect()
    }
}

/// A span in the source: line and column from 1, width in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) width: u32,
}

impl Place {
    pub(crate) const START: Place = Place { line: 1, column: 1, width: 1 };
}

/// What is said about a place.
pub(crate) struct Fault {
    what: String,
    why: String,
    hint: String,
}

/// What is wrong, why, and what to do.
pub(crate) fn fault(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Fault {
    Fault { what: what.into(), why: why.into(), hint: hint.into() }
}

/// A value from the file, cut and made printable, for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.trim_end().chars().map(|c| if is_unprintable(c) { '?' } else { c });
    let head: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() { format!("{head}...") } else { head }
}

/// Collects findings while a file is read.
pub(crate) struct Report<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    path: Vec<String>,
    items: Vec<Diagnostic>,
    seen: HashSet<(Place, String)>,
    left_off: usize,
    errors: usize,
    /// False after a syntax error: what is missing may stand behind it.
    pub(crate) complete: bool,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str, source: &'a str) -> Report<'a> {
        Report {
            file,
            lines: source.lines().collect(),
            path: Vec::new(),
            items: Vec::new(),
            seen: HashSet::new(),
            left_off: 0,
            errors: 0,
            complete: true,
        }
    }

    /// The source line with this number, from 1.
    pub(crate) fn line(&self, number: u32) -> &'a str {
        self.lines.get((number as usize).saturating_sub(1)).copied().unwrap_or("")
    }

    /// How many lines the source has, at least 1.
    pub(crate) fn line_count(&self) -> u32 {
        self.lines.len().max(1) as u32
    }

    /// Reads something inside `key`, so that messages name it.
    pub(crate) fn inside<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let value = read(self);
        self.path.pop();
        value
    }

    /// The key that is being read, for hints.
    pub(crate) fn key(&self) -> &str {
        self.path.iter().rev().find(|part| !part.starts_with('[')).map_or("", |part| part)
    }

    /// Counts an error that nobody will see in full. `false`: there is room, and it has to be told.
    pub(crate) fn only_counts(&mut self) -> bool {
        let full = self.items.len() >= ERRORS_SHOWN_MAX;
        if full {
            self.errors += 1;
            self.left_off += 1;
        }
        full
    }

    /// Counts an error that was told where it arose, for whoever looks whether something could be read.
    pub(crate) fn counts_as_told(&mut self) {
        self.errors += 1;
    }

    pub(crate) fn error(&mut self, place: Place, fault: Fault) {
        self.errors += 1;
        self.add(Severity::Error, place, fault);
    }

    pub(crate) fn warn(&mut self, place: Place, fault: Fault) {
        self.add(Severity::Warning, place, fault);
    }

    /// Errors so far. Compared before and after, it tells whether one thing was in order.
    pub(crate) fn error_count(&self) -> usize {
        self.errors
    }

    fn add(&mut self, severity: Severity, place: Place, fault: Fault) {
        let message = match self.path.is_empty() {
            true => fault.what,
            false => format!("{}: {}", self.path_text(), fault.what),
        };
        if self.items.len() >= ERRORS_SHOWN_MAX {
            self.left_off += 1;
            return;
        }
        // An alias brings the same place here many times, under other names.
        if !self.seen.insert((place, fault.why.clone())) {
            return;
        }
        let (excerpt, mark, width) = excerpt(self.line(place.line), place);
        let Fault { why, hint, .. } = fault;
        let Place { line, column, .. } = place;
        let file = self.file.to_owned();
        self.items.push(Diagnostic {
            severity,
            file,
            line,
            column,
            width,
            message,
            why,
            hint,
            excerpt,
            mark,
        });
    }

    fn path_text(&self) -> String {
        let mut text = String::new();
        for part in &self.path {
            if !text.is_empty() && !part.starts_with('[') {
                text.push('.');
            }
            text.push_str(&shown(part));
        }
        text
    }

    /// The warnings, or everything if there was an error.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        self.items.sort_by_key(|item| (item.line, item.column));
        match self.errors {
            0 => Ok(self.items),
            _ => Err(Diagnostics { items: self.items, left_off: self.left_off }),
        }
    }
}

/// The part of a line around a place, the mark's offset in it, and the mark's width.
fn excerpt(line: &str, place: Place) -> (String, u32, u32) {
    let column = place.column.saturating_sub(1) as usize;
    let skipped = column.saturating_sub(EXCERPT_CHARS_MAX / 2);
    let visible = |c: char| match c {
        '\t' => '→',
        c if is_unprintable(c) => '?',
        c => c,
    };
    let text: String = line.chars().skip(skipped).take(EXCERPT_CHARS_MAX).map(visible).collect();
    let mark = column - skipped;
    let room = text.chars().count().saturating_sub(mark).max(1);
    (text.trim_end().to_owned(), mark as u32, (place.width.max(1)).min(room as u32))
}
