//! Failed logins are counted, by address and by name: guessing gets slow, and memory stays bounded.
//!
//! A try counts as failed from its beginning, and no longer once it was right. Were it counted only when its password has
//! been compared, as many as are sent at once would all be let in before the first of them counts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use towpath_core::ids::Timestamp;

use super::accounts::is_user_name;

/// Seconds over which failures are counted.
const WINDOW_SECONDS: u32 = 60;
/// Failures from one address within the window.
const FAILURES_PER_ADDRESS_MAX: u32 = 10;
/// Failures for one name within the window, from wherever: more than a person with thick fingers makes.
const FAILURES_PER_NAME_MAX: u32 = 20;
/// Counters kept. When there are more, those of the fewest failures go; an attacker with more addresses than this is not stopped
/// here.
const COUNTERS_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Name(String),
    /// Names that nobody can have: there is nothing to tell them apart for, and they have any length.
    Nobodys,
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    since: Timestamp,
    failures: u32,
}

/// Counts failed logins.
#[derive(Debug, Default)]
pub struct Limiter {
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    counters: HashMap<Key, Counter>,
    /// When those whose window had passed were last forgotten.
    cleaned_at: Timestamp,
}

impl Default for Counted {
    fn default() -> Counted {
        Counted { counters: HashMap::new(), cleaned_at: Timestamp(0) }
    }
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
        let name = name.map(Key::of_name);
        let keys: Vec<Key> = address.map(Key::Address).into_iter().chain(name).collect();
        let mut counted = self.lock();
        keys.iter().try_for_each(|key| check(&counted.counters, key, now))?;
        counted.make_room(now);
        let counters = &mut counted.counters;
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
        self.taken_back(&right);
        let mut counted = self.lock();
        for key in right.keys.iter().filter(|key| matches!(key, Key::Name(_))) {
            counted.counters.remove(key);
        }
    }

    /// Takes a try back that was never compared, and so tells nothing.
    pub fn taken_back(&self, untold: &Try) {
        let mut counted = self.lock();
        for key in &untold.keys {
            let counter = counted.counters.get_mut(key).filter(|counter| counter.since <= untold.began);
            counter.into_iter().for_each(|counter| counter.failures = counter.failures.saturating_sub(1));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn of_name(name: &str) -> Key {
        if is_user_name(name) { Key::Name(name.to_owned()) } else { Key::Nobodys }
    }
}

fn check(counters: &HashMap<Key, Counter>, key: &Key, now: Timestamp) -> Result<(), TooMany> {
    let failures_max = match key {
        Key::Address(_) => FAILURES_PER_ADDRESS_MAX,
        Key::Name(_) | Key::Nobodys => FAILURES_PER_NAME_MAX,
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

impl Counted {
    /// Forgets what is over, and, where there still are too many, what has failed the least: a name that is guessed at has
    /// failed more often than those that somebody makes up to have it forgotten.
    fn make_room(&mut self, now: Timestamp) {
        let counters = &mut self.counters;
        if counters.len() >= COUNTERS_MAX || now >= self.cleaned_at.plus_seconds(WINDOW_SECONDS) {
            counters.retain(|_, counter| counter.is_current(now));
            self.cleaned_at = now;
        }
        let mut least = 0;
        while counters.len() >= COUNTERS_MAX {
            least += 1;
            counters.retain(|_, counter| counter.failures > least);
        }
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
        assert!(limiter.lock().counters.len() <= COUNTERS_MAX);
        // What is over is forgotten as soon as somebody else comes.
        let _ = limiter.begin(None, Some("ann"), Timestamp(60_000)).unwrap();
        assert_eq!(limiter.lock().counters.len(), 1);
    }

    #[test]
    fn names_that_are_made_up_have_no_other_forgotten() {
        let limiter = Limiter::default();
        let guess = || limiter.begin(None, Some("ann"), Timestamp(0));
        let guesses = (0..FAILURES_PER_NAME_MAX).map(|round| {
            let made_up = (0..COUNTERS_MAX).map(|at| format!("x{round}-{at}"));
            made_up.for_each(|name| drop(limiter.begin(None, Some(&name), Timestamp(0)).unwrap()));
            // Twice at first, as one that has failed no more often than those cannot be told from them.
            if round == 0 { guess().and_then(|_| guess()) } else { guess() }
        });
        assert!(guesses.collect::<Vec<_>>().iter().any(Result::is_err));
        assert!(guess().is_err());
    }

    #[test]
    fn names_that_nobody_can_have_are_counted_as_one() {
        let limiter = Limiter::default();
        let unfit = |at: u32| format!("Z{at}{}", "a".repeat(1 << 20));
        for at in 0..FAILURES_PER_NAME_MAX {
            let _ = limiter.begin(None, Some(&unfit(at)), Timestamp(0)).unwrap();
        }
        assert!(limiter.begin(None, Some(&unfit(FAILURES_PER_NAME_MAX)), Timestamp(0)).is_err());
        assert!(limiter.begin(None, Some("ann"), Timestamp(0)).is_ok());
        assert_eq!(limiter.lock().counters.len(), 2);
    }

    #[test]
    fn a_try_that_was_never_compared_is_no_failure() {
        let limiter = Limiter::default();
        for _ in 0..10 * FAILURES_PER_NAME_MAX {
            limiter.taken_back(&limiter.begin(HERE, Some("ann"), Timestamp(0)).unwrap());
        }
        // It does not forgive the others either.
        for _ in 0..FAILURES_PER_ADDRESS_MAX {
            let _ = limiter.begin(HERE, Some("ann"), Timestamp(0)).unwrap();
        }
        assert!(limiter.begin(HERE, Some("ann"), Timestamp(0)).is_err());
    }
}
