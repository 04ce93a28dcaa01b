//! Data that were restored from a backup: what that lost, and the word of the person who accepts it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_store::audit::Restored;

use super::{Nothing, Said};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};

/// Whether the data are from a backup that nobody has accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RestoreView {
    /// What was lost; absent: nothing waits to be accepted.
    pub restored: Option<LostView>,
}

/// What a restore lost.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LostView {
    /// How it was noticed.
    pub why: String,
    /// Leaves of the record that there had been.
    pub leaves_before: u64,
    /// How many of them are lost.
    pub leaves_lost: u64,
    /// How many of the others, the last ones, no checkpoint covered: nothing tells who wrote them.
    pub leaves_unsealed: u64,
}

impl From<Restored> for LostView {
    fn from(restored: Restored) -> LostView {
        let Restored { why, leaves_before, leaves_lost, leaves_unsealed, .. } = restored;
        LostView { why, leaves_before, leaves_lost, leaves_unsealed }
    }
}

/// `GET /api/v1/restore`
pub async fn show(call: Call, _: Nothing) -> Answer<RestoreView> {
    call.read(|view| Ok(RestoreView { restored: view.restored()?.map(LostView::from) })).await
}

/// What is accepted.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The number of lost leaves, as it was seen.
    pub leaves_lost: u64,
}

/// `POST /api/v1/restore/accept`
pub async fn accept(call: Call, input: Accept) -> Answer<Said> {
    let by = call.actor()?;
    if show(call.clone(), Nothing {}).await?.restored.is_none() {
        return Err(ApiError::new(
            Class::Conflict,
            "the data are not restored ones, or somebody has accepted them already",
        ));
    }
    let accepted = call.shared().accept_restore(by, input.leaves_lost).await?;
    Ok(Said::new(format!("accepted, landing goes on: {accepted}")))
}
