//! Crashes: what was acknowledged is there, what is there is whole.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use proptest::prelude::*;
use towpath_store::{Store, View};

use crate::cells::commit;
use crate::children::{child, numbered};
use crate::subject::{Place, SUBJECT, gate};

/// Kills of one test. Each costs about a third of a second.
const KILLS: u64 = 8;

/// Asserts that exactly the turns `0..n` are there, each whole and with its leaf; returns n.
fn whole_turns(view: &View) -> u64 {
    view.check_file().unwrap();
    let leaves = view.leaves(0, usize::MAX).unwrap();
    let rows = view.cell(&gate()).unwrap().rows;
    assert_eq!(rows.len(), 2 * leaves.len());
    let (first, second) = rows.split_at(leaves.len());
    for (number, (a, b)) in first.iter().zip(second).enumerate() {
        assert_eq!((&a.key, &b.key), (&format!("a/{number:08}"), &format!("b/{number:08}")));
        assert_eq!(a.value, b.value);
        assert!(leaves[number].contains(&format!("\"what\":\"{number}\"")), "{}", leaves[number]);
    }
    leaves.len() as u64
}

#[test]
fn a_killed_server_lost_nothing_that_it_acknowledged() {
    let place = Place::on_disk();
    let mut epoch = 0;
    for kill in 0..KILLS {
        let mut writer = child("writes_until_it_is_killed", &place).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut acknowledged = None;
        // Killed after some number of acknowledgements that differs each time; more may be in the pipe.
        let wanted = 1 + kill * 37 % 101;
        let mut seen = 0;
        for line in lines {
            let Ok(line) = line else { break };
            // The harness may print on the same line before the child does.
            let Some((_, number)) = line.split_once("ack ") else { continue };
            acknowledged = Some(number.parse::<u64>().unwrap());
            seen += 1;
            if seen == wanted {
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();
        let store = place.open();
        assert!(store.epoch().0 > epoch);
        epoch = store.epoch().0;
        let turns = whole_turns(&store.reader().snapshot().unwrap());
        assert!(Some(turns) > acknowledged, "{turns} turns, but {acknowledged:?} was acknowledged");
        assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
    }
}

#[test]
fn power_lost_at_any_moment_leaves_a_whole_beginning() {
    let place = Place::new();
    let store = place.open();
    let (send, receive) = std::sync::mpsc::channel();
    for number in 0..400 {
        let send = send.clone();
        store.writer().commit(numbered(number, 500, &store), move |outcome| {
            // Nobody listens any more once enough was seen.
            let _ = send.send(outcome.map(|_| number));
        });
    }
    let mut before = 0;
    for _ in 0..10 {
        // Whatever was acknowledged before the power went must be there; more may be.
        while let Ok(acknowledged) = receive.recv_timeout(Duration::from_millis(1)) {
            before = acknowledged.unwrap() + 1;
            if before % 40 == 0 {
                break;
            }
        }
        let lost = SUBJECT.after_power_loss(&place);
        let reopened = SUBJECT.open(&lost).unwrap();
        let turns = whole_turns(&reopened.reader().snapshot().unwrap());
        assert!(turns >= before, "{turns} turns, but {before} were acknowledged");
    }
}

fn written(turns: u64) -> (Place, Store) {
    let place = Place::new();
    let store = place.open();
    (0..turns).for_each(|number| drop(commit(&store, numbered(number, 900, &store)).unwrap()));
    (place, store)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What a disk may have made of the end of the log: cut anywhere, or one byte of it wrong.
    #[test]
    fn a_log_with_a_torn_end_is_read_up_to_it(cut in 0.0..1.0_f64, flip in any::<bool>()) {
        let (place, _store) = written(12);
        let lost = SUBJECT.after_power_loss(&place);
        // Known marks would call this a rollback, which it is; here only the rows are looked at.
        let _ = std::fs::remove_file(lost.data().join("high-water.json"));
        let log = lost.data().join("towpath.db-wal");
        let mut bytes = std::fs::read(&log).unwrap();
        let at = (bytes.len() as f64 * cut) as usize;
        match flip {
            true => bytes[at] ^= 0x10,
            false => bytes.truncate(at),
        }
        std::fs::write(&log, &bytes).unwrap();
        let reopened = SUBJECT.open(&lost).unwrap();
        let turns = whole_turns(&reopened.reader().snapshot().unwrap());
        prop_assert!(turns <= 12);
    }
}
