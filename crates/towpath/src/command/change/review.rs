//! What is said about one revision: approvals, requests for changes, a word for it, another try. Each names the whole
//! commit id of what was looked at (trust T8), so that it can never count for something that came later.

use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_core::policy::Role;

use super::{fetch, named, post};
use crate::command::answer::{COMMIT_DIGITS, confirm, done, items, text};
use crate::failure::{Exit, Failure};
use crate::remote::place::Place;
use crate::terminal::{Terminal, inline};

/// Digits of a shortened one at least; git shows no fewer.
const SHORT_DIGITS_MIN: usize = 7;

// What it says of the revision stands with each verb.
#[derive(Debug, clap::Args)]
pub struct ReviewArgs {
    /// The change's number
    #[arg(value_name = "CHANGE", value_parser = super::change_number)]
    number: u64,
    #[command(flatten)]
    revision: RevisionArgs,
    /// Words to go with it
    #[arg(long, alias = "why", default_value = "")]
    text: String,
}

/// Which revision.
#[derive(Debug, clap::Args)]
struct RevisionArgs {
    /// The commit id of the revision that you looked at; a shortened one is shown whole and asked about
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,
    /// Do not ask about the revision that `--revision` names
    #[arg(long)]
    yes: bool,
}

/// Let a revision run that nobody authorised uploaded: as a maintainer, for exactly this commit
#[derive(Debug, clap::Args)]
pub struct VouchArgs {
    /// The change's number
    #[arg(value_name = "CHANGE", value_parser = super::change_number)]
    number: u64,
    #[command(flatten)]
    revision: RevisionArgs,
    /// Why it may run
    #[arg(long, alias = "text")]
    why: String,
    /// Hours for which your word holds [default: 24]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=720))]
    hours: Option<u32>,
}

/// Run a change again: everything, what did not pass, or one job
#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// The change's number
    #[arg(value_name = "CHANGE", value_parser = super::change_number)]
    number: u64,
    /// Only what did not pass
    #[arg(long)]
    failed: bool,
    /// The job of this name, or all cells and shards of this key, and what did not pass
    #[arg(long)]
    job: Option<String>,
}

pub fn review(
    arguments: &ReviewArgs,
    verb: &str,
    place: &Place,
    terminal: &Terminal,
) -> Result<ExitCode, Failure> {
    let change = fetch(place, arguments.number)?;
    let what = if verb == "approve" { "approve" } else { "request changes of" };
    let revision = revision(place, &change, &arguments.revision, what)?;
    // With what was shown, so that a title, target or definition that moved meanwhile makes it void. A `null` says that no
    // definition was shown.
    let body = json!({
        "revision": revision, "target": change["target"], "message": change["message"],
        "definition": change["definition"], "text": arguments.text,
    });
    done(&place.client, &post(place, arguments.number, verb, body), terminal)
}

pub fn vouch(arguments: &VouchArgs, place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let change = fetch(place, arguments.number)?;
    let revision = revision(place, &change, &arguments.revision, "vouch for")?;
    let seconds = arguments.hours.map(|hours| hours * 3600);
    // With the definition that was shown, so that another one makes it void.
    let body = json!({
        "revision": revision, "definition": change["definition"], "why": arguments.why, "seconds": seconds,
    });
    done(&place.client, &post(place, arguments.number, "vouch", body), terminal)
}

pub fn retry(arguments: &RetryArgs, place: &Place, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let change = fetch(place, arguments.number)?;
    let body = json!({
        "revision": change["revision"], "failed": arguments.failed, "job": arguments.job,
    });
    done(&place.client, &post(place, arguments.number, "retry", body), terminal)
}

/// The whole commit id that a person means: theirs, if it is whole; else the newest one, once they have seen it. What is said
/// of it, the `verb`, is a maintainer's to say.
fn revision(place: &Place, change: &Value, arguments: &RevisionArgs, verb: &str) -> Result<String, Failure> {
    let newest = text(change, "revision").to_owned();
    let given = match &arguments.revision {
        Some(given) if given.len() == COMMIT_DIGITS => return Ok(given.clone()),
        Some(given) => Some(resolve(change, given, &newest)?),
        None => None,
    };
    if !arguments.yes || given.is_none() {
        let question = question(change, verb);
        let how = match arguments.yes {
            true => format!("`--yes` is for a revision that you name: `--revision {newest}`"),
            false => format!("name the whole commit: `--revision {newest}`"),
        };
        confirm(place, Role::Maintainer, &question, &how)?;
    }
    Ok(newest)
}

/// What a person is asked before their word counts for the newest revision: with the definition that it counts for, too.
fn question(change: &Value, verb: &str) -> String {
    let definition = match text(change, "definition") {
        "" => String::new(),
        definition => format!(" with the definition {}", inline(definition)),
    };
    format!("{verb} revision {} of {}{definition}?", text(change, "revision"), inline(&named(change)))
}

/// A shortened id stands for the newest revision only.
fn resolve(change: &Value, given: &str, newest: &str) -> Result<String, Failure> {
    let hex = given.len() >= SHORT_DIGITS_MIN
        && given.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !hex {
        return Err(Failure::new(Exit::Usage, format!("`{}` is no commit id", inline(given)))
            .why(format!("it is {COMMIT_DIGITS} hex digits, or at least the first {SHORT_DIGITS_MIN}"))
            .hint("`towpath change show CHANGE` shows that of each revision"));
    }
    if newest.starts_with(given) {
        return Ok(newest.to_owned());
    }
    let number = super::answer::number(change, "change");
    let known =
        items(&change["revisions"]).iter().any(|revision| text(revision, "commit").starts_with(given));
    let look = format!("look at it again: `towpath change show {number}`");
    Err(match known {
        true => {
            Failure::new(Exit::Conflict, format!("revision {given} of change {number} is not its newest"))
                .why(format!("the newest is {newest}"))
        }
        false => Failure::new(Exit::NotFound, format!("change {number} has no revision {given}")),
    }
    .hint(look))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_asked_about_where_there_is_one() {
        let mut change = json!({ "change": 7, "title": "Test less", "revision": "b".repeat(40) });
        let plain = format!("approve revision {} of change 7 `Test less`", "b".repeat(40));
        assert_eq!(question(&change, "approve"), format!("{plain}?"));
        change["definition"] = "d".repeat(64).into();
        assert_eq!(question(&change, "approve"), format!("{plain} with the definition {}?", "d".repeat(64)));
    }

    #[test]
    fn a_short_id_stands_for_the_newest_revision_alone() {
        let (old, new) = ("3f2a9c1".repeat(6)[..40].to_owned(), "b".repeat(40));
        let change =
            json!({ "change": 7, "revision": new, "revisions": [{ "commit": old }, { "commit": new }] });
        let check = |given: &str| match resolve(&change, given, &new) {
            Ok(revision) => revision,
            Err(failure) => failure.to_string(),
        };
        assert_eq!(check("bbbbbbb"), new);
        assert_eq!(
            check("3f2a9c1"),
            format!(
                "error: revision 3f2a9c1 of change 7 is not its newest\n  why: the newest is {new}\n hint: look at it \
                 again: `towpath change show 7`"
            )
        );
        assert!(check("bbb").contains("is no commit id"));
        assert!(check("cccccccc").contains("has no revision"));
    }
}
