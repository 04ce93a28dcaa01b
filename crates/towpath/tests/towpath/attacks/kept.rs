//! Group H: what whoever has the server's disk does to its record, its backups and its folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::canaries::PYTHON;
use super::definitions::land;
use super::fort::Fort;
use super::jobs::has_python;
use super::leftovers::files_below;
use crate::support::{Ended, TOWPATH, ended, has_sandbox};

/// Does one thing to a copy of the database: `file`, what, and a number.
const SPOIL: &str = "import hashlib, json, sqlite3, sys
file, what, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(file)
def flip(table, column, where, key):
    value, = db.execute(f'SELECT CAST({column} AS BLOB) FROM {table} WHERE {where}', (key,)).fetchone()
    kind, = db.execute(f'SELECT typeof({column}) FROM {table} WHERE {where}', (key,)).fetchone()
    value = bytearray(value); value[len(value) * at // 100] ^= 1
    db.execute(f'UPDATE {table} SET {column} = CAST(? AS {kind}) WHERE {where}', (bytes(value), key))
last, = db.execute('SELECT MAX(number) FROM leaves').fetchone()
middle = last // 2
note, = db.execute('SELECT MAX(size) FROM checkpoints').fetchone()
if what == 'body': flip('leaves', 'body', 'number = ?', middle)
if what == 'hash': flip('leaves', 'hash', 'number = ?', middle)
if what == 'checkpoint': flip('checkpoints', 'note', 'size = ?', note)
if what == 'key': flip('audit_keys', 'verifier', 'since = ?', 0)
if what == 'delete': db.execute('DELETE FROM leaves WHERE number = ?', (middle,))
if what == 'close up':
    db.execute('DELETE FROM leaves WHERE number = ?', (middle,))
    db.execute('UPDATE leaves SET number = -number WHERE number > ?', (middle,))
    db.execute('UPDATE leaves SET number = -number - 1 WHERE number < 0')
if what == 'swap':
    for a, b in [(middle, -1), (middle - 2, middle), (-1, middle - 2)]:
        db.execute('UPDATE leaves SET number = ? WHERE number = ?', (b, a))
if what == 'duplicate': db.execute('INSERT INTO leaves SELECT ?, body, hash FROM leaves WHERE number = 4', (last + 1,))
if what == 'insert': db.execute('INSERT INTO leaves SELECT -1, body, hash FROM leaves WHERE number = 4')
if what == 'truncate':
    db.execute('DELETE FROM leaves WHERE number > ?', (last - at,))
    db.execute('DELETE FROM checkpoints WHERE size > ?', (last - at + 1,))
if what == 'excuse':
    cut = last - at + 1
    db.execute('DELETE FROM leaves WHERE number >= ?', (cut,))
    db.execute('DELETE FROM checkpoints WHERE size > ?', (cut,))
    lost = {'why': 'a backup was restored', 'leaves_before': last + 1, 'leaves_lost': at, 'epoch_before': 1}
    body = json.dumps({'leaf': cut, 'at': 1, 'entry': {'restored': lost}}, separators=(',', ':'))
    node = hashlib.sha256(b'\\0' + body.encode()).digest()
    db.execute('INSERT INTO leaves (number, body, hash) VALUES (?, ?, ?)', (cut, body, node))
db.commit()
print(middle, note, last)
";

/// A copy of the database, as whoever has the disk takes one: middle leaf, size of the last checkpoint, last leaf.
fn spoil(fort: &Fort, what: &str, at: u32) -> (PathBuf, [u64; 3]) {
    let file = fort.marker("spoilt.db");
    std::fs::copy(fort.marker("whole/towpath.db"), &file).unwrap();
    let output =
        Command::new(PYTHON).args(["-c", SPOIL]).arg(&file).args([what, &at.to_string()]).output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    (file, numbers.try_into().unwrap())
}

/// A backup beside the data folder, once every leaf of now is under a checkpoint.
fn save(fort: &Fort, name: &str) {
    fort.until("every leaf is under a checkpoint", || {
        let size = fort.get("/audit/leaves?count=0")["size"].to_string();
        let sealed = fort.get("/audit/checkpoint")["checkpoint"].as_str()?.to_owned();
        (sealed.lines().nth(1) == Some(size.as_str())).then_some(())
    });
    let made =
        fort.world.towpath(&["backup", "make", &shown(&fort.marker(name)), "--data", &shown(&fort.data())]);
    assert_eq!(made.code, 0, "{}", made.err);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn verify(fort: &Fort, file: &Path) -> Ended {
    fort.world.towpath(&["audit", "verify", "--data", &shown(file), "--keys", &shown(&fort.keys())])
}

/// The verifier does not pass it, and says where.
fn is_named(fort: &Fort, what: &str, at: u32, place: impl Fn([u64; 3]) -> String) {
    let (file, numbers) = spoil(fort, what, at);
    let found = verify(fort, &file);
    let said = format!("{}{}", found.out, found.err);
    assert_eq!(found.code, 1, "{what} {at}: {said}");
    assert!(said.contains(&place(numbers)), "{what} {at}: not `{}`: {said}", place(numbers));
}

fn h01_flip_byte(fort: &Fort) {
    save(fort, "whole");
    let (file, _) = spoil(fort, "nothing", 0);
    let whole = verify(fort, &file);
    assert_eq!(whole.code, 0, "the control: unspoilt it passes: {}{}", whole.out, whole.err);
    for at in [0, 37, 99] {
        is_named(fort, "body", at, |[middle, ..]| format!("leaf {middle}"));
        is_named(fort, "hash", at, |[middle, ..]| format!("leaf {middle}"));
        is_named(fort, "checkpoint", at, |[_, size, _]| format!("checkpoint of {size} leaves"));
    }
    is_named(fort, "key", 60, |_| "key".to_owned());
}

fn h02_delete_reorder(fort: &Fort) {
    is_named(fort, "delete", 0, |[middle, ..]| format!("leaf {middle}"));
    is_named(fort, "close up", 0, |[middle, ..]| format!("leaf {middle}"));
    is_named(fort, "swap", 0, |[middle, ..]| format!("leaf {}", middle - 2));
    is_named(fort, "duplicate", 0, |[.., last]| format!("leaf {}", last + 1));
    is_named(fort, "insert", 0, |_| "leaf 0".to_owned());
}

/// The tail and its checkpoints are gone; one that somebody kept elsewhere tells, also where a leaf in the tail's place says
/// that a restore has lost it.
fn h03_truncate(fort: &Fort) {
    for lost in [1, 5] {
        is_named(fort, "truncate", lost, |[.., last]| format!("leaf {}", last - u64::from(lost) + 1));
    }
    let place = |[.., last]: [u64; 3]| format!("leaf {}: it tells of a restore", last - 4);
    is_named(fort, "excuse", 5, place);
}

fn h11_second_server(fort: &Fort) {
    let (data, link) = (shown(&fort.data()), fort.marker("link"));
    std::os::unix::fs::symlink(&data, &link).unwrap();
    let words = |data: &str| {
        ["serve", "--data", data, "--listen", "127.0.0.1:0", "--keys", &shown(&fort.keys())]
            .map(str::to_owned)
    };
    let direct = words(&data);
    let apart = ["-r", "--fork", "--pid", "--mount-proc", TOWPATH].map(str::to_owned);
    let mut attempts = vec![(TOWPATH, direct.to_vec()), (TOWPATH, words(&shown(&link)).to_vec())];
    // A process namespace of its own, as another container has: where the machine lets us make one.
    let can = fort.world.command("unshare").args(&apart[..4]).arg("true").output();
    if can.is_ok_and(|output| output.status.success()) {
        attempts.push(("unshare", [&apart[..], &direct[..]].concat()));
    }
    let server = fort.server_pid();
    for (program, words) in attempts {
        let refused = ended(fort.world.command(program).args(&words).output().unwrap());
        assert_eq!(refused.code, 5, "{words:?}: {}", refused.err);
        assert!(refused.err.contains("is in use by another server (process "), "{}", refused.err);
    }
    // A copy of the data is another folder, and has the same keys.
    let copy = fort.marker("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for name in ["towpath.db", "towpath.db-wal", "high-water.json"] {
        std::fs::copy(fort.data().join(name), copy.join(name)).unwrap();
    }
    let refused = ended(fort.world.command(TOWPATH).args(words(&shown(&copy))).output().unwrap());
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("the folder of the keys `"), "{}", refused.err);
    assert!(refused.err.contains("is in use by another server (process "), "{}", refused.err);
    assert_eq!((fort.server_pid(), fort.get("/me")["user"].as_str()), (server, Some("ada")));
    std::fs::remove_file(link).unwrap();
    std::fs::remove_dir_all(copy).unwrap();
}

/// Nothing of what the keys' folder holds, and no secret, is in a backup in any form.
fn h09_backup_has_no_key(fort: &Fort) {
    save(fort, "saved");
    let mut needles: Vec<(String, Vec<u8>)> = Vec::new();
    for name in ["secrets.key", "audit.key", "admin.token"] {
        needles.push((
            name.to_owned(),
            std::fs::read(fort.keys().join(name)).unwrap().trim_ascii_end().to_owned(),
        ));
    }
    for name in ["ann", "mia"] {
        needles.push((format!("the token of {name}"), fort.token(name).into()));
    }
    let search = fort.canaries.search();
    let files = files_below(&fort.marker("saved"));
    for path in files.iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(path).unwrap();
        let found =
            needles.iter().find(|(_, needle)| bytes.windows(needle.len()).any(|window| window == needle));
        assert_eq!(found.map(|(name, _)| name), None, "in {}", path.display());
        assert_eq!(search.found_in(&bytes), Default::default(), "in {}", path.display());
    }
    let database = std::fs::read(fort.marker("saved/towpath.db")).unwrap();
    assert!(
        database.windows(12).any(|window| window == b"cloud-config"),
        "the control: the search finds a name"
    );
    // Without any key it is restored all the same, and what is missing is said.
    let to = [shown(&fort.marker("elsewhere")), shown(&fort.marker("no-keys"))];
    let restored = fort.world.towpath(&[
        "backup",
        "restore",
        &shown(&fort.marker("saved")),
        "--data",
        &to[0],
        "--keys",
        &to[1],
    ]);
    assert_eq!(restored.code, 0, "{}", restored.err);
    for missing in ["audit.key, the key that signs the record", "1 secret cannot be opened"] {
        assert!(restored.out.contains(missing), "{}", restored.out);
    }
}

fn h07_restore_old(fort: &Fort) {
    let saved = fort.marker("old");
    save(fort, "old");
    let before = fort.main();
    let landed: Vec<String> =
        (0..3).map(|at| land(fort, &format!("h07-{at}"), &[("h07", &format!("{at}\n"))])).collect();
    fort.stop();
    std::fs::rename(fort.data(), fort.marker("lost")).unwrap();
    let restored = fort.world.towpath(&["backup", "restore", &shown(&saved), "--data", &shown(&fort.data())]);
    assert_eq!(restored.code, 0, "{}", restored.err);
    fort.start();
    let lost = fort.get("/restore")["restored"]["leaves_lost"].as_u64().expect("it says how many are lost");
    assert!(lost >= 9, "three landings with their runs: {lost}");
    assert_eq!(fort.main(), before);
    // Frozen: what is ready stays where it is, and says why.
    let (_, number) = fort.push("ann", "h07-after", &[("h07", "after\n")]);
    assert_eq!(fort.tested(number), "passed");
    assert_eq!(fort.approve("mia", number).status, 200);
    let halted = |change: &serde_json::Value| change["gate"]["reasons"].to_string().contains("halted");
    fort.until_change(number, "is halted", halted);
    assert_eq!((fort.main(), fort.change(number)["state"].as_str()), (before, Some("open")));
    let accept = |name: &str, lost: u64| {
        fort.ask(name, "POST", "/restore/accept", &json!({ "leaves_lost": lost })).status
    };
    assert_eq!((accept("mia", lost), accept("ada", lost + 1)), (403, 409));
    assert_eq!(accept("ada", lost), 200);
    fort.landed(number);
    assert!(fort.get("/audit/leaves?count=500").to_string().contains("restored"), "a leaf says so");
    let main = fort.in_bare(&["rev-list", "--first-parent", "refs/heads/main"]);
    assert!(landed.iter().all(|commit| !main.contains(commit)), "what was lost is not made up");
}

#[test]
fn h01_h02_h03_h07_h09_h11_the_record_shows_what_was_done_to_it() {
    let test = "h01_h02_h03_h07_h09_h11_the_record_shows_what_was_done_to_it";
    if !has_sandbox(test) || !has_python(test) {
        return;
    }
    let fort = Fort::new();
    fort.hold("H01 flip-byte", h01_flip_byte);
    fort.hold("H02 delete-reorder", h02_delete_reorder);
    fort.hold("H03 truncate", h03_truncate);
    fort.hold("H11 second-server", h11_second_server);
    fort.hold("H09 backup-has-no-key", h09_backup_has_no_key);
    fort.hold("H07 restore-old", h07_restore_old);
    fort.end();
}
