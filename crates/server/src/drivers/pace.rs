//! How many jobs are handed to the executor ahead of its slots.
//!
//! From the end of a job to the start of the next one are a few commits. Jobs that lie ready at the executor hide them;
//! but what lies there can no more be overtaken by something urgent. So only as many do as are done in a moment: one for
//! each slot where jobs take minutes, many where they take milliseconds.

/// Milliseconds of work that lie ahead of each slot, as far as jobs are that short: the executor tells ends together while
/// it has enough, and the way from an end through run, pool and run to the next start takes as long again.
const AHEAD_MS: f64 = 40.0;
/// Jobs ahead of each slot before anything is known.
const AHEAD_FIRST: u64 = 8;
/// Jobs ahead of each slot at most: what the executor starts in [`AHEAD_MS`], were there no work in them at all.
const AHEAD_MAX: u64 = 64;
/// What the newest job counts for in the mean: about the last sixteen decide.
const WEIGHT: f64 = 1.0 / 16.0;
/// A job that took no whole millisecond took about this many.
const MS_MIN: f64 = 0.6;

/// The mean duration of the latest jobs, and what follows from it.
#[derive(Debug)]
pub struct Pace {
    slots: u64,
    mean_ms: f64,
    ahead: u64,
}

impl Pace {
    /// Nothing is known yet of an executor with so many slots.
    pub fn new(slots: u32) -> Pace {
        Pace { slots: slots.into(), mean_ms: AHEAD_MS / AHEAD_FIRST as f64, ahead: AHEAD_FIRST }
    }

    /// Jobs that runs may have at the executor at once.
    pub fn capacity(&self) -> u64 {
        self.slots * (1 + self.ahead)
    }

    /// Takes in how long a job took; answers the new capacity if that changes it. It changes by halves and doubles, and
    /// only when it is wrong by as much, so that it comes to rest.
    pub fn note(&mut self, duration_ms: u64) -> Option<u64> {
        let duration_ms = (duration_ms as f64).max(MS_MIN);
        self.mean_ms += (duration_ms - self.mean_ms) * WEIGHT;
        let wanted = AHEAD_MS / self.mean_ms;
        let ahead = match self.ahead as f64 {
            ahead if wanted >= ahead * 2.0 => (self.ahead * 2).min(AHEAD_MAX),
            ahead if wanted <= ahead / 2.0 => (self.ahead / 2).max(1),
            _ => self.ahead,
        };
        (std::mem::replace(&mut self.ahead, ahead) != ahead).then(|| self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, duration_ms: u64, count: usize) -> Vec<u64> {
        (0..count).filter_map(|_| pace.note(duration_ms)).collect()
    }

    #[test]
    fn short_jobs_go_far_ahead_and_long_ones_hardly() {
        let mut pace = Pace::new(2);
        assert_eq!(pace.capacity(), 18);
        assert_eq!(after(&mut pace, 0, 200), [34, 66, 130]);
        assert_eq!(after(&mut pace, 60_000, 200), [66, 34, 18, 10, 6, 4]);
    }

    #[test]
    fn it_comes_to_rest() {
        let mut pace = Pace::new(2);
        after(&mut pace, 3, 200);
        assert!(after(&mut pace, 3, 1000).is_empty());
        // Jobs that differ change nothing as long as their mean does not.
        let changes: usize = (0..500).map(|at| after(&mut pace, 2 + at % 3, 1).len()).sum();
        assert_eq!(changes, 0);
    }
}
