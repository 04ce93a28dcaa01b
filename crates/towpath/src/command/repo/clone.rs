//! A clone's remote `towpath`.
//!
//! The remote's address is in the clone's configuration as any other. The token is not: it stands in a file of its own
//! beside it, which nobody else may read and which the configuration includes.

use std::path::PathBuf;

use serde_json::{Value, json};
use towpath_core::address::without_secrets;
use towpath_core::ids::Digest;
use towpath_git::{Checkout, RefName, Setting};

use crate::command::answer::{text, time};
use crate::command::file_failure;
use crate::failure::{Exit, Failure};
use crate::remote::place::{REMOTE, RemotePlace};
use crate::remote::settings::replace;
use crate::remote::{Client, Request};
use crate::terminal::inline;

/// The file with the token, in the clone's `.git`.
const CREDENTIALS_FILE: &str = "towpath-credentials";
/// Its first line.
const CREDENTIALS_HEAD: &str =
    "# Made by `towpath repo import` and `towpath repo connect`: how git logs in at each repo.\n";
/// Hex digits that tell servers apart in a clone. It has a handful of them.
const SERVER_DIGITS: usize = 12;

/// Refuses a clone whose remote `towpath` leads to another repo.
pub(super) fn check_remote(checkout: &Checkout, wanted: &RemotePlace) -> Result<(), Failure> {
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
pub(super) fn add_remote(checkout: &Checkout, client: &Client, repo: &Value) -> Result<GitLogin, Failure> {
    let url = text(repo, "clone_url");
    let fits = url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    let place = RemotePlace::parse(url).filter(|_| fits).ok_or_else(|| {
        Failure::new(Exit::Unavailable, "the server names no address to push to").why(inline(url))
    })?;
    check_remote(checkout, &place)?;
    let login = login_for_git(client, repo)?;
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
pub(super) struct GitLogin {
    /// The token that is kept in the clone.
    token: String,
    /// What its owner has to know of it.
    pub note: String,
}

/// A token that can fetch and push this repo and nothing else, as far as one's own may, once its owner may; that one itself
/// only where it may make none.
fn login_for_git(client: &Client, repo: &Value) -> Result<GitLogin, Failure> {
    let (repo, may_push) = (text(repo, "repo"), text(repo, "role") != "reader");
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
        if may_push { verbs.join(", ") } else { "read".to_owned() },
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
}
