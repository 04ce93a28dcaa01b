//! What must hold after every step. Written without the core's own code: from the truth of the world, which the core
//! never sees whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_core::act::Act;
use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey, JobOrder, Landing};
use towpath_core::environment::Deploying;
use towpath_core::gate::{ForgeChange, ForgeRead, RunRecord, Verb};
use towpath_core::graph::{JobIndex, JobResult, JobSpec, Outcome};
use towpath_core::ids::{
    ChangeNumber, CommitId, Digest, EnvironmentId, Epoch, GateId, JobName, LeaseId, RunId, Timestamp, UserId,
};
use towpath_core::message::{Message, RunReport, RunStart};
use towpath_core::outbox::Stage;
use towpath_core::run::{JobState, RunEvent};
use towpath_core::turn::{Intake, Turn};

use crate::fake::forge::Pusher;
use crate::fake::store::AnyIntake;
use crate::report::Violation;
use crate::world::people::ADMIN;
use crate::world::{AnyLive, World};

mod bar;
mod bounds;
mod commands;
mod newest;
mod rest;

/// Readings remembered for one gate, to be compared with what a landing was decided on.
const READS_KEPT: usize = 64;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Checks {
    /// What was broken.
    pub violations: Vec<Violation>,
    reads: BTreeMap<GateId, BTreeMap<Timestamp, Arc<ForgeRead>>>,
    epochs: BTreeMap<CellId, Epoch>,
    /// Where people's commands left things.
    holds: BTreeSet<(GateId, ChangeNumber)>,
    frozen: BTreeSet<GateId>,
    /// With a push of somebody else that nobody has accepted.
    foreign: BTreeSet<GateId>,
    /// Where an admin has accepted a push of somebody else.
    accepted: BTreeSet<GateId>,
    /// Runs that people have stopped.
    stopped: BTreeSet<RunId>,
    vouches: BTreeMap<(GateId, ChangeNumber), Vouched>,
    sent: BTreeMap<u64, Sent>,
    answered: BTreeSet<u64>,
    /// The first result that a run was told of each lease.
    first_results: BTreeMap<LeaseId, Option<Digest>>,
    /// Runs that there were in the data of the newest restore.
    pub saved: BTreeSet<RunId>,
    /// Landings that were claimed while everything for them was there.
    claimed: BTreeSet<CommitId>,
    landed_leaves: BTreeSet<CommitId>,
    started: BTreeSet<RunId>,
    started_for: BTreeSet<ChangeNumber>,
    ended: BTreeSet<RunId>,
    /// Deployments that have begun and not ended, by environment.
    deploying: BTreeMap<EnvironmentId, u64>,
    alerted: BTreeSet<EffectKey>,
    commits: u64,
    told: newest::Told,
}

/// A command as it was sent.
#[derive(Debug, Clone)]
struct Sent {
    gate: GateId,
    by: UserId,
    verb: Verb,
}

/// A vouching as it was accepted.
#[derive(Debug, Clone)]
struct Vouched {
    by: UserId,
    revision: CommitId,
    expires: Timestamp,
}

impl Checks {
    /// Remembers what was true when a reading began.
    pub fn note_read(&mut self, gate: &GateId, truth: ForgeRead) {
        let reads = self.reads.entry(gate.clone()).or_default();
        reads.insert(truth.began, Arc::new(truth));
        if reads.len() > READS_KEPT {
            reads.pop_first();
        }
    }

    /// What was read some time ago.
    pub fn older_read(&self, gate: &GateId) -> Option<Arc<ForgeRead>> {
        self.reads.get(gate)?.values().rev().nth(1).cloned()
    }

    /// The reading that a gate goes by.
    pub fn read_began(&self, live: &AnyLive) -> Option<Timestamp> {
        match live {
            AnyLive::Gate(live) => live.state.branch().read_began,
            _ => None,
        }
    }

    /// Remembers that people were told something.
    pub fn note_alert(&mut self, key: EffectKey) {
        self.alerted.insert(key);
    }

    fn truth(&self, gate: &GateId, began: Option<Timestamp>) -> Option<Arc<ForgeRead>> {
        self.reads.get(gate)?.get(&began?).cloned()
    }

    /// Whether landing is stopped by a command or by the server itself.
    pub fn is_frozen(&self, gate: &GateId) -> bool {
        self.frozen.contains(gate)
    }

    /// How many runs of a gate have begun.
    pub fn runs_of(&self, gate: &GateId) -> u64 {
        self.started.iter().filter(|run| run.gate == *gate).map(|run| run.number).max().unwrap_or(0)
    }
}

impl World {
    /// Everything that must hold once a write set is durable.
    pub fn check_commit(
        &mut self,
        epoch: Epoch,
        turn: &Turn,
        inbox: &[(u64, Timestamp, AnyIntake)],
        before: Option<Timestamp>,
    ) {
        self.check_epoch(epoch, &turn.write.cell);
        self.note_results(inbox);
        self.check_answers(epoch, turn, before);
        self.checks.note_runs(turn);
        for act in &turn.write.acts {
            self.check_act(act);
        }
        for (_, message) in &turn.write.messages {
            match message {
                Message::RunEnded(report) => self.check_report(report),
                Message::Start(start) => self.check_start(epoch, start, turn.write.now),
                _ => {}
            }
        }
        for (key, row) in &turn.write.outbox {
            let claimed = row.as_ref().filter(|row| matches!(row.stage, Stage::Claimed { .. }));
            if let Some(Effect::RunJob(order)) = claimed.and_then(|row| row.effect.as_ref()) {
                self.check_turn(order);
                self.check_restored(order);
                self.check_aborts(epoch, order);
            }
            if let Some(Effect::Land(landing)) = claimed.and_then(|row| row.effect.as_ref()) {
                self.trace.line(format!("{} claimed: {key}", self.now));
                if self.store.cells[&turn.write.cell].inbox.iter().next().is_some() {
                    let what = format!("{key} was claimed while something waited to be heard");
                    self.violate("I18", what);
                }
                if let Some(why) = self.store.halts.values().next() {
                    let what = format!("{key} was claimed although nothing may land: {why}");
                    self.violate("S9", what);
                }
                self.check_claim(epoch, landing, turn.write.now);
            }
        }
        self.check_trust(epoch, turn);
        self.check_bounds(epoch, &turn.write.cell);
        self.checks.commits += 1;
        self.check_reload(epoch, &turn.write.cell);
    }

    /// T1 and T2: a run begins with no more trust than its change has in truth.
    fn check_start(&mut self, epoch: Epoch, start: &RunStart, now: Timestamp) {
        let Some((number, revision)) = start.change else { return };
        let gate = &start.run.gate;
        let live = self.server(epoch).and_then(|server| server.cells.get(&CellId::Gate(gate.clone())));
        let truth = self.checks.truth(gate, live.and_then(|live| self.checks.read_began(live)));
        let level = truth.and_then(|truth| {
            let is_it = |change: &&ForgeChange| change.number == number && change.revision.commit == revision;
            let change = truth.snapshot.changes.iter().find(is_it)?;
            let edited =
                self.edited_definition(self.forge.git.made_from.get(&start.commit)?.parent, start.commit);
            Some(self.true_level(gate, change, (&truth.snapshot, edited), now))
        });
        // What makes it out of date may be told in the turn that begins it: that turn stops it, too.
        let is_stopped = |live: &AnyLive| match live {
            AnyLive::Gate(live) => {
                live.state.runs().get(&start.run.number).is_some_and(|run| run.cancel.is_some())
            }
            _ => false,
        };
        if level.is_none_or(|level| level < start.level) && !live.is_some_and(is_stopped) {
            let what = format!("run {} begins as {:?}, and in truth it is {level:?}", start.run, start.level);
            self.violate("T1", what);
        }
    }

    /// T1: nothing runs on that lacks the trust it was started with, also where time alone took it.
    fn check_trust(&mut self, epoch: Epoch, turn: &Turn) {
        let live = self.server(epoch).and_then(|server| server.cells.get(&turn.write.cell));
        let Some(AnyLive::Gate(live)) = live else { return };
        let state = &live.state;
        let lacks_trust = |run: &RunRecord| {
            let change = run.change.and_then(|(number, _)| state.changes().get(&number));
            change.is_some_and(|change| state.level_in(run, change, turn.write.now) < run.level)
        };
        let runs = state.runs().iter().filter(|(_, run)| run.is_running() && run.cancel.is_none());
        if let Some(number) = runs.filter(|(_, run)| lacks_trust(run)).map(|(number, _)| *number).next() {
            let what = format!("run {number} of {} runs on although nobody trusts it now", state.id);
            self.violate("T1", what);
        }
    }

    /// I13: who deploys is the one whose turn it is.
    fn check_turn(&mut self, order: &JobOrder) {
        let Some(name) = order.spec.body.environment.clone() else { return };
        let environment = EnvironmentId { repo: order.run.gate.repo.clone(), name };
        let stored = self.store.cells.get(&CellId::Environment(environment.clone()));
        let row = stored.and_then(|cell| cell.rows.get("deploying"));
        let deploying = row.and_then(|row| serde_json::from_str::<Option<Deploying>>(row).ok().flatten());
        let has_turn = |one: &Deploying| (&one.claim.run, one.claim.job) == (&order.run, order.lease.job);
        if !deploying.as_ref().is_some_and(has_turn) {
            let what = format!("run {} deploys to {environment} while {deploying:?} has the turn", order.run);
            self.violate("I13", what);
        }
    }

    /// T9: nothing is deployed that was owed when the data were saved, whether a person has accepted a restore or not.
    fn check_restored(&mut self, order: &JobOrder) {
        let body = &order.spec.body;
        if body.environment.is_none() || order.restored {
            return;
        }
        if self.checks.saved.contains(&order.run) && !body.restartable {
            self.violate(
                "T9",
                format!("run {} deploys what may have been deployed before a restore", order.run),
            );
        }
    }

    /// DESIGN 7: no job begins once another one that did not pass has aborted it.
    fn check_aborts(&mut self, epoch: Epoch, order: &JobOrder) {
        if let Some(by) = self.aborted_by(epoch, order).cloned() {
            let what = format!("`{}` of run {} begins, and `{by}` aborts it", order.spec.name, order.run);
            self.violate("DESIGN 7", what);
        }
    }

    fn aborted_by(&self, epoch: Epoch, order: &JobOrder) -> Option<&JobName> {
        let AnyLive::Run(live) = self.server(epoch)?.cells.get(&CellId::Run(order.run.clone()))? else {
            return None;
        };
        let has_failed = |job| match live.state.job(job) {
            Some(JobState::Done { result, .. }) => {
                matches!(result.outcome, Outcome::Failed | Outcome::Errored | Outcome::TimedOut)
            }
            _ => false,
        };
        let aborts =
            |(job, spec): &(JobIndex, &JobSpec)| spec.aborts.contains(&order.lease.job) && has_failed(*job);
        live.state.start()?.graph.iter().find(aborts).map(|(_, spec)| &spec.name)
    }

    /// I13: one writer a cell.
    fn check_epoch(&mut self, epoch: Epoch, cell: &CellId) {
        let highest = self.checks.epochs.entry(cell.clone()).or_insert(epoch);
        if epoch < *highest {
            let what = format!("{cell} was written by server {epoch} after server {highest}");
            return self.violate("I13", what);
        }
        *highest = epoch;
    }

    /// The first word about a lease is the one that counts.
    fn note_results(&mut self, inbox: &[(u64, Timestamp, AnyIntake)]) {
        for (_, _, intake) in inbox {
            let ended = match intake {
                AnyIntake::Run(Intake::Event(event)) => Some(event),
                AnyIntake::Run(Intake::Done { result: Some(event), .. }) => Some(event),
                _ => None,
            };
            if let Some(RunEvent::JobEnded { lease, result }) = ended {
                self.checks.first_results.entry(lease.id).or_insert(result.log);
            }
        }
    }

    /// I7 and I11: a result that counts was the first of its lease, for this commit, and truly passed.
    fn check_report(&mut self, report: &RunReport) {
        for job in report.jobs.iter().filter(|job| job.result.outcome == Outcome::Passed) {
            let run = job.carried.as_ref().unwrap_or(&report.run);
            if let Err(why) = self.explains(run, &job.result) {
                let what = format!("`{}` of run {} counts as passed: {why}", job.name, report.run);
                self.violate("I7", what);
            }
        }
    }

    fn explains(&self, run: &RunId, result: &JobResult) -> Result<(), String> {
        let mark = result.log.ok_or("nobody ran it")?;
        let job = self.executor.by_mark(&mark).ok_or("nobody ran it")?;
        if job.run != *run {
            return Err(format!("it was run for {}", job.run));
        }
        if job.truth != Outcome::Passed {
            return Err(format!("in truth it {:?} (I11)", job.truth));
        }
        match self.checks.first_results.get(&job.lease.id) {
            Some(first) if *first == Some(mark) => Ok(()),
            _ => Err("its lease had been given up".into()),
        }
    }

    fn check_act(&mut self, act: &Act) {
        match act {
            Act::Landed(landed) => {
                let pushes = &self.forge.branch(&landed.gate.branch).pushes;
                let ours = |change| {
                    pushes.iter().any(|push| push.to == landed.commit && push.by == Pusher::Us(change))
                };
                if !ours(landed.change) {
                    let what = format!("the record says that {} landed, the forge does not", landed.commit);
                    self.violate("I8", what);
                }
                if !self.checks.landed_leaves.insert(landed.commit) {
                    self.violate("I8", format!("the landing of {} has two leaves", landed.commit));
                }
            }
            Act::ForeignPush { gate, to, .. } => {
                self.checks.foreign.insert(gate.clone());
                let ours = |push: &crate::fake::forge::Push| push.to == *to && push.by != Pusher::Person;
                let person = |push: &crate::fake::forge::Push| push.to == *to && push.by == Pusher::Person;
                let pushes = &self.forge.branch(&gate.branch).pushes;
                if pushes.iter().any(ours) && !pushes.iter().any(person) {
                    self.violate("I8", format!("our own landing {to} is recorded as somebody else's push"));
                }
            }
            Act::Froze { gate, .. } => drop(self.checks.frozen.insert(gate.clone())),
            Act::RunStarted { run, change, .. } => {
                self.checks.started_for.extend(change.map(|(number, _)| number));
                self.has_begun(&run.gate);
                if !self.checks.started.insert(run.clone()) {
                    self.violate("I8", format!("the start of run {run} has two leaves"));
                }
            }
            Act::DeploymentStarted { environment, number, .. } => {
                if let Some(other) = self.checks.deploying.insert(environment.clone(), *number) {
                    let what = format!("deployment {number} to {environment} began before {other} was over");
                    self.violate("I13", what);
                }
            }
            Act::DeploymentEnded { environment, number, .. }
                if self.checks.deploying.remove(environment) != Some(*number) =>
            {
                self.violate("I8", format!("deployment {number} to {environment} ended without a beginning"));
            }
            Act::RunEnded { run, .. } if !self.checks.ended.insert(run.clone()) => {
                self.violate("I8", format!("the end of run {run} has two leaves"));
            }
            _ => {}
        }
    }

    /// I10 where somebody who is no admin made a branch that is watched now.
    fn has_begun(&mut self, gate: &GateId) {
        let made_by = self.forge.branch(&gate.branch).made_by;
        if made_by != ADMIN && !self.checks.accepted.contains(gate) {
            self.violate("I10", format!("a run began on {gate}, which {made_by} made and no admin accepted"));
        }
    }

    /// I1, I2 and I3 at the very moment at which a branch moves.
    pub fn check_landing(&mut self, landing: &Landing) {
        let branch = self.forge.branch(&landing.branch);
        let Some(push) = branch.pushes.last().copied() else { return };
        let same = |other: &&crate::fake::forge::Push| other.by == Pusher::Us(landing.change);
        let times: usize =
            self.forge.branches.values().map(|branch| branch.pushes.iter().filter(same).count()).sum();
        self.trace.line(format!("{} {} moves to {}", self.now, landing.branch, landing.to.short()));
        if times > 1 {
            self.violate("I1", format!("change {} landed {times} times", landing.change));
        }
        if push.from != landing.from || !self.forge.git.contains(push.to, push.from) {
            let what = format!("{} was pushed over {}, tested was {}", push.to, push.from, landing.from);
            self.violate("I3", what);
        }
        if !self.checks.claimed.contains(&landing.to) {
            self.violate("I2", format!("{} landed without having been claimed", landing.to));
        }
    }
}
