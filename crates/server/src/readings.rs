//! From an act at a forge to what its gates say of it.
//!
//! A gate knows of an act only by reading its forge, some milliseconds after its bell. Whoever acts is answered after that,
//! so that whatever is asked next is answered with the act in it. An act that no gate reads in time has happened all the
//! same: its answer says that gates may not know of it yet.
//!
//! After a landing a gate reads its branch back. Whoever asks for something to be run of it waits for that likewise, and who stops
//! what may be landing already, for the end of that.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use towpath_core::cell::CellId;
use towpath_core::gate::GateState;
use towpath_core::ids::{ChangeNumber, GateId, Timestamp};
use towpath_forge::ChangeRecord;

use crate::engine::{Changed, Engine};
use crate::server::Shared;

/// Time that an answer waits for what gates read. Source: a read of the built-in forge begins at most 50 ms after its bell and
/// takes some more; a person who waits for longer wonders what is wrong.
const READING_DEADLINE: Duration = Duration::from_secs(5);

/// An instant after which something was true at a forge.
#[derive(Debug, Clone, Copy)]
pub struct Since(Timestamp);

impl Since {
    /// Whether a gate has applied a reading that began later. One of the very same millisecond may have begun before.
    pub fn is_read_by(self, gate: &GateState) -> bool {
        gate.branch().read_began.is_some_and(|began| began > self.0)
    }
}

/// Gates that were rung, and are going to read their forge.
pub struct Rung {
    /// Readings that began later have it in them.
    pub since: Since,
    gates: BTreeSet<GateId>,
    engine: Engine,
    changes: Receiver<Changed>,
}

impl Shared {
    /// Rings gates after what happened at their forge; how they read it can be waited for.
    pub fn ring_all(&self, gates: impl IntoIterator<Item = GateId>) -> Rung {
        let (engine, changes) = (self.engine.clone(), self.engine.changes());
        let since = Since(engine.clock().now());
        let gates: BTreeSet<GateId> = gates.into_iter().collect();
        gates.iter().for_each(|gate| self.ring(gate));
        Rung { since, gates, engine, changes }
    }
}

impl Rung {
    /// Returns once all of them have read it. Those that do not in time, as where the forge cannot be read, are what is to be
    /// said beside what was done.
    pub async fn unread(mut self) -> Option<String> {
        let _ = tokio::time::timeout(READING_DEADLINE, self.read()).await;
        let unread: Vec<String> = self.gates.iter().map(ToString::to_string).collect();
        let whose = unread.join(", ");
        (!unread.is_empty())
            .then(|| format!("{whose} may not know of it yet, as reading the forge takes long"))
    }

    /// Leaves those that have not read it. `None`: the server stops.
    async fn read(&mut self) -> Option<()> {
        loop {
            for gate in self.gates.clone() {
                let since = self.since;
                let read = self.engine.gate(gate.clone(), move |live| since.is_read_by(&live.state)).await;
                if read == Some(true) {
                    self.gates.remove(&gate);
                }
            }
            if self.gates.is_empty() {
                return Some(());
            }
            self.changed().await?;
        }
    }

    /// Returns once one of them was committed since it was last looked at; `None`: none ever will be.
    pub async fn changed(&mut self) -> Option<()> {
        committed(&mut self.changes, |gate| self.gates.contains(gate)).await
    }
}

/// Somebody who waits for a gate to know something, for so long in all.
pub struct Patience {
    gate: GateId,
    engine: Engine,
    changes: Receiver<Changed>,
    until: Instant,
}

impl Shared {
    /// From now on.
    pub fn patience(&self, gate: GateId) -> Patience {
        let (engine, changes) = (self.engine.clone(), self.engine.changes());
        Patience { gate, engine, changes, until: Instant::now() + READING_DEADLINE }
    }
}

impl Patience {
    /// Returns once the gate knows what is landed and what its definition says, or it takes too long: says whether it knows.
    pub async fn landed_is_read(&mut self) -> bool {
        self.knows(|gate| !gate.is_reading_landed()).await
    }

    /// The same of all that comes along with a change to where its record has it.
    pub async fn has_arrived(&mut self, ChangeRecord { number, came, .. }: &ChangeRecord) -> bool {
        let (number, came) = (*number, came.clone());
        self.knows(move |gate| gate.has_arrived(number, came.as_ref())).await
    }

    /// The same of what came of a landing of a change that was under way.
    pub async fn lands_no_more(&mut self, change: ChangeNumber) -> bool {
        self.knows(move |gate| !gate.lands(change)).await
    }

    /// The same of any landing.
    pub async fn nothing_lands(&mut self) -> bool {
        self.knows(|gate| !gate.is_landing()).await
    }

    async fn knows(&mut self, is_known: impl Fn(&GateState) -> bool + Clone + Send + 'static) -> bool {
        tokio::time::timeout_at(self.until, self.read(is_known)).await.is_ok_and(|read| read.is_some())
    }

    async fn read(&mut self, is_known: impl Fn(&GateState) -> bool + Clone + Send + 'static) -> Option<()> {
        loop {
            let is_known = is_known.clone();
            if self.engine.gate(self.gate.clone(), move |live| is_known(&live.state)).await? {
                return Some(());
            }
            committed(&mut self.changes, |gate| *gate == self.gate).await?;
        }
    }
}

/// Returns once one of some gates was committed; `None`: none ever will be.
async fn committed(changes: &mut Receiver<Changed>, is_one: impl Fn(&GateId) -> bool) -> Option<()> {
    loop {
        match changes.recv().await {
            Ok(Changed { cell: CellId::Gate(gate), .. }) if is_one(&gate) => return Some(()),
            Ok(_) => {}
            // What was missed in between is looked at all the same.
            Err(RecvError::Lagged(_)) => return Some(()),
            Err(RecvError::Closed) => return None,
        }
    }
}
