//! What the forge says, and how a read of it becomes the gate's knowledge.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Came, Change, Freeze, GateState, Wait};
use crate::act::Act;
use crate::definition::GateSettings;
use crate::ids::{BranchName, ChangeNumber, CommitId, Digest, Timestamp, TreeId, UserId};
use crate::policy::{Rights, Role};

/// One whole reading of a branch and its changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgeRead {
    /// When the reading began, by the server's clock: whatever happened later may be missing from it.
    pub began: Timestamp,
    /// The commit that the branch was asked for: see [`Snapshot::keeps_landed`].
    #[serde(default)]
    pub landed: Option<CommitId>,
    /// What was read.
    pub snapshot: Snapshot,
}

/// The forge's truth about one branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The branch's head; `None`: there is no such branch.
    pub tip: Option<Tip>,
    /// Whether the head contains the commit that it has to: our newest landing, or where a person gave that up, the tip that
    /// was taken in its place. True when there is none.
    pub keeps_landed: bool,
    /// Who put the head there, and who brought its commit, as far as the forge knows: nobody if it was imported. Asked for
    /// as long as nothing has landed.
    #[serde(default)]
    pub begun_by: BTreeSet<UserId>,
    /// Every open change with this target.
    pub changes: Vec<ForgeChange>,
    /// Changes that had this target when they could be read last, each with what is wrong with its record at the forge.
    #[serde(default)]
    pub unreadable: BTreeMap<ChangeNumber, String>,
    /// What people may do here.
    pub people: BTreeMap<UserId, Rights>,
}

/// A branch's head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tip {
    /// The commit.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// Its committer time.
    pub time: Timestamp,
    /// What its definition says about the gate, or why it cannot be used.
    pub settings: Result<GateSettings, Vec<String>>,
}

/// An open change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgeChange {
    /// Its number.
    pub number: ChangeNumber,
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
    /// Nothing runs.
    pub draft: bool,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// Who opened it.
    pub owner: UserId,
    /// The newest revision.
    pub revision: RevisionFacts,
    /// Every review that was not withdrawn.
    pub reviews: Vec<Review>,
    /// Where it was before, if it was elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<Came>,
}

/// A number that no person has. It stands for somebody of whom a forge cannot tell who it is: it has no rights, and may be
/// anybody.
pub const NOBODY: UserId = UserId(0);

/// The newest revision of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionFacts {
    /// The head commit.
    pub commit: CommitId,
    /// Counts the revisions of the change, from 1.
    pub number: u32,
    /// Its committer time, or the latest that the forge believes.
    pub time: Timestamp,
    /// Who uploaded it: decides its level. Git's author and committer decide nothing.
    pub uploader: UserId,
    /// Who else uploaded a commit of it that is not yet on the target.
    pub stack_uploaders: BTreeSet<UserId>,
}

impl RevisionFacts {
    /// Everybody who uploaded something of it that is not yet on the target.
    pub fn uploaders(&self) -> impl Iterator<Item = UserId> {
        std::iter::once(self.uploader).chain(self.stack_uploaders.iter().copied())
    }

    /// Whether a person uploaded something of it, or may have.
    pub fn may_be_of(&self, person: UserId) -> bool {
        self.uploaders().any(|user| user == person || user == NOBODY)
    }
}

/// One person's verdict, bound to what the person saw (trust T8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub by: UserId,
    /// What.
    pub verdict: Verdict,
    /// On which revision.
    pub revision: CommitId,
    /// For which branch.
    pub target: BranchName,
    /// Of which definition, where the change edited it.
    pub definition: Option<Digest>,
    /// Of which title and body, as [`message_digest`].
    pub message: Digest,
    /// When.
    pub at: Timestamp,
}

/// What a review says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may land.
    Approve,
    /// It may not land as it is.
    RequestChanges,
}

/// Identifies a title and body. An approval is void once they differ, as they become the landed message.
pub fn message_digest(title: &str, body: &str) -> Digest {
    Digest::of_fields([title.as_bytes(), body.as_bytes()])
}

impl GateState {
    /// Takes over a reading, unless something newer is known, or it was asked for another commit than the one that counts now.
    pub(super) fn forge_read(&mut self, read: &ForgeRead, now: Timestamp) {
        let branch = self.branch.edit();
        branch.reads += 1;
        branch.read_at = Some(now);
        let stale = branch.read_began.is_some_and(|newest| read.began < newest)
            || branch.landed.is_some_and(|(_, at)| read.began < at)
            || read.landed != branch.kept();
        if stale {
            self.branch.edit().flags.forge.set(now);
            return;
        }
        let branch = self.branch.edit();
        branch.read_began = Some(read.began);
        branch.flags.forge.clear_before(read.began);
        if !branch.flags.forge.is_set() {
            // Whatever was let go rang before this reading began.
            self.departed.retain(|_, _| false);
        }
        if *self.people != read.snapshot.people {
            *self.people.edit() = read.snapshot.people.clone();
        }
        self.meet_tip(read, now);
        self.meet_changes(&read.snapshot.changes, now);
        if self.branch.unreadable != read.snapshot.unreadable {
            self.branch.edit().unreadable = read.snapshot.unreadable.clone();
        }
    }

    fn meet_tip(&mut self, read: &ForgeRead, now: Timestamp) {
        let snapshot = &read.snapshot;
        let found = snapshot.tip.as_ref().map(|tip| tip.commit);
        if let Some(tip) = found {
            self.meet_landings(tip, read.began);
        }
        if self.is_landing() && found != self.branch.last_tip {
            // It may stand on our own landing. Its driver says how that ended, and the branch is read again then.
            self.branch.edit().tip = None;
            return;
        }
        if self.branch.last_tip.is_none() && !self.meet_first_tip(found, snapshot) {
            return;
        }
        if let (Some(from), Some(to)) = (self.branch.last_tip, found)
            && from != to
        {
            self.branch.edit().foreign = Some(to);
            self.note(Act::ForeignPush { gate: self.id.clone(), from: Some(from), to });
        }
        let lost = self.branch.kept().filter(|_| !snapshot.keeps_landed);
        if self.branch.lost != lost {
            self.branch.edit().lost = lost;
        }
        self.freeze_over_loss(now);
        if self.branch.tip != snapshot.tip {
            let branch = self.branch.edit();
            branch.tip = snapshot.tip.clone();
            // A definition that cannot be used leaves the defaults: the strictest there are.
            branch.settings = match &snapshot.tip {
                Some(Tip { settings: Ok(settings), .. }) => *settings,
                _ => GateSettings::default(),
            };
        }
        if found.is_some() && self.branch.last_tip != found {
            self.branch.edit().last_tip = found;
        }
    }

    /// Whether a branch may begin at a tip. Where anybody but an admin put it, an admin has to accept it first: nobody
    /// reviewed it, and what is on the branch runs with the branch's secrets (trust T1).
    fn meet_first_tip(&mut self, found: Option<CommitId>, snapshot: &Snapshot) -> bool {
        let is_admin = |user| snapshot.people.get(user).is_some_and(|rights| rights.role >= Role::Admin);
        let foreign = found.filter(|_| !snapshot.begun_by.iter().all(is_admin));
        if self.branch.foreign != foreign {
            self.branch.edit().foreign = foreign;
            if let Some(to) = foreign {
                self.note(Act::ForeignPush { gate: self.id.clone(), from: None, to });
            }
        }
        foreign.is_none()
    }

    pub(super) fn freeze_over_loss(&mut self, now: Timestamp) {
        let Some(lost) = self.branch.lost else { return };
        let what = match self.branch.settled_on {
            None => "the commit that was landed last".to_owned(),
            Some(tip) => format!("{}, at which it was unfrozen after such a loss", tip.short()),
        };
        let why = format!("the branch no longer contains {what}");
        self.freeze_ourselves(Freeze { by: None, why, at: now, lost: Some(lost) });
    }

    fn meet_changes(&mut self, read: &[ForgeChange], now: Timestamp) {
        let open: Vec<&ForgeChange> = read.iter().filter(|facts| !self.has_left(facts)).collect();
        let numbers: BTreeSet<ChangeNumber> = open.iter().map(|facts| facts.number).collect();
        let gone: Vec<ChangeNumber> =
            self.changes.map().keys().filter(|number| !numbers.contains(number)).copied().collect();
        gone.into_iter().for_each(|number| self.leave(number));
        self.vouches.retain(|_, vouch| now < vouch.expires);
        // Closed or moved to another branch while it landed, it must not come back as if it never had.
        self.landed.retain(|number, record| numbers.contains(number) || !record.marked);
        let landed: BTreeSet<ChangeNumber> = self.landed.map().keys().copied().collect();
        for facts in open.into_iter().filter(|facts| !landed.contains(&facts.number)) {
            self.meet_change(facts, now);
        }
    }

    /// A change is no longer open here. What people said of it stays: it may be opened again.
    pub(super) fn leave(&mut self, number: ChangeNumber) {
        let Some(Change { hold, vouch, .. }) = self.changes.remove(&number) else { return };
        hold.map(|hold| self.holds.insert(number, hold));
        vouch.map(|vouch| self.vouches.insert(number, vouch));
    }

    fn meet_change(&mut self, facts: &ForgeChange, now: Timestamp) {
        let Some(known) = self.changes.get(&facts.number) else {
            let hold = self.holds.remove(&facts.number);
            let vouch = self.vouches.remove(&facts.number);
            let vouch = vouch.filter(|vouch| vouch.revision == facts.revision.commit);
            let facts = facts.clone();
            let (candidate, message) = Default::default();
            let (edited, slow, wait) = Default::default();
            let change = Change { facts, hold, vouch, since: now, edited, slow, wait, candidate, message };
            self.changes.insert(change.facts.number, change);
            return;
        };
        if known.facts == *facts {
            return;
        }
        let moved = known.facts.revision.commit != facts.revision.commit;
        let change = self.changes.get_mut(&facts.number).expect("invariant: it was just found");
        change.facts = facts.clone();
        if moved {
            // Nothing is inherited by a new revision (trust T1). A hold is about the change and stays.
            change.vouch = None;
            change.since = now;
            change.edited = None;
            change.slow = None;
            change.wait = Wait::default();
        }
    }
}
