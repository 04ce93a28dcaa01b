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

/// How often the system counts the processor time of processes in a second: `USER_HZ` of Linux, the same on all machines
/// that Rust's own releases are for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What something took that other processes did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// From its beginning to its end.
    pub seconds: f64,
    /// As long as it would have taken if no core had ever waited, for it or for others' work.
    pub floor: f64,
}

impl Spent {
    /// What the floor is.
    pub const FLOOR: &str = "the processor time that it took, spread over all cores";
}

/// What work takes that is done by processes for which this one waits.
///
/// # Errors
/// Its own.
pub fn spent<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<Spent, Fault> {
    let before = processor_seconds()?;
    let seconds = seconds(work)?;
    let cores = std::thread::available_parallelism()?.get() as f64;
    Ok(Spent { seconds, floor: (processor_seconds()? - before) / cores })
}

/// Processor seconds of all processes that have ended and were waited for, with those for which they waited.
fn processor_seconds() -> Result<f64, Fault> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // `pid (name) state ...`: the name may have spaces and brackets.
    let fields = stat.rsplit_once(')').ok_or("a malformed /proc/self/stat")?.1.split_whitespace();
    let of_children: Vec<f64> = fields.skip(13).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(of_children.iter().sum::<f64>() / TICKS_PER_SECOND)
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
    fn the_floor_is_what_processes_have_computed() {
        let run = |script: &str| {
            spent(|| Ok(std::process::Command::new("sh").args(["-c", script]).status()?)).unwrap()
        };
        let busy = run("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
        assert!(busy.floor > 0.0 && busy.floor <= busy.seconds, "{busy:?}");
    }

    #[test]
    fn percentiles_are_members() {
        let values: Vec<f64> = (0..101).rev().map(f64::from).collect();
        assert_eq!((percentile(values.clone(), 99.0), median(values)), (99.0, 50.0));
    }
}
