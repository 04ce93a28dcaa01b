//! Deployments: whose turn it is, and what a restore leaves of what was owed (I13, T9).

use std::collections::BTreeSet;

use towpath_core::cell::CellId;
use towpath_core::effect::JobOrder;
use towpath_core::environment::Deploying;
use towpath_core::gate::{Branch, GateEvent, HaltCause, PendingLanding};
use towpath_core::ids::{CommitId, EnvironmentId, GateId, RunId, Timestamp};
use towpath_core::turn::Intake;

use crate::fake::store::{AnyIntake, Store};
use crate::world::World;

/// What was under way or owed in the data of the newest restore.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// Runs that there were.
    runs: BTreeSet<RunId>,
    /// What had landed and waited for its run, or was landing.
    wanted: BTreeSet<CommitId>,
    /// Runs that began in the turn in which their gate heard of it.
    begun: BTreeSet<RunId>,
    /// Where people have asked since for something to be run of what landed.
    asked: BTreeSet<GateId>,
}

impl super::Checks {
    /// Remembers what is owed in the data that are put back.
    pub fn note_restored(&mut self, store: &Store) {
        let Restored { runs, wanted, begun, asked } = &mut self.restored;
        (*runs, *begun, *asked) = Default::default();
        for (id, cell) in &store.cells {
            match id {
                CellId::Run(run) => drop(runs.insert(run.clone())),
                CellId::Gate(_) => {
                    let branch = cell.rows.get("branch").map(|row| read::<Branch>(row));
                    wanted.extend(branch.and_then(|branch| branch.deploy.wanted).map(|(commit, _)| commit));
                    let landings = cell.rows.iter().filter(|(key, _)| key.starts_with("landing/"));
                    wanted.extend(landings.map(|(_, row)| read::<PendingLanding>(row).act.commit));
                }
                CellId::Pool | CellId::Environment(_) => {}
            }
        }
    }

    /// Remembers that a person wants something to be run of what landed.
    pub(super) fn note_asked(&mut self, gate: GateId) {
        self.restored.asked.insert(gate);
    }

    /// Remembers what began while its gate heard of a restore: nobody has told it.
    pub(super) fn note_begun(&mut self, runs: Vec<RunId>, inbox: &[(u64, Timestamp, AnyIntake)]) {
        let tells = |intake: &AnyIntake| match intake {
            AnyIntake::Gate(Intake::Event(GateEvent::Halts(halts))) => {
                halts.get(&HaltCause::Restore).is_some_and(Option::is_some)
            }
            _ => false,
        };
        if !runs.is_empty() && inbox.iter().any(|(_, _, intake)| tells(intake)) {
            self.restored.begun.extend(runs);
        }
    }

    /// Why a deployment may not begin that cannot be done again, if that is so.
    fn may_be_done(&self, order: &JobOrder) -> Option<&'static str> {
        let Restored { runs, wanted, asked, .. } = &self.restored;
        let by_person = self.told.starts.get(&order.run).is_some_and(|start| start.by.is_some());
        match order {
            order if runs.contains(&order.run) => Some("a run of before"),
            order if wanted.contains(&order.commit) && !(by_person && asked.contains(&order.run.gate)) => {
                Some("what had landed before")
            }
            _ => None,
        }
    }
}

impl World {
    /// What must hold where a job that deploys begins.
    pub(super) fn check_deployment(&mut self, order: &JobOrder) {
        if order.spec.body.environment.is_some() {
            self.check_turn(order);
            self.check_restored(order);
        }
    }

    /// I13: who deploys is the one whose turn it is.
    fn check_turn(&mut self, order: &JobOrder) {
        let Some(name) = order.spec.body.environment.clone() else { return };
        let environment = EnvironmentId { repo: order.run.gate.repo.clone(), name };
        let stored = self.store.cells.get(&CellId::Environment(environment.clone()));
        let row = stored.and_then(|cell| cell.rows.get("deploying"));
        let deploying = row.and_then(|row| read::<Option<Deploying>>(row));
        let has_turn = |one: &Deploying| (&one.claim.run, one.claim.job) == (&order.run, order.lease.job);
        if !deploying.as_ref().is_some_and(has_turn) {
            let what = format!("run {} deploys to {environment} while {deploying:?} has the turn", order.run);
            self.violate("I13", what);
        }
    }

    /// T9: nothing is deployed that was owed when the data were saved, whether a person has accepted a restore or not, but
    /// what may be done again; and before one has, nothing at all that could have been told.
    fn check_restored(&mut self, order: &JobOrder) {
        // Whoever has it says what has become of it.
        if order.restored {
            return;
        }
        let (run, may_be_repeated) = (&order.run, order.spec.body.restartable);
        if let Some(of) = self.checks.may_be_done(order).filter(|_| !may_be_repeated) {
            let what = format!("run {run} deploys what may have been deployed before a restore: {of}");
            self.violate("T9", what);
        }
        let is_halted = self.store.halts.contains_key(&HaltCause::Restore);
        if is_halted && !(may_be_repeated && self.checks.restored.begun.contains(run)) {
            self.violate("T9", format!("run {run} deploys over restored data that nobody has accepted"));
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(row: &str) -> T {
    serde_json::from_str(row).expect("invariant: rows of this version can be read")
}
