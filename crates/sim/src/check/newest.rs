//! The newest word about each job: what a landing rests on is not older than what is known against it, nor than what its
//! change was retried for, and was made of just the results that it rests on besides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_core::cell::CellId;
use towpath_core::definition::{GateSettings, Proof};
use towpath_core::effect::{Effect, Landing};
use towpath_core::gate::{ForgeChange, RetryScope};
use towpath_core::graph::{JobGraph, JobIndex, JobResult, Outcome, Trigger};
use towpath_core::ids::{CandidateId, ChangeNumber, CommitId, Digest, Epoch, GateId, RunId, Timestamp};
use towpath_core::message::{JobReport, Message, RunReport, RunStart};
use towpath_core::policy::Level;
use towpath_core::turn::Turn;

use super::Checks;
use crate::fake::definition;
use crate::fake::git::{DEFINITION, changed_paths, tree_id};
use crate::fake::store::AnyIntake;
use crate::world::World;

/// What was said of runs, and what people asked to be made again.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) starts: BTreeMap<RunId, Arc<RunStart>>,
    reports: BTreeMap<RunId, Arc<RunReport>>,
    /// By change and job; without a job: all of them. Results of runs before this one are put aside.
    aside: BTreeMap<(GateId, ChangeNumber, Option<String>), u64>,
    /// Candidates that were asked for: of which change and revision.
    pub(super) asked: BTreeMap<CandidateId, (ChangeNumber, CommitId)>,
}

/// What a landing rests on, as its leaf has it.
#[derive(Debug, Default)]
pub(super) struct Grounds {
    /// Each required job to the digest of its passed result.
    pub(super) results: BTreeMap<String, Digest>,
    /// The runs that made these results.
    pub(super) runs: BTreeSet<RunId>,
}

impl Told {
    fn newest_of(&self, gate: &GateId) -> u64 {
        let of_gate = self.starts.keys().filter(|run| run.gate == *gate);
        of_gate.map(|run| run.number).max().unwrap_or(0)
    }

    /// The change that a run was started for.
    pub(super) fn change_of(&self, gate: &GateId, run: u64) -> Option<ChangeNumber> {
        Some(self.starts.get(&RunId { gate: gate.clone(), number: run })?.change?.0)
    }

    /// Whether the deploy run of what landed is over.
    pub(super) fn is_deployed(&self, gate: &GateId, commit: CommitId) -> bool {
        let of_landing = |start: &RunStart| start.trigger == Trigger::Land && start.commit == commit;
        let over = self.reports.keys().filter(|run| run.gate == *gate);
        over.filter_map(|run| self.starts.get(run)).any(|start| of_landing(start))
    }

    fn is_aside(&self, gate: &GateId, change: ChangeNumber, job: &str, run: u64) -> bool {
        [None, Some(job.to_owned())]
            .into_iter()
            .any(|job| self.aside.get(&(gate.clone(), change, job)).is_some_and(|first| run < *first))
    }
}

impl Checks {
    /// Remembers what was put aside by a retry.
    pub(super) fn note_retry(&mut self, gate: &GateId, change: ChangeNumber, scope: &RetryScope) {
        let job = match scope {
            RetryScope::NotPassed => return,
            RetryScope::All => None,
            RetryScope::Job(job) => Some(job.clone()),
        };
        let first = self.told.newest_of(gate) + 1;
        self.told.aside.insert((gate.clone(), change, job), first);
    }

    /// What the last run before this one found out about a job.
    pub fn last_result(&self, before: &RunId, id: Digest) -> Option<Arc<JobResult>> {
        let earlier = self.told.reports.range(..before).rev().filter(|(run, _)| run.gate == before.gate);
        let mut found =
            earlier.filter_map(|(_, report)| report.jobs.iter().find(|job| is_found_out(job, id)));
        found.next().map(|job| job.result.clone())
    }

    /// Remembers what runs were started with and how they ended.
    pub(super) fn note_runs(&mut self, turn: &Turn, inbox: &[(u64, Timestamp, AnyIntake)]) {
        let mut begun = vec![];
        for (_, message) in &turn.write.messages {
            match message {
                Message::Start(start) => {
                    begun.push(start.run.clone());
                    self.told.starts.insert(start.run.clone(), start.clone());
                }
                Message::RunEnded(report) => {
                    drop(self.told.reports.insert(report.run.clone(), report.clone()));
                }
                _ => {}
            }
        }
        self.note_begun(begun, inbox);
    }
}

impl World {
    /// Remembers of which change and revision a candidate is that is asked for.
    pub(super) fn note_candidates(&mut self, epoch: Epoch, turn: &Turn) {
        for (_, row) in &turn.write.outbox {
            let effect = row.as_ref().and_then(|row| row.effect.as_ref());
            let (CellId::Gate(gate), Some(Effect::MakeCandidate { id, spec, .. })) =
                (&turn.write.cell, effect)
            else {
                continue;
            };
            let record = self.gate_of(epoch, gate).and_then(|state| state.candidates().get(id));
            if let Some(change) = record.map(|record| record.change) {
                self.checks.told.asked.insert(*id, (change, spec.revision));
            }
        }
    }

    pub(super) fn rests_on_the_newest(
        &self,
        gate: &GateId,
        landing: &Landing,
        change: &ForgeChange,
        (settings, level): (GateSettings, Level),
    ) -> Result<Grounds, String> {
        let graph = self.landed_jobs(landing, change)?;
        let (ids, sees_history) = (graph.digests(), graph.sees_history());
        let tree = tree_id(&self.forge.git.get(landing.to).files);
        let mut chosen: BTreeMap<JobIndex, u64> = BTreeMap::new();
        let mut grounds = Grounds::default();
        for job in wanted(&graph) {
            let at = job.0 as usize;
            let is_about = |start: &RunStart| {
                let same_tree = settings.proof == Proof::Tree && !sees_history[at] && start.tree == tree;
                let is_told = start.facts.get("CHANGE_TITLE") == Some(&change.title);
                let is_of_it = start.commit == landing.to || same_tree;
                start.change.is_some() && start.level >= level && is_told && is_of_it
            };
            let (report, newest) = self.newest_result(gate, ids[at], is_about)?;
            let run = report.run.number;
            if newest.result.outcome != Outcome::Passed {
                return Err(format!(
                    "the newest result of `{}`, in run {run}, is {:?}",
                    newest.name, newest.result
                ));
            }
            if self.checks.told.is_aside(gate, change.number, &newest.name, run) {
                return Err(format!("`{}` of run {run} was put aside by a retry", newest.name));
            }
            for need in &graph.job(job).needs {
                if made_by(report, ids[need.0 as usize]) != chosen.get(need).copied() {
                    let need = &graph.job(*need).name;
                    return Err(format!("`{}` of run {run} was made of another `{need}`", newest.name));
                }
            }
            chosen.insert(job, run);
            if graph.job(job).required {
                grounds.results.insert(newest.name.clone(), digest(newest));
                grounds.runs.insert(report.run.clone());
            }
        }
        Ok(grounds)
    }

    /// The jobs of what would land.
    fn landed_jobs(&self, landing: &Landing, change: &ForgeChange) -> Result<JobGraph, String> {
        let [before, after] = [landing.from, landing.to].map(|commit| self.forge.git.get(commit).files);
        let changed = changed_paths(&before, &after);
        let graph = definition::candidate_graph(before[DEFINITION], after[DEFINITION], &changed);
        let graph = graph.map_err(|errors| errors.join("; "))?;
        let full = change.labels.contains(&self.config.labels.rerun_all);
        Ok(if full { graph.unskipped() } else { graph })
    }

    /// The newest that anybody found out about a job by running it.
    fn newest_result(
        &self,
        gate: &GateId,
        id: Digest,
        is_about: impl Fn(&RunStart) -> bool,
    ) -> Result<(&RunReport, &JobReport), String> {
        let told = &self.checks.told;
        let of_gate = told.reports.iter().rev().filter(|(run, _)| run.gate == *gate);
        let about = of_gate.filter(|(run, _)| told.starts.get(run).is_some_and(|start| is_about(start)));
        let ran = |job: &&JobReport| is_found_out(job, id);
        let found = about.filter_map(|(_, report)| Some((&**report, report.jobs.iter().find(ran)?))).next();
        found.ok_or_else(|| format!("no run has a result of the job {id}"))
    }
}

fn digest(report: &JobReport) -> Digest {
    Digest::of(&serde_json::to_vec(report).expect("invariant: a report has only types of JSON"))
}

/// Whether a run found it out about a job by running it.
fn is_found_out(report: &JobReport, id: Digest) -> bool {
    let never = matches!(report.result.outcome, Outcome::Skipped | Outcome::Cancelled);
    report.digest == id && report.carried.is_none() && !never
}

/// The required jobs and what they need, needs first.
fn wanted(graph: &JobGraph) -> BTreeSet<JobIndex> {
    let required = graph.iter().filter(|(_, spec)| spec.required && spec.skip.is_none());
    let mut wanted: BTreeSet<JobIndex> = required.map(|(job, _)| job).collect();
    for at in (0..graph.jobs.len() as u32).rev().map(JobIndex) {
        if wanted.contains(&at) {
            wanted.extend(&graph.job(at).needs);
        }
    }
    wanted
}

/// The run that made the result of a job which the others of a run were given.
fn made_by(report: &RunReport, id: Digest) -> Option<u64> {
    let job = report.jobs.iter().find(|job| job.digest == id)?;
    Some(job.carried.as_ref().unwrap_or(&report.run).number)
}
