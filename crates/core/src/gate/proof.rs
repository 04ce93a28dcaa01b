//! The bar: what must have passed before a candidate may land (invariant I2).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::runs::Phase;
use super::{Change, GateState, RunRecord, Standing};
use crate::candidate::Candidate;
use crate::definition::{EmptySet, GateSettings, Proof};
use crate::graph::{JobGraph, JobIndex, Outcome, Trigger};
use crate::ids::{Digest, RunId, Timestamp};
use crate::message::{Carried, JobReport};
use crate::policy::Level;

/// How a candidate stands against the bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standard {
    /// Each required job has counted.
    Met,
    /// Some have no result that counts.
    Missing,
    /// There is nothing that could pass, and the target does not say that this is enough.
    Empty,
}

/// What a landing rests on.
#[derive(Debug, Default)]
pub(super) struct Grounds {
    /// Each required job to the digest of its passed result; skipped jobs are not named.
    pub results: BTreeMap<String, Digest>,
    /// The runs in which these results are found: those that reported them, and those from which they were carried. A
    /// result is carried from the run that made it, however many runs have carried it on.
    pub runs: BTreeSet<RunId>,
}

/// The jobs of a candidate, and what a result must be about to count for one of them.
struct Wanted {
    graph: JobGraph,
    /// What each job is; made when a run is found whose results may count.
    digests: OnceCell<Vec<Digest>>,
    /// Which of them are about a commit only; made likewise.
    sees_history: OnceCell<Vec<bool>>,
    level: Level,
    full: bool,
    proof: Proof,
}

impl Wanted {
    /// The jobs that have to pass.
    fn bar(&self) -> impl Iterator<Item = JobIndex> {
        self.graph.iter().filter(|(_, spec)| spec.required && spec.skip.is_none()).map(|(job, _)| job)
    }

    fn sees_history(&self, job: JobIndex) -> bool {
        self.sees_history.get_or_init(|| self.graph.sees_history())[job.0 as usize]
    }

    fn digest(&self, job: JobIndex) -> Digest {
        self.digests.get_or_init(|| self.graph.digests())[job.0 as usize]
    }
}

impl GateState {
    /// The target's settings; the defaults where its definition cannot be used, so that a change may mend it under a
    /// maintainer's approval.
    pub(super) fn settings(&self) -> GateSettings {
        self.branch.settings
    }

    /// A candidate's jobs for one trigger; with the label for it, no job is skipped.
    pub(super) fn jobs_for(&self, candidate: &Candidate, change: &Change, trigger: Trigger) -> JobGraph {
        match self.wants_all(change) {
            true => candidate.graph.unskipped().select(trigger),
            false => candidate.graph.select(trigger),
        }
    }

    pub(super) fn wants_all(&self, change: &Change) -> bool {
        change.facts.labels.contains(&self.config.labels.rerun_all)
    }

    pub(super) fn standard(&self, candidate: &Candidate, change: &Change, now: Timestamp) -> Standard {
        let wanted = self.wanted_in_queue(candidate, change, now);
        if wanted.bar().next().is_none() && self.settings().empty != EmptySet::Land {
            return Standard::Empty;
        }
        match wanted.bar().all(|job| self.passed_result(candidate, job, &wanted).is_some()) {
            true => Standard::Met,
            false => Standard::Missing,
        }
    }

    /// For the record. `None`: the bar is not met.
    pub(super) fn proof(&self, candidate: &Candidate, change: &Change, now: Timestamp) -> Option<Grounds> {
        if self.standard(candidate, change, now) != Standard::Met {
            return None;
        }
        let wanted = self.wanted_in_queue(candidate, change, now);
        let mut grounds = Grounds::default();
        for job in wanted.bar() {
            let (number, report) = self.passed_result(candidate, job, &wanted)?;
            grounds.results.insert(report.name.clone(), result_digest(report));
            grounds.runs.insert(self.run_id(number));
            grounds.runs.extend(report.carried.clone());
        }
        Some(grounds)
    }

    /// Passed results that a new run of the candidate need not make again.
    pub(super) fn carried(
        &self,
        candidate: &Candidate,
        change: &Change,
        graph: &JobGraph,
        now: Timestamp,
    ) -> BTreeMap<JobIndex, Carried> {
        let wanted = self.wanted(graph.clone(), change, now);
        let carry = |job: JobIndex| {
            let (number, report) = self.passed_result(candidate, job, &wanted)?;
            let run = report.carried.clone().unwrap_or_else(|| self.run_id(number));
            Some((job, Carried { run, result: report.result.clone() }))
        };
        graph.iter().filter(|(_, spec)| spec.skip.is_none()).filter_map(|(job, _)| carry(job)).collect()
    }

    fn wanted_in_queue(&self, candidate: &Candidate, change: &Change, now: Timestamp) -> Wanted {
        self.wanted(self.jobs_for(candidate, change, Trigger::Queue), change, now)
    }

    fn wanted(&self, graph: JobGraph, change: &Change, now: Timestamp) -> Wanted {
        Wanted {
            graph,
            digests: OnceCell::new(),
            sees_history: OnceCell::new(),
            level: self.level(change, now),
            full: self.wants_all(change),
            proof: self.settings().proof,
        }
    }

    fn passed_result(
        &self,
        candidate: &Candidate,
        job: JobIndex,
        wanted: &Wanted,
    ) -> Option<(u64, &JobReport)> {
        let spec = wanted.graph.job(job);
        let about = self.runs.of_tree(candidate.tree).rev();
        let mut speaking = about.filter(|(_, run)| speaks_about(run, candidate, job, wanted));
        speaking.find_map(|(number, run)| {
            let Phase::Ended { jobs, .. } = &run.phase else { return None };
            let passed = |report: &&JobReport| {
                report.name == spec.name.as_str()
                    && report.result.outcome == Outcome::Passed
                    && report.digest == wanted.digest(job)
            };
            let report = jobs.iter().find(passed)?;
            (!is_dropped(run, &report.name)).then_some((number, report))
        })
    }
}

/// Whether a run's results may count for a candidate: never from a lower level (trust T3), and about the same commit,
/// or the same tree where the target says that this is enough. A job that sees history, or is made of what one left, is
/// about a commit only.
fn speaks_about(run: &RunRecord, candidate: &Candidate, job: JobIndex, wanted: &Wanted) -> bool {
    let same = match wanted.proof {
        _ if run.commit == candidate.commit => true,
        Proof::Tree => run.tree == candidate.tree && !wanted.sees_history(job),
        Proof::Commit => false,
    };
    same && run.candidate.is_some() && run.level >= wanted.level && (run.full || !wanted.full)
}

fn is_dropped(run: &RunRecord, job: &str) -> bool {
    match &run.standing {
        Standing::Current => false,
        Standing::Superseded { without } => without.contains(job),
        Standing::Invalidated => true,
    }
}

fn result_digest(report: &JobReport) -> Digest {
    let text = serde_json::to_vec(report).expect("invariant: a report has only types that JSON can hold");
    Digest::of(&text)
}
