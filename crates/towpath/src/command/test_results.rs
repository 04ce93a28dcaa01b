//! `towpath tests RUN [JOB]`: what the tests of a job came to, and how one of them ended lately.

use std::process::ExitCode;

use serde_json::Value;

use crate::command::answer::{self, items, number, rows, text, time, verdict};
use crate::command::log::{chosen, meant_job};
use crate::command::runs::RunPlace;
use crate::failure::Failure;
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg};
use crate::terminal::style::{Style, span};
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

/// Tests that one answer has at most.
const SHOWN: usize = 500;

/// Show the tests of a job, those that failed first, then the slowest; or how one test ended lately
#[derive(Debug, clap::Args)]
pub struct TestsArgs {
    #[command(flatten)]
    repo: RepoArg,
    /// The run: `12`, or `release/1.0/12`
    #[arg(required_unless_present = "history")]
    run: Option<String>,
    /// The job, or a key that has several; of these, as of all jobs without it, the only one or the first that did not pass
    job: Option<String>,
    /// Only those that failed
    #[arg(long)]
    failed: bool,
    /// Which attempt, from 1 [default: the newest]
    #[arg(long)]
    attempt: Option<u32>,
    /// Show how this test ended lately, newest first; its name is as `towpath tests RUN` shows it
    #[arg(long, value_name = "TEST", conflicts_with_all = ["run", "job", "failed", "attempt"])]
    history: Option<String>,
    /// At most so many, of 500 that one answer can have
    #[arg(long, default_value_t = SHOWN)]
    count: usize,
    /// Leave out so many of the first
    #[arg(long, default_value_t = 0, conflicts_with = "history")]
    skip: usize,
}

pub fn run(arguments: &TestsArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    if let Some(test) = &arguments.history {
        let request = Request::get(&place.path(&["tests"]))
            .with("name", Some(test))
            .with("count", Some(arguments.count));
        return answer::list(
            &place.client.ask(&request)?,
            "reports of this test, by its whole name as `towpath tests RUN` shows it",
            terminal,
            past,
        );
    }
    let run = RunPlace::find(&place, arguments.run.as_deref().unwrap_or_default())?;
    let job = meant_job(&place, &run, (arguments.job.as_deref(), chosen), terminal)?;
    let request = Request::get(&run.path(&place, &["jobs", &job, "tests"]))
        .with("attempt", arguments.attempt)
        .with("failed", arguments.failed.then_some(true))
        .with("skip", (arguments.skip > 0).then_some(arguments.skip))
        .with("count", Some(arguments.count));
    let view = place.client.ask(&request)?;
    if terminal.is_json() {
        terminal.record(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    match ["passed", "failed", "skipped"].iter().all(|key| view[*key].as_u64() == Some(0)) {
        true => terminal.talk(none(&place, &run, (&job, arguments.attempt))?),
        false => show(&view, arguments, terminal)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Why an attempt of a job has no tests, as far as that is known.
fn none(place: &Place, run: &RunPlace, (job, attempt): (&str, Option<u32>)) -> Result<String, Failure> {
    let view = place.client.ask(&Request::get(&run.path(place, &[])))?;
    let found = items(&view["jobs"]).iter().find(|view| text(view, "name") == job).unwrap_or(&Value::Null);
    let of_attempt = |wanted: u32| {
        items(&found["attempts"]).iter().find(move |one| one["attempt"].as_u64() == Some(wanted.into()))
    };
    let ended = attempt.and_then(of_attempt).unwrap_or(found);
    let reports: Vec<&str> = text(ended, "why").split("; ").filter(|part| part.contains("report")).collect();
    Ok(match reports.is_empty() {
        true => "the job reported no tests: `reports: { junit: FILE }` in the pipeline names its reports"
            .to_owned(),
        false => format!("the job reported no tests: {}", inline(&reports.join("; "))),
    })
}

fn show(view: &Value, arguments: &TestsArgs, terminal: &Terminal) -> Result<(), Failure> {
    let count = |key: &str| view[key].as_u64().unwrap_or(0);
    let (passed, failed, skipped) = (count("passed"), count("failed"), count("skipped"));
    let tests = items(&view["tests"]);
    for test in tests {
        rows(&[row(test)], "", terminal)?;
        for line in text(test, "message").lines() {
            terminal.data(format!("    {}", inline(line)))?;
        }
    }
    let all = if arguments.failed { failed } else { passed + failed + skipped };
    let next = arguments.skip + tests.len();
    let more = match all > next as u64 {
        true => format!("; {} are shown, `--skip {next}` shows those that follow", tests.len()),
        false => String::new(),
    };
    terminal.talk(format!("{failed} failed, {passed} passed, {skipped} skipped{more}"));
    Ok(())
}

fn row(test: &Value) -> Vec<Cell> {
    vec![verdict(text(test, "outcome")), duration(test), text(test, "name").into()]
}

fn past(time_of: &Value) -> Vec<Cell> {
    vec![
        text(time_of, "run").into(),
        text(time_of, "job_name").into(),
        verdict(text(time_of, "outcome")),
        duration(time_of),
        format!("attempt {}", number(time_of, "attempt")).into(),
        styled(Style::Dim, time(time_of, "at")),
        text(time_of, "message").lines().next().unwrap_or_default().into(),
    ]
}

fn duration(test: &Value) -> Cell {
    span(test["duration_ms"].as_u64().unwrap_or(0)).into()
}
