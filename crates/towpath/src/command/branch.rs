//! `towpath branch ...`: watched branches.

use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_core::policy::Role;

use crate::command::answer::{
    self, COMMIT_DIGITS, confirm, done, flag, items, number, rows, short, text, time, verdict,
};
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg};
use crate::terminal::style::Style;
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

/// Show a watched branch, stop and start it
#[derive(Debug, clap::Args)]
pub struct BranchArgs {
    #[command(flatten)]
    repo: RepoArg,
    #[command(subcommand)]
    verb: BranchVerb,
}

#[derive(Debug, clap::Subcommand)]
enum BranchVerb {
    /// List watched branches
    List,
    /// Show a branch: flags, alerts, queue, what waits, runs
    Show(Name),
    /// Let nothing land
    Freeze {
        #[command(flatten)]
        name: Name,
        /// Why, for everybody who will wonder
        #[arg(long, alias = "text")]
        why: String,
    },
    /// Let changes land again
    Unfreeze(Name),
    /// Accept a push that went past the queue
    Accept {
        /// The branch
        branch: String,
        /// The commit id of the tip that you looked at; a shortened one is shown whole and asked about
        tip: String,
    },
    /// Run manual jobs on the branch's tip
    Run {
        #[command(flatten)]
        name: Name,
        /// One job; without it, every job with `on: [manual]`
        #[arg(long)]
        job: Option<String>,
    },
    /// Have everything of a branch looked at again
    Ring(Name),
}

#[derive(Debug, Clone, clap::Args)]
struct Name {
    /// The branch [default: the repo's own]
    branch: Option<String>,
}

pub fn run(arguments: &BranchArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    let act = |name: &Name, verb: &str, body| post(&place, name.branch.as_deref(), verb, body, terminal);
    match &arguments.verb {
        BranchVerb::List => list(&place, terminal),
        BranchVerb::Show(name) => show(&place, name.branch.as_deref(), terminal),
        BranchVerb::Freeze { name, why } => act(name, "freeze", json!({ "why": why })),
        BranchVerb::Unfreeze(name) => act(name, "unfreeze", json!({})),
        BranchVerb::Accept { branch, tip } => {
            let tip = whole_tip(&place, branch, tip)?;
            post(&place, Some(branch), "accept", json!({ "tip": tip }), terminal)
        }
        BranchVerb::Run { name, job } => act(name, "run", json!({ "job": job })),
        BranchVerb::Ring(name) => act(name, "ring", json!({})),
    }
}

/// The whole commit id that a person means: theirs, if it is whole; else what waits to be accepted, once they have seen it.
fn whole_tip(place: &Place, branch: &str, given: &str) -> Result<String, Failure> {
    if given.len() >= COMMIT_DIGITS {
        return Ok(given.to_owned());
    }
    let view = place.client.ask(&Request::get(&place.path(&["branches", branch])))?;
    let (tip, branch) = (text(&view, "foreign"), inline(branch));
    if tip.is_empty() || !tip.starts_with(given) {
        let what = format!("no push to `{branch}` that begins with `{}` waits to be accepted", inline(given));
        let why = if tip.is_empty() { "none does".to_owned() } else { format!("what waits is {tip}") };
        let hint = format!("look at it again: `towpath branch show {branch}`");
        return Err(Failure::new(Exit::Conflict, what).why(why).hint(hint));
    }
    let how = format!("name the whole commit: `towpath branch accept {branch} {tip}`");
    confirm(place, Role::Admin, &format!("accept {tip} as the tip of `{branch}`?"), &how)?;
    Ok(tip.to_owned())
}

pub fn post(
    place: &Place,
    branch: Option<&str>,
    verb: &str,
    body: Value,
    terminal: &Terminal,
) -> Result<ExitCode, Failure> {
    let branch = meant(place, branch)?;
    done(&place.client, &Request::post(&place.path(&["branches", &branch, verb]), body), terminal)
}

/// The named branch, or the repo's own.
pub fn meant(place: &Place, branch: Option<&str>) -> Result<String, Failure> {
    match branch {
        Some(branch) => Ok(branch.to_owned()),
        None => {
            let repo = place.client.ask(&Request::get(&place.path(&[])))?;
            Ok(text(&repo, "default_branch").to_owned())
        }
    }
}

fn list(place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let branches = place.client.ask(&Request::get(&place.path(&["branches"])))?;
    answer::list(&branches, "watched branches", terminal, |branch| {
        let frozen = match (flag(branch, "halted"), flag(branch, "frozen")) {
            (true, _) => styled(Style::Red, "halted"),
            (false, true) => styled(Style::Yellow, "frozen"),
            (false, false) => "".into(),
        };
        vec![
            text(branch, "branch").into(),
            short(text(branch, "tip")).into(),
            format!("{} open", number(branch, "open_changes")).into(),
            format!("{} queued", number(branch, "queued")).into(),
            format!("{} running", number(branch, "running")).into(),
            frozen,
        ]
    })
}

fn show(place: &Place, branch: Option<&str>, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let branch = meant(place, branch)?;
    let view = place.client.ask(&Request::get(&place.path(&["branches", &branch])))?;
    if terminal.is_json() {
        terminal.record(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = format!("{}/{}", text(&view, "repo"), text(&view, "branch"));
    terminal.data(Style::Bold.paint(inline(&name)))?;
    rows(&facts(&view), "  ", terminal)?;
    let news: Vec<Vec<Cell>> =
        items(&view["alerts"]).iter().filter(|alert| flag(alert, "current")).map(alert).collect();
    if !news.is_empty() {
        terminal.data("alerts")?;
        rows(&news, "  ", terminal)?;
        if let Some(more @ 1..) = view["alerts_more"].as_u64() {
            terminal.data(format!("  more that go on: {more}"))?;
        }
    }
    for (title, key) in [("queue", "queue"), ("waiting", "waiting")] {
        if items(&view[key]).is_empty() {
            continue;
        }
        terminal.data(title)?;
        rows(&items(&view[key]).iter().map(entry).collect::<Vec<_>>(), "  ", terminal)?;
    }
    if !items(&view["runs"]).is_empty() {
        terminal.data("runs")?;
        rows(&items(&view["runs"]).iter().map(super::runs::row).collect::<Vec<_>>(), "  ", terminal)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(view: &Value) -> Vec<Vec<Cell>> {
    let tip = &view["tip"];
    let frozen = match &view["frozen"] {
        Value::Null => String::new(),
        frozen if text(frozen, "by").is_empty() => text(frozen, "why").to_owned(),
        frozen => format!("{} (by {})", text(frozen, "why"), text(frozen, "by")),
    };
    let halts =
        items(&view["halts"]).iter().map(|halt| format!("{}; {}", text(halt, "why"), text(halt, "mend")));
    let flags: Vec<String> = ["forge", "runs", "state"]
        .iter()
        .filter(|name| flag(&view["flags"][**name], "set"))
        .map(|name| (*name).to_owned())
        .collect();
    let failed =
        if view["deploy"]["failed_environment"].is_null() { "landed run failed" } else { "deploy failed" };
    let facts = [
        ("tip", text(tip, "commit").to_owned()),
        match time(tip, "landed_at") {
            landed if landed.is_empty() => ("committed", time(tip, "at")),
            landed => ("since", landed),
        },
        ("definition", answer::joined(tip, "errors")),
        ("halted", halts.collect::<Vec<_>>().join("; ")),
        ("frozen", frozen),
        ("foreign push", text(view, "foreign").to_owned()),
        ("to look at", flags.join(", ")),
        ("last landed", text(&view["landed"], "commit").to_owned()),
        ("deploys", text(&view["deploy"], "running").to_owned()),
        (failed, text(&view["deploy"], "failed_run").to_owned()),
    ];
    let shown = facts.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(label, value)| vec![styled(Style::Dim, label), value.into()]).collect()
}

fn alert(alert: &Value) -> Vec<Cell> {
    vec![styled(Style::Dim, time(alert, "at")), text(alert, "text").into()]
}

/// A change with what it waits for first.
fn entry(entry: &Value) -> Vec<Cell> {
    let reason = items(&entry["reasons"]).first().map(|reason| text(reason, "text")).unwrap_or_default();
    vec![
        number(entry, "change").into(),
        verdict(text(entry, "tests")),
        text(entry, "title").into(),
        styled(Style::Dim, reason),
    ]
}
