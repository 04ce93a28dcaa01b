//! P1 and P2: a durable run of one job that does nothing, from its delivery until its end is durable.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use towpath_executor::SandboxKind;

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, median, millis, percentile};
use crate::spawner::Order;
use crate::world::{World, folder, graph};
use crate::{Extent, Fault};

/// Runs for one median.
const LATENCY_RUNS: u32 = 200;
/// Runs for one rate.
const RATE_RUNS: u32 = 10_000;
/// Runs under way at any time while the rate is measured: what a busy server has.
const UNDER_WAY: u32 = 256;
/// Bytes that the floor writes before each of its two syncs: about what the transactions of such a run write.
const FLOOR_BYTES: usize = 16 << 10;

/// P1: the middle latency of runs that come one at a time.
pub fn latency(extent: Extent) -> Result<Vec<Row>, Fault> {
    let world = World::start(SandboxKind::None)?;
    let graph = graph(1);
    let count = extent.of(LATENCY_RUNS);
    world.runs(&graph, count / 4, 1)?;
    let ours = || {
        let took: Vec<f64> = world.runs(&graph, count, 1)?.into_iter().map(millis).collect();
        eprintln!("  p99 {:.2} ms", percentile(took.clone(), 99.0));
        Ok(median(took))
    };
    let (value, peer_value) = alternate(ours, || floor(count))?;
    world.check_passed()?;
    let peer = "write and sync 16 KiB, start `true`, write and sync again";
    let figure = Figure { name: "P1-run-latency", unit: "ms", value, peer, peer_value };
    Ok(vec![figure.judged(Goal::AtMost(5.0))])
}

/// What the machine itself needs to do a thing durably between two records.
fn floor(count: u32) -> Result<f64, Fault> {
    let folder = folder()?;
    let mut file = File::create(folder.path().join("floor"))?;
    let mut took = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        record(&mut file)?;
        Order::floor(1, 1).carry_out()?;
        record(&mut file)?;
        took.push(millis(began.elapsed()));
    }
    Ok(median(took))
}

fn record(file: &mut File) -> Result<(), Fault> {
    file.write_all(&[0; FLOOR_BYTES])?;
    Ok(file.sync_data()?)
}

/// P2: runs a minute when many come at once.
pub fn rate(extent: Extent) -> Result<Vec<Row>, Fault> {
    let world = World::start(SandboxKind::None)?;
    let graph = graph(1);
    let count = extent.of(RATE_RUNS);
    let ours = || {
        let began = Instant::now();
        world.runs(&graph, count, UNDER_WAY)?;
        Ok(f64::from(count) / began.elapsed().as_secs_f64() * 60.0)
    };
    let floor = || Ok(f64::from(count) / Order::floor(count, 2).run()? * 60.0);
    let (value, peer_value) = alternate(ours, floor)?;
    world.check_passed()?;
    let peer = "posix_spawn of `true`, two at once, no record";
    let figure = Figure { name: "P2-run-rate", unit: "runs/min", value, peer, peer_value };
    Ok(vec![figure.judged(Goal::AtLeast(60_000.0))])
}
