//! Globs over paths in a tree: one meaning for `when.paths`, `outputs` and `reports.junit`.
//!
//! Own code, because the patterns come from people who are not trusted and there may be 10,000 of them: matching takes
//! at most pattern times path steps and needs nothing compiled. A pattern that matches a folder stands for everything
//! below it, as in Git's pathspecs; a filter that is too wide runs a job too often, one that is too narrow skips it.

use std::fmt;

use crate::ids::is_unprintable;

/// Bytes in one glob. Source: `PATH_MAX` is 4096, and names in practice are far shorter.
pub const GLOB_BYTES_MAX: usize = 512;

/// A pattern for paths below the root of a tree.
///
/// `*` and `?` match within one part of a path, `**` any number of whole parts, `[a-z]` and `[!a-z]` one ASCII
/// character.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    AnyParts,
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token {
    Byte(u8),
    AnyChar,
    AnyRun,
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

/// Why a text is not a glob of a path below the work tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GlobError {
    /// Nothing but dots and slashes.
    #[error("it names no path")]
    Empty,
    /// More than [`GLOB_BYTES_MAX`].
    #[error("it is longer than {GLOB_BYTES_MAX} bytes")]
    Long,
    /// Begins with `/`.
    #[error("it is absolute, and a job sees only paths below its work tree")]
    Absolute,
    /// Begins with `~`.
    #[error("`~` is a home folder, and a job sees only paths below its work tree")]
    Home,
    /// Has a part `..`.
    #[error("`..` leaves the work tree")]
    Parent,
    /// Has a part `.git`.
    #[error("`.git` is not part of the tree")]
    Git,
    /// Has a backslash.
    #[error("`\\` neither separates folders nor escapes here")]
    Backslash,
    /// Has `{` or `}`.
    #[error("`{{a,b}}` is not understood")]
    Brace,
    /// Has `**` beside other characters in one part.
    #[error("`**` stands for whole folders, so it must be alone between slashes")]
    DoubleStar,
    /// A `[` without its `]`, an empty or non-ASCII class, or a range that runs backwards.
    #[error("the class in `[...]` is not complete")]
    Class,
    /// Control characters and invisible ones.
    #[error("it has characters that cannot be seen")]
    Unprintable,
}

impl GlobError {
    /// What to write instead.
    pub fn hint(self) -> &'static str {
        match self {
            GlobError::Empty => "write a path such as `dist/*.whl`, or `**` for everything",
            GlobError::Long => "use `*` or `**` for the longer parts",
            GlobError::Absolute | GlobError::Home | GlobError::Parent => {
                "write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere"
            }
            GlobError::Git => "let the job copy what it needs from there into a file of the work tree",
            GlobError::Backslash => "separate folders with `/`; write `[*]` for a literal `*`",
            GlobError::Brace => "write one entry for each alternative",
            GlobError::DoubleStar => {
                "write `**/*.rs` for every `.rs` file, or `src/**` for everything below `src`"
            }
            GlobError::Class => "write `[abc]`, `[a-z]` or `[!a-z]`",
            GlobError::Unprintable => "write the name with visible characters, or `?` in their place",
        }
    }
}

impl Glob {
    /// Reads a glob.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Glob, GlobError> {
        check_whole(text)?;
        let parts: Result<Vec<Part>, GlobError> =
            text.split('/').filter(|part| !matches!(*part, "" | ".")).map(parse_part).collect();
        match parts? {
            parts if parts.is_empty() => Err(GlobError::Empty),
            parts => Ok(Glob { text: text.to_owned(), parts }),
        }
    }

    /// The glob as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path, or a folder that it lies in, matches. Paths are bytes from the root, separated by `/`.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let names: Vec<&[u8]> = path.as_ref().split(|byte| *byte == b'/').collect();
        match_parts(&self.parts, &names)
    }

    /// Whether the folder itself or something below it could match; a walk may pass over any other.
    pub fn may_match_below(&self, folder: impl AsRef<[u8]>) -> bool {
        for (part, name) in self.parts.iter().zip(folder.as_ref().split(|byte| *byte == b'/')) {
            match part {
                Part::AnyParts => return true,
                Part::Name(tokens) if !match_name(tokens, name) => return false,
                Part::Name(_) => {}
            }
        }
        true
    }

    /// A path that matches without the folders that the glob names in full: `dist/sub/a.whl` of `dist/**` is
    /// `sub/a.whl`, as a copy of what the glob names would have it. A name is always left.
    pub fn within<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        let folders = &self.parts[..self.parts.len() - 1];
        let named = folders.iter().take_while(|part| part.is_plain()).count();
        path.splitn(named + 1, |byte| *byte == b'/').last().unwrap_or(path)
    }
}

impl Part {
    /// Whether it is one name and nothing else.
    fn is_plain(&self) -> bool {
        matches!(self, Part::Name(tokens) if tokens.iter().all(|token| matches!(token, Token::Byte(_))))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn check_whole(text: &str) -> Result<(), GlobError> {
    let broken = [
        (text.len() > GLOB_BYTES_MAX, GlobError::Long),
        (text.chars().any(is_unprintable), GlobError::Unprintable),
        (text.starts_with('/'), GlobError::Absolute),
        (text.starts_with('~'), GlobError::Home),
        (text.contains('\\'), GlobError::Backslash),
        (text.contains(['{', '}']), GlobError::Brace),
        (text.split('/').any(|part| part == ".."), GlobError::Parent),
        (text.split('/').any(|part| part.eq_ignore_ascii_case(".git")), GlobError::Git),
    ];
    broken.into_iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, error)| Err(error))
}

fn parse_part(part: &str) -> Result<Part, GlobError> {
    if part == "**" {
        return Ok(Part::AnyParts);
    }
    if part.contains("**") {
        return Err(GlobError::DoubleStar);
    }
    let mut tokens = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        tokens.push(match first {
            b'*' => Token::AnyRun,
            b'?' => Token::AnyChar,
            b'[' => parse_class(&mut rest)?,
            byte => Token::Byte(*byte),
        });
    }
    Ok(Part::Name(tokens))
}

/// Reads from behind `[` to behind `]`. A `]` that comes first is a member, as in every shell.
fn parse_class(rest: &mut &[u8]) -> Result<Token, GlobError> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let body = &rest[usize::from(negated)..];
    let end = body.iter().skip(1).position(|byte| *byte == b']').ok_or(GlobError::Class)? + 1;
    let mut members = &body[..end];
    let mut ranges = Vec::new();
    while let [low, after @ ..] = members {
        let (range, after) = match after {
            [b'-', high, after @ ..] => ((*low, *high), after),
            after => ((*low, *low), after),
        };
        if range.0 > range.1 || !range.0.is_ascii() || !range.1.is_ascii() {
            return Err(GlobError::Class);
        }
        ranges.push(range);
        members = after;
    }
    *rest = &body[end + 1..];
    Ok(Token::Class { negated, ranges })
}

/// Only the newest `**` needs to be widened on a mismatch: an older one could only have matched what it then covers.
fn match_parts(parts: &[Part], names: &[&[u8]]) -> bool {
    let (mut part, mut name, mut widen) = (0, 0, None);
    while part < parts.len() {
        if name == names.len() {
            return false;
        }
        let matched = match &parts[part] {
            Part::AnyParts if part + 1 == parts.len() => return true,
            Part::AnyParts => {
                part += 1;
                widen = Some((part, name));
                continue;
            }
            Part::Name(tokens) => match_name(tokens, names[name]),
        };
        match (matched, widen) {
            (true, _) => (part, name) = (part + 1, name + 1),
            (false, Some((after, from))) => {
                (part, name) = (after, from + 1);
                widen = Some((after, from + 1));
            }
            (false, None) => return false,
        }
    }
    true
}

fn match_name(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at, mut widen) = (0, 0, None);
    while token < tokens.len() || at < name.len() {
        if tokens.get(token) == Some(&Token::AnyRun) {
            token += 1;
            widen = Some((token, at));
            continue;
        }
        match (tokens.get(token).map_or(0, |token| token.length(&name[at..])), widen) {
            (0, Some((after, from))) if from < name.len() => {
                (token, at) = (after, from + 1);
                widen = Some((after, from + 1));
            }
            (0, _) => return false,
            (length, _) => (token, at) = (token + 1, at + length),
        }
    }
    true
}

impl Token {
    /// How many bytes at the start of `rest` it matches; 0 for none.
    fn length(&self, rest: &[u8]) -> usize {
        let Some(first) = rest.first() else { return 0 };
        match self {
            Token::Byte(byte) => usize::from(byte == first),
            Token::AnyChar => char_length(rest),
            Token::AnyRun => 0,
            Token::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (low..=high).contains(&first));
                if inside == *negated { 0 } else { char_length(rest) }
            }
        }
    }
}

/// One UTF-8 character, or one byte of a name in another encoding.
fn char_length(rest: &[u8]) -> usize {
    let continued = rest[1..].iter().take(3).take_while(|byte| (0x80..0xc0).contains(*byte)).count();
    if rest[0] < 0xc0 { 1 } else { 1 + continued }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(glob: &str, matching: &[&str], others: &[&str]) {
        let parsed = Glob::parse(glob).unwrap();
        for path in matching {
            assert!(parsed.matches(path), "{glob} should match {path}");
        }
        for path in others {
            assert!(!parsed.matches(path), "{glob} should not match {path}");
        }
    }

    #[test]
    fn wildcards_stay_within_a_part_and_double_stars_do_not() {
        check("*.md", &["a.md", ".md"], &["docs/a.md", "a.mdx"]);
        check("**/*.md", &["a.md", "docs/a.md", "a/b/c.md"], &["a.rs"]);
        check("src/**/test_*.py", &["src/test_a.py", "src/a/b/test_.py"], &["test_a.py", "src/a/b.py"]);
        check("a/**/b/**/c", &["a/b/c", "a/x/b/y/z/c", "a/b/b/c/d"], &["a/b", "a/c", "b/c"]);
        check("**", &["a", "a/b"], &[]);
        check("lib?.so", &["liba.so", "libü.so"], &["lib.so", "libab.so", "lib/.so"]);
        check("v[0-9][!a-c]", &["v1d", "v1]"], &["va1", "v1a", "v1"]);
        check("*a*b*", &["ab", "xaybz", "aab"], &["ba", "a"]);
        check("[]x]", &["]", "x"], &["[]x]"]);
    }

    #[test]
    fn a_folder_stands_for_everything_below_it() {
        check("docs", &["docs", "docs/a/b.md"], &["docs2", "a/docs"]);
        check("docs/", &["docs/a"], &["documents"]);
        check("./docs/**", &["docs/a/b"], &["docs"]);
        check("crates/*", &["crates/core/src/lib.rs"], &["crates", "x/crates/core"]);
    }

    #[test]
    fn a_walk_passes_over_folders_in_which_nothing_can_match() {
        let enters = |glob: &str, folder: &str| Glob::parse(glob).unwrap().may_match_below(folder);
        for (glob, folder) in
            [("dist/*.whl", "dist"), ("a/**/b", "a/x/y"), ("dist", "dist/sub"), ("**/x", "y"), ("*/b/c", "a")]
        {
            assert!(enters(glob, folder), "{glob} below {folder}");
        }
        for (glob, folder) in [("dist/*.whl", "src"), ("a/**/b", "b"), ("a/b/c", "a/c"), ("*/b/c", "a/c")] {
            assert!(!enters(glob, folder), "{glob} below {folder}");
        }
    }

    #[test]
    fn folders_that_a_glob_names_are_not_part_of_what_it_takes() {
        let within = |glob: &str, path: &str| {
            let glob = Glob::parse(glob).unwrap();
            String::from_utf8_lossy(glob.within(path.as_bytes())).into_owned()
        };
        assert_eq!(within("dist/*.whl", "dist/a.whl"), "a.whl");
        assert_eq!(within("./out/deb/**/*.deb", "out/deb/x/y/a.deb"), "x/y/a.deb");
        assert_eq!(within("target/release/towpath", "target/release/towpath"), "towpath");
        assert_eq!(within("dist/sub", "dist/sub/run.sh"), "sub/run.sh");
        assert_eq!(within("dist", "dist/sub/run.sh"), "dist/sub/run.sh");
        assert_eq!(within("**/x/*.whl", "a/x/b.whl"), "a/x/b.whl");
        assert_eq!(within("di[s]t/*", "dist/a"), "dist/a");
    }

    #[test]
    fn names_in_other_encodings_match() {
        assert!(Glob::parse("docs/?.txt").unwrap().matches(b"docs/\xe9.txt"));
        assert!(Glob::parse("docs/*").unwrap().matches(b"docs/caf\xe9"));
    }

    #[test]
    fn c03_paths_that_leave_the_work_tree_are_refused() {
        let cases = [
            ("", GlobError::Empty),
            ("./", GlobError::Empty),
            ("/etc/*", GlobError::Absolute),
            ("/proc/self/environ", GlobError::Absolute),
            ("../../*", GlobError::Parent),
            ("a/../../b", GlobError::Parent),
            ("~/.ssh/*", GlobError::Home),
            (".git/config", GlobError::Git),
            ("a/.GIT/x", GlobError::Git),
            ("a\\b", GlobError::Backslash),
            ("a/{b,c}", GlobError::Brace),
            ("a**", GlobError::DoubleStar),
            ("a[", GlobError::Class),
            ("a[]", GlobError::Class),
            ("a[z-a]", GlobError::Class),
            ("a\nb", GlobError::Unprintable),
            ("a\u{202e}b", GlobError::Unprintable),
        ];
        for (text, error) in cases {
            assert_eq!(Glob::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Glob::parse(&"a".repeat(513)), Err(GlobError::Long));
    }

    #[test]
    fn a_hostile_pattern_takes_no_long_time() {
        let glob = Glob::parse(&format!("{}b", "*a".repeat(250))).unwrap();
        assert!(!glob.matches("a".repeat(4096)));
        let glob = Glob::parse(&format!("{}b", "**/a/".repeat(100))).unwrap();
        assert!(!glob.matches(vec!["a"; 2000].join("/")));
    }
}
