//! Jobs that share the disk of their folders: which of them ends where it has no room, and what is still to be removed of those that ended.
//!
//! One that fills a disk is not to take the others along. The job that took most ends first; the others are looked at again
//! once it was seen what that has freed. Deployments, which may have half happened, end last. Nobody ends for a shortage that
//! was seen only once, or while room is being made that nobody takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use towpath_blob::NoRoom;

use crate::terminals::MachineTerminals;
use crate::walk::TreeSize;

/// How long it may take until every running job has counted what it took. A tree of a million files takes seconds, and
/// somebody fills the disk meanwhile.
const COUNT_PATIENCE: Duration = Duration::from_secs(1);
/// How long nobody ends while what an ended job left is removed. A few large files are gone in a second.
const RELIEF_PATIENCE: Duration = Duration::from_secs(30);
/// If the others take so many hundredths of the reserve meanwhile, the next one ends at once.
const SUNK_PERCENT: u64 = 6;

/// The jobs of one executor on their disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sharing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is removed, or need not be.
    removal: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Jobs that have begun, by slot.
    jobs: BTreeMap<u32, Job>,
    /// Folders that are being removed.
    leaving: usize,
    /// Times that somebody was done with removing.
    removals: u64,
    short: Option<Shortage>,
    /// Slot of the job that ends for it.
    ending: Option<u32>,
}

#[derive(Debug)]
struct Job {
    deploys: bool,
    stage: Stage,
    /// What it had taken of the disk when that was last counted.
    took: TreeSize,
    counted: Option<Instant>,
    /// When it last found the disk without room.
    looked: Option<Instant>,
    began: Instant,
    /// Where it may mount terminals of its own: how many the machine had as it began.
    terminals_before: Option<u64>,
}

impl Job {
    fn new(deploys: bool) -> Job {
        Job {
            deploys,
            stage: Stage::Fills,
            took: TreeSize::default(),
            counted: None,
            looked: None,
            began: Instant::now(),
            terminals_before: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its folder is filled, which ends where there is no room.
    Fills,
    /// Its processes live.
    Runs,
    /// They do not; its outputs are stored, and then its folder goes.
    Over,
}

/// The disk has no room.
#[derive(Debug)]
struct Shortage {
    /// What was counted before that does not count.
    since: Instant,
    /// The most that has been left of the reserve since then.
    left_percent: u64,
    /// A job has just ended for it.
    follows_end: bool,
}

/// One job's part in the disk; it has none any more once this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Sharing,
    slot: u32,
}

/// A folder that is being removed.
pub(crate) struct Leaving(Sharing);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.lock().leaving -= 1;
        self.0.note_removal();
    }
}

/// What was being removed when somebody asked.
pub(crate) struct Clearing {
    /// Anything at all: there will be more room soon.
    pub(crate) goes_on: bool,
    removals: u64,
}

impl Sharing {
    /// A job begins: its folder is to be filled.
    pub(crate) fn share(&self, slot: u32, deploys: bool) -> Share {
        self.lock().jobs.insert(slot, Job::new(deploys));
        Share { of: self.clone(), slot }
    }

    /// A folder is to be removed.
    pub(crate) fn leaving(&self) -> Leaving {
        self.lock().leaving += 1;
        Leaving(self.clone())
    }

    /// Whether something is being removed.
    pub(crate) fn clearing(&self) -> Clearing {
        let state = self.lock();
        Clearing { goes_on: state.is_clearing(), removals: state.removals }
    }

    /// Waits until something is removed that was not when that was asked, but no longer than so.
    pub(crate) fn rest(&self, asked: &Clearing, patience: Duration) {
        let is_as_asked = |state: &mut State| state.removals == asked.removals;
        let waited = self.0.removal.wait_timeout_while(self.lock(), patience, is_as_asked);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn note_removal(&self) {
        self.lock().removals += 1;
        self.0.removal.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The job's processes begin.
    pub(crate) fn runs(&self) {
        self.of.lock().set_stage(self.slot, Stage::Runs);
    }

    /// No process of the job lives any more.
    pub(crate) fn over(&self) {
        let mut state = self.of.lock();
        state.set_stage(self.slot, Stage::Over);
        if state.ending == Some(self.slot) {
            state.ending = None;
            state.short = Some(Shortage { follows_end: true, ..Shortage::new() });
        }
    }

    /// What the job has taken as counted then, if it ever was; until it is counted again, that is what is known.
    pub(crate) fn took(&self, took: TreeSize, counted: Option<Instant>) {
        if let Some(job) = self.of.lock().jobs.get_mut(&self.slot) {
            (job.took, job.counted) = (took, counted);
        }
    }

    /// The job may mount terminals of its own; the machine has so many.
    pub(crate) fn mounts_terminals(&self, machine: Option<MachineTerminals>) {
        if let Some(job) = self.of.lock().jobs.get_mut(&self.slot) {
            job.terminals_before = machine.map(|machine| machine.made);
        }
    }

    /// Whether the job is the one that ends where all jobs have few terminals left: the newest that may have made them where
    /// they cannot be counted. Somebody else's alone end none: there must be many since the job began.
    pub(crate) fn ends_for_terminals(&self, machine: &MachineTerminals) -> bool {
        let state = self.of.lock();
        let may_have = |job: &Job| job.terminals_before.is_some_and(|before| machine.are_many_new(before));
        let may_have = state.jobs.iter().filter(|(_, job)| job.stage == Stage::Runs && may_have(job));
        let newest = may_have.max_by_key(|(_, job)| job.began).map(|(slot, _)| *slot);
        machine.are_few_left() && newest == Some(self.slot)
    }

    /// The disk has room.
    pub(crate) fn has_room(&self) {
        self.of.lock().short = None;
    }

    /// Since when it has none: what was counted before that does not count.
    pub(crate) fn short_since(&self) -> Instant {
        self.of.lock().short.get_or_insert_with(Shortage::new).since
    }

    /// Whether the job is the one that ends for a disk without room.
    pub(crate) fn yields(&self, no_room: &NoRoom) -> bool {
        let mut state = self.of.lock();
        let now = Instant::now();
        let (lasts, relieved) =
            (state.lasts_for(self.slot, now), state.is_relieved(no_room.left_percent(), now));
        if state.ending.is_some() || relieved || !lasts {
            return false;
        }
        let yields = state.first_to_end(no_room.lacks_bytes(), now) == Some(self.slot);
        if yields {
            state.ending = Some(self.slot);
        }
        yields
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.over();
        self.of.lock().jobs.remove(&self.slot);
        self.of.note_removal();
    }
}

impl Shortage {
    fn new() -> Shortage {
        Shortage { since: Instant::now(), left_percent: 0, follows_end: false }
    }
}

impl State {
    fn set_stage(&mut self, slot: u32, stage: Stage) {
        self.jobs.entry(slot).and_modify(|job| job.stage = stage);
    }

    /// Whether there will be more room soon.
    fn is_clearing(&self) -> bool {
        self.leaving > 0 || self.jobs.values().any(|job| job.stage == Stage::Over)
    }

    /// Notes that a job finds the disk without room, and says whether it had found this shortage before.
    fn lasts_for(&mut self, slot: u32, now: Instant) -> bool {
        let (Some(short), Some(job)) = (&self.short, self.jobs.get_mut(&slot)) else { return false };
        job.looked.replace(now).is_some_and(|before| before >= short.since)
    }

    /// Whether what others leave, or have just left, still has time to go, as nobody takes much meanwhile.
    fn is_relieved(&mut self, left_percent: u64, now: Instant) -> bool {
        let will_clear = self.is_clearing() || self.jobs.values().any(|job| job.stage == Stage::Fills);
        let Some(short) = &mut self.short else { return false };
        short.left_percent = short.left_percent.max(left_percent);
        let is_sunk = left_percent + SUNK_PERCENT < short.left_percent;
        (will_clear || short.follows_end) && now < short.since + RELIEF_PATIENCE && !is_sunk
    }

    fn first_to_end(&self, lacks_bytes: bool, now: Instant) -> Option<u32> {
        let since = self.short.as_ref()?.since;
        let running = || self.jobs.iter().filter(|(_, job)| job.stage == Stage::Runs);
        let is_known = |job: &Job| job.counted.is_some_and(|counted| counted >= since);
        if now < since + COUNT_PATIENCE && !running().all(|(_, job)| is_known(job)) {
            return None;
        }
        let took = |job: &Job| if lacks_bytes { job.took.bytes } else { job.took.files };
        running().max_by_key(|(slot, job)| (!job.deploys, took(job), **slot)).map(|(slot, _)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use towpath_blob::Reserve;

    use super::*;

    fn no_room() -> NoRoom {
        Reserve::of_bytes(Path::new("/tmp"), u64::MAX).room().unwrap_err()
    }

    fn running(sharing: &Sharing, slot: u32, deploys: bool) -> Share {
        let share = sharing.share(slot, deploys);
        share.runs();
        share
    }

    /// A look by each of them at a disk without room; who ends.
    fn look(shares: &[(&Share, u64)]) -> Vec<u32> {
        let ends = |(share, bytes): &&(&Share, u64)| {
            share.short_since();
            share.took(TreeSize { bytes: *bytes, files: 0 }, Some(Instant::now()));
            share.yields(&no_room())
        };
        shares.iter().filter(ends).map(|(share, _)| share.slot).collect()
    }

    fn no_relief(sharing: &Sharing) {
        sharing.lock().short.as_mut().unwrap().follows_end = false;
    }

    #[test]
    fn the_job_that_took_most_ends_alone_and_a_deployment_ends_last() {
        let sharing = Sharing::default();
        let (small, large) = (running(&sharing, 0, false), running(&sharing, 1, false));
        let deployment = running(&sharing, 2, true);
        let jobs = [(&deployment, 300), (&large, 200), (&small, 100)];
        // The others have not counted when the first two look.
        assert!(look(&jobs).is_empty());
        assert_eq!(look(&jobs), [1]);
        assert!(look(&jobs).is_empty(), "it has not ended yet");
        drop(large);
        let jobs = [(&deployment, 300), (&small, 100)];
        assert!([look(&jobs), look(&jobs)].concat().is_empty(), "what it left is being removed");
        no_relief(&sharing);
        assert_eq!([look(&jobs), look(&jobs)].concat(), [0]);
        drop(small);
        no_relief(&sharing);
        let jobs = [(&deployment, 300)];
        assert_eq!([look(&jobs), look(&jobs)].concat(), [2]);
    }

    #[test]
    fn a_shortage_that_was_seen_once_ends_nobody() {
        let sharing = Sharing::default();
        let alone = running(&sharing, 0, false);
        for _ in 0..3 {
            assert!(look(&[(&alone, 100)]).is_empty());
            alone.has_room();
        }
        assert_eq!([look(&[(&alone, 100)]), look(&[(&alone, 100)])].concat(), [0]);
    }

    #[test]
    fn nobody_ends_while_others_give_back_what_they_took() {
        let sharing = Sharing::default();
        let alone = running(&sharing, 0, false);
        let looks = || [(); 3].map(|()| look(&[(&alone, 100)])).concat();
        let other = sharing.share(1, false);
        assert!(looks().is_empty(), "it fills its folder, and ends if it cannot");
        other.runs();
        other.over();
        assert!(looks().is_empty(), "its outputs are stored");
        let leaving = sharing.leaving();
        drop(other);
        assert!(looks().is_empty(), "its folder is removed");
        drop(leaving);
        assert_eq!(looks(), [0]);
    }

    #[test]
    fn who_took_most_of_what_is_lacking_ends() {
        let sharing = Sharing::default();
        let (with_bytes, with_files) = (running(&sharing, 0, false), running(&sharing, 1, false));
        let now = with_bytes.short_since();
        with_bytes.took(TreeSize { bytes: 200, files: 1 }, Some(now));
        with_files.took(TreeSize { bytes: 100, files: 9 }, Some(now));
        let first = |lacks_bytes| sharing.lock().first_to_end(lacks_bytes, now);
        assert_eq!((first(true), first(false)), (Some(0), Some(1)));
    }

    #[test]
    fn who_counts_slowly_is_known_by_what_it_counted_before() {
        let sharing = Sharing::default();
        let (slow, quick) = (running(&sharing, 0, false), running(&sharing, 1, false));
        let before = Instant::now();
        let since = slow.short_since();
        slow.took(TreeSize { bytes: 200, files: 0 }, Some(before));
        quick.took(TreeSize { bytes: 100, files: 0 }, Some(since));
        let first = |at| sharing.lock().first_to_end(true, at);
        assert_eq!(first(since + COUNT_PATIENCE), Some(0));
    }

    #[test]
    fn whoever_goes_on_to_take_of_the_reserve_is_not_waited_with() {
        for (follows_end, leaving) in [(true, 0), (false, 1)] {
            let mut state = State { leaving, ..State::default() };
            let short = Shortage { follows_end, ..Shortage::new() };
            let now = short.since;
            state.short = Some(short);
            assert!(state.is_relieved(70, now) && state.is_relieved(64, now) && state.is_relieved(80, now));
            assert!(!state.is_relieved(73, now));
            assert!(!state.is_relieved(80, now + RELIEF_PATIENCE));
            state.short = None;
            assert!(!state.is_relieved(100, now));
        }
    }

    #[test]
    fn where_terminals_become_few_the_newest_ends_that_may_have_made_them() {
        let sharing = Sharing::default();
        let machine = |made| MachineTerminals { made, most: 3_072 };
        let [older, newer, late, other] = [3, 2, 1, 0].map(|slot| running(&sharing, slot, false));
        let counts = [(&older, 0), (&newer, 500), (&late, 2_000)];
        counts.into_iter().for_each(|(share, made)| share.mounts_terminals(Some(machine(made))));
        let ends = |made| {
            let all = [&older, &newer, &late, &other].into_iter();
            all.filter(|share| share.ends_for_terminals(&machine(made)))
                .map(|share| share.slot)
                .collect::<Vec<u32>>()
        };
        let nobody: [u32; 0] = [];
        assert_eq!(ends(2_815), nobody);
        assert_eq!(ends(2_816), [newer.slot]);
        assert_eq!(ends(3_072), [late.slot]);
        newer.over();
        assert_eq!(ends(2_816), [older.slot]);
        older.over();
        assert_eq!(ends(2_816), nobody, "it was no job's doing");
    }

    #[test]
    fn who_waits_for_room_goes_on_as_soon_as_something_is_removed() {
        let sharing = Sharing::default();
        let (leaving, asked) = (sharing.leaving(), sharing.clearing());
        assert!(asked.goes_on);
        let long = Duration::from_secs(1_000_000);
        std::thread::scope(|scope| {
            scope.spawn(|| sharing.rest(&asked, long));
            drop(leaving);
        });
        // What is gone by then is not waited for.
        sharing.rest(&asked, long);
        assert!(!sharing.clearing().goes_on);
    }
}
