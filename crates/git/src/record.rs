//! Records of ours inside a repository: small files in a commit of their own, so that they travel and are backed up
//! with the repository, and moving a ref by compare-and-swap replaces one.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use towpath_core::ids::{CommitId, Timestamp, TreeId};

use crate::error::GitError;
use crate::object::{
    EntryKind, NewCommit, ObjectId, entries, is_whole, loose_path, write_commit, write_object,
};
use crate::read::find_entry;
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
    /// A folder beside the file: its name, and what is in it, in order.
    pub folder: Option<(&'a str, &'a [Part<'a>])>,
    /// The message.
    pub message: &'a str,
    /// When.
    pub time: Timestamp,
}

/// One file of a record's folder. A long list that changes at its end costs what is new of it.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// As an earlier record of the repository has it.
    Kept(ObjectId),
    /// New content.
    New(&'a [u8]),
}

impl Repository {
    /// Writes a record, durably, and makes the packs durable that came before it. It is nothing until a ref names it.
    ///
    /// # Errors
    /// `BadInput` for a file name with a slash or of no length.
    pub fn write_record(&self, record: &Record<'_>) -> Result<CommitId, GitError> {
        let objects = self.objects();
        let (mut entries, mut written) = (Vec::new(), Vec::new());
        if let Some((name, content)) = record.file {
            entries.push((fit_name(name)?, PLAIN_FILE, write_object(&objects, "blob", content)?));
        }
        if let Some((name, parts)) = record.folder {
            let folder = write_folder(&objects, parts, &mut written)?;
            entries.push((fit_name(name)?, FOLDER, folder));
        }
        written.extend(entries.iter().map(|(_, _, id)| *id));
        // Git's order: a folder stands where its name with a slash behind it would.
        entries.sort_by_key(|(name, mode, _)| format!("{name}{}", if *mode == FOLDER { "/" } else { "" }));
        let entries = entries.iter().map(|(name, mode, id)| (*name, *mode, *id));
        let tree = write_object(&objects, "tree", &tree_content(entries))?;
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

    /// The parts of a record's folder, in order; empty if it has none.
    ///
    /// # Errors
    /// `Missing` if the record is not there; those of reading.
    pub fn record_parts(&self, record: CommitId, folder: &str) -> Result<Vec<ObjectId>, GitError> {
        let (reader, root) = (self.read(), self.commit(record)?.tree);
        let bytes = reader.tree(root)?;
        let Some(found) = find_entry(root, &bytes, folder)? else { return Ok(Vec::new()) };
        let folder = TreeId(found.id.0);
        entries(folder, &reader.tree(folder)?).map(|entry| Ok(entry?.id)).collect()
    }

    /// Whether a record and all that it continues are there. What it has itself is looked through where it lies loose.
    ///
    /// # Errors
    /// Those of git and of reading, where they do not come from damage.
    pub fn is_record_whole(&self, record: CommitId) -> Result<bool, GitError> {
        let looked =
            self.check_reached(None, record).and_then(|()| self.are_whole(&self.record_objects(record)?));
        match looked {
            Err(GitError::Missing { .. } | GitError::Damaged { .. }) => Ok(false),
            Err(GitError::Malformed { .. } | GitError::WrongKind { .. }) => Ok(false),
            looked => looked,
        }
    }

    /// A record's commit, its trees and its files.
    fn record_objects(&self, record: CommitId) -> Result<Vec<ObjectId>, GitError> {
        let (reader, root) = (self.read(), self.commit(record)?.tree);
        let mut objects = vec![record.into(), root.into()];
        for entry in entries(root, &reader.tree(root)?) {
            let entry = entry?;
            objects.push(entry.id);
            if entry.kind() == Some(EntryKind::Tree) {
                let folder = TreeId(entry.id.0);
                let bytes = reader.tree(folder)?;
                let inside = entries(folder, &bytes).map(|entry| Ok::<_, GitError>(entry?.id));
                objects.extend(inside.collect::<Result<Vec<_>, _>>()?);
            }
        }
        Ok(objects)
    }

    /// Whether those that lie loose hold what their names say, and the others are in a pack: nobody reads that for this.
    fn are_whole(&self, asked: &[ObjectId]) -> Result<bool, GitError> {
        let (objects, mut packed) = (self.objects(), Vec::new());
        for id in asked {
            match is_whole(&loose_path(&objects, *id), *id) {
                Err(GitError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => packed.push(*id),
                Ok(true) => {}
                Ok(false) | Err(_) => return Ok(false),
            }
        }
        Ok(self.read().headers(&packed)?.iter().all(Option::is_some))
    }

    /// The content of one part.
    ///
    /// # Errors
    /// `Missing` if it is not there, `TooLarge` over `bytes_max`.
    pub fn record_part(&self, part: ObjectId, bytes_max: u64) -> Result<Vec<u8>, GitError> {
        self.read().content(part, "blob", bytes_max)
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

/// Git's modes.
const PLAIN_FILE: &str = "100644";
const FOLDER: &str = "40000";

/// Writes a folder of numbered files; their names have so many digits that git's order is theirs.
fn write_folder(
    objects: &Path,
    parts: &[Part<'_>],
    written: &mut Vec<ObjectId>,
) -> Result<ObjectId, GitError> {
    let mut entries = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().enumerate() {
        let id = match part {
            Part::Kept(id) => *id,
            Part::New(content) => {
                let id = write_object(objects, "blob", content)?;
                written.push(id);
                id
            }
        };
        entries.push((format!("{:06}", at + 1), id));
    }
    let entries = entries.iter().map(|(name, id)| (name.as_str(), PLAIN_FILE, *id));
    write_object(objects, "tree", &tree_content(entries))
}

fn tree_content<'a>(entries: impl Iterator<Item = (&'a str, &'a str, ObjectId)>) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, mode, id) in entries {
        content.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        content.extend_from_slice(&id.0);
    }
    content
}

fn fit_name(name: &str) -> Result<&str, GitError> {
    match name.is_empty() || name.contains(['/', '\0']) {
        true => Err(GitError::BadInput { what: "a record's file name", why: format!("`{name}`") }),
        false => Ok(name),
    }
}
