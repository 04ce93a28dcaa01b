//! What the repository has lost, or has damaged: whose it is, and who is kept from the branch by it.
//!
//! What a branch reaches, of whatever age, is the branch's: it is told as that, and every change for the branch waits. What only
//! a change's revision reaches is the change's, which is out of reach as long as that is so, and keeps no other from the
//! branch. What neither of them reaches was made here, and is made again.

use std::collections::HashMap;
use std::hash::Hash;

use towpath_core::ids::CommitId;
use towpath_git::{GitError, ObjectId, Range};

use super::{BuiltIn, lock};
use crate::error::{Failure, ForgeError};

/// Revisions of which it is remembered what they have lost; questions about branches whose answer is.
const LOST_MAX: usize = 4_096;

/// What was found lost or damaged. It counts for as long as that is so.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Of revisions, by their heads.
    revisions: HashMap<CommitId, ObjectId>,
    /// What a walk through all that a base reaches has come upon, by the base and the object that was looked for: that
    /// itself, or another one that keeps it from being told.
    bases: HashMap<(CommitId, ObjectId), ObjectId>,
}

fn remember<K: Eq + Hash>(found: &mut HashMap<K, ObjectId>, key: K, object: ObjectId) {
    if found.len() >= LOST_MAX {
        found.clear();
    }
    found.insert(key, object);
}

/// Whose an object is that is lost or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// That of what a change is put on: the branch, or a candidate on it.
    Base,
    /// That of a change's revision.
    Revision,
    /// The candidate's alone.
    Candidate,
}

/// Why the commits of a change are not known.
#[derive(Debug)]
pub(super) enum Unread {
    /// This is lost or damaged, and stays so however often it is read. No other change has to do with it.
    Damaged(ObjectId),
    /// Something else is in the way.
    Failed(ForgeError),
}

impl From<ForgeError> for Unread {
    fn from(error: ForgeError) -> Unread {
        Unread::Failed(error)
    }
}

/// Why a change cannot be read.
pub(super) fn lost_of_revision(object: ObjectId) -> String {
    format!("of its newest revision, {}", GitError::Damaged { id: object })
}

impl From<Unread> for ForgeError {
    fn from(unread: Unread) -> ForgeError {
        match unread {
            Unread::Damaged(object) => {
                ForgeError::Invalid { what: "reading a change".into(), why: lost_of_revision(object) }
            }
            Unread::Failed(error) => error,
        }
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Failure {
        ForgeError::from(unread).into()
    }
}

impl BuiltIn {
    /// What it means for a change that is put on `base` that something could not be read.
    pub(super) fn unread(&self, base: CommitId, error: GitError) -> Unread {
        let (GitError::Missing { id: object } | GitError::Damaged { id: object }) = error else {
            return Unread::Failed(error.into());
        };
        match self.is_of_base(base, object) {
            Ok(false) => Unread::Damaged(object),
            Ok(true) => Unread::Failed(GitError::Damaged { id: object }.into()),
            Err(error) => Unread::Failed(error.into()),
        }
    }

    /// Whether `base` reaches something that is lost or damaged. All that it reaches is walked through for that, but not again
    /// at each reading of a branch that is damaged.
    fn is_of_base(&self, base: CommitId, object: ObjectId) -> Result<bool, GitError> {
        let key = (base, object);
        let known = lock(&self.inner.lost).bases.get(&key).copied();
        let answer = match known.filter(|found| self.repository().damage_of(*found).is_some()) {
            Some(found) if found == object => Ok(true),
            Some(found) => Err(GitError::Damaged { id: found }),
            None => self.repository().reaches(base, object),
        };
        let found = match &answer {
            Ok(true) => Some(object),
            Err(GitError::Damaged { id }) => Some(*id),
            Ok(false) | Err(_) => None,
        };
        let bases = &mut lock(&self.inner.lost).bases;
        match found {
            Some(found) => remember(bases, key, found),
            None => drop(bases.remove(&key)),
        }
        answer
    }

    /// Finds out whose an object is that was met lost or damaged as `sides.to`, the revision of a change, was put on
    /// `sides.from`. Where it is the revision's, its change cannot be read any more as long as that is so. Where it is the
    /// candidate's alone, nothing keeps the same candidate from being made again.
    ///
    /// # Errors
    /// `Transient`, with the object that is in the way, where more of the base is damaged.
    pub fn whose(&self, sides: Range, object: ObjectId) -> Result<Owner, ForgeError> {
        if self.is_of_base(sides.from, object)? {
            return Ok(Owner::Base);
        }
        let lost = match self.repository().reaches(sides.to, object) {
            Ok(false) => {
                self.repository().drop_damaged(object)?;
                return Ok(Owner::Candidate);
            }
            Ok(true) => object,
            // All of the base could be walked through, so this is not of it either.
            Err(GitError::Damaged { id }) => id,
            Err(error) => return Err(error.into()),
        };
        self.note_lost(sides.to, lost);
        Ok(Owner::Revision)
    }

    /// Notes that something of a revision is lost or damaged: its change cannot be read as long as that is so.
    pub(super) fn note_lost(&self, revision: CommitId, object: ObjectId) {
        remember(&mut lock(&self.inner.lost).revisions, revision, object);
    }

    /// Forgets what was noted of a revision where that is back.
    pub(super) fn unless_lost(&self, revision: CommitId) -> Result<(), Unread> {
        let known = lock(&self.inner.lost).revisions.get(&revision).copied();
        let Some(object) = known else { return Ok(()) };
        if self.repository().damage_of(object).is_some() {
            return Err(Unread::Damaged(object));
        }
        lock(&self.inner.lost).revisions.remove(&revision);
        Ok(())
    }
}
