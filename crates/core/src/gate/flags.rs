//! When a gate looks again: doorbells and the poll set flags, a look clears them.

use serde::{Deserialize, Serialize};

use super::GateState;
use crate::ids::Timestamp;

/// Which of a branch's three dirty flags a doorbell sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bell {
    /// The forge may say something else than it did.
    #[serde(default)]
    pub forge_changed: bool,
    /// Runs may have moved.
    #[serde(default)]
    pub runs_changed: bool,
    /// Our own state may allow something new.
    #[serde(default)]
    pub state_changed: bool,
}

/// One dirty flag: when it was last set and what was last dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flag {
    /// Last rung.
    pub set_at: Option<Timestamp>,
    /// Whatever rang before this instant is dealt with.
    pub cleared_before: Option<Timestamp>,
}

impl Flag {
    /// Whether something is still to be looked at. A bell in the very millisecond in which a read began counts as
    /// unheard: once too often is harmless, once too few is a lost trigger.
    pub fn is_set(&self) -> bool {
        self.set_at.is_some_and(|set| self.cleared_before.is_none_or(|cleared| set >= cleared))
    }

    pub(super) fn set(&mut self, now: Timestamp) {
        self.set_at = self.set_at.max(Some(now));
    }

    pub(super) fn clear_before(&mut self, instant: Timestamp) {
        self.cleared_before = self.cleared_before.max(Some(instant));
    }
}

/// The three flags of the branch's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// Read the forge again.
    pub forge: Flag,
    /// Look at the runs again.
    pub runs: Flag,
    /// Decide again.
    pub state: Flag,
}

impl GateState {
    pub(super) fn ring(&mut self, bell: Bell, now: Timestamp) {
        let flags = &mut self.branch.edit().flags;
        let rung = [
            (bell.forge_changed, &mut flags.forge),
            (bell.runs_changed, &mut flags.runs),
            (bell.state_changed, &mut flags.state),
        ];
        for (_, flag) in rung.into_iter().filter(|(set, _)| *set) {
            flag.set(now);
        }
    }

    /// When the next poll is due. `None` before the first read, which nobody has to ask for.
    pub(super) fn poll_at(&self) -> Option<Timestamp> {
        self.branch.read_at.map(|at| at.plus_seconds(self.config.poll_seconds))
    }

    /// A read that no bell has asked for is the poll's, which raises all three flags. Source: Hail CI's poll.
    pub(super) fn raise_by_poll(&mut self, now: Timestamp) {
        let due = self.poll_at().filter(|due| *due <= now && !self.branch.flags.forge.is_set());
        if let Some(due) = due {
            self.ring(Bell { forge_changed: true, runs_changed: true, state_changed: true }, due);
        }
    }
}
