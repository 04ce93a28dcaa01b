//! `towpath change list|show|why`.

use std::process::ExitCode;

use serde_json::Value;

use super::{fetch, named};
use crate::command::answer::{self, flag, items, joined, number, rows, short, text, time, verdict};
use crate::failure::Failure;
use crate::remote::Request;
use crate::remote::place::Place;
use crate::terminal::style::Style;
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

/// Runs that `show` names.
const RUNS_SHOWN: usize = 10;

/// List changes, newest first
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// How they stand
    #[arg(long, value_parser = ["open", "closed", "landed", "all"], default_value = "open")]
    state: String,
    /// Only for this branch
    #[arg(long, value_name = "BRANCH")]
    target: Option<String>,
    /// Only of this user
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Only with this label
    #[arg(long)]
    label: Option<String>,
    /// Only below this number: where the page before ended
    #[arg(long, value_name = "CHANGE")]
    below: Option<u64>,
    /// At most so many
    #[arg(long)]
    count: Option<usize>,
}

pub fn list(arguments: &ListArgs, place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let request = Request::get(&place.path(&["changes"]))
        .with("state", Some(&arguments.state))
        .with("target", arguments.target.as_ref())
        .with("owner", arguments.owner.as_ref())
        .with("label", arguments.label.as_ref())
        .with("below", arguments.below)
        .with("count", arguments.count);
    let row = |change: &Value| -> Vec<Cell> {
        let state = if flag(change, "draft") { "draft" } else { text(change, "state") };
        vec![
            number(change, "change").into(),
            verdict(state),
            text(change, "target").into(),
            text(change, "owner").into(),
            text(change, "title").into(),
            styled(Style::Dim, short(text(change, "landed"))),
            styled(Style::Dim, joined(change, "labels")),
        ]
    };
    let things = match arguments.state.as_str() {
        "all" => "changes".to_owned(),
        state => format!("{state} changes"),
    };
    answer::list(&place.client.ask(&request)?, &things, terminal, row)
}

/// Somebody's word for the newest revision, and how long it holds.
fn vouched(vouch: &Value) -> String {
    let term = match text(vouch, "standing") {
        "holds" => format!("until {}", time(vouch, "expires")),
        "ended" => format!("ended {}", time(vouch, "expires")),
        "void" => "no longer counts, as who gave it does not maintain the repo now".to_owned(),
        _ => return String::new(),
    };
    let definition = match text(vouch, "definition") {
        "" => String::new(),
        definition => format!(" with the definition {definition}"),
    };
    format!("by {}{definition}, {term}: {}", text(vouch, "by"), text(vouch, "why"))
}

/// The commands that show the newest revision in a clone.
fn how_to_look(change: &Value) -> String {
    let (target, number) = (text(change, "target"), &change["change"]);
    let newest = change["revisions"].as_array().map_or(0, Vec::len);
    let range = format!("towpath/{target}..{}", short(text(change, "revision")));
    format!("git fetch towpath {target} refs/changes/{number}/{newest} && git log -p {range}")
}

pub fn show(change: u64, place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let change = fetch(place, change)?;
    if terminal.is_json() {
        terminal.record(&change)?;
        return Ok(ExitCode::SUCCESS);
    }
    let state = if flag(&change, "draft") { "draft" } else { text(&change, "state") };
    terminal.data(Style::Bold.paint(inline(&named(&change))))?;
    let facts = [
        ("state", state.to_owned()),
        ("for", text(&change, "target").to_owned()),
        ("by", text(&change, "owner").to_owned()),
        ("revision", text(&change, "revision").to_owned()),
        ("look at it", how_to_look(&change)),
        ("definition", text(&change, "definition").to_owned()),
        ("landed as", text(&change, "landed").to_owned()),
        ("labels", joined(&change, "labels")),
        ("vouched for", vouched(&change["gate"]["vouch"])),
        ("page", text(&change, "url").to_owned()),
    ];
    let facts: Vec<Vec<Cell>> = facts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| vec![styled(Style::Dim, label), value.into()])
        .collect();
    rows(&facts, "  ", terminal)?;
    for line in text(&change, "body").lines() {
        terminal.data(format!("    {}", inline(line)))?;
    }
    checklist(&change, terminal)?;
    section("revisions", &change["revisions"], terminal, |revision| {
        vec![
            number(revision, "number").into(),
            short(text(revision, "commit")).into(),
            text(revision, "uploader").into(),
            time(revision, "at").into(),
        ]
    })?;
    section("reviews", &change["reviews"], terminal, |review| {
        let word = if text(review, "verdict") == "approve" { "approves" } else { "asks for changes" };
        let old = if flag(review, "current") { "" } else { "counts no more" };
        vec![
            text(review, "by").into(),
            word.into(),
            short(text(review, "revision")).into(),
            styled(Style::Dim, old),
            text(review, "text").into(),
        ]
    })?;
    section("comments", &change["comments"], terminal, |comment| {
        vec![text(comment, "by").into(), time(comment, "at").into(), text(comment, "text").into()]
    })?;
    let runs: Vec<Value> = items(&change["runs"]).iter().take(RUNS_SHOWN).cloned().collect();
    section("runs", &Value::Array(runs), terminal, crate::command::runs::row)?;
    Ok(ExitCode::SUCCESS)
}

fn section(
    title: &str,
    list: &Value,
    terminal: &Terminal,
    row: impl Fn(&Value) -> Vec<Cell>,
) -> Result<(), Failure> {
    let list = items(list);
    if list.is_empty() {
        return Ok(());
    }
    terminal.data(title)?;
    rows(&list.iter().map(row).collect::<Vec<_>>(), "  ", terminal)
}

/// What landing takes, with what is missing below each item.
fn checklist(change: &Value, terminal: &Terminal) -> Result<(), Failure> {
    let list = items(&change["gate"]["checklist"]);
    if list.is_empty() {
        return Ok(());
    }
    terminal.data("landing takes")?;
    for item in list {
        terminal.data(format!("  {}  {}", mark(item), inline(text(item, "item"))))?;
        if let Some(unseen) = unseen(item) {
            terminal.data(format!("       {}", Style::Dim.paint(unseen)))?;
        }
        items(&item["why"]).iter().try_for_each(|reason| show_reason(reason, "       ", terminal))?;
    }
    Ok(())
}

fn mark(item: &Value) -> String {
    match flag(item, "met") {
        true => Style::Green.paint("yes"),
        false if unseen(item).is_some() => Style::Dim.paint("  ?"),
        false => Style::Yellow.paint(" no"),
    }
}

/// What is said of an item of the checklist that is neither met nor known to be unmet.
fn unseen(item: &Value) -> Option<&'static str> {
    let is_unknown = !flag(item, "met") && items(&item["why"]).is_empty();
    is_unknown.then(|| match flag(item, "outdated") {
        true => "not looked at since it or the branch changed",
        false => "not looked at yet",
    })
}

pub fn why(change: u64, place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let answer = place.client.ask(&Request::get(&place.path(&["changes", &change.to_string(), "why"])))?;
    if terminal.is_json() {
        terminal.record(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    match text(&answer, "state") {
        "landed" => {
            terminal.data(format!("change {change} has landed as {}", inline(text(&answer, "landed"))))?
        }
        "closed" => {
            terminal.data(format!("change {change} is closed; `towpath change reopen {change}` opens it"))?
        }
        _ => {
            let reasons = items(&answer["reasons"]);
            reasons.iter().try_for_each(|reason| show_reason(reason, "", terminal))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_reason(reason: &Value, indent: &str, terminal: &Terminal) -> Result<(), Failure> {
    terminal.data(format!("{indent}{}", inline(text(reason, "text"))))?;
    for detail in items(&reason["details"]).iter().filter_map(Value::as_str) {
        terminal.data(format!("{indent}  {}", inline(detail)))?;
    }
    match text(reason, "hint") {
        "" => Ok(()),
        hint => Ok(terminal.data(format!("{indent}  {} {}", Style::Dim.paint("hint:"), inline(hint)))?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_looked_at_is_neither_yes_nor_no() {
        let check = |item: Value, expected: &str| assert!(mark(&item).contains(expected), "{item}");
        check(json!({ "met": true, "why": [] }), "yes");
        check(json!({ "met": false, "why": [{ "text": "it is a draft" }] }), " no");
        check(json!({ "met": false, "why": [] }), "  ?");
        assert_eq!(unseen(&json!({ "met": false, "why": [] })), Some("not looked at yet"));
        let outdated = json!({ "met": false, "why": [], "outdated": true });
        assert_eq!(unseen(&outdated), Some("not looked at since it or the branch changed"));
    }

    #[test]
    fn a_vouch_is_shown_with_its_end() {
        let vouch = |standing: &str| {
            vouched(&json!({ "by": "mia", "why": "read it", "expires": 1_000, "standing": standing }))
        };
        assert_eq!(vouch("holds"), "by mia, until 1970-01-01 00:00:01 UTC: read it");
        assert_eq!(vouch("ended"), "by mia, ended 1970-01-01 00:00:01 UTC: read it");
        assert!(vouch("void").starts_with("by mia, no longer counts, as "));
        let bound =
            json!({ "by": "mia", "why": "read it", "definition": "ab12", "expires": 0, "standing": "ended" });
        assert!(vouched(&bound).starts_with("by mia with the definition ab12, ended "));
        assert_eq!(vouched(&Value::Null), "");
    }
}
