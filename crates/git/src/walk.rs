//! Walking trees without trusting them: a few objects can describe more files than any disk holds.

use std::collections::HashMap;

use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::object::{Entry, EntryKind, ObjectId, TreePath, entries};
use crate::read::Reader;
use crate::repository::Repository;

/// Bounds on what a tree may expand to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// Files, links, folders and submodules.
    pub entries_max: u64,
    /// Bytes of all files.
    pub bytes_max: u64,
}

/// A million entries (Chromium has half of that) and 16 GiB of files: more than a checkout on one machine should be.
pub const TREE_LIMITS: TreeLimits = TreeLimits { entries_max: 1_000_000, bytes_max: 16 * 1024 * 1024 * 1024 };

/// Folders inside each other. A path of Linux has at most 4,096 bytes; deeper trees than this have no honest use.
const DEPTH_MAX: usize = 256;
/// Bytes of one name: what every file system of Linux takes.
const NAME_BYTES_MAX: usize = 255;

/// Disk space that a file or folder takes beside its bytes: half a block of its last one, and its inode.
const ENTRY_BYTES: u64 = 2048 + 256;

/// What a tree expands to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeMeasure {
    /// Files, links, folders and submodules.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl TreeMeasure {
    /// About what it takes on a disk.
    pub fn on_disk(self) -> TreeMeasure {
        let bytes = self.bytes.saturating_add(self.entries.saturating_mul(ENTRY_BYTES));
        TreeMeasure { bytes, ..self }
    }
}

impl Repository {
    /// Counts what a tree expands to, reading each tree object once, however often it occurs.
    ///
    /// # Errors
    /// `TooLarge` as soon as a limit is passed; `Malformed` for names that no checkout may make.
    pub fn measure_tree(&self, tree: TreeId, limits: TreeLimits) -> Result<TreeMeasure, GitError> {
        measure(&self.read(), tree, limits)
    }
}

pub(crate) fn measure(
    reader: &Reader<'_>,
    tree: TreeId,
    limits: TreeLimits,
) -> Result<TreeMeasure, GitError> {
    let mut walk = Measuring { reader, limits, known: HashMap::new() };
    walk.tree(tree, 0)
}

struct Measuring<'a> {
    reader: &'a Reader<'a>,
    limits: TreeLimits,
    known: HashMap<TreeId, TreeMeasure>,
}

impl Measuring<'_> {
    /// Recursive, with [`DEPTH_MAX`] as its bound.
    fn tree(&mut self, tree: TreeId, depth: usize) -> Result<TreeMeasure, GitError> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(*known);
        }
        check_depth(depth)?;
        let bytes = self.reader.tree(tree)?;
        let (folders, files) = checked_entries(tree, &bytes)?;
        let mut total = TreeMeasure { entries: (folders.len() + files.len()) as u64, bytes: 0 };
        self.check(total)?;
        let stored = files.iter().filter(|(_, kind)| *kind != EntryKind::Submodule);
        let blobs: Vec<ObjectId> = stored.map(|(entry, _)| entry.id).collect();
        for (id, header) in blobs.iter().zip(self.reader.headers(&blobs)?) {
            let header = header.ok_or(GitError::Missing { id: *id })?;
            if header.kind != "blob" {
                return Err(GitError::WrongKind { id: *id, wanted: "blob", found: header.kind });
            }
            total.bytes = total.bytes.saturating_add(header.bytes);
        }
        self.check(total)?;
        for folder in folders {
            let inside = self.tree(TreeId(folder.id.0), depth + 1)?;
            total.entries = total.entries.saturating_add(inside.entries);
            total.bytes = total.bytes.saturating_add(inside.bytes);
            self.check(total)?;
        }
        self.known.insert(tree, total);
        Ok(total)
    }

    fn check(&self, measure: TreeMeasure) -> Result<(), GitError> {
        let TreeLimits { entries_max, bytes_max } = self.limits;
        if measure.entries > entries_max {
            let what = "the number of files and folders".to_owned();
            return Err(GitError::TooLarge { what, limit: entries_max.to_string() });
        }
        if measure.bytes > bytes_max {
            let what = "the size of all files together".to_owned();
            return Err(GitError::TooLarge { what, limit: format!("{bytes_max} bytes") });
        }
        Ok(())
    }
}

fn check_depth(depth: usize) -> Result<(), GitError> {
    match depth > DEPTH_MAX {
        true => {
            Err(GitError::TooLarge { what: "the depth of folders".to_owned(), limit: DEPTH_MAX.to_string() })
        }
        false => Ok(()),
    }
}

/// Folders, and the other entries with their kinds.
pub(crate) type Checked<'a> = (Vec<Entry<'a>>, Vec<(Entry<'a>, EntryKind)>);

/// The entries of a tree, none of which can lead out of it and no two of which have the same name.
pub(crate) fn checked_entries(tree: TreeId, bytes: &[u8]) -> Result<Checked<'_>, GitError> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    let mut last: Option<Vec<u8>> = None;
    for entry in entries(tree, bytes) {
        let entry = entry?;
        let bad =
            |why: &str| Err(GitError::malformed(tree, format!("{why}: `{}`", TreePath(entry.name.to_vec()))));
        let Some(kind) = entry.kind() else { return bad("an entry of an unknown mode") };
        if !name_is_safe(entry.name) {
            return bad("a name that no checkout may make");
        }
        // Git's order treats a folder as if its name ended in `/`. Out of order can mean twice, and twice can mean
        // that a file is written through a link of the same name.
        let key = [entry.name, if kind == EntryKind::Tree { b"/" } else { &b""[..] }].concat();
        let twice = || files.binary_search_by(|(file, _): &(Entry<'_>, _)| file.name.cmp(entry.name)).is_ok();
        if last.as_ref().is_some_and(|last| *last >= key) || (kind == EntryKind::Tree && twice()) {
            return bad("entries out of order, or twice");
        }
        last = Some(key);
        match kind {
            EntryKind::Tree => folders.push(entry),
            kind => files.push((entry, kind)),
        }
    }
    Ok((folders, files))
}

/// The names that git itself refuses, on every system: `.git` in all its spellings is what turns a checkout into code.
fn name_is_safe(name: &[u8]) -> bool {
    let plain: Vec<u8> = String::from_utf8_lossy(name)
        .chars()
        .filter(|c| !is_ignored_by_hfs(*c))
        .collect::<String>()
        .trim_end_matches([' ', '.'])
        .to_ascii_lowercase()
        .into_bytes();
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(&b'/')
        && name != b"."
        && name != b".."
        && plain != b".git"
        && plain != b"git~1"
}

/// Characters that HFS+ does not see in a name. Source: `next_hfs_char` of git's utf8.c.
fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}
