//! The executor as a process: servers come and go, it stays; it dies, and nothing is lost.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::{Epoch, LeaseId};
use towpath_executor::protocol::{Leases, StopMode};
use towpath_executor::{
    ConnectError, ExecutorClient, ExecutorEvent, GrantedSecret, JobEnd, StartMessage, StartSpec,
    start_executor,
};

use crate::support::{long_time, processes_with, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

struct Process {
    data: tempfile::TempDir,
    child: Child,
}

struct Connected {
    client: ExecutorClient,
    events: Receiver<ExecutorEvent>,
}

fn command(data: &Path) -> Vec<std::ffi::OsString> {
    command_with(data, &["--sandbox", "none"])
}

fn command_with(data: &Path, options: &[&str]) -> Vec<std::ffi::OsString> {
    let program = env!("CARGO_BIN_EXE_towpath-executor-process");
    let mut command: Vec<std::ffi::OsString> = vec![program.into(), "serve".into(), data.into()];
    command.extend(options.iter().map(Into::into));
    command
}

fn start(data: &Path) -> Child {
    start_as(data, &command(data))
}

fn start_as(data: &Path, command: &[std::ffi::OsString]) -> Child {
    let log = std::fs::File::create(data.join("executor.log")).unwrap();
    start_executor(command, log).unwrap()
}

impl Process {
    fn new() -> Process {
        let data = tempfile::tempdir().unwrap();
        let child = start(data.path());
        Process { data, child }
    }

    fn socket(&self) -> PathBuf {
        self.data.path().join("executor.sock")
    }

    /// An executor that ends soon when it is alone, and the server that came before it did.
    fn hurried(option: &str) -> (Process, Connected) {
        let data = tempfile::tempdir().unwrap();
        let command = command_with(data.path(), &["--sandbox", "none", option, "1000"]);
        let mut process = Process { child: start_as(data.path(), &command), data };
        let began = Instant::now();
        loop {
            match process.connect_within(Duration::from_secs(1), (1, None)) {
                Ok(connected) => return (process, connected),
                Err(error) => assert!(began.elapsed() < PATIENCE, "never in time: {error}"),
            }
            process.kill();
            process.child = start_as(process.data.path(), &command);
        }
    }

    fn try_connect(&self, epoch: u64, known: Option<Vec<LeaseId>>) -> Result<Connected, ConnectError> {
        self.connect_within(PATIENCE, (epoch, known))
    }

    fn connect_within(
        &self,
        patience: Duration,
        (epoch, known): (u64, Option<Vec<LeaseId>>),
    ) -> Result<Connected, ConnectError> {
        let (send, events) = channel();
        let hear = move |event| match event {
            ExecutorEvent::Ended(ends) => ends.into_iter().for_each(|end| {
                let _ = send.send(ExecutorEvent::Ended(vec![end]));
            }),
            event => drop(send.send(event)),
        };
        let client = ExecutorClient::connect(&self.socket(), (Epoch(epoch), known), patience, hear)?;
        Ok(Connected { client, events })
    }

    fn connect(&self, epoch: u64) -> Connected {
        self.try_connect(epoch, None).unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Connected {
    fn start(&self, specs: impl IntoIterator<Item = StartSpec>) {
        let jobs = specs.into_iter().map(|spec| StartMessage::new(spec).unwrap());
        self.client.start(jobs).unwrap();
    }

    fn next(&self) -> ExecutorEvent {
        self.events.recv_timeout(PATIENCE).expect("the executor says something in time")
    }

    fn next_end(&self) -> JobEnd {
        loop {
            match self.next() {
                ExecutorEvent::Ended(mut ends) => return ends.remove(0),
                ExecutorEvent::Gone(why) => panic!("gone: {why}"),
                _ => {}
            }
        }
    }

    fn started(&self) -> LeaseId {
        loop {
            if let ExecutorEvent::Started(lease) = self.next() {
                return lease;
            }
        }
    }

    fn leases(&self) -> Leases {
        self.client.list().unwrap();
        loop {
            if let ExecutorEvent::Leases(leases) = self.next() {
                return leases;
            }
        }
    }
}

fn spec(number: u8, run: &str) -> StartSpec {
    let body = JobBody { checkout: false, ..JobBody::script(run) };
    StartSpec::new(LeaseId([number; 16]), "unit".parse().unwrap(), body)
}

#[test]
fn an_end_is_told_until_it_is_acknowledged() {
    let process = Process::new();
    let first = process.connect(1);
    first.start([spec(1, "exit 3")]);
    let end = first.next_end();
    assert_eq!((end.result.outcome, end.result.exit_code), (Outcome::Failed, Some(3)));
    assert!(end.result.unsandboxed);
    drop(first);
    let second = process.connect(2);
    assert_eq!(second.client.welcome().leases.unacked, [end.lease]);
    assert_eq!(second.next_end(), end);
    second.start([spec(1, "exit 3")]);
    assert_eq!(second.next_end(), end, "a start of a lease that is over tells its end");
    second.client.ack(vec![end.lease]).unwrap();
    assert_eq!(second.leases(), Leases::default());
    second.start([spec(1, "exit 3"), spec(2, "true")]);
    let again = second.next_end();
    assert_eq!((again.lease, again.result.outcome), (end.lease, Outcome::Errored));
    assert_eq!(again.result.why, "its end was acknowledged before", "it never starts again, and says so");
    assert_eq!(second.next_end().lease, LeaseId([2; 16]));
}

#[test]
fn the_higher_epoch_has_the_executor() {
    let process = Process::new();
    let old = process.connect(5);
    old.start([spec(1, "sleep 1000")]);
    old.started();
    let new = process.connect(6);
    assert!(matches!(old.next(), ExecutorEvent::Gone(_)));
    assert_eq!(new.client.welcome().leases.active, [LeaseId([1; 16])]);
    match process.try_connect(5, None) {
        Err(ConnectError::Refused { epoch, .. }) => assert_eq!(epoch, Epoch(6)),
        other => panic!("a lower epoch gets {:?}", other.map(|connected| connected.client)),
    }
    new.client.cancel(LeaseId([1; 16])).unwrap();
    assert_eq!(new.next_end().result.outcome, Outcome::Cancelled);
}

#[test]
fn unknown_leases_die_at_a_takeover() {
    let process = Process::new();
    let first = process.connect(1);
    let time = long_time();
    first.start([spec(1, "sleep 1000"), spec(2, &format!("sleep {time}"))]);
    first.started();
    first.started();
    drop(first);
    let second = process.try_connect(2, Some(vec![LeaseId([1; 16])])).unwrap();
    let end = second.next_end();
    assert_eq!((end.lease, end.result.outcome), (LeaseId([2; 16]), Outcome::Cancelled));
    assert_eq!(second.leases().active, [LeaseId([1; 16])]);
    assert_eq!(processes_with(&time), Vec::<String>::new());
}

#[test]
fn jobs_of_a_killed_executor_are_errored_and_gone() {
    let mut process = Process::new();
    let first = process.connect(1);
    let time = long_time();
    first.start([spec(1, &format!("sleep {time}")), spec(2, "true")]);
    assert_eq!(first.next_end().lease, LeaseId([2; 16]));
    process.kill();
    assert!(matches!(first.next(), ExecutorEvent::Gone(_)));
    process.child = start(process.data.path());
    let second = process.connect(2);
    assert_ne!(second.client.welcome().incarnation, first.client.welcome().incarnation);
    let mut ends = [second.next_end(), second.next_end()];
    ends.sort_by_key(|end| end.lease);
    assert_eq!(ends[0].result.outcome, Outcome::Errored);
    assert_eq!(ends[0].result.why, "the executor died while the job ran");
    assert_eq!(ends[1].result.outcome, Outcome::Passed);
    wait_until("the job is gone", || processes_with(&time).is_empty());
    match process.try_connect(1, None) {
        Err(ConnectError::Refused { .. }) => {}
        other => panic!("the epoch is forgotten: {:?}", other.map(|connected| connected.client)),
    }
}

#[test]
fn a_killed_executors_jobs_are_found_whatever_they_did_to_their_variables_and_nobody_else_is() {
    let mut process = Process::new();
    let first = process.connect(1);
    let times = [(); 2].map(|()| long_time());
    let [bare, homeless] = &times;
    let homeless = format!("HOME=/ exec sleep {homeless}");
    first.start([spec(1, &format!("exec env -i /bin/sleep {bare}")), spec(2, &homeless)]);
    let runs = |time: &String| processes_with(time).iter().any(|line| !line.contains("exec"));
    wait_until("both jobs are what they become", || times.iter().all(runs));
    let looked_into = process.data.path().join("executor/jobs/looked-into");
    std::fs::create_dir_all(&looked_into).unwrap();
    let mut looking = std::process::Command::new("setsid");
    // These tests may themselves run as a job, whose variables it would be known by.
    looking.args(["sleep", "1000"]).current_dir(&looked_into).env_remove("TOWPATH_JOB");
    let looking = looking.spawn().unwrap();
    let mut looking = Process { data: tempfile::tempdir().unwrap(), child: looking };
    process.kill();
    process.child = start(process.data.path());
    let second = process.connect(2);
    let ends = [second.next_end(), second.next_end()];
    assert_eq!(ends.map(|end| end.result.outcome), [Outcome::Errored; 2]);
    wait_until("the jobs are gone", || times.iter().all(|time| processes_with(time).is_empty()));
    assert!(looking.child.try_wait().unwrap().is_none(), "somebody looks at what a job did");
}

/// Files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let below = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => files_below(&entry.path()),
        false => vec![entry.path()],
    };
    entries.flat_map(below).collect()
}

#[test]
fn what_a_job_without_a_sandbox_had_of_secrets_is_gone_after_any_start() {
    for options in [&["--sandbox", "none"][..], &[]] {
        let mut process = Process::new();
        let first = process.connect(1);
        let (path, time) = (process.data.path().join("path"), long_time());
        let run = format!(
            "cp \"$TOWPATH_SECRETS/token\" ~/copy; echo \"$TOWPATH_SECRETS/token\" > {0}.draft; mv {0}.draft {0}; exec sleep {time}",
            path.display()
        );
        let secret =
            GrantedSecret { name: "token".into(), value: b"tok-canary-79".to_vec().into(), variable: None };
        first.start([StartSpec { secrets: vec![secret], ..spec(1, &run) }]);
        wait_until("the job says where its secret is", || path.exists());
        let token = PathBuf::from(std::fs::read_to_string(&path).unwrap().trim());
        assert_eq!(std::fs::read(&token).unwrap(), b"tok-canary-79");
        let kept = || {
            let files =
                files_below(process.data.path()).into_iter().filter(|path| !path.ends_with("executor.sock"));
            files
                .filter(|path| std::fs::read(path).unwrap().windows(13).any(|part| part == b"tok-canary-79"))
                .collect::<Vec<_>>()
        };
        assert!(
            kept().iter().all(|path| path.ends_with("copy")),
            "only the job put it on a disk: {:?}",
            kept()
        );
        process.kill();
        std::fs::remove_file(process.socket()).unwrap();
        process.child = start_as(process.data.path(), &command_with(process.data.path(), options));
        // It listens once it has swept; where no sandbox can be it ends, swept all the same.
        let socket = process.socket();
        wait_until("it listens or has ended", || {
            socket.exists() || process.child.try_wait().unwrap().is_some()
        });
        assert!(!token.exists(), "{options:?}");
        wait_until("the job is gone", || processes_with(&time).is_empty());
        let files = files_below(process.data.path());
        assert!(!files.iter().any(|path| path.ends_with("copy")), "{options:?}: {files:?}");
    }
}

#[test]
fn one_executor_owns_a_folder() {
    let process = Process::new();
    let first = process.connect(1);
    let output = std::process::Command::new(&command(process.data.path())[0])
        .args(&command(process.data.path())[1..])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another executor owns"), "{said}");
    first.start([spec(1, "true")]);
    assert_eq!(first.next_end().result.outcome, Outcome::Passed, "the first is unharmed");
}

#[test]
fn it_stops_when_idle_and_when_told() {
    for (mode, outcome) in [(StopMode::WhenIdle, Outcome::Passed), (StopMode::Now, Outcome::Cancelled)] {
        let mut process = Process::new();
        let server = process.connect(1);
        let gate = process.data.path().join("gate");
        let run = format!("mkfifo {0}; read line < {0}", gate.display());
        server.start([spec(1, &run)]);
        server.started();
        wait_until("the job runs", || gate.exists());
        server.client.stop(mode).unwrap();
        if mode == StopMode::WhenIdle {
            std::fs::write(&gate, "go\n").unwrap();
        }
        assert_eq!(server.next_end().result.outcome, outcome);
        assert!(process.child.wait().unwrap().success());
        process.child = start(process.data.path());
        assert_eq!(process.connect(2).next_end().result.outcome, outcome, "its end was kept");
    }
}

#[test]
fn what_waits_for_a_slot_when_it_is_to_stop_does_not_begin_and_is_left_to_the_next_one() {
    let mut process = Process::new();
    let server = process.connect(1);
    let gate = process.data.path().join("gate");
    let run = format!("mkfifo {0}; read line < {0}", gate.display());
    server.start([spec(1, &run), spec(2, "sleep 1000")]);
    server.started();
    server.started();
    server.start([spec(3, "true")]);
    server.client.stop(StopMode::WhenIdle).unwrap();
    let mut active = server.leases().active;
    active.sort_unstable();
    assert_eq!(active, [LeaseId([1; 16]), LeaseId([2; 16])]);
    drop(server);
    // Whoever has it next can see that it takes nothing.
    let server = process.connect(2);
    assert!(server.client.welcome().stopping);
    wait_until("the job runs", || gate.exists());
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(server.next_end().result.outcome, Outcome::Passed);
    server.client.cancel(LeaseId([2; 16])).unwrap();
    assert_eq!(server.next_end().result.outcome, Outcome::Cancelled);
    assert!(process.child.wait().unwrap().success());
    process.child = start(process.data.path());
    let next = process.connect(3);
    let mut leases = next.client.welcome().leases.clone();
    leases.unacked.sort_unstable();
    assert_eq!((leases.active, leases.unacked), (Vec::new(), vec![LeaseId([1; 16]), LeaseId([2; 16])]));
    assert!(!next.client.welcome().stopping);
    next.start([spec(3, "true")]);
    let mut ends = [next.next_end(), next.next_end(), next.next_end()];
    ends.sort_by_key(|end| end.lease);
    assert_eq!(ends[2].result.outcome, Outcome::Passed, "{ends:?}");
}

#[test]
fn without_a_server_and_with_nothing_to_do_it_ends_by_itself_and_keeps_the_ends() {
    let (mut process, server) = Process::hurried("--alone-ms");
    // Two: whoever opens one again may meet the writer of before, and its end.
    let [gate, end] = ["gate", "end"].map(|name| process.data.path().join(name));
    let begun = process.data.path().join("begun");
    let (first, last) = (gate.display(), end.display());
    let run =
        format!("mkfifo {last} {first}; read line < {first}; touch {}; read line < {last}", begun.display());
    server.start([spec(1, &run)]);
    server.started();
    // The job keeps it, though the server is gone: only with its end there is nothing to do.
    drop(server);
    wait_until("the job runs", || gate.exists());
    std::fs::write(&gate, "go\n").unwrap();
    wait_until("the job goes on", || begun.exists());
    assert!(process.child.try_wait().unwrap().is_none(), "it lives as long as its job");
    std::fs::write(&end, "go\n").unwrap();
    assert!(process.child.wait().unwrap().success());
    assert!(!process.socket().exists(), "nobody waits for one that is gone");
    process.child = start(process.data.path());
    assert_eq!(process.connect(2).next_end().result.outcome, Outcome::Passed, "its end was kept");
}

#[test]
fn one_that_is_its_servers_waits_for_the_next_one_a_while() {
    let data = tempfile::tempdir().unwrap();
    let mortal = command_with(data.path(), &["--sandbox", "none", "--orphan-ms", "600000"]);
    let process = Process { child: start_as(data.path(), &mortal), data };
    let first = process.connect(1);
    first.start([spec(1, "sleep 1000")]);
    first.started();
    drop(first);
    let next = process.connect(2);
    assert!(next.client.welcome().ends_with_server);
    assert_eq!(next.client.welcome().leases.active, [LeaseId([1; 16])]);
}

#[test]
fn one_that_is_its_servers_ends_soon_after_it_with_its_jobs() {
    let (mut process, first) = Process::hurried("--orphan-ms");
    let time = long_time();
    first.start([spec(1, &format!("sleep {time}"))]);
    first.started();
    drop(first);
    assert!(process.child.wait().unwrap().success());
    assert_eq!(processes_with(&time), Vec::<String>::new());
    process.child = start(process.data.path());
    let server = process.connect(2);
    assert!(!server.client.welcome().ends_with_server);
    assert_eq!(server.next_end().result.outcome, Outcome::Cancelled);
}

#[test]
fn hundreds_of_jobs_in_one_message() {
    let process = Process::new();
    let server = process.connect(1);
    server.start((0..200).map(|number| spec(number, "true")));
    let mut leases: Vec<u8> = (0..200).map(|_| server.next_end().lease.0[0]).collect();
    leases.sort_unstable();
    assert_eq!(leases, (0..200).collect::<Vec<u8>>());
    server.client.ack((0..200).map(|number| LeaseId([number; 16])).collect()).unwrap();
    assert_eq!(server.leases(), Leases::default());
}
