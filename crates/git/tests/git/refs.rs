//! Refs by full name and by compare-and-swap.

use towpath_git::{ErrorClass, Expected, RefName, RefUpdate, Transaction};

use crate::support::{World, branch, every_git};

fn name(text: &str) -> RefName {
    text.parse().unwrap()
}

#[test]
fn only_full_names_are_names() {
    let bad = [
        "main",
        "refs",
        "refs/",
        "refs/heads/",
        "refs/heads/a b",
        "refs/heads/a..b",
        "refs/heads/-\n",
        "refs/heads/.a",
        "refs/heads/a.lock",
        "refs/heads/a.lock/b",
        "refs/heads/a@{1}",
        "refs//a",
        "refs/heads/a.",
        "-refs/heads/a",
        "HEAD",
        "refs/heads/a\u{7f}",
        "refs/heads/a:b",
    ];
    bad.iter().for_each(|text| assert!(text.parse::<RefName>().is_err(), "{text}"));
    ["refs/heads/main", "refs/changes/7/1", "refs/heads/-x", "refs/tags/v1.0"]
        .iter()
        .for_each(|text| drop(name(text)));
}

#[test]
fn b03_a_tag_named_like_a_branch_is_not_the_branch() {
    let world = World::new();
    let one = world.commit_file("a", "1");
    let two = world.commit_file("a", "2");
    world.push(two, "main");
    for planted in ["refs/tags/main", "refs/main", "refs/tags/refs/heads/gone", "refs/refs/heads/gone"] {
        world.in_store(&["update-ref", planted, &one.to_string()], b"");
    }
    assert_eq!(world.repository.branch_tip(&branch("main")).unwrap(), Some(two));
    assert_eq!(world.repository.branch_tip(&branch("gone")).unwrap(), None);
}

#[test]
fn refs_are_listed_by_prefix_also_when_packed() {
    let world = World::new();
    let one = world.commit_file("a", "1");
    ["main", "mainly", "main2/x"].iter().for_each(|name| world.push(one, name));
    world.in_store(&["pack-refs", "--all"], b"");
    let names = |prefix: &str| {
        let refs = world.repository.refs(prefix).unwrap();
        refs.iter().map(|found| found.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("refs/heads/main"), ["refs/heads/main"]);
    assert_eq!(names("refs/heads/"), ["refs/heads/main", "refs/heads/main2/x", "refs/heads/mainly"]);
    assert_eq!(names("refs/tags"), Vec::<String>::new());
    assert_eq!(world.repository.all_refs().unwrap().len(), 3);
    assert_eq!(world.repository.head().unwrap(), Some(branch("main")));
    world.repository.set_head(&branch("mainly")).unwrap();
    assert_eq!(world.repository.head().unwrap(), Some(branch("mainly")));
}

#[test]
fn a_transaction_happens_whole_or_not_at_all() {
    for git in every_git() {
        let world = World::with(git);
        let one = world.commit_file("a", "1");
        let two = world.commit_file("a", "2");
        world.push(two, "main");
        let update = |text: &str, expected, target| RefUpdate { name: name(text), expected, target };
        let create = [
            update("refs/changes/1/1", Expected::Absent, Some(one.into())),
            update("refs/changes/1/2", Expected::Absent, Some(two.into())),
        ];
        assert_eq!(world.repository.ref_transaction(&create).unwrap(), Transaction::Done);
        let again = world.repository.ref_transaction(&create).unwrap();
        assert_eq!(again, Transaction::Stale { name: name("refs/changes/1/1"), found: Some(one.into()) });

        let mixed = [
            update("refs/changes/1/1", Expected::At(one.into()), None),
            update("refs/heads/main", Expected::At(one.into()), Some(one.into())),
        ];
        let stale = world.repository.ref_transaction(&mixed).unwrap();
        assert_eq!(stale, Transaction::Stale { name: name("refs/heads/main"), found: Some(two.into()) });
        assert_eq!(world.repository.refs("refs/changes").unwrap().len(), 2, "half of a transaction happened");

        let delete = [
            update("refs/changes/1/1", Expected::At(one.into()), None),
            update("refs/changes/1/2", Expected::Anything, None),
            update("refs/changes/1/3", Expected::Absent, None),
        ];
        assert_eq!(world.repository.ref_transaction(&delete).unwrap(), Transaction::Done);
        assert_eq!(world.repository.refs("refs/changes").unwrap(), []);
    }
}

#[test]
fn a_held_lock_is_transient_and_the_next_try_works() {
    let world = World::new();
    let one = world.commit_file("a", "1");
    world.push(one, "main");
    let lock = world.repository.path().join("refs/heads/other.lock");
    std::fs::write(&lock, "").unwrap();
    let update =
        [RefUpdate { name: name("refs/heads/other"), expected: Expected::Absent, target: Some(one.into()) }];
    let error = world.repository.ref_transaction(&update).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    world.repository.clear_leftovers().unwrap();
    assert_eq!(world.repository.ref_transaction(&update).unwrap(), Transaction::Done);
}

#[test]
fn marks_of_pushes_that_a_dead_git_received_go_and_others_stay() {
    let world = World::new();
    let folder = world.repository.path().join("objects/pack");
    let keeps = ["received", "of-a-person"].map(|name| folder.join(format!("pack-{name}.keep")));
    std::fs::write(&keeps[0], "receive-pack 4711 on host\n").unwrap();
    std::fs::write(&keeps[1], "the release of May\n").unwrap();
    world.repository.clear_leftovers().unwrap();
    assert_eq!(keeps.map(|keep| keep.exists()), [false, true]);
}
