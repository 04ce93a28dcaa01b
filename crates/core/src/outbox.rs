//! The outbox: what a cell owes the world and how far each of it is. Reconciled with the plan at every turn; handed out
//! by key and token, so that nothing is done for two orders, and no late answer is taken for a current one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cell::CellId;
use crate::effect::{Effect, EffectKey, Plan};
use crate::ids::{Epoch, Timestamp};
use crate::message::Message;

/// A failure of an effect that is no fact about the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What kind.
    pub class: TroubleClass,
    /// In words.
    pub why: String,
    /// Tries so far.
    pub tries: u32,
    /// When the next try is due.
    pub next_try: Timestamp,
}

/// How an outside failure is to be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleClass {
    /// May go away by itself.
    Transient,
    /// A right or credential is missing: a person has to act; it is tried again all the same.
    Denied,
    /// What it acts on is gone.
    Gone,
    /// It can never work as it is: a bug or damage; it is tried again slowly.
    Invalid,
}

/// One row of the outbox: an effect and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The action. `None` once it is done and its value can no longer matter: only a level effect's is compared again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// How far.
    pub stage: Stage,
    /// Changes whenever it is handed to a driver anew, so that late answers are told from current ones.
    pub token: u64,
    /// The newest failure, if the newest try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// How far an effect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// With the drivers of this epoch.
    Claimed {
        /// The server that claimed it.
        epoch: Epoch,
    },
    /// Failed for now; due again at its trouble's `next_try`.
    Waiting,
    /// No longer owed, but a driver has it: it was asked to stop, its answer is still a fact.
    Cancelling {
        /// The server whose driver has it.
        epoch: Epoch,
    },
    /// Carried out; remembered while the plan still names it.
    Done,
}

/// The outbox of one cell: part of its state, stored as rows of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outbox {
    /// Every effect that is owed, under way, or done and still named by the plan.
    pub rows: BTreeMap<EffectKey, Outgoing>,
    pub(crate) next_token: u64,
    /// Claims with a lower token were made before this memory was loaded: whether a driver ever had them is not known.
    first_token: u64,
}

/// Tokens of one epoch begin at this multiple of it, so that no two servers ever hand out the same one, even when the
/// rows that held the highest ones are gone. 2^32 turns of a cell take longer than any server lives.
pub(crate) const TOKENS_PER_EPOCH: u64 = 1 << 32;

/// An instruction to a driver.
#[derive(Debug, Clone, PartialEq)]
pub enum Dispatch {
    /// Carry it out and put `Done` or `Trouble` with this token into the cell's inbox.
    Do {
        /// The effect's key: the driver's idempotency key.
        key: EffectKey,
        /// To be returned with the answer.
        token: u64,
        /// What to do.
        effect: Effect,
    },
    /// It is no longer wanted. The driver answers `Done` with whatever is true now.
    Cancel {
        /// Which.
        key: EffectKey,
        /// The token it was handed out with.
        token: u64,
        /// What it was, for a driver that has forgotten.
        effect: Effect,
    },
}

/// When and by whom a turn is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
    /// Nothing unseen waits in the inbox.
    pub(crate) is_drained: bool,
}

#[derive(Default)]
pub(crate) struct Reconciled {
    pub(crate) outbox: BTreeMap<EffectKey, Option<Outgoing>>,
    pub(crate) messages: Vec<(CellId, Message)>,
    pub(crate) dispatch: Vec<Dispatch>,
    pub(crate) only_if_drained: bool,
}

impl Outgoing {
    fn is_with_driver(&self) -> bool {
        matches!(self.stage, Stage::Claimed { .. } | Stage::Cancelling { .. })
    }

    pub(crate) fn complete(&mut self, key: &EffectKey) {
        self.stage = Stage::Done;
        self.trouble = None;
        if key.is_once() {
            self.effect = None;
        }
    }
}

impl Outbox {
    /// The row that an answer is about, unless the answer is of an older try or the effect is over.
    pub(crate) fn current(&mut self, key: &EffectKey, token: u64) -> Option<&mut Outgoing> {
        let row = self.rows.get_mut(key)?;
        (row.is_with_driver() && row.token == token).then_some(row)
    }

    /// Drops what is done for ever; says whether nothing is left.
    pub(crate) fn forget_done(&mut self, out: &mut Reconciled) -> bool {
        self.rows.retain(|key, row| {
            let keep = row.stage != Stage::Done;
            if !keep {
                out.outbox.insert(key.clone(), None);
            }
            keep
        });
        self.rows.is_empty()
    }

    pub(crate) fn load(rows: impl IntoIterator<Item = (EffectKey, Outgoing)>, floor: u64) -> Outbox {
        let rows: BTreeMap<_, _> = rows.into_iter().collect();
        let after_all = rows.values().map(|row| row.token + 1).max().unwrap_or(0);
        let first_token = after_all.max(floor).max(1);
        Outbox { rows, next_token: first_token, first_token }
    }

    /// Makes the outbox what the plan says: new is inserted, no longer owed is withdrawn or asked to stop, a changed
    /// level value is handed out anew.
    pub(crate) fn reconcile(&mut self, plan: &mut Plan, moment: Moment, out: &mut Reconciled) {
        self.drop_unowed(plan, moment, out);
        for (key, effect) in std::mem::take(&mut plan.effects) {
            self.owe(key, effect, moment, out);
        }
        let retries = self.rows.values().filter(|row| row.stage == Stage::Waiting);
        retries.filter_map(|row| row.trouble.as_ref()).for_each(|trouble| plan.wake(trouble.next_try));
    }

    fn drop_unowed(&mut self, plan: &Plan, moment: Moment, out: &mut Reconciled) {
        let mut forgotten = Vec::new();
        for (key, row) in self.rows.iter_mut().filter(|(key, _)| !plan.effects.contains_key(*key)) {
            let of_before = row.token < self.first_token;
            match row.stage {
                Stage::Done => forgotten.push(key.clone()),
                Stage::Cancelling { .. } if !of_before => {}
                Stage::Waiting if !is_due(row, moment) => {}
                // A try that failed may have been carried out all the same: only a driver's answer ends it.
                Stage::Waiting | Stage::Claimed { .. } | Stage::Cancelling { .. } => {
                    if of_before || row.stage == Stage::Waiting {
                        row.token = mint(&mut self.next_token);
                    }
                    row.stage = Stage::Cancelling { epoch: moment.epoch };
                    out.outbox.insert(key.clone(), Some(row.clone()));
                    if let Some(effect) = row.effect.clone() {
                        out.dispatch.push(Dispatch::Cancel { key: key.clone(), token: row.token, effect });
                    }
                }
            }
        }
        for key in forgotten {
            self.rows.remove(&key);
            out.outbox.insert(key, None);
        }
    }

    fn owe(&mut self, key: EffectKey, effect: Effect, moment: Moment, out: &mut Reconciled) {
        let first_token = self.first_token;
        let due = |row: &Outgoing| row.token < first_token && row.is_with_driver() || is_due(row, moment);
        let trouble = match self.rows.get_mut(&key) {
            Some(row) if !due(row) && !is_new_value(&key, row, &effect) => return,
            _ if effect.needs_drained_inbox() && !moment.is_drained => return,
            Some(row) => row.trouble.take(),
            None => None,
        };
        let stage = Stage::Claimed { epoch: moment.epoch };
        let mut row =
            Outgoing { effect: Some(effect.clone()), stage, token: mint(&mut self.next_token), trouble };
        match effect {
            Effect::Send { to, message } => {
                out.messages.push((to, message));
                row.complete(&key);
            }
            effect => {
                out.only_if_drained |= effect.needs_drained_inbox();
                out.dispatch.push(Dispatch::Do { key: key.clone(), token: row.token, effect });
            }
        }
        out.outbox.insert(key.clone(), Some(row.clone()));
        self.rows.insert(key, row);
    }
}

/// A level effect whose wanted value is no longer the one that its row holds.
fn is_new_value(key: &EffectKey, row: &Outgoing, effect: &Effect) -> bool {
    !key.is_once() && row.effect.as_ref() != Some(effect)
}

/// Whether an effect whose value did not change must be handed to a driver (again).
fn is_due(row: &Outgoing, moment: Moment) -> bool {
    match row.stage {
        Stage::Done => false,
        Stage::Waiting => row.trouble.as_ref().is_none_or(|trouble| trouble.next_try <= moment.now),
        // Wanted again before the driver answered.
        Stage::Cancelling { .. } => true,
        Stage::Claimed { .. } => false,
    }
}

/// The next token.
fn mint(next: &mut u64) -> u64 {
    *next += 1;
    *next - 1
}
