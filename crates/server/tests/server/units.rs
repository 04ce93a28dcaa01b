//! Runs through the turn loop and a real executor while the store refuses some of what is written: what cells say to
//! each other within a unit is neither lost nor heard twice.

use std::sync::Arc;
use std::sync::mpsc::channel;

use towpath_core::cell::CellId;
use towpath_core::graph::{JobBody, JobIndex, JobSpec, Outcome, Trigger};
use towpath_core::ids::{CommitId, RunId, TreeId};
use towpath_core::message::RunStart;
use towpath_core::policy::Level;
use towpath_core::pool::PoolEvent;
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;
use towpath_server::engine::{AnyIntake, Batch, Engine};
use towpath_store::WriteError;

use crate::world::World;

const RUNS: u64 = 24;
const REFUSALS: u64 = 6;

fn run(number: u64) -> RunId {
    format!("units/main/{number}").parse().unwrap()
}

/// A job that does nothing.
pub fn job(name: &str, needs: &[u32]) -> JobSpec {
    let body = JobBody { checkout: false, ..JobBody::script("true") };
    let needs = needs.iter().copied().map(JobIndex).collect();
    JobSpec { required: true, needs, ..JobSpec::new(name.parse().unwrap(), vec![Trigger::Manual], body) }
}

/// A run of some of them.
pub fn start(run: RunId) -> RunStart {
    let jobs = vec![job("a", &[]), job("b", &[0]), job("c", &[0]), job("d", &[1, 2])];
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

/// Refuses whatever shares the pool's next transaction.
pub fn refuse(engine: &Engine) {
    let (send, receive) = channel();
    engine.deliver_with_turn(Batch {
        bytes: 0,
        cell: CellId::Pool,
        intakes: vec![AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots: 1 }))],
        records: Box::new(|_| Err(WriteError::Io { why: "the disk is gone".into() })),
        done: Box::new(move |outcome| drop(send.send(outcome))),
    });
    assert!(receive.recv().unwrap().is_err());
}

#[test]
fn every_run_ends_once_whatever_is_refused_meanwhile() {
    let world = World::with_jobs();
    let engine = world.shared.engine.clone();
    for number in 1..=RUNS {
        let intake = AnyIntake::Run(Intake::Event(RunEvent::Start(Arc::new(start(run(number))))));
        engine.deliver_surely(CellId::Run(run(number)), intake);
        if number % (RUNS / REFUSALS) == 0 {
            refuse(&engine);
        }
    }
    let snapshot = || world.shared.store.reader().snapshot().unwrap();
    world.until(|_| {
        let view = snapshot();
        (1..=RUNS).all(|number| view.run(&run(number)).unwrap().is_some_and(|row| row.outcome.is_some()))
    });
    for number in 1..=RUNS {
        let view = snapshot();
        assert_eq!(view.run(&run(number)).unwrap().unwrap().outcome, Some(Outcome::Passed));
        let cell = view.cell(&CellId::Run(run(number))).unwrap();
        assert!(cell.head.unwrap().finished && cell.outbox.is_empty(), "run {number}");
        let jobs = view.jobs(&run(number)).unwrap();
        let told: Vec<_> = jobs.iter().map(|job| (job.name.to_string(), job.attempt, job.outcome)).collect();
        let once = |name: &str| (name.to_owned(), 1, Some(Outcome::Passed));
        assert_eq!(told, ["a", "b", "c", "d"].map(once), "run {number}");
    }
    world.until(|_| {
        let pool = snapshot().cell(&CellId::Pool).unwrap();
        pool.inbox.is_empty() && !pool.rows.iter().any(|row| row.key.contains("units"))
    });
}
