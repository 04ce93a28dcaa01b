//! Patterns of outputs: `dist/*.whl`, `target/**/*.deb`. Bytes, not characters; a folder that matches is taken whole.

/// A pattern that could leave the work tree, or that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern below the work tree: it is relative, without `..` and empty parts")]
pub struct GlobError {
    /// The pattern.
    pub pattern: String,
}

/// A parsed pattern. `*` and `?` stay within one part of a path, `**` is any number of parts, `[a-z]` and `[!a-z]`
/// are sets of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Vec<u8>>,
    /// Leading parts that every match has: folders that are named in full.
    fixed: usize,
}

impl Glob {
    /// Parses a pattern; a leading `./` is dropped.
    ///
    /// # Errors
    /// [`GlobError`] for an absolute path, `..`, or an empty part.
    pub fn new(pattern: &str) -> Result<Glob, GlobError> {
        let text = pattern.trim_start_matches("./").trim_end_matches('/');
        let parts: Vec<Vec<u8>> = text.split('/').map(|part| part.as_bytes().to_vec()).collect();
        let bad = |part: &Vec<u8>| part.is_empty() || part == b".." || part == b"." || part.contains(&0);
        match pattern.starts_with('/') || parts.iter().any(bad) {
            true => Err(GlobError { pattern: pattern.to_owned() }),
            false => {
                let fixed = parts[..parts.len() - 1].iter().take_while(|part| is_plain(part)).count();
                Ok(Glob { parts, fixed })
            }
        }
    }

    /// A match without the folders that the pattern names in full: `dist/sub/a.whl` of `dist/**` is `sub/a.whl`, as a
    /// copy of what the pattern names would have it. A name is always left.
    pub fn within<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        let mut rest = path;
        for _ in 0..self.fixed {
            let Some(end) = rest.iter().position(|byte| *byte == b'/') else { break };
            rest = &rest[end + 1..];
        }
        rest
    }

    /// Whether the path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        parts_match(&self.parts, &parts)
    }

    /// Whether something below this folder could match.
    pub fn may_match_below(&self, folder: &[u8]) -> bool {
        let parts: Vec<&[u8]> = folder.split(|byte| *byte == b'/').collect();
        beginning_matches(&self.parts, &parts)
    }
}

fn is_plain(part: &[u8]) -> bool {
    !part.iter().any(|byte| b"*?[".contains(byte))
}

fn parts_match(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == b"**" => {
            parts_match(rest, path) || (!path.is_empty() && parts_match(pattern, &path[1..]))
        }
        (Some((first, rest)), Some((part, path))) => part_matches(first, part) && parts_match(rest, path),
        _ => false,
    }
}

fn beginning_matches(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (Some(_), None) => true,
        (Some((first, _)), _) if first == b"**" => true,
        (Some((first, rest)), Some((part, path))) => {
            part_matches(first, part) && beginning_matches(rest, path)
        }
        (None, _) => false,
    }
}

/// Greedy with one way back, so the time is at most the product of both lengths.
fn part_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut name_at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while name_at < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, name_at));
            at += 1;
            continue;
        }
        match one_matches(&pattern[at..], name[name_at]) {
            Some(used) => (at, name_at) = (at + used, name_at + 1),
            None => match &mut star {
                Some((star_at, from)) => {
                    *from += 1;
                    (at, name_at) = (*star_at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// How many bytes of the pattern take this one byte of a name.
fn one_matches(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => match set_matches(&pattern[1..], byte) {
            Some((true, used)) => Some(used + 1),
            Some((false, _)) => None,
            None => (byte == b'[').then_some(1),
        },
        literal => (*literal == byte).then_some(1),
    }
}

/// Whether the set takes the byte, and how long it is; `None` if it does not end.
fn set_matches(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    // A `]` at the beginning is a member.
    let end = start + 1 + set.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    let members = &set[start..end];
    let mut at = 0;
    let mut found = false;
    while at < members.len() {
        match members.get(at + 1..at + 3) {
            Some([b'-', high]) => {
                found |= (members[at]..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= members[at] == byte;
                at += 1;
            }
        }
    }
    Some((found != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::new(pattern).unwrap();
        for path in yes {
            assert!(glob.matches(path.as_bytes()), "{pattern} takes {path}");
        }
        for path in no {
            assert!(!glob.matches(path.as_bytes()), "{pattern} leaves {path}");
        }
    }

    #[test]
    fn patterns_match_by_part() {
        check("dist/*.whl", &["dist/a.whl", "dist/.whl"], &["dist/x/a.whl", "a.whl", "dist/a.whl.x"]);
        check("**/*.xml", &["a.xml", "a/b/c.xml"], &["a.xml/b"]);
        check("a/**", &["a/b", "a/b/c", "a"], &["b/a"]);
        check("./x[0-9a]?", &["x0z", "xab"], &["xb0", "x0"]);
        check("x[!0-9]", &["xa"], &["x0"]);
        check("a*b*c", &["abc", "aXbYc", "abbc"], &["ab", "acb"]);
        check("[", &["["], &["a"]);
    }

    #[test]
    fn folders_that_a_pattern_names_are_not_part_of_what_it_takes() {
        let within = |pattern: &str, path: &'static str| {
            let glob = Glob::new(pattern).unwrap();
            String::from_utf8_lossy(glob.within(path.as_bytes())).into_owned()
        };
        assert_eq!(within("dist/*.whl", "dist/a.whl"), "a.whl");
        assert_eq!(within("./out/deb/**/*.deb", "out/deb/x/y/a.deb"), "x/y/a.deb");
        assert_eq!(within("target/release/towpath", "target/release/towpath"), "towpath");
        assert_eq!(within("dist/sub", "dist/sub/run.sh"), "sub/run.sh");
        assert_eq!(within("dist", "dist/sub/run.sh"), "dist/sub/run.sh");
        assert_eq!(within("**/x/*.whl", "a/x/b.whl"), "a/x/b.whl");
        assert_eq!(within("a/**", "a"), "a");
    }

    #[test]
    fn folders_that_cannot_match_are_left_out() {
        let glob = Glob::new("target/**/x.deb").unwrap();
        assert!(glob.may_match_below(b"target") && glob.may_match_below(b"target/debug/y"));
        assert!(!glob.may_match_below(b"src"));
    }

    #[test]
    fn c03_path_outputs() {
        for pattern in ["../../*", "/etc/*", "/proc/self/environ", "", "a//b", "a/../b", "./"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }
}
