//! Limits, and that the rows alone say everything.

use towpath_core::cell::{Cell, CellId};
use towpath_core::effect::Plan;
use towpath_core::environment::Environment;
use towpath_core::gate::{Gate, RunRecord};
use towpath_core::graph::Trigger;
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::pool::Pool;
use towpath_core::run::Run;

use crate::world::{AnyLive, World};

/// Entries of one inbox. Source: what 1,000 faulty seeds need, doubled.
const INBOX_MAX: usize = 400;
/// Rows of one cell for each change that it ever had, and beside these.
const ROWS_PER_CHANGE_MAX: usize = 30;
const ROWS_MAX: usize = 100;
/// Landings whose end is not known.
const LANDINGS_MAX: usize = 8;
/// Change runs beside those of the cap: that of what could land next.
const RUNS_ON_DECK_MAX: usize = 1;
/// One commit of this many is compared with a cell that was loaded from the rows.
const RELOAD_EVERY: u64 = 37;

impl World {
    /// I15 for one cell.
    pub(super) fn check_bounds(&mut self, epoch: Epoch, cell: &CellId) {
        self.check_change_runs(epoch, cell);
        let Some(stored) = self.store.cells.get(cell) else { return };
        let most = ROWS_MAX + ROWS_PER_CHANGE_MAX * self.forge.changes.len();
        let landings = stored.rows.keys().filter(|key| key.starts_with("landing/")).count();
        let sizes = [
            ("inbox entries", stored.inbox.len(), INBOX_MAX),
            ("rows", stored.rows.len(), most),
            ("effects", stored.outbox.len(), most),
            ("landings without an end", landings, LANDINGS_MAX),
        ];
        if let Some((what, size, most)) = sizes.into_iter().find(|(_, size, most)| size > most) {
            self.violate("I15", format!("{cell} has {size} {what}, at most {most} are expected"));
        }
    }

    /// However often another change comes on deck.
    fn check_change_runs(&mut self, epoch: Epoch, cell: &CellId) {
        let live = self.server(epoch).and_then(|server| server.cells.get(cell));
        let Some(AnyLive::Gate(live)) = live else { return };
        let goes_on =
            |run: &&RunRecord| run.is_running() && run.trigger == Trigger::Change && run.cancel.is_none();
        let running = live.state.runs().values().filter(goes_on).count();
        let most = live.state.config().change_runs_max as usize + RUNS_ON_DECK_MAX;
        if running > most {
            self.violate(
                "I15",
                format!("{cell} has {running} change runs under way, at most {most} are allowed"),
            );
        }
    }

    /// A cell that is loaded from its rows plans as the one in memory.
    pub(super) fn check_reload(&mut self, epoch: Epoch, cell: &CellId) {
        if !self.checks.commits.is_multiple_of(RELOAD_EVERY) {
            return;
        }
        let Some(server) = self.server(epoch) else { return };
        let (Some(live), Some(stored)) = (server.cells.get(cell), self.store.cells.get(cell)) else { return };
        let loaded = AnyLive::load(cell, epoch, stored);
        let now = server.time(self.now);
        if live.plan(now) != loaded.plan(now) {
            let what = format!("{cell} plans differently once it is loaded from its rows");
            self.violate("I12", what);
        }
    }
}

impl AnyLive {
    /// What the cell owes now.
    pub fn plan(&self, now: Timestamp) -> Plan {
        match self {
            AnyLive::Gate(live) => Gate::plan(&live.state, now),
            AnyLive::Run(live) => Run::plan(&live.state, now),
            AnyLive::Pool(live) => Pool::plan(&live.state, now),
            AnyLive::Environment(live) => Environment::plan(&live.state, now),
        }
    }
}
