//! `towpath repo import [PATH|URL]` and `towpath repo connect NAME`: a clone and its remote `towpath`.
//!
//! The remote's address is in the clone's configuration as any other. The token is not: it stands in a file of its own
//! beside it, which nobody else may read and which the configuration includes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_core::address::without_secrets;
use towpath_core::gate::GateConfig;
use towpath_core::ids::{BranchName, Digest, IdError};
use towpath_git::{Checkout, RefName, Setting};

use crate::command::answer::{flag, items, text, time};
use crate::command::{existing_folder, file_failure, own_checkout, own_git, secret_input};
use crate::failure::{Exit, Failure};
use crate::local::folder::RunFolder;
use crate::remote::place::{REMOTE, RemotePlace, client};
use crate::remote::settings::replace;
use crate::remote::{Client, Request};
use crate::terminal::style::count;
use crate::terminal::{Terminal, inline};

/// The file with the token, in the clone's `.git`.
const CREDENTIALS_FILE: &str = "towpath-credentials";
/// Its first line.
const CREDENTIALS_HEAD: &str =
    "# Made by `towpath repo import` and `towpath repo connect`: how git logs in at each repo.\n";
/// Hex digits that tell servers apart in a clone. It has a handful of them.
const SERVER_DIGITS: usize = 12;
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
        false => Some(checkout_at(Path::new(&arguments.source))?),
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
        terminal.talk(format!("next: `git push {REMOTE} BRANCH -o change` opens a change"));
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

/// Sets how many approvals a new repo's branches take where their towpath.yaml does not say: as many as are `wanted`, or none
/// if there is nobody else on the server. What whoever brought it should know of that, for people.
pub fn set_approvals(client: &Client, repo: &Value, wanted: Option<u32>) -> Result<Option<String>, Failure> {
    let (name, asked) = (text(repo, "repo"), repo["approvals"].as_u64());
    let givers = if wanted.is_none() { Some(givers(client, name)?) } else { None };
    let alone = givers == Some(Givers::OnlyUser);
    let Some(approvals) = wanted.or(alone.then_some(0)) else {
        let nobody = givers == Some(Givers::NobodyElse);
        return Ok(nobody
            .then(|| nobody_else_note(name, asked))
            .flatten()
            .map(|note| format!("note: {note}")));
    };
    let path = ["repos", name, "settings"];
    let mut settings = client.ask(&Request::get(&path))?;
    for branch in settings["branches"].as_object_mut().into_iter().flat_map(|branches| branches.values_mut())
    {
        branch["approvals"] = json!(approvals);
    }
    client.ask(&Request::put(&path, settings))?;
    Ok(approvals_note(approvals, asked, alone).map(|note| format!("note: {note}")))
}

/// Who there is to approve what is uploaded by whoever brings a repo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Givers {
    /// The server has no other user.
    OnlyUser,
    /// It has others, none of whom maintains the repo.
    NobodyElse,
    /// Somebody else does.
    Others,
}

fn givers(client: &Client, repo: &str) -> Result<Givers, Failure> {
    let users = client.ask(&Request::get(&["users"]))?;
    let users: Vec<&Value> = items(&users).iter().filter(|user| !flag(user, "disabled")).collect();
    if users.len() == 1 {
        return Ok(Givers::OnlyUser);
    }
    let me = client.ask(&Request::get(&["me"]))?;
    let people = client.ask(&Request::get(&["repos", repo, "people"]))?;
    let maintains = |name: &str| {
        let has = |person: &&Value| text(person, "user") == name;
        items(&people)
            .iter()
            .find(has)
            .is_some_and(|person| matches!(text(person, "role"), "maintainer" | "admin"))
    };
    let gives = |user: &&Value| {
        let name = text(user, "user");
        name != text(&me, "user") && (flag(user, "admin") || maintains(name))
    };
    Ok(if users.iter().any(gives) { Givers::Others } else { Givers::NobodyElse })
}

/// What waits for whom where nobody else can approve: as the branch's own file has `asked`, or the server's default.
fn nobody_else_note(repo: &str, asked: Option<u64>) -> Option<String> {
    let needed = asked.unwrap_or_else(|| GateConfig::default().approvals.into());
    let fewer = match asked {
        Some(_) => "or ask for none: `gate: { approvals: 0 }` in the branch's towpath.yaml",
        None => "or set `approvals` to 0: `towpath repo settings`",
    };
    (needed > 0).then(|| {
        format!(
            "a change takes {}, nobody approves what they uploaded, and nobody else here can yet. Let somebody: `towpath repo \
             grant NAME maintainer --repo {repo}`; {fewer}",
            approvals_in_words(needed)
        )
    })
}

fn approvals_in_words(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "approval")
}

/// What holds where the settings say `approvals` and the branch's own file what it has `asked` for, which goes before.
fn approvals_note(approvals: u32, asked: Option<u64>, alone: bool) -> Option<String> {
    match asked.filter(|asked| *asked != u64::from(approvals)) {
        Some(asked) if alone => Some(format!(
            "the branch's towpath.yaml asks for {}, and you are the only user: nobody can give that, so changes wait. \
             Make a user who can: `towpath user add NAME`, then `towpath repo grant NAME maintainer`",
            approvals_in_words(asked)
        )),
        Some(asked) => Some(format!(
            "the branch's towpath.yaml asks for {}, which goes before the {approvals} of `--approvals`",
            approvals_in_words(asked)
        )),
        None => alone.then(|| {
            let place = match asked {
                Some(_) => "`gate: { approvals: 1 }` in the branch's towpath.yaml, which goes before the repo's settings",
                None => "`approvals` to 1: `towpath repo settings`",
            };
            format!("you are the only user, so changes land without an approval; once there are others, set {place}")
        }),
    }
}

fn checkout_at(path: &Path) -> Result<Checkout, Failure> {
    existing_folder(path)?;
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

/// Refuses a clone whose remote `towpath` leads to another repo.
fn check_remote(checkout: &Checkout, wanted: &RemotePlace) -> Result<(), Failure> {
    let leads_elsewhere = |url: &str| RemotePlace::parse(url).as_ref() != Some(wanted);
    let mut remotes = checkout.remotes()?.into_iter();
    let Some(other) = remotes.find(|remote| remote.name == REMOTE && leads_elsewhere(&remote.url)) else {
        return Ok(());
    };
    let RemotePlace { base, repo } = wanted;
    Err(Failure::new(Exit::Conflict, format!("this clone has a remote `{REMOTE}` already"))
        .why(format!(
            "it leads to {}, not to {}/{}.git",
            inline(&without_secrets(&other.url)),
            inline(base),
            inline(repo)
        ))
        .hint(format!("give it another name, `git remote rename {REMOTE} OTHER`, and do this again")))
}

/// Makes the remote lead to the repo. Doing it again changes nothing but the token, and a login that git kept in the
/// address goes.
fn add_remote(checkout: &Checkout, client: &Client, repo: &Value) -> Result<GitLogin, Failure> {
    let url = text(repo, "clone_url");
    let fits = url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    let place = RemotePlace::parse(url).filter(|_| fits).ok_or_else(|| {
        Failure::new(Exit::Unavailable, "the server names no address to push to").why(inline(url))
    })?;
    check_remote(checkout, &place)?;
    let login = login_for_git(client, text(repo, "repo"))?;
    keep_token(checkout, url, &login.token)?;
    checkout.set(&format!("remote.{REMOTE}.url"), Setting::Only(url))?;
    let refs = format!("+refs/heads/*:refs/remotes/{REMOTE}/*");
    let notes = notes_refspec(checkout, &place)?;
    let fetch = format!("remote.{REMOTE}.fetch");
    checkout.set(&fetch, Setting::Only(&refs))?;
    checkout.set(&fetch, Setting::Among(&notes))?;
    Ok(login)
}

/// Fetches what landings left beside their commits, so that this clone bears witness to the record. By a pattern, as there
/// is no such ref before the first landing; never by force, so that a server that takes something back is noticed.
///
/// A remote that fetches them already goes on to where it does: what is there is what the clone has seen, also of a server
/// whose address has changed since.
fn notes_refspec(checkout: &Checkout, place: &RemotePlace) -> Result<String, Failure> {
    let notes = RefName::landing_notes();
    let to = match checkout.fetched_as(REMOTE, &notes)? {
        Some(known) if !is_of_another(checkout, place, &known)? => known.to_string(),
        _ => notes_place(place),
    };
    Ok(format!("{notes}*:{to}*"))
}

/// A place for the notes of one repo of one server: a clone may have several of both, two servers may have a repo of the
/// same name, and remotes change their names.
fn notes_place(place: &RemotePlace) -> String {
    let server = Digest::of(place.base.as_bytes()).to_string();
    format!("refs/notes/repos/{}/{}/towpath", &server[..SERVER_DIGITS], place.repo)
}

/// Whether another repo's notes are fetched to there as well: the one would refuse the other's.
fn is_of_another(checkout: &Checkout, place: &RemotePlace, notes: &RefName) -> Result<bool, Failure> {
    for remote in checkout.remotes()? {
        let leads_elsewhere = RemotePlace::parse(&remote.url).as_ref() != Some(place);
        let fetched = checkout.fetched_as(&remote.name, &RefName::landing_notes())?;
        if remote.name != REMOTE && leads_elsewhere && fetched.as_ref() == Some(notes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How git in a clone logs in.
struct GitLogin {
    /// The token that is kept in the clone.
    token: String,
    /// What its owner has to know of it.
    note: String,
}

/// A token that can fetch and push this repo and nothing else, as far as one's own may; that one itself only where it may
/// make none.
fn login_for_git(client: &Client, repo: &str) -> Result<GitLogin, Failure> {
    let me = client.ask(&Request::get(&["me"]))?;
    let may = |verb: &&str| match me["verbs"].as_array() {
        Some(verbs) => verbs.iter().any(|own| own == *verb),
        None => true,
    };
    if !may(&"administer") {
        let token = client.token().expect("invariant: the server has just said what it may").to_owned();
        let note = format!(
            "note: git in this clone logs in with the token that your commands have: it may make none for this repo alone, \
             as it lacks the verb `administer`. `towpath token login` with one that may, then `towpath repo connect {repo}`"
        );
        return Ok(GitLogin { token, note });
    }
    let verbs: Vec<&str> = ["read", "push"].into_iter().filter(may).collect();
    let body = json!({ "label": format!("git in a clone of {repo}"), "repos": [repo], "verbs": verbs });
    let made = client.ask(&Request::post(&["tokens"], body))?;
    let note = format!(
        "git in this clone logs in with a token for this repo alone ({}), until {}",
        verbs.join(", "),
        time(&made, "expires_at")
    );
    Ok(GitLogin { token: text(&made, "token").to_owned(), note })
}

fn keep_token(checkout: &Checkout, url: &str, token: &str) -> Result<(), Failure> {
    let path: PathBuf = checkout.common_dir()?.join(CREDENTIALS_FILE);
    let kept = match std::fs::read_to_string(&path) {
        Ok(kept) => kept,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => CREDENTIALS_HEAD.to_owned(),
        Err(error) => return Err(file_failure("read", &path, &error)),
    };
    replace(&path, &with_token(&kept, url, token)).map_err(|error| file_failure("write", &path, &error))?;
    checkout.set("include.path", Setting::Among(CREDENTIALS_FILE))?;
    Ok(())
}

/// The file's text with the token of the repo at `url`, and those of other repos as they are.
///
/// Git adds the headers of all sections up that an address falls under, so that one for the whole server would come with
/// the repo's own; an empty header takes back what came before. Source: git-config(1), `http.extraHeader`.
fn with_token(kept: &str, url: &str, token: &str) -> String {
    let section = format!("[http \"{url}\"]");
    let (mut text, mut is_own, mut is_under_another) = (String::new(), false, false);
    for line in kept.lines() {
        if line.starts_with('[') {
            is_own = line == section;
            let of = line.strip_prefix("[http \"").and_then(|line| line.strip_suffix("\"]"));
            is_under_another |= of.is_some_and(|of| of.ends_with('/') && url.starts_with(of));
        }
        if !is_own {
            text += &format!("{line}\n");
        }
    }
    let taken_back = if is_under_another { "\textraHeader =\n" } else { "" };
    format!("{text}{section}\n{taken_back}\textraHeader = Authorization: Bearer {token}\n")
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

    #[test]
    fn each_repo_keeps_a_token_of_its_own() {
        let section = |name: &str, headers: &[&str]| {
            let headers: String = headers.iter().map(|header| format!("\textraHeader ={header}\n")).collect();
            format!("[http \"http://h/{name}\"]\n{headers}")
        };
        let one = with_token(CREDENTIALS_HEAD, "http://h/a.git", "1");
        assert_eq!(one, format!("{CREDENTIALS_HEAD}{}", section("a.git", &[" Authorization: Bearer 1"])));
        let two = with_token(&one, "http://h/b.git", "2");
        assert_eq!(two, format!("{one}{}", section("b.git", &[" Authorization: Bearer 2"])));
        assert_eq!(with_token(&two, "http://h/b.git", "2"), two);
        let again = with_token(&two, "http://h/a.git", "3");
        assert!(again.contains("Bearer 2") && again.contains("Bearer 3") && !again.contains("Bearer 1"));
        // Of the whole server, as files from elsewhere have it.
        let wide = section("", &[" Authorization: Bearer 0"]);
        let beside = with_token(&wide, "http://h/a.git", "1");
        assert_eq!(beside, format!("{wide}{}", section("a.git", &["", " Authorization: Bearer 1"])));
    }

    #[test]
    fn whoever_is_alone_hears_which_place_decides_on_approvals() {
        let note = |approvals, asked| approvals_note(approvals, asked, true).unwrap();
        assert!(note(0, None).contains("`towpath repo settings`"));
        let file = note(0, Some(0));
        assert!(
            file.contains("approvals: 1 }` in the branch's towpath.yaml")
                && !file.contains("towpath repo settings")
        );
        assert!(note(0, Some(1)).contains("nobody can give that"));
        assert_eq!(approvals_note(2, Some(2), false), None);
    }
}
