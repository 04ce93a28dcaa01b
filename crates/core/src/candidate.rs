//! Candidates: base + entries ahead + one entry, as one commit that can be made again from its description alone.

use serde::{Deserialize, Serialize};

use crate::graph::JobGraph;
use crate::ids::{CandidateId, CommitId, Digest, Timestamp, TreeId};

/// How a change's commits come onto the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One merge commit with the parents (branch, revision).
    #[default]
    Merge,
    /// One commit with the merged tree and the branch as its only parent.
    Squash,
    /// Each commit of the change again on top of the branch, author kept.
    Rebase,
}

/// Everything that decides a candidate commit's id. Fixed author and committer are constants of the `git` crate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CandidateSpec {
    /// The branch's tip, or the candidate ahead. "Target" in a queue means this commit.
    pub parent: CommitId,
    /// The change's commit.
    pub revision: CommitId,
    /// How they are joined.
    pub strategy: Strategy,
    /// The landed message; with [`Strategy::Rebase`] the commits keep their own, without [reserved
    /// trailers](is_reserved_trailer).
    pub message: String,
    /// Author and committer time: the later of both commits' committer times.
    pub time: Timestamp,
}

impl CandidateSpec {
    /// The hash of every field: equal descriptions make the same commit.
    pub fn id(&self) -> CandidateId {
        let strategy = match self.strategy {
            Strategy::Merge => "merge",
            Strategy::Squash => "squash",
            Strategy::Rebase => "rebase",
        };
        let time = self.time.0.to_be_bytes();
        let fields: [&[u8]; 5] =
            [&self.parent.0, &self.revision.0, strategy.as_bytes(), self.message.as_bytes(), &time];
        CandidateId(Digest::of_fields(fields).prefix())
    }
}

/// Whether a line of a message is a trailer that only Towpath may write: those that a change brings along are stripped
/// (trust T8). As git reads them, in any case and with space before the colon.
pub fn is_reserved_trailer(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let key = line[..colon].trim_ascii().to_ascii_lowercase();
    key == b"change-number" || key.starts_with(b"towpath-") && !key.contains(&b' ')
}

/// What making a candidate found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateResult {
    /// The commit exists and is held by `refs/towpath/candidates/<id>`.
    Made(Candidate),
    /// The two sides do not merge.
    Conflict {
        /// Paths with unmerged entries, printable, at most [`PATHS_SHOWN_MAX`].
        paths: Vec<String>,
    },
    /// The change is already contained in its parent: there is nothing to land.
    Empty,
    /// Git cannot join the two sides, however often it is tried: they have no common history, say.
    Impossible {
        /// Why.
        why: String,
    },
    /// Git could join the two sides, but not in the time that one change is given.
    TooSlow {
        /// Why.
        why: String,
    },
    /// The definition at the candidate cannot be used; each text has file, line, column, why and hint.
    BadDefinition {
        /// The digest of the unusable definition.
        definition: Digest,
        /// Every error found, at most [`ERRORS_SHOWN_MAX`].
        errors: Vec<String>,
    },
}

/// Conflict paths kept for people.
pub const PATHS_SHOWN_MAX: usize = 100;
/// Definition errors kept for people.
pub const ERRORS_SHOWN_MAX: usize = 100;

/// A candidate commit and what its trees say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The very commit that will land.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// How many paths differ from the parent.
    pub changed_paths: usize,
    /// Digest of the definition on the parent ("target").
    pub target_definition: Digest,
    /// Digest of the definition in the candidate itself; equal to `target_definition` when the change does not touch it.
    pub definition: Digest,
    /// Jobs of every trigger, the target's required ones and the change's own.
    pub graph: JobGraph,
    /// Whether its own definition requires no job, and does not say that none is needed: what comes after it would be tested
    /// by nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_nothing: bool,
}

impl Candidate {
    /// Whether the change edits the definition, which takes a maintainer's approval of the new digest.
    pub fn edits_definition(&self) -> bool {
        self.definition != self.target_definition
    }

    /// The definition that it would land, if the change edits it.
    pub fn edited_definition(&self) -> Option<Digest> {
        self.edits_definition().then_some(self.definition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_takes_for_a_trailer_of_ours_is_reserved() {
        for line in
            ["Change-Number: 5", "change-number : 5", " CHANGE-NUMBER:5", "Towpath-Run: demo/main/1\r"]
        {
            assert!(is_reserved_trailer(line.as_bytes()), "{line}");
        }
        for line in
            ["Change-Id: I5", "Towpath-like things: none", "Towpath-server is fast", "Towpath: fast", ""]
        {
            assert!(!is_reserved_trailer(line.as_bytes()), "{line}");
        }
    }
}
