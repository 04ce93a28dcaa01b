//! Runs as the gate sees them: which there were, what they showed, which still count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::queue::WINDOW;
use super::{Change, GateState, Lost};
use crate::act::Act;
use crate::graph::{Outcome, Trigger};
use crate::ids::{CandidateId, ChangeNumber, CommitId, Digest, Timestamp, TreeId};
use crate::message::{JobReport, RunReport, RunStart};
use crate::policy::Level;
use crate::run::counts;

/// Ended runs that are remembered for one change, and for the branch. Older ones stay in the list of runs.
pub const RUNS_KEPT: usize = 20;

/// One run that this gate started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// What started it.
    pub trigger: Trigger,
    /// The change and its revision; `None` for a run of the landed branch.
    pub change: Option<(ChangeNumber, CommitId)>,
    /// The candidate under test.
    pub candidate: Option<CandidateId>,
    /// The target at the time: a run whose parent is not the tip is out of date.
    pub parent: Option<CommitId>,
    /// The commit under test.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// How far it was trusted.
    pub level: Level,
    /// What its jobs were told of the change, as [`told`](crate::message::told) has it; `None` in a row of an earlier
    /// version: nobody knows.
    #[serde(default)]
    pub told: Option<Digest>,
    /// Whether the sandbox of a job of it holds less than the target allows, by a maintainer's word for its definition.
    #[serde(default)]
    pub opened: bool,
    /// Every job ran, whatever `when` says.
    pub full: bool,
    /// Why it was started.
    pub reason: String,
    /// When.
    pub started_at: Timestamp,
    /// Whether it still speaks for its revision.
    pub standing: Standing,
    /// Set when it was told to stop.
    pub cancel: Option<Cancel>,
    /// How far it is.
    pub phase: Phase,
}

/// Why a run was told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// For people.
    pub why: String,
    /// A person did it: the change waits for a person, too.
    pub by_person: bool,
}

/// Whether a run still speaks for its revision, and if not, what the retry asked for that took its place. Which results
/// still count is the change's [`Floor`](super::Floor).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It speaks for its revision.
    Current,
    /// What did not pass runs again, and these jobs.
    Superseded {
        /// Jobs to be run again although they passed, as the retry called them.
        without: BTreeSet<String>,
    },
    /// Everything runs again.
    Invalidated,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not over.
    Running {
        /// What it was started with.
        start: Arc<RunStart>,
    },
    /// Over.
    Ended {
        /// As a whole.
        outcome: Outcome,
        /// When.
        at: Timestamp,
        /// Job by job.
        jobs: Vec<JobReport>,
        /// The jobs without which the change cannot land and that did not pass.
        lost: Vec<String>,
    },
}

/// What is known of a revision's tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestState {
    /// No run speaks for it.
    Untested,
    /// This run will.
    Running(u64),
    /// Nothing in this run forbids landing.
    Passed(u64),
    /// A required job failed in this run.
    Failed(u64),
    /// A required job could not be run to its end because of our machines.
    Errored(u64),
    /// A person stopped this run.
    Cancelled(u64),
}

/// The places for change runs, and how many are taken. Beside those of the cap there are as many as can be on deck, for what
/// is: what could land next waits for no run of what could not, unless so many of these were on deck themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// Runs under way.
    all: usize,
    /// Of these, runs of what is not on deck.
    off_deck: usize,
    /// The cap.
    max: usize,
}

impl Places {
    /// The runs that leave no place to what is on deck; `None`: there is one.
    pub fn taken_from_deck(self) -> Option<usize> {
        (self.all >= self.max + WINDOW).then_some(self.all)
    }

    /// The same for what is not.
    pub fn taken_from_others(self) -> Option<usize> {
        (self.off_deck >= self.max).then_some(self.off_deck)
    }
}

/// How a required job did not pass. Of several in one run the first kind decides: what the code did, then what our machines
/// did, and only then what was not run to its end because of other jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// The code under test is at fault.
    Failed,
    /// Our machines are.
    Errored,
    /// Another job aborted it.
    Aborted,
    /// It needs one that did not pass.
    LeftOut,
}

impl Loss {
    fn of(outcome: Outcome) -> Loss {
        match outcome {
            Outcome::Failed | Outcome::TimedOut => Loss::Failed,
            Outcome::Errored => Loss::Errored,
            Outcome::Cancelled => Loss::Aborted,
            Outcome::Skipped | Outcome::Passed => Loss::LeftOut,
        }
    }
}

impl RunRecord {
    /// Whether it is not over.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// What it found out by running jobs. What it took over says nothing new, and neither does a job that was stopped or
    /// never began.
    pub(super) fn found_out(&self) -> impl Iterator<Item = &JobReport> {
        let jobs = match &self.phase {
            Phase::Running { .. } => &[][..],
            Phase::Ended { jobs, .. } => jobs,
        };
        jobs.iter().filter(|report| {
            let ran = match report.result.outcome {
                Outcome::Passed | Outcome::Failed | Outcome::Errored | Outcome::TimedOut => true,
                Outcome::Cancelled | Outcome::Skipped => false,
            };
            ran && report.carried.is_none()
        })
    }

    /// Whether it was stopped because nobody wanted its result any more, and not by a person.
    pub(super) fn is_stopped_by_gate(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| !cancel.by_person)
    }

    fn speaks_for(&self, change: ChangeNumber, revision: CommitId) -> bool {
        let is_of = self.change == Some((change, revision));
        is_of && self.standing == Standing::Current && !self.is_stopped_by_gate()
    }

    fn test_state(&self, number: u64) -> TestState {
        let Phase::Ended { outcome, .. } = &self.phase else { return TestState::Running(number) };
        if *outcome == Outcome::Cancelled && self.cancel.is_some() {
            return TestState::Cancelled(number);
        }
        match self.lost() {
            None => TestState::Passed(number),
            Some((Loss::Errored, _)) => TestState::Errored(number),
            Some((Loss::Failed | Loss::Aborted | Loss::LeftOut, _)) => TestState::Failed(number),
        }
    }

    /// The required jobs that keep its change from landing, and how they were lost.
    pub(super) fn lost(&self) -> Option<(Loss, Vec<&JobReport>)> {
        let Phase::Ended { jobs, lost, .. } = &self.phase else { return None };
        let reports = lost.iter().filter_map(|name| jobs.iter().find(|job| job.name == *name));
        let reports: Vec<(Loss, &JobReport)> =
            reports.map(|report| (Loss::of(report.result.outcome), report)).collect();
        let worst = reports.iter().map(|(loss, _)| *loss).min()?;
        let of_worst = reports.into_iter().filter(|(loss, _)| *loss == worst);
        Some((worst, of_worst.map(|(_, report)| report).collect()))
    }
}

impl GateState {
    /// The newest run that speaks for a revision.
    pub fn newest_run(&self, change: ChangeNumber, revision: CommitId) -> Option<(u64, &RunRecord)> {
        self.runs.of_change(change).rev().find(|(_, run)| run.speaks_for(change, revision))
    }

    /// What is known of a change's newest revision.
    pub fn test_state(&self, change: &Change) -> TestState {
        let newest = self.newest_run(change.facts.number, change.facts.revision.commit);
        newest.map_or(TestState::Untested, |(number, run)| run.test_state(number))
    }

    /// The places for change runs while `deck` is on deck.
    pub(super) fn places(&self, deck: &[ChangeNumber]) -> Places {
        let goes_on =
            |run: &&RunRecord| run.is_running() && run.trigger == Trigger::Change && run.cancel.is_none();
        let is_next = |run: &&RunRecord| run.change.is_some_and(|(number, _)| deck.contains(&number));
        let running = self.runs.map().values().filter(goes_on);
        let all = running.clone().count();
        let off_deck = all - running.filter(is_next).count();
        Places { all, off_deck, max: self.config.change_runs_max as usize }
    }

    pub(super) fn run_ended(&mut self, report: &RunReport, now: Timestamp) {
        let number = report.run.number;
        if report.run.gate != self.id || !self.runs.get(number).is_some_and(RunRecord::is_running) {
            return;
        }
        let run = self.runs.get_mut(number).expect("invariant: it was just found");
        let Phase::Running { start } = &run.phase else { return };
        let deploy_lost = Lost::of(start, report);
        let lost = report.jobs.iter().filter(|job| start.graph.job(job.job).required && !counts(&job.result));
        let lost: Vec<String> = lost.map(|job| job.name.clone()).collect();
        let ejects = run.trigger == Trigger::Queue && run.cancel.is_none() && !lost.is_empty();
        let (change, why) = (run.change, format!("`{}` did not pass in run {number}", lost.join("`, `")));
        let is_stopped = run.cancel.is_some() && report.outcome == Outcome::Cancelled;
        let is_verdict = run.trigger == Trigger::Change && !is_stopped;
        run.phase = Phase::Ended { outcome: report.outcome, at: now, jobs: report.jobs.clone(), lost };
        if let Some((change, revision)) = change.filter(|_| is_verdict) {
            self.note_verdict(change, revision, now);
        }
        self.branch.edit().flags.runs.set(now);
        if let Some((change, revision)) = change.filter(|_| ejects) {
            self.note(Act::Ejected { gate: self.id.clone(), change, revision, why });
        }
        self.deploy_ended(report, deploy_lost);
    }

    /// Forgets ended runs that nothing can ask for again. What is kept of other changes are the last words about trees that
    /// are still asked for: no pass may be remembered longer than a newer failure.
    pub(super) fn forget_runs(&mut self) {
        let mut kept = BTreeMap::<Option<ChangeNumber>, usize>::new();
        let mut asked_for = BTreeSet::<TreeId>::new();
        let mut old = Vec::new();
        for (number, run) in self.runs.map().iter().rev() {
            let open = run.change.is_none_or(|(change, revision)| {
                self.changes.get(&change).is_some_and(|known| known.facts.revision.commit == revision)
            });
            let count = kept.entry(run.change.map(|(change, _)| change)).or_default();
            *count += 1;
            match run.is_running() || open && *count <= RUNS_KEPT {
                true => drop(run.change.map(|_| asked_for.insert(run.tree))),
                false => old.push(*number),
            }
        }
        old.retain(|number| {
            let run = self.runs.get(*number).expect("invariant: it was just found");
            !asked_for.contains(&run.tree) || !self.has_last_word(*number, run)
        });
        old.iter().for_each(|number| self.runs.remove(*number));
        let oldest = self.runs.map().iter().find(|(_, run)| run.change.is_some()).map(|(number, _)| *number);
        self.floors.retain(|_, floor| oldest.is_some_and(|oldest| !floor.is_below(oldest)));
    }

    /// Whether there is a job of which no newer run has found out anything that counts wherever this one's result does.
    fn has_last_word(&self, number: u64, run: &RunRecord) -> bool {
        let newer = self.runs.of_tree(run.tree).rev().take_while(|(other, _)| *other > number);
        let newer = newer.filter(|(_, other)| {
            let is_same = (other.commit, other.told) == (run.commit, run.told);
            other.candidate.is_some() && is_same && other.level >= run.level
        });
        let told: BTreeSet<Digest> =
            newer.flat_map(|(_, other)| other.found_out()).map(|report| report.digest).collect();
        run.candidate.is_some() && run.found_out().any(|report| !told.contains(&report.digest))
    }
}
