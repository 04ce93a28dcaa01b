//! Git in small: a tree is a fixed list of files, a file is a number. Ids follow from content, merges have three sides.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use towpath_core::candidate::{Candidate, CandidateResult, CandidateSpec, Strategy};
use towpath_core::ids::{CommitId, Digest, TreeId};

use super::definition;

/// Files of a tree; the first is the definition.
pub const PATHS: usize = 10;
/// The definition's place.
pub const DEFINITION: usize = 0;

/// A tree.
pub type Files = [u32; PATHS];

/// A commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its parents, the branch first.
    pub parents: Vec<CommitId>,
    /// Its tree.
    pub files: Files,
    /// Its committer time.
    pub time: i64,
    /// Longest way to a root: an ancestor's is always smaller.
    pub generation: u32,
}

/// Every commit that was ever made.
#[derive(Debug, Default)]
pub struct Git {
    commits: HashMap<CommitId, Commit>,
    /// The description that each candidate commit was made from.
    pub made_from: BTreeMap<CommitId, CandidateSpec>,
    /// Candidates that were not synced when the power went.
    pub lost: BTreeSet<CommitId>,
}

/// A tree's id.
pub fn tree_id(files: &Files) -> TreeId {
    let bytes: Vec<u8> = files.iter().flat_map(|file| file.to_be_bytes()).collect();
    TreeId(Digest::of(&bytes).prefix())
}

/// Files that differ.
pub fn changed_paths(from: &Files, to: &Files) -> Vec<usize> {
    (0..PATHS).filter(|path| from[*path] != to[*path]).collect()
}

impl Git {
    /// A commit by its id.
    pub fn get(&self, id: CommitId) -> &Commit {
        self.commits.get(&id).expect("invariant: nobody names a commit that was never made")
    }

    /// Makes a commit.
    pub fn commit(&mut self, parents: &[CommitId], files: Files, (message, time): (&str, i64)) -> CommitId {
        let tree = tree_id(&files);
        let time_bytes = time.to_be_bytes();
        let fields = parents.iter().map(|parent| &parent.0[..]);
        let id = CommitId(
            Digest::of_fields(fields.chain([&tree.0[..], message.as_bytes(), &time_bytes])).prefix(),
        );
        let generation = parents.iter().map(|parent| self.get(*parent).generation + 1).max().unwrap_or(0);
        self.commits.insert(id, Commit { parents: parents.to_vec(), files, time, generation });
        id
    }

    /// A commit and everything before it.
    pub fn history(&self, of: CommitId) -> BTreeSet<CommitId> {
        let mut seen = BTreeSet::from([of]);
        let mut open = vec![of];
        while let Some(commit) = open.pop() {
            open.extend(self.get(commit).parents.iter().filter(|parent| seen.insert(**parent)));
        }
        seen
    }

    /// Whether `of` contains `ancestor`.
    pub fn contains(&self, of: CommitId, ancestor: CommitId) -> bool {
        let floor = self.get(ancestor).generation;
        let mut seen = BTreeSet::new();
        let mut open = vec![of];
        while let Some(commit) = open.pop() {
            if commit == ancestor {
                return true;
            }
            let parents = self.get(commit).parents.iter();
            open.extend(
                parents.filter(|parent| self.get(**parent).generation >= floor && seen.insert(**parent)),
            );
        }
        false
    }

    /// The newest commit that both contain.
    fn merge_base(&self, ours: CommitId, theirs: CommitId) -> Option<CommitId> {
        let ours = self.history(ours);
        let both = self.history(theirs).into_iter().filter(|commit| ours.contains(commit));
        both.max_by_key(|commit| (self.get(*commit).generation, *commit))
    }

    /// Three-way merge of trees, file by file.
    fn merge(&self, base: &Files, ours: &Files, theirs: &Files) -> Result<Files, Vec<usize>> {
        let conflicts = |path: &usize| {
            let (base, ours, theirs) = (base[*path], ours[*path], theirs[*path]);
            ours != base && theirs != base && ours != theirs
        };
        let clashes: Vec<usize> = (0..PATHS).filter(conflicts).collect();
        match clashes.is_empty() {
            true => {
                Ok(std::array::from_fn(
                    |path| {
                        if theirs[path] == base[path] { ours[path] } else { theirs[path] }
                    },
                ))
            }
            false => Err(clashes),
        }
    }

    /// Makes a candidate; the same description makes the same commit.
    pub fn candidate(&mut self, spec: &CandidateSpec) -> CandidateResult {
        if self.contains(spec.parent, spec.revision) {
            return CandidateResult::Empty;
        }
        let made = match spec.strategy {
            Strategy::Merge => self.join(spec, &[spec.parent, spec.revision]),
            Strategy::Squash => self.join(spec, &[spec.parent]),
            Strategy::Rebase => self.rebase(spec),
        };
        match made {
            Err(paths) => CandidateResult::Conflict {
                paths: paths.into_iter().map(|path| format!("file{path}")).collect(),
            },
            Ok(commit) if self.get(commit).files == self.get(spec.parent).files => CandidateResult::Empty,
            Ok(commit) => self.describe(spec, commit),
        }
    }

    fn join(&mut self, spec: &CandidateSpec, parents: &[CommitId]) -> Result<CommitId, Vec<usize>> {
        let base =
            self.merge_base(spec.parent, spec.revision).map_or([0; PATHS], |base| self.get(base).files);
        let files = self.merge(&base, &self.get(spec.parent).files, &self.get(spec.revision).files)?;
        Ok(self.commit(parents, files, (&spec.message, spec.time.0)))
    }

    /// Each commit of the change again, on top of the parent; merges among them are left out.
    fn rebase(&mut self, spec: &CandidateSpec) -> Result<CommitId, Vec<usize>> {
        let known = self.history(spec.parent);
        let new = self.history(spec.revision).into_iter().filter(|commit| !known.contains(commit));
        let mut new: Vec<CommitId> = new.filter(|commit| self.get(*commit).parents.len() == 1).collect();
        new.sort_by_key(|commit| (self.get(*commit).generation, *commit));
        let mut tip = spec.parent;
        for commit in new {
            let base = self.get(self.get(commit).parents[0]).files;
            let files = self.merge(&base, &self.get(tip).files, &self.get(commit).files)?;
            let message = format!("{} {commit}", spec.message);
            tip = self.commit(&[tip], files, (&message, spec.time.0));
        }
        Ok(tip)
    }

    fn describe(&mut self, spec: &CandidateSpec, commit: CommitId) -> CandidateResult {
        self.made_from.insert(commit, spec.clone());
        self.lost.remove(&commit);
        let (target, own) = (self.get(spec.parent).files, self.get(commit).files);
        let changed = changed_paths(&target, &own);
        match definition::candidate_graph(target[DEFINITION], own[DEFINITION], &changed) {
            Err(errors) => {
                CandidateResult::BadDefinition { definition: definition::digest(own[DEFINITION]), errors }
            }
            Ok(graph) => CandidateResult::Made(Candidate {
                commit,
                tree: tree_id(&own),
                changed_paths: changed.len(),
                target_definition: definition::digest(target[DEFINITION]),
                definition: definition::digest(own[DEFINITION]),
                graph,
                requires_nothing: false,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_core::ids::Timestamp;

    fn with(path: usize, value: u32) -> Files {
        let mut files = [0; PATHS];
        files[path] = value;
        files
    }

    fn spec(parent: CommitId, revision: CommitId, strategy: Strategy) -> CandidateSpec {
        CandidateSpec { parent, revision, strategy, message: "m".into(), time: Timestamp(9) }
    }

    #[test]
    fn merges_conflicts_and_empty_ones() {
        let mut git = Git::default();
        let root = git.commit(&[], [0; PATHS], ("root", 0));
        let one = git.commit(&[root], with(1, 5), ("one", 1));
        let two = git.commit(&[root], with(2, 6), ("two", 1));
        let clash = git.commit(&[root], with(1, 7), ("clash", 1));
        for strategy in [Strategy::Merge, Strategy::Squash, Strategy::Rebase] {
            let CandidateResult::Made(made) = git.candidate(&spec(one, two, strategy)) else {
                panic!("{strategy:?} merges")
            };
            assert_eq!(git.get(made.commit).files[1..3], [5, 6]);
            assert!(git.contains(made.commit, one));
            assert_eq!(git.contains(made.commit, two), strategy == Strategy::Merge);
            assert!(matches!(
                git.candidate(&spec(one, clash, strategy)),
                CandidateResult::Conflict { paths } if paths == ["file1"]
            ));
            assert_eq!(git.candidate(&spec(one, root, strategy)), CandidateResult::Empty);
        }
    }
}
