//! Makes a candidate commit and the jobs that it has to pass.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use towpath_core::candidate::{Candidate, CandidateResult, CandidateSpec, PATHS_SHOWN_MAX};
use towpath_core::gate::GateEvent;
use towpath_core::ids::{CandidateId, CommitId, RepoName, TreeId};
use towpath_forge::Owner;
use towpath_git::{CandidateOutcome, ChangedPaths, ErrorClass, GitError, Range, Repository};
use towpath_pipeline::{Changed, GRAPH_BYTES_MAX, plan};
use towpath_store::BODY_BYTES_MAX;

use super::{Failure, Hands};
use crate::definitions;

/// Changed paths that `when` looks at; beyond it, every path counts as changed.
const CHANGED_PATHS_MAX: usize = 100_000;

/// Candidates that are remembered as slow.
const SLOW_MAX: usize = 4_096;

// A candidate has the jobs of two definitions, and leaves half of its row to what is around them.
const _: () = assert!(2 * GRAPH_BYTES_MAX <= BODY_BYTES_MAX / 2);

/// Candidates whose merges have run out of their time. The first time a busy machine may have been the reason; the second
/// time it is a fact about the change, and nobody tries again until the change moves or somebody asks for it.
#[derive(Default)]
pub struct Slow(Mutex<BTreeSet<CandidateId>>);

impl Slow {
    /// Whether this is the second time. What was tried twice is forgotten.
    fn is_so_again(&self, id: CandidateId) -> bool {
        let mut slow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slow.remove(&id) {
            return true;
        }
        if slow.len() >= SLOW_MAX {
            slow.clear();
        }
        slow.insert(id);
        false
    }

    fn forget(&self, id: CandidateId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Carries the effect out. Making the same candidate again gives the same commit. What the change itself has lost keeps
/// nobody else from the branch: its forge hears of that, and its gate is rung to read it there; it is read again when that is
/// back.
pub fn run(
    hands: &Hands,
    id: CandidateId,
    (repo, spec): (&RepoName, &CandidateSpec),
    ring: impl FnOnce(),
) -> Result<GateEvent, Failure> {
    let repository = hands.repos.get(repo)?;
    let made = match make(&repository, spec) {
        Err(error @ GitError::MergeTooSlow { .. }) => match hands.slow.is_so_again(id) {
            true => Ok(CandidateResult::TooSlow { why: error.to_string() }),
            false => Err(error),
        },
        made => {
            hands.slow.forget(id);
            made
        }
    };
    if let Err(GitError::Missing { id: object } | GitError::Damaged { id: object }) = &made {
        let sides = Range { from: spec.parent, to: spec.revision };
        match hands.forges.get(repo)?.whose(sides, *object)? {
            Owner::Revision => ring(),
            // The next try tells more, or writes it again.
            Owner::Base | Owner::Candidate => {}
        }
    }
    Ok(GateEvent::CandidateMade { id, result: Box::new(made?) })
}

/// A description that can never become a commit is a fact about the change; every other error is trouble of ours.
fn make(repository: &Repository, spec: &CandidateSpec) -> Result<CandidateResult, GitError> {
    Ok(match repository.make_candidate(spec) {
        Ok(CandidateOutcome::Made { commit, tree }) => made(repository, spec, commit, tree)?,
        Ok(CandidateOutcome::Conflict { paths }) => CandidateResult::Conflict {
            paths: paths.iter().take(PATHS_SHOWN_MAX).map(ToString::to_string).collect(),
        },
        Ok(CandidateOutcome::Empty) => CandidateResult::Empty,
        Err(error) if error.class() == ErrorClass::Invalid => {
            CandidateResult::Impossible { why: error.to_string() }
        }
        Err(error) => return Err(error),
    })
}

fn made(
    repository: &Repository,
    spec: &CandidateSpec,
    commit: CommitId,
    tree: TreeId,
) -> Result<CandidateResult, GitError> {
    let parent = repository.commit(spec.parent)?.tree;
    let target = definitions::read(repository, parent)?;
    let own = definitions::read(repository, tree)?;
    let paths = match repository.changed_paths(parent, tree, CHANGED_PATHS_MAX)? {
        ChangedPaths::All(paths) => Some(paths.into_iter().map(|path| path.0).collect::<Vec<Vec<u8>>>()),
        ChangedPaths::TooMany => None,
    };
    let changed = paths.as_deref().map_or(Changed::Unknown, Changed::Paths);
    Ok(match plan(&target, &own, changed) {
        Ok(plan) => CandidateResult::Made(Candidate {
            commit,
            tree,
            changed_paths: paths.map_or(CHANGED_PATHS_MAX, |paths| paths.len()),
            target_definition: plan.target_definition,
            definition: plan.definition,
            graph: plan.graph,
            requires_nothing: plan.requires_nothing,
        }),
        Err(diagnostics) => {
            CandidateResult::BadDefinition { definition: own.digest, errors: diagnostics.lines() }
        }
    })
}
