//! What is known of jobs between runs and the executor. No job is held and on its way into its run at once.

use std::collections::{HashMap, HashSet};

use towpath_core::ids::{LeaseId, Timestamp};
use towpath_executor::StartSpec;

use super::ends::Ends;
use super::{Tree, Wanted};

/// A job on its way to the executor, or there.
pub(super) struct Held {
    pub wanted: Wanted,
    pub cancelled: bool,
    pub sent: bool,
    /// Ready, but there was no executor.
    pub waiting: Option<Box<StartSpec>>,
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
    /// What the executor had when it was found.
    pub found: HashSet<LeaseId>,
    pub all_claimed: bool,
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
}
