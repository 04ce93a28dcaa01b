//! The audit log: whatever is changed is found, and its place is named (attacks H01, H02, H03, H07, H09).

use std::path::Path;
use std::sync::mpsc;

use rusqlite::{Connection, params};
use towpath_core::ids::Digest;
use towpath_core::turn::WriteSet;
use towpath_store::audit::{
    AuditKey, Held, Place as At, Report, SignedCheckpoint, VerifierKey, merkle, split_notes, verify,
};
use towpath_store::{AuditOptions, BackupError, OpenError, Store, View, WriteError, backup, restore};

use crate::cells::commit;
use crate::subject::{NOW, Place, act, gate, write_set};

/// Enough for one stored interior node and some leaves behind it.
const LEAVES: u64 = 260;

pub fn add(store: &Store, count: u64) {
    for number in 0..count {
        store.writer().submit(
            towpath_store::Load::default(),
            move |tx| Ok(tx.act(&act(&format!("thing {number}")), NOW)),
            |outcome| assert!(outcome.is_ok()),
        );
    }
    // Units are served in order: this one comes back after all of them.
    store.writer().write(|_| Ok(())).unwrap();
}

pub fn seal(store: &Store) -> SignedCheckpoint {
    let (send, receive) = mpsc::channel();
    store.writer().seal(move |outcome| send.send(outcome.unwrap()).unwrap());
    receive.recv().unwrap()
}

/// A closed log with several checkpoints, and a copy of its database to be spoilt.
struct Sealed {
    place: Place,
    copy: Connection,
}

impl Sealed {
    fn new(leaves: u64) -> Sealed {
        let place = Place::new();
        let store = place.open();
        for part in [leaves - 2, 1, 1] {
            add(&store, part);
            seal(&store);
        }
        store.close();
        let file = place.base.path().join("copy.db");
        std::fs::copy(place.data().join("towpath.db"), &file).unwrap();
        let copy = Connection::open(&file).unwrap();
        copy.pragma_update(None, "journal_mode", "MEMORY").unwrap();
        copy.pragma_update(None, "synchronous", "OFF").unwrap();
        Sealed { place, copy }
    }

    fn held(&self) -> Vec<Held> {
        held(&self.place)
    }

    fn verify_with(&self, held: &[Held]) -> Report {
        let view = View::open_copy(&self.place.base.path().join("copy.db")).unwrap();
        verify(&view, held, &[self.place.verifier()]).unwrap()
    }

    fn verify(&self) -> Report {
        self.verify_with(&[])
    }

    fn execute(&self, sql: &str) {
        self.copy.execute(sql, []).unwrap();
    }

    /// Puts a checkpoint over all the leaves, of which there are `size`, as whoever has the key can.
    fn sign(&self, size: u64) {
        let mut leaves = self.copy.prepare("SELECT hash FROM leaves ORDER BY number").unwrap();
        let mut tree = merkle::Frontier::default();
        for hash in leaves.query_map([], |row| row.get(0).map(Digest)).unwrap() {
            tree.push(hash.unwrap(), |_, _, _| {});
        }
        let note = self.place.key().sign_checkpoint(size, tree.root(), None).to_string();
        self.copy.execute("INSERT INTO checkpoints VALUES (?1, ?2)", params![size as i64, note]).unwrap();
    }

    /// Changes one value at every one of its bytes; each time the verifier must name the place.
    fn flip_every_byte(&self, (table, column): (&str, &str), filter: &str, place: &dyn Fn(&Report) -> bool) {
        let read = format!("SELECT CAST({column} AS BLOB) FROM {table} WHERE {filter}");
        let bytes: Vec<u8> = self.copy.query_row(&read, [], |row| row.get(0)).unwrap();
        let kind: String = self
            .copy
            .query_row(&format!("SELECT typeof({column}) FROM {table} WHERE {filter}"), [], |row| row.get(0))
            .unwrap();
        let write = format!("UPDATE {table} SET {column} = CAST(?1 AS {kind}) WHERE {filter}");
        for at in 0..bytes.len() {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1 << (at % 8);
            self.copy.execute(&write, [&spoilt]).unwrap();
            let report = self.verify();
            assert!(place(&report), "{table}.{column} byte {at}: {:?}", report.findings);
        }
        self.copy.execute(&write, [&bytes]).unwrap();
        assert!(self.verify().is_clean());
    }
}

pub fn held(place: &Place) -> Vec<Held> {
    let text = std::fs::read_to_string(place.sink()).unwrap();
    let notes = split_notes(&text).into_iter().enumerate();
    notes.map(|(at, text)| Held { place: format!("entry {at}"), text }).collect()
}

fn names(report: &Report, place: &At) -> bool {
    report.findings.iter().any(|finding| finding.place == *place)
}

#[test]
fn a_whole_log_is_clean_and_sealed_to_its_end() {
    let sealed = Sealed::new(LEAVES);
    let held = sealed.held();
    let report = sealed.verify_with(&held);
    assert_eq!(report.findings, []);
    assert_eq!((report.leaves, report.unsealed), (LEAVES, 0));
    assert!(held.len() >= 3 && report.checkpoints > held.len() as u64);
    let root: SignedCheckpoint = held.last().unwrap().text.parse().unwrap();
    assert_eq!(report.root, root.checkpoint.root.to_string());
}

#[test]
fn k_without_the_trusted_key_nothing_is_clean() {
    let sealed = Sealed::new(5);
    let view = View::open_copy(&sealed.place.base.path().join("copy.db")).unwrap();
    let stranger = AuditKey::generate("towpath.test/log").unwrap();
    for trusted in [&[][..], &[stranger.verifier().clone()]] {
        let report = verify(&view, &sealed.held(), trusted).unwrap();
        assert!(names(&report, &At::Key(0)), "{:?}", report.findings);
    }
}

#[test]
fn h01_a_flipped_byte_of_a_tile_or_below_it_is_found_and_named() {
    let sealed = Sealed::new(LEAVES);
    sealed.flip_every_byte(("leaves", "hash"), "number = 255", &|report| names(report, &At::Leaf(255)));
    sealed.flip_every_byte(("tree_nodes", "hash"), "level = 8", &|report| names(report, &At::Node(8, 0)));
    sealed.flip_every_byte(("audit_keys", "verifier"), "since = 0", &|report| names(report, &At::Key(0)));
}

#[test]
fn h01_every_byte_of_every_leaf_and_checkpoint_of_a_small_log() {
    const SMALL: u64 = 8;
    let sealed = Sealed::new(SMALL);
    for leaf in 0..SMALL {
        let filter = format!("number = {leaf}");
        for column in ["body", "hash"] {
            sealed.flip_every_byte(("leaves", column), &filter, &|report| names(report, &At::Leaf(leaf)));
        }
    }
    for size in SMALL - 2..=SMALL {
        let filter = format!("size = {size}");
        let names_it = |report: &Report| names(report, &At::Checkpoint(size));
        sealed.flip_every_byte(("checkpoints", "note"), &filter, &names_it);
    }
}

/// Everything that the log says, or why it cannot be read.
fn all_rows(file: &Path) -> Result<Vec<Vec<u8>>, rusqlite::Error> {
    let conn = Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut rows = Vec::new();
    for sql in [
        "SELECT CAST(number || body || hex(hash) AS BLOB) FROM leaves ORDER BY number",
        "SELECT CAST(size || note AS BLOB) FROM checkpoints ORDER BY size",
        "SELECT CAST(since || verifier AS BLOB) FROM audit_keys ORDER BY since",
    ] {
        let mut statement = conn.prepare(sql)?;
        let found = statement.query_map([], |row| row.get(0))?;
        rows.extend(found.collect::<Result<Vec<Vec<u8>>, _>>()?);
    }
    Ok(rows)
}

#[test]
fn h01_a_flipped_byte_of_the_file_is_found_or_changes_nothing_of_the_log() {
    let sealed = Sealed::new(8);
    let file = sealed.place.base.path().join("copy.db");
    let held = sealed.held();
    let whole = std::fs::read(&file).unwrap();
    let expect = all_rows(&file).unwrap();
    // A prime, so that every part of a page is met; all bytes would take a minute.
    for at in (0..whole.len()).step_by(613) {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1 << (at % 8);
        std::fs::write(&file, &spoilt).unwrap();
        let report = View::open_copy(&file).and_then(|view| verify(&view, &held, &[sealed.place.verifier()]));
        let missed = report.is_ok_and(|report| report.is_clean());
        assert!(!missed || all_rows(&file).is_ok_and(|rows| rows == expect), "byte {at}");
    }
}

#[test]
fn h01_a_leaf_rewritten_with_its_hash_is_bracketed_by_checkpoints() {
    let sealed = Sealed::new(LEAVES);
    let body: String =
        sealed.copy.query_row("SELECT body FROM leaves WHERE number = 258", [], |row| row.get(0)).unwrap();
    let forged = body.replace("thing", "thong");
    let hash = merkle::leaf_hash(forged.as_bytes());
    let sql = "UPDATE leaves SET body = ?1, hash = ?2 WHERE number = 258";
    sealed.copy.execute(sql, params![forged, hash.0]).unwrap();
    let report = sealed.verify();
    assert!(names(&report, &At::Leaves(258, 259)), "{:?}", report.findings);

    // Whoever also drops the checkpoints over it from the database is found by the ones outside.
    sealed.execute("DELETE FROM checkpoints WHERE size > 258");
    assert_eq!(sealed.verify().findings, []);
    assert_eq!(sealed.verify().unsealed, LEAVES - 258);
    let report = sealed.verify_with(&sealed.held());
    assert!(names(&report, &At::Leaves(258, 259)), "{:?}", report.findings);
}

#[test]
fn h02_a_deleted_swapped_inserted_or_duplicated_leaf_is_found() {
    let spoil: [(&str, &[&str], u64); 5] = [
        ("deleted", &["DELETE FROM leaves WHERE number = 7"], 7),
        (
            "deleted and closed up",
            &[
                "DELETE FROM leaves WHERE number = 7",
                "UPDATE leaves SET number = -number WHERE number > 7",
                "UPDATE leaves SET number = -number - 1 WHERE number < 0",
            ],
            7,
        ),
        (
            "swapped",
            &[
                "UPDATE leaves SET number = -1 WHERE number = 3",
                "UPDATE leaves SET number = 3 WHERE number = 9",
                "UPDATE leaves SET number = 9 WHERE number = -1",
            ],
            3,
        ),
        (
            "duplicated at the end",
            &["INSERT INTO leaves SELECT 20, body, hash FROM leaves WHERE number = 4"],
            20,
        ),
        (
            "inserted before the first",
            &["INSERT INTO leaves SELECT -1, body, hash FROM leaves WHERE number = 4"],
            0,
        ),
    ];
    for (what, statements, leaf) in spoil {
        let sealed = Sealed::new(20);
        statements.iter().for_each(|sql| sealed.execute(sql));
        let report = sealed.verify();
        assert!(names(&report, &At::Leaf(leaf)), "{what}: {:?}", report.findings);
    }
}

#[test]
fn h03_a_truncated_tail_is_found_by_a_later_checkpoint() {
    for lost in 1..=5_u64 {
        let sealed = Sealed::new(20);
        let first_lost = 20 - lost;
        sealed.execute(&format!("DELETE FROM leaves WHERE number >= {first_lost}"));
        let report = sealed.verify();
        assert!(names(&report, &At::Leaf(first_lost)), "{:?}", report.findings);

        sealed.execute(&format!("DELETE FROM checkpoints WHERE size > {first_lost}"));
        if first_lost >= 18 {
            // There is a checkpoint that it leaves.
            assert_eq!(sealed.verify().findings, [], "a clean cut shows only to whoever held a checkpoint");
        }
        let report = sealed.verify_with(&sealed.held());
        assert!(names(&report, &At::Leaf(first_lost)), "{:?}", report.findings);
    }
}

#[test]
fn h03_a_truncated_tail_is_not_excused_by_a_leaf_that_nobody_signed() {
    // The tail begins at leaf 17 and 20 leaves there were; a second forger gets the sum wrong, and has the key.
    for (lost, why) in [(3, "no good checkpoint covers it"), (2, "another place than its own")] {
        let sealed = Sealed::new(20);
        let held = sealed.held();
        sealed.execute("DELETE FROM leaves WHERE number >= 17");
        sealed.execute("DELETE FROM checkpoints WHERE size > 17");
        let restored =
            format!(r#"{{"why":"forged","leaves_before":20,"leaves_lost":{lost},"epoch_before":1}}"#);
        let body = format!(r#"{{"leaf":17,"at":1,"entry":{{"restored":{restored}}}}}"#);
        let hash = merkle::leaf_hash(body.as_bytes());
        let sql = "INSERT INTO leaves (number, body, hash) VALUES (17, ?1, ?2)";
        sealed.copy.execute(sql, params![body, hash.0]).unwrap();
        if lost != 3 {
            sealed.sign(18);
        }
        let report = sealed.verify_with(&held);
        let said = |finding: &towpath_store::audit::Finding| {
            finding.place == At::Leaf(17) && finding.what.contains(why)
        };
        assert!(report.findings.iter().any(said), "{:?}", report.findings);
        assert!(names(&report, &At::Leaf(18)), "the cut is found: {:?}", report.findings);
        assert_eq!((report.restores.len(), report.excused.len()), (0, 0));
    }
}

#[test]
fn a_forger_with_the_key_is_found_by_one_held_checkpoint() {
    let sealed = Sealed::new(20);
    let held = sealed.held();
    let earlier = held.iter().find(|held| held.text.contains("\n19\n")).unwrap().clone();
    let body = r#"{"leaf":3,"at":1,"entry":{"act":{"act":"administered","by":null,"what":"forged"}}}"#;
    let hash = merkle::leaf_hash(body.as_bytes());
    let sql = "UPDATE leaves SET body = ?1, hash = ?2 WHERE number = 3";
    sealed.copy.execute(sql, params![body, hash.0]).unwrap();
    sealed.execute("DELETE FROM checkpoints");
    sealed.sign(20);
    assert_eq!(sealed.verify().findings, []);
    assert!(!sealed.verify_with(&[earlier]).is_clean());
}

#[test]
fn a_leaf_can_be_proved_to_whoever_holds_the_checkpoint() {
    let place = Place::new();
    let store = place.open();
    add(&store, 300);
    let old = seal(&store).checkpoint;
    add(&store, 300);
    let new = seal(&store).checkpoint;
    let view = store.reader().snapshot().unwrap();
    for (leaf, body) in (0..).zip(view.leaves(0, 1000).unwrap()).step_by(7) {
        let proof = view.inclusion_proof(leaf, new.size).unwrap();
        let hash = merkle::leaf_hash(body.as_bytes());
        assert!(merkle::verify_inclusion(&hash, leaf, (new.size, &new.root), &proof), "{leaf}");
    }
    let proof = view.consistency_proof(old.size, new.size).unwrap();
    assert!(merkle::verify_consistency((old.size, &old.root), (new.size, &new.root), &proof));
    assert!(view.inclusion_proof(600, 600).is_err() && view.consistency_proof(1, 601).is_err());
}

#[test]
fn a_checkpoint_follows_by_itself() {
    let place = Place::new();
    let store = place.open();
    add(&store, 1);
    let begun = std::time::Instant::now();
    let covers = |note: Option<String>| {
        note.is_some_and(|note| note.parse::<SignedCheckpoint>().unwrap().checkpoint.size == 1)
    };
    while !covers(store.reader().snapshot().unwrap().last_checkpoint().unwrap()) {
        assert!(begun.elapsed().as_secs() < 10, "no checkpoint came");
        std::thread::yield_now();
    }
}

#[test]
fn a_new_key_takes_over_with_both_signatures() {
    let place = Place::new();
    let store = place.open();
    add(&store, 3);
    seal(&store);
    let new = AuditKey::generate("towpath.test/log").unwrap();
    let (old_verifier, new_verifier) = (place.verifier(), new.verifier().clone());
    let (send, receive) = mpsc::channel();
    store.writer().rotate_key(new, NOW, move |outcome| send.send(outcome).unwrap());
    assert_eq!(receive.recv().unwrap(), Ok(3));
    add(&store, 3);
    assert!(new_verifier.signed(&seal(&store)));
    store.close();

    let check = |trusted: &VerifierKey| {
        let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
        verify(&view, &held(&place), std::slice::from_ref(trusted)).unwrap()
    };
    assert_eq!((check(&old_verifier).findings, check(&new_verifier).findings), (vec![], vec![]));

    // The old key is no longer this log's.
    let refused = Store::open(place.options()).unwrap_err();
    assert!(matches!(refused, OpenError::OtherKey { noted, .. } if noted == new_verifier.to_string()));
}

/// Whoever trusts the key that was lost cannot know who wrote that it is; whoever trusts the new one knows.
#[test]
fn a_lost_key_is_succeeded_by_a_persons_word() {
    let place = Place::new();
    let store = place.open();
    add(&store, 3);
    seal(&store);
    store.close();
    let lost = place.verifier();
    std::fs::remove_file(place.key_path()).unwrap();
    let succeeding = |succeeds| {
        let mut options = place.options();
        options.audit.as_mut().unwrap().succeeds = succeeds;
        options
    };
    // Nobody gave that word, and nothing has changed: the next start is refused alike.
    for _ in 0..2 {
        let refused = Store::open(succeeding(false)).unwrap_err();
        assert!(matches!(refused, OpenError::OtherKey { noted, .. } if noted == lost.to_string()));
    }
    // Once it has taken over, it is the log's own, whatever is said.
    for succeeds in [true, true, false] {
        let store = Store::open(succeeding(succeeds)).unwrap();
        assert_eq!(store.taken_over(), None);
        add(&store, 1);
        assert!(place.verifier().signed(&seal(&store)));
        store.close();
    }

    let check = |trusted: &[VerifierKey]| {
        let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
        verify(&view, &held(&place), trusted).unwrap()
    };
    for trusted in [&[place.verifier()][..], &[lost.clone(), place.verifier()]] {
        let report = check(trusted);
        assert_eq!((report.findings, report.unsealed), (vec![], 0));
        let [(3, succession)] = &report.successions[..] else { panic!("{:?}", report.successions) };
        assert_eq!((&succession.old, &succession.new), (&lost.to_string(), &place.verifier().to_string()));
    }
    let [found] = &check(&[lost]).findings[..] else { panic!("one finding") };
    assert_eq!(found.place, At::Leaf(3));
    assert!(found.what.contains("no key since is one that you trust"), "{found}");
}

/// A start that was cut off before the first leaf: nothing was signed, so nothing tells of another key.
#[test]
fn a_key_that_was_lost_before_the_first_leaf_is_succeeded_without_a_word() {
    for succeeds in [false, true] {
        let place = Place::new();
        place.open().close();
        std::fs::remove_file(place.key_path()).unwrap();
        let mut options = place.options();
        options.audit.as_mut().unwrap().succeeds = succeeds;
        let store = Store::open(options).unwrap();
        add(&store, 1);
        store.close();
        let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
        let report = verify(&view, &held(&place), &[place.verifier()]).unwrap();
        assert_eq!((report.findings, report.successions, report.unsealed), (vec![], vec![], 0));
        assert!(leaf_texts(&place.open())[0].contains("thing 0"));
    }
}

/// A leaf that gives up the key, written by whoever has the data alone, convinces nobody: nothing signs it.
#[test]
fn a_succession_that_nobody_signed_is_found() {
    let place = Place::new();
    let store = place.open();
    add(&store, 2);
    seal(&store);
    store.close();
    let thief = AuditKey::generate("towpath.test/log").unwrap();
    let mut options = place.options();
    let own = options.audit.take().unwrap();
    options.audit = Some(AuditOptions { key: thief, succeeds: true, sink: None });
    Store::open(options).unwrap().close();
    let raw = Connection::open(place.data().join("towpath.db")).unwrap();
    raw.execute("DELETE FROM checkpoints WHERE size > 2", []).unwrap();
    drop(raw);
    let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
    let report = verify(&view, &held(&place), &[own.key.verifier().clone()]).unwrap();
    let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        found
            .iter()
            .any(|found| found.contains("leaf 2: it gives up the key as lost, and no good checkpoint")),
        "{found:?}"
    );
}

#[test]
fn a_rotation_that_fails_changes_nothing() {
    let place = Place::new();
    let store = place.open();
    let other = Connection::open(place.data().join("towpath.db")).unwrap();
    other.execute("UPDATE meta SET epoch = epoch + 1", []).unwrap();
    let (send, receive) = mpsc::channel();
    let new = AuditKey::generate("towpath.test/log").unwrap();
    store.writer().rotate_key(new, NOW, move |outcome| send.send(outcome).unwrap());
    assert!(matches!(receive.recv().unwrap(), Err(WriteError::Fenced { .. })));
    other.execute("UPDATE meta SET epoch = epoch - 1", []).unwrap();
    assert!(place.verifier().signed(&seal(&store)));
}

#[test]
fn the_sink_must_lie_outside_of_what_it_watches() {
    let place = Place::new();
    let mut options = place.options();
    options.audit.as_mut().unwrap().sink = Some(place.data().join("checkpoints"));
    let error = Store::open(options).unwrap_err().to_string();
    assert!(error.contains("outside"), "{error}");
}

fn leaf_texts(store: &Store) -> Vec<String> {
    store.reader().snapshot().unwrap().leaves(0, 1000).unwrap()
}

#[test]
fn h07_a_restored_backup_says_what_it_lost_and_waits() {
    let place = Place::new();
    let store = place.open();
    let (epoch, incarnation) = (store.epoch(), store.incarnation());
    add(&store, 4);
    let file = place.base.path().join("backup.db");
    backup(store.path(), &file).unwrap();
    assert!(matches!(backup(store.path(), &file), Err(BackupError::Exists(_))));
    add(&store, 3);
    seal(&store);
    store.close();
    let none = backup(place.base.path(), &place.base.path().join("none.db"));
    assert!(matches!(none, Err(BackupError::NoDatabase(_))));
    assert!(matches!(restore(&file, &place.data()), Err(BackupError::Exists(_))));
    remove_database(&place.data());
    restore(&file, &place.data()).unwrap();

    let store = place.open();
    assert!(store.epoch() > epoch && store.incarnation() != incarnation);
    let restored = store.reader().snapshot().unwrap().restored().unwrap().unwrap();
    assert_eq!((restored.leaves_before, restored.leaves_lost), (7, 3));
    assert!(leaf_texts(&store)[4].contains("restored"));
    let sealed = store.reader().snapshot().unwrap().last_checkpoint().unwrap().unwrap();
    assert!(sealed.parse::<SignedCheckpoint>().unwrap().checkpoint.size >= 5, "its leaf counts at once");
    let old = commit(&store, write_set(&gate(), epoch));
    assert!(matches!(old, Err(WriteError::Fenced { .. })));
    let claim = || WriteSet { only_if_drained: true, ..write_set(&gate(), store.epoch()) };
    let halted = commit(&store, claim()).unwrap_err().to_string();
    assert!(halted.contains("3 of 7 leaves of the record are lost"), "{halted}");

    assert_eq!(store.writer().write(|tx| tx.accept_restored()).unwrap(), restored);
    commit(&store, claim()).unwrap();
    add(&store, 9);
    seal(&store);
    store.close();
    let store = place.open();
    assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
    assert!(matches!(store.writer().write(|tx| tx.accept_restored()), Err(WriteError::Missing { .. })));
    store.close();
    let view = View::open_copy(&place.data().join("towpath.db")).unwrap();
    let report = verify(&view, &held(&place), &[place.verifier()]).unwrap();
    assert_eq!((report.findings, report.restores.len()), (vec![], 1));
    let [excused] = &report.excused[..] else { panic!("{:?}", report.excused) };
    let said = (excused.life, excused.checkpoints, excused.least_leaves, excused.most_leaves);
    assert_eq!(said, (Some(incarnation), 1, 7, 7));
}

#[test]
fn h07_a_rollback_of_the_whole_folder_is_seen_by_the_sink() {
    let place = Place::new();
    add(&place.open(), 4);
    let kept = place.base.path().join("kept");
    copy_folder(&place.data(), &kept);
    add(&place.open(), 4);
    std::fs::remove_dir_all(place.data()).unwrap();
    std::fs::rename(&kept, place.data()).unwrap();
    let restored = place.open().reader().snapshot().unwrap().restored().unwrap().unwrap();
    assert_eq!(restored.leaves_lost, 4);
}

#[test]
fn k_an_ordinary_restart_is_no_restore() {
    let place = Place::new();
    for _ in 0..3 {
        let store = place.open();
        add(&store, 2);
        assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
    }
}

#[test]
fn h09_a_backup_holds_no_key() {
    let place = Place::new();
    let store = place.open();
    add(&store, 2);
    seal(&store);
    let file = place.base.path().join("backup.db");
    backup(store.path(), &file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(place.key_path()).unwrap();
    // `PRIVATE+KEY+name+id+seed`, and a seed may have that sign itself.
    let seed = secret.trim_end().splitn(5, '+').last().unwrap();
    assert!(seed.len() > 40, "the key file has another form");
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(seed.len()).any(|window| window == seed.as_bytes()));
    // And it can be opened without any: leaves go on, checkpoints wait.
    let fresh = Place::new();
    restore(&file, &fresh.data()).unwrap();
    let store = Store::open(towpath_store::Options {
        reserve_bytes: crate::subject::RESERVE_BYTES,
        ..towpath_store::Options::new(fresh.data(), NOW)
    })
    .unwrap();
    assert_eq!(leaf_texts(&store).len(), 3);
}

pub fn remove_database(folder: &Path) {
    for name in ["towpath.db", "towpath.db-wal", "towpath.db-shm"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
