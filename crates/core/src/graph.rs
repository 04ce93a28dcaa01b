//! Job graphs: what the `pipeline` crate makes of a definition, and what a run executes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, EnvironmentName, JobName, LeaseId};

mod select;

/// A job's place in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobIndex(pub u32);

/// Jobs in topological order: a job's needs always come before it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobGraph {
    /// The jobs; [`JobIndex`] points in here. Shared, because a graph never changes once made.
    pub jobs: Arc<[JobSpec]>,
    /// From push to verdict. Exceeding it alerts; it kills nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_seconds: Option<u32>,
}

/// An event that starts jobs: the words under `on:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A change's own run.
    Change,
    /// A candidate of the queue.
    Queue,
    /// After landing.
    Land,
    /// A person asked for it, on a landed commit.
    Manual,
    /// Cron. Parsed; started by a later version.
    Schedule,
    /// A release. Parsed; started by a later version.
    Release,
}

/// Whose definition a job's body comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The target's definition, or a body that is equal on both sides.
    #[default]
    Target,
    /// Only the change's own definition. Shares no artifact with the target's jobs.
    Own,
}

/// What a sandbox keeps shut unless a definition opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Openings {
    /// The outside.
    pub network: bool,
    /// Nested user namespaces.
    pub user_namespaces: bool,
}

/// Why a job does not run although its trigger is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// `when: {paths}` matches none of the changed paths. It runs nevertheless where a job that runs needs it.
    When,
    /// A job that it needs did not pass.
    Need {
        /// That job.
        job: JobName,
    },
}

/// One job: a unit of work on one executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique in the graph; shard and matrix cell included.
    pub name: JobName,
    /// The key under `jobs:` that it was expanded from.
    pub base: JobName,
    /// Whose definition the body is from.
    #[serde(default)]
    pub origin: Origin,
    /// What a job of [`Origin::Own`] may have of what its body opens: what the target's definition opens to its job of this
    /// key, and in a run what the change itself is trusted with. The target's own body is its own word.
    #[serde(default)]
    pub granted: Openings,
    /// Its triggers. A job that others need also runs wherever they run.
    pub on: Vec<Trigger>,
    /// Whether landing needs it: `queue` in `on`, unless `required: false`.
    pub required: bool,
    /// Jobs whose end it waits for and whose outputs it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<JobIndex>,
    /// Jobs that are cancelled when this one fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aborts: Vec<JobIndex>,
    /// Set when the job is known not to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkipReason>,
    /// What the executor does.
    pub body: Arc<JobBody>,
}

/// The part of a job that the executor sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBody {
    /// Shell script, run by `/bin/sh -e`. No text of a change is ever put into it.
    pub run: String,
    /// Variables that the definition names; `TOWPATH_*` is not allowed here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Shard and shard count, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<(u32, u32)>,
    /// The matrix cell, as `TOWPATH_MATRIX_<KEY>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<String, String>,
    /// Wall time after which the whole process tree dies.
    pub timeout_seconds: u32,
    /// Further attempts after [`Outcome::Errored`].
    pub retry_errored: u8,
    /// Further attempts after [`Outcome::Failed`] or [`Outcome::TimedOut`]; a pass after one of those is flaky.
    #[serde(default)]
    pub retry_failed: u8,
    /// Output name to glob below the work tree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Glob of JUnit files below the work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub junit: Option<String>,
    /// Whether the job has a work tree at all.
    pub checkout: bool,
    /// Whether it sees `.git` with what its commit reaches, and its commit id.
    #[serde(default)]
    pub history: bool,
    /// A network of its own with the outside reachable.
    #[serde(default)]
    pub network: bool,
    /// Nested user namespaces.
    #[serde(default)]
    pub user_namespaces: bool,
    /// Names of secrets asked for; the server's policy decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Makes the job a deployment to this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Whether a deployment may be done again: after an executor died, or after a restore.
    #[serde(default)]
    pub restartable: bool,
}

/// How a job, or a whole run, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it should.
    Passed,
    /// The code under test is at fault.
    Failed,
    /// Our machines are at fault.
    Errored,
    /// A person or a newer fact stopped it.
    Cancelled,
    /// It ran into its timeout.
    TimedOut,
    /// It never ran.
    Skipped,
}

/// What one attempt of a job left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// How it ended, seen from outside the sandbox.
    pub outcome: Outcome,
    /// Exit code, or 128 + signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// One sentence for people, of at most [`WHY_BYTES_MAX`]: `exit code 3`, `killed at its limit of 2 GiB memory`.
    pub why: String,
    /// Output name to the digest of its manifest in the blob store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Digest>,
    /// Digest over the masked log's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// Digest of the manifest of its JUnit reports, whatever can be read of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub junit: Option<Digest>,
    /// Names of failed tests from JUnit, at most [`TESTS_SHOWN_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_tests: Vec<String>,
    /// Milliseconds from start to end.
    pub duration_ms: u64,
    /// `--sandbox none` was in force: marked on every page and leaf.
    #[serde(default)]
    pub unsandboxed: bool,
    /// With [`Outcome::Skipped`]: why. Decides whether the job may count for the bar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkipReason>,
}

impl JobResult {
    /// A result of a job that no executor ran.
    pub fn unrun(outcome: Outcome, why: impl Into<String>) -> JobResult {
        JobResult {
            outcome,
            exit_code: None,
            why: cut_why(why),
            outputs: BTreeMap::new(),
            log: None,
            junit: None,
            failed_tests: Vec::new(),
            duration_ms: 0,
            unsandboxed: false,
            skip: None,
        }
    }
}

/// Failed test names kept with a result; the full list is in the report.
pub const TESTS_SHOWN_MAX: usize = 20;

/// Bytes of the sentence in a result: a run tells its gate those of all its jobs in one message.
pub const WHY_BYTES_MAX: usize = 1000;

/// A sentence for people, as much of it as a result keeps.
pub fn cut_why(why: impl Into<String>) -> String {
    const CUT: &str = "…";
    let mut why = why.into();
    if why.len() > WHY_BYTES_MAX {
        why.truncate(why.floor_char_boundary(WHY_BYTES_MAX - CUT.len()));
        why.push_str(CUT);
    }
    why
}

/// What the sentence of a job that passed says beside how it ended: what is wrong with its reports.
pub fn remark(why: &str) -> &str {
    why.strip_prefix(CODE_ZERO).unwrap_or(why).trim_start_matches("; ")
}

/// How the sentence of a job that passed begins.
pub const CODE_ZERO: &str = "exit code 0";

/// A job that is to be started: addressed by a lease that is never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Fences every answer about this attempt.
    pub id: LeaseId,
    /// Which job.
    pub job: JobIndex,
    /// Counts the tries of this job in this run, from 1.
    pub attempt: u32,
}

impl From<Vec<JobSpec>> for JobGraph {
    fn from(jobs: Vec<JobSpec>) -> JobGraph {
        JobGraph { jobs: jobs.into(), budget_seconds: None }
    }
}

impl JobGraph {
    /// The job at an index.
    pub fn job(&self, index: JobIndex) -> &JobSpec {
        &self.jobs[index.0 as usize]
    }

    /// Every job with its index.
    pub fn iter(&self) -> impl Iterator<Item = (JobIndex, &JobSpec)> {
        self.jobs.iter().enumerate().map(|(at, job)| (JobIndex(at as u32), job))
    }

    /// Each job's identity: what it does, for whom, and the same of all that it needs. Equal digests mean that a result of
    /// one is a result of the other on the same tree.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = Vec::with_capacity(self.jobs.len());
        for job in self.jobs.iter() {
            let digest = job.digest(job.needs.iter().map(|need| &digests[need.0 as usize]));
            digests.push(digest);
        }
        digests
    }

    /// Which jobs see history, or are made of what such a job left: their results are about a commit, not about a tree.
    pub fn sees_history(&self) -> Vec<bool> {
        let mut sees: Vec<bool> = Vec::with_capacity(self.jobs.len());
        for job in self.jobs.iter() {
            let is_made_of_it = job.needs.iter().any(|need| sees[need.0 as usize]);
            sees.push(job.body.history || is_made_of_it);
        }
        sees
    }

    /// The same jobs, of which those of a change's own definition may have this besides what the target grants them.
    pub fn granting(&self, own: Openings) -> JobGraph {
        let granted = |job: &JobSpec| Openings {
            network: job.granted.network || own.network,
            user_namespaces: job.granted.user_namespaces || own.user_namespaces,
        };
        let jobs = self.jobs.iter().map(|job| JobSpec { granted: granted(job), ..job.clone() });
        JobGraph { jobs: jobs.collect(), ..*self }
    }

    /// The same jobs with none skipped by `when`.
    pub fn unskipped(&self) -> JobGraph {
        let jobs = self.jobs.iter().map(|job| JobSpec { skip: None, ..job.clone() }).collect();
        JobGraph { jobs, ..*self }
    }
}

impl JobSpec {
    /// A job of the target's definition that needs no other; landing needs it if it runs in the queue.
    pub fn new(name: JobName, on: Vec<Trigger>, body: JobBody) -> JobSpec {
        JobSpec {
            base: name.clone(),
            name,
            origin: Origin::Target,
            granted: Openings::default(),
            required: on.contains(&Trigger::Queue),
            on,
            needs: Vec::new(),
            aborts: Vec::new(),
            skip: None,
            body: Arc::new(body),
        }
    }

    /// Whether a person who says `name` means this job, among others: it is its name, or the key under `jobs:`, which means
    /// all cells and shards.
    pub fn is_called(&self, name: &str) -> bool {
        self.base.as_str() == name || self.name.as_str() == name
    }

    /// What its body opens and it may not have.
    pub fn withheld(&self) -> Openings {
        let asked = self.body.openings();
        match self.origin {
            Origin::Target => Openings::default(),
            Origin::Own => Openings {
                network: asked.network && !self.granted.network,
                user_namespaces: asked.user_namespaces && !self.granted.user_namespaces,
            },
        }
    }

    /// Whether a run that `trigger` started has failed if the job fails. `required: false` is an advice before landing,
    /// which stops nothing; a job that is not for the queue at all says nothing by not being required there.
    pub fn fails_run_of(&self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::Queue => self.required,
            Trigger::Change => self.required || !self.on.contains(&Trigger::Queue),
            Trigger::Land | Trigger::Manual | Trigger::Schedule | Trigger::Release => true,
        }
    }

    /// Identifies what the job does, for whom, and out of what: `needs` are the same digests of the jobs that it needs.
    fn digest<'a>(&self, needs: impl Iterator<Item = &'a Digest>) -> Digest {
        let body =
            serde_json::to_vec(&self.body).expect("invariant: a body has only types that JSON can hold");
        let origin: &[u8] = match self.origin {
            Origin::Target => b"target",
            Origin::Own => b"own",
        };
        // The order of names under `needs` changes nothing.
        let needs: BTreeSet<&Digest> = needs.collect();
        let own = [self.name.as_str().as_bytes(), origin, &body];
        Digest::of_fields(own.into_iter().chain(needs.into_iter().map(|need| &need.0[..])))
    }

    /// The folder below `$TOWPATH_INPUTS` in which jobs that need this one find its outputs: `wheel`, `wheel/py=3.12`,
    /// `unit/3-of-4`. It comes from the base, so that a script finds the same place whichever side its job is from.
    pub fn inputs_folder(&self) -> String {
        let name = self.name.as_str();
        match name.split_once('[').and_then(|(_, cell)| cell.strip_suffix(']')) {
            Some(cell) => format!("{}/{}", self.base, cell.replace('/', "-of-")),
            None => self.base.to_string(),
        }
    }
}

impl JobBody {
    /// What it opens of the sandbox.
    pub fn openings(&self) -> Openings {
        Openings { network: self.network, user_namespaces: self.user_namespaces }
    }

    /// A body that only runs a script, with every other field at its default.
    pub fn script(run: &str) -> JobBody {
        JobBody {
            run: run.to_owned(),
            env: BTreeMap::new(),
            shard: None,
            matrix: BTreeMap::new(),
            timeout_seconds: TIMEOUT_SECONDS_DEFAULT,
            retry_errored: RETRY_ERRORED_DEFAULT,
            retry_failed: 0,
            outputs: BTreeMap::new(),
            junit: None,
            checkout: true,
            history: false,
            network: false,
            user_namespaces: false,
            secrets: Vec::new(),
            environment: None,
            restartable: false,
        }
    }
}

/// A job's wall time when the definition names none. Source: Hail CI's one hour for a `runImage` step.
pub const TIMEOUT_SECONDS_DEFAULT: u32 = 3600;
/// Further attempts after our machines failed. Source: DESIGN 7.
pub const RETRY_ERRORED_DEFAULT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn job(name: &str, on: &[Trigger], needs: &[u32]) -> JobSpec {
        let needs = needs.iter().copied().map(JobIndex).collect();
        JobSpec { needs, ..JobSpec::new(name.parse().unwrap(), on.to_vec(), JobBody::script("true")) }
    }

    #[test]
    fn a_long_sentence_is_cut_where_a_character_ends() {
        let whole = "ü".repeat(WHY_BYTES_MAX / 2);
        assert_eq!(cut_why(whole.as_str()), whole);
        let cut = cut_why(format!("x{whole}"));
        assert_eq!(cut, format!("x{}…", "ü".repeat(WHY_BYTES_MAX / 2 - 2)));
        assert_eq!(JobResult::unrun(Outcome::Errored, "y".repeat(100_000)).why.len(), WHY_BYTES_MAX);
    }

    #[test]
    fn a_job_is_another_one_once_what_it_needs_is() {
        let digests = |wheel: &str, unit_needs: &[u32]| {
            let script = |run: &str, job: JobSpec| JobSpec { body: Arc::new(JobBody::script(run)), ..job };
            let jobs = [
                script(wheel, job("wheel", &[], &[])),
                job("tool", &[], &[]),
                job("unit", &[Trigger::Queue], unit_needs),
                job("docs", &[Trigger::Queue], &[]),
            ];
            JobGraph { jobs: Arc::new(jobs), budget_seconds: None }.digests()
        };
        let one = digests("python -m build", &[0, 1]);
        let other = digests("touch dist/empty.whl", &[0, 1]);
        assert_ne!(one[2], other[2]);
        assert_eq!((one[1], one[3]), (other[1], other[3]));
        assert_eq!(one, digests("python -m build", &[1, 0]));
        assert_ne!(one[2], digests("python -m build", &[0])[2]);
    }

    #[test]
    fn what_is_made_of_history_sees_it() {
        let history = |job: JobSpec| {
            let body = JobBody { history: true, ..JobBody::script("git describe") };
            JobSpec { body: Arc::new(body), ..job }
        };
        let jobs = [
            history(job("wheel", &[], &[])),
            job("docs", &[], &[]),
            job("unit", &[], &[0, 1]),
            job("report", &[], &[2]),
        ];
        let graph = JobGraph { jobs: Arc::new(jobs), budget_seconds: None };
        assert_eq!(graph.sees_history(), [true, false, true, true]);
    }

    #[test]
    fn outputs_lie_where_the_definition_names_them() {
        let folder = |name: &str, base: &str| {
            let job = JobSpec { base: base.parse().unwrap(), ..job(name, &[], &[]) };
            job.inputs_folder()
        };
        assert_eq!(folder("wheel@target", "wheel"), "wheel");
        assert_eq!(folder("unit[py=3.12,3/4]", "unit"), "unit/py=3.12,3-of-4");
    }
}
