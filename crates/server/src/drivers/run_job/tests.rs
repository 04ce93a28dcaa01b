//! Jobs between the runs of a real turn loop and an executor that says what the test wants.

mod files;
mod leases;
mod restored;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_blob::{BlobStore, Reserve};
use towpath_core::effect::Effect;
use towpath_core::graph::{JobBody, JobSpec, Openings, Origin, Trigger};
use towpath_core::ids::{CommitId, Epoch, RunId, TreeId};
use towpath_core::message::RunStart;
use towpath_core::outbox::Dispatch;
use towpath_core::policy::Level;
use towpath_core::run::RunEvent;
use towpath_executor::protocol::{FromExecutor, PROTOCOL_VERSION, ToExecutor, Welcome};
use towpath_executor::{FRAME_BYTES_MAX, Limits, SandboxKind, StartSpec};
use towpath_git::{BaseStore, Git, GitOptions, TreeMeasure};
use towpath_store::records::Secret;
use towpath_store::{Load, Options, Store, WriteError};

use super::sources::bases_beside;
use super::*;
use crate::clock::system_time;
use crate::engine::{Batch, Dispatcher, Running};
use crate::executor::ExecutorTrouble;
use crate::halts::tell_before_the_first_turn;
use crate::repos::Repos;
use crate::secrets::{SECRET_BYTES_MAX, Secrets};
use crate::settings::{ExecutorLife, ServerSettings};

/// No test waits so long for anything, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server wants of its executor.
const SLOTS: u32 = 4;

/// A lease that no run knows.
const OTHER: LeaseId = LeaseId([9; 16]);

/// Bytes of all bases together.
const BASES_BYTES: u64 = 1 << 20;

/// Room with which jobs begin at once.
const AMPLE: TreeMeasure = TreeMeasure { entries: 1, bytes: 2 * BASES_BYTES };

struct World {
    jobs: Arc<Jobs>,
    engine: Engine,
    store: Arc<Store>,
    orders: Receiver<Order>,
    running: Option<Running>,
    runtime: Runtime,
    peer: Peer,
    folder: TempDir,
}

/// The other side of the executor's socket: the test itself.
struct Peer {
    listener: UnixListener,
    stream: Option<UnixStream>,
    slots: u32,
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

/// On a disk of which so many bytes are kept free.
fn bases(folder: &TempDir, kept: u64) -> BaseStore {
    let reserve = Reserve::of_bytes(folder.path(), kept);
    bases_beside(reserve, &folder.path().join("bases"), BASES_BYTES).unwrap()
}

/// For jobs that may take more than any disk has.
fn sources(folder: &TempDir, store: &Arc<Store>, bases: BaseStore) -> Sources {
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("histories")).unwrap();
    Sources {
        repos: Arc::new(Repos::new(Git::find(GitOptions::default()).unwrap(), at("repos"))),
        bases,
        ample: AMPLE,
        histories: at("histories"),
        blobs: BlobStore::open(at("blobs")).unwrap(),
        secrets: Secrets::open(store.clone(), &at("secrets.key")).unwrap(),
        store: store.clone(),
        limits: Limits { disk_bytes: u64::MAX, ..Limits::default() },
    }
}

impl World {
    fn new() -> World {
        World::below(TempDir::new().unwrap())
    }

    fn below(folder: TempDir) -> World {
        World::beside(folder, 0)
    }

    fn beside(folder: TempDir, kept: u64) -> World {
        let bases = bases(&folder, kept);
        World::with_bases(folder, bases)
    }

    fn with_bases(folder: TempDir, bases: BaseStore) -> World {
        let store = Store::open(Options::new(folder.path().join("data"), system_time())).unwrap();
        let store = Arc::new(store);
        tell_before_the_first_turn(&store, system_time()).unwrap();
        let jobs = Jobs::new(sources(&folder, &store, bases), 4);
        let (keep, orders) = channel();
        let kept = Arc::new(Kept(Mutex::new(keep)));
        let (engine, running) = Engine::load(store.clone(), kept).unwrap();
        running.begin();
        let _ = jobs.engine.set(engine.clone());
        engine.deliver_surely(CellId::Pool, AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots: 4 })));
        let runtime = Runtime::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let peer = Peer { listener, stream: None, slots: SLOTS };
        World { jobs, engine, store, orders, running: Some(running), runtime, peer, folder }
    }

    /// Is the executor that the server finds, with these leases; the connection before is over.
    fn connect(&mut self, leases: Leases) {
        self.peer.stream = None;
        if self.jobs.executor.get().is_some() {
            return self.peer.welcome(leases);
        }
        let came_up = self.look_for_executor();
        self.peer.welcome(leases);
        came_up.recv_timeout(PATIENCE).expect("the server is connected in time").unwrap();
    }

    /// The server begins to look for an executor, and says what that is to it.
    fn look_for_executor(&self) -> Receiver<Result<Standing, ExecutorTrouble>> {
        let (answer, answered) = channel();
        let folder = self.folder.path();
        let tell = move |outcome| drop(answer.send(outcome));
        let executor = Executor::start((&settings(folder), folder), Epoch(1), &self.jobs, tell);
        self.jobs.connect(self.engine.clone(), executor);
        answered
    }

    fn executor(&self) -> &Executor {
        self.jobs.executor.get().expect("the test has connected it")
    }

    /// Has nothing become durable until the answer is dropped.
    fn hold_writes(&self) -> Sender<()> {
        let (hold, until) = channel::<()>();
        let work = move |_: &mut towpath_store::Tx<'_>| {
            let _ = until.recv();
            Ok(())
        };
        self.engine.writer().submit(Load::default(), work, |_| {});
        hold
    }

    /// Starts a run of these jobs, and takes what it asks for.
    fn run(&self, number: u64, jobs: Vec<JobSpec>) -> Vec<Wanted> {
        self.run_of((CommitId([1; 20]), TreeId([1; 20])), number, jobs)
    }

    fn run_of(&self, (commit, tree): (CommitId, TreeId), number: u64, jobs: Vec<JobSpec>) -> Vec<Wanted> {
        let count = jobs.len();
        let start = RunStart { commit, tree, ..start(run(number), jobs) };
        let start = RunEvent::Start(Arc::new(start));
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
            bytes: 0,
            records: Box::new(|_| Err(WriteError::Io { why: "refused, as this test wants".into() })),
            done: Box::new(|outcome| assert!(outcome.is_err())),
        });
        self.asked()
    }

    /// Waits until a job of the first run is put off, and says why.
    fn trouble(&self, wanted: &Wanted) -> Trouble {
        let trouble = async {
            let mut changes = self.engine.changes();
            loop {
                let key = wanted.key.clone();
                let trouble =
                    self.engine.run(run(1), move |live| live.outbox.rows[&key].trouble.clone()).await;
                if let Some(trouble) = trouble.flatten() {
                    return trouble;
                }
                changes.recv().await.unwrap();
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, trouble).await }).unwrap()
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
        keep(&self.jobs.preparers, PREPARERS)
    }
}

fn keep(workers: &Workers, count: usize) -> Vec<Sender<()>> {
    let keep = |_| {
        let (busy, until) = channel::<()>();
        workers.run(Box::new(move || {
            let _ = until.recv();
        }));
        busy
    };
    (0..count).map(keep).collect()
}

impl Peer {
    fn welcome(&mut self, leases: Leases) {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream = Some(stream);
        assert!(matches!(self.heard(), ToExecutor::Hello { .. }));
        self.say(&FromExecutor::Welcome(Welcome {
            version: PROTOCOL_VERSION,
            incarnation: "test".into(),
            pid: std::process::id(),
            slots: self.slots,
            unsandboxed: true,
            stopping: false,
            ends_with_server: false,
            tools: None,
            leases,
        }));
    }

    /// The next word of the server.
    fn heard(&self) -> ToExecutor {
        let mut stream = self.stream.as_ref().expect("there is a connection");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("the server says something in time");
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// The next job that the server hands over; ends of others may be acknowledged before.
    fn heard_start(&self) -> StartSpec {
        loop {
            match self.heard() {
                ToExecutor::Start { spec } => return *spec,
                ToExecutor::Ack { .. } => {}
                other => panic!("the server says something else: {other:?}"),
            }
        }
    }

    /// Whether the server says something within a moment.
    fn hears_soon(&self) -> bool {
        let stream = self.stream.as_ref().expect("there is a connection");
        let moment = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
        poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&moment)).unwrap() > 0
    }

    fn say(&self, message: &FromExecutor) {
        let mut stream = self.stream.as_ref().expect("there is a connection");
        let body = serde_json::to_vec(message).unwrap();
        stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(executor) = self.jobs.executor.get() {
            executor.leave();
        }
        let ended = self.running.take().map(Running::stop);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the turn loop ended by itself");
    }
}

fn settings(folder: &std::path::Path) -> ServerSettings {
    ServerSettings {
        data: folder.into(),
        keys: folder.into(),
        new_keys: false,
        listen: ([127, 0, 0, 1], 0).into(),
        url: None,
        trusted_proxies: Vec::new(),
        slots: SLOTS,
        sandbox: SandboxKind::None,
        limits: Limits::default(),
        // Nobody is to start it: there is a peer at the socket.
        program: "/nowhere/towpath".into(),
        git: GitOptions::default(),
        executor: ExecutorLife::Own,
    }
}

fn active(lease: LeaseId) -> Leases {
    Leases { active: vec![lease], unacked: Vec::new() }
}

fn ended(lease: LeaseId, outcome: Outcome, why: &str) -> FromExecutor {
    FromExecutor::Ended { end: unrun(lease, outcome, why) }
}

fn run(number: u64) -> RunId {
    format!("units/main/{number}").parse().unwrap()
}

fn job(name: &str) -> JobSpec {
    let body = JobBody { checkout: false, retry_errored: 0, ..JobBody::script("true") };
    JobSpec { required: true, ..JobSpec::new(name.parse().unwrap(), vec![Trigger::Manual], body) }
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
        graph: jobs.into(),
        carried: Default::default(),
        priority: 0,
        fail_fast: false,
        restored: false,
        facts: Default::default(),
    }
}

#[test]
fn a_job_that_cannot_be_prepared_ends_under_the_order_that_is_the_newest_by_then() {
    let mut world = World::new();
    world.connect(Leases::default());
    let _busy = world.keep_preparers();
    let wanted = world.run(1, vec![job("a")]).remove(0);
    let lease = world.lease(&wanted);
    world.jobs.start(&world.engine, wanted);
    let prepared = world.jobs.prepared(&world.engine, lease, |_| {
        world.jobs.start(&world.engine, world.asked_anew(1));
        Err(Unprepared::Over(unrun(lease, Outcome::Errored, "there is no such tree")))
    });
    assert!(prepared.is_none());
    assert_eq!(world.ends(1), [("a".to_owned(), Outcome::Errored, "there is no such tree".to_owned())]);
}

#[test]
fn a_panic_while_a_job_is_prepared_ends_that_job() {
    let mut world = World::new();
    world.connect(Leases::default());
    let busy = world.keep_preparers();
    let mut wanted = world.run(1, vec![job("a"), job("b")]);
    wanted.sort_by_key(|wanted| wanted.order.lease.job);
    let [a, b] = [&wanted[0], &wanted[1]].map(|wanted| world.lease(wanted));
    wanted.into_iter().for_each(|wanted| world.jobs.start(&world.engine, wanted));
    assert!(world.jobs.prepared(&world.engine, a, |_| panic!("as this test wants")).is_none());
    drop(busy);
    assert_eq!(world.peer.heard_start().lease, b);
    world.peer.say(&ended(b, Outcome::Passed, "exit code 0"));
    let [(_, outcome, why), _] = &world.ends(1)[..] else { panic!("two jobs") };
    assert!(*outcome == Outcome::Errored && why.contains("a bug of Towpath"), "{why}");
}

#[test]
fn a_run_that_asks_for_an_end_does_not_wait_until_its_reports_are_read() {
    let mut world = World::new();
    world.connect(Leases::default());
    let busy = keep(&world.jobs.readers, READERS);
    let asks = world.run(1, vec![job("a")]).remove(0);
    let end = unrun(world.lease(&asks), Outcome::Passed, "exit code 0");
    world.jobs.ended(vec![JobEnd { junit: Some(Digest([7; 32])), ..*end }]);
    world.jobs.start(&world.engine, asks);
    let other = world.run(2, vec![job("b")]).remove(0);
    let lease = world.lease(&other);
    world.jobs.start(&world.engine, other);
    assert_eq!(world.peer.heard_start().lease, lease);
    world.peer.say(&ended(lease, Outcome::Passed, "exit code 0"));
    world.ends(2);
    let is_over = |number| {
        let view = world.store.reader().snapshot().unwrap();
        view.run(&run(number)).unwrap().unwrap().outcome.is_some()
    };
    assert!(is_over(2) && !is_over(1), "what it left is not read yet, and nobody waits");
    drop(busy);
    world.ends(1);
}

#[test]
fn an_end_on_its_way_into_its_run_is_acknowledged_when_it_is_durable_and_not_before() {
    let mut world = World::new();
    let wanted = world.run(1, vec![job("a")]).remove(0);
    let lease = world.lease(&wanted);
    world.connect(Leases::default());
    world.jobs.start(&world.engine, wanted);
    assert!(matches!(world.peer.heard(), ToExecutor::Start { spec } if spec.lease == lease));
    let held = world.hold_writes();
    world.jobs.ended(vec![*unrun(lease, Outcome::Passed, "exit code 0")]);
    world.jobs.all_claimed();
    world.executor().cancel(&OTHER);
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease: OTHER }, "nothing is said of the job before");
    drop(held);
    assert_eq!(world.peer.heard(), ToExecutor::Ack { leases: vec![lease] });
    assert_eq!(world.ends(1), [("a".to_owned(), Outcome::Passed, "exit code 0".to_owned())]);
}

#[test]
fn an_end_that_was_told_before_the_executor_was_looked_at_is_acknowledged_when_it_is_durable() {
    let mut world = World::new();
    let wanted = world.run(1, vec![job("a")]).remove(0);
    let lease = world.lease(&wanted);
    world.jobs.start(&world.engine, wanted);
    let held = world.hold_writes();
    world.jobs.ended(vec![*unrun(lease, Outcome::Passed, "exit code 0")]);
    world.connect(Leases { active: Vec::new(), unacked: vec![lease] });
    world.jobs.all_claimed();
    world.executor().cancel(&OTHER);
    // Stopping what is over changes nothing.
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease });
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease: OTHER }, "it is not acknowledged before");
    drop(held);
    assert_eq!(world.peer.heard(), ToExecutor::Ack { leases: vec![lease] });
    assert_eq!(world.ends(1), [("a".to_owned(), Outcome::Passed, "exit code 0".to_owned())]);
}

#[test]
fn an_end_that_no_run_waits_for_is_acknowledged_once_every_run_has_asked() {
    let mut world = World::new();
    world.connect(Leases::default());
    let told = || world.jobs.ended(vec![*unrun(OTHER, Outcome::Passed, "exit code 0")]);
    let forgotten = ToExecutor::Ack { leases: vec![OTHER] };
    told();
    world.executor().cancel(&LeaseId([8; 16]));
    assert_eq!(
        world.peer.heard(),
        ToExecutor::Cancel { lease: LeaseId([8; 16]) },
        "a run may ask for it yet"
    );
    world.jobs.all_claimed();
    assert_eq!(world.peer.heard(), forgotten);
    told();
    assert_eq!(world.peer.heard(), forgotten);
    // Told before the new connection could be answered on, the end itself says nothing any more.
    world.connect(Leases { active: Vec::new(), unacked: vec![OTHER] });
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease: OTHER });
    assert_eq!(world.peer.heard(), forgotten);
}

#[test]
fn a_cancel_that_went_down_with_its_connection_is_said_again() {
    let mut world = World::new();
    world.connect(Leases::default());
    let wanted = world.run(1, vec![job("a")]).remove(0);
    let lease = world.lease(&wanted);
    world.jobs.start(&world.engine, wanted.clone());
    assert!(matches!(world.peer.heard(), ToExecutor::Start { spec } if spec.lease == lease));
    world.jobs.cancel(&world.engine, wanted);
    // The executor lives, and has not read it.
    world.connect(active(lease));
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease });
    world.peer.say(&ended(lease, Outcome::Cancelled, "cancelled"));
    assert_eq!(world.ends(1), [("a".to_owned(), Outcome::Cancelled, "cancelled".to_owned())]);
}

#[test]
fn a_job_that_is_too_large_to_hand_over_ends_and_takes_no_other_with_it() {
    let mut world = World::new();
    world.connect(Leases::default());
    // Six bytes each in JSON.
    let script = "\u{1}".repeat(FRAME_BYTES_MAX / 6);
    let body = JobBody { checkout: false, ..JobBody::script(&script) };
    assert!(body.retry_errored > 0);
    let large = JobSpec { body: Arc::new(body), ..job("large") };
    let busy = world.keep_preparers();
    let wanted = world.run(1, vec![large, job("small")]);
    wanted.into_iter().for_each(|wanted| world.jobs.start(&world.engine, wanted));
    drop(busy);
    let spec = world.peer.heard_start();
    assert_eq!(spec.job.as_str(), "small");
    world.peer.say(&ended(spec.lease, Outcome::Passed, "exit code 0"));
    let [(_, large, why), (_, small, _)] = &world.ends(1)[..] else { panic!("two jobs, tried once each") };
    assert_eq!((*large, *small), (Outcome::Failed, Outcome::Passed));
    assert!(why.starts_with("it is too large to hand over: ") && why.contains("; put long values"), "{why}");
}

#[test]
fn a_job_gets_no_more_secrets_than_a_program_can_start_with() {
    let world = World::new();
    let names: Vec<String> = (0..9).map(|at| format!("key-{at}")).collect();
    let seal = |name: &String| Secret {
        repo: None,
        name: name.clone(),
        sealed: world.jobs.sources.secrets.seal(None, name, &[b'k'; SECRET_BYTES_MAX]).unwrap(),
        policy: r#"{"level":"landed"}"#.to_owned(),
        updated_by: None,
        updated_at: system_time(),
    };
    let secrets: Vec<Secret> = names.iter().map(seal).collect();
    let stored =
        world.store.writer().write(move |tx| secrets.iter().try_for_each(|secret| tx.put_secret(secret)));
    stored.unwrap();
    let with = |count: usize| {
        let body = JobBody { secrets: names[..count].to_vec(), ..(*job("a").body).clone() };
        JobSpec { body: Arc::new(body), ..job("a") }
    };
    let [most, more] = [(1, 8), (2, 9)].map(|(number, count)| world.run(number, vec![with(count)]).remove(0));
    assert!(world.jobs.sources.prepare(OTHER, &most.order).is_ok());
    let Err(Unprepared::Over(end)) = world.jobs.sources.prepare(OTHER, &more.order) else {
        panic!("they are too many")
    };
    let why = "the secrets of job `a` have 589824 bytes together, at most 524288; let several jobs have a part of them each";
    assert_eq!((end.result.outcome, end.result.why.as_str()), (Outcome::Failed, why));
}

#[test]
fn a_secret_that_the_server_cannot_open_is_not_its_jobs_doing() {
    let world = World::new();
    let secret = |name: &str, policy: &str| Secret {
        repo: None,
        name: name.to_owned(),
        sealed: vec![7; 64],
        policy: policy.to_owned(),
        updated_by: None,
        updated_at: system_time(),
    };
    let secrets = [
        secret("damaged", r#"{"level":"landed"}"#),
        secret("unreadable", "{"),
        secret("others", r#"{"level":"landed","jobs":["b"]}"#),
    ];
    let stored =
        world.store.writer().write(move |tx| secrets.iter().try_for_each(|secret| tx.put_secret(secret)));
    stored.unwrap();
    let wants = |name: &str| {
        let body = JobBody { secrets: vec![name.to_owned()], ..(*job("a").body).clone() };
        JobSpec { body: Arc::new(body), ..job("a") }
    };
    let cases =
        [("damaged", Outcome::Errored), ("unreadable", Outcome::Errored), ("others", Outcome::Failed)];
    for (number, (name, outcome)) in (1..).zip(cases) {
        let wanted = world.run(number, vec![wants(name)]).remove(0);
        let Err(Unprepared::Over(end)) = world.jobs.sources.prepare(OTHER, &wanted.order) else {
            panic!("`{name}` is given")
        };
        assert_eq!(end.result.outcome, outcome, "{name}: {}", end.result.why);
    }
}

#[test]
fn a_job_of_the_changes_own_gets_nothing_of_the_sandbox_that_it_is_not_granted() {
    let world = World::new();
    let with = |origin: Origin, granted: Openings| {
        let body = JobBody { network: true, user_namespaces: true, ..(*job("a").body).clone() };
        JobSpec { origin, granted, body: Arc::new(body), ..job("a") }
    };
    let all = Openings { network: true, user_namespaces: true };
    let cases = [
        (with(Origin::Target, Openings::default()), None),
        (with(Origin::Own, all), None),
        (
            with(Origin::Own, Openings { network: false, ..all }),
            Some("`network: true` is not given to job `a`"),
        ),
        (
            with(Origin::Own, Openings { user_namespaces: false, ..all }),
            Some("`user_namespaces: true` is not given"),
        ),
    ];
    for (number, (job, refused)) in (1..).zip(cases) {
        let wanted = world.run(number, vec![job]).remove(0);
        match (world.jobs.sources.prepare(OTHER, &wanted.order), refused) {
            (Ok(_), None) => {}
            (Err(Unprepared::Over(end)), Some(why)) => {
                assert!(end.result.why.starts_with(why), "{}", end.result.why);
                assert_eq!(end.result.outcome, Outcome::Failed);
            }
            (prepared, _) => panic!("case {number}: {refused:?}, {}", prepared.is_ok()),
        }
    }
}
