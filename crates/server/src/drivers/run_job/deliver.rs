//! Ends of jobs on their way into their runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_core::cell::CellId;
use towpath_core::ids::{LeaseId, Timestamp};
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;
use towpath_executor::JobEnd;
use towpath_store::WriteError;

use super::{Jobs, Wanted};
use crate::engine::{AnyIntake, BATCH_MAX, Batch, Engine};
use crate::faults;
use crate::reports;

/// A job that is over, on the way into its run.
pub(super) struct Finished {
    pub wanted: Wanted,
    pub lease: LeaseId,
    pub end: JobEnd,
}

impl Finished {
    fn intake(&self) -> AnyIntake {
        let Wanted { key, token, order, .. } = &self.wanted;
        let result =
            RunEvent::JobEnded { lease: order.lease.clone(), result: Box::new(self.end.result.clone()) };
        let intake = Intake::Done { key: key.clone(), token: *token, result: Some(result) };
        AnyIntake::Run(intake)
    }
}

impl Jobs {
    pub(super) fn deliver_end(
        self: &Arc<Self>,
        engine: &Engine,
        wanted: Wanted,
        lease: LeaseId,
        end: JobEnd,
    ) {
        self.deliver_ends(engine, vec![Finished { wanted, lease, end }]);
    }

    /// Makes ends durable with the next turns of their runs, and their rows with them; only then the executor may forget
    /// them.
    pub(super) fn deliver_ends(self: &Arc<Self>, engine: &Engine, finished: Vec<Finished>) {
        faults::point("run-job", "ended");
        let mut of_run: BTreeMap<CellId, Vec<Finished>> = BTreeMap::new();
        finished.into_iter().for_each(|one| of_run.entry(one.wanted.cell.clone()).or_default().push(one));
        for (cell, mut finished) in of_run {
            while !finished.is_empty() {
                let rest = finished.split_off(finished.len().min(BATCH_MAX));
                engine.deliver_with_turn(self.batch(engine, cell.clone(), finished));
                finished = rest;
            }
        }
    }

    fn batch(self: &Arc<Self>, engine: &Engine, cell: CellId, mut finished: Vec<Finished>) -> Batch {
        let now = engine.clock().now();
        let mut state = self.lock();
        finished.iter().for_each(|one| state.ends.deliver(one.lease));
        drop(state);
        let rows: Vec<reports::Rows> = finished.iter_mut().map(|one| self.rows(one, now)).collect();
        let intakes = finished.iter().map(Finished::intake).collect();
        let me = self.clone();
        Batch {
            cell,
            intakes,
            records: Box::new(move |tx| rows.iter().try_for_each(|rows| rows.write(tx))),
            done: Box::new(move |outcome| me.delivered(finished, outcome)),
        }
    }

    /// Takes in what the reports say, and makes the rows of an end.
    fn rows(&self, finished: &mut Finished, now: Timestamp) -> reports::Rows {
        let Finished { wanted, lease, end } = finished;
        let junit = end.junit.as_ref();
        let tests = junit.map(|junit| reports::read(&self.sources.blobs, junit)).unwrap_or_default();
        end.result.failed_tests = reports::failed(&tests);
        reports::Rows::new(&wanted.order, *lease, end, &tests, now)
    }

    fn delivered(self: &Arc<Self>, finished: Vec<Finished>, outcome: Result<(), WriteError>) {
        let (mut heard, mut again) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        for one in finished {
            let token = one.wanted.token;
            match (state.ends.arrived(&one.lease, |newest| newest.token == token), &outcome) {
                // The next server hears of it: the executor keeps it until it is acknowledged, which this one must not do.
                (_, Err(WriteError::Closed | WriteError::Fenced { .. })) => {
                    state.ends.keep(Box::new(one.end))
                }
                // Whatever the turn made of it, its run has not listened.
                (Some(wanted), _) => again.push(Finished { wanted, ..one }),
                (None, Ok(())) => heard.push(one.lease),
                // The run goes back to its rows and hands its jobs out anew: an answer to the former order would be
                // ignored, and must not be acknowledged.
                (None, Err(_)) => state.ends.keep(Box::new(one.end)),
            }
        }
        drop(state);
        if let Err(error) = &outcome {
            tracing::error!(%error, "the ends of jobs were not stored; their runs ask for them again: {error}");
        }
        if let Some(executor) = self.executor.get().filter(|_| !heard.is_empty()) {
            executor.ack(heard);
        }
        if let Some(engine) = self.engine.get().filter(|_| !again.is_empty()) {
            self.deliver_ends(engine, again);
        }
    }
}
