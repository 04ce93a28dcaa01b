//! Logs that are large, or that cannot be read.

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;

use serde_json::Value;
use towpath_core::cell::{CellId, Row};
use towpath_core::ids::Timestamp;
use towpath_core::turn::WriteSet;
use towpath_store::EncodedTurn;

use crate::client::Ask;
use crate::runs::after_a_run;
use crate::world::World;

const JOBS: &str = "/api/v1/repos/demo/runs/main/1/jobs";
/// Bytes of one event of a log at most.
const EVENT_BYTES_MAX: usize = 400 << 10;

/// The file of the only log that there is.
fn only_log(world: &World) -> PathBuf {
    let inside = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all =
        inside(world.folder.path().join("data/executor/logs")).filter(|path| path.is_dir()).flat_map(inside);
    let logs: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    <[PathBuf; 1]>::try_from(logs).unwrap()[0].clone()
}

/// What following the log says, line by line, to its end.
fn followed(world: &World) -> Vec<String> {
    let (head, stream) =
        Ask::get(&format!("{JOBS}/unit/follow")).token(world.token("rae")).open(world.address);
    assert_eq!(head.status, 200);
    stream.lines().map(Result::unwrap).collect()
}

#[test]
fn a_large_log_is_followed_in_small_events() {
    let world = after_a_run();
    // In JSON each of these bytes has six.
    let log = vec![1; 1 << 20];
    fs::write(only_log(&world), &log).unwrap();
    let lines = followed(&world);
    let pieces = lines.iter().filter(|line| line.starts_with("data: {"));
    let bytes = pieces.map(|line| {
        assert!(line.len() < EVENT_BYTES_MAX, "an event has {} bytes", line.len());
        let piece: Value = serde_json::from_str(&line["data: ".len()..]).unwrap();
        piece["text"].as_str().unwrap().len()
    });
    assert_eq!(bytes.sum::<usize>(), log.len());
    assert!(lines.contains(&"event: end".to_owned()));
}

#[test]
fn whoever_follows_a_log_that_cannot_be_read_is_told_so() {
    let world = after_a_run();
    let log = only_log(&world);
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let lines = followed(&world);
    let told = lines.iter().position(|line| line == "event: error").unwrap_or_else(|| panic!("{lines:?}"));
    let error: Value = serde_json::from_str(&lines[told + 1]["data: ".len()..]).unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("the log cannot be read: "), "{message}");
    assert!(!lines[told..].iter().any(|line| line == "event: end"), "{lines:?}");
}

/// How often a stream that has nothing to tell says that it is there, before that is taken for all that it will say.
const ALIVE_MAX: usize = 12;

#[test]
fn whoever_follows_a_job_that_cannot_be_read_any_more_is_told_so() {
    let world = World::new();
    world.until(|world| world.ada(Ask::get("/api/v1/repos/demo/runs/main/1")).status == 200);
    let (head, stream) =
        Ask::get(&format!("{JOBS}/unit/follow")).token(world.token("rae")).open(world.address);
    assert_eq!(head.status, 200);
    let store = &world.shared.store;
    let spoilt = WriteSet {
        cell: CellId::Run("demo/main/1".parse().unwrap()),
        epoch: store.epoch(),
        rows: vec![Row { key: "job/0".into(), value: Some("spoilt".into()) }],
        consumed: None,
        only_if_drained: false,
        outbox: Vec::new(),
        messages: Vec::new(),
        acts: Vec::new(),
        wake_at: None,
        finished: false,
        now: Timestamp(0),
    };
    let spoilt = EncodedTurn::from(spoilt);
    store.writer().write(move |tx| tx.turn(&spoilt).map(drop)).unwrap();
    let mut alive = 0;
    let mut lines = stream.lines().map(Result::unwrap).take_while(|line| {
        alive += usize::from(line == "event: alive");
        alive < ALIVE_MAX
    });
    assert!(lines.any(|line| line == "event: error"), "it is followed for ever");
}

const CELLS: &str = "jobs:\n  \
    unit: { run: 'echo in $TOWPATH_MATRIX_K; test $TOWPATH_MATRIX_K != b', matrix: { k: [a, b] } }\n  \
    docs: { run: 'echo docs', matrix: { k: [a, b] } }\n  \
    one: { run: 'echo one', shards: 1 }\n";

#[test]
fn a_key_means_the_first_of_its_jobs_that_did_not_pass() {
    let world = World::with_pipeline(CELLS);
    world.until(|world| {
        let run = world.ada(Ask::get("/api/v1/repos/demo/runs/main/1"));
        run.status == 200 && !run.json()["outcome"].is_null()
    });
    let of_job = |rest: &str| world.by("rae", Ask::get(&format!("{JOBS}/{rest}")));
    assert_eq!(of_job("unit/log").body, b"in b\n");
    let error = of_job("unit/first-error").ok();
    assert_eq!((&error["job"], &error["lines"][0]), (&"unit[k=b]".into(), &"in b".into()), "{error}");
    assert_eq!(of_job("unit%5Bk=a%5D/log").body, b"in a\n");
    assert_eq!(of_job("unit/tests").ok()["job"], "unit[k=b]");
    assert_eq!(of_job("one/log").body, b"one\n");
    assert!(
        followed(&world).iter().any(|line| line.contains("in b") && line.contains("\"job\":\"unit[k=b]\""))
    );

    let unclear = of_job("docs/log");
    assert_eq!((unclear.status, &unclear.json()["hint"]), (400, &"name one of docs[k=a], docs[k=b]".into()));
    let run = world.by("rae", Ask::get("/api/v1/repos/demo/runs/main/1")).ok();
    assert_eq!((&run["jobs"][1]["name"], &run["jobs"][1]["key"]), (&"unit[k=b]".into(), &"unit".into()));
}
