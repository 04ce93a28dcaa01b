//! The journal of pushes: who brought which commits, and whose a branch is.
//!
//! One commit a push, its message the entry, its parent the one before. Who authenticated is written by the server when
//! objects arrive, so Git's author and committer fields decide nothing (trust T1, A16). Commits that the server makes of a
//! change and lands in the place of the change's own were pushed by nobody: an entry says before whose content they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use towpath_core::cell::RefusalClass;
use towpath_core::gate::NOBODY;
use towpath_core::ids::{BranchName, CommitId, Timestamp, UserId};
use towpath_git::{Expected, Record, RefName, RefUpdate, Repository, Transaction, Walk};

use super::{BuiltIn, Writing, lock, own_ref};
use crate::error::{Done, Failure, ForgeError};

/// Entries that are read back at most: a hundred a day for 27 years.
const PUSHES_MAX: usize = 1_000_000;

/// One push that was accepted, or what a landing brings that nobody pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushEntry {
    /// Who, as authenticated; [`NOBODY`] for a landing.
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
    /// What the server made of a change that is about to land.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing: Option<MadeCommits>,
}

/// Commits that the server made of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MadeCommits {
    /// The commits.
    pub commits: Vec<CommitId>,
    /// Everybody who uploaded something of the change.
    pub uploaders: BTreeSet<UserId>,
}

impl PushEntry {
    fn says_nothing(&self) -> bool {
        let moves_none = [&self.made, &self.moved, &self.deleted].into_iter().all(Vec::is_empty);
        moves_none && self.commits.is_empty() && self.landing.is_none()
    }
}

/// What the journal adds up to.
#[derive(Debug, Default)]
pub(super) struct Journal {
    head: Option<CommitId>,
    pushed: HashMap<CommitId, UserId>,
    made: HashMap<CommitId, BTreeSet<UserId>>,
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
            self.pushed.entry(*commit).or_insert(entry.user);
        }
        if let Some(MadeCommits { commits, uploaders }) = &entry.landing {
            for commit in commits {
                self.made.entry(*commit).or_default().extend(uploaders);
            }
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

    /// Who brought some commits, or uploaded what the server made them of.
    pub(super) fn uploaders(&self, commits: &[CommitId]) -> BTreeSet<UserId> {
        let pushed = commits.iter().filter_map(|commit| self.pushed.get(commit));
        let made = commits.iter().filter_map(|commit| self.made.get(commit)).flatten();
        pushed.chain(made).copied().collect()
    }

    fn knows(&self, made: &MadeCommits) -> bool {
        let has_all = |of: &BTreeSet<UserId>| of.is_superset(&made.uploaders);
        made.commits.iter().all(|commit| self.made.get(commit).is_some_and(has_all))
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

    pub(super) fn journal<'a>(&self, writing: &'a mut Writing) -> Result<&'a mut Journal, ForgeError> {
        match &mut writing.journal {
            Some(journal) => Ok(journal),
            none => Ok(none.insert(Journal::read(self.repository())?)),
        }
    }

    /// Who brought some commits, or uploaded what the server made them of; those that came by import are not in the answer.
    pub(super) fn uploaders(&self, commits: &[CommitId]) -> Result<BTreeSet<UserId>, ForgeError> {
        self.with_journal(|journal| journal.uploaders(commits))
    }

    /// Whose a branch is; nobody's if it came by import.
    pub(crate) fn branch_owner(&self, branch: &BranchName) -> Result<Option<UserId>, ForgeError> {
        self.with_journal(|journal| journal.owners.get(branch).copied())
    }

    /// Who put a branch where it is, and who brought the commit at which it stands: nobody, as far as it came by import or by a
    /// landing.
    pub(super) fn put_by(&self, branch: &BranchName, tip: CommitId) -> Result<BTreeSet<UserId>, ForgeError> {
        self.with_journal(|journal| {
            let people = [journal.movers.get(branch), journal.pushed.get(&tip)];
            people.into_iter().flatten().copied().collect()
        })
    }

    /// Branches of a person.
    pub(crate) fn branches_of(&self, user: UserId) -> Result<Vec<BranchName>, ForgeError> {
        self.with_journal(|journal| {
            let own = journal.owners.iter().filter(|(_, owner)| **owner == user);
            own.map(|(branch, _)| branch.clone()).collect()
        })
    }

    /// Writes a push down and moves its branches and tags, all at once or nothing of it: no commit is ever reachable without
    /// its uploader, and nobody has a branch for a push that came too late. What they name is durable before.
    pub(crate) fn take_push(&self, entry: &PushEntry, moves: &[RefUpdate]) -> Done<()> {
        let known = self.repository().branch_tip(&self.records().policy()?.default_target)?;
        for target in moves.iter().filter_map(|update| update.target) {
            self.repository().sync_reached(known, target)?;
        }
        self.write_entry(&mut lock(&self.inner.write), entry, moves)
    }

    /// Writes down who uploaded what is in commits that are about to land, durably. A repeat writes nothing.
    pub(super) fn take_landing(&self, writing: &mut Writing, made: MadeCommits, at: Timestamp) -> Done<()> {
        let journal = self.journal(writing)?;
        if journal.knows(&made) {
            // Who wrote it may not have come to this.
            return Ok(self.repository().sync_refs(&[journal_ref()])?);
        }
        let is_pushed = made.commits.iter().any(|commit| journal.pushed.contains_key(commit));
        let (commits, moved, deleted) = Default::default();
        let entry =
            PushEntry { user: NOBODY, at, commits, made: vec![], moved, deleted, landing: Some(made) };
        self.write_entry(writing, &entry, &[])?;
        // Somebody has put one of them into a change already.
        if is_pushed {
            lock(&self.inner.stacks).forget();
        }
        Ok(())
    }

    /// Writes an entry in one transaction with moves of refs.
    fn write_entry(&self, writing: &mut Writing, entry: &PushEntry, moves: &[RefUpdate]) -> Done<()> {
        let journal = self.journal(writing)?;
        let (mut updates, mut head) = (moves.to_vec(), journal.head);
        if !entry.says_nothing() {
            let message = serde_json::to_string(entry).expect("invariant: an entry is plain data");
            let record =
                Record { previous: head, file: None, folder: None, message: &message, time: entry.at };
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
        lock(&self.inner.stacks).forget();
        Err(refused)
    }

    /// Forgets what is known, so that it is read from the repository again.
    pub(super) fn forget(&self) {
        *lock(&self.inner.write) = Writing::default();
        lock(&self.inner.behind).looked = false;
    }
}
