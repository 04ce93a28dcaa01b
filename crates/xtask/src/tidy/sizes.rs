//! Rules about length.

use super::source::is_test_path;
use super::tree::{Finding, Tree};

/// Lines that a file aims to stay below; a longer one is worth a look.
const FILE_LINES_AIM: usize = 500;
/// Lines that no file of the product may have. A file of tests may: its tests are read one at a time.
const FILE_LINES_MAX: usize = 800;
/// Lines from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters in a line of Rust. The formatter keeps code under its 110; comments and long literals it leaves alone.
const RUST_COLUMNS_MAX: usize = 150;
/// Characters in a line of prose; table rows and lines with a link have no other place to break.
const PROSE_COLUMNS_MAX: usize = 140;

/// No file is too long to be read.
pub fn files(tree: &Tree) -> Vec<Finding> {
    let lengths = tree.rust.iter().map(|(path, source)| (path, source.code.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > FILE_LINES_AIM);
    let finding = |(path, lines): (&String, usize)| Finding {
        is_advice: lines <= FILE_LINES_MAX || is_test_path(path),
        ..Finding::file(
            path,
            format!("{lines} lines; the aim is {FILE_LINES_AIM}, the limit {FILE_LINES_MAX}"),
        )
    };
    long.map(finding).collect()
}

/// No function is too long to be understood at once.
pub fn functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.rust {
        let long = source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
        findings.extend(long.map(|function| {
            let what =
                format!("`{}` has {} lines, at most {FUNCTION_LINES_MAX}", function.name, function.lines);
            Finding::line(path, function.line, what)
        }));
    }
    findings
}

/// No line runs out of the window.
pub fn lines(tree: &Tree) -> Vec<Finding> {
    let rust = tree.rust.keys().map(|path| (path, RUST_COLUMNS_MAX));
    let prose = tree.files.keys().filter(|path| path.ends_with(".md")).map(|path| (path, PROSE_COLUMNS_MAX));
    let mut findings = Vec::new();
    for (path, limit) in rust.chain(prose) {
        for (at, line) in tree.text(path).lines().enumerate() {
            let width = line.chars().count();
            let cannot_break = line.contains("](") || line.contains("://") || line.starts_with('|');
            // A literal that is data (a recorded answer, a hash) is as long as it is.
            let is_literal = path.ends_with(".rs") && line.contains('"');
            if width > limit && !cannot_break && !is_literal {
                findings.push(Finding::line(path, at + 1, format!("{width} characters, at most {limit}")));
            }
        }
    }
    findings
}
