//! `towpath runs [RUN]` and `towpath cancel RUN`.

use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_core::graph::remark;

use crate::command::answer::{self, done, flag, items, number, rows, short, text, time, verdict};
use crate::command::branch::meant;
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg};
use crate::terminal::style::{Style, span};
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

/// List runs, or show one with its jobs
#[derive(Debug, clap::Args)]
pub struct RunsArgs {
    #[command(flatten)]
    repo: RepoArg,
    /// Show this run: `12`, or `release/1.0/12` of a branch that is not the repo's own
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Only of this branch
    #[arg(long, conflicts_with = "run")]
    branch: Option<String>,
    /// Only for this change
    #[arg(long, conflicts_with = "run")]
    change: Option<u64>,
    /// Only those that are not over
    #[arg(long, conflicts_with = "run")]
    running: bool,
    /// At most so many
    #[arg(long, conflicts_with = "run")]
    count: Option<usize>,
}

/// Cancel a run
#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    repo: RepoArg,
    /// The run: `12`, or `release/1.0/12`
    run: String,
    /// Why, for everybody who will wonder
    #[arg(long, alias = "text")]
    why: String,
}

/// A run of the repo at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlace {
    pub branch: String,
    pub number: String,
}

impl RunPlace {
    /// `12`, `main/12`, or as pages name it, `repo/main/12`.
    pub fn find(place: &Place, run: &str) -> Result<RunPlace, Failure> {
        let rest = run.strip_prefix(&format!("{}/", place.repo)).unwrap_or(run);
        let (branch, number) = match rest.rsplit_once('/') {
            Some((branch, number)) => (Some(branch), number),
            None => (None, rest),
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Failure::new(Exit::Usage, format!("`{}` is no run", inline(run)))
                .hint("write `12`, or `release/1.0/12`; `towpath runs` lists them"));
        }
        Ok(RunPlace { branch: meant(place, branch)?, number: number.to_owned() })
    }

    /// The segments of its path.
    pub fn path<'a>(&'a self, place: &'a Place, rest: &[&'a str]) -> Vec<&'a str> {
        let mut path = place.path(&["runs", &self.branch, &self.number]);
        path.extend(rest);
        path
    }
}

pub fn run(arguments: &RunsArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    if let Some(run) = &arguments.run {
        return show(&place, run, terminal);
    }
    let request = Request::get(&place.path(&["runs"]))
        .with("branch", arguments.branch.as_ref())
        .with("change", arguments.change)
        .with("running", arguments.running.then_some(true))
        .with("count", arguments.count);
    let things = if arguments.running { "runs under way" } else { "runs" };
    answer::list(&place.client.ask(&request)?, things, terminal, row)
}

pub fn cancel(arguments: &CancelArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    let run = RunPlace::find(&place, &arguments.run)?;
    let request = Request::post(&run.path(&place, &["cancel"]), json!({ "why": arguments.why }));
    done(&place.client, &request, terminal)
}

/// A run as a row of a table.
pub fn row(run: &Value) -> Vec<Cell> {
    let outcome = run["outcome"].as_str().unwrap_or("running");
    let change = match number(run, "change") {
        number if number.is_empty() => String::new(),
        number => format!("change {number}"),
    };
    let took = match (run["started_at"].as_u64(), run["ended_at"].as_u64()) {
        (Some(start), Some(end)) => span(end.saturating_sub(start)),
        _ => String::new(),
    };
    let mark = if flag(run, "unsandboxed") { "[no sandbox]" } else { "" };
    vec![
        text(run, "run").into(),
        verdict(outcome),
        text(run, "trigger").into(),
        change.into(),
        short(text(run, "commit")).into(),
        took.into(),
        styled(Style::Dim, text(run, "reason")),
        styled(Style::Yellow, mark),
    ]
}

fn show(place: &Place, run: &str, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let run = RunPlace::find(place, run)?;
    let view = place.client.ask(&Request::get(&run.path(place, &[])))?;
    if terminal.is_json() {
        terminal.record(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    rows(&[row(&view)], "", terminal)?;
    let began = time(&view, "started_at");
    rows(
        &[
            vec![styled(Style::Dim, "commit"), text(&view, "commit").into()],
            vec![styled(Style::Dim, "began"), began.into()],
            vec![styled(Style::Dim, "page"), text(&view, "url").into()],
        ],
        "  ",
        terminal,
    )?;
    rows(&items(&view["jobs"]).iter().map(job).collect::<Vec<_>>(), "  ", terminal)?;
    Ok(ExitCode::SUCCESS)
}

fn job(job: &Value) -> Vec<Cell> {
    let outcome = job["outcome"].as_str().unwrap_or_else(|| text(job, "stage"));
    let took = job["duration_ms"].as_u64().filter(|took| *took > 0).map(span).unwrap_or_default();
    let why = text(job, "why");
    let why = if outcome == "passed" { remark(why) } else { why };
    let attempts = items(&job["attempts"]).len();
    let notes = [
        (attempts > 1, format!("{attempts} attempts")),
        (flag(job, "flaky"), "flaky".to_owned()),
        (flag(job, "unsandboxed"), "[no sandbox]".to_owned()),
        (!text(job, "carried").is_empty(), format!("from run {}", text(job, "carried"))),
        (!items(&job["failed_tests"]).is_empty(), format!("failed: {}", answer::joined(job, "failed_tests"))),
    ];
    let notes: Vec<String> = notes.into_iter().filter(|(said, _)| *said).map(|(_, note)| note).collect();
    vec![
        verdict(outcome),
        text(job, "name").into(),
        took.into(),
        why.into(),
        styled(Style::Dim, notes.join(", ")),
    ]
}
