//! Ends of jobs on their way into their runs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use towpath_blob::BlobStore;
use towpath_core::cell::CellId;
use towpath_core::ids::{LeaseId, Timestamp};
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;
use towpath_pipeline::junit::TestCase;
use towpath_store::WriteError;

use super::ends::{Over, Reports};
use super::{Jobs, Wanted};
use crate::engine::{AnyIntake, BATCH_MAX, Batch, Engine};
use crate::faults;
use crate::reports::{self, Reported};

/// A job that is over, on the way into its run.
pub(super) struct Finished {
    pub wanted: Wanted,
    pub over: Over,
}

impl Finished {
    fn lease(&self) -> LeaseId {
        self.over.end.lease
    }

    fn is_unread(&self) -> bool {
        matches!(self.over.reports, Reports::Unread)
    }

    fn intake(&self) -> AnyIntake {
        let Wanted { key, token, order, .. } = &self.wanted;
        let result = Box::new(self.over.end.result.clone());
        let result = RunEvent::JobEnded { lease: order.lease.clone(), result };
        let intake = Intake::Done { key: key.clone(), token: *token, result: Some(result) };
        AnyIntake::Run(intake)
    }

    fn rows(&self, now: Timestamp) -> Arc<reports::Rows> {
        match &self.over.reports {
            Reports::Read(rows) => rows.clone(),
            Reports::None | Reports::Unread => self.make_rows(&[], now),
        }
    }

    fn make_rows(&self, tests: &[TestCase], now: Timestamp) -> Arc<reports::Rows> {
        Arc::new(reports::Rows::new(&self.wanted.order, self.lease(), &self.over.end, tests, now))
    }

    /// Takes in what the reports say. They decide nothing: where they cannot be read, the job had no tests, and says so.
    fn read_reports(&mut self, blobs: &BlobStore, now: Timestamp) {
        let Some(junit) = &self.over.end.junit else { return };
        let read = catch_unwind(AssertUnwindSafe(|| reports::read(blobs, junit)));
        let reported = read.unwrap_or_else(|_| {
            let lease = self.lease();
            tracing::error!(%lease, "reading the reports of a job panicked: a bug of Towpath");
            let fault = Some("its JUnit reports cannot be read, by a bug of Towpath".into());
            Reported { fault, ..Reported::default() }
        });
        reported.tell(&mut self.over.end.result);
        self.over.reports = Reports::Read(self.make_rows(&reported.tests, now));
    }
}

impl Jobs {
    /// Makes ends, which are on their way already, durable with the next turns of their runs, and their rows with them;
    /// only then the executor may forget them. Returns at once: reports are read elsewhere first.
    pub(super) fn deliver_ends(self: &Arc<Self>, engine: &Engine, mut finished: Vec<Finished>) {
        faults::point("run-job", "ended");
        for mut one in finished.extract_if(.., |one| one.is_unread()) {
            let (me, engine) = (self.clone(), engine.clone());
            self.readers.run(Box::new(move || {
                one.read_reports(&me.sources.blobs, engine.clock().now());
                me.deliver_read(&engine, vec![one]);
            }));
        }
        self.deliver_read(engine, finished);
    }

    fn deliver_read(self: &Arc<Self>, engine: &Engine, finished: Vec<Finished>) {
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

    fn batch(self: &Arc<Self>, engine: &Engine, cell: CellId, finished: Vec<Finished>) -> Batch {
        let now = engine.clock().now();
        let rows: Vec<Arc<reports::Rows>> = finished.iter().map(|one| one.rows(now)).collect();
        let intakes = finished.iter().map(Finished::intake).collect();
        let me = self.clone();
        Batch {
            cell,
            intakes,
            bytes: rows.iter().map(|rows| rows.bytes()).sum(),
            records: Box::new(move |tx| rows.iter().try_for_each(|rows| rows.write(tx))),
            done: Box::new(move |outcome| me.delivered(finished, outcome)),
        }
    }

    fn delivered(self: &Arc<Self>, finished: Vec<Finished>, outcome: Result<(), WriteError>) {
        let (mut heard, mut again, mut histories) = (Vec::new(), Vec::new(), Vec::new());
        let mut state = self.lock();
        for one in finished {
            let token = one.wanted.token;
            match (state.ends.arrived(&one.lease(), |newest| newest.token == token), &outcome) {
                // The next server hears of it: the executor keeps it until it is acknowledged, which this one must not do.
                (_, Err(WriteError::Closed | WriteError::Fenced { .. })) => state.ends.keep(one.over),
                // Whatever the turn made of it, its run has not listened.
                (Some(wanted), _) => again.push(Finished { wanted, ..one }),
                (None, Ok(())) => {
                    histories.extend(one.wanted.order.spec.body.history.then_some(one.lease()));
                    heard.push(one.lease());
                }
                // The run goes back to its rows and hands its jobs out anew: an answer to the former order would be
                // ignored, and must not be acknowledged.
                (None, Err(_)) => state.ends.keep(one.over),
            }
        }
        drop(state);
        if let Err(error) = &outcome {
            tracing::error!(%error, "the ends of jobs were not stored; their runs ask for them again: {error}");
        }
        if !histories.is_empty() {
            let me = self.clone();
            self.removers.run(Box::new(move || me.sources.forget(&histories)));
        }
        if let Some(executor) = self.executor.get().filter(|_| !heard.is_empty()) {
            executor.ack(heard);
        }
        if let Some(engine) = self.engine.get().filter(|_| !again.is_empty()) {
            self.deliver_ends(engine, again);
        }
    }
}
