//! Differences of two trees, read in this process: `git diff-tree` collects the whole difference before it says a
//! word, and a few objects can differ in more paths than memory holds.

use std::cmp::Ordering;

use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::list::join;
use crate::object::{Entry, EntryKind, TreePath, entries};
use crate::read::Reader;
use crate::repository::Repository;
use crate::walk::PATH_BYTES_MAX;

/// Pairs of folders that are read for one path that is found, at most: more are folders nested for their own sake.
const FOLDERS_PER_PATH_MAX: usize = 8;
/// Pairs of folders that are read in any case.
const FOLDERS_MIN: usize = 1_000;
/// Bytes of all paths that are found, and of the folders that they are looked for in: a hundred thousand of 600 bytes.
const PATHS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Folders inside each other, as in [`crate::walk`].
const DEPTH_MAX: usize = 256;

/// The paths in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedPaths {
    /// All of them, sorted; a renamed file with its old and its new path.
    All(Vec<TreePath>),
    /// More than the bound, or longer ones than a checkout may make: whoever asks has to assume that every path changed.
    TooMany,
}

impl Repository {
    /// The paths in which two trees differ. Renames are not looked for: a moved file shows as both of its paths.
    pub fn changed_paths(
        &self,
        from: TreeId,
        to: TreeId,
        paths_max: usize,
    ) -> Result<ChangedPaths, GitError> {
        let folders_left = paths_max.saturating_mul(FOLDERS_PER_PATH_MAX).max(FOLDERS_MIN);
        let mut diff = Diff {
            reader: self.read(),
            paths: Vec::new(),
            paths_max,
            bytes_left: PATHS_BYTES_MAX,
            folders: vec![Folders { sides: [Some(from), Some(to)], path: TreePath(Vec::new()), depth: 0 }],
            folders_left,
        };
        while let Some(folders) = diff.folders.pop() {
            if diff.compare(&folders)? == Bounded::TooMany {
                return Ok(ChangedPaths::TooMany);
            }
        }
        diff.paths.sort_unstable();
        diff.paths.dedup();
        Ok(ChangedPaths::All(diff.paths))
    }
}

struct Diff<'a> {
    reader: Reader<'a>,
    paths: Vec<TreePath>,
    paths_max: usize,
    /// Of the paths that are kept, those of folders too.
    bytes_left: usize,
    /// Those that are still to be compared.
    folders: Vec<Folders>,
    folders_left: usize,
}

/// A folder that differs, on the sides where there is one.
struct Folders {
    sides: [Option<TreeId>; 2],
    path: TreePath,
    depth: usize,
}

#[derive(PartialEq)]
enum Bounded {
    Done,
    TooMany,
}

impl Diff<'_> {
    fn compare(&mut self, folders: &Folders) -> Result<Bounded, GitError> {
        let sides = folders.sides;
        if sides[0] == sides[1] {
            return Ok(Bounded::Done);
        }
        if self.folders_left == 0 || folders.depth > DEPTH_MAX {
            return Ok(Bounded::TooMany);
        }
        self.folders_left -= 1;
        let bytes = [self.tree(sides[0])?, self.tree(sides[1])?];
        let [mut old, mut new] =
            [list(sides[0], &bytes[0])?, list(sides[1], &bytes[1])?].map(|list| list.into_iter().peekable());
        loop {
            // Both lists are in git's order, in which a folder and a file of one name are not neighbours: such a pair
            // is a path that went and another that came.
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(Bounded::Done),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => sort_key(old).cmp(&sort_key(new)),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            if self.pair(before, after, folders) == Bounded::TooMany {
                return Ok(Bounded::TooMany);
            }
        }
    }

    fn pair(&mut self, before: Option<Entry<'_>>, after: Option<Entry<'_>>, within: &Folders) -> Bounded {
        let same = |one: &Entry<'_>, other: &Entry<'_>| (one.mode, one.id) == (other.mode, other.id);
        let Some(any) = before.or(after) else { return Bounded::Done };
        if before.zip(after).is_some_and(|(before, after)| same(&before, &after)) {
            return Bounded::Done;
        }
        let path = join(&within.path.0, any.name);
        let Some(bytes_left) = self.bytes_left.checked_sub(path.0.len()) else { return Bounded::TooMany };
        if path.0.len() as u64 > PATH_BYTES_MAX {
            return Bounded::TooMany;
        }
        self.bytes_left = bytes_left;
        if is_folder(&any) {
            let folder = |entry: Option<Entry<'_>>| entry.map(|entry| TreeId(entry.id.0));
            let sides = [folder(before), folder(after)];
            self.folders.push(Folders { sides, path, depth: within.depth + 1 });
        } else {
            self.paths.push(path);
        }
        match self.paths.len() > self.paths_max || self.folders.len() > self.folders_left {
            true => Bounded::TooMany,
            false => Bounded::Done,
        }
    }

    fn tree(&self, tree: Option<TreeId>) -> Result<Vec<u8>, GitError> {
        tree.map_or(Ok(Vec::new()), |tree| self.reader.tree(tree))
    }
}

fn list(tree: Option<TreeId>, bytes: &[u8]) -> Result<Vec<Entry<'_>>, GitError> {
    tree.map_or(Ok(Vec::new()), |tree| entries(tree, bytes).collect())
}

fn is_folder(entry: &Entry<'_>) -> bool {
    entry.kind() == Some(EntryKind::Tree)
}

/// Git's order: a folder sorts as if its name ended in `/`.
fn sort_key(entry: &Entry<'_>) -> Vec<u8> {
    [entry.name, if is_folder(entry) { b"/" } else { b"" }].concat()
}
