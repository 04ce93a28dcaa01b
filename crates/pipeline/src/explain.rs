//! What a definition comes to, job by job: the data behind `config explain`.

use serde::{Deserialize, Serialize};
use towpath_core::graph::{JobBody, Trigger};

use crate::definition::{Definition, Job};
use crate::definition_file::DefinitionFile;

/// One job as it will run, with every default applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExplanation {
    /// The key under `jobs`.
    pub name: String,
    /// `line 12`, or `detected from Cargo.toml`.
    pub from: String,
    /// What starts it.
    pub on: Vec<Trigger>,
    /// Where it also runs, because a job that needs it does.
    pub pulled_into: Vec<Trigger>,
    /// Whether landing needs it.
    pub required: bool,
    /// Names of the jobs that it waits for.
    pub needs: Vec<String>,
    /// Names of the jobs that are cancelled when it fails.
    pub aborts: Vec<String>,
    /// Names of all jobs that it stands for; one without matrix and shards.
    pub instances: Vec<String>,
    /// The patterns of `when`, as they are written.
    pub when: Vec<String>,
    /// The body, with the defaults applied.
    pub body: JobBody,
}

/// Every job, in the order of the file.
pub fn explain(file: &DefinitionFile) -> Vec<JobExplanation> {
    let Ok(definition) = &file.definition else { return Vec::new() };
    let from = |job: &Job| {
        let detected = file.detected.iter().flat_map(|detected| &detected.jobs);
        match detected.into_iter().find(|found| found.name == job.name.as_str()) {
            Some(found) => format!("detected from {}", found.from),
            None => format!("line {}", job.line),
        }
    };
    definition.jobs.iter().map(|job| explain_job(definition, job, from(job))).collect()
}

fn explain_job(definition: &Definition, job: &Job, from: String) -> JobExplanation {
    let names = |indices: &[usize]| indices.iter().map(|at| definition.jobs[*at].name.to_string()).collect();
    let when = job.when.iter().flat_map(|when| {
        let take = when.take.iter().map(ToString::to_string);
        take.chain(when.leave_out.iter().map(|glob| format!("!{glob}")))
    });
    JobExplanation {
        name: job.name.to_string(),
        from,
        on: job.on.clone(),
        pulled_into: job.runs_in.iter().copied().filter(|trigger| !job.on.contains(trigger)).collect(),
        required: job.required,
        needs: names(&job.needs),
        aborts: names(&job.aborts),
        instances: job.instances().map(|(name, _)| name.to_string()).collect(),
        when: when.collect(),
        body: job.body.clone(),
    }
}
