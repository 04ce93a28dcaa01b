//! How long the other end of a connection is waited for, whether it has to send or to read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connections::Connections;

/// Silence after which a connection is given up (B12).
pub const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// The same of whoever sends the body of an ordinary request: it is small, and no person types it meanwhile.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// The same of everybody while places for connections are scarce: a silence keeps others out then.
pub const SCARCE_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes a second that the other end has to keep up with over a longer time. Source: the slowest mobile networks have 5 times
/// that.
const BYTES_PER_SECOND_MIN: u64 = 1 << 10;

/// How much longer the other end is waited for: a silence uses it up, and what passes makes up for it. Only silences count, as
/// the other end waits for us, too.
#[derive(Debug)]
pub struct Patience {
    /// While there are places.
    ordinary: Budget,
    /// While they are scarce. It is kept beside the other, so that a scarce moment leaves that as it was.
    scarce: Budget,
    silent_since: Option<Instant>,
    /// When a silence that goes on is looked at.
    look: Option<Pin<Box<Sleep>>>,
    connections: Arc<Connections>,
}

impl Patience {
    /// Patience with an end that may be silent for `full`.
    pub fn new(full: Duration, connections: Arc<Connections>) -> Patience {
        let (ordinary, scarce) = (Budget::new(full), Budget::new(full.min(SCARCE_DEADLINE)));
        Patience { ordinary, scarce, silent_since: None, look: None, connections }
    }

    /// The other end is silent; ready once it has been for too long.
    pub fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.silent_since.get_or_insert_with(Instant::now);
        loop {
            let left = self.left().saturating_sub(self.silence());
            if left.is_zero() {
                return Poll::Ready(());
            }
            // Places may get scarce meanwhile.
            let next = Instant::now() + left.min(SCARCE_DEADLINE);
            let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            ready!(look.as_mut().poll(context));
            self.look = None;
        }
    }

    /// So many bytes have passed, which ends a silence.
    pub fn passed(&mut self, bytes: usize) {
        let silence = self.silence();
        self.ordinary.settle(silence, bytes);
        self.scarce.settle(silence, bytes);
        (self.silent_since, self.look) = (None, None);
    }

    fn left(&self) -> Duration {
        match self.connections.are_scarce() {
            true => self.scarce.left,
            false => self.ordinary.left,
        }
    }

    fn silence(&self) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Time for silences.
#[derive(Debug)]
struct Budget {
    full: Duration,
    left: Duration,
}

impl Budget {
    fn new(full: Duration) -> Budget {
        Budget { full, left: full }
    }

    /// A silence was ended by so many bytes.
    fn settle(&mut self, silence: Duration, bytes: usize) {
        let earned = Duration::from_millis(bytes as u64 * 1000 / BYTES_PER_SECOND_MIN);
        self.left = (self.left.saturating_sub(silence) + earned).min(self.full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_trickles_is_given_up_and_a_slow_one_is_not() {
        let second = Duration::from_secs(1);
        let kept = |full: Duration, silence: Duration, bytes: usize| {
            let mut budget = Budget::new(full);
            (0..10_000).all(|_| {
                budget.settle(silence, bytes);
                budget.left > silence
            })
        };
        assert!(!kept(IDLE_DEADLINE, 10 * second, 1));
        assert!(!kept(IDLE_DEADLINE, second, 500));
        assert!(!kept(BODY_DEADLINE, 3 * second, 1));
        assert!(kept(IDLE_DEADLINE, second, 2000));
        assert!(kept(IDLE_DEADLINE, 20 * second, 64 << 10));
        // A long push earns no more than it had to begin with.
        let mut budget = Budget::new(IDLE_DEADLINE);
        budget.settle(second, 1 << 30);
        assert_eq!(budget.left, IDLE_DEADLINE);
    }

    #[test]
    fn a_silence_ends_sooner_while_places_are_scarce() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let connections = Arc::new(Connections::at_most(1));
        let place = runtime.block_on(connections.place()).unwrap();
        let mut patience = Patience::new(IDLE_DEADLINE, connections.clone());
        assert_eq!(patience.left(), SCARCE_DEADLINE);
        // What passes in a scarce moment costs nobody what they have in others.
        patience.passed(1);
        drop(place);
        assert_eq!(patience.left(), IDLE_DEADLINE);
        // A silence that is broken in time is none any more, and whoever has no patience left waits no longer.
        let poll = |patience: &mut Patience| {
            let over = std::future::poll_fn(|context| Poll::Ready(patience.poll_over(context)));
            runtime.block_on(over)
        };
        assert!(poll(&mut patience).is_pending());
        patience.passed(1);
        assert_eq!(patience.silence(), Duration::ZERO);
        patience.ordinary.left = Duration::ZERO;
        assert!(poll(&mut patience).is_ready());
    }
}
