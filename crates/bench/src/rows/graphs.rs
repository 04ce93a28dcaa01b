//! P3: a graph of ten thousand jobs that do nothing, with durable state and logs.

use std::fs;
use std::path::Path;

use towpath_core::graph::JobBody;
use towpath_core::ids::LeaseId;
use towpath_executor::environment::{HostVariables, JobFolders, environment};
use towpath_executor::profile::{self, HostLayout, SandboxProfile};
use towpath_executor::toolchains::Toolchains;
use towpath_executor::{ExecutorConfig, JOB_USER_FIRST, SandboxKind, StartSpec, seccomp};

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, seconds};
use crate::spawner::Order;
use crate::world::{SLOTS, World, folder, graph};
use crate::{Extent, Fault};

/// Jobs in the graph.
const JOBS: u32 = 10_000;

/// Without a sandbox, beside nothing but starting the processes.
pub fn plain(extent: Extent) -> Result<Vec<Row>, Fault> {
    let floor = Order::floor(extent.of(JOBS), SLOTS);
    let peer = "posix_spawn of `true`, two at once, no graph, no record";
    measure(extent, SandboxKind::None, &floor, Figure { name: "P3-graph-plain", peer, ..FIGURE }, 1.3)
}

/// In the sandbox, beside bubblewrap alone with the same options.
pub fn sandboxed(extent: Extent) -> Result<Vec<Row>, Fault> {
    let folder = folder()?;
    let floor = Order { count: extent.of(JOBS), ..bare_bubblewrap(folder.path())? };
    let peer = "bwrap with the same options and filter, two at once, no graph, no record";
    let figure = Figure { name: "P3-graph-sandboxed", peer, ..FIGURE };
    measure(extent, SandboxKind::Bubblewrap, &floor, figure, 1.2)
}

const FIGURE: Figure = Figure { name: "", unit: "s", value: 0.0, peer: "", peer_value: 0.0 };

fn measure(
    extent: Extent,
    sandbox: SandboxKind,
    floor: &Order,
    figure: Figure,
    goal: f64,
) -> Result<Vec<Row>, Fault> {
    let world = World::start(sandbox)?;
    let graph = graph(extent.of(JOBS));
    let (value, peer_value) = alternate(|| seconds(|| world.runs(&graph, 1, 1)), || floor.run())?;
    world.check_passed()?;
    Ok(vec![Figure { value, peer_value, ..figure }.judged(Goal::RatioAtMost(goal))])
}

/// The command line that the executor makes for such a job, with stand-ins for the folders that it binds from places
/// of its own: as many mounts, as many options.
fn bare_bubblewrap(folder: &Path) -> Result<Order, Fault> {
    let config = ExecutorConfig::in_folder(folder, Vec::new());
    let toolchains = Toolchains::discover(&config.path, |key| std::env::var(key).ok());
    let stand_in = |name: String| {
        let path = folder.join(name);
        fs::create_dir(&path).map(|()| path)
    };
    let bound = toolchains.folders.iter().enumerate();
    let bound = bound.map(|(at, target)| Ok((stand_in(format!("t{at}"))?, target.clone())));
    let bound = bound.collect::<Result<Vec<_>, Fault>>()?;
    let body = JobBody { checkout: false, ..JobBody::script("true") };
    let spec = StartSpec::new(LeaseId([1; 16]), "measured".parse()?, body);
    let variables =
        HostVariables { path: toolchains.path, toolchains: toolchains.variables, certificates: None };
    let folders = JobFolders {
        home: profile::HOME.to_owned(),
        start: profile::HOME.to_owned(),
        inputs: profile::INPUTS.to_owned(),
        secrets: profile::SECRETS.to_owned(),
    };
    let profile = SandboxProfile {
        host: &HostLayout::of_host(stand_in("etc".to_owned())?, stand_in("pts".to_owned())?, bound),
        tree: None,
        inputs: None,
        secrets: None,
        script: None,
        tmpfs_bytes: spec.limits.tmpfs_bytes.min(spec.limits.memory_bytes),
        environment: &environment(&spec, &variables, &folders),
    };
    let filter = folder.join("filter");
    fs::write(&filter, seccomp::program(false)?)?;
    let mut command = vec!["/usr/bin/bwrap".to_owned()];
    command.extend(profile.options());
    command.extend(["--", "true"].map(str::to_owned));
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        open_to_all(folder)?;
    }
    let user = is_root.then_some(JOB_USER_FIRST);
    Ok(Order { count: 0, width: SLOTS, command, user, descriptor: Some(("--seccomp".to_owned(), filter)) })
}

/// Lets the jobs' user pass.
fn open_to_all(folder: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}
