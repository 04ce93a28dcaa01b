//! Full disks, refused writes, second servers, floods (attack H11, fault F2, invariant I15).

use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use towpath_core::cell::CellId;
use towpath_core::pool::PoolEvent;
use towpath_core::turn::Intake;
use towpath_store::{BODY_BYTES_MAX, Delivery, Load, Purpose, Store, Tx, WriteError};

use crate::audit::{add, seal};
use crate::cells::{commit, deliver};
use crate::children::{child, numbered};
use crate::subject::{NOW, Place, act, gate};

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn h11_a_second_server_is_refused_from_another_process_and_pid_namespace() {
    let place = Place::new();
    let store = place.open();
    let refused =
        |text: &str| text.contains(&format!("in use by another server (process {})", std::process::id()));
    let text = said(&mut child("opens", &place));
    assert!(refused(&text), "{text}");

    let can_unshare =
        Command::new("unshare").args(["-pf", "true"]).output().is_ok_and(|run| run.status.success());
    if can_unshare {
        let inner = child("opens", &place);
        let mut outer = Command::new("unshare");
        outer.arg("-pf").arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let text = said(&mut outer);
        assert!(refused(&text), "{text}");
    }
    // The first one is unharmed, and the folder is free after it.
    commit(&store, numbered(0, 10, &store)).unwrap();
    store.close();
    let text = said(&mut child("opens", &place));
    assert!(text.contains("opened"), "{text}");
}

fn with_limit(bytes: u64) -> (Place, Store) {
    let mut place = Place::new();
    place.database_bytes_max = Some(bytes);
    let store = place.open();
    (place, store)
}

/// Writes turns until one is refused; returns how many were accepted.
fn fill(store: &Store) -> u64 {
    for number in 0.. {
        match commit(store, numbered(number, 20_000, store)) {
            Ok(_) => {}
            Err(WriteError::Full) => return number,
            Err(why) => panic!("{why:?}"),
        }
    }
    unreachable!("the limit is reached")
}

fn reserve_unit<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
) -> Result<T, WriteError> {
    let (send, receive) = mpsc::channel();
    let load = Load { purpose: Purpose::Reserve, ..Load::default() };
    store.writer().submit(load, work, move |outcome| send.send(outcome).unwrap());
    receive.recv().unwrap()
}

#[test]
fn a_full_database_refuses_typed_keeps_auditing_and_recovers() {
    let (place, store) = with_limit(2 << 20);
    let accepted = fill(&store);
    assert!(accepted > 10 && store.writer().health().full);
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.cell(&gate()).unwrap().rows.len() as u64, 2 * accepted);
    assert_eq!(view.leaf_count().unwrap(), accepted);
    drop(view);
    assert_eq!(commit(&store, numbered(accepted, 1, &store)), Err(WriteError::Full));

    let leaf = reserve_unit(&store, |tx| Ok(tx.act(&act("frozen: the disk is full"), NOW))).unwrap();
    assert_eq!(leaf, accepted);

    reserve_unit(&store, |tx| {
        let rows = (0..40).flat_map(|number| ["a", "b"].map(|table| format!("{table}/{number:08}")));
        let rows = rows.map(|key| crate::subject::row(&key, None)).collect();
        let epoch = tx.cell_head(&gate())?.unwrap().epoch;
        let write = crate::subject::write_set(&gate(), epoch);
        tx.turn(&towpath_core::turn::WriteSet { rows, ..write }.into())
    })
    .unwrap();
    let begun = Instant::now();
    while store.writer().health().full {
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not notice that there is room");
        std::thread::yield_now();
    }
    commit(&store, numbered(0, 1, &store)).unwrap();
    store.close();
    place.open().reader().snapshot().unwrap().check_file().unwrap();
}

#[test]
fn a_group_that_meets_a_full_database_is_lost_as_a_whole() {
    let (_place, store) = with_limit(2 << 20);
    let (send, receive) = mpsc::channel();
    let count = 200;
    for number in 0..count {
        let send = send.clone();
        let done = move |outcome: Result<_, _>| send.send(outcome.map(|_| number)).unwrap();
        store.writer().commit(numbered(number, 20_000, &store), done);
    }
    drop(send);
    let outcomes: Vec<_> = receive.iter().collect();
    let accepted = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!(accepted < count as usize);
    assert!(outcomes[accepted..].iter().all(|outcome| *outcome == Err(WriteError::Full)));
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.cell(&gate()).unwrap().rows.len(), 2 * accepted);
    assert_eq!(view.leaf_count().unwrap() as usize, accepted);
}

#[test]
fn a_write_that_the_system_refuses_is_typed_and_leaves_nothing_behind() {
    let place = Place::on_disk();
    let inner = child("writes_until_it_is_refused", &place);
    // Files of the child end at 4 MiB; the signal that goes with it is ignored, as a server does.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$@\"", "sh"]);
    limited.arg(inner.get_program()).args(inner.get_args());
    limited.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let text = said(&mut limited);
    assert!(text.contains("refused: io"), "{text}");
    let acknowledged = text.matches("ack ").count();
    assert!(acknowledged > 10, "{text}");
    let store = place.open();
    let view = store.reader().snapshot().unwrap();
    view.check_file().unwrap();
    assert_eq!(view.cell(&gate()).unwrap().rows.len(), 2 * acknowledged);
    assert_eq!(view.leaf_count().unwrap(), acknowledged as u64);
}

#[test]
fn a_flood_is_refused_and_what_was_taken_is_kept() {
    let place = Place::new();
    let store = place.open();
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    store.writer().submit(
        Load::default(),
        move |_| {
            entered.send(()).unwrap();
            // Ends when the test lets go.
            Ok(held.recv().is_ok())
        },
        |outcome| assert!(outcome.is_ok()),
    );
    inside.recv().unwrap();
    let (send, receive) = mpsc::channel();
    const FLOOD: usize = 70_000;
    for _ in 0..FLOOD {
        let send = send.clone();
        store.writer().submit(Load::default(), |_| Ok(()), move |outcome| send.send(outcome).unwrap());
    }
    // Audit and shutdown still find a place.
    let last = send.clone();
    let load = Load { purpose: Purpose::Reserve, ..Load::default() };
    store.writer().submit(load, |_| Ok(()), move |outcome| last.send(outcome).unwrap());
    release.send(()).unwrap();
    drop(send);
    let outcomes: Vec<_> = receive.iter().collect();
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((outcomes.len(), taken), (FLOOD + 1, 65_536 + 1));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(WriteError::Busy))));
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    let place = Place::new();
    let store = place.open();
    let why = "x".repeat(BODY_BYTES_MAX);
    let small = Delivery::new(&CellId::Pool, NOW, &Intake::Event(PoolEvent::Capacity { slots: 1 }));
    let large = Delivery::new(&CellId::Pool, NOW, &Intake::Event(why));
    let refused = deliver(&store, vec![small, large]);
    assert!(matches!(refused, Err(WriteError::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.reader().snapshot().unwrap().cell(&CellId::Pool).unwrap().inbox, []);
}

#[test]
fn a_disk_that_does_not_confirm_stops_landing_until_a_restart() {
    let place = Place::new();
    let store = place.open();
    commit(&store, numbered(0, 10, &store)).unwrap();
    // What the library's own error becomes; a real one cannot be had without a broken disk.
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
    let error = WriteError::from(rusqlite::Error::SqliteFailure(code, None));
    let turn = numbered(1, 10, &store).into();
    let failed = store.writer().write(move |tx| tx.turn(&turn).and(Err::<(), _>(error)));
    assert!(matches!(failed, Err(WriteError::Unsynced { .. })), "{failed:?}");
    assert!(store.writer().health().landing_stopped.is_some());
    // The writer goes on, nothing of the failed group is there, and the flag stays.
    commit(&store, numbered(2, 10, &store)).unwrap();
    assert!(store.writer().health().landing_stopped.is_some());
    assert_eq!(store.reader().snapshot().unwrap().cell(&gate()).unwrap().rows.len(), 4);
    store.close();
    assert_eq!(place.open().writer().health().landing_stopped, None);
}

#[test]
fn every_read_connection_can_be_lent_and_comes_back() {
    let place = Place::new();
    let store = place.open();
    let lent: Vec<_> = (0..8).map(|_| store.reader().snapshot().unwrap()).collect();
    let reader = store.reader().clone();
    let waiting = std::thread::spawn(move || reader.snapshot().map(|view| view.leaf_count()));
    drop(lent);
    assert_eq!(waiting.join().unwrap(), Ok(Ok(0)));
}

#[test]
fn a_snapshot_does_not_see_what_comes_after_it() {
    let place = Place::new();
    let store = place.open();
    commit(&store, numbered(0, 10, &store)).unwrap();
    let before = store.reader().snapshot().unwrap();
    assert_eq!(before.leaf_count().unwrap(), 1);
    commit(&store, numbered(1, 10, &store)).unwrap();
    assert_eq!(before.leaf_count().unwrap(), 1);
    assert_eq!(store.reader().snapshot().unwrap().leaf_count().unwrap(), 2);
}

/// What a child says whose folder is a small disk of its own, in namespaces that end with it; `None`: there are none here, as
/// in a sandbox within a sandbox.
fn on_a_small_disk(name: &str) -> Option<String> {
    let place = Place::new();
    let inner = child(name, &place);
    let mut own = Command::new("unshare");
    own.args(["-rm", "sh", "-c", "mount -t tmpfs -o size=64m,mode=700 none \"$0\" || exit 77; exec \"$@\""]);
    own.arg(place.base.path()).arg(inner.get_program()).args(inner.get_args());
    own.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = own.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && !text.contains("running 1 test") {
        return None;
    }
    assert!(output.status.success(), "{text}");
    Some(text)
}

#[test]
fn a_full_disk_still_takes_audit_shutdown_and_a_restart() {
    match on_a_small_disk("fills_its_disk") {
        Some(text) => {
            let said = ["refused: Full full=true", "reopened: full=true"];
            assert!(said.iter().all(|said| text.contains(said)), "{text}");
        }
        // The limit of the database stands in for the disk's.
        None => a_full_database_refuses_typed_keeps_auditing_and_recovers(),
    }
}

#[test]
fn a_full_disk_still_takes_a_restore_and_its_leaf() {
    match on_a_small_disk("restores_on_its_full_disk") {
        Some(text) => assert!(text.contains("restored with 24 pages of room"), "{text}"),
        None => {
            println!("SKIP a_full_disk_still_takes_a_restore_and_its_leaf: no namespaces can be made here")
        }
    }
}

#[test]
fn a_checkpoint_that_is_not_outside_is_for_nobody() {
    let place = Place::new();
    let store = place.open();
    add(&store, 1);
    let outside = seal(&store);
    assert_eq!(store.writer().witnessed(), Some(outside.clone()));
    let aside = place.base.path().join("aside");
    std::fs::rename(place.sink(), &aside).unwrap();
    std::fs::create_dir(place.sink()).unwrap();
    add(&store, 1);
    let (send, receive) = mpsc::channel();
    store.writer().seal(move |outcome| send.send(outcome).unwrap());
    assert!(matches!(receive.recv().unwrap(), Err(WriteError::Unwitnessed { .. })));
    assert_eq!(store.writer().witnessed(), Some(outside));
    assert!(store.writer().health().sink_trouble.is_some());
    std::fs::remove_dir(place.sink()).unwrap();
    std::fs::rename(aside, place.sink()).unwrap();
    // It is owed, whether or not anything else happens.
    store.close();
    assert!(std::fs::read_to_string(place.sink()).unwrap().contains("\n2\n"));
    let store = place.open();
    let outside = seal(&store);
    assert_eq!((store.writer().witnessed(), outside.checkpoint.size), (Some(outside.clone()), 2));
}
