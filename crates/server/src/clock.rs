//! Time for decisions (trust T10): the system's clock as it was when the server started, but never before anything that
//! is already durable, and from there on a steady clock. A wall clock that is set back or forward meanwhile moves nothing:
//! waits neither stand still nor end all at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use towpath_core::ids::Timestamp;
use towpath_store::Writer;

/// The server's clock.
#[derive(Debug, Clone)]
pub struct Clock {
    writer: Writer,
    base: Timestamp,
    /// The steady clock's reading at `base`.
    since: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub fn new(writer: Writer) -> Clock {
        Clock::starting_at(writer, system_time())
    }

    /// A clock that goes on from `start`, or from what `writer` has made durable if that is later.
    fn starting_at(writer: Writer, start: Timestamp) -> Clock {
        let base = writer.time(start);
        Clock { writer, base, since: steady() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let elapsed = steady().saturating_sub(self.since).as_millis();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        self.writer.time(Timestamp(self.base.0.saturating_add(elapsed)))
    }
}

/// The time since the machine started, with the time that it slept: nobody can set it.
fn steady() -> Duration {
    let reading = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(reading.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(reading.tv_nsec).unwrap_or(0))
}

/// The system's reading, in milliseconds since 1970.
pub fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use towpath_store::{Options, Store};

    use super::*;

    #[test]
    fn it_goes_on_where_the_wall_clock_has_been_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(folder.path().join("data"), system_time())).unwrap();
        // As if the system had been a day ahead when the server started, and were right again.
        let start = Timestamp(system_time().0 + 86_400_000);
        let clock = Clock::starting_at(store.writer().clone(), start);
        let first = clock.now();
        assert!(first >= start);
        let deadline = Instant::now() + Duration::from_secs(10);
        while clock.now() == first {
            assert!(Instant::now() < deadline, "it stands still at {first:?}");
            std::hint::spin_loop();
        }
        // Another clock of the same server is never behind it.
        assert!(Clock::new(store.writer().clone()).now() > first);
    }
}
