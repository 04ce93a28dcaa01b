//! What the logs of each run have together: a definition may have 10,000 jobs, and each of their logs a limit of its own.
//!
//! It is known to this executor alone and as long as it lives: a new one begins with nothing.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use towpath_blob::RunLogs;
use towpath_core::ids::RunId;

/// While a log grows, all logs of its run have at most one part in so many of the room that their disk has for jobs as the
/// job begins, or later if it has more then. A run takes a ninth of it by that, and each further one less: what jobs print never fills a disk.
const ROOM_SHARE: u64 = 8;
/// Runs that are remembered, beside those that a log is being written for. Of more, the one is forgotten whose latest job
/// began longest ago.
const RUNS_MAX: usize = 1024;

/// Bytes of the logs of the latest runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunsLogs {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: HashMap<RunId, Run>,
    uses: u64,
}

/// One run. A log is being written for it while anybody but the map holds its bytes: they are given out under the lock.
#[derive(Debug, Default)]
struct Run {
    bytes: Arc<AtomicU64>,
    last_use: u64,
}

impl RunsLogs {
    /// The logs of a run, on a disk with so many bytes of room.
    pub(crate) fn of(&self, run: &RunId, room: u64) -> RunLogs {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.runs.contains_key(run) && kept.runs.len() >= RUNS_MAX {
            let unused = kept.runs.iter().filter(|(_, run)| Arc::strong_count(&run.bytes) == 1);
            let oldest = unused.min_by_key(|(_, run)| run.last_use).map(|(run, _)| run.clone());
            oldest.map(|run| kept.runs.remove(&run));
        }
        kept.uses += 1;
        let last_use = kept.uses;
        let run = kept.runs.entry(run.clone()).or_default();
        run.last_use = last_use;
        RunLogs { kept: Arc::clone(&run.bytes), bytes_max: room / ROOM_SHARE, room_share: ROOM_SHARE }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    fn run(number: usize) -> RunId {
        format!("app/main/{number}").parse().unwrap()
    }

    fn bytes(runs: &RunsLogs, number: usize) -> u64 {
        runs.of(&run(number), 0).kept.load(Ordering::Relaxed)
    }

    #[test]
    fn a_run_is_remembered_while_it_has_jobs_and_until_many_others_have_begun() {
        let runs = RunsLogs::default();
        let enter = |number, printed| {
            let logs = runs.of(&run(number), 800);
            assert_eq!(logs.bytes_max, 100);
            logs.kept.fetch_add(printed, Ordering::Relaxed);
            logs
        };
        let goes_on = enter(0, 7);
        (1..RUNS_MAX).for_each(|number| drop(enter(number, 100)));
        drop(enter(RUNS_MAX, 7));
        assert_eq!(runs.kept.lock().unwrap().runs.len(), RUNS_MAX);
        assert_eq!(bytes(&runs, 0), 7, "a job of it goes on");
        drop(goes_on);
        drop(enter(RUNS_MAX + 1, 7));
        assert_eq!([RUNS_MAX, RUNS_MAX + 1, 0].map(|number| bytes(&runs, number)), [7; 3]);
        assert_eq!(bytes(&runs, 1), 0, "the oldest was forgotten");
    }
}
