//! Walking trees without trusting them: a few objects can describe more files than any disk holds.

use std::collections::HashMap;

use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::object::{Entry, EntryKind, ObjectId, TreePath, entries};
use crate::read::{QUESTIONS_AHEAD_MAX, Reader};
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

/// Bytes of a path below the root of a tree: Linux's PATH_MAX with room for the folder that the tree is put into.
pub(crate) const PATH_BYTES_MAX: u64 = 3 * 1024;
/// Bytes of all paths of a tree: a million of 250 bytes. Bounds the memory of whoever lists them.
const PATHS_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Submodules of a tree. They cost whoever sends them a name each, and an empty folder on the disk; more have no honest use.
const SUBMODULES_MAX: u64 = 10_000;
/// Folders inside each other. A path of Linux has at most 4,096 bytes; deeper trees than this have no honest use.
const DEPTH_MAX: usize = 256;
/// Bytes of one name: what every file system of Linux takes.
const NAME_BYTES_MAX: usize = 255;

/// Disk space that an entry takes at most beside its bytes: a block, which is a file's last one or what an empty folder takes,
/// and 256 bytes each for its inode and for its name in the folder.
const ENTRY_BYTES: u64 = 4096 + 2 * 256;

/// What a tree expands to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeMeasure {
    /// Files, links, folders and submodules.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl TreeMeasure {
    /// What it takes on a disk at most.
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
    let Extent { entries, bytes, .. } = walk.tree(tree, Place::default())?;
    Ok(TreeMeasure { entries, bytes })
}

/// What a tree expands to, with its paths as they are from the tree itself on.
#[derive(Clone, Copy, Default)]
struct Extent {
    entries: u64,
    bytes: u64,
    submodules: u64,
    longest_path: u64,
    paths_bytes: u64,
}

impl Extent {
    fn plus(self, other: Extent) -> Extent {
        Extent {
            entries: self.entries + other.entries,
            bytes: self.bytes.saturating_add(other.bytes),
            submodules: self.submodules + other.submodules,
            longest_path: self.longest_path.max(other.longest_path),
            paths_bytes: self.paths_bytes + other.paths_bytes,
        }
    }

    /// The same with so many bytes in front of each path.
    fn below(self, prefix_bytes: u64) -> Extent {
        Extent {
            longest_path: if self.entries == 0 { 0 } else { prefix_bytes + self.longest_path },
            paths_bytes: self.entries * prefix_bytes + self.paths_bytes,
            ..self
        }
    }
}

/// Where a tree was found, and what was counted before it.
#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    /// Bytes in front of its paths.
    prefix_bytes: u64,
    before: Extent,
}

impl Place {
    /// All that was counted, with the tree that stands here.
    fn with(self, extent: Extent) -> Extent {
        self.before.plus(extent.below(self.prefix_bytes))
    }
}

/// What stands in one tree itself.
#[derive(Default)]
struct Own {
    /// Without the bytes of files.
    extent: Extent,
    /// With the bytes of their names.
    folders: Vec<(TreeId, u64)>,
    /// Files and links.
    blobs: Vec<ObjectId>,
}

struct Measuring<'a> {
    reader: &'a Reader<'a>,
    limits: TreeLimits,
    known: HashMap<TreeId, Extent>,
}

impl Measuring<'_> {
    /// Recursive, with [`DEPTH_MAX`] as its bound. Of the trees above nothing is held meanwhile but the ids of their folders, of
    /// which there are no more than a tree may have entries: those are counted before what is in them.
    fn tree(&mut self, tree: TreeId, place: Place) -> Result<Extent, GitError> {
        if let Some(known) = self.known.get(&tree) {
            self.check(place.with(*known))?;
            return Ok(*known);
        }
        check_depth(place.depth)?;
        let Own { mut extent, folders, blobs } = self.own(tree)?;
        self.check(place.with(extent))?;
        extent.bytes = self.size_of(blobs)?;
        self.check(place.with(extent))?;
        for (folder, name_bytes) in folders {
            let prefix_bytes = name_bytes + 1;
            let inside = Place {
                depth: place.depth + 1,
                prefix_bytes: place.prefix_bytes + prefix_bytes,
                before: place.with(extent),
            };
            extent = extent.plus(self.tree(folder, inside)?.below(prefix_bytes));
        }
        self.known.insert(tree, extent);
        Ok(extent)
    }

    fn own(&self, tree: TreeId) -> Result<Own, GitError> {
        let bytes = self.reader.tree(tree)?;
        let (folders, files) = checked_entries(tree, &bytes)?;
        let mut own = Own::default();
        let mut count = |name: &[u8], submodules: u64| {
            let name_bytes = name.len() as u64;
            let (longest_path, paths_bytes) = (name_bytes, name_bytes);
            own.extent =
                own.extent.plus(Extent { entries: 1, bytes: 0, submodules, longest_path, paths_bytes });
        };
        for (file, kind) in files {
            count(file.name, u64::from(kind == EntryKind::Submodule));
            if kind != EntryKind::Submodule {
                own.blobs.push(file.id);
            }
        }
        for folder in folders {
            count(folder.name, 0);
            own.folders.push((TreeId(folder.id.0), folder.name.len() as u64));
        }
        Ok(own)
    }

    fn size_of(&self, blobs: Vec<ObjectId>) -> Result<u64, GitError> {
        let mut bytes = 0_u64;
        for some in blobs.chunks(QUESTIONS_AHEAD_MAX) {
            for (id, header) in some.iter().zip(self.reader.headers(some)?) {
                let header = header.ok_or(GitError::Missing { id: *id })?;
                if header.kind != "blob" {
                    return Err(GitError::WrongKind { id: *id, wanted: "blob", found: header.kind });
                }
                bytes = bytes.saturating_add(header.bytes);
            }
        }
        Ok(bytes)
    }

    fn check(&self, extent: Extent) -> Result<(), GitError> {
        let TreeLimits { entries_max, bytes_max } = self.limits;
        let bounds = [
            ("the number of files and folders", extent.entries, entries_max, ""),
            ("the number of submodules", extent.submodules, SUBMODULES_MAX, ""),
            ("the size of all files together", extent.bytes, bytes_max, " bytes"),
            ("the length of a path", extent.longest_path, PATH_BYTES_MAX, " bytes"),
            ("the length of all paths together", extent.paths_bytes, PATHS_BYTES_MAX, " bytes"),
        ];
        match bounds.into_iter().find(|(_, found, limit, _)| found > limit) {
            None => Ok(()),
            Some((what, _, limit, unit)) => {
                Err(GitError::TooLarge { what: what.to_owned(), limit: format!("{limit}{unit}") })
            }
        }
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
