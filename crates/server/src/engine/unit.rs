//! Turns that become durable together.
//!
//! What a cell sends to another one that is at rest goes into that one's turn at once, and both turns are written in one
//! transaction: the message lies in no inbox, and no commit comes between the two. To a crash the whole unit is one
//! turn. A gate is never such a receiver: the store may refuse its turn, and the sender's would be refused with it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use towpath_core::cell::{Answer, CellId};
use towpath_core::ids::Timestamp;
use towpath_core::message::Message;
use towpath_core::outbox::Dispatch;
use towpath_core::turn::{Turn, WriteSet};
use towpath_store::{Committed, EncodedTurn, Load, Tx, WriteError};

use super::{Done, Records};
use crate::projection::{self, Line};

/// Cells that begin one unit at most: bounds how long the first of many waits for the others.
pub(super) const HEADS_MAX: usize = 256;
/// Turns in one unit at most.
const TURNS_MAX: usize = 1024;

/// Which unit, in the order of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnitNumber(pub u64);

/// Turns on their way to the writer.
pub(super) struct Unit {
    pub number: UnitNumber,
    /// Of all its turns.
    pub now: Timestamp,
    /// Nothing may join its only turn: the store may refuse it, or has refused what it was part of.
    pub is_alone: bool,
    /// How many turns it has.
    turns: usize,
    /// Where a cell's part is.
    places: BTreeMap<CellId, usize>,
    writes: Vec<WriteSet>,
    parts: Vec<Part>,
    records: Vec<Records>,
    /// What those write, roughly.
    record_bytes: usize,
    done: Vec<Done>,
    /// Cells that a message of this unit is stored for: what is sent to them later must not overtake it.
    stored_for: BTreeSet<CellId>,
}

/// What follows for one cell from the commit of its turns.
pub(super) struct Part {
    pub cell: CellId,
    /// Those that were stored.
    pub messages: Vec<(CellId, Message)>,
    pub dispatch: Vec<Dispatch>,
    pub answers: Vec<Answer>,
    pub wake_at: Option<Timestamp>,
    pub finished: bool,
    /// Why the store never takes what the cell writes, if so: it refuses the whole unit then, in which nobody else is to
    /// blame.
    pub too_large: Option<WriteError>,
}

/// A unit that was committed, or refused as a whole.
pub(super) struct Outcome {
    pub now: Timestamp,
    /// One for each cell.
    pub parts: Vec<Part>,
    pub done: Vec<Done>,
    /// One for each part.
    pub result: Result<Vec<Committed>, WriteError>,
}

/// What the writer does.
pub(super) struct Written {
    is_alone: bool,
    turns: Vec<EncodedTurn>,
    lines: Vec<Line>,
    records: Vec<Records>,
    /// What those write, roughly.
    record_bytes: usize,
}

impl Unit {
    pub fn new(number: UnitNumber, now: Timestamp) -> Unit {
        Unit {
            number,
            now,
            is_alone: false,
            turns: 0,
            places: BTreeMap::new(),
            writes: Vec::new(),
            parts: Vec::new(),
            records: Vec::new(),
            record_bytes: 0,
            done: Vec::new(),
            stored_for: BTreeSet::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether a message to this cell may go into a turn of this unit, in which so many cells still wait for theirs.
    pub fn may_take(&self, cell: &CellId, due: usize) -> bool {
        !self.is_alone
            && !matches!(cell, CellId::Gate(_))
            && !self.stored_for.contains(cell)
            && self.turns + due < TURNS_MAX
    }

    /// Adds a turn, whose messages are those that go into inboxes.
    pub fn push(&mut self, turn: Turn) {
        let Turn { write, dispatch, answers } = turn;
        self.turns += 1;
        self.stored_for.extend(write.messages.iter().map(|(to, _)| to.clone()));
        let part = Part {
            cell: write.cell.clone(),
            messages: write.messages.clone(),
            dispatch,
            answers,
            wake_at: write.wake_at,
            finished: write.finished,
            too_large: None,
        };
        match self.places.entry(write.cell.clone()) {
            Entry::Occupied(place) => {
                self.writes[*place.get()].append(write);
                self.parts[*place.get()].append(part);
            }
            Entry::Vacant(place) => {
                place.insert(self.parts.len());
                self.writes.push(write);
                self.parts.push(part);
            }
        }
    }

    /// Adds what is written beside a turn, and who hears of it.
    pub fn attach(&mut self, (records, bytes): (Records, usize), done: Done) {
        self.records.push(records);
        self.record_bytes += bytes;
        self.done.push(done);
    }

    /// What to write, and what is to be told of it.
    pub fn split(mut self) -> (Written, Outcome) {
        let lines = self.writes.iter().flat_map(projection::of_turn).collect();
        let turns: Vec<EncodedTurn> = self.writes.into_iter().map(EncodedTurn::from).collect();
        for (part, turn) in self.parts.iter_mut().zip(&turns) {
            part.too_large = turn.check_sizes().err();
        }
        let written = Written {
            is_alone: self.is_alone,
            turns,
            lines,
            records: self.records,
            record_bytes: self.record_bytes,
        };
        let result = Err(WriteError::Closed);
        (written, Outcome { now: self.now, parts: self.parts, done: self.done, result })
    }
}

impl Part {
    fn append(&mut self, next: Part) {
        self.messages.extend(next.messages);
        self.dispatch.extend(next.dispatch);
        self.answers.extend(next.answers);
        (self.wake_at, self.finished) = (next.wake_at, next.finished);
    }
}

impl Written {
    pub fn load(&self) -> Load {
        let load = Load::bytes(self.record_bytes + self.turns.iter().map(EncodedTurn::bytes).sum::<usize>());
        if self.is_alone { load } else { load.refused_first() }
    }

    pub fn write(self, tx: &mut Tx<'_>) -> Result<Vec<Committed>, WriteError> {
        let committed = tx.turns(&self.turns)?;
        self.lines.iter().try_for_each(|line| line.write(tx))?;
        self.records.into_iter().try_for_each(|records| records(tx))?;
        Ok(committed)
    }
}
