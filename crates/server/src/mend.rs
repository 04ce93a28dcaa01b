//! What a start puts right before anything runs: what dead processes left in the repositories, rows that refs know
//! better, and candidates that a power cut took. What is not put right is not used; where the reason passes, as a full
//! disk does, it is tried again while the server runs.

use std::collections::BTreeMap;

use towpath_core::candidate::CandidateResult;
use towpath_core::cell::{CellId, Row};
use towpath_core::gate::CandidateRecord;
use towpath_core::ids::{CandidateId, CommitId, GateId, RepoName, Timestamp};
use towpath_forge::Failure;
use towpath_git::{CandidateOutcome, ErrorClass, GitError, ObjectId, RefName, Repository};
use towpath_store::records::Repo;
use towpath_store::{ReadError, Store, View};

use crate::forges::Forges;
use crate::repos::{Again, Undone, Unfit, tell};

/// The rows of a gate that hold its candidates.
const CANDIDATE_ROWS: &str = "candidate/";

/// What alerts say was not done.
const WHAT: &str = "putting right what the last server left";

/// After whatever ended the last server: locks and quarantines of dead gits go, rows are made from refs again,
/// candidates from their descriptions.
///
/// # Errors
/// Rows cannot be read. A repository that cannot be put right is alerted of and not used, as what a power cut has left
/// in it would be taken for whole; what is wrong with single rows or candidates is logged. Others go on.
pub fn repositories(forges: &Forges, now: Timestamp) -> Result<(), ReadError> {
    for (repo, gates) in found(forges.store())? {
        if let Err(unfit) = put_right(forges, &repo.name, &gates) {
            tell_unfit(forges, &repo, &unfit, now);
        }
    }
    Ok(())
}

/// Tries again what could not be put right for a reason that passes. Not while the repositories are used otherwise.
///
/// # Errors
/// Rows cannot be read.
pub fn those_that_wait(forges: &Forges, now: Timestamp) -> Result<(), ReadError> {
    let waiting = forges.repos().waiting();
    if waiting.is_empty() {
        return Ok(());
    }
    let waiting = found(forges.store())?.into_iter().filter(|(repo, _)| waiting.contains(&repo.name));
    for (repo, gates) in waiting {
        let name = &repo.name;
        match put_right(forges, name, &gates) {
            Ok(()) => {
                tracing::info!(repo = %name, "{name} is put right, and used again");
                tell(
                    forges.store().writer(),
                    &repo,
                    format!("`{name}` was put right, and is used again"),
                    now,
                );
            }
            // People know already.
            Err(unfit) if unfit.again == Again::Soon => {
                tracing::warn!(repo = %name, "{WHAT} of {name}, tried again: {unfit}");
            }
            Err(unfit) => tell_unfit(forges, &repo, &unfit, now),
        }
    }
    Ok(())
}

fn tell_unfit(forges: &Forges, repo: &Repo, unfit: &Unfit, at: Timestamp) {
    Undone { repo, what: WHAT, why: unfit, again: unfit.again }.tell(forges.store().writer(), at);
}

/// Every repo with its gates that have something to do.
fn found(store: &Store) -> Result<Vec<(Repo, Vec<GateId>)>, ReadError> {
    let view = store.reader().snapshot()?;
    let mut gates: BTreeMap<RepoName, Vec<GateId>> = BTreeMap::new();
    for cell in view.open_cells()? {
        if let CellId::Gate(gate) = cell {
            gates.entry(gate.repo.clone()).or_default().push(gate);
        }
    }
    let with_gates = |repo: Repo| {
        let gates = gates.remove(&repo.name).unwrap_or_default();
        (repo, gates)
    };
    Ok(view.repos()?.into_iter().map(with_gates).collect())
}

/// Puts one repository right, and takes it into use. What is wrong with single changes or candidates is logged.
fn put_right(forges: &Forges, name: &RepoName, gates: &[GateId]) -> Result<(), Unfit> {
    forges.repos().put_right(name, |repository| {
        repository.clear_leftovers()?;
        match repository.mark_in_order() {
            // It is in order all the same.
            Err(error @ GitError::Io { .. }) => {
                tracing::warn!(repo = %name, "the next start looks through all of {name} again: {error}");
            }
            marked => marked?,
        }
        let rebuilt = forges.over(name, repository.clone()).rebuild().map_err(not_rebuilt)?;
        rebuilt.broken.iter().for_each(|what| tracing::error!(repo = %name, "{what}"));
        for gate in gates {
            if let Err(why) = candidates(forges.store(), repository, gate) {
                tracing::error!(%gate, "the candidates of {gate} were not looked at: {why}");
            }
        }
        Ok(())
    })
}

fn not_rebuilt(failure: Failure) -> Unfit {
    let class = match &failure {
        Failure::Failed(error) => error.class(),
        // Nobody asked for anything: something of the repository itself is wrong.
        Failure::Refused(_) => ErrorClass::Invalid,
    };
    Unfit::new(class, format!("its rows were not made from its refs: {failure}"))
}

/// Candidates are not synced before they land, so a power cut may have taken some that are known as made. Jobs that run
/// on them cannot wait until a landing finds out.
fn candidates(store: &Store, repository: &Repository, gate: &GateId) -> Result<(), String> {
    let view = store.reader().snapshot().map_err(|error| error.to_string())?;
    let made = made_candidates(&view, gate).map_err(|error| error.to_string())?;
    drop(view);
    if made.is_empty() {
        return Ok(());
    }
    let held = repository.refs("refs/towpath/candidates").map_err(|error| error.to_string())?;
    let held: BTreeMap<RefName, ObjectId> = held.into_iter().map(|held| (held.name, held.target)).collect();
    for (id, commit, record) in made {
        if held.get(&RefName::candidate(&id)) == Some(&commit.into()) {
            continue;
        }
        let change = record.change;
        match repository.make_candidate(&record.spec) {
            Ok(CandidateOutcome::Made { commit: again, .. }) if again == commit => {
                tracing::info!(%gate, %change, "made the candidate of change {change} again: it was lost");
            }
            other => tracing::error!(
                %gate, %change, "the candidate of change {change} is lost and is not made again: {other:?}"
            ),
        }
    }
    Ok(())
}

/// A candidate with its commit.
type Made = (CandidateId, CommitId, CandidateRecord);

/// The candidates that a gate knows as made.
///
/// # Errors
/// They cannot be read.
pub fn made_candidates(view: &View, gate: &GateId) -> Result<Vec<Made>, ReadError> {
    let rows = view.cell_rows(&CellId::Gate(gate.clone()), CANDIDATE_ROWS)?;
    let damaged = |why: String| ReadError::Damaged { why };
    let record = |row: Row| {
        let (key, value) = (row.key, row.value.unwrap_or_default());
        let id = key.trim_start_matches(CANDIDATE_ROWS).parse::<CandidateId>();
        let id = id.map_err(|error| damaged(error.to_string()))?;
        let record: CandidateRecord =
            serde_json::from_str(&value).map_err(|error| damaged(format!("row {key}: {error}")))?;
        Ok(match &record.result {
            Some(CandidateResult::Made(made)) => Some((id, made.commit, record)),
            _ => None,
        })
    };
    rows.into_iter().map(record).filter_map(Result::transpose).collect()
}
