//! What must be true after any number of kills.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::acts;
use super::jobs::Attempt;
use super::world::{World, required};
use crate::failure::Failure;

/// Every way in which the books are wrong.
pub fn check(world: &mut World) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    let bare = world.path(&format!("data/repos/{}.git", world.repo));
    let git = |words: &[&str]| -> Result<String, Failure> {
        let output = Command::new("git").arg("--git-dir").arg(&bare).args(words).output();
        let output = output.map_err(|why| Failure::new("git was not started", why, "install git"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text + if output.status.success() { "" } else { "\nFAILED" })
    };
    // First parents of main are what was put there: the import and one commit a landing.
    let format = "--format=%H %T %(trailers:key=Change-Number,valueonly,separator=%x2C)";
    let tips = git(&["log", "--first-parent", format, "main"])?;
    let tips: Vec<Tip<'_>> = tips.lines().filter_map(Tip::read).collect();
    let landed: Vec<Tip<'_>> = tips.iter().copied().filter(|tip| !tip.change.is_empty()).collect();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for tip in &landed {
        *times.entry(tip.change).or_default() += 1;
    }
    faults.extend(
        times
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(change, count)| format!("change {change} landed {count} times")),
    );
    for change in world.pushed.iter().filter(|change| !times.contains_key(change.to_string().as_str())) {
        faults.push(format!("change {change} was pushed and is not on main"));
    }
    let leaves = leaves(world)?;
    faults.extend(unexplained(&leaves, &tips));
    let told: Vec<String> =
        leaves.iter().filter_map(|leaf| leaf["entry"]["act"]["what"].as_str().map(str::to_owned)).collect();
    faults.extend(acts::check(world, &told)?);
    faults.extend(world.slipped.iter().map(|change| format!("change {change} landed while it was held")));
    let mut tested = Vec::new();
    for run in world.all_runs()? {
        let commit = run["commit"].as_str().unwrap_or_default();
        let tree = git(&["rev-parse", "--verify", "--quiet", &format!("{commit}^{{tree}}")])?;
        tested.push(Tested { tree: tree.trim().to_owned(), passed: passed(&run) });
    }
    faults.extend(untested(&landed, &tested, &required()));
    faults.extend(jobs(world));
    if git(&["fsck", "--full", "--no-dangling"])?.contains("FAILED") {
        faults.push("git fsck finds damage".into());
    }
    if let Err(why) = world.cli(&[
        "audit",
        "verify",
        "--data",
        &world.path("data").display().to_string(),
        "--keys",
        &world.path("keys").display().to_string(),
    ]) {
        faults.push(format!("the audit log does not verify: {why}"));
    }
    Ok(faults)
}

/// Jobs that the server's death should have left alone and did not, and those that the executor's death should have ended
/// as errored and tried again.
fn jobs(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    let mut runs: BTreeMap<&str, Option<Value>> = BTreeMap::new();
    let seen: BTreeSet<&Attempt> = world.adopted.union(&world.killed).collect();
    for attempt in seen {
        let run = runs.entry(&attempt.run).or_insert_with(|| world.run(&attempt.run));
        let kind = match world.killed.contains(attempt) {
            true => Death::OfTheExecutor,
            false => Death::OfTheServer,
        };
        let all = run.as_ref().and_then(|run| attempts(run, &attempt.job));
        let fault = match all {
            None => Some("is not in its run".to_owned()),
            Some(all) => misfortune(&all, (attempt, attempt.job == "deploy"), kind),
        };
        let Attempt { run, job, attempt } = attempt;
        faults.extend(fault.map(|fault| format!("attempt {attempt} of `{job}` in run {run} {fault}")));
    }
    if world.adopted.is_empty() || world.killed.is_empty() {
        faults.push("no job ran over a death: nothing is shown".into());
    }
    faults
}

/// The outcomes of a job's attempts, oldest first.
fn attempts(run: &Value, job: &str) -> Option<Vec<String>> {
    let job = run["jobs"].as_array()?.iter().find(|found| found["name"] == job)?;
    let outcome = |attempt: &Value| attempt["outcome"].as_str().unwrap_or("running").to_owned();
    Some(job["attempts"].as_array()?.iter().map(outcome).collect())
}

#[derive(Clone, Copy)]
enum Death {
    OfTheServer,
    OfTheExecutor,
}

/// What is wrong with an attempt that ran over a death; `None`: nothing.
fn misfortune(all: &[String], (of, deploys): (&Attempt, bool), death: Death) -> Option<String> {
    let at = (of.attempt as usize).checked_sub(1)?;
    let Some(outcome) = all.get(at).map(String::as_str) else { return Some("is not on record".into()) };
    let last = all.last().map_or("", String::as_str);
    match death {
        // A run that is stopped, because the branch moved, takes its jobs with it.
        Death::OfTheServer if outcome == "passed" || outcome == "cancelled" => None,
        Death::OfTheServer if deploys && outcome == "failed" => None,
        Death::OfTheServer => Some(format!("ran on over the server's death and is {outcome}")),
        Death::OfTheExecutor if outcome == "cancelled" && all.len() == at + 1 => None,
        Death::OfTheExecutor if outcome != "errored" => {
            Some(format!("died with the executor and is {outcome}"))
        }
        // A deployment may have half happened: it is not tried again.
        Death::OfTheExecutor if deploys => (all.len() > at + 1).then(|| "was tried again".to_owned()),
        Death::OfTheExecutor if all.len() == at + 1 => {
            Some("died with the executor and was not tried again".into())
        }
        Death::OfTheExecutor if last == "passed" || last == "cancelled" => None,
        Death::OfTheExecutor => Some(format!("died with the executor, and its last attempt is {last}")),
    }
}

/// What main was at.
#[derive(Debug, Clone, Copy)]
struct Tip<'a> {
    commit: &'a str,
    tree: &'a str,
    /// The change that landed so; empty: it was imported.
    change: &'a str,
}

impl<'a> Tip<'a> {
    fn read(line: &'a str) -> Option<Tip<'a>> {
        let (commit, rest) = line.split_once(' ')?;
        let (tree, change) = rest.split_once(' ')?;
        Some(Tip { commit, tree, change })
    }
}

/// What a run has shown of the files that it ran on.
#[derive(Debug)]
struct Tested {
    tree: String,
    passed: BTreeSet<String>,
}

/// The jobs of a run that passed, each by its own outcome: what the server says of the run as a whole does not count.
fn passed(run: &Value) -> BTreeSet<String> {
    let jobs = run["jobs"].as_array().into_iter().flatten();
    let passed = jobs.filter(|job| job["outcome"] == "passed");
    passed.filter_map(|job| job["name"].as_str().map(str::to_owned)).collect()
}

/// Tips without a run, on that very commit or on the same files, in which each required job has passed.
fn untested(landed: &[Tip<'_>], tested: &[Tested], required: &[&str]) -> Vec<String> {
    let covers = |tip: &Tip<'_>, run: &Tested| {
        run.tree == tip.tree && required.iter().all(|job| run.passed.contains(*job))
    };
    let untested = landed.iter().filter(|tip| !tested.iter().any(|run| covers(tip, run)));
    let fault = |tip: &Tip<'_>| {
        format!(
            "tip {} (change {}) has no run in which {} passed",
            tip.commit,
            tip.change,
            required.join(" and ")
        )
    };
    untested.map(fault).collect()
}

/// The whole record.
fn leaves(world: &World) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    loop {
        let page = world.json(&["audit", "show", "--from", &all.len().to_string(), "--count", "500"])?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Tips that no landing with results explains, and landings that are not on main.
fn unexplained(leaves: &[Value], tips: &[Tip<'_>]) -> Vec<String> {
    let mut explained = BTreeSet::new();
    for leaf in leaves {
        let act = &leaf["entry"]["act"];
        let has_results = act["results"].as_object().is_some_and(|results| !results.is_empty());
        if act["act"] == "landed"
            && has_results
            && let Some(commit) = act["commit"].as_str()
        {
            explained.insert(commit.to_owned());
        }
    }
    let landed = tips.iter().filter(|tip| !tip.change.is_empty());
    let mut faults: Vec<String> = landed
        .filter(|tip| !explained.contains(tip.commit))
        .map(|tip| format!("tip {} (change {}) is in no leaf with results", tip.commit, tip.change))
        .collect();
    let on_main: BTreeSet<&str> = tips.iter().map(|tip| tip.commit).collect();
    faults.extend(
        explained
            .iter()
            .filter(|commit| !on_main.contains(commit.as_str()))
            .map(|commit| format!("{commit} is said to have landed and is not on main")),
    );
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attempt_is_adopted_only_as_itself_and_one_that_died_is_tried_again() {
        let check = |outcomes: &str, attempt: u64, death: Death| {
            let all: Vec<String> = outcomes.split(' ').map(str::to_owned).collect();
            let of = Attempt { run: "kill-1/main/1".into(), job: "unit".into(), attempt };
            misfortune(&all, (&of, false), death).is_none()
        };
        assert!(check("passed", 1, Death::OfTheServer));
        assert!(check("errored passed", 2, Death::OfTheServer));
        assert!(!check("errored passed", 1, Death::OfTheServer));
        assert!(!check("running", 1, Death::OfTheServer));
        assert!(check("errored passed", 1, Death::OfTheExecutor));
        assert!(check("errored errored passed", 1, Death::OfTheExecutor));
        assert!(!check("passed", 1, Death::OfTheExecutor));
        assert!(!check("errored", 1, Death::OfTheExecutor));
        assert!(!check("errored failed", 1, Death::OfTheExecutor));
        assert!(!check("errored passed", 3, Death::OfTheExecutor));
    }

    #[test]
    fn a_tip_counts_as_tested_only_if_one_run_on_its_files_passed_all_that_is_required() {
        let run = |tree: &str, outcomes: &[(&str, &str)]| {
            let jobs = outcomes.iter().map(|(name, outcome)| json!({ "name": name, "outcome": outcome }));
            let run = json!({ "outcome": "passed", "jobs": jobs.collect::<Vec<_>>() });
            Tested { tree: tree.to_owned(), passed: passed(&run) }
        };
        let tip = Tip::read("c1 t1 7").unwrap();
        let faults = |tested: &[Tested]| untested(&[tip], tested, &["unit", "lint"]);
        let both = [("unit", "passed"), ("lint", "passed")];
        assert_eq!(faults(&[run("t1", &both)]), [""; 0]);
        assert_eq!(faults(&[]).len(), 1);
        assert_eq!(faults(&[run("t2", &both)]).len(), 1, "other files");
        // The run is said to have passed, and a required job has not.
        assert_eq!(faults(&[run("t1", &[("unit", "passed"), ("lint", "skipped")])]).len(), 1);
        assert_eq!(faults(&[run("t1", &both[..1]), run("t1", &both[1..])]).len(), 1, "two halves are no run");
        assert!(faults(&[])[0].contains("tip c1 (change 7)"));
    }
}
