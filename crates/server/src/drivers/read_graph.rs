//! Reads the jobs of a landed commit's own definition.

use towpath_core::gate::GateEvent;
use towpath_core::ids::{CommitId, RepoName};
use towpath_pipeline::Changed;

use super::{Failure, Hands};
use crate::definitions;

/// Carries the effect out. A read: repeating it changes nothing.
pub fn run(hands: &Hands, repo: &RepoName, commit: CommitId) -> Result<GateEvent, Failure> {
    let repository = hands.repos.get(repo)?;
    let tree = repository.commit(commit)?.tree;
    let graph = match definitions::read(&repository, tree)?.definition {
        Ok(definition) => Ok(definition.expand(Changed::Unknown)),
        Err(diagnostics) => Err(diagnostics.lines()),
    };
    Ok(GateEvent::GraphRead { commit, graph })
}
