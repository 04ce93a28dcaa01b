//! The writer thread: group commit, and what has to be done between groups.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::params;
use towpath_core::ids::Epoch;

use crate::audit::log::Log;
use crate::audit::sink::Sink;
use crate::error::{ReadError, WriteError};
use crate::folder::{DataFolder, Mark};
use crate::queue::{Durable, Purpose, Queued, Taken, Undo};
use crate::room::Room;
use crate::tx::{Marks, Tx};
use crate::view::{View, get_u64};
use crate::wal::Wal;
use crate::writer::Shared;

/// From the first leaf after a checkpoint to the next checkpoint. Half of the second that invariant I8 allows.
const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// From a checkpoint that could not be put outside of the data folder to the next try.
const SETTLE_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Units in one group from which on many cells are at work, so that what follows from this group is worth waiting for.
const CROWD_UNITS_MIN: usize = 8;

/// How long most of the answers of a crowded group may take to come back as the next one. Each group writes the same few
/// pages again and syncs: with twice the units in it, each costs hardly more than half (measured).
const GATHER: Duration = Duration::from_millis(2);

/// Everything that the writer thread owns.
pub(crate) struct WriterThread {
    pub view: View,
    pub log: Log,
    pub marks: Marks,
    pub incarnation: String,
    pub shared: Arc<Shared>,
    pub sink: Option<Sink>,
    pub room: Room,
    pub wal: Wal,
    /// When leaves that no checkpoint covers must have one.
    pub settle_at: Option<Instant>,
    /// A unit has broken its word to be refused before it writes: there is a bug in this program, and whoever it met will
    /// try again, with others in its group again. From now on nobody is taken at their word.
    pub distrusts: bool,
    /// Last, so that its lock outlives every connection to what is inside.
    pub folder: DataFolder,
}

/// What came of one unit.
enum Ran {
    /// It is in the transaction, or was refused and left nothing in it.
    Settled(Option<WriteError>),
    /// It was refused for this reason, and what it wrote cannot be taken back alone.
    BrokeItsWord(WriteError),
}

/// Refuses what is still waiting when the thread ends, however it ends.
struct Abandon(Arc<Shared>);

impl Drop for Abandon {
    fn drop(&mut self) {
        for queued in self.0.queue.abandon() {
            queued.unit.finish(Err(WriteError::Closed));
        }
    }
}

impl WriterThread {
    /// Serves the queue until it is closed and empty.
    pub fn serve(mut self) {
        let abandon = Abandon(Arc::clone(&self.shared));
        loop {
            match abandon.0.queue.take(self.deadline()) {
                Taken::Group(units) => {
                    let count = units.len();
                    self.group(units);
                    if count >= CROWD_UNITS_MIN {
                        abandon.0.queue.gather(count * 3 / 4, GATHER);
                    }
                }
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            self.between_groups();
        }
        if self.settle_at.is_some() {
            self.transact(Vec::new(), true);
        }
        let folded = self.wal.finish(&self.view);
        self.note_fold(folded);
    }

    fn deadline(&self) -> Option<Instant> {
        [self.settle_at, self.wal.due_at(), self.room.look_again_at()].into_iter().flatten().min()
    }

    fn between_groups(&mut self) {
        let now = Instant::now();
        if self.settle_at.is_some_and(|at| at <= now) {
            self.transact(Vec::new(), true);
        }
        if let Some(folded) = self.wal.look_after(&self.view) {
            self.note_fold(folded);
        }
        if self.room.look_again_at().is_some_and(|at| at <= now) {
            let full = !self.room.regain(&self.view, &self.folder);
            self.shared.health(|health| health.full = full);
        }
    }

    fn note_fold(&self, folded: Result<(), ReadError>) {
        self.shared.health(|health| health.fold_trouble = folded.err().map(|why| why.to_string()));
    }

    fn group(&mut self, units: Vec<Queued>) {
        let full = self.room.is_full();
        let allowed = |queued: &Queued| !full || queued.load.purpose == Purpose::Reserve;
        let (units, refused): (Vec<_>, Vec<_>) = units.into_iter().partition(allowed);
        refused.into_iter().for_each(|queued| finish(queued, Err(WriteError::Full)));
        if !units.is_empty() {
            let seal = units.iter().any(|queued| queued.unit.wants_seal());
            self.transact(units, seal);
        }
    }

    /// One transaction, then the answers.
    fn transact(&mut self, mut units: Vec<Queued>, seal: bool) {
        let mut marks = self.marks;
        let mut refusals = Vec::new();
        let mut broke_word = None;
        let outcome = self.begin().and_then(|()| {
            for (at, queued) in units.iter_mut().enumerate() {
                match self.savepoint(queued, &mut marks)? {
                    Ran::Settled(refusal) => refusals.push(refusal),
                    Ran::BrokeItsWord(why) => {
                        broke_word = Some((at, why));
                        return Err(WriteError::Undone);
                    }
                }
            }
            self.finish_group(&marks, seal)
        });
        match outcome {
            Ok(mut durable) => {
                self.marks = marks;
                self.shared.time_high.fetch_max(marks.time_high.0, Ordering::Relaxed);
                self.wal.wrote();
                if seal {
                    self.settle(&mut durable);
                }
                answer(units, refusals, &durable);
            }
            Err(why) => {
                if self.settle_at.is_some() {
                    self.settle_at = Some(Instant::now() + SETTLE_AFTER);
                }
                self.roll_back(&why);
                self.distrusts |= broke_word.is_some();
                for (at, queued) in units.into_iter().enumerate() {
                    let own = broke_word.as_ref().filter(|(culprit, _)| *culprit == at);
                    let why = own.map_or(&why, |(_, why)| why);
                    finish(queued, Err(why.clone()));
                }
            }
        }
    }

    fn begin(&mut self) -> Result<(), WriteError> {
        self.view.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let epoch = self.view.one("SELECT epoch FROM meta", [], |row| get_u64(row, 0))?;
        let by = Epoch(epoch.unwrap_or_default());
        match by > self.marks.epoch {
            true => Err(WriteError::Fenced { what: "server".into(), by }),
            false => Ok(()),
        }
    }

    /// Runs one unit. `Err` means that the disk has lost the whole transaction.
    fn savepoint(&mut self, queued: &mut Queued, marks: &mut Marks) -> Result<Ran, WriteError> {
        let undo = if self.distrusts { Undo::Savepoint } else { queued.load.undo };
        if undo == Undo::Savepoint {
            self.statement("SAVEPOINT unit")?;
        }
        let (before, leaves, changes) = (*marks, self.log.size(), self.view.conn.total_changes());
        let mut tx = Tx { view: &self.view, log: &mut self.log, marks, shared: &self.shared };
        let ran = catch_unwind(AssertUnwindSafe(|| queued.unit.run(&mut tx)));
        let ran = ran.unwrap_or_else(|panic| Err(WriteError::Bug { why: panic_text(&*panic) }));
        if self.view.conn.is_autocommit() {
            // SQLite gives up a whole transaction on a full disk and on I/O errors, whatever the unit made of it.
            let lost = || WriteError::Io { why: "the transaction was given up".into() };
            return Err(ran.err().unwrap_or_else(lost));
        }
        if undo == Undo::Savepoint {
            if ran.is_err() {
                self.statement("ROLLBACK TO unit")?;
            }
            self.statement("RELEASE unit")?;
        }
        let Err(why) = ran else { return Ok(Ran::Settled(None)) };
        if why.is_of_the_disk() {
            return Err(why);
        }
        let has_written = self.view.conn.total_changes() != changes;
        if undo == Undo::Nothing && has_written && matches!(why, WriteError::Fenced { .. }) {
            // Another server has a cell of it: this one is over, and nothing that it still writes may count.
            return Err(why);
        }
        if undo == Undo::Nothing && has_written {
            let why = format!("it was refused after it had written: {why}");
            return Ok(Ran::BrokeItsWord(WriteError::Bug { why }));
        }
        *marks = before;
        self.log.truncate(leaves);
        Ok(Ran::Settled(Some(why)))
    }

    fn statement(&self, sql: &str) -> Result<(), WriteError> {
        self.view.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn finish_group(&mut self, marks: &Marks, seal: bool) -> Result<Durable, WriteError> {
        let frontier = self.log.flush(&self.view)?;
        let note = match seal && self.log.can_sign() {
            true => Some(self.log.seal(&self.view, &frontier)?),
            false => None,
        };
        if *marks != self.marks {
            const SQL: &str = "UPDATE meta SET inbox_seq = ?1, time_high = ?2";
            let values = params![marks.inbox_seq as i64, marks.time_high.0];
            self.view.conn.prepare_cached(SQL)?.execute(values)?;
        }
        self.statement("COMMIT")?;
        if frontier.size() > self.log.committed_size() {
            let due = Instant::now() + SETTLE_AFTER;
            self.settle_at = Some(self.settle_at.map_or(due, |at| at.min(due)));
        }
        self.log.committed(frontier);
        Ok(Durable { note, unwitnessed: None })
    }

    /// What may happen only once the group is durable, before whoever wants its checkpoint has it: one that somebody holds and
    /// that is not outside is a finding after a restore, as nothing there tells of its life. The mark may be behind the truth by
    /// a checkpoint's interval: it is there to find rollbacks of hours.
    fn settle(&mut self, durable: &mut Durable) {
        let appended = match (&durable.note, &self.sink) {
            (Some(note), Some(sink)) => sink.append(note).map_err(|why| why.to_string()),
            _ => Ok(()),
        };
        durable.unwitnessed = appended.clone().err();
        if let (Some(note), Ok(())) = (&durable.note, &appended) {
            self.shared.set_witnessed(note.clone());
        }
        let marked = self.folder.set_mark(&self.mark()).map_err(|why| why.to_string());
        let trouble = appended.and(marked).err();
        // Also where no leaf comes: what is outside is all that tells of these after a loss.
        self.settle_at = trouble.as_ref().map(|_| Instant::now() + SETTLE_AGAIN_AFTER);
        self.shared.health(|health| health.sink_trouble = trouble);
    }

    fn mark(&self) -> Mark {
        Mark {
            incarnation: self.incarnation.clone(),
            epoch: self.marks.epoch.0,
            leaves: self.log.committed_size(),
        }
    }

    fn roll_back(&mut self, why: &WriteError) {
        if !self.view.conn.is_autocommit() {
            // Nothing to do about a failure: closing the transaction is all that is left, and the next BEGIN will tell.
            let _ = self.statement("ROLLBACK");
        }
        self.log.rolled_back();
        match why {
            WriteError::Full => {
                self.room.lost(&self.view, &self.folder);
                self.shared.health(|health| health.full = true);
            }
            WriteError::Unsynced { why } => {
                self.shared.stop_landing(why);
            }
            _ => {}
        }
    }
}

fn answer(units: Vec<Queued>, refusals: Vec<Option<WriteError>>, durable: &Durable) {
    for (queued, refusal) in units.into_iter().zip(refusals) {
        finish(queued, refusal.map_or(Ok(durable), Err));
    }
}

/// A callback that panics harms nobody else.
fn finish(queued: Queued, outcome: Result<&Durable, WriteError>) {
    // The panic itself was reported by the panic hook.
    let _ = catch_unwind(AssertUnwindSafe(|| queued.unit.finish(outcome)));
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a text"))
}
