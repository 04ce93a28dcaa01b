//! Jobs of a server whose data are from a backup.

use towpath_core::outbox::TroubleClass;
use towpath_core::run::RESTORED;
use towpath_store::{backup, restore_over};

use super::*;

/// What a server finds whose data were saved while a world had them.
fn restored(mut world: World) -> World {
    let folder = std::mem::replace(&mut world.folder, TempDir::new().unwrap());
    let saved = folder.path().join("saved.db");
    backup(world.store.path(), &saved).unwrap();
    drop(world);
    restore_over(&saved, &folder.path().join("data"), &folder.path().join("aside.db")).unwrap();
    std::fs::remove_file(folder.path().join("socket")).unwrap();
    World::below(folder)
}

fn deploys(name: &str, restartable: bool) -> JobSpec {
    let environment = Some(name.parse().unwrap());
    let body = JobBody { environment, restartable, ..(*job(name).body).clone() };
    JobSpec { body: Arc::new(body), ..job(name) }
}

/// What runs ask for, in the order of the jobs' names.
fn asked(world: &World, count: usize) -> Vec<Wanted> {
    let mut asked: Vec<Wanted> = (0..count).map(|_| world.asked()).collect();
    asked.sort_by_key(|wanted| wanted.order.spec.name.to_string());
    asked
}

fn pass(world: &World, wanted: Wanted) {
    world.jobs.start(&world.engine, wanted);
    let spec = world.peer.heard_start();
    world.peer.say(&ended(spec.lease, Outcome::Passed, "exit code 0"));
}

#[test]
fn what_was_being_deployed_when_the_data_were_saved_is_not_deployed_once_more() {
    let before = World::new();
    before.run(1, vec![deploys("once", false), job("tests")]);
    let mut world = restored(before);
    world.connect(Leases::default());
    let mut wanted = asked(&world, 2);
    // It is so for good: whoever accepts the restore meanwhile has not looked at this deployment.
    world.store.writer().write(|tx| tx.accept_restored()).unwrap();
    world.jobs.start(&world.engine, wanted.remove(0));
    pass(&world, wanted.remove(0));
    let [(_, once, why), (_, tests, _)] = &world.ends(1)[..] else { panic!("two jobs") };
    assert_eq!((*once, *tests), (Outcome::Errored, Outcome::Passed));
    assert_eq!(why, RESTORED);
}

#[test]
fn what_may_be_deployed_again_leaves_its_slot_to_tests_until_a_person_has_accepted_what_was_restored() {
    let before = World::new();
    let names = ["a", "b", "c", "d"];
    before.run(1, names.map(|name| deploys(name, true)).into());
    let mut world = restored(before);
    world.connect(Leases::default());
    for wanted in asked(&world, names.len()) {
        assert!(wanted.order.restored);
        world.jobs.start(&world.engine, wanted);
    }
    // There were as many slots as deployments.
    let tests = world.run(2, vec![job("tests")]).remove(0);
    pass(&world, tests);
    world.ends(2);
    world.store.writer().write(|tx| tx.accept_restored()).unwrap();
    let accepted = AnyIntake::Run(Intake::Event(RunEvent::RestoreAccepted));
    world.engine.deliver_surely(CellId::Run(run(1)), accepted);
    for wanted in asked(&world, names.len()) {
        assert_eq!((wanted.order.lease.attempt, wanted.order.restored), (2, false));
        pass(&world, wanted);
    }
    // An attempt that nobody knows the end of is on record as that.
    let of = |wanted| world.ends(1).iter().filter(|(_, outcome, _)| *outcome == wanted).count();
    assert_eq!((of(Outcome::Errored), of(Outcome::Passed)), (names.len(), names.len()));
}

#[test]
fn a_run_that_has_not_heard_of_the_restore_deploys_nothing_before_it_is_accepted() {
    let world = restored(World::new());
    let wanted = world.run(1, vec![deploys("later", false)]).remove(0);
    let prepare = || world.jobs.sources.prepare(world.lease(&wanted), &wanted.order);
    let Err(Unprepared::Later(failure)) = prepare() else { panic!("it is given to an executor") };
    assert_eq!(failure.class, TroubleClass::Denied);
    assert!(failure.why.starts_with("nothing is deployed: the data were restored"), "{}", failure.why);
    world.store.writer().write(|tx| tx.accept_restored()).unwrap();
    assert!(prepare().is_ok());
}
