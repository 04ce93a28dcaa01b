//! Generated pairs of commits that are hard to merge: renames, modes, links, submodules, deletions, folders against
//! files. The same seed gives the same commits.

use std::collections::BTreeMap;
use std::path::Path;

use towpath_core::candidate::CandidateSpec;
use towpath_core::ids::{CommitId, TreeId};

use super::spec;
use crate::error::GitError;
use crate::object::{ObjectId, write_object};
use crate::repository::Repository;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// An entry that is no folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub mode: Mode,
    pub content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Executable,
    Link,
    Submodule,
}

/// A tree by its paths.
pub(super) type Files = BTreeMap<String, Leaf>;

/// `count` pairs of two sides from one base each, as candidates to be made.
pub fn pairs(repository: &Repository, count: usize, seed: u64) -> Result<Vec<CandidateSpec>, GitError> {
    let pair = |number: u64| {
        let mut random = Random((seed ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let base = base(&mut random);
        let root = commit(repository, &base, None)?;
        let [mut ours, mut theirs] = [base.clone(), base];
        edit(&mut ours, &mut random);
        edit(&mut theirs, &mut random);
        spec(repository, [commit(repository, &ours, Some(root))?, commit(repository, &theirs, Some(root))?])
    };
    (0..count as u64).map(pair).collect()
}

fn text(random: &mut Random) -> String {
    (0..12 + random.below(12)).map(|line| format!("line {line} {}\n", random.below(3))).collect()
}

fn base(random: &mut Random) -> Files {
    let mut files = Files::new();
    for folder in ["src/", "src/deep/", "docs/", ""] {
        for number in 0..3 {
            let leaf = Leaf { mode: Mode::Plain, content: text(random) };
            files.insert(format!("{folder}file{number}"), leaf);
        }
    }
    files.insert("link".to_owned(), Leaf { mode: Mode::Link, content: "src/file0".to_owned() });
    files.insert("module".to_owned(), submodule(1));
    files
}

/// An entry for another repository's commit.
fn submodule(number: usize) -> Leaf {
    Leaf { mode: Mode::Submodule, content: format!("{number:040x}") }
}

/// A few random edits.
fn edit(files: &mut Files, random: &mut Random) {
    for _ in 0..2 + random.below(4) {
        let movable: Vec<String> = files
            .iter()
            .filter(|(_, leaf)| leaf.mode != Mode::Submodule)
            .map(|(path, _)| path.clone())
            .collect();
        if movable.is_empty() {
            return;
        }
        let path = random.pick(&movable).clone();
        match random.below(9) {
            0..=2 => change_lines(files, &path, random),
            3 => {
                let to = format!("{}{}", random.pick(&["moved/", "docs/new-", "src/"]), random.below(4));
                rename(files, &path, to);
            }
            4 => drop(files.remove(&path)),
            5 => make_executable(files, &path),
            6 => add(files, random),
            7 => folder_for_file(files, &path),
            _ => rename_folder(files, random),
        }
        if random.below(6) == 0 {
            files.insert("module".to_owned(), submodule(2 + random.below(2)));
        }
    }
}

fn change_lines(files: &mut Files, path: &str, random: &mut Random) {
    let Some(leaf) = files.get_mut(path).filter(|leaf| leaf.mode != Mode::Link) else { return };
    let mut lines: Vec<String> = leaf.content.lines().map(str::to_owned).collect();
    if !lines.is_empty() {
        let at = random.below(lines.len());
        lines[at] = format!("edited {}", random.below(3));
        leaf.content = lines.join("\n") + "\n";
    }
}

fn rename(files: &mut Files, from: &str, to: String) {
    if is_free(files, &to)
        && let Some(leaf) = files.remove(from)
    {
        files.insert(to, leaf);
    }
}

fn make_executable(files: &mut Files, path: &str) {
    if let Some(leaf) = files.get_mut(path).filter(|leaf| leaf.mode == Mode::Plain) {
        leaf.mode = Mode::Executable;
    }
}

fn add(files: &mut Files, random: &mut Random) {
    let path = (*random.pick(&["added", "src/added", "docs/added"])).to_owned();
    if is_free(files, &path) {
        files.insert(path, Leaf { mode: Mode::Plain, content: text(random) });
    }
}

fn folder_for_file(files: &mut Files, path: &str) {
    files.remove(path);
    files.insert(format!("{path}/inside"), Leaf { mode: Mode::Plain, content: "inside\n".to_owned() });
}

fn rename_folder(files: &mut Files, random: &mut Random) {
    let (from, to) = *random.pick(&[("src/deep/", "deeper/"), ("docs/", "manual/"), ("src/", "source/")]);
    if files.keys().any(|path| path.starts_with(to)) {
        return;
    }
    let moved: Vec<String> = files.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in moved {
        if let Some(leaf) = files.remove(&path) {
            files.insert(path.replacen(from, to, 1), leaf);
        }
    }
}

/// Whether nothing is at a path, below it, or in place of one of its folders.
fn is_free(files: &Files, path: &str) -> bool {
    let below = format!("{path}/");
    let is_above = |other: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
    !files.keys().any(|other| other == path || other.starts_with(&below) || is_above(other))
}

pub(super) fn commit(
    repository: &Repository,
    files: &Files,
    parent: Option<CommitId>,
) -> Result<CommitId, GitError> {
    let all: Vec<(&str, &Leaf)> = files.iter().map(|(path, leaf)| (path.as_str(), leaf)).collect();
    let tree = write_tree(&repository.objects(), &all)?;
    repository.synthetic(TreeId(tree.0), parent)
}

/// Writes a folder, given the paths below it, and all folders in it.
fn write_tree(objects: &Path, files: &[(&str, &Leaf)]) -> Result<ObjectId, GitError> {
    let mut folders: BTreeMap<&str, Vec<(&str, &Leaf)>> = BTreeMap::new();
    // Git sorts a folder as if its name ended in a slash.
    let mut entries: BTreeMap<String, (&str, &str, ObjectId)> = BTreeMap::new();
    for (path, leaf) in files {
        match path.split_once('/') {
            Some((folder, rest)) => folders.entry(folder).or_default().push((rest, leaf)),
            None => {
                let (mode, id) = write_leaf(objects, leaf)?;
                entries.insert((*path).to_owned(), (mode, path, id));
            }
        }
    }
    for (folder, files) in folders {
        entries.insert(format!("{folder}/"), ("40000", folder, write_tree(objects, &files)?));
    }
    let mut content = Vec::new();
    for (mode, name, id) in entries.values() {
        content.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        content.extend_from_slice(&id.0);
    }
    write_object(objects, "tree", &content)
}

fn write_leaf(objects: &Path, leaf: &Leaf) -> Result<(&'static str, ObjectId), GitError> {
    let blob = || write_object(objects, "blob", leaf.content.as_bytes());
    Ok(match leaf.mode {
        Mode::Plain => ("100644", blob()?),
        Mode::Executable => ("100755", blob()?),
        Mode::Link => ("120000", blob()?),
        Mode::Submodule => {
            let id = ObjectId::from_hex(leaf.content.as_bytes());
            ("160000", id.expect("invariant: made from forty hex digits"))
        }
    })
}
