//! Jobs of a run, with their attempts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::graph::{JobGraph, JobIndex, JobResult, JobSpec, Outcome};
use towpath_core::ids::{Digest, JobName, LeaseId, RunId, Timestamp};
use towpath_core::run::{JobState, RunState};
use towpath_store::View;

use super::{millis, word};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};

/// A job of a run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// Its place in the graph, from 0.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The key under `jobs:` that it is of: `unit` for `unit[3/4]`.
    pub key: String,
    /// `waiting`, `running` or `ended`.
    pub stage: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// One sentence.
    pub why: String,
    /// Whether landing needs it.
    pub required: bool,
    /// Places of the jobs that it waits for.
    pub needs: Vec<u32>,
    /// The environment that it deploys to.
    pub environment: Option<String>,
    /// Its body is the change's own, not the target's.
    pub own: bool,
    /// Tests that failed.
    pub failed_tests: Vec<String>,
    /// It passed only after it had failed.
    pub flaky: bool,
    /// It ran without a sandbox.
    pub unsandboxed: bool,
    /// Names of what it left.
    pub outputs: Vec<String>,
    /// The earlier run that its result was taken from.
    pub carried: Option<String>,
    /// When the running attempt began.
    pub since: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Milliseconds of the newest attempt.
    pub duration_ms: u64,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
}

/// One try of a job.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AttemptView {
    /// Counts from 1.
    pub attempt: u32,
    /// How it ended; absent: it runs.
    pub outcome: Option<String>,
    /// Exit code, or 128 + signal.
    pub exit_code: Option<i32>,
    /// One sentence.
    pub why: String,
    /// Milliseconds.
    pub duration_ms: u64,
}

impl JobView {
    /// A job as its run knows it.
    pub fn of(state: &RunState, (index, spec): (JobIndex, &JobSpec), now: Timestamp) -> JobView {
        let mut view = JobView::waiting(index, spec);
        let known = state.job(index);
        view.flaky = known.is_some_and(JobState::is_flaky);
        match known {
            None => {}
            Some(JobState::Again { tries }) => {
                view.why = "tried before; waits for a slot again".into();
                view.attempts = attempts(tries, 1);
            }
            Some(JobState::Running { lease, since, stopping, tries, .. }) => {
                view.stage = "running".into();
                view.why = stopping.clone().unwrap_or_default();
                view.since = Some(millis(*since));
                view.duration_ms = now.millis_since(*since);
                view.attempts = attempts(tries, 1);
                view.attempts.push(AttemptView {
                    attempt: lease.attempt,
                    outcome: None,
                    exit_code: None,
                    why: String::new(),
                    duration_ms: view.duration_ms,
                });
            }
            Some(JobState::Done { result, tries, carried, at }) => {
                view.end(result);
                view.carried = carried.as_ref().map(ToString::to_string);
                view.ended_at = Some(millis(*at));
                view.attempts = attempts(tries, 1);
                view.attempts.push(attempt(result, tries.len() as u32 + 1));
            }
        }
        if state.is_halted(index) {
            view.why = "nothing is deployed before an admin has accepted what a restore lost".into();
        }
        view
    }

    fn waiting(index: JobIndex, spec: &JobSpec) -> JobView {
        JobView {
            index: index.0,
            name: spec.name.to_string(),
            key: spec.base.to_string(),
            stage: "waiting".into(),
            outcome: None,
            why: String::new(),
            required: spec.required,
            needs: spec.needs.iter().map(|need| need.0).collect(),
            environment: spec.body.environment.as_ref().map(ToString::to_string),
            own: word(&spec.origin) == "own",
            failed_tests: Vec::new(),
            flaky: false,
            unsandboxed: false,
            outputs: Vec::new(),
            carried: None,
            since: None,
            ended_at: None,
            duration_ms: 0,
            attempts: Vec::new(),
        }
    }

    fn end(&mut self, result: &JobResult) {
        self.stage = "ended".into();
        self.outcome = Some(word(&result.outcome));
        self.why = result.why.clone();
        self.failed_tests = result.failed_tests.clone();
        self.unsandboxed = result.unsandboxed;
        self.outputs = result.outputs.keys().cloned().collect();
        self.duration_ms = result.duration_ms;
    }
}

fn attempts(tries: &[std::sync::Arc<JobResult>], first: u32) -> Vec<AttemptView> {
    tries.iter().zip(first..).map(|(result, number)| attempt(result, number)).collect()
}

fn attempt(result: &JobResult, number: u32) -> AttemptView {
    AttemptView {
        attempt: number,
        outcome: Some(word(&result.outcome)),
        exit_code: result.exit_code,
        why: result.why.clone(),
        duration_ms: result.duration_ms,
    }
}

/// One attempt of one job, found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Of which run.
    pub run: RunId,
    /// The job's name.
    pub name: JobName,
    /// The job's place in the graph.
    pub index: JobIndex,
    /// Which attempt.
    pub attempt: u32,
    /// Under which lease its log and outputs are; absent: it never ran.
    pub lease: Option<LeaseId>,
    /// Whether it is over, so that its log grows no more.
    pub over: bool,
    /// What it left, its reports included.
    pub outputs: BTreeMap<String, Digest>,
}

/// The attempt of the job in the path, which is called as [`PATH_JOB`] says: its newest one, unless another is asked for. A
/// result that was taken from an earlier run is found there.
///
/// # Errors
/// `NotFound`; `Invalid` for a key of several jobs none of which is meant before the others.
pub async fn find(call: &Call, attempt: Option<u32>) -> Answer<Found> {
    find_called(call, call.param("job")?.to_owned(), attempt).await
}

/// The same attempt once more: how far it is now.
///
/// # Errors
/// As of [`find`].
pub async fn find_again(call: &Call, found: &Found, attempt: Option<u32>) -> Answer<Found> {
    find_called(call, found.name.to_string(), attempt).await
}

async fn find_called(call: &Call, mut called: String, attempt: Option<u32>) -> Answer<Found> {
    let mut run = call.run()?;
    // A result is taken over from the run that made it, so one step leads to its log; a second would be a bug.
    for _ in 0..2 {
        let (id, job, jobs) = (run.clone(), called.clone(), call.shared().jobs.clone());
        let find = move |view: &View, state: &RunState| {
            let named = |lease: &LeaseId| jobs.lease(lease);
            step(view, (&id, state), (&job, attempt), &named)
        };
        let found = super::runs::look(call, run, find).await?;
        match found {
            Step::Found(found) => return Ok(*found),
            Step::Elsewhere(earlier, job) => (run, called) = (earlier, job.to_string()),
        }
    }
    Err(ApiError::internal("a result was carried from a run that carried it"))
}

enum Step {
    Found(Box<Found>),
    Elsewhere(RunId, JobName),
}

/// `named` says under which name the executor knows a lease.
fn step(
    view: &View,
    (run, state): (&RunId, &RunState),
    (job, attempt): (&str, Option<u32>),
    named: &dyn Fn(&LeaseId) -> LeaseId,
) -> Answer<Step> {
    let start = state.start().ok_or_else(|| super::runs::no_run(run))?;
    let (index, spec) = find_job(&start.graph, state, job)?;
    let mut running = None;
    let newest = match state.job(index) {
        None => 0,
        Some(JobState::Done { carried: Some(earlier), .. }) => {
            return Ok(Step::Elsewhere(earlier.clone(), spec.name.clone()));
        }
        Some(JobState::Again { tries }) => tries.len() as u32,
        Some(JobState::Running { lease, .. }) => {
            running = Some(named(&lease.id));
            lease.attempt
        }
        Some(JobState::Done { tries, .. }) => tries.len() as u32 + 1,
    };
    let wanted = attempt.unwrap_or(newest);
    if attempt.is_some_and(|attempt| attempt == 0 || attempt > newest) {
        let had = match newest {
            0 => "was not begun yet".to_owned(),
            1 => "had 1 attempt".to_owned(),
            newest => format!("had {newest} attempts"),
        };
        return Err(ApiError::not_found(format!("job `{}` {had}", spec.name))
            .hint("name one of them, from 1, or none for the newest"));
    }
    let running = running.filter(|_| wanted == newest);
    // The rows of ended attempts keep the lease, also that of a life before a restore.
    let ended = view.attempts(run, index)?.into_iter().find(|row| row.attempt == wanted);
    let waiting = wanted == newest && !matches!(state.job(index), Some(JobState::Done { .. }));
    Ok(Step::Found(Box::new(Found {
        run: run.clone(),
        name: spec.name.clone(),
        index,
        attempt: wanted,
        lease: running.or_else(|| ended.and_then(|row| row.lease)),
        over: !waiting || state.ended().is_some(),
        outputs: result_of(state.job(index), wanted).map(left).unwrap_or_default(),
    })))
}

/// What an attempt, counted from 1, came to, if it is over.
fn result_of(state: Option<&JobState>, attempt: u32) -> Option<&JobResult> {
    let at = attempt.checked_sub(1)? as usize;
    let result = match state? {
        JobState::Again { tries } | JobState::Running { tries, .. } => tries.get(at),
        JobState::Done { result, tries, .. } => tries.iter().chain([result]).nth(at),
    };
    result.map(|result| &**result)
}

fn left(result: &JobResult) -> BTreeMap<String, Digest> {
    let reports = result.junit.map(|junit| (JUNIT_REPORTS.to_owned(), junit));
    result.outputs.clone().into_iter().chain(reports).collect()
}

/// What a job's JUnit reports are called among what it left. No output has a colon in its name.
const JUNIT_REPORTS: &str = "reports:junit";
/// Jobs that a hint names.
const JOBS_NAMED_MAX: usize = 12;

/// How the path of a job calls it.
pub const PATH_JOB: &str = "Its name, its place in the graph from 0, or its key under `jobs:`. Of a key with several jobs \
    the first that did not pass is meant, or else the first that is at work";

fn find_job<'a>(graph: &'a JobGraph, state: &RunState, called: &str) -> Answer<(JobIndex, &'a JobSpec)> {
    let by_name = graph.iter().find(|(_, spec)| spec.name.as_str() == called);
    let by_place = || graph.iter().find(|(index, _)| index.0.to_string() == called);
    if let Some(found) = by_name.or_else(by_place) {
        return Ok(found);
    }
    let of_key: Vec<_> = graph.iter().filter(|(_, spec)| spec.is_called(called)).collect();
    let decisive = of_key.iter().filter_map(|found| Some((interest(state.job(found.0)?)?, *found)));
    match (of_key.as_slice(), decisive.min_by_key(|(interest, (index, _))| (*interest, *index))) {
        ([], _) => {
            let why = format!("the run has no job `{}`", called.escape_debug());
            Err(ApiError::not_found(why).hint(format!("it has {}", names(graph.iter()))))
        }
        ([only], _) => Ok(*only),
        (_, Some((_, first))) => Ok(first),
        (several, None) => {
            let why = format!("`{called}` is several jobs, none of them failed, and none is at work");
            Err(ApiError::invalid(why).hint(format!("name one of {}", names(several.iter().copied()))))
        }
    }
}

/// Why somebody who names several jobs wants to see this one; the least comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Interest {
    Failed,
    /// In a run that was cancelled it was at work: it was the run's pace.
    Stopped,
    AtWork,
}

fn interest(state: &JobState) -> Option<Interest> {
    match state {
        JobState::Running { .. } => Some(Interest::AtWork),
        JobState::Again { .. } => None,
        JobState::Done { result, .. } => match result.outcome {
            Outcome::Failed | Outcome::Errored | Outcome::TimedOut => Some(Interest::Failed),
            Outcome::Cancelled if result.duration_ms > 0 => Some(Interest::Stopped),
            Outcome::Cancelled | Outcome::Passed | Outcome::Skipped => None,
        },
    }
}

fn names<'a>(jobs: impl Iterator<Item = (JobIndex, &'a JobSpec)>) -> String {
    let mut names: Vec<&str> = jobs.map(|(_, spec)| spec.name.as_str()).collect();
    let more = if names.len() > JOBS_NAMED_MAX { ", and more" } else { "" };
    names.truncate(JOBS_NAMED_MAX);
    format!("{}{more}", names.join(", "))
}
