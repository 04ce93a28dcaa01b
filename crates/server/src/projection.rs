//! Lists that pages and the API read, written in the transaction of the turn that makes them true.

use std::collections::BTreeSet;

use towpath_core::act::Act;
use towpath_core::graph::Outcome;
use towpath_core::ids::{ChangeNumber, EnvironmentId, GateId, RunId, Timestamp};
use towpath_core::turn::WriteSet;
use towpath_store::records::{Deployment, RunRow};
use towpath_store::{Tx, View, WriteError};

/// One line of a list that a turn adds or changes.
pub enum Line {
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
    /// A change landed.
    Landed {
        /// Where.
        gate: GateId,
        /// Which.
        change: ChangeNumber,
        /// When.
        at: Timestamp,
        /// The runs that it rests on.
        runs: BTreeSet<RunId>,
    },
    /// A deployment began.
    Deploying(Box<Deployment>),
    /// A deployment ended.
    Deployed {
        /// Where to.
        environment: EnvironmentId,
        /// Its number there.
        number: u64,
        /// How.
        outcome: Outcome,
        /// What there is to say of it.
        why: String,
        /// When.
        at: Timestamp,
    },
}

/// What a turn means for the lists.
pub fn of_turn(write: &WriteSet) -> Vec<Line> {
    write.acts.iter().filter_map(|act| of_act(act, write.now)).collect()
}

fn of_act(act: &Act, now: Timestamp) -> Option<Line> {
    match act {
        Act::RunStarted { run, trigger, change, commit, reason } => Some(Line::Started(Box::new(RunRow {
            run: run.clone(),
            trigger: *trigger,
            change: change.map(|(number, _)| number),
            commit: *commit,
            reason: reason.clone(),
            outcome: None,
            unsandboxed: false,
            started_at: now,
            ended_at: None,
        }))),
        Act::RunEnded { run, outcome, unsandboxed, .. } => {
            Some(Line::Ended { run: run.clone(), outcome: *outcome, at: now, unsandboxed: *unsandboxed })
        }
        Act::Landed(act) => Some(Line::Landed {
            gate: act.gate.clone(),
            change: act.change,
            at: act.at,
            runs: act.runs.clone(),
        }),
        Act::DeploymentStarted { environment, number, run, job, commit, by, reason } => {
            Some(Line::Deploying(Box::new(Deployment {
                repo: environment.repo.clone(),
                environment: environment.name.clone(),
                number: *number,
                commit: *commit,
                run: Some(run.clone()),
                job: Some(job.clone()),
                actor: by.as_ref().map(|by| by.user),
                outcome: None,
                why: reason.clone(),
                started_at: now,
                ended_at: None,
            })))
        }
        Act::DeploymentEnded { environment, number, outcome, why } => Some(Line::Deployed {
            environment: environment.clone(),
            number: *number,
            outcome: *outcome,
            why: why.clone(),
            at: now,
        }),
        _ => None,
    }
}

impl Line {
    /// Writes it. A list that lacks a line harms nobody, a turn that is refused for it would: whatever a list itself is
    /// wrong about is only logged.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, tx: &mut Tx<'_>) -> Result<(), WriteError> {
        match self.put(tx) {
            Err(why) if !why.is_of_the_disk() => {
                tracing::error!(error = %why, "a line of a list was not written: {why}");
                Ok(())
            }
            written => written,
        }
    }

    fn put(&self, tx: &mut Tx<'_>) -> Result<(), WriteError> {
        match self {
            Line::Started(row) => tx.put_run(row),
            Line::Ended { run, outcome, at, unsandboxed } => {
                let missing = || WriteError::Missing { what: format!("run {run}") };
                let row = View::run(tx, run)?.ok_or_else(missing)?;
                tx.put_run(&RunRow {
                    outcome: Some(*outcome),
                    ended_at: Some(*at),
                    unsandboxed: *unsandboxed,
                    ..row
                })
            }
            Line::Landed { gate, change, at, runs } => {
                tx.put_landing(gate, *change, *at)?;
                runs.iter().try_for_each(|run| tx.put_proof(run))
            }
            Line::Deploying(row) => tx.put_deployment(row),
            Line::Deployed { environment, number, outcome, why, at } => {
                let missing =
                    || WriteError::Missing { what: format!("deployment {number} to {environment}") };
                let row = tx.deployment(environment, *number)?.ok_or_else(missing)?;
                let why = if why.is_empty() { row.why.clone() } else { format!("{}: {why}", row.why) };
                tx.put_deployment(&Deployment { outcome: Some(*outcome), ended_at: Some(*at), why, ..row })
            }
        }
    }
}
