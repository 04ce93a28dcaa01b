//! The store against a model in memory, over any sequence of operations, restarts and power losses.

use std::collections::BTreeMap;

use proptest::prelude::*;
use towpath_core::cell::{CellId, Row};
use towpath_core::effect::{Effect, EffectKey};
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::message::Message;
use towpath_core::outbox::{Outgoing, Stage};
use towpath_core::pool::PoolEvent;
use towpath_core::turn::{Intake, WriteSet};
use towpath_store::{Delivery, Store, WriteError};

use crate::cells::{commit, deliver, seqs};
use crate::subject::{Place, SUBJECT, act, write_set};

/// One step. Cells, keys and amounts are small, so that steps meet each other.
#[derive(Debug, Clone)]
enum Op {
    Turn(TurnOp),
    /// Several deliveries, all or none.
    Deliver(Vec<(u8, u64)>),
    /// A turn and a setting together; the unit is refused at its end if `refused`.
    Together {
        turn: TurnOp,
        refused: bool,
    },
    Restart,
    PowerLoss,
}

#[derive(Debug, Clone)]
struct TurnOp {
    cell: u8,
    rows: Vec<(u8, Option<u8>)>,
    outbox: Vec<(u8, Option<u8>)>,
    messages: Vec<u8>,
    acts: u8,
    /// How many inbox entries it has seen; more than there are means all.
    seen: u8,
    drained: bool,
    /// How far its epoch is behind the server's; negative is ahead.
    behind: i8,
    finished: bool,
}

fn turn_op() -> impl Strategy<Value = TurnOp> {
    let changes = || prop::collection::vec((0..4_u8, prop::option::of(any::<u8>())), 0..4);
    let behind = prop_oneof![8 => Just(0_i8), 1 => Just(1), 1 => Just(-1)];
    let parts = (0..3_u8, changes(), changes(), prop::collection::vec(0..3_u8, 0..3), 0..3_u8);
    (parts, 0..4_u8, any::<bool>(), behind, prop::bool::weighted(0.1)).prop_map(
        |((cell, rows, outbox, messages, acts), seen, drained, behind, finished)| TurnOp {
            cell,
            rows,
            outbox,
            messages,
            acts,
            seen,
            drained,
            behind,
            finished,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => turn_op().prop_map(Op::Turn),
        4 => prop::collection::vec((0..3_u8, any::<u32>().prop_map(u64::from)), 1..4).prop_map(Op::Deliver),
        3 => (turn_op(), any::<bool>()).prop_map(|(turn, refused)| Op::Together { turn, refused }),
        1 => Just(Op::Restart),
        1 => Just(Op::PowerLoss),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct ModelCell {
    head: Option<(Epoch, bool)>,
    rows: BTreeMap<String, String>,
    outbox: BTreeMap<String, u64>,
    inbox: Vec<(u64, String)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    cells: BTreeMap<u8, ModelCell>,
    leaves: usize,
    settings: usize,
}

fn cell_id(cell: u8) -> CellId {
    ["gate:demo/main", "run:demo/main/1", "pool"][usize::from(cell)].parse().unwrap()
}

fn message(number: u64) -> Message {
    Message::Granted { total: number }
}

fn outgoing(token: u64) -> Outgoing {
    let CellId::Gate(gate) = cell_id(0) else { panic!("a gate is a gate") };
    let effect = Some(Effect::Alert { gate, text: "look".into() });
    Outgoing { effect, stage: Stage::Claimed { epoch: Epoch(1) }, token, trouble: None }
}

struct World {
    place: Place,
    store: Option<Store>,
    model: Model,
}

impl World {
    fn new() -> World {
        let place = Place::new();
        let store = Some(SUBJECT.open(&place).unwrap());
        World { place, store, model: Model::default() }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Turn(turn) => {
                let write = self.write_set(turn);
                let outcome = commit(self.store(), write.clone()).map(|committed| seqs(&committed.messages));
                self.expect_turn(&write, outcome);
            }
            Op::Deliver(events) => self.deliver(events),
            Op::Together { turn, refused } => self.together(turn, *refused),
            Op::Restart => {
                self.store.take().unwrap().close();
                self.store = Some(SUBJECT.open(&self.place).unwrap());
            }
            Op::PowerLoss => {
                let lost = SUBJECT.after_power_loss(&self.place);
                self.store = None;
                self.place = lost;
                self.store = Some(SUBJECT.open(&self.place).unwrap());
            }
        }
    }

    fn write_set(&self, turn: &TurnOp) -> WriteSet {
        let epoch = Epoch(self.store().epoch().0.saturating_add_signed(-i64::from(turn.behind)));
        let inbox = self.model.cells.get(&turn.cell).map(|cell| cell.inbox.clone()).unwrap_or_default();
        let seen = inbox.iter().take(usize::from(turn.seen)).next_back().map(|(seq, _)| *seq);
        let rows: BTreeMap<_, _> = turn.rows.iter().copied().collect();
        let outbox: BTreeMap<_, _> = turn.outbox.iter().copied().collect();
        let as_row = |(key, value): (u8, Option<u8>)| Row {
            key: format!("t/{key}"),
            value: value.map(|value| value.to_string()),
        };
        let as_effect = |(key, value): (u8, Option<u8>)| {
            (EffectKey::level("k", key), value.map(|value| outgoing(value.into())))
        };
        WriteSet {
            rows: rows.into_iter().map(as_row).collect(),
            consumed: seen,
            only_if_drained: turn.drained,
            outbox: outbox.into_iter().map(as_effect).collect(),
            messages: turn.messages.iter().map(|to| (cell_id(*to), message((*to).into()))).collect(),
            acts: (0..turn.acts).map(|number| act(&number.to_string())).collect(),
            finished: turn.finished,
            ..write_set(&cell_id(turn.cell), epoch)
        }
    }

    fn deliver(&mut self, events: &[(u8, u64)]) {
        let intake = |slots: u64| Intake::Event(PoolEvent::Capacity { slots });
        let now = Timestamp(1);
        let deliveries = events.iter().map(|(to, slots)| Delivery::new(&cell_id(*to), now, &intake(*slots)));
        let numbers = deliver(self.store(), deliveries.collect()).unwrap();
        for ((to, slots), seq) in events.iter().zip(numbers) {
            let body = serde_json::to_string(&intake(*slots)).unwrap();
            self.model.cells.entry(*to).or_default().inbox.push((seq, body));
        }
    }

    fn together(&mut self, turn: &TurnOp, refused: bool) {
        let write = self.write_set(turn);
        let encoded = write.clone().into();
        let name = format!("n/{}", self.model.settings);
        let outcome = self.store().writer().write(move |tx| {
            let committed = tx.turn(&encoded)?;
            tx.put_setting(&name, "1")?;
            match refused {
                true => Err(WriteError::Missing { what: "consent".into() }),
                false => Ok(seqs(&committed.messages)),
            }
        });
        if refused && outcome == Err(WriteError::Missing { what: "consent".into() }) {
            return;
        }
        self.model.settings += usize::from(outcome.is_ok());
        self.expect_turn(&write, outcome);
    }

    /// Says what the store should have answered, and does the same to the model.
    fn expect_turn(&mut self, write: &WriteSet, outcome: Result<Vec<u64>, WriteError>) {
        let index = (0..3).find(|&cell| cell_id(cell) == write.cell).unwrap();
        let cell = self.model.cells.entry(index).or_default();
        let unseen = cell.inbox.iter().any(|(seq, _)| *seq > write.consumed.unwrap_or(0));
        let server = self.store.as_ref().unwrap().epoch();
        let name = write.cell.to_string();
        if write.only_if_drained && unseen {
            return assert_eq!(outcome, Err(WriteError::NotDrained { cell: name }));
        }
        if write.epoch < server {
            return assert_eq!(outcome, Err(WriteError::Fenced { what: "server".into(), by: server }));
        }
        if let Some((by, _)) = cell.head.filter(|(by, _)| *by > write.epoch) {
            return assert_eq!(outcome, Err(WriteError::Fenced { what: name, by }));
        }
        cell.head = Some((write.epoch, write.finished));
        cell.inbox.retain(|(seq, _)| *seq > write.consumed.unwrap_or(0));
        for row in &write.rows {
            match &row.value {
                Some(value) => drop(cell.rows.insert(row.key.clone(), value.clone())),
                None => drop(cell.rows.remove(&row.key)),
            }
        }
        for (key, row) in &write.outbox {
            match row {
                Some(row) => drop(cell.outbox.insert(key.to_string(), row.token)),
                None => drop(cell.outbox.remove(key.as_str())),
            }
        }
        let numbers = outcome.unwrap();
        assert_eq!(numbers.len(), write.messages.len());
        for ((to, message), seq) in write.messages.iter().zip(numbers) {
            let to = (0..3).find(|&cell| cell_id(cell) == *to).unwrap();
            let body = serde_json::to_string(&Intake::Event(message)).unwrap();
            self.model.cells.entry(to).or_default().inbox.push((seq, body));
        }
        self.model.leaves += write.acts.len();
    }

    /// The store's own state, in the model's words.
    fn observed(&self) -> Model {
        let view = self.store().reader().snapshot().unwrap();
        let cell = |number: u8| {
            let cell = view.cell(&cell_id(number)).unwrap();
            let found = ModelCell {
                head: cell.head.map(|head| (head.epoch, head.finished)),
                rows: cell.rows.into_iter().map(|row| (row.key, row.value.unwrap())).collect(),
                outbox: cell.outbox.into_iter().map(|(key, row)| (key.to_string(), row.token)).collect(),
                inbox: cell.inbox.into_iter().map(|entry| (entry.seq, entry.body)).collect(),
            };
            (number, found)
        };
        let settings = (0..).take_while(|number| view.setting(&format!("n/{number}")).unwrap().is_some());
        Model {
            cells: (0..3).map(cell).collect(),
            leaves: view.leaf_count().unwrap() as usize,
            settings: settings.count(),
        }
    }

    fn check(&self) {
        let mut model = self.model.clone();
        for cell in 0..3 {
            model.cells.entry(cell).or_default();
        }
        assert_eq!(self.observed(), model);
        let open = self.store().reader().snapshot().unwrap().open_cells().unwrap();
        for (number, cell) in &model.cells {
            let has_work = !cell.inbox.is_empty() || cell.head.is_some_and(|(_, finished)| !finished);
            assert_eq!(open.contains(&cell_id(*number)), has_work, "cell {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 1..24)) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
            world.check();
        }
    }
}
