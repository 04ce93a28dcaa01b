//! Copies of a data folder, and one folder of keys (attack H11, trust T9); and a verifier beside a server that goes on.

use std::path::Path;

use towpath_store::audit::verify;
use towpath_store::{OpenError, Options, Store, View, backup, restore};

use crate::audit::{add, copy_folder, held, remove_database, seal};
use crate::subject::Place;

#[test]
fn two_copies_of_a_record_are_not_served_with_the_same_keys() {
    let place = Place::new();
    add(&place.open(), 5);
    let copy = place.base.path().join("copy");
    copy_folder(&place.data(), &copy);
    let of_copy = || Store::open(Options { folder: copy.clone(), ..place.options() });
    // At once: neither notices anything.
    let store = place.open();
    let refused = of_copy().unwrap_err();
    assert!(matches!(&refused, OpenError::InUse { what: "folder of the keys", .. }), "{refused}");
    add(&store, 3);
    store.close();
    // In turns: the copy finds out that it is behind, and goes on from there; the other one cannot any more.
    let store = of_copy().unwrap();
    assert_eq!(store.reader().snapshot().unwrap().restored().unwrap().unwrap().leaves_lost, 3);
    add(&store, 1);
    store.close();
    let refused = Store::open(place.options()).unwrap_err();
    assert!(matches!(&refused, OpenError::OtherRecord { leaves: 7, .. }), "{refused}");
    assert!(refused.to_string().contains("serve those"), "{refused}");
    of_copy().unwrap().close();
    let report = |data: &Path| {
        let view = View::open_copy(&data.join("towpath.db")).unwrap();
        verify(&view, &held(&place), &[place.verifier()]).unwrap()
    };
    assert_eq!(report(&copy).findings, []);
    // Whoever gives the copy up says so, and the record is whole as it was.
    std::fs::rename(place.sink(), place.base.path().join("checkpoints.of-the-copy")).unwrap();
    place.open().close();
    assert_eq!((report(&place.data()).findings, report(&place.data()).leaves), (vec![], 8));
}

#[test]
fn k_checkpoints_that_a_restore_lost_keep_nobody_from_serving() {
    let place = Place::new();
    let store = place.open();
    add(&store, 4);
    let file = place.base.path().join("backup.db");
    backup(store.path(), &file).unwrap();
    add(&store, 3);
    store.close();
    let before = std::fs::read(place.sink()).unwrap();
    remove_database(&place.data());
    restore(&file, &place.data()).unwrap();
    let store = place.open();
    store.writer().write(|tx| tx.accept_restored()).unwrap();
    add(&store, 9);
    store.close();
    // The disk of the keys took none of its checkpoints: the newest is of what was lost.
    std::fs::write(place.sink(), before).unwrap();
    let store = place.open();
    assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
}

#[test]
fn a_log_that_grows_is_verified_as_it_is_at_one_moment() {
    let place = Place::new();
    let store = place.open();
    add(&store, 1);
    seal(&store);
    let findings = std::thread::scope(|scope| {
        let writes = scope.spawn(|| (0..20).for_each(|_| add(&store, 260)));
        let mut findings = Vec::new();
        while !writes.is_finished() {
            let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
            findings.extend(verify(&view, &[], &[place.verifier()]).unwrap().findings);
        }
        findings
    });
    assert_eq!(findings, []);
}
