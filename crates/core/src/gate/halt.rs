//! Halts: while one holds, no gate of the server lands or deploys anything. Tests go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{GateState, Phase, Reason};
use crate::ids::CommitId;

/// What stops landing on a whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HaltCause {
    /// The disk failed to confirm a write: what is on it is not known until a restart has looked (trust S9).
    Disk,
    /// The data are from a backup, and nobody has accepted what it lost (trust T9).
    Restore,
}

impl HaltCause {
    /// What ends it.
    pub fn mend(self) -> &'static str {
        match self {
            HaltCause::Disk => "an admin looks at the disk and starts the server again",
            HaltCause::Restore => "`towpath backup show` says what is lost and how an admin accepts that",
        }
    }
}

/// What a server says about halts: of each cause that it names, why it holds, or that it is over. A cause that is not
/// named stays as it is, so that what ends one never ends the other.
pub type Halts = BTreeMap<HaltCause, Option<String>>;

impl GateState {
    /// What stops landing on the whole server, with why.
    pub fn halts(&self) -> &BTreeMap<HaltCause, String> {
        &self.halts
    }

    pub(super) fn heed(&mut self, halts: &Halts) {
        for (cause, why) in halts {
            if self.halts.get(cause) == why.as_ref() {
                continue;
            }
            match why {
                Some(why) => {
                    self.halts.edit().insert(*cause, why.clone());
                    if *cause == HaltCause::Restore {
                        self.note_restored();
                    }
                }
                None => drop(self.halts.edit().remove(cause)),
            }
        }
    }

    /// The data are from a backup. What this gate had still to deploy may have been deployed in the life that was lost; runs
    /// that deploy have been told, but for those whose start is sent with this turn.
    fn note_restored(&mut self) {
        let wanted = self.branch.deploy.wanted.map(|(commit, _)| commit);
        let owed: Vec<CommitId> =
            self.landings.map().values().map(|pending| pending.act.commit).chain(wanted).collect();
        if !owed.is_empty() {
            let deploy = &mut self.branch.edit().deploy;
            deploy.restored |= wanted.is_some();
            deploy.maybe_done.extend(owed);
        }
        let landed = self.runs.map().iter().filter(|(_, run)| run.change.is_none() && run.is_running());
        for number in landed.map(|(number, _)| *number).collect::<Vec<_>>() {
            let run = self.runs.get_mut(number).expect("invariant: it was just found");
            if let Phase::Running { start } = &mut run.phase {
                Arc::make_mut(start).restored = true;
            }
        }
    }

    pub(super) fn halt_reasons(&self) -> impl Iterator<Item = Reason> {
        self.halts.iter().map(|(cause, why)| Reason::Halted { cause: *cause, why: why.clone() })
    }
}
