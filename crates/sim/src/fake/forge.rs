//! A forge with a memory: branches with every push, changes with every revision, people with rights that come and go.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::effect::{Check, Landing};
use towpath_core::gate::{
    ForgeChange, LandTried, Review, RevisionFacts, Snapshot, Tip, Verdict, message_digest,
};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Digest, Timestamp, UserId};
use towpath_core::policy::Rights;

use super::definition;
use super::git::{DEFINITION, Files, Git, tree_id};

/// Who moved a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pusher {
    /// Towpath, for this change.
    Us(ChangeNumber),
    /// A person.
    Person,
}

/// What a reviewer was shown of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// All of it, its definition too.
    Definition,
    /// Its content, before anybody had made out which definition that makes.
    NoDefinition,
}

/// One move of a branch.
#[derive(Debug, Clone, Copy)]
pub struct Push {
    /// Who.
    pub by: Pusher,
    /// The tip before.
    pub from: CommitId,
    /// The tip after.
    pub to: CommitId,
}

/// A branch.
#[derive(Debug)]
pub struct Branch {
    /// Its head.
    pub tip: CommitId,
    /// Who made it.
    pub made_by: UserId,
    /// Every commit in it.
    pub commits: BTreeSet<CommitId>,
    /// Every move.
    pub pushes: Vec<Push>,
}

/// How far a change is, for the forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeState {
    /// Open.
    Open,
    /// Closed by a person, who may open it again.
    Closed,
    /// Landed, for good.
    Landed(CommitId),
}

/// A change.
#[derive(Debug, Clone)]
pub struct ForgedChange {
    /// What a read shows.
    pub facts: ForgeChange,
    /// Its branch.
    pub target: BranchName,
    /// Every revision, oldest first.
    pub revisions: Vec<(CommitId, UserId)>,
    /// How far it is.
    pub state: ChangeState,
    /// The branch that has moved to it: from then on it can go to no other one, whatever the list of changes shows.
    pub landed_on: Option<BranchName>,
    /// The verdict of each branch's gate.
    pub checks: BTreeMap<BranchName, (CommitId, Check)>,
}

impl ForgedChange {
    /// Whether it is open for the branch, with the revision that was tested, and was nowhere else since.
    fn is_for(&self, landing: &Landing) -> bool {
        self.facts.came.as_ref().map(|came| came.at) == landing.came_at && self.is_open_for(landing)
    }

    fn is_open_for(&self, landing: &Landing) -> bool {
        self.state == ChangeState::Open
            && self.target == landing.branch
            && self.facts.revision.commit == landing.revision
    }

    /// The verdict that people see: of the gate of its branch.
    pub fn check(&self) -> Option<&(CommitId, Check)> {
        self.checks.get(&self.target)
    }
}

/// The forge.
#[derive(Debug, Default)]
pub struct Forge {
    /// Objects.
    pub git: Git,
    /// Branches.
    pub branches: BTreeMap<BranchName, Branch>,
    /// Changes of every state.
    pub changes: BTreeMap<ChangeNumber, ForgedChange>,
    /// Rights.
    pub people: BTreeMap<UserId, Rights>,
    /// Landed commits with a note.
    pub noted: BTreeSet<CommitId>,
    /// How it is broken: it lands a change that has been elsewhere since.
    pub forgets_moves: bool,
    uploaders: BTreeMap<CommitId, UserId>,
}

impl Forge {
    /// Adds a branch with one commit of its own.
    pub fn add_branch(&mut self, name: &BranchName, files: Files, made_by: UserId) {
        let root = self.git.commit(&[], files, (&format!("root of {name}"), 0));
        let branch = Branch { tip: root, made_by, commits: BTreeSet::from([root]), pushes: vec![] };
        self.branches.insert(name.clone(), branch);
    }

    /// A branch by its name.
    pub fn branch(&self, name: &BranchName) -> &Branch {
        self.branches.get(name).expect("invariant: branches are made with the world")
    }

    /// Open changes of a branch.
    pub fn open(&self, branch: &BranchName) -> impl Iterator<Item = &ForgedChange> {
        self.changes
            .values()
            .filter(move |change| change.state == ChangeState::Open && change.target == *branch)
    }

    /// What a read of a branch shows at this instant.
    pub fn snapshot(&self, branch: &BranchName, landed: Option<CommitId>) -> Snapshot {
        let truth = self.branch(branch);
        Snapshot {
            tip: Some(self.tip(truth.tip)),
            keeps_landed: landed.is_none_or(|commit| truth.commits.contains(&commit)),
            begun_by: landed.is_none().then_some(truth.made_by).into_iter().collect(),
            changes: self.open(branch).map(|change| self.shown(change, truth)).collect(),
            unreadable: BTreeMap::new(),
            people: self.people.clone(),
        }
    }

    fn tip(&self, commit: CommitId) -> Tip {
        let made = self.git.get(commit);
        Tip {
            commit,
            tree: tree_id(&made.files),
            time: Timestamp(made.time),
            settings: definition::read(made.files[DEFINITION]).map(|read| read.settings),
        }
    }

    fn shown(&self, change: &ForgedChange, branch: &Branch) -> ForgeChange {
        let head = change.facts.revision.commit;
        let mut stack = BTreeSet::new();
        let mut open = vec![head];
        while let Some(commit) = open.pop() {
            if !branch.commits.contains(&commit) {
                stack.extend(self.uploaders.get(&commit).copied());
                open.extend(self.git.get(commit).parents.iter().copied());
            }
        }
        let revision = RevisionFacts { stack_uploaders: stack, ..change.facts.revision.clone() };
        ForgeChange { revision, ..change.facts.clone() }
    }

    /// Opens a change.
    pub fn propose(&mut self, target: &BranchName, head: CommitId, by: UserId) -> ChangeNumber {
        let number = ChangeNumber(self.changes.len() as u64 + 1);
        let facts = ForgeChange {
            number,
            title: format!("change {number}"),
            body: format!("why {number}"),
            draft: false,
            labels: BTreeSet::new(),
            owner: by,
            revision: self.revision(head, by, 1),
            reviews: vec![],
            came: None,
        };
        self.uploaders.entry(head).or_insert(by);
        let change = ForgedChange {
            facts,
            target: target.clone(),
            revisions: vec![(head, by)],
            state: ChangeState::Open,
            landed_on: None,
            checks: BTreeMap::new(),
        };
        self.changes.insert(number, change);
        number
    }

    fn revision(&self, commit: CommitId, uploader: UserId, number: u32) -> RevisionFacts {
        let time = Timestamp(self.git.get(commit).time);
        RevisionFacts { commit, number, time, uploader, stack_uploaders: BTreeSet::new() }
    }

    /// Adds a revision to a change.
    pub fn revise(&mut self, number: ChangeNumber, head: CommitId, by: UserId) {
        self.uploaders.entry(head).or_insert(by);
        let count = self.changes[&number].revisions.len() as u32;
        let revision = self.revision(head, by, count + 1);
        let change = self.changes.get_mut(&number).expect("invariant: the caller looked it up");
        change.revisions.push((head, by));
        change.facts.revision = revision;
    }

    /// A person's verdict on what the person saw: some revision, and title and body as they are now.
    pub fn review(
        &mut self,
        number: ChangeNumber,
        (by, verdict): (UserId, Verdict),
        (revision, shown): (CommitId, Shown),
        at: Timestamp,
    ) {
        let definition = match shown {
            Shown::Definition => Some(self.definition_of(revision)),
            Shown::NoDefinition => None,
        };
        let change = self.changes.get_mut(&number).expect("invariant: the caller looked it up");
        let message = message_digest(&change.facts.title, &change.facts.body);
        let target = change.target.clone();
        change.facts.reviews.push(Review { by, verdict, revision, target, definition, message, at });
    }

    /// The definition in a commit.
    pub fn definition_of(&self, commit: CommitId) -> Digest {
        definition::digest(self.git.get(commit).files[DEFINITION])
    }

    /// Compare-and-swap of a branch, for a change that is as it was tested.
    pub fn land(&mut self, landing: &Landing) -> LandTried {
        let tip = self.branch(&landing.branch).tip;
        if self.contains(&landing.branch, landing.to) {
            return LandTried::Landed;
        }
        let change = self.changes.get(&landing.change);
        let is_for = if self.forgets_moves { ForgedChange::is_open_for } else { ForgedChange::is_for };
        if !change.is_some_and(|change| is_for(change, landing)) {
            return LandTried::Gone;
        }
        if tip != landing.from {
            return LandTried::Moved { tip: Some(tip) };
        }
        if self.git.lost.contains(&landing.to) {
            return LandTried::Lost;
        }
        self.push(&landing.branch, landing.to, Pusher::Us(landing.change));
        LandTried::Landed
    }

    /// Takes every candidate that no branch contains, and was not synced therefore.
    pub fn lose_candidates(&mut self) {
        let landed = |commit: &CommitId| self.branches.values().any(|branch| branch.commits.contains(commit));
        let lost: Vec<CommitId> =
            self.git.made_from.keys().filter(|commit| !landed(commit)).copied().collect();
        self.git.lost.extend(lost);
    }

    /// Whether a branch contains a commit.
    pub fn contains(&self, branch: &BranchName, commit: CommitId) -> bool {
        self.branch(branch).commits.contains(&commit)
    }

    /// Moves a branch, whatever was there.
    pub fn push(&mut self, name: &BranchName, to: CommitId, by: Pusher) {
        if let Pusher::Us(number) = by
            && let Some(change) = self.changes.get_mut(&number)
        {
            change.landed_on = Some(name.clone());
        }
        let from = self.branch(name).tip;
        let known = &self.branch(name).commits;
        // The usual push goes on from the tip: its history is known but for what is new.
        let commits = match self.git.contains(to, from) {
            true => {
                let mut commits = known.clone();
                let mut open = vec![to];
                while let Some(commit) = open.pop() {
                    if commits.insert(commit) {
                        open.extend(self.git.get(commit).parents.iter().copied());
                    }
                }
                commits
            }
            false => self.git.history(to),
        };
        let branch = self.branches.get_mut(name).expect("invariant: branches are made with the world");
        branch.commits = commits;
        branch.tip = to;
        branch.pushes.push(Push { by, from, to });
    }

    /// Shows a change as landed, unless somebody closed it meanwhile.
    pub fn mark_landed(&mut self, number: ChangeNumber, commit: CommitId) {
        if let Some(change) = self.changes.get_mut(&number) {
            change.state = ChangeState::Landed(commit);
        }
    }

    /// Shows the verdict of a branch's gate.
    pub fn set_check(&mut self, number: ChangeNumber, judged: (&BranchName, CommitId), check: &Check) {
        if let Some(change) = self.changes.get_mut(&number) {
            let (branch, revision) = judged;
            change.checks.insert(branch.clone(), (revision, check.clone()));
        }
    }
}
