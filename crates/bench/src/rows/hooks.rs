//! P6: webhooks over HTTP, verified and durable, each of which rings a gate's bell.

use towpath_core::ids::RepoName;
use towpath_executor::SandboxKind;
use towpath_git::Repository;
use towpath_server::clock::system_time;
use towpath_server::server::Shared;
use towpath_server::settings::RepoSettings;
use towpath_store::measure::HOOK_BYTES;
use towpath_store::records::{Repo, Secret};

use crate::post::Order;
use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, median, millis};
use crate::service::Service;
use crate::world::World;
use crate::{Extent, Fault};

/// Webhooks for one figure at the open loop's rate: five seconds.
const AT_RATE: u32 = 10_000;
/// Webhooks a second of the open loop.
const RATE: u32 = 2_000;
/// Webhooks for one figure of the highest rate.
const AT_ONCE: u32 = 30_000;
/// What they are signed with.
const SECRET: &str = "a secret of the measurement";
/// The policy of a secret that no job may have.
const POLICY: &str = "{}";

/// Latency at 2,000 a second, and the highest rate over 32 connections.
pub fn deliveries(extent: Extent) -> Result<Vec<Row>, Fault> {
    let world = World::start(SandboxKind::None)?;
    let repo: RepoName = "bench".parse()?;
    world.with(|shared| add_repo(shared, &repo))?;
    let folder = world.close()?;
    let mut service = Service::start(folder.path())?;
    service.wait_until_ready()?;
    let mut series = 0;
    let mut send = |count: u32, rate: u32| {
        series += 1;
        let order = Order {
            address: service.address,
            path: format!("/hooks/{repo}"),
            secret: SECRET.to_owned(),
            body_bytes: HOOK_BYTES,
            count: extent.of(count),
            rate,
            series: format!("{}-{series}", std::process::id()),
        };
        order.run()
    };
    send(AT_RATE / 10, RATE)?;
    let (p99, floor) = alternate(|| Ok(send(AT_RATE, RATE)?.p99), || sync_p99(extent.of(AT_RATE)))?;
    let peer = "slowest of a hundred writes of 16 KiB with fdatasync, one after the other";
    let figure = Figure { name: "P6-delivery-latency", unit: "ms", value: p99, peer, peer_value: floor };
    let latency = figure.judged(Goal::AtMost(20.0));
    let (rate, floor) = alternate(|| Ok(send(AT_ONCE, 0)?.rate), || sync_rate(extent.of(AT_RATE)))?;
    let peer = "writes of 16 KiB with fdatasync, one after the other";
    let figure = Figure { name: "P6-delivery-rate", unit: "1/s", value: rate, peer, peer_value: floor };
    let rate = figure.judged(Goal::AtLeast(10_000.0));
    drop(service);
    World::end_executor_of(folder.path())?;
    Ok(vec![latency, rate])
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
