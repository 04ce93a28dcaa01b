//! Running again: what a person can ask for, and which results no longer count once it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::runs::{Cancel, Phase};
use super::{CandidateRecord, GateState, Reason, Standing};
use crate::candidate::CandidateResult;
use crate::cell::{Refusal, RefusalClass};
use crate::ids::{ChangeNumber, CommitId, Timestamp};

/// Jobs of a run that are named to whoever names one that it has not.
const JOBS_NAMED_MAX: usize = 10;

/// How much of a run is made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryScope {
    /// Everything; no earlier result counts.
    All,
    /// What did not pass.
    NotPassed,
    /// One job by its name, or all cells and shards of a key under `jobs:`, and what did not pass.
    Job(String),
}

impl fmt::Display for RetryScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetryScope::All => f.write_str("everything runs again"),
            RetryScope::NotPassed => f.write_str("what did not pass runs again"),
            RetryScope::Job(job) => write!(f, "`{job}` and what did not pass run again"),
        }
    }
}

/// From which run on results count for a change, whichever change they were made for. Retries raise it, and nothing lowers
/// it: to close a change and open it again is no way around one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Floor {
    /// The first run that counts, for every job.
    all: u64,
    /// The same for single jobs, by what retries called them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    jobs: BTreeMap<String, u64>,
}

impl Floor {
    /// Whether what a run says of a job still counts.
    pub(super) fn admits(&self, job: &str, run: u64) -> bool {
        run >= self.all && self.jobs.iter().all(|(name, first)| run >= *first || !is_called(job, name))
    }

    /// The floor from which on the scope of a retry counts from run `first` on.
    fn raised(&self, scope: &RetryScope, first: u64) -> Floor {
        let mut floor = self.clone();
        match scope {
            RetryScope::All => floor.all = floor.all.max(first),
            // What did not pass counts for nothing as it is.
            RetryScope::NotPassed => {}
            RetryScope::Job(job) => {
                let of_job = floor.jobs.entry(job.clone()).or_default();
                *of_job = first.max(*of_job);
            }
        }
        let all = floor.all;
        floor.jobs.retain(|_, first| *first > all);
        floor
    }

    /// Whether there is nothing in any run from `oldest` on that it keeps from counting.
    pub(super) fn is_below(&self, oldest: u64) -> bool {
        self.jobs.values().chain([&self.all]).all(|first| *first <= oldest)
    }
}

/// As [`JobSpec::is_called`](crate::graph::JobSpec::is_called), for the name of a job of which no more is known. No key has
/// one of the two characters.
fn is_called(job: &str, name: &str) -> bool {
    job.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '@']))
}

impl GateState {
    pub(super) fn retry(
        &mut self,
        number: ChangeNumber,
        revision: CommitId,
        scope: &RetryScope,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        self.at_revision(number, revision)?;
        self.would_run(number, now)?;
        if self.changes.get(&number).is_some_and(|change| change.slow.is_some()) {
            return Ok(self.join_again(number, revision));
        }
        let Some((newest, _)) = self.newest_run(number, revision) else {
            return Err(self.nothing_to_retry(number, revision));
        };
        let standing = match scope {
            RetryScope::All => Standing::Invalidated,
            RetryScope::NotPassed => Standing::Superseded { without: BTreeSet::new() },
            RetryScope::Job(job) => self.without_job(newest, job)?,
        };
        self.raise_floor(number, scope, self.branch.runs + 1);
        let speaks = |(_, run): &(u64, &super::RunRecord)| {
            run.change == Some((number, revision)) && run.standing == Standing::Current
        };
        let speaking: Vec<u64> = self.runs.of_change(number).filter(speaks).map(|(run, _)| run).collect();
        for run in speaking {
            self.stop_run(run, Cancel { why: "a retry takes its place".into(), by_person: false });
            let record = self.runs.get_mut(run).expect("invariant: it was just found");
            record.standing = standing.clone();
        }
        Ok(format!("retry of change {number} at {revision}: {scope}"))
    }

    /// A retry gives results up, so it is refused where no job would run to take their place.
    ///
    /// # Errors
    /// Why none would, or that the change is not open.
    pub fn would_run(&self, number: ChangeNumber, now: Timestamp) -> Result<(), Refusal> {
        let change = self.open(number)?;
        let of_candidate = || {
            let joined = self.candidate_obstacle(change, now);
            joined.filter(|reason| !matches!(reason, Reason::TooSlow { .. }))
        };
        let Some(reason) = self.keeps_from_tests(change, now).or_else(of_candidate) else { return Ok(()) };
        let mut why = format!("change {number} would not run: {reason}");
        if let Some(hint) = reason.hint(number, &self.id.branch) {
            why += &format!("; {hint}");
        }
        Err(Refusal::new(RefusalClass::Conflict, why))
    }

    /// Has git try once more what took it too long. What has run counts as before.
    fn join_again(&mut self, number: ChangeNumber, revision: CommitId) -> String {
        let change = self.changes.get_mut(&number).expect("invariant: it was found at its revision");
        change.slow = None;
        let is_slow = |record: &CandidateRecord| {
            record.change == number && matches!(record.result, Some(CandidateResult::TooSlow { .. }))
        };
        let slow: Vec<_> =
            self.candidates.map().iter().filter(|(_, record)| is_slow(record)).map(|(id, _)| *id).collect();
        for id in slow {
            self.candidates.get_mut(&id).expect("invariant: it was just found").result = None;
        }
        format!("retry of change {number} at {revision}: git joins it with the branch once more")
    }

    /// No run counts for the revision: there was none, or what took its place has still to begin.
    fn nothing_to_retry(&self, number: ChangeNumber, revision: CommitId) -> Refusal {
        let ran = self.runs.of_change(number).any(|(_, run)| run.change == Some((number, revision)));
        let why = match ran {
            true => format!("another run of change {number} is due already"),
            false => format!("change {number} has no run at this revision yet"),
        };
        let waits = format!("`towpath change why {number}` says what it waits for");
        Refusal::new(RefusalClass::Conflict, format!("{why}; {waits}"))
    }

    fn without_job(&self, run: u64, job: &str) -> Result<Standing, Refusal> {
        let known: Vec<&str> = match self.runs.get(run).map(|run| &run.phase) {
            Some(Phase::Running { start }) => {
                start.graph.jobs.iter().map(|spec| spec.name.as_str()).collect()
            }
            Some(Phase::Ended { jobs, .. }) => jobs.iter().map(|report| report.name.as_str()).collect(),
            None => Vec::new(),
        };
        if known.iter().any(|name| is_called(name, job)) {
            return Ok(Standing::Superseded { without: BTreeSet::from([job.to_owned()]) });
        }
        let some = known.iter().take(JOBS_NAMED_MAX).copied().collect::<Vec<_>>().join("`, `");
        let more = if known.len() > JOBS_NAMED_MAX { ", and more" } else { "" };
        let why = format!("run {run} has no job `{job}`; it has `{some}`{more}");
        Err(Refusal::new(RefusalClass::NotFound, why))
    }

    fn raise_floor(&mut self, number: ChangeNumber, scope: &RetryScope, first: u64) {
        let floor = self.floors.get(&number).cloned().unwrap_or_default();
        let raised = floor.raised(scope, first);
        if raised != floor {
            self.floors.insert(number, raised);
        }
    }

    /// What a retry put aside stays aside also where its rows are of a version that kept no floors.
    pub(super) fn keep_floors(&mut self) {
        let mut retried: Vec<(ChangeNumber, RetryScope, u64)> = Vec::new();
        for (run, record) in self.runs.map() {
            let Some((number, _)) = record.change else { continue };
            match &record.standing {
                Standing::Current => {}
                Standing::Invalidated => retried.push((number, RetryScope::All, run + 1)),
                Standing::Superseded { without } => {
                    let jobs = without.iter().cloned().map(RetryScope::Job);
                    retried.extend(jobs.map(|scope| (number, scope, run + 1)));
                }
            }
        }
        for (number, scope, first) in retried {
            self.raise_floor(number, &scope, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_only_rises() {
        let unit = RetryScope::Job("unit".into());
        let floor = Floor::default().raised(&unit, 4);
        assert_eq!(["unit", "lint"].map(|job| floor.admits(job, 3)), [false, true]);
        assert!(floor.admits("unit", 4));
        assert_eq!(floor.raised(&unit, 2).raised(&RetryScope::NotPassed, 9), floor);
        let all = floor.raised(&RetryScope::All, 6);
        assert_eq!(["unit", "lint"].map(|job| (all.admits(job, 5), all.admits(job, 6))), [(false, true); 2]);
        assert_eq!(all.raised(&unit, 5), all);
        assert_eq!((floor.is_below(3), floor.is_below(4)), (false, true));
    }

    #[test]
    fn a_key_means_all_its_jobs_and_no_others() {
        let floor = Floor::default().raised(&RetryScope::Job("unit".into()), 4);
        let jobs = ["unit", "unit[3/4]", "unit[salt=git]", "unit@target[3/4]", "unit-slow", "units", "lint"];
        assert_eq!(jobs.map(|job| floor.admits(job, 3)), [false, false, false, false, true, true, true]);
        let floor = Floor::default().raised(&RetryScope::Job("unit[3/4]".into()), 4);
        assert_eq!(["unit[3/4]", "unit[2/4]", "unit"].map(|job| floor.admits(job, 3)), [false, true, true]);
    }

    #[test]
    fn what_an_earlier_version_put_aside_stays_aside() {
        let read = |text: &str| serde_json::from_str::<Standing>(text).unwrap();
        let without = BTreeSet::from(["unit".to_owned()]);
        assert_eq!(read(r#"{"superseded":{"without":["unit"]}}"#), Standing::Superseded { without });
        assert_eq!(read(r#""invalidated""#), Standing::Invalidated);
    }
}
