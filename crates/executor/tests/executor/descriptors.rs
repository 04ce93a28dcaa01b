//! Descriptors under way between processes, which the kernel counts for a user whatever namespaces its processes are in.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use towpath_blob::LogStore;
use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::{Epoch, LeaseId};
use towpath_executor::{ExecutorClient, ExecutorEvent, JobEnd, StartMessage, StartSpec};

use crate::support::{needs_root, skip, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends descriptors to itself until the kernel refuses more, first to receivers that are full: those were allowed before the
/// others are counted, and come in after.
const ATTACK: &str = "\
import array, resource, socket, threading, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
many = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 253))]
late = []
for number in range(200):
    receiver, sender = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    receiver.bind(f'\\0{number}'); sender.connect(f'\\0{number}')
    sender.setblocking(False)
    try:
        while True: sender.send(b'x')
    except BlockingIOError: sender.setblocking(True)
    threading.Thread(target=sender.sendmsg, args=([b'x'], many), daemon=True).start()
    late.append((receiver, sender))
time.sleep(2)
pairs, refused = [], 0
while refused < 3:
    pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        for _ in range(20): pairs[-1][0].sendmsg([b'x'], many)
    except OSError as error:
        refused += 1; print(error, flush=True)
for receiver, _ in late:
    receiver.recv(1)
time.sleep(2)
print('no more can be sent', flush=True)
time.sleep(1000)
";

struct Executor {
    process: Child,
    client: ExecutorClient,
    events: Receiver<JobEnd>,
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An executor of a user that nobody else is, and why there is none.
fn executor_of_a_user(data: &Path) -> Result<Executor, String> {
    let program = data.join("program");
    fs::copy(env!("CARGO_BIN_EXE_towpath-executor-process"), &program).unwrap();
    // The kernel counts for the whole machine.
    let user = (1_500_000_000 + std::process::id()).to_string();
    let owned = Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(data).status();
    assert!(owned.unwrap().success());
    let said = data.join("said");
    let process = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(&program)
        .arg("serve")
        .arg(data)
        .env("HOME", data)
        .env("PATH", "/usr/bin:/bin")
        .stderr(Stdio::from(fs::File::create(&said).unwrap()))
        .spawn();
    let mut process = process.map_err(|error| format!("setpriv(1): {error}"))?;
    let socket = data.join("executor.sock");
    wait_until("it listens or has ended", || socket.exists() || process.try_wait().unwrap().is_some());
    if !socket.exists() {
        return Err(fs::read_to_string(said).unwrap());
    }
    let (send, events) = channel();
    let hear = move |event| {
        if let ExecutorEvent::Ended(ends) = event {
            ends.into_iter().for_each(|end| drop(send.send(end)));
        }
    };
    let client = ExecutorClient::connect(&socket, (Epoch(1), None), PATIENCE, hear).unwrap();
    Ok(Executor { process, client, events })
}

fn spec(number: u8, run: &str) -> StartSpec {
    let body = JobBody { checkout: false, ..JobBody::script(run) };
    StartSpec::new(LeaseId([number; 16]), "unit".parse().unwrap(), body)
}

#[test]
fn d12_descriptors_that_a_job_has_under_way_stop_no_other_job_of_its_user() {
    let test = "d12_descriptors_that_a_job_has_under_way_stop_no_other_job_of_its_user";
    if !needs_root(test) {
        return; // Another user's count is used up, never that of whoever runs the tests.
    }
    let data = tempfile::tempdir_in("/tmp").unwrap();
    let executor = match executor_of_a_user(data.path()) {
        Ok(executor) => executor,
        Err(why) => return skip(test, &why),
    };
    let start = |spec| executor.client.start([StartMessage::new(spec).unwrap()]).unwrap();
    start(spec(1, &format!("exec /usr/bin/python3 - <<'PROGRAM'\n{ATTACK}\nPROGRAM\n")));
    let log = LogStore::open(data.path().join("logs")).unwrap().reader(&LeaseId([1; 16]));
    wait_until("the attack is under way", || {
        log.bytes(0, 1 << 20).unwrap().ends_with(b"no more can be sent\n")
    });
    let base = data.path().join("base");
    fs::create_dir(&base).unwrap();
    for number in 2..5 {
        let mut beside = spec(number, "echo made > made");
        (beside.body.checkout, beside.base) = (true, Some(base.clone()));
        beside.body.outputs.insert("made".to_owned(), "made".to_owned());
        start(beside);
        let end = executor.events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(end.result.outcome, Outcome::Passed, "{}", end.result.why);
        assert_eq!((end.lease, end.result.outputs.len()), (LeaseId([number; 16]), 1));
    }
}
