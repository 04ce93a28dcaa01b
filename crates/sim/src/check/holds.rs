//! Holds: what is held lands nowhere, and goes along with its change wherever that goes (I18).

use towpath_core::effect::Landing;
use towpath_core::gate::ForgeChange;
use towpath_core::ids::{ChangeNumber, GateId, UserId};

use crate::world::World;

impl super::Checks {
    fn holder(&self, change: ChangeNumber) -> Option<UserId> {
        self.holders.get(&change).copied()
    }

    /// Whether nobody holds a change.
    pub fn is_free(&self, change: ChangeNumber) -> bool {
        self.holder(change).is_none()
    }
}

impl World {
    /// A person has held a change.
    pub(super) fn note_hold(&mut self, by: UserId, change: ChangeNumber) {
        let before = self.checks.holders.insert(change, by);
        if let Some(other) = before.filter(|other| *other != by) {
            self.violate("I18", format!("user {by} holds {change} in the place of {other}"));
        }
    }

    /// A person has released a change.
    pub(super) fn note_release(&mut self, by: UserId, change: ChangeNumber) {
        if self.checks.holders.remove(&change).is_none() {
            self.violate("I18", format!("user {by} releases {change}, and nobody holds it"));
        }
    }

    /// Why a change, as it was read, may not land on its branch, if somebody holds it. Where it has gone on since, the forge
    /// takes no landing of it.
    pub(super) fn not_held(&self, gate: &GateId, change: &ForgeChange) -> Result<(), String> {
        let now = &self.forge.changes[&change.number];
        let is_there = now.target == gate.branch && now.facts.came == change.came;
        match self.checks.holder(change.number).filter(|_| is_there) {
            Some(by) => Err(format!("user {by} holds it")),
            None => Ok(()),
        }
    }

    /// Nothing lands by what a branch knew of it before it was elsewhere, and held there.
    pub(super) fn check_not_held_since(&mut self, landing: &Landing) {
        let Some(change) = self.forge.changes.get(&landing.change) else { return };
        let came_at = change.facts.came.as_ref().map(|came| came.at);
        if let Some(by) = self.checks.holder(landing.change).filter(|_| came_at != landing.came_at) {
            let what = format!(
                "change {} has landed, and user {by} holds it since it was elsewhere",
                landing.change
            );
            self.violate("I18", what);
        }
    }

    /// Every change is all on its branch, with the hold that was said last: none is lost, and none comes back.
    pub fn check_holds(&mut self, gate: &GateId) {
        let Some(state) = self.gate_state(gate) else { return };
        let mut wrong = vec![];
        for change in self.forge.open(&gate.branch) {
            let number = change.facts.number;
            if !state.has_arrived(number, change.facts.came.as_ref()) {
                wrong.push(("I16", format!("change {number} is on its way to {gate} for ever")));
            }
            let held = state.hold_of(number).map(|hold| hold.by.clone());
            let holder = self.checks.holder(number).map(|user| format!("user{user}"));
            if held != holder {
                let what = format!("{gate} has {held:?} of change {number}, which is held by {holder:?}");
                wrong.push(("I18", what));
            }
        }
        wrong.into_iter().for_each(|(invariant, what)| self.violate(invariant, what));
    }
}
