//! Changes that come from another branch. A hold is about the change, so it comes along: the gate asks that of the branch it
//! comes from, and until it knows the change is not in the queue. The question is owed for as long as there is no answer,
//! and is put only once the forge says that the change is here, so that the answer has in it whatever was said there before.

use serde::{Deserialize, Serialize};

use super::{Change, GateState, Hold};
use crate::cell::{CellId, Refusal, RefusalClass};
use crate::effect::{Effect, EffectKey, Plan};
use crate::ids::{BranchName, ChangeNumber, GateId, Timestamp};
use crate::message::Message;

/// The newest move of a change to the branch on which it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// The branch on which it was before.
    pub from: BranchName,
    /// When. Each move of a change has a later time than the one before.
    pub at: Timestamp,
}

/// A change has gone to another branch of its repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Which.
    pub change: ChangeNumber,
    /// The branch.
    pub to: BranchName,
    /// As [`Came::at`].
    pub at: Timestamp,
}

/// What comes along with a change from another branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Which.
    pub change: ChangeNumber,
    /// What held it there.
    pub hold: Option<Hold>,
    /// As [`Came::at`]: what is said of it here from then on stays.
    pub at: Timestamp,
}

impl GateState {
    /// The move of a change from a branch that has still to say what holds it.
    pub(super) fn arriving<'a>(&self, change: &'a Change) -> Option<&'a Came> {
        change.facts.came.as_ref().filter(|came| !self.is_told_of(change.facts.number, came))
    }

    fn is_told_of(&self, change: ChangeNumber, came: &Came) -> bool {
        self.arrived.get(&change).is_some_and(|told| *told >= came.at)
    }

    /// Whether an open change is here with all that comes along with it.
    pub fn has_arrived(&self, change: ChangeNumber) -> bool {
        self.changes.get(&change).is_some_and(|change| self.arriving(change).is_none())
    }

    /// Whether all that came along with a change, by its newest move as the forge has it, can go on with it.
    ///
    /// # Errors
    /// The branch that it came from has still to say what holds it.
    pub fn may_go_on(&self, change: ChangeNumber, came: Option<&Came>) -> Result<(), Refusal> {
        let Some(Came { from, .. }) = came.filter(|came| !self.is_told_of(change, came)) else {
            return Ok(());
        };
        let why = format!("change {change} is still on its way from `{from}`; try again");
        Err(Refusal::new(RefusalClass::NotYet, why))
    }

    pub(super) fn owe_arrivals(&self, plan: &mut Plan) {
        for change in self.changes.map().values() {
            let number = change.facts.number;
            let Some(came) = self.arriving(change) else { continue };
            let departure = Departure { change: number, to: self.id.branch.clone(), at: came.at };
            let from = GateId { repo: self.id.repo.clone(), branch: came.from.clone() };
            let effect = Effect::Send { to: CellId::Gate(from), message: Message::Left(departure) };
            let key = EffectKey::once("ask-hold", format!("{} {number}", self.id), came.at.0.unsigned_abs());
            plan.owe(key, effect);
        }
    }

    /// Whether or not its leaving was read here by now.
    pub(super) fn left(&mut self, Departure { change, to, at }: &Departure) {
        let arrival = Arrival { change: *change, hold: self.hold_of(*change).cloned(), at: *at };
        let to = GateId { repo: self.id.repo.clone(), branch: to.clone() };
        self.notes.messages.push((CellId::Gate(to), Message::Arrives(arrival)));
    }

    /// What is remembered of a change that was here before is out of date, but for what somebody has said here since it came.
    pub(super) fn arrives(&mut self, Arrival { change: number, hold, at }: &Arrival) {
        if self.arrived.get(number).is_some_and(|told| told >= at) {
            return;
        }
        self.arrived.insert(*number, *at);
        let newer = self.hold_of(*number).filter(|own| own.at >= *at).cloned();
        let hold = newer.or_else(|| hold.clone());
        match (self.changes.get_mut(number), hold) {
            (Some(change), hold) => change.hold = hold,
            (None, Some(hold)) => drop(self.holds.insert(*number, hold)),
            (None, None) => drop(self.holds.remove(number)),
        }
    }
}
