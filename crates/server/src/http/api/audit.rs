//! The audit log, for verifiers: leaves as they are hashed, the signed checkpoint, and proofs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::ids::Digest;

use super::Nothing;
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};

/// Leaves of one page.
const LEAVES_MAX: usize = 1_000;

/// Which leaves.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first one, from 0.
    #[serde(default)]
    pub from: u64,
    /// How many, 1,000 at most.
    #[serde(default)]
    pub count: Option<usize>,
}

/// A part of the log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Leaves {
    /// How many leaves the log has.
    pub size: u64,
    /// The number of the first one here.
    pub first: u64,
    /// The leaves: JSON as text, because its very bytes are hashed.
    pub leaves: Vec<String>,
}

/// `GET /api/v1/audit/leaves`
pub async fn leaves(call: Call, input: Range) -> Answer<Leaves> {
    call.read(move |view| {
        let count = input.count.unwrap_or(LEAVES_MAX).min(LEAVES_MAX);
        Ok(Leaves { size: view.leaf_count()?, first: input.from, leaves: view.leaves(input.from, count)? })
    })
    .await
}

/// The newest signed checkpoint that is outside the data folder.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoint {
    /// The signed note; absent: there is none yet.
    pub checkpoint: Option<String>,
}

/// `GET /api/v1/audit/checkpoint`
pub async fn checkpoint(call: Call, _: Nothing) -> Answer<Checkpoint> {
    let witnessed = call.shared().store.writer().witnessed();
    Ok(Checkpoint { checkpoint: witnessed.map(|note| note.to_string()) })
}

/// Hashes that lead from a part to a root.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// In hex, in the order of RFC 6962.
    pub hashes: Vec<String>,
}

impl From<Vec<Digest>> for Proof {
    fn from(hashes: Vec<Digest>) -> Proof {
        Proof { hashes: hashes.iter().map(ToString::to_string).collect() }
    }
}

/// Which leaf in which tree.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// The leaf, from 0.
    pub leaf: u64,
    /// Leaves of the tree.
    pub size: u64,
}

/// `GET /api/v1/audit/inclusion`
pub async fn inclusion(call: Call, input: Inclusion) -> Answer<Proof> {
    call.read(move |view| {
        let size = view.leaf_count()?;
        match input.leaf < input.size && input.size <= size {
            true => Ok(view.inclusion_proof(input.leaf, input.size)?.into()),
            false => Err(ApiError::not_found(format!("the log has {size} leaves"))),
        }
    })
    .await
}

/// Which trees.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    /// Leaves of the older one.
    pub old: u64,
    /// Leaves of the newer one.
    pub new: u64,
}

/// `GET /api/v1/audit/consistency`
pub async fn consistency(call: Call, input: Consistency) -> Answer<Proof> {
    call.read(move |view| {
        let size = view.leaf_count()?;
        match 0 < input.old && input.old <= input.new && input.new <= size {
            true => Ok(view.consistency_proof(input.old, input.new)?.into()),
            false => Err(ApiError::not_found(format!("the log has {size} leaves"))),
        }
    })
    .await
}
