//! Runs jobs on the executor: prepares what a job sees, hands it over, and takes its end into the run's inbox.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use towpath_blob::BlobStore;
use towpath_core::cell::CellId;
use towpath_core::effect::{EffectKey, JobOrder};
use towpath_core::graph::{JobResult, Outcome};
use towpath_core::ids::{Digest, LeaseId, Timestamp};
use towpath_core::run::RunEvent;
use towpath_core::turn::{Intake, TroubleClass};
use towpath_executor::protocol::Leases;
use towpath_executor::{JobEnd, JobEvent, Limits, StartSpec};
use towpath_git::{Base, BaseStore, ExportOptions, Files};
use towpath_store::Incarnation;

use super::Failure;
use super::workers::Workers;
use crate::engine::{AnyIntake, Engine};
use crate::executor::Executor;
use crate::faults;
use crate::reports;
use crate::repos::Repos;
use crate::secrets::Secrets;

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

/// A job on its way to the executor, or there.
struct Held {
    wanted: Wanted,
    cancelled: bool,
    sent: bool,
    /// Ready, but there was no executor.
    waiting: Option<Box<StartSpec>>,
    started_at: Option<Timestamp>,
    /// Keeps the base of the work tree from being evicted.
    _tree: Option<Tree>,
}

/// What is held for as long as a job may read it.
#[expect(dead_code, reason = "dropping it is its only use")]
enum Tree {
    Base(Base),
    History(tempfile::TempDir),
}

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
    preparers: Workers,
}

#[derive(Default)]
struct State {
    held: HashMap<LeaseId, Held>,
    /// Ends of jobs that an earlier server started and that no run has asked for again yet.
    unclaimed: HashMap<LeaseId, Box<JobEnd>>,
    /// What the executor had when it was found.
    found: HashSet<LeaseId>,
    all_claimed: bool,
}

impl Jobs {
    /// Jobs without an executor yet: what is started waits for [`Jobs::connect`].
    pub fn new(sources: Sources) -> Arc<Jobs> {
        Arc::new(Jobs {
            sources,
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
        if let Some(end) = state.unclaimed.remove(&lease) {
            drop(state);
            return self.deliver_end(engine, wanted, lease, *end);
        }
        if let Some(held) = state.held.get_mut(&lease) {
            held.wanted = wanted;
            held.cancelled = false;
            return;
        }
        let held =
            Held { wanted, cancelled: false, sent: false, waiting: None, started_at: None, _tree: None };
        state.held.insert(lease, held);
        drop(state);
        let (me, engine) = (self.clone(), engine.clone());
        self.preparers.run(Box::new(move || me.prepare(&engine, lease)));
    }

    /// Stops a job; its end comes like any other. One that is not there any more ends at once.
    pub fn cancel(self: &Arc<Self>, engine: &Engine, wanted: Wanted) {
        let lease = self.lease(&wanted.order.lease.id);
        let mut state = self.lock();
        match state.held.get_mut(&lease) {
            Some(held) => {
                held.wanted = wanted;
                held.cancelled = true;
                if held.waiting.take().is_some() {
                    let held = state.held.remove(&lease).expect("invariant: it was just found");
                    drop(state);
                    let end = unrun(lease, Outcome::Cancelled, "cancelled before it began");
                    return self.deliver_end(engine, held.wanted, lease, *end);
                }
                if held.sent
                    && let Some(executor) = self.executor.get()
                {
                    executor.cancel(&lease);
                }
            }
            None => {
                let end = state.unclaimed.remove(&lease);
                drop(state);
                if let Some(executor) = self.executor.get() {
                    executor.cancel(&lease);
                }
                let end =
                    end.unwrap_or_else(|| unrun(lease, Outcome::Cancelled, "cancelled before it began"));
                self.deliver_end(engine, wanted, lease, *end);
            }
        }
    }

    /// What the executor says.
    pub fn heard(self: &Arc<Self>, event: JobEvent) {
        match event {
            JobEvent::Started(lease) => {
                let now = crate::clock::system_time();
                if let Some(held) = self.lock().held.get_mut(&lease) {
                    held.started_at = Some(now);
                }
            }
            JobEvent::Ended(end) => {
                let lease = end.lease;
                let mut state = self.lock();
                match (state.held.remove(&lease), self.engine.get()) {
                    (Some(held), Some(engine)) => {
                        drop(state);
                        self.deliver_end(engine, held.wanted, lease, *end);
                    }
                    // From an earlier server's time: the run that owns it asks for it.
                    _ => drop(state.unclaimed.insert(lease, end)),
                }
            }
        }
    }

    /// Every run has said what it wants: whatever else the executor has is nobody's.
    pub fn all_claimed(&self) {
        let mut state = self.lock();
        state.all_claimed = true;
        self.drop_unclaimed(&mut state);
    }

    fn drop_unclaimed(&self, state: &mut State) {
        let Some(executor) = self.executor.get().filter(|_| state.all_claimed) else { return };
        for lease in std::mem::take(&mut state.unclaimed).into_keys() {
            executor.ack(&lease);
        }
        for lease in
            std::mem::take(&mut state.found).into_iter().filter(|lease| !state.held.contains_key(lease))
        {
            executor.cancel(&lease);
            executor.ack(&lease);
        }
    }

    /// There is an executor, the first one or a successor: jobs that waited for it are given to it, and those that it
    /// does not know although an executor had them died with that one.
    pub fn resume(self: &Arc<Self>, leases: &Leases) {
        let known: HashSet<&LeaseId> = leases.active.iter().chain(&leases.unacked).collect();
        let mut state = self.lock();
        state.found = leases.active.iter().copied().collect();
        self.drop_unclaimed(&mut state);
        let waiting: Vec<StartSpec> =
            state.held.values_mut().filter_map(|held| held.waiting.take().map(|spec| *spec)).collect();
        let is_lost =
            |(lease, held): (&LeaseId, &Held)| (held.sent && !known.contains(lease)).then_some(*lease);
        let lost: Vec<LeaseId> = state.held.iter().filter_map(is_lost).collect();
        let lost: Vec<(LeaseId, Held)> =
            lost.into_iter().filter_map(|lease| Some((lease, state.held.remove(&lease)?))).collect();
        drop(state);
        waiting.into_iter().for_each(|spec| self.submit(spec));
        let Some(engine) = self.engine.get() else { return };
        for (lease, held) in lost {
            let outcome = if held.cancelled { Outcome::Cancelled } else { Outcome::Errored };
            self.deliver_end(
                engine,
                held.wanted,
                lease,
                *unrun(lease, outcome, "the executor died while it ran"),
            );
        }
    }

    /// Gives a job to the executor, or keeps it until there is one.
    fn submit(&self, spec: StartSpec) {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(&spec.lease) else { return };
        let given = match self.executor.get() {
            Some(executor) => executor.submit(spec),
            None => Err(Box::new(spec)),
        };
        match given {
            Ok(()) => held.sent = true,
            Err(spec) => held.waiting = Some(spec),
        }
    }

    fn prepare(self: &Arc<Self>, engine: &Engine, lease: LeaseId) {
        faults::point("run-job", "before");
        let Some((wanted, cancelled)) =
            self.lock().held.get(&lease).map(|held| (held.wanted.clone(), held.cancelled))
        else {
            return;
        };
        let prepared = match cancelled {
            true => Err(unrun(lease, Outcome::Cancelled, "cancelled before it began")),
            false => self.spec(lease, &wanted.order),
        };
        match prepared {
            Ok((spec, tree)) => self.send(engine, lease, spec, tree),
            Err(end) => {
                self.lock().held.remove(&lease);
                self.deliver_end(engine, wanted, lease, *end);
            }
        }
    }

    fn send(self: &Arc<Self>, engine: &Engine, lease: LeaseId, spec: StartSpec, tree: Option<Tree>) {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(&lease) else { return };
        if held.cancelled {
            let Some(held) = state.held.remove(&lease) else { return };
            drop(state);
            let end = unrun(lease, Outcome::Cancelled, "cancelled before it began");
            return self.deliver_end(engine, held.wanted, lease, *end);
        }
        held._tree = tree;
        drop(state);
        self.submit(spec);
        faults::point("run-job", "sent");
    }

    /// What the executor is to do; or, if it cannot be prepared, how the job ended.
    fn spec(&self, lease: LeaseId, order: &JobOrder) -> Result<(StartSpec, Option<Tree>), Box<JobEnd>> {
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
            inputs: inputs(order),
            secrets,
            limits: self.sources.limits,
            ..StartSpec::new(lease, order.spec.name.clone(), (*order.spec.body).clone())
        };
        Ok((spec, tree))
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
        let folder = folder.map_err(|error| Failure {
            class: TroubleClass::Transient,
            why: format!("cannot make a folder for the job's repository: {error}"),
        })?;
        let into = folder.path().join("tree");
        repository.export_repository(order.commit, &into, (Files::Written, &ExportOptions::default()))?;
        Ok((Some(into), Some(Tree::History(folder))))
    }

    /// Makes an end durable, with its rows; only then the executor may forget it.
    fn deliver_end(self: &Arc<Self>, engine: &Engine, wanted: Wanted, lease: LeaseId, end: JobEnd) {
        faults::point("run-job", "ended");
        let now = engine.clock().now();
        let tests =
            end.junit.as_ref().map(|junit| reports::read(&self.sources.blobs, junit)).unwrap_or_default();
        let mut end = end;
        end.result.failed_tests = reports::failed(&tests);
        let rows = reports::Rows::new(&wanted.order, lease, &end, &tests, now);
        let result =
            RunEvent::JobEnded { lease: wanted.order.lease.clone(), result: Box::new(end.result.clone()) };
        let intake = Intake::Done { key: wanted.key.clone(), token: wanted.token, result: Some(result) };
        let me = self.clone();
        let again = (engine.clone(), wanted.clone(), end);
        engine.deliver_with(vec![(wanted.cell.clone(), AnyIntake::Run(intake))], move |tx| rows.write(tx), move |outcome| {
            match outcome {
                Ok(()) => {
                    if let Some(executor) = me.executor.get() {
                        executor.ack(&lease);
                    }
                }
                // The next start hears of the end again: the executor keeps it until it is acknowledged.
                Err(towpath_store::WriteError::Closed | towpath_store::WriteError::Fenced { .. }) => {}
                Err(error) => {
                    let (engine, wanted, end) = again;
                    tracing::error!(%error, "the end of a job was not stored; it is tried again: {error}");
                    engine.after_rest(Box::new(move |engine| me.deliver_end(engine, wanted, lease, end)));
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outputs of needed jobs, each below the folder of its job.
fn inputs(order: &JobOrder) -> BTreeMap<String, Digest> {
    let all = order.inputs.iter().flat_map(|input| input.outputs.iter().map(move |output| (input, output)));
    all.map(|(input, (output, digest))| {
        let folder = match input.outputs.len() {
            1 => input.name.clone(),
            _ => format!("{}/{output}", input.name),
        };
        (folder, *digest)
    })
    .collect()
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
