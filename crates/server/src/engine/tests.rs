//! The turn loop by itself, with a store and no drivers.

use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_core::effect::Effect;
use towpath_core::gate::{Bell, GateConfig};
use towpath_core::graph::{JobBody, JobIndex, JobResult, JobSpec, Outcome, Trigger};
use towpath_core::ids::{CommitId, Digest, TreeId};
use towpath_core::message::RunStart;
use towpath_core::outbox::Stage;
use towpath_core::policy::Level;
use towpath_core::pool::PoolEvent;
use towpath_core::run::{JobState, RunEvent};
use towpath_store::{BODY_BYTES_MAX, Options};

use super::*;
use crate::clock::system_time;

/// No test waits so long for anything, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps what is handed out until the test takes it.
struct Kept(Mutex<Sender<Dispatch>>);

impl Dispatcher for Kept {
    fn dispatch(&self, _: &Engine, _: &CellId, dispatch: Dispatch) {
        let _ = self.0.lock().unwrap().send(dispatch);
    }
}

#[test]
fn nothing_is_handed_out_before_the_loop_begins() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(Options::new(folder.path().join("data"), system_time())).unwrap());
    let gate = CellId::Gate("demo/main".parse().unwrap());
    let rung = |engine: &Engine| {
        let bell = GateEvent::Bell(Bell { forge_changed: true, runs_changed: true, state_changed: true });
        let (send, stored) = mpsc::channel();
        engine.deliver(gate.clone(), AnyIntake::Gate(Intake::Event(bell)), move |outcome| {
            send.send(outcome).unwrap();
        });
        stored.recv_timeout(PATIENCE).expect("it is stored in time").unwrap();
    };
    let (keep, kept) = mpsc::channel();
    let loaded = || Engine::load(store.clone(), Arc::new(Kept(Mutex::new(keep.clone())))).unwrap();
    let (engine, tried) = loaded();
    rung(&engine);
    tried.stop().unwrap();
    let turned = store.reader().snapshot().unwrap().cell(&gate).unwrap();
    assert!(turned.rows.is_empty() && kept.try_recv().is_err(), "it has gone without a turn");
    let (_, running) = loaded();
    running.begin();
    assert!(matches!(kept.recv_timeout(PATIENCE), Ok(Dispatch::Do { effect: Effect::ReadForge { .. }, .. })));
    running.stop().unwrap();
}

#[test]
fn a_result_that_the_store_never_takes_becomes_trouble_that_says_so() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(Options::new(folder.path().join("data"), system_time())).unwrap());
    let (keep, kept) = mpsc::channel();
    let (engine, running) = Engine::load(store, Arc::new(Kept(Mutex::new(keep)))).unwrap();
    running.begin();
    let gate: GateId = "demo/main".parse().unwrap();
    let cell = CellId::Gate(gate.clone());
    let bell = GateEvent::Bell(Bell { forge_changed: true, runs_changed: true, state_changed: true });
    engine.deliver_surely(cell.clone(), AnyIntake::Gate(Intake::Event(bell)));
    let Ok(Dispatch::Do { key, token, effect: Effect::ReadForge { .. } }) = kept.recv_timeout(PATIENCE)
    else {
        panic!("it reads its forge")
    };
    let errors = vec!["x".repeat(BODY_BYTES_MAX)];
    let result = Some(GateEvent::GraphRead { commit: CommitId([1; 20]), graph: Err(errors) });
    engine.deliver_surely(cell, AnyIntake::Gate(Intake::Done { key: key.clone(), token, result }));
    let told = async {
        let mut changes = engine.changes();
        loop {
            let key = key.clone();
            let row = engine.gate(gate.clone(), move |live| live.outbox.rows[&key].clone()).await.unwrap();
            match row.trouble {
                Some(trouble) => return (row.stage, trouble),
                None => drop(changes.recv().await.unwrap()),
            }
        }
    };
    let told = Runtime::new().unwrap().block_on(async { tokio::time::timeout(PATIENCE, told).await });
    let (stage, trouble) = told.expect("the gate hears of it in time");
    assert_eq!((stage, trouble.class), (Stage::Waiting, TroubleClass::Invalid));
    assert!(trouble.why.starts_with("its result cannot be stored: a delivery has 671"), "{}", trouble.why);
    running.stop().unwrap();
}

#[test]
fn what_holds_only_for_a_time_is_told_as_it_is_when_the_store_takes_it() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(Options::new(folder.path().join("data"), system_time())).unwrap());
    let (keep, _kept) = mpsc::channel();
    let (engine, running) = Engine::load(store, Arc::new(Kept(Mutex::new(keep)))).unwrap();
    running.begin();
    let gate: GateId = "demo/main".parse().unwrap();
    let cell = CellId::Gate(gate.clone());
    let configured = |approvals: u32| {
        let config = GateConfig { approvals, ..GateConfig::default() };
        AnyIntake::Gate(Intake::Event(GateEvent::Configured(Box::new(config))))
    };
    // The store is in trouble when it is to be told, and has newer settings once it is not.
    let stored = Arc::new(Mutex::new((7, true)));
    let (tried, tries) = mpsc::channel();
    let read = stored.clone();
    engine.deliver_holding(
        cell.clone(),
        Arc::new(move |_| {
            let (approvals, in_trouble) = *read.lock().unwrap();
            tried.send(in_trouble).unwrap();
            let lost = || WriteError::Io { why: "the disk is gone".into() };
            if in_trouble { Err(lost()) } else { Ok(Some(configured(approvals))) }
        }),
    );
    assert_eq!(tries.recv_timeout(PATIENCE), Ok(true));
    let (saved, hears) = mpsc::channel();
    engine.deliver(cell, configured(8), move |outcome| saved.send(outcome).unwrap());
    hears.recv_timeout(PATIENCE).unwrap().unwrap();
    *stored.lock().unwrap() = (8, false);
    while tries.recv_timeout(PATIENCE).unwrap() {}
    let runtime = Runtime::new().unwrap();
    runtime.block_on(engine.quiet());
    let approvals = runtime.block_on(engine.gate(gate, |live| live.state.config().approvals));
    running.stop().unwrap();
    assert_eq!(approvals, Some(8));
}

/// A run of two jobs.
fn start_of(run: &RunId) -> RunStart {
    let spec = |name: &str| {
        let job = JobSpec::new(name.parse().unwrap(), vec![Trigger::Manual], JobBody::script("true"));
        JobSpec { required: true, ..job }
    };
    RunStart {
        run: run.clone(),
        trigger: Trigger::Manual,
        change: None,
        reason: "tested".into(),
        by: None,
        commit: CommitId([1; 20]),
        tree: TreeId([1; 20]),
        level: Level::Landed,
        graph: ["unit", "docs"].map(spec).to_vec().into(),
        carried: Default::default(),
        priority: 0,
        fail_fast: false,
        restored: false,
        facts: Default::default(),
    }
}

/// Tells a run each time that it asks or cancels that its job passed, with more outputs than the store takes.
fn tell_too_much(engine: &Engine, cell: &CellId, dispatch: Dispatch) {
    let (Dispatch::Do { key, token, effect } | Dispatch::Cancel { key, token, effect }) = dispatch;
    let Effect::RunJob(order) = effect else { return };
    let outputs = [("x".repeat(BODY_BYTES_MAX), Digest([1; 32]))].into();
    let result = JobResult { outputs, ..JobResult::unrun(Outcome::Passed, "exit code 0") };
    let event = RunEvent::JobEnded { lease: order.lease, result: Box::new(result) };
    engine.deliver_with_turn(Batch {
        cell: cell.clone(),
        intakes: vec![AnyIntake::Run(Intake::Done { key, token, result: Some(event) })],
        records: Box::new(|_| Ok(())),
        bytes: 0,
        done: Box::new(|_| {}),
    });
}

#[test]
fn a_run_whose_turn_the_store_never_takes_ends_with_that_as_its_reason() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(Options::new(folder.path().join("data"), system_time())).unwrap());
    let (keep, kept) = mpsc::channel();
    let dispatcher = Arc::new(Kept(Mutex::new(keep)));
    let (engine, running) = Engine::load(store.clone(), dispatcher).unwrap();
    running.begin();
    let run: RunId = "demo/main/1".parse().unwrap();
    let cell = CellId::Run(run.clone());
    let mut changes = engine.changes();
    let capacity = PoolEvent::Capacity { slots: 1 };
    engine.deliver_surely(CellId::Pool, AnyIntake::Pool(Intake::Event(capacity)));
    let start = RunEvent::Start(Arc::new(start_of(&run)));
    engine.deliver_surely(cell.clone(), AnyIntake::Run(Intake::Event(start)));
    let (teller, of) = (engine.clone(), cell.clone());
    std::thread::spawn(move || kept.into_iter().for_each(|dispatch| tell_too_much(&teller, &of, dispatch)));
    let over =
        async { while !changes.recv().await.is_ok_and(|changed| changed.is_over && changed.cell == cell) {} };
    let over = Runtime::new().unwrap().block_on(async { tokio::time::timeout(2 * PATIENCE, over).await });
    over.expect("the run ends in time");
    running.stop().unwrap();
    let stored = store.reader().snapshot().unwrap().cell(&cell).unwrap();
    let live = Live::<Run>::load(cell, store.epoch(), &stored.rows, []).unwrap();
    assert_eq!(live.state.ended().unwrap().0, Outcome::Failed);
    let Some(JobState::Done { result, .. }) = live.state.job(JobIndex(0)) else { panic!("it is over") };
    assert!(result.why.contains("at most 67108864"), "{}", result.why);
    assert!(result.outputs.is_empty());
}

#[test]
fn what_is_written_beside_a_turn_counts_in_the_load_of_its_unit() {
    let mut unit = unit::Unit::new(unit::UnitNumber(1), Timestamp(1));
    for _ in 0..2 {
        unit.attach((Box::new(|_| Ok(())), 5 << 20), Box::new(|_| {}));
    }
    let (written, _) = unit.split();
    assert_eq!(written.load().bytes, 10 << 20);
}
