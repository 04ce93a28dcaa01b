//! Repetitions and what is taken from them.

use std::time::{Duration, Instant};

use crate::Fault;

/// Repetitions of ours and of the peer, one after the other, so that both meet the same machine.
pub const REPETITIONS: usize = 3;

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that `percent` of them do not exceed.
pub fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((last * percent / 100.0).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Medians of [`REPETITIONS`] of each, alternating: ours, the peer's.
///
/// # Errors
/// Either failed.
pub fn alternate(
    mut ours: impl FnMut() -> Result<f64, Fault>,
    mut peer: impl FnMut() -> Result<f64, Fault>,
) -> Result<(f64, f64), Fault> {
    let (mut our_values, mut peer_values) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        peer_values.push(peer()?);
        our_values.push(ours()?);
    }
    Ok((median(our_values), median(peer_values)))
}

/// Seconds that something takes.
///
/// # Errors
/// Its own.
pub fn seconds<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<f64, Fault> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

/// Milliseconds of a duration.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_and_the_peers_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let note = |what: char, value: f64| {
            order.borrow_mut().push(what);
            Ok(value)
        };
        let mut values = [5.0, 1.0, 3.0].into_iter();
        let got = alternate(|| note('o', values.next().unwrap()), || note('p', 2.0)).unwrap();
        assert_eq!((got, order.borrow().as_str()), ((3.0, 2.0), "popopo"));
    }

    #[test]
    fn percentiles_are_members() {
        let values: Vec<f64> = (0..101).rev().map(f64::from).collect();
        assert_eq!((percentile(values.clone(), 99.0), median(values)), (99.0, 50.0));
    }
}
