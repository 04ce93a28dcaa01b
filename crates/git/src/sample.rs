//! Candidates out of a repository's own history, for measuring how fast they are made and whether git agrees.

use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::ids::{CommitId, Timestamp, TreeId};

use crate::environment::OUTPUT_BYTES_MAX;
use crate::error::GitError;
use crate::history::Walk;
use crate::merge::Merged;
use crate::object::{CommitInfo, ObjectId, TreePath};
use crate::process::Bounds;
use crate::repository::Repository;

/// Merges between the branch and the change that a pair joins: as old as a change is when it waits in a queue.
const MERGES_APART: usize = 2;

/// Descriptions of candidates as a queue would make them, at most `count`, newest first.
///
/// Where the branch has merges: the branch as it was before one merge, and the change that a later merge brought.
/// Where it is a single line: each commit, and the one after it repeated beside it. Pairs in which one side contains
/// the other are left out, since merging them is no work.
pub fn candidates(
    repository: &Repository,
    tip: CommitId,
    count: usize,
) -> Result<Vec<CandidateSpec>, GitError> {
    let line = repository.log(tip, Walk::FirstParents, count.saturating_mul(8).max(1_000))?;
    let line: Vec<CommitInfo> = line.into_iter().map(|id| repository.commit(id)).collect::<Result<_, _>>()?;
    let merges: Vec<&CommitInfo> = line.iter().filter(|commit| commit.parents.len() == 2).collect();
    let mut specs = Vec::new();
    for (newer, older) in merges.iter().zip(merges.iter().skip(MERGES_APART)) {
        push_apart(repository, &mut specs, [older.parents[0], newer.parents[1]])?;
        if specs.len() == count {
            return Ok(specs);
        }
    }
    for three in line.windows(3) {
        if specs.len() == count {
            break;
        }
        let [last, middle, first] = three else { continue };
        if last.parents != [middle.id] || middle.parents != [first.id] {
            continue;
        }
        if let Merged::Clean(tree) = repository.pick(first.tree, last)? {
            let beside = repository.synthetic(tree, Some(first.id))?;
            push_apart(repository, &mut specs, [beside, middle.id])?;
        }
    }
    Ok(specs)
}

/// What a git of its own makes of a description, by its ordinary command.
pub fn reference(repository: &Repository, spec: &CandidateSpec) -> Result<Merged, GitError> {
    let call = repository.call("merge-tree").args(["--write-tree", "-z", "--name-only", "--no-messages"]);
    let call = call.args([spec.parent.to_string(), spec.revision.to_string()]);
    let bounds = Bounds { output_bytes_max: OUTPUT_BYTES_MAX, ..repository.bounds() };
    let finished = call.prepare().finish(&[], bounds)?;
    let mut fields = finished.output.split(|byte| *byte == 0);
    let tree = fields.next().and_then(ObjectId::from_hex);
    match (finished.status.code(), tree) {
        (Some(0), Some(tree)) => Ok(Merged::Clean(TreeId(tree.0))),
        (Some(1), Some(_)) => {
            let paths = fields.filter(|path| !path.is_empty()).map(|path| TreePath(path.to_vec()));
            Ok(Merged::Conflict(paths.collect()))
        }
        _ => Err(finished.failed("merge-tree")),
    }
}

fn push_apart(
    repository: &Repository,
    specs: &mut Vec<CandidateSpec>,
    [parent, revision]: [CommitId; 2],
) -> Result<(), GitError> {
    match repository.merge_base(parent, revision)? {
        Some(base) if base != parent && base != revision => {}
        _ => return Ok(()),
    }
    let times = [repository.commit(parent)?.committer.time, repository.commit(revision)?.committer.time];
    let time = times.into_iter().max().unwrap_or(Timestamp(0));
    specs.push(CandidateSpec {
        parent,
        revision,
        strategy: Strategy::Merge,
        message: "sample".to_owned(),
        time,
    });
    Ok(())
}
