//! What is on record once the demo's changes are settled, and whether it bears out what the table says of each.

use serde_json::Value;
use towpath_core::ids::CommitId;
use towpath_git::Repository;

use super::Shown;
use super::cases::{Claim, Outcome, REQUIRED};
use super::project::Project;
use crate::command::own_git;
use crate::failure::{Exit, Failure};
use crate::remote::{Client, Request};

/// Commits that main can have gained: one a change.
const TIPS_MAX: usize = 100;
/// Runs that are asked for at once, and all that a demo has: each change is tested a few times at most.
const RUNS_MAX: usize = 200;

/// What the repository and the server know.
#[derive(Debug, Default)]
pub struct Record {
    /// Where main was before the first change.
    pub start: String,
    /// What main was at after that, oldest first.
    pub tips: Vec<Tip>,
    /// Every run.
    pub runs: Vec<Run>,
}

/// One commit that main was at.
#[derive(Debug)]
pub struct Tip {
    pub commit: String,
    pub tree: String,
}

/// One run.
#[derive(Debug)]
pub struct Run {
    pub change: Option<u64>,
    pub commit: String,
    pub tree: String,
    /// On which its candidate stands.
    pub parent: String,
    pub jobs: Vec<Job>,
}

/// One job of a run.
#[derive(Debug)]
pub struct Job {
    pub name: String,
    pub outcome: String,
    pub flaky: bool,
}

impl Record {
    /// Reads main from the repository itself, and the runs as the server shows them.
    pub fn read(project: &Project, api: &Client) -> Result<Record, Failure> {
        let repository = Repository::look(&own_git()?, &project.repository())?;
        let start = project.start()?;
        let tips = tips(&repository, &start)?;
        let asked = Request::get(&["repos", "demo", "runs"]).with("count", Some(RUNS_MAX));
        let listed = api.ask(&asked)?;
        let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        let runs = listed.iter().map(|line| run(&repository, api, line)).collect::<Result<_, _>>()?;
        Ok(Record { start, tips, runs })
    }

    /// Tips of main with no run, on that very commit or on the same files, in which all that is required passed.
    pub fn red(&self) -> Vec<&Tip> {
        let covers =
            |tip: &Tip, run: &Run| (run.commit == tip.commit || run.tree == tip.tree) && run.is_green();
        self.tips.iter().filter(|tip| !self.runs.iter().any(|run| covers(tip, run))).collect()
    }

    /// In what a change did not go as the table says of its case; `all` are the changes as they were pushed.
    pub fn amiss(&self, shown: &Shown, all: &[Shown]) -> Vec<String> {
        let landed = shown.commit.as_deref().filter(|_| shown.outcome == Outcome::Landed);
        let mut amiss: Vec<String> =
            shown.case.claims.iter().filter_map(|claim| self.denies(*claim, shown, all)).collect();
        if let Some(commit) = landed {
            if !self.tips.iter().any(|tip| tip.commit == commit) {
                amiss.push("main was never at that commit".to_owned());
            }
            if self.red().iter().any(|tip| tip.commit == commit) {
                amiss.push("no run on it passed all that is required".to_owned());
            }
        }
        amiss
    }

    /// Why a claim does not hold; `None`: it does.
    fn denies(&self, claim: Claim, shown: &Shown, all: &[Shown]) -> Option<String> {
        let mut own = self.runs.iter().filter(|run| run.change == Some(shown.change));
        let (holds, otherwise) = match claim {
            Claim::LandedAsTested => {
                let tested = |run: &Run| Some(&run.commit) == shown.commit.as_ref() && run.is_green();
                (own.any(tested), "no run on that very commit passed")
            }
            Claim::GreenAlone => {
                (own.any(|run| run.parent == self.start && run.is_green()), "it was never green alone")
            }
            Claim::NothingRuns => (own.next().is_none(), "something of it ran"),
            Claim::TriedAgain => {
                (own.any(|run| run.jobs.iter().any(|job| job.flaky)), "no job of it is marked flaky")
            }
            Claim::MainsTestsFail => {
                (own.any(Run::fails_a_requirement), "main's own tests did not fail on it")
            }
            Claim::LandsFirst => return self.lands_late(shown, all),
        };
        (!holds).then(|| otherwise.to_owned())
    }

    /// Which change that was pushed before this one has landed before it, too.
    fn lands_late(&self, shown: &Shown, all: &[Shown]) -> Option<String> {
        let place =
            |shown: &Shown| self.tips.iter().position(|tip| Some(&tip.commit) == shown.commit.as_ref());
        let Some(own) = place(shown) else { return Some("it is not on main".to_owned()) };
        let earlier = all.iter().take_while(|other| other.change != shown.change);
        let before = earlier.filter(|other| place(other).is_some_and(|place| place < own));
        let names: Vec<&str> = before.map(|other| other.case.name).collect();
        (!names.is_empty()).then(|| format!("it landed after {}", names.join(", ")))
    }
}

impl Run {
    /// Whether each job that main requires has passed: both, where the change's own stands beside main's.
    fn is_green(&self) -> bool {
        let passed = |required: &&str| {
            let mut those = self.jobs.iter().filter(|job| job.is(required)).peekable();
            those.peek().is_some() && those.all(|job| job.outcome == "passed")
        };
        REQUIRED.iter().all(passed)
    }

    fn fails_a_requirement(&self) -> bool {
        let failed =
            |required: &&str| self.jobs.iter().any(|job| job.is(required) && job.outcome == "failed");
        REQUIRED.iter().any(failed)
    }
}

impl Job {
    /// A job that the change's definition has otherwise is run as main has it beside that, under another name.
    fn is(&self, required: &str) -> bool {
        let name = self.name.strip_suffix("@target").unwrap_or(&self.name);
        name == required
    }
}

/// First parents of main down to where it began.
fn tips(repository: &Repository, start: &str) -> Result<Vec<Tip>, Failure> {
    let main = "main".parse().map_err(|error| Failure::new(Exit::Failed, format!("{error}")))?;
    let mut at = repository.branch_tip(&main)?;
    let mut tips = Vec::new();
    while let Some(commit) = at.filter(|commit| commit.to_string() != start) {
        if tips.len() == TIPS_MAX {
            return Err(Failure::new(Exit::Failed, "main no longer contains what the demo began with"));
        }
        let info = repository.commit(commit)?;
        tips.push(Tip { commit: commit.to_string(), tree: info.tree.to_string() });
        at = info.parents.first().copied();
    }
    tips.reverse();
    Ok(tips)
}

fn run(repository: &Repository, api: &Client, line: &Value) -> Result<Run, Failure> {
    let unknown =
        || Failure::new(Exit::Failed, format!("the server lists a run that cannot be read: {line}"));
    let (branch, number) = (line["branch"].as_str().ok_or_else(unknown)?, line["number"].to_string());
    let commit: CommitId =
        line["commit"].as_str().and_then(|commit| commit.parse().ok()).ok_or_else(unknown)?;
    let whole = api.ask(&Request::get(&["repos", "demo", "runs", branch, &number]))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let job = |job: &Value| Job {
        name: text(&job["name"]),
        outcome: text(&job["outcome"]),
        flaky: job["flaky"] == true,
    };
    let info = repository.commit(commit)?;
    Ok(Run {
        change: line["change"].as_u64(),
        commit: commit.to_string(),
        tree: info.tree.to_string(),
        parent: info.parents.first().map(ToString::to_string).unwrap_or_default(),
        jobs: whole["jobs"].as_array().into_iter().flatten().map(job).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::cases::CASES;
    use super::*;

    /// Main was at `c0` and then at the commits of these changes; commit `c1` has the files `t1`.
    fn record(landed: &[u64]) -> Record {
        let tip = |change: &u64| Tip { commit: format!("c{change}"), tree: format!("t{change}") };
        Record { start: "c0".into(), tips: landed.iter().map(tip).collect(), runs: Vec::new() }
    }

    /// A run of a change on what it is on top of `parent`.
    fn run(change: u64, parent: &str, outcome: &str) -> Run {
        let job = |name: &&str| Job { name: (*name).into(), outcome: outcome.into(), flaky: false };
        Run {
            change: Some(change),
            commit: format!("c{change}"),
            tree: format!("t{change}"),
            parent: parent.into(),
            jobs: REQUIRED.iter().map(job).collect(),
        }
    }

    fn shown(case: &str, change: u64, outcome: Outcome) -> Shown {
        Shown {
            case: CASES.iter().find(|found| found.name == case).unwrap(),
            change,
            title: String::new(),
            outcome,
            why: String::new(),
            commit: (outcome == Outcome::Landed).then(|| format!("c{change}")),
            amiss: Vec::new(),
        }
    }

    fn amiss(record: &Record, case: &str, outcome: Outcome) -> usize {
        record.amiss(&shown(case, 1, outcome), &[]).len()
    }

    #[test]
    fn main_was_red_where_no_run_passed_on_a_tip_or_its_files() {
        let mut record = record(&[1, 2]);
        record.runs = vec![run(1, "c0", "passed"), run(2, "c1", "failed")];
        assert_eq!(record.red().iter().map(|tip| &tip.commit[..]).collect::<Vec<_>>(), ["c2"]);
        // Half of what is required is not enough, and files of somebody else say nothing.
        record.runs.push(Run { jobs: run(2, "c1", "passed").jobs.split_off(1), ..run(2, "c1", "passed") });
        record.runs.push(run(3, "c1", "passed"));
        assert_eq!(record.red().len(), 1);
        // Where the change has its own, main's beside it counts as well.
        let mut skips = run(2, "c1", "passed");
        skips.jobs.push(Job { name: "unit@target".into(), outcome: "failed".into(), flaky: false });
        record.runs.push(skips);
        assert_eq!(record.red().len(), 1);
        record.runs.push(Run { commit: "another".into(), ..run(2, "c1", "passed") });
        assert_eq!(record.red().len(), 0);
    }

    #[test]
    fn what_landed_was_tested_as_it_landed_and_is_on_main() {
        let mut record = record(&[1]);
        record.runs = vec![run(1, "c0", "failed")];
        assert_eq!(amiss(&record, "passes", Outcome::Landed), 2);
        record.runs.push(Run { commit: "another".into(), ..run(1, "c0", "passed") });
        assert_eq!(amiss(&record, "passes", Outcome::Landed), 1, "the same files, not the same commit");
        record.runs.push(run(1, "c0", "passed"));
        assert_eq!(amiss(&record, "passes", Outcome::Landed), 0);
        record.tips.clear();
        assert_eq!(amiss(&record, "first-to-edit", Outcome::Landed), 1);
    }

    #[test]
    fn the_urgent_one_lands_before_those_that_were_pushed_before_it() {
        let all = [("passes", 1), ("urgent", 2), ("flaky", 3)]
            .map(|(case, change)| shown(case, change, Outcome::Landed));
        let late = |landed: &[u64]| record(landed).lands_late(&all[1], &all);
        assert_eq!(late(&[2, 1, 3]), None);
        assert_eq!(late(&[3, 2, 1]), None);
        assert_eq!(late(&[1, 2, 3]), Some("it landed after passes".into()));
        assert!(late(&[1, 3]).is_some());
    }

    #[test]
    fn a_pair_is_each_green_alone_only_on_what_main_was_at_first() {
        let mut record = record(&[]);
        record.runs = vec![run(1, "c0", "failed"), run(1, "c9", "passed"), run(2, "c0", "passed")];
        assert_eq!(amiss(&record, "skew-caller", Outcome::Ejected), 1);
        assert_eq!(amiss(&record, "work-in-progress", Outcome::Waiting), 1);
        record.runs.push(run(1, "c0", "passed"));
        assert_eq!(amiss(&record, "skew-caller", Outcome::Ejected), 0);
        assert_eq!(amiss(&record, "work-in-progress", Outcome::Waiting), 0);
    }

    #[test]
    fn nothing_runs_of_what_is_ignored() {
        let mut record = record(&[]);
        record.runs = vec![run(2, "c0", "passed")];
        assert_eq!(amiss(&record, "draft", Outcome::Ignored), 0);
        record.runs.push(run(1, "c0", "cancelled"));
        assert_eq!(amiss(&record, "draft", Outcome::Ignored), 1);
        assert_eq!(amiss(&record, "not-authorised", Outcome::Ignored), 1);
    }

    #[test]
    fn a_flaky_job_is_marked_and_mains_tests_are_those_that_fail() {
        let mut record = record(&[1]);
        record.runs = vec![run(1, "c0", "passed")];
        assert_eq!(amiss(&record, "flaky", Outcome::Landed), 1);
        assert_eq!(amiss(&record, "skips-the-tests", Outcome::Ejected), 1);
        record.runs[0].jobs[1].flaky = true;
        assert_eq!(amiss(&record, "flaky", Outcome::Landed), 0);
        let mut failed = run(1, "c0", "failed");
        failed.jobs[0].name.push_str("@target");
        record.runs.push(failed);
        assert_eq!(amiss(&record, "skips-the-tests", Outcome::Ejected), 0);
    }
}
