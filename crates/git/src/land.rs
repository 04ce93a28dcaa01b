//! Landing: a branch moves by compare-and-swap, and only when the disk has everything does anybody hear of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use towpath_core::ids::{BranchName, CommitId};

use crate::environment::Git;
use crate::error::GitError;
use crate::object::{ObjectId, loose_path};
use crate::refs::{Expected, RefName, RefUpdate, Transaction};
use crate::repository::Repository;

/// How an attempt to land ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// The branch is at `to` now, read back and durable.
    Advanced,
    /// The branch contained `to` already: an earlier attempt, or somebody else, landed it.
    AlreadyContained {
        /// Where the branch is.
        tip: CommitId,
    },
    /// Somebody else moved the branch, and not to anything that contains `to`. Nothing was changed.
    Moved {
        /// Where the branch is.
        tip: CommitId,
    },
    /// The swap was confirmed, and the branch that was read back does not contain `to`.
    Broken {
        /// Where the branch is; `None`: it is gone.
        tip: Option<CommitId>,
    },
}

/// What has to reach the disk before a ref may name a commit: files first, then the folders that name them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct SyncPlan {
    files: Vec<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Repository {
    /// Advances `branch` from `from`, the tip that was tested, to `to`.
    ///
    /// Asks first whether the branch contains `to`, so that a repeat after a crash is recognised also when somebody
    /// pushed on top meanwhile (S10). Order of a landing (S9): objects, their folders, the ref, its folders, read back.
    ///
    /// # Errors
    /// `NotThere` without the branch, `NotForward` if `to` does not contain `from`, `NotDurable` if the disk
    /// did not confirm (the branch may have moved; asking again tells).
    pub fn advance(&self, branch: &BranchName, from: CommitId, to: CommitId) -> Result<Advance, GitError> {
        let name = RefName::branch(branch);
        let tip = self.existing_tip(branch)?;
        // A commit that contains the tip, and is not the tip, cannot be contained in it: one question is enough.
        let forward = tip == from && to != from && self.is_ancestor(from, to)?;
        if !forward {
            if self.is_ancestor(to, tip)? {
                self.sync_objects(Some(from), to)?;
                self.sync_ref_folders([&name])?;
                return Ok(Advance::AlreadyContained { tip });
            }
            return if tip == from {
                Err(GitError::NotForward { from, to })
            } else {
                Ok(Advance::Moved { tip })
            };
        }
        self.sync_objects(Some(from), to)?;
        let update = RefUpdate { name, expected: Expected::At(from.into()), target: Some(to.into()) };
        match self.ref_transaction(&[update])? {
            Transaction::Done => self.read_back(branch, to),
            Transaction::Stale { .. } => self.after_lost_race(branch, to),
        }
    }

    /// Makes a ref durable that is there already, with what it reaches and `known` does not: git syncs files, and leaves the
    /// folders that name them. For refs whose loss nobody could mend.
    pub fn make_durable(&self, name: &RefName, known: Option<CommitId>) -> Result<(), GitError> {
        if let Some(target) = self.ref_target(name)? {
            self.sync_objects(known, CommitId(target.0))?;
        }
        self.sync_ref_folders([name])
    }

    fn existing_tip(&self, branch: &BranchName) -> Result<CommitId, GitError> {
        let tip = self.branch_tip(branch)?;
        tip.ok_or_else(|| GitError::NotThere { what: "branch", name: branch.to_string() })
    }

    /// Another tip is somebody's push in the same instant; it counts as landed if it stands on `to`.
    fn read_back(&self, branch: &BranchName, to: CommitId) -> Result<Advance, GitError> {
        let Some(tip) = self.branch_tip(branch)? else { return Ok(Advance::Broken { tip: None }) };
        if tip == to {
            return Ok(Advance::Advanced);
        }
        match self.is_ancestor(to, tip)? {
            true => Ok(Advance::AlreadyContained { tip }),
            false => Ok(Advance::Broken { tip: Some(tip) }),
        }
    }

    fn after_lost_race(&self, branch: &BranchName, to: CommitId) -> Result<Advance, GitError> {
        let tip = self.existing_tip(branch)?;
        match self.is_ancestor(to, tip)? {
            true => Ok(Advance::AlreadyContained { tip }),
            false => Ok(Advance::Moved { tip }),
        }
    }

    /// Syncs the folders that hold refs, from their own up to the repository: any of them may be new, or have lost a name.
    pub(crate) fn sync_ref_folders<'a>(
        &self,
        names: impl IntoIterator<Item = &'a RefName>,
    ) -> Result<(), GitError> {
        let mut synced = BTreeSet::new();
        for name in names {
            let path = self.path().join(name.as_str());
            let folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(self.path()));
            for folder in folders {
                if !synced.insert(folder.to_owned()) {
                    break;
                }
                // Git removes folders that a deleted ref leaves empty.
                self.git().sync_if_there(folder)?;
            }
        }
        Ok(())
    }

    /// Makes everything durable that `to`, a commit or an annotated tag, reaches and `from` does not: git syncs the packs that
    /// it receives, and leaves the folder that names them.
    ///
    /// # Errors
    /// `NotDurable` if the disk did not confirm.
    pub fn sync_reached(&self, from: Option<CommitId>, to: ObjectId) -> Result<(), GitError> {
        self.sync_objects(from, CommitId(to.0))
    }

    /// Whether everything is there that `to` reaches and `from` does not. What is in a file is looked at as far as it leads on.
    ///
    /// # Errors
    /// `Missing` or `Damaged`, with the first object that is not.
    pub fn check_reached(&self, from: Option<CommitId>, to: CommitId) -> Result<(), GitError> {
        let call = self.call("rev-list").args(["--objects", "--quiet"]);
        let call = call.arg(to.to_string()).args(from.map(|from| format!("^{from}")));
        let finished = call.prepare().finish(&[], self.bounds())?;
        match finished.status.success() {
            true => Ok(()),
            false => Err(self.explained(finished.failed("rev-list"), &[to])),
        }
    }

    fn sync_objects(&self, from: Option<CommitId>, to: CommitId) -> Result<(), GitError> {
        match self.sync_plan(from, to) {
            Ok(plan) => plan.execute(self.git()),
            // Too many objects to name: the whole file system is flushed instead.
            Err(GitError::OutputTooLarge { .. }) => self.git().sync_file_system(&self.objects()),
            Err(error) => Err(error),
        }
    }

    /// Loose objects are ours or merge-tree's; packs were synced by git as they came, all but their folder.
    fn sync_plan(&self, from: Option<CommitId>, to: CommitId) -> Result<SyncPlan, GitError> {
        let call = self.call("rev-list").args(["--objects", "--no-object-names"]);
        let call = call.arg(to.to_string()).args(from.map(|from| format!("^{from}")));
        let output = call.prepare().output(&[], self.bounds());
        let output = output.map_err(|error| self.explained(error, &[to]))?;
        let objects = self.objects();
        let mut plan = SyncPlan::default();
        for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let id = ObjectId::from_hex(line).ok_or_else(|| GitError::unexpected("rev-list", line))?;
            let path = loose_path(&objects, id);
            if path.is_file() {
                plan.folders.extend(path.parent().map(PathBuf::from));
                plan.files.push(path);
            }
        }
        plan.folders.extend([objects.join("pack"), objects]);
        Ok(plan)
    }
}

impl SyncPlan {
    fn execute(&self, git: &Git) -> Result<(), GitError> {
        // A repack between the listing and here may have moved one into a pack, which git synced, and its folder is gone
        // with the last of them.
        self.files.iter().chain(&self.folders).try_for_each(|path| git.sync_if_there(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{EMPTY_TREE, GitOptions};

    #[test]
    fn what_lands_is_synced_and_what_the_branch_had_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = Git::find(GitOptions::default()).expect("git");
        let repository = Repository::create(&git, &folder.path().join("x.git")).expect("a repository");
        let tree = EMPTY_TREE.parse().expect("an id");
        let mut commits = vec![repository.synthetic(tree, None).expect("a commit")];
        for _ in 0..3 {
            commits.push(repository.synthetic(tree, commits.last().copied()).expect("a commit"));
        }
        let objects = repository.objects();
        let path = |at: usize| loose_path(&objects, commits[at].into());
        let plan = repository.sync_plan(Some(commits[1]), commits[3]).expect("a plan");
        assert_eq!(plan.files, [path(3), path(2)]);
        let folders = [2, 3].map(|at| path(at).parent().expect("a folder").to_owned());
        let wanted = folders.into_iter().chain([objects.clone(), objects.join("pack")]);
        assert_eq!(plan.folders, wanted.collect());
        assert_eq!(repository.sync_plan(None, commits[3]).expect("a plan").files.len(), 4);
        plan.execute(&git).expect("the disk is there");

        let gone = SyncPlan { files: vec![objects.join("00/gone")], folders: [objects.join("00")].into() };
        gone.execute(&git).expect("an object that moved into a pack is no failure");
        let lost = SyncPlan { files: Vec::new(), folders: BTreeSet::from([PathBuf::from("/proc/sys")]) };
        assert!(matches!(lost.execute(&git), Err(GitError::NotDurable { .. })));
    }
}
