//! Acts: what the audit log remembers. Each is one leaf, written in the transaction of the turn that did it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::graph::{Outcome, Trigger};
use crate::ids::{
    CandidateId, ChangeNumber, CommitId, Digest, EnvironmentId, GateId, JobName, RunId, Timestamp, TreeId,
    UserId,
};
use crate::policy::Actor;

/// Something that the record keeps for ever (invariant I8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// A person's command was accepted.
    Command {
        /// Where.
        gate: GateId,
        /// Who.
        by: Actor,
        /// What, in words that name the revision it acted on.
        what: String,
    },
    /// A branch advanced to a tested commit.
    Landed(Box<LandedAct>),
    /// An entry left the queue without landing.
    Ejected {
        /// Where.
        gate: GateId,
        /// Which change.
        change: ChangeNumber,
        /// At which revision.
        revision: CommitId,
        /// Why.
        why: String,
    },
    /// The server stopped a branch by itself.
    Froze {
        /// Where.
        gate: GateId,
        /// Why.
        why: String,
    },
    /// Somebody else moved the branch.
    ForeignPush {
        /// Where.
        gate: GateId,
        /// The tip that Towpath had left there.
        from: Option<CommitId>,
        /// The tip that was found.
        to: CommitId,
    },
    /// A run began.
    RunStarted {
        /// Which.
        run: RunId,
        /// What started it.
        trigger: Trigger,
        /// For which change, at which revision.
        change: Option<(ChangeNumber, CommitId)>,
        /// On which commit.
        commit: CommitId,
        /// Why: `initial run`, `new revision`, `retry by ann`.
        reason: String,
    },
    /// A run ended.
    RunEnded {
        /// Which.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// Digest over the jobs' names, outcomes, logs and outputs.
        results: Digest,
        /// A job of it ran without a sandbox.
        unsandboxed: bool,
    },
    /// A deployment began.
    DeploymentStarted {
        /// To where.
        environment: EnvironmentId,
        /// Its number there.
        number: u64,
        /// By which run.
        run: RunId,
        /// By which job of it.
        job: JobName,
        /// Of which landed commit.
        commit: CommitId,
        /// Who asked for it; a landing is nobody's.
        by: Option<Actor>,
        /// Why: `landing of …`, `asked for by ann`.
        reason: String,
    },
    /// A deployment ended.
    DeploymentEnded {
        /// To where.
        environment: EnvironmentId,
        /// Its number there.
        number: u64,
        /// How.
        outcome: Outcome,
        /// One sentence; empty when there is nothing to add.
        why: String,
    },
    /// Something outside the cells: rights, tokens, secrets, settings, a restore.
    Administered {
        /// Who; the server itself has no actor.
        by: Option<Actor>,
        /// What, without any secret value.
        what: String,
    },
}

/// The proof that goes with a landing (trust T9).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LandedAct {
    /// Where.
    pub gate: GateId,
    /// Which change.
    pub change: ChangeNumber,
    /// At which revision.
    pub revision: CommitId,
    /// The candidate.
    pub candidate: CandidateId,
    /// The tip before.
    pub parent: CommitId,
    /// The tip now.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// The definition under which it was judged.
    pub definition: Digest,
    /// Required job to the digest of its passed result.
    pub results: BTreeMap<String, Digest>,
    /// The runs in which these results are found: those that reported them, and those from which they were carried.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub runs: BTreeSet<RunId>,
    /// Who approved this revision.
    pub approvals: Vec<UserId>,
    /// When it was confirmed.
    pub at: Timestamp,
}
