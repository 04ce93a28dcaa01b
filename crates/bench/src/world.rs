//! A whole server in this process, with a real executor beside it, on a folder of its own.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use towpath_core::cell::CellId;
use towpath_core::graph::{JobGraph, JobSpec, Outcome, Trigger};
use towpath_core::ids::{CommitId, Epoch, RunId, TreeId};
use towpath_core::message::RunStart;
use towpath_core::policy::Level;
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;
use towpath_executor::protocol::StopMode;
use towpath_executor::{ExecutorClient, ExecutorConfig, ExecutorEvent, Limits, SandboxKind};
use towpath_git::GitOptions;
use towpath_server::engine::{AnyIntake, Changed, Engine};
use towpath_server::http::Edge;
use towpath_server::http::origin::Site;
use towpath_server::http::serve::serve;
use towpath_server::server::{Server, Shared};
use towpath_server::settings::{ExecutorLife, ServerSettings};

use crate::Fault;

mod landed;

/// Jobs at once: as many as the floor starts.
pub const SLOTS: u32 = 2;
/// How long a whole measured run may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long an executor without jobs may take to end.
const PATIENCE_END: Duration = Duration::from_secs(10);

/// A new folder beside this program, so on the disk on which the product is made: `/tmp` may be memory.
///
/// # Errors
/// It cannot be made.
pub fn folder() -> Result<TempDir, Fault> {
    let program = std::env::current_exe()?;
    let beside = program.parent().ok_or("this program is in no folder")?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?)
}

/// The repository in which this program was made.
///
/// # Errors
/// It was made elsewhere.
pub fn this_repository() -> Result<PathBuf, Fault> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().find(|folder| folder.join(".git").exists());
    Ok(found.ok_or("this program was not made in a clone of the repository")?.to_owned())
}

/// A server and its executor.
pub struct World {
    server: Option<Server>,
    runtime: Runtime,
    next_run: AtomicU64,
    path: PathBuf,
    /// The same, where it is this world's own.
    _folder: Option<TempDir>,
}

impl World {
    /// Starts both, and waits until jobs can run.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(sandbox: SandboxKind) -> Result<World, Fault> {
        let folder = folder()?;
        let mut world = World::open(folder.path(), sandbox, 1)?;
        world._folder = Some(folder);
        Ok(world)
    }

    /// The same on a folder that others have used or will, with so many threads for requests.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn open(folder: &Path, sandbox: SandboxKind, threads: usize) -> Result<World, Fault> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        let mut server = runtime.block_on(Server::start(settings(folder, sandbox)?))?;
        runtime.block_on(server.executor_answered())?;
        let view = server.shared.store.reader().snapshot()?;
        let next_run = 1 + view.last_run_number(&run_id(1).gate)?.unwrap_or(0);
        let (path, next_run) = (folder.to_owned(), AtomicU64::new(next_run));
        Ok(World { server: Some(server), runtime, next_run, path, _folder: None })
    }

    /// Works on what the server works with.
    ///
    /// # Errors
    /// Those of the work.
    pub fn with(&self, work: impl FnOnce(&Shared) -> Result<(), Fault>) -> Result<(), Fault> {
        work(self.shared())
    }

    /// Answers requests from now on, as `towpath serve` does; says where.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn listen(&self) -> Result<SocketAddr, Fault> {
        let listener = self.runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let edge = Edge::open(self.server().shared.clone(), Site::new(&format!("http://{address}"))?)?;
        // Until this process ends or the runtime does.
        self.runtime.spawn(serve(edge, listener, std::future::pending()));
        Ok(address)
    }

    /// Ends the executor of a folder whose server has ended: it outlives its servers.
    ///
    /// # Errors
    /// It does not end.
    pub fn end_executor_of(folder: &Path) -> Result<(), Fault> {
        let (client, gone) = connect(folder)?;
        client.stop(StopMode::Now)?;
        Ok(gone.recv_timeout(PATIENCE_END)?)
    }

    fn stop(&mut self) -> Result<(), Fault> {
        let Some(server) = self.server.take() else { return Ok(()) };
        // That the loop had ended by itself was seen by whoever waited for a run.
        let _ = server.stop();
        World::end_executor_of(&self.path)
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("invariant: it is there until it is closed")
    }

    fn shared(&self) -> &Shared {
        &self.server().shared
    }

    fn engine(&self) -> &Engine {
        &self.shared().engine
    }

    /// Durable deliveries of `count` runs of this graph, `width` of them under way at any time; how long each took from
    /// its delivery until its end was durable.
    ///
    /// # Errors
    /// A run did not pass.
    pub fn runs(&self, graph: &JobGraph, count: u32, width: u32) -> Result<Vec<Duration>, Fault> {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.all(graph, count, width))
                .await
                .map_err(|_| "the runs do not end")?
        })
    }

    async fn all(&self, graph: &JobGraph, count: u32, width: u32) -> Result<Vec<Duration>, Fault> {
        let mut changes = self.engine().changes();
        let mut under_way = HashSet::new();
        let (mut begun, mut took) = (std::collections::HashMap::new(), Vec::new());
        let mut left = count;
        while left > 0 || !under_way.is_empty() {
            while left > 0 && under_way.len() < width as usize {
                let run = self.next();
                begun.insert(run.clone(), Instant::now());
                self.deliver(&run, graph);
                under_way.insert(run);
                left -= 1;
            }
            for run in self.ended(&mut changes, &under_way).await? {
                under_way.remove(&run);
                took.extend(begun.remove(&run).map(|at| at.elapsed()));
            }
        }
        Ok(took)
    }

    /// Looks whether every run so far has passed, beside what is timed.
    ///
    /// # Errors
    /// One did not.
    pub fn check_passed(&self) -> Result<(), Fault> {
        let view = self.shared().store.reader().snapshot()?;
        for number in 1..self.next_run.load(Ordering::Relaxed) {
            let outcome = view.run(&run_id(number))?.and_then(|row| row.outcome);
            if outcome != Some(Outcome::Passed) {
                return Err(format!("run {number} ended {outcome:?}").into());
            }
        }
        Ok(())
    }

    fn next(&self) -> RunId {
        run_id(self.next_run.fetch_add(1, Ordering::Relaxed))
    }

    fn deliver(&self, run: &RunId, graph: &JobGraph) {
        let start = RunStart {
            run: run.clone(),
            trigger: Trigger::Manual,
            change: None,
            reason: "measured".to_owned(),
            by: None,
            commit: CommitId([1; 20]),
            tree: TreeId([1; 20]),
            level: Level::Landed,
            graph: graph.clone(),
            carried: Default::default(),
            priority: 0,
            fail_fast: false,
            restored: false,
            facts: Default::default(),
        };
        let intake = AnyIntake::Run(Intake::Event(RunEvent::Start(Arc::new(start))));
        self.engine().deliver_surely(CellId::Run(run.clone()), intake);
    }

    /// Waits for a change; answers which runs are over.
    async fn ended(
        &self,
        changes: &mut broadcast::Receiver<Changed>,
        of: &HashSet<RunId>,
    ) -> Result<Vec<RunId>, Fault> {
        match changes.recv().await {
            Ok(Changed { cell: CellId::Run(run), is_over: true }) if of.contains(&run) => Ok(vec![run]),
            Ok(_) => Ok(vec![]),
            Err(RecvError::Closed) => Err("the server ended".into()),
            // Some were missed: a run that is over has left the memory.
            Err(RecvError::Lagged(_)) => {
                let mut ended = Vec::new();
                for run in of {
                    if self.is_over(run).await {
                        ended.push(run.clone());
                    }
                }
                Ok(ended)
            }
        }
    }

    async fn is_over(&self, run: &RunId) -> bool {
        let in_memory = self.engine().run(run.clone(), |_| ()).await.is_some();
        let listed = || self.shared().store.reader().snapshot().ok()?.run(run).ok()??.outcome;
        !in_memory && listed().is_some()
    }
}

fn run_id(number: u64) -> RunId {
    format!("bench/main/{number}").parse().expect("invariant: a valid id")
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the executor of {} was not ended: {error}", self.path.display());
        }
    }
}

/// Takes an executor over from its server, which has ended, and hears when it is gone.
fn connect(folder: &Path) -> Result<(ExecutorClient, Receiver<()>), Fault> {
    let folder = folder.join("data/executor");
    // In that server's name: a higher epoch would shut the next one out.
    let epoch: Epoch = std::fs::read_to_string(folder.join("executor/epoch"))?.trim().parse()?;
    let (tell, gone) = channel();
    let client =
        ExecutorClient::connect(&folder.join("socket"), (epoch, None), PATIENCE_END, move |event| {
            if let ExecutorEvent::Gone(_) = event {
                // Nobody waits any more when the client is dropped.
                let _ = tell.send(());
            }
        })?;
    Ok((client, gone))
}

/// How a measured server is started.
///
/// # Errors
/// This program cannot be found.
pub fn settings(folder: &Path, sandbox: SandboxKind) -> Result<ServerSettings, Fault> {
    Ok(ServerSettings {
        data: folder.join("data"),
        keys: folder.join("keys"),
        new_keys: false,
        listen: ([127, 0, 0, 1], 0).into(),
        url: None,
        trusted_proxies: Vec::new(),
        slots: SLOTS,
        sandbox,
        limits: Limits::default(),
        program: std::env::current_exe()?,
        git: GitOptions::default(),
        executor: ExecutorLife::Own,
    })
}

/// The subcommand that a server starts its executor by.
///
/// # Errors
/// It cannot start.
pub fn executor(options: &[&str]) -> Result<(), Fault> {
    let ["--folder", folder, "--socket", socket, "--slots", slots, "--sandbox", sandbox] = options else {
        return Err("executor --folder FOLDER --socket SOCKET --slots N --sandbox bubblewrap|none".into());
    };
    let helper = vec![std::env::current_exe()?.into(), "sandbox-helper".into()];
    let sandbox = match *sandbox {
        "none" => SandboxKind::None,
        _ => SandboxKind::Bubblewrap,
    };
    let config = ExecutorConfig {
        sandbox,
        slots: slots.parse()?,
        ..ExecutorConfig::in_folder(folder.as_ref(), helper)
    };
    Ok(towpath_executor::serve(config, socket.as_ref())?)
}

/// A graph of `count` jobs `true` without a work tree, in layers of a hundred. Each job needs three of the layer before;
/// ten times in ten thousand, all of a layer wait for one job that waits for the whole layer before.
pub fn graph(count: u32) -> JobGraph {
    const WIDTH: u32 = 100;
    const LAYERS_BETWEEN_BARRIERS: u32 = 10;
    let needs = |at: u32| -> Vec<u32> {
        let (layer, place) = (at / WIDTH, at % WIDTH);
        match (layer, layer % LAYERS_BETWEEN_BARRIERS, place) {
            (0, ..) => Vec::new(),
            (_, 0, 0) => (at - WIDTH..at).collect(),
            (_, 0, _) => vec![at - place],
            _ => (0..3).map(|step| (layer - 1) * WIDTH + (place + step * 7) % WIDTH).collect(),
        }
    };
    let jobs = (0..count).map(|at| job(&format!("job-{at}"), needs(at)));
    jobs.collect::<Vec<_>>().into()
}

fn job(name: &str, needs: Vec<u32>) -> JobSpec {
    use towpath_core::graph::{JobBody, JobIndex};
    let name = name.parse().expect("invariant: a valid name");
    let body = JobBody { checkout: false, ..JobBody::script("true") };
    let needs = needs.into_iter().map(JobIndex).collect();
    JobSpec { required: true, needs, ..JobSpec::new(name, vec![Trigger::Manual], body) }
}
