//! Who uploaded the commits of a change that are not on its target yet (trust T1, A20).

use std::collections::{BTreeSet, HashMap};

use towpath_core::gate::NOBODY;
use towpath_core::ids::{BranchName, CommitId, UserId};
use towpath_git::{ErrorClass, GitError, Range, Walk};

use super::loss::Unread;
use super::{BuiltIn, lock};
use crate::error::ForgeError;
use crate::records::RevisionRecord;

/// Commits of a change whose uploaders are looked for. Only their ids are read, and five releases of Linux are as many.
pub(super) const STACK_COMMITS_MAX: usize = 100_000;
/// Revisions whose answer is remembered.
const CACHE_MAX: usize = 4_096;

type Key = (BranchName, CommitId);
type Answer = (CommitId, BTreeSet<UserId>);

/// Answers by target and head, with the tip for which they were found.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<Key, Answer>,
    /// Counts how often all was forgotten. What was found out before that is of before it.
    forgotten: u64,
}

impl Cache {
    /// The journal says something else of commits that answers may have been about.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
        self.forgotten += 1;
    }

    /// Remembers what was looked for since `forgotten` was read.
    fn remember(&mut self, forgotten: u64, key: Key, answer: Answer) {
        if forgotten != self.forgotten {
            return;
        }
        if self.answers.len() >= CACHE_MAX {
            self.answers.clear();
        }
        self.answers.insert(key, answer);
    }
}

impl BuiltIn {
    /// Everybody who uploaded something of a revision that `tip` does not contain: who uploaded the revision, and who brought
    /// its commits. The head is one of these: who proposes a commit that somebody else brought is not the first to have
    /// uploaded it.
    pub(super) fn revision_uploaders(
        &self,
        target: &BranchName,
        tip: CommitId,
        revision: &RevisionRecord,
    ) -> Result<BTreeSet<UserId>, Unread> {
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
    ) -> Result<BTreeSet<UserId>, Unread> {
        let key = (target.clone(), head);
        let (known, forgotten) = {
            let cache = lock(&self.inner.stacks);
            (cache.answers.get(&key).cloned(), cache.forgotten)
        };
        if let Some((known_tip, uploaders)) = known {
            let still = known_tip == tip
                || (uploaders == self.uploaders(&[head])?
                    && self.repository().is_ancestor(known_tip, tip).map_err(ForgeError::from)?);
            if still {
                lock(&self.inner.stacks).remember(forgotten, key, (tip, uploaders.clone()));
                return Ok(uploaders);
            }
        }
        let uploaders = self.find_uploaders(Range { from: tip, to: head })?;
        lock(&self.inner.stacks).remember(forgotten, key, (tip, uploaders.clone()));
        Ok(uploaders)
    }

    /// Of more commits than are looked for, anybody may have uploaded some.
    fn find_uploaders(&self, range: Range) -> Result<BTreeSet<UserId>, Unread> {
        match self.stack_commits(range).map_err(|error| self.unread(range.from, error))? {
            Some(commits) => Ok(self.uploaders(&commits)?),
            None => Ok(BTreeSet::from([NOBODY])),
        }
    }

    /// The commits of a range; `None`: there are more than are looked for.
    pub(super) fn stack_commits(&self, range: Range) -> Result<Option<Vec<CommitId>>, GitError> {
        match self.repository().commits_between(range, Walk::All, STACK_COMMITS_MAX) {
            Ok(commits) => Ok(Some(commits)),
            Err(error) if error.class() == ErrorClass::Invalid => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_before_all_was_forgotten_is_not_remembered_after_it() {
        let mut cache = Cache::default();
        let key = || ("main".parse().expect("a name"), CommitId([1; 20]));
        let answer = || (CommitId([2; 20]), BTreeSet::from([UserId(1)]));
        let before = cache.forgotten;
        cache.remember(before, key(), answer());
        assert_eq!(cache.answers.get(&key()), Some(&answer()));
        cache.forget();
        cache.remember(before, key(), answer());
        assert_eq!(cache.answers.get(&key()), None);
        cache.remember(cache.forgotten, key(), answer());
        assert_eq!(cache.answers.get(&key()), Some(&answer()));
    }
}
