//! Cells: the units of state, inbox, epoch and turn. A cell is `apply` (record a fact), `time_passed` (record
//! what the clock alone brings about) and `plan` (say what the world is owed); there is no other way in or out.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::effect::{Effect, Plan};
use crate::ids::{EnvironmentId, GateId, IdError, RunId, Timestamp};
use crate::message::{Message, Misdirected};

mod rows;

pub use rows::{Field, Row, RowError, Rows, Table};

/// Addresses a cell.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CellId {
    /// One queue with its branch, changes and entries.
    Gate(GateId),
    /// One job graph in execution.
    Run(RunId),
    /// Capacity over all runs.
    Pool,
    /// A place to which a repo deploys.
    Environment(EnvironmentId),
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CellId::Gate(gate) => write!(f, "gate:{gate}"),
            CellId::Run(run) => write!(f, "run:{run}"),
            CellId::Pool => f.write_str("pool"),
            CellId::Environment(environment) => write!(f, "environment:{environment}"),
        }
    }
}

impl FromStr for CellId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once(':') {
            Some(("gate", gate)) => gate.parse().map(CellId::Gate),
            Some(("run", run)) => run.parse().map(CellId::Run),
            Some(("environment", environment)) => environment.parse().map(CellId::Environment),
            _ if text == "pool" => Ok(CellId::Pool),
            _ => Err(IdError::new("cell", text, "it is `gate:…`, `run:…`, `environment:…` or `pool`")),
        }
    }
}

impl Serialize for CellId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CellId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::ids::parse_visitor(deserializer)
    }
}

/// A kind of cell.
pub trait Cell {
    /// What it knows, kept as rows.
    type State: CellState;
    /// What can happen to it, messages of other cells included.
    type Event: Serialize + DeserializeOwned + Clone + fmt::Debug + TryFrom<Message, Error = Misdirected>;

    /// Records one fact. `now` is the event's time at intake. Stale facts are ignored.
    fn apply(state: &mut Self::State, event: &Self::Event, now: Timestamp);

    /// Records what time alone has brought about, once a turn and after its facts: a cell that wakes has none.
    fn time_passed(state: &mut Self::State, now: Timestamp) {
        let _ = (state, now);
    }

    /// Everything the cell owes the world now. Asking twice gives the same answer.
    fn plan(state: &Self::State, now: Timestamp) -> Plan;
}

/// State that is kept as rows and reports what one turn changed.
pub trait CellState: Sized {
    /// The state of a cell that has no rows yet.
    fn new(id: &CellId) -> Self;

    /// Hands out every row changed since the last call; a row without a value was removed.
    fn take_rows(&mut self) -> Vec<Row>;

    /// Puts one stored row back.
    ///
    /// # Errors
    /// The row cannot be read: damage, or a row of a newer version.
    fn put_row(&mut self, row: &Row) -> Result<(), RowError>;

    /// Called once after the last [`CellState::put_row`], to derive what is not stored.
    fn loaded(&mut self) {}

    /// Told of each effect that a driver gets by this turn: only from now on does its answer come.
    fn handed_out(&mut self, effect: &Effect, now: Timestamp) {
        let _ = (effect, now);
    }

    /// Told of each effect that a driver has carried out, before its result is applied.
    fn carried_out(&mut self, effect: &Effect) {
        let _ = effect;
    }

    /// What the facts since the last call are to be remembered and answered with.
    fn take_notes(&mut self) -> Notes;

    /// Whether the cell has nothing left to do, ever: its rows stay for reading, its memory can go.
    fn is_finished(&self) -> bool {
        false
    }
}

/// What applying facts leaves behind beside the state itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notes {
    /// Each becomes one leaf of the audit log, in the same transaction.
    pub acts: Vec<Act>,
    /// What other cells asked for, put into their inboxes in the same transaction. What a cell owes on its own is an effect.
    pub messages: Vec<(CellId, Message)>,
    /// Answers to commands, given out after the commit. Not stored: a person whose connection broke asks again.
    pub answers: Vec<Answer>,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The command's id, as chosen at intake.
    pub command: u64,
    /// Done, with a sentence; or refused, with the reason.
    pub result: Result<String, Refusal>,
}

/// Why a command was not carried out. A refusal is data, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The class, which decides the exit code and HTTP code.
    pub class: RefusalClass,
    /// Why, and what to do next.
    pub why: String,
}

/// Classes of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalClass {
    /// The words are wrong.
    Invalid,
    /// There is no such thing, or it may not be seen.
    NotFound,
    /// The person has no right to it.
    Denied,
    /// The thing has moved on since the person looked.
    Conflict,
    /// What it takes to answer is being read: who waits for that and asks again is answered.
    NotYet,
    /// The person did as much as one may for now.
    Limited,
}

impl Refusal {
    /// A refusal of one class.
    pub fn new(class: RefusalClass, why: impl Into<String>) -> Refusal {
        Refusal { class, why: why.into() }
    }
}
