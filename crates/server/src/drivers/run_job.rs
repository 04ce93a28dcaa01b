//! Runs jobs on the executor: prepares what a job sees, hands it over, and takes its end into the run's inbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use towpath_core::cell::CellId;
use towpath_core::effect::{EffectKey, JobOrder};
use towpath_core::graph::{JobResult, Outcome};
use towpath_core::ids::{Digest, LeaseId, Timestamp};
use towpath_core::outbox::Trouble;
use towpath_core::pool::PoolEvent;
use towpath_core::turn::Intake;
use towpath_executor::protocol::Leases;
use towpath_executor::{JobEnd, StartMessage};
use towpath_store::WriteError;

use super::pace::Pace;
use super::workers::Workers;
use super::{Failure, next_try};
use crate::engine::{AnyIntake, Engine};
use crate::executor::{Executor, Standing};
use crate::faults;

mod deliver;
mod ends;
mod held;
mod sources;
#[cfg(test)]
mod tests;

use deliver::Finished;
use held::{Compared, Has, Held, Nobodys, Place, Started, State, Stopped};
use sources::{Prepared, Tree, Unprepared, is_light, lease_of, set_aside};
pub use sources::{Sources, open_bases};

/// Times that a job is tried which may not begin now: a minute in all, with the rests between them. It keeps its slot
/// meanwhile, and a few runs of one repository would keep all slots from the others.
const TRIES_MAX: u32 = 16;
/// Between two of them at most: a cancel is heard after it.
const REST_MS_MAX: i64 = 5_000;
/// Work trees prepared at once: each is one git walk and the writing of files.
const PREPARERS: usize = 2;
/// Trees removed at once. A disk may take minutes for one, and no job waits for that.
const REMOVERS: usize = 1;

/// Reports of jobs read at once: most have none, and one may take a second.
const READERS: usize = 1;

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

/// Jobs between runs and the executor.
pub struct Jobs {
    sources: Sources,
    executor: OnceLock<Arc<Executor>>,
    engine: OnceLock<Engine>,
    state: Mutex<State>,
    pace: Mutex<Pace>,
    preparers: Workers,
    removers: Workers,
    /// Work trees are to give way, and nobody has begun with it.
    gives_way: AtomicBool,
    readers: Workers,
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
            removers: Workers::start(REMOVERS),
            gives_way: AtomicBool::new(false),
            readers: Workers::start(READERS),
        })
    }

    /// Joins jobs, engine and executor. Called once, before the executor's first event can matter.
    pub fn connect(&self, engine: Engine, executor: Arc<Executor>) {
        let _ = self.engine.set(engine);
        let _ = self.executor.set(executor);
    }

    /// The executor's name for a lease: also another one after a restore from a backup (trust T9).
    pub fn lease(&self, lease: &LeaseId) -> LeaseId {
        let incarnation = self.sources.store.incarnation();
        LeaseId(Digest::of_fields([&incarnation.0[..], &lease.0]).prefix())
    }

    /// When a job that is held began, if it has.
    pub fn started_at(&self, lease: &LeaseId) -> Option<Timestamp> {
        self.lock().held.get(&self.lease(lease)).and_then(|held| held.started_at)
    }

    /// Runs a job, or takes it over if the executor has it from an earlier server.
    pub fn start(self: &Arc<Self>, engine: &Engine, wanted: Wanted) {
        let lease = self.lease(&wanted.order.lease.id);
        let mut state = self.lock();
        match state.start(lease, wanted) {
            Started::Waits => {}
            Started::Adopted => {
                let held = state.held.entry(lease);
                held.and_modify(|held| held.tree = self.sources.pin(&held.wanted.order));
            }
            Started::New => self.queue(engine, &mut state, lease),
            Started::Over(wanted, over) => {
                drop(state);
                self.deliver_ends(engine, vec![Finished { wanted, over: *over }]);
            }
        }
    }

    /// Has a held job prepared.
    fn queue(self: &Arc<Self>, engine: &Engine, state: &mut State, lease: LeaseId) {
        let (me, engine) = (self.clone(), engine.clone());
        if state.held.get(&lease).is_none_or(|held| !is_light(&held.wanted.order)) {
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

    /// Stops a job; its end comes like any other. One that no executor has ends at once.
    pub fn cancel(self: &Arc<Self>, engine: &Engine, wanted: Wanted) {
        let lease = self.lease(&wanted.order.lease.id);
        let mut state = self.lock();
        match state.cancel(lease, wanted) {
            Stopped::Waits => {}
            Stopped::There => {
                if let Some(executor) = self.executor.get() {
                    executor.cancel(&lease);
                }
            }
            Stopped::Over(wanted, over) => {
                drop(state);
                self.deliver_ends(engine, vec![Finished { wanted, over: *over }]);
            }
            Stopped::Never(wanted) => {
                drop(state);
                self.end_never_begun(engine, vec![(lease, wanted)]);
            }
        }
    }

    /// Ends of jobs that could not be stored, and wait for their runs to ask for them again.
    pub fn ends_kept(&self) -> usize {
        self.lock().ends.kept()
    }

    /// Tells the pool how many jobs runs may have at the executor at once, until it knows. What is told is what holds by
    /// then: a word that was refused is not said again.
    pub fn tell_capacity(self: &Arc<Self>, engine: &Engine) {
        // Until the word has its place in the line: the pool takes the last one for true.
        let state = self.lock();
        let intake = AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots: self.capacity(&state) }));
        let (me, later) = (self.clone(), engine.clone());
        engine.deliver(CellId::Pool, intake, move |outcome| match outcome {
            // The next start tells it.
            Ok(()) | Err(WriteError::Closed | WriteError::Fenced { .. }) => {}
            Err(error) => {
                tracing::error!(%error, "the pool was not told of its slots; it is tried again: {error}");
                later.after_rest(Box::new(move |engine| me.tell_capacity(engine)));
            }
        });
    }

    fn capacity(&self, state: &State) -> u64 {
        // Whoever is given none waits in the pool, where it is seen to wait and may be overtaken.
        if state.leaves() { 0 } else { self.pace().capacity() }
    }

    fn note_pace(self: &Arc<Self>, engine: &Engine, duration_ms: u64) {
        if self.pace().note(duration_ms).is_some() {
            self.tell_capacity(engine);
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
            match state.ended(&lease) {
                Some(held) => finished.push(Finished { wanted: held.wanted, over: end.into() }),
                // From an earlier server's time: the run that owns it asks for it.
                None => state.ends.told(end),
            }
        }
        self.drop_nobodys(&mut state);
        drop(state);
        if let Some(engine) = self.engine.get() {
            finished.iter().for_each(|one| self.note_pace(engine, one.over.end.result.duration_ms));
            self.deliver_ends(engine, finished);
        }
    }

    /// Every run has said what it wants: whatever else the executor has is nobody's, and so is what earlier servers have
    /// prepared for jobs.
    pub fn all_claimed(self: &Arc<Self>) {
        let mut state = self.lock();
        state.all_claimed();
        self.drop_nobodys(&mut state);
        drop(state);
        let me = self.clone();
        self.removers.run(Box::new(move || me.let_former_go()));
    }

    fn let_former_go(self: &Arc<Self>) {
        if let Err(error) = self.sources.bases.let_former_go() {
            tracing::warn!(%error, "work trees that no job uses stay for now: {error}");
        }
        self.give_way();
        let folders = self.sources.histories();
        let state = self.lock();
        let is_nobodys = |folder: &&PathBuf| !lease_of(folder).is_some_and(|lease| state.is_open(&lease));
        // Under the lock, so that a job whose run asks only now has its folder made anew.
        let aside = folders.iter().filter(is_nobodys).filter_map(|folder| set_aside(folder)).collect();
        drop(state);
        sources::remove_all(aside);
    }

    /// Work trees that no job uses go where there are too many, or the disk has less room than a job may take. Returns at once.
    pub fn give_way(self: &Arc<Self>) {
        if self.gives_way.swap(true, Ordering::Relaxed) {
            return;
        }
        let me = self.clone();
        self.removers.run(Box::new(move || {
            // First, so that whoever asks from now on is heard.
            me.gives_way.store(false, Ordering::Relaxed);
            me.sources.give_way();
        }));
    }

    fn drop_nobodys(&self, state: &mut State) {
        let Some(executor) = self.executor.get() else { return };
        let Nobodys { stop, forget } = state.take_nobodys();
        stop.iter().for_each(|lease| executor.cancel(lease));
        if !forget.is_empty() {
            executor.ack(forget);
        }
    }

    /// There is an executor, the first one or a successor, or it has let go of some jobs: what this server takes each job for
    /// is put right by what that one has. `adopt` makes it the one that jobs are given to: a job that it gets before its list is looked at would not
    /// be on that list.
    pub fn resume(self: &Arc<Self>, leases: &Leases, standing: &Standing, adopt: impl FnOnce()) {
        let mut state = self.lock();
        adopt();
        let left = state.leaves();
        let Compared { cancel, prepare, send, never } = state.found(leases, standing);
        let turned = left != state.leaves();
        self.drop_nobodys(&mut state);
        if let Some(executor) = self.executor.get() {
            cancel.iter().for_each(|lease| executor.cancel(lease));
        }
        // Without an engine no run has asked for anything yet.
        let Some(engine) = self.engine.get() else { return };
        prepare.into_iter().for_each(|lease| self.queue(engine, &mut state, lease));
        drop(state);
        self.submit(send);
        self.end_never_begun(engine, never);
        if turned {
            self.tell_capacity(engine);
        }
    }

    /// Gives jobs to the executor, or keeps them until there is one.
    fn submit(self: &Arc<Self>, mut jobs: Vec<StartMessage>) {
        let mut state = self.lock();
        let is_kept = |job: &StartMessage| !state.held.get(&job.lease()).is_some_and(Held::is_to_be_sent);
        let kept: Vec<LeaseId> = jobs.extract_if(.., |job| is_kept(job)).map(|job| job.lease()).collect();
        let leases: Vec<LeaseId> = jobs.iter().map(StartMessage::lease).collect();
        let given = match self.executor.get() {
            Some(executor) => executor.submit(jobs),
            None => Err(jobs),
        };
        for lease in leases.iter().filter(|_| given.is_ok()) {
            state.held.entry(*lease).and_modify(|held| held.place = Place::There(Has::Job));
        }
        for job in given.err().into_iter().flatten() {
            let (lease, place) = (job.lease(), state.place_of_unsent(job));
            state.held.entry(lease).and_modify(|held| held.place = place);
        }
        let never = kept.into_iter().filter_map(|lease| Some((lease, state.release_cancelled(&lease)?)));
        let never = never.collect();
        drop(state);
        if let Some(engine) = self.engine.get() {
            self.end_never_begun(engine, never);
        }
    }

    fn end_never_begun(self: &Arc<Self>, engine: &Engine, never: Vec<(LeaseId, Wanted)>) {
        let finished = |(lease, wanted)| Finished { wanted, over: (*never_begun(lease)).into() };
        self.deliver_ends(engine, never.into_iter().map(finished).collect());
    }

    fn prepare(self: &Arc<Self>, engine: &Engine, leases: Vec<LeaseId>) {
        let prepared = |lease| self.prepared(engine, lease, |order| self.sources.prepare(lease, order));
        let jobs = leases.into_iter().filter_map(prepared).collect();
        // The executor waits for more while there is little. What a job may take in all is made free behind its back.
        self.sources.give_ample_way();
        self.submit(jobs);
        self.give_way();
        faults::point("run-job", "sent");
    }

    /// What the executor is to do, as `make` has it; `None` if the job is not to be given to it.
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
            Some(order) => catch_unwind(AssertUnwindSafe(|| make(&order))).unwrap_or_else(|_| {
                let why = "it could not be prepared: a bug of Towpath, of which the server's log has more";
                Err(Unprepared::Over(unrun(lease, Outcome::Errored, why)))
            }),
            None => Err(Unprepared::Over(never_begun(lease))),
        };
        let mut state = self.lock();
        let is_patient = state.times_given_back(&lease) < TRIES_MAX;
        // Making it took its time: whatever its run has asked meanwhile holds. Nothing is heard under the order before.
        let held = state.held.get_mut(&lease).filter(|held| matches!(held.place, Place::Here))?;
        match prepared {
            Ok((job, tree)) => {
                held.tree = tree;
                return Some(job);
            }
            Err(Unprepared::Later(failure)) if is_patient && !held.cancelled => {
                let (wanted, tries) = state.give_back(&lease)?;
                drop(state);
                tell_trouble(engine, wanted, failure, tries);
            }
            Err(unprepared) => {
                let Held { wanted, cancelled, .. } = state.release(&lease)?;
                drop(state);
                let over = (*unprepared.end(lease, cancelled)).into();
                self.deliver_ends(engine, vec![Finished { wanted, over }]);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a run owe a job that no executor has once more, later.
fn tell_trouble(engine: &Engine, wanted: Wanted, failure: Failure, tries: u32) {
    let Wanted { cell, key, token, .. } = wanted;
    tracing::warn!(effect.key = %key, tries, "the job of `{key}` cannot begin now: {}", failure.why);
    let now = engine.clock().now();
    let next_try = next_try(now, failure.class, tries).min(Timestamp(now.0 + REST_MS_MAX));
    let trouble = Trouble { class: failure.class, why: failure.why, tries, next_try };
    engine.deliver_surely(cell, AnyIntake::Run(Intake::Trouble { key, token, trouble }));
}

fn never_begun(lease: LeaseId) -> Box<JobEnd> {
    unrun(lease, Outcome::Cancelled, "cancelled before it began")
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
