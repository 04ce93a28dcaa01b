//! The rule about names: the words that GLOSSARY.md refuses.

use super::source::words;
use super::tree::{Finding, Tree};

/// Keywords that come before the name that they declare.
const DECLARING: &[&str] = &["mod", "struct", "enum", "trait", "type", "fn", "const", "static"];

/// Public names of `core`, and its modules, use the words of the glossary.
pub fn names(tree: &Tree) -> Vec<Finding> {
    let refused = refused_words(tree.text("GLOSSARY.md"));
    if refused.is_empty() {
        return vec![Finding::file(
            "GLOSSARY.md",
            "no table with a column `not` that has words in backticks",
        )];
    }
    let mut findings = Vec::new();
    for (path, source) in tree.rust.iter().filter(|(path, _)| path.starts_with("crates/core/src/")) {
        for (line, code, _) in source.lines().filter(|(_, _, is_test)| !is_test) {
            for name in declared(code) {
                let hits = refused.iter().filter(|word| has_word(name, word));
                findings.extend(hits.map(|word| {
                    Finding::line(path, line, format!("`{name}`: the glossary has another word for `{word}`"))
                }));
            }
        }
    }
    findings
}

/// The words in backticks of every column headed `not`.
fn refused_words(glossary: &str) -> Vec<String> {
    let mut refused = Vec::new();
    let mut column = None;
    for line in glossary.lines() {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match column {
            None => column = Some(cells.iter().position(|cell| *cell == "not")),
            Some(Some(at)) => {
                let quoted = cells.get(at).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2));
                refused.extend(quoted.map(|word| word.to_lowercase().replace(' ', "_")));
            }
            Some(None) => {}
        }
    }
    refused
}

/// The public names, and modules, that one line of code declares.
fn declared(code: &str) -> Vec<&str> {
    let found: Vec<&str> = words(code).map(|(_, word)| word).collect();
    let Some(at) = found.iter().position(|word| DECLARING.contains(word)) else { return Vec::new() };
    let is_public = found[..at].contains(&"pub") || found[at] == "mod";
    // `pub const fn name`: the last keyword of a chain is the one that declares.
    let name = found[at..].iter().find(|word| !DECLARING.contains(word));
    if is_public { name.copied().into_iter().collect() } else { Vec::new() }
}

/// Whether the parts of a name, `CandidateSpec` or `candidate_spec`, hold the parts of a word in a row.
fn has_word(name: &str, word: &str) -> bool {
    let parts = parts(name);
    let wanted: Vec<&str> = word.split('_').collect();
    parts.windows(wanted.len()).any(|window| window.iter().eq(wanted.iter()))
}

fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut previous_is_lower = false;
    for c in name.chars() {
        if c == '_' || c.is_uppercase() && previous_is_lower {
            parts.push(String::new());
        }
        previous_is_lower = c.is_lowercase();
        if c != '_' {
            parts.last_mut().expect("invariant: never empty").extend(c.to_lowercase());
        }
    }
    parts
}
