//! What the real program says of a record that somebody has written to who has no key, and of one that knows nothing of what a
//! clone has seen (T9).

use std::path::Path;
use std::process::Command;

use crate::record::Site;

/// Adds leaves to a database, behind all that are there and under no checkpoint.
const APPEND: &str = "
import hashlib, json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
first = db.execute('SELECT count(*) FROM leaves').fetchone()[0]
for leaf in range(first, first + int(sys.argv[2])):
    act = {'act': 'administered', 'by': None, 'what': 'made user 5 `mallory` an admin of the server'}
    body = json.dumps({'leaf': leaf, 'at': 1, 'entry': {'act': act}}, separators=(',', ':'))
    db.execute('INSERT INTO leaves VALUES (?, ?, ?)', (leaf, body, hashlib.sha256(b'\\0' + body.encode()).digest()))
db.commit()
";

fn append(database: &Path, leaves: u32) {
    let mut python = Command::new("python3");
    let appended = python.args(["-c", APPEND]).arg(database).arg(leaves.to_string()).output().unwrap();
    assert!(appended.status.success(), "{}", String::from_utf8_lossy(&appended.stderr));
}

/// Puts a backup in the place of the data, and serves that.
fn go_back(site: &mut Site, saved: &Path) {
    site.stop();
    std::fs::rename(site.home("data"), site.home("lost")).unwrap();
    site.ok(&["backup", "restore", saved.to_str().unwrap(), "--data", &site.data()]);
    site.start();
}

#[test]
fn leaves_that_somebody_added_to_a_backup_are_told_of_to_whoever_accepts_it() {
    let mut site = Site::new();
    site.land("1", "one");
    let saved = site.home("saved");
    let made = site.world.records(&["backup", "make", saved.to_str().unwrap(), "--data", &site.data()]);
    assert_eq!(made[0]["saved"]["leaves_unsealed"], 0, "an honest backup has none: {made:?}");
    append(&saved.join("towpath.db"), 5);
    go_back(&mut site, &saved);

    let shown = site.ok(&["backup", "show"]).out;
    assert!(shown.contains("no checkpoint covered the last 5 leaves of what is left"), "{shown}");
    let restored = &site.world.records(&["backup", "show"])[0]["restored"];
    let number = |name: &str| restored[name].as_u64().unwrap();
    assert_eq!(number("leaves_unsealed"), 5);
    let first = number("leaves_before") - number("leaves_lost") - 5;
    assert!(shown.contains(&format!("`towpath audit show --from {first}`")), "{shown}");
    let from = first.to_string();
    let looked_at = site.ok(&["audit", "show", "--from", &from, "--count", "5"]).out;
    assert_eq!(looked_at.matches("mallory").count(), 5, "{looked_at}");
    let accepted = site.ok(&["backup", "accept", "--lost", &number("leaves_lost").to_string()]).out;
    assert!(accepted.contains("no checkpoint covered the last 5 of those that are left"), "{accepted}");
    let verified = site.ok(&["audit", "verify", "--data", &site.data()]).out;
    assert!(verified.contains("no checkpoint covered the last 5 leaves before it"), "{verified}");
}

#[test]
fn a_clone_misses_a_landing_on_a_branch_of_which_the_record_knows_nothing() {
    let mut site = Site::new();
    let saved = site.home("saved");
    site.ok(&["backup", "make", saved.to_str().unwrap(), "--data", &site.data()]);
    site.land("1", "one");
    site.fetch_notes(1);
    let key = site.ok(&["audit", "key", "--data", &site.data()]).out.trim_end().to_owned();
    let verify = |site: &Site, data: &str| {
        site.world.towpath(&["audit", "verify", "--repo", ".", "--data", data, "--key", &key])
    };
    let proves = "proves its landing on web/main with leaf ";
    let unknown = verify(&site, saved.join("towpath.db").to_str().unwrap());
    assert_eq!(unknown.code, 1, "{}{}", unknown.out, unknown.err);
    let said = [proves, ", and the record does not have it"];
    assert!(said.iter().all(|said| unknown.out.contains(said)), "{}", unknown.out);

    // A restore says that it was lost.
    go_back(&mut site, &saved);
    let lost = verify(&site, &site.data());
    assert_eq!(lost.code, 0, "{}{}", lost.out, lost.err);
    let said = ["lost: the note of ", proves, "; the restore at leaf "];
    assert!(said.iter().all(|said| lost.out.contains(said)), "{}", lost.out);
}
