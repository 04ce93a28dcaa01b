//! What is known of jobs between runs and the executor. No job is held and on its way into its run at once.

use std::collections::{HashMap, HashSet};

use towpath_core::ids::{LeaseId, Timestamp};
use towpath_executor::StartMessage;
use towpath_executor::protocol::Leases;

use super::ends::Ends;
use super::{Tree, Wanted};

/// A job on its way to the executor, or there.
pub(super) struct Held {
    pub wanted: Wanted,
    pub cancelled: bool,
    pub sent: bool,
    /// Ready, but there was no executor.
    pub waiting: Option<StartMessage>,
    pub started_at: Option<Timestamp>,
    /// Keeps the base of the work tree from being evicted.
    pub _tree: Option<Tree>,
}

#[derive(Default)]
pub(super) struct State {
    pub held: HashMap<LeaseId, Held>,
    /// Held jobs without files and secrets, which wait to be prepared together.
    pub light: Vec<LeaseId>,
    /// Ends that are not durable yet.
    pub ends: Ends<Wanted>,
    /// What the executor had when it was found, over or not, and has not told the end of since.
    pub found: HashSet<LeaseId>,
    pub all_claimed: bool,
}

/// What the executor has and no run waits for.
#[derive(Default)]
pub(super) struct Nobodys {
    /// To be stopped, should it still run.
    pub stop: Vec<LeaseId>,
    /// Its end, should it be over, is for nobody.
    pub forget: Vec<LeaseId>,
}

impl Held {
    pub fn new(wanted: Wanted) -> Held {
        Held { wanted, cancelled: false, sent: false, waiting: None, started_at: None, _tree: None }
    }
}

impl State {
    /// A job is over: from the same moment on its end is on its way, so that a run which asks meanwhile is not told that
    /// nothing is known of it.
    pub fn release(&mut self, lease: &LeaseId) -> Option<Held> {
        let held = self.held.remove(lease)?;
        self.ends.deliver(*lease);
        Some(held)
    }

    /// What the executor has and no run waits for, once every run has said what it wants.
    pub fn take_nobodys(&mut self) -> Nobodys {
        if !self.all_claimed {
            return Nobodys::default();
        }
        let found = std::mem::take(&mut self.found).into_iter();
        let stop: Vec<LeaseId> = found.filter(|lease| !self.held.contains_key(lease)).collect();
        let mut forget = self.ends.take_unclaimed();
        // An end that is on its way into its run, or comes back from there, is its run's until it is durable.
        forget.extend(stop.iter().filter(|lease| !self.ends.knows(lease)));
        Nobodys { stop, forget }
    }

    /// Jobs that died with an executor: given to it, and not known to its successor.
    pub fn take_lost(&mut self, leases: &Leases) -> Vec<(LeaseId, Held)> {
        let known: HashSet<&LeaseId> = leases.active.iter().chain(&leases.unacked).collect();
        let is_lost =
            |(lease, held): (&LeaseId, &Held)| (held.sent && !known.contains(lease)).then_some(*lease);
        let lost: Vec<LeaseId> = self.held.iter().filter_map(is_lost).collect();
        lost.into_iter().filter_map(|lease| Some((lease, self.release(&lease)?))).collect()
    }

    /// Jobs that are to stop and that the executor still has: the connection before may have taken the word with it.
    pub fn still_to_cancel(&self, leases: &Leases) -> Vec<LeaseId> {
        let is_cancelled =
            |lease: &&LeaseId| self.held.get(lease).is_some_and(|held| held.cancelled && held.sent);
        leases.active.iter().filter(is_cancelled).copied().collect()
    }
}
