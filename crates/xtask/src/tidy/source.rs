//! Rust text without its comments and literals, and which of its lines are tests.

/// A Rust file, ready to be searched.
pub struct Source {
    /// The text with every character of a comment, string or character literal made a space. Lines stay lines.
    pub code: String,
    /// For each line, whether it is test code.
    is_test: Vec<bool>,
}

/// A function in the text.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`, from 1.
    pub line: usize,
    /// From that line to its closing brace.
    pub lines: usize,
}

impl Source {
    /// Reads one file; the path decides whether all of it is tests.
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let mut is_test = vec![is_test_path(path); code.lines().count()];
        let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
        for (start, end) in starts.filter_map(|at| Some((at, item_end(&code, at)?))) {
            let (first, last) = (line_of(&code, start), line_of(&code, end));
            is_test[first - 1..last].iter_mut().for_each(|line| *line = true);
        }
        Source { code, is_test }
    }

    /// Each line of code with its number, from 1, and whether it is test code.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let lines = self.code.lines().zip(&self.is_test).enumerate();
        lines.map(|(at, (line, is_test))| (at + 1, line, *is_test))
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let code = &self.code;
        let found = words(code).zip(words(code).skip(1)).filter(|((_, word), _)| *word == "fn");
        let function = |((start, _), (name_at, name)): ((usize, &str), (usize, &str))| {
            // `fn(u8)` is a type: between `fn` and a name there is only space.
            if !code[start + 2..name_at].trim().is_empty() {
                return None;
            }
            let end = item_end(code, start)?;
            let body = code[start..=end].ends_with('}');
            let (line, last) = (line_of(code, start), line_of(code, end));
            body.then(|| Function { name: name.to_owned(), line, lines: last - line + 1 })
        };
        found.filter_map(function).collect()
    }
}

/// Files that hold nothing but tests.
pub fn is_test_path(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/benches/")
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Identifiers and keywords, with the place of each.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let pieces = code.split(move |c| !is_word(c)).filter(|word| !word.is_empty());
    pieces.map(move |word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// Where the item that begins at `start` ends: at its `;`, or at the brace that closes its first block.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let mut brackets = 0_usize;
    let mut braces = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && brackets == 0 {
                    return Some(at);
                }
            }
            b';' if braces == 0 && brackets == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// Makes every character of a comment or literal a space.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let length = match skipped(rest, previous) {
            0 => {
                out.push(first);
                first.len_utf8()
            }
            length => {
                out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                length
            }
        };
        previous = rest[..length].chars().next_back().unwrap_or(' ');
        rest = &rest[length..];
    }
    out
}

/// How many bytes of comment or literal begin here; 0 for code.
fn skipped(rest: &str, previous: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    if previous.is_alphanumeric() || previous == '_' {
        return if rest.starts_with('"') { string(rest) } else { 0 };
    }
    let quote = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = &rest[..rest.len() - quote.len()];
    if prefix.ends_with('r') && prefix.len() <= 2 {
        let hashes = quote.len() - quote.trim_start_matches('#').len();
        if quote[hashes..].starts_with('"') {
            return prefix.len() + raw_string(quote, hashes);
        }
    }
    if prefix.len() <= 1 && quote.starts_with('"') { prefix.len() + string(quote) } else { 0 }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let pair = rest.as_bytes().get(at..at + 2).unwrap_or_default();
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// `'x'` and `'\n'` are literals; `'a` is a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest[1..].chars();
    match chars.next() {
        Some('\\') => rest.get(3..).and_then(|rest| rest.find('\'')).map_or(rest.len(), |end| end + 4),
        Some(c) if chars.next() == Some('\'') => c.len_utf8() + 2,
        _ => 0,
    }
}

fn string(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str, hashes: usize) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    let open = hashes + 1;
    rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let kept = |text: &str| blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(kept("a // b\nc"), "a c");
        assert_eq!(kept("a /* b /* c */ d */ e"), "a e");
        assert_eq!(kept(r#"f("x\"y", b"z", 'q', '\'', '\u{1}')"#), "f( , , , , )");
        assert_eq!(kept(r##"let s = r#"a "b" c"#; d"##), "let s = ; d");
        assert_eq!(kept("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(kept("r#type + br\"x\" + number"), "r#type + + number");
        assert_eq!(kept("\"ü\" ü 'ü' x"), "ü x");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(blank("a \"b\nc\" d").lines().count(), 2);
        assert_eq!(blank("\"unfinished"), " ".repeat(11));
    }

    #[test]
    fn functions_have_their_lengths() {
        let text = "fn one() {}\ntrait T { fn none(&self); }\nfn two<const N: usize>(x: [u8; N])\nwhere\n{\n    \
                    if a { b }\n}\ntype F = fn(u8);\n";
        let found = Source::new("x.rs", text).functions();
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("one", 1, 1), ("two", 3, 5)]);
    }

    #[test]
    fn test_lines_are_known() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let tests = |path: &str| Source::new(path, text).lines().map(|line| line.2).collect::<Vec<_>>();
        assert_eq!(tests("src/x.rs"), [false, true, true, true, true, false]);
        assert_eq!(tests("tests/x.rs").len(), 6);
        assert!(tests("crates/a/tests/x.rs").iter().all(|is_test| *is_test));
    }
}
