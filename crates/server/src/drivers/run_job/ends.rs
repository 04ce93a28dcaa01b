//! Ends of jobs that a run has yet to hear: where each is, and under which order it is to be told.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_core::graph::JobResult;
use towpath_core::ids::LeaseId;
use towpath_executor::JobEnd;

use crate::reports;

/// How a job ended.
pub(super) struct Over {
    pub end: JobEnd,
    pub reports: Reports,
}

/// What is known of the reports that a job left.
pub(super) enum Reports {
    /// It left none.
    None,
    /// They have not been read.
    Unread,
    /// What they say is in the end's rows.
    Read(Arc<reports::Rows>),
}

impl From<JobEnd> for Over {
    fn from(end: JobEnd) -> Over {
        let reports = if end.junit.is_some() { Reports::Unread } else { Reports::None };
        // What stays of the job is its result.
        let result = JobResult { junit: end.junit, ..end.result };
        Over { end: JobEnd { result, ..end }, reports }
    }
}

/// Ends that the executor has told and that are not known to be durable. `W` is what a run asks by.
pub(super) struct Ends<W> {
    /// Of jobs that an earlier server started and that no run has asked for again yet.
    unclaimed: HashMap<LeaseId, Box<Over>>,
    /// On their way into the next turns of their runs, with the newest order that came meanwhile: a run that went back to
    /// its rows hands its job out anew, and hears nothing that is told under the former order.
    delivering: HashMap<LeaseId, Option<W>>,
    /// Their turn was not written. The run that owns one hands its job out again, and gets it then.
    returned: HashMap<LeaseId, Box<Over>>,
}

/// What is known of a job that a run asks for.
pub(super) enum Asked<W> {
    /// It is over, and this is how.
    Over(W, Box<Over>),
    /// It is over, and on its way into its run's next turn; should that not listen, it is told under this order.
    Coming,
    /// Nothing.
    Unknown(W),
}

impl<W> Default for Ends<W> {
    fn default() -> Self {
        Ends { unclaimed: HashMap::new(), delivering: HashMap::new(), returned: HashMap::new() }
    }
}

impl<W> Ends<W> {
    /// The executor tells an end that no held job waits for. What is here already is not told twice: it would be taken
    /// for nobody's, and acknowledged before it is durable.
    pub fn told(&mut self, end: JobEnd) {
        if !self.knows(&end.lease) {
            self.unclaimed.insert(end.lease, Box::new(end.into()));
        }
    }

    /// Whether an end is on its way into its run, or waits for that run to ask again.
    pub fn knows(&self, lease: &LeaseId) -> bool {
        self.delivering.contains_key(lease) || self.returned.contains_key(lease)
    }

    /// A run asks for a job, or for its end, which is on its way from then on.
    pub fn ask(&mut self, lease: &LeaseId, wanted: W) -> Asked<W> {
        if let Some(newest) = self.delivering.get_mut(lease) {
            *newest = Some(wanted);
            return Asked::Coming;
        }
        match self.unclaimed.remove(lease).or_else(|| self.returned.remove(lease)) {
            Some(over) => {
                self.deliver(*lease);
                Asked::Over(wanted, over)
            }
            None => Asked::Unknown(wanted),
        }
    }

    /// An end is on its way into its run's next turn. Saying it twice changes nothing.
    pub fn deliver(&mut self, lease: LeaseId) {
        self.delivering.entry(lease).or_insert(None);
    }

    /// That turn was written or not. Answers under which order the end is to be told once more, if its run has asked
    /// for it under another one meanwhile: it is still on its way then.
    pub fn arrived(&mut self, lease: &LeaseId, is_same: impl Fn(&W) -> bool) -> Option<W> {
        let newest = self.delivering.remove(lease).flatten().filter(|wanted| !is_same(wanted))?;
        self.deliver(*lease);
        Some(newest)
    }

    /// Keeps an end whose turn was not written.
    pub fn keep(&mut self, over: Over) {
        self.returned.insert(over.end.lease, Box::new(over));
    }

    /// Forgets what is nobody's, and says what that was.
    pub fn take_unclaimed(&mut self) -> Vec<LeaseId> {
        std::mem::take(&mut self.unclaimed).into_keys().collect()
    }

    /// How many ends wait for their runs to ask for them again.
    pub fn kept(&self) -> usize {
        self.returned.len()
    }
}

#[cfg(test)]
mod tests {
    use towpath_core::graph::Outcome;

    use super::super::unrun;
    use super::*;

    const LEASE: LeaseId = LeaseId([7; 16]);

    fn end() -> JobEnd {
        *unrun(LEASE, Outcome::Passed, "exit code 0")
    }

    /// Asks under an order that is a number; what comes of it.
    fn ask(ends: &mut Ends<u64>, order: u64) -> &'static str {
        match ends.ask(&LEASE, order) {
            Asked::Over(same, over) if same == order && over.end.result.outcome == Outcome::Passed => "over",
            Asked::Coming => "coming",
            Asked::Unknown(same) if same == order => "unknown",
            Asked::Over(..) | Asked::Unknown(_) => "mixed up",
        }
    }

    #[test]
    fn an_end_of_an_earlier_server_is_had_once_or_is_nobodys() {
        let mut ends = Ends::default();
        ends.told(end());
        assert_eq!(ask(&mut ends, 1), "over");
        assert_eq!(ends.arrived(&LEASE, |order| *order == 1), None);
        assert_eq!(ask(&mut ends, 2), "unknown");
        ends.told(end());
        assert_eq!(ends.take_unclaimed(), [LEASE]);
        assert_eq!(ask(&mut ends, 3), "unknown");
    }

    #[test]
    fn an_end_whose_turn_was_not_written_waits_until_its_run_asks() {
        let mut ends = Ends::default();
        ends.deliver(LEASE);
        assert_eq!(ends.arrived(&LEASE, |order| *order == 1), None);
        ends.keep(end().into());
        assert_eq!(ends.kept(), 1);
        assert_eq!([ask(&mut ends, 2), ask(&mut ends, 3)], ["over", "coming"]);
        assert_eq!(ends.kept(), 0);
        assert_eq!(ends.arrived(&LEASE, |order| *order == 2), Some(3));
    }

    #[test]
    fn a_run_that_asks_while_its_end_is_on_the_way_is_told_under_the_newest_order() {
        let mut ends = Ends::default();
        ends.deliver(LEASE);
        assert_eq!([ask(&mut ends, 2), ask(&mut ends, 3)], ["coming", "coming"]);
        assert_eq!(ends.arrived(&LEASE, |order| *order == 1), Some(3));
        assert!(ends.knows(&LEASE), "it is told once more");
        // A cancel of the very order that it is told under changes nothing: that answer is taken.
        assert_eq!(ask(&mut ends, 3), "coming");
        assert_eq!(ends.arrived(&LEASE, |order| *order == 3), None);
        assert_eq!(ask(&mut ends, 4), "unknown");
    }

    #[test]
    fn what_an_executor_tells_again_while_it_is_not_durable_is_not_taken_for_nobodys() {
        let mut ends = Ends::<u64>::default();
        ends.deliver(LEASE);
        ends.told(end());
        assert_eq!(ends.take_unclaimed(), []);
        ends.arrived(&LEASE, |_| true);
        ends.keep(end().into());
        ends.told(end());
        assert_eq!(ends.take_unclaimed(), []);
        assert_eq!(ask(&mut ends, 2), "over");
        // Asked for, it is on its way again, though nobody has said so yet.
        ends.told(end());
        assert_eq!(ends.take_unclaimed(), []);
    }
}
