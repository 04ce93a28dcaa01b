//! The JSON API: one file per noun. Wire types live here and are no domain types; they convert at the edge.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::cell::RefusalClass;
use towpath_core::gate::Verb;
use towpath_core::ids::{GateId, Timestamp, is_unprintable};

use super::call::Call;
use super::error::{Answer, ApiError};

pub mod alerts;
pub mod artifacts;
pub mod audit;
pub mod branches;
pub mod change_acts;
pub mod change_views;
pub mod changes;
pub mod checklist;
pub mod environments;
pub mod events;
pub mod health;
pub mod holds;
pub mod jobs;
pub mod logs;
pub mod people;
pub mod repo_settings;
pub mod repos;
pub mod restore;
pub mod retention;
pub mod runs;
pub mod secrets;
pub mod test_results;
pub mod tokens;
pub mod users;

/// Rows of one page of a list when nobody asks for a number.
const PAGE_ROWS_DEFAULT: usize = 50;
/// Rows of one page of a list at most.
const PAGE_ROWS_MAX: usize = 500;
/// Characters of a reason that a person gives.
const WHY_CHARS_MAX: usize = 500;

/// Takes nothing.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A text, or `null`, that has to be there: what is taken away is said to be, never left out.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct TextOrNull(pub Option<String>);

/// What was done, in a sentence.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// The sentence.
    pub said: String,
}

impl Said {
    /// A sentence.
    pub fn new(said: impl Into<String>) -> Said {
        Said { said: said.into() }
    }

    /// The same, and what else is to be said, if anything.
    pub fn with(said: impl Into<String>, more: Option<String>) -> Said {
        let said: Vec<String> = std::iter::once(said.into()).chain(more).collect();
        Said { said: said.join("; ") }
    }
}

/// Why a person does something.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// One sentence, for everybody who will wonder.
    pub why: String,
}

/// A person's reason, fit to be shown everywhere.
///
/// # Errors
/// `Invalid`: it is empty, too long, or drives terminals.
pub fn checked_why(why: &str) -> Answer<String> {
    let why = why.trim();
    match why {
        "" => Err(ApiError::invalid("`why` needs a word at least: others will wonder")),
        _ if why.chars().count() > WHY_CHARS_MAX => {
            Err(ApiError::invalid(format!("`why` has at most {WHY_CHARS_MAX} characters")))
        }
        _ if why.chars().any(is_unprintable) => {
            Err(ApiError::invalid("`why` is one line without control or direction characters"))
        }
        _ => Ok(why.to_owned()),
    }
}

/// How many rows a page gets.
fn page_rows(count: Option<usize>) -> usize {
    count.unwrap_or(PAGE_ROWS_DEFAULT).clamp(1, PAGE_ROWS_MAX)
}

fn millis(at: Timestamp) -> i64 {
    at.0
}

/// One word of an enum, as its stored form names it.
fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    match json {
        serde_json::Value::String(word) => word,
        serde_json::Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

/// Looks at a gate that is there.
async fn gate<T: Send + 'static>(
    call: &Call,
    gate: GateId,
    look: impl FnOnce(&towpath_core::turn::Live<towpath_core::gate::Gate>) -> T + Send + 'static,
) -> Answer<T> {
    let missing = ApiError::not_found(format!("`{}` is no watched branch of `{}`", gate.branch, gate.repo))
        .hint("`towpath branch list` shows those that there are");
    call.shared().engine.gate(gate, look).await.ok_or(missing)
}

/// Gives a command to a gate that is there: a command to one that is not would make it.
async fn command(call: &Call, id: GateId, verb: Verb) -> Answer<Said> {
    gate(call, id.clone(), |_| ()).await?;
    let by = call.actor()?;
    let said = call.shared().engine.command(id, by, verb).await??;
    Ok(Said { said })
}

/// The same for what is to be run of the branch: once what lands has landed and is read, as long as that does not take long.
async fn command_on_landed(call: &Call, id: GateId, verb: Verb) -> Answer<Said> {
    gate(call, id.clone(), |_| ()).await?;
    let mut patience = call.shared().patience(id.clone());
    loop {
        let is_read = patience.landed_is_read().await;
        let (engine, by) = (&call.shared().engine, call.actor()?);
        let answer = engine.command(id.clone(), by, verb.clone()).await?;
        let is_early = answer.as_ref().is_err_and(|refusal| refusal.class == RefusalClass::NotYet);
        if !is_early || !is_read {
            return Ok(Said { said: answer? });
        }
    }
}
