//! Runs, logs and artifacts of a job that was really run.

use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use towpath_core::cell::CellId;
use towpath_core::pool::PoolEvent;
use towpath_core::turn::Intake;
use towpath_server::engine::{AnyIntake, Batch};
use towpath_store::{Load, Tx, WriteError, Writer};

use crate::client::{Ask, Got};
use crate::units::refuse;
use crate::world::World;

const JOB: &str = "/api/v1/repos/demo/runs/main/1/jobs/unit";

/// A world whose first run is over.
pub fn after_a_run() -> World {
    let world = World::with_jobs();
    world.until(|world| {
        let run = world.ada(Ask::get("/api/v1/repos/demo/runs/main/1"));
        run.status == 200 && !run.json()["outcome"].is_null()
    });
    world
}

fn is_inert(got: &Got) {
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    assert!(got.header("content-security-policy").unwrap().ends_with("sandbox"));
    assert!(got.header("content-disposition").unwrap().starts_with("attachment; "));
}

#[test]
fn f08_html_artifact() {
    let world = after_a_run();
    let list = world.by("rae", Ask::get(&format!("{JOB}/artifacts"))).ok();
    assert_eq!((list[0]["output"].as_str(), list[0]["path"].as_str()), (Some("site"), Some("x.html")));
    let file = world.by("rae", Ask::get(&format!("{JOB}/artifacts/site/x.html")));
    is_inert(&file);
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    assert_eq!(file.body, b"<script>alert(2)</script>\n");
    let log = world.by("rae", Ask::get(&format!("{JOB}/log")));
    is_inert(&log);
    assert_eq!(log.body, b"<script>alert(1)</script>\nerror: it broke\n");
    // The same for a browser with its cookie, and nothing for others.
    let cookie = world.log_in("rae");
    let page = Ask::get("/demo/runs/main/1/jobs/unit/artifacts/site/x.html").header("cookie", &cookie);
    is_inert(&world.send(&page));
    for path in ["artifacts/site/x.html", "artifacts", "log", "first-error", "follow"] {
        assert_eq!(world.by("stranger", Ask::get(&format!("{JOB}/{path}"))).status, 404, "{path}");
    }
    for path in ["artifacts/site/y.html", "artifacts/other/x.html", "artifacts/site/..%2Fx"] {
        assert_eq!(world.by("rae", Ask::get(&format!("{JOB}/{path}"))).status, 404, "{path}");
    }
}

#[test]
fn a_run_is_shown_with_its_jobs_and_its_log_from_anywhere() {
    let world = after_a_run();
    let run = world.by("rae", Ask::get("/api/v1/repos/demo/runs/main/1")).ok();
    let job = &run["jobs"][0];
    assert_eq!((run["outcome"].as_str(), job["outcome"].as_str()), (Some("passed"), Some("passed")), "{run}");
    assert_eq!((job["name"].as_str(), job["unsandboxed"].as_bool()), (Some("unit"), Some(true)));
    assert_eq!((run["change"].as_u64(), job["attempts"].as_array().unwrap().len()), (Some(1), 1));
    let list = world.by("rae", Ask::get("/api/v1/repos/demo/runs?change=1&branch=main")).ok();
    assert_eq!((list[0]["run"].as_str(), list[0]["outcome"].as_str()), (Some("demo/main/1"), Some("passed")));
    let log = |query: &str| world.by("rae", Ask::get(&format!("{JOB}/log?{query}")));
    let second = log("from_line=1&lines=1");
    assert_eq!(second.body, b"error: it broke\n");
    assert_eq!((second.header("x-log-first-line"), second.header("x-log-lines")), (Some("1"), Some("2")));
    assert_eq!(second.header("x-log-over"), Some("1"));
    assert_eq!(log("tail=1").body, second.body);
    assert_eq!(log("from_byte=26&bytes=5").body, b"error");
    assert_eq!(log("attempt=2").status, 404);
    let error = world.by("rae", Ask::get(&format!("{JOB}/first-error"))).ok();
    assert_eq!((error["line"].as_u64(), error["lines"][1].as_str()), (Some(1), Some("error: it broke")));
}

#[test]
fn a_log_is_followed_to_its_end() {
    let world = World::with_jobs();
    world.until(|world| world.ada(Ask::get("/api/v1/repos/demo/runs/main/1")).status == 200);
    let follow = Ask::get(&format!("{JOB}/follow")).token(world.token("rae"));
    let (head, mut stream) = follow.open(world.address);
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert!(heard.contains("error: it broke"), "{heard}");
    assert!(heard.contains("event: end\ndata: 42\n"), "{heard}");
}

#[test]
fn a_log_that_is_silent_is_said_to_be_followed_until_its_reader_is_gone() {
    // Nothing runs jobs here.
    let world = World::new();
    world.until(|world| world.ada(Ask::get("/api/v1/repos/demo/runs/main/1")).status == 200);
    let (head, stream) = Ask::get(&format!("{JOB}/follow")).token(world.token("rae")).open(world.address);
    assert_eq!((head.status, world.edge.streams.count()), (200, 1));
    let mut lines = stream.lines().map(Result::unwrap);
    assert_eq!(lines.by_ref().filter(|line| line == "event: alive").take(2).count(), 2);
    drop(lines);
    wait_for("the stream's place is free", || world.edge.streams.count() == 0);
}

#[test]
fn a_server_that_stops_waits_for_no_open_stream() {
    let world = World::new();
    let (head, mut stream) = Ask::get("/api/v1/events").token(world.token("rae")).open(world.address);
    assert_eq!(head.status, 200);
    world.edge.close();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
}

#[test]
fn facts_that_come_with_a_turn_are_durable_with_it_or_not_at_all() {
    let world = World::new();
    let give = |slots: u64, refused: Option<WriteError>| {
        let (send, receive) = std::sync::mpsc::channel();
        world.shared.engine.deliver_with_turn(Batch {
            bytes: 0,
            cell: CellId::Pool,
            intakes: vec![AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots }))],
            records: Box::new(move |tx| match refused {
                Some(why) => Err(why),
                None => tx.put_setting("beside", "written"),
            }),
            done: Box::new(move |outcome| send.send(outcome).unwrap()),
        });
        receive.recv().unwrap()
    };
    let slots = || {
        let shared = &world.shared;
        world.runtime.block_on(shared.engine.pool(|live| live.state.slots())).unwrap()
    };
    let before = slots();
    let lost = WriteError::Io { why: "the disk is gone".into() };
    assert_eq!(give(77, Some(lost.clone())), Err(lost));
    assert_eq!(slots(), before, "the memory went back to what is stored");
    assert_eq!(give(78, None), Ok(()));
    assert_eq!(slots(), 78);
    let view = world.shared.store.reader().snapshot().unwrap();
    assert_eq!(view.setting("beside").unwrap().as_deref(), Some("written"));
}

#[test]
fn what_is_refused_with_the_pool_keeps_no_run_from_its_end() {
    let world = World::with_jobs();
    // Some of them share a transaction with what the run and the pool say to each other.
    (0..5).for_each(|_| refuse(&world.shared.engine));
    world.until(|world| {
        let run = world.ada(Ask::get("/api/v1/repos/demo/runs/main/1"));
        run.status == 200 && run.json()["outcome"] == "passed"
    });
    world.until(|world| {
        let view = world.shared.store.reader().snapshot().unwrap();
        view.cell(&CellId::Pool).unwrap().inbox.is_empty()
    });
}

/// Has the disk refuse every group of writes from here on, until it is told to stop: each refusal is in the queue again
/// before the next group is taken.
fn refuse_writes(world: &World) -> Arc<AtomicBool> {
    fn refuse(writer: Writer, refusing: Arc<AtomicBool>) {
        let again = writer.clone();
        let work =
            |_: &mut Tx<'_>| Err::<(), _>(WriteError::Io { why: "refused, as this test wants".into() });
        writer.submit(Load::default(), work, move |_| {
            if refusing.load(Ordering::SeqCst) {
                refuse(again, refusing);
            }
        });
    }
    let refusing = Arc::new(AtomicBool::new(true));
    refuse(world.shared.store.writer().clone(), refusing.clone());
    refusing
}

/// Between two looks at what nobody tells of.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for something that no cell tells of.
pub fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        std::thread::park_timeout(LOOK);
    }
}

/// Sends the world's executor a signal.
fn signal_executor(world: &World, signal: &str) {
    let socket = world.folder.path().join("data/executor/socket").display().to_string();
    let is_ours = |pid: &String| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        words.any(|word| word == b"executor") && words.any(|word| word == socket.as_bytes())
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let executor = pids.filter_map(|entry| entry.file_name().into_string().ok()).find(is_ours).unwrap();
    assert!(std::process::Command::new("kill").args([signal, &executor]).status().unwrap().success());
}

#[test]
fn an_end_whose_turn_was_refused_reaches_its_run_when_that_asks_again() {
    let world = after_a_run();
    let journal = world.folder.path().join("data/executor/executor/journal");
    let lines = |kind: &str| {
        let text = std::fs::read_to_string(&journal).unwrap();
        text.lines().filter(|line| line.starts_with(kind)).count()
    };
    wait_for("the first end is acknowledged", || lines("A ") == 1);
    // The executor stands still until the second job is handed to it and the disk refuses.
    signal_executor(&world, "-STOP");
    let change = world.change(1);
    let retry = json!({ "revision": change["revision"], "failed": false });
    world.by("mia", Ask::post("/api/v1/repos/demo/changes/1/retry", retry)).ok();
    let run = || world.ada(Ask::get("/api/v1/repos/demo/runs/main/2"));
    world.until(|_| run().status == 200 && run().json()["jobs"][0]["stage"] == "running");
    let refusing = refuse_writes(&world);
    signal_executor(&world, "-CONT");
    wait_for("the end comes back from its turn", || world.shared.jobs.ends_kept() == 1);
    assert_eq!(
        (lines("A "), run().json()["outcome"].is_null()),
        (1, true),
        "what is not durable is acknowledged"
    );
    refusing.store(false, Ordering::SeqCst);
    world.until(|_| !run().json()["outcome"].is_null());
    let over = run().json();
    assert_eq!(over["outcome"], "passed", "{over}");
    assert_eq!(over["jobs"][0]["attempts"].as_array().unwrap().len(), 1, "{over}");
    wait_for("the second end is acknowledged", || lines("A ") == 2);
    assert_eq!((lines("S "), world.shared.jobs.ends_kept()), (2, 0), "the job ran once");
}
