//! A whole tree as a list, for whoever writes it out.

use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::object::{Entry, EntryKind, ObjectId, TreePath};
use crate::read::Reader;
use crate::walk::{TreeLimits, TreeMeasure, checked_entries, measure};

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
}

/// Lists a whole tree. It is measured first, so that the list is never longer than the limits allow.
pub(crate) fn list(reader: &Reader<'_>, tree: TreeId, limits: TreeLimits) -> Result<Listing, GitError> {
    let mut listing = Listing { measure: measure(reader, tree, limits)?, ..Listing::default() };
    let mut left = vec![(TreePath(Vec::new()), tree)];
    while let Some((path, tree)) = left.pop() {
        let bytes = reader.tree(tree)?;
        let (folders, files) = checked_entries(tree, &bytes)?;
        let leaf =
            |(entry, kind): (Entry<'_>, _)| Leaf { path: join(&path.0, entry.name), kind, id: entry.id };
        listing.leaves.extend(files.into_iter().map(leaf));
        let inside = folders.iter().rev().map(|folder| (join(&path.0, folder.name), TreeId(folder.id.0)));
        left.extend(inside);
        if !path.0.is_empty() {
            listing.folders.push(path);
        }
    }
    Ok(listing)
}

/// The path of an entry of a folder, which is itself at `prefix`.
pub(crate) fn join(prefix: &[u8], name: &[u8]) -> TreePath {
    TreePath(if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() })
}
