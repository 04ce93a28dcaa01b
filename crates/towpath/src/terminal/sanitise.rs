//! Foreign bytes as text that a terminal can only show.
//!
//! Let through: printable characters, line ends, tabs, and SGR sequences that set a colour or a weight. Everything else
//! is shown as an escape: `\x1b`, `\x9b`, `\u{202e}`, a lone carriage return as `\r`. SGR that hides text (conceal,
//! blink) counts as everything else.

use towpath_core::ids::is_unprintable;

const ESCAPE: u8 = 0x1b;
/// Bytes of one SGR sequence. The longest useful one, two 24-bit colours with five attributes, has 48.
const SGR_BYTES_MAX: usize = 64;
const SGR_RESET: &[u8] = b"\x1b[0m";

/// Turns a stream of foreign bytes into a safe one, piece by piece; pieces may end anywhere.
#[derive(Debug, Clone)]
pub struct Sanitiser {
    colour: bool,
    /// A sequence or character that the last piece ended in.
    held: Vec<u8>,
    /// A colour is set and was not reset.
    coloured: bool,
}

/// What begins at some byte.
enum Found<'a> {
    /// Printable text.
    Text(&'a [u8]),
    /// An allowed colour sequence.
    Colour(&'a [u8]),
    /// Bytes that say something to a terminal, or are no text.
    Escaped(usize, String),
    /// Bytes to be left out: the carriage return of a line end.
    Nothing(usize),
    /// It depends on what follows.
    Incomplete,
}

impl Sanitiser {
    /// `colour`: whether colours are kept or left out.
    pub fn new(colour: bool) -> Sanitiser {
        Sanitiser { colour, held: Vec::new(), coloured: false }
    }

    /// Takes in a piece.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let joined;
        let mut rest = match self.held.is_empty() {
            true => piece,
            false => {
                self.held.extend_from_slice(piece);
                joined = std::mem::take(&mut self.held);
                &joined[..]
            }
        };
        while !rest.is_empty() {
            let taken = match look(rest) {
                Found::Incomplete => break,
                found => self.put(found, out),
            };
            rest = &rest[taken..];
        }
        self.held = rest.to_vec();
    }

    /// Shows what was still open, and resets the colour.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        for chunk in held.utf8_chunks() {
            chunk.valid().chars().for_each(|c| match c {
                '\r' => {}
                c => out.extend_from_slice(shown(c).as_bytes()),
            });
            chunk.invalid().iter().for_each(|byte| out.extend_from_slice(shown_byte(*byte).as_bytes()));
        }
        if std::mem::take(&mut self.coloured) {
            out.extend_from_slice(SGR_RESET);
        }
    }

    fn put(&mut self, found: Found, out: &mut Vec<u8>) -> usize {
        match found {
            Found::Text(text) => {
                out.extend_from_slice(text);
                text.len()
            }
            Found::Colour(sequence) => {
                if self.colour {
                    out.extend_from_slice(sequence);
                    self.coloured = !matches!(sequence, b"\x1b[0m" | b"\x1b[m");
                }
                sequence.len()
            }
            Found::Escaped(length, text) => {
                out.extend_from_slice(text.as_bytes());
                length
            }
            Found::Nothing(length) => length,
            Found::Incomplete => 0,
        }
    }
}

/// A whole text.
pub fn sanitise(text: &str, colour: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut sanitiser = Sanitiser::new(colour);
    sanitiser.push(text.as_bytes(), &mut out);
    sanitiser.finish(&mut out);
    out
}

/// A foreign name or title inside a line of ours: no line ends, no colours, so that it can be taken for nothing else.
pub fn inline(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    text.chars().for_each(|c| match is_unprintable(c) {
        true => safe.push_str(&shown(c)),
        false => safe.push(c),
    });
    safe
}

fn look(bytes: &[u8]) -> Found<'_> {
    let plain = bytes.iter().take_while(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t')).count();
    if plain > 0 {
        return Found::Text(&bytes[..plain]);
    }
    match bytes {
        [ESCAPE, ..] => escape(bytes),
        [b'\r', b'\n', ..] => Found::Nothing(1),
        [b'\r'] => Found::Incomplete,
        [byte @ (0..=0x7f), ..] => Found::Escaped(1, shown(char::from(*byte))),
        _ => wide(bytes),
    }
}

/// A sequence that begins with ESC: only `ESC [ numbers m` can be let through.
fn escape(bytes: &[u8]) -> Found<'_> {
    let alone = || Found::Escaped(1, shown('\u{1b}'));
    match bytes.get(1) {
        None => return Found::Incomplete,
        Some(b'[') => {}
        Some(_) => return alone(),
    }
    let parameters = bytes[2..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')).count();
    let end = 2 + parameters;
    match bytes.get(end) {
        _ if end >= SGR_BYTES_MAX => alone(),
        None => Found::Incomplete,
        Some(b'm') if is_colour(&bytes[2..end]) => Found::Colour(&bytes[..=end]),
        Some(_) => alone(),
    }
}

/// Whether every part of an SGR sequence is about colour or weight. Source: ECMA-48 8.3.117.
fn is_colour(parameters: &[u8]) -> bool {
    let mut numbers = parameters.split(|byte| matches!(byte, b';' | b':')).map(number);
    while let Some(number) = numbers.next() {
        let known = match number {
            Some(0..=4 | 7 | 9 | 21..=24 | 27 | 29..=37 | 39..=47 | 49 | 90..=97 | 100..=107) => true,
            Some(38 | 48) => match numbers.next().flatten() {
                Some(5) => numbers.next().flatten().is_some(),
                Some(2) => (0..3).all(|_| numbers.next().flatten().is_some()),
                _ => false,
            },
            _ => false,
        };
        if !known {
            return false;
        }
    }
    true
}

/// A parameter; one that is left out is 0.
fn number(digits: &[u8]) -> Option<u8> {
    match std::str::from_utf8(digits).ok()? {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

/// A character beyond ASCII.
fn wide(bytes: &[u8]) -> Found<'_> {
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default()
        }
        // A character of four bytes at most, of which not all are here yet.
        Err(error) if error.error_len().is_none() => return Found::Incomplete,
        Err(_) => return Found::Escaped(1, shown_byte(bytes[0])),
    };
    match valid.chars().next() {
        Some(c) if is_unprintable(c) => Found::Escaped(c.len_utf8(), shown(c)),
        Some(c) => Found::Text(&bytes[..c.len_utf8()]),
        None => Found::Escaped(1, shown_byte(bytes[0])),
    }
}

fn shown(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_ascii() && c.is_control() => format!("\\x{:02x}", u32::from(c)),
        c if is_unprintable(c) => format!("\\u{{{:x}}}", u32::from(c)),
        c => c.to_string(),
    }
}

fn shown_byte(byte: u8) -> String {
    format!("\\x{byte:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let mut whole = Vec::new();
        let mut sanitiser = Sanitiser::new(true);
        sanitiser.push(bytes, &mut whole);
        sanitiser.finish(&mut whole);
        assert_eq!(String::from_utf8(whole.clone()).unwrap(), expected);
        // However the bytes arrive, the same comes out.
        let mut pieces = Vec::new();
        let mut sanitiser = Sanitiser::new(true);
        bytes.iter().for_each(|byte| sanitiser.push(&[*byte], &mut pieces));
        sanitiser.finish(&mut pieces);
        assert_eq!(pieces, whole, "byte by byte");
    }

    #[test]
    fn text_lines_and_colours_pass() {
        check(b"plain\ttext\r\nnext\n", "plain\ttext\nnext\n");
        check("gr\u{fc}n \u{1f980}".as_bytes(), "gr\u{fc}n \u{1f980}");
        check(b"\x1b[1;32mok\x1b[0m", "\x1b[1;32mok\x1b[0m");
        check(b"\x1b[38;5;196mred\x1b[m", "\x1b[38;5;196mred\x1b[m");
        check(b"\x1b[38:2:1:2:3mx", "\x1b[38:2:1:2:3mx\x1b[0m");
    }

    #[test]
    fn i01_terminal_escape_everything_else_is_shown() {
        check(b"\x1b]52;c;cHduZWQ=\x07", "\\x1b]52;c;cHduZWQ=\\x07");
        check(b"\x1b[21t", "\\x1b[21t");
        check(b"\x1b]8;;file:///etc/passwd\x1b\\x", "\\x1b]8;;file:///etc/passwd\\x1b\\x");
        check(b"\x1bP+q544e\x1b\\", "\\x1bP+q544e\\x1b\\");
        check("\u{9b}31mx\u{9d}0;t\u{9c}".as_bytes(), "\\u{9b}31mx\\u{9d}0;t\\u{9c}");
        check(b"\x9b31m\xff\xc3", "\\x9b31m\\xff\\xc3");
        check(b"passed\rfailed", "passed\\rfailed");
        check(b"\x1b[2J\x1b[H\x08\x00\x7f", "\\x1b[2J\\x1b[H\\x08\\x00\\x7f");
        check("a\u{202e}b\u{200b}".as_bytes(), "a\\u{202e}b\\u{200b}");
    }

    #[test]
    fn sequences_that_hide_text_or_never_end_are_shown() {
        check(b"\x1b[8mhidden", "\\x1b[8mhidden");
        check(b"\x1b[5mblink", "\\x1b[5mblink");
        check(b"\x1b[38;8mx", "\\x1b[38;8mx");
        check(b"\x1b[1", "\\x1b[1");
        check(b"\x1b", "\\x1b");
        let endless = [b"\x1b[".as_slice(), &b"1;".repeat(40), b"m"].concat();
        check(&endless, &format!("\\x1b[{}m", "1;".repeat(40)));
    }

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        assert_eq!(sanitise("\x1b[31mred\x1b[0m\x1b[2J", false), b"red\\x1b[2J");
    }

    #[test]
    fn a_title_is_one_line_without_colours() {
        assert_eq!(inline("a\n\x1b[31mb\tc"), "a\\n\\x1b[31mb\\tc");
    }
}
