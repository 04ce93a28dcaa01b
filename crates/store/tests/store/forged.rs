//! Records that somebody forged who has the data but not the keys (attacks H01, H03, trust T9): whoever holds the key alone, or
//! one checkpoint, finds that out.

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use towpath_core::ids::Digest;
use towpath_store::audit::{AuditKey, Held, Place as At, Report, VerifierKey, merkle, verify};
use towpath_store::{Incarnation, View};

use crate::audit::{add, held, seal};
use crate::subject::Place;

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
fn sign(data: &Connection, key: &AuditKey) {
    let mut leaves = data.prepare("SELECT hash FROM leaves ORDER BY number").unwrap();
    let mut tree = merkle::Frontier::default();
    for hash in leaves.query_map([], |row| row.get(0).map(Digest)).unwrap() {
        tree.push(hash.unwrap(), |_, _, _| {});
    }
    let note = key.sign_checkpoint(tree.size(), tree.root(), Some(Incarnation(OTHER_LIFE))).to_string();
    data.execute("INSERT INTO checkpoints VALUES (?1, ?2)", params![tree.size() as i64, note]).unwrap();
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
        sign(&data, &forger);
        append(&data, &[forged_act(2), forged_act(3)]);
        sign(&data, &forger);
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
