//! Which jobs a local run has, and which of them a laptop must not run.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::graph::{JobGraph, JobIndex, JobSpec, Trigger};
use towpath_core::ids::JobName;

use crate::failure::{Exit, Failure};
use crate::local::definition::no_such_job;

/// What the person asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Jobs by name; empty: those of the triggers.
    pub names: &'a [String],
    /// Only with no names.
    pub triggers: &'a [Trigger],
}

/// The jobs of a local run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The jobs, with what they need.
    pub graph: JobGraph,
    /// Jobs that only the server runs, and why. They and what needs them are skipped, by name.
    pub left_out: BTreeMap<JobName, String>,
    named: bool,
    triggers: Vec<Trigger>,
}

impl Selection {
    /// Selects from all jobs of a definition.
    ///
    /// # Errors
    /// A name that is no job's; a named job, or one that it needs, that only the server runs.
    pub fn of(graph: &JobGraph, wanted: Wanted) -> Result<Selection, Failure> {
        let named = !wanted.names.is_empty();
        if let Some(name) = wanted.names.iter().find(|name| !graph.jobs.iter().any(|job| job.is_called(name)))
        {
            let mut bases: Vec<&str> = graph.jobs.iter().map(|job| job.base.as_str()).collect();
            bases.dedup();
            return Err(no_such_job(name, &bases));
        }
        let is_wanted = |job: &JobSpec| match named {
            true => wanted.names.iter().any(|name| job.is_called(name)),
            false => job.on.iter().any(|on| wanted.triggers.contains(on)),
        };
        // `select` knows one trigger at a time: here it stands for "was asked for".
        let marked = graph.jobs.iter().map(|job| JobSpec {
            on: if is_wanted(job) { vec![Trigger::Manual] } else { Vec::new() },
            skip: job.skip.clone().filter(|_| !named),
            ..job.clone()
        });
        let marked = JobGraph { jobs: marked.collect(), budget_seconds: graph.budget_seconds };
        let graph = restored(&marked.select(Trigger::Manual), graph);
        let servers = graph.jobs.iter().filter(|job| job.skip.is_none());
        let left_out: BTreeMap<JobName, String> =
            servers.filter_map(|job| Some((job.name.clone(), only_the_server(job)?))).collect();
        match left_out.first_key_value() {
            Some((job, why)) if named => {
                Err(Failure::new(Exit::Usage, format!("job `{job}` cannot run here"))
                    .why(why.clone())
                    .hint("leave it out: `towpath run` without names runs what a change and the queue start"))
            }
            _ => Ok(Selection { graph, left_out, named, triggers: wanted.triggers.to_vec() }),
        }
    }

    /// Jobs that are left out, and those that need one of them.
    pub fn not_here(&self) -> BTreeSet<JobIndex> {
        let mut not_here = BTreeSet::new();
        for (index, job) in self.graph.iter() {
            if self.left_out.contains_key(&job.name) || job.needs.iter().any(|need| not_here.contains(need)) {
                not_here.insert(index);
            }
        }
        not_here
    }

    /// Whether a job that does not pass fails the run: if it was asked for by name, or would fail the server's.
    pub fn counts(&self, job: &JobSpec) -> bool {
        self.named || self.triggers.iter().any(|trigger| job.fails_run_of(*trigger))
    }
}

/// The selected jobs with the triggers that their definition gives them.
fn restored(selected: &JobGraph, original: &JobGraph) -> JobGraph {
    let triggers: BTreeMap<&JobName, &Vec<Trigger>> =
        original.jobs.iter().map(|job| (&job.name, &job.on)).collect();
    let jobs = selected.jobs.iter().map(|job| JobSpec {
        on: triggers.get(&job.name).map(|on| (*on).clone()).unwrap_or_default(),
        ..job.clone()
    });
    JobGraph { jobs: jobs.collect(), budget_seconds: selected.budget_seconds }
}

/// Why a job is the server's alone.
fn only_the_server(job: &JobSpec) -> Option<String> {
    let secrets = &job.body.secrets;
    match &job.body.environment {
        Some(environment) => Some(format!("it deploys to `{environment}`, which only the server does")),
        None if !secrets.is_empty() => {
            let names: Vec<String> = secrets.iter().map(|name| format!("`{name}`")).collect();
            Some(format!("it asks for {}, and only the server has secrets", names.join(", ")))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use towpath_pipeline::{Changed, Definition};

    use super::*;

    const PIPELINE: &str = "
jobs:
  wheel: { run: make, on: [] }
  unit: { run: make, needs: [wheel], shards: 2 }
  lint: { run: make, on: [change] }
  slow: { run: make, on: [land] }
  cloud: { run: make, secrets: [key] }
  report: { run: make, needs: [cloud] }
  ship: { run: make, on: [land], environment: staging }
";

    fn check(names: &[&str], triggers: &[Trigger], expected: &str) {
        let graph = Definition::parse("towpath.yaml", PIPELINE.as_bytes()).unwrap().expand(Changed::Unknown);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let shown = match Selection::of(&graph, Wanted { names: &names, triggers }) {
            Err(failure) => failure.to_string(),
            Ok(selection) => {
                let not_here = selection.not_here();
                let mark = |index| if not_here.contains(&index) { "!" } else { "" };
                let names = selection.graph.iter().map(|(index, job)| format!("{}{}", mark(index), job.name));
                names.collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn triggers_select_jobs_and_what_they_need_and_the_servers_own_are_marked() {
        let default = [Trigger::Change, Trigger::Queue];
        check(&[], &default, "wheel unit[1/2] unit[2/2] lint !cloud !report");
        check(&[], &[Trigger::Land], "slow !ship");
    }

    #[test]
    fn names_select_jobs_of_any_trigger() {
        check(&["slow", "unit[2/2]"], &[], "wheel unit[2/2] slow");
    }

    #[test]
    fn what_only_the_server_runs_is_refused_by_name() {
        check(
            &["report"],
            &[],
            "error: job `cloud` cannot run here\n  why: it asks for `key`, and only the server has secrets\n \
             hint: leave it out: `towpath run` without names runs what a change and the queue start",
        );
        check(&["lnt"], &[], "error: there is no job `lnt`\n hint: did you mean `lint`?");
    }
}
