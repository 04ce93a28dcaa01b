//! Units of work on their way to the writer thread: bounded, and handed over in groups.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::WriteError;
use crate::tx::Tx;

/// Units in one transaction at most: bounds the latency of the first and what one failing disk write can fail.
pub(crate) const GROUP_UNITS_MAX: usize = 1024;
/// Bytes in one transaction at most, a single larger unit excepted.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Units that wait at most; more are refused as [`WriteError::Busy`] (invariant I15).
pub(crate) const WAITING_UNITS_MAX: usize = 65_536;
/// Bytes that wait at most.
pub(crate) const WAITING_BYTES_MAX: usize = 256 << 20;

/// What a unit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// Refused while the disk is full.
    #[default]
    Ordinary,
    /// Audit, freeze and shutdown: may use the reserve on a full disk (invariant I15). A unit that meets the full disk
    /// first fails like the ones beside it; the next try finds the reserve.
    Reserve,
}

/// How a unit that is refused is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Undo {
    /// By a savepoint of its own: it may be refused wherever it is.
    #[default]
    Savepoint,
    /// It need not be: it is refused before it writes or never, as turns and deliveries are. Of thousands a second, a
    /// tenth of the writer's time is saved (measured). One that is refused after it wrote takes its group with it, once:
    /// the others are [`WriteError::Undone`], and from then on every unit has a savepoint.
    Nothing,
}

/// How much a unit weighs, what it is for, and how it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Bytes that it will write, roughly.
    pub bytes: usize,
    /// What it is for.
    pub purpose: Purpose,
    /// What happens to what it wrote if it is refused.
    pub undo: Undo,
}

impl Load {
    /// An ordinary unit.
    pub fn bytes(bytes: usize) -> Load {
        Load { bytes, ..Load::default() }
    }

    /// The same of a unit that is refused before it writes or never.
    pub fn refused_first(self) -> Load {
        Load { undo: Undo::Nothing, ..self }
    }
}

/// What the writer does for a unit, and whom it tells.
pub(crate) trait Unit: Send {
    /// Does the work in a savepoint. Called at most once.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), WriteError>;
    /// Tells the outcome, after the commit. Called exactly once, also for a unit that never ran.
    fn finish(self: Box<Self>, outcome: Result<&Durable, WriteError>);
    /// Whether the group is to end with a signed checkpoint.
    fn wants_seal(&self) -> bool {
        false
    }
}

/// What a group left beside its units' own results.
#[derive(Debug, Clone, Default)]
pub(crate) struct Durable {
    /// The signed checkpoint, if one was made.
    pub note: Option<crate::audit::note::SignedCheckpoint>,
    /// Why it is not outside the data folder.
    pub unwitnessed: Option<String>,
}

pub(crate) struct Queued {
    pub load: Load,
    pub unit: Box<dyn Unit>,
}

/// What the writer found in the queue.
pub(crate) enum Taken {
    Group(Vec<Queued>),
    /// The deadline passed.
    Nothing,
    /// Nothing waits and nothing more will come.
    Closed,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Queued>,
    bytes: usize,
    closed: bool,
    /// How many units the writer sleeps for; `None` while it is at work, and need not be woken.
    wanted: Option<usize>,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// Puts a unit at the end, or gives it back with the reason.
    pub fn push(&self, queued: Queued) -> Result<(), (Queued, WriteError)> {
        let mut state = self.lock();
        if state.closed {
            return Err((queued, WriteError::Closed));
        }
        let full = state.waiting.len() >= WAITING_UNITS_MAX || state.bytes >= WAITING_BYTES_MAX;
        if full && queued.load.purpose == Purpose::Ordinary {
            return Err((queued, WriteError::Busy));
        }
        state.bytes += queued.load.bytes;
        state.waiting.push_back(queued);
        let is_enough = state.wanted.is_some_and(|wanted| state.waiting.len() >= wanted);
        drop(state);
        if is_enough {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until so many units wait, but not longer than `patience`.
    pub fn gather(&self, wanted: usize, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        while !state.closed && state.waiting.len() < wanted {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.doze(state, wanted, Some(left));
        }
    }

    /// Takes what waits, up to a group's bounds; waits for something until `deadline`.
    pub fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Taken::Nothing;
            }
            state = self.doze(state, 1, left);
        }
        Taken::Group(state.next_group())
    }

    /// Accepts nothing more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Closes and takes everything that is left, when the writer is gone.
    pub fn abandon(&self) -> Vec<Queued> {
        self.close();
        self.lock().waiting.drain(..).collect()
    }

    fn doze<'q>(
        &'q self,
        mut state: MutexGuard<'q, State>,
        wanted: usize,
        left: Option<Duration>,
    ) -> MutexGuard<'q, State> {
        state.wanted = Some(wanted);
        let mut state = match left {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.wanted = None;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a caller runs under this lock, so a poisoned one holds a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_group(&mut self) -> Vec<Queued> {
        let mut bytes = 0;
        let within = |queued: &&Queued| {
            bytes += queued.load.bytes;
            bytes <= GROUP_BYTES_MAX
        };
        let count = self.waiting.iter().take(GROUP_UNITS_MAX).take_while(within).count().max(1);
        let group: Vec<Queued> = self.waiting.drain(..count.min(self.waiting.len())).collect();
        self.bytes -= group.iter().map(|queued| queued.load.bytes).sum::<usize>();
        group
    }
}
