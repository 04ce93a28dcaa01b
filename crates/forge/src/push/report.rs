//! A refusal as git's client shows it: `remote: ` lines that say what, why and what to do, and a verdict for each ref.

use super::packet::{band, text_line};
use super::request::PushHead;

/// Characters of the short verdict beside a ref.
const SHORT_CHARS_MAX: usize = 120;

/// The answer to a push that git never saw, or could not finish.
///
/// `unpacked` is git's own first line: `ok`, or why the pack was not taken. `refused` are the texts by position of the command;
/// a command without one is refused because the whole push is.
pub(super) fn refusal(
    head: &PushHead,
    unpacked: &str,
    said: &[String],
    refused: &[Option<String>],
) -> Vec<u8> {
    let mut report = text_line(&format!("unpack {}", one_line(unpacked)));
    for (at, command) in head.commands.iter().enumerate() {
        let why = refused.get(at).and_then(Option::as_deref).unwrap_or("the whole push is refused");
        let name = shown_name(&command.name);
        report.extend(text_line(&format!("ng {name} {}", one_line(why))));
    }
    report.extend(b"0000");
    let mut answer = Vec::new();
    if head.can("side-band-64k") {
        let text: String = said.iter().map(|line| format!("{}\n", shown(line))).collect();
        answer.extend(band(2, text.as_bytes()));
        if head.can("report-status") || head.can("report-status-v2") {
            answer.extend(band(1, &report));
        }
        answer.extend(b"0000");
    } else if head.can("report-status") || head.can("report-status-v2") {
        answer = report;
    }
    answer
}

fn one_line(text: &str) -> String {
    shown(text).chars().take(SHORT_CHARS_MAX).collect()
}

/// Text that stays on its line and drives no terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if towpath_core::ids::is_unprintable(c) { '?' } else { c }).collect()
}

/// A ref's name for the answer. The client looks it up among those that it sent, so it stays as it is where it can.
fn shown_name(name: &[u8]) -> String {
    shown(&String::from_utf8_lossy(name)).replace(' ', "?")
}
