//! Words that a tool broke into lines: `base64` does at 76 characters, `openssl` at 64, `xxd -p` at 60.
//!
//! A secret in such a word has a break at a place that depends on what stands before it, so no list of forms has them
//! all. Instead the lines are joined again, and searched as one.

use std::ops::Range;

/// Characters before a break that may be inside of a word. Tools write longer lines; what is broken more often could hide a
/// secret in any amount of bytes, all of which would have to be kept back.
const LINE_CHARS_MIN: usize = 16;
/// Breaks as they are, and inside of a text of JSON or of a shell.
const BREAKS: &[&[u8]] = &[b"\n", b"\r\n", b"\\n", b"\\r\\n"];
/// Blanks before the next line: what YAML and people put there.
const INDENT_BYTES_MAX: usize = 16;
/// A word of several lines.
#[derive(Default)]
pub(crate) struct Joined {
    /// It, without the breaks.
    pub(crate) text: Vec<u8>,
    /// Where each byte of it is.
    at: Vec<usize>,
    /// It may go on behind the last byte.
    pub(crate) is_open: bool,
}

impl Joined {
    /// Where a part of the text is, with the breaks in it.
    pub(crate) fn place(&self, part: Range<usize>) -> Range<usize> {
        self.at[part.start]..self.at[part.end - 1] + 1
    }
}

/// The words of `bytes` that have a break, in their order. `run` is what [`run_before`] said where they begin.
pub(crate) fn joined(bytes: &[u8], run: usize) -> Vec<Joined> {
    let mut all = Vec::new();
    let mut from = 0;
    while let Some(end) = next_break(bytes, from, run) {
        let before = bytes[from..end].iter().rev().take_while(|byte| is_of_word(**byte)).count();
        let mut word = Joined { is_open: true, ..Joined::default() };
        let mut line = end - before..end;
        loop {
            word.text.extend_from_slice(&bytes[line.clone()]);
            word.at.extend(line.clone());
            from = line.end;
            let length = break_after(bytes, line.end, run);
            if length == 0 {
                word.is_open = line.end == bytes.len();
                break;
            }
            let begin = line.end + length;
            line = begin..begin + bytes[begin..].iter().take_while(|byte| is_of_word(**byte)).count();
        }
        all.push(word);
    }
    all
}

/// The next break inside of a word.
fn next_break(bytes: &[u8], from: usize, run: usize) -> Option<usize> {
    let ends = memchr::memchr3_iter(b'\n', b'\r', b'\\', &bytes[from..]).map(|at| from + at);
    ends.into_iter().find(|end| break_after(bytes, *end, run) > 0)
}

/// Bytes of the break behind the line of a word that ends at `end`; 0 if there is none.
fn break_after(bytes: &[u8], end: usize, run: usize) -> usize {
    match run_before(bytes, end, run) {
        LINE_CHARS_MIN.. => break_length(&bytes[end..]),
        _ => 0,
    }
}

/// Characters of a word directly before `at`, as many as matter, if `run` were before the first byte.
pub(crate) fn run_before(bytes: &[u8], at: usize, run: usize) -> usize {
    let last = bytes[..at].iter().rev().take(LINE_CHARS_MIN);
    let here = last.take_while(|byte| is_of_word(**byte)).count();
    if here == at { (here + run).min(LINE_CHARS_MIN) } else { here }
}

/// Characters of base64, base64url and hex.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// Bytes of the break that `bytes` begin with; 0 if there is none. One that is cut by the end counts.
fn break_length(bytes: &[u8]) -> usize {
    let fits = |one: &&&[u8]| bytes.starts_with(one) || one.starts_with(bytes);
    let Some(found) = BREAKS.iter().find(fits) else { return 0 };
    let behind = bytes.get(found.len()..).unwrap_or_default();
    let blanks = behind.iter().take(INDENT_BYTES_MAX).take_while(|byte| matches!(byte, b' ' | b'\t'));
    bytes.len().min(found.len() + blanks.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "0123456789abcdef";

    fn words(text: &str) -> Vec<(String, bool)> {
        let word = |word: Joined| (String::from_utf8(word.text).unwrap(), word.is_open);
        joined(text.as_bytes(), 0).into_iter().map(word).collect()
    }

    #[test]
    fn lines_of_a_word_are_joined_however_they_are_broken() {
        for broken in ["\n", "\r\n", "\\n", "\\r\\n", "\n    ", "\r\n\t"] {
            let whole = vec![(format!("{LINE}xyz"), false)];
            assert_eq!(words(&format!("a: {LINE}{broken}xyz end")), whole, "{broken:?}");
            let longer = vec![(format!("{LINE}{LINE}{LINE}"), true)];
            assert_eq!(words(&format!("{LINE}{broken}{LINE}{broken}{LINE}")), longer, "{broken:?}");
        }
    }

    #[test]
    fn a_break_that_may_go_on_leaves_the_word_open() {
        for end in ["\n", "\r", "\\", "\\r\\", "\n  "] {
            assert_eq!(words(&format!("{LINE}{end}")), [(LINE.to_owned(), true)], "{end:?}");
        }
        assert_eq!(words(&format!("{LINE}\\x")), []);
    }

    #[test]
    fn short_lines_and_empty_ones_are_no_parts_of_a_word() {
        assert_eq!(words(&format!("short\n{LINE}")), []);
        assert_eq!(words(&format!("{LINE}\n\nmore")), [(LINE.to_owned(), false)]);
        // What stood before counts.
        assert_eq!(joined(b"short\nmore", LINE_CHARS_MIN).len(), 1);
        assert_eq!(run_before(b"more", 4, 3), 7);
        assert_eq!(run_before(b"a more", 6, 3), 4);
    }

    #[test]
    fn a_part_of_a_word_is_found_where_it_is_with_the_breaks_in_it() {
        let text = format!("see {LINE}\n    {LINE}\n    z");
        let word = joined(text.as_bytes(), 0).remove(0);
        assert_eq!(&text[word.place(14..18)], "ef\n    01");
        let most = format!("{}\\r\\n{}", LINE, " ".repeat(INDENT_BYTES_MAX)).repeat(5) + LINE;
        let word = joined(most.as_bytes(), 0).remove(0);
        assert_eq!(word.place(0..word.text.len()), 0..most.len());
        assert_eq!(word.text, LINE.repeat(6).as_bytes());
    }
}
