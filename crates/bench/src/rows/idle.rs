//! P8: what a server costs that has nothing to do, and how soon it answers with a long past behind it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use towpath_executor::SandboxKind;

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, millis};
use crate::service::Service;
use crate::world::{World, folder, graph};
use crate::{Extent, Fault};

/// Runs that are stored.
const RUNS: u32 = 10_000;
/// Changes that have landed, in one repository with a gate: those of a small team in a month.
const CHANGES: u32 = 100;
/// Jobs that ran in the sandbox before its memory is looked at: several in each slot.
const JOBS: u32 = 20;
/// After its last job a server has nothing to do, and lets go of what it keeps for the next request within this time.
const IDLE: Duration = Duration::from_secs(45);
/// Runs under way at once while they are made.
const UNDER_WAY: u32 = 256;

/// Memory of server and executor, and the time from the server's start to its first answer.
pub fn idle(extent: Extent) -> Result<Vec<Row>, Fault> {
    let stored = folder()?;
    fill(stored.path(), extent)?;
    let empty = folder()?;
    let start = |folder: &Path| {
        let mut service = Service::start(folder)?;
        service.wait_until_ready()?;
        Ok(millis(service.answered_after))
    };
    let (value, peer_value) = alternate(|| start(stored.path()), || start(empty.path()))?;
    let peer = "the same server with an empty folder";
    let figure = Figure { name: "P8-start", unit: "ms", value, peer, peer_value };
    let start = figure.judged(Goal::AtMost(100.0));

    let value = memory(stored.path())?;
    let peer = "this measuring program, which has done nothing but ask";
    let peer_value = resident(std::process::id())?;
    let figure = Figure { name: "P8-memory", unit: "MiB", value, peer, peer_value };
    World::end_executor_of(empty.path())?;
    Ok(vec![figure.judged(Goal::AtMost(40.0)), start])
}

/// What a server has behind it: a repository with this one's history, changes that landed there, and runs of its gate.
fn fill(folder: &Path, extent: Extent) -> Result<(), Fault> {
    World::open(folder, SandboxKind::None, 1)?.land_changes(extent.of(CHANGES))?;
    World::open(folder, SandboxKind::None, 1)?.runs(&graph(1), extent.of(RUNS), UNDER_WAY)?;
    Ok(())
}

/// MiB that a server holds with all that it has started, after each slot of its sandbox has run jobs: the executor, and
/// what that keeps for its next jobs.
fn memory(folder: &Path) -> Result<f64, Fault> {
    World::end_executor_of(folder)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["keep".as_ref(), folder.as_os_str(), JOBS.to_string().as_ref()]);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(server.stdout.take().ok_or("its output is piped")?).read_line(&mut line)?;
    let measured = match line.trim() {
        "ready" => {
            std::thread::park_timeout(IDLE);
            tree(server.id()).and_then(|all| all.into_iter().map(resident).sum())
        }
        _ => Err("the server did not become ready".into()),
    };
    drop(server.stdin.take());
    server.wait()?;
    measured
}

/// A process and all that descend from it: the executor is the server's child, its launchers are the executor's.
fn tree(pid: u32) -> Result<Vec<u32>, Fault> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let listed = fs::read_to_string(task?.path().join("children"))?;
            all.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    match all.len() {
        1 => Err("the server has no executor".into()),
        _ => Ok(all),
    }
}

/// MiB of memory that a process holds.
fn resident(pid: u32) -> Result<f64, Fault> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no VmRSS in its status")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
