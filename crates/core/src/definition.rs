//! What a definition says about the gate itself. It counts only on the target, never on the change that edits it.

use serde::{Deserialize, Serialize};

use crate::candidate::Strategy;

/// The settings under `gate:`, as the target's definition has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateSettings {
    /// How a change's commits come onto the branch.
    pub strategy: Strategy,
    /// Approvals that a revision needs, never of somebody who uploaded any of it. Absent: the server's default holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u32>,
    /// What a passed result must have been about.
    pub proof: Proof,
    /// What an empty or wholly skipped set of required jobs means.
    pub empty: EmptySet,
}

/// How close a passed result must be to the commit that lands (I2). A job with `history: true` always counts at
/// [`Proof::Commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It is about this very commit.
    Commit,
    /// It is about a commit with this very tree.
    #[default]
    Tree,
}

/// What the gate makes of a candidate for which no required job ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptySet {
    /// Nothing was tested, so nothing lands.
    #[default]
    Refuse,
    /// It lands: `gate: { empty: land }`.
    Land,
}
