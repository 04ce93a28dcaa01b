//! `cargo xtask self-host`: this repository with its whole history on a real server of its own making, and its newest
//! commit as a change that is tested by the whole `towpath.yaml`, approved and landed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::Failure;

mod place;

use place::Place;

pub const HELP: &str = "land the newest commit of this clone by towpath itself, tested by the whole towpath.yaml: \
                        --debug, --within MINUTES (240)";

/// Minutes until the change has to have landed. Three jobs compile everything anew, on two cores that may be shared.
const WITHIN_MINUTES: u64 = 240;
/// Between two looks at the change.
const LOOK: Duration = Duration::from_secs(5);
/// Lines of a failed job's log that are shown.
const LOG_LINES: usize = 60;
/// The change: the first one of a new server.
const CHANGE: &str = "1";

/// What stands on the command line.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// The program as it is compiled for tests, which takes minutes less to make.
    debug: bool,
    within: Duration,
}

impl Asked {
    fn read(arguments: &mut lexopt::Parser) -> Result<Asked, Failure> {
        let mut asked = Asked { debug: false, within: Duration::from_secs(WITHIN_MINUTES * 60) };
        while let Some(argument) = arguments.next().map_err(Failure::usage)? {
            match argument {
                lexopt::Arg::Long("debug") => asked.debug = true,
                lexopt::Arg::Long("within") => {
                    let value = arguments.value().map_err(Failure::usage)?;
                    let minutes: u64 = value.to_string_lossy().parse().map_err(Failure::usage)?;
                    asked.within = Duration::from_secs(minutes.saturating_mul(60));
                }
                other => return Err(Failure::usage(other.unexpected())),
            }
        }
        Ok(asked)
    }
}

pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let asked = Asked::read(arguments)?;
    let began = Instant::now();
    let mut place = Place::new(root, asked.debug)?;
    let outcome = lands(&place, began, asked.within);
    if !matches!(outcome, Ok(true)) {
        println!("kept for a look: {}", place.keep().display());
    }
    outcome
}

/// From the import to the landing; `false`: it was tested and does not pass.
fn lands(place: &Place, began: Instant, within: Duration) -> Result<bool, Failure> {
    let commits = place.import()?;
    println!("imported {commits} commits as `main`; {} is the change", place.change());
    place.push()?;
    place.approve(CHANGE)?;
    let mut seen = String::new();
    // On a machine that has more to do than it can, an answer may take longer than a client waits for it.
    let mut unanswered = None;
    while began.elapsed() < within {
        let looked =
            place.record(&["change", "show", CHANGE]).and_then(|change| Ok((change, newest_run(place)?)));
        match looked {
            Err(failure) => unanswered = Some(failure),
            Ok((change, run)) => {
                unanswered = None;
                let now = run.as_ref().map(jobs).unwrap_or_default();
                if now != seen {
                    println!("{:>5} s  {now}", began.elapsed().as_secs());
                    seen = now;
                }
                if change["state"] == "landed" {
                    return verify(place, &change, run.as_ref(), (commits, began.elapsed()));
                }
                if change["gate"]["tests"] == "failed" {
                    run.as_ref().into_iter().for_each(|run| show_failures(place, run));
                    return Ok(false);
                }
            }
        }
        std::thread::park_timeout(LOOK);
    }
    match unanswered {
        Some(failure) => Err(failure),
        None => {
            let why = place.cli(&["change", "why", CHANGE])?;
            let hint = "give it more time by `--within MINUTES`";
            Err(Failure::new("the change has not landed in time", why.trim(), hint))
        }
    }
}

fn newest_run(place: &Place) -> Result<Option<Value>, Failure> {
    let runs = place.records(&["runs"])?;
    let Some(newest) = runs.first().and_then(|run| run["run"].as_str()) else { return Ok(None) };
    place.record(&["runs", newest]).map(Some)
}

/// One line: each job, how far it is, and how long it took.
fn jobs(run: &Value) -> String {
    let job = |job: &Value| {
        let name = job["name"].as_str().unwrap_or_default();
        let took = job["duration_ms"].as_u64().unwrap_or_default() / 1000;
        match job["outcome"].as_str() {
            Some(outcome) => format!("{name}: {outcome} after {took} s"),
            None => format!("{name}: {}", job["stage"].as_str().unwrap_or_default()),
        }
    };
    let jobs = run["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    jobs.iter().map(job).collect::<Vec<_>>().join(", ")
}

fn show_failures(place: &Place, run: &Value) {
    let id = run["run"].as_str().unwrap_or_default();
    for job in run["jobs"].as_array().into_iter().flatten().filter(|job| job["outcome"] != "passed") {
        let name = job["name"].as_str().unwrap_or_default();
        println!("== {name}: {}", job["why"].as_str().unwrap_or_default());
        // A job that never began has no log.
        let log = place.cli(&["log", id, name]).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| println!("{line}"));
    }
}

/// The landed commit is the tested one, in the sandbox, and the record says so.
fn verify(
    place: &Place,
    change: &Value,
    run: Option<&Value>,
    (commits, took): (usize, Duration),
) -> Result<bool, Failure> {
    let Some(run) = run else { return Ok(false) };
    let landed = change["landed"].as_str().unwrap_or_default();
    let mut faults = Vec::new();
    if run["commit"] != change["landed"] {
        faults.push(format!("{landed} has landed, and {} was tested", run["commit"]));
    }
    if run["unsandboxed"] != false {
        faults.push("a job ran without a sandbox".to_owned());
    }
    let tip = place.tip()?;
    if tip != landed {
        faults.push(format!("{landed} has landed, and the branch is at {tip}"));
    }
    if let Err(why) = place.audit() {
        faults.push(format!("the record does not verify: {why}"));
    }
    faults.iter().for_each(|fault| println!("FAULT: {fault}"));
    println!(
        "self-host: {commits} commits imported, change {CHANGE} landed as {landed} after {} s ({}), {} faults",
        took.as_secs(),
        jobs(run),
        faults.len()
    );
    Ok(faults.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_line_says_how_long_and_with_which_program() {
        let read = |words: &[&str]| Asked::read(&mut lexopt::Parser::from_args(words));
        let asked = read(&["--within", "90", "--debug"]).unwrap();
        assert_eq!(asked, Asked { debug: true, within: Duration::from_secs(5400) });
        assert!(read(&["--within", "soon"]).is_err());
        assert!(read(&["now"]).is_err());
    }

    #[test]
    fn a_line_says_how_far_each_job_is() {
        let run = json!({ "jobs": [
            { "name": "tidy", "stage": "ended", "outcome": "passed", "duration_ms": 42_400 },
            { "name": "test", "stage": "running", "outcome": null, "duration_ms": 10_000 },
            { "name": "clippy", "stage": "waiting", "outcome": null, "duration_ms": 0 },
        ] });
        assert_eq!(jobs(&run), "tidy: passed after 42 s, test: running, clippy: waiting");
    }
}
