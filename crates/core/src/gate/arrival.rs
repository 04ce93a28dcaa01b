//! Changes that go from one branch to another. A hold is about the change, so it comes along: the gate to which a change has
//! come asks the one that it came from, which lets the change go and hands over what holds it. The question is owed for as long
//! as there is no answer, and is put only once the forge says that the change is here, so that the answer has in it whatever
//! was said there before.
//!
//! Until the answer is here the change is not in the queue, and no gate takes a word about its hold: the one before has let it
//! go, and this one does not know yet what it would end or replace. So a hold is at one gate at a time, and none is lost.

use serde::{Deserialize, Serialize};

use super::{Change, ForgeChange, GateState, Hold};
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
    /// As [`Came::at`].
    #[serde(alias = "seen_at")]
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

    /// Whether an open change is here after this move of it, or a later one, with all that comes along.
    pub fn has_arrived(&self, change: ChangeNumber, came: Option<&Came>) -> bool {
        let is_here = self.changes.get(&change).is_some_and(|change| self.arriving(change).is_none());
        is_here && self.may_go_on(change, came).is_ok()
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

    /// Whether or not its leaving was read here by now. Asked once more, as after a close over there, nothing is left to tell.
    pub(super) fn left(&mut self, Departure { change, to, at }: &Departure, now: Timestamp) {
        self.branch.edit().flags.forge.set(now);
        self.leave(*change);
        self.arrived.remove(change);
        self.departed.insert(*change, *at);
        let arrival = Arrival { change: *change, hold: self.holds.remove(change), at: *at };
        let to = GateId { repo: self.id.repo.clone(), branch: to.clone() };
        self.notes.messages.push((CellId::Gate(to), Message::Arrives(arrival)));
    }

    /// Whether a change as it was read has left since: the reading began before.
    pub(super) fn has_left(&self, facts: &ForgeChange) -> bool {
        let came_at = facts.came.as_ref().map(|came| came.at);
        self.departed.get(&facts.number).is_some_and(|left| came_at < Some(*left))
    }

    /// What comes along takes the place of all that is remembered here. The first answer to a question has it.
    pub(super) fn arrives(&mut self, Arrival { change: number, hold, at }: &Arrival) {
        if self.arrived.get(number).is_some_and(|told| told >= at) {
            return;
        }
        self.arrived.insert(*number, *at);
        match (self.changes.get_mut(number), hold.clone()) {
            (Some(change), hold) => change.hold = hold,
            (None, Some(hold)) => drop(self.holds.insert(*number, hold)),
            (None, None) => drop(self.holds.remove(number)),
        }
    }
}
