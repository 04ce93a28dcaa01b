//! The gate cell: one queue of one watched branch, its changes, candidates and runs.
//!
//! Facts come in by [`GateEvent`]; after each one [`settle`](GateState::settle) makes the decisions that need memory
//! (a run's number, an ejection); [`Cell::plan`] only reads. What may land is one function, [`GateState::reasons`],
//! which is also what people are shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::act::{Act, LandedAct};
use crate::candidate::CandidateResult;
use crate::cell::{Answer, Cell, CellId, CellState, Field, Notes, Refusal, Row, RowError, Rows, Table};
use crate::effect::{Effect, Plan};
use crate::graph::JobGraph;
use crate::ids::{CandidateId, ChangeNumber, CommitId, Digest, GateId, RunId, Timestamp, UserId};
use crate::policy::Rights;

mod alerts;
mod arrival;
mod branch;
mod budget;
mod command;
mod config;
mod facts;
mod flags;
mod halt;
mod landing;
mod level;
mod lost;
mod memo;
mod plan;
mod proof;
mod queue;
mod reason;
mod retry;
mod run_table;
mod runs;
mod settle;

pub use arrival::{Arrival, Came, Departure};
pub use branch::{Branch, Deploy, Freeze};
pub use budget::{Budget, Wait};
pub use command::{Command, Verb};
pub use config::{GateConfig, Labels, Retest};
pub use facts::{
    ForgeChange, ForgeRead, NOBODY, Review, RevisionFacts, Snapshot, Tip, Verdict, message_digest,
};
pub use flags::{Bell, Flag, Flags};
pub use halt::{HaltCause, Halts};
pub use landing::LandTried;
pub use lost::{Again, Lost};
use memo::Memo;
pub use reason::Reason;
pub use retry::{Floor, RetryScope};
use run_table::RunTable;
pub use runs::{Phase, RunRecord, Standing, TestState};

/// The gate cell.
#[derive(Debug)]
pub enum Gate {}

/// What can happen to a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateEvent {
    /// The server's settings for this gate.
    Configured(Box<GateConfig>),
    /// What the server says about stops of all landing.
    Halts(Halts),
    /// Look again: somebody says that something may have changed.
    Bell(Bell),
    /// A change has gone to another branch, which asks what holds it.
    Left(Departure),
    /// What held a change on the branch that it has come from.
    Arrives(Arrival),
    /// What the forge says, whole.
    ForgeRead(Box<ForgeRead>),
    /// A candidate was made, or cannot be.
    CandidateMade {
        /// Which.
        id: CandidateId,
        /// What came of it.
        result: Box<CandidateResult>,
    },
    /// The landed definition was read.
    GraphRead {
        /// At which commit.
        commit: CommitId,
        /// The jobs of the commit's own definition, or every error in it.
        graph: Result<JobGraph, Vec<String>>,
    },
    /// A run is over.
    RunEnded(std::sync::Arc<crate::message::RunReport>),
    /// A landing was tried.
    LandTried {
        /// Which.
        candidate: CandidateId,
        /// What came of it.
        result: LandTried,
    },
    /// A person wants something.
    Command(Box<Command>),
}

/// A change and what the gate itself knows about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What the forge says.
    pub facts: ForgeChange,
    /// A person stopped it.
    pub hold: Option<Hold>,
    /// A maintainer allowed exactly one revision to run.
    pub vouch: Option<Vouch>,
    /// When this revision was first seen.
    pub since: Timestamp,
    /// The definition in the newest candidate that was made of this revision, where that edits it.
    #[serde(default)]
    edited: Option<Digest>,
    /// Why git is no longer asked to join this revision with the branch, wherever that stands: it took longer than a change is
    /// given, and the others shall not wait for that again.
    #[serde(default)]
    slow: Option<String>,
    /// Its candidate on the tip.
    #[serde(skip)]
    candidate: Memo<queue::MadeOf, CandidateId>,
    /// The digest of its title and body.
    #[serde(skip)]
    message: Memo<(String, String), Digest>,
    /// How long this revision has waited for its verdict.
    #[serde(default)]
    pub wait: Wait,
}

/// A person's stop of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// A maintainer's word for exactly one revision on one target (trust T1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// Who.
    pub by: UserId,
    /// For which commit.
    pub revision: CommitId,
    /// For which definition: the one that its giver saw, or else that of the first candidate made of the revision.
    pub definition: Option<Digest>,
    /// Why.
    pub why: String,
    /// When it was given.
    pub at: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// A candidate that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// For which change.
    pub change: ChangeNumber,
    /// What to make.
    pub spec: crate::candidate::CandidateSpec,
    /// What came of it.
    pub result: Option<CandidateResult>,
    /// Landings of it that were tried or taken back: a next one is another effect, not a repeat of one that is done.
    #[serde(default)]
    pub landings_tried: u64,
    /// How often its commit was lost after it was made: each time it is made again.
    #[serde(default)]
    pub losses: u64,
}

/// A change that has landed and that the forge may still show as open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LandedRecord {
    /// The landed commit.
    pub commit: CommitId,
    /// The revision in it.
    pub revision: CommitId,
    /// When it was confirmed.
    pub at: Timestamp,
    /// The forge has been told, so that it can only vanish from the list of open changes.
    #[serde(default)]
    pub marked: bool,
}

/// A landing that a driver has, or had when it was taken back: what the record will say, should it have happened. The
/// change may be closed or pushed to meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingLanding {
    /// The record.
    pub act: LandedAct,
    /// The driver has answered that it was not tried. A request that a server sent before it died may still arrive, for
    /// as long as the branch is where it was.
    pub withdrawn: bool,
}

/// The jobs of a landed commit's own definition, or every error in it.
pub type LandedGraph = (CommitId, Result<JobGraph, Vec<String>>);

/// Everything a gate knows.
#[derive(Debug)]
pub struct GateState {
    /// Its name.
    pub id: GateId,
    config: Field<GateConfig>,
    branch: Field<Branch>,
    people: Field<BTreeMap<UserId, Rights>>,
    changes: Table<ChangeNumber, Change>,
    /// Stops of changes that are closed, or have gone to a branch that has not asked yet: neither is a way around one.
    holds: Table<ChangeNumber, Hold>,
    /// Changes from other branches of which those have said what holds them: the newest [`Came::at`] of each.
    arrived: Table<ChangeNumber, Timestamp>,
    /// Changes that were let go to other branches, for as long as a reading may show them here: the [`Departure::at`] of each.
    departed: Table<ChangeNumber, Timestamp>,
    /// Vouches for closed changes: they are for a revision, whether it is open or not.
    vouches: Table<ChangeNumber, Vouch>,
    candidates: Table<CandidateId, CandidateRecord>,
    runs: RunTable,
    /// From which run on results count for a change that was retried, open or closed.
    floors: Table<ChangeNumber, Floor>,
    landed: Table<ChangeNumber, LandedRecord>,
    landings: Table<CandidateId, PendingLanding>,
    /// Landed commits whose note is not in the repository yet.
    unnoted: Table<CommitId, ()>,
    halts: Field<BTreeMap<HaltCause, String>>,
    landed_graph: Field<Option<LandedGraph>>,
    notes: Notes,
    /// When decisions were last made, if they were since the rows were read. Not stored.
    settled_at: Option<Timestamp>,
}

impl Cell for Gate {
    type State = GateState;
    type Event = GateEvent;

    fn apply(state: &mut GateState, event: &GateEvent, now: Timestamp) {
        state.note_late(now);
        match event {
            GateEvent::Configured(config) => state.configure(config),
            GateEvent::Halts(halts) => state.heed(halts),
            GateEvent::Bell(bell) => state.ring(*bell, now),
            GateEvent::Left(departure) => state.left(departure, now),
            GateEvent::Arrives(arrival) => state.arrives(arrival),
            GateEvent::ForgeRead(read) => state.forge_read(read, now),
            GateEvent::CandidateMade { id, result } => state.candidate_made(*id, result),
            GateEvent::GraphRead { commit, graph } => state.graph_read(*commit, graph),
            GateEvent::RunEnded(report) => state.run_ended(report, now),
            GateEvent::LandTried { candidate, result } => state.land_tried(*candidate, result, now),
            GateEvent::Command(command) => state.command(command, now),
        }
        state.settle(now);
    }

    fn time_passed(state: &mut GateState, now: Timestamp) {
        state.time_passed(now);
    }

    fn plan(state: &GateState, now: Timestamp) -> Plan {
        state.plan(now)
    }
}

impl GateState {
    /// The server's settings.
    pub fn config(&self) -> &GateConfig {
        &self.config
    }

    /// The branch.
    pub fn branch(&self) -> &Branch {
        &self.branch
    }

    /// Open changes.
    pub fn changes(&self) -> &BTreeMap<ChangeNumber, Change> {
        self.changes.map()
    }

    /// Runs that are remembered, newest last.
    pub fn runs(&self) -> &BTreeMap<u64, RunRecord> {
        self.runs.map()
    }

    /// Candidates that are remembered.
    pub fn candidates(&self) -> &BTreeMap<CandidateId, CandidateRecord> {
        self.candidates.map()
    }

    /// Changes that landed and are not yet off the forge's list.
    pub fn landed(&self) -> &BTreeMap<ChangeNumber, LandedRecord> {
        self.landed.map()
    }

    /// What a person may do here, as the forge last said.
    pub fn rights(&self, user: UserId) -> Option<Rights> {
        self.people.get(&user).copied()
    }

    /// The jobs of the landed definition, once read.
    pub fn landed_graph(&self) -> Option<&LandedGraph> {
        self.landed_graph.as_ref()
    }

    fn run_id(&self, number: u64) -> RunId {
        RunId { gate: self.id.clone(), number }
    }

    fn configure(&mut self, config: &GateConfig) {
        if *self.config != *config {
            *self.config.edit() = config.clone();
        }
    }

    fn graph_read(&mut self, commit: CommitId, graph: &Result<JobGraph, Vec<String>>) {
        let wanted = self.branch.deploy.wanted.map(|(wanted, _)| wanted);
        // The tip may just be read again: it is asked for once.
        if [wanted, self.branch.last_tip].contains(&Some(commit)) {
            *self.landed_graph.edit() = Some((commit, graph.clone()));
        }
    }

    fn note(&mut self, act: Act) {
        self.notes.acts.push(act);
    }

    fn answer(&mut self, command: u64, result: Result<String, Refusal>) {
        self.notes.answers.push(Answer { command, result });
    }
}

impl CellState for GateState {
    fn new(id: &CellId) -> Self {
        let CellId::Gate(id) = id else {
            panic!("invariant: a gate's state is only made for a gate cell, not {id}")
        };
        GateState {
            id: id.clone(),
            config: Field::new("config", GateConfig::default()),
            branch: Field::new("branch", Branch::default()),
            people: Field::new("people", BTreeMap::new()),
            changes: Table::new("change"),
            holds: Table::new("hold"),
            arrived: Table::new("arrived"),
            departed: Table::new("departed"),
            vouches: Table::new("vouch"),
            candidates: Table::new("candidate"),
            runs: RunTable::new(),
            floors: Table::new("floor"),
            landed: Table::new("landed"),
            landings: Table::new("landing"),
            unnoted: Table::new("unnoted"),
            halts: Field::new("halts", BTreeMap::new()),
            landed_graph: Field::new("landed_graph", None),
            notes: Notes::default(),
            settled_at: None,
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.parts().into_iter().for_each(|part| part.take(&mut rows));
        rows
    }

    fn put_row(&mut self, row: &Row) -> Result<(), RowError> {
        for part in self.parts() {
            if part.put(row)? {
                return Ok(());
            }
        }
        Err(RowError::new(&row.key, "no such row in a gate"))
    }

    fn loaded(&mut self) {
        self.runs.loaded();
        self.keep_floors();
    }

    fn handed_out(&mut self, effect: &Effect, now: Timestamp) {
        match effect {
            Effect::Land(landing) => self.expect_landing(landing, now),
            Effect::ReadForge { .. } => self.raise_by_poll(now),
            _ => {}
        }
    }

    fn carried_out(&mut self, effect: &Effect) {
        match effect {
            Effect::MarkLanded { change, .. } => {
                if let Some(record) = self.landed.get_mut(change) {
                    record.marked = true;
                }
            }
            Effect::NoteLanding { commit, .. } => drop(self.unnoted.remove(commit)),
            _ => {}
        }
    }

    fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

impl GateState {
    fn parts(&mut self) -> [&mut dyn Rows; 16] {
        [
            &mut self.config,
            &mut self.branch,
            &mut self.people,
            &mut self.changes,
            &mut self.holds,
            &mut self.arrived,
            &mut self.departed,
            &mut self.vouches,
            &mut self.candidates,
            &mut self.runs,
            &mut self.floors,
            &mut self.landed,
            &mut self.landings,
            &mut self.unnoted,
            &mut self.halts,
            &mut self.landed_graph,
        ]
    }
}

#[cfg(test)]
mod tests;
