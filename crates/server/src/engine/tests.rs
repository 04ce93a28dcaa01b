//! The turn loop by itself, with a store and no drivers.

use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_core::effect::Effect;
use towpath_core::gate::Bell;
use towpath_core::ids::CommitId;
use towpath_core::outbox::Stage;
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
fn a_result_that_the_store_never_takes_becomes_trouble_that_says_so() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(Options::new(folder.path().join("data"), system_time())).unwrap());
    let (keep, kept) = mpsc::channel();
    let (engine, running) = Engine::start(store, Arc::new(Kept(Mutex::new(keep))), |_| {}).unwrap();
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
