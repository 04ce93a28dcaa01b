//! Tests that are processes of their own: this binary, started again with one of the tests below and a job to do.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use towpath_core::turn::WriteSet;
use towpath_store::{Load, Options, Purpose, Store, Tx, WriteError, backup, restore_over};

use crate::subject::{NOW, Place, act, gate, row, write_set};

/// Names the base folder of a child's place. Without it the tests below have nothing to do.
const PLACE: &str = "TOWPATH_TEST_PLACE";

/// A command that runs one of the children of this module.
pub fn child(name: &str, place: &Place) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("children::{name}"), "--nocapture", "--test-threads=1"]);
    command.env(PLACE, place.base.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn options(base: &Path) -> Options {
    Options { reserve_bytes: crate::subject::RESERVE_BYTES, ..Options::new(base.join("data"), NOW) }
}

fn say(line: &str) {
    // Straight to the pipe: a line that is out is out, whatever happens next.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
}

/// Opens the folder, or says why not.
#[test]
fn opens() {
    let Some(base) = std::env::var_os(PLACE) else { return };
    match Store::open(options(Path::new(&base))) {
        Ok(_) => say("opened"),
        Err(why) => say(&format!("refused: {why}")),
    }
}

/// One turn: two rows that belong together, a leaf, and what it weighs.
pub fn numbered(number: u64, bytes: usize, store: &Store) -> WriteSet {
    let value = format!("{number} {}", "x".repeat(bytes));
    WriteSet {
        rows: vec![
            row(&format!("a/{number:08}"), Some(&value)),
            row(&format!("b/{number:08}"), Some(&value)),
        ],
        acts: vec![act(&number.to_string())],
        ..write_set(&gate(), store.epoch())
    }
}

/// Writes numbered turns for ever, several at a time, and says each number that was acknowledged.
#[test]
fn writes_until_it_is_killed() {
    let Some(base) = std::env::var_os(PLACE) else { return };
    let store = Store::open(options(Path::new(&base))).unwrap();
    let first = store.reader().snapshot().unwrap().leaf_count().unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel(16);
    for number in first.. {
        send.send(()).unwrap();
        let turn = numbered(number, (number % 50 * 100) as usize, &store).into();
        store.writer().submit(
            Load::bytes(5_000),
            move |tx| tx.turn(&turn),
            move |outcome| {
                outcome.unwrap();
                say(&format!("ack {number}"));
            },
        );
        while receive.try_recv().is_ok() {}
    }
}

/// Writes numbered turns until the system refuses, then says how it was told.
#[test]
fn writes_until_it_is_refused() {
    let Some(base) = std::env::var_os(PLACE) else { return };
    let store = Store::open(options(Path::new(&base))).unwrap();
    for number in 0..10_000 {
        let turn = numbered(number, 20_000, &store).into();
        match store.writer().write(move |tx| tx.turn(&turn)) {
            Ok(_) => say(&format!("ack {number}")),
            Err(WriteError::Io { .. }) => return say("refused: io"),
            Err(why) => return say(&format!("refused: {why:?}")),
        }
    }
}

/// Takes what is left of a disk, to the last page.
fn fill(ballast: &Path) {
    let mut file = std::fs::File::create(ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

/// Fills the disk of its folder, then shows that audit, shutdown and a restart still work on it.
#[test]
fn fills_its_disk() {
    const RESERVE: u64 = 20 << 20;
    let Some(base) = std::env::var_os(PLACE) else { return };
    let full = || Options { reserve_bytes: RESERVE, ..options(Path::new(&base)) };
    let store = Store::open(full()).unwrap();
    let mut accepted = 0;
    loop {
        let turn = numbered(accepted, 20_000, &store).into();
        match store.writer().write(move |tx| tx.turn(&turn)) {
            Ok(_) => accepted += 1,
            Err(why) => break say(&format!("refused: {why:?} full={}", store.writer().health().full)),
        }
    }
    let (send, receive) = std::sync::mpsc::channel();
    let load = Load { purpose: Purpose::Reserve, ..Load::default() };
    let work = |tx: &mut Tx<'_>| Ok(tx.act(&act("frozen: the disk is full"), NOW));
    store.writer().submit(load, work, move |outcome| send.send(outcome).unwrap());
    assert_eq!(receive.recv().unwrap(), Ok(accepted));
    store.close();
    fill(&Path::new(&base).join("ballast"));
    let store = Store::open(full()).unwrap();
    let leaves = store.reader().snapshot().unwrap().leaf_count().unwrap();
    assert_eq!(leaves, accepted + 1);
    say(&format!("reopened: full={}", store.writer().health().full));
}

/// Puts a backup in the place of its database and serves that, on a disk with room for so few pages and less.
#[test]
fn restores_on_its_full_disk() {
    const PAGE: u64 = 4096;
    let Some(base) = std::env::var_os(PLACE) else { return };
    let base = Path::new(&base);
    let [saved, aside, ballast] = ["saved.db", "aside.db", "ballast"].map(|name| base.join(name));
    for pages in 0..=24 {
        let store = Store::open(options(base)).unwrap();
        let leaves = store.reader().snapshot().unwrap().leaf_count().unwrap();
        store.close();
        backup(&base.join("data"), &saved).unwrap();
        // What an earlier one left there would make room.
        let _ = std::fs::remove_file(&aside);
        fill(&ballast);
        let file = std::fs::OpenOptions::new().write(true).open(&ballast).unwrap();
        file.set_len(file.metadata().unwrap().len() - pages * PAGE).unwrap();
        restore_over(&saved, &base.join("data"), &aside).unwrap();
        let store = Store::open(options(base)).unwrap();
        // One for each start whose disk had no room for what came after it.
        assert!(store.reader().snapshot().unwrap().leaf_count().unwrap() > leaves);
        store.close();
        std::fs::remove_file(&ballast).unwrap();
        say(&format!("restored with {pages} pages of room"));
    }
}
