//! The record over several lives of the data: each restore begins another one (attacks H03, H07).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use towpath_store::audit::{Finding, Place as At, Report, merkle, verify};
use towpath_store::{OpenError, View, backup, restore};

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

#[test]
fn h03_a_leaf_that_somebody_else_wrote_excuses_nothing_though_a_server_has_put_a_checkpoint_over_it() {
    let place = Place::new();
    grow(&place, 4);
    let life = held(&place)[0].text.lines().nth(3).unwrap().trim_start_matches("life ").to_owned();
    let planted = format!(
        r#"{{"leaf":4,"at":1,"entry":{{"restored":{{"why":"forged","leaves_before":1004,"leaves_lost":1000,
        "epoch_before":1,"ended":[{{"life":"{life}","kept":0}}]}}}}}}"#
    );
    let hash = merkle::leaf_hash(planted.as_bytes());
    let sql = "INSERT INTO leaves (number, body, hash) VALUES (4, ?1, ?2)";
    database(&place).execute(sql, params![planted, hash.0]).unwrap();
    grow(&place, 6);
    let report = report(&place);
    let said =
        |finding: &Finding| finding.place == At::Leaf(4) && finding.what.contains("of a life that signed");
    assert!(report.findings.iter().any(said), "{:?}", report.findings);
    assert_eq!((report.restores.len(), report.excused.len()), (0, 0));
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
