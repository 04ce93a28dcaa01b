//! Who uploaded the commits of a change that are not on its target yet (trust T1, A20).

use std::collections::{BTreeSet, HashMap};

use towpath_core::gate::NOBODY;
use towpath_core::ids::{BranchName, CommitId, UserId};
use towpath_git::{ErrorClass, Range, Walk};

use super::{BuiltIn, lock};
use crate::error::ForgeError;
use crate::records::RevisionRecord;

/// Commits of a change whose uploaders are looked for. Only their ids are read, and five releases of Linux are as many.
pub(super) const STACK_COMMITS_MAX: usize = 100_000;
/// Revisions whose answer is remembered.
const CACHE_MAX: usize = 4_096;

/// Answers by target and head, with the tip for which they were found.
pub(super) type Cache = HashMap<(BranchName, CommitId), (CommitId, BTreeSet<UserId>)>;

impl BuiltIn {
    /// Everybody who uploaded something of a revision that `tip` does not contain: who uploaded the revision, and who brought
    /// its commits. The head is one of these: who proposes a commit that somebody else brought is not the first to have
    /// uploaded it.
    pub(super) fn revision_uploaders(
        &self,
        target: &BranchName,
        tip: CommitId,
        revision: &RevisionRecord,
    ) -> Result<BTreeSet<UserId>, ForgeError> {
        let mut uploaders = self.stack_uploaders(target, tip, revision.commit)?;
        uploaders.insert(revision.uploader);
        Ok(uploaders)
    }

    /// Who brought the commits of `head` that `tip` does not contain.
    ///
    /// A tip that moved forward only takes commits away: where all of them were of those who brought the head, they still are.
    fn stack_uploaders(
        &self,
        target: &BranchName,
        tip: CommitId,
        head: CommitId,
    ) -> Result<BTreeSet<UserId>, ForgeError> {
        let key = (target.clone(), head);
        let known = lock(&self.inner.stacks).get(&key).cloned();
        if let Some((known_tip, uploaders)) = known {
            let still = known_tip == tip
                || (uploaders == self.uploaders(&[head])?
                    && self.repository().is_ancestor(known_tip, tip)?);
            if still {
                lock(&self.inner.stacks).insert(key, (tip, uploaders.clone()));
                return Ok(uploaders);
            }
        }
        let uploaders = self.find_uploaders(Range { from: tip, to: head })?;
        let mut cache = lock(&self.inner.stacks);
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(key, (tip, uploaders.clone()));
        Ok(uploaders)
    }

    /// Of more commits than are looked for, anybody may have uploaded some.
    fn find_uploaders(&self, range: Range) -> Result<BTreeSet<UserId>, ForgeError> {
        match self.stack_commits(range)? {
            Some(commits) => self.uploaders(&commits),
            None => Ok(BTreeSet::from([NOBODY])),
        }
    }

    /// The commits of a range; `None`: there are more than are looked for.
    pub(super) fn stack_commits(&self, range: Range) -> Result<Option<Vec<CommitId>>, ForgeError> {
        match self.repository().commits_between(range, Walk::All, STACK_COMMITS_MAX) {
            Ok(commits) => Ok(Some(commits)),
            Err(error) if error.class() == ErrorClass::Invalid => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
