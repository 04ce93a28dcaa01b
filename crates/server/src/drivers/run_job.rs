//! Runs jobs on the executor: prepares what a job sees, hands it over, and takes its end into the run's inbox.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use towpath_blob::BlobStore;
use towpath_core::cell::CellId;
use towpath_core::effect::{EffectKey, JobOrder};
use towpath_core::graph::{JobResult, Outcome};
use towpath_core::ids::{Digest, LeaseId, Timestamp};
use towpath_core::outbox::TroubleClass;
use towpath_core::pool::PoolEvent;
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;
use towpath_executor::protocol::Leases;
use towpath_executor::{EncodeError, FRAME_BYTES_MAX, JobEnd, Limits, StartMessage, StartSpec};
use towpath_git::{Base, BaseStore, ExportOptions, Files};
use towpath_store::{Incarnation, WriteError};

use super::Failure;
use super::pace::Pace;
use super::workers::Workers;
use crate::engine::{AnyIntake, BATCH_MAX, Batch, Engine};
use crate::executor::Executor;
use crate::faults;
use crate::reports;
use crate::repos::Repos;
use crate::secrets::Secrets;

mod ends;
mod held;
#[cfg(test)]
mod tests;

use ends::Asked;
use held::{Held, Nobodys, State};

/// Work trees prepared at once: each is one git walk and the writing of files.
const PREPARERS: usize = 2;

/// A job that a run owes, and where its end goes.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The run's cell.
    pub cell: CellId,
    /// The effect.
    pub key: EffectKey,
    /// For the answer.
    pub token: u64,
    /// What to run.
    pub order: Box<JobOrder>,
}

/// A job that is over, on the way into its run.
struct Finished {
    wanted: Wanted,
    lease: LeaseId,
    end: JobEnd,
}

/// What is held for as long as a job may read it.
#[expect(dead_code, reason = "dropping it is its only use")]
enum Tree {
    Base(Base),
    History(tempfile::TempDir),
}

/// What the executor is to do, and what it reads meanwhile; or how the job ended instead.
type Prepared = Result<(StartMessage, Option<Tree>), Box<JobEnd>>;

/// Where a job's files come from.
pub struct Sources {
    /// The repositories.
    pub repos: Arc<Repos>,
    /// Immutable trees.
    pub bases: BaseStore,
    /// Where repositories for jobs with `history: true` are made.
    pub histories: PathBuf,
    /// Outputs and reports.
    pub blobs: BlobStore,
    /// Secrets and who may have them.
    pub secrets: Secrets,
    /// This life of the data.
    pub incarnation: Incarnation,
    /// What a job may use.
    pub limits: Limits,
}

/// Jobs between runs and the executor.
pub struct Jobs {
    sources: Sources,
    executor: OnceLock<Arc<Executor>>,
    engine: OnceLock<Engine>,
    state: Mutex<State>,
    pace: Mutex<Pace>,
    preparers: Workers,
}

impl Jobs {
    /// Jobs without an executor yet, which will have so many slots: what is started waits for [`Jobs::connect`].
    pub fn new(sources: Sources, slots: u32) -> Arc<Jobs> {
        Arc::new(Jobs {
            sources,
            pace: Mutex::new(Pace::new(slots)),
            executor: OnceLock::new(),
            engine: OnceLock::new(),
            state: Mutex::default(),
            preparers: Workers::start(PREPARERS),
        })
    }

    /// Joins jobs, engine and executor. Called once, before the executor's first event can matter.
    pub fn connect(&self, engine: Engine, executor: Arc<Executor>) {
        let _ = self.engine.set(engine);
        let _ = self.executor.set(executor);
    }

    /// The executor's name for a lease: also another one after a restore from a backup (trust T9).
    pub fn lease(&self, lease: &LeaseId) -> LeaseId {
        LeaseId(Digest::of_fields([&self.sources.incarnation.0[..], &lease.0]).prefix())
    }

    /// When a job that is held began, if it has.
    pub fn started_at(&self, lease: &LeaseId) -> Option<Timestamp> {
        self.lock().held.get(&self.lease(lease)).and_then(|held| held.started_at)
    }

    /// Runs a job, or takes it over if the executor has it from an earlier server.
    pub fn start(self: &Arc<Self>, engine: &Engine, wanted: Wanted) {
        let lease = self.lease(&wanted.order.lease.id);
        let mut state = self.lock();
        let wanted = match state.ends.ask(&lease, wanted) {
            Asked::Coming => return,
            Asked::Over(wanted, end) => {
                drop(state);
                return self.deliver_end(engine, wanted, lease, *end);
            }
            Asked::Unknown(wanted) => wanted,
        };
        if let Some(held) = state.held.get_mut(&lease) {
            held.wanted = wanted;
            held.cancelled = false;
            return;
        }
        let is_light = is_light(&wanted.order);
        state.held.insert(lease, Held::new(wanted));
        let (me, engine) = (self.clone(), engine.clone());
        if !is_light {
            return self.preparers.run(Box::new(move || me.prepare(&engine, vec![lease])));
        }
        state.light.push(lease);
        // Whoever takes the first takes all that have come by then.
        if state.light.len() == 1 {
            self.preparers.run(Box::new(move || {
                let leases = std::mem::take(&mut me.lock().light);
                me.prepare(&engine, leases);
            }));
        }
    }

    /// Stops a job; its end comes like any other. One that is not there any more ends at once.
    pub fn cancel(self: &Arc<Self>, engine: &Engine, wanted: Wanted) {
        let lease = self.lease(&wanted.order.lease.id);
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(&lease) else {
            let asked = state.ends.ask(&lease, wanted);
            drop(state);
            return self.cancel_unheld(engine, lease, asked);
        };
        held.wanted = wanted;
        held.cancelled = true;
        if held.waiting.take().is_some() {
            let held = state.release(&lease).expect("invariant: it was just found");
            drop(state);
            let end = unrun(lease, Outcome::Cancelled, "cancelled before it began");
            return self.end_unsent(engine, held, end);
        }
        if held.sent
            && let Some(executor) = self.executor.get()
        {
            executor.cancel(&lease);
        }
    }

    fn cancel_unheld(self: &Arc<Self>, engine: &Engine, lease: LeaseId, asked: Asked<Wanted>) {
        let (wanted, end) = match asked {
            // It is over, and its run is about to hear how.
            Asked::Coming => return,
            Asked::Over(wanted, end) => (wanted, end),
            Asked::Unknown(wanted) => (wanted, unrun(lease, Outcome::Cancelled, "cancelled before it began")),
        };
        if let Some(executor) = self.executor.get() {
            executor.cancel(&lease);
        }
        self.deliver_end(engine, wanted, lease, *end);
    }

    /// Ends of jobs that could not be stored, and wait for their runs to ask for them again.
    pub fn ends_kept(&self) -> usize {
        self.lock().ends.kept()
    }

    /// Jobs that runs may have at the executor at once, for the pool.
    pub fn capacity(&self) -> u64 {
        self.pace().capacity()
    }

    fn note_pace(&self, engine: &Engine, duration_ms: u64) {
        let changed = self.pace().note(duration_ms);
        if let Some(slots) = changed {
            let intake = AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots }));
            engine.deliver_surely(CellId::Pool, intake);
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The executor says that a job has begun.
    pub fn started(&self, lease: LeaseId) {
        let Some(now) = self.engine.get().map(|engine| engine.clock().now()) else { return };
        if let Some(held) = self.lock().held.get_mut(&lease) {
            held.started_at = Some(now);
        }
    }

    /// The executor says that jobs are over.
    pub fn ended(self: &Arc<Self>, ends: Vec<JobEnd>) {
        let mut finished = Vec::with_capacity(ends.len());
        let mut state = self.lock();
        for end in ends {
            let lease = end.lease;
            state.found.remove(&lease);
            match self.engine.get().and_then(|_| state.release(&lease)) {
                Some(held) => finished.push(Finished { wanted: held.wanted, lease, end }),
                // From an earlier server's time: the run that owns it asks for it.
                None => state.ends.told(end),
            }
        }
        self.drop_nobodys(&mut state);
        drop(state);
        if let Some(engine) = self.engine.get() {
            finished.iter().for_each(|one| self.note_pace(engine, one.end.result.duration_ms));
            self.deliver_ends(engine, finished);
        }
    }

    /// Every run has said what it wants: whatever else the executor has is nobody's.
    pub fn all_claimed(&self) {
        let mut state = self.lock();
        state.all_claimed = true;
        self.drop_nobodys(&mut state);
    }

    fn drop_nobodys(&self, state: &mut State) {
        let Some(executor) = self.executor.get() else { return };
        let Nobodys { stop, forget } = state.take_nobodys();
        stop.iter().for_each(|lease| executor.cancel(lease));
        if !forget.is_empty() {
            executor.ack(forget);
        }
    }

    /// There is an executor, the first one or a successor: jobs that waited for it are given to it, and those that it
    /// does not know although an executor had them died with that one. `adopt` makes it the one that jobs are given to: a
    /// job that it gets before its list is looked at would not be on that list.
    pub fn resume(self: &Arc<Self>, leases: &Leases, adopt: impl FnOnce()) {
        let mut state = self.lock();
        adopt();
        // Also what is over: its end may be heard before this, and acknowledged to nobody.
        state.found = leases.active.iter().chain(&leases.unacked).copied().collect();
        self.drop_nobodys(&mut state);
        if let Some(executor) = self.executor.get() {
            state.still_to_cancel(leases).iter().for_each(|lease| executor.cancel(lease));
        }
        let waiting = state.held.values_mut().filter_map(|held| held.waiting.take()).collect();
        let lost = state.take_lost(leases);
        drop(state);
        self.submit(waiting);
        let Some(engine) = self.engine.get() else { return };
        for (lease, held) in lost {
            let outcome = if held.cancelled { Outcome::Cancelled } else { Outcome::Errored };
            let end = unrun(lease, outcome, "the executor died while it ran");
            self.deliver_end(engine, held.wanted, lease, *end);
        }
    }

    /// Gives jobs to the executor, or keeps them until there is one.
    fn submit(self: &Arc<Self>, mut jobs: Vec<StartMessage>) {
        let mut state = self.lock();
        let is_cancelled =
            |job: &StartMessage| state.held.get(&job.lease()).is_none_or(|held| held.cancelled);
        let cancelled: Vec<LeaseId> =
            jobs.extract_if(.., |job| is_cancelled(job)).map(|job| job.lease()).collect();
        let leases: Vec<LeaseId> = jobs.iter().map(StartMessage::lease).collect();
        let given = match self.executor.get() {
            Some(executor) => executor.submit(jobs),
            None => Err(jobs),
        };
        for lease in leases.iter().filter(|_| given.is_ok()) {
            state.held.entry(*lease).and_modify(|held| held.sent = true);
        }
        for job in given.err().into_iter().flatten() {
            state.held.entry(job.lease()).and_modify(|held| held.waiting = Some(job));
        }
        let cancelled: Vec<_> =
            cancelled.into_iter().filter_map(|lease| Some((lease, state.release(&lease)?))).collect();
        drop(state);
        let Some(engine) = self.engine.get() else { return };
        for (lease, held) in cancelled {
            self.end_unsent(engine, held, unrun(lease, Outcome::Cancelled, "cancelled before it began"));
        }
    }

    fn prepare(self: &Arc<Self>, engine: &Engine, leases: Vec<LeaseId>) {
        let prepared = |lease| self.prepared(engine, lease, |order| self.spec(lease, order));
        let jobs = leases.into_iter().filter_map(prepared).collect();
        self.submit(jobs);
        faults::point("run-job", "sent");
    }

    /// What the executor is to do, as `make` has it; `None` if the job is over instead.
    fn prepared(
        self: &Arc<Self>,
        engine: &Engine,
        lease: LeaseId,
        make: impl FnOnce(&JobOrder) -> Prepared,
    ) -> Option<StartMessage> {
        faults::point("run-job", "before");
        let order = |held: &Held| (!held.cancelled).then(|| held.wanted.order.clone());
        let order = self.lock().held.get(&lease).map(order)?;
        let prepared = match order {
            Some(order) => make(&order),
            None => Err(unrun(lease, Outcome::Cancelled, "cancelled before it began")),
        };
        let mut state = self.lock();
        match prepared {
            Ok((job, tree)) => {
                state.held.get_mut(&lease)?._tree = tree;
                Some(job)
            }
            Err(end) => {
                // Making it took its time. Its run may have asked anew since, and hears nothing under the order before.
                let held = state.release(&lease)?;
                drop(state);
                self.end_unsent(engine, held, end);
                None
            }
        }
    }

    /// What the executor is to do; or, if it cannot be prepared, how the job ended.
    fn spec(&self, lease: LeaseId, order: &JobOrder) -> Prepared {
        let ours = |failure: Failure| {
            unrun(lease, Outcome::Errored, &format!("it could not be prepared: {}", failure.why))
        };
        let secrets = self.sources.secrets.grant(order).map_err(|why| unrun(lease, Outcome::Failed, &why))?;
        let (base, tree) = self.tree(order).map_err(ours)?;
        // The core names them by their keys; a job sees them as variables that no definition can set.
        let mut facts: BTreeMap<String, String> =
            order.facts.iter().map(|(key, value)| (format!("TOWPATH_{key}"), value.clone())).collect();
        if order.spec.body.history {
            facts.insert("TOWPATH_COMMIT".into(), order.commit.to_string());
        }
        let spec = StartSpec {
            run: Some(order.run.clone()),
            attempt: order.lease.attempt,
            base,
            facts,
            inputs: order.input_folders(),
            secrets,
            limits: self.sources.limits,
            ..StartSpec::new(lease, order.spec.name.clone(), (*order.spec.body).clone())
        };
        let job =
            StartMessage::new(spec).map_err(|error| unrun(lease, Outcome::Errored, &unsendable(&error)))?;
        Ok((job, tree))
    }

    fn tree(&self, order: &JobOrder) -> Result<(Option<PathBuf>, Option<Tree>), Failure> {
        let body = &order.spec.body;
        if !body.checkout {
            return Ok((None, None));
        }
        let repository = self.sources.repos.get(&order.run.gate.repo)?;
        if !body.history {
            let base = self.sources.bases.base(&repository, order.tree)?;
            return Ok((Some(base.path().to_owned()), Some(Tree::Base(base))));
        }
        let folder = tempfile::Builder::new().prefix("history-").tempdir_in(&self.sources.histories);
        let folder = folder.map_err(|error| {
            let why = format!("cannot make a folder for the job's repository: {error}");
            Failure::new(TroubleClass::Transient, why)
        })?;
        let into = folder.path().join("tree");
        repository.export_repository(order.commit, &into, (Files::Written, &ExportOptions::default()))?;
        Ok((Some(into), Some(Tree::History(folder))))
    }

    /// Ends a job that was not given to the executor by this server. An earlier one may have done so: there it stops.
    fn end_unsent(self: &Arc<Self>, engine: &Engine, held: Held, end: Box<JobEnd>) {
        if let Some(executor) = self.executor.get() {
            executor.cancel(&end.lease);
        }
        self.deliver_end(engine, held.wanted, end.lease, *end);
    }

    fn deliver_end(self: &Arc<Self>, engine: &Engine, wanted: Wanted, lease: LeaseId, end: JobEnd) {
        self.deliver_ends(engine, vec![Finished { wanted, lease, end }]);
    }

    /// Makes ends durable with the next turns of their runs, and their rows with them; only then the executor may forget
    /// them.
    fn deliver_ends(self: &Arc<Self>, engine: &Engine, finished: Vec<Finished>) {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Whether nothing has to be looked up or written before a job can be handed over.
fn is_light(order: &JobOrder) -> bool {
    !order.spec.body.checkout && order.spec.body.secrets.is_empty()
}

/// Why a job cannot be handed to the executor, and what to do.
fn unsendable(error: &EncodeError) -> String {
    match error {
        EncodeError::TooLarge { bytes } => format!(
            "it is too large to hand over: its script, variables, secrets and inputs take {bytes} bytes, at most \
             {FRAME_BYTES_MAX}; put long values into files of the repository, or ask for fewer secrets and outputs"
        ),
        EncodeError::Unwritable(_) => format!("it cannot be handed over: {error}"),
    }
}

fn unrun(lease: LeaseId, outcome: Outcome, why: &str) -> Box<JobEnd> {
    Box::new(JobEnd {
        lease,
        result: JobResult::unrun(outcome, why),
        junit: None,
        log_bytes: 0,
        cpu_ms: None,
    })
}
