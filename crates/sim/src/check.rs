//! What must hold after every step. Written without the core's own code: from the truth of the world, which the core
//! never sees whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_core::act::LandedAct;
use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey, JobOrder, Landing};
use towpath_core::gate::{ForgeRead, Verb};
use towpath_core::graph::{JobIndex, JobResult, JobSpec, Outcome};
use towpath_core::ids::{
    ChangeNumber, CommitId, Digest, Epoch, GateId, JobName, LeaseId, RunId, Timestamp, UserId,
};
use towpath_core::message::{Message, RunReport};
use towpath_core::outbox::Stage;
use towpath_core::run::{JobState, RunEvent};
use towpath_core::turn::{Intake, Turn};

use crate::fake::forge::Pusher;
use crate::fake::store::AnyIntake;
use crate::report::Violation;
use crate::world::{AnyLive, World};

mod bar;
mod bounds;
mod commands;
mod deployments;
mod freezes;
mod holds;
mod newest;
mod record;
mod rest;
mod trust;

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
    holders: BTreeMap<ChangeNumber, UserId>,
    frozen: BTreeSet<GateId>,
    /// With a push of somebody else that nobody has accepted.
    foreign: BTreeSet<GateId>,
    /// Where an admin has accepted a push of somebody else.
    accepted: BTreeSet<GateId>,
    /// Runs that people have stopped.
    stopped: BTreeSet<RunId>,
    vouches: BTreeMap<(GateId, ChangeNumber), trust::Vouched>,
    sent: BTreeMap<u64, Sent>,
    answered: BTreeSet<u64>,
    /// The first result that a run was told of each lease.
    first_results: BTreeMap<LeaseId, Option<Digest>>,
    /// Landings that were claimed while everything for them was there, each with what its leaf has to say.
    claimed: BTreeMap<CommitId, LandedAct>,
    alerted: BTreeSet<EffectKey>,
    commits: u64,
    told: newest::Told,
    recorded: record::Recorded,
    freezes: freezes::Freezes,
    restored: deployments::Restored,
}

/// A command as it was sent.
#[derive(Debug, Clone)]
struct Sent {
    gate: GateId,
    by: UserId,
    verb: Verb,
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
        let accepted = self.check_answers(epoch, turn, before);
        self.check_record((epoch, turn), inbox, accepted);
        self.check_freeze(epoch, turn, inbox);
        self.checks.note_runs(turn, inbox);
        self.note_candidates(epoch, turn);
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
                self.check_deployment(order);
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
        if !self.checks.claimed.contains_key(&landing.to) {
            self.violate("I2", format!("{} landed without having been claimed", landing.to));
        }
        self.check_not_held_since(landing);
    }
}
