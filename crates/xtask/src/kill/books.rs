//! What must be true after any number of kills.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::world::World;
use crate::failure::Failure;

/// Every way in which the books are wrong.
pub fn check(world: &mut World) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    let bare = world.path("data/repos/demo.git");
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
