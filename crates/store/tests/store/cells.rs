//! Cells: what a turn writes is what a load finds.

use std::collections::BTreeMap;
use std::sync::mpsc;

use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey};
use towpath_core::gate::HaltCause;
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::message::{Demand, Message};
use towpath_core::outbox::{Outgoing, Stage};
use towpath_core::pool::PoolEvent;
use towpath_core::run::RunEvent;
use towpath_core::turn::{Delivered, Intake, WriteSet};
use towpath_store::{Committed, Delivery, Handling, Load, Placed, Store, WriteError};

use crate::subject::{NOW, Place, act, gate, row, write_set};

pub fn commit(store: &Store, write: WriteSet) -> Result<Committed, WriteError> {
    let (send, receive) = mpsc::channel();
    store.writer().commit(write, move |outcome| send.send(outcome).unwrap());
    receive.recv().unwrap()
}

pub fn deliver(store: &Store, deliveries: Vec<Delivery>) -> Result<Vec<u64>, WriteError> {
    Ok(seqs(&place(store, deliveries)?))
}

fn place(store: &Store, deliveries: Vec<Delivery>) -> Result<Vec<Placed>, WriteError> {
    let (send, receive) = mpsc::channel();
    store.writer().deliver(deliveries, move |outcome| send.send(outcome).unwrap());
    receive.recv().unwrap()
}

pub fn seqs(places: &[Placed]) -> Vec<u64> {
    places.iter().map(|place| place.seq).collect()
}

fn slots(slots: u64) -> Delivery {
    Delivery::new(&CellId::Pool, NOW, &Intake::Event(PoolEvent::Capacity { slots }))
}

fn alert() -> Outgoing {
    let CellId::Gate(gate) = gate() else { panic!("a gate is a gate") };
    let effect = Effect::Alert { gate, text: "look".into() };
    Outgoing { effect: Some(effect), stage: Stage::Claimed { epoch: Epoch(1) }, token: 7, trouble: None }
}

#[test]
fn a_turn_is_found_again_whole() {
    let place = Place::new();
    let store = place.open();
    let key = EffectKey::once("alert", "main", 1);
    let first = WriteSet {
        rows: vec![row("a", Some("1")), row("b", Some("2")), row("c/x", Some("3"))],
        outbox: vec![(key.clone(), Some(alert()))],
        wake_at: Some(Timestamp(99)),
        ..write_set(&gate(), store.epoch())
    };
    commit(&store, first).unwrap();
    let second =
        WriteSet { rows: vec![row("a", None), row("b", Some("22"))], ..write_set(&gate(), store.epoch()) };
    commit(&store, second).unwrap();

    let cell = store.reader().snapshot().unwrap().cell(&gate()).unwrap();
    assert_eq!(cell.rows, [row("b", Some("22")), row("c/x", Some("3"))]);
    assert_eq!(cell.outbox, [(key, alert())]);
    let head = cell.head.unwrap();
    assert_eq!((head.epoch, head.wake_at, head.finished), (store.epoch(), None, false));
}

#[test]
fn messages_arrive_as_events_of_their_receiver() {
    let place = Place::new();
    let store = place.open();
    let run: CellId = "run:demo/main/3".parse().unwrap();
    let CellId::Run(id) = run.clone() else { panic!("a run is a run") };
    let demand = Demand { run: id, priority: 1, asked: 4, returned: 0 };
    let write = WriteSet {
        messages: vec![
            (run.clone(), Message::Granted { total: 2 }),
            (CellId::Pool, Message::Demand(demand.clone())),
            (run.clone(), Message::Cancel { why: "old".into() }),
        ],
        ..write_set(&gate(), store.epoch())
    };
    let committed = commit(&store, write).unwrap();
    let view = store.reader().snapshot().unwrap();
    let of_run: Vec<Delivered<RunEvent>> =
        view.inbox(&run, 0, 9).unwrap().iter().map(|entry| entry.decode().unwrap()).collect();
    let expect = [
        (committed.messages[0].seq, Intake::Event(RunEvent::Granted { total: 2 })),
        (committed.messages[2].seq, Intake::Event(RunEvent::Cancel { why: "old".into() })),
    ];
    assert_eq!(of_run.into_iter().map(|one| (one.seq, one.intake)).collect::<Vec<_>>(), expect);
    let of_pool = view.cell(&CellId::Pool).unwrap().inbox[0].decode::<PoolEvent>().unwrap();
    assert_eq!((of_pool.at, of_pool.intake), (NOW, Intake::Event(PoolEvent::Demand(demand))));
}

#[test]
fn the_first_delivery_of_a_cell_is_told_from_later_ones() {
    let place = Place::new();
    let store = place.open();
    let run: CellId = "run:demo/main/3".parse().unwrap();
    let start = || Delivery::new(&run, NOW, &Intake::Event(RunEvent::Granted { total: 1 })).opening();
    let is_first = |delivery| self::place(&store, vec![delivery]).unwrap()[0].is_first;
    // A cell is there once it had a turn; until then all that there is of it lies in its inbox.
    assert_eq!([is_first(start()), is_first(start())], [true, true]);
    commit(&store, write_set(&run, store.epoch())).unwrap();
    assert!(!is_first(start()));
    assert!(!is_first(slots(1)), "of what cannot be the first nothing is said");
}

/// Submits units as one group; their outcomes in their order. `Some(wrote)`: a turn that is refused, after or before it
/// wrote; `None`: a unit with nothing wrong.
fn as_one_group(store: &Store, units: &[Option<bool>]) -> Vec<Result<(), WriteError>> {
    let (send, receive) = mpsc::channel();
    let (hold, held) = mpsc::channel::<()>();
    // Everything that comes while this one is at work is the next group.
    let hold_the_writer = move |_: &mut towpath_store::Tx<'_>| {
        held.recv().unwrap();
        Ok(())
    };
    store.writer().submit(Load::default(), hold_the_writer, |outcome| outcome.unwrap());
    for (at, refused) in units.iter().copied().enumerate() {
        let send = send.clone();
        let load = Load::bytes(1);
        let load = if refused.is_some() { load.refused_first() } else { load };
        let work = move |tx: &mut towpath_store::Tx<'_>| -> Result<(), WriteError> {
            if refused != Some(false) {
                tx.put_setting(&format!("unit {at}"), "written")?;
                tx.act(&act("unit"), NOW);
            }
            refused.map_or(Ok(()), |_| Err(WriteError::Missing { what: "consent".into() }))
        };
        store.writer().submit(load, work, move |outcome| send.send(outcome).unwrap());
    }
    hold.send(()).unwrap();
    drop(send);
    receive.iter().collect()
}

#[test]
fn what_is_refused_after_it_wrote_undoes_its_group_once_and_the_others_may_try_again() {
    let place = Place::new();
    let store = place.open();
    let is_bug = |outcome: &Result<(), WriteError>| matches!(outcome, Err(WriteError::Bug { .. }));
    let missing = || Err(WriteError::Missing { what: "consent".into() });
    let written = || {
        let view = store.reader().snapshot().unwrap();
        let units = (0..3).filter(|at| view.setting(&format!("unit {at}")).unwrap().is_some()).count();
        (units, view.leaf_count().unwrap())
    };
    let kept_word = as_one_group(&store, &[None, Some(false), None]);
    assert_eq!(kept_word, [Ok(()), missing(), Ok(())]);
    assert_eq!(written(), (2, 2));
    let group = as_one_group(&store, &[None, Some(true), None]);
    assert!(is_bug(&group[1]), "{group:?}");
    assert_eq!((&group[0], &group[2]), (&Err(WriteError::Undone), &Err(WriteError::Undone)));
    assert_eq!(WriteError::Undone.handling(), Handling::Later);
    assert_eq!(written(), (2, 2), "nothing of the group is there, and what was there is");
    // All of them try again, together again: now only the one that is wrong is refused.
    assert_eq!(as_one_group(&store, &[None, Some(true), None]), [Ok(()), missing(), Ok(())]);
    assert_eq!(written(), (2, 4));
    store.close();
    let store = place.open();
    assert_eq!(store.reader().snapshot().unwrap().leaf_count().unwrap(), 4);
}

#[test]
fn consumed_entries_are_gone_and_numbers_never_come_back() {
    let place = Place::new();
    let store = place.open();
    let first = deliver(&store, vec![slots(1), slots(2)]).unwrap();
    let write = WriteSet { consumed: Some(first[1]), ..write_set(&CellId::Pool, store.epoch()) };
    commit(&store, write).unwrap();
    assert_eq!(store.reader().snapshot().unwrap().cell(&CellId::Pool).unwrap().inbox, []);
    store.close();
    let store = place.open();
    let later = deliver(&store, vec![slots(3)]).unwrap();
    assert!(later[0] > first[1], "{later:?} after {first:?}");
}

#[test]
fn a_claim_that_must_not_overlook_anything_is_refused_until_the_inbox_is_drained() {
    let place = Place::new();
    let store = place.open();
    let seen = deliver(&store, vec![slots(1)]).unwrap()[0];
    let unseen = deliver(&store, vec![slots(2)]).unwrap()[0];
    let claim = |consumed| WriteSet {
        consumed,
        only_if_drained: true,
        rows: vec![row("a", Some("1"))],
        ..write_set(&CellId::Pool, store.epoch())
    };
    let refused = WriteError::NotDrained { cell: "pool".into() };
    assert_eq!(commit(&store, claim(None)), Err(refused.clone()));
    assert_eq!(commit(&store, claim(Some(seen))), Err(refused));
    assert_eq!(store.reader().snapshot().unwrap().cell(&CellId::Pool).unwrap().rows, []);
    commit(&store, claim(Some(unseen))).unwrap();
}

#[test]
fn an_older_epoch_writes_nothing() {
    let place = Place::new();
    let old = place.open().epoch();
    let store = place.open();
    let by = store.epoch();
    assert!(by > old);
    let write = WriteSet {
        rows: vec![row("a", Some("1"))],
        acts: vec![act("never")],
        messages: vec![(CellId::Pool, Message::Granted { total: 1 })],
        ..write_set(&gate(), old)
    };
    assert_eq!(commit(&store, write), Err(WriteError::Fenced { what: "server".into(), by }));

    let ahead = Epoch(by.0 + 5);
    commit(&store, write_set(&gate(), ahead)).unwrap();
    let refused = commit(&store, write_set(&gate(), by));
    assert_eq!(refused, Err(WriteError::Fenced { what: "gate:demo/main".into(), by: ahead }));
    let view = store.reader().snapshot().unwrap();
    assert_eq!((view.leaf_count().unwrap(), view.cell(&gate()).unwrap().rows), (0, vec![]));
}

#[test]
fn a_server_that_was_overtaken_writes_nothing() {
    let place = Place::new();
    let store = place.open();
    let other = rusqlite::Connection::open(place.data().join("towpath.db")).unwrap();
    other.execute("UPDATE meta SET epoch = epoch + 1", []).unwrap();
    let by = Epoch(store.epoch().0 + 1);
    assert_eq!(deliver(&store, vec![slots(1)]), Err(WriteError::Fenced { what: "server".into(), by }));
}

#[test]
fn open_cells_are_those_with_work() {
    let place = Place::new();
    let store = place.open();
    let run: CellId = "run:demo/main/3".parse().unwrap();
    let done = WriteSet { finished: true, rows: vec![row("a", Some("1"))], ..write_set(&run, store.epoch()) };
    commit(&store, done.clone()).unwrap();
    commit(&store, write_set(&gate(), store.epoch())).unwrap();
    deliver(&store, vec![slots(1)]).unwrap();
    let open = |store: &Store| store.reader().snapshot().unwrap().open_cells().unwrap();
    assert_eq!(open(&store), [gate(), CellId::Pool]);

    // A late message wakes a finished cell up, so that it is consumed.
    let late = Delivery::new(&run, NOW, &Intake::Event(RunEvent::Granted { total: 1 }));
    let seq = deliver(&store, vec![late]).unwrap()[0];
    assert!(open(&store).contains(&run));
    commit(&store, WriteSet { consumed: Some(seq), ..done }).unwrap();
    assert!(!open(&store).contains(&run));

    let forgotten = run.clone();
    store.writer().write(move |tx| tx.forget_cell(&forgotten)).unwrap();
    assert_eq!(store.reader().snapshot().unwrap().cell(&run).unwrap().rows, []);
    assert!(matches!(store.writer().write(|tx| tx.forget_cell(&gate())), Err(WriteError::Missing { .. })));
}

#[test]
fn one_refused_unit_harms_no_other_of_its_group() {
    let place = Place::new();
    let store = place.open();
    let (send, receive) = mpsc::channel();
    for number in 0..50_u64 {
        let send = send.clone();
        let key = format!("n/{number}");
        let epoch = store.epoch();
        let load = Load::default();
        let work = move |tx: &mut towpath_store::Tx<'_>| {
            let write = WriteSet { rows: vec![row(&key, Some("1"))], ..write_set(&gate(), epoch) };
            tx.turn(&write.into())?;
            tx.act(&act(&key), NOW);
            match number % 3 {
                0 => Ok(number),
                1 => Err(WriteError::Missing { what: "something".into() }),
                _ => panic!("unit {number} panics, as this test wants"),
            }
        };
        store.writer().submit(load, work, move |outcome| send.send((number, outcome)).unwrap());
    }
    drop(send);
    for (at, (number, outcome)) in receive.iter().enumerate() {
        assert_eq!(number, at as u64, "answers come in the order of the units");
        match number % 3 {
            0 => assert_eq!(outcome, Ok(number)),
            1 => assert!(matches!(outcome, Err(WriteError::Missing { .. }))),
            _ => assert!(matches!(outcome, Err(WriteError::Bug { ref why }) if why.contains("panics"))),
        }
    }
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.cell(&gate()).unwrap().rows.len(), 17);
    assert_eq!(view.leaf_count().unwrap(), 17);
}

#[test]
fn time_never_goes_back_over_a_restart() {
    let place = Place::new();
    let store = place.open();
    let late = Timestamp(NOW.0 + 1_000_000);
    commit(&store, WriteSet { now: late, ..write_set(&gate(), store.epoch()) }).unwrap();
    assert_eq!(store.writer().time(NOW), late);
    store.close();
    let store = place.open();
    assert_eq!(store.writer().time(NOW), late);
    assert_eq!(store.writer().time(late.plus_seconds(1)), late.plus_seconds(1));
    assert_eq!(store.writer().time(NOW), late.plus_seconds(1));
}

#[test]
fn a_closed_store_answers_everybody() {
    let place = Place::new();
    let store = place.open();
    let writer = store.writer().clone();
    let (send, receive) = mpsc::channel();
    for _ in 0..100 {
        let send = send.clone();
        writer.deliver(vec![slots(1)], move |outcome| send.send(outcome).unwrap());
    }
    store.close();
    drop(send);
    assert_eq!(receive.iter().filter(Result::is_ok).count(), 100);
    assert_eq!(writer.write(|_| Ok(())), Err(WriteError::Closed));
}

#[test]
fn e11_h07_a_landing_is_not_claimed_while_landing_is_stopped_and_everything_else_is_written() {
    let place = Place::new();
    let store = place.open();
    let claim = |store: &Store, only_if_drained| WriteSet {
        only_if_drained,
        rows: vec![row("a", Some("1"))],
        ..write_set(&gate(), store.epoch())
    };
    commit(&store, claim(&store, true)).unwrap();
    assert_eq!(store.halts().unwrap(), BTreeMap::new());
    let (heard, hear) = mpsc::channel();
    let again = heard.clone();
    store.writer().when_landing_stops(move || heard.send("stopped").unwrap());
    store.writer().stop_landing("first");
    store.writer().stop_landing("second");
    store.writer().when_landing_stops(move || again.send("is stopped").unwrap());
    assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["stopped", "is stopped"]);
    let why = "the disk failed to confirm a write (first)".to_owned();
    assert_eq!(store.halts().unwrap(), BTreeMap::from([(HaltCause::Disk, why.clone())]));
    let refused = WriteError::Halted { cause: HaltCause::Disk, why };
    assert_eq!(commit(&store, claim(&store, true)), Err(refused));
    commit(&store, claim(&store, false)).unwrap();
    store.close();
    let store = place.open();
    commit(&store, claim(&store, true)).unwrap();
}
