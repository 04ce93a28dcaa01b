//! Notes: texts that lie beside commits in git's own format, so that every clone that fetches them has them too, and
//! `git notes --ref=towpath show` reads them.

use towpath_core::ids::{CommitId, Timestamp};

use crate::error::GitError;
use crate::object::{ObjectId, write_object};
use crate::refs::RefName;
use crate::repository::Repository;

/// Bytes of one note that are read. A proof in a log of 2^40 leaves has 40 hashes, and its leaf a few KB.
const NOTE_BYTES_MAX: u64 = 1024 * 1024;
/// Who writes notes. A fixed name, as in every record of ours.
const NOTER: (&str, &str) = ("Towpath", "towpath@towpath.invalid");

impl RefName {
    /// `refs/notes/towpath`: what the record says about landed commits.
    pub fn landing_notes() -> RefName {
        "refs/notes/towpath".parse().expect("invariant: it is a ref name")
    }
}

impl Repository {
    /// Puts a note beside a commit, durably. One that is there already stays: what it says was true when it was
    /// written. Only for notes that one process alone writes, one after the other.
    ///
    /// # Errors
    /// `NotDurable` if the disk did not confirm it; it may be there all the same.
    pub fn add_note(
        &self,
        (name, commit): (&RefName, CommitId),
        text: &[u8],
        at: Timestamp,
    ) -> Result<(), GitError> {
        let before = self.ref_target(name)?.map(|target| CommitId(target.0));
        if !self.has_note(name, commit)? {
            // As an object of its own it is taken byte by byte; git would tidy up a text.
            let blob = write_object(&self.objects(), "blob", text)?;
            let date = format!("@{} +0000", at.0.div_euclid(1000).max(0));
            let call = self.call("notes").arg(format!("--ref={name}")).args(["add", "-C", &blob.to_string()]);
            let call = ["AUTHOR", "COMMITTER"].into_iter().fold(call, |call, role| {
                let variable = |what: &str| format!("GIT_{role}_{what}");
                call.variable(variable("NAME"), NOTER.0)
                    .variable(variable("EMAIL"), NOTER.1)
                    .variable(variable("DATE"), &date)
            });
            call.arg(commit.to_string()).prepare().output(&[], self.bounds())?;
        }
        self.make_durable(name, before)
    }

    fn has_note(&self, name: &RefName, commit: CommitId) -> Result<bool, GitError> {
        let call = self.call("notes").arg(format!("--ref={name}")).arg("list").arg(commit.to_string());
        Ok(call.prepare().finish(&[], self.bounds())?.status.success())
    }

    /// Every commit with a note, and the note.
    pub fn notes(&self, name: &RefName) -> Result<Vec<(CommitId, Vec<u8>)>, GitError> {
        if self.ref_target(name)?.is_none() {
            return Ok(Vec::new());
        }
        let call = self.call("notes").arg(format!("--ref={name}")).arg("list");
        let output = call.prepare().output(&[], self.bounds())?;
        let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let id = |part: Option<&[u8]>| part.and_then(ObjectId::from_hex);
                let (Some(blob), Some(commit)) = (id(line.get(..40)), id(line.get(41..))) else {
                    return Err(GitError::unexpected("notes", line));
                };
                Ok((CommitId(commit.0), self.read().content(blob, "blob", NOTE_BYTES_MAX)?))
            })
            .collect()
    }
}
