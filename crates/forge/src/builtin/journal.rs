//! The journal of pushes: who brought which commits, and whose a branch is.
//!
//! One commit a push, its message the entry, its parent the push before. Who authenticated is written by the server when
//! objects arrive, so Git's author and committer fields decide nothing (trust T1, A16).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use towpath_core::cell::RefusalClass;
use towpath_core::ids::{BranchName, CommitId, Timestamp, UserId};
use towpath_git::{Expected, Record, RefName, RefUpdate, Repository, Transaction, Walk};

use super::{BuiltIn, Writing, lock, own_ref};
use crate::error::{Done, Failure, ForgeError};

/// Pushes that are read back at most: a hundred a day for 27 years.
const PUSHES_MAX: usize = 1_000_000;

/// One push that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushEntry {
    /// Who, as authenticated.
    pub user: UserId,
    /// When.
    pub at: Timestamp,
    /// Commits that no branch, tag or revision of a change contained before.
    pub commits: Vec<CommitId>,
    /// Branches that it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<BranchName>,
    /// Branches that were there and that it moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<BranchName>,
    /// Branches that it deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<BranchName>,
}

impl PushEntry {
    fn says_nothing(&self) -> bool {
        [&self.made, &self.moved, &self.deleted].into_iter().all(Vec::is_empty) && self.commits.is_empty()
    }
}

/// What the journal adds up to.
#[derive(Debug, Default)]
pub(super) struct Journal {
    head: Option<CommitId>,
    uploaders: HashMap<CommitId, UserId>,
    owners: BTreeMap<BranchName, UserId>,
    movers: BTreeMap<BranchName, UserId>,
}

impl Journal {
    fn read(repository: &Repository) -> Result<Journal, ForgeError> {
        let mut journal = Journal::default();
        let Some(head) = repository.ref_target(&journal_ref())? else { return Ok(journal) };
        let head = CommitId(head.0);
        for commit in repository.log(head, Walk::All, PUSHES_MAX)?.into_iter().rev() {
            let message = repository.commit(commit)?.message;
            let entry: PushEntry = serde_json::from_str(&message).map_err(|error| ForgeError::Invalid {
                what: format!("the journal of pushes at {commit}"),
                why: error.to_string(),
            })?;
            journal.add(&entry);
        }
        journal.head = Some(head);
        Ok(journal)
    }

    /// The first who brought a commit stays its uploader; a branch belongs to who made it last, whoever moves it.
    fn add(&mut self, entry: &PushEntry) {
        for commit in &entry.commits {
            self.uploaders.entry(*commit).or_insert(entry.user);
        }
        for branch in &entry.deleted {
            self.owners.remove(branch);
            self.movers.remove(branch);
        }
        for branch in &entry.made {
            self.owners.insert(branch.clone(), entry.user);
        }
        for branch in entry.made.iter().chain(&entry.moved) {
            self.movers.insert(branch.clone(), entry.user);
        }
    }
}

fn journal_ref() -> RefName {
    own_ref("refs/towpath/pushes".into())
}

impl BuiltIn {
    /// Asks the journal, which is read at the first question.
    fn with_journal<T>(&self, ask: impl FnOnce(&mut Journal) -> T) -> Result<T, ForgeError> {
        let mut writing = lock(&self.inner.write);
        Ok(ask(self.journal(&mut writing)?))
    }

    fn journal<'a>(&self, writing: &'a mut Writing) -> Result<&'a mut Journal, ForgeError> {
        match &mut writing.journal {
            Some(journal) => Ok(journal),
            none => Ok(none.insert(Journal::read(self.repository())?)),
        }
    }

    /// Who brought some commits; those that came by import are not in the answer.
    pub(super) fn uploaders(&self, commits: &[CommitId]) -> Result<BTreeSet<UserId>, ForgeError> {
        self.with_journal(|journal| {
            commits.iter().filter_map(|commit| journal.uploaders.get(commit).copied()).collect()
        })
    }

    /// Whose a branch is; nobody's if it came by import.
    pub(crate) fn branch_owner(&self, branch: &BranchName) -> Result<Option<UserId>, ForgeError> {
        self.with_journal(|journal| journal.owners.get(branch).copied())
    }

    /// Who put a branch where it is, and who brought the commit at which it stands: nobody, as far as it came by import.
    pub(super) fn put_by(&self, branch: &BranchName, tip: CommitId) -> Result<BTreeSet<UserId>, ForgeError> {
        self.with_journal(|journal| {
            let people = [journal.movers.get(branch), journal.uploaders.get(&tip)];
            people.into_iter().flatten().copied().collect()
        })
    }

    /// Branches of a person.
    pub(crate) fn branches_of(&self, user: UserId) -> Result<usize, ForgeError> {
        self.with_journal(|journal| journal.owners.values().filter(|owner| **owner == user).count())
    }

    /// Writes a push down and moves its branches and tags, all at once or nothing of it: no commit is ever reachable without
    /// its uploader, and nobody has a branch for a push that came too late. What they name is durable before.
    pub(crate) fn take_push(&self, entry: &PushEntry, moves: &[RefUpdate]) -> Done<()> {
        let known = self.repository().branch_tip(&self.records().policy()?.default_target)?;
        for target in moves.iter().filter_map(|update| update.target) {
            self.repository().sync_reached(known, target)?;
        }
        let mut writing = lock(&self.inner.write);
        let journal = self.journal(&mut writing)?;
        let (mut updates, mut head) = (moves.to_vec(), journal.head);
        if !entry.says_nothing() {
            let message = serde_json::to_string(entry).expect("invariant: an entry is plain data");
            let record = Record { previous: head, file: None, message: &message, time: entry.at };
            let next = self.repository().write_record(&record)?;
            let expected = head.map_or(Expected::Absent, |head| Expected::At(head.into()));
            updates.push(RefUpdate { name: journal_ref(), expected, target: Some(next.into()) });
            head = Some(next);
        }
        if updates.is_empty() {
            return Ok(());
        }
        let refused: Failure = match self.repository().ref_transaction(&updates) {
            Ok(Transaction::Done) => {
                journal.head = head;
                journal.add(entry);
                return Ok(());
            }
            Ok(Transaction::Stale { name, .. }) if name == journal_ref() => {
                let what = "the journal of pushes".to_owned();
                ForgeError::Conflict { what, why: "somebody else wrote it; push again".to_owned() }.into()
            }
            Ok(Transaction::Stale { name, .. }) => Failure::refused(
                RefusalClass::Conflict,
                format!("somebody else moved `{name}` while you pushed; fetch it, then push again"),
            ),
            Err(error) => error.into(),
        };
        // It may stand all the same: what the journal says is read again at the next question, and so is what was made of it.
        writing.journal = None;
        lock(&self.inner.stacks).clear();
        Err(refused)
    }

    /// Forgets what is known, so that it is read from the repository again.
    pub(super) fn forget(&self) {
        *lock(&self.inner.write) = Writing::default();
        lock(&self.inner.behind).looked = false;
    }
}
