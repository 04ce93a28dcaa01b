//! Records of the server and of the built-in forge: one file per noun, each with its row type, its reads on
//! [`crate::View`] and its writes on [`crate::Tx`].
//!
//! The row types are plain data with the core's names and ids; what a record means is for others to say. None of these
//! writes adds an act to the audit log: whoever decides does, in the same unit.

mod alerts;
mod changes;
mod deployments;
mod hooks;
mod jobs;
mod landings;
mod repos;
mod runs;
mod secrets;
mod sessions;
mod settings;
mod tests;
mod tokens;
mod users;

pub use alerts::Alert;
pub use changes::{ChangeQuery, ChangeRow, StoredCheck};
pub use deployments::Deployment;
pub use hooks::HookDelivery;
pub use jobs::{JobRow, JobStage};
pub use repos::{Repo, Right};
pub use runs::{RunCursor, RunQuery, RunRow};
pub use secrets::Secret;
pub use sessions::Session;
pub use tests::{TestOutcome, TestPage, TestRow};
pub use tokens::{Scope, Token};
pub use users::User;

/// Rows that one page of a list has at most.
pub const PAGE_ROWS_MAX: usize = 1000;

/// One word of an enum, as `serde` names it.
fn word_of(value: &impl serde::Serialize) -> String {
    crate::tx::encode(value).trim_matches('"').to_owned()
}

fn text<T: ToString>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}
