//! The way to the writer thread: units of work in, answers out after the commit.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use towpath_core::ids::Timestamp;
use towpath_core::turn::WriteSet;

use crate::audit::AuditKey;
use crate::audit::note::SignedCheckpoint;
use crate::error::WriteError;
use crate::queue::{Durable, Load, Purpose, Queue, Queued, Unit};
use crate::tx::{Committed, Delivery, EncodedTurn, Placed, Tx};

/// Hands units of work to the writer thread. Cheap to clone.
///
/// The thread takes everything that waits, gives each unit a savepoint, commits once with `synchronous=FULL`, and only
/// then tells each unit's outcome. A unit that is refused leaves no trace and harms no other; should one that has no
/// savepoint break its word, the others of its group are told to try again, and it happens once. Callbacks run on the
/// writer thread, in the order of the units: they hand the outcome on and do nothing else.
#[derive(Clone)]
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// What the thread and its callers share.
#[derive(Default)]
pub(crate) struct Shared {
    pub queue: Queue,
    pub health: Mutex<Health>,
    pub time_high: AtomicI64,
    /// The newest checkpoint that is outside the data folder, if they are to be.
    witnessed: Mutex<Option<SignedCheckpoint>>,
    /// Hears of the first reason to stop landing.
    stopped: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What is wrong with the store, if anything. Every field at its default means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The disk is full: ordinary units are refused, those with [`Purpose::Reserve`] are taken.
    pub full: bool,
    /// The disk failed to confirm a write. Nothing may land until a restart has looked at what is there.
    pub landing_stopped: Option<String>,
    /// The newest checkpoint could not be put outside the data folder; it is tried again with the next one.
    pub sink_trouble: Option<String>,
    /// The database's log file could not be folded in; it is tried again.
    pub fold_trouble: Option<String>,
}

impl Shared {
    pub fn health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        change(&mut self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn set_witnessed(&self, note: SignedCheckpoint) {
        *self.witnessed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(note);
    }

    /// The first reason stays: what follows from it says less.
    pub fn stop_landing(&self, why: &str) {
        let first = self.health(|health| {
            let first = health.landing_stopped.is_none();
            health.landing_stopped.get_or_insert_with(|| why.to_owned());
            first
        });
        let listener = self.stopped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(listener) = listener.filter(|_| first) {
            listener();
        }
    }
}

impl Writer {
    /// Runs `work` in the next group's transaction; `done` hears its outcome after the commit, or why there was none.
    pub fn submit<T, W, D>(&self, load: Load, work: W, done: D)
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
        D: FnOnce(Result<T, WriteError>) + Send + 'static,
    {
        self.push(load, Box::new(Work { work: Some(work), value: None, done }));
    }

    /// [`Writer::submit`] that waits. Not for async code.
    ///
    /// # Errors
    /// Those of `work` and of the commit.
    pub fn write<T, W>(&self, work: W) -> Result<T, WriteError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
    {
        self.wait(|done| self.submit(Load::default(), work, done))
    }

    /// Commits one turn.
    pub fn commit<D>(&self, write: WriteSet, done: D)
    where
        D: FnOnce(Result<Committed, WriteError>) + Send + 'static,
    {
        let turn = EncodedTurn::from(write);
        self.submit(Load::bytes(turn.bytes()).refused_first(), move |tx| tx.turn(&turn), done);
    }

    /// Puts several things into inboxes, all or none; the result is their places, in their order.
    pub fn deliver<D>(&self, deliveries: Vec<Delivery>, done: D)
    where
        D: FnOnce(Result<Vec<Placed>, WriteError>) + Send + 'static,
    {
        let bytes = deliveries.iter().map(Delivery::bytes).sum();
        let work = move |tx: &mut Tx<'_>| deliveries.iter().map(|one| tx.deliver(one)).collect();
        self.submit(Load::bytes(bytes), work, done);
    }

    /// Makes a signed checkpoint over everything committed so far, without waiting for its turn. [`WriteError::Unwitnessed`]: it
    /// could not be put outside the data folder, and is for nobody yet.
    pub fn seal<D>(&self, done: D)
    where
        D: FnOnce(Result<SignedCheckpoint, WriteError>) + Send + 'static,
    {
        self.push(Load { purpose: Purpose::Reserve, ..Load::default() }, Box::new(Seal { done }));
    }

    /// The newest checkpoint that this server has put outside the data folder, or found there: what it may hand out. After a
    /// restore one that is not there would contradict the record for ever.
    pub fn witnessed(&self) -> Option<SignedCheckpoint> {
        self.shared.witnessed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Lets another key sign from here on; a leaf signed by both says so. Keep the old key's public half: it still
    /// verifies what it signed.
    pub fn rotate_key<D>(&self, key: AuditKey, at: Timestamp, done: D)
    where
        D: FnOnce(Result<u64, WriteError>) + Send + 'static,
    {
        let key = Arc::new(key);
        self.submit(Load::default(), move |tx| tx.log.rotate(at, key), done);
    }

    /// The time for decisions: the clock's reading, but never before anything durable (trust T10).
    pub fn time(&self, reading: Timestamp) -> Timestamp {
        let high = self.shared.time_high.fetch_max(reading.0, Ordering::Relaxed);
        reading.max(Timestamp(high))
    }

    /// What is wrong, if anything.
    pub fn health(&self) -> Health {
        self.shared.health(|health| health.clone())
    }

    /// Stops all landing until the next start: the disk has not confirmed something that a landing stands on, in the
    /// database or outside of it. The kernel says so once; to ask again would hide it (trust S9).
    pub fn stop_landing(&self, why: &str) {
        self.shared.stop_landing(why);
    }

    /// Calls `hear` once landing is stopped, on the thread that found out; at once if it is stopped already.
    pub fn when_landing_stops(&self, hear: impl FnOnce() + Send + 'static) {
        let mut stopped = self.shared.stopped.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.health().landing_stopped.is_none() {
            *stopped = Some(Box::new(hear));
            return;
        }
        drop(stopped);
        hear();
    }

    pub(crate) fn wait<T: Send + 'static>(
        &self,
        start: impl FnOnce(Box<dyn FnOnce(Result<T, WriteError>) + Send>),
    ) -> Result<T, WriteError> {
        let (send, receive) = mpsc::sync_channel(1);
        start(Box::new(move |outcome| {
            // A caller that no longer waits needs no answer.
            let _ = send.send(outcome);
        }));
        receive.recv().unwrap_or(Err(WriteError::Closed))
    }

    fn push(&self, load: Load, unit: Box<dyn Unit>) {
        if let Err((queued, why)) = self.shared.queue.push(Queued { load, unit }) {
            queued.unit.finish(Err(why));
        }
    }
}

struct Work<T, W, D> {
    work: Option<W>,
    value: Option<T>,
    done: D,
}

impl<T, W, D> Unit for Work<T, W, D>
where
    T: Send,
    W: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send,
    D: FnOnce(Result<T, WriteError>) + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), WriteError> {
        let work = self.work.take().expect("invariant: a unit runs once");
        self.value = Some(work(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<&Durable, WriteError>) {
        let value = self.value;
        (self.done)(outcome.map(|_| value.expect("invariant: a committed unit has run")));
    }
}

struct Seal<D> {
    done: D,
}

impl<D: FnOnce(Result<SignedCheckpoint, WriteError>) + Send> Unit for Seal<D> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), WriteError> {
        match tx.log.can_sign() {
            true => Ok(()),
            false => Err(WriteError::Missing { what: "an audit key".into() }),
        }
    }

    fn finish(self: Box<Self>, outcome: Result<&Durable, WriteError>) {
        (self.done)(outcome.and_then(|durable| match durable.unwitnessed.clone() {
            Some(why) => Err(WriteError::Unwitnessed { why }),
            None => {
                Ok(durable.note.clone().expect("invariant: a group that holds a seal makes a checkpoint"))
            }
        }));
    }

    fn wants_seal(&self) -> bool {
        true
    }
}
