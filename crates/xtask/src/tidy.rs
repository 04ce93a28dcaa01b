//! `cargo xtask tidy`: rules over the text of the repository. A rule is a function of a [`Tree`]; the tests below show
//! for each one a tree that it refuses.

mod calls;
mod cases;
mod documents;
mod licences;
mod links;
mod manifests;
mod paths;
mod sizes;
mod source;
mod tree;
mod words;

use std::path::Path;

use crate::failure::Failure;
use crate::libtest::Tally;
use tree::{Finding, Tree};

/// One line of help.
pub const HELP: &str =
    "the rules that no compiler holds: edges between crates, sizes, words, links, licences";

/// A rule and its name.
struct Rule {
    name: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

/// Every rule.
const RULES: &[Rule] = &[
    Rule { name: "crates depend downwards only", check: manifests::edges },
    Rule { name: "crates see only the libraries that are theirs", check: manifests::libraries },
    Rule { name: "dependencies are shared, used and have a reason", check: manifests::reasons },
    Rule { name: "crates take the workspace's lints", check: manifests::lints },
    Rule { name: "one test binary per crate", check: manifests::test_binaries },
    Rule { name: "licences are on the list", check: licences::licences },
    Rule { name: "no library twice without a reason", check: licences::duplicates },
    Rule { name: "files are short", check: sizes::files },
    Rule { name: "functions are short", check: sizes::functions },
    Rule { name: "lines are short", check: sizes::lines },
    Rule { name: "no forbidden calls", check: calls::forbidden },
    Rule { name: "no production code forks on tests", check: calls::forks },
    Rule { name: "core and pipeline act on nothing", check: calls::purity },
    Rule { name: "only one crate starts git", check: calls::git },
    Rule { name: "names follow the glossary", check: words::names },
    Rule { name: "no paths of one machine", check: paths::machine_paths },
    Rule { name: "links lead somewhere", check: links::links },
    Rule { name: "the readme has the two commands", check: documents::readme },
    Rule { name: "the code map has every crate", check: documents::code_map },
    Rule { name: "every attack has a test", check: cases::attacks },
];

/// Runs the command; `false` if a rule is broken.
///
/// # Errors
/// The repository cannot be read.
pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let [] = crate::flags(arguments, [])?;
    let Tally { passed, failed, .. } = check_tree(root)?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Checks every rule, prints what it finds, and counts each rule as a test.
///
/// # Errors
/// The repository cannot be read.
pub fn check_tree(root: &Path) -> Result<Tally, Failure> {
    let tree = Tree::read(root)?;
    let mut tally = Tally::default();
    for rule in RULES {
        let findings = (rule.check)(&tree);
        let broken = findings.iter().any(|finding| !finding.is_advice);
        let verdict = if broken { "BROKEN" } else { "ok" };
        eprintln!("rule: {} ... {verdict}", rule.name);
        findings.iter().for_each(|finding| eprintln!("  {finding}"));
        tally.passed += usize::from(!broken);
        tally.failed += usize::from(broken);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests;
