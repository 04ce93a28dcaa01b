//! A whole tree as a list, for whoever writes it out.

use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::object::{EntryKind, ObjectId, TreePath};
use crate::read::Reader;
use crate::walk::{TreeLimits, TreeMeasure, checked_entries, measure};

/// Bytes of a path below the root of a work tree: Linux's PATH_MAX with room for the folder that it is put into.
const PATH_BYTES_MAX: usize = 3 * 1024;
/// Bytes of all paths of a tree: a million of 250 bytes. Bounds the memory of a listing.
const PATH_BYTES_TOTAL_MAX: usize = 256 * 1024 * 1024;

/// A file, link or submodule of a tree that was found to be within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub path: TreePath,
    pub kind: EntryKind,
    pub id: ObjectId,
}

/// A whole tree, folders before what is in them.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub folders: Vec<TreePath>,
    pub leaves: Vec<Leaf>,
    pub measure: TreeMeasure,
    path_bytes: usize,
}

/// Lists a whole tree. It is measured first, so that the list is never longer than the limits allow.
pub(crate) fn list(reader: &Reader<'_>, tree: TreeId, limits: TreeLimits) -> Result<Listing, GitError> {
    let mut listing = Listing { measure: measure(reader, tree, limits)?, ..Listing::default() };
    listing.add(reader, tree, &[])?;
    Ok(listing)
}

impl Listing {
    fn add(&mut self, reader: &Reader<'_>, tree: TreeId, prefix: &[u8]) -> Result<(), GitError> {
        let bytes = reader.tree(tree)?;
        let (folders, files) = checked_entries(tree, &bytes)?;
        for (entry, kind) in files {
            let path = self.join(prefix, entry.name)?;
            self.leaves.push(Leaf { path, kind, id: entry.id });
        }
        for folder in folders {
            let path = self.join(prefix, folder.name)?;
            self.folders.push(path.clone());
            self.add(reader, TreeId(folder.id.0), &path.0)?;
        }
        Ok(())
    }

    fn join(&mut self, prefix: &[u8], name: &[u8]) -> Result<TreePath, GitError> {
        let path = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        self.path_bytes += path.len();
        let path = TreePath(path);
        if path.0.len() > PATH_BYTES_MAX {
            let what = format!("the length of the path `{path}`");
            return Err(GitError::TooLarge { what, limit: format!("{PATH_BYTES_MAX} bytes") });
        }
        if self.path_bytes > PATH_BYTES_TOTAL_MAX {
            let what = "the length of all paths together".to_owned();
            return Err(GitError::TooLarge { what, limit: format!("{PATH_BYTES_TOTAL_MAX} bytes") });
        }
        Ok(path)
    }
}
