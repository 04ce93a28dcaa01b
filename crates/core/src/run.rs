//! The run cell: one job graph in execution, its jobs, attempts and leases.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::cell::{Cell, CellId, CellState, Field, Notes, Row, RowError, Rows, Table};
use crate::effect::{Effect, EffectKey, JobInput, JobOrder, Plan};
use crate::graph::{
    JobGraph, JobIndex, JobResult, Lease, Outcome, SkipReason, Trigger, WHY_BYTES_MAX, cut_why,
};
use crate::ids::{CommitId, Digest, EnvironmentId, JobName, LeaseId, RunId, Timestamp};
use crate::message::{Admission, Demand, JobReport, Message, RunReport, RunStart};

mod deploying;
mod giving_up;
mod progress;

pub use deploying::RESTORED;
pub use progress::counts;

/// The run cell.
#[derive(Debug)]
pub enum Run {}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEvent {
    /// Begin.
    Start(Arc<RunStart>),
    /// The result no longer matters.
    Cancel {
        /// Why, for people.
        why: String,
    },
    /// Slots granted since the run began.
    Granted {
        /// Only ever grows.
        total: u64,
    },
    /// It is a job's turn to deploy to its environment.
    Admitted(Admission),
    /// One attempt of a job is over.
    JobEnded {
        /// Which attempt.
        lease: Lease,
        /// What it left.
        result: Box<JobResult>,
    },
    /// What it would write is more than the store takes, and would be each time.
    TooLarge {
        /// The store's words.
        why: String,
    },
    /// The data are from a backup that has this run. Said again, it changes nothing.
    Restored,
    /// A person has accepted what the restore lost.
    RestoreAccepted,
}

/// How far a job is. A job without a row waits for its needs or for a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Tried before, waits for a slot again.
    Again {
        /// Results of the tries so far, oldest first.
        tries: Vec<Arc<JobResult>>,
    },
    /// With an executor.
    Running {
        /// This attempt.
        lease: Lease,
        /// Since when.
        since: Timestamp,
        /// Set when it was told to stop.
        stopping: Option<String>,
        /// It deploys and was under way when the data were saved: nobody knows what has become of it.
        #[serde(default)]
        restored: bool,
        /// Results of earlier tries, oldest first.
        tries: Vec<Arc<JobResult>>,
    },
    /// Over.
    Done {
        /// What counts.
        result: Arc<JobResult>,
        /// Results of earlier tries, oldest first.
        tries: Vec<Arc<JobResult>>,
        /// The earlier run that the result was taken from.
        carried: Option<RunId>,
        /// When.
        at: Timestamp,
    },
}

impl JobState {
    fn tries(&self) -> &[Arc<JobResult>] {
        match self {
            JobState::Again { tries } | JobState::Running { tries, .. } | JobState::Done { tries, .. } => {
                tries
            }
        }
    }

    /// Whether it passed after a try at which the code under test was at fault. A try that our machines lost says nothing
    /// about the code.
    pub fn is_flaky(&self) -> bool {
        let JobState::Done { result, tries, .. } = self else { return false };
        let at_fault = |tried: &Arc<JobResult>| matches!(tried.outcome, Outcome::Failed | Outcome::TimedOut);
        result.outcome == Outcome::Passed && tries.iter().any(at_fault)
    }
}

/// How far a job is with the environment that it deploys to. A job without a row has not claimed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// It waits for its turn.
    Claimed,
    /// It has it until it is over.
    Admitted {
        /// The deployment's number there.
        number: u64,
        /// What was there before.
        before: Option<CommitId>,
    },
}

/// How far the run as a whole is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Whole {
    started_at: Timestamp,
    /// Slots granted so far.
    granted: u64,
    cancelled: Option<String>,
    /// Why what its jobs left can be neither kept nor told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up: Option<String>,
    /// Nobody has accepted yet what a restore lost: nothing is deployed.
    #[serde(default)]
    halted: bool,
    ended: Option<(Outcome, Timestamp)>,
}

/// A run and its jobs.
#[derive(Debug)]
pub struct RunState {
    id: RunId,
    start: Field<Option<Arc<RunStart>>>,
    whole: Field<Whole>,
    jobs: Table<u32, JobState>,
    turns: Table<u32, Turn>,
    graph: JobGraph,
    notes: Notes,
    // Derived from the rows by `loaded`, kept up by every change.
    ready: BTreeSet<JobIndex>,
    running: BTreeSet<JobIndex>,
    needs_left: Vec<u32>,
    dependants: Vec<Vec<JobIndex>>,
    open: usize,
    lost: Option<JobName>,
    /// Started in this turn: no driver has them yet, so that nobody would answer for them.
    fresh: BTreeSet<JobIndex>,
}

impl Cell for Run {
    type State = RunState;
    type Event = RunEvent;

    fn apply(state: &mut RunState, event: &RunEvent, now: Timestamp) {
        match event {
            RunEvent::Start(start) => state.begin(start, now),
            RunEvent::Cancel { why } => state.cancel(why, now),
            RunEvent::Granted { total } => state.granted(*total, now),
            RunEvent::Admitted(admission) => state.admitted(admission),
            RunEvent::JobEnded { lease, result } => state.job_ended(lease, result, now),
            RunEvent::TooLarge { why } => state.give_up(why, now),
            RunEvent::Restored => state.restored(now),
            RunEvent::RestoreAccepted => state.restore_accepted(),
        }
        state.advance(now);
    }

    fn plan(state: &RunState, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(start) = &*state.start else { return plan };
        for (job, lease, restored) in state.wanted() {
            let subject = format!("{} {}", state.id, job.0);
            let order = state.order(start, job, (lease, restored));
            plan.owe(
                EffectKey::once("run-job", subject, lease.attempt.into()),
                Effect::RunJob(Box::new(order)),
            );
        }
        state.owe_claims(start, &mut plan);
        plan.owe(
            EffectKey::level("demand", &state.id),
            Effect::Send { to: CellId::Pool, message: Message::Demand(state.demand()) },
        );
        if let Some((outcome, _)) = state.whole.ended {
            plan.owe(
                EffectKey::once("run-ended", &state.id, 1),
                Effect::Send {
                    to: CellId::Gate(state.id.gate.clone()),
                    message: Message::RunEnded(Arc::new(state.report(start, outcome))),
                },
            );
        }
        plan
    }
}

impl RunState {
    /// What the run was started with, once it is.
    pub fn start(&self) -> Option<&RunStart> {
        self.start.as_deref()
    }

    /// How far one job is; `None`: it waits for its needs or a slot.
    pub fn job(&self, job: JobIndex) -> Option<&JobState> {
        self.jobs.get(&job.0)
    }

    /// How and when the run ended.
    pub fn ended(&self) -> Option<(Outcome, Timestamp)> {
        self.whole.ended
    }

    /// When it was started.
    pub fn started_at(&self) -> Timestamp {
        self.whole.started_at
    }

    /// Jobs whose needs are done and that only lack a slot.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether a lease is the current one of a running job: anything else is fenced off (invariant I7).
    pub fn holds(&self, lease: &LeaseId) -> bool {
        self.running.iter().any(|job| self.lease(*job).is_some_and(|held| held.id == *lease))
    }

    fn lease(&self, job: JobIndex) -> Option<&Lease> {
        match self.jobs.get(&job.0)? {
            JobState::Running { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Running jobs whose result still matters, and whether the data were restored meanwhile.
    fn wanted(&self) -> impl Iterator<Item = (JobIndex, &Lease, bool)> {
        self.running.iter().filter_map(|job| match self.jobs.get(&job.0) {
            Some(JobState::Running { lease, stopping: None, restored, .. }) => Some((*job, lease, *restored)),
            _ => None,
        })
    }

    fn demand(&self) -> Demand {
        let running = self.running.len() as u64;
        Demand {
            run: self.id.clone(),
            priority: self.start.as_ref().map_or(0, |start| start.priority),
            asked: self.whole.granted + self.ready.len() as u64,
            returned: self.whole.granted.saturating_sub(running),
        }
    }

    fn order(&self, start: &RunStart, job: JobIndex, (lease, restored): (&Lease, bool)) -> JobOrder {
        let spec = self.graph.job(job).clone();
        let inputs = spec.needs.iter().filter_map(|need| self.input(*need)).collect();
        JobOrder {
            run: self.id.clone(),
            lease: lease.clone(),
            restored,
            spec,
            commit: start.commit,
            tree: start.tree,
            level: start.level,
            facts: self.facts(start, job),
            inputs,
        }
    }

    fn input(&self, need: JobIndex) -> Option<JobInput> {
        match self.jobs.get(&need.0)? {
            JobState::Done { result, .. } => Some(JobInput {
                job: need,
                name: self.graph.job(need).inputs_folder(),
                outputs: result.outputs.clone(),
            }),
            _ => None,
        }
    }

    fn report(&self, start: &RunStart, outcome: Outcome) -> RunReport {
        let digests = self.graph.digests();
        let jobs = self.graph.iter().filter_map(|(index, spec)| match self.jobs.get(&index.0)? {
            JobState::Done { result, carried, .. } => Some(JobReport {
                job: index,
                name: spec.name.to_string(),
                digest: digests[index.0 as usize],
                result: told(result),
                carried: carried.clone(),
            }),
            _ => None,
        });
        RunReport { run: start.run.clone(), outcome, jobs: jobs.collect() }
    }

    fn results_digest(&self) -> Digest {
        let fields: Vec<Vec<u8>> = self
            .graph
            .iter()
            .filter_map(|(index, spec)| match self.jobs.get(&index.0)? {
                JobState::Done { result, .. } => {
                    let text = serde_json::to_vec(&(spec.name.as_str(), result));
                    Some(text.expect("invariant: a result has only types that JSON can hold"))
                }
                _ => None,
            })
            .collect();
        Digest::of_fields(fields.iter().map(Vec::as_slice))
    }
}

/// A result as gates are told of it: without reports and the names of tests, which decide nothing and of which thousands
/// of jobs could have more than a message may hold. A row of an earlier version may have a longer sentence, too.
fn told(result: &Arc<JobResult>) -> Arc<JobResult> {
    let is_short = result.why.len() <= WHY_BYTES_MAX;
    match result.junit.is_none() && result.failed_tests.is_empty() && is_short {
        true => result.clone(),
        false => Arc::new(JobResult {
            junit: None,
            failed_tests: Vec::new(),
            why: cut_why(result.why.as_str()),
            ..(**result).clone()
        }),
    }
}

/// The lease of one attempt: equal on every planning of it, different from that of any other attempt or run.
fn lease(run: &RunId, job: JobIndex, attempt: u32) -> Lease {
    let text = format!("lease {run} {} {attempt}", job.0);
    Lease { id: LeaseId(Digest::of(text.as_bytes()).prefix()), job, attempt }
}

impl CellState for RunState {
    fn new(id: &CellId) -> Self {
        let CellId::Run(id) = id else {
            panic!("invariant: a run's state is only made for a run cell, not {id}")
        };
        RunState {
            id: id.clone(),
            start: Field::new("start", None),
            whole: Field::new("whole", Whole::default()),
            jobs: Table::new("job"),
            turns: Table::new("turn"),
            graph: JobGraph::default(),
            notes: Notes::default(),
            ready: BTreeSet::new(),
            running: BTreeSet::new(),
            needs_left: Vec::new(),
            dependants: Vec::new(),
            open: 0,
            lost: None,
            fresh: BTreeSet::new(),
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.start.take(&mut rows);
        self.whole.take(&mut rows);
        self.jobs.take(&mut rows);
        self.turns.take(&mut rows);
        rows
    }

    fn put_row(&mut self, row: &Row) -> Result<(), RowError> {
        match self.start.put(row)? || self.whole.put(row)? || self.jobs.put(row)? || self.turns.put(row)? {
            true => Ok(()),
            false => Err(RowError::new(&row.key, "no such row in a run")),
        }
    }

    fn loaded(&mut self) {
        if let Some(start) = &*self.start {
            self.graph = start.graph.clone();
            self.derive();
        }
    }

    fn handed_out(&mut self, effect: &Effect, _now: Timestamp) {
        if let Effect::RunJob(order) = effect {
            self.fresh.remove(&order.lease.job);
        }
    }

    fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    fn is_finished(&self) -> bool {
        self.whole.ended.is_some()
    }
}

#[cfg(test)]
mod tests;
