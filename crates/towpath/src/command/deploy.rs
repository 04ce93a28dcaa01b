//! `towpath deploy ...`: what runs where, and how to put something else there.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::branch;
use crate::command::answer::{self, done, flag, number, short, text, time, verdict};
use crate::failure::Failure;
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg};
use crate::terminal::Terminal;
use crate::terminal::style::Style;
use crate::terminal::table::{Cell, styled};

/// Show what runs where, and deploy
#[derive(Debug, clap::Args)]
pub struct DeployArgs {
    #[command(flatten)]
    repo: RepoArg,
    #[command(subcommand)]
    verb: DeployVerb,
}

#[derive(Debug, clap::Subcommand)]
enum DeployVerb {
    /// List environments and what runs there
    List,
    /// Show the deployments to an environment, newest first
    Show {
        /// The environment
        environment: String,
        /// Deployments at most
        #[arg(long)]
        count: Option<usize>,
    },
    /// Deploy a landed commit to an environment; without one, run all deploy jobs of the branch's tip again
    Start {
        /// The environment
        environment: Option<String>,
        /// A commit that landed on the branch: its id or the beginning of it, a branch or a tag [default: the branch's tip]
        #[arg(long, requires = "environment")]
        commit: Option<String>,
        /// The branch [default: the repo's own]
        #[arg(long)]
        branch: Option<String>,
    },
    /// Say that an environment is this server: its deployments replace the server's program
    #[command(name = "self")]
    Own {
        /// The environment
        environment: String,
        /// It no longer is
        #[arg(long)]
        off: bool,
    },
}

pub fn run(arguments: &DeployArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    match &arguments.verb {
        DeployVerb::List => {
            let environments = place.client.ask(&Request::get(&place.path(&["environments"])))?;
            answer::list(&environments, "environments", terminal, environment)
        }
        DeployVerb::Show { environment, count } => show(&place, environment, *count, terminal),
        DeployVerb::Start { environment: None, branch, .. } => {
            branch::post(&place, branch.as_deref(), "deploy", json!({}), terminal)
        }
        DeployVerb::Start { environment: Some(environment), commit, branch } => {
            let path = place.path(&["environments", environment, "deploy"]);
            let body = json!({ "branch": branch, "commit": commit });
            done(&place.client, &Request::post(&path, body), terminal)
        }
        DeployVerb::Own { environment, off } => {
            let path = place.path(&["environments", environment, "self"]);
            let request = if *off { Request::delete(&path) } else { Request::put(&path, json!({})) };
            done(&place.client, &request, terminal)
        }
    }
}

fn show(
    place: &Place,
    environment: &str,
    count: Option<usize>,
    terminal: &Terminal,
) -> Result<ExitCode, Failure> {
    let request = Request::get(&place.path(&["environments", environment])).with("count", count);
    let view = place.client.ask(&request)?;
    if terminal.is_json() {
        terminal.record(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    answer::list(&view["deployments"], "deployments", terminal, deployment)
}

/// One line: where, what runs there since when, and what became of the newest deployment if that is another one.
fn environment(view: &Value) -> Vec<Cell> {
    let (current, newest) = (&view["current"], &view["newest"]);
    let name = match flag(view, "is_self") {
        true => format!("{} (this server)", text(view, "environment")),
        false => text(view, "environment").to_owned(),
    };
    let program = text(&view["serving"], "digest");
    let runs =
        if current.is_null() { "nothing yet".to_owned() } else { short(text(current, "commit")).to_owned() };
    let since = time(current, "ended_at");
    let newer = number(newest, "deployment") != number(current, "deployment");
    let waiting = view["waiting"].as_u64().unwrap_or(0);
    vec![
        name.into(),
        runs.into(),
        since.into(),
        if newer { state(newest) } else { "".into() },
        if newer { text(newest, "why").into() } else { "".into() },
        if waiting > 0 { styled(Style::Dim, format!("{waiting} waiting")) } else { "".into() },
        if program.is_empty() { "".into() } else { format!("program {}", short(program)).into() },
    ]
}

fn state(deployment: &Value) -> Cell {
    match deployment["outcome"].as_str() {
        Some(outcome) => verdict(outcome),
        None if deployment.is_null() => "".into(),
        None => verdict("running"),
    }
}

fn deployment(view: &Value) -> Vec<Cell> {
    let by = match text(view, "by") {
        "" => String::new(),
        by => format!("by {by}"),
    };
    vec![
        number(view, "deployment").into(),
        state(view),
        short(text(view, "commit")).into(),
        text(view, "run").into(),
        time(view, "started_at").into(),
        by.into(),
        styled(Style::Dim, text(view, "why")),
    ]
}
