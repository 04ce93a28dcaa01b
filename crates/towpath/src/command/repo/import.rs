//! `towpath repo import [PATH|URL]` and `towpath repo connect NAME`: a repository comes to the server, and a clone to its repo.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_core::address::without_secrets;
use towpath_core::ids::{BranchName, IdError};
use towpath_git::Checkout;

use super::approvals::set_approvals;
use super::clone::{GitLogin, add_remote, check_remote};
use crate::command::answer::{items, text};
use crate::command::{existing_folder, own_checkout, own_git, secret_input};
use crate::failure::{Exit, Failure};
use crate::local::folder::RunFolder;
use crate::remote::Request;
use crate::remote::place::{REMOTE, RemotePlace, client};
use crate::terminal::{Terminal, inline};

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
    /// The watched branch [default: `main` or `master`, else the one that is checked out]
    #[arg(long)]
    branch: Option<String>,
    /// Bring every branch, not only the watched one. A branch that is on the server already is opened as a change by
    /// `towpath change open`, as git has nothing left to push
    #[arg(long)]
    all_branches: bool,
    /// Approvals that a change needs where its target's towpath.yaml names none [default: 1; 0 if you are the only user]
    #[arg(long, value_name = "COUNT")]
    approvals: Option<u32>,
    /// Read from standard input how to log in at the address: the value of an `Authorization` header, `Bearer TOKEN` say.
    /// The server does not keep it
    #[arg(long)]
    authorization_stdin: bool,
    /// A check of `git fsck` that its history may fail, such as zeroPaddedFilemode; may be given more than once
    #[arg(long, value_name = "CHECK")]
    tolerate: Vec<String>,
}

pub fn import(arguments: &ImportArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    let checkout = match is_address(&arguments.source) {
        true => None,
        false if arguments.authorization_stdin => {
            return Err(Failure::new(Exit::Usage, "nobody logs in at a clone of this machine")
                .hint("leave `--authorization-stdin` out, or name an https address"));
        }
        false => Some(whole_checkout_at(Path::new(&arguments.source))?),
    };
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => proposed_name(&arguments.source, checkout.as_ref())?,
    };
    let folder = RunFolder::make()?;
    let (place, branch) = match &checkout {
        Some(checkout) => {
            let branch = watched_branch(arguments, checkout)?;
            (json!({ "path": local_source(arguments, checkout, &branch, folder.path())? }), Some(branch))
        }
        None => {
            let branch = arguments.branch.as_deref().map(str::parse).transpose();
            let login = arguments.authorization_stdin.then(|| secret_input("authorization")).transpose()?;
            let address = json!({ "url": arguments.source, "authorization": login });
            (address, branch.map_err(|error| unfit(&error))?)
        }
    };
    let mut body = json!({ "repo": name, "branch": branch, "tolerated": arguments.tolerate });
    body.as_object_mut()
        .expect("invariant: it is written as one")
        .extend(place.as_object().cloned().unwrap_or_default());
    if let Some(checkout) = &checkout {
        let wanted = RemotePlace { base: client.base().to_owned(), repo: name };
        check_remote(checkout, &wanted)?;
    }
    let imported = client.ask(&Request::post(&["import"], body).long())?;
    let note = set_approvals(&client, &imported, arguments.approvals)?;
    let login = checkout.as_ref().map(|checkout| add_remote(checkout, &client, &imported)).transpose()?;
    let exit = report(&imported, login.as_ref(), terminal)?;
    note.into_iter().for_each(|note| terminal.talk(note));
    Ok(exit)
}

/// Whether the source is on another machine: an address, also as it is copied for ssh, `git@host:path`. A slash before the
/// colon makes that a path, as for git.
fn is_address(source: &str) -> bool {
    let is_copied_form =
        source.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    source.contains("://") || (is_copied_form && !Path::new(source).exists())
}

pub fn connect(name: &str, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    let checkout = own_checkout(&own_git()?)?;
    let repo = client.ask(&Request::get(&["repos", name]))?;
    let login = add_remote(&checkout, &client, &repo)?;
    report(&repo, Some(&login), terminal)
}

/// Says what there is now, and what git in the clone can do with it, if there is one.
fn report(repo: &Value, login: Option<&GitLogin>, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match terminal.is_json() {
        true => terminal.record(repo)?,
        false => describe(repo, terminal)?,
    }
    if let Some(login) = login {
        terminal.talk(&login.note);
        terminal.talk(match text(repo, "role") {
            "reader" => "you may fetch; to push, an admin gives you the role author".to_owned(),
            _ => format!("next: `git push {REMOTE} BRANCH -o change` opens a change"),
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(repo: &Value, terminal: &Terminal) -> Result<(), Failure> {
    let refs = match repo["refs"].as_u64() {
        None => String::new(),
        Some(1) => " with 1 branch".to_owned(),
        Some(refs) => format!(" with {refs} branches and tags"),
    };
    let (name, url) = (inline(text(repo, "repo")), inline(text(repo, "clone_url")));
    terminal.data(format!("repo {name}{refs}: {url}"))?;
    for left_out in items(&repo["left_out"]).iter().filter_map(Value::as_str) {
        terminal.talk(format!("note: {} was left out: no push could make it here", inline(left_out)));
    }
    if let Some(trouble) = repo["clock_trouble"].as_str() {
        terminal.talk(format!("note: {}", inline(trouble)));
    }
    if let Some(trouble) = repo["pipeline_trouble"].as_str() {
        terminal.talk(format!("note: {}", inline(trouble)));
        terminal.talk(
            "  until a change brings a towpath.yaml that can be used, changes wait and do not land; `towpath config check` \
             in the clone says what it lacks",
        );
    }
    Ok(())
}

fn unfit(error: &IdError) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

/// The branch that changes will land on.
fn watched_branch(arguments: &ImportArgs, checkout: &Checkout) -> Result<BranchName, Failure> {
    let named = match &arguments.branch {
        Some(branch) => Some(branch.clone()),
        None => {
            let usual = ["main", "master"].into_iter();
            let mut known = usual.filter_map(|name| match checkout.has_branch(name) {
                Ok(true) => Some(Ok(name.to_owned())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            });
            match known.next().transpose()? {
                Some(branch) => Some(branch),
                None => checkout.head()?.and_then(|head| head.branch),
            }
        }
    };
    let branch: Option<BranchName> =
        named.as_deref().map(str::parse).transpose().map_err(|error| unfit(&error))?;
    match branch {
        Some(branch) if checkout.has_branch(branch.as_str())? => Ok(branch),
        _ => Err(no_branch(named.as_deref(), checkout)?),
    }
}

/// Why no branch can be watched: the one that is named is not there, or none is named and nothing can be guessed.
fn no_branch(named: Option<&str>, checkout: &Checkout) -> Result<Failure, Failure> {
    let usage = |what: &str| Failure::new(Exit::Usage, what);
    Ok(match named {
        _ if checkout.head()?.is_none() => usage("there is nothing to import yet")
            .why("no commit is checked out in this clone")
            .hint("commit something first; or make an empty repo: `towpath repo create NAME`, then `towpath repo connect NAME`"),
        Some(named) => Failure::new(Exit::NotFound, format!("this clone has no branch `{}`", inline(named)))
            .hint("`git branch --list` shows those that there are"),
        None => usage("it is not known which branch changes should land on")
            .why("the clone has no branch `main` or `master`, and none is checked out")
            .hint("name it: `--branch BRANCH`"),
    })
}

/// What the server is to read: the clone itself, or a copy with nothing but the watched branch. A branch that came
/// along could not be pushed as a change any more, as git would find it there.
fn local_source(
    arguments: &ImportArgs,
    checkout: &Checkout,
    branch: &BranchName,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    if arguments.all_branches {
        return Ok(checkout.git_dir()?);
    }
    let copy = folder.join("source.git");
    checkout.copy_branch(branch, &copy)?;
    Ok(copy)
}

fn whole_checkout_at(path: &Path) -> Result<Checkout, Failure> {
    existing_folder(path)?;
    let git = own_git()?;
    let checkout = Checkout::find(&git, path)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("`{}` is in no git work tree", path.display()))
            .hint("name a clone, or an https address")
    })?;
    match checkout.is_shallow()? {
        false => Ok(checkout),
        true => Err(Failure::new(Exit::Usage, "a shallow clone cannot be imported")
            .why("a part of its history is not in it")
            .hint("`git fetch --unshallow` in it brings the rest; then import it again")),
    }
}

/// The folder's or the address's last part, in the letters that a repo's name may have.
fn proposed_name(source: &str, checkout: Option<&Checkout>) -> Result<String, Failure> {
    let last = match checkout {
        Some(checkout) => checkout.top().file_name().map(|name| name.to_string_lossy().into_owned()),
        None => without_secrets(source).trim_end_matches('/').rsplit('/').next().map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_from_the_address() {
        let name = |source: &str| proposed_name(source, None).ok();
        assert_eq!(name("https://example.org/Ann/Web_API.git"), Some("web_api".into()));
        assert_eq!(name("https://example.org/my repo/"), Some("my-repo".into()));
        assert_eq!(name("https://example.org/…/"), None);
        assert_eq!(name("https://ann:secret@example.org"), Some("example.org".into()));
    }
}
