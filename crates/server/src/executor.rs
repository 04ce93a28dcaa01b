//! The executor as the server sees it: a process beside it that is found or started, and started again when it dies.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use towpath_blob::{BlobError, BlobStore, LogStore};
use towpath_core::ids::{Epoch, LeaseId};
use towpath_executor::{
    ConnectError, ExecutorClient, ExecutorConfig, ExecutorEvent, SandboxKind, StartMessage, start_executor,
};

use crate::drivers::run_job::Jobs;
use crate::settings::ServerSettings;

/// How long an executor that should be there may take to answer.
const FIND_PATIENCE: Duration = Duration::from_millis(20);
/// How long one that was just started may take: it probes the sandbox first.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to start it.
const START_PAUSE: Duration = Duration::from_secs(2);
/// A connection that is over sooner is brief: one that its executor ends at each word, as its disk is full, say.
const BRIEF: Duration = START_PAUSE;
/// Connections in a row that may be brief before the next one is waited with.
const BRIEF_MAX: u32 = 1;

/// How long the end of one with its jobs is waited for. It kills them at once; one that the kernel is slow to let go of
/// keeps it for up to a minute, and is not waited for.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// The way to the executor's process.
pub struct Executor {
    socket: PathBuf,
    log: PathBuf,
    command: Vec<OsString>,
    epoch: Epoch,
    jobs: Weak<Jobs>,
    client: Mutex<Option<ExecutorClient>>,
    /// Held while it is found or started.
    connecting: Mutex<()>,
    spells: Mutex<Spells>,
    closing: AtomicBool,
    me: Weak<Executor>,
}

/// Why the executor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorTrouble {
    /// It cannot be started.
    #[error("the executor cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It does not come up.
    #[error("{source}\n  why: {said}")]
    Connect {
        /// What the client saw.
        source: ConnectError,
        /// What the executor said last.
        said: String,
    },
    /// Logs or outputs cannot be kept.
    #[error(transparent)]
    Stores(#[from] BlobError),
}

impl Executor {
    /// Finds the executor of an earlier server, or starts one: on a thread of its own, as one that starts probes the
    /// sandbox first. What it says goes to `jobs`; `ready` hears whether it came up.
    pub fn start(
        (settings, folder): (&ServerSettings, &Path),
        epoch: Epoch,
        jobs: &Arc<Jobs>,
        ready: impl FnOnce(Result<(), ExecutorTrouble>) + Send + 'static,
    ) -> Arc<Executor> {
        let executor = Arc::new_cyclic(|me| Executor {
            socket: folder.join("socket"),
            log: folder.join("executor.log"),
            command: command(settings, folder),
            epoch,
            jobs: Arc::downgrade(jobs),
            client: Mutex::default(),
            connecting: Mutex::default(),
            spells: Mutex::default(),
            closing: AtomicBool::new(false),
            me: me.clone(),
        });
        let me = executor.clone();
        on_thread(move || ready(me.connect()));
        executor
    }

    /// Where logs and outputs are.
    ///
    /// # Errors
    /// They cannot be opened.
    pub fn stores(folder: &Path) -> Result<(LogStore, BlobStore), ExecutorTrouble> {
        let config = ExecutorConfig::in_folder(folder, Vec::new());
        Ok((LogStore::open(config.logs)?, BlobStore::open(config.blobs)?))
    }

    /// Has jobs run; gives them back if there is no executor now. The same lease again changes nothing.
    ///
    /// # Errors
    /// The jobs, to be given again when [`Jobs::resume`] tells of an executor.
    pub fn submit(&self, jobs: Vec<StartMessage>) -> Result<(), Vec<StartMessage>> {
        match &*self.client() {
            // It fails as the connection does, and a successor is asked about the leases.
            Some(client) => {
                let _ = client.start(jobs);
                Ok(())
            }
            None => Err(jobs),
        }
    }

    /// Stops a job; its end is told like any other.
    pub fn cancel(&self, lease: &LeaseId) {
        self.tell(|client| client.cancel(*lease));
    }

    /// The ends of jobs are durable here: the executor may forget them.
    pub fn ack(&self, leases: Vec<LeaseId>) {
        self.tell(|client| client.ack(leases));
    }

    /// The executor's process, for people.
    pub fn pid(&self) -> Option<u32> {
        self.client().as_ref().map(|client| client.welcome().pid)
    }

    /// Lets go of the executor, which goes on with its jobs.
    pub fn leave(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let client = self.client().take();
        // It waits for whoever is just told something, which may want to answer.
        drop(client);
    }

    /// Ends the executor with its jobs, and waits for it.
    pub fn end(&self) {
        self.closing.store(true, Ordering::Relaxed);
        // One that is just starting would be left behind.
        let _last = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = self.client().take() else { return };
        if !client.end(END_PATIENCE) {
            tracing::warn!("the executor does not end; it does once its jobs have");
        }
    }

    fn client(&self) -> MutexGuard<'_, Option<ExecutorClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spells(&self) -> MutexGuard<'_, Spells> {
        self.spells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, say: impl FnOnce(&ExecutorClient) -> io::Result<()>) {
        if let Some(client) = &*self.client()
            && let Err(error) = say(client)
        {
            // The connection's end is an event of its own, after which everything is compared again.
            tracing::warn!(%error, "the executor could not be told something: {error}");
        }
    }

    /// Finds or starts it, and tells the jobs what it has.
    fn connect(&self) -> Result<(), ExecutorTrouble> {
        let _alone = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let client = match self.connect_within(FIND_PATIENCE) {
            Ok(client) => client,
            Err(ConnectError::Unreachable { .. }) => {
                let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
                let mut child = start_executor(&self.command, log)?;
                let tried = self.connect_within(START_PATIENCE);
                // It outlives this server; its end is seen at the socket. Waiting keeps it from staying a zombie.
                std::thread::Builder::new().name("executor-reaper".into()).spawn(move || child.wait())?;
                tried.map_err(|source| ExecutorTrouble::Connect { source, said: self.last_words() })?
            }
            Err(source) => return Err(ExecutorTrouble::Connect { source, said: self.last_words() }),
        };
        let leases = client.welcome().leases.clone();
        let mut former = None;
        let adopt = || former = self.client().replace(client);
        self.spells().begin(Instant::now());
        match self.jobs.upgrade() {
            Some(jobs) => jobs.resume(&leases, adopt),
            None => adopt(),
        }
        // It waits for whoever is still told its last words, which may want what was locked until here.
        drop(former);
        Ok(())
    }

    fn connect_within(&self, patience: Duration) -> Result<ExecutorClient, ConnectError> {
        let me = self.me.clone();
        ExecutorClient::connect(&self.socket, (self.epoch, None), patience, move |event| {
            if let Some(me) = me.upgrade() {
                me.heard(event);
            }
        })
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n       ")
    }

    fn heard(self: &Arc<Self>, event: ExecutorEvent) {
        let Some(jobs) = self.jobs.upgrade() else { return };
        match event {
            ExecutorEvent::Started(lease) => jobs.started(lease),
            ExecutorEvent::Ended(ends) => jobs.ended(ends),
            ExecutorEvent::Leases(_) => {}
            ExecutorEvent::Gone(why) if !self.closing.load(Ordering::Relaxed) => {
                tracing::error!("the executor is gone, another one is started: {why}");
                let (me, pause) = (self.clone(), self.spells().end(Instant::now()));
                on_thread(move || {
                    std::thread::park_timeout(pause);
                    me.revive();
                });
            }
            ExecutorEvent::Gone(_) => {}
        }
    }

    /// Starts the executor's successor, however often it takes.
    fn revive(&self) {
        while !self.closing.load(Ordering::Relaxed) {
            match self.connect() {
                Ok(()) => return,
                Err(ExecutorTrouble::Connect { source: ConnectError::Refused { why, .. }, .. }) => {
                    tracing::error!("another server has the executor: {why}");
                    return;
                }
                Err(error) => tracing::error!("the executor does not start, it is tried again: {error}"),
            }
            std::thread::park_timeout(START_PAUSE);
        }
    }
}

/// How long connections last.
#[derive(Debug, Default)]
struct Spells {
    began: Option<Instant>,
    /// So many in a row were brief.
    brief: u32,
}

impl Spells {
    fn begin(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// A connection is over: how long the next one is waited with.
    fn end(&mut self, now: Instant) -> Duration {
        let is_brief = self.began.take().is_some_and(|began| now.duration_since(began) < BRIEF);
        self.brief = if is_brief { self.brief + 1 } else { 0 };
        if self.brief > BRIEF_MAX { START_PAUSE } else { Duration::ZERO }
    }
}

fn on_thread(work: impl FnOnce() + Send + 'static) {
    let started = std::thread::Builder::new().name("executor-start".into()).spawn(work);
    started.expect("invariant: a thread can be started while the server runs");
}

fn command(settings: &ServerSettings, folder: &Path) -> Vec<OsString> {
    let sandbox = match settings.sandbox {
        SandboxKind::Bubblewrap => "bubblewrap",
        SandboxKind::None => "none",
    };
    vec![
        settings.program.clone().into(),
        "executor".into(),
        "--folder".into(),
        folder.into(),
        "--socket".into(),
        folder.join("socket").into(),
        "--slots".into(),
        settings.slots.to_string().into(),
        "--sandbox".into(),
        sandbox.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_that_ends_one_connection_after_the_other_is_not_asked_without_rest() {
        let (mut spells, mut now) = (Spells::default(), Instant::now());
        let mut pause = |lasted: Duration| {
            spells.begin(now);
            now += lasted;
            spells.end(now)
        };
        let brief = Duration::from_millis(1);
        assert_eq!([pause(brief), pause(brief), pause(brief)], [Duration::ZERO, START_PAUSE, START_PAUSE]);
        assert_eq!([pause(BRIEF), pause(brief)], [Duration::ZERO; 2]);
    }
}
