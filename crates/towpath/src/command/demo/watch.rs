//! What the demo shows: each change as it moves, and the table at the end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cases::{Case, Outcome};
use super::project::{Project, Pushed};
use super::serve::DemoServer;
use super::{Played, Shown};
use crate::failure::{Exit, Failure};
use crate::remote::{Client, Request};
use crate::terminal::Terminal;

/// Between two looks at the changes.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A change that was just pushed, with what the server answered to git.
pub fn opened(
    case: &'static Case,
    api: &Client,
    pushed: &Pushed,
    terminal: &Terminal,
) -> Result<Shown, Failure> {
    let newest =
        Request::get(&["repos", "demo", "changes"]).with("state", Some("all")).with("count", Some(1));
    let newest = api.ask(&newest)?;
    let change = newest[0]["change"].as_u64();
    let change = change.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("pushing `{}` opened no change", case.name))
            .why(pushed.remote.join("\n"))
    })?;
    for line in &pushed.remote {
        terminal.talk(format!("  {:<17} {line}", case.name));
    }
    let title = newest[0]["title"].as_str().unwrap_or_default().to_owned();
    let (outcome, why, amiss) = (Outcome::Waiting, String::new(), Vec::new());
    Ok(Shown { case, change, title, outcome, why, commit: None, amiss })
}

/// Waits until no change waits for a run of its own.
pub fn until_tested(
    server: &mut DemoServer,
    project: &Project,
    changes: &mut [Shown],
    until: Instant,
    terminal: &Terminal,
) -> Result<(), Failure> {
    look_until(server, project, changes, (until, terminal), |seen| {
        let tests = seen["gate"]["tests"].as_str().unwrap_or_default();
        let ignored = reasons(seen).any(|reason| matches!(reason, "draft" | "untrusted"));
        ignored || !matches!(tests, "untested" | "running" | "")
    })
}

/// Waits until each change has landed or waits for a person.
pub fn until_settled(
    server: &mut DemoServer,
    project: &Project,
    changes: &mut [Shown],
    until: Instant,
    terminal: &Terminal,
) -> Result<(), Failure> {
    look_until(server, project, changes, (until, terminal), |seen| {
        let blocked =
            seen["gate"]["reasons"].as_array().is_some_and(|all| all.iter().any(|one| one["blocks"] == true));
        seen["state"] != "open" || blocked
    })
}

fn look_until(
    server: &mut DemoServer,
    project: &Project,
    changes: &mut [Shown],
    (until, terminal): (Instant, &Terminal),
    done: impl Fn(&Value) -> bool,
) -> Result<(), Failure> {
    loop {
        server.revive(terminal)?;
        let looked = server.client(&project.ann).and_then(|api| look(&api, changes, terminal, &done));
        match looked {
            Ok(true) => return Ok(()),
            // A server that was killed a moment ago is started again by the next round.
            Ok(false) | Err(_) if Instant::now() < until => std::thread::park_timeout(LOOK_PAUSE),
            Ok(false) => {
                return Err(Failure::new(Exit::TimedOut, "the demo's changes are not settled in time"));
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn look(
    api: &Client,
    changes: &mut [Shown],
    terminal: &Terminal,
    done: &impl Fn(&Value) -> bool,
) -> Result<bool, Failure> {
    let mut all = true;
    for shown in changes.iter_mut() {
        let seen = api.ask(&Request::get(&["repos", "demo", "changes", &shown.change.to_string()]))?;
        let (outcome, why) = judge(&seen);
        if (outcome, &why) != (shown.outcome, &shown.why) {
            terminal.talk(format!("  {:<17} {why}", shown.case.name));
        }
        shown.commit = seen["landed"].as_str().map(str::to_owned);
        (shown.outcome, shown.why) = (outcome, why);
        all &= done(&seen);
    }
    Ok(all)
}

fn reasons(seen: &Value) -> impl Iterator<Item = &str> {
    seen["gate"]["reasons"].as_array().into_iter().flatten().filter_map(|reason| reason["reason"].as_str())
}

/// What a change's state means in the table's words.
fn judge(seen: &Value) -> (Outcome, String) {
    if seen["state"] == "landed" {
        let commit = seen["landed"].as_str().unwrap_or_default();
        return (Outcome::Landed, format!("landed as {}", &commit[..commit.len().min(12)]));
    }
    let first = seen["gate"]["reasons"][0]["text"].as_str().unwrap_or("nothing is known yet").to_owned();
    let is = |wanted: &[&str]| reasons(seen).any(|reason| wanted.contains(&reason));
    let outcome = match () {
        () if is(&["draft", "untrusted"]) => Outcome::Ignored,
        () if is(&["tests_failed", "conflict", "our_machines", "bad_definition"]) => Outcome::Ejected,
        () => Outcome::Waiting,
    };
    (outcome, first)
}

/// Prints the table, or with `--json` one object a change.
pub fn print_table(played: &Played, took: Duration, terminal: &Terminal) -> Result<(), Failure> {
    let changes = &played.changes;
    if terminal.is_json() {
        for shown in changes {
            let object = json!({
                "case": shown.case.name,
                "change": shown.change,
                "title": shown.title,
                "outcome": shown.outcome,
                "why": why(shown),
                "commit": shown.commit,
            });
            terminal.data(object.to_string())?;
        }
        return Ok(());
    }
    terminal.data("")?;
    terminal.data(format!("{:<17} {:>6}  {:<8}  {:<13} {}", "case", "change", "outcome", "commit", "why"))?;
    for shown in changes {
        let outcome =
            serde_json::to_value(shown.outcome).ok().and_then(|word| Some(word.as_str()?.to_owned()));
        let commit = shown.commit.as_deref().map_or("", |commit| &commit[..commit.len().min(12)]);
        let mark = if shown.is_well() { "" } else { "  <- not as expected" };
        let outcome = outcome.unwrap_or_default();
        terminal.data(format!(
            "{:<17} {:>6}  {outcome:<8}  {commit:<13} {}{mark}",
            shown.case.name,
            shown.change,
            why(shown)
        ))?;
    }
    terminal.data("")?;
    let landed = changes.iter().filter(|shown| shown.outcome == Outcome::Landed).count();
    terminal.data(format!(
        "{landed} of {} changes landed in {:.1} s; {}",
        changes.len(),
        took.as_secs_f64(),
        played.main_in_words()
    ))?;
    Ok(())
}

fn why(shown: &Shown) -> String {
    let note = shown.case.note;
    match shown.outcome {
        // What is not borne out is not said.
        _ if !shown.amiss.is_empty() => format!("{}, but {}", shown.why, shown.amiss.join("; ")),
        Outcome::Landed if note.is_empty() => "tested and landed".to_owned(),
        Outcome::Landed => note.to_owned(),
        _ if note.is_empty() => shown.why.clone(),
        _ => format!("{} ({note})", shown.why),
    }
}
