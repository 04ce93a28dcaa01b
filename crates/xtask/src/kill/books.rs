//! What must be true after any number of kills.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::jobs::Attempt;
use super::world::World;
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
    let tips = git(&[
        "log",
        "--first-parent",
        "--format=%H %(trailers:key=Change-Number,valueonly,separator=%x2C)",
        "main",
    ])?;
    let tips: Vec<(&str, &str)> = tips.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, change) in tips.iter().filter(|(_, change)| !change.is_empty()) {
        *times.entry(change).or_default() += 1;
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
    faults.extend(untested(world, &tips)?);
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

/// Tips that no landing with passed results explains, and landings that are not on main.
fn untested(world: &World, tips: &[(&str, &str)]) -> Result<Vec<String>, Failure> {
    let mut explained = BTreeSet::new();
    let mut from = 0;
    loop {
        let leaves = world.json(&["audit", "show", "--from", &from.to_string(), "--count", "500"])?;
        for leaf in &leaves {
            let act = &leaf["entry"]["act"];
            let passed = act["results"].as_object().is_some_and(|results| !results.is_empty());
            if act["act"] == "landed"
                && passed
                && let Some(commit) = act["commit"].as_str()
            {
                explained.insert(commit.to_owned());
            }
        }
        if leaves.is_empty() {
            break;
        }
        from += leaves.len();
    }
    let landed = tips.iter().filter(|(_, change)| !change.is_empty());
    let mut faults: Vec<String> = landed
        .filter(|(commit, _)| !explained.contains(*commit))
        .map(|(commit, change)| format!("tip {commit} (change {change}) is in no leaf with passed results"))
        .collect();
    let on_main: BTreeSet<&str> = tips.iter().map(|(commit, _)| *commit).collect();
    faults.extend(
        explained
            .iter()
            .filter(|commit| !on_main.contains(commit.as_str()))
            .map(|commit| format!("{commit} is said to have landed and is not on main")),
    );
    Ok(faults)
}

#[cfg(test)]
mod tests {
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
}
