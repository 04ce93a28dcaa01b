//! Failed logins are counted, by address and by name: guessing gets slow, and memory stays bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use towpath_core::ids::Timestamp;

/// Seconds over which failures are counted.
const WINDOW_SECONDS: u32 = 60;
/// Failures from one address within the window.
const FAILURES_PER_ADDRESS_MAX: u32 = 10;
/// Failures for one name within the window, from wherever: more than a person with thick fingers makes.
const FAILURES_PER_NAME_MAX: u32 = 20;
/// Counters kept. When there are more, the oldest go; an attacker with more addresses than this is not stopped here.
const COUNTERS_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Name(String),
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    since: Timestamp,
    failures: u32,
}

/// Counts failed logins.
#[derive(Debug, Default)]
pub struct Limiter {
    counters: Mutex<HashMap<Key, Counter>>,
}

/// Too many failures; try again after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Seconds to wait.
    pub seconds: u32,
}

impl Limiter {
    /// Whether another try may be made now. What is not known is not counted: the address behind a proxy, the name where
    /// none belongs to it.
    ///
    /// # Errors
    /// Too many failed shortly before.
    pub fn check(&self, address: Option<IpAddr>, name: Option<&str>, now: Timestamp) -> Result<(), TooMany> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys(address, name) {
            let failures_max = match key {
                Key::Address(_) => FAILURES_PER_ADDRESS_MAX,
                Key::Name(_) => FAILURES_PER_NAME_MAX,
            };
            let counter = counters.get(&key).filter(|counter| counter.is_current(now));
            if let Some(counter) = counter.filter(|counter| counter.failures >= failures_max) {
                let left = counter.since.plus_seconds(WINDOW_SECONDS).millis_since(now).div_ceil(1000);
                return Err(TooMany { seconds: u32::try_from(left).unwrap_or(WINDOW_SECONDS) });
            }
        }
        Ok(())
    }

    /// Counts a failure.
    pub fn failed(&self, address: Option<IpAddr>, name: Option<&str>, now: Timestamp) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() >= COUNTERS_MAX {
            counters.retain(|_, counter| counter.is_current(now));
        }
        if counters.len() >= COUNTERS_MAX {
            counters.clear();
        }
        for key in keys(address, name) {
            let counter = counters.entry(key).or_insert(Counter { since: now, failures: 0 });
            if !counter.is_current(now) {
                *counter = Counter { since: now, failures: 0 };
            }
            counter.failures += 1;
        }
    }

    /// Forgets a name's failures after it has logged in.
    pub fn succeeded(&self, name: &str) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.remove(&Key::Name(name.to_owned()));
    }
}

fn keys(address: Option<IpAddr>, name: Option<&str>) -> impl Iterator<Item = Key> {
    let name = name.map(|name| Key::Name(name.to_owned()));
    address.map(Key::Address).into_iter().chain(name)
}

impl Counter {
    fn is_current(&self, now: Timestamp) -> bool {
        now < self.since.plus_seconds(WINDOW_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn guessing_is_stopped_and_the_window_passes() {
        let limiter = Limiter::default();
        for _ in 0..FAILURES_PER_ADDRESS_MAX {
            assert_eq!(limiter.check(HERE, Some("ann"), Timestamp(0)), Ok(()));
            limiter.failed(HERE, Some("ann"), Timestamp(0));
        }
        assert_eq!(limiter.check(HERE, Some("bob"), Timestamp(1000)), Err(TooMany { seconds: 59 }));
        assert_eq!(limiter.check(HERE, Some("ann"), Timestamp(60_000)), Ok(()));
    }

    #[test]
    fn a_name_is_guarded_over_all_addresses() {
        let limiter = Limiter::default();
        for last in 0..FAILURES_PER_NAME_MAX {
            limiter.failed(Some(IpAddr::from([10, 0, 0, last as u8])), Some("ann"), Timestamp(0));
        }
        assert!(limiter.check(HERE, Some("ann"), Timestamp(1)).is_err());
        limiter.succeeded("ann");
        assert!(limiter.check(HERE, Some("ann"), Timestamp(1)).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        for name in 0..3 * COUNTERS_MAX {
            limiter.failed(HERE, Some(&name.to_string()), Timestamp(0));
        }
        assert!(limiter.counters.lock().unwrap().len() <= COUNTERS_MAX + 1);
    }
}
