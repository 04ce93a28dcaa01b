//! What the logs of each run have together: a definition may have 10,000 jobs, and each of their logs a limit of its own.
//!
//! It is known to this executor alone and as long as it lives: a new one begins with nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use towpath_blob::RunLogs;
use towpath_core::ids::RunId;

/// While a log grows, all logs of its run have at most one part in so many of the room that their disk has for jobs as the
/// job begins. A run takes a ninth of it by that, and each further one less: what jobs print never fills a disk.
const ROOM_SHARE: u64 = 8;
/// Runs that are remembered. Of more, those are forgotten whose logs have the least.
const RUNS_MAX: usize = 1024;

/// Bytes of the logs of the latest runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunsLogs {
    kept: Arc<Mutex<HashMap<RunId, Arc<AtomicU64>>>>,
}

impl RunsLogs {
    /// The logs of a run, on a disk with so many bytes of room.
    pub(crate) fn of(&self, run: &RunId, room: u64) -> RunLogs {
        let mut runs = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !runs.contains_key(run) && runs.len() >= RUNS_MAX {
            let bytes = |kept: &AtomicU64| kept.load(Ordering::Relaxed);
            let least = runs.iter().min_by_key(|(_, kept)| bytes(kept)).map(|(run, _)| run.clone());
            least.map(|run| runs.remove(&run));
        }
        RunLogs { kept: Arc::clone(runs.entry(run.clone()).or_default()), bytes_max: room / ROOM_SHARE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_runs_those_with_the_most_are_remembered() {
        let runs = RunsLogs::default();
        let run = |number: usize| format!("app/main/{number}").parse::<RunId>().unwrap();
        let large = runs.of(&run(0), 800);
        assert_eq!(large.bytes_max, 100);
        large.kept.store(70, Ordering::Relaxed);
        (1..=2 * RUNS_MAX).for_each(|number| drop(runs.of(&run(number), 800)));
        assert_eq!(runs.kept.lock().unwrap().len(), RUNS_MAX);
        assert_eq!(runs.of(&run(0), 800).kept.load(Ordering::Relaxed), 70);
    }
}
