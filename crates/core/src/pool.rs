//! The pool cell: how many jobs run at once over all runs, and whose turn it is.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, CellId, CellState, Field, Notes, Row, RowError, Rows, Table};
use crate::effect::{Effect, EffectKey, Plan};
use crate::ids::{RunId, Timestamp};
use crate::message::{Demand, Message};

/// The pool cell.
#[derive(Debug)]
pub enum Pool {}

/// What can happen to the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolEvent {
    /// How many jobs the executors take at once.
    Capacity {
        /// Slots over all executors.
        slots: u64,
    },
    /// What a run wants and gives back.
    Demand(Demand),
}

/// One run's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    priority: u8,
    asked: u64,
    granted: u64,
    returned: u64,
    since: Timestamp,
}

impl Account {
    fn held(&self) -> u64 {
        self.granted.saturating_sub(self.returned)
    }

    fn wants_more(&self) -> bool {
        self.asked > self.granted
    }
}

/// Slots and accounts. Which run comes next is derived: larger priority, then the longer wait, then the run's id.
#[derive(Debug)]
pub struct PoolState {
    slots: Field<u64>,
    accounts: Table<RunId, Account>,
    line: BTreeSet<(Reverse<u8>, Timestamp, RunId)>,
    held: u64,
}

impl Cell for Pool {
    type State = PoolState;
    type Event = PoolEvent;

    fn apply(state: &mut PoolState, event: &PoolEvent, now: Timestamp) {
        match event {
            PoolEvent::Capacity { slots } => {
                if *state.slots != *slots {
                    *state.slots.edit() = *slots;
                }
            }
            PoolEvent::Demand(demand) => state.demand(demand, now),
        }
        state.grant();
    }

    fn plan(state: &PoolState, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        for (run, account) in state.accounts.map().iter().filter(|(_, account)| account.granted > 0) {
            let message = Message::Granted { total: account.granted };
            plan.owe(EffectKey::level("grant", run), Effect::Send { to: CellId::Run(run.clone()), message });
        }
        plan
    }
}

impl PoolState {
    /// Slots in use.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Slots in all.
    pub fn slots(&self) -> u64 {
        *self.slots
    }

    /// Runs that wait for a slot, next one first.
    pub fn waiting(&self) -> impl Iterator<Item = &RunId> {
        self.line.iter().map(|(_, _, run)| run)
    }

    fn demand(&mut self, demand: &Demand, now: Timestamp) {
        let old = self.accounts.remove(&demand.run);
        if let Some(old) = &old {
            self.line.remove(&place(&demand.run, old));
            self.held -= old.held();
        }
        // A run that is not known was granted exactly what it has given back: it has nothing now.
        let granted = old.as_ref().map_or(demand.returned, |old| old.granted);
        let account = Account {
            priority: demand.priority,
            asked: demand.asked,
            granted,
            returned: demand.returned.min(granted),
            since: old.map_or(now, |old| old.since),
        };
        if account.held() == 0 && !account.wants_more() {
            return;
        }
        self.held += account.held();
        if account.wants_more() {
            self.line.insert(place(&demand.run, &account));
        }
        self.accounts.insert(demand.run.clone(), account);
    }

    fn grant(&mut self) {
        while self.held < *self.slots {
            let Some(next) = self.line.first().cloned() else { return };
            let account = self.accounts.get_mut(&next.2).expect("invariant: the line names known runs");
            let free = *self.slots - self.held;
            let wanted = account.asked - account.granted;
            account.granted += wanted.min(free);
            self.held += wanted.min(free);
            if wanted <= free {
                self.line.remove(&next);
            }
        }
    }
}

fn place(run: &RunId, account: &Account) -> (Reverse<u8>, Timestamp, RunId) {
    (Reverse(account.priority), account.since, run.clone())
}

impl CellState for PoolState {
    fn new(_id: &CellId) -> Self {
        PoolState {
            slots: Field::new("slots", 0),
            accounts: Table::new("account"),
            line: BTreeSet::new(),
            held: 0,
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.slots.take(&mut rows);
        self.accounts.take(&mut rows);
        rows
    }

    fn put_row(&mut self, row: &Row) -> Result<(), RowError> {
        match self.slots.put(row)? || self.accounts.put(row)? {
            true => Ok(()),
            false => Err(RowError::new(&row.key, "no such row in a pool")),
        }
    }

    fn loaded(&mut self) {
        self.held = self.accounts.map().values().map(Account::held).sum();
        let waiting = self.accounts.map().iter().filter(|(_, account)| account.wants_more());
        self.line = waiting.map(|(run, account)| place(run, account)).collect();
    }

    fn take_notes(&mut self) -> Notes {
        Notes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64) -> RunId {
        format!("demo/main/{number}").parse().unwrap()
    }

    fn demand(number: u64, priority: u8, asked: u64, returned: u64) -> PoolEvent {
        PoolEvent::Demand(Demand { run: run(number), priority, asked, returned })
    }

    fn after(events: &[PoolEvent]) -> PoolState {
        let mut state = PoolState::new(&CellId::Pool);
        for (at, event) in events.iter().enumerate() {
            Pool::apply(&mut state, event, Timestamp(at as i64));
        }
        state
    }

    fn granted(state: &PoolState, number: u64) -> u64 {
        state.accounts.get(&run(number)).map_or(0, |account| account.granted)
    }

    #[test]
    fn slots_go_to_the_urgent_then_to_the_patient() {
        let slots = PoolEvent::Capacity { slots: 2 };
        let state =
            after(&[slots, demand(1, 0, 2, 0), demand(2, 0, 2, 0), demand(3, 9, 1, 0), demand(1, 0, 2, 1)]);
        assert_eq!((granted(&state, 1), granted(&state, 2), granted(&state, 3)), (2, 0, 1));
        assert_eq!(state.waiting().collect::<Vec<_>>(), [&run(2)]);
    }

    #[test]
    fn a_run_that_is_done_leaves_no_account_and_a_late_repeat_gets_nothing() {
        let slots = PoolEvent::Capacity { slots: 2 };
        let state = after(&[slots, demand(1, 0, 2, 0), demand(1, 0, 2, 2), demand(1, 0, 2, 2)]);
        assert_eq!((state.held(), state.accounts.map().len()), (0, 0));
    }

    #[test]
    fn fewer_slots_take_nothing_back() {
        let state = after(&[
            PoolEvent::Capacity { slots: 4 },
            demand(1, 0, 4, 0),
            PoolEvent::Capacity { slots: 1 },
            demand(2, 0, 1, 0),
            demand(1, 0, 4, 3),
        ]);
        assert_eq!((granted(&state, 1), granted(&state, 2), state.held()), (4, 0, 1));
    }
}
