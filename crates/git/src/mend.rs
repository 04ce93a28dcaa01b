//! What a start has to put right: locks of processes that are no more, and files that a power cut left half-written.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use towpath_core::ids::CommitId;

use crate::base::BOOT_ID;
use crate::error::GitError;
use crate::object::{ObjectId, is_whole, loose_path, remove_spoilt};
use crate::refs::{Expected, RefUpdate};
use crate::repository::Repository;

/// The file of a repository with the boot id of the machine under which it was last found in order.
const BOOT_SEEN: &str = "towpath-boot";

/// What [`Repository::mend`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mended {
    /// Loose objects whose file does not hold what its name says.
    pub objects: usize,
    /// Candidates of which something is missing. They are made again when they are asked for.
    pub candidates: usize,
}

/// How the mark of a received pack begins; the process and the host follow.
const KEEP_OF_A_PUSH: &[u8] = b"receive-pack ";

impl Repository {
    /// Puts a repository in order: clears away lock files, marks and quarantines of processes that are no more, and mends
    /// it ([`Repository::mend`]) if the machine was started anew since [`Repository::mark_in_order`].
    ///
    /// Only for the only server of this repository, while nothing else runs on it: a lock file of a living git must stay.
    pub fn clear_leftovers(&self) -> Result<Mended, GitError> {
        remove_locks(&self.path().join("refs"))?;
        for name in ["packed-refs.lock", "HEAD.lock", "config.lock", "packed-refs.new"] {
            remove_if_there(&self.path().join(name))?;
        }
        for entry in entries(&self.objects())? {
            if entry.file_name().as_encoded_bytes().starts_with(b"tmp_objdir-") {
                fs::remove_dir_all(entry.path()).map_err(GitError::io("remove", &entry.path()))?;
            }
        }
        remove_keeps(&self.objects().join("pack"))?;
        match self.is_marked(&boot_id()) {
            true => Ok(Mended::default()),
            false => self.mend(),
        }
    }

    /// Notes that the repository is in order: only after the next start of the machine is all of it looked through again.
    ///
    /// # Errors
    /// `Io` if the note cannot be made, on a full disk for instance: it is in order all the same, and looked through
    /// again. `NotDurable` if the disk does not confirm it.
    pub fn mark_in_order(&self) -> Result<(), GitError> {
        let boot = boot_id();
        match self.is_marked(&boot) {
            true => Ok(()),
            false => self.git().write_synced(&self.path().join(BOOT_SEEN), &boot),
        }
    }

    fn is_marked(&self, boot: &str) -> bool {
        !boot.is_empty() && fs::read_to_string(self.path().join(BOOT_SEEN)).is_ok_and(|found| found == boot)
    }

    /// Removes what a power cut left half-written.
    ///
    /// Candidates are not synced before they land. An object file that was cut would stay for ever: git sees that it
    /// is there and does not write it again. Reads every loose object, 20 microseconds for each of usual size.
    /// Landed history was synced; if something of it is broken nevertheless, removing the file makes that show.
    ///
    /// # Errors
    /// `Io` for a file that cannot be read: what is in it is not known then, and it stays.
    pub fn mend(&self) -> Result<Mended, GitError> {
        let mut mended = Mended::default();
        for folder in entries(&self.objects())? {
            let name = folder.file_name();
            let Some(first) = name.to_str().filter(|name| name.len() == 2) else { continue };
            for file in entries(&folder.path())? {
                let name = file.file_name();
                let id = name.to_str().map(|rest| format!("{first}{rest}").parse::<ObjectId>());
                if let Some(Ok(id)) = id
                    && !is_whole(&file.path(), id)?
                    && remove_spoilt(&file.path(), id)?
                {
                    mended.objects += 1;
                }
            }
        }
        self.close_processes();
        mended.candidates += self.remove_cut_candidates()?;
        for candidate in self.refs("refs/towpath/candidates")? {
            if !self.is_complete(CommitId(candidate.target.0))? {
                let update = RefUpdate { name: candidate.name, expected: Expected::Anything, target: None };
                self.write_refs(&[update])?;
                mended.candidates += 1;
            }
        }
        Ok(mended)
    }

    /// Removes the file of an object that does not hold it any more, and only such a file. Git sees that it is there, and neither
    /// writes the object again nor gets past it as long as it is young, also where nothing names it.
    ///
    /// For an object of which the server knows that it can make it again. One that lies in a pack stays.
    ///
    /// # Errors
    /// `Io` if it cannot be removed.
    pub fn drop_damaged(&self, object: ObjectId) -> Result<(), GitError> {
        let path = loose_path(&self.objects(), object);
        match is_whole(&path, object) {
            Ok(false) => remove_spoilt(&path, object).map(drop),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// Refs of candidates whose file was cut; git would report them in every list.
    fn remove_cut_candidates(&self) -> Result<usize, GitError> {
        let folder = self.path().join("refs/towpath/candidates");
        if !folder.is_dir() {
            return Ok(0);
        }
        let mut removed = 0;
        for file in entries(&folder)? {
            let text = fs::read(file.path()).map_err(GitError::io("read", &file.path()))?;
            if ObjectId::from_hex(text.trim_ascii_end()).is_none() {
                remove_if_there(&file.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether everything is there that a commit reaches and no branch does.
    fn is_complete(&self, commit: CommitId) -> Result<bool, GitError> {
        let call = self.call("rev-list").args(["--objects", "--quiet"]).arg(commit.to_string());
        let call = call.args(["--not", "--glob=refs/heads/*"]);
        Ok(call.prepare().finish(&[], self.bounds())?.status.success())
    }
}

/// Empty where the system does not say it.
fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default()
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, GitError> {
    let found = fs::read_dir(folder).map_err(GitError::io("read", folder))?;
    found.map(|entry| entry.map_err(GitError::io("read", folder))).collect()
}

fn remove_locks(folder: &Path) -> Result<(), GitError> {
    for entry in entries(folder)? {
        let kind = entry.file_type().map_err(GitError::io("read", folder))?;
        if kind.is_dir() {
            remove_locks(&entry.path())?;
        } else if entry.file_name().as_encoded_bytes().ends_with(b".lock") {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// The marks with which a receiving git keeps its new pack from being collected. Each names its process: one of a dead git
/// would stand in the way of the same pack, should the push be repeated ("unable to migrate objects"). A person's own marks
/// say something else and stay.
fn remove_keeps(folder: &Path) -> Result<(), GitError> {
    for entry in entries(folder)? {
        let path = entry.path();
        let is_mark = path.extension().is_some_and(|extension| extension == "keep");
        if is_mark && fs::read(&path).is_ok_and(|words| words.starts_with(KEEP_OF_A_PUSH)) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), GitError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(GitError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
