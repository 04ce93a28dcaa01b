//! Halts: every gate is told what stops landing on the whole server, and a person accepts what a restore lost.
//!
//! A gate may hear of a halt late; the store refuses the claim of a landing all the same, and the driver looks once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_core::act::Act;
use towpath_core::cell::{CellId, Refusal, RefusalClass};
use towpath_core::environment::EnvironmentEvent;
use towpath_core::gate::{GateEvent, HaltCause, Halts};
use towpath_core::ids::{GateId, Timestamp};
use towpath_core::policy::Actor;
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;
use towpath_store::audit::Restored;
use towpath_store::{ReadError, Store, Tx, WriteError};

use crate::engine::{AnyIntake, Holding};
use crate::server::Shared;
use crate::settings::RepoSettings;

/// Every cause with its state: what a gate has to know.
fn state(held: &BTreeMap<HaltCause, String>) -> Halts {
    [HaltCause::Disk, HaltCause::Restore].map(|cause| (cause, held.get(&cause).cloned())).into()
}

/// What a gate is told of what stops landing when it is told.
pub fn holding() -> Holding {
    Arc::new(|tx| Ok(Some(intake(state(&tx.halts()?)))))
}

fn intake(halts: Halts) -> AnyIntake {
    AnyIntake::Gate(Intake::Event(GateEvent::Halts(halts)))
}

/// Tells the gates what holds before they have their first turn, and whoever deploys that the data were restored, so that
/// nothing that was owed when they were saved is handed out again.
///
/// # Errors
/// The store cannot be read or written.
pub fn tell_before_the_first_turn(store: &Store, now: Timestamp) -> Result<(), WriteError> {
    let held = store.halts()?;
    if held.is_empty() {
        return Ok(());
    }
    let halts = intake(state(&held));
    let open = store.reader().snapshot()?.open_cells()?;
    let is_restored = held.contains_key(&HaltCause::Restore);
    let told = |cell: &CellId| match cell {
        CellId::Gate(_) => Some(halts.clone()),
        CellId::Run(_) if is_restored => Some(AnyIntake::Run(Intake::Event(RunEvent::Restored))),
        CellId::Environment(_) if is_restored => {
            Some(AnyIntake::Environment(Intake::Event(EnvironmentEvent::Restored)))
        }
        CellId::Run(_) | CellId::Environment(_) | CellId::Pool => None,
    };
    let deliveries: Vec<_> = open.iter().filter_map(|cell| Some(told(cell)?.delivery(cell, now))).collect();
    for why in held.values() {
        tracing::warn!("nothing lands: {why}");
    }
    store.writer().write(move |tx| deliveries.iter().try_for_each(|one| tx.deliver(one).map(drop)))
}

impl Shared {
    /// Hears of the disk's failure, should there be one.
    pub fn watch_the_disk(self: &Arc<Self>) {
        let (engine, shared) = (self.engine.clone(), Arc::downgrade(self));
        self.store.writer().when_landing_stops(move || {
            // Not on the thread that writes: it has other things to do.
            engine.after_rest(Box::new(move |_| {
                if let Some(shared) = shared.upgrade() {
                    tracing::error!("the disk failed to confirm a write: landing stops until a restart");
                    shared.tell_halts();
                }
            }));
        });
    }

    /// Tells every gate what holds now.
    pub fn tell_halts(&self) {
        match self.gates() {
            Ok(gates) => gates.iter().for_each(|gate| self.tell_halts_to(gate)),
            Err(error) => {
                tracing::error!("the gates are not told of a halt, a claim will tell them: {error}")
            }
        }
    }

    /// Tells one gate.
    pub fn tell_halts_to(&self, gate: &GateId) {
        self.engine.deliver_holding(CellId::Gate(gate.clone()), holding());
    }

    /// What a gate is told of what holds now; nothing if that cannot be read.
    pub fn halts_for(&self, gate: &GateId) -> Option<AnyIntake> {
        match self.store.halts() {
            Ok(held) => Some(intake(state(&held))),
            Err(error) => {
                tracing::error!("{gate} is not told whether something halts, a claim will tell it: {error}");
                None
            }
        }
    }

    fn gates(&self) -> Result<Vec<GateId>, ReadError> {
        let repos = self.store.reader().snapshot()?.repos()?;
        let gates = repos.iter().filter_map(|repo| {
            let settings = RepoSettings::parse(&repo.settings).ok()?;
            Some(settings.gates(&repo.name).into_iter().map(|(gate, _)| gate).collect::<Vec<_>>())
        });
        Ok(gates.flatten().collect())
    }

    /// Lets the server go on from restored data: by a person who has seen how many leaves are lost.
    ///
    /// # Errors
    /// There is nothing to accept, another number is lost, or the store failed.
    pub async fn accept_restore(&self, by: Actor, leaves_lost: u64) -> Result<Restored, WriteError> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let over = intake(Halts::from([(HaltCause::Restore, None)]));
        let gates = self.gates()?.into_iter().map(|gate| (CellId::Gate(gate), over.clone()));
        // Those that were told of the restore have been open since the start.
        let open = self.store.reader().snapshot()?.open_cells()?.into_iter();
        let accepted = || AnyIntake::Run(Intake::Event(RunEvent::RestoreAccepted));
        let runs = open.filter(|cell| matches!(cell, CellId::Run(_))).map(|run| (run, accepted()));
        let told = gates.chain(runs).collect();
        let at = self.engine.clock().now();
        let work = move |tx: &mut Tx<'_>| accept(tx, by, (leaves_lost, at));
        self.engine.deliver_with(told, work, |outcome| {
            let _ = send.send(outcome);
        });
        let accepted = receive.await.unwrap_or(Err(WriteError::Closed))?;
        // A repo that was added in this very moment may have heard what held before.
        self.tell_halts();
        Ok(accepted)
    }
}

fn accept(tx: &mut Tx<'_>, by: Actor, (leaves_lost, at): (u64, Timestamp)) -> Result<Restored, WriteError> {
    let restored = tx.accept_restored()?;
    if restored.leaves_lost != leaves_lost {
        let why = format!("{} leaves of the record are lost, not {leaves_lost}", restored.leaves_lost);
        return Err(WriteError::Refused(Refusal::new(RefusalClass::Conflict, why)));
    }
    let what = format!("accepted a restore: {restored}");
    tx.act(&Act::Administered { by: Some(by), what }, at);
    Ok(restored)
}
