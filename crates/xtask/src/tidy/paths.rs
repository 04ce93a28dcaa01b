//! The rule about paths that exist on one machine only.

use super::tree::{Finding, Tree};

/// First folders of absolute paths that are somebody's own. Without slashes, so that this list does not find itself.
const OWN_FOLDERS: &[&str] = &["home", "root", "Users", "work"];

/// Files that may name such a path, each with the reason.
const EXCEPT: &[(&str, &str)] =
    &[("crates/executor/src/profile.rs", "the home that a job sees, which is inside its sandbox")];

/// What works only where it was written works nowhere else.
pub fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let files = tree.files.iter().filter(|(path, _)| !EXCEPT.iter().any(|(file, _)| file == path));
    for (path, text) in files {
        for (at, line) in text.lines().enumerate() {
            if let Some(folder) = OWN_FOLDERS.iter().find(|folder| names_folder(line, folder)) {
                let what =
                    format!("an absolute path below a folder `{folder}`: make it relative, or a setting");
                findings.push(Finding::line(path, at + 1, what));
            }
        }
    }
    findings
}

/// Whether the line has the folder as the first part of an absolute path with more parts.
fn names_folder(line: &str, folder: &str) -> bool {
    let path = format!("/{folder}/");
    let belongs_to_longer = |c: char| c.is_alphanumeric() || "._-@}*".contains(c);
    line.match_indices(&path).any(|(at, _)| !line[..at].ends_with(belongs_to_longer))
}
