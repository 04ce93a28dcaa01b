//! The environment that is this server itself, if an admin of the server said so. There is at most one: two would take
//! turns in replacing each other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use towpath_core::cell::{CellId, Refusal, RefusalClass};
use towpath_core::environment::{EnvironmentConfig, EnvironmentEvent};
use towpath_core::ids::EnvironmentId;
use towpath_core::policy::Actor;
use towpath_core::turn::Intake;
use towpath_store::{ReadError, Tx, View, WriteError};

use crate::engine::{AnyIntake, Holding};

/// The setting's name.
const SETTING: &str = "self-environment";

#[derive(Debug, Serialize, Deserialize)]
struct Marked {
    environment: Option<EnvironmentId>,
}

/// Which environment is this server.
///
/// # Errors
/// It cannot be read.
pub fn marked(view: &View) -> Result<Option<EnvironmentId>, ReadError> {
    let Some(text) = view.setting(SETTING)? else { return Ok(None) };
    let read = serde_json::from_str::<Marked>(&text);
    read.map(|marked| marked.environment)
        .map_err(|why| ReadError::Damaged { why: format!("setting `{SETTING}`: {why}") })
}

/// Says that an environment is this server, or no longer; returns what was done, for the record.
///
/// # Errors
/// Another one is, or this one is not; else those of the disk.
pub fn mark(
    tx: &mut Tx<'_>,
    environment: &EnvironmentId,
    is_self: bool,
    by: &Actor,
) -> Result<String, WriteError> {
    let refuse = |why: String| Err(WriteError::Refused(Refusal::new(RefusalClass::Conflict, why)));
    match (marked(tx)?, is_self) {
        (Some(other), true) if other != *environment => {
            return refuse(format!(
                "`{other}` is this server already; `towpath deploy self {} --off` ends that",
                other.name
            ));
        }
        (Some(_), true) => return refuse(format!("`{environment}` is this server already")),
        (found, false) if found.as_ref() != Some(environment) => {
            return refuse(format!("`{environment}` is not this server"));
        }
        _ => {}
    }
    let marked = Marked { environment: is_self.then(|| environment.clone()) };
    let text = serde_json::to_string(&marked).expect("invariant: names are JSON");
    tx.put_setting(SETTING, &text)?;
    let now = if is_self { "is" } else { "is no longer" };
    Ok(format!("environment {environment} {now} this server itself, says {}", by.name))
}

/// What the cell of an environment that is this server is told at a start, when it is told.
pub fn holding(environment: EnvironmentId) -> (CellId, Holding) {
    let cell = CellId::Environment(environment.clone());
    let read = move |tx: &Tx<'_>| {
        let is_self = marked(tx)?.as_ref() == Some(&environment);
        Ok(Some(told(environment.clone(), is_self).1))
    };
    (cell, Arc::new(read))
}

/// What the environment's cell is told.
pub fn told(environment: EnvironmentId, is_self: bool) -> (CellId, AnyIntake) {
    let event = EnvironmentEvent::Configured(EnvironmentConfig { is_self });
    (CellId::Environment(environment), AnyIntake::Environment(Intake::Event(event)))
}
