//! Rules about the documents that a newcomer reads first.

use super::tree::{Finding, Tree};

/// The two commands of the README: the main job, and the tests.
const COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo xtask test"];
/// One page.
const README_LINES_MAX: usize = 80;

/// The README is one page with exactly two commands, and continuous integration runs the second.
pub fn readme(tree: &Tree) -> Vec<Finding> {
    let text = tree.text("README.md");
    let mut findings = Vec::new();
    let blocks = fenced_blocks(text);
    if blocks != COMMANDS {
        let what = format!("its code blocks must be exactly {COMMANDS:?}, they are {blocks:?}");
        findings.push(Finding::file("README.md", what));
    }
    let lines = text.lines().count();
    if lines > README_LINES_MAX {
        findings.push(Finding::file("README.md", format!("{lines} lines; one page has {README_LINES_MAX}")));
    }
    if !tree.text(".ci/run").lines().any(|line| line.trim_start_matches("exec ") == COMMANDS[1]) {
        findings.push(Finding::file(".ci/run", format!("it must run `{}`", COMMANDS[1])));
    }
    findings
}

fn fenced_blocks(text: &str) -> Vec<String> {
    let fenced = text.split("\n```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').map_or("", |(_, body)| body).trim().to_owned()).collect()
}

/// ARCHITECTURE.md has a section for every crate, and says in it what is deliberately absent.
pub fn code_map(tree: &Tree) -> Vec<Finding> {
    let text = tree.text("ARCHITECTURE.md");
    let mut findings = Vec::new();
    for name in tree.crates() {
        let heading = format!("### `crates/{name}`");
        let section = text.split_once(&heading).map(|(_, rest)| rest.split("\n#").next().unwrap_or_default());
        let what = match section {
            None => format!("no section `{heading}`"),
            Some(section) if !section.contains("Architecture invariant:") => {
                format!("the section of {name} has no line \"Architecture invariant:\"")
            }
            Some(_) => continue,
        };
        findings.push(Finding::file("ARCHITECTURE.md", what));
    }
    findings
}
