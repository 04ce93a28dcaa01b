//! P4: candidates. How long one takes, its commit included, and whether its tree is what git would make.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use towpath_core::candidate::CandidateSpec;
use towpath_core::ids::CommitId;
use towpath_git::{
    CandidateOutcome, Git, GitOptions, ImportOptions, Merged, Repository, Source, import, sample,
};

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, seconds};
use crate::world::folder;
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
    let specs = sample::candidates(&copy.repository, copy.tip()?, count)?;
    if specs.is_empty() {
        return Err("the history is too short to take candidates from".into());
    }
    let each = 1e3 / specs.len() as f64;
    let ours = || Ok(each * seconds(|| copy.make(&specs))?);
    let git = || Ok(each * seconds(|| copy.make_by_git(&specs))?);
    let (value, peer_value) = alternate(ours, git)?;
    let peer = "git merge-tree and git commit-tree, started for each";
    let figure = Figure { name: "P4-merge", unit: "ms", value, peer, peer_value };
    let speed = figure.judged(Goal::AtMost(1.8));
    Ok(vec![speed, copy.equal_trees("P4-history-trees", &specs)?])
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

/// The repository in which this program was made.
fn this_repository() -> Result<PathBuf, Fault> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().find(|folder| folder.join(".git").exists());
    Ok(found.ok_or("this program was not made in a clone of the repository")?.to_owned())
}
