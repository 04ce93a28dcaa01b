//! The forms in which a program may print a secret.

use std::collections::BTreeSet;
use std::ops::Range;

/// The shortest form that is masked. Shorter ones would blank ordinary words. Source: trust T4.
pub const SECRET_BYTES_MIN: usize = 6;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whose ways of writing a secret are looked for. Every form costs memory and time, the more the longer the secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Everybody's.
    All,
    /// Lines as they are and as most write them in JSON, XML and commands of a shell; the whole in base64.
    Common,
}

/// Every form of `value` that is long enough: of each of its lines and, in base64, also of the whole, as a character there
/// may hold bits of two lines.
pub fn forms(value: &[u8], writers: Writers) -> BTreeSet<Vec<u8>> {
    let trimmed = value.trim_ascii();
    // Only what is a secret by its own length: the base64 of "x" would be in every log.
    let is_long = |part: &&[u8]| part.len() >= SECRET_BYTES_MIN;
    let mut all: BTreeSet<Vec<u8>> =
        [value, trimmed].into_iter().filter(is_long).flat_map(base64_forms).collect();
    let text = if is_long(&trimmed) { trimmed } else { value };
    for part in parts(text).into_iter().filter(is_long) {
        all.insert(part.to_vec());
        match writers {
            Writers::All => all.extend(all_forms(part)),
            Writers::Common => all.extend(common_forms(part)),
        }
    }
    if writers == Writers::All {
        let url_safe: Vec<Vec<u8>> = all.iter().map(|form| base64_url(form)).collect();
        all.extend(url_safe);
    }
    all.retain(|form| form.len() >= SECRET_BYTES_MIN);
    all
}

/// The lines of `value`, and each also together with those behind it that are too short to be masked by themselves. Writers
/// go on byte by byte, so that where all these are masked the whole is. Short lines at the beginning belong to the first one
/// that is long enough.
fn parts(value: &[u8]) -> BTreeSet<&[u8]> {
    let mut all = BTreeSet::new();
    let (mut begin, mut has_long, mut at) = (0, false, 0);
    for line in value.split_inclusive(|byte| *byte == b'\n') {
        let text = without_break(line);
        if text.len() >= SECRET_BYTES_MIN {
            all.insert(text);
            if has_long {
                all.insert(without_break(&value[begin..at]));
                begin = at;
            }
            has_long = true;
        }
        at += line.len();
    }
    all.insert(without_break(&value[begin..]));
    all
}

fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn all_forms(part: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut all = base64_forms(part);
    all.extend([hex(part, b"0123456789abcdef"), hex(part, b"0123456789ABCDEF")]);
    all.extend(url_forms(part));
    all.extend(json_forms(part));
    all.extend(shell_forms(part));
    all.extend(xml_forms(part));
    all
}

fn common_forms(part: &[u8]) -> BTreeSet<Vec<u8>> {
    let [lower, _] = JSON_NUMBERS;
    let json = std::str::from_utf8(part)
        .map(|text| [None, Some(lower)].map(|foreign| json_form(text, "", lower, foreign).into_bytes()));
    let shell = shell_forms(part).into_iter().take(SHELL_COMMON);
    let xml = XML_WRITERS[..XML_COMMON].iter().map(|writer| xml_form(part, &[writer]));
    json.into_iter().flatten().chain(shell).chain(xml).collect()
}

/// `value` within a longer text, and alone.
fn base64_forms(value: &[u8]) -> BTreeSet<Vec<u8>> {
    (0..3).map(|offset| base64_inside(value, offset)).chain([base64_alone(value)]).collect()
}

/// The characters that are the same whatever stands before and after `value` at this offset of a base64 text.
fn base64_inside(value: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(value);
    let bit_at = |at: usize| padded[at / 8] >> (7 - at % 8) & 1;
    let whole = padded.len() * 8 / 6;
    let first = (offset * 8).div_ceil(6);
    base64_chars(first..whole, bit_at)
}

/// `value` encoded alone, without padding: its last character also holds the bits of no byte.
fn base64_alone(value: &[u8]) -> Vec<u8> {
    let bit_at = |at: usize| value.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    base64_chars(0..(value.len() * 8).div_ceil(6), bit_at)
}

fn base64_chars(chars: Range<usize>, bit_at: impl Fn(usize) -> u8) -> Vec<u8> {
    let index =
        |char_at: usize| (0..6).fold(0, |index, bit| index << 1 | usize::from(bit_at(char_at * 6 + bit)));
    chars.map(|char_at| BASE64[index(char_at)]).collect()
}

fn base64_url(form: &[u8]) -> Vec<u8> {
    let is_base64 = form.iter().all(|byte| BASE64.contains(byte));
    let swap = |byte: &u8| match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => *other,
    };
    if is_base64 { form.iter().map(swap).collect() } else { Vec::new() }
}

fn hex(value: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    value.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

/// Percent encodings: strict (RFC 3986), with `/` kept, as a form field (space is `+`), each in both cases of hex.
fn url_forms(value: &[u8]) -> Vec<Vec<u8>> {
    let encode = |kept: &[u8], space: &[u8], digits: &[u8; 16]| {
        let mut out = Vec::with_capacity(value.len());
        for byte in value {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(*byte),
                byte if kept.contains(byte) => out.push(*byte),
                b' ' => out.extend_from_slice(space),
                _ => {
                    out.push(b'%');
                    out.extend_from_slice(&hex(&[*byte], digits));
                }
            }
        }
        out
    };
    let (upper, lower) = (b"0123456789ABCDEF", b"0123456789abcdef");
    let kept: [(&[u8], &[u8]); 4] = [
        (b"-._~", b"%20"),
        (b"-._~/", b"%20"),
        (b"-._*", b"+"),        // HTML forms
        (b"-._~!*'()", b"%20"), // encodeURIComponent
    ];
    kept.iter().flat_map(|(kept, space)| [encode(kept, space, upper), encode(kept, space, lower)]).collect()
}

/// Characters that writers of JSON escape by number beside those that they have to: most none; Go, Ruby on Rails and PHP by
/// option; Gson; PHP by all its options; .NET.
const JSON_ESCAPED: &[&str] = &["", "<>&", "<>&'=", "<>&'\"", "<>&'\"+`\u{7f}"];

/// How half a character of UTF-16 is escaped by its number.
type JsonNumber = fn(u16) -> String;

/// Both are in use, and PHP uses both at once.
const JSON_NUMBERS: [JsonNumber; 2] = [|unit| format!("\\u{unit:04x}"), |unit| format!("\\u{unit:04X}")];

/// Inside a JSON string: by each writer, with `/` escaped or not, in ASCII only or not.
fn json_forms(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(value) else { return BTreeSet::new() };
    let mut all = BTreeSet::new();
    for escaped in JSON_ESCAPED {
        for number in JSON_NUMBERS {
            for foreign in [None, Some(JSON_NUMBERS[0]), Some(JSON_NUMBERS[1])] {
                let form = json_form(text, escaped, number, foreign);
                all.extend([form.replace('/', "\\/").into_bytes(), form.into_bytes()]);
            }
        }
    }
    all
}

/// The inside of a JSON string with the characters in `escaped` written as numbers and, if so wanted, those outside of ASCII.
fn json_form(text: &str, escaped: &str, number: JsonNumber, foreign: Option<JsonNumber>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let by_number = match c {
            c if escaped.contains(c) => Some(number),
            '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => None,
            c if c < ' ' => Some(number),
            c if c.is_ascii() => None,
            _ => foreign,
        };
        match (by_number, c) {
            (Some(number), _) => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&number(*unit)));
            }
            (None, '"') => out.push_str("\\\""),
            (None, '\\') => out.push_str("\\\\"),
            (None, '\u{8}') => out.push_str("\\b"),
            (None, '\t') => out.push_str("\\t"),
            (None, '\n') => out.push_str("\\n"),
            (None, '\u{c}') => out.push_str("\\f"),
            (None, '\r') => out.push_str("\\r"),
            (None, c) => out.push(c),
        }
    }
    out
}

/// So many of the first shell forms are common: `set -x` prints them.
const SHELL_COMMON: usize = 2;

/// As shells print it: between single quotes, between double quotes, and with backslashes (`printf %q`, `set -x`).
fn shell_forms(value: &[u8]) -> Vec<Vec<u8>> {
    let escape = |needs: fn(u8) -> bool, with: &dyn Fn(u8) -> Vec<u8>| -> Vec<u8> {
        value.iter().flat_map(|byte| if needs(*byte) { with(*byte) } else { vec![*byte] }).collect()
    };
    let backslash = |byte: u8| vec![b'\\', byte];
    vec![
        escape(|byte| byte == b'\'', &|_| b"'\\''".to_vec()),
        escape(|byte| byte == b'\'', &|_| b"'\"'\"'".to_vec()),
        escape(|byte| b"\"\\$`".contains(&byte), &backslash),
        escape(
            |byte| byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"-_./:,+@%=".contains(&byte),
            &backslash,
        ),
        escape(
            |byte| byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"-_./:+@%".contains(&byte),
            &backslash,
        ),
        escape(|byte| b"\\'".contains(&byte), &backslash), // $'...'
    ]
}

/// Characters and what stands for them.
type Escapes = &'static [(u8, &'static str)];

/// What writers of XML and HTML put for characters of a text or an attribute. Reports of tests are made by them.
const XML_WRITERS: &[Escapes] = &[
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;")], // a text, by nearly everybody
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;")],
    // quick-xml (cargo-nextest), Java, Jest
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;"), (b'\'', "&apos;")],
    &[(b'&', "&amp;"), (b'<', "&lt;")],
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'"', "&quot;")],
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;"), (b'\'', "&#39;")],
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;"), (b'\'', "&#x27;")], // Python's html
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;"), (b'\'', "&#039;")], // PHP
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&#34;"), (b'\'', "&#39;")],
];
/// So many of the first of them are common.
const XML_COMMON: usize = 3;

/// How they write the white space of an attribute, which a reader would take for spaces.
const XML_SPACES: &[Escapes] = &[
    &[],
    &[(b'\n', "&#10;"), (b'\r', "&#13;"), (b'\t', "&#9;")],
    &[(b'\n', "&#10;"), (b'\r', "&#13;"), (b'\t', "&#09;")], // Python
    &[(b'\n', "&#xA;"), (b'\r', "&#xD;"), (b'\t', "&#x9;")], // Go
    &[(b'\n', "&#x0A;"), (b'\r', "&#x0D;"), (b'\t', "&#x09;")], // GoogleTest
    &[(b'\r', "&#13;")],
    &[(b'\r', "&#xD;")],
];

/// In a text or an attribute of XML or HTML.
fn xml_forms(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let of_writer = |writer: &Escapes| XML_SPACES.iter().map(|spaces| xml_form(value, &[writer, spaces]));
    XML_WRITERS.iter().flat_map(of_writer).collect()
}

fn xml_form(value: &[u8], escapes: &[&[(u8, &str)]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match escapes.iter().copied().flatten().find(|(escaped, _)| escaped == byte) {
            Some((_, text)) => out.extend_from_slice(text.as_bytes()),
            None => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{Masker, Secret};

    #[test]
    fn base64_is_found_at_each_offset() {
        // Reference: `printf 'xhunter2secret!' | base64` and its neighbours.
        let all = forms(b"hunter2secret", Writers::All);
        let found = |text: &str| all.iter().any(|form| text.contains(std::str::from_utf8(form).unwrap()));
        assert!(found("aHVudGVyMnNlY3JldA=="));
        assert!(found("eGh1bnRlcjJzZWNyZXQh"));
        assert!(found("eHhodW50ZXIyc2VjcmV0IQ=="));
    }

    #[test]
    fn short_lines_are_left_alone() {
        let all = forms(b"first-line\nab\n", Writers::All);
        assert!(all.contains(&b"first-line"[..]));
        assert!(!all.contains(&b"ab"[..]));
        assert!(forms(b"short", Writers::All).is_empty());
    }

    #[test]
    fn where_all_parts_of_a_secret_are_masked_the_whole_is() {
        let breaks = ["\\\n", "\\n", "\n", "%0A", "%0a", "&#10;", "&#xA;", "&#x0A;", "0a", "0A"];
        for value in
            ["ab\nlong-enough\nc\n\nalso-long <&>\n=d\n", "a\nb\nc\nd", "-----BEGIN-----\nMIIEv+/Q\nAgEA"]
        {
            let masker = Masker::new(&[Secret::new(value)]).unwrap();
            for form in all_forms(value.trim_end().as_bytes()) {
                let shown = String::from_utf8(masker.masked(&form)).unwrap();
                let left = breaks.iter().fold(shown.replace("***", ""), |left, one| left.replace(one, ""));
                assert_eq!(left, "", "{}", String::from_utf8_lossy(&form));
            }
        }
    }

    #[test]
    fn a_secret_of_any_size_is_masked_as_the_common_writers_have_it() {
        let value = "{\"key\": \"it's <&> ü\"}\nab\n";
        let all = forms(value.as_bytes(), Writers::Common);
        for wanted in [
            "{\"key\": \"it's <&> ü\"}\nab",
            r#"{\"key\": \"it's <&> ü\"}\nab"#,
            r#"{\"key\": \"it's <&> \u00fc\"}\nab"#,
            "{\"key\": \"it's &lt;&amp;&gt; ü\"}\nab",
            "{&quot;key&quot;: &quot;it's &lt;&amp;&gt; ü&quot;}\nab",
            "{\"key\": \"it'\\''s <&> ü\"}\nab",
            "eyJrZXkiOiAiaXQncyA8Jj4gw7wifQphYgo",
        ] {
            assert!(all.contains(wanted.as_bytes()), "{wanted}");
        }
        let bytes = all.iter().map(Vec::len).sum::<usize>();
        assert!(
            bytes <= 32 * value.len() && all.is_subset(&forms(value.as_bytes(), Writers::All)),
            "{bytes}"
        );
    }

    #[test]
    fn what_writers_of_json_and_xml_make_of_a_secret_are_forms() {
        let all = forms("a<b>&'\"c/d=+\\ü\ne".as_bytes(), Writers::All);
        let xml = [
            "a&lt;b>&amp;'\"c/d=+\\ü\ne",
            "a&lt;b&gt;&amp;&apos;&quot;c/d=+\\ü\ne",
            "a&lt;b&gt;&amp;'&quot;c/d=+\\ü&#10;e",
            "a&lt;b&gt;&amp;&#39;&#34;c/d=+\\ü&#xA;e",
            "a&lt;b&gt;&amp;&apos;&quot;c/d=+\\ü&#x0A;e",
        ];
        let json = [
            r#"a<b>&'\"c/d=+\\ü\ne"#,                                   // most
            r#"a<b>&'\"c/d=+\\\u00fc\ne"#,                              // Python
            r#"a<b>&'\"c\/d=+\\\u00fc\ne"#,                             // PHP
            r#"a\u003cb\u003e\u0026'\"c/d=+\\ü\ne"#,                    // Go
            r#"a\u003cb\u003e\u0026\u0027\"c/d\u003d+\\ü\ne"#,          // Gson
            r#"a\u003Cb\u003E\u0026\u0027\u0022c\/d=+\\\u00fc\ne"#,     // PHP, by option
            r#"a\u003Cb\u003E\u0026\u0027\u0022c/d=\u002B\\\u00FC\ne"#, // .NET
        ];
        for wanted in xml.iter().chain(&json) {
            assert!(all.contains(wanted.as_bytes()), "{wanted}");
        }
    }

    #[test]
    fn quoting_and_escapes_are_forms() {
        let all = forms("a b/\"c'ü$".as_bytes(), Writers::All);
        for wanted in [
            "a%20b%2F%22c%27%C3%BC%24",
            "a%20b/%22c%27%C3%BC%24",
            "a+b%2f%22c%27%c3%bc%24",
            "a b/\\\"c'ü$",
            "a b\\/\\\"c'ü$",
            "a b/\\\"c'\\u00fc$",
            "a b/\"c'\\''ü$",
            "a\\ b/\\\"c\\'ü\\$",
            "6120622f226327c3bc24",
        ] {
            assert!(all.contains(wanted.as_bytes()), "{wanted}");
        }
    }
}
