//! The record over several lives of the data: each restore begins another one (attacks H03, H07).

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use towpath_store::audit::{Place as At, Report, Restored, SignedCheckpoint, merkle, verify};
use towpath_store::{Incarnation, OpenError, View, backup, restore};

use crate::audit::{add, held, remove_database, seal};
use crate::subject::{Place, SUBJECT};

/// Leaves that a new place has so many more of, under a checkpoint.
fn grow(place: &Place, leaves: u64) {
    let store = place.open();
    add(&store, leaves);
    seal(&store);
    store.close();
}

fn save(place: &Place, name: &str) -> PathBuf {
    let saved = place.base.path().join(name);
    backup(&place.data(), &saved).unwrap();
    saved
}

fn go_back(place: &Place, saved: &Path) {
    remove_database(&place.data());
    restore(saved, &place.data()).unwrap();
}

fn report(place: &Place) -> Report {
    let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
    verify(&view, &held(place), &[place.verifier()]).unwrap()
}

fn places(report: &Report) -> Vec<At> {
    report.findings.iter().map(|finding| finding.place.clone()).collect()
}

fn database(place: &Place) -> Connection {
    Connection::open(place.data().join("towpath.db")).unwrap()
}

#[test]
fn h03_a_tail_that_is_cut_off_after_a_restore_is_found_however_long_the_life_before_was() {
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    grow(&place, 20);
    go_back(&place, &saved);
    grow(&place, 3);
    assert_eq!(report(&place).findings, []);
    let copy = database(&place);
    copy.execute_batch("DELETE FROM leaves WHERE number >= 6; DELETE FROM checkpoints WHERE size > 6")
        .unwrap();
    drop(copy);
    let report = report(&place);
    assert!(places(&report).contains(&At::Leaf(6)), "{:?}", report.findings);
}

/// Somebody who has the data but no key: what a server would take for a restore, and sign, is a record that it has signed
/// otherwise.
#[test]
fn h03_a_record_that_somebody_rewrote_and_gave_another_life_is_signed_by_nobody() {
    let place = Place::new();
    grow(&place, 6);
    let sql = "UPDATE leaves SET body = ?1, hash = ?2 WHERE number = 3";
    let forged = r#"{"leaf":3,"at":1,"entry":"x"}"#;
    let data = database(&place);
    data.execute(sql, params![forged, merkle::leaf_hash(forged.as_bytes()).0]).unwrap();
    data.execute_batch("DELETE FROM tree_nodes; DELETE FROM checkpoints WHERE size > 3").unwrap();
    data.execute("UPDATE meta SET incarnation = ?1", [[7_u8; 16]]).unwrap();
    drop(data);
    let before = held(&place).len();
    let refused = SUBJECT.open(&place).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::OtherRecord { leaves: 6, .. }), "{refused}");
    assert_eq!(held(&place).len(), before);
}

#[test]
fn what_went_on_beside_a_longer_life_that_comes_back_is_lost() {
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    grow(&place, 20);
    let aside = save(&place, "aside.db");
    go_back(&place, &saved);
    grow(&place, 3);
    go_back(&place, &aside);
    grow(&place, 1);
    let report = report(&place);
    let restores: Vec<_> = report.restores.iter().map(|(leaf, restored)| (*leaf, restored)).collect();
    let [(24, restored)] = restores[..] else { panic!("{restores:?}") };
    // The leaf that told of the first restore, and three more.
    assert_eq!((restored.leaves_lost, restored.leaves_before), (4, 28));
    assert_eq!(report.findings, []);
    let [excused] = &report.excused[..] else { panic!("{:?}", report.excused) };
    let leaves = (excused.least_leaves, excused.most_leaves);
    assert!(excused.life.is_some() && excused.checkpoints >= 2 && leaves == (5, 8), "{excused:?}");
}

#[test]
fn k_a_restore_to_before_another_one_leaves_no_findings() {
    let place = Place::new();
    grow(&place, 4);
    let first = save(&place, "first.db");
    grow(&place, 4);
    let second = save(&place, "second.db");
    grow(&place, 4);
    for saved in [&first, &second, &first] {
        go_back(&place, saved);
        grow(&place, 2);
        let report = report(&place);
        assert_eq!((report.findings, report.restores.len()), (vec![], 1));
        assert!(!report.excused.is_empty());
    }
}

fn mark(place: &Place) -> PathBuf {
    place.data().join("high-water.json")
}

/// A start and an end: the life, and what waits for acceptance in it.
fn serve(place: &Place) -> (Incarnation, Option<Restored>) {
    let store = place.open();
    let restored = store.reader().snapshot().unwrap().restored().unwrap();
    let life = store.incarnation();
    store.close();
    (life, restored)
}

#[test]
fn a_restore_whose_start_was_cut_off_after_its_leaf_is_the_same_one_at_the_next() {
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    grow(&place, 4);
    go_back(&place, &saved);
    let before = std::fs::read(mark(&place)).unwrap();
    let found = serve(&place);
    let lost = found.1.as_ref().map(|restored| (restored.leaves_lost, restored.leaves_before));
    assert_eq!(lost, Some((4, 8)));
    std::fs::write(mark(&place), &before).unwrap();
    assert_eq!(serve(&place), found);
    assert_ne!(std::fs::read(mark(&place)).unwrap(), before, "the mark is brought on");
    let report = report(&place);
    assert_eq!((report.leaves, report.restores.len(), report.findings), (5, 1, vec![]));
}

#[test]
fn a_start_that_cannot_write_the_leaf_of_a_restore_has_found_nothing_and_the_next_finds_the_same() {
    let place = Place::new();
    grow(&place, 4);
    grow(&place, 3);
    let saved = save(&place, "saved.db");
    grow(&place, 3);
    // Nothing that is outside tells of all that the backup has.
    let size = |note: &str| note.parse::<SignedCheckpoint>().unwrap().checkpoint.size;
    let notes = held(&place).into_iter().map(|held| held.text).filter(|note| size(note) != 7);
    std::fs::write(place.sink(), notes.collect::<String>()).unwrap();
    go_back(&place, &saved);
    let refuses = "CREATE TRIGGER refuses BEFORE INSERT ON leaves BEGIN SELECT RAISE(ABORT, 'tested'); END";
    database(&place).execute_batch(refuses).unwrap();
    SUBJECT.open(&place).map(drop).unwrap_err();
    database(&place).execute_batch("DROP TRIGGER refuses").unwrap();
    let restored = serve(&place).1.unwrap();
    assert_eq!((restored.leaves_lost, restored.leaves_before), (3, 10));
    let report = report(&place);
    assert_eq!((report.restores, report.findings), (vec![(7, restored)], vec![]));
}

/// Somebody who has the data but no key writes what a start has found, with or without its leaf.
#[test]
fn h03_what_waits_for_acceptance_is_not_believed_without_a_leaf_that_the_key_vouches_for() {
    for is_told in [false, true] {
        let place = Place::new();
        grow(&place, 4);
        let saved = save(&place, "saved.db");
        grow(&place, 4);
        let life = held(&place)[0].text.lines().nth(3).unwrap().trim_start_matches("life ").to_owned();
        go_back(&place, &saved);
        let noted: serde_json::Value = serde_json::from_slice(&std::fs::read(mark(&place)).unwrap()).unwrap();
        let forged = format!(
            r#"{{"why":"forged","leaves_before":9,"leaves_lost":5,"epoch_before":1,"life_before":{},"at":1,
            "ended":[{{"life":"{life}","kept":4}}]}}"#,
            noted["incarnation"]
        );
        let data = database(&place);
        data.execute("UPDATE meta SET incarnation = ?1, restored = ?2", params![[7_u8; 16], forged]).unwrap();
        if is_told {
            let body = format!(r#"{{"leaf":4,"at":1,"entry":{{"restored":{forged}}}}}"#);
            let hash = merkle::leaf_hash(body.as_bytes());
            let sql = "INSERT INTO leaves (number, body, hash) VALUES (4, ?1, ?2)";
            data.execute(sql, params![body, hash.0]).unwrap();
        }
        drop(data);
        if is_told {
            let refused = SUBJECT.open(&place).map(drop).unwrap_err();
            assert_eq!(refused, OpenError::ForgedLeaf { leaf: 4 });
            continue;
        }
        let (next, restored) = serve(&place);
        assert_ne!((next, restored.map(|one| one.why)), (Incarnation([7; 16]), Some("forged".to_owned())));
    }
}

/// On two new machines, one after the other: neither knows anything of what was restored to it.
#[test]
fn a_backup_of_what_nobody_had_accepted_yet_is_restored_once_more() {
    let place = Place::new();
    grow(&place, 4);
    let mut saved = save(&place, "saved.db");
    let mut lives = Vec::new();
    for machine in 1..=2 {
        [mark(&place), place.sink()].into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
        go_back(&place, &saved);
        grow(&place, 2);
        saved = save(&place, &format!("of-machine-{machine}.db"));
        lives.push(serve(&place).0);
        assert_eq!(report(&place).restores.len(), machine);
    }
    assert_ne!(lives[0], lives[1]);
}

#[test]
fn a_folder_that_goes_back_to_a_start_that_was_cut_off_has_lost_what_its_life_signed_since() {
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    go_back(&place, &saved);
    let before = std::fs::read(mark(&place)).unwrap();
    let (life, _) = serve(&place);
    let cut_off = save(&place, "cut-off.db");
    grow(&place, 6);
    remove_database(&place.data());
    std::fs::copy(cut_off, place.data().join("towpath.db")).unwrap();
    std::fs::write(mark(&place), before).unwrap();
    let (next, restored) = serve(&place);
    assert_eq!(restored.map(|restored| restored.leaves_lost), Some(6));
    assert_ne!(next, life);
}

/// Has no checkpoint over so many leaves, as before one was due.
fn unseal(database: &Connection, place: &Place, sizes: RangeInclusive<u64>) {
    let size = |note: &str| note.parse::<SignedCheckpoint>().unwrap().checkpoint.size;
    let notes = held(place).into_iter().map(|held| held.text).filter(|note| !sizes.contains(&size(note)));
    std::fs::write(place.sink(), notes.collect::<String>()).unwrap();
    let sql = "DELETE FROM checkpoints WHERE size BETWEEN ?1 AND ?2";
    database.execute(sql, [*sizes.start() as i64, *sizes.end() as i64]).unwrap();
}

#[test]
fn a_backup_whose_last_leaves_had_no_checkpoint_yet_is_restored_though_another_life_signed_over_as_many() {
    let place = Place::new();
    grow(&place, 4);
    let first = save(&place, "first.db");
    grow(&place, 4);
    let store = place.open();
    add(&store, 2);
    let second = save(&place, "second.db");
    add(&store, 2);
    store.close();
    unseal(&Connection::open(&second).unwrap(), &place, 9..=11);
    go_back(&place, &first);
    // With the leaf that tells of the restore: as many as the second backup has.
    grow(&place, 5);
    go_back(&place, &second);
    let restored = serve(&place).1.unwrap();
    assert_eq!(restored.leaves_before - restored.leaves_lost, 10);
    let report = report(&place);
    assert_eq!((report.restores, report.findings), (vec![(10, restored)], vec![]));
}

#[test]
fn a_restore_whose_start_went_on_without_its_mark_is_the_same_one_though_the_life_before_signed_over_as_many()
{
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    grow(&place, 4);
    go_back(&place, &saved);
    let before = std::fs::read(mark(&place)).unwrap();
    let found = serve(&place);
    let of_life_before = held(&place);
    grow(&place, 3);
    // Ended before there was a checkpoint over these, and the mark could not be set.
    unseal(&database(&place), &place, 6..=8);
    let notes = of_life_before.into_iter().map(|held| held.text).collect::<String>();
    std::fs::write(place.sink(), notes).unwrap();
    std::fs::write(mark(&place), &before).unwrap();
    assert_eq!(serve(&place), found);
    assert_eq!(report(&place).findings, []);
}

/// Accepts what a restore lost.
fn accept(place: &Place) {
    let store = place.open();
    store.writer().write(|tx| tx.accept_restored()).unwrap();
    store.close();
}

#[test]
fn a_restore_that_was_accepted_is_no_other_one_though_its_mark_could_not_be_set() {
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    grow(&place, 4);
    go_back(&place, &saved);
    let before = std::fs::read(mark(&place)).unwrap();
    let (life, _) = serve(&place);
    accept(&place);
    grow(&place, 2);
    std::fs::write(mark(&place), &before).unwrap();
    assert_eq!(serve(&place), (life, None));
    assert_eq!(report(&place).restores.len(), 1);
}

/// As where the disk of the checkpoints has taken none since: the newest outside are those of the life that ended.
#[test]
fn what_was_accepted_is_not_lost_again_though_no_checkpoint_since_is_outside() {
    let place = Place::new();
    grow(&place, 4);
    let saved = save(&place, "saved.db");
    grow(&place, 4);
    let of_life_before = std::fs::read(place.sink()).unwrap();
    let forget = || std::fs::write(place.sink(), &of_life_before).unwrap();
    go_back(&place, &saved);
    let (life, _) = serve(&place);
    accept(&place);
    forget();
    assert_eq!(serve(&place), (life, None));
    grow(&place, 2);
    let since = save(&place, "since.db");
    grow(&place, 1);
    forget();
    go_back(&place, &since);
    let restored = serve(&place).1.unwrap();
    assert_eq!((restored.leaves_lost, restored.leaves_before), (1, 8));
    assert_eq!(report(&place).findings, []);
}

#[test]
fn what_a_restore_lost_that_nobody_accepted_is_lost_after_the_next_one_as_well() {
    let place = Place::new();
    grow(&place, 4);
    let first = save(&place, "first.db");
    grow(&place, 4);
    let lost_now = || {
        let restored = serve(&place).1.unwrap();
        (restored.leaves_lost, restored.leaves_before)
    };
    go_back(&place, &first);
    assert_eq!(lost_now(), (4, 8));
    // Of a backup that knows nothing of that: the leaf that told of it is lost, too.
    go_back(&place, &first);
    assert_eq!(lost_now(), (5, 9));
    let waits = save(&place, "waits.db");
    grow(&place, 3);
    go_back(&place, &waits);
    assert_eq!(lost_now(), (8, 13));
    let waits = save(&place, "waits-again.db");
    grow(&place, 3);
    go_back(&place, &waits);
    assert_eq!(lost_now(), (11, 17));
    // What somebody has accepted is nothing new.
    accept(&place);
    let accepted = save(&place, "accepted.db");
    grow(&place, 2);
    go_back(&place, &accepted);
    assert_eq!(lost_now(), (2, 9));
    assert_eq!(report(&place).findings, []);
}
