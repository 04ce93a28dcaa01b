//! A cell of any kind in memory, with its inbox.

use std::collections::VecDeque;

use towpath_core::cell::{Cell, CellId};
use towpath_core::environment::{Environment, EnvironmentEvent};
use towpath_core::gate::{Gate, GateEvent};
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::message::{Message, Misdirected};
use towpath_core::outbox::Trouble;
use towpath_core::pool::{Pool, PoolEvent};
use towpath_core::run::{Run, RunEvent};
use towpath_core::turn::{Delivered, EVENTS_PER_TURN_MAX, Intake, Live, Turn};
use towpath_store::{Delivery, ReadError, StoredCell};

/// Something for the inbox of a cell of any kind.
#[derive(Debug, Clone)]
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
    /// The stored form.
    pub fn delivery(&self, cell: &CellId, at: Timestamp) -> Delivery {
        match self {
            AnyIntake::Gate(intake) => Delivery::new(cell, at, intake),
            AnyIntake::Run(intake @ Intake::Event(RunEvent::Start(_))) => {
                Delivery::new(cell, at, intake).opening()
            }
            AnyIntake::Run(intake) => Delivery::new(cell, at, intake),
            AnyIntake::Pool(intake) => Delivery::new(cell, at, intake),
            AnyIntake::Environment(intake) => Delivery::new(cell, at, intake),
        }
    }

    /// Trouble in place of an effect's result; `None` if it is not one.
    pub fn as_trouble(self, trouble: Trouble) -> Option<AnyIntake> {
        Some(match self {
            AnyIntake::Gate(intake) => AnyIntake::Gate(as_trouble(intake, trouble)?),
            AnyIntake::Run(intake) => AnyIntake::Run(as_trouble(intake, trouble)?),
            AnyIntake::Pool(intake) => AnyIntake::Pool(as_trouble(intake, trouble)?),
            AnyIntake::Environment(intake) => AnyIntake::Environment(as_trouble(intake, trouble)?),
        })
    }

    /// What a message is to the cell that it is addressed to.
    ///
    /// # Errors
    /// That kind of cell has no use for it: a bug of the sender.
    pub fn from_message(to: &CellId, message: Message) -> Result<AnyIntake, Misdirected> {
        Ok(match to {
            CellId::Gate(_) => AnyIntake::Gate(Intake::Event(message.try_into()?)),
            CellId::Run(_) => AnyIntake::Run(Intake::Event(message.try_into()?)),
            CellId::Pool => AnyIntake::Pool(Intake::Event(message.try_into()?)),
            CellId::Environment(_) => AnyIntake::Environment(Intake::Event(message.try_into()?)),
        })
    }
}

fn as_trouble<E>(intake: Intake<E>, trouble: Trouble) -> Option<Intake<E>> {
    match intake {
        Intake::Done { key, token, .. } => Some(Intake::Trouble { key, token, trouble }),
        Intake::Event(_) | Intake::Trouble { .. } => None,
    }
}

/// A cell of one kind and what it has not seen yet.
pub struct Typed<C: Cell> {
    /// The cell.
    pub live: Live<C>,
    inbox: VecDeque<Delivered<C::Event>>,
}

impl<C: Cell> Typed<C> {
    fn load(id: CellId, epoch: Epoch, stored: StoredCell) -> Result<Self, ReadError> {
        let inbox = stored.inbox.iter().map(|entry| entry.decode()).collect::<Result<_, _>>()?;
        let live = Live::load(id, epoch, &stored.rows, stored.outbox)
            .map_err(|error| ReadError::Damaged { why: error.to_string() })?;
        Ok(Typed { live, inbox })
    }

    fn reload(&mut self, stored: StoredCell) -> Result<(), ReadError> {
        self.inbox = stored.inbox.iter().map(|entry| entry.decode()).collect::<Result<_, _>>()?;
        let reloaded = self.live.reload(&stored.rows, stored.outbox);
        reloaded.map_err(|error| ReadError::Damaged { why: error.to_string() })
    }

    fn turn(&mut self, now: Timestamp) -> Turn {
        let turn = self.live.turn(self.inbox.make_contiguous(), now);
        self.inbox.drain(..self.inbox.len().min(EVENTS_PER_TURN_MAX));
        turn
    }
}

/// A cell of any kind and what it has not seen yet.
pub enum AnyCell {
    /// A gate.
    Gate(Box<Typed<Gate>>),
    /// A run.
    Run(Box<Typed<Run>>),
    /// The pool.
    Pool(Box<Typed<Pool>>),
    /// An environment.
    Environment(Box<Typed<Environment>>),
}

impl AnyCell {
    /// A cell as its rows say.
    ///
    /// # Errors
    /// A row or inbox entry cannot be read.
    pub fn load(id: &CellId, epoch: Epoch, stored: StoredCell) -> Result<AnyCell, ReadError> {
        Ok(match id {
            CellId::Gate(_) => AnyCell::Gate(Box::new(Typed::load(id.clone(), epoch, stored)?)),
            CellId::Run(_) => AnyCell::Run(Box::new(Typed::load(id.clone(), epoch, stored)?)),
            CellId::Pool => AnyCell::Pool(Box::new(Typed::load(id.clone(), epoch, stored)?)),
            CellId::Environment(_) => AnyCell::Environment(Box::new(Typed::load(id.clone(), epoch, stored)?)),
        })
    }

    /// Goes back to what the rows say.
    ///
    /// # Errors
    /// A row or inbox entry cannot be read.
    pub fn reload(&mut self, stored: StoredCell) -> Result<(), ReadError> {
        match self {
            AnyCell::Gate(cell) => cell.reload(stored),
            AnyCell::Run(cell) => cell.reload(stored),
            AnyCell::Pool(cell) => cell.reload(stored),
            AnyCell::Environment(cell) => cell.reload(stored),
        }
    }

    /// One turn over what lies in the inbox.
    pub fn turn(&mut self, now: Timestamp) -> Turn {
        match self {
            AnyCell::Gate(cell) => cell.turn(now),
            AnyCell::Run(cell) => cell.turn(now),
            AnyCell::Pool(cell) => cell.turn(now),
            AnyCell::Environment(cell) => cell.turn(now),
        }
    }

    /// Puts a committed intake behind what already waits.
    pub fn push(&mut self, seq: u64, at: Timestamp, intake: AnyIntake) {
        match (self, intake) {
            (AnyCell::Gate(cell), AnyIntake::Gate(intake)) => {
                cell.inbox.push_back(Delivered { seq, at, intake })
            }
            (AnyCell::Run(cell), AnyIntake::Run(intake)) => {
                cell.inbox.push_back(Delivered { seq, at, intake })
            }
            (AnyCell::Pool(cell), AnyIntake::Pool(intake)) => {
                cell.inbox.push_back(Delivered { seq, at, intake })
            }
            (AnyCell::Environment(cell), AnyIntake::Environment(intake)) => {
                cell.inbox.push_back(Delivered { seq, at, intake })
            }
            _ => unreachable!("invariant: an intake is made for the kind of cell it is delivered to"),
        }
    }

    /// How much lies in the inbox.
    pub fn mail(&self) -> usize {
        match self {
            AnyCell::Gate(cell) => cell.inbox.len(),
            AnyCell::Run(cell) => cell.inbox.len(),
            AnyCell::Pool(cell) => cell.inbox.len(),
            AnyCell::Environment(cell) => cell.inbox.len(),
        }
    }
}
