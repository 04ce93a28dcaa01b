//! The inside of a transaction: what one unit of work may do.

use std::collections::BTreeMap;
use std::ops::Deref;

use rusqlite::{Params, params};
use serde::Serialize;
use towpath_core::act::Act;
use towpath_core::cell::{CellId, Row};
use towpath_core::effect::EffectKey;
use towpath_core::gate::HaltCause;
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::message::Message;
use towpath_core::turn::{Intake, WriteSet};

use crate::audit::log::Log;
use crate::error::{ReadError, WriteError};
use crate::view::View;
use crate::writer::Shared;

/// Bytes of one row, message or delivery at most: twice what the graph of a candidate may have.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// One unit of work in the writer's transaction. All of it becomes durable, or nothing. Reads see what the units before
/// it in the same group have written.
pub struct Tx<'w> {
    pub(crate) view: &'w View,
    pub(crate) log: &'w mut Log,
    pub(crate) marks: &'w mut Marks,
    pub(crate) shared: &'w Shared,
}

/// Counters that every transaction moves; written once per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// This server's epoch.
    pub epoch: Epoch,
    /// The newest inbox entry's number.
    pub inbox_seq: u64,
    /// The latest time that anything durable was done at (trust T10).
    pub time_high: Timestamp,
}

/// What a committed turn got from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The inbox entries that its messages became, in their order.
    pub messages: Vec<Placed>,
    /// The leaves that its acts became, from this one on, in their order.
    pub first_leaf: u64,
}

/// Where a delivery lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its number in the inbox.
    pub seq: u64,
    /// The cell has had no turn yet, so there are no rows of it to be read. Only told of deliveries that can be the
    /// first ([`Delivery::opening`]); `false` says nothing.
    pub is_first: bool,
}

/// Something for the inbox of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    cell: String,
    at: Timestamp,
    body: String,
    opens: bool,
}

impl Delivery {
    /// A fact, command, or result of an effect, taken in at `at`.
    pub fn new<E: Serialize>(cell: &CellId, at: Timestamp, intake: &Intake<E>) -> Delivery {
        Delivery { cell: cell.to_string(), at, body: encode(intake), opens: false }
    }

    /// The same, which can be the first that its cell gets.
    pub fn opening(self) -> Delivery {
        Delivery { opens: true, ..self }
    }

    /// What it weighs in the queue and in the log, roughly.
    pub fn bytes(&self) -> usize {
        self.cell.len() + self.body.len() + ROW_BYTES
    }
}

/// A write set in the form that the writer binds: everything is encoded on the caller's thread.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedTurn {
    cell: String,
    kind: &'static str,
    epoch: Epoch,
    rows: Vec<Row>,
    consumed: Option<u64>,
    only_if_drained: bool,
    outbox: Vec<(EffectKey, Option<String>)>,
    messages: Vec<Delivery>,
    acts: Vec<String>,
    wake_at: Option<Timestamp>,
    finished: bool,
    now: Timestamp,
}

/// What a row takes beside its text, roughly.
const ROW_BYTES: usize = 64;

impl From<WriteSet> for EncodedTurn {
    fn from(write: WriteSet) -> EncodedTurn {
        let now = write.now;
        let message = |(to, message): (CellId, Message)| {
            let opens = message.opens();
            Delivery { opens, ..Delivery::new(&to, now, &Intake::Event(message)) }
        };
        EncodedTurn {
            cell: write.cell.to_string(),
            kind: kind(&write.cell),
            epoch: write.epoch,
            rows: write.rows,
            consumed: write.consumed,
            only_if_drained: write.only_if_drained,
            outbox: write.outbox.into_iter().map(|(key, row)| (key, row.as_ref().map(encode))).collect(),
            messages: write.messages.into_iter().map(message).collect(),
            acts: write.acts.iter().map(act_entry).collect(),
            wake_at: write.wake_at,
            finished: write.finished,
            now,
        }
    }
}

impl EncodedTurn {
    /// Whether the store takes it. Asked before anything is written, so that a turn that does not fit harms nobody.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`].
    pub fn check_sizes(&self) -> Result<(), WriteError> {
        let rows = self.rows.iter().filter_map(|row| Some(("a row", row.value.as_ref()?.len())));
        let effects = self.outbox.iter().filter_map(|(_, body)| Some(("an effect", body.as_ref()?.len())));
        let messages = self.messages.iter().map(|message| ("a delivery", message.body.len()));
        rows.chain(effects).chain(messages).try_for_each(|(what, bytes)| check_size(what, bytes))
    }

    /// What it weighs in the queue and in the log, roughly.
    pub fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len) + ROW_BYTES;
        self.rows.iter().map(|row| row.key.len() + optional(&row.value)).sum::<usize>()
            + self.outbox.iter().map(|(key, body)| key.as_str().len() + optional(body)).sum::<usize>()
            + self.messages.iter().map(Delivery::bytes).sum::<usize>()
            + self.acts.iter().map(|act| act.len() + ROW_BYTES).sum::<usize>()
            + ROW_BYTES
    }
}

impl Deref for Tx<'_> {
    type Target = View;
    fn deref(&self) -> &View {
        self.view
    }
}

impl Tx<'_> {
    /// What stops all landing, as [`crate::Store::halts`] says it: no claim after this is judged by less.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn halts(&self) -> Result<BTreeMap<HaltCause, String>, ReadError> {
        self.view.halts(self.shared)
    }

    /// Writes one turn of one cell.
    ///
    /// # Errors
    /// As of [`Tx::turns`].
    pub fn turn(&mut self, turn: &EncodedTurn) -> Result<Committed, WriteError> {
        self.check(turn)?;
        self.put(turn)
    }

    /// Writes turns that belong together, in their order.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], [`WriteError::NotDrained`], [`WriteError::Halted`] and [`WriteError::TooLarge`] before
    /// anything is written; else those of the disk. That a newer server has written a cell may be found later, and ends
    /// this one.
    pub fn turns(&mut self, turns: &[EncodedTurn]) -> Result<Vec<Committed>, WriteError> {
        turns.iter().try_for_each(|turn| self.check(turn))?;
        turns.iter().map(|turn| self.put(turn)).collect()
    }

    fn check(&self, turn: &EncodedTurn) -> Result<(), WriteError> {
        turn.check_sizes()?;
        if turn.only_if_drained {
            self.check_drained(turn)?;
            self.check_not_halted()?;
        }
        if turn.epoch < self.marks.epoch {
            return Err(WriteError::Fenced { what: "server".into(), by: self.marks.epoch });
        }
        Ok(())
    }

    fn put(&mut self, turn: &EncodedTurn) -> Result<Committed, WriteError> {
        self.put_head(turn)?;
        self.consume(turn)?;
        self.put_rows(turn)?;
        self.put_outbox(turn)?;
        let first_leaf = self.log.size();
        for entry in &turn.acts {
            self.log.append(turn.now, entry);
        }
        self.note_time(turn.now);
        let messages = turn.messages.iter().map(|message| self.deliver(message));
        Ok(Committed { messages: messages.collect::<Result<_, _>>()?, first_leaf })
    }

    /// Puts something into a cell's inbox. The cell need not exist yet.
    ///
    /// # Errors
    /// It is too large, or those of the disk.
    pub fn deliver(&mut self, delivery: &Delivery) -> Result<Placed, WriteError> {
        check_size("a delivery", delivery.body.len())?;
        let is_first = delivery.opens && !self.has_cell(&delivery.cell)?;
        let seq = self.marks.inbox_seq + 1;
        const SQL: &str = "INSERT INTO inbox (seq, cell, at, body) VALUES (?1, ?2, ?3, ?4)";
        self.run(SQL, params![seq as i64, delivery.cell, delivery.at.0, delivery.body])?;
        self.marks.inbox_seq = seq;
        self.note_time(delivery.at);
        Ok(Placed { seq, is_first })
    }

    fn has_cell(&self, cell: &str) -> Result<bool, WriteError> {
        Ok(self.one("SELECT 1 FROM cells WHERE id = ?1", [cell], |_| Ok(()))?.is_some())
    }

    /// Adds a leaf to the audit log; returns its number.
    pub fn act(&mut self, act: &Act, at: Timestamp) -> u64 {
        self.note_time(at);
        self.log.append(at, &act_entry(act))
    }

    /// Deletes a finished cell's rows, when nobody reads them any more.
    ///
    /// # Errors
    /// [`WriteError::Missing`] if there is no such cell or it is not finished; else those of the disk.
    pub fn forget_cell(&mut self, cell: &CellId) -> Result<(), WriteError> {
        let name = cell.to_string();
        self.change("DELETE FROM cells WHERE id = ?1 AND finished = 1", [&name], || {
            format!("finished cell `{name}`")
        })?;
        for sql in ["DELETE FROM cell_rows WHERE cell = ?1", "DELETE FROM inbox WHERE cell = ?1"] {
            self.run(sql, [&name])?;
        }
        Ok(())
    }

    fn check_drained(&self, turn: &EncodedTurn) -> Result<(), WriteError> {
        const SQL: &str = "SELECT 1 FROM inbox WHERE cell = ?1 AND seq > ?2 LIMIT 1";
        let consumed = turn.consumed.unwrap_or(0) as i64;
        match self.one(SQL, params![turn.cell, consumed], |_| Ok(()))? {
            Some(()) => Err(WriteError::NotDrained { cell: turn.cell.clone() }),
            None => Ok(()),
        }
    }

    /// The last word before a landing is claimed: whatever its gate has or has not heard.
    fn check_not_halted(&self) -> Result<(), WriteError> {
        match self.halts()?.into_iter().next() {
            Some((cause, why)) => Err(WriteError::Halted { cause, why }),
            None => Ok(()),
        }
    }

    fn put_head(&self, turn: &EncodedTurn) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO cells (id, kind, epoch, wake_at, finished) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, wake_at = excluded.wake_at, \
             finished = excluded.finished WHERE cells.epoch <= excluded.epoch";
        let wake_at = turn.wake_at.map(|at| at.0);
        let values = params![turn.cell, turn.kind, turn.epoch.0 as i64, wake_at, turn.finished];
        if self.run(SQL, values)? == 1 {
            return Ok(());
        }
        let sql = "SELECT epoch FROM cells WHERE id = ?1";
        let by = self.one(sql, [&turn.cell], |row| crate::view::get_u64(row, 0))?.unwrap_or_default();
        Err(WriteError::Fenced { what: turn.cell.clone(), by: Epoch(by) })
    }

    fn consume(&self, turn: &EncodedTurn) -> Result<(), WriteError> {
        let Some(consumed) = turn.consumed else { return Ok(()) };
        const SQL: &str = "DELETE FROM inbox WHERE cell = ?1 AND seq <= ?2";
        self.run(SQL, params![turn.cell, consumed as i64])?;
        Ok(())
    }

    fn put_rows(&self, turn: &EncodedTurn) -> Result<(), WriteError> {
        const PUT: &str = "INSERT INTO cell_rows (cell, key, value) VALUES (?1, ?2, ?3) \
             ON CONFLICT (cell, key) DO UPDATE SET value = excluded.value";
        const DELETE: &str = "DELETE FROM cell_rows WHERE cell = ?1 AND key = ?2";
        for row in &turn.rows {
            match &row.value {
                Some(value) => self.run(PUT, params![turn.cell, row.key, value])?,
                None => self.run(DELETE, params![turn.cell, row.key])?,
            };
        }
        Ok(())
    }

    fn put_outbox(&self, turn: &EncodedTurn) -> Result<(), WriteError> {
        const PUT: &str = "INSERT INTO outbox (cell, key, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT (cell, key) DO UPDATE SET body = excluded.body";
        const DELETE: &str = "DELETE FROM outbox WHERE cell = ?1 AND key = ?2";
        for (key, body) in &turn.outbox {
            match body {
                Some(body) => self.run(PUT, params![turn.cell, key.as_str(), body])?,
                None => self.run(DELETE, params![turn.cell, key.as_str()])?,
            };
        }
        Ok(())
    }

    pub(crate) fn note_time(&mut self, at: Timestamp) {
        self.marks.time_high = self.marks.time_high.max(at);
    }

    /// Executes one statement; returns how many rows it touched.
    pub(crate) fn run(&self, sql: &str, params: impl Params) -> Result<usize, WriteError> {
        Ok(self.view.conn.prepare_cached(sql)?.execute(params)?)
    }

    /// Executes one insert that returns one number.
    pub(crate) fn returning(&self, sql: &str, params: impl Params) -> Result<u32, WriteError> {
        Ok(self.view.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
    }

    /// Executes one statement that must find its row.
    pub(crate) fn change(
        &self,
        sql: &str,
        params: impl Params,
        what: impl FnOnce() -> String,
    ) -> Result<(), WriteError> {
        match self.run(sql, params)? {
            0 => Err(WriteError::Missing { what: what() }),
            _ => Ok(()),
        }
    }

    /// Executes one insert whose row must be new.
    pub(crate) fn insert(
        &self,
        sql: &str,
        params: impl Params,
        what: impl FnOnce() -> String,
    ) -> Result<(), WriteError> {
        match self.run(sql, params) {
            Err(WriteError::Exists { .. }) => Err(WriteError::Exists { what: what() }),
            other => other.map(drop),
        }
    }
}

fn check_size(what: &str, bytes: usize) -> Result<(), WriteError> {
    match bytes > BODY_BYTES_MAX {
        true => Err(WriteError::TooLarge { what: what.to_owned(), bytes, bytes_max: BODY_BYTES_MAX }),
        false => Ok(()),
    }
}

fn kind(cell: &CellId) -> &'static str {
    match cell {
        CellId::Gate(_) => "gate",
        CellId::Run(_) => "run",
        CellId::Pool => "pool",
        CellId::Environment(_) => "environment",
    }
}

fn act_entry(act: &Act) -> String {
    format!("{{\"act\":{}}}", encode(act))
}

pub(crate) fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: what the store keeps has only types that JSON can hold")
}
