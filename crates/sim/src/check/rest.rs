//! What must hold once everything is at rest.

use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey};
use towpath_core::gate::{GateState, Reason, Snapshot};
use towpath_core::ids::GateId;
use towpath_core::outbox::Stage;
use towpath_core::policy::Level;

use crate::fake::forge::ChangeState;
use crate::world::{AnyLive, World};

impl World {
    /// What is still owed or under way; `None`: the world is at rest.
    pub fn unrest(&self) -> Option<String> {
        let Some(leader) = self.leader() else { return Some("no server runs".into()) };
        for (id, cell) in &self.store.cells {
            if let Some((_, intake)) = cell.inbox.values().next() {
                return Some(format!("{id} has not seen {intake:?}"));
            }
            let open = |row: &&towpath_core::outbox::Outgoing| row.stage != Stage::Done;
            if let Some((key, row)) = cell.outbox.iter().find(|(_, row)| open(row)) {
                return Some(format!("{id} still owes {key} ({:?})", row.stage));
            }
            if matches!(id, CellId::Run(_)) && !cell.finished {
                let rows: Vec<&String> =
                    cell.rows.iter().filter(|(key, _)| *key != "start").map(|(_, row)| row).collect();
                return Some(format!("{id} is not over: {rows:?}"));
            }
        }
        if let Some(lease) = self.executor.running().first() {
            return Some(format!("lease {lease} runs for {}", self.executor.jobs[lease].run));
        }
        if let Some(AnyLive::Pool(pool)) = leader.cells.get(&CellId::Pool)
            && pool.state.held() > 0
        {
            return Some(format!("the pool counts {} slots in use", pool.state.held()));
        }
        None
    }

    /// I6, I8, I12 and I16 at rest.
    pub fn check_rest(&mut self) {
        if let Some(what) = self.unrest() {
            self.violate("I16", what);
        }
        self.check_recorded();
        self.check_losses();
        for gate in self.gates.clone() {
            self.check_gate(&gate);
            self.check_holds(&gate);
            self.check_eligible(&gate);
        }
    }

    /// I8: each move, run and command of the true world is on record.
    fn check_recorded(&mut self) {
        self.check_moves();
        self.check_ends();
        if let Some(command) = self.checks.unanswered().first() {
            let what = format!("command {command} was never answered");
            self.violate("I8", what);
        }
    }

    /// I16: what is told as stopped by a person was. The team, which has such runs made again, would hide it.
    pub fn check_stops(&mut self, gate: &GateId) {
        let now = self.intake_time();
        let Some(state) = self.gate_state(gate) else { return };
        let reasons = state.changes().keys().flat_map(|number| state.reasons(*number, now));
        let is_nobodys = |reason: &Reason| match reason {
            Reason::RunCancelled { run, .. } => !self.checks.stopped.contains(run),
            _ => false,
        };
        let nobodys: Vec<Reason> = reasons.filter(is_nobodys).collect();
        for reason in nobodys {
            self.violate("I16", format!("a change waits as {reason}, and nobody did that"));
        }
    }

    /// I12 and I16: the gate knows what a fresh look would show, the forge shows what the gate knows, and nothing waits
    /// without a reason.
    fn check_gate(&mut self, gate: &GateId) {
        let Some(state) = self.gate_state(gate) else {
            return self.violate("I16", format!("gate {gate} is not in memory"));
        };
        let truth = self.forge.snapshot(&gate.branch, state.branch().kept());
        if let Err((invariant, what)) = self.compare(gate, state, &truth) {
            self.violate(invariant, format!("{gate}: {what}"));
        }
    }

    fn compare(
        &self,
        gate: &GateId,
        state: &GateState,
        truth: &Snapshot,
    ) -> Result<(), (&'static str, String)> {
        let now = self.intake_time();
        if state.branch().tip != truth.tip {
            return Err(("I12", "it does not know the tip".into()));
        }
        let live = self.leader().and_then(|leader| leader.cells.get(&CellId::Gate(gate.clone())));
        let plan = live.map(|live| live.plan(now)).unwrap_or_default();
        for facts in &truth.changes {
            let number = facts.number;
            let Some(known) = state.changes().get(&number) else {
                return Err(("I12", format!("it does not know change {number}")));
            };
            if known.facts != *facts {
                return Err(("I12", format!("it knows change {number} as it was")));
            }
            let late = state.budget(known).is_some_and(|budget| budget.is_exceeded(now));
            let revision = facts.revision.commit;
            let key = EffectKey::once("alert-budget", format!("{gate} {number} {revision}"), 1);
            if late && !self.checks.alerted.contains(&key) {
                return Err(("I16", format!("change {number} is late and nobody was told")));
            }
            if state.reasons(number, now).is_empty() {
                return Err(("I16", format!("change {number} waits without a reason")));
            }
            let key = EffectKey::level("set-check", format!("{gate} {number}"));
            let shown = self.forge.changes[&number].check();
            let wanted = plan.effects.get(&key).map(|effect| match effect {
                Effect::SetCheck { revision, check, .. } => (*revision, check.clone()),
                other => panic!("invariant: the key is of a check, not of {other:?}"),
            });
            if shown != wanted.as_ref() {
                return Err(("I16", format!("change {number} shows {shown:?}, not {wanted:?}")));
            }
        }
        match state.changes().keys().find(|number| self.forge.changes[number].state != ChangeState::Open) {
            Some(number) => Err(("I12", format!("it takes change {number} for open"))),
            None => Ok(()),
        }
    }

    /// I6: a change that has everything and whose content passes has landed.
    fn check_eligible(&mut self, gate: &GateId) {
        let truth = self.forge.snapshot(&gate.branch, None);
        let now = self.intake_time();
        for change in &truth.changes {
            let Some((landing, full)) = self.imagined(gate, change.number) else { continue };
            let (settings, edited) =
                (self.settings(&landing), self.edited_definition(landing.from, landing.to));
            let empty = self.required(&landing, full).map_or(true, |required| required.is_empty());
            let eligible = self.not_stopped(gate, change).is_ok()
                && self.checks.is_free(change.number)
                && self.is_approved(gate, change, &landing, (&truth, settings)).is_ok()
                && self.true_level(gate, change, (&truth, edited), now) > Level::Vouched
                && (!empty || settings.empty == towpath_core::definition::EmptySet::Land);
            if eligible && self.would_pass(gate, change.number) == Some(true) {
                let reasons = self.reasons_of(gate, change.number);
                let what = format!("change {} could land and has not: {reasons}", change.number);
                return self.violate("I6", what);
            }
        }
    }
}
