//! A store in memory: what it has accepted is durable, whatever happens to the servers.

use std::collections::BTreeMap;

use towpath_core::act::Act;
use towpath_core::cell::{CellId, Row};
use towpath_core::effect::EffectKey;
use towpath_core::environment::EnvironmentEvent;
use towpath_core::gate::{GateEvent, HaltCause, Halts};
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::message::{Message, Misdirected};
use towpath_core::outbox::Outgoing;
use towpath_core::pool::PoolEvent;
use towpath_core::run::RunEvent;
use towpath_core::turn::{Intake, WriteSet};

/// What lies in an inbox, by kind of cell.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyIntake {
    /// For a gate.
    Gate(Intake<GateEvent>),
    /// For a run.
    Run(Intake<RunEvent>),
    /// For the pool.
    Pool(Intake<PoolEvent>),
    /// For an environment.
    Environment(Intake<EnvironmentEvent>),
}

impl AnyIntake {
    /// A message as its receiver understands it.
    fn message(to: &CellId, message: Message) -> Result<AnyIntake, Misdirected> {
        Ok(match to {
            CellId::Gate(_) => AnyIntake::Gate(Intake::Event(message.try_into()?)),
            CellId::Run(_) => AnyIntake::Run(Intake::Event(message.try_into()?)),
            CellId::Pool => AnyIntake::Pool(Intake::Event(message.try_into()?)),
            CellId::Environment(_) => AnyIntake::Environment(Intake::Event(message.try_into()?)),
        })
    }
}

/// A cell as it is stored.
#[derive(Debug, Clone, Default)]
pub struct StoredCell {
    /// Its rows.
    pub rows: BTreeMap<String, String>,
    /// Its effects.
    pub outbox: BTreeMap<EffectKey, Outgoing>,
    /// What it has not seen yet.
    pub inbox: BTreeMap<u64, (Timestamp, AnyIntake)>,
    /// When it wants to plan again.
    pub wake_at: Option<Timestamp>,
    /// It has nothing left to do.
    pub finished: bool,
}

impl StoredCell {
    /// The rows as a cell loads them.
    pub fn rows(&self) -> Vec<Row> {
        let row = |(key, value): (&String, &String)| Row { key: key.clone(), value: Some(value.clone()) };
        self.rows.iter().map(row).collect()
    }

    /// The effects as a cell loads them: through their stored form.
    pub fn outbox(&self) -> Vec<(EffectKey, Outgoing)> {
        let stored = |row: &Outgoing| {
            let text = serde_json::to_string(row).expect("invariant: outbox rows have only types of JSON");
            serde_json::from_str(&text).expect("invariant: what was written can be read")
        };
        self.outbox.iter().map(|(key, row)| (EffectKey::stored(key.as_str()), stored(row))).collect()
    }
}

/// Why a write set was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A later server has the store.
    Fenced,
    /// There is something in the inbox that the turn has not seen.
    NotDrained,
    /// Nothing lands now.
    Halted,
}

/// What a broken store does not do; for proving that the checkers notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreBugs {
    /// Takes any epoch.
    pub ignores_epochs: bool,
    /// Takes a landing although the inbox is not drained.
    pub ignores_drained: bool,
    /// Takes a landing although landing is halted.
    pub ignores_halts: bool,
    /// Loses the first outbox row of a write set.
    pub drops_outbox_row: bool,
    /// Loses messages.
    pub drops_messages: bool,
    /// Loses what gates ask each other.
    pub drops_questions: bool,
    /// Does not delete what was consumed.
    pub keeps_consumed: bool,
    /// Loses rows that are removed.
    pub keeps_removed_rows: bool,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    /// Every cell that anything was ever written to.
    pub cells: BTreeMap<CellId, StoredCell>,
    /// The audit log.
    pub leaves: Vec<Act>,
    /// The latest time at which anything was written.
    pub time_high: Timestamp,
    /// The newest server.
    pub epoch: Epoch,
    /// What stops landing, with why.
    pub halts: BTreeMap<HaltCause, String>,
    /// How it is broken.
    pub bugs: StoreBugs,
    seq: u64,
    writes: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            cells: BTreeMap::new(),
            leaves: Vec::new(),
            time_high: Timestamp(0),
            epoch: Epoch(0),
            halts: BTreeMap::new(),
            bugs: StoreBugs::default(),
            seq: 0,
            writes: 0,
        }
    }
}

impl Store {
    /// Takes the store for a new server: from now on every older one is refused.
    pub fn open(&mut self) -> Epoch {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.epoch
    }

    /// What a gate is told of the halts: each cause, and whether it holds.
    pub fn told_halts(&self) -> AnyIntake {
        let causes = [HaltCause::Disk, HaltCause::Restore];
        let halts: Halts = causes.map(|cause| (cause, self.halts.get(&cause).cloned())).into();
        AnyIntake::Gate(Intake::Event(GateEvent::Halts(halts)))
    }

    /// Puts something into a cell's inbox.
    pub fn deliver(&mut self, to: &CellId, at: Timestamp, intake: AnyIntake) {
        self.seq += 1;
        self.time_high = self.time_high.max(at);
        self.cells.entry(to.clone()).or_default().inbox.insert(self.seq, (at, intake));
    }

    /// Takes a turn's write set, all or nothing.
    ///
    /// # Errors
    /// The reason for nothing.
    pub fn commit(&mut self, write: &WriteSet) -> Result<(), Refused> {
        if write.epoch < self.epoch && !self.bugs.ignores_epochs {
            return Err(Refused::Fenced);
        }
        let cell = self.cells.entry(write.cell.clone()).or_default();
        let beyond = write.consumed.map_or(0, |consumed| consumed + 1);
        let drained = cell.inbox.range(beyond..).next().is_none();
        if write.only_if_drained && !drained && !self.bugs.ignores_drained {
            return Err(Refused::NotDrained);
        }
        if write.only_if_drained && !self.halts.is_empty() && !self.bugs.ignores_halts {
            return Err(Refused::Halted);
        }
        if !self.bugs.keeps_consumed {
            cell.inbox = cell.inbox.split_off(&beyond);
        }
        self.writes += 1;
        self.put_rows(write);
        self.leaves.extend(write.acts.iter().cloned());
        self.time_high = self.time_high.max(write.now);
        for (to, message) in &write.messages {
            if self.bugs.drops_messages && self.writes.is_multiple_of(40) {
                continue;
            }
            if self.bugs.drops_questions && matches!(message, Message::Left(_)) {
                continue;
            }
            let intake = AnyIntake::message(to, message.clone())
                .expect("invariant: cells send only what their receivers take");
            self.deliver(to, write.now, intake);
        }
        Ok(())
    }

    fn put_rows(&mut self, write: &WriteSet) {
        let cell = self.cells.get_mut(&write.cell).expect("invariant: commit made it");
        for row in &write.rows {
            match &row.value {
                Some(value) => drop(cell.rows.insert(row.key.clone(), value.clone())),
                None if self.bugs.keeps_removed_rows => {}
                None => drop(cell.rows.remove(&row.key)),
            }
        }
        let lost = usize::from(self.bugs.drops_outbox_row && self.writes.is_multiple_of(20));
        for (key, row) in write.outbox.iter().skip(lost) {
            match row {
                Some(row) => drop(cell.outbox.insert(key.clone(), row.clone())),
                None => drop(cell.outbox.remove(key)),
            }
        }
        cell.wake_at = write.wake_at;
        cell.finished = write.finished;
    }
}
