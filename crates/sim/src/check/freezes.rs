//! Freezes: a branch that is not as we left it stops, on record, and people are told (I3, I8).

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::act::Act;
use towpath_core::cell::CellId;
use towpath_core::effect::EffectKey;
use towpath_core::gate::Freeze;
use towpath_core::ids::{CommitId, Epoch, GateId, Timestamp};
use towpath_core::outbox::Stage;
use towpath_core::turn::{Intake, Turn};

use crate::fake::forge::Pusher;
use crate::fake::store::AnyIntake;
use crate::world::World;

/// What there is to freeze for.
#[derive(Debug, Default)]
pub(super) struct Freezes {
    /// Answers of drivers that a branch lacks what the forge had said that it landed there: effect and token.
    broken: BTreeSet<(EffectKey, u64)>,
    /// Landings that were on their branch no more when it froze by itself.
    mourned: BTreeMap<GateId, CommitId>,
}

impl super::Checks {
    /// Remembers that a driver has found a branch without what it had landed there.
    pub fn note_broken(&mut self, key: EffectKey, token: u64) {
        self.freezes.broken.insert((key, token));
    }
}

impl World {
    /// A freeze begins by a command or has a leaf, and a landing that the branch turned out to lack is one, or is to be once
    /// the branch is unfrozen.
    pub(super) fn check_freeze(&mut self, epoch: Epoch, turn: &Turn, inbox: &[(u64, Timestamp, AnyIntake)]) {
        let CellId::Gate(gate) = &turn.write.cell else { return };
        let froze = turn.write.acts.iter().any(|act| matches!(act, Act::Froze { .. }))
            || self.gate_of(epoch, gate).is_some_and(|state| state.branch().freezes_next.is_some());
        if let Some(key) = self.heard_broken(turn, inbox).filter(|_| !froze) {
            self.violate("I3", format!("{gate} lacks what {key} had landed, and does not freeze"));
        }
        let is_frozen = self.gate_of(epoch, gate).is_some_and(|state| state.branch().frozen.is_some());
        if is_frozen != self.checks.frozen.contains(gate) {
            let what = format!("{gate} is frozen: {is_frozen}, and commands and leaves say otherwise");
            self.violate("I8", what);
        }
    }

    /// The landing that a turn has just been told to be lacking.
    fn heard_broken(&self, turn: &Turn, inbox: &[(u64, Timestamp, AnyIntake)]) -> Option<EffectKey> {
        let is_current = |key: &EffectKey| turn.write.outbox.iter().any(|(changed, _)| changed == key);
        let heard = inbox.iter().filter_map(|(_, _, intake)| match intake {
            AnyIntake::Gate(Intake::Done { key, token, .. }) => Some((key.clone(), *token)),
            _ => None,
        });
        let mut broken = heard.filter(|answer| self.checks.freezes.broken.contains(answer));
        broken.find(|(key, _)| is_current(key)).map(|(key, _)| key)
    }

    /// A branch froze by itself.
    pub(super) fn note_froze(&mut self, gate: &GateId) {
        if !self.checks.frozen.insert(gate.clone()) {
            self.violate("I8", format!("{gate} froze twice"));
        }
        if let Some(lost) = self.lost_landing(gate) {
            self.checks.freezes.mourned.insert(gate.clone(), lost);
        }
    }

    /// The newest landing, if its branch does not contain it.
    fn lost_landing(&self, gate: &GateId) -> Option<CommitId> {
        let branch = self.forge.branch(&gate.branch);
        let newest = branch.pushes.iter().rev().find(|push| push.by != Pusher::Person)?.to;
        (!branch.commits.contains(&newest)).then_some(newest)
    }

    /// I3 at rest: no branch has lost a landing without having frozen.
    pub(super) fn check_losses(&mut self) {
        for gate in self.gates.clone() {
            let lost = self.lost_landing(&gate);
            if lost.is_some() && self.checks.freezes.mourned.get(&gate) != lost.as_ref() {
                self.violate("I3", format!("{gate} lacks our landing {lost:?}, and has not frozen"));
            }
        }
    }

    /// I3: people are told of a branch that froze by itself, or are about to be.
    pub fn check_freeze_is_told(&mut self, gate: &GateId) {
        let freeze = self.gate_state(gate).and_then(|state| state.branch().frozen.clone());
        let Some(Freeze { by: None, why, at, .. }) = freeze else { return };
        let key = EffectKey::once("alert-frozen", format!("{gate} {}", at.0), 1);
        let owed = self.store.cells[&CellId::Gate(gate.clone())].outbox.get(&key);
        let is_owed = owed.is_some_and(|row| row.stage != Stage::Done);
        if !is_owed && !self.checks.alerted.contains(&key) {
            self.violate("I3", format!("{gate} froze and nobody is told: {why}"));
        }
    }
}
