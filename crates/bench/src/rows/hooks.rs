//! P6: webhooks over HTTP, verified and durable, each of which rings a gate's bell.

use std::thread;

use towpath_core::ids::RepoName;
use towpath_executor::SandboxKind;
use towpath_git::Repository;
use towpath_server::clock::system_time;
use towpath_server::server::Shared;
use towpath_server::settings::RepoSettings;
use towpath_store::records::{Repo, Secret};

use crate::post::{Answered, Order};
use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, median, millis};
use crate::world::{World, graph};
use crate::{Extent, Fault};

/// Bytes of a webhook. Source: GitHub's own example of a `pull_request`.
const HOOK_BYTES: usize = 21_370;
/// Webhooks for one figure at the open loop's rate: five seconds.
const AT_RATE: u32 = 10_000;
/// Webhooks a second of the open loop.
const RATE: u32 = 2_000;
/// Webhooks for one figure of the highest rate.
const AT_ONCE: u32 = 30_000;
/// Threads for requests: as many as `towpath serve` has on the two cores that the goals are for.
const THREADS: usize = 2;
/// Runs between two looks at whether all is sent.
const RUNS_AT_ONCE: u32 = 10;
/// What they are signed with.
const SECRET: &str = "a secret of the measurement";
/// The policy of a secret that no job may have.
const POLICY: &str = "{}";

/// Latency at 2,000 a second while runs come and go, and the highest rate over 32 connections.
pub fn deliveries(extent: Extent) -> Result<Vec<Row>, Fault> {
    let folder = crate::world::folder()?;
    let world = World::open(folder.path(), SandboxKind::None, THREADS)?;
    let repo: RepoName = "bench".parse()?;
    world.with(|shared| add_repo(shared, &repo))?;
    let address = world.listen()?;
    let mut series = 0;
    let mut order = |count: u32, rate: u32| {
        series += 1;
        Order {
            address,
            path: format!("/hooks/{repo}"),
            secret: SECRET.to_owned(),
            body_bytes: HOOK_BYTES,
            count: extent.of(count),
            rate,
            series: format!("{}-{series}", std::process::id()),
        }
    };
    order(AT_RATE / 10, RATE).run()?;
    let ours = || Ok(while_runs_turn(&world, &order(AT_RATE, RATE))?.p99);
    let (p99, floor) = alternate(ours, || sync_p99(extent.of(AT_RATE)))?;
    let peer = "slowest of a hundred writes of 16 KiB with fdatasync, one after the other";
    let figure = Figure { name: "P6-delivery-latency", unit: "ms", value: p99, peer, peer_value: floor };
    let latency = figure.judged(Goal::AtMost(20.0));
    let ours = || Ok(order(AT_ONCE, 0).run()?.rate);
    let (rate, floor) = alternate(ours, || sync_rate(extent.of(AT_RATE)))?;
    let peer = "writes of 16 KiB with fdatasync, one after the other";
    let figure = Figure { name: "P6-delivery-rate", unit: "1/s", value: rate, peer, peer_value: floor };
    let rate = figure.judged(Goal::AtLeast(10_000.0));
    world.check_passed()?;
    Ok(vec![latency, rate])
}

/// Sends while one run after another is delivered, has its job done and ends: some two hundred a second, of several
/// turns each, beside those of the gate that the webhooks ring for.
fn while_runs_turn(world: &World, order: &Order) -> Result<Answered, Fault> {
    thread::scope(|scope| {
        let sent = scope.spawn(|| order.run());
        while !sent.is_finished() {
            world.runs(&graph(1), RUNS_AT_ONCE, 1)?;
        }
        sent.join().map_err(|_| "the sender panicked")?
    })
}

fn add_repo(shared: &Shared, repo: &RepoName) -> Result<(), Fault> {
    Repository::create(shared.repos.git(), &shared.repos.path(repo))?;
    let (name, now) = ("hook".to_owned(), system_time());
    let sealed = shared.secrets.seal(Some(repo), &name, SECRET.as_bytes())?;
    let secret = Secret {
        repo: Some(repo.clone()),
        name: name.clone(),
        sealed,
        policy: POLICY.to_owned(),
        updated_by: None,
        updated_at: now,
    };
    let settings = RepoSettings::one_branch("main".parse()?).to_json();
    let row = Repo { name: repo.clone(), settings, hook_secret: Some(name), created_at: now };
    shared.store.writer().write(move |tx| {
        tx.add_repo(&row)?;
        tx.put_secret(&secret)
    })?;
    Ok(())
}

fn sync_p99(count: u32) -> Result<f64, Fault> {
    Ok(crate::sample::percentile(syncs(count)?, 99.0))
}

fn sync_rate(count: u32) -> Result<f64, Fault> {
    Ok(1e3 / median(syncs(count)?))
}

/// Milliseconds of each of some durable writes.
fn syncs(count: u32) -> Result<Vec<f64>, Fault> {
    use std::io::Write;
    let folder = crate::world::folder()?;
    let mut file = std::fs::File::create(folder.path().join("floor"))?;
    let write = |_| {
        let began = std::time::Instant::now();
        file.write_all(&[0; 16 << 10])?;
        file.sync_data()?;
        Ok(millis(began.elapsed()))
    };
    (0..count / 10).map(write).collect()
}
