//! Jobs of a server whose data are from a backup.

use towpath_core::outbox::TroubleClass;
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

/// What runs ask for, with the names of the jobs.
fn asked(world: &World, count: usize) -> Vec<Wanted> {
    let mut asked: Vec<Wanted> = (0..count).map(|_| world.asked()).collect();
    asked.sort_by_key(|wanted| wanted.order.spec.name.to_string());
    asked
}

#[test]
fn what_was_being_deployed_when_the_data_were_saved_is_not_deployed_once_more() {
    let before = World::new();
    before.run(1, vec![deploys("once", false), job("tests")]);
    let mut world = restored(before);
    world.connect(Leases::default());
    for wanted in asked(&world, 2) {
        world.jobs.start(&world.engine, wanted);
    }
    let started = world.peer.heard_start();
    assert_eq!(started.job.as_str(), "tests");
    world.peer.say(&ended(started.lease, Outcome::Passed, "exit code 0"));
    let [(_, once, why), (_, tests, _)] = &world.ends(1)[..] else { panic!("two jobs") };
    assert_eq!((*once, *tests), (Outcome::Errored, Outcome::Passed));
    assert!(why.starts_with("it may have run before the data were restored"), "{why}");
}

#[test]
fn whatever_else_deploys_waits_until_a_person_has_accepted_what_was_restored() {
    let before = World::new();
    before.run(1, vec![deploys("again", true)]);
    let mut world = restored(before);
    let mut wanted = asked(&world, 1);
    wanted.extend(world.run(2, vec![deploys("later", false)]));
    world.connect(Leases::default());
    let orders = wanted.iter().map(|wanted| (world.lease(wanted), wanted.clone())).collect::<Vec<_>>();
    for (lease, wanted) in orders {
        let Err(Unprepared::Halted(failure)) = world.jobs.sources.prepare(lease, &wanted.order) else {
            panic!("it is given to an executor")
        };
        assert_eq!(failure.class, TroubleClass::Denied);
        assert!(failure.why.starts_with("nothing is deployed: the data were restored"), "{}", failure.why);
        world.jobs.start(&world.engine, wanted);
    }
    let mut wanted = asked(&world, 2);
    world.store.writer().write(|tx| tx.accept_restored()).unwrap();
    for wanted in wanted.drain(..) {
        world.jobs.start(&world.engine, wanted);
        let spec = world.peer.heard_start();
        world.peer.say(&ended(spec.lease, Outcome::Passed, "exit code 0"));
    }
    assert!([1, 2].iter().flat_map(|run| world.ends(*run)).all(|(_, outcome, _)| outcome == Outcome::Passed));
}
