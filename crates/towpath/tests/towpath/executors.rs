//! The executor beside a server: which one a server takes, and what it needs of its own file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::{Epoch, LeaseId};
use towpath_executor::protocol::StopMode;
use towpath_executor::{ExecutorClient, ExecutorEvent, StartMessage, StartSpec, start_executor};

use crate::deploying::gate_of;
use crate::served::Served;
use crate::support::{copy_program, has_sandbox, servants, wait_until};

/// No test waits so long for anything, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_server_that_wants_the_sandbox_has_no_job_begun_by_an_executor_without_one() {
    if !has_sandbox("a_server_that_wants_the_sandbox_has_no_job_begun_by_an_executor_without_one") {
        return;
    }
    let mut served =
        Served::with_options(&[("towpath.yaml", "jobs: { unit: 'true' }\n")], &["--sandbox", "none"], &[]);
    let go = gate_of(&served, "go");
    let pipeline = format!(
        "jobs:\n  unit: {{ run: 'id -u' }}\n  slow:\n    on: [manual]\n    \
         run: 'echo began; until [ -e {} ]; do sleep 0.1; done; echo ended'\n",
        go.display()
    );
    served.push("first", "towpath.yaml", &pipeline);
    served.until("1", |change| change["state"] == "landed");
    served.run_job("slow");
    let newest = |served: &Served, is_manual: bool| {
        let runs = served.world.records(&["runs"]);
        runs.into_iter().find(|run| (run["trigger"] == "manual") == is_manual)
    };
    let mut slow = String::new();
    wait_until("job that has begun", || {
        let Some(run) = newest(&served, true) else { return false };
        slow = run["run"].as_str().unwrap().trim_start_matches("web/").to_owned();
        served.world.towpath(&["log", &slow, "slow"]).out == "began\n"
    });
    served.terminate();
    served.again_with(&[]);
    served.push("second", "new", "x\n");
    wait_until("run that waits", || newest(&served, false).is_some_and(|run| run["outcome"].is_null()));
    std::fs::write(&go, "").unwrap();
    served.until("2", |change| change["state"] == "landed");
    let tested = newest(&served, false).unwrap();
    assert_eq!((&tested["outcome"], &tested["unsandboxed"]), (&"passed".into(), &false.into()), "{tested}");
    let slow = newest(&served, true).unwrap();
    assert_eq!((&slow["outcome"], &slow["unsandboxed"]), (&"passed".into(), &true.into()), "{slow}");
}

#[test]
fn a_server_says_that_jobs_can_run_once_the_executor_that_it_does_not_want_is_replaced() {
    let with_slots = |slots| ["--sandbox", "none", "--slots", slots];
    let mut served =
        Served::with_options(&[("towpath.yaml", "jobs: { unit: 'true' }\n")], &with_slots("1"), &[]);
    let go = gate_of(&served, "go");
    let slow = format!("echo began; until [ -e {} ]; do sleep 0.1; done", go.display());
    let pipeline = format!("jobs:\n  unit: 'true'\n  slow: {{ on: [manual], run: '{slow}' }}\n");
    served.push("first", "towpath.yaml", &pipeline);
    served.until("1", |change| change["state"] == "landed");
    served.run_job("slow");
    wait_until("job that has begun", || {
        let runs = served.world.records(&["runs"]);
        let Some(slow) = runs.iter().find(|run| run["trigger"] == "manual") else { return false };
        let run = slow["run"].as_str().unwrap().trim_start_matches("web/");
        served.world.towpath(&["log", run, "slow"]).out == "began\n"
    });
    served.terminate();
    served.again_with(&with_slots("2"));
    assert!(!served.has_said_just("jobs can run"));
    std::fs::write(&go, "").unwrap();
    wait_until("word that jobs can run", || served.has_said_just("jobs can run"));
}

#[test]
fn jobs_find_the_tools_of_the_environment_in_which_the_server_was_started_last() {
    let options = ["--sandbox", "none"];
    let mut served = Served::with_options(&[("towpath.yaml", "jobs: { unit: 'true' }\n")], &options, &[]);
    let tools = served.world.home().join("tools");
    std::fs::create_dir(&tools).unwrap();
    std::fs::write(tools.join("greet"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tools.join("greet"), PermissionsExt::from_mode(0o755)).unwrap();
    served.push("first", "towpath.yaml", "jobs: { unit: greet }\n");
    served.until("1", |change| change["gate"]["tests"] == "failed");
    served.terminate();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    served.again_in(&[("PATH", &path)]);
    served.ok(&["change", "retry", "1"]);
    served.until("1", |change| change["state"] == "landed");
}

/// An executor of a program that is a file of its own.
fn executor_of(program: &Path, folder: &Path) -> std::process::Child {
    let words = ["executor", "--slots", "1", "--sandbox", "bubblewrap", "--folder"];
    let mut command = vec![program.as_os_str().to_owned()];
    command.extend(words.map(Into::into));
    command.extend([folder.into(), "--socket".into(), folder.join("socket").into()]);
    let log = std::fs::File::create(folder.join("executor.log")).unwrap();
    start_executor(&command, log).unwrap()
}

fn children_of(pid: u32) -> Vec<String> {
    let is_child = |process: &String| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{pid}"))
    };
    let names = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(is_child).collect()
}

#[test]
fn an_executor_whose_file_is_gone_starts_helpers_of_its_own() {
    if !has_sandbox("an_executor_whose_file_is_gone_starts_helpers_of_its_own") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (program, folder) = (place.path().join("program"), place.path().join("data"));
    std::fs::create_dir(&folder).unwrap();
    copy_program(&program);
    let mut executor = executor_of(&program, &folder);
    let (tell, ends) = channel();
    let hear = move |event| {
        if let ExecutorEvent::Ended(told) = event {
            told.into_iter().for_each(|end| drop(tell.send(end)));
        }
    };
    let client = ExecutorClient::connect(&folder.join("socket"), (Epoch(1), None), PATIENCE, hear).unwrap();
    let job = |number: u8| {
        let body = JobBody { checkout: false, ..JobBody::script("true") };
        let spec = StartSpec::new(LeaseId([number; 16]), "unit".parse().unwrap(), body);
        client.start([StartMessage::new(spec).unwrap()]).unwrap();
        ends.recv_timeout(PATIENCE).unwrap().result
    };
    assert_eq!(job(1).outcome, Outcome::Passed);
    std::fs::remove_file(&program).unwrap();
    for helper in children_of(executor.id()) {
        assert!(Command::new("kill").args(["-KILL", &helper]).status().unwrap().success());
    }
    // The first may find that its helper was killed; the next one starts another.
    let _ = job(2);
    let last = job(3);
    assert_eq!((last.outcome, last.why.as_str()), (Outcome::Passed, "exit code 0"));
    client.stop(StopMode::Now).unwrap();
    assert!(executor.wait().unwrap().success());
}

#[test]
fn what_holds_keys_and_secrets_leaves_no_core_dump() {
    let served =
        Served::with_options(&[("towpath.yaml", "jobs: { unit: 'true' }\n")], &["--sandbox", "none"], &[]);
    wait_until("server and executor", || servants(served.world.folder()).len() == 2);
    let limits = |pid: &str| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let bytes = |word: &str| word.parse::<u64>().unwrap_or(u64::MAX);
        let words: Vec<u64> = line.split_whitespace().skip(4).take(2).map(bytes).collect();
        (words[0], words[1])
    };
    for process in servants(served.world.folder()) {
        wait_until("limit of core dumps", || {
            let (now, highest) = limits(&process.pid);
            now == highest.min(1)
        });
    }
}
