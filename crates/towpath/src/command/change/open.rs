//! `towpath change open [BRANCH]`.

use std::process::ExitCode;

use serde_json::json;
use towpath_core::ids::CommitId;

use crate::command::answer::{items, number, text};
use crate::command::{own_checkout, own_git};
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::Place;
use crate::terminal::{Terminal, inline};

/// Open a change from a branch that was pushed before; `git push towpath BRANCH -o change` does both at once
#[derive(Debug, clap::Args)]
pub struct OpenArgs {
    /// The pushed branch; without it, the one that is checked out
    branch: Option<String>,
    /// The branch that it should land on [default: the repo's own]
    #[arg(long, value_name = "BRANCH")]
    target: Option<String>,
    /// The title [default: from the commits]
    #[arg(long)]
    title: Option<String>,
    /// The body [default: from the commits]
    #[arg(long)]
    body: Option<String>,
    /// Nothing of it runs yet
    #[arg(long)]
    draft: bool,
    /// A label; may be given more than once
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
}

pub fn open(arguments: &OpenArgs, place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    // Who names no branch means what is checked out, and the server may know another branch by that name.
    let (source, commit) = match &arguments.branch {
        Some(branch) => (branch.clone(), None),
        None => checked_out().map(|(branch, commit)| (branch, Some(commit.to_string())))?,
    };
    let body = json!({
        "source": source, "commit": commit, "target": arguments.target, "title": arguments.title, "body": arguments.body,
        "draft": arguments.draft, "labels": arguments.label,
    });
    let opened = place.client.ask(&Request::post(&place.path(&["changes"]), body))?;
    match terminal.is_json() {
        true => terminal.record(&opened)?,
        false => {
            terminal.data(format!(
                "change {}: {}",
                number(&opened, "change"),
                inline(text(&opened, "url"))
            ))?;
            items(&opened["notes"])
                .iter()
                .filter_map(|note| note.as_str())
                .for_each(|note| terminal.talk(inline(note)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn checked_out() -> Result<(String, CommitId), Failure> {
    let checkout = own_checkout(&own_git()?)?;
    checkout.head()?.and_then(|head| Some((head.branch?, head.commit))).ok_or_else(|| {
        Failure::new(Exit::Usage, "no branch is checked out")
            .hint("name the branch: `towpath change open BRANCH`")
    })
}
