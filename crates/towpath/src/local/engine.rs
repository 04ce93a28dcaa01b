//! The real `run` and `pool` cells over a store that is this process's memory, with the executor in this process.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use towpath_blob::BlobStore;
use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey, JobOrder};
use towpath_core::graph::{JobIndex, JobResult, Lease, Outcome, Trigger};
use towpath_core::ids::{CommitId, Epoch, JobName, LeaseId, RunId, Timestamp, TreeId};
use towpath_core::message::{Admission, Message, RunReport, RunStart};
use towpath_core::outbox::Dispatch;
use towpath_core::policy::Level;
use towpath_core::pool::{Pool, PoolEvent};
use towpath_core::run::{Run, RunEvent, RunState};
use towpath_core::turn::{Delivered, EVENTS_PER_TURN_MAX, Intake, Live};
use towpath_executor::{JobEnd, JobPool, StartSpec};
use towpath_server::reports;

use crate::local::selection::Selection;

/// There is one local run at a time in one process, and it is the first of its gate.
const RUN: &str = "local/work-tree/1";

/// Where jobs get their files from.
#[derive(Debug, Clone)]
pub struct Site {
    /// The copied work tree.
    pub base: PathBuf,
    /// The same with `.git`, where a job asks for its history.
    pub with_history: Option<PathBuf>,
    /// The commit that the work tree began from.
    pub head: Option<(CommitId, TreeId)>,
    /// Facts for jobs, as `TOWPATH_<KEY>`.
    pub facts: BTreeMap<String, String>,
}

/// A run, the pool of its slots, and what lies in their inboxes.
pub struct Engine<'a> {
    run: Live<Run>,
    pool: Live<Pool>,
    run_inbox: Vec<Delivered<RunEvent>>,
    pool_inbox: Vec<Delivered<PoolEvent>>,
    seq: u64,
    executor: &'a JobPool,
    /// Where jobs leave their reports.
    blobs: BlobStore,
    site: Site,
    left_out: BTreeMap<JobName, String>,
    /// Jobs with the executor: where their end is to be answered.
    issued: HashMap<LeaseId, Issued>,
    /// The newest lease of each job: its log's name.
    leases: BTreeMap<JobIndex, LeaseId>,
    report: Option<Arc<RunReport>>,
}

struct Issued {
    key: EffectKey,
    token: u64,
    lease: Lease,
}

impl<'a> Engine<'a> {
    /// A run of the selected jobs, about to begin.
    pub fn new(
        (executor, blobs): (&'a JobPool, BlobStore),
        slots: u32,
        site: Site,
        selection: &Selection,
    ) -> Engine<'a> {
        let run: RunId = RUN.parse().expect("invariant: it is written as a run is");
        let load = "invariant: there are no rows that could be wrong";
        let mut engine = Engine {
            run: Live::load(CellId::Run(run.clone()), Epoch(1), &[], []).expect(load),
            pool: Live::load(CellId::Pool, Epoch(1), &[], []).expect(load),
            run_inbox: Vec::new(),
            pool_inbox: Vec::new(),
            seq: 0,
            executor,
            blobs,
            left_out: selection.left_out.clone(),
            issued: HashMap::new(),
            leases: BTreeMap::new(),
            report: None,
            site,
        };
        let start = engine.start(run, selection);
        engine.tell_pool(PoolEvent::Capacity { slots: slots.into() });
        engine.tell_run(Intake::Event(RunEvent::Start(Arc::new(start))));
        engine
    }

    /// How far it is.
    pub fn state(&self) -> &RunState {
        &self.run.state
    }

    /// The end, once it is there.
    pub fn report(&self) -> Option<&RunReport> {
        self.report.as_deref()
    }

    /// The lease of a job's newest attempt, if it had one.
    pub fn newest_lease(&self, job: JobIndex) -> Option<LeaseId> {
        self.leases.get(&job).copied()
    }

    /// Has the run stopped.
    pub fn cancel(&mut self, why: &str) {
        self.tell_run(Intake::Event(RunEvent::Cancel { why: why.to_owned() }));
    }

    /// Takes a job's end in. One that nobody waits for any more is no fact.
    pub fn ended(&mut self, end: JobEnd) {
        let Some(Issued { key, token, lease }) = self.issued.remove(&end.lease) else { return };
        let mut result = end.result;
        if let Some(junit) = end.junit {
            reports::read(&self.blobs, &junit).tell(&mut result);
        }
        self.answer(key, token, lease, result);
    }

    /// Turns until nothing is left to be taken in. A cell that got nothing has no turn: one that has ended would tell
    /// of its end again.
    pub fn settle(&mut self) {
        loop {
            if !self.pool_inbox.is_empty() {
                let inbox = take(&mut self.pool_inbox);
                let turn = self.pool.turn(&inbox, now());
                self.deliver(turn.write.messages);
            } else if !self.run_inbox.is_empty() {
                let inbox = take(&mut self.run_inbox);
                let turn = self.run.turn(&inbox, now());
                self.deliver(turn.write.messages);
                turn.dispatch.into_iter().for_each(|dispatch| self.carry_out(dispatch));
            } else {
                return;
            }
        }
    }

    fn start(&self, run: RunId, selection: &Selection) -> RunStart {
        let (commit, tree) = self.site.head.unwrap_or((CommitId([0; 20]), TreeId([0; 20])));
        RunStart {
            run,
            trigger: Trigger::Manual,
            change: None,
            reason: "asked for on this machine".to_owned(),
            by: None,
            commit,
            tree,
            level: Level::Authorised,
            graph: selection.graph.clone(),
            carried: BTreeMap::new(),
            priority: 0,
            fail_fast: false,
            restored: false,
            facts: self.site.facts.clone(),
        }
    }

    fn next(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn tell_run(&mut self, intake: Intake<RunEvent>) {
        let delivered = Delivered { seq: self.next(), at: now(), intake };
        self.run_inbox.push(delivered);
    }

    fn tell_pool(&mut self, event: PoolEvent) {
        let delivered = Delivered { seq: self.next(), at: now(), intake: Intake::Event(event) };
        self.pool_inbox.push(delivered);
    }

    fn deliver(&mut self, messages: Vec<(CellId, Message)>) {
        for (to, message) in messages {
            match (to, message) {
                // The gate of a local run is the person who waits for it.
                (CellId::Gate(_), Message::RunEnded(report)) => self.report = Some(report),
                (CellId::Run(_), message) => {
                    let event =
                        RunEvent::try_from(message).expect("invariant: cells send what is understood");
                    self.tell_run(Intake::Event(event));
                }
                (CellId::Pool, message) => {
                    let event =
                        PoolEvent::try_from(message).expect("invariant: cells send what is understood");
                    self.tell_pool(event);
                }
                // Nothing is deployed from here, and what is left out waits for nobody.
                (CellId::Environment(_), Message::Claim(claim)) => {
                    let admission = Admission { job: claim.job, number: 0, before: None };
                    self.tell_run(Intake::Event(RunEvent::Admitted(admission)));
                }
                (CellId::Environment(_), Message::Release(_)) => {}
                (to, message) => unreachable!("invariant: a run tells {to} nothing but its end: {message:?}"),
            }
        }
    }

    fn carry_out(&mut self, dispatch: Dispatch) {
        match dispatch {
            Dispatch::Do { key, token, effect: Effect::RunJob(order) } => self.start_job(key, token, *order),
            Dispatch::Cancel { effect: Effect::RunJob(order), .. } => self.executor.cancel(&order.lease.id),
            other => unreachable!("invariant: a run owes nothing but jobs: {other:?}"),
        }
    }

    fn start_job(&mut self, key: EffectKey, token: u64, order: JobOrder) {
        if let Some(why) = self.left_out.get(&order.spec.name) {
            let result = JobResult::unrun(Outcome::Skipped, why.clone());
            return self.answer(key, token, order.lease, result);
        }
        let history = order.spec.body.history;
        let base = self.site.with_history.as_ref().filter(|_| history).unwrap_or(&self.site.base);
        let mut facts: BTreeMap<String, String> =
            order.facts.iter().map(|(key, value)| (format!("TOWPATH_{key}"), value.clone())).collect();
        if let Some((commit, _)) = self.site.head.filter(|_| history) {
            facts.insert("TOWPATH_COMMIT".to_owned(), commit.to_string());
        }
        let spec = StartSpec {
            attempt: order.lease.attempt,
            base: Some(base.clone()),
            facts,
            inputs: order.input_folders(),
            ..StartSpec::new(order.lease.id, order.spec.name.clone(), (*order.spec.body).clone())
        };
        self.leases.insert(order.lease.job, order.lease.id);
        self.issued.insert(order.lease.id, Issued { key, token, lease: order.lease });
        self.executor.submit([spec]);
    }

    fn answer(&mut self, key: EffectKey, token: u64, lease: Lease, result: JobResult) {
        let result = RunEvent::JobEnded { lease, result: Box::new(result) };
        self.tell_run(Intake::Done { key, token, result: Some(result) });
    }
}

fn take<E>(inbox: &mut Vec<Delivered<E>>) -> Vec<Delivered<E>> {
    let count = inbox.len().min(EVENTS_PER_TURN_MAX);
    inbox.drain(..count).collect()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
