//! What a run of the landed branch lost, and how it is done again: for whoever is told of it.

use serde::{Deserialize, Serialize};

use crate::graph::JobSpec;
use crate::ids::{BranchName, EnvironmentName};
use crate::message::{JobReport, RunReport, RunStart};
use crate::run::counts;

/// Jobs that are named: what one reads at a glance.
const NAMED_MAX: usize = 5;

/// Jobs of a run that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Their names, those that were run first; [`NAMED_MAX`] at most.
    pub jobs: Vec<String>,
    /// How many there are beside.
    pub more: usize,
    /// What is to be done again.
    pub again: Again,
}

/// What is to be done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// The deployment to this environment.
    Deployment(EnvironmentName),
    /// The job of this key: nothing was to be deployed.
    Job(String),
}

impl Lost {
    /// What a run lost; `None`: nothing.
    pub(super) fn of(start: &RunStart, report: &RunReport) -> Option<Lost> {
        let mut lost: Vec<&JobReport> = report.jobs.iter().filter(|job| !counts(&job.result)).collect();
        lost.sort_by_key(|job| job.result.skip.is_some());
        let spec = |job: &&JobReport| start.graph.job(job.job);
        let environment = |spec: &JobSpec| spec.body.environment.clone();
        let again = match lost.iter().map(spec).find_map(environment) {
            Some(environment) => Again::Deployment(environment),
            None => Again::Job(spec(lost.first()?).base.to_string()),
        };
        let jobs = lost.iter().take(NAMED_MAX).map(|job| job.name.clone()).collect();
        Some(Lost { jobs, more: lost.len().saturating_sub(NAMED_MAX), again })
    }

    /// The jobs, as a sentence goes on.
    pub(super) fn names(&self) -> String {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        format!("`{}`{more}", self.jobs.join("`, `"))
    }

    /// The environment that a job of it was to deploy to.
    pub fn environment(&self) -> Option<&EnvironmentName> {
        match &self.again {
            Again::Deployment(environment) => Some(environment),
            Again::Job(_) => None,
        }
    }
}

impl Again {
    /// The command, and what it does.
    pub(super) fn how(&self, branch: &BranchName) -> String {
        match self {
            Again::Deployment(environment) => {
                format!("`towpath deploy start {environment} --branch {branch}` deploys there again")
            }
            Again::Job(job) => format!("`towpath branch run {branch} --job {job}` runs that job again"),
        }
    }
}
