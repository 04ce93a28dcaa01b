//! P8: what `towpath serve` costs that has nothing to do, and how soon it answers with a long past behind it.

use std::fs;
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use serde_json::Value;
use towpath_core::ids::BranchName;
use towpath_executor::SandboxKind;

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, millis};
use crate::service::{Service, init};
use crate::world::{World, folder, graph};
use crate::{Extent, Fault};

/// Runs that are stored.
const RUNS: u32 = 10_000;
/// Changes that have landed, in one repository with a gate: those of a small team in a month.
const CHANGES: u32 = 100;
/// Changes that it tests in the sandbox and lands before its memory is looked at: several for each slot.
const LAST_CHANGES: u32 = 20;
/// Runs under way at once while they are made.
const UNDER_WAY: u32 = 256;
/// How long the last changes may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks whether they have landed.
const LOOK: Duration = Duration::from_millis(250);
/// After its last job a server has nothing to do, and lets go of what it keeps for the next request within this time.
const IDLE: Duration = Duration::from_secs(45);

/// Memory of server and executor, and the time from the server's start to its first answer.
pub fn idle(extent: Extent) -> Result<Vec<Row>, Fault> {
    let (stored, empty) = (folder()?, folder()?);
    let branches = fill(stored.path(), extent)?;
    init(empty.path())?;
    let start = |folder: &Path| {
        let mut service = Service::start(folder)?;
        service.wait_until_ready()?;
        Ok(millis(service.answered_after))
    };
    let started = alternate(|| start(stored.path()), || start(empty.path()));
    for folder in [&stored, &empty] {
        World::end_executor_of(folder.path())?;
    }
    let (value, peer_value) = started?;
    let peer = "the same server with an empty folder";
    let figure = Figure { name: "P8-start", unit: "ms", value, peer, peer_value };
    let start = figure.judged(Goal::AtMost(100.0));

    let held = Held::after(stored.path(), &branches);
    World::end_executor_of(stored.path())?;
    let held = held?;
    let peer = "this measuring program, which has done nothing but ask";
    let row = |name, value, peer_value| {
        Figure { name, unit: "MiB", value, peer, peer_value }.judged(Goal::AtMost(40.0))
    };
    let own = std::process::id();
    Ok(vec![
        row("P8-memory", held.resident, resident(own)?),
        row("P8-memory-all", held.all, proportional(own)?),
        start,
    ])
}

/// What a server has behind it: a repository with this one's history, changes that landed there, and runs of its gate; and the
/// branches that wait to be opened as its last changes.
fn fill(folder: &Path, extent: Extent) -> Result<Vec<BranchName>, Fault> {
    init(folder)?;
    let (changes, last) = (extent.of(CHANGES), extent.of(LAST_CHANGES));
    let branches = World::open(folder, SandboxKind::None, 1)?.land_changes(changes, last)?;
    World::open(folder, SandboxKind::None, 1)?.runs(&graph(1), extent.of(RUNS), UNDER_WAY)?;
    Ok(branches)
}

/// MiB that a service holds with nothing to do.
struct Held {
    /// Server and executor, each with all of its pages.
    resident: f64,
    /// These and all that they have started and keep for what comes next. A page that several of them share counts once.
    all: f64,
}

impl Held {
    /// Looks at a service that has tested and landed these branches, and rests.
    fn after(folder: &Path, branches: &[BranchName]) -> Result<Held, Fault> {
        let mut service = Service::start(folder)?;
        service.wait_until_ready()?;
        for branch in branches {
            service.tell(&["change", "open", branch.as_str(), "--repo", "bench"])?;
        }
        let began = Instant::now();
        while open_changes(&service)? > 0 {
            if began.elapsed() > PATIENCE {
                return Err("its last changes do not land".into());
            }
            park_timeout(LOOK);
        }
        park_timeout(IDLE);
        let family = family(service.pid())?;
        let executor = family.iter().find(|pid| is_executor(**pid)).ok_or("the server has no executor")?;
        let held = Held {
            resident: resident(service.pid())? + resident(*executor)?,
            all: family.iter().map(|pid| proportional(*pid)).sum::<Result<f64, Fault>>()?,
        };
        Ok(held)
    }
}

fn open_changes(service: &Service) -> Result<usize, Fault> {
    let listed = service.tell(&["change", "list", "--repo", "bench", "--json"])?;
    let changes = listed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    Ok(changes.len())
}

/// A process and all that descend from it: the executor is the server's child, its launchers are the executor's.
fn family(pid: u32) -> Result<Vec<u32>, Fault> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may have ended since.
            let listed = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            all.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    Ok(all)
}

fn is_executor(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).nth(1) == Some(b"executor")
}

/// MiB of memory that a process holds.
fn resident(pid: u32) -> Result<f64, Fault> {
    mib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The same, but of a page that several processes hold only its part.
fn proportional(pid: u32) -> Result<f64, Fault> {
    mib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn mib(path: &str, name: &str) -> Result<f64, Fault> {
    let figures = fs::read_to_string(path)?;
    let line = figures.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or(format!("no {name} in {path}"))?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
