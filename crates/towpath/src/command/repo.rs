//! `towpath repo ...`: repos of the server, and the way from a clone to one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::command::answer::{self, done, flag, items, joined, text, time};
use crate::command::file_failure;
use crate::failure::Failure;
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg, client};
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline, style::Style};

mod approvals;
mod clone;
mod import;

/// Import, make, list and configure repos
#[derive(Debug, clap::Subcommand)]
pub enum RepoCommand {
    Import(import::ImportArgs),
    /// Add the remote `towpath` to this clone, for a repo that is on the server already
    Connect {
        /// The repo's name on the server
        name: String,
    },
    /// Make an empty repo
    Create {
        /// Its name
        name: String,
        /// Its watched branch [default: main]
        #[arg(long)]
        branch: Option<String>,
    },
    /// List repos that you may see
    List,
    /// Show a repo
    Show(NamedRepo),
    /// Show a repo's settings as JSON, or set them
    Settings {
        #[command(flatten)]
        repo: NamedRepo,
        /// Set what is in this file; what it leaves out stays as it is, and `null` takes it back to its default
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
    },
    /// List who may do what
    People(NamedRepo),
    /// Give somebody a right
    Grant {
        #[command(flatten)]
        repo: RepoArg,
        /// The user
        user: String,
        /// What they may do
        #[arg(value_parser = ["reader", "author", "maintainer", "admin"])]
        role: String,
        /// Whether their changes are tested without a maintainer's word [default: those of maintainers and admins]
        #[arg(long, value_name = "BOOL")]
        authorised: Option<bool>,
    },
    /// Take somebody's right away
    Revoke {
        #[command(flatten)]
        repo: RepoArg,
        /// The user
        user: String,
    },
    /// Say with which secret webhooks are signed
    Hook {
        #[command(flatten)]
        repo: RepoArg,
        /// Name of a secret of the repo; without it, no webhook is accepted
        #[arg(long)]
        secret: Option<String>,
    },
}

/// A repo that is named as it is by `connect`, too.
#[derive(Debug, clap::Args)]
pub struct NamedRepo {
    #[command(flatten)]
    repo: RepoArg,
    /// The repo, as `--repo` names it
    #[arg(conflicts_with = "repo")]
    name: Option<String>,
}

impl NamedRepo {
    fn place(&self) -> Result<Place, Failure> {
        Place::find(&RepoArg { repo: self.name.clone().or_else(|| self.repo.repo.clone()) })
    }
}

pub fn run(command: &RepoCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        RepoCommand::Import(arguments) => import::import(arguments, terminal),
        RepoCommand::Connect { name } => import::connect(name, terminal),
        RepoCommand::Create { name, branch } => {
            let client = client()?;
            let body = json!({ "repo": name, "branch": branch });
            let made = client.ask(&Request::post(&["repos"], body))?;
            let note = approvals::set_approvals(&client, &made, None)?;
            note.into_iter().for_each(|note| terminal.talk(note));
            answer::list(&json!([made]), "repos", terminal, row)
        }
        RepoCommand::List => {
            let repos = client()?.ask(&Request::get(&["repos"]))?;
            answer::list(&repos, "repos that you may see", terminal, row)
        }
        RepoCommand::Show(repo) => {
            let place = repo.place()?;
            let repo = place.client.ask(&Request::get(&place.path(&[])))?;
            answer::list(&json!([repo]), "repos", terminal, row)
        }
        RepoCommand::Settings { repo, set } => settings(&repo.place()?, set.as_deref(), terminal),
        RepoCommand::People(repo) => {
            let place = repo.place()?;
            let people = place.client.ask(&Request::get(&place.path(&["people"])))?;
            answer::list(&people, "people", terminal, person)
        }
        RepoCommand::Grant { repo, user, role, authorised } => {
            grant(&Place::find(repo)?, user, json!({ "role": role, "authorised": authorised }), terminal)
        }
        RepoCommand::Revoke { repo, user } => {
            let place = Place::find(repo)?;
            done(&place.client, &Request::delete(&place.path(&["people", user])), terminal)
        }
        RepoCommand::Hook { repo, secret } => {
            let place = Place::find(repo)?;
            done(&place.client, &Request::put(&place.path(&["hook"]), json!({ "secret": secret })), terminal)
        }
    }
}

/// Gives a right. Who was alone until then hears it if the repo asks for no approval, as it was imported like that.
fn grant(place: &Place, user: &str, right: Value, terminal: &Terminal) -> Result<ExitCode, Failure> {
    // What is looked up here is for a note: a token that may only administer gives the right without.
    let look = |what| place.client.ask(&Request::get(&place.path(&[what]))).ok();
    let is_alone = |people: &Value| items(people).len() == 1 && text(&people[0], "user") != user;
    let is_second = look("people").as_ref().is_some_and(is_alone);
    let exit = done(&place.client, &Request::put(&place.path(&["people", user]), right), terminal)?;
    if is_second && let Some(settings) = look("settings") {
        lax_branches(&settings).iter().for_each(|branch| {
            terminal.talk(format!(
                "note: changes for `{branch}` land without an approval where its towpath.yaml asks for none, as `approvals` \
                 is 0 in the settings, set when there was nobody else; to ask for one: {}",
                approvals::how_to_set((&place.repo, branch), 1)
            ));
        });
    }
    Ok(exit)
}

/// The branches whose settings ask for no approval.
fn lax_branches(settings: &Value) -> Vec<String> {
    let branches = settings["branches"].as_object().into_iter().flatten();
    branches.filter(|(_, branch)| branch["approvals"] == 0).map(|(name, _)| inline(name)).collect()
}

fn settings(place: &Place, set: Option<&Path>, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let path = place.path(&["settings"]);
    let Some(file) = set else {
        terminal.document(&place.client.ask(&Request::get(&path))?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let text = std::fs::read_to_string(file).map_err(|error| file_failure("read", file, &error))?;
    let wanted: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::new(crate::failure::Exit::Usage, format!("`{}` is not JSON", file.display()))
            .why(error.to_string())
            .hint("`towpath repo settings > FILE` writes them down as they are; change that, and set it")
    })?;
    let mut settings = place.client.ask(&Request::get(&path))?;
    merge(&mut settings, wanted);
    done(&place.client, &Request::put(&path, settings), terminal)
}

/// Takes a part over into a whole: a JSON merge patch. Source: RFC 7396, section 2.
fn merge(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                match value {
                    Value::Null => drop(whole.remove(&key)),
                    value => merge(whole.entry(key).or_insert_with(|| json!({})), value),
                }
            }
        }
        (whole, part) => *whole = part,
    }
}

fn row(repo: &Value) -> Vec<Cell> {
    let branches = match items(&repo["branches"]).len() {
        0 | 1 => text(repo, "default_branch").to_owned(),
        _ => format!("{} of {}", text(repo, "default_branch"), joined(repo, "branches")),
    };
    vec![
        text(repo, "repo").into(),
        text(repo, "role").into(),
        branches.into(),
        text(repo, "clone_url").into(),
        styled(Style::Dim, time(repo, "created_at")),
    ]
}

fn person(person: &Value) -> Vec<Cell> {
    let tested = if flag(person, "authorised") { "changes are tested at once" } else { "" };
    vec![text(person, "user").into(), text(person, "role").into(), inline(tested).into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_leaves_out_stays_as_it_is() {
        let whole = json!({ "branches": { "main": { "approvals": 1, "poll_seconds": 60 } }, "default_branch": "main" });
        let check = |part: Value, expected: Value| {
            let mut merged = whole.clone();
            merge(&mut merged, part);
            assert_eq!(merged, expected);
        };
        check(json!({}), whole.clone());
        check(
            json!({ "branches": { "main": { "approvals": 0 }, "next": {} } }),
            json!({
                "branches": { "main": { "approvals": 0, "poll_seconds": 60 }, "next": {} }, "default_branch": "main",
            }),
        );
        check(
            json!({ "branches": { "main": { "poll_seconds": null } } }),
            json!({ "branches": { "main": { "approvals": 1 } }, "default_branch": "main" }),
        );
        check(json!([1]), json!([1]));
    }
}
