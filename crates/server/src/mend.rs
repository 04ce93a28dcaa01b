//! What a start puts right before anything runs: what dead processes left in the repositories, rows that refs know
//! better, and candidates that a power cut took.

use std::collections::BTreeMap;

use towpath_core::candidate::CandidateResult;
use towpath_core::cell::{CellId, Row};
use towpath_core::gate::CandidateRecord;
use towpath_core::ids::{CandidateId, CommitId, GateId, RepoName, Timestamp};
use towpath_git::{CandidateOutcome, ObjectId, RefName};
use towpath_store::{OpenError, ReadError, Store, View};

use crate::forges::Forges;
use crate::repos::{Repos, unusable};
use crate::server::ServerError;

/// The rows of a gate that hold its candidates.
const CANDIDATE_ROWS: &str = "candidate/";

/// After whatever ended the last server: locks and quarantines of dead gits go, rows are made from refs again,
/// candidates from their descriptions.
///
/// # Errors
/// Rows cannot be read. A repository that cannot be put right is alerted of and not used by this server, as what a power
/// cut has left in it would be taken for whole; what is wrong with single rows or candidates is logged. Others go on.
pub fn repositories(
    store: &Store,
    repos: &Repos,
    forges: &Forges,
    now: Timestamp,
) -> Result<(), ServerError> {
    let found = store.reader().snapshot().and_then(|view| view.repos()).map_err(OpenError::from)?;
    for repo in found {
        match repository(repos, forges, &repo.name) {
            Ok(broken) => broken.iter().for_each(|what| tracing::error!(repo = %repo.name, "{what}")),
            Err(why) => {
                repos.refuse(&repo.name);
                unusable(store.writer(), &repo, ("putting right what the last server left", &why), now);
            }
        }
    }
    let open = store.reader().snapshot().and_then(|view| view.open_cells()).map_err(OpenError::from)?;
    for cell in open {
        if let CellId::Gate(gate) = &cell
            && let Err(why) = candidates(store, repos, gate)
        {
            tracing::error!(%gate, "the candidates of {gate} were not looked at: {why}");
        }
    }
    Ok(())
}

/// Puts one repository right, and returns what is wrong with single changes.
fn repository(repos: &Repos, forges: &Forges, name: &RepoName) -> Result<Vec<String>, String> {
    repos.get(name).and_then(|repository| repository.clear_leftovers()).map_err(|error| error.to_string())?;
    let forge = forges.get(name).map_err(|error| error.to_string())?;
    let rebuilt = forge.rebuild().map_err(|error| format!("its rows were not rebuilt: {error}"))?;
    Ok(rebuilt.broken)
}

/// Candidates are not synced before they land, so a power cut may have taken some that are known as made. Jobs that run
/// on them cannot wait until a landing finds out.
fn candidates(store: &Store, repos: &Repos, gate: &GateId) -> Result<(), String> {
    let view = store.reader().snapshot().map_err(|error| error.to_string())?;
    let made = made_candidates(&view, gate).map_err(|error| error.to_string())?;
    drop(view);
    if made.is_empty() {
        return Ok(());
    }
    let repository = repos.get(&gate.repo).map_err(|error| error.to_string())?;
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
