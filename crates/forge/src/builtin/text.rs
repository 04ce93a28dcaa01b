//! Words of a change: from its commits, or from people. They are shown everywhere, so nothing in them can drive a
//! terminal or turn the direction of a text.

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{BranchName, is_unprintable};

use crate::error::{Done, Failure};

/// Characters of a title: what forges show in one line.
const TITLE_CHARS_MAX: usize = 250;
/// Bytes of a body. It becomes the landed message.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a comment or of the words of a review.
const WORDS_BYTES_MAX: usize = 16 * 1024;
/// Characters of a label. GitHub's bound.
const LABEL_CHARS_MAX: usize = 50;
/// Commits named in the body of a change of several.
const SUBJECTS_MAX: usize = 50;

/// Title and body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeText {
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
}

/// What the commits of a change say, oldest first: as much of each as can be shown, since a message may have a megabyte.
#[derive(Debug, Default)]
pub(super) struct Messages {
    subjects: Vec<String>,
    /// What the newest says below its subject.
    rest: String,
}

impl Messages {
    /// The next one's.
    pub fn add(&mut self, message: &str) {
        self.subjects.push(subject(message));
        self.rest = rest(message);
    }
}

/// The words of a change whose author gave none.
///
/// One commit: its subject and the rest of its message. Several: the name of the branch in words (`fix-login` becomes
/// `Fix login`), or without a branch the newest commit's subject; and as the body the subjects, oldest first. A Change-Id is
/// left out: it is a key, not a word.
pub(super) fn from_messages(messages: Messages, source: Option<&BranchName>) -> ChangeText {
    let Messages { subjects, rest } = messages;
    let newest = subjects.last().cloned().unwrap_or_default();
    if subjects.len() <= 1 {
        return ChangeText { title: newest, body: rest };
    }
    let title = source.map_or(newest, in_words);
    let mut lines: Vec<String> =
        subjects.iter().take(SUBJECTS_MAX).map(|subject| format!("- {subject}")).collect();
    if subjects.len() > SUBJECTS_MAX {
        lines.push(format!("- and {} more", subjects.len() - SUBJECTS_MAX));
    }
    ChangeText { title, body: lines.join("\n") }
}

/// The Change-Id in the last paragraph of a message, as Gerrit's hook writes it.
pub(super) fn change_id(message: &str) -> Option<String> {
    let last = message.trim_end().rsplit("\n\n").next()?;
    let id = last.lines().rev().find_map(|line| line.strip_prefix("Change-Id:"))?.trim();
    let digits = id.strip_prefix('I')?;
    let ok = digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    ok.then(|| format!("I{}", digits.to_ascii_lowercase()))
}

fn subject(message: &str) -> String {
    let line: String = message.trim_start().lines().next().unwrap_or_default().trim().to_owned();
    match cut(&printable_line(&line), TITLE_CHARS_MAX) {
        line if line.is_empty() => "(no subject)".to_owned(),
        line => line,
    }
}

fn rest(message: &str) -> String {
    let rest = message.trim_start().split_once('\n').map_or("", |(_, rest)| rest);
    let kept: Vec<&str> = rest.lines().filter(|line| !line.starts_with("Change-Id:")).collect();
    let mut body = printable_text(kept.join("\n").trim());
    body.truncate(body.floor_char_boundary(BODY_BYTES_MAX));
    body.shrink_to_fit();
    body
}

fn in_words(source: &BranchName) -> String {
    let words = source.as_str().replace(['-', '_'], " ");
    let mut characters = words.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}", characters.as_str())
}

fn cut(text: &str, characters_max: usize) -> String {
    text.chars().take(characters_max).collect()
}

fn printable_line(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { '?' } else { c }).collect()
}

fn printable_text(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) && c != '\n' && c != '\t' { '?' } else { c }).collect()
}

fn refuse(why: String) -> Failure {
    Failure::refused(RefusalClass::Invalid, why)
}

/// A title that a person wrote.
pub(super) fn checked_title(title: &str) -> Done<String> {
    let title = title.trim();
    match title {
        "" => Err(refuse("a title needs a word at least".into())),
        _ if title.chars().count() > TITLE_CHARS_MAX => {
            Err(refuse(format!("a title has at most {TITLE_CHARS_MAX} characters; the body takes the rest")))
        }
        _ if title.chars().any(is_unprintable) => {
            Err(refuse("a title is one line without control or direction characters".into()))
        }
        _ => Ok(title.to_owned()),
    }
}

/// A body that a person wrote.
pub(super) fn checked_body(body: &str) -> Done<String> {
    checked_text(body, "a body", BODY_BYTES_MAX)
}

/// A comment, or the words of a review.
pub(super) fn checked_words(text: &str) -> Done<String> {
    checked_text(text, "a comment", WORDS_BYTES_MAX)
}

fn checked_text(text: &str, what: &str, bytes_max: usize) -> Done<String> {
    let text = text.replace("\r\n", "\n");
    let text = text.trim_end();
    if text.len() > bytes_max {
        return Err(refuse(format!("{what} has at most {bytes_max} bytes")));
    }
    Ok(printable_text(text))
}

/// A label's name.
pub(super) fn checked_label(label: &str) -> Done<String> {
    let label = label.trim();
    match unfit_label(label) {
        None => Ok(label.to_owned()),
        Some(why) => Err(refuse(why)),
    }
}

/// Why a change cannot have a label of this very name; `None`: it can.
pub fn unfit_label(label: &str) -> Option<String> {
    let fit = !label.is_empty()
        && label == label.trim()
        && label.chars().count() <= LABEL_CHARS_MAX
        && !label.chars().any(|c| is_unprintable(c) || c == ',');
    (!fit).then(|| {
        format!(
            "a label is 1 to {LABEL_CHARS_MAX} characters without commas, control or direction characters, and begins and \
             ends with no space"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_id_counts_only_as_a_trailer() {
        let id = format!("I{}", "a1".repeat(20));
        assert_eq!(change_id(&format!("Fix\n\nWhy\n\nChange-Id: {id}\n")), Some(id.clone()));
        let upper = id.replace('a', "A");
        assert_eq!(
            change_id(&format!("Fix\n\nSigned-off-by: A <a@b>\nChange-Id: {upper}\n")),
            Some(id.clone())
        );
        assert_eq!(change_id(&format!("Fix\n\nChange-Id: {id}\n\nlast words\n")), None);
        assert_eq!(change_id("Fix\n\nChange-Id: I12\n"), None);
    }

    #[test]
    fn words_cannot_drive_a_terminal() {
        assert_eq!(subject("a\u{1b}[31m\u{202e}b\nrest"), "a?[31m?b");
        assert_eq!(rest("a\n\nb\tc\u{7}\nChange-Id: Ix\n"), "b\tc?");
        assert!(checked_title("a\nb").is_err());
        assert!(checked_label("a\u{202e}").is_err());
    }

    #[test]
    fn of_long_messages_no_more_is_kept_than_is_shown() {
        let long = "word ".repeat(200_000);
        let mut messages = Messages::default();
        for at in 0..60 {
            messages.add(&format!("{at} {long}\n\n{long}"));
        }
        let kept = messages.subjects.iter().chain([&messages.rest]).map(String::capacity).sum::<usize>();
        assert!(kept <= 60 * 4 * TITLE_CHARS_MAX + BODY_BYTES_MAX, "{kept} bytes");
        let ChangeText { title, body } = from_messages(messages, None);
        assert!(title.starts_with("59 word"), "{title}");
        assert!(body.starts_with("- 0 word") && body.ends_with("\n- and 10 more"), "{body}");
        let mut one = Messages::default();
        one.add(&format!("subject\n\n{long}"));
        let ChangeText { title, body } = from_messages(one, Some(&"fix-login".parse().unwrap()));
        assert_eq!((title.as_str(), body.len()), ("subject", BODY_BYTES_MAX));
    }

    #[test]
    fn branch_names_become_words() {
        assert_eq!(in_words(&"fix-login_page".parse().unwrap()), "Fix login page");
    }
}
