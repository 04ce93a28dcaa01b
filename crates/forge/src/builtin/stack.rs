//! Who uploaded the commits of a change that are not on its target yet (trust T1, A20).

use std::collections::{BTreeSet, HashMap};

use towpath_core::ids::{BranchName, CommitId, UserId};
use towpath_git::{ErrorClass, Range, Walk};

use super::{BuiltIn, lock};
use crate::error::ForgeError;
use crate::records::RevisionRecord;

/// A number that no person has. It stands for "somebody, it was too much to find out who", and has no rights.
pub const NOBODY: UserId = UserId(0);
/// Commits of a change that are looked at. Linux's largest merges have a few thousand; a change of more is untrusted
/// until a maintainer looked at it.
pub(crate) const STACK_COMMITS_MAX: usize = 2_000;
/// Revisions whose answer is remembered.
const CACHE_MAX: usize = 4_096;

/// Answers by target and revision, with the tip for which they were found. The same commit may be a revision of several
/// people, and each has other "others".
pub(super) type Cache = HashMap<(BranchName, CommitId, UserId), (CommitId, BTreeSet<UserId>)>;

impl BuiltIn {
    /// The uploaders, other than the revision's own, of every commit of a revision that `tip` does not contain. The head
    /// commit is one of them: who proposes a commit that somebody else brought is not the first to have uploaded it.
    ///
    /// A tip that moved forward only takes commits away: where nobody else was in the stack before, nobody is now.
    pub(super) fn stack_uploaders(
        &self,
        target: &BranchName,
        tip: CommitId,
        revision: &RevisionRecord,
    ) -> Result<BTreeSet<UserId>, ForgeError> {
        let key = (target.clone(), revision.commit, revision.uploader);
        let known = lock(&self.inner.stacks).get(&key).cloned();
        if let Some((known_tip, others)) = known {
            let forward =
                known_tip == tip || (others.is_empty() && self.repository().is_ancestor(known_tip, tip)?);
            if forward {
                lock(&self.inner.stacks).insert(key, (tip, others.clone()));
                return Ok(others);
            }
        }
        let others = self.find_others(tip, revision)?;
        let mut cache = lock(&self.inner.stacks);
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(key, (tip, others.clone()));
        Ok(others)
    }

    fn find_others(&self, tip: CommitId, revision: &RevisionRecord) -> Result<BTreeSet<UserId>, ForgeError> {
        let range = Range { from: tip, to: revision.commit };
        let commits = match self.repository().commits_between(range, Walk::All, STACK_COMMITS_MAX) {
            Ok(commits) => commits,
            Err(error) if error.class() == ErrorClass::Invalid => return Ok(BTreeSet::from([NOBODY])),
            Err(error) => return Err(error.into()),
        };
        let uploaders = self.uploaders(&commits)?;
        Ok(uploaders.into_iter().filter(|uploader| *uploader != revision.uploader).collect())
    }
}
