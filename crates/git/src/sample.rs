//! Candidates out of a repository's own history, for measuring how fast they are made and whether git agrees, and what else
//! is measured on.

use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::ids::{CommitId, Timestamp, TreeId};

use crate::environment::OUTPUT_BYTES_MAX;
use crate::error::GitError;
use crate::history::Walk;
use crate::merge::Merged;
use crate::object::{CommitInfo, ObjectId, TreePath};
use crate::process::Bounds;
use crate::repository::Repository;

mod changes;
mod hard;

pub use changes::changes;
pub use hard::pairs as hard_pairs;

/// Merges between the branch and the change that a pair joins: as old as a change is when it waits in a queue.
const MERGES_APART: usize = 2;

/// Descriptions of candidates as a queue would make them, at most `count`, newest first.
///
/// Where the branch has merges: the branch as it was before one merge, and the change that a later merge brought.
/// Where it is a single line: each commit, and the second after it repeated beside it. So the line has been past no pair's
/// merged tree, which has to be written. Pairs in which one side contains the other are left out, since merging them is no
/// work.
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
    for four in line.windows(4) {
        if specs.len() == count {
            break;
        }
        let [last, between, middle, first] = four else { continue };
        if last.parents != [between.id] || between.parents != [middle.id] || middle.parents != [first.id] {
            continue;
        }
        if let Merged::Clean(tree) = repository.pick(&mut repository.merge_time(), first.tree, last)? {
            let beside = repository.synthetic(tree, Some(first.id))?;
            push_apart(repository, &mut specs, [beside, middle.id])?;
        }
    }
    Ok(specs)
}

/// What a git of its own makes of a description, by its ordinary command. As with ours, nothing waits for the disk.
pub fn reference(repository: &Repository, spec: &CandidateSpec) -> Result<Merged, GitError> {
    let call = repository.call("merge-tree").config("core.fsync=none");
    let call = call
        .args(["--write-tree", "-z", "--name-only", "--no-messages"])
        .args([spec.parent.to_string(), spec.revision.to_string()]);
    let bounds = Bounds { output_bytes_max: OUTPUT_BYTES_MAX, ..repository.bounds() };
    let finished = call.prepare().finish(&[], bounds)?;
    let mut fields = finished.output.split(|byte| *byte == 0);
    let tree = fields.next().and_then(ObjectId::from_hex);
    match (finished.status.code(), tree) {
        (Some(0), Some(tree)) => Ok(Merged::Clean(TreeId(tree.0))),
        (Some(1), Some(_)) => {
            let paths = fields.filter(|path| !path.is_empty()).map(|path| TreePath(path.to_vec()));
            // The names that git invents for files in the way of folders are left out of ours.
            Ok(Merged::Conflict(paths.collect()).with_own_names([spec.parent, spec.revision]))
        }
        _ => Err(finished.failed("merge-tree")),
    }
}

/// The commit that a git of its own makes of a merged tree, by its ordinary command. Nothing waits for the disk here either.
pub fn reference_commit(
    repository: &Repository,
    spec: &CandidateSpec,
    tree: TreeId,
) -> Result<CommitId, GitError> {
    let call = repository.call("commit-tree").config("core.fsync=none").args(["-m", spec.message.as_str()]);
    let parents = [spec.parent, spec.revision].map(|parent| format!("-p{parent}"));
    let call = call.args(parents).arg(tree.to_string());
    let call = ["AUTHOR", "COMMITTER"].into_iter().fold(call, |call, who| {
        call.variable(format!("GIT_{who}_NAME"), "sample")
            .variable(format!("GIT_{who}_EMAIL"), "sample@towpath.invalid")
            .variable(format!("GIT_{who}_DATE"), format!("@{} +0000", spec.time.0.div_euclid(1000)))
    });
    let finished = call.prepare().finish(&[], repository.bounds())?;
    let id = finished.output.get(..40).and_then(ObjectId::from_hex).filter(|_| finished.status.success());
    id.map(|id| CommitId(id.0)).ok_or_else(|| finished.failed("commit-tree"))
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
    specs.push(spec(repository, [parent, revision])?);
    Ok(())
}

fn spec(repository: &Repository, [parent, revision]: [CommitId; 2]) -> Result<CandidateSpec, GitError> {
    let times = [repository.commit(parent)?.committer.time, repository.commit(revision)?.committer.time];
    let time = times.into_iter().max().unwrap_or(Timestamp(0));
    Ok(CandidateSpec { parent, revision, strategy: Strategy::Merge, message: "sample".to_owned(), time })
}
