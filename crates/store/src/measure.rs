//! How fast the store is: what `cargo xtask bench` prints, and what this crate's design was judged by.
//!
//! Every figure is with `synchronous=FULL`: a unit counts when its callback ran, after the commit.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use towpath_core::cell::{CellId, Row};
use towpath_core::effect::{Effect, EffectKey};
use towpath_core::ids::{BranchName, GateId, RepoName, Timestamp};
use towpath_core::message::Message;
use towpath_core::turn::{Outgoing, Stage, WriteSet};

use crate::error::WriteError;
use crate::queue::Load;
use crate::records::HookDelivery;
use crate::store::Store;

/// Bytes of GitHub's `pull_request` webhook. Source: the median of @octokit/webhooks-examples.
pub const HOOK_BYTES: usize = 21_370;
/// Bytes that one measured turn writes.
pub const TURN_BYTES: usize = 8 << 10;
/// Cells that the measured turns go round.
const CELLS: u64 = 64;
/// Webhooks kept while deliveries are measured.
const HOOKS_KEPT: u64 = 10_000;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// How many units were acknowledged.
    pub count: usize,
    /// From the first submission to the last acknowledgement.
    pub elapsed: Duration,
    /// From submission to acknowledgement, sorted.
    latencies: Vec<Duration>,
}

impl Measured {
    fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Measured {
        latencies.sort_unstable();
        Measured { count: latencies.len(), elapsed, latencies }
    }

    /// Units a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that `percent` of the units did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Turns that write five rows in three tables, 8 KB each, with `waiting` of them under way at any time.
///
/// # Errors
/// A turn was not accepted.
pub fn turns(store: &Store, count: usize, waiting: usize) -> Result<Measured, WriteError> {
    let (send, receive) = mpsc::channel();
    let submit = |number: usize| {
        let (send, begun) = (send.clone(), Instant::now());
        let write = turn(store, number as u64);
        store.writer().commit(write, move |outcome| {
            // The receiver is gone only after a failure, which it has reported.
            let _ = send.send(outcome.map(|_| begun.elapsed()));
        });
    };
    let begun = Instant::now();
    (0..waiting.min(count)).for_each(&submit);
    let mut latencies = Vec::with_capacity(count);
    for next in waiting..count + waiting {
        if latencies.len() == count {
            break;
        }
        latencies.push(receive.recv().map_err(|_| WriteError::Closed)??);
        if next < count {
            submit(next);
        }
    }
    Ok(Measured::new(latencies, begun.elapsed()))
}

/// Webhooks recognised by id, with `body_bytes` kept of each, at `rate` a second whatever the store does (an open loop).
/// [`HOOK_BYTES`] keeps all of it; 0 keeps what a doorbell needs.
///
/// # Errors
/// A webhook was not accepted.
pub fn hooks(store: &Store, (count, rate): (usize, u32), body_bytes: usize) -> Result<Measured, WriteError> {
    let repo: RepoName = "bench".parse().expect("invariant: a valid name");
    let (send, receive) = mpsc::channel::<Result<Duration, WriteError>>();
    let begun = Instant::now();
    let interval = Duration::from_secs(1) / rate;
    let run = store.epoch().0;
    let mut latencies = Vec::with_capacity(count);
    for number in 0..count {
        let due = begun + interval * number as u32;
        // Answers are taken in until the next one is due.
        while let Ok(latency) = receive.recv_timeout(due.saturating_duration_since(Instant::now())) {
            latencies.push(latency?);
        }
        let delivery = HookDelivery {
            repo: repo.clone(),
            id: format!("{run}-{rate}-{body_bytes}-{number}"),
            at: Timestamp(number as i64),
            body: vec![b'x'; body_bytes],
        };
        let send = send.clone();
        let work = move |tx: &mut crate::Tx<'_>| {
            if number % 100 == 99 {
                tx.prune_hook_deliveries(HOOKS_KEPT)?;
            }
            tx.add_hook_delivery(&delivery)
        };
        store.writer().submit(Load::bytes(body_bytes), work, move |outcome| {
            // Counted from when it was due: a late start is the store's fault too.
            let _ = send.send(outcome.map(|_| due.elapsed()));
        });
    }
    drop(send);
    for latency in receive {
        latencies.push(latency?);
    }
    Ok(Measured::new(latencies, begun.elapsed()))
}

fn turn(store: &Store, number: u64) -> WriteSet {
    let cell = |number: u64| {
        let branch: BranchName = format!("b{}", number % CELLS).parse().expect("invariant: a valid name");
        GateId { repo: "bench".parse().expect("invariant: a valid name"), branch }
    };
    let gate = cell(number);
    let filling = "x".repeat(TURN_BYTES / 5);
    let rows = ["head", "changes/1", "entries/1"].into_iter().map(|key| Row {
        key: key.to_owned(),
        value: Some(format!("{{\"turn\":{number},\"filling\":\"{filling}\"}}")),
    });
    let effect = Effect::Alert { gate: gate.clone(), text: filling.clone() };
    let stage = Stage::Claimed { epoch: store.epoch() };
    let outgoing = Outgoing { effect: Some(effect), stage, token: number, trouble: None };
    WriteSet {
        cell: CellId::Gate(gate),
        epoch: store.epoch(),
        rows: rows.collect(),
        consumed: Some(i64::MAX as u64),
        only_if_drained: false,
        outbox: vec![(EffectKey::level("alert", "bench"), Some(outgoing))],
        messages: vec![(CellId::Gate(cell(number + 1)), Message::Cancel { why: filling })],
        acts: Vec::new(),
        wake_at: Some(Timestamp(number as i64)),
        finished: false,
        now: Timestamp(number as i64),
    }
}
