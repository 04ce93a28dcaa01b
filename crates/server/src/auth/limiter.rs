//! Failed logins are counted, by address and by name: guessing gets slow, and memory stays bounded.
//!
//! A try counts as failed from its beginning, and no longer once it was right. Were it counted only when its password has
//! been compared, as many as are sent at once would all be let in before the first of them counts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// A try that has begun, and counts as failed.
#[derive(Debug)]
#[must_use = "a try that was right has to be said to be"]
pub struct Try {
    keys: Vec<Key>,
    began: Timestamp,
}

impl Limiter {
    /// Begins a try, unless too many failed shortly before. What is not known is not counted: the address behind a proxy,
    /// the name where none belongs to it.
    ///
    /// # Errors
    /// Too many failed shortly before, or have begun and may still fail.
    pub fn begin(&self, address: Option<IpAddr>, name: Option<&str>, now: Timestamp) -> Result<Try, TooMany> {
        let name = name.map(|name| Key::Name(name.to_owned()));
        let keys: Vec<Key> = address.map(Key::Address).into_iter().chain(name).collect();
        let mut counters = self.lock();
        keys.iter().try_for_each(|key| check(&counters, key, now))?;
        make_room(&mut counters, now);
        for key in &keys {
            let counter = counters.entry(key.clone()).or_insert(Counter { since: now, failures: 0 });
            if !counter.is_current(now) {
                *counter = Counter { since: now, failures: 0 };
            }
            counter.failures += 1;
        }
        Ok(Try { keys, began: now })
    }

    /// Takes a try back that was right after all, and forgets what failed for its name. Its address has not earned as much:
    /// whoever has an account of their own would guess at those of others without end.
    pub fn succeeded(&self, right: Try) {
        let mut counters = self.lock();
        for key in right.keys {
            match key {
                Key::Name(_) => drop(counters.remove(&key)),
                Key::Address(_) => {
                    let counted = counters.get_mut(&key).filter(|counter| counter.since <= right.began);
                    counted
                        .into_iter()
                        .for_each(|counter| counter.failures = counter.failures.saturating_sub(1));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Counter>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(counters: &HashMap<Key, Counter>, key: &Key, now: Timestamp) -> Result<(), TooMany> {
    let failures_max = match key {
        Key::Address(_) => FAILURES_PER_ADDRESS_MAX,
        Key::Name(_) => FAILURES_PER_NAME_MAX,
    };
    let counter = counters.get(key).filter(|counter| counter.is_current(now));
    match counter.filter(|counter| counter.failures >= failures_max) {
        None => Ok(()),
        Some(counter) => {
            let left = counter.since.plus_seconds(WINDOW_SECONDS).millis_since(now).div_ceil(1000);
            Err(TooMany { seconds: u32::try_from(left).unwrap_or(WINDOW_SECONDS) })
        }
    }
}

fn make_room(counters: &mut HashMap<Key, Counter>, now: Timestamp) {
    if counters.len() >= COUNTERS_MAX {
        counters.retain(|_, counter| counter.is_current(now));
    }
    if counters.len() >= COUNTERS_MAX {
        counters.clear();
    }
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
            let _ = limiter.begin(HERE, Some("ann"), Timestamp(0)).unwrap();
        }
        let refused = limiter.begin(HERE, Some("bob"), Timestamp(1000)).unwrap_err();
        assert_eq!(refused, TooMany { seconds: 59 });
        assert!(limiter.begin(HERE, Some("ann"), Timestamp(60_000)).is_ok());
    }

    #[test]
    fn a_name_is_guarded_over_all_addresses() {
        let limiter = Limiter::default();
        let from = |last: u32| Some(IpAddr::from([10, 0, 0, last as u8]));
        let mut tries: Vec<Try> = (0..FAILURES_PER_NAME_MAX)
            .map(|last| limiter.begin(from(last), Some("ann"), Timestamp(0)).unwrap())
            .collect();
        assert!(limiter.begin(HERE, Some("ann"), Timestamp(1)).is_err());
        assert!(limiter.begin(HERE, Some("bob"), Timestamp(1)).is_ok());
        // One of them was right: the others, also those that have not been compared yet, keep nobody out.
        limiter.succeeded(tries.remove(0));
        assert!(limiter.begin(HERE, Some("ann"), Timestamp(1)).is_ok());
    }

    #[test]
    fn tries_at_once_are_no_more_than_one_after_another() {
        let limiter = Limiter::default();
        let begun = (0..1000).filter_map(|_| limiter.begin(HERE, Some("ann"), Timestamp(0)).ok());
        assert_eq!(begun.collect::<Vec<_>>().len() as u32, FAILURES_PER_ADDRESS_MAX);
    }

    #[test]
    fn whoever_is_right_is_not_counted_and_clears_no_address() {
        let limiter = Limiter::default();
        for _ in 0..10 * FAILURES_PER_NAME_MAX {
            limiter.succeeded(limiter.begin(HERE, Some("ann"), Timestamp(0)).unwrap());
        }
        for _ in 0..FAILURES_PER_ADDRESS_MAX - 1 {
            let _ = limiter.begin(HERE, Some("bob"), Timestamp(0)).unwrap();
            limiter.succeeded(limiter.begin(HERE, Some("ann"), Timestamp(0)).unwrap());
        }
        let last = limiter.begin(HERE, None, Timestamp(0)).unwrap();
        assert!(limiter.begin(HERE, Some("ann"), Timestamp(0)).is_err());
        // What was counted in a window that has passed is not taken back from the next one.
        for _ in 0..FAILURES_PER_ADDRESS_MAX {
            let _ = limiter.begin(HERE, None, Timestamp(60_000)).unwrap();
        }
        limiter.succeeded(last);
        assert!(limiter.begin(HERE, None, Timestamp(60_000)).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        for name in 0..3 * COUNTERS_MAX {
            let _ = limiter.begin(None, Some(&name.to_string()), Timestamp(0)).unwrap();
        }
        assert!(limiter.lock().len() <= COUNTERS_MAX + 1);
    }
}
