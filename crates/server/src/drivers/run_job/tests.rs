//! Jobs between the runs of a real turn loop and an executor that says what the test wants.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_core::effect::Effect;
use towpath_core::graph::{JobBody, JobGraph, JobIndex, JobSpec, Origin, Trigger};
use towpath_core::ids::{CommitId, RunId, TreeId};
use towpath_core::message::RunStart;
use towpath_core::policy::Level;
use towpath_core::turn::Dispatch;
use towpath_git::{BaseOptions, Git, GitOptions, TREE_LIMITS};
use towpath_store::{Options, Store};

use super::*;
use crate::clock::system_time;
use crate::engine::{Dispatcher, Running};

/// No test waits so long for anything, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    jobs: Arc<Jobs>,
    engine: Engine,
    store: Arc<Store>,
    orders: Receiver<Order>,
    running: Option<Running>,
    runtime: Runtime,
    _folder: TempDir,
}

/// What a run asks for.
#[derive(Debug)]
enum Order {
    Start(Wanted),
    Cancel(Wanted),
}

/// Keeps what runs ask for until the test takes it.
struct Kept(Mutex<Sender<Order>>);

impl Dispatcher for Kept {
    fn dispatch(&self, _: &Engine, cell: &CellId, dispatch: Dispatch) {
        let order = match dispatch {
            Dispatch::Do { key, token, effect: Effect::RunJob(order) } => {
                Order::Start(Wanted { cell: cell.clone(), key, token, order })
            }
            Dispatch::Cancel { key, token, effect: Effect::RunJob(order) } => {
                Order::Cancel(Wanted { cell: cell.clone(), key, token, order })
            }
            // The gate that hears of the run's end.
            Dispatch::Do { .. } | Dispatch::Cancel { .. } => return,
        };
        let _ = self.0.lock().unwrap().send(order);
    }
}

fn sources(folder: &TempDir, store: &Arc<Store>) -> Sources {
    let at = |name: &str| folder.path().join(name);
    let export = ExportOptions { owner: None, limits: TREE_LIMITS };
    Sources {
        repos: Arc::new(Repos::new(Git::find(GitOptions::default()).unwrap(), at("repos"))),
        bases: BaseStore::open(&at("bases"), BaseOptions { export, bytes_max: 1 << 20 }).unwrap(),
        histories: at("histories"),
        blobs: BlobStore::open(at("blobs")).unwrap(),
        secrets: Secrets::open(store.clone(), &at("secrets.key")).unwrap(),
        incarnation: store.incarnation(),
        limits: Limits::default(),
    }
}

impl World {
    fn new() -> World {
        let folder = TempDir::new().unwrap();
        let store = Store::open(Options::new(folder.path().join("data"), system_time())).unwrap();
        let store = Arc::new(store);
        let jobs = Jobs::new(sources(&folder, &store), 4);
        let (keep, orders) = channel();
        let kept = Arc::new(Kept(Mutex::new(keep)));
        let (engine, running) = Engine::start(store.clone(), kept, |_| {}).unwrap();
        let _ = jobs.engine.set(engine.clone());
        engine.deliver_surely(CellId::Pool, AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots: 4 })));
        let runtime = Runtime::new().unwrap();
        World { jobs, engine, store, orders, running: Some(running), runtime, _folder: folder }
    }

    /// Starts a run of these jobs, and takes what it asks for.
    fn run(&self, number: u64, jobs: Vec<JobSpec>) -> Vec<Wanted> {
        let count = jobs.len();
        let start = RunEvent::Start(Arc::new(start(run(number), jobs)));
        self.engine.deliver_surely(CellId::Run(run(number)), AnyIntake::Run(Intake::Event(start)));
        (0..count).map(|_| self.asked()).collect()
    }

    /// The next job that a run asks for.
    fn asked(&self) -> Wanted {
        match self.orders.recv_timeout(PATIENCE).expect("a run asks for a job in time") {
            Order::Start(wanted) => wanted,
            Order::Cancel(wanted) => panic!("it is cancelled: {wanted:?}"),
        }
    }

    fn lease(&self, wanted: &Wanted) -> LeaseId {
        self.jobs.lease(&wanted.order.lease.id)
    }

    /// Has a run go back to its rows, and takes what it asks for anew.
    fn asked_anew(&self, number: u64) -> Wanted {
        self.engine.deliver_with_turn(Batch {
            cell: CellId::Run(run(number)),
            intakes: Vec::new(),
            records: Box::new(|_| Err(WriteError::Io { why: "refused, as this test wants".into() })),
            done: Box::new(|outcome| assert!(outcome.is_err())),
        });
        self.asked()
    }

    /// Waits for a run to be over, and says how its jobs ended.
    fn ends(&self, number: u64) -> Vec<(String, Outcome, String)> {
        let ended = async {
            let mut changes = self.engine.changes();
            loop {
                let view = self.store.reader().snapshot().unwrap();
                if view.run(&run(number)).unwrap().is_some_and(|row| row.outcome.is_some()) {
                    return view.jobs(&run(number)).unwrap();
                }
                drop(view);
                changes.recv().await.unwrap();
            }
        };
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, ended).await });
        let jobs = ended.expect("the run ends in time").into_iter();
        jobs.map(|job| (job.name.to_string(), job.outcome.unwrap(), job.why)).collect()
    }

    /// Has jobs wait to be prepared until the answer is dropped.
    fn keep_preparers(&self) -> Vec<Sender<()>> {
        let keep = |_| {
            let (busy, until) = channel::<()>();
            self.jobs.preparers.run(Box::new(move || {
                let _ = until.recv();
            }));
            busy
        };
        (0..PREPARERS).map(keep).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ended = self.running.take().map(Running::stop);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the turn loop ended by itself");
    }
}

fn run(number: u64) -> RunId {
    format!("units/main/{number}").parse().unwrap()
}

fn job(name: &str) -> JobSpec {
    let body = JobBody { checkout: false, retry_errored: 0, ..JobBody::script("true") };
    JobSpec {
        name: name.parse().unwrap(),
        base: name.parse().unwrap(),
        origin: Origin::Target,
        on: vec![Trigger::Manual],
        required: true,
        needs: Vec::<JobIndex>::new(),
        aborts: Vec::new(),
        skip: None,
        body: Arc::new(body),
    }
}

fn start(run: RunId, jobs: Vec<JobSpec>) -> RunStart {
    RunStart {
        run,
        trigger: Trigger::Manual,
        change: None,
        reason: "a test".to_owned(),
        by: None,
        commit: CommitId([1; 20]),
        tree: TreeId([1; 20]),
        level: Level::Landed,
        graph: JobGraph { jobs: jobs.into(), budget_seconds: None },
        carried: Default::default(),
        priority: 0,
        fail_fast: false,
        facts: Default::default(),
    }
}

#[test]
fn a_job_that_cannot_be_prepared_ends_under_the_order_that_is_the_newest_by_then() {
    let world = World::new();
    let _busy = world.keep_preparers();
    let wanted = world.run(1, vec![job("a")]).remove(0);
    let lease = world.lease(&wanted);
    world.jobs.start(&world.engine, wanted);
    let prepared = world.jobs.prepared(&world.engine, lease, |_| {
        world.jobs.start(&world.engine, world.asked_anew(1));
        Err(unrun(lease, Outcome::Errored, "there is no such tree"))
    });
    assert!(prepared.is_none());
    assert_eq!(world.ends(1), [("a".to_owned(), Outcome::Errored, "there is no such tree".to_owned())]);
}
