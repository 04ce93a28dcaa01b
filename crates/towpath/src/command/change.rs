//! `towpath change ...`: what people do with changes.

use std::process::ExitCode;

use serde_json::json;

use crate::command::answer::{self, done};
use crate::failure::Failure;
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg};
use crate::terminal::Terminal;

mod open;
mod review;
mod show;

/// List, show, review and steer changes
#[derive(Debug, clap::Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    repo: RepoArg,
    #[command(subcommand)]
    verb: ChangeVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ChangeVerb {
    List(show::ListArgs),
    /// Show a change: what landing takes, revisions, reviews, runs
    Show(Number),
    Open(open::OpenArgs),
    /// Say of one revision that it may land
    Approve(review::ReviewArgs),
    /// Say of one revision that it may not land as it is
    RequestChanges(review::ReviewArgs),
    /// Withdraw your review
    Withdraw(Number),
    Vouch(review::VouchArgs),
    /// Comment on a change
    #[command(override_usage = "towpath change comment [OPTIONS] <CHANGE> <TEXT>")]
    Comment {
        #[command(flatten)]
        number: Number,
        /// The words
        #[arg(required_unless_present = "words")]
        text: Option<String>,
        // As the words of a review are given.
        #[arg(long = "text", alias = "why", hide = true, conflicts_with = "text")]
        words: Option<String>,
    },
    /// Put labels on a change, or take them off
    #[command(
        group = clap::ArgGroup::new("labels").args(["add", "remove"]).required(true).multiple(true),
        override_usage = "towpath change label [OPTIONS] <CHANGE> [LABEL]... [--remove <LABEL>]..."
    )]
    Label {
        #[command(flatten)]
        number: Number,
        /// Put on
        #[arg(value_name = "LABEL")]
        add: Vec<String>,
        /// Take off; may be given more than once
        #[arg(long, value_name = "LABEL")]
        remove: Vec<String>,
    },
    /// Stop a change from landing
    Hold {
        #[command(flatten)]
        number: Number,
        /// Why, for everybody who will wonder
        #[arg(long, alias = "text")]
        why: String,
    },
    /// Let a change that is held go on
    Release(Number),
    /// Close a change
    Close(Number),
    /// Open a closed change again
    Reopen(Number),
    /// Make a draft ready: its jobs run from now on
    Ready(Number),
    /// Make a change a draft: nothing of it runs
    Draft(Number),
    /// Change title or body
    #[command(group = clap::ArgGroup::new("words").args(["title", "body"]).required(true).multiple(true))]
    Edit {
        #[command(flatten)]
        number: Number,
        /// The new title
        #[arg(long)]
        title: Option<String>,
        /// The new body
        #[arg(long)]
        body: Option<String>,
    },
    /// Move a change to another branch; earlier approvals count no more
    Retarget {
        #[command(flatten)]
        number: Number,
        /// The branch
        branch: String,
    },
    /// Say why a change has not landed yet
    Why(Number),
    Retry(review::RetryArgs),
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct Number {
    /// The change's number
    #[arg(value_name = "CHANGE", value_parser = change_number)]
    number: u64,
}

pub fn run(arguments: &ChangeArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    let act = |number: &Number, verb: &str, body| {
        done(&place.client, &post(&place, number.number, verb, body), terminal)
    };
    match &arguments.verb {
        ChangeVerb::List(arguments) => show::list(arguments, &place, terminal),
        ChangeVerb::Show(number) => show::show(number.number, &place, terminal),
        ChangeVerb::Why(number) => show::why(number.number, &place, terminal),
        ChangeVerb::Open(arguments) => open::open(arguments, &place, terminal),
        ChangeVerb::Approve(arguments) => review::review(arguments, "approve", &place, terminal),
        ChangeVerb::RequestChanges(arguments) => {
            review::review(arguments, "request-changes", &place, terminal)
        }
        ChangeVerb::Vouch(arguments) => review::vouch(arguments, &place, terminal),
        ChangeVerb::Retry(arguments) => review::retry(arguments, &place, terminal),
        ChangeVerb::Withdraw(number) => act(number, "withdraw", json!({})),
        ChangeVerb::Comment { number, text, words } => {
            act(number, "comment", json!({ "text": text.as_ref().or(words.as_ref()) }))
        }
        ChangeVerb::Label { number, add, remove } => {
            act(number, "label", json!({ "add": add, "remove": remove }))
        }
        ChangeVerb::Hold { number, why } => act(number, "hold", json!({ "why": why })),
        ChangeVerb::Release(number) => act(number, "release", json!({})),
        ChangeVerb::Close(number) => act(number, "close", json!({})),
        ChangeVerb::Reopen(number) => act(number, "reopen", json!({})),
        ChangeVerb::Ready(number) => act(number, "ready", json!({})),
        ChangeVerb::Draft(number) => act(number, "draft", json!({})),
        ChangeVerb::Edit { number, title, body } => {
            let words = [("title", title), ("body", body)];
            let given =
                words.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?.into())));
            act(number, "edit", serde_json::Value::Object(given.collect()))
        }
        ChangeVerb::Retarget { number, branch } => act(number, "retarget", json!({ "target": branch })),
    }
}

/// A change as people name it.
fn change_number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| "a change is named by its number; `towpath change list` shows them".to_owned())
}

fn post(place: &Place, number: u64, verb: &str, body: serde_json::Value) -> Request {
    Request::post(&place.path(&["changes", &number.to_string(), verb]), body)
}

/// A change as the server has it now.
fn fetch(place: &Place, number: u64) -> Result<serde_json::Value, Failure> {
    place.client.ask(&Request::get(&place.path(&["changes", &number.to_string()])))
}

/// A change in a few words.
fn named(change: &serde_json::Value) -> String {
    format!("change {} `{}`", answer::number(change, "change"), answer::text(change, "title"))
}
