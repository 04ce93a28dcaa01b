//! Holds: what is held lands nowhere, and goes along with its change wherever that goes (I18).

use std::collections::BTreeSet;

use towpath_core::effect::Landing;
use towpath_core::gate::{Came, ForgeChange, GateEvent};
use towpath_core::ids::{ChangeNumber, GateId, Timestamp, UserId};
use towpath_core::turn::Intake;

use super::Sent;
use crate::fake::store::AnyIntake;
use crate::world::World;

/// Who may hold a change by what was said of it; `None`: nobody. One of them for as long as all was said on the branch that
/// it was on. Of what is said as it moves nobody knows whether it comes along: a hold is said anew where the change has
/// gone, and a release is not, which leaves it held.
type Holders = BTreeSet<Option<UserId>>;

impl super::Checks {
    /// Who holds a change for sure: of several that may, some one.
    fn holder(&self, change: ChangeNumber) -> Option<UserId> {
        *self.holders.get(&change)?.first()?
    }

    /// Whether nobody holds a change for sure.
    pub fn is_free(&self, change: ChangeNumber) -> bool {
        self.holders.get(&change).is_none_or(|holders| holders.iter().all(Option::is_none))
    }

    fn may_be(&self, change: ChangeNumber, holder: Option<UserId>) -> bool {
        self.holders.get(&change).map_or(holder.is_none(), |holders| holders.contains(&holder))
    }

    fn known(&mut self, change: ChangeNumber, holder: Option<UserId>) {
        self.holders.insert(change, Holders::from([holder]));
    }

    fn perhaps(&mut self, change: ChangeNumber, holder: Option<UserId>) {
        self.holders.entry(change).or_insert_with(|| Holders::from([None])).insert(holder);
    }
}

impl World {
    /// A person has held a change.
    pub(super) fn note_hold(&mut self, sent: &Sent, change: ChangeNumber) {
        if !self.is_there(&sent.gate, change, sent.came.as_ref()) {
            return self.checks.perhaps(change, Some(sent.by));
        }
        let other = self.checks.holder(change).filter(|_| !self.checks.may_be(change, Some(sent.by)));
        if let Some(other) = other.filter(|_| self.has_arrived(&sent.gate, change)) {
            self.violate("I18", format!("user {} holds {change} in the place of {other}", sent.by));
        }
        self.checks.known(change, Some(sent.by));
    }

    /// A person has released a change.
    pub(super) fn note_release(&mut self, sent: &Sent, change: ChangeNumber) {
        let came = self.forge.changes[&change].facts.came.clone();
        match self.is_there(&sent.gate, change, came.as_ref()) && self.has_arrived(&sent.gate, change) {
            true => self.checks.known(change, None),
            false => self.checks.perhaps(change, None),
        }
    }

    /// Somebody was answered that a change is held. With this bug nobody looks whether it has gone meanwhile.
    pub(crate) fn note_answered_blindly(&mut self, by: UserId, change: ChangeNumber) {
        self.checks.known(change, Some(by));
    }

    fn is_there(&self, gate: &GateId, change: ChangeNumber, came: Option<&Came>) -> bool {
        let change = &self.forge.changes[&change];
        change.target == gate.branch && change.facts.came.as_ref() == came
    }

    /// Whether all that comes along with a change was there before the turn that is looked at.
    fn has_arrived(&self, gate: &GateId, change: ChangeNumber) -> bool {
        let came = self.forge.changes[&change].facts.came.as_ref();
        let knows = self.gate_state(gate).is_some_and(|state| state.may_go_on(change, came).is_ok());
        knows && !self.checks.arriving.contains(&change)
    }

    /// Remembers what comes along with changes in the turn that is looked at.
    pub(super) fn note_arriving(&mut self, inbox: &[(u64, Timestamp, AnyIntake)]) {
        let arriving = inbox.iter().filter_map(|(_, _, intake)| match intake {
            AnyIntake::Gate(Intake::Event(GateEvent::Arrives(arrival))) => Some(arrival.change),
            _ => None,
        });
        self.checks.arriving = arriving.collect();
    }

    /// Why a change, as it was read, may not land on its branch, if somebody holds it. Where it has gone on since, the forge
    /// takes no landing of it.
    pub(super) fn not_held(&self, gate: &GateId, change: &ForgeChange) -> Result<(), String> {
        let is_there = self.is_there(gate, change.number, change.came.as_ref());
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
            if !state.has_arrived(number) {
                wrong.push(("I16", format!("change {number} is on its way to {gate} for ever")));
            }
            let held = state.hold_of(number).map(|hold| hold.by.clone());
            let nobody = Holders::from([None]);
            let holders = self.checks.holders.get(&number).unwrap_or(&nobody);
            let named = |holder: &Option<UserId>| holder.map(|user| format!("user{user}"));
            if !holders.iter().map(named).any(|holder| holder == held) {
                wrong.push((
                    "I18",
                    format!("{gate} has {held:?} of change {number}, by what was said {holders:?}"),
                ));
            }
        }
        wrong.into_iter().for_each(|(invariant, what)| self.violate(invariant, what));
    }
}
