//! Opening a change and adding revisions to it: by push, or from a branch that is here already.

use std::collections::BTreeSet;

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Timestamp, UserId};
use towpath_core::policy::{Actor, Role};
use towpath_git::{CommitInfo, ErrorClass, Range, Repository, Walk};

use super::stack::STACK_COMMITS_MAX;
use super::text::{
    ChangeText, Messages, change_id, checked_body, checked_label, checked_title, from_messages,
};
use super::{BuiltIn, lock};
use crate::error::{Done, Failure};
use crate::records::{ChangeAct, ChangeRecord, ChangeState, Find, Member, RevisionRecord, SavedChange};

/// Open changes of one person. More are a robot that went wild.
const OPEN_CHANGES_MAX: usize = 200;
/// Revisions of one change.
const REVISIONS_MAX: usize = 500;
/// Labels of one change.
pub(super) const LABELS_MAX: usize = 32;
/// Commits whose messages are read for the words of a change.
const COMMITS_READ_MAX: usize = 100;

/// What a person wants to land.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// The branch that it should be on; `None`: that of the change, or the repo's default.
    pub target: Option<BranchName>,
    /// The name under which it was pushed: a second push of the same person under it is a revision of the same change.
    pub source: Option<BranchName>,
    /// The change that is meant, if the person said so.
    pub change: Option<ChangeNumber>,
    /// A title given by the person.
    pub title: Option<String>,
    /// A body given by the person.
    pub body: Option<String>,
    /// `Some(true)`: a draft; `Some(false)`: ready; `None`: as it was.
    pub draft: Option<bool>,
    /// Labels to put on.
    pub labels: Vec<String>,
}

/// A branch that was pushed before, as whoever proposes it knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedBranch {
    /// Its name.
    pub name: BranchName,
    /// The commit that the person means, where they said so: the branch is at no other, or nothing happens.
    pub seen: Option<CommitId>,
}

/// A commit as it came here: its uploader decides its level, whoever proposes it (trust T1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uploaded {
    pub commit: CommitId,
    pub by: UserId,
}

/// A change as a proposal would leave it.
#[derive(Debug, Clone)]
pub(crate) struct Proposed {
    pub record: ChangeRecord,
    before: Option<SavedChange>,
}

impl BuiltIn {
    /// Opens or updates a change from a commit that `by` has just uploaded. Who pushed it, the journal says.
    pub fn propose(
        &self,
        by: UserId,
        commit: CommitId,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        self.write_proposal((by, Uploaded { commit, by }), proposal, now, |_| None)
    }

    fn write_proposal(
        &self,
        by: (UserId, Uploaded),
        proposal: &Proposal,
        now: Timestamp,
        act: impl FnOnce(&ChangeRecord) -> Option<ChangeAct>,
    ) -> Done<ChangeRecord> {
        let mut writing = lock(&self.inner.write);
        // Changes are looked for by their rows.
        self.catch_up()?;
        let mut proposed = self.plan_proposal(self.repository(), by, proposal, now)?;
        self.records().check_room()?;
        if let Some(before) = &proposed.before {
            if before.change == proposed.record {
                return Ok(proposed.record);
            }
        } else {
            proposed.record.number = self.next_number(&mut writing)?;
        }
        let act = act(&proposed.record);
        let (change, bytes) = self.write_change(&writing, proposed.record, proposed.before.as_ref(), act)?;
        self.count_upload(by.0, bytes, now);
        Ok(change)
    }

    /// Opens a change from a branch that was pushed before, for the branch's owner or a maintainer. The change is theirs;
    /// its revision stays with who pushed it, or is theirs too where an import brought it.
    pub fn propose_branch(
        &self,
        by: UserId,
        from: &PushedBranch,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        let member = self.require(by, Role::Author, "opening a change")?;
        self.may_act(by, member.role, now)?;
        let commit = self.tip_to_propose((by, &member), from)?;
        let uploader = self.uploaders(&[commit])?.first().copied().unwrap_or(by);
        let source = Some(from.name.clone());
        let actor = Actor { user: by, name: member.name };
        let opened = |change: &ChangeRecord| {
            let what =
                format!("opened {} change {} at {}", self.name(), change.number, change.newest().commit);
            Some(ChangeAct { by: actor, at: now, what })
        };
        let uploaded = Uploaded { commit, by: uploader };
        let proposal = Proposal { source, ..proposal.clone() };
        let change = self.write_proposal((by, uploaded), &proposal, now, opened)?;
        self.count_act(by, now);
        Ok(change)
    }

    fn tip_to_propose(&self, (by, member): (UserId, &Member), from: &PushedBranch) -> Done<CommitId> {
        let PushedBranch { name, seen } = from;
        let refused = |class: RefusalClass, why: String| Err(Failure::refused(class, why));
        let Some(tip) = self.repository().branch_tip(name)? else {
            return refused(RefusalClass::NotFound, format!("there is no branch `{name}`; push it first"));
        };
        let others = self.branch_owner(name)?.filter(|owner| *owner != by).map(|owner| self.name_of(owner));
        if let Some(owner) = others.as_ref().filter(|_| member.role < Role::Maintainer) {
            let why = format!(
                "the branch `{name}` is {owner}'s: only {owner} or a maintainer opens a change from it; push your commit \
                 under another name"
            );
            return refused(RefusalClass::Denied, why);
        }
        let Some(seen) = seen.filter(|seen| *seen != tip) else { return Ok(tip) };
        let push = match others {
            Some(owner) => format!("the branch is {owner}'s, so push yours under another name"),
            None => format!("push yours first (`git push towpath {name}`)"),
        };
        refused(
            RefusalClass::Conflict,
            format!(
                "the branch `{name}` is at {tip} here, not at {seen}: {push}, or say that you mean what is here \
                 (`towpath change open {name}`)"
            ),
        )
    }

    /// What a proposal would make, decided on `view`, which may be the quarantine of a push. Writes nothing.
    pub(crate) fn plan_proposal(
        &self,
        view: &Repository,
        (by, uploaded): (UserId, Uploaded),
        proposal: &Proposal,
        now: Timestamp,
    ) -> Done<Proposed> {
        let member = self.require(by, Role::Author, "opening a change")?;
        let tip = view.commit(uploaded.commit)?;
        let id = change_id(&tip.message);
        let before = self.meant_change((by, &member), proposal, &tip)?;
        let target = self.target_of(proposal, before.as_ref())?;
        let mut messages = Messages::default();
        for commit in self.stack(view, &target, &tip)? {
            messages.add(&view.commit(commit)?.message);
        }
        let mut record = match &before {
            Some(before) => before.change.clone(),
            None => self.first_of_its_id(self.blank((by, &target), proposal, id, now)?)?,
        };
        self.add_revision(&mut record, &tip, uploaded.by, now)?;
        describe(&mut record, proposal, messages)?;
        if let Some(draft) = proposal.draft {
            record.draft = draft;
        }
        for label in &proposal.labels {
            let label = checked_label(label)?;
            self.may_label((by, &member), &record, &label)?;
            record.labels.insert(label);
        }
        if record.labels.len() > LABELS_MAX {
            return Err(Failure::refused(
                RefusalClass::Invalid,
                format!("a change has at most {LABELS_MAX} labels"),
            ));
        }
        Ok(Proposed { record, before })
    }

    /// The change that a push speaks of: by number, or one of the person's own by branch name or Change-Id. Anybody may write
    /// any Change-Id, so it says nothing of what somebody else has (trust T1).
    fn meant_change(
        &self,
        (by, member): (UserId, &Member),
        proposal: &Proposal,
        tip: &CommitInfo,
    ) -> Done<Option<SavedChange>> {
        let target = match &proposal.target {
            Some(target) => target.clone(),
            None => self.records().policy()?.default_target,
        };
        let (found, key) = if let Some(number) = proposal.change {
            (Some(self.named(number)?), Key::Number)
        } else if let Some(source) = &proposal.source {
            let all = self.records().find(&Find::Source(by, source.clone()))?;
            let same_target = all
                .into_iter()
                .filter(|saved| proposal.target.as_ref().is_none_or(|target| *target == saved.change.target));
            (pick(same_target), Key::Source)
        } else if let Some(id) = change_id(&tip.message) {
            let all = self.records().find(&Find::ChangeId(id, target))?;
            (pick(all.into_iter().filter(|saved| saved.change.owner == by)), Key::ChangeId)
        } else {
            // No key at all: only the very same commit is known again.
            let mut open = self.records().find(&Find::OpenOf(by))?.into_iter();
            let same =
                |saved: &SavedChange| saved.change.target == target && saved.change.newest().commit == tip.id;
            (open.find(same), Key::Commit)
        };
        let Some(found) = found else { return Ok(None) };
        let found = self.current(found.change.number)?;
        let change = &found.change;
        let own = change.owner == by || member.role >= Role::Maintainer;
        match change.state {
            ChangeState::Open if own => Ok(Some(found)),
            ChangeState::Open => Err(self.not_yours(change)),
            // A name is used again after its change landed; a Change-Id and a number are not.
            ChangeState::Landed { .. } if key == Key::Source => Ok(None),
            ChangeState::Landed { commit } => Err(Failure::refused(
                RefusalClass::Conflict,
                format!(
                    "change {} landed as {}; what comes next is a new change: push its branch with `-o change`, or give its \
                     commit a new Change-Id",
                    change.number,
                    commit.short()
                ),
            )),
            ChangeState::Closed { by } => Err(Failure::refused(
                RefusalClass::Conflict,
                format!(
                    "change {0} was closed by {1}; `towpath change reopen {0}` opens it again, and another branch \
                     name or Change-Id opens a new one",
                    change.number,
                    self.name_of(by)
                ),
            )),
        }
    }

    /// The change that a push names by its number.
    fn named(&self, number: ChangeNumber) -> Done<SavedChange> {
        self.current(number).map_err(|failure| match failure {
            Failure::Refused(missing) if missing.class == RefusalClass::NotFound => {
                let why = format!(
                    "{}; `towpath change list` shows those that are open, and `-o change` without a number opens one",
                    missing.why
                );
                Failure::refused(RefusalClass::NotFound, why)
            }
            failure => failure,
        })
    }

    fn not_yours(&self, change: &ChangeRecord) -> Failure {
        let owner = self.name_of(change.owner);
        let why = format!(
            "change {} is {owner}'s: only {owner} or a maintainer can add a revision to it; name no change, and one of your \
             own opens",
            change.number
        );
        Failure::refused(RefusalClass::Denied, why)
    }

    /// Of one person's open changes for one target, a push by Change-Id means one: none is moved beside another of its id.
    pub(super) fn only_of_its_id(&self, change: &ChangeRecord, target: &BranchName) -> Done<()> {
        let Some(other) = self.other_of_its_id(change, target)? else { return Ok(()) };
        let why = format!(
            "change {0} of {1} is open for `{target}` with the same Change-Id, and a push could mean either: \
             `towpath change close {0}` first",
            other.number,
            self.name_of(other.owner)
        );
        Err(Failure::refused(RefusalClass::Conflict, why))
    }

    /// Nor is one opened beside another.
    fn first_of_its_id(&self, opened: ChangeRecord) -> Done<ChangeRecord> {
        let Some(other) = self.other_of_its_id(&opened, &opened.target)? else { return Ok(opened) };
        let why = format!(
            "your change {0} is open for `{1}` with the same Change-Id: push with `-o change={0}` to add a revision to it, or \
             give the commit another Change-Id",
            other.number, other.target
        );
        Err(Failure::refused(RefusalClass::Conflict, why))
    }

    fn other_of_its_id(&self, change: &ChangeRecord, target: &BranchName) -> Done<Option<ChangeRecord>> {
        let Some(id) = &change.change_id else { return Ok(None) };
        // Changes are looked for by their rows.
        self.catch_up()?;
        let found = self.records().find(&Find::ChangeId(id.clone(), target.clone()))?.into_iter();
        let mut others = found
            .map(|saved| saved.change)
            .filter(|other| other.is_open() && other.owner == change.owner && other.number != change.number);
        Ok(others.next())
    }

    /// An open change of somebody else that a push by this change's Change-Id may have meant.
    pub(crate) fn namesake(&self, change: &ChangeRecord) -> Done<Option<ChangeRecord>> {
        let Some(id) = &change.change_id else { return Ok(None) };
        let found = self.records().find(&Find::ChangeId(id.clone(), change.target.clone()))?.into_iter();
        let others =
            found.map(|saved| saved.change).filter(|other| other.is_open() && other.owner != change.owner);
        // The first: whoever takes the id of another's change comes later.
        Ok(others.min_by_key(|other| other.number))
    }

    fn target_of(&self, proposal: &Proposal, before: Option<&SavedChange>) -> Done<BranchName> {
        let known = before.map(|before| &before.change);
        if let (Some(change), Some(target)) = (known, &proposal.target)
            && change.target != *target
        {
            let why = format!(
                "change {0} is for `{1}`; `towpath change retarget {0} {target}` moves it first",
                change.number, change.target
            );
            return Err(Failure::refused(RefusalClass::Conflict, why));
        }
        let policy = self.records().policy()?;
        let chosen = known.map(|change| &change.target).or(proposal.target.as_ref());
        let target = chosen.unwrap_or(&policy.default_target).clone();
        self.watched(&target)?;
        Ok(target)
    }

    /// Only a watched branch is a target.
    pub(super) fn watched(&self, target: &BranchName) -> Done<()> {
        let watched = self.records().policy()?.watched;
        if watched.contains_key(target) {
            return Ok(());
        }
        let names: Vec<&str> = watched.keys().map(BranchName::as_str).collect();
        let why = format!(
            "`{target}` is no watched branch, so nothing lands there; there are: {}",
            names.join(", ")
        );
        Err(Failure::refused(RefusalClass::Invalid, why))
    }

    /// The newest commits that are not on the target, oldest first: as many as words of a change are made of.
    pub(super) fn stack(
        &self,
        view: &Repository,
        target: &BranchName,
        tip: &CommitInfo,
    ) -> Done<Vec<CommitId>> {
        let Some(base) = self.repository().branch_tip(target)? else {
            let why = format!("the branch `{target}` does not exist yet; `towpath repo import` brings it");
            return Err(Failure::refused(RefusalClass::NotFound, why));
        };
        let invalid = |why: String| Err(Failure::refused(RefusalClass::Invalid, why));
        match view.merge_base(base, tip.id)? {
            None => return invalid(format!("{} and `{target}` have no common history", tip.id.short())),
            Some(common) if common == tip.id => {
                let id = tip.id.short();
                return invalid(format!("`{target}` contains {id} already: there is nothing to land"));
            }
            Some(_) => {}
        }
        let range = Range { from: base, to: tip.id };
        let mut commits = match view.commits_between(range, Walk::All, STACK_COMMITS_MAX) {
            Ok(commits) => commits,
            Err(error) if error.class() == ErrorClass::Invalid => {
                return invalid(format!(
                    "more than {STACK_COMMITS_MAX} commits of {} are not on `{target}`, too many to find out who uploaded them: \
                     propose an earlier one of them first",
                    tip.id.short()
                ));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(commits.split_off(commits.len().saturating_sub(COMMITS_READ_MAX)))
    }

    fn blank(
        &self,
        (owner, target): (UserId, &BranchName),
        proposal: &Proposal,
        change_id: Option<String>,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        let open = self.records().find(&Find::OpenOf(owner))?.len();
        if open >= OPEN_CHANGES_MAX {
            let why = format!("you have {open} open changes, as many as one person may; close one first");
            return Err(Failure::refused(RefusalClass::Denied, why));
        }
        Ok(ChangeRecord {
            number: ChangeNumber(0),
            target: target.clone(),
            owner,
            title: String::new(),
            body: String::new(),
            edited: false,
            draft: false,
            state: ChangeState::Open,
            came: None,
            landing: None,
            labels: BTreeSet::new(),
            source: proposal.source.clone(),
            change_id,
            created_at: now,
            updated_at: now,
            revisions: Vec::new(),
            reviews: Vec::new(),
            comments: Vec::new(),
        })
    }

    fn add_revision(
        &self,
        record: &mut ChangeRecord,
        tip: &CommitInfo,
        uploader: UserId,
        now: Timestamp,
    ) -> Done<()> {
        if record.revisions.last().is_some_and(|newest| newest.commit == tip.id) {
            return Ok(());
        }
        if record.revisions.len() >= REVISIONS_MAX {
            let why =
                format!("change {} has {REVISIONS_MAX} revisions, the most; open a new one", record.number);
            return Err(Failure::refused(RefusalClass::Invalid, why));
        }
        let number = record.revisions.len() as u32 + 1;
        record.revisions.push(RevisionRecord {
            number,
            commit: tip.id,
            time: tip.committer.time,
            uploader,
            at: now,
        });
        record.updated_at = now.max(record.updated_at);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Number,
    Source,
    ChangeId,
    Commit,
}

/// The open one, or else the newest.
fn pick(found: impl Iterator<Item = SavedChange>) -> Option<SavedChange> {
    found.max_by_key(|saved| (saved.change.is_open(), saved.change.number))
}

/// Words that a person gives stay; else they follow the commits.
fn describe(record: &mut ChangeRecord, proposal: &Proposal, messages: Messages) -> Done<()> {
    if !record.edited {
        let ChangeText { title, body } = from_messages(messages, record.source.as_ref());
        (record.title, record.body) = (title, body);
    }
    if let Some(title) = &proposal.title {
        (record.title, record.edited) = (checked_title(title)?, true);
    }
    if let Some(body) = &proposal.body {
        (record.body, record.edited) = (checked_body(body)?, true);
    }
    Ok(())
}
