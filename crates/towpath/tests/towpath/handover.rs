//! What ends, or goes wrong, while another program takes the server's place.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use towpath_core::ids::Epoch;
use towpath_store::View;

use crate::deploying::{PLAIN, deployment, executable, gate_of, impostor, is_over, land, program};
use crate::served::Served;
use crate::support::{TOWPATH, copy_program, servants, wait_until};

/// A request that has not come whole is given up after a multiple of this.
const HELD: Duration = Duration::from_secs(2);

/// Time in which a program that may answer does so, on most machines.
const MOMENT: Duration = Duration::from_secs(3);

const SHIPS: &str = "jobs:\n  unit: { run: 'true' }\n  ship:\n    on: [land]\n    environment: live\n    \
    run: 'cp program towpath; chmod +x towpath'\n    outputs: { towpath: towpath }\n";

/// A server whose next landing deploys this program, which is a script.
fn shipping(program: &str, variables: &[(&str, &str)]) -> Served {
    let files = [("towpath.yaml", SHIPS), ("program", program)];
    let served = Served::with_options(&files, &PLAIN, variables);
    served.ok(&["deploy", "self", "live"]);
    served
}

/// The same with this very program, in another file.
fn shipping_itself() -> Served {
    let served = Served::with_options(&[("towpath.yaml", "jobs: { unit: 'true' }\n")], &PLAIN, &[]);
    let program = program(&served);
    let pipeline =
        SHIPS.replace("cp program towpath", &format!("cp {} towpath; echo >> towpath", program.display()));
    served.world.write("towpath.yaml", &pipeline);
    land(&served, "1", "pipeline");
    let shipped = deployment(&served, "live", is_over);
    assert_eq!(shipped["outcome"], "passed", "{shipped}");
    served.ok(&["deploy", "self", "live"]);
    served
}

/// A request that keeps a server from having answered everything.
fn half_a_request(served: &Served) -> impl Sized {
    let token = std::fs::read_to_string(served.world.home().join("data-keys/admin.token")).unwrap();
    let mut stream = served.call();
    let head = format!(
        "POST /api/v1/repos/web/branches/main/freeze HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
        token.trim()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Waits until a server gives way, and keeps it from being done with that until the answer is dropped.
fn until_it_drains(served: &Served) -> impl Sized {
    let (mut held, mut newest) = (vec![half_a_request(served)], Instant::now());
    wait_until("server that drains", || {
        // Each is heard out for so long and no longer.
        if newest.elapsed() > HELD {
            held.push(half_a_request(served));
            newest = Instant::now();
        }
        served.has_said("draining")
    });
    held
}

/// Has the second program tried, which finds what is prepared before the first one gives way.
fn try_second<T>(served: &Served, prepare: impl FnOnce() -> T) -> T {
    served.push("second", "second", "x\n");
    let held = until_it_drains(served);
    let prepared = prepare();
    drop(held);
    prepared
}

/// How the deployment of the second program ended.
fn second(served: &Served) -> Value {
    deployment(served, "live", |newest| newest["deployment"] == 2 && is_over(newest))
}

fn terminate(served: &Served) {
    let ended = Command::new("kill").args(["-TERM", &served.server.id().to_string()]).status();
    assert!(ended.unwrap().success());
}

fn servers(served: &Served) -> Vec<String> {
    let found = servants(served.world.folder()).into_iter();
    found.filter(|process| process.words[1] != "executor").map(|process| process.words.join(" ")).collect()
}

/// The server has ended as it was told to, and nobody serves in its place.
fn check_that_nothing_serves(served: &mut Served) {
    wait_until("end of the server", || served.server.try_wait().unwrap().is_some());
    wait_until("end of its steward", || servers(served).is_empty());
}

#[test]
fn a_server_that_is_told_to_end_while_it_gives_way_ends() {
    let mut served = shipping_itself();
    try_second(&served, || terminate(&served));
    check_that_nothing_serves(&mut served);
    // On a slow machine the word may come when the second program is tried already, which writes down that it was told.
    let trial = std::fs::read_to_string(served.world.home().join("data/server/trial.json"));
    assert!(trial.as_ref().map_or(true, |trial| trial.contains(r#""told_to_end":true"#)), "{trial:?}");
    // What was owed is owed as before.
    served.again();
    assert_eq!(deployment(&served, "live", is_over)["outcome"], "passed");
    assert_ne!(executable(served.server.id()), Path::new(TOWPATH));
}

#[test]
fn a_word_to_end_that_comes_before_the_new_program_listens_ends_it() {
    // As if somebody had sent it at the very moment.
    let mut served = shipping(&impostor(&format!("kill -TERM $$; exec {TOWPATH} \"$@\"")), &[]);
    served.push("first", "first", "x\n");
    check_that_nothing_serves(&mut served);
    assert!(served.server.try_wait().unwrap().unwrap().success());
}

#[test]
fn a_word_to_end_that_the_new_program_never_hears_brings_no_server_back() {
    let mut served = shipping(&impostor("kill -TERM $$; exec sleep 31562"), &[("TOWPATH_TRIAL_MS", "10000")]);
    served.push("first", "first", "x\n");
    check_that_nothing_serves(&mut served);
    served.again();
    let failed = deployment(&served, "live", is_over);
    assert_eq!(failed["outcome"], "failed", "{failed}");
}

/// Is there in the executor's stead for the next server that comes.
struct Stead {
    socket: PathBuf,
    listener: UnixListener,
}

impl Stead {
    fn take(served: &Served) -> Stead {
        let socket = served.world.home().join("data/executor/socket");
        std::fs::rename(&socket, socket.with_extension("aside")).unwrap();
        Stead { listener: UnixListener::bind(&socket).unwrap(), socket }
    }

    /// Waits until a server asks, which is answered once the answer is used; the executor is there again for all others.
    fn until_asked(self) -> Asked {
        let (mut stream, _) = self.listener.accept().unwrap();
        read_frame(&mut stream);
        std::fs::rename(self.socket.with_extension("aside"), &self.socket).unwrap();
        Asked(stream)
    }
}

/// A server that waits for its executor.
struct Asked(UnixStream);

impl Asked {
    fn refuse(mut self) {
        let refused = json!({ "say": "refused", "why": "it speaks another version", "epoch": 1 }).to_string();
        self.0.write_all(&u32::try_from(refused.len()).unwrap().to_le_bytes()).unwrap();
        self.0.write_all(refused.as_bytes()).unwrap();
    }
}

fn read_frame(stream: &mut UnixStream) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
}

#[test]
fn a_program_that_gets_no_executor_does_not_end_the_server() {
    let mut served = shipping_itself();
    try_second(&served, || Stead::take(&served)).until_asked().refuse();
    let failed = second(&served);
    assert_eq!(failed["outcome"], "failed", "{failed}");
    assert!(failed["why"].as_str().unwrap().contains("it speaks another version"), "{failed}");
    assert!(served.server.try_wait().unwrap().is_some(), "another process serves");
    served.ok(&["deploy", "self", "live", "--off"]);
    land(&served, "3", "third");
}

#[test]
fn a_program_that_is_told_to_end_before_it_serves_is_tried_anew() {
    let mut served = shipping_itself();
    let asked = try_second(&served, || Stead::take(&served)).until_asked();
    terminate(&served);
    check_that_nothing_serves(&mut served);
    drop(asked);
    served.again();
    let shipped = second(&served);
    assert_eq!(shipped["outcome"], "passed", "{shipped}");
    assert_ne!(executable(served.server.id()), Path::new(TOWPATH));
}

#[test]
fn a_program_that_is_told_to_end_while_it_starts_has_no_steward_that_waits_for_its_time() {
    let mut served = shipping_itself();
    let before = executable(served.server.id());
    // What it reads when it starts comes when somebody writes it.
    let key = served.world.home().join("data-keys/secrets.key");
    let bytes = std::fs::read(&key).unwrap();
    try_second(&served, || {
        std::fs::remove_file(&key).unwrap();
        assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    });
    wait_until("program that is tried", || executable(served.server.id()) != before);
    terminate(&served);
    wait_until("end of its steward", || servers(&served).len() == 1);
    assert!(served.server.try_wait().unwrap().is_none(), "it still starts");
    let (gate, written) = (key.clone(), bytes.clone());
    let writes = std::thread::spawn(move || std::fs::write(gate, written));
    wait_until("program that reads its key", || writes.is_finished());
    check_that_nothing_serves(&mut served);
    std::fs::remove_file(&key).unwrap();
    std::fs::write(&key, bytes).unwrap();
    served.again();
    let shipped = second(&served);
    assert_eq!(shipped["outcome"], "passed", "{shipped}");
}

#[test]
fn whoever_ends_a_steward_has_the_server_end_and_not_come_back() {
    let mut served = shipping_itself();
    let asked = try_second(&served, || Stead::take(&served)).until_asked();
    let stewards =
        servants(served.world.folder()).into_iter().filter(|process| process.words[1] == "steward");
    for steward in stewards {
        assert!(Command::new("kill").args(["-INT", &steward.pid]).status().unwrap().success());
    }
    asked.refuse();
    check_that_nothing_serves(&mut served);
    served.again();
    let failed = second(&served);
    assert!(failed["why"].as_str().unwrap().contains("it speaks another version"), "{failed}");
}

/// The newest epoch in which something was decided.
fn newest_turn(served: &Served) -> Option<Epoch> {
    let view = View::open_copy(&served.world.home().join("data/towpath.db")).unwrap();
    let heads = view.open_cells().unwrap().into_iter().map(|cell| view.cell(&cell).unwrap().head);
    heads.flatten().map(|head| head.epoch).max()
}

#[test]
fn a_program_that_cannot_be_confirmed_has_answered_nobody_and_handed_out_nothing() {
    let mut served = shipping_itself();
    // Where it has to write first that it serves, it waits until somebody reads, and fails then.
    let record = served.world.home().join("data/server/serving.json.new");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&record).status().unwrap().success());
    let (before, turned) = (executable(served.server.id()), newest_turn(&served));
    served.push("second", "second", "x\n");
    wait_until("program that is tried", || executable(served.server.id()) != before);
    let mut asks = served.call();
    asks.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    asks.set_read_timeout(Some(MOMENT)).unwrap();
    let early = asks.read(&mut [0; 1]);
    assert!(early.is_err(), "it was answered by a program that may have to go: {early:?}");
    assert_eq!(newest_turn(&served), turned, "and handed something out");
    std::fs::read(&record).unwrap();
    let failed = second(&served);
    let why = failed["why"].as_str().unwrap();
    assert!(failed["outcome"] == "failed" && why.contains("confirm that this program serves"), "{failed}");
    assert!(served.server.try_wait().unwrap().is_some(), "another process serves");
    asks.set_read_timeout(None).unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}

#[test]
fn a_program_that_dies_ends_no_server_though_that_cannot_be_remembered() {
    let served = shipping(&impostor("exit 1"), &[]);
    // Nothing can be written in its place.
    let record = served.world.home().join("data/server/failed.json.new");
    std::fs::create_dir_all(&record).unwrap();
    served.push("first", "first", "x\n");
    wait_until("server that goes on", || served.has_said("the server goes on, and tries it again"));
    // It is tried again until that is on the disk.
    std::fs::remove_dir(&record).unwrap();
    let failed = deployment(&served, "live", is_over);
    assert!(failed["why"].as_str().unwrap().contains("ended before it served"), "{failed}");
}

#[test]
fn a_deployment_does_not_hang_where_the_installed_file_was_replaced_while_the_server_runs() {
    let mut served = shipping(&impostor("exit 1"), &[]);
    served.terminate();
    let installed = gate_of(&served, "installed");
    let fresh = installed.with_extension("new");
    copy_program(&installed);
    served.again_from(installed.to_str().unwrap());
    copy_program(&fresh);
    std::fs::rename(&fresh, &installed).unwrap();
    land(&served, "1", "first");
    let failed = deployment(&served, "live", is_over);
    assert!(failed["why"].as_str().unwrap().contains("it ended before it served"), "{failed}");
    // The program before is the one that ran, and not the one that has its name by now.
    let serves =
        servants(served.world.folder()).into_iter().find(|process| process.words[1] == "serve").unwrap();
    let shown = executable(serves.pid.parse().unwrap());
    assert!(shown.to_str().unwrap().ends_with(" (deleted)"), "{shown:?}");
}
