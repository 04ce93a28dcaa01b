//! Differences of two trees, read in this process: `git diff-tree` collects the whole difference before it says a
//! word, and a few objects can differ in more paths than memory holds.

use std::cmp::Ordering;

use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::object::{Entry, EntryKind, TreePath, entries};
use crate::read::Reader;
use crate::repository::Repository;

/// Pairs of folders that are read for one path that is found, at most: more are folders nested for their own sake.
const FOLDERS_PER_PATH_MAX: usize = 8;
/// Pairs of folders that are read in any case.
const FOLDERS_MIN: usize = 1_000;
/// Folders inside each other, as in [`crate::walk`].
const DEPTH_MAX: usize = 256;

/// The paths in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedPaths {
    /// All of them, sorted; a renamed file with its old and its new path.
    All(Vec<TreePath>),
    /// More than the bound: whoever asks has to assume that every path changed.
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
        let mut diff = Diff { reader: self.read(), paths: Vec::new(), paths_max, folders_left };
        match diff.folders([Some(from), Some(to)], &[], 0)? {
            Bounded::TooMany => Ok(ChangedPaths::TooMany),
            Bounded::Done => {
                diff.paths.sort_unstable();
                diff.paths.dedup();
                Ok(ChangedPaths::All(diff.paths))
            }
        }
    }
}

struct Diff<'a> {
    reader: Reader<'a>,
    paths: Vec<TreePath>,
    paths_max: usize,
    folders_left: usize,
}

#[derive(PartialEq)]
enum Bounded {
    Done,
    TooMany,
}

impl Diff<'_> {
    /// Compares two folders, either of which may be absent.
    fn folders(
        &mut self,
        sides: [Option<TreeId>; 2],
        prefix: &[u8],
        depth: usize,
    ) -> Result<Bounded, GitError> {
        if sides[0] == sides[1] {
            return Ok(Bounded::Done);
        }
        if self.folders_left == 0 || depth > DEPTH_MAX {
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
            if self.pair(before, after, (prefix, depth))? == Bounded::TooMany {
                return Ok(Bounded::TooMany);
            }
        }
    }

    fn pair(
        &mut self,
        before: Option<Entry<'_>>,
        after: Option<Entry<'_>>,
        (prefix, depth): (&[u8], usize),
    ) -> Result<Bounded, GitError> {
        let same = |one: &Entry<'_>, other: &Entry<'_>| (one.mode, one.id) == (other.mode, other.id);
        let Some(any) = before.or(after) else { return Ok(Bounded::Done) };
        if before.zip(after).is_some_and(|(before, after)| same(&before, &after)) {
            return Ok(Bounded::Done);
        }
        let path = if prefix.is_empty() { any.name.to_vec() } else { [prefix, b"/", any.name].concat() };
        if is_folder(&any) {
            let folder = |entry: Option<Entry<'_>>| entry.map(|entry| TreeId(entry.id.0));
            return self.folders([folder(before), folder(after)], &path, depth + 1);
        }
        self.paths.push(TreePath(path));
        Ok(if self.paths.len() > self.paths_max { Bounded::TooMany } else { Bounded::Done })
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
