//! Colours of logs as classes. Only SGR sequences mean anything (I01); whatever else drives a terminal is shown, not done.

use std::fmt::Write as _;

use super::text::push_escaped;

/// Characters of one line that are shown. Longer lines are for the download.
const LINE_CHARS_MAX: usize = 4_000;
/// Characters of a sequence at most; a longer one is text.
const SEQUENCE_CHARS_MAX: usize = 64;

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    /// One of 16.
    front: Option<u8>,
    back: Option<u8>,
}

impl Style {
    fn is_plain(self) -> bool {
        self == Style::default()
    }

    fn classes(self) -> String {
        let flags = [(self.bold, "b"), (self.dim, "d"), (self.italic, "i"), (self.underline, "u")];
        let mut classes: Vec<String> =
            flags.iter().filter(|(on, _)| *on).map(|(_, class)| (*class).to_owned()).collect();
        classes.extend(self.front.map(|colour| format!("f{colour}")));
        classes.extend(self.back.map(|colour| format!("k{colour}")));
        classes.join(" ")
    }

    /// Applies the numbers of one SGR sequence. Unknown ones change nothing.
    fn apply(&mut self, numbers: &str) {
        let mut numbers = numbers.split([';', ':']).map(|number| match number {
            "" => Some(0),
            number => number.parse::<u16>().ok(),
        });
        while let Some(number) = numbers.next() {
            let Some(number) = number else { continue };
            match number {
                0 => *self = Style::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underline = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                30..=37 => self.front = Some((number - 30) as u8),
                38 => self.front = extended(&mut numbers).or(self.front),
                39 => self.front = None,
                40..=47 => self.back = Some((number - 40) as u8),
                48 => self.back = extended(&mut numbers).or(self.back),
                49 => self.back = None,
                90..=97 => self.front = Some((number - 90 + 8) as u8),
                100..=107 => self.back = Some((number - 100 + 8) as u8),
                _ => {}
            }
        }
    }
}

/// `5;n` or `2;r;g;b`, brought down to 16 colours: pages allow no styles but those of their own file.
fn extended(numbers: &mut impl Iterator<Item = Option<u16>>) -> Option<u8> {
    match numbers.next()?? {
        5 => match numbers.next()?? {
            basic @ 0..=15 => Some(basic as u8),
            cube @ 16..=231 => {
                let cube = cube - 16;
                Some(nearest([cube / 36, cube / 6 % 6, cube % 6].map(|part| part * 51)))
            }
            grey @ 232..=255 => Some(nearest([(grey - 232) * 10 + 8; 3])),
            _ => None,
        },
        2 => Some(nearest([numbers.next()??, numbers.next()??, numbers.next()??])),
        _ => None,
    }
}

fn nearest(colour: [u16; 3]) -> u8 {
    let high = colour.iter().max().copied().unwrap_or_default();
    let low = colour.iter().min().copied().unwrap_or_default();
    if high - low < 40 {
        return match high {
            0..64 => 0,
            64..140 => 8,
            140..220 => 7,
            _ => 15,
        };
    }
    let middle = (high + low) / 2;
    let bits = colour.iter().zip([1, 2, 4]).filter(|(part, _)| **part >= middle).map(|(_, bit)| bit);
    bits.sum::<u8>() + if high > 200 { 8 } else { 0 }
}

/// One line of a log as HTML. The style goes on from line to line.
pub fn line(bytes: &[u8], style: &mut Style) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let mut out = String::with_capacity(text.len() + 32);
    let mut open = begin(&mut out, *style);
    let mut shown = 0;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((numbers, after)) = sequence(rest) {
            rest = after;
            end(&mut out, open);
            style.apply(numbers);
            open = begin(&mut out, *style);
            continue;
        }
        if shown == LINE_CHARS_MAX {
            out.push_str("<span class=\"unseen\">… the line is longer</span>");
            break;
        }
        shown += 1;
        push_escaped(&mut out, c);
        rest = &rest[c.len_utf8()..];
    }
    end(&mut out, open);
    out
}

fn begin(out: &mut String, style: Style) -> bool {
    if !style.is_plain() {
        write!(out, "<span class=\"{}\">", style.classes()).expect("invariant: a string takes any text");
    }
    !style.is_plain()
}

fn end(out: &mut String, open: bool) {
    if open {
        out.push_str("</span>");
    }
}

/// An SGR sequence at the beginning of a text, and what follows it.
fn sequence(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("\u{1b}[")?;
    let at = rest.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'))?;
    let end = rest[at..].strip_prefix('m')?;
    (at <= SEQUENCE_CHARS_MAX).then_some((&rest[..at], end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        line(text.as_bytes(), &mut Style::default())
    }

    #[test]
    fn colours_become_classes() {
        assert_eq!(of("a\u{1b}[1;31mb\u{1b}[0mc\r\n"), "a<span class=\"b f1\">b</span>c");
        assert_eq!(of("\u{1b}[38;5;9mx\u{1b}[39my"), "<span class=\"f9\">x</span>y");
        assert_eq!(of("\u{1b}[38;2;250;10;10mx"), "<span class=\"f9\">x</span>");
        assert_eq!(of("\u{1b}[48;5;4;97mx"), "<span class=\"f15 k4\">x</span>");
    }

    #[test]
    fn a_colour_goes_on_in_the_next_line() {
        let mut style = Style::default();
        line(b"\x1b[32mgreen\n", &mut style);
        assert_eq!(line(b"still\x1b[m\n", &mut style), "<span class=\"f2\">still</span>");
        assert!(style.is_plain());
    }

    #[test]
    fn i01_only_colours_pass() {
        let hostile = [
            "\u{1b}]52;c;aGk=\u{7}",
            "\u{1b}[21t",
            "\u{1b}]8;;file:///x\u{7}y",
            "\u{1b}Pq",
            "\u{9b}31m",
            "ok\rEVIL",
        ];
        for text in hostile {
            let shown = of(text);
            assert!(shown.contains("class=\"unseen\">U+"), "{shown}");
            assert!(!shown.chars().any(char::is_control), "{shown}");
        }
    }

    #[test]
    fn f07_markup_in_logs_is_text() {
        let shown = of("<script>alert(1)</script> <svg onload=x> {{7*7}} \u{1b}[31\"onclick=m");
        assert!(!shown.contains("<script") && !shown.contains("<svg") && shown.contains("&lt;script&gt;"));
        assert!(shown.contains("31&quot;onclick=m"));
    }

    #[test]
    fn long_lines_and_broken_text_end() {
        assert!(of(&"x".repeat(100_000)).len() < 5_000);
        assert_eq!(line(b"\xff\xfe", &mut Style::default()), "\u{fffd}\u{fffd}");
    }
}
