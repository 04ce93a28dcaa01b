//! The record: each act of the true world has exactly one leaf, and each leaf says what is true (I8, T9).

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::act::{Act, LandedAct};
use towpath_core::candidate::CandidateResult;
use towpath_core::gate::GateEvent;
use towpath_core::graph::{JobResult, Outcome, SkipReason, Trigger};
use towpath_core::ids::{ChangeNumber, CommitId, EnvironmentId, Epoch, GateId, RunId, Timestamp, UserId};
use towpath_core::message::{JobReport, Message};
use towpath_core::turn::{Intake, Turn};

use super::Sent;
use crate::fake::forge::{Push, Pusher};
use crate::fake::store::AnyIntake;
use crate::world::World;
use crate::world::people::ADMIN;

/// What the leaves so far say.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Where the landings and pushes on record leave each branch.
    tips: BTreeMap<GateId, CommitId>,
    landed: BTreeSet<CommitId>,
    started: BTreeSet<RunId>,
    started_for: BTreeSet<ChangeNumber>,
    ended: BTreeSet<RunId>,
    /// Runs of whose end their gate has heard: one that is over says so again whenever something comes late to it.
    heard: BTreeSet<RunId>,
    /// Deployments that have begun and not ended, by environment.
    deploying: BTreeMap<EnvironmentId, u64>,
}

/// A change as a leaf names it: at one revision.
type Entry = (ChangeNumber, CommitId);

impl super::Checks {
    /// How many runs of a gate have begun.
    pub fn runs_of(&self, gate: &GateId) -> u64 {
        let of_gate = self.recorded.started.iter().filter(|run| run.gate == *gate);
        of_gate.map(|run| run.number).max().unwrap_or(0)
    }

    /// Whether a run for a change is on record.
    pub fn was_started_for(&self, number: ChangeNumber) -> bool {
        self.recorded.started_for.contains(&number)
    }

    /// Whether a change's landing is on record.
    pub fn landed_of(&self, leaves: &[Act], number: ChangeNumber) -> bool {
        leaves.iter().any(|act| matches!(act, Act::Landed(landed) if landed.change == number))
    }
}

impl World {
    /// The leaves of one turn, in their order; `accepted`: the commands that it accepted.
    pub(super) fn check_record(
        &mut self,
        (epoch, turn): (Epoch, &Turn),
        inbox: &[(u64, Timestamp, AnyIntake)],
        accepted: Vec<Sent>,
    ) {
        let mut accepted = accepted.into_iter();
        for act in &turn.write.acts {
            match act {
                Act::Command { .. } => accepted.next().iter().for_each(|sent| self.remember(sent)),
                Act::Landed(landed) => self.check_landed(landed),
                Act::ForeignPush { gate, from, to } => self.check_foreign_push(gate, *from, *to),
                Act::Froze { gate, .. } => self.note_froze(gate),
                Act::RunStarted { .. } => self.check_run_started(act),
                Act::RunEnded { .. } => self.check_run_ended(act, turn),
                Act::DeploymentStarted { environment, number, .. } => {
                    self.check_deployment_started(environment, *number);
                }
                Act::DeploymentEnded { environment, number, .. } => {
                    self.check_deployment_ended(environment, *number);
                }
                Act::Ejected { .. } | Act::Administered { .. } => {}
            }
        }
        self.check_ejections(epoch, turn, inbox);
    }

    fn check_landed(&mut self, landed: &LandedAct) {
        let pushes = &self.forge.branch(&landed.gate.branch).pushes;
        let is_it = |push: &Push| push.to == landed.commit && push.by == Pusher::Us(landed.change);
        if !pushes.iter().any(is_it) {
            let what = format!("the record says that {} landed, the forge does not", landed.commit);
            self.violate("I8", what);
        }
        if !self.checks.recorded.landed.insert(landed.commit) {
            self.violate("I8", format!("the landing of {} has two leaves", landed.commit));
        }
        let said = LandedAct { approvals: sorted(&landed.approvals), ..landed.clone() };
        let truth = self.checks.claimed.get(&landed.commit);
        let truth = truth.map(|truth| LandedAct {
            approvals: sorted(&truth.approvals),
            at: said.at,
            ..truth.clone()
        });
        if truth.as_ref() != Some(&said) {
            self.violate("T9", format!("the leaf of a landing says {said:?}, and in truth it is {truth:?}"));
        }
        self.goes_on(&landed.gate, Some(landed.parent), landed.commit);
    }

    fn check_foreign_push(&mut self, gate: &GateId, from: Option<CommitId>, to: CommitId) {
        self.checks.foreign.insert(gate.clone());
        let pushes = &self.forge.branch(&gate.branch).pushes;
        let ours = |push: &Push| push.to == to && push.by != Pusher::Person;
        let person = |push: &Push| push.to == to && push.by == Pusher::Person;
        if pushes.iter().any(ours) && !pushes.iter().any(person) {
            self.violate("I8", format!("our own landing {to} is recorded as somebody else's push"));
        }
        self.goes_on(gate, from, to);
    }

    /// Each leaf about a branch's tip begins where the one before has left it. A branch that nobody has accepted yet begins
    /// with each push anew.
    fn goes_on(&mut self, gate: &GateId, from: Option<CommitId>, to: CommitId) {
        let before = self.checks.recorded.tips.insert(gate.clone(), to);
        let branch = self.forge.branch(&gate.branch);
        let begins = branch.made_by != ADMIN && !self.checks.accepted.contains(gate);
        let is_next = match from {
            None => begins,
            Some(from) if before.is_none() => {
                !begins && (branch.pushes.iter().any(|push| [push.from, push.to].contains(&from)))
            }
            from => from == before,
        };
        if !is_next {
            let what = format!("the record has {gate} move from {from:?} to {to}, and it was at {before:?}");
            self.violate("I8", what);
        }
    }

    fn check_run_started(&mut self, act: &Act) {
        let Act::RunStarted { run, trigger, change, commit, reason } = act else { return };
        self.checks.recorded.started_for.extend(change.map(|(number, _)| number));
        self.has_begun(&run.gate);
        if !self.checks.recorded.started.insert(run.clone()) {
            self.violate("I8", format!("the start of run {run} has two leaves"));
        }
        let start = self.checks.told.starts.get(run);
        let truth = start.map(|start| (start.trigger, start.change, start.commit, &start.reason));
        if truth != Some((*trigger, *change, *commit, reason)) {
            self.violate("I8", format!("the record says {act:?}, and in truth it is {truth:?}"));
        }
    }

    fn check_run_ended(&mut self, act: &Act, turn: &Turn) {
        let Act::RunEnded { run, outcome, .. } = act else { return };
        if !self.checks.recorded.ended.insert(run.clone()) {
            self.violate("I8", format!("the end of run {run} has two leaves"));
        }
        let is_told = |message: &Message| match message {
            Message::RunEnded(report) => (&report.run, report.outcome) == (run, *outcome),
            _ => false,
        };
        if !turn.write.messages.iter().any(|(_, message)| is_told(message)) {
            self.violate("I8", format!("the gate is told something else than {act:?}"));
        }
    }

    /// I10 where somebody who is no admin made a branch that is watched now.
    fn has_begun(&mut self, gate: &GateId) {
        let made_by = self.forge.branch(&gate.branch).made_by;
        if made_by != ADMIN && !self.checks.accepted.contains(gate) {
            self.violate("I10", format!("a run began on {gate}, which {made_by} made and no admin accepted"));
        }
    }

    fn check_deployment_started(&mut self, environment: &EnvironmentId, number: u64) {
        if let Some(other) = self.checks.recorded.deploying.insert(environment.clone(), number) {
            let what = format!("deployment {number} to {environment} began before {other} was over");
            self.violate("I13", what);
        }
    }

    fn check_deployment_ended(&mut self, environment: &EnvironmentId, number: u64) {
        if self.checks.recorded.deploying.remove(environment) != Some(number) {
            self.violate("I8", format!("deployment {number} to {environment} ended without a beginning"));
        }
    }

    /// A change leaves the queue whenever its queue run is lost that nobody has stopped, and else only by a conflict.
    fn check_ejections(&mut self, epoch: Epoch, turn: &Turn, inbox: &[(u64, Timestamp, AnyIntake)]) {
        let mut ejected: Vec<Entry> = turn.write.acts.iter().filter_map(ejected).collect();
        for (_, _, intake) in inbox {
            let Some((entry, is_due)) = self.leaves_queue(epoch, intake) else { continue };
            match ejected.iter().position(|leaf| *leaf == entry) {
                Some(at) => drop(ejected.remove(at)),
                None if is_due => {
                    let what =
                        format!("change {} left the queue at {}, and no leaf says so", entry.0, entry.1);
                    self.violate("I8", what);
                }
                None => {}
            }
        }
        if let Some((change, revision)) = ejected.first() {
            self.violate("I8", format!("the record has change {change} ejected at {revision} for nothing"));
        }
    }

    /// Who leaves the queue by what is heard, or may, and whether that is certain.
    fn leaves_queue(&mut self, epoch: Epoch, intake: &AnyIntake) -> Option<(Entry, bool)> {
        match intake {
            AnyIntake::Gate(Intake::Event(GateEvent::RunEnded(report))) => {
                let is_news = self.checks.recorded.heard.insert(report.run.clone());
                let start = self.checks.told.starts.get(&report.run).filter(|_| is_news)?;
                let is_lost = |job: &JobReport| start.graph.job(job.job).required && !counts(&job.result);
                let is_lost = start.trigger == Trigger::Queue && report.jobs.iter().any(is_lost);
                let record = self.gate_of(epoch, &report.run.gate)?.runs().get(&report.run.number);
                let is_unstopped = record.is_some_and(|run| run.cancel.is_none());
                Some((start.change.filter(|_| is_lost)?, is_unstopped))
            }
            AnyIntake::Gate(Intake::Done {
                result: Some(GateEvent::CandidateMade { id, result }), ..
            }) => {
                let is_unfit = matches!(
                    **result,
                    CandidateResult::Conflict { .. }
                        | CandidateResult::Impossible { .. }
                        | CandidateResult::TooSlow { .. }
                );
                let entry = self.checks.told.asked.get(id).filter(|_| is_unfit)?;
                Some((*entry, false))
            }
            _ => None,
        }
    }

    /// Each move of a branch of the true world is on record once everything is at rest.
    pub(super) fn check_moves(&mut self) {
        let recorded = &self.checks.recorded;
        let pushes = self.forge.branches.values().flat_map(|branch| &branch.pushes);
        let ours: BTreeSet<CommitId> =
            pushes.filter(|push| push.by != Pusher::Person).map(|push| push.to).collect();
        if let Some(missing) = ours.difference(&recorded.landed).next() {
            let what = format!("the landing of {missing} is not on record");
            return self.violate("I8", what);
        }
        if let Some(missing) = ours.difference(&self.forge.noted).next() {
            let what = format!("no clone can bear witness to the landing of {missing}: it has no note");
            return self.violate("I8", what);
        }
        let tip = |gate: &GateId| self.forge.branch(&gate.branch).tip;
        if let Some((gate, at)) = recorded.tips.iter().find(|(gate, at)| tip(gate) != **at) {
            let what =
                format!("the record has {gate} at {at}, and no leaf says how it came to {}", tip(gate));
            self.violate("I8", what);
        }
    }

    /// Each run and deployment on record is over once everything is at rest.
    pub(super) fn check_ends(&mut self) {
        let recorded = &self.checks.recorded;
        if let Some(run) = recorded.started.symmetric_difference(&recorded.ended).next() {
            let what = format!("run {run} has only one of start and end on record");
            return self.violate("I8", what);
        }
        if let Some((environment, number)) = recorded.deploying.first_key_value() {
            let what = format!("deployment {number} to {environment} has no end on record");
            self.violate("I8", what);
        }
    }
}

fn ejected(act: &Act) -> Option<Entry> {
    match act {
        Act::Ejected { change, revision, .. } => Some((*change, *revision)),
        _ => None,
    }
}

/// Whether a result lets its change land as far as this job goes.
fn counts(result: &JobResult) -> bool {
    result.outcome == Outcome::Passed || result.skip == Some(SkipReason::When)
}

fn sorted(people: &[UserId]) -> Vec<UserId> {
    let mut people = people.to_vec();
    people.sort_unstable();
    people
}
