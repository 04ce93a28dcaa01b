//! What cells tell each other. A message is put into the receiver's inbox in the sender's transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::environment::EnvironmentEvent;
use crate::gate::{Arrival, Departure, GateEvent};
use crate::graph::{JobGraph, JobIndex, JobResult, Outcome, Trigger};
use crate::ids::{ChangeNumber, CommitId, Digest, JobName, RunId, TreeId};
use crate::policy::{Actor, Level};
use crate::pool::PoolEvent;
use crate::run::RunEvent;

/// A message, by receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Gate to run: begin.
    Start(Arc<RunStart>),
    /// Gate to run: the result no longer matters.
    Cancel {
        /// Why, for people.
        why: String,
    },
    /// Run to pool: how many slots the run has asked for and given back since it began.
    Demand(Demand),
    /// Pool to run: how many slots it was granted since it began.
    Granted {
        /// Only ever grows.
        total: u64,
    },
    /// Run to gate: it is over.
    RunEnded(Arc<RunReport>),
    /// Gate to gate: a change has gone there from here, so tell what holds it.
    Left(Departure),
    /// The answer.
    Arrives(Arrival),
    /// Run to environment: a job is ready to deploy there.
    Claim(Box<Claim>),
    /// Run to environment: a job that claimed it is over.
    Release(Release),
    /// Environment to run: it is the job's turn.
    Admitted(Admission),
}

impl Message {
    /// Whether its receiver may come into being by it.
    pub fn opens(&self) -> bool {
        matches!(self, Message::Start(_))
    }
}

/// A job that is ready to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The run.
    pub run: RunId,
    /// The job in its graph.
    pub job: JobIndex,
    /// The job's name.
    pub name: JobName,
    /// What is deployed.
    pub commit: CommitId,
    /// How far it is trusted.
    pub level: Level,
    /// Who asked for it; a landing is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Why, for people.
    pub reason: String,
}

/// The end of a job that had claimed an environment, whether it ever had its turn or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The run.
    pub run: RunId,
    /// The job in its graph.
    pub job: JobIndex,
    /// How it ended.
    pub outcome: Outcome,
    /// One sentence about that.
    pub why: String,
    /// Manifest of the output [`PROGRAM_OUTPUT`], if the job left one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
}

/// The turn of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The job.
    pub job: JobIndex,
    /// The deployment's number in its environment, from 1.
    pub number: u64,
    /// What the last deployment that passed had put there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<CommitId>,
}

/// The output of which the server takes its own program, in an environment that is the server itself.
pub const PROGRAM_OUTPUT: &str = "towpath";

/// What a run is made of. The graph is final: a run never grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    /// Which run.
    pub run: RunId,
    /// What started it.
    pub trigger: Trigger,
    /// For which change, at which revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<(ChangeNumber, CommitId)>,
    /// Why, for people.
    pub reason: String,
    /// Who asked for it, if it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// The commit under test.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// Trust of everything in it.
    pub level: Level,
    /// The jobs, already selected for the trigger.
    pub graph: JobGraph,
    /// Passed results of an earlier run on this very commit, which need not be made again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<JobIndex, Carried>,
    /// Larger goes first.
    pub priority: u8,
    /// End at the first required job that has finally failed: its run can no longer pass.
    pub fail_fast: bool,
    /// It was owed when the data were saved: in the life that was lost it may have deployed already.
    #[serde(default)]
    pub restored: bool,
    /// Plain facts for the jobs' environment, as `TOWPATH_<KEY>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// The fact that numbers the change.
pub const CHANGE_FACT: &str = "CHANGE";

/// Identifies the facts that jobs are told, as far as their results are about them: all but the change's number, which its
/// author does not choose. Changes with the same content and title have their results in common.
pub fn told(facts: &BTreeMap<String, String>) -> Digest {
    let told = facts.iter().filter(|(key, _)| key.as_str() != CHANGE_FACT);
    let fields: Vec<&[u8]> = told.flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]).collect();
    Digest::of_fields(fields)
}

/// A result taken over from an earlier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// The run that made it.
    pub run: RunId,
    /// What it left.
    pub result: Arc<JobResult>,
}

/// Cumulative counters, so that a repeated or reordered message changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// The run.
    pub run: RunId,
    /// Larger goes first.
    pub priority: u8,
    /// Slots asked for so far; asking less than before withdraws what was not granted.
    pub asked: u64,
    /// Granted slots given back so far.
    pub returned: u64,
}

/// The end of a run, job by job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Which run.
    pub run: RunId,
    /// How it ended as a whole.
    pub outcome: Outcome,
    /// Every job that counts for a verdict or may be carried into another run.
    pub jobs: Vec<JobReport>,
}

/// The end of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// Its place in the run's graph.
    pub job: JobIndex,
    /// Its name.
    pub name: String,
    /// Its identity in the run's graph, as [`JobGraph::digests`](crate::graph::JobGraph::digests) has it.
    pub digest: Digest,
    /// What it left; taken from `run` when that is set.
    pub result: Arc<JobResult>,
    /// The earlier run that it was carried from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<RunId>,
}

/// A message in the inbox of a kind of cell that has no use for it: a bug of the sender.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a {receiver} does not take this message: {message:?}")]
pub struct Misdirected {
    /// The kind of cell that got it.
    pub receiver: &'static str,
    /// What it got.
    pub message: Message,
}

impl TryFrom<Message> for GateEvent {
    type Error = Misdirected;
    fn try_from(message: Message) -> Result<Self, Misdirected> {
        match message {
            Message::RunEnded(report) => Ok(GateEvent::RunEnded(report)),
            Message::Left(departure) => Ok(GateEvent::Left(departure)),
            Message::Arrives(arrival) => Ok(GateEvent::Arrives(arrival)),
            message => Err(Misdirected { receiver: "gate", message }),
        }
    }
}

impl TryFrom<Message> for RunEvent {
    type Error = Misdirected;
    fn try_from(message: Message) -> Result<Self, Misdirected> {
        match message {
            Message::Start(start) => Ok(RunEvent::Start(start)),
            Message::Cancel { why } => Ok(RunEvent::Cancel { why }),
            Message::Granted { total } => Ok(RunEvent::Granted { total }),
            Message::Admitted(admission) => Ok(RunEvent::Admitted(admission)),
            message => Err(Misdirected { receiver: "run", message }),
        }
    }
}

impl TryFrom<Message> for PoolEvent {
    type Error = Misdirected;
    fn try_from(message: Message) -> Result<Self, Misdirected> {
        match message {
            Message::Demand(demand) => Ok(PoolEvent::Demand(demand)),
            message => Err(Misdirected { receiver: "pool", message }),
        }
    }
}

impl TryFrom<Message> for EnvironmentEvent {
    type Error = Misdirected;
    fn try_from(message: Message) -> Result<Self, Misdirected> {
        match message {
            Message::Claim(claim) => Ok(EnvironmentEvent::Claim(claim)),
            Message::Release(release) => Ok(EnvironmentEvent::Release(release)),
            message => Err(Misdirected { receiver: "environment", message }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Hold;
    use crate::ids::Timestamp;

    /// Stores keep a message as it is and read it back as its receiver's event.
    fn check<E>(message: Message)
    where
        E: TryFrom<Message, Error = Misdirected> + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let stored = serde_json::to_string(&message).unwrap();
        assert_eq!(E::try_from(message).unwrap(), serde_json::from_str::<E>(&stored).unwrap());
    }

    #[test]
    fn a_message_has_the_json_of_the_event_that_it_becomes() {
        let run: RunId = "demo/main/1".parse().unwrap();
        let report = RunReport { run: run.clone(), outcome: Outcome::Passed, jobs: vec![] };
        check::<GateEvent>(Message::RunEnded(Arc::new(report)));
        let (change, at) = (ChangeNumber(7), Timestamp(5));
        check::<GateEvent>(Message::Left(Departure { change, to: "release".parse().unwrap(), at }));
        let hold = Some(Hold { by: "ann".into(), why: "wait".into(), at });
        check::<GateEvent>(Message::Arrives(Arrival { change, hold, at }));
        check::<RunEvent>(Message::Cancel { why: "superseded".into() });
        check::<RunEvent>(Message::Granted { total: 3 });
        check::<PoolEvent>(Message::Demand(Demand { run: run.clone(), priority: 1, asked: 2, returned: 1 }));
        let (job, outcome) = (JobIndex(1), Outcome::Passed);
        check::<RunEvent>(Message::Admitted(Admission { job, number: 3, before: None }));
        let release = Release { run: run.clone(), job, outcome, why: String::new(), program: None };
        check::<EnvironmentEvent>(Message::Release(release));
        check::<EnvironmentEvent>(Message::Claim(Box::new(Claim {
            run,
            job,
            name: "deploy".parse().unwrap(),
            commit: CommitId([1; 20]),
            level: Level::Landed,
            by: None,
            reason: "landing of 0101".into(),
        })));
    }

    #[test]
    fn a_message_for_another_kind_of_cell_is_refused() {
        let refused = PoolEvent::try_from(Message::Granted { total: 3 }).unwrap_err();
        assert_eq!(refused.to_string(), "a pool does not take this message: Granted { total: 3 }");
    }
}
