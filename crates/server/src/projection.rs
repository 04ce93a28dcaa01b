//! Lists that pages and the API read, written in the transaction of the turn that makes them true.

use towpath_core::act::Act;
use towpath_core::graph::Outcome;
use towpath_core::ids::{RunId, Timestamp};
use towpath_core::turn::WriteSet;
use towpath_store::records::RunRow;
use towpath_store::{Tx, View, WriteError};

/// One line of the list of runs that a turn begins or ends.
pub enum RunLine {
    /// A run began.
    Started(Box<RunRow>),
    /// A run ended.
    Ended {
        /// Which.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// When.
        at: Timestamp,
        /// A job of it had no sandbox.
        unsandboxed: bool,
    },
}

/// What a turn means for the lists.
pub fn of_turn(write: &WriteSet) -> Vec<RunLine> {
    write.acts.iter().filter_map(|act| of_act(act, write.now)).collect()
}

fn of_act(act: &Act, now: Timestamp) -> Option<RunLine> {
    match act {
        Act::RunStarted { run, trigger, change, commit, reason } => {
            Some(RunLine::Started(Box::new(RunRow {
                run: run.clone(),
                trigger: *trigger,
                change: change.map(|(number, _)| number),
                commit: *commit,
                reason: reason.clone(),
                outcome: None,
                unsandboxed: false,
                started_at: now,
                ended_at: None,
            })))
        }
        Act::RunEnded { run, outcome, unsandboxed, .. } => {
            Some(RunLine::Ended { run: run.clone(), outcome: *outcome, at: now, unsandboxed: *unsandboxed })
        }
        _ => None,
    }
}

impl RunLine {
    /// Writes it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, tx: &mut Tx<'_>) -> Result<(), WriteError> {
        match self {
            RunLine::Started(row) => tx.put_run(row),
            RunLine::Ended { run, outcome, at, unsandboxed } => {
                let Some(row) = View::run(tx, run)? else {
                    // A list that lacks a line harms nobody; a turn that is refused for it would.
                    tracing::error!(%run, "run {run} ended and is not in the list of runs");
                    return Ok(());
                };
                tx.put_run(&RunRow {
                    outcome: Some(*outcome),
                    ended_at: Some(*at),
                    unsandboxed: *unsandboxed,
                    ..row
                })
            }
        }
    }
}
