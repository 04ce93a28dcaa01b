//! Output: data on standard output, talk on standard error, and nothing foreign that could drive a terminal.
//!
//! Every byte of both goes through [`Sanitiser`]. Of the sequences that a terminal obeys only colours are left, those
//! of this program as well as those of a log; everything else is shown as an escape (attack I01).

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use towpath_core::ids::is_unprintable;

pub mod log;
pub mod sanitise;
pub mod style;
pub mod table;

pub use sanitise::{Sanitiser, inline};
pub use style::Style;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    json: bool,
    colour_out: bool,
    colour_err: bool,
    live: bool,
}

impl Terminal {
    /// Looks at the streams and at `NO_COLOR` (<https://no-color.org>).
    pub fn detect(json: bool) -> Terminal {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = !set("NO_COLOR") && !dumb;
        Terminal {
            json,
            colour_out: colour && !json && io::stdout().is_terminal(),
            colour_err: colour && io::stderr().is_terminal(),
            live: !json && !dumb && io::stderr().is_terminal(),
        }
    }

    /// Whether data is to be one JSON object a line.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether lines on standard error may be drawn over.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether standard output shows colours.
    pub fn has_colour(&self) -> bool {
        self.colour_out
    }

    /// Data for people: text with a line end.
    pub fn data(&self, text: impl fmt::Display) -> io::Result<()> {
        write_line(io::stdout().lock(), &text.to_string(), self.colour_out)
    }

    /// Data for programs: one object on one line.
    pub fn record(&self, record: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(record).map_err(io::Error::other)?;
        let mut out = io::stdout().lock();
        out.write_all(escape_json(&text).as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Data for programs that is of use to people as well: an object over many lines, where none is asked for on one.
    pub fn document(&self, document: &impl Serialize) -> io::Result<()> {
        if self.json {
            return self.record(document);
        }
        let text = serde_json::to_string_pretty(document).map_err(io::Error::other)?;
        let mut out = io::stdout().lock();
        out.write_all(escape_json(&text).as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Text of our own making that a program reads as it is: completions, a man page.
    pub fn verbatim(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// A piece of a log, in the order in which it was written.
    pub fn log(&self, sanitiser: &mut Sanitiser, piece: &[u8]) -> io::Result<()> {
        let mut safe = Vec::with_capacity(piece.len() + piece.len() / 8);
        sanitiser.push(piece, &mut safe);
        write_safe(&safe)
    }

    /// The end of a log.
    pub fn log_end(&self, sanitiser: &mut Sanitiser) -> io::Result<()> {
        let mut safe = Vec::new();
        sanitiser.finish(&mut safe);
        write_safe(&safe)
    }

    /// Talk. A standard error that is closed is nobody's loss.
    pub fn talk(&self, text: impl fmt::Display) {
        let _ = write_line(io::stderr().lock(), &text.to_string(), self.colour_err);
    }

    /// Talk that is drawn over later: goes up over `above` lines, which were drawn before, and draws these instead.
    /// Only where [`Terminal::is_live`].
    pub fn draw(&self, above: usize, lines: &[String]) {
        let mut frame = Vec::new();
        if above > 0 {
            // To the first column of the first of them, and everything below away (ECMA-48, CPL and ED).
            frame.extend(format!("\x1b[{above}F\x1b[J").bytes());
        }
        for line in lines {
            frame.extend(sanitise::sanitise(line, self.colour_err));
            frame.push(b'\n');
        }
        let mut err = io::stderr().lock();
        // A standard error that is closed is nobody's loss.
        let _ = err.write_all(&frame).and_then(|()| err.flush());
    }
}

fn write_safe(safe: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(safe)?;
    out.flush()
}

fn write_line(mut stream: impl Write, text: &str, colour: bool) -> io::Result<()> {
    let mut safe = sanitise::sanitise(text, colour);
    safe.push(b'\n');
    stream.write_all(&safe)?;
    stream.flush()
}

/// JSON leaves C1 and direction characters as they are; here they become JSON's own escapes.
fn escape_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_unprintable(c) {
            safe.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| safe.push_str(&format!("\\u{unit:04x}")));
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_character_that_a_terminal_obeys() {
        let text = serde_json::to_string("a\u{9b}21t\u{1b}[31m\u{202e}\u{e0041}é").unwrap();
        let safe = escape_json(&text);
        assert_eq!(safe, r#""a\u009b21t\u001b[31m\u202e\udb40\udc41é""#);
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), "a\u{9b}21t\u{1b}[31m\u{202e}\u{e0041}é");
    }
}
