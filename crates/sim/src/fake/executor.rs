//! An executor: jobs take time, their results follow from the content that they run on. It outlives the server, keeps
//! what has ended, and never starts a lease twice.

use std::collections::BTreeMap;

use towpath_core::effect::JobOrder;
use towpath_core::graph::{JobResult, Lease, Outcome};
use towpath_core::ids::{CommitId, Digest, LeaseId, RunId, TreeId};
use towpath_core::policy::Level;

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Until it ends by itself.
    Running,
    /// Its result waits to be fetched, as often as anybody asks.
    Ended(JobResult),
}

/// One lease.
#[derive(Debug, Clone)]
pub struct Job {
    /// The run.
    pub run: RunId,
    /// The lease.
    pub lease: Lease,
    /// The script, which names the job.
    pub script: String,
    /// The commit under test.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// The level that it ran at.
    pub level: Level,
    /// The title that it was told.
    pub title: Option<String>,
    /// What it truly was, or would have been: a ghost that was cut off may say so before anybody notices its death.
    pub truth: Outcome,
    /// What is reported of it: the same, but for a planted bug.
    pub reported: Outcome,
    /// How far it is.
    pub stage: Stage,
}

/// The executor.
#[derive(Debug, Default)]
pub struct Executor {
    /// Every lease that it was ever given.
    pub jobs: BTreeMap<LeaseId, Job>,
}

impl Executor {
    /// Takes an order; says whether it is new.
    pub fn order(&mut self, order: &JobOrder, truth: Outcome, reported: Outcome) -> bool {
        let known = self.jobs.contains_key(&order.lease.id);
        self.jobs.entry(order.lease.id).or_insert_with(|| Job {
            run: order.run.clone(),
            lease: order.lease.clone(),
            script: order.spec.body.run.clone(),
            commit: order.commit,
            tree: order.tree,
            level: order.level,
            title: order.facts.get("CHANGE_TITLE").cloned(),
            truth,
            reported,
            stage: Stage::Running,
        });
        !known
    }

    /// Ends a running job; returns the result, also when it had ended before.
    pub fn end(&mut self, lease: &LeaseId, how: Option<Outcome>) -> Option<(Lease, JobResult)> {
        let job = self.jobs.get_mut(lease)?;
        if job.stage == Stage::Running {
            job.stage = Stage::Ended(result(&job.lease, how.unwrap_or(job.reported)));
        }
        match &job.stage {
            Stage::Ended(result) => Some((job.lease.clone(), result.clone())),
            Stage::Running => None,
        }
    }

    /// Leases that are not over.
    pub fn running(&self) -> Vec<LeaseId> {
        let running = self.jobs.values().filter(|job| job.stage == Stage::Running);
        running.map(|job| job.lease.id).collect()
    }

    /// The lease that a result is from, by the mark in its log.
    pub fn by_mark(&self, mark: &Digest) -> Option<&Job> {
        let id = LeaseId(mark.prefix());
        self.jobs.get(&id)
    }
}

/// A result that names its lease and outcome in its log's digest.
pub fn result(lease: &Lease, outcome: Outcome) -> JobResult {
    let mut mark = [0; 32];
    mark[..16].copy_from_slice(&lease.id.0);
    mark[16] = outcome as u8;
    JobResult {
        log: Some(Digest(mark)),
        ..JobResult::unrun(outcome, format!("said by {}", lease.id.short()))
    }
}
