//! P4: candidates. How long one takes, its commit included, and whether its tree is what git would make.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use towpath_core::candidate::CandidateSpec;
use towpath_core::ids::CommitId;
use towpath_git::{
    CandidateOutcome, Git, GitOptions, ImportOptions, Merged, Repository, Source, import, sample,
};

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, seconds};
use crate::world::{folder, this_repository};
use crate::{Extent, Fault};

/// Candidates out of the history.
const CANDIDATES: u32 = 100;
/// Generated pairs.
const HARD_PAIRS: u32 = 250;
/// The same pairs in each run.
const SEED: u64 = 2026;

/// This repository's own history: time and trees.
pub fn history(extent: Extent) -> Result<Vec<Row>, Fault> {
    let copy = Copy::of_this_repository()?;
    let count = extent.of(CANDIDATES) as usize;
    // One more, for the processes that are kept open.
    let specs = sample::candidates(&copy.repository, copy.tip()?, count + 1)?;
    if specs.len() < 2 {
        return Err("the history is too short to take candidates from".into());
    }
    // ext4 passes by every inode that was deleted in the last minutes when it looks for a free one: no copy goes before the
    // last one is measured. Source: Linux, fs/ext4/ialloc.c, `recently_deleted`.
    let used = RefCell::new(Vec::new());
    let each = |make: fn(&Copy, &[CandidateSpec]) -> Result<(), Fault>| {
        let fresh = copy.again()?;
        let time = each_alone(&fresh, &specs, make);
        used.borrow_mut().push(fresh);
        time
    };
    let (value, peer_value) = alternate(|| each(Copy::make), || each(Copy::make_by_git))?;
    let peer = "git merge-tree and git commit-tree, started for each";
    let figure = Figure { name: "P4-merge", unit: "ms", value, peer, peer_value };
    let speed = figure.judged(Goal::AtMost(1.8));
    Ok(vec![speed, copy.equal_trees("P4-history-trees", &specs)?])
}

/// Milliseconds for each of the candidates but the first, in a fresh copy: nothing that is made here is there before. The first
/// one starts what a server keeps open, before the clock runs.
fn each_alone(
    copy: &Copy,
    specs: &[CandidateSpec],
    make: impl Fn(&Copy, &[CandidateSpec]) -> Result<(), Fault>,
) -> Result<f64, Fault> {
    let (first, measured) = specs.split_at(1);
    make(copy, first)?;
    Ok(seconds(|| make(copy, measured))? * 1e3 / measured.len() as f64)
}

/// Renames, modes, links, submodules, folders against files: half of them are conflicts.
pub fn hard_set(extent: Extent) -> Result<Vec<Row>, Fault> {
    let copy = Copy::empty()?;
    let specs = sample::hard_pairs(&copy.repository, extent.of(HARD_PAIRS) as usize, SEED)?;
    Ok(vec![copy.equal_trees("P4-hard-trees", &specs)?])
}

/// A bare repository of our own.
struct Copy {
    repository: Repository,
    _folder: TempDir,
}

impl Copy {
    fn of_this_repository() -> Result<Copy, Fault> {
        let folder = folder()?;
        let git = Git::find(GitOptions::default())?;
        let source = Source::Local(&this_repository()?);
        let repository =
            import(&git, &source, &folder.path().join("copy.git"), ImportOptions::default())?.repository;
        Ok(Copy { repository, _folder: folder })
    }

    fn empty() -> Result<Copy, Fault> {
        let folder = folder()?;
        let git = Git::find(GitOptions::default())?;
        let repository = Repository::create(&git, &folder.path().join("copy.git"))?;
        Ok(Copy { repository, _folder: folder })
    }

    /// A copy that shares the files that are there by now: git and we put a new file in the place of an old one, and write
    /// into none.
    fn again(&self) -> Result<Copy, Fault> {
        let folder = folder()?;
        let path = folder.path().join("copy.git");
        link_tree(self.repository.path(), &path)?;
        let repository = Repository::open(self.repository.git(), &path)?;
        Ok(Copy { repository, _folder: folder })
    }

    /// The main branch, or in a clone of something else whatever branch it has.
    fn tip(&self) -> Result<CommitId, Fault> {
        let branches = self.repository.refs("refs/heads")?;
        let main = branches.iter().find(|branch| branch.name.as_str() == "refs/heads/main");
        let tip = main.or(branches.first()).ok_or("this repository has no branch")?;
        Ok(CommitId(tip.target.0))
    }

    fn make(&self, specs: &[CandidateSpec]) -> Result<(), Fault> {
        for spec in specs {
            self.repository.make_candidate(spec)?;
        }
        Ok(())
    }

    fn make_by_git(&self, specs: &[CandidateSpec]) -> Result<(), Fault> {
        for spec in specs {
            if let Merged::Clean(tree) = sample::reference(&self.repository, spec)? {
                sample::reference_commit(&self.repository, spec, tree)?;
            }
        }
        Ok(())
    }

    /// How many of a hundred answers are git's own: the same tree, or a conflict in the same paths.
    fn equal_trees(&self, name: &'static str, specs: &[CandidateSpec]) -> Result<Row, Fault> {
        let mut equal = 0;
        for spec in specs {
            let ours = match self.repository.make_candidate(spec)? {
                CandidateOutcome::Made { tree, .. } => Merged::Clean(tree),
                CandidateOutcome::Empty => Merged::Clean(self.repository.commit(spec.parent)?.tree),
                CandidateOutcome::Conflict { paths } => Merged::Conflict(paths),
            };
            let git = sample::reference(&self.repository, spec)?;
            if ours != git {
                eprintln!("  {} and {}: ours {ours:?}, git's {git:?}", spec.parent, spec.revision);
            }
            equal += u32::from(ours == git);
        }
        let value = f64::from(equal) * 100.0 / specs.len() as f64;
        let peer = "git merge-tree, started for each";
        let figure = Figure { name, unit: "% equal", value, peer, peer_value: 100.0 };
        Ok(figure.judged(Goal::RatioAtLeast(1.0)))
    }
}

fn link_tree(from: &Path, to: &Path) -> Result<(), Fault> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => link_tree(&entry.path(), &target)?,
            false => fs::hard_link(entry.path(), target)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_made_is_there_before() {
        let copy = Copy::empty().unwrap();
        let specs = sample::hard_pairs(&copy.repository, 8, SEED).unwrap();
        let made = RefCell::new(Vec::new());
        let make = |copy: &Copy, specs: &[CandidateSpec]| {
            assert_eq!(copy.repository.refs("refs/towpath/candidates")?.len(), made.borrow().len());
            for spec in specs {
                if let CandidateOutcome::Made { commit, .. } = copy.repository.make_candidate(spec)? {
                    assert!(copy.repository.has_commit(commit)?);
                    made.borrow_mut().push(commit);
                }
            }
            Ok(())
        };
        let count = |_| {
            made.borrow_mut().clear();
            each_alone(&copy.again().unwrap(), &specs, make).unwrap();
            made.borrow().len()
        };
        let counts: Vec<usize> = (0..2).map(count).collect();
        assert!(counts[0] > 1 && counts[0] == counts[1], "{counts:?}");
        assert!(!made.borrow().iter().any(|commit| copy.repository.has_commit(*commit).unwrap()));
    }
}
