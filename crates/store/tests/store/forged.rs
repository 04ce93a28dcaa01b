//! Records that somebody forged who has the data but not the keys (attacks H01, H03, trust T9): whoever holds the key alone, or
//! one checkpoint, finds that out, and no server signs one.

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use towpath_core::ids::Digest;
use towpath_store::audit::{AuditKey, Finding, Held, Place as At, Report, VerifierKey, merkle, verify};
use towpath_store::{Incarnation, OpenError, View, backup, restore};

use crate::audit::{add, held, remove_database, seal};
use crate::subject::{Place, SUBJECT};

/// The life that a forger gives the data.
const OTHER_LIFE: [u8; 16] = [0xcd; 16];

/// A closed place with so many leaves, all of them sealed, and the life that signed them.
fn grown(leaves: u64) -> (Place, Incarnation) {
    let place = Place::new();
    let store = place.open();
    for _ in 0..leaves {
        add(&store, 1);
        seal(&store);
    }
    let life = store.incarnation();
    store.close();
    (place, life)
}

fn database(place: &Place) -> Connection {
    Connection::open(place.data().join("towpath.db")).unwrap()
}

fn forged_act(number: u64) -> Value {
    json!({ "act": { "act": "administered", "by": null, "what": format!("forged {number}") } })
}

/// The leaf number `leaf`, that tells of a restore which lost all of a life.
fn forged_restore(leaf: u64, life: Incarnation) -> Value {
    json!({ "restored": {
        "why": "forged", "leaves_before": leaf + 1000, "leaves_lost": 1000, "epoch_before": 1,
        "life_before": life.to_string(), "at": 1, "ended": [{ "life": life, "kept": 0 }],
    }})
}

/// Adds leaves behind those that are there.
fn append(data: &Connection, entries: &[Value]) {
    let first: i64 = data.query_row("SELECT count(*) FROM leaves", [], |row| row.get(0)).unwrap();
    for (number, entry) in (first..).zip(entries) {
        let body = format!(r#"{{"leaf":{number},"at":1,"entry":{entry}}}"#);
        let hash = merkle::leaf_hash(body.as_bytes());
        data.execute("INSERT INTO leaves VALUES (?1, ?2, ?3)", params![number, body, hash.0]).unwrap();
    }
}

/// Puts these leaves in the place of all that are there, under no checkpoint.
fn rewrite(data: &Connection, entries: &[Value]) {
    data.execute_batch("DELETE FROM leaves; DELETE FROM checkpoints; DELETE FROM tree_nodes").unwrap();
    append(data, entries);
}

/// Puts a checkpoint over all leaves, by a key and in a life.
fn sign(data: &Connection, key: &AuditKey, life: Incarnation) -> String {
    let mut leaves = data.prepare("SELECT hash FROM leaves ORDER BY number").unwrap();
    let mut tree = merkle::Frontier::default();
    for hash in leaves.query_map([], |row| row.get(0).map(Digest)).unwrap() {
        tree.push(hash.unwrap(), |_, _, _| {});
    }
    let note = key.sign_checkpoint(tree.size(), tree.root(), Some(life)).to_string();
    data.execute("INSERT INTO checkpoints VALUES (?1, ?2)", params![tree.size() as i64, note]).unwrap();
    note
}

/// Notes keys as those that sign from these leaves on, also several from the same one.
fn note_keys(data: &Connection, keys: &[(u64, &VerifierKey)]) {
    data.execute_batch("DROP TABLE audit_keys; CREATE TABLE audit_keys (since INTEGER, verifier TEXT)")
        .unwrap();
    for (since, key) in keys {
        data.execute("INSERT INTO audit_keys VALUES (?1, ?2)", params![*since as i64, key.to_string()])
            .unwrap();
    }
}

fn report(place: &Place, held: &[Held]) -> Report {
    let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
    verify(&view, held, &[place.verifier()]).unwrap()
}

/// Gives the data another life, also beside the database.
fn give_another_life(place: &Place, data: &Connection, leaves: u64) {
    data.execute("UPDATE meta SET incarnation = ?1, restored = NULL", [OTHER_LIFE]).unwrap();
    let mark = json!({ "incarnation": Incarnation(OTHER_LIFE), "epoch": 1, "leaves": leaves });
    std::fs::write(place.data().join("high-water.json"), mark.to_string()).unwrap();
}

/// All of it is signed by a key that the forger made, which takes over at the first leaf, or once there is one.
#[test]
fn a_record_forged_as_a_whole_is_not_sound_to_whoever_holds_the_key_alone() {
    for taken_over_at in [0, 1] {
        let (place, life) = grown(6);
        let forger = AuditKey::generate("towpath.test/log").unwrap();
        let (own, other) = (place.verifier(), forger.verifier());
        let succession = json!({ "succession": { "old": own.to_string(), "new": other.to_string() } });
        let mut leaves: Vec<Value> = (0..taken_over_at).map(forged_act).collect();
        leaves.extend([succession, forged_restore(taken_over_at + 1, life)]);
        let data = database(&place);
        rewrite(&data, &leaves);
        sign(&data, &forger, Incarnation(OTHER_LIFE));
        append(&data, &[forged_act(2), forged_act(3)]);
        sign(&data, &forger, Incarnation(OTHER_LIFE));
        note_keys(&data, &[(0, &own), (taken_over_at, other)]);
        drop(data);

        let alone = report(&place, &[]);
        assert!(alone.findings.iter().any(|found| found.place == At::Leaf(taken_over_at)), "{alone:?}");
        assert_eq!((alone.unsealed, alone.checkpoints), (alone.leaves, 0), "the key has signed none of it");
        // Whoever has kept a checkpoint of the real record hears of each.
        let held = held(&place);
        let contradicted = report(&place, &held);
        assert_eq!((contradicted.excused.len(), contradicted.restores.len()), (0, 0));
        let within = held.iter().filter(|held| !held.text.contains("\n0\n"));
        for held in within {
            let found = |place: &At| *place == At::Held(held.place.clone());
            let names = |what: &str| what.contains(&held.place);
            let finding = contradicted.findings.iter().any(|one| found(&one.place) || names(&one.what));
            assert!(finding, "{}: {:?}", held.place, contradicted.findings);
        }
    }
}

/// None of it is signed, and nothing in it contradicts the key; also beside the checkpoint over no leaves, which a server has
/// signed when it began.
#[test]
fn a_record_that_nobody_signed_is_not_sound_to_whoever_holds_the_key_alone() {
    for keeps_the_first in [false, true] {
        let (place, life) = grown(6);
        let data = database(&place);
        let leaves: Vec<Value> = (0..20).map(forged_act).collect();
        rewrite(&data, &leaves);
        if keeps_the_first {
            let note = place.key().sign_checkpoint(0, merkle::Frontier::default().root(), Some(life));
            data.execute("INSERT INTO checkpoints VALUES (0, ?1)", [note.to_string()]).unwrap();
        }
        drop(data);
        let alone = report(&place, &[]);
        let [found] = &alone.findings[..] else { panic!("{:?}", alone.findings) };
        assert_eq!((&found.place, alone.unsealed), (&At::Leaves(0, 20), 20));
        assert!(found.what.contains("by a key that you trust covers any of them"), "{found}");
        // Its own server has what it signed, and starts with no other.
        assert!(matches!(SUBJECT.open(&place), Err(OpenError::OtherRecord { .. })));
    }
}

/// Killed before its first checkpoint over a leaf: it shows as what nobody signed, until the next start has signed it.
#[test]
fn a_record_whose_server_was_killed_at_its_first_leaves_is_sound_after_the_next_start() {
    let place = Place::new();
    place.open().close();
    append(&database(&place), &[forged_act(0), forged_act(1)]);
    let [found] = &report(&place, &held(&place)).findings[..] else { panic!("one finding") };
    assert!(found.what.contains("start it with its keys, then verify again"), "{found}");
    let store = place.open();
    assert_eq!(store.taken_over(), Some(0..2));
    store.close();
    assert_eq!(report(&place, &held(&place)).findings, []);
}

/// With a life of its own, in the database and beside it, and a leaf that says that the real one was lost.
#[test]
fn a_forged_record_that_excuses_the_real_one_is_signed_by_nobody() {
    let (place, life) = grown(6);
    let data = database(&place);
    let mut leaves: Vec<Value> = (0..64).map(forged_act).collect();
    leaves[1] = forged_restore(1, life);
    rewrite(&data, &leaves);
    give_another_life(&place, &data, 64);
    drop(data);
    let before = std::fs::read_to_string(place.sink()).unwrap();
    let refused = SUBJECT.open(&place).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::OtherRecord { leaves: 6, .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(place.sink()).unwrap(), before);
}

/// The leaves that were signed are there, and the life is one that nobody outside has heard of.
#[test]
fn a_record_that_somebody_gave_another_life_waits_for_a_person() {
    let (place, _) = grown(6);
    let data = database(&place);
    append(&data, &[forged_act(6), forged_act(7)]);
    give_another_life(&place, &data, 6);
    drop(data);
    let store = place.open();
    let restored = store.reader().snapshot().unwrap().restored().unwrap().unwrap();
    assert!(restored.why.contains("of another life"), "{restored}");
    assert_eq!((restored.leaves_lost, restored.leaves_unsealed), (0, 2));
    assert!(restored.to_string().contains("no checkpoint covered the last 2 of those"), "{restored}");
    add(&store, 1);
    store.close();
    let report = report(&place, &held(&place));
    assert_eq!((report.findings, report.restores), (vec![], vec![(8, restored)]));
}

#[test]
fn a_restore_that_no_checkpoint_ends_with_is_not_believed() {
    let (place, life) = grown(6);
    let data = database(&place);
    append(&data, &[forged_restore(6, life), forged_act(7)]);
    sign(&data, &place.key(), Incarnation(OTHER_LIFE));
    drop(data);
    let report = report(&place, &held(&place));
    let [found] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!(found.place, At::Leaf(6));
    assert!(found.what.contains("no good checkpoint ends with it"), "{found}");
}

/// A server signs such a leaf as it writes it: whatever it signed over one that it finds would make it count.
#[test]
fn a_restore_or_a_lost_key_that_no_checkpoint_covers_is_signed_by_nobody() {
    for is_key in [false, true] {
        let (place, life) = grown(6);
        let other = AuditKey::generate("towpath.test/log").unwrap();
        let names = [place.verifier(), other.verifier().clone()].map(|key| key.to_string());
        let leaf = match is_key {
            true => json!({ "succession": { "old": names[0], "new": names[1] } }),
            false => forged_restore(7, life),
        };
        append(&database(&place), &[forged_act(6), leaf]);
        let before = std::fs::read_to_string(place.sink()).unwrap();
        let refused = SUBJECT.open(&place).map(drop).unwrap_err();
        assert_eq!(refused, OpenError::ForgedLeaf { leaf: 7 });
        assert!(refused.to_string().contains("leaf 7 of the record tells of a restore"), "{refused}");
        assert_eq!(std::fs::read_to_string(place.sink()).unwrap(), before);
    }
}

/// It tells of the end of the very life that went on to sign over it, so it is no excuse for cutting that life's leaves off.
#[test]
fn a_life_that_signed_over_the_leaf_of_its_own_end_has_not_ended() {
    let (place, life) = grown(6);
    let data = database(&place);
    append(&data, &[forged_restore(6, life)]);
    let note = sign(&data, &place.key(), life);
    std::fs::write(place.sink(), std::fs::read_to_string(place.sink()).unwrap() + &note).unwrap();
    drop(data);
    let store = place.open();
    assert_eq!(store.incarnation(), life);
    for _ in 0..4 {
        add(&store, 1);
        seal(&store);
    }
    store.close();
    let whole = report(&place, &held(&place));
    let said = |found: &Finding| found.place == At::Leaf(6) && found.what.contains("of a life that signed");
    assert!(whole.findings.iter().any(said), "{:?}", whole.findings);
    assert_eq!((whole.restores.len(), whole.excused.len()), (0, 0));

    let data = database(&place);
    data.execute_batch("DELETE FROM leaves WHERE number >= 9; DELETE FROM checkpoints WHERE size > 9")
        .unwrap();
    append(&data, &[9, 10, 11, 12].map(forged_act));
    drop(data);
    let before = std::fs::read_to_string(place.sink()).unwrap();
    let refused = SUBJECT.open(&place).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::OtherRecord { leaves: 11, .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(place.sink()).unwrap(), before);
}

/// The same life goes on over them, as it does where a server was killed before it could seal its last leaves.
#[test]
fn leaves_that_no_checkpoint_covers_are_counted_when_a_server_takes_them_over() {
    let (place, _) = grown(6);
    let store = place.open();
    assert_eq!(store.taken_over(), None);
    store.close();
    let forged: Vec<Value> = (0..5).map(forged_act).collect();
    append(&database(&place), &forged);
    let store = place.open();
    assert_eq!(store.taken_over(), Some(6..11));
    assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
    store.close();
    assert_eq!(place.open().taken_over(), None);
}

/// Whoever can write to the backups has no key either, and the server signs what is restored.
#[test]
fn leaves_that_somebody_added_to_a_backup_are_told_of_and_an_honest_backup_has_none() {
    let (place, _) = grown(6);
    let store = place.open();
    seal(&store);
    add(&store, 3);
    let saved = place.base.path().join("saved.db");
    backup(&place.data(), &saved).unwrap();
    store.close();
    assert_eq!(View::open_copy(&saved).unwrap().unsealed(), Ok(0));
    for forged in [0, 5] {
        let leaves: Vec<Value> = (0..forged).map(forged_act).collect();
        append(&Connection::open(&saved).unwrap(), &leaves);
        assert_eq!(View::open_copy(&saved).unwrap().unsealed(), Ok(forged));
        remove_database(&place.data());
        restore(&saved, &place.data()).unwrap();
        let store = place.open();
        let restored = store.reader().snapshot().unwrap().restored().unwrap().unwrap();
        store.close();
        assert_eq!(restored.leaves_unsealed, forged);
        assert_eq!(restored.to_string().contains("nothing tells who wrote them"), forged > 0, "{restored}");
        let report = report(&place, &held(&place));
        assert_eq!((report.findings, report.restores), (vec![], vec![(9 + forged, restored)]));
    }
}
