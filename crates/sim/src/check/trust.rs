//! Trust: what runs has no more of it than its change has in truth (T1, T2).

use towpath_core::cell::CellId;
use towpath_core::gate::{ForgeChange, RunRecord};
use towpath_core::ids::{ChangeNumber, CommitId, Digest, Epoch, GateId, Timestamp, UserId};
use towpath_core::message::RunStart;
use towpath_core::policy::Level;
use towpath_core::turn::Turn;

use crate::world::World;

/// A vouching as it was accepted.
#[derive(Debug, Clone)]
pub(super) struct Vouched {
    pub(super) by: UserId,
    pub(super) revision: CommitId,
    /// The definition that it is good for; `None`: that of the first candidate, of which nobody has heard.
    pub(super) definition: Option<Digest>,
    pub(super) expires: Timestamp,
}

impl World {
    /// T1 and T2: a run begins with no more trust than its change has in truth.
    pub(super) fn check_start(&mut self, epoch: Epoch, start: &RunStart, now: Timestamp) {
        let Some((number, revision)) = start.change else { return };
        let gate = &start.run.gate;
        let state = self.gate_of(epoch, gate);
        let began = state.and_then(|state| state.branch().read_began);
        let level = self.level_of((gate, began), (number, revision), (start.commit, now));
        // What makes it out of date may be told in the turn that begins it: that turn stops it, too.
        let is_stopped = state
            .and_then(|state| state.runs().get(&start.run.number))
            .is_some_and(|run| run.cancel.is_some());
        if level.is_none_or(|level| level < start.level) && !is_stopped {
            let what = format!("run {} begins as {:?}, and in truth it is {level:?}", start.run, start.level);
            self.violate("T1", what);
        }
    }

    /// T1: nothing runs on that lacks the trust it was started with, also where time alone took it.
    pub(super) fn check_trust(&mut self, epoch: Epoch, turn: &Turn) {
        let CellId::Gate(gate) = &turn.write.cell else { return };
        self.bind_vouches(epoch, gate);
        let Some(state) = self.gate_of(epoch, gate) else { return };
        let goes_on = |run: &&RunRecord| run.is_running() && run.cancel.is_none();
        let began = state.branch().read_began;
        let lacks_trust = |run: &RunRecord| {
            let entry = run.change?;
            let level = self.level_of((gate, began), entry, (run.commit, turn.write.now));
            level.is_none_or(|level| level < run.level).then_some((entry.0, level))
        };
        let lacking = state.runs().values().filter(goes_on).find_map(lacks_trust);
        if let Some((change, level)) = lacking {
            self.violate(
                "T1",
                format!("a run of change {change} of {gate} runs on, which in truth is {level:?}"),
            );
        }
    }

    /// The level that the truth of a reading gives a change's revision in a candidate.
    fn level_of(
        &self,
        (gate, began): (&GateId, Option<Timestamp>),
        (number, revision): (ChangeNumber, CommitId),
        (candidate, now): (CommitId, Timestamp),
    ) -> Option<Level> {
        let truth = self.checks.truth(gate, began)?;
        let is_it = |change: &&ForgeChange| change.number == number && change.revision.commit == revision;
        let change = truth.snapshot.changes.iter().find(is_it)?;
        let edited = self.edited_definition(self.forge.git.made_from.get(&candidate)?.parent, candidate);
        Some(self.true_level(gate, change, (&truth.snapshot, edited), now))
    }

    /// A vouch is good for the definition of the first candidate that its gate hears of.
    fn bind_vouches(&mut self, epoch: Epoch, gate: &GateId) {
        let unbound = |(of, number): &(GateId, ChangeNumber), vouched: &Vouched| {
            let change = self.gate_of(epoch, gate)?.changes().get(number).filter(|_| of == gate)?;
            let is_of = change.facts.revision.commit == vouched.revision && vouched.definition.is_none();
            let candidate = self.gate_of(epoch, gate)?.made_candidate(change).filter(|_| is_of)?;
            Some((*number, self.forge.definition_of(candidate.commit)))
        };
        let bound: Vec<(ChangeNumber, Digest)> =
            self.checks.vouches.iter().filter_map(|(key, vouched)| unbound(key, vouched)).collect();
        for (number, definition) in bound {
            let vouched = self.checks.vouches.get_mut(&(gate.clone(), number));
            vouched.expect("invariant: it was just found").definition = Some(definition);
        }
    }
}
