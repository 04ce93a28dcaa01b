//! Commands: each is answered once, by the right that its giver has then, for the revision that it names (I8, I18).

use std::sync::Arc;

use towpath_core::act::Act;
use towpath_core::cell::CellId;
use towpath_core::gate::{ForgeRead, Snapshot, Verb};
use towpath_core::ids::{ChangeNumber, CommitId, Epoch, GateId, RunId, Timestamp, UserId};
use towpath_core::policy::Role;
use towpath_core::turn::Turn;

use super::Sent;
use super::trust::Vouched;
use crate::world::World;

impl super::Checks {
    /// Remembers a command that is on its way.
    pub fn note_command(&mut self, id: u64, gate: &GateId, by: UserId, verb: &Verb) {
        self.sent.insert(id, Sent { gate: gate.clone(), by, verb: verb.clone() });
    }

    /// The change that a command is about, by its words or by its run's.
    fn change_of(&self, sent: &Sent) -> Option<ChangeNumber> {
        match &sent.verb {
            Verb::Hold { change, .. } | Verb::Retry { change, .. } => Some(*change),
            Verb::Cancel { run, .. } => self.told.change_of(&sent.gate, *run),
            _ => None,
        }
    }

    /// Commands that were never answered.
    pub fn unanswered(&self) -> Vec<u64> {
        self.sent.keys().filter(|id| !self.answered.contains(id)).copied().collect()
    }
}

impl World {
    /// Returns the commands that were accepted, in their order.
    pub(super) fn check_answers(
        &mut self,
        epoch: Epoch,
        turn: &Turn,
        before: Option<Timestamp>,
    ) -> Vec<Sent> {
        let CellId::Gate(gate) = &turn.write.cell else { return vec![] };
        let leaves = turn.write.acts.iter().filter(|act| matches!(act, Act::Command { .. })).count();
        let accepted = turn.answers.iter().filter(|answer| answer.result.is_ok()).count();
        if leaves != accepted {
            self.violate("I8", format!("{accepted} commands were accepted, {leaves} are on record"));
        }
        let after = self
            .server(epoch)
            .and_then(|server| server.cells.get(&turn.write.cell))
            .and_then(|live| self.checks.read_began(live));
        let truths: Vec<Arc<ForgeRead>> =
            [before, after].iter().filter_map(|began| self.checks.truth(gate, *began)).collect();
        let mut all = vec![];
        for answer in &turn.answers {
            if !self.checks.answered.insert(answer.command) {
                self.violate("I8", format!("command {} was answered twice", answer.command));
            }
            let Some(sent) = self.checks.sent.get(&answer.command).cloned() else { continue };
            if answer.result.is_ok() {
                self.check_right(&sent, &truths);
                all.push(sent);
            }
        }
        all
    }

    fn check_right(&mut self, sent: &Sent, truths: &[Arc<ForgeRead>]) {
        let about = self.checks.change_of(sent);
        if !truths.iter().any(|truth| is_allowed(sent, about, &truth.snapshot)) {
            let Sent { gate, by, verb, .. } = sent;
            self.violate("I18", format!("user {by} may not do {verb:?} on {gate}, and it was accepted"));
        }
        let (change, revision) = match &sent.verb {
            Verb::Vouch { change, revision, .. } | Verb::Retry { change, revision, .. } => {
                (*change, *revision)
            }
            _ => return,
        };
        if !truths.iter().any(|truth| is_newest(&truth.snapshot, change, revision)) {
            self.violate("I18", format!("{:?} acted on another revision", sent.verb));
        }
    }

    /// What a command that was accepted leaves behind.
    pub(super) fn remember(&mut self, sent: &Sent) {
        let gate = sent.gate.clone();
        match &sent.verb {
            Verb::Hold { change, .. } => self.note_hold(sent.by, *change),
            Verb::Release { change } => self.note_release(sent.by, *change),
            Verb::Freeze { .. } => drop(self.checks.frozen.insert(gate)),
            Verb::Deploy | Verb::DeployTo { .. } | Verb::RunManual { .. } => self.checks.note_asked(gate),
            Verb::AcceptTip { .. } => {
                self.checks.foreign.remove(&gate);
                self.checks.accepted.insert(gate);
            }
            Verb::Unfreeze => drop(self.checks.frozen.remove(&gate)),
            Verb::Vouch { change, revision, definition, expires, .. } => {
                let (revision, definition, expires) = (*revision, *definition, *expires);
                let vouched = Vouched { by: sent.by, revision, definition, expires };
                self.checks.vouches.insert((gate, *change), vouched);
            }
            Verb::Cancel { run, .. } => drop(self.checks.stopped.insert(RunId { gate, number: *run })),
            Verb::Retry { change, scope, .. } => self.checks.note_retry(&gate, *change, scope),
        }
    }
}

/// By the change that it is about, which an author may do some things to when it is their own. Whether anything of it runs
/// is looked at when a run begins.
fn is_allowed(sent: &Sent, about: Option<ChangeNumber>, truth: &Snapshot) -> bool {
    let Some(rights) = truth.people.get(&sent.by) else { return false };
    let own = |number: ChangeNumber| {
        let change = truth.changes.iter().find(|change| change.number == number);
        rights.role >= Role::Author && change.is_some_and(|change| change.owner == sent.by)
    };
    match &sent.verb {
        Verb::Hold { .. } | Verb::Retry { .. } | Verb::Cancel { .. } => {
            rights.role >= Role::Maintainer || about.is_some_and(own)
        }
        Verb::AcceptTip { .. } => rights.role >= Role::Admin,
        _ => rights.role >= Role::Maintainer,
    }
}

fn is_newest(truth: &Snapshot, number: ChangeNumber, revision: CommitId) -> bool {
    let change = truth.changes.iter().find(|change| change.number == number);
    change.is_some_and(|change| change.revision.commit == revision)
}
