//! Jobs that share a disk: which of them ends where it has no room, and what is still to be removed of those that ended.
//!
//! One that fills a disk is not to take the others along. The job that took most ends first; the others are looked at again
//! once it was seen what that has freed. Deployments, which may have half happened, end last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use towpath_blob::NoRoom;

/// How long it may take until every running job has counted what it took. A tree of a million files takes seconds, and
/// somebody fills the disk meanwhile.
const COUNT_PATIENCE: Duration = Duration::from_secs(1);
/// How long nobody else ends while what an ended job left is removed. A few large files are gone in a second.
const RELIEF_PATIENCE: Duration = Duration::from_secs(30);
/// If the others take so many hundredths of the reserve meanwhile, the next one ends at once.
const SUNK_PERCENT: u64 = 6;

/// The jobs of one executor on their disks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sharing {
    state: Arc<Mutex<State>>,
    leaving: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    /// Jobs whose processes live, by slot.
    jobs: BTreeMap<u32, Job>,
    /// Since when the disk has no room, or has been so after a job ended for it.
    since: Option<Instant>,
    /// Slot of the job that ends for it.
    ending: Option<u32>,
    /// The last one has ended for it.
    relief: Option<Relief>,
}

#[derive(Debug)]
struct Job {
    deploys: bool,
    /// Bytes of its work tree and its log.
    bytes: u64,
    counted: Option<Instant>,
}

#[derive(Debug)]
struct Relief {
    since: Instant,
    /// The most that has been left of the reserve since then.
    left_percent: u64,
}

/// What one running job takes; it is none of them any more once this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Sharing,
    slot: u32,
}

/// A folder that is being removed.
pub(crate) struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sharing {
    /// A job's processes begin.
    pub(crate) fn share(&self, slot: u32, deploys: bool) -> Share {
        self.lock().jobs.insert(slot, Job { deploys, bytes: 0, counted: None });
        Share { of: self.clone(), slot }
    }

    /// A folder is to be removed.
    pub(crate) fn leaving(&self) -> Leaving {
        self.leaving.fetch_add(1, Ordering::SeqCst);
        Leaving(Arc::clone(&self.leaving))
    }

    /// Whether there will be more room soon.
    pub(crate) fn is_clearing(&self) -> bool {
        self.leaving.load(Ordering::SeqCst) > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The disk has room.
    pub(crate) fn has_room(&self) {
        let mut state = self.of.lock();
        (state.since, state.relief) = (None, None);
    }

    /// Since when it has none: what was counted before that does not count.
    pub(crate) fn short_since(&self) -> Instant {
        *self.of.lock().since.get_or_insert_with(Instant::now)
    }

    /// Whether the job, which has taken so many bytes as counted then, is the one that ends for a disk without room.
    pub(crate) fn yields(&self, (bytes, counted): (u64, Instant), no_room: &NoRoom) -> bool {
        let mut state = self.of.lock();
        if let Some(job) = state.jobs.get_mut(&self.slot) {
            (job.bytes, job.counted) = (bytes, Some(counted));
        }
        let now = Instant::now();
        if state.ending.is_some() || state.is_relieved(no_room.left_percent(), now) {
            return false;
        }
        let yields = state.first_to_end(now) == Some(self.slot);
        if yields {
            state.ending = Some(self.slot);
        }
        yields
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        state.jobs.remove(&self.slot);
        if state.ending == Some(self.slot) {
            let now = Instant::now();
            (state.ending, state.since) = (None, Some(now));
            state.relief = Some(Relief { since: now, left_percent: 0 });
        }
    }
}

impl State {
    /// Whether what the last one has left still has time to go, as nobody takes much meanwhile.
    fn is_relieved(&mut self, left_percent: u64, now: Instant) -> bool {
        let Some(relief) = &mut self.relief else { return false };
        relief.left_percent = relief.left_percent.max(left_percent);
        now < relief.since + RELIEF_PATIENCE && left_percent + SUNK_PERCENT >= relief.left_percent
    }

    fn first_to_end(&self, now: Instant) -> Option<u32> {
        let since = self.since?;
        let is_known = |job: &Job| job.counted.is_some_and(|counted| counted >= since);
        if now < since + COUNT_PATIENCE && !self.jobs.values().all(is_known) {
            return None;
        }
        self.jobs.iter().max_by_key(|(slot, job)| (!job.deploys, job.bytes, **slot)).map(|(slot, _)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use towpath_blob::Reserve;

    use super::*;

    /// A look by each of them at a disk without room; who ends.
    fn look(shares: &[(&Share, u64)]) -> Vec<u32> {
        let no_room = Reserve::of_bytes(Path::new("/tmp"), u64::MAX).room().unwrap_err();
        let ends = |(share, bytes): &&(&Share, u64)| {
            share.short_since();
            share.yields((*bytes, Instant::now()), &no_room)
        };
        shares.iter().filter(ends).map(|(share, _)| share.slot).collect()
    }

    #[test]
    fn the_job_that_took_most_ends_alone_and_a_deployment_ends_last() {
        let sharing = Sharing::default();
        let (small, large) = (sharing.share(0, false), sharing.share(1, false));
        let deployment = sharing.share(2, true);
        let jobs = [(&deployment, 300), (&large, 200), (&small, 100)];
        // The others have not counted when the first two look.
        assert!(look(&jobs).is_empty());
        assert_eq!(look(&jobs), [1]);
        assert!(look(&jobs).is_empty(), "it has not ended yet");
        drop(large);
        let jobs = [(&deployment, 300), (&small, 100)];
        assert!([look(&jobs), look(&jobs)].concat().is_empty(), "what it left is being removed");
        sharing.lock().relief = None;
        assert_eq!([look(&jobs), look(&jobs)].concat(), [0]);
        drop(small);
        sharing.lock().relief = None;
        assert_eq!(look(&[(&deployment, 300)]), [2]);
    }

    #[test]
    fn whoever_goes_on_to_take_of_the_reserve_is_not_waited_with() {
        let mut state = State::default();
        let now = Instant::now();
        state.relief = Some(Relief { since: now, left_percent: 0 });
        assert!(state.is_relieved(70, now) && state.is_relieved(64, now) && state.is_relieved(80, now));
        assert!(!state.is_relieved(73, now));
        assert!(!state.is_relieved(80, now + RELIEF_PATIENCE));
        state.relief = None;
        assert!(!state.is_relieved(100, now));
    }
}
