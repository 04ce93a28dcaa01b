//! People: they propose, push, review, label, change their minds, and command, at random or as told.

use std::collections::BTreeMap;

use towpath_core::cell::CellId;
use towpath_core::gate::{Command, GateEvent, RetryScope, Verb, Verdict};
use towpath_core::ids::{ChangeNumber, CommitId, GateId, Timestamp, UserId};
use towpath_core::policy::{Actor, Rights, Role};
use towpath_core::turn::Intake;

use super::{Ev, World};
use crate::fake::forge::{ChangeState, ForgedChange, Pusher, Shown};
use crate::fake::git::{DEFINITION, Files, PATHS};
use crate::fake::store::AnyIntake;
use crate::mutant::Mutant;

/// May do everything.
pub const ADMIN: UserId = UserId(1);
/// Look after the branches.
pub const MAINTAINERS: [UserId; 2] = [UserId(2), UserId(3)];
/// Their changes are tested unasked.
pub const AUTHORS: [UserId; 2] = [UserId(4), UserId(5)];
/// Theirs are not.
pub const OUTSIDERS: [UserId; 2] = [UserId(6), UserId(7)];

/// Milliseconds until a bell comes.
const BELL_MS_MAX: i64 = 2_000;
/// Milliseconds until a late bell comes: three days.
const LATE_BELL_MS_MAX: i64 = 3 * 86_400_000;
/// Milliseconds for which a vouch is good, at most.
const VOUCH_MS_MAX: i64 = 86_400_000;
/// Contents of a file.
const CONTENTS: u64 = 1_000;

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Opens a change.
    Propose,
    /// Opens a change with the commit of another one.
    Twin,
    /// Pushes a revision.
    Revise,
    /// Approves the newest revision.
    Approve,
    /// Approves an older one.
    ApproveOld,
    /// Asks for changes.
    Object,
    /// Takes all reviews of one person back.
    Withdraw,
    /// Sets or removes a label.
    Label,
    /// Makes a draft or ends it.
    Draft,
    /// Closes or opens again.
    Close,
    /// Edits the title.
    Retitle,
    /// Moves a change to another branch.
    Retarget,
    /// Takes rights from somebody or gives them back.
    Rights,
    /// Pushes to the branch itself.
    Foreign,
    /// Pushes over the branch.
    ForeignForce,
    /// Freezes or unfreezes.
    Freeze,
    /// Holds.
    Hold,
    /// Releases.
    Release,
    /// Vouches.
    Vouch,
    /// Runs again.
    Retry,
    /// Stops a run.
    Cancel,
    /// Accepts a foreign push.
    Accept,
    /// Deploys again, or runs a job by hand.
    Deploy,
}

/// Acts and how often they happen.
const ACTS: [(Act, u64); 23] = [
    (Act::Propose, 120),
    (Act::Twin, 12),
    (Act::Revise, 70),
    (Act::Approve, 260),
    (Act::ApproveOld, 15),
    (Act::Object, 20),
    (Act::Withdraw, 25),
    (Act::Label, 45),
    (Act::Draft, 30),
    (Act::Close, 30),
    (Act::Retitle, 15),
    (Act::Retarget, 25),
    (Act::Rights, 20),
    (Act::Foreign, 6),
    (Act::ForeignForce, 2),
    (Act::Freeze, 16),
    (Act::Hold, 25),
    (Act::Release, 25),
    (Act::Vouch, 45),
    (Act::Retry, 80),
    (Act::Cancel, 15),
    (Act::Accept, 25),
    (Act::Deploy, 10),
];

impl World {
    pub(super) fn populate(&mut self) {
        let person = |role, authorised| Rights { role, authorised };
        self.forge.people = BTreeMap::from([
            (ADMIN, person(Role::Admin, true)),
            (MAINTAINERS[0], person(Role::Maintainer, true)),
            (MAINTAINERS[1], person(Role::Maintainer, true)),
            (AUTHORS[0], person(Role::Author, true)),
            (AUTHORS[1], person(Role::Author, true)),
            (OUTSIDERS[0], person(Role::Author, false)),
            (OUTSIDERS[1], person(Role::Reader, false)),
        ]);
        for gate in self.gates.clone() {
            let made_by = if self.rng.chance(150) { AUTHORS[0] } else { ADMIN };
            self.forge.add_branch(&gate.branch, [0; PATHS], made_by);
        }
    }

    /// Somebody does something.
    pub fn someone_acts(&mut self) {
        let sum: u64 = ACTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(sum);
        for (act, weight) in ACTS {
            if drawn < weight {
                return self.perform(act);
            }
            drawn -= weight;
        }
    }

    /// Somebody does this, if there is anything to do it to.
    pub fn perform(&mut self, act: Act) {
        let gate = self.rng.pick(&self.gates.clone()).expect("invariant: there are gates");
        match act {
            Act::Propose => self.propose(&gate),
            Act::Twin => self.propose_twin(&gate),
            Act::Foreign => self.push_to_branch(&gate),
            Act::ForeignForce => self.push_over_branch(&gate),
            Act::Rights => self.change_rights(),
            Act::Freeze | Act::Cancel | Act::Accept | Act::Deploy => self.command_branch(act, &gate),
            Act::Hold | Act::Release | Act::Vouch | Act::Retry => {
                if let Some(change) = self.some_change(&gate, ChangeState::Open) {
                    self.command_change(act, &gate, &change);
                }
            }
            _ => self.edit_change(act, &gate),
        }
    }

    fn some_change(&mut self, gate: &GateId, state: ChangeState) -> Option<ForgedChange> {
        let of = |change: &&ForgedChange| change.state == state && change.target == gate.branch;
        let all: Vec<ChangeNumber> =
            self.forge.changes.values().filter(of).map(|change| change.facts.number).collect();
        self.rng.pick(&all).map(|number| self.forge.changes[&number].clone())
    }

    /// An open change that somebody holds, or may hold.
    fn some_held(&mut self, gate: &GateId) -> Option<ForgedChange> {
        let open = self.forge.open(&gate.branch).map(|change| change.facts.number);
        let held: Vec<ChangeNumber> = open.filter(|number| !self.checks.is_free(*number)).collect();
        self.rng.pick(&held).map(|number| self.forge.changes[&number].clone())
    }

    /// Content that differs in one or two files; sometimes in the definition.
    pub fn edited(&mut self, files: &Files) -> Files {
        let mut files = *files;
        for _ in 0..1 + self.rng.below(2) {
            let path = 1 + self.rng.below(PATHS as u64 - 1) as usize;
            files[path] = self.rng.below(CONTENTS) as u32;
        }
        if self.rng.chance(60) {
            files[DEFINITION] = self.rng.below(CONTENTS) as u32;
        }
        files
    }

    fn some_author(&mut self) -> UserId {
        let all = [AUTHORS[0], AUTHORS[0], AUTHORS[1], AUTHORS[1], MAINTAINERS[0], OUTSIDERS[0]];
        self.rng.pick(&all).expect("invariant: there are some")
    }

    fn some_reviewer(&mut self) -> UserId {
        let all = [ADMIN, MAINTAINERS[0], MAINTAINERS[1], MAINTAINERS[0], MAINTAINERS[1], AUTHORS[0]];
        self.rng.pick(&all).expect("invariant: there are some")
    }

    fn propose(&mut self, gate: &GateId) {
        let stacked = self.some_change(gate, ChangeState::Open).filter(|_| self.rng.chance(120));
        let base = match stacked {
            Some(other) => other.facts.revision.commit,
            None => self.forge.branch(&gate.branch).tip,
        };
        let by = self.some_author();
        self.propose_on(gate, base, by);
    }

    /// Opens a change with one commit on a base.
    pub fn propose_on(&mut self, gate: &GateId, base: CommitId, by: UserId) -> ChangeNumber {
        let files = self.edited(&self.forge.git.get(base).files.clone());
        let head = self.forge.git.commit(&[base], files, (&format!("by {by}"), self.now));
        let number = self.forge.propose(&gate.branch, head, by);
        self.trace.line(format!("{} {by} proposes {number} at {}", self.now, head.short()));
        self.ring(gate);
        number
    }

    fn propose_twin(&mut self, gate: &GateId) {
        let Some(other) = self.some_change(gate, ChangeState::Open) else { return };
        let (head, by) = (other.facts.revision.commit, self.some_author());
        let number = self.forge.propose(&gate.branch, head, by);
        self.trace.line(format!("{} {by} proposes {number}, which is {}", self.now, other.facts.number));
        self.ring(gate);
    }

    fn edit_change(&mut self, act: Act, gate: &GateId) {
        let state = match act {
            Act::Close if self.rng.chance(500) => ChangeState::Closed,
            _ => ChangeState::Open,
        };
        let held = if act == Act::Retarget { self.some_held(gate) } else { None };
        let Some(change) = held.or_else(|| self.some_change(gate, state)) else { return };
        let number = change.facts.number;
        self.trace.line(format!("{} {act:?} {number}", self.now));
        match act {
            Act::Revise => self.revise(&change),
            Act::Approve => self.review(&change, Verdict::Approve, change.facts.revision.commit),
            Act::Object => self.review(&change, Verdict::RequestChanges, change.facts.revision.commit),
            Act::ApproveOld => self.review(&change, Verdict::Approve, change.revisions[0].0),
            Act::Retarget => return self.retarget(&change),
            _ => self.edit_facts(act, change),
        }
        self.ring(gate);
    }

    fn revise(&mut self, change: &ForgedChange) {
        let old = change.facts.revision.commit;
        let files = self.edited(&self.forge.git.get(old).files.clone());
        // Either one more commit, or another one in its place on the newest tip.
        let base = if self.rng.chance(500) { old } else { self.forge.branch(&change.target).tip };
        let by = if self.rng.chance(900) { change.facts.owner } else { self.some_author() };
        let head = self.forge.git.commit(&[base], files, (&format!("again by {by}"), self.now));
        self.forge.revise(change.facts.number, head, by);
    }

    fn review(&mut self, change: &ForgedChange, verdict: Verdict, revision: CommitId) {
        let by = self.some_reviewer();
        let shown = if self.rng.chance(200) { Shown::NoDefinition } else { Shown::Definition };
        self.forge.review(change.facts.number, (by, verdict), (revision, shown), Timestamp(self.now));
    }

    fn edit_facts(&mut self, act: Act, mut change: ForgedChange) {
        let labels = self.config.labels.clone();
        let names =
            [labels.urgent, labels.wip, labels.stacked, labels.never, labels.no_test, labels.rerun_all];
        match act {
            Act::Withdraw => {
                let by = self.some_reviewer();
                change.facts.reviews.retain(|review| review.by != by);
            }
            Act::Label => {
                let label = self.rng.pick(&names).expect("invariant: there are some");
                if !change.facts.labels.remove(&label) && self.rng.chance(600) {
                    change.facts.labels.insert(label);
                }
            }
            Act::Draft => change.facts.draft = !change.facts.draft && self.rng.chance(600),
            Act::Close if change.state == ChangeState::Open => change.state = ChangeState::Closed,
            Act::Close => change.state = ChangeState::Open,
            Act::Retitle => change.facts.title.push('!'),
            _ => unreachable!("the caller sends no other"),
        }
        self.forge.changes.insert(change.facts.number, change);
    }

    fn change_rights(&mut self) {
        let user = self.rng.pick(&[MAINTAINERS[0], MAINTAINERS[1], AUTHORS[0], AUTHORS[1]]);
        let user = user.expect("invariant: there are some");
        let full = if MAINTAINERS.contains(&user) { Role::Maintainer } else { Role::Author };
        let rights = match self.rng.below(3) {
            0 => Rights { role: Role::Author, authorised: false },
            _ => Rights { role: full, authorised: true },
        };
        self.trace.line(format!("{} {user} is {rights:?}", self.now));
        self.forge.people.insert(user, rights);
        self.gates.clone().iter().for_each(|gate| self.ring(gate));
    }

    /// A person's commit goes straight onto the branch.
    pub fn push_to_branch(&mut self, gate: &GateId) {
        let tip = self.forge.branch(&gate.branch).tip;
        let files = self.edited(&self.forge.git.get(tip).files.clone());
        let to = self.forge.git.commit(&[tip], files, ("hotfix", self.now));
        self.trace.line(format!("{} foreign push of {} to {gate}", self.now, to.short()));
        self.forge.push(&gate.branch, to, Pusher::Person);
        self.ring(gate);
    }

    fn push_over_branch(&mut self, gate: &GateId) {
        let tip = self.forge.branch(&gate.branch).tip;
        let Some(before) = self.forge.git.get(tip).parents.first().copied() else { return };
        self.trace.line(format!("{} forced push of {} to {gate}", self.now, before.short()));
        self.forge.push(&gate.branch, before, Pusher::Person);
        self.ring(gate);
    }

    fn command_branch(&mut self, act: Act, gate: &GateId) {
        let frozen = self.checks.is_frozen(gate);
        let verb = match act {
            Act::Freeze if frozen => Verb::Unfreeze,
            Act::Freeze => Verb::Freeze { why: "release".into() },
            Act::Cancel => {
                let started = self.checks.runs_of(gate);
                Verb::Cancel { run: started.saturating_sub(self.rng.below(3)), why: "stop".into() }
            }
            Act::Accept => Verb::AcceptTip { tip: self.forge.branch(&gate.branch).tip },
            _ if self.rng.chance(500) => Verb::Deploy,
            _ => Verb::RunManual { job: Some("unit".into()) },
        };
        let by = self.some_commander();
        self.command(gate, by, verb);
    }

    pub(super) fn some_commander(&mut self) -> UserId {
        let all = [ADMIN, ADMIN, MAINTAINERS[0], MAINTAINERS[1], MAINTAINERS[0], AUTHORS[0], OUTSIDERS[0]];
        self.rng.pick(&all).expect("invariant: there are some")
    }

    fn command_change(&mut self, act: Act, gate: &GateId, shown: &ForgedChange) {
        let change = shown.facts.number;
        // Sometimes the page was not looked at for a while.
        let seen = if self.rng.chance(900) { shown.revisions.len() - 1 } else { 0 };
        let revision = shown.revisions[seen].0;
        let verb = match act {
            Act::Hold => Verb::Hold { change, why: "wait".into() },
            Act::Release => Verb::Release { change },
            Act::Vouch => {
                let expires = Timestamp(self.intake_time().0 + self.rng.between(-1_000, VOUCH_MS_MAX));
                // Some say for which definition, and now and then that is the one of an older page.
                let page = if self.rng.chance(700) { seen } else { 0 };
                let definition = self.forge.definition_of(shown.revisions[page].0);
                let definition = self.rng.chance(400).then_some(definition);
                Verb::Vouch { change, revision, definition, why: "read it".into(), expires }
            }
            _ => {
                let jobs = ["unit", "integ", "wheel"].map(|job| RetryScope::Job(job.into()));
                let scopes = [vec![RetryScope::All; 2], vec![RetryScope::NotPassed; 3], jobs.into()];
                let scope = self.rng.pick(&scopes.concat()).expect("invariant: there are some");
                Verb::Retry { change, revision, scope }
            }
        };
        let by = if self.rng.chance(150) { shown.facts.owner } else { self.some_commander() };
        self.command(gate, by, verb);
    }

    /// A command comes to the server, which knows who gives it.
    pub fn command(&mut self, gate: &GateId, by: UserId, verb: Verb) {
        if self.leader().is_none() {
            return;
        }
        self.commands += 1;
        let id = self.commands;
        self.trace.line(format!("{} user {by} commands {verb:?} on {gate}", self.now));
        self.checks.note_command(id, gate, by, &verb);
        let user = if self.mutant == Some(Mutant::EverybodyIsAdmin) { ADMIN } else { by };
        let by = Actor { user, name: format!("user{by}") };
        let verb = self.understood(verb);
        let event = GateEvent::Command(Box::new(Command { id, by, verb }));
        let at = self.intake_time();
        self.deliver(&CellId::Gate(gate.clone()), at, AnyIntake::Gate(Intake::Event(event)));
    }

    /// The forge tells of something; what comes of it is for the network to say.
    pub fn ring(&mut self, gate: &GateId) {
        if !self.bells_ring || self.fault(self.faults.bell_lost, "a bell is lost") {
            return;
        }
        let late = self.fault(self.faults.bell_late, "a bell is late");
        let most = if late { LATE_BELL_MS_MAX } else { BELL_MS_MAX };
        let delay = self.rng.between(1, most);
        self.at(delay, Ev::Bell(gate.clone()));
        if self.fault(self.faults.bell_repeated, "a bell rings again") {
            let delay = self.rng.between(1, 60_000);
            self.at(delay, Ev::Bell(gate.clone()));
        }
    }
}
