//! The turn: the only place where a cell's facts become rows, effects, messages and leaves. Pure; the server and the
//! simulator both drive it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::cell::{Answer, Cell, CellId, CellState, Row, RowError};
use crate::effect::EffectKey;
use crate::ids::{Epoch, Timestamp};
use crate::message::Message;
use crate::outbox::{Dispatch, Moment, Outbox, Outgoing, Reconciled, Stage, TOKENS_PER_EPOCH, Trouble};

/// Events that one turn drains at most, so that a flood in one cell cannot starve the others.
pub const EVENTS_PER_TURN_MAX: usize = 256;

/// One entry of an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered<E> {
    /// The store's number for it, from 1; grows within a cell. 0: it comes with its turn and was never stored.
    pub seq: u64,
    /// When it was taken in.
    pub at: Timestamp,
    /// What it says.
    pub intake: Intake<E>,
}

/// What can lie in an inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intake<E> {
    /// A fact, command or message.
    Event(E),
    /// An effect was carried out; the fact is its result.
    Done {
        /// Which effect.
        key: EffectKey,
        /// Which try of it: results of an older try are not accepted.
        token: u64,
        /// Its result; an effect without one has `None`.
        #[serde(skip_serializing_if = "Option::is_none", default = "none")]
        result: Option<E>,
    },
    /// An effect could not be carried out this time.
    Trouble {
        /// Which effect.
        key: EffectKey,
        /// Which try of it.
        token: u64,
        /// What went wrong and when it is tried again.
        trouble: Trouble,
    },
}

fn none<E>() -> Option<E> {
    None
}

/// What one turn wants made durable, all or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteSet {
    /// The cell.
    pub cell: CellId,
    /// Refused by the store if the cell was ever written at a higher one (I13).
    pub epoch: Epoch,
    /// Changed rows.
    pub rows: Vec<Row>,
    /// Inbox entries up to this one are consumed.
    pub consumed: Option<u64>,
    /// Refused if the inbox holds an entry beyond `consumed`, and while landing is halted.
    pub only_if_drained: bool,
    /// Outbox rows as they are to be; `None` deletes.
    pub outbox: Vec<(EffectKey, Option<Outgoing>)>,
    /// For other cells' inboxes, in this order.
    pub messages: Vec<(CellId, Message)>,
    /// Leaves of the audit log.
    pub acts: Vec<Act>,
    /// When to plan again though nothing happens.
    pub wake_at: Option<Timestamp>,
    /// The cell has nothing left to do, ever: it need not be loaded at a start.
    pub finished: bool,
    /// The time of the turn, which is also the leaves' and messages' time.
    pub now: Timestamp,
}

impl WriteSet {
    /// Becomes what this turn and the cell's next one write together, where no commit lies between them.
    pub fn append(&mut self, next: WriteSet) {
        let rows: BTreeMap<_, _> =
            self.rows.drain(..).chain(next.rows).map(|row| (row.key, row.value)).collect();
        self.rows = rows.into_iter().map(|(key, value)| Row { key, value }).collect();
        let outbox: BTreeMap<_, _> = self.outbox.drain(..).chain(next.outbox).collect();
        self.outbox = outbox.into_iter().collect();
        self.consumed = self.consumed.max(next.consumed);
        self.only_if_drained |= next.only_if_drained;
        self.messages.extend(next.messages);
        self.acts.extend(next.acts);
        (self.wake_at, self.finished, self.now) = (next.wake_at, next.finished, next.now);
    }
}

/// What a turn did.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// To be committed before anything below leaves the process.
    pub write: WriteSet,
    /// For the drivers.
    pub dispatch: Vec<Dispatch>,
    /// For the people who wait.
    pub answers: Vec<Answer>,
}

/// A cell in memory.
#[derive(Debug, Clone)]
pub struct Live<C: Cell> {
    /// Its address.
    pub id: CellId,
    /// What it knows.
    pub state: C::State,
    /// What it owes.
    pub outbox: Outbox,
    /// Who drives it.
    pub epoch: Epoch,
}

impl<C: Cell> Live<C> {
    /// A cell as its rows say. Whatever was claimed before is handed out again by the first turn. The store must have
    /// fenced off lower epochs before the rows were read.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn load(
        id: CellId,
        epoch: Epoch,
        rows: &[Row],
        outbox: impl IntoIterator<Item = (EffectKey, Outgoing)>,
    ) -> Result<Self, RowError> {
        let state = read_state::<C>(&id, rows)?;
        let outbox = Outbox::load(outbox, epoch.0 * TOKENS_PER_EPOCH);
        Ok(Live { id, state, outbox, epoch })
    }

    /// Goes back to what the rows say, after a write set of this memory was refused or its end is not known. Effects
    /// that are with drivers are handed out again, as it may be that a claim became durable and no driver ever got it.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn reload(
        &mut self,
        rows: &[Row],
        outbox: impl IntoIterator<Item = (EffectKey, Outgoing)>,
    ) -> Result<(), RowError> {
        self.state = read_state::<C>(&self.id, rows)?;
        self.outbox = Outbox::load(outbox, self.outbox.next_token);
        Ok(())
    }

    /// Drains, applies, lets time pass, plans once and reconciles. Changes the memory; if the write set is refused, reload.
    pub fn turn(&mut self, inbox: &[Delivered<C::Event>], now: Timestamp) -> Turn {
        // The store would refuse a landing whose inbox is not drained, and every turn after it would be the same.
        let is_drained = inbox.len() <= EVENTS_PER_TURN_MAX;
        let inbox = &inbox[..inbox.len().min(EVENTS_PER_TURN_MAX)];
        let mut changed = Vec::new();
        for entry in inbox {
            self.take_in(entry, &mut changed);
        }
        C::time_passed(&mut self.state, now);
        let mut plan = C::plan(&self.state, now);
        let mut out = Reconciled::default();
        self.outbox.reconcile(&mut plan, Moment { epoch: self.epoch, now, is_drained }, &mut out);
        out.outbox.extend(changed.into_iter().map(|key| (key.clone(), self.outbox.rows.get(&key).cloned())));
        for dispatch in &out.dispatch {
            if let Dispatch::Do { effect, .. } = dispatch {
                self.state.handed_out(effect, now);
            }
        }
        let notes = self.state.take_notes();
        out.messages.extend(notes.messages);
        let finished = self.state.is_finished() && self.outbox.forget_done(&mut out);
        let write = WriteSet {
            cell: self.id.clone(),
            epoch: self.epoch,
            rows: self.state.take_rows(),
            consumed: inbox.iter().map(|entry| entry.seq).max().filter(|seq| *seq > 0),
            only_if_drained: out.only_if_drained,
            outbox: out.outbox.into_iter().collect(),
            messages: out.messages,
            acts: notes.acts,
            wake_at: plan.wake_at,
            finished,
            now,
        };
        Turn { write, dispatch: out.dispatch, answers: notes.answers }
    }

    fn take_in(&mut self, entry: &Delivered<C::Event>, changed: &mut Vec<EffectKey>) {
        match &entry.intake {
            Intake::Event(event) => C::apply(&mut self.state, event, entry.at),
            Intake::Done { key, token, result } => {
                let Some(row) = self.outbox.current(key, *token) else { return };
                changed.push(key.clone());
                match row.stage {
                    // A cancel's answer says what is true, not that it was done: should it be owed again, it is a new order.
                    Stage::Cancelling { .. } => drop(self.outbox.rows.remove(key)),
                    _ => {
                        let done = row.effect.clone();
                        row.complete(key);
                        done.iter().for_each(|effect| self.state.carried_out(effect));
                    }
                }
                if let Some(result) = result {
                    C::apply(&mut self.state, result, entry.at);
                }
            }
            Intake::Trouble { key, token, trouble } => {
                let Some(row) = self.outbox.current(key, *token) else { return };
                row.stage = Stage::Waiting;
                row.trouble = Some(trouble.clone());
                changed.push(key.clone());
            }
        }
    }
}

fn read_state<C: Cell>(id: &CellId, rows: &[Row]) -> Result<C::State, RowError> {
    let mut state = C::State::new(id);
    rows.iter().try_for_each(|row| state.put_row(row))?;
    state.loaded();
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::gate::Gate;
    use crate::ids::GateId;
    use crate::outbox::TroubleClass;

    /// A store of one cell.
    #[derive(Default)]
    struct Stored {
        rows: BTreeMap<String, String>,
        outbox: BTreeMap<EffectKey, Outgoing>,
    }

    impl Stored {
        fn commit(&mut self, write: &WriteSet) {
            for row in &write.rows {
                match &row.value {
                    Some(value) => drop(self.rows.insert(row.key.clone(), value.clone())),
                    None => drop(self.rows.remove(&row.key)),
                }
            }
            for (key, row) in &write.outbox {
                match row {
                    Some(row) => drop(self.outbox.insert(key.clone(), row.clone())),
                    None => drop(self.outbox.remove(key)),
                }
            }
        }

        fn rows(&self) -> Vec<Row> {
            let row = |(key, value): (&String, &String)| Row { key: key.clone(), value: Some(value.clone()) };
            self.rows.iter().map(row).collect()
        }
    }

    fn token(turn: &Turn) -> u64 {
        match turn.dispatch.as_slice() {
            [Dispatch::Do { token, .. }] => *token,
            other => panic!("not one effect: {other:?}"),
        }
    }

    #[test]
    fn a_claim_that_no_driver_got_is_handed_out_again_after_a_reload_and_a_restart() {
        let id = CellId::Gate("demo/main".parse::<GateId>().unwrap());
        let mut stored = Stored::default();
        let mut live = Live::<Gate>::load(id.clone(), Epoch(1), &[], []).unwrap();
        let first = live.turn(&[], Timestamp(1));
        // The commit became durable, but its answer was an error.
        stored.commit(&first.write);
        live.reload(&stored.rows(), stored.outbox.clone()).unwrap();
        let again = live.turn(&[], Timestamp(2));
        stored.commit(&again.write);
        assert!(token(&again) > token(&first));
        assert_eq!(live.turn(&[], Timestamp(3)).dispatch, []);

        let mut other = Live::<Gate>::load(id, Epoch(2), &stored.rows(), stored.outbox.clone()).unwrap();
        let after = other.turn(&[], Timestamp(4));
        assert!(token(&after) > token(&again));
        let Dispatch::Do { key, .. } = &after.dispatch[0] else { panic!("it is to be done") };
        let late = Intake::Done { key: key.clone(), token: token(&again), result: None };
        other.turn(&[Delivered { seq: 1, at: Timestamp(5), intake: late }], Timestamp(5));
        assert_eq!(other.outbox.rows[key].stage, Stage::Claimed { epoch: Epoch(2) });
    }

    #[test]
    fn an_effect_that_failed_and_is_no_longer_owed_ends_by_its_cancels_answer() {
        let mut live =
            Live::<Gate>::load(CellId::Gate("demo/main".parse().unwrap()), Epoch(1), &[], []).unwrap();
        let mut told = |intakes: Vec<Intake<crate::gate::GateEvent>>, now: i64| {
            let inbox: Vec<_> = (1..)
                .zip(intakes)
                .map(|(seq, intake)| Delivered { seq, at: Timestamp(now), intake })
                .collect();
            live.turn(&inbox, Timestamp(now))
        };
        let Some(Dispatch::Do { key, token, .. }) = told(vec![], 1).dispatch.pop() else { panic!("a read") };
        let next_try = Timestamp(500);
        let trouble = Trouble { class: TroubleClass::Transient, why: "down".into(), tries: 1, next_try };
        let trouble = Intake::Trouble { key: key.clone(), token, trouble };
        // Another read, of a driver of old, makes this one unnecessary.
        let read = crate::gate::ForgeRead {
            began: Timestamp(2),
            landed: None,
            snapshot: crate::gate::Snapshot {
                tip: None,
                keeps_landed: true,
                begun_by: BTreeSet::new(),
                changes: vec![],
                unreadable: BTreeMap::new(),
                people: BTreeMap::new(),
            },
        };
        let read = Intake::Event(crate::gate::GateEvent::ForgeRead(Box::new(read)));
        assert_eq!(told(vec![trouble, read], 3).dispatch, []);
        let turn = told(vec![], 500);
        let [Dispatch::Cancel { key: of, token, .. }] = turn.dispatch.as_slice() else { panic!("a cancel") };
        assert_eq!(*of, key);
        let done = Intake::Done { key: key.clone(), token: *token, result: None };
        assert_eq!(told(vec![done], 501).write.outbox, [(key, None)]);
    }

    #[test]
    fn turns_that_are_written_together_leave_what_they_leave_one_by_one() {
        let mut live =
            Live::<Gate>::load(CellId::Gate("demo/main".parse().unwrap()), Epoch(1), &[], []).unwrap();
        let first = live.turn(&[], Timestamp(1));
        let Some(Dispatch::Do { key, token, .. }) = first.dispatch.first().cloned() else { panic!("a read") };
        let trouble =
            Trouble { class: TroubleClass::Gone, why: "gone".into(), tries: 1, next_try: Timestamp(9) };
        let intake = Intake::Trouble { key, token, trouble };
        let bell = crate::gate::Bell { state_changed: true, ..Default::default() };
        let bell = Intake::Event(crate::gate::GateEvent::Bell(bell));
        let entry = |seq, intake| Delivered { seq, at: Timestamp(2), intake };
        let second = live.turn(&[entry(4, intake), entry(7, bell)], Timestamp(2));
        let third = live.turn(&[], Timestamp(3));
        let (mut alone, mut together) = (Stored::default(), Stored::default());
        let turns = [first.write, second.write, third.write];
        turns.iter().for_each(|write| alone.commit(write));
        let whole = turns.into_iter().reduce(|mut whole, next| {
            whole.append(next);
            whole
        });
        let whole = whole.unwrap();
        together.commit(&whole);
        assert!(!whole.rows.is_empty() && !whole.outbox.is_empty());
        assert_eq!((together.rows, together.outbox), (alone.rows, alone.outbox));
        assert_eq!((whole.consumed, whole.now), (Some(7), Timestamp(3)));
    }

    #[test]
    fn tokens_of_a_later_epoch_are_higher_even_if_no_row_is_left() {
        let id = CellId::Gate("demo/main".parse::<GateId>().unwrap());
        let first = Live::<Gate>::load(id.clone(), Epoch(1), &[], []).unwrap().turn(&[], Timestamp(1));
        let second = Live::<Gate>::load(id, Epoch(2), &[], []).unwrap().turn(&[], Timestamp(1));
        assert!(token(&second) > token(&first));
    }
}
