//! Logs that are large, or that cannot be read.

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;

use serde_json::Value;

use crate::client::Ask;
use crate::runs::after_a_run;
use crate::world::World;

const FOLLOW: &str = "/api/v1/repos/demo/runs/main/1/jobs/unit/follow";
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
    let (head, stream) = Ask::get(FOLLOW).token(world.token("rae")).open(world.address);
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
