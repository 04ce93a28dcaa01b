//! What a repository keeps of servers, looked at together: a clone may have several remotes, of several servers, and two of
//! them may lead to one repo.

use std::collections::BTreeMap;
use std::path::Path;

use towpath_core::act::Act;
use towpath_git::{Checkout, GitError, RefName, Repository};
use towpath_server::witness::{self, Kept, Witness};
use towpath_store::View;
use towpath_store::audit::{Entry, Held, Leaf, LeafProof, VerifierKey};

use crate::command::{existing_folder, own_git};
use crate::failure::{Exit, Failure};
use crate::remote::place::RemotePlace;
use crate::terminal::inline;
use crate::terminal::style::count;

/// What the repository at `path` says; of one remote alone, if one is named.
pub fn look_at(
    (path, remote): (&Path, Option<&str>),
    view: Option<&View>,
    trusted: &[VerifierKey],
) -> Result<Witness, Failure> {
    existing_folder(path)?;
    let git = own_git()?;
    let checkout = Checkout::find(&git, path)?;
    let folder = checkout.as_ref().map(Checkout::common_dir).transpose()?;
    let repository = Repository::look(&git, &folder.unwrap_or_else(|| path.to_owned()))?;
    let kept = checkout.as_ref().map(kept_in).transpose()?.unwrap_or_default();
    let of_remote = kept.into_iter().filter(|(name, _)| remote.is_none_or(|remote| remote == name));
    let mut kept: Vec<Kept> = of_remote.map(|(_, kept)| kept).collect();
    if let (Some(remote), true) = (remote, kept.is_empty()) {
        let what = format!("no remote `{}` of `{}` fetches notes", inline(remote), path.display());
        return Err(Failure::new(Exit::NotFound, what)
            .hint("`git remote` lists the remotes; `towpath repo connect NAME` has one fetch the notes"));
    }
    let left = match remote {
        None => left_by(&repository, &kept)?,
        Some(_) => Vec::new(),
    };
    if kept.is_empty() {
        kept.push(Kept::unnamed());
    }
    let mut whole = together((&repository, &kept), view, trusted).map_err(|error| {
        Failure::new(Exit::Usage, format!("`{}` cannot be looked at", path.display())).why(error.to_string())
    })?;
    hold(&mut whole, left);
    Ok(whole)
}

/// What a clone keeps: each of its remotes that fetches notes leads to a repo, and may have any name.
fn kept_in(checkout: &Checkout) -> Result<Vec<(String, Kept)>, Failure> {
    let mut kept = Vec::new();
    for remote in checkout.remotes()? {
        if let Some(notes) = checkout.fetched_as(&remote.name, &RefName::landing_notes())? {
            let repo = RemotePlace::parse(&remote.url).map(|place| place.repo);
            let by_remote = Kept::by_remote(&remote.name, repo, notes);
            kept.push((remote.name, by_remote));
        }
    }
    Ok(kept)
}

/// Each by itself, and what two say alike once: remotes that lead to one repo have branches of their own and share its notes.
fn together(
    (repository, kept): (&Repository, &[Kept]),
    view: Option<&View>,
    trusted: &[VerifierKey],
) -> Result<Witness, witness::WitnessError> {
    let mut whole = Witness::default();
    for (at, one) in kept.iter().enumerate() {
        let seen = witness::look((repository, one), view, trusted)?;
        if kept[..at].iter().all(|before| before.notes != one.notes) {
            whole.notes += seen.notes;
        }
        add_new(&mut whole.findings, seen.findings.into_iter().chain(strays(repository, one)?));
        add_new(&mut whole.lost, seen.lost);
        whole.branches.extend(seen.branches);
        hold(&mut whole, seen.held);
    }
    Ok(whole)
}

fn add_new(said: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for one in more {
        if !said.contains(&one) {
            said.push(one);
        }
    }
}

fn hold(witness: &mut Witness, held: Vec<Held>) {
    for one in held {
        if witness.held.iter().all(|before| before.text != one.text) {
            witness.held.push(one);
        }
    }
}

/// Notes of other repos than the one that the remote leads to: no branch is compared with them, and a server that gives out
/// one repo as another would be passed.
fn strays(repository: &Repository, kept: &Kept) -> Result<Vec<String>, GitError> {
    let Some(repo) = &kept.repo else { return Ok(Vec::new()) };
    let mut strays: BTreeMap<String, usize> = BTreeMap::new();
    for (_, text) in repository.notes(&kept.notes)? {
        let leaf = proof_in(&text).and_then(|proof| serde_json::from_str::<Leaf>(&proof.leaf).ok());
        let Some(Leaf { entry: Entry::Act(Act::Landed(landed)), .. }) = leaf else { continue };
        if landed.gate.repo.as_str() != repo {
            *strays.entry(landed.gate.repo.to_string()).or_default() += 1;
        }
    }
    let told = |(other, notes): (String, usize)| {
        let (notes, place) = (count(notes, "note"), &kept.notes);
        format!(
            "{notes} in {place} tell of landings in the repo {other}, and what is fetched there is the repo {repo}"
        )
    };
    Ok(strays.into_iter().map(told).collect())
}

/// The checkpoints in notes that were fetched to where a server has them, and that no remote fetches there: by hand, say,
/// before the clone was set up. They are what it saw first. Of which repo they are is not known.
fn left_by(repository: &Repository, kept: &[Kept]) -> Result<Vec<Held>, Failure> {
    let name = RefName::landing_notes();
    if kept.is_empty() || kept.iter().any(|kept| kept.notes == name) {
        return Ok(Vec::new());
    }
    let notes = repository.notes(&name)?.into_iter();
    let held = notes.filter_map(|(commit, text)| {
        let place = format!("the note of {} in {name}", commit.short());
        Some(Held { place, text: proof_in(&text)?.checkpoint.to_string() })
    });
    Ok(held.collect())
}

fn proof_in(note: &[u8]) -> Option<LeafProof> {
    std::str::from_utf8(note).ok()?.parse().ok()
}
