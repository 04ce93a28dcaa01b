//! Questions about history. Every answer is bounded: what a change contains is its author's choice.

use std::time::Duration;

use towpath_core::ids::{CommitId, Timestamp};

use crate::error::GitError;
use crate::object::ObjectId;
use crate::repository::Repository;

/// Refs that hold what came by import, by push or by a landing. All others hold what the server made for itself: candidates,
/// records, notes. Nobody has brought that, until somebody does. Revisions of changes are last.
const BROUGHT: [&str; 3] = ["--branches", "--tags", "--glob=refs/changes/*/[0-9]*"];

/// Time for one walk through all that a commit reaches. Linux's eleven million objects take about a minute.
const WHOLE_WALK_DEADLINE: Duration = Duration::from_secs(600);

/// How commits are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Every commit.
    All,
    /// Only along first parents: what happened on the branch itself.
    FirstParents,
}

/// Two ends of a piece of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// What is known already: this commit and all that it contains are left out.
    pub from: CommitId,
    /// The newest commit.
    pub to: CommitId,
}

impl Repository {
    /// Whether `descendant` contains `ancestor`. A commit contains itself.
    ///
    /// # Errors
    /// `Missing` if one of them is not in the repository; `Damaged` if `descendant`, or a commit that it contains, cannot be
    /// read.
    pub fn is_ancestor(&self, ancestor: CommitId, descendant: CommitId) -> Result<bool, GitError> {
        if ancestor == descendant {
            return Ok(true);
        }
        let asked = [ancestor, descendant];
        let call = self.call("merge-base").arg("--is-ancestor").args(asked.map(|commit| commit.to_string()));
        let finished = call.prepare().finish(&[], self.bounds())?;
        let error = match finished.status.code() {
            Some(0) => return Ok(true),
            Some(1) => match self.damage_in(&finished.stderr, &asked) {
                None => return Ok(false),
                Some(damage) => damage,
            },
            _ => self.explained(finished.failed("merge-base"), &asked),
        };
        match error {
            GitError::Damaged { .. } => self.lists(descendant, ancestor),
            error => Err(error),
        }
    }

    /// Whether a commit is among those that another one contains: what cannot be read beside them is in nobody's way.
    fn lists(&self, descendant: CommitId, ancestor: CommitId) -> Result<bool, GitError> {
        let call = self.call("rev-list").arg(descendant.to_string());
        let finished = call.prepare().finish(&[], self.bounds())?;
        match finished.status.success() {
            true => Ok(commit_lines("rev-list", &finished.output)?.contains(&ancestor)),
            false => Err(self.explained(finished.failed("rev-list"), &[descendant])),
        }
    }

    /// Whether an object is this commit, one that it contains, or stands in the tree of one of them. It may be lost or damaged
    /// itself. Walks through all of the history, so it is for the rare question.
    ///
    /// # Errors
    /// `Damaged` if another object, which the commit reaches too, keeps this from being told.
    pub fn reaches(&self, commit: CommitId, object: ObjectId) -> Result<bool, GitError> {
        let call = self.call("rev-list").args(["--objects", "--no-object-names", "--missing=print"]);
        let (name, mut line, mut found) = (object.to_string(), Vec::new(), false);
        let finished = call.arg(commit.to_string()).prepare().stream(&[], WHOLE_WALK_DEADLINE, |piece| {
            for byte in piece {
                match byte {
                    // In front of one that is missing.
                    b'?' => {}
                    b'\n' => {
                        found |= line == name.as_bytes();
                        line.clear();
                    }
                    byte => line.push(*byte),
                }
            }
            Ok(())
        })?;
        if found || finished.status.success() {
            return Ok(found);
        }
        // Git ends over the first that is spoilt.
        match self.explained(finished.failed("rev-list"), &[]) {
            GitError::Damaged { id } if id == object => Ok(true),
            error => Err(error),
        }
    }

    /// A best common ancestor of two commits, if they have any.
    ///
    /// # Errors
    /// `Missing` if one of them is not in the repository; `Damaged` if one, or a commit on the way, cannot be read.
    pub fn merge_base(&self, one: CommitId, other: CommitId) -> Result<Option<CommitId>, GitError> {
        let asked = [one, other];
        let call = self.call("merge-base").args(asked.map(|commit| commit.to_string()));
        let finished = call.prepare().finish(&[], self.bounds())?;
        match finished.status.code() {
            Some(0) => {
                let id = finished.output.get(..40).and_then(ObjectId::from_hex);
                let id = id.ok_or_else(|| GitError::unexpected("merge-base", &finished.output))?;
                Ok(Some(CommitId(id.0)))
            }
            Some(1) => self.damage_in(&finished.stderr, &asked).map_or(Ok(None), Err),
            _ => Err(self.explained(finished.failed("merge-base"), &asked)),
        }
    }

    /// The commits of a range, oldest first; parents always come before children.
    ///
    /// # Errors
    /// `TooLarge` if there are more than `commits_max`; `Missing` if an end is not in the repository;
    /// `Damaged` if an end, or a commit between, cannot be read.
    pub fn commits_between(
        &self,
        Range { from, to }: Range,
        walk: Walk,
        commits_max: usize,
    ) -> Result<Vec<CommitId>, GitError> {
        let mut call = self
            .call("rev-list")
            .args(["--topo-order".to_owned(), format!("--max-count={}", commits_max + 1)]);
        if walk == Walk::FirstParents {
            call = call.arg("--first-parent");
        }
        let call = call.args([to.to_string(), format!("^{from}")]);
        let finished = call.prepare().finish(&[], self.bounds())?;
        if !finished.status.success() {
            return Err(self.explained(finished.failed("rev-list"), &[from, to]));
        }
        let mut commits = commit_lines("rev-list", &finished.output)?;
        if commits.len() > commits_max {
            let what = format!("the number of commits from {} to {}", from.short(), to.short());
            return Err(GitError::TooLarge { what, limit: commits_max.to_string() });
        }
        commits.reverse();
        Ok(commits)
    }

    /// The commits that some tips contain, and no branch, tag or revision of a change does, with their times. Asked in the
    /// quarantine of a push, it is what the push brings: also where the server has made the same commit for itself, as a
    /// candidate.
    ///
    /// Where a revision of some change is damaged, what only revisions contain is in the answer too, so that the others go on:
    /// who brought it is known, and stays who brought it first.
    ///
    /// # Errors
    /// `TooLarge` if there are more than `commits_max`; `Missing` for a tip that is not there.
    pub fn new_commits(&self, tips: &[CommitId], commits_max: usize) -> Result<Vec<DatedCommit>, GitError> {
        if tips.is_empty() {
            return Ok(Vec::new());
        }
        let beside = |brought: &[&str]| {
            let call = self.call("rev-list").arg(format!("--max-count={}", commits_max + 1));
            let call = call.arg("--format=%H %at %ct").args(tips.iter().map(CommitId::to_string));
            call.arg("--not").args(brought).prepare().finish(&[], self.bounds())
        };
        let mut finished = beside(&BROUGHT)?;
        if !finished.status.success() {
            finished = beside(&BROUGHT[..2])?;
        }
        if !finished.status.success() {
            return Err(self.explained(finished.failed("rev-list"), tips));
        }
        let lines = finished.output.split(|byte| *byte == b'\n');
        // Git heads each line of ours with one of its own.
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"commit "));
        let commits = lines.map(DatedCommit::parse).collect::<Result<Vec<_>, _>>()?;
        match commits.len() > commits_max {
            true => Err(GitError::TooLarge {
                what: "the number of new commits".to_owned(),
                limit: commits_max.to_string(),
            }),
            false => Ok(commits),
        }
    }

    /// The newest commits that `tip` contains, newest first.
    pub fn log(&self, tip: CommitId, walk: Walk, commits_max: usize) -> Result<Vec<CommitId>, GitError> {
        let mut call =
            self.call("rev-list").args(["--topo-order".to_owned(), format!("--max-count={commits_max}")]);
        if walk == Walk::FirstParents {
            call = call.arg("--first-parent");
        }
        let finished = call.arg(tip.to_string()).prepare().finish(&[], self.bounds())?;
        if !finished.status.success() {
            return Err(self.explained(finished.failed("rev-list"), &[tip]));
        }
        commit_lines("rev-list", &finished.output)
    }
}

/// A commit with the times that it bears. Decides nothing: anybody can write anything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatedCommit {
    /// Its id.
    pub id: CommitId,
    /// The author's time.
    pub authored: Timestamp,
    /// The committer's time.
    pub committed: Timestamp,
}

impl DatedCommit {
    /// `<id> <seconds> <seconds>`; a time that is missing is 1970, as in [`CommitInfo`](crate::CommitInfo).
    fn parse(line: &[u8]) -> Result<DatedCommit, GitError> {
        let mut words = line.split(|byte| *byte == b' ');
        let id = words.next().and_then(ObjectId::from_hex);
        let id = id.ok_or_else(|| GitError::unexpected("rev-list", line))?;
        let mut time = || {
            let word = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let seconds = word.and_then(|word| word.parse::<i64>().ok()).unwrap_or(0);
            Timestamp(seconds.saturating_mul(1000))
        };
        Ok(DatedCommit { id: CommitId(id.0), authored: time(), committed: time() })
    }
}

fn commit_lines(call: &'static str, output: &[u8]) -> Result<Vec<CommitId>, GitError> {
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let id = |line| ObjectId::from_hex(line).ok_or_else(|| GitError::unexpected(call, line));
    lines.map(|line| id(line).map(|id| CommitId(id.0))).collect()
}
