//! Work that only a few may be at, each in a thread of its own.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many turns at once, shared by whoever asks.
pub(super) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub const fn new(at_once: usize) -> Turns {
        Turns { free: Mutex::new(at_once), freed: Condvar::new() }
    }

    /// Waits for a turn; `None`: there was none in time.
    pub fn take(&self, patience: Duration) -> Option<Turn<'_>> {
        let waited = self.freed.wait_timeout_while(self.lock(), patience, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For a turn that is free by then.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn so_many_have_a_turn_and_who_waits_gets_the_next() {
        let turns = Turns::new(2);
        let first = turns.take(Duration::ZERO).unwrap();
        let _second = turns.take(Duration::ZERO).unwrap();
        assert!(turns.take(Duration::ZERO).is_none());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| turns.take(PATIENCE).is_some());
            drop(first);
            assert!(waits.join().unwrap());
        });
        assert!(turns.take(Duration::ZERO).is_some(), "what was given back is there again");
    }
}
