//! The merge engine: git's own, kept open.
//!
//! `git merge-tree --write-tree --stdin` merges bare, from object ids alone, and writes only objects. It buffers its
//! answers, so it runs under `stdbuf -o0`; whether that works on this machine is found out with the first merge, and
//! where it does not, each merge starts a git of its own.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use towpath_core::ids::{CommitId, TreeId};

use crate::coprocess::{Coprocess, Slot};
use crate::environment::{Call, OUTPUT_BYTES_MAX};
use crate::error::GitError;
use crate::object::{ObjectId, TreePath};
use crate::process::{Bounds, Prepared, Until};
use crate::repository::Repository;

/// Time for the first answer of an engine that answers at once: it takes 3 ms.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of one path in an answer.
const PATH_BYTES_MAX: usize = 16 * 1024;
/// Conflicting paths that are kept; the rest of the answer is read and dropped.
const CONFLICTS_MAX: usize = 10_000;

/// What a merge of two commits gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// The merged tree, which is in the repository.
    Clean(TreeId),
    /// Paths with unmerged entries, sorted.
    Conflict(Vec<TreePath>),
}

impl Merged {
    /// Where a file stands against a folder, git reports the file under a name made for the merge: `path~<commit>`.
    /// People want the path.
    pub(crate) fn with_own_names(self, sides: [CommitId; 2]) -> Merged {
        let Merged::Conflict(mut paths) = self else { return self };
        for path in &mut paths {
            for side in sides.map(|side| format!("~{side}").into_bytes()) {
                let at = path.0.windows(side.len()).rposition(|window| window == side);
                at.into_iter().for_each(|at| path.0.truncate(at));
            }
        }
        paths.sort();
        paths.dedup();
        Merged::Conflict(paths)
    }
}

/// The time that the merges of one candidate share. Waiting for the process that makes them takes none of it.
pub(crate) struct MergeTime {
    whole: Duration,
    left: Duration,
}

impl MergeTime {
    /// What `work`, which is one exchange with git, takes is taken off.
    fn spend<T>(&mut self, work: impl FnOnce(Duration) -> Result<T, GitError>) -> Result<T, GitError> {
        let began = Instant::now();
        let done = work(self.left);
        self.left = self.left.saturating_sub(began.elapsed());
        done.map_err(|error| match error {
            GitError::Deadline { .. } => GitError::MergeTooSlow { time: self.whole },
            error => error,
        })
    }
}

impl Repository {
    /// Merges two commits as `git merge` would, without looking at any attribute, configuration or working tree.
    ///
    /// # Errors
    /// `Missing` if a commit is not there, `Damaged` if something of them cannot be read, `Unrelated` without a common ancestor,
    /// `MergeTooSlow` if it takes too long.
    pub fn merge(&self, ours: CommitId, theirs: CommitId) -> Result<Merged, GitError> {
        self.merge_within(&mut self.merge_time(), [ours, theirs])
    }

    /// All the time that the merges of a candidate have.
    pub(crate) fn merge_time(&self) -> MergeTime {
        let whole = self.git().merge_deadline();
        MergeTime { whole, left: whole }
    }

    /// One of the merges that share `time`.
    pub(crate) fn merge_within(
        &self,
        time: &mut MergeTime,
        [ours, theirs]: [CommitId; 2],
    ) -> Result<Merged, GitError> {
        let merged = match self.probed(ours)? {
            true => self.merge_kept_open(time, [ours, theirs]),
            false => self.merge_alone(time, [ours, theirs]),
        };
        let error = match merged.map_err(|error| self.explained(error, &[ours, theirs])) {
            Ok(merged) => return Ok(merged.with_own_names([ours, theirs])),
            Err(error @ GitError::Failed { .. }) => error,
            Err(error) => return Err(error),
        };
        match self.merge_base(ours, theirs)? {
            None => Err(GitError::Unrelated { ours, theirs }),
            Some(_) => Err(error),
        }
    }

    /// Whether merges are done by a git that is kept open (fast), or by one git for each. Known after the first merge.
    pub fn merges_kept_open(&self) -> Option<bool> {
        self.git().merges_answer_at_once().get().copied()
    }

    /// Whether merges can be kept open. Only a commit that is there can tell.
    fn probed(&self, commit: CommitId) -> Result<bool, GitError> {
        let known = self.git().merges_answer_at_once();
        if known.get().is_none() && !self.has_commit(commit)? {
            return Err(GitError::Missing { id: commit.into() });
        }
        Ok(*known.get_or_init(|| self.probe_merger(commit)))
    }

    /// A commit merged with itself is the question whose answer costs nothing.
    fn probe_merger(&self, commit: CommitId) -> bool {
        let slot = Slot::default();
        let until = Until::after(PROBE_DEADLINE);
        self.git().stdbuf().is_some()
            && slot.with(|| self.merger_command(), |process| ask(process, [commit; 2], until)).is_ok()
    }

    fn merge_kept_open(&self, time: &mut MergeTime, sides: [CommitId; 2]) -> Result<Merged, GitError> {
        let exchange = |process: &mut Coprocess| {
            let merged = time.spend(|left| ask(process, sides, Until::after(left)))?;
            Ok((merged, process.complaints()))
        };
        let (merged, complaints) = self.merger().with(|| self.merger_command(), exchange)?;
        self.unless_damaged(merged, &complaints, &sides)
    }

    fn merge_alone(&self, time: &mut MergeTime, sides: [CommitId; 2]) -> Result<Merged, GitError> {
        let [ours, theirs] = sides;
        let request = format!("{ours} {theirs}\n");
        let finished = time.spend(|left| {
            let bounds = Bounds { deadline: left, output_bytes_max: OUTPUT_BYTES_MAX };
            self.merge_call().prepare().finish(request.as_bytes(), bounds)
        })?;
        if !finished.status.success() {
            return Err(finished.failed("merge-tree"));
        }
        let mut fields = finished.output.split(|byte| *byte == 0);
        let merged = read_answer(|| {
            let field = fields.next().map(<[u8]>::to_vec);
            field.ok_or_else(|| GitError::unexpected("merge-tree", &finished.output))
        })?;
        self.unless_damaged(merged, &finished.stderr, &sides)
    }

    /// Git before 2.40 complains of a tree that it cannot read, and merges as if that were empty.
    fn unless_damaged(
        &self,
        merged: Merged,
        complaints: &str,
        sides: &[CommitId; 2],
    ) -> Result<Merged, GitError> {
        self.damage_in(complaints, sides).map_or(Ok(merged), Err)
    }

    fn merger_command(&self) -> Prepared {
        let stdbuf = self.git().stdbuf().map_or(OsStr::new("stdbuf"), |path| path.as_os_str());
        self.merge_call().prepare_under(&[stdbuf, OsStr::new("-o0")])
    }

    /// What a merge writes is synced when it lands ([`crate::land`]), and a power cut before that is mended
    /// ([`crate::mend`]): syncing each new tree here would cost more than the merge.
    fn merge_call(&self) -> Call<'_> {
        self.call("merge-tree").config("core.fsync=none").args([
            "--write-tree",
            "--stdin",
            "--no-messages",
            "--name-only",
        ])
    }
}

fn ask(process: &mut Coprocess, [ours, theirs]: [CommitId; 2], until: Until) -> Result<Merged, GitError> {
    process.send(format!("{ours} {theirs}\n").as_bytes(), until)?;
    read_answer(|| process.line(0, PATH_BYTES_MAX, until))
}

/// `1 NUL tree NUL NUL`, or `0 NUL tree NUL path NUL path NUL ... NUL`.
fn read_answer(mut field: impl FnMut() -> Result<Vec<u8>, GitError>) -> Result<Merged, GitError> {
    let status = field()?;
    let tree = field()?;
    let tree = ObjectId::from_hex(&tree).ok_or_else(|| GitError::unexpected("merge-tree", &tree))?;
    let mut paths = Vec::new();
    loop {
        let path = field()?;
        if path.is_empty() {
            break;
        }
        if paths.len() < CONFLICTS_MAX {
            paths.push(TreePath(path));
        }
    }
    match status.as_slice() {
        b"1" => Ok(Merged::Clean(TreeId(tree.0))),
        b"0" => Ok(Merged::Conflict(paths)),
        _ => Err(GitError::unexpected("merge-tree", &status)),
    }
}
