//! The executor as the server sees it: a process beside it that is found or started, and started again when it dies.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use towpath_blob::{BlobError, BlobStore, LogStore};
use towpath_core::ids::{Digest, Epoch, LeaseId};
use towpath_executor::protocol::{StopMode, Welcome};
use towpath_executor::toolchains::Toolchains;
use towpath_executor::{
    ConnectError, ExecutorClient, ExecutorConfig, ExecutorEvent, SandboxKind, StartMessage, start_executor,
};

use crate::drivers::run_job::Jobs;
use crate::settings::{ExecutorLife, ServerSettings};

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
    wanted: Wanted,
    epoch: Epoch,
    jobs: Weak<Jobs>,
    connection: Mutex<Option<Connection>>,
    /// Held while it is found or started.
    connecting: Mutex<()>,
    /// The newest connection's.
    number: AtomicU64,
    spells: Mutex<Spells>,
    /// There has been one that is given jobs.
    has_served: watch::Sender<bool>,
    closing: AtomicBool,
    me: Weak<Executor>,
}

/// What an executor is to this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is given jobs.
    Serves,
    /// It is given none, as it does not run them as this server was told to have them run. What it has it brings to its end;
    /// then its successor is started.
    Leaves {
        /// What it does otherwise.
        why: String,
        /// Jobs that it has.
        jobs: usize,
    },
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Standing::Serves => write!(f, "jobs can run"),
            Standing::Leaves { why, jobs: 0 } => write!(f, "the executor that was there is replaced: {why}"),
            Standing::Leaves { why, jobs } => write!(
                f,
                "the executor that was there is replaced once its jobs, {jobs} by now, are over, and new ones wait until \
                 then: {why}\n hint: cancel their runs to have it sooner"
            ),
        }
    }
}

/// How this server was told to have jobs run. An executor of another server may do otherwise.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    sandbox: SandboxKind,
    slots: u32,
    life: ExecutorLife,
}

impl Wanted {
    /// What an executor is to a server that wants this, and whose jobs would find `tools` if another one were started now.
    fn standing(self, welcome: &Welcome, tools: Digest) -> Standing {
        let runs = if welcome.unsandboxed { SandboxKind::None } else { SandboxKind::Bubblewrap };
        let why = match (runs, self.sandbox) {
            (SandboxKind::None, SandboxKind::Bubblewrap) => {
                "it runs them without a sandbox, and this server wants one".to_owned()
            }
            (SandboxKind::Bubblewrap, SandboxKind::None) => {
                "it runs them in the sandbox, and this server was started with `--sandbox none`".to_owned()
            }
            _ if welcome.slots != self.slots => {
                format!("it runs {} at once, and this server wants {}", welcome.slots, self.slots)
            }
            _ if welcome.ends_with_server && self.life == ExecutorLife::Own => {
                "it ends with its server, and this one wants jobs to outlive it".to_owned()
            }
            _ if !welcome.ends_with_server && self.life == ExecutorLife::WithServer => {
                "it outlives its server, and this one wants no jobs without it".to_owned()
            }
            _ if welcome.tools.is_some_and(|found| found != tools) => {
                "its jobs find other tools than this server's environment has by now".to_owned()
            }
            _ if welcome.stopping => "it was told to end".to_owned(),
            _ => return Standing::Serves,
        };
        Standing::Leaves { why, jobs: welcome.leases.active.len() }
    }
}

struct Connection {
    number: u64,
    client: ExecutorClient,
    standing: Standing,
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
    /// sandbox first. What it says goes to `jobs`; `answered` hears whether it came up.
    pub fn start(
        (settings, folder): (&ServerSettings, &Path),
        epoch: Epoch,
        jobs: &Arc<Jobs>,
        answered: impl FnOnce(Result<Standing, ExecutorTrouble>) + Send + 'static,
    ) -> Arc<Executor> {
        let executor = Arc::new_cyclic(|me| Executor {
            socket: folder.join("socket"),
            log: folder.join("executor.log"),
            command: command(settings, folder),
            wanted: Wanted { sandbox: settings.sandbox, slots: settings.slots, life: settings.executor },
            epoch,
            jobs: Arc::downgrade(jobs),
            connection: Mutex::default(),
            connecting: Mutex::default(),
            number: AtomicU64::new(0),
            spells: Mutex::default(),
            has_served: watch::Sender::new(false),
            closing: AtomicBool::new(false),
            me: me.clone(),
        });
        let me = executor.clone();
        on_thread(move || answered(me.connect(0)));
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

    /// Has jobs run; gives them back if there is no executor now that takes them. The same lease again changes nothing.
    ///
    /// # Errors
    /// The jobs, to be given again when [`Jobs::resume`] tells of an executor.
    pub fn submit(&self, jobs: Vec<StartMessage>) -> Result<(), Vec<StartMessage>> {
        match &*self.connection() {
            // It fails as the connection does, and a successor is asked about the leases.
            Some(Connection { client, standing: Standing::Serves, .. }) => {
                let _ = client.start(jobs);
                Ok(())
            }
            Some(_) | None => Err(jobs),
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

    /// Returns once there has been one that is given jobs.
    pub async fn serves(&self) {
        let mut served = self.has_served.subscribe();
        // It ends early if nobody could say so any more, which is not while this is.
        let _ = served.wait_for(|has_served| *has_served).await;
    }

    /// The executor's process, for people.
    pub fn pid(&self) -> Option<u32> {
        self.connection().as_ref().map(|connection| connection.client.welcome().pid)
    }

    /// Lets go of the executor, which goes on with its jobs.
    pub fn leave(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let connection = self.connection().take();
        // It waits for whoever is just told something, which may want to answer.
        drop(connection);
    }

    /// Ends the executor with its jobs, and waits for it.
    pub fn end(&self) {
        self.closing.store(true, Ordering::Relaxed);
        // One that is just starting would be left behind.
        let _last = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = self.connection().take() else { return };
        if !connection.client.end(StopMode::Now, END_PATIENCE) {
            tracing::warn!("the executor does not end; it does once its jobs have");
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spells(&self) -> MutexGuard<'_, Spells> {
        self.spells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, say: impl FnOnce(&ExecutorClient) -> io::Result<()>) {
        if let Some(connection) = &*self.connection()
            && let Err(error) = say(&connection.client)
        {
            // The connection's end is an event of its own, after which everything is compared again.
            tracing::warn!(%error, "the executor could not be told something: {error}");
        }
    }

    /// Finds or starts it, unless somebody has since the connection `lost` was over, and tells the jobs what it has.
    fn connect(&self, lost: u64) -> Result<Standing, ExecutorTrouble> {
        let _alone = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.load(Ordering::Relaxed) || self.number.load(Ordering::Relaxed) > lost {
            return Ok(Standing::Serves);
        }
        let mut found = self.find_or_start()?;
        if found.standing != Standing::Serves && found.client.welcome().leases.active.is_empty() {
            // Nothing keeps it, so nobody needs to hear that jobs wait.
            tracing::info!("{}", found.standing);
            if found.client.end(StopMode::WhenIdle, END_PATIENCE) {
                found = self.find_or_start()?;
            }
        }
        let standing = found.standing.clone();
        if standing != Standing::Serves {
            tracing::warn!("{standing}");
        }
        let leases = found.client.welcome().leases.clone();
        let mut former = None;
        let adopt = || former = self.connection().replace(found);
        self.spells().begin(Instant::now());
        match self.jobs.upgrade() {
            Some(jobs) => jobs.resume(&leases, &standing, adopt),
            None => adopt(),
        }
        // It waits for whoever is still told its last words, which may want what was locked until here.
        drop(former);
        if standing != Standing::Serves {
            // It has fewer leases then than it has said: those that wait for a slot there are given to its successor. Not
            // before this: what another executor says than the one that there is, is not heard.
            self.tell(|client| client.stop(StopMode::WhenIdle).and_then(|()| client.list()));
        } else if self.has_served.send_replace(true) {
            tracing::info!("there is an executor again: jobs can run");
        }
        Ok(standing)
    }

    fn find_or_start(&self) -> Result<Connection, ExecutorTrouble> {
        match self.connect_within(FIND_PATIENCE) {
            Ok(found) => Ok(found),
            Err(ConnectError::Unreachable { .. }) => {
                let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
                let mut child = start_executor(&self.command, log)?;
                let tried = self.connect_within(START_PATIENCE);
                // It outlives this server; its end is seen at the socket. Waiting keeps it from staying a zombie.
                std::thread::Builder::new().name("executor-reaper".into()).spawn(move || child.wait())?;
                tried.map_err(|source| ExecutorTrouble::Connect { source, said: self.last_words() })
            }
            Err(source) => Err(ExecutorTrouble::Connect { source, said: self.last_words() }),
        }
    }

    fn connect_within(&self, patience: Duration) -> Result<Connection, ConnectError> {
        let (me, number) = (self.me.clone(), self.number.load(Ordering::Relaxed) + 1);
        let client = ExecutorClient::connect(&self.socket, (self.epoch, None), patience, move |event| {
            if let Some(me) = me.upgrade() {
                me.heard(number, event);
            }
        })?;
        // Under the lock of whoever connects: nobody else has the same.
        self.number.store(number, Ordering::Relaxed);
        // Looked up anew: one that was started after a tool came or went is not taken for one from before.
        let standing = self.wanted.standing(client.welcome(), Toolchains::here().digest());
        Ok(Connection { number, client, standing })
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n       ")
    }

    fn heard(self: &Arc<Self>, number: u64, event: ExecutorEvent) {
        let Some(jobs) = self.jobs.upgrade() else { return };
        match event {
            ExecutorEvent::Started(lease) => jobs.started(lease),
            ExecutorEvent::Ended(ends) => jobs.ended(ends),
            ExecutorEvent::Leases(leases) => {
                if let Some(standing) = self.standing_of(number) {
                    jobs.resume(&leases, &standing, || {});
                }
            }
            ExecutorEvent::Gone(why) if !self.closing.load(Ordering::Relaxed) => {
                match self.standing_of(number) {
                    Some(Standing::Serves) => {
                        tracing::error!("the executor is gone, another one is started: {why}");
                    }
                    // It ended as it was told to.
                    Some(Standing::Leaves { .. }) | None => tracing::info!("another executor is started"),
                }
                let (me, pause) = (self.clone(), self.spells().end(Instant::now()));
                on_thread(move || {
                    std::thread::park_timeout(pause);
                    me.revive(number);
                });
            }
            ExecutorEvent::Gone(_) => {}
        }
    }

    /// What the executor at the other end of a connection is, as far as it is the one that there is now.
    fn standing_of(&self, number: u64) -> Option<Standing> {
        let connection = self.connection();
        connection.as_ref().filter(|found| found.number == number).map(|found| found.standing.clone())
    }

    /// Starts the executor's successor after a connection is over, however often it takes.
    fn revive(&self, lost: u64) {
        while !self.closing.load(Ordering::Relaxed) {
            match self.connect(lost) {
                Ok(_) => return,
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
    let mut words: Vec<OsString> = vec![
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
    ];
    if settings.executor == ExecutorLife::WithServer {
        words.push("--with-server".into());
    }
    words
}

#[cfg(test)]
mod tests {
    use towpath_executor::protocol::Leases;

    use super::*;

    #[test]
    fn an_executor_is_given_jobs_only_if_it_runs_them_as_the_server_wants() {
        let tools = Digest::of(b"tools");
        let found = |unsandboxed, slots, stopping| Welcome {
            version: 1,
            incarnation: "test".into(),
            pid: 1,
            slots,
            unsandboxed,
            stopping,
            ends_with_server: false,
            tools: Some(tools),
            leases: Leases { active: vec![LeaseId([1; 16])], unacked: vec![LeaseId([2; 16])] },
        };
        let check = |sandbox, welcome: Welcome, expected: Option<&str>| {
            let leaves = |why: &str| Standing::Leaves { why: why.to_owned(), jobs: 1 };
            let standing = Wanted { sandbox, slots: 2, life: ExecutorLife::Own }.standing(&welcome, tools);
            assert_eq!(standing, expected.map_or(Standing::Serves, leaves));
        };
        use SandboxKind::{Bubblewrap, None as Plain};
        check(Bubblewrap, found(false, 2, false), None);
        check(Plain, found(true, 2, false), None);
        check(
            Bubblewrap,
            found(true, 2, false),
            Some("it runs them without a sandbox, and this server wants one"),
        );
        let boxed = "it runs them in the sandbox, and this server was started with `--sandbox none`";
        check(Plain, found(false, 2, false), Some(boxed));
        check(Plain, found(true, 6, false), Some("it runs 6 at once, and this server wants 2"));
        check(Plain, found(true, 2, true), Some("it was told to end"));
        let other = Welcome { tools: Some(Digest::of(b"other")), ..found(true, 2, false) };
        check(Plain, other, Some("its jobs find other tools than this server's environment has by now"));
        check(Plain, Welcome { tools: None, ..found(true, 2, false) }, None);
        let mortal = Welcome { ends_with_server: true, ..found(true, 2, false) };
        check(Plain, mortal.clone(), Some("it ends with its server, and this one wants jobs to outlive it"));
        let mut wanted = Wanted { sandbox: Plain, slots: 2, life: ExecutorLife::WithServer };
        assert_eq!(wanted.standing(&mortal, tools), Standing::Serves);
        assert_ne!(wanted.standing(&found(true, 2, false), tools), Standing::Serves);
        wanted.life = ExecutorLife::Own;
        assert_eq!(wanted.standing(&found(true, 2, false), tools), Standing::Serves);
    }

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
