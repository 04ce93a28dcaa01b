//! Records of ours inside a repository: small files in a commit of their own, so that they travel and are backed up
//! with the repository, and moving a ref by compare-and-swap replaces one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use towpath_core::ids::{CommitId, Timestamp, TreeId};

use crate::error::GitError;
use crate::object::{NewCommit, ObjectId, loose_path, write_commit, write_object};
use crate::repository::Repository;

/// Author and committer of every record. A fixed name: a person in a record is a field of it.
const RECORDER: &str = "Towpath <towpath@localhost>";

/// A record to be written.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The record that it replaces or continues.
    pub previous: Option<CommitId>,
    /// The file's name and content; `None`: the message is all there is.
    pub file: Option<(&'a str, &'a [u8])>,
    /// The message.
    pub message: &'a str,
    /// When.
    pub time: Timestamp,
}

impl Repository {
    /// Writes a record, durably, and makes the packs durable that came before it. It is nothing until a ref names it.
    ///
    /// # Errors
    /// `BadInput` for a file name with a slash or of no length.
    pub fn write_record(&self, record: &Record<'_>) -> Result<CommitId, GitError> {
        let objects = self.objects();
        let (mut tree, mut written) = (Vec::new(), Vec::new());
        if let Some((name, content)) = record.file {
            if name.is_empty() || name.contains(['/', '\0']) {
                return Err(GitError::BadInput { what: "a record's file name", why: format!("`{name}`") });
            }
            let blob = write_object(&objects, "blob", content)?;
            written.push(blob);
            tree.extend_from_slice(format!("100644 {name}\0").as_bytes());
            tree.extend_from_slice(&blob.0);
        }
        let tree = write_object(&objects, "tree", &tree)?;
        let person = format!("{RECORDER} {} +0000", record.time.0.div_euclid(1000));
        let commit = NewCommit {
            tree: TreeId(tree.0),
            parents: record.previous.as_slice(),
            author: person.as_bytes(),
            committer: person.as_bytes(),
            encoding: None,
            message: record.message.as_bytes(),
        };
        let id = write_commit(&objects, &commit)?;
        written.extend([tree, id.into()]);
        self.sync_written(&written)?;
        Ok(id)
    }

    /// Files first, then the folders that name them; that of the packs too, as git leaves it out. What was there already, as
    /// the empty tree is, a repack may have moved into a pack meanwhile.
    fn sync_written(&self, written: &[ObjectId]) -> Result<(), GitError> {
        let (git, objects) = (self.git(), self.objects());
        let paths: Vec<PathBuf> = written.iter().map(|id| loose_path(&objects, *id)).collect();
        paths.iter().try_for_each(|path| git.sync_if_there(path))?;
        let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        folders.into_iter().try_for_each(|folder| git.sync_if_there(folder))?;
        git.sync(&objects.join("pack"))?;
        git.sync(&objects)
    }
}
