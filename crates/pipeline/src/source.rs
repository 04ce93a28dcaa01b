//! The bytes of a file before they are YAML.

use std::str::Utf8Error;

use crate::diagnostic::{Diagnostics, Place, Report, fault};
use crate::yaml::FILE_BYTES_MAX;

/// The file as text.
pub(crate) fn decode<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Diagnostics> {
    if bytes.len() > FILE_BYTES_MAX {
        let why = format!("it has {} bytes; a pipeline file has at most {FILE_BYTES_MAX}", bytes.len());
        let mut report = Report::new(file, "");
        report.error(
            Place::START,
            fault("the file is too large", why, "move long scripts into files of the repository"),
        );
        return Err(refused(report));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(file, bytes, error))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn not_utf8(file: &str, bytes: &[u8], error: Utf8Error) -> Diagnostics {
    let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let line = good.matches('\n').count() as u32 + 1;
    let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) as u32 + 1;
    let mut report = Report::new(file, &good);
    let hint = "save the file as UTF-8, without any other encoding";
    let place = Place { line, column, width: 1 };
    report.error(place, fault("this byte is not UTF-8", "a pipeline file is text in UTF-8", hint));
    refused(report)
}

fn refused(report: Report) -> Diagnostics {
    report.finish().expect_err("an error was reported")
}

/// Refuses characters that make a file look other than it is: a maintainer approves what can be seen.
pub(crate) fn check(source: &str, report: &mut Report) {
    for (at, line) in source.lines().enumerate() {
        let Some((column, bad)) = line.chars().enumerate().find(|(_, c)| deceives(*c)) else { continue };
        let place = Place { line: at as u32 + 1, column: column as u32 + 1, width: 1 };
        let what = format!("the character U+{:04X} stands here", bad as u32);
        let why = "control characters and those that turn the direction of text hide what the file says";
        let hint = format!("delete it, or write it as `\\u{:04x}` within double quotes", bad as u32);
        report.error(place, fault(what, why, hint));
    }
}

fn deceives(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Reports a file in which nothing stands.
pub(crate) fn refuse_empty(report: &mut Report) {
    if report.error_count() == 0 {
        let why = "a definition without jobs would test nothing";
        let hint =
            "write `jobs:` with at least one job, or delete the file to have the usual checks detected";
        report.error(Place::START, fault("the file is empty", why, hint));
    }
}
