//! The loop itself.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::oneshot;
use towpath_core::cell::{Answer, CellId};
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::message::Message;
use towpath_core::run::RunEvent;
use towpath_core::turn::{EVENTS_PER_TURN_MAX, Intake, Turn};
use towpath_store::{Placed, Store, StoredCell, WriteError};

use super::slot::{AnyCell, AnyIntake};
use super::unit::{HEADS_MAX, Outcome, Part, Unit, UnitNumber};
use super::{Batch, Changed, Dispatcher, Engine, EngineEnd, Note, ReadCell, TOO_LARGE_REST_MS};
use crate::{faults, halts};

/// Notes taken in before the next round of turns: bounds how long a flood keeps turns from happening.
const NOTES_PER_ROUND_MAX: usize = 4096;
/// How long a cell rests after the store refused its write for a reason that may pass.
const REST: Duration = Duration::from_secs(1);
/// The number of what never lay in an inbox.
const NEVER_STORED: u64 = 0;
/// Wait for something to happen when no cell asked to be woken.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// A cell in memory.
struct Slot {
    cell: AnyCell,
    /// The newest inbox entry that the cell was given: an entry that was read from the store is not taken twice.
    seq: u64,
    /// The unit that has turns of it and is not durable yet.
    in_flight: Option<UnitNumber>,
    /// Its last unit was refused: the next turn is alone, so that what is wrong with one cell stops no other.
    is_alone: bool,
    /// What it wrote was too large, which it has heard.
    knows_too_large: bool,
    /// Its last turn left nothing to do.
    is_finished: bool,
    wake_at: Option<Timestamp>,
    reads: Vec<ReadCell>,
    /// What goes into its next turns, oldest first.
    batches: VecDeque<(Timestamp, Batch)>,
}

impl Slot {
    fn has_mail(&self) -> bool {
        self.cell.mail() > 0 || !self.batches.is_empty()
    }

    /// Whether the unit may have a turn of it: what another one has is not durable yet.
    fn is_free_for(&self, unit: &Unit) -> bool {
        self.in_flight.is_none_or(|number| number == unit.number)
    }

    /// Whether its turn in this unit takes in what is put behind its mail now.
    fn takes_in(&self, unit: &Unit) -> bool {
        self.is_free_for(unit)
            && !self.is_alone
            && !self.is_finished
            && self.cell.mail() < EVENTS_PER_TURN_MAX
    }

    /// Puts as many whole batches behind the inbox as the next turn takes in.
    fn attach(&mut self, unit: &mut Unit) {
        while let Some((at, batch)) = self.batches.pop_front() {
            if self.cell.mail() + batch.intakes.len() > EVENTS_PER_TURN_MAX && self.cell.mail() > 0 {
                self.batches.push_front((at, batch));
                break;
            }
            batch.intakes.into_iter().for_each(|intake| self.cell.push(NEVER_STORED, at, intake));
            unit.attach((batch.records, batch.bytes), batch.done);
        }
    }

    fn turn(&mut self, unit: &mut Unit) -> Turn {
        self.attach(unit);
        let turn = self.cell.turn(unit.now);
        self.is_finished = turn.write.finished;
        self.in_flight = Some(unit.number);
        turn
    }

    /// Nothing of what waits for its turn became durable.
    fn drop_batches(&mut self, why: &WriteError) {
        self.batches.drain(..).for_each(|(_, batch)| (batch.done)(Err(why.clone())));
    }
}

/// The state of the loop.
pub(super) struct Turns {
    engine: Engine,
    store: Arc<Store>,
    dispatcher: Arc<dyn Dispatcher>,
    epoch: Epoch,
    slots: HashMap<CellId, Slot>,
    /// Cells that have something to do.
    due: BTreeSet<CellId>,
    /// When cells asked to be looked at again.
    alarms: BTreeSet<(Timestamp, CellId)>,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// What could not be stored, with the time of its next try.
    again: Vec<(Timestamp, super::Again)>,
    when_quiet: Vec<oneshot::Sender<()>>,
    /// Cells that were loaded and have had no durable turn yet.
    unturned: BTreeSet<CellId>,
    when_turned: Vec<oneshot::Sender<()>>,
    /// Units that are with the writer.
    in_flight: usize,
    units: u64,
    stopping: bool,
}

impl Turns {
    pub fn load(
        engine: Engine,
        store: Arc<Store>,
        dispatcher: Arc<dyn Dispatcher>,
    ) -> Result<Turns, EngineEnd> {
        let epoch = store.epoch();
        let mut turns = Turns {
            engine,
            store,
            dispatcher,
            epoch,
            slots: HashMap::new(),
            due: BTreeSet::new(),
            alarms: BTreeSet::new(),
            waiting: HashMap::new(),
            again: Vec::new(),
            when_quiet: Vec::new(),
            unturned: BTreeSet::new(),
            when_turned: Vec::new(),
            in_flight: 0,
            units: 0,
            stopping: false,
        };
        let snapshot = turns.store.reader().snapshot().map_err(|error| unreadable(&CellId::Pool, error))?;
        let open = snapshot.open_cells().map_err(|error| unreadable(&CellId::Pool, error))?;
        drop(snapshot);
        for cell in open.into_iter().chain([CellId::Pool]) {
            turns.slot(&cell)?;
            turns.unturned.insert(cell.clone());
            turns.due.insert(cell);
        }
        Ok(turns)
    }

    pub fn run(&mut self, notes: &Receiver<Note>) -> Result<(), EngineEnd> {
        loop {
            self.take_notes(notes)?;
            if self.stopping && self.in_flight == 0 {
                return Ok(());
            }
            self.ring_alarms();
            self.store_again();
            self.round()?;
            let quiet = if self.in_flight == 0 { std::mem::take(&mut self.when_quiet) } else { Vec::new() };
            let turned =
                if self.unturned.is_empty() { std::mem::take(&mut self.when_turned) } else { Vec::new() };
            quiet.into_iter().chain(turned).for_each(|waiting| {
                let _ = waiting.send(());
            });
        }
    }

    fn take_notes(&mut self, notes: &Receiver<Note>) -> Result<(), EngineEnd> {
        let mut next = match self.due.is_empty() {
            true => match notes.recv_timeout(self.patience()) {
                Ok(note) => Some(note),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Note::Stop),
            },
            false => None,
        };
        for _ in 0..NOTES_PER_ROUND_MAX {
            match next.take().map_or_else(|| notes.try_recv(), Ok) {
                Ok(note) => self.take(note)?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        let alarms = self.alarms.first().map(|(at, _)| *at);
        let next = alarms.into_iter().chain(self.again.iter().map(|(at, ..)| *at)).min();
        let wait = |at: Timestamp| Duration::from_millis(at.millis_since(self.engine.clock.now()));
        next.map_or(IDLE_WAIT, wait).min(IDLE_WAIT)
    }

    fn rested(&self) -> Timestamp {
        Timestamp(self.engine.clock.now().0 + REST.as_millis() as i64)
    }

    fn store_again(&mut self) {
        let now = self.engine.clock.now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.again).into_iter().partition(|(at, _)| *at <= now);
        self.again = later;
        due.into_iter().for_each(|(_, again)| again(&self.engine));
    }

    fn take(&mut self, note: Note) -> Result<(), EngineEnd> {
        match note {
            Note::Delivered { at, intakes } => {
                intakes
                    .into_iter()
                    .try_for_each(|(cell, placed, intake)| self.push(&cell, placed, at, intake))?;
            }
            Note::Batch { at, batch } => {
                let cell = batch.cell.clone();
                self.slot(&cell)?.batches.push_back((at, batch));
                self.due.insert(cell);
            }
            Note::Committed(outcome) => self.committed(*outcome)?,
            Note::Await { command, answer } => {
                self.waiting.retain(|_, waiting| !waiting.is_closed());
                self.waiting.insert(command, answer);
            }
            Note::Read { cell, read } => self.read(&cell, read),
            Note::Again(again) => self.again.push((self.rested(), again)),
            Note::WhenQuiet(quiet) => self.when_quiet.push(quiet),
            Note::WhenTurned(turned) => self.when_turned.push(turned),
            Note::Stop => self.stopping = true,
        }
        Ok(())
    }

    fn read(&mut self, cell: &CellId, read: ReadCell) {
        match self.slots.get_mut(cell) {
            // What is in flight is not durable yet, so it is not shown yet.
            Some(slot) if slot.in_flight.is_some() => slot.reads.push(read),
            Some(slot) => read(Some(&slot.cell)),
            None => read(None),
        }
    }

    fn push(
        &mut self,
        cell: &CellId,
        placed: Placed,
        at: Timestamp,
        intake: AnyIntake,
    ) -> Result<(), EngineEnd> {
        let seq = placed.seq;
        if placed.is_first && !self.slots.contains_key(cell) {
            // Nothing is stored of it but what is in our hands: reading it would cost more than its turn.
            let slot = self.new_slot(cell, StoredCell::default())?;
            self.slots.insert(cell.clone(), slot);
        }
        let slot = self.slot(cell)?;
        if seq > slot.seq {
            slot.seq = seq;
            slot.cell.push(seq, at, intake);
        }
        self.due.insert(cell.clone());
        Ok(())
    }

    /// The cell's slot, read from the store if it is not in memory.
    fn slot(&mut self, cell: &CellId) -> Result<&mut Slot, EngineEnd> {
        if !self.slots.contains_key(cell) {
            let slot = self.read_slot(cell)?;
            self.slots.insert(cell.clone(), slot);
        }
        Ok(self.slots.get_mut(cell).expect("invariant: it was just put there"))
    }

    fn stored(&self, cell: &CellId) -> Result<StoredCell, EngineEnd> {
        let snapshot = self.store.reader().snapshot().map_err(|error| unreadable(cell, error))?;
        snapshot.cell(cell).map_err(|error| unreadable(cell, error))
    }

    fn read_slot(&self, cell: &CellId) -> Result<Slot, EngineEnd> {
        self.new_slot(cell, self.stored(cell)?)
    }

    fn new_slot(&self, cell: &CellId, stored: StoredCell) -> Result<Slot, EngineEnd> {
        let seq = stored.inbox.last().map_or(0, |entry| entry.seq);
        let loaded = AnyCell::load(cell, self.epoch, stored).map_err(|error| unreadable(cell, error))?;
        Ok(Slot {
            cell: loaded,
            seq,
            in_flight: None,
            is_alone: false,
            knows_too_large: false,
            is_finished: false,
            wake_at: None,
            reads: Vec::new(),
            batches: VecDeque::new(),
        })
    }

    fn ring_alarms(&mut self) {
        let now = self.engine.clock.now();
        while let Some((at, cell)) = self.alarms.pop_first() {
            if at > now {
                self.alarms.insert((at, cell));
                return;
            }
            if let Some(slot) = self.slots.get_mut(&cell) {
                slot.wake_at = None;
                self.due.insert(cell);
            }
        }
    }

    /// Turns of all that are due. Gates go alone: the store may refuse them.
    fn round(&mut self) -> Result<(), EngineEnd> {
        if self.stopping {
            self.due.clear();
            return Ok(());
        }
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for cell in std::mem::take(&mut self.due) {
            let is_alone = matches!(cell, CellId::Gate(_)) || self.slot(&cell)?.is_alone;
            if is_alone { alone.push(cell) } else { together.push(cell) }
        }
        for cell in alone {
            self.unit(&[cell])?;
        }
        together.chunks(HEADS_MAX).try_for_each(|heads| self.unit(heads))
    }

    /// A turn of each of these cells, and of those that what they say reaches at once.
    fn unit(&mut self, heads: &[CellId]) -> Result<(), EngineEnd> {
        self.units += 1;
        let mut unit = Unit::new(UnitNumber(self.units), self.engine.clock.now());
        let mut due: BTreeSet<CellId> = heads.iter().cloned().collect();
        while let Some(cell) = due.pop_first() {
            let slot = self.slot(&cell)?;
            if !slot.is_free_for(&unit) {
                // Whatever came in since is taken up when the commit returns.
                continue;
            }
            unit.is_alone = slot.is_alone;
            let mut turn = slot.turn(&mut unit);
            unit.is_alone |= turn.write.only_if_drained;
            for (to, message) in std::mem::take(&mut turn.write.messages) {
                match self
                    .slots
                    .get_mut(&to)
                    .filter(|slot| unit.may_take(&to, due.len()) && slot.takes_in(&unit))
                {
                    Some(slot) => {
                        slot.cell.push(NEVER_STORED, unit.now, received(&to, message));
                        due.insert(to);
                    }
                    None => turn.write.messages.push((to, message)),
                }
            }
            unit.push(turn);
        }
        if !unit.is_empty() {
            self.submit(unit);
        }
        Ok(())
    }

    fn submit(&mut self, unit: Unit) {
        faults::point("turn", "before-commit");
        self.in_flight += 1;
        let notes = self.engine.notes.clone();
        let (written, mut outcome) = unit.split();
        self.engine.writer.submit(
            written.load(),
            move |tx| written.write(tx),
            move |result| {
                outcome.result = result;
                // A loop that has ended has no more use for it.
                let _ = notes.send(Note::Committed(Box::new(outcome)));
            },
        );
    }

    fn committed(&mut self, mut outcome: Outcome) -> Result<(), EngineEnd> {
        self.in_flight -= 1;
        let told = outcome.result.as_ref().map(|_| ()).map_err(WriteError::clone);
        std::mem::take(&mut outcome.done).into_iter().for_each(|done| done(told.clone()));
        match std::mem::replace(&mut outcome.result, Err(WriteError::Closed)) {
            Ok(committed) => {
                faults::point("turn", "after-commit");
                outcome.parts.iter().for_each(|part| self.settle(part));
                let mut parts = outcome.parts.into_iter().zip(committed);
                parts.try_for_each(|(part, committed)| self.pass_on(part, outcome.now, &committed.messages))
            }
            Err(error) => self.refused(&outcome, error),
        }
    }

    fn refused(&mut self, outcome: &Outcome, error: WriteError) -> Result<(), EngineEnd> {
        let cells = outcome.parts.iter().map(|part| &part.cell);
        match error {
            WriteError::Fenced { .. } => return Err(EngineEnd::Fenced(error)),
            WriteError::NotDrained { .. } => {
                // The memory has claimed what the store refused: only the rows are true.
                for cell in cells {
                    self.reload(cell, &error)?;
                    self.due.insert(cell.clone());
                }
            }
            WriteError::Halted { .. } => {
                // Only a gate lands, and it is alone. It has not heard of the halt, or it would not have tried.
                for cell in cells {
                    self.reload(cell, &error)?;
                    self.engine.deliver_holding(cell.clone(), halts::holding());
                }
            }
            error => {
                for part in &outcome.parts {
                    let cell = &part.cell;
                    tracing::error!(%cell, %error, "a turn of {cell} was not written; it is tried again: {error}");
                    self.reload(cell, &error)?;
                    self.rest(part)?;
                }
            }
        }
        Ok(())
    }

    /// Lets a cell whose turn was refused try again later, and alone. What is too large would be so each time: a run hears
    /// of it, and ends with that as its reason. Any other cell can only wait until what it is about has become smaller.
    fn rest(&mut self, part: &Part) -> Result<(), EngineEnd> {
        let (cell, mut at) = (&part.cell, self.rested());
        let slot = self.slot(cell)?;
        slot.is_alone = true;
        if let Some(error) = &part.too_large {
            let knows = std::mem::replace(&mut slot.knows_too_large, true);
            at = Timestamp(at.0 + TOO_LARGE_REST_MS);
            if !knows && matches!(cell, CellId::Run(_)) {
                let event = RunEvent::TooLarge { why: error.to_string() };
                self.engine.deliver_surely(cell.clone(), AnyIntake::Run(Intake::Event(event)));
            }
        }
        self.wake(cell, at);
        Ok(())
    }

    /// Goes back to what the rows say: what the memory knows beyond them never happened.
    fn reload(&mut self, cell: &CellId, why: &WriteError) -> Result<(), EngineEnd> {
        let stored = self.stored(cell)?;
        let slot = self.slots.get_mut(cell).expect("invariant: a cell in flight stays in memory");
        slot.in_flight = None;
        slot.is_finished = false;
        slot.drop_batches(why);
        slot.seq = slot.seq.max(stored.inbox.last().map_or(0, |entry| entry.seq));
        slot.cell.reload(stored).map_err(|error| unreadable(cell, error))?;
        let reads = std::mem::take(&mut slot.reads);
        reads.into_iter().for_each(|read| read(Some(&slot.cell)));
        Ok(())
    }

    /// The slot after its commit: readers are served, a finished cell leaves the memory, mail asks for another turn.
    fn settle(&mut self, part: &Part) {
        let cell = &part.cell;
        self.unturned.remove(cell);
        let slot = self.slots.get_mut(cell).expect("invariant: a cell in flight stays in memory");
        slot.in_flight = None;
        slot.is_alone = false;
        slot.knows_too_large = false;
        let reads = std::mem::take(&mut slot.reads);
        reads.into_iter().for_each(|read| read(Some(&slot.cell)));
        let is_over = part.finished && !slot.has_mail();
        if slot.has_mail() {
            self.due.insert(cell.clone());
        } else if is_over {
            self.slots.remove(cell);
        }
        if let Some(at) = part.wake_at {
            self.wake(cell, at);
        }
        // Nobody listening is no trouble.
        let _ = self.engine.changes.send(Changed { cell: cell.clone(), is_over });
    }

    /// Puts the cell's alarm to `at`.
    fn wake(&mut self, cell: &CellId, at: Timestamp) {
        let Some(slot) = self.slots.get_mut(cell) else { return };
        if let Some(old) = slot.wake_at.replace(at) {
            self.alarms.remove(&(old, cell.clone()));
        }
        self.alarms.insert((at, cell.clone()));
    }

    /// After the commit: messages go to their cells, effects to their drivers, answers to the people who wait.
    fn pass_on(&mut self, part: Part, now: Timestamp, places: &[Placed]) -> Result<(), EngineEnd> {
        for ((to, message), placed) in part.messages.into_iter().zip(places) {
            let intake = received(&to, message);
            self.push(&to, *placed, now, intake)?;
        }
        for dispatch in part.dispatch {
            self.dispatcher.dispatch(&self.engine, &part.cell, dispatch);
        }
        for answer in part.answers {
            if let Some(waiting) = self.waiting.remove(&answer.command) {
                let _ = waiting.send(answer);
            }
        }
        Ok(())
    }
}

fn received(by: &CellId, message: Message) -> AnyIntake {
    AnyIntake::from_message(by, message).expect("invariant: cells send what their receivers take")
}

fn unreadable(cell: &CellId, error: impl ToString) -> EngineEnd {
    EngineEnd::Unreadable { cell: cell.clone(), why: error.to_string() }
}
