//! The bar: what must have passed before a candidate may land (invariant I2).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::runs::Phase;
use super::{Change, GateState, RunRecord};
use crate::candidate::Candidate;
use crate::definition::{EmptySet, GateSettings, Proof};
use crate::graph::{JobGraph, JobIndex, Outcome, Trigger};
use crate::ids::{Digest, RunId, Timestamp};
use crate::message::{Carried, JobReport, told};
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
    /// The runs that made these results.
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
        let counted = self.counted(candidate, change, &wanted);
        match wanted.bar().all(|job| counted[job.0 as usize].is_some()) {
            true => Standard::Met,
            false => Standard::Missing,
        }
    }

    /// Whether a run of the change's own would tell nothing: no job of it would run, and none is required of the candidate.
    pub(super) fn tests_nothing(&self, candidate: &Candidate, change: &Change, now: Timestamp) -> bool {
        let own = self.jobs_for(candidate, change, Trigger::Change);
        own.jobs.iter().all(|job| job.skip.is_some())
            && self.standard(candidate, change, now) == Standard::Empty
    }

    /// For the record. `None`: the bar is not met.
    pub(super) fn proof(&self, candidate: &Candidate, change: &Change, now: Timestamp) -> Option<Grounds> {
        if self.standard(candidate, change, now) != Standard::Met {
            return None;
        }
        let wanted = self.wanted_in_queue(candidate, change, now);
        let counted = self.counted(candidate, change, &wanted);
        let mut grounds = Grounds::default();
        for job in wanted.bar() {
            let Counted { run, report } = counted[job.0 as usize]?;
            grounds.results.insert(report.name.clone(), result_digest(report));
            grounds.runs.insert(self.run_id(run));
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
        let counted = self.counted(candidate, change, &wanted);
        let carry = |job: JobIndex| {
            let Counted { run, report } = counted[job.0 as usize]?;
            Some((job, Carried { run: self.run_id(run), result: report.result.clone() }))
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

    /// The result that counts for each job of a candidate, if there is one.
    ///
    /// Of each job the newest result decides, whichever change its run was for: an older pass never shows through a newer
    /// failure. It counts if it passed, if no retry asks for a newer one, and if what the job was given are the very results
    /// that count for the jobs that it needs: where one of these was made again, everything made of it has to be, too.
    fn counted(&self, candidate: &Candidate, change: &Change, wanted: &Wanted) -> Vec<Option<Counted<'_>>> {
        let mut tellers: Vec<Teller> = (self.runs.of_tree(candidate.tree).rev())
            .filter(|(_, run)| run.candidate.is_some() && run.level >= wanted.level)
            .filter_map(|(number, run)| Teller::of(number, run))
            .collect();
        let floor = self.floors.get(&change.facts.number);
        let mut counted: Vec<Option<Counted>> = vec![None; wanted.graph.jobs.len()];
        if tellers.is_empty() {
            return counted;
        }
        let told = told(&self.facts(Some(change)));
        tellers.retain(|teller| was_told(teller.run, candidate, told));
        for (job, spec) in wanted.graph.iter().filter(|(_, spec)| spec.skip.is_none()) {
            let about = tellers.iter().filter(|teller| is_about(teller.run, candidate, job, wanted));
            let newest =
                about.filter_map(|teller| Some((teller, *teller.found_out.get(&wanted.digest(job))?))).next();
            let Some((teller, report)) = newest else { continue };
            let counts_for = |need: &JobIndex| {
                let given = teller.given.get(&wanted.digest(*need)).copied();
                given.is_some() && given == counted[need.0 as usize].map(|counted| counted.run)
            };
            let counts = report.result.outcome == Outcome::Passed
                && (teller.run.full || !wanted.full)
                && floor.is_none_or(|floor| floor.admits(&report.name, teller.number))
                && spec.needs.iter().all(counts_for);
            counted[job.0 as usize] = counts.then_some(Counted { run: teller.number, report });
        }
        counted
    }
}

/// A passed result that counts for a job of a candidate.
#[derive(Debug, Clone, Copy)]
struct Counted<'a> {
    /// The run that made it.
    run: u64,
    report: &'a JobReport,
}

/// A run that is over, and what it says of its jobs.
struct Teller<'a> {
    number: u64,
    run: &'a RunRecord,
    /// What it found out, by the job's identity, which has its name in it.
    found_out: BTreeMap<Digest, &'a JobReport>,
    /// Likewise the run that made the result which its other jobs were given: itself, or the one it was taken over from.
    given: BTreeMap<Digest, u64>,
}

impl<'a> Teller<'a> {
    fn of(number: u64, run: &'a RunRecord) -> Option<Teller<'a>> {
        let Phase::Ended { jobs, .. } = &run.phase else { return None };
        let maker = |report: &JobReport| report.carried.as_ref().map_or(number, |run| run.number);
        Some(Teller {
            number,
            run,
            found_out: run.found_out().map(|report| (report.digest, report)).collect(),
            given: jobs.iter().map(|report| (report.digest, maker(report))).collect(),
        })
    }
}

/// Whether a run's results are about a candidate: about the same commit, or the same tree where the target says that this
/// is enough. A job that sees history, or is made of what one left, is about a commit only. Runs of a lower level say
/// nothing (trust T3).
fn is_about(run: &RunRecord, candidate: &Candidate, job: JobIndex, wanted: &Wanted) -> bool {
    match wanted.proof {
        _ if run.commit == candidate.commit => true,
        Proof::Tree => run.tree == candidate.tree && !wanted.sees_history(job),
        Proof::Commit => false,
    }
}

/// Whether the jobs of a run were told of their change what those of a candidate would be: what they are told is part of
/// what their results are about (trust T3, "environment"). Where nobody knows, the commit with its message stands for it.
fn was_told(run: &RunRecord, candidate: &Candidate, told: Digest) -> bool {
    run.told.map_or(run.commit == candidate.commit, |was| was == told)
}

fn result_digest(report: &JobReport) -> Digest {
    let text = serde_json::to_vec(report).expect("invariant: a report has only types that JSON can hold");
    Digest::of(&text)
}
