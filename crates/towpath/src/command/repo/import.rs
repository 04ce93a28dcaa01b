//! `towpath repo import [PATH|URL]` and `towpath repo connect NAME`: a clone and its remote `towpath`.
//!
//! The remote's address is in the clone's configuration as any other. The token is not: it stands in a file of its own
//! beside it, which nobody else may read and which the configuration includes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_git::{Checkout, Setting};

use crate::command::answer::{items, text};
use crate::command::{file_failure, own_checkout, own_git};
use crate::failure::{Exit, Failure};
use crate::remote::place::{REMOTE, RemotePlace, client};
use crate::remote::settings::replace;
use crate::remote::{Client, Request};
use crate::terminal::{Terminal, inline};

/// The file with the token, in the clone's `.git`.
const CREDENTIALS_FILE: &str = "towpath-credentials";
/// Letters of a repo's name.
const NAME_CHARS_MAX: usize = 64;

/// Bring a repository to the server with its whole history, and add a remote `towpath` to this clone
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// A clone on the server's own machine, or an https address
    #[arg(default_value = ".", value_name = "PATH|URL")]
    source: String,
    /// Its name on the server [default: the folder's or the address's]
    #[arg(long)]
    name: Option<String>,
    /// The watched branch [default: the one that is checked out]
    #[arg(long)]
    branch: Option<String>,
    /// A check of `git fsck` that its history may fail, such as zeroPaddedFilemode; may be given more than once
    #[arg(long, value_name = "CHECK")]
    tolerate: Vec<String>,
}

pub fn import(arguments: &ImportArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    let is_address = arguments.source.contains("://");
    let checkout = match is_address {
        true => None,
        false => Some(checkout_at(Path::new(&arguments.source))?),
    };
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => proposed_name(&arguments.source, checkout.as_ref())?,
    };
    let place = match &checkout {
        Some(checkout) => json!({ "path": checkout.git_dir()? }),
        None => json!({ "url": arguments.source }),
    };
    let branch = match (&arguments.branch, &checkout) {
        (Some(branch), _) => Some(branch.clone()),
        (None, Some(checkout)) => checkout.head()?.and_then(|head| head.branch),
        (None, None) => None,
    };
    let mut body = json!({ "repo": name, "branch": branch, "tolerated": arguments.tolerate });
    body.as_object_mut()
        .expect("invariant: it is written as one")
        .extend(place.as_object().cloned().unwrap_or_default());
    let imported = client.ask(&Request::post(&["import"], body).long())?;
    if let Some(checkout) = &checkout {
        add_remote(checkout, &client, &imported)?;
    }
    report(&imported, checkout.is_some(), terminal)
}

pub fn connect(name: &str, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    let checkout = own_checkout(&own_git()?)?;
    let repo = client.ask(&Request::get(&["repos", name]))?;
    add_remote(&checkout, &client, &repo)?;
    report(&repo, true, terminal)
}

fn report(repo: &Value, has_remote: bool, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if terminal.is_json() {
        terminal.record(repo)?;
        return Ok(ExitCode::SUCCESS);
    }
    let refs =
        repo["refs"].as_u64().map(|refs| format!(" with {refs} branches and tags")).unwrap_or_default();
    let (name, url) = (inline(text(repo, "repo")), inline(text(repo, "clone_url")));
    terminal.data(format!("repo {name}{refs}: {url}"))?;
    for left_out in items(&repo["left_out"]).iter().filter_map(Value::as_str) {
        terminal.talk(format!("note: {} was left out: no push could make it here", inline(left_out)));
    }
    if has_remote {
        terminal.talk(format!("next: `git push {REMOTE} BRANCH -o change` opens a change"));
    }
    Ok(ExitCode::SUCCESS)
}

fn checkout_at(path: &Path) -> Result<Checkout, Failure> {
    let git = own_git()?;
    Checkout::find(&git, path)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("`{}` is in no git work tree", path.display()))
            .hint("name a clone, or an https address")
    })
}

/// The folder's or the address's last part, in the letters that a repo's name may have.
fn proposed_name(source: &str, checkout: Option<&Checkout>) -> Result<String, Failure> {
    let last = match checkout {
        Some(checkout) => checkout.top().file_name().map(|name| name.to_string_lossy().into_owned()),
        None => source.trim_end_matches('/').rsplit('/').next().map(str::to_owned),
    };
    let last = last.unwrap_or_default().to_lowercase();
    let last = last.strip_suffix(".git").unwrap_or(&last);
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = last.chars().map(fit).take(NAME_CHARS_MAX).collect();
    let name = name.trim_matches(['-', '.', '_']).to_owned();
    match name.is_empty() {
        true => Err(Failure::new(Exit::Usage, "no name for the repo follows from where it comes from")
            .hint("name it: `--name NAME`")),
        false => Ok(name),
    }
}

/// Makes the remote lead to the repo. Doing it again changes nothing but the token.
fn add_remote(checkout: &Checkout, client: &Client, repo: &Value) -> Result<(), Failure> {
    let url = text(repo, "clone_url");
    let other = checkout.remotes()?.into_iter().find(|remote| remote.name == REMOTE && remote.url != url);
    if let Some(other) = other {
        return Err(Failure::new(Exit::Conflict, format!("this clone has a remote `{REMOTE}` already"))
            .why(format!("it leads to {}, not to {url}", inline(&other.url)))
            .hint(format!(
                "`git remote rename {REMOTE} OTHER`, then `towpath repo connect {}`",
                text(repo, "repo")
            )));
    }
    let base = RemotePlace::parse(url).map(|place| place.base).ok_or_else(|| {
        Failure::new(Exit::Unavailable, "the server names no address to push to").why(inline(url))
    })?;
    if let Some(token) = token_for_git(client, text(repo, "repo"))? {
        keep_token(checkout, &base, &token)?;
    }
    checkout.set(&format!("remote.{REMOTE}.url"), Setting::Only(url))?;
    let refs = format!("+refs/heads/*:refs/remotes/{REMOTE}/*");
    checkout.set(&format!("remote.{REMOTE}.fetch"), Setting::Only(&refs))?;
    Ok(())
}

/// A token that can fetch and push this repo and nothing else; where one's own may not make any, one's own.
fn token_for_git(client: &Client, repo: &str) -> Result<Option<String>, Failure> {
    let body =
        json!({ "label": format!("git in a clone of {repo}"), "repos": [repo], "verbs": ["read", "push"] });
    match client.ask(&Request::post(&["tokens"], body)) {
        Ok(made) => Ok(Some(text(&made, "token").to_owned())),
        Err(failure) if failure.exit() == Exit::Denied => Ok(client.token().map(str::to_owned)),
        Err(failure) => Err(failure),
    }
}

fn keep_token(checkout: &Checkout, base: &str, token: &str) -> Result<(), Failure> {
    let path: PathBuf = checkout.common_dir()?.join(CREDENTIALS_FILE);
    let text = format!(
        "# Made by `towpath repo import`: how git logs in at {base}.\n[http \"{base}/\"]\n\textraHeader = \
         Authorization: Bearer {token}\n"
    );
    replace(&path, &text).map_err(|error| file_failure("write", &path, &error))?;
    checkout.set("include.path", Setting::Among(CREDENTIALS_FILE))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_from_the_address() {
        let name = |source: &str| proposed_name(source, None).ok();
        assert_eq!(name("https://example.org/Ann/Web_API.git"), Some("web_api".into()));
        assert_eq!(name("https://example.org/my repo/"), Some("my-repo".into()));
        assert_eq!(name("https://example.org/…/"), None);
    }
}
