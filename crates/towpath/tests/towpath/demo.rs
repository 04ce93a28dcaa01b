//! `towpath demo` by the real program: what it says, that it kills when it is told to, and that it needs no sandbox.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::pages::place::Place;
use crate::support::{Ended, TOWPATH, World, ended};

/// Every case in its order, and what becomes of it.
const OUTCOMES: [(&str, &str); 12] = [
    ("passes", "landed"),
    ("fails-a-test", "ejected"),
    ("first-to-edit", "landed"),
    ("in-conflict", "ejected"),
    ("skew-rename", "landed"),
    ("skew-caller", "ejected"),
    ("draft", "ignored"),
    ("not-authorised", "ignored"),
    ("work-in-progress", "waiting"),
    ("urgent", "landed"),
    ("skips-the-tests", "ejected"),
    ("flaky", "landed"),
];

fn check_table(demo: &Ended) {
    assert_eq!(demo.code, 0, "{}{}", demo.out, demo.err);
    let table: Vec<Value> = demo.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
    let outcomes: Vec<_> =
        table.iter().map(|change| (text(change, "case"), text(change, "outcome"))).collect();
    assert_eq!(outcomes, OUTCOMES.map(|(case, outcome)| (case.to_owned(), outcome.to_owned())));
    for (change, number) in table.iter().zip(1..) {
        let keys: BTreeSet<&str> = change.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["case", "change", "title", "outcome", "why", "commit"]), "{change}");
        assert_eq!(change["change"], number);
        assert!(!text(change, "title").is_empty() && !text(change, "why").is_empty(), "{change}");
        let has_commit = text(change, "commit").len() == 40;
        assert!(
            if change["outcome"] == "landed" { has_commit } else { change["commit"].is_null() },
            "{change}"
        );
    }
}

/// As a person at a terminal: `script` is one.
#[test]
fn at_a_terminal_the_demo_serves_until_ctrl_c() {
    let world = World::with(&[]);
    let folder = world.folder().join("demo");
    let mut script = world.command("script");
    // In the shell's place: of a signal that both get, some shells die themselves once their child has ended well.
    let line = format!("exec {TOWPATH} demo --folder {}", folder.display());
    script.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = script.spawn().unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut said = BufReader::new(terminal.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("serves until you press Ctrl-C") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended before");
    }
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    for _ in 0..3 {
        let mut page = TcpStream::connect(address).expect("it still serves");
        write!(page, "GET /login HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        page.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(terminal.try_wait().unwrap().is_none());
    }
    // Another demo would replace what this one serves.
    let second = world.towpath(&["demo", "--no-serve", "--folder", folder.to_str().unwrap()]);
    assert!(second.code == 5 && second.err.contains("another demo has it (process "), "{}", second.err);
    assert!(folder.join("data/towpath.db").exists() && TcpStream::connect(address).is_ok());
    keys.write_all(b"\x03").unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0), "the table is well: {rest}");
    assert!(TcpStream::connect(address).is_err(), "whoever has the prompt again finds nobody there: {rest}");
}

#[test]
fn the_demo_kills_its_server_in_the_middle_of_a_landing_and_carries_on() {
    let world = World::with(&[]);
    let folder = world.folder().join("demo");
    let demo =
        world.towpath(&["demo", "--kill", "--json", "--no-serve", "--folder", folder.to_str().unwrap()]);
    check_table(&demo);
    let killed =
        "the server was killed in the middle of a landing (signal: 9 (SIGKILL)); it serves again after";
    assert_eq!(demo.err.matches(killed).count(), 1, "{}", demo.err);
    let log = std::fs::read_to_string(folder.join("server.log")).unwrap();
    assert_eq!(log.matches("serving at").count(), 2, "{log}");
}

/// A machine that forbids user namespaces, which every sandbox takes; where they cannot be made at all, this one is.
fn without_sandbox(world: &World, arguments: &[&str]) -> Ended {
    let apart = ["--user", "--map-root-user"];
    let can = world.command("unshare").args(apart).arg("true").output();
    let mut command = match can.is_ok_and(|output| output.status.success()) {
        false => world.command(TOWPATH),
        true => {
            let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
            let mut command = world.command("unshare");
            command.args(apart).args(["sh", "-c", forbid, "sh", TOWPATH]);
            command
        }
    };
    ended(command.args(arguments).output().unwrap())
}

#[test]
fn where_no_sandbox_can_start_the_demo_says_so_first_marks_every_run_and_goes_on() {
    let world = World::with(&[]);
    let folder = world.folder().join("demo");
    let demo =
        without_sandbox(&world, &["demo", "--json", "--no-serve", "--folder", folder.to_str().unwrap()]);
    let first = demo.err.split("serving at ").next().unwrap();
    assert!(first.starts_with("the sandbox does not work on this machine: "), "{}", demo.err);
    assert!(first.contains("every run is marked `unsandboxed`"), "{}", demo.err);
    check_table(&demo);
    let runs = runs_of(&folder);
    assert!(runs.len() >= 9, "{runs:?}");
    assert!(runs.iter().all(|run| run["unsandboxed"] == true), "{runs:?}");
}

/// The runs of a demo that is over, as the next server on its data lists them.
fn runs_of(folder: &Path) -> Vec<Value> {
    let place = Place::serve(&folder.join("data"), &folder.join("keys"), &folder.join("token"));
    place.get("/repos/demo/runs?count=200").as_array().unwrap().clone()
}
