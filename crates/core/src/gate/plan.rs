//! What the gate owes the world. Reads only.

use super::reason::Reason;
use super::runs::Phase;
use super::{Change, GateState, TestState, reason};
use crate::cell::CellId;
use crate::effect::{Check, Effect, EffectKey, Plan, Verdict};
use crate::ids::{ChangeNumber, CommitId, RunId, Timestamp};
use crate::message::Message;

/// Milliseconds from the beginning of one read of the forge to the next, however often bells ring: thousands of webhooks
/// a second cost twenty reads. A bell after a quiet moment is heard at once.
const READ_INTERVAL_MS_MIN: i64 = 50;

impl GateState {
    pub(super) fn plan(&self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        self.owe_read(&mut plan, now);
        self.owe_arrivals(&mut plan);
        self.owe_candidates(&mut plan);
        self.owe_runs(&mut plan);
        let queue = self.queue(now);
        self.owe_landing(&mut plan, &queue, now);
        self.owe_notes(&mut plan);
        self.owe_graph(&mut plan);
        self.owe_checks(&mut plan, &queue, now);
        self.owe_alerts(&mut plan);
        self.owe_budget_alerts(&mut plan, now);
        self.wake_for_vouches(&mut plan, now);
        plan
    }

    /// Reads when a bell rang or the poll is due, so that no lost delivery loses a change (I6, I12).
    fn owe_read(&self, plan: &mut Plan, now: Timestamp) {
        let rested = self.branch.read_began.map(|began| Timestamp(began.0 + READ_INTERVAL_MS_MIN));
        let due = if self.branch.flags.forge.is_set() { rested } else { self.poll_at() };
        if due.is_none_or(|due| due <= now) {
            let effect = Effect::ReadForge { gate: self.id.clone(), landed: self.branch.kept() };
            plan.owe(EffectKey::once("read-forge", &self.id, self.branch.reads + 1), effect);
        } else if let Some(due) = due {
            plan.wake(due);
        }
    }

    fn owe_candidates(&self, plan: &mut Plan) {
        for (id, record) in self.candidates.map().iter().filter(|(_, record)| record.result.is_none()) {
            let effect =
                Effect::MakeCandidate { id: *id, repo: self.id.repo.clone(), spec: record.spec.clone() };
            plan.owe(EffectKey::once("make-candidate", id, record.losses + 1), effect);
        }
    }

    fn owe_runs(&self, plan: &mut Plan) {
        for (number, run) in self.runs.map() {
            let Phase::Running { start } = &run.phase else { continue };
            let id = self.run_id(*number);
            if let Some(cancel) = &run.cancel {
                let message = Message::Cancel { why: cancel.why.clone() };
                owe_message(plan, EffectKey::once("cancel-run", &id, 1), &id, message);
            }
            owe_message(plan, EffectKey::once("start-run", &id, 1), &id, Message::Start(start.clone()));
        }
    }

    fn owe_landing(&self, plan: &mut Plan, queue: &[ChangeNumber], now: Timestamp) {
        if let Some(landing) = self.landing_of(queue, now) {
            let tried = self.candidates.get(&landing.candidate).map_or(0, |record| record.landings_tried);
            plan.owe(EffectKey::once("land", landing.candidate, tried + 1), Effect::Land(landing));
        }
        for (change, record) in self.landed.map() {
            let effect =
                Effect::MarkLanded { repo: self.id.repo.clone(), change: *change, commit: record.commit };
            plan.owe(EffectKey::once("mark-landed", format!("{} {change}", self.id), 1), effect);
        }
    }

    /// Every clone that fetches the note can later tell that the record still holds this landing (trust T9).
    fn owe_notes(&self, plan: &mut Plan) {
        for commit in self.unnoted.map().keys() {
            let effect = Effect::NoteLanding { gate: self.id.clone(), commit: *commit };
            plan.owe(EffectKey::once("note-landing", self.about(*commit), 1), effect);
        }
    }

    /// The landed definition's jobs, for deploy and manual runs.
    fn owe_graph(&self, plan: &mut Plan) {
        let wanted = self.branch.deploy.wanted.map(|(commit, _)| commit);
        let Some(commit) = wanted.or(self.branch.tip.as_ref().map(|tip| tip.commit)) else { return };
        if self.landed_graph.as_ref().is_none_or(|(known, _)| *known != commit) {
            let effect = Effect::ReadGraph { repo: self.id.repo.clone(), commit };
            plan.owe(EffectKey::once("read-graph", format!("{} {commit}", self.id), 1), effect);
        }
    }

    fn owe_checks(&self, plan: &mut Plan, queue: &[ChangeNumber], now: Timestamp) {
        for change in self.changes.map().values() {
            let effect = Effect::SetCheck {
                gate: self.id.clone(),
                change: change.facts.number,
                revision: change.facts.revision.commit,
                check: self.check(change, queue, now),
            };
            plan.owe(EffectKey::level("set-check", format!("{} {}", self.id, change.facts.number)), effect);
        }
    }

    fn check(&self, change: &Change, queue: &[ChangeNumber], now: Timestamp) -> Check {
        let run = |number: u64| Some(self.run_id(number));
        let reasons = self.reasons_in(queue, change.facts.number, now);
        let (verdict, run) = match self.test_state(change) {
            TestState::Untested => (Verdict::Pending, None),
            TestState::Running(number) => (Verdict::Pending, run(number)),
            TestState::Passed(number) if self.tested_again(change, now).is_some() => {
                (Verdict::Pending, run(number))
            }
            TestState::Passed(number) => (Verdict::Success, run(number)),
            TestState::Failed(number) | TestState::Errored(number) | TestState::Cancelled(number) => {
                (Verdict::Failure, run(number))
            }
        };
        // Whatever its run says: as it is, it cannot land.
        let refused = reasons.iter().any(|reason| {
            matches!(
                reason,
                Reason::Conflict { .. }
                    | Reason::NoCandidate { .. }
                    | Reason::TooSlow { .. }
                    | Reason::BadDefinition { .. }
                    | Reason::EmptySet
                    | Reason::NoJobs
            )
        });
        let text = reasons.first().map(Reason::in_full).unwrap_or_default();
        Check { verdict: if refused { Verdict::Failure } else { verdict }, text, run }
    }

    pub(super) fn owe_alerts(&self, plan: &mut Plan) {
        let mut alert = |kind: &str, about: String, text: String| {
            plan.owe(EffectKey::once(kind, about, 1), Effect::Alert { gate: self.id.clone(), text });
        };
        if let Some((commit, run)) = self.branch.deploy.alerted {
            let branch = &self.id.branch;
            let mut text = format!("run {} of landed commit {commit} did not pass", self.run_id(run));
            let shows = format!("; `towpath runs {branch}/{run}` shows it");
            match &self.branch.deploy.lost {
                Some(lost) => {
                    text.push_str(&format!(": {}{shows}, and {}", lost.names(), lost.again.how(branch)))
                }
                None => text.push_str(&shows),
            }
            alert("alert-deploy", self.about(commit), text);
        }
        if let Some(commit) = self.branch.foreign {
            let how = reason::accept(&self.id.branch, commit);
            let text = match self.branch.unaccepted() {
                Some(_) => format!(
                    "{} stands at {commit}, which is from somebody who is no admin, so nothing of it runs; {how}",
                    self.id
                ),
                None => format!("somebody else pushed {commit} to {}; {how}", self.id),
            };
            alert("alert-foreign", self.about(commit), text);
        }
        for (number, why) in &self.branch.unreadable {
            let reason = Reason::Unreadable { why: why.clone() };
            let hint = reason.hint(*number, &self.id.branch).unwrap_or_default();
            let text =
                format!("change {number} of {} is out of reach, others go on: {reason}; {hint}", self.id);
            alert("alert-unreadable", format!("{} {number}", self.id), text);
        }
        for (cause, why) in self.halts() {
            let text = format!("nothing lands on {}: {why}; {}", self.id, cause.mend());
            alert("alert-halt", format!("{} {cause:?}", self.id), text);
        }
        let freezes = self.branch.frozen.iter().chain(&self.branch.freezes_next);
        for freeze in freezes.filter(|freeze| freeze.by.is_none()) {
            let text = format!(
                "{} is frozen: {}; look, then `towpath branch unfreeze {}`",
                self.id, freeze.why, self.id.branch
            );
            alert("alert-frozen", format!("{} {}", self.id, freeze.at.0), text);
        }
    }

    pub(super) fn about(&self, commit: CommitId) -> String {
        format!("{} {commit}", self.id)
    }

    /// A vouch ends by the clock alone.
    fn wake_for_vouches(&self, plan: &mut Plan, now: Timestamp) {
        let vouches = self.changes.map().values().filter_map(|change| change.vouch.as_ref());
        vouches
            .map(|vouch| vouch.expires)
            .filter(|expires| *expires > now)
            .for_each(|expires| plan.wake(expires));
    }
}

fn owe_message(plan: &mut Plan, key: EffectKey, run: &RunId, message: Message) {
    plan.owe(key, Effect::Send { to: CellId::Run(run.clone()), message });
}
