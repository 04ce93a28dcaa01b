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
    use proptest::prelude::*;
    use towpath_core::gate::Flag;

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

    /// What may happen around a gate, in any order. A number says which of the rings, counted around.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The clock's next millisecond; all else takes no time.
        Tick,
        /// A webhook comes; its ring is on its way unless another one covers it.
        Webhook,
        /// A ring gets its instant.
        Stamped(usize),
        /// A ring is committed, and its webhook answered.
        Committed(usize),
        /// A commit failed, and the webhook's sender is told so.
        Lost(usize),
        /// The doorbells hear that a ring is durable.
        Told(usize),
        /// The gate begins to read its forge: it was rung, or its poll is due.
        ReadBegins,
        /// What it read has come.
        ReadEnds,
    }

    /// A gate as far as its doorbell goes, and what it owes to whoever sent webhooks.
    #[derive(Default)]
    struct Street {
        bells: Doorbells,
        now: i64,
        /// Counts steps: which of two things was first, however coarse the clock is.
        step: usize,
        /// Rings on their way, with the steps of their webhooks and their instants.
        under_way: Vec<(Ring, usize, Option<Timestamp>)>,
        committed: Vec<Ring>,
        flag: Flag,
        /// The read that is under way: its step and its instant.
        reading: Option<(usize, Timestamp)>,
        /// Steps of webhooks that were taken.
        taken: Vec<usize>,
        /// The step at which the newest read began whose answer has come.
        read: usize,
    }

    impl Street {
        fn take(&mut self, step: Step) {
            self.step += 1;
            let (now, many) = (Timestamp(self.now), self.under_way.len());
            match step {
                Step::Tick => self.now += 1,
                Step::Webhook => match self.bells.ring(&gate()) {
                    Some(ring) => self.under_way.push((ring, self.step, None)),
                    None => self.taken.push(self.step),
                },
                Step::Stamped(which) if many > 0 => {
                    self.under_way[which % many].2.get_or_insert(now);
                }
                Step::Committed(which) if many > 0 => {
                    let (ring, webhook, stamped) = self.under_way.remove(which % many);
                    self.flag.set_at = self.flag.set_at.max(Some(stamped.unwrap_or(now)));
                    self.committed.push(ring);
                    self.taken.push(webhook);
                }
                Step::Lost(which) if many > 0 => drop(self.under_way.remove(which % many)),
                Step::Told(which) if !self.committed.is_empty() => {
                    let ring = self.committed.remove(which % self.committed.len());
                    self.bells.is_durable(ring);
                }
                Step::ReadBegins if self.reading.is_none() => {
                    self.reading = Some((self.step, self.bells.read_begins(&gate(), || now)));
                }
                Step::ReadEnds => {
                    let Some((step, began)) = self.reading.take() else { return };
                    self.read = step;
                    self.flag.cleared_before = self.flag.cleared_before.max(Some(began));
                }
                _ => {}
            }
        }

        /// Everything comes to its end: what is on its way arrives, and the gate reads as long as it is rung.
        fn settle(&mut self) {
            for _ in 0..self.under_way.len() {
                self.take(Step::Committed(0));
            }
            self.take(Step::ReadEnds);
            while self.flag.is_set() {
                [Step::Tick, Step::ReadBegins, Step::ReadEnds].into_iter().for_each(|step| self.take(step));
            }
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => Just(Step::Tick),
            4 => Just(Step::Webhook),
            2 => (0..8usize).prop_map(Step::Stamped),
            3 => (0..8usize).prop_map(Step::Committed),
            1 => (0..8usize).prop_map(Step::Lost),
            3 => (0..8usize).prop_map(Step::Told),
            2 => Just(Step::ReadBegins),
            2 => Just(Step::ReadEnds),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        /// A gate that reads whenever it is rung has read after every webhook that was taken, in whatever order rings
        /// become durable and reads begin and end.
        #[test]
        fn every_webhook_that_is_taken_is_followed_by_a_read(steps in steps()) {
            let mut street = Street::default();
            steps.into_iter().for_each(|step| street.take(step));
            street.settle();
            let unread: Vec<_> = street.taken.iter().filter(|webhook| **webhook > street.read).collect();
            prop_assert!(unread.is_empty(), "steps {unread:?}, but the newest read began at {}", street.read);
        }
    }

    #[test]
    fn a_ring_that_was_refused_covers_nothing() {
        let bells = Doorbells::default();
        drop(bells.ring(&gate()));
        assert!(bells.ring(&gate()).is_some());
    }
}
