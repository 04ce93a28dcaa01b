//! Housekeeping: a run that is over, and in no row of its gate, goes for good. Nothing may be sent to it any more.

use std::collections::BTreeSet;

use towpath_core::cell::CellId;
use towpath_core::ids::RunId;

use super::{Ev, World};
use crate::mutant::Mutant;

/// Milliseconds between two times.
const EVERY_MS: i64 = 3_600_000;
/// Milliseconds for which a run stays once it was found over: longer than a word to it can be under way.
const RETENTION_MS: i64 = 2 * 3_600_000;

impl World {
    /// Lets old runs go, and does so again later; without a server nobody does.
    pub(super) fn keep_house(&mut self) {
        self.at(EVERY_MS, Ev::KeepHouse);
        if self.leader().is_none() {
            return;
        }
        let (retention, remembered) = match self.mutant {
            Some(Mutant::ForgetsRunsAtOnce) => (0, BTreeSet::new()),
            _ => (RETENTION_MS, self.remembered_runs()),
        };
        let over = self.store.cells.iter().filter(|(_, cell)| cell.finished && cell.inbox.is_empty());
        let over: Vec<RunId> = over.filter_map(|(id, _)| run_of(id)).collect();
        for run in over.into_iter().filter(|run| !remembered.contains(run)) {
            if self.now - *self.over_since.entry(run.clone()).or_insert(self.now) >= retention {
                self.trace.line(format!("{} run {run} is forgotten", self.now));
                self.store.cells.remove(&CellId::Run(run));
            }
        }
    }

    /// Runs that their gates remember.
    fn remembered_runs(&self) -> BTreeSet<RunId> {
        let gates = self.store.cells.iter().filter_map(|(id, cell)| match id {
            CellId::Gate(gate) => Some((gate, cell)),
            _ => None,
        });
        let runs = gates.flat_map(|(gate, cell)| {
            let numbers = cell.rows.keys().filter_map(|key| key.strip_prefix("run/")?.parse().ok());
            numbers.map(|number| RunId { gate: gate.clone(), number })
        });
        runs.collect()
    }
}

fn run_of(cell: &CellId) -> Option<RunId> {
    match cell {
        CellId::Run(run) => Some(run.clone()),
        _ => None,
    }
}
