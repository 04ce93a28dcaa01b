//! Slots and the jobs that wait for one.

use std::collections::{HashMap, VecDeque};
use std::fs::DirEntry;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use towpath_core::graph::{JobResult, Outcome};
use towpath_core::ids::LeaseId;

use crate::ExecutorConfig;
use crate::host::Host;
use crate::plain;
use crate::probe::{ProbeRefusal, SandboxCapabilities, probe};
use crate::pump::Control;
use crate::secret_files::SecretFiles;
use crate::sharing::Leaving;
use crate::slot::Slot;
use crate::spec::{JobEnd, SandboxKind, StartSpec};
use crate::tree::JobFolder;
use crate::walk::remove_tree;

/// Jobs that wait for a slot. The server keeps the real queue; this one hides the way to it.
pub const BACKLOG_MAX: usize = 100_000;
/// Microseconds for which the jobs that lie ready for a slot have to last, until the server has answered the end of one.
const ENOUGH_US: u64 = 8_000;
/// Jobs ready for each slot that are enough, however short they are.
const ENOUGH_PER_SLOT_MAX: u64 = 16;
/// What the newest job counts for in the mean: one part in so many.
const MEAN_OF: u64 = 16;
/// A job's folder that takes longer to remove waits for those that take less: there may be a million files in it, and a disk
/// that discards freed blocks at once frees some 1,500 in a second (ext4, measured).
const QUICK_REMOVAL_MAX: Duration = Duration::from_secs(5);
/// Bytes of a slot's stack. A slot keeps its buffers on the heap.
const STACK_BYTES: usize = 512 * 1024;

/// What becomes of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// It has a slot and begins.
    Started(LeaseId),
    /// It is over.
    Ended(Box<JobEnd>),
}

/// Why an executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The sandbox does not work here. Nothing runs without it unless a person says so.
    #[error(transparent)]
    Sandbox(#[from] ProbeRefusal),
    /// The machine refused something else.
    #[error("the executor cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Slots in this process. `towpath run` uses it as it is; [`crate::serve()`] puts a socket in front of it.
///
/// Dropping it cancels what runs and waits for it.
pub struct JobPool {
    shared: Arc<Shared>,
    slots: Vec<JoinHandle<()>>,
    janitors: [Option<JoinHandle<()>>; 2],
    capabilities: SandboxCapabilities,
}

struct Shared {
    host: Arc<Host>,
    state: Mutex<State>,
    work: Condvar,
    /// Few jobs wait for a slot.
    low: Condvar,
    /// Microseconds that the latest jobs took, in the mean.
    mean_us: AtomicU64,
    on_event: Box<dyn Fn(JobEvent) + Send + Sync>,
}

#[derive(Default)]
struct State {
    backlog: VecDeque<StartSpec>,
    /// Everything in the backlog or in a slot.
    leases: HashMap<LeaseId, Arc<Control>>,
    closed: bool,
}

impl JobPool {
    /// Probes the sandbox and starts the slots. `on_event` is called on a slot's thread and must be quick.
    ///
    /// # Errors
    /// [`ExecutorError::Sandbox`] with the mend if the sandbox does not work; never a silent fallback.
    pub fn start(
        config: ExecutorConfig,
        on_event: impl Fn(JobEvent) + Send + Sync + 'static,
    ) -> Result<JobPool, ExecutorError> {
        sweep(&config)?;
        let (host, capabilities) = probe(config)?;
        if host.config.sandbox == SandboxKind::None {
            plain::become_subreaper()?;
        }
        let host = Arc::new(host);
        let shared = Arc::new(Shared {
            host: Arc::clone(&host),
            state: Mutex::default(),
            work: Condvar::new(),
            low: Condvar::new(),
            mean_us: AtomicU64::new(ENOUGH_US),
            on_event: Box::new(on_event),
        });
        let (remove, removals) = channel::<Removal>();
        let (leave, left) = channel::<Removal>();
        let quick = move || {
            removals.into_iter().for_each(|removal| remove_within(QUICK_REMOVAL_MAX, removal, &leave));
        };
        let quick = spawn("janitor", quick)?;
        let slow = spawn("slow janitor", move || left.into_iter().for_each(remove_folder))?;
        let mut pool = JobPool { shared, slots: Vec::new(), janitors: [quick, slow].map(Some), capabilities };
        for number in 0..host.config.slots {
            let mut slot = Slot::new(number, Arc::clone(&host), remove.clone())?;
            let shared = Arc::clone(&pool.shared);
            // These threads never end before the executor: bubblewrap dies with the thread that started its parent.
            pool.slots.push(spawn("slot", move || shared.work_off(&mut slot))?);
        }
        Ok(pool)
    }

    /// What the probes found.
    pub fn capabilities(&self) -> &SandboxCapabilities {
        &self.capabilities
    }

    /// Puts jobs into the backlog. A lease that is there already is left alone.
    pub fn submit(&self, specs: impl IntoIterator<Item = StartSpec>) {
        let mut refused = Vec::new();
        let mut state = self.shared.lock();
        for spec in specs {
            let why = match (state.closed, state.backlog.len() >= BACKLOG_MAX) {
                _ if state.leases.contains_key(&spec.lease) => continue,
                (true, _) => "the executor is stopping".to_owned(),
                (_, true) => format!("the executor has {BACKLOG_MAX} jobs waiting already"),
                (false, false) => {
                    state.leases.insert(spec.lease, Arc::default());
                    state.backlog.push_back(spec);
                    self.shared.work.notify_one();
                    continue;
                }
            };
            refused.push(unrun(spec.lease, Outcome::Errored, &why));
        }
        drop(state);
        refused.into_iter().for_each(|end| (self.shared.on_event)(JobEvent::Ended(Box::new(end))));
    }

    /// Ends a job, whether it waits or runs. Its end is an event like any other. Nothing for an unknown lease.
    pub fn cancel(&self, lease: &LeaseId) {
        let mut state = self.shared.lock();
        let Some(control) = state.leases.get(lease).cloned() else { return };
        control.cancel();
        let waiting = state.backlog.iter().position(|spec| spec.lease == *lease);
        if let Some(at) = waiting {
            state.backlog.remove(at);
            state.leases.remove(lease);
            drop(state);
            (self.shared.on_event)(JobEvent::Ended(Box::new(unrun(*lease, Outcome::Cancelled, "cancelled"))));
        }
    }

    /// Takes back every job that waits for a slot: none of them begins here any more, and none of them has an end.
    pub(crate) fn withdraw(&self) -> Vec<LeaseId> {
        let mut state = self.shared.lock();
        let waiting: Vec<LeaseId> = state.backlog.drain(..).map(|spec| spec.lease).collect();
        waiting.iter().for_each(|lease| drop(state.leases.remove(lease)));
        self.shared.low.notify_all();
        waiting
    }

    /// Every lease that waits or runs.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.lock().leases.keys().copied().collect()
    }

    /// Waits while many jobs lie ready for the slots, so that nobody has to hurry; at most until `until`.
    pub(crate) fn rest_while_busy(&self, until: Instant) {
        let mut state = self.shared.lock();
        while state.backlog.len() > self.shared.enough() && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.low.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no further jobs; what is there goes on.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.low.notify_all();
    }
}

impl Drop for JobPool {
    fn drop(&mut self) {
        self.close();
        self.leases().iter().for_each(|lease| self.cancel(lease));
        for slot in self.slots.drain(..) {
            // A slot that panicked has said so on standard error.
            let _ = slot.join();
        }
        self.shared.host.remove_groups();
        // The first has nothing more to do once the slots are gone, and the second once the first is.
        for janitor in self.janitors.iter_mut().filter_map(Option::take) {
            let _ = janitor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that keep the slots busy for as long as it takes to get more.
    fn enough(&self) -> usize {
        let each = ENOUGH_US.div_ceil(self.mean_us.load(Ordering::Relaxed).max(1)).min(ENOUGH_PER_SLOT_MAX);
        self.host.config.slots as usize * each as usize
    }

    /// Takes in how long a job took. Slots that do so at once may lose one of them: it is a mean.
    fn note_duration(&self, took: Duration) {
        let mean = self.mean_us.load(Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / MEAN_OF;
        self.mean_us.store(mean - mean / MEAN_OF + took, Ordering::Relaxed);
    }

    fn work_off(&self, slot: &mut Slot) {
        while let Some((spec, control)) = self.next() {
            let began = Instant::now();
            (self.on_event)(JobEvent::Started(spec.lease));
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slot.run(&spec, &control)));
            let end = ran.unwrap_or_else(|_| {
                slot.reset();
                unrun(spec.lease, Outcome::Errored, "the executor has a bug; its log says where")
            });
            self.note_duration(began.elapsed());
            self.lock().leases.remove(&spec.lease);
            (self.on_event)(JobEvent::Ended(Box::new(end)));
        }
    }

    /// Waits for a job; `None` when there will be none.
    fn next(&self) -> Option<(StartSpec, Arc<Control>)> {
        let mut state = self.lock();
        loop {
            if let Some(spec) = state.backlog.pop_front() {
                if state.backlog.len() <= self.enough() {
                    self.low.notify_all();
                }
                let control = state.leases.get(&spec.lease).cloned();
                return Some((spec, control.expect("a waiting lease has its control")));
            }
            if state.closed {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The end of a lease that had no process.
pub(crate) fn unrun(lease: LeaseId, outcome: Outcome, why: &str) -> JobEnd {
    JobEnd { lease, result: JobResult::unrun(outcome, why), junit: None, log_bytes: 0, cpu_ms: None }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(body)
}

/// A folder of a job that is over.
pub(crate) type Removal = (JobFolder, Leaving);

/// Removes a folder, or leaves it to whoever has the time.
fn remove_within(patience: Duration, (folder, leaving): Removal, leave: &Sender<Removal>) {
    match folder.remove_until(Instant::now() + patience) {
        Ok(true) => {}
        // The other janitor lives longer; without it the next start sweeps.
        Ok(false) => drop(leave.send((folder, leaving))),
        Err(error) => say_unremoved(folder.path(), &error),
    }
}

fn remove_folder((folder, _leaving): Removal) {
    let path = folder.path().to_owned();
    if let Err(error) = folder.remove() {
        say_unremoved(&path, &error);
    }
}

fn say_unremoved(path: &Path, why: &io::Error) {
    eprintln!("towpath executor: cannot remove {}: {why}; the next start tries again", path.display());
}

/// Begins the names of the homes of jobs without a sandbox.
pub(crate) const HOME: &str = "home-";
/// The name of the folder with the folders of jobs.
pub(crate) const JOBS: &str = "jobs";
/// Begins the name of a folder that could not be removed, so that there can be another one in its place.
pub(crate) const UNSWEPT: &str = "unswept-";

/// Removes what an executor that died left, whatever its sandbox was. Its mounts and processes died with it. A job made those
/// folders: what cannot be removed is set aside, is said, and is tried again at the next start, but keeps no executor from
/// starting.
fn sweep(config: &ExecutorConfig) -> io::Result<()> {
    SecretFiles::sweep(&config.spool)?;
    sweep_folder(&config.spool, |name| [HOME, UNSWEPT].iter().any(|prefix| name.starts_with(prefix)))?;
    sweep_folder(&config.spool.join(JOBS), |_| true)
}

fn sweep_folder(folder: &Path, is_left: impl Fn(&str) -> bool) -> io::Result<()> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(entries) => {
            let left = entries.flatten().filter(|entry| is_left(&entry.file_name().to_string_lossy()));
            left.for_each(|entry| sweep_one(&entry));
            Ok(())
        }
    }
}

fn sweep_one(entry: &DirEntry) {
    let path = entry.path();
    let Err(why) = remove_tree(&path) else { return };
    let name = entry.file_name().to_string_lossy().into_owned();
    let aside = path.with_file_name(format!("{UNSWEPT}{name}"));
    if name.starts_with(UNSWEPT) || set_aside(&path, &aside, &why).is_err() {
        say_left(&path, &why);
    }
}

/// Frees the place of a folder that cannot be removed, and says so.
pub(crate) fn set_aside(path: &Path, aside: &Path, why: &io::Error) -> io::Result<()> {
    std::fs::rename(path, aside)?;
    say_left(aside, why);
    Ok(())
}

fn say_left(path: &Path, why: &io::Error) {
    eprintln!(
        "towpath executor: cannot remove {}, which a job left: {why}; remove it by hand, or let the next start try again",
        path.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharing::Sharing;

    #[test]
    fn a_folder_that_takes_long_to_remove_is_left_to_whoever_has_the_time() {
        let (jobs, sharing) = (tempfile::tempdir().unwrap(), Sharing::default());
        let [long, short] = [1, 2].map(|number| {
            let folder = JobFolder::make(jobs.path(), &LeaseId([number; 16])).unwrap();
            std::fs::write(folder.path().join("file"), "").unwrap();
            (folder, sharing.leaving())
        });
        let (leave, left) = channel();
        remove_within(Duration::ZERO, long, &leave);
        remove_within(Duration::from_secs(600), short, &leave);
        drop(leave);
        let left: Vec<Removal> = left.into_iter().collect();
        assert_eq!(std::fs::read_dir(jobs.path()).unwrap().count(), 1);
        assert!(left[0].0.path().join("file").exists());
        assert!(sharing.clearing().goes_on);
        left.into_iter().for_each(remove_folder);
        assert!(!sharing.clearing().goes_on);
        assert_eq!(std::fs::read_dir(jobs.path()).unwrap().count(), 0);
    }
}
