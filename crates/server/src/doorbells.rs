//! Which doorbells are still unheard: a gate whose forge is going to be read anyway need not be rung again.
//!
//! A flood of webhooks would else cost its gate a turn for each batch, all of them to say what the first has said.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use towpath_core::ids::{GateId, Timestamp};

/// The doorbells of all gates that webhooks ring.
#[derive(Debug, Default)]
pub struct Doorbells {
    gates: Mutex<HashMap<GateId, Doorbell>>,
}

#[derive(Debug, Default)]
struct Doorbell {
    /// Reads of its forge that have begun.
    reads: u64,
    /// How many there were before the newest durable ring.
    rung_after: Option<u64>,
}

/// A ring on its way to be durable.
#[derive(Debug)]
pub struct Ring {
    /// Which gate it is for.
    pub gate: GateId,
    reads: u64,
}

impl Doorbells {
    /// A ring of a gate, unless one is durable and no read has begun since: that read will see what this one is about.
    /// Called before the ring's instant is taken.
    pub fn ring(&self, gate: &GateId) -> Option<Ring> {
        let mut gates = self.lock();
        let bell = gates.entry(gate.clone()).or_default();
        let covered = bell.rung_after == Some(bell.reads);
        (!covered).then(|| Ring { gate: gate.clone(), reads: bell.reads })
    }

    /// A ring is durable. If a read has begun since it was made, that read may have been too early for the next webhook.
    pub fn is_durable(&self, ring: Ring) {
        let mut gates = self.lock();
        let bell = gates.entry(ring.gate).or_default();
        bell.rung_after = bell.rung_after.max(Some(ring.reads));
    }

    /// A read of a gate's forge begins, at the instant that `now` says; called before anything is read. No ring comes
    /// between that instant and the count: it would be older than the read, which answers it, and would count as made
    /// after it. What came next would be covered by a ring that nobody hears any more.
    pub fn read_begins(&self, gate: &GateId, now: impl FnOnce() -> Timestamp) -> Timestamp {
        let mut gates = self.lock();
        if let Some(bell) = gates.get_mut(gate) {
            bell.reads += 1;
        }
        now()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GateId, Doorbell>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> GateId {
        GateId { repo: "demo".parse().unwrap(), branch: "main".parse().unwrap() }
    }

    #[test]
    fn a_ring_covers_what_comes_before_the_next_read() {
        let bells = Doorbells::default();
        let first = bells.ring(&gate()).unwrap();
        let second = bells.ring(&gate()).expect("the first is not durable yet");
        bells.is_durable(first);
        assert!(bells.ring(&gate()).is_none());
        bells.read_begins(&gate(), || Timestamp(1));
        assert!(bells.ring(&gate()).is_some(), "the read may have been too early for this one");
        bells.is_durable(second);
        assert!(bells.ring(&gate()).is_some(), "it was made before the read, which has answered it");
    }

    #[test]
    fn a_ring_that_a_read_overtakes_covers_nothing() {
        let bells = Doorbells::default();
        let ring = bells.ring(&gate()).unwrap();
        bells.read_begins(&gate(), || Timestamp(1));
        bells.is_durable(ring);
        assert!(bells.ring(&gate()).is_some());
    }

    #[test]
    fn no_ring_comes_between_a_reads_instant_and_its_count() {
        let bells = Doorbells::default();
        bells.is_durable(bells.ring(&gate()).unwrap());
        let began = bells.read_begins(&gate(), || {
            assert!(bells.gates.try_lock().is_err(), "a ring could be made now");
            Timestamp(7)
        });
        assert_eq!(began, Timestamp(7));
    }

    #[test]
    fn a_ring_that_was_refused_covers_nothing() {
        let bells = Doorbells::default();
        drop(bells.ring(&gate()));
        assert!(bells.ring(&gate()).is_some());
    }
}
