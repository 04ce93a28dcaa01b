//! P8: what a server costs that has nothing to do, and how soon it answers with a long past behind it.

use std::fs;
use std::path::Path;

use towpath_executor::SandboxKind;

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, millis};
use crate::service::Service;
use crate::world::{World, folder, graph};
use crate::{Extent, Fault};

/// Runs that are stored.
const RUNS: u32 = 10_000;
/// Runs under way at once while they are made.
const UNDER_WAY: u32 = 256;

/// Memory of server and executor, and the time from the server's start to its first answer.
pub fn idle(extent: Extent) -> Result<Vec<Row>, Fault> {
    let world = World::start(SandboxKind::None)?;
    world.runs(&graph(1), extent.of(RUNS), UNDER_WAY)?;
    let stored = world.close()?;
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

    // An executor outlives its servers: the next one starts its own, which is then its child.
    World::end_executor_of(stored.path())?;
    let mut service = Service::start(stored.path())?;
    service.wait_until_ready()?;
    let mut value = resident(service.pid())?;
    for child in children(service.pid())? {
        value += resident(child)?;
    }
    let peer = "this measuring program, which has done nothing but ask";
    let peer_value = resident(std::process::id())?;
    let figure = Figure { name: "P8-memory", unit: "MiB", value, peer, peer_value };
    drop(service);
    [stored.path(), empty.path()].into_iter().try_for_each(World::end_executor_of)?;
    Ok(vec![figure.judged(Goal::AtMost(40.0)), start])
}

/// The processes that a process has started: the server's is the executor.
fn children(pid: u32) -> Result<Vec<u32>, Fault> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let listed = fs::read_to_string(task?.path().join("children"))?;
        children.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    match children.is_empty() {
        true => Err("the server has no executor".into()),
        false => Ok(children),
    }
}

/// MiB of memory that a process holds.
fn resident(pid: u32) -> Result<f64, Fault> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no VmRSS in its status")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
