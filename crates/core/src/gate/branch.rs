//! What a gate knows about its branch.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Flags, Lost, Tip};
use crate::definition::GateSettings;
use crate::ids::{CandidateId, ChangeNumber, CommitId, Timestamp, TreeId};
use crate::policy::Actor;

/// A stop of the whole branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Who; `None`: the server itself.
    pub by: Option<String>,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
    /// What the branch no longer contained, if that is why: whoever ends the freeze gives it up, unless it is back.
    #[serde(default)]
    pub lost: Option<CommitId>,
}

/// What is known about the branch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// Its head, as last read. `None` before the first read and between a landing and the read-back.
    pub tip: Option<Tip>,
    /// What the newest usable definition of the branch says: holds while the head is being read back, too.
    #[serde(default)]
    pub settings: GateSettings,
    /// The head as last read or left by us, whatever happens to `tip`: another one is a foreign push.
    pub last_tip: Option<CommitId>,
    /// The dirty flags.
    pub flags: Flags,
    /// Counts reads that were asked for: the generation of the read effect.
    pub reads: u64,
    /// When the newest applied read began.
    pub read_began: Option<Timestamp>,
    /// When the newest applied read was applied: polls count from here.
    pub read_at: Option<Timestamp>,
    /// Our newest confirmed landing.
    pub landed: Option<(CommitId, Timestamp)>,
    /// What the branch has to contain and, as last read, does not: see [`Branch::kept`].
    #[serde(default)]
    pub lost: Option<CommitId>,
    /// The tip at which a person gave up our newest landing, which the branch had lost.
    #[serde(default)]
    pub settled_on: Option<CommitId>,
    /// Changes of which the forge has a record that cannot be read, and what is wrong with it.
    #[serde(default)]
    pub unreadable: BTreeMap<ChangeNumber, String>,
    /// A tip that somebody else put there and no admin has accepted.
    pub foreign: Option<CommitId>,
    /// Set while nothing lands.
    pub frozen: Option<Freeze>,
    /// What the server would have frozen it for, had it not been frozen: whoever ends that freeze has not looked at this.
    #[serde(default)]
    pub freezes_next: Option<Freeze>,
    /// The landing for which everything is there, and since when.
    #[serde(default)]
    pub due: Option<(CandidateId, Timestamp)>,
    /// Counts runs.
    pub runs: u64,
    /// The newest run on the landed branch, and what is still to be run.
    pub deploy: Deploy,
}

impl Branch {
    /// The commit that the branch has to contain: without it, it freezes itself.
    pub fn kept(&self) -> Option<CommitId> {
        self.settled_on.or(self.landed.map(|(commit, _)| commit))
    }

    /// The tip at which the branch stands, but at which it does not begin unless an admin accepts it.
    pub fn unaccepted(&self) -> Option<CommitId> {
        self.foreign.filter(|_| self.last_tip.is_none())
    }
}

/// Runs of the landed branch: one at a time, always of the newest landing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// A landed commit that waits for its run.
    pub wanted: Option<(CommitId, TreeId)>,
    /// It waited when the data were saved: in the life that was lost it may have had its run.
    #[serde(default)]
    pub restored: bool,
    /// What waited, or was landing, in data that were saved and put back: what follows its landing may have followed it in the
    /// life that was lost, however often the branch has been elsewhere since.
    #[serde(default)]
    pub maybe_done: BTreeSet<CommitId>,
    /// Who asked for it again; a landing is nobody's.
    #[serde(default)]
    pub by: Option<Actor>,
    /// The run in progress, or the newest one.
    pub run: Option<u64>,
    /// The newest commit whose run did not pass, and the run: one alert a commit.
    pub alerted: Option<(CommitId, u64)>,
    /// What that run lost; `None` where no job says why it did not pass, and in rows of an earlier version.
    #[serde(default)]
    pub lost: Option<Lost>,
    /// The jobs of that run which did not pass, and have not since; `None`: only a whole run tells that they have.
    #[serde(default)]
    pub unmended: Option<BTreeSet<String>>,
}
