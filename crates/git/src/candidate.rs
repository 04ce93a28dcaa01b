//! Making candidates: the same description gives the same commit, on every machine and in every clone.
//!
//! *Merge* and *squash* are one merge of the two commits; they differ in the parents of the commit that is written.
//!
//! *Rebase* walks the change's own line of history (first parents) and repeats each commit on top of the one before.
//! A merge inside the change becomes one ordinary commit with all that it brought in, conflict resolutions included;
//! `git rebase` would drop those edits silently and land something that nobody reviewed. Steps that change nothing
//! any more are left out. Author, author's date and message are kept, but for trailers that only Towpath may write; the
//! committer is Towpath, at the given time.
//!
//! A step, the pick of C onto X, is a merge as well: of C with a synthetic commit that has X's tree and C's parent.
//! That is what `git merge-tree --merge-base` does since git 2.40. A root commit has no parent, so both sides get a
//! synthetic one with the empty tree.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use towpath_core::candidate::{CandidateSpec, Strategy, is_reserved_trailer};
use towpath_core::ids::{CandidateId, CommitId, Timestamp, TreeId};

use crate::environment::EMPTY_TREE;
use crate::error::GitError;
use crate::history::{Range, Walk};
use crate::merge::{MergeTime, Merged};
use crate::object::{CommitInfo, NewCommit, TreePath, write_commit};
use crate::refs::{Expected, RefName, RefUpdate, Transaction};
use crate::repository::Repository;

/// Who made the landed commits. Part of every candidate's id, so it never changes. `.invalid` (RFC 2606) is nobody's.
const IDENTITY: &str = "Towpath <towpath@towpath.invalid>";
/// Commits of one change that are rebased; each costs a millisecond, and nobody reviews more.
const REBASED_COMMITS_MAX: usize = 1_000;
/// Bytes of a landed message: what fits on sixteen screens, and under what git reads at once.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What came of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CandidateOutcome {
    /// The commit is written, and held by `refs/towpath/candidates/<id>`.
    Made {
        /// The commit that will land.
        commit: CommitId,
        /// Its tree.
        tree: TreeId,
    },
    /// The two sides do not merge.
    Conflict {
        /// Paths with unmerged entries, sorted.
        paths: Vec<TreePath>,
    },
    /// The change adds nothing to its parent.
    Empty,
}

impl Repository {
    /// Makes a candidate commit. Repeating it gives the same commit, and costs another merge.
    ///
    /// It becomes durable when it lands. After a power cut it may be gone, and is made again from its description.
    ///
    /// # Errors
    /// `Missing` if a commit is not there; `Unrelated`, `TooLarge` or `BadInput` if it can never be made; `MergeTooSlow` if its
    /// merges take too long.
    pub fn make_candidate(&self, spec: &CandidateSpec) -> Result<CandidateOutcome, GitError> {
        let parent = self.commit(spec.parent)?;
        let outcome = match spec.strategy {
            Strategy::Merge => self.join(spec, &parent, &[spec.parent, spec.revision])?,
            Strategy::Squash => self.join(spec, &parent, &[spec.parent])?,
            Strategy::Rebase => self.rebase(spec, &parent)?,
        };
        if let CandidateOutcome::Made { commit, .. } = outcome {
            self.hold(&spec.id(), commit)?;
        }
        Ok(outcome)
    }

    /// Lets go of a candidate that will not land; what nothing else holds is collected later.
    pub fn release_candidate(&self, spec: &CandidateSpec) -> Result<(), GitError> {
        let name = RefName::candidate(&spec.id());
        self.write_refs(&[RefUpdate { name, expected: Expected::Anything, target: None }]).map(drop)
    }

    fn join(
        &self,
        spec: &CandidateSpec,
        parent: &CommitInfo,
        parents: &[CommitId],
    ) -> Result<CandidateOutcome, GitError> {
        let message = landed_message(&spec.message)?;
        let tree = match self.merge(spec.parent, spec.revision)? {
            Merged::Conflict(paths) => return Ok(CandidateOutcome::Conflict { paths }),
            Merged::Clean(tree) if tree == parent.tree => return Ok(CandidateOutcome::Empty),
            Merged::Clean(tree) => tree,
        };
        let person = signature(spec.time);
        let (author, committer, message) = (person.as_bytes(), person.as_bytes(), message.as_bytes());
        let commit = NewCommit { tree, parents, author, committer, encoding: None, message };
        let commit = write_commit(&self.objects(), &commit)?;
        Ok(CandidateOutcome::Made { commit, tree })
    }

    fn rebase(&self, spec: &CandidateSpec, parent: &CommitInfo) -> Result<CandidateOutcome, GitError> {
        let range = Range { from: spec.parent, to: spec.revision };
        let steps = self.commits_between(range, Walk::FirstParents, REBASED_COMMITS_MAX)?;
        let committer = signature(spec.time);
        let mut time = self.merge_time();
        let (mut commit, mut tree) = (parent.id, parent.tree);
        for step in steps {
            let step = self.commit(step)?;
            // The line ends at a root instead of at something that the parent contains.
            if step.parents.is_empty() && self.merge_base(spec.parent, spec.revision)?.is_none() {
                return Err(GitError::Unrelated { ours: spec.parent, theirs: spec.revision });
            }
            let picked = match self.pick(&mut time, tree, &step)? {
                Merged::Conflict(paths) => return Ok(CandidateOutcome::Conflict { paths }),
                Merged::Clean(picked) if picked == tree => continue,
                Merged::Clean(picked) => picked,
            };
            let again = NewCommit {
                tree: picked,
                parents: &[commit],
                author: &step.raw.author,
                committer: committer.as_bytes(),
                encoding: step.raw.encoding.as_deref(),
                message: &without_reserved_trailers(&step.raw.message),
            };
            commit = write_commit(&self.objects(), &again)?;
            tree = picked;
        }
        match commit == parent.id {
            true => Ok(CandidateOutcome::Empty),
            false => Ok(CandidateOutcome::Made { commit, tree }),
        }
    }

    /// The tree of `onto` with what `step` did to its first parent.
    pub(crate) fn pick(
        &self,
        time: &mut MergeTime,
        onto: TreeId,
        step: &CommitInfo,
    ) -> Result<Merged, GitError> {
        let base = match step.parents.first() {
            Some(parent) => *parent,
            None => self.synthetic(empty_tree(), None)?,
        };
        let ours = self.synthetic(onto, Some(base))?;
        let theirs = match step.parents.len() {
            1 => step.id,
            _ => self.synthetic(step.tree, Some(base))?,
        };
        self.merge_within(time, [ours, theirs])
    }

    /// A commit that only serves as one side of a merge. Nothing holds it; garbage collection takes it.
    pub(crate) fn synthetic(&self, tree: TreeId, parent: Option<CommitId>) -> Result<CommitId, GitError> {
        let person = signature(Timestamp(0));
        let (author, committer) = (person.as_bytes(), person.as_bytes());
        let parents = parent.as_slice();
        let commit =
            NewCommit { tree, parents, author, committer, encoding: None, message: b"one side of a merge\n" };
        write_commit(&self.objects(), &commit)
    }

    /// Names a candidate by its ref, so that garbage collection leaves it.
    ///
    /// Written as git writes a loose ref, but without waiting for the disk ([`crate::mend`] has the rest). Whoever
    /// else writes it, writes the same: the name says what the value is.
    fn hold(&self, id: &CandidateId, commit: CommitId) -> Result<(), GitError> {
        let name = RefName::candidate(id);
        let path = self.path().join(name.as_str());
        let value = format!("{commit}\n");
        if fs::read(&path).is_ok_and(|found| found == value.as_bytes()) {
            return Ok(());
        }
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        if let Ok(mut file) = File::create_new(&lock) {
            let written = file.write_all(value.as_bytes()).and_then(|()| fs::rename(&lock, &path));
            if written.is_err() {
                let _ = fs::remove_file(&lock);
            }
            return written.map_err(GitError::io("write", &path));
        }
        // The folder is not there yet, or somebody holds the lock: git makes the one and waits for the other.
        let update = RefUpdate { name, expected: Expected::Anything, target: Some(commit.into()) };
        match self.write_refs(&[update])? {
            Transaction::Done => Ok(()),
            Transaction::Stale { name, .. } => {
                Err(GitError::NotThere { what: "the ref just written", name: name.to_string() })
            }
        }
    }
}

/// `Towpath <...> <seconds> +0000`; times before 1970 are no times of commits.
fn signature(time: Timestamp) -> String {
    format!("{IDENTITY} {} +0000", time.0.div_euclid(1000).max(0))
}

/// The message with exactly one line end at its end, as `git commit` leaves it.
fn landed_message(message: &str) -> Result<String, GitError> {
    if message.contains('\0') || message.len() > MESSAGE_BYTES_MAX {
        let why = format!("it has a NUL character or more than {MESSAGE_BYTES_MAX} bytes");
        return Err(GitError::BadInput { what: "the landed message", why });
    }
    Ok(format!("{}\n", message.trim_end()))
}

/// A message without the trailers that only Towpath may write (trust T8). Its first line is no trailer. Bytes, as it may be
/// in any encoding.
fn without_reserved_trailers(message: &[u8]) -> Vec<u8> {
    let lines = message.split_inclusive(|byte| *byte == b'\n').enumerate();
    let kept = lines.filter(|(at, line)| *at == 0 || !is_reserved_trailer(line));
    kept.flat_map(|(_, line)| line).copied().collect()
}

fn empty_tree() -> TreeId {
    EMPTY_TREE.parse().expect("the empty tree's id is forty hex digits")
}
