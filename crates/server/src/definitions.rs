//! Reading a definition out of a tree, as objects and never by path (trust T2, T5).

use std::collections::BTreeMap;

use towpath_core::ids::TreeId;
use towpath_git::{FileAt, GitError, Repository};
use towpath_pipeline::{
    DETECTION_BYTES_MAX, DETECTION_FILES, DefinitionFile, FILE_BYTES_MAX, FILE_NAME, RootTree, TreeEntry,
};

/// Git's mode of a plain file.
const MODE_PLAIN: u32 = 0o100_644;

/// What stands at `towpath.yaml` in a tree; without one, what is detected from its root.
///
/// # Errors
/// Those of reading objects. A definition that cannot be used is no error here.
pub fn read(repository: &Repository, tree: TreeId) -> Result<DefinitionFile, GitError> {
    let entry = repository.file_at(tree, FILE_NAME, FILE_BYTES_MAX as u64)?;
    Ok(match entry {
        FileAt::Absent => DefinitionFile::read(TreeEntry::Absent(&root(repository, tree)?)),
        FileAt::Content(bytes) => {
            DefinitionFile::read(TreeEntry::Present { mode: MODE_PLAIN, bytes: &bytes })
        }
        FileAt::NotRegular { mode } => DefinitionFile::read(TreeEntry::Present { mode, bytes: &[] }),
        // As long as the first byte beyond the limit: the parser says so in its own words.
        FileAt::TooLarge { .. } => {
            let bytes = vec![b'#'; FILE_BYTES_MAX + 1];
            DefinitionFile::read(TreeEntry::Present { mode: MODE_PLAIN, bytes: &bytes })
        }
    })
}

/// What detection looks at.
fn root(repository: &Repository, tree: TreeId) -> Result<RootTree, GitError> {
    let names = repository.names_in(tree, "")?;
    let names =
        names.iter().filter_map(|name| std::str::from_utf8(&name.0).ok().map(str::to_owned)).collect();
    let mut files = BTreeMap::new();
    for name in DETECTION_FILES {
        if let FileAt::Content(bytes) = repository.file_at(tree, name, DETECTION_BYTES_MAX as u64)? {
            files.insert(name.to_owned(), bytes);
        }
    }
    Ok(RootTree { names, files })
}
