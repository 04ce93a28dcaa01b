//! The turn loop: one thread that owns every cell in memory, takes in what has become durable, and lets nothing out
//! before its own commit has returned.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use tokio::sync::{broadcast, oneshot};
use towpath_core::cell::{Answer, CellId, Refusal};
use towpath_core::environment::Environment;
use towpath_core::gate::{Command, Gate, GateEvent, Verb};
use towpath_core::ids::{EnvironmentId, GateId, RunId, Timestamp};
use towpath_core::outbox::{Dispatch, Trouble, TroubleClass};
use towpath_core::policy::Actor;
use towpath_core::pool::Pool;
use towpath_core::run::Run;
use towpath_core::turn::{EVENTS_PER_TURN_MAX, Intake, Live};
use towpath_store::{Delivery, Load, Placed, Store, Tx, WriteError, Writer};

use crate::clock::Clock;

mod slot;
#[cfg(test)]
mod tests;
mod turns;
mod unit;

pub use slot::AnyIntake;

/// Cells whose change a slow listener may miss before it is told to look at everything again.
const CHANGES_BUFFERED: usize = 1024;

/// How long an effect rests whose result the store does not take: what it is about has to become smaller first.
const TOO_LARGE_REST_MS: i64 = 60_000;

/// Bytes of what holds for a cell, roughly: the settings of a gate, or a sentence.
const HOLDING_BYTES: usize = 4 << 10;

/// A cell was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub cell: CellId,
    /// It is finished: nothing of it is in memory any more.
    pub is_over: bool,
}

/// Where dispatches go. A driver answers by [`Engine::deliver`].
pub trait Dispatcher: Send + Sync + 'static {
    /// Takes over an instruction. Returns at once.
    fn dispatch(&self, engine: &Engine, cell: &CellId, dispatch: Dispatch);
}

/// Why the turn loop ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineEnd {
    /// Another server has taken over the data.
    #[error("another server has taken over: {0}")]
    Fenced(WriteError),
    /// A cell cannot be read any more.
    #[error("cell `{cell}` cannot be read: {why}")]
    Unreadable {
        /// Which.
        cell: CellId,
        /// The store's words.
        why: String,
    },
}

/// The way to the turn loop. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    notes: Sender<Note>,
    writer: Writer,
    clock: Clock,
    changes: broadcast::Sender<Changed>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

/// Facts for one cell that go into its next turn without lying in its inbox first, durable with that turn or not at all:
/// for facts that are told again until they are acknowledged, as the ends of jobs are.
pub struct Batch {
    /// Whose.
    pub cell: CellId,
    /// The facts. At most [`BATCH_MAX`].
    pub intakes: Vec<AnyIntake>,
    /// Written in the turn's transaction. Fails only as the disk does: what it refuses, it refuses for its whole group.
    pub records: Records,
    /// Bytes that the records write, roughly.
    pub bytes: usize,
    /// Hears of the commit, or why there was none.
    pub done: Done,
}

/// Writes rows beside a cell's own.
pub type Records = Box<dyn FnOnce(&mut Tx<'_>) -> Result<(), WriteError> + Send>;

/// Hears of a commit, or why there was none.
pub type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// Facts in one [`Batch`] at most.
pub const BATCH_MAX: usize = EVENTS_PER_TURN_MAX;

/// Something for a cell's inbox that holds only for a time, as it is when it gets there; `None`: there is nothing to say.
pub type Holding = Arc<dyn Fn(&Tx<'_>) -> Result<Option<AnyIntake>, WriteError> + Send + Sync>;

/// What the loop is told.
enum Note {
    /// Something became durable in cells' inboxes, all at once.
    Delivered { at: Timestamp, intakes: Vec<(CellId, Placed, AnyIntake)> },
    /// Something goes into a cell's next turn.
    Batch { at: Timestamp, batch: Batch },
    /// Turns were committed, or refused.
    Committed(Box<unit::Outcome>),
    /// Somebody waits for the answer to a command.
    Await { command: u64, answer: oneshot::Sender<Answer> },
    /// Somebody wants to look at a cell.
    Read { cell: CellId, read: ReadCell },
    /// Something could not be stored: try again after a rest.
    Again(Again),
    /// Somebody wants to know when nothing is in flight.
    WhenQuiet(oneshot::Sender<()>),
    /// Somebody wants to know when every cell that was loaded has had a turn that is durable.
    WhenTurned(oneshot::Sender<()>),
    /// End once nothing is in flight.
    Stop,
}

/// Done after a rest.
type Again = Box<dyn FnOnce(&Engine) + Send>;

/// Looks at a cell; `None`: it is not in memory.
type ReadCell = Box<dyn FnOnce(Option<&slot::AnyCell>) + Send>;

/// The loop's thread.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<Result<(), EngineEnd>>,
    notes: Sender<Note>,
    begin: Sender<()>,
}

impl Engine {
    /// Loads every open cell. The loop has its first turn after [`Running::begin`]; what is delivered before waits for it.
    ///
    /// # Errors
    /// A cell cannot be read.
    pub fn load(store: Arc<Store>, dispatcher: Arc<dyn Dispatcher>) -> Result<(Engine, Running), EngineEnd> {
        let (notes, inbox) = mpsc::channel();
        let writer = store.writer().clone();
        let clock = Clock::new(writer.clone());
        let (changes, _) = broadcast::channel(CHANGES_BUFFERED);
        let engine = Engine { notes: notes.clone(), writer, clock, changes };
        let mut turns = turns::Turns::load(engine.clone(), store, dispatcher)?;
        let (begin, begins) = mpsc::channel();
        let loops = move || match begins.recv() {
            Ok(()) => turns.run(&inbox),
            // It is stopped before it has begun.
            Err(mpsc::RecvError) => Ok(()),
        };
        let thread = std::thread::Builder::new().name("turns".into()).spawn(loops);
        let thread = thread.expect("invariant: a thread can be started when the server starts");
        Ok((engine, Running { thread, notes, begin }))
    }

    /// The clock that stamps what is taken in.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The writer, for records that commit beside the cells.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Tells of every cell that was committed.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Makes something durable in a cell's inbox; `done` hears of the commit, or of the refusal.
    pub fn deliver(
        &self,
        cell: CellId,
        intake: AnyIntake,
        done: impl FnOnce(Result<(), WriteError>) + Send + 'static,
    ) {
        self.deliver_with(vec![(cell, intake)], |_| Ok(()), done);
    }

    /// Makes something durable in a cell's inbox, however often it takes: for the results of effects, which nobody
    /// would repeat, and for what is true whenever it comes. A result that the store never takes becomes trouble that says so.
    pub fn deliver_surely(&self, cell: CellId, intake: AnyIntake) {
        let engine = self.clone();
        let again = (cell.clone(), intake.clone());
        self.deliver(cell, intake, move |outcome| match outcome {
            // The next start hands the effect out again.
            Ok(()) | Err(WriteError::Closed | WriteError::Fenced { .. }) => {}
            Err(error @ WriteError::TooLarge { .. }) => {
                let (cell, intake) = again;
                tracing::error!(%cell, %error, "a result for {cell} is never stored: {error}");
                if let Some(trouble) = intake.as_trouble(engine.too_large(&error)) {
                    engine.deliver_surely(cell, trouble);
                }
            }
            Err(error) => {
                let (cell, intake) = again;
                tracing::error!(%cell, %error, "a result for {cell} was not stored; it is tried again: {error}");
                engine.after_rest(Box::new(move |engine| engine.deliver_surely(cell, intake)));
            }
        });
    }

    /// Makes durable in a cell's inbox what holds, however often it takes. It is read in the transaction that puts it there:
    /// what was read before might come after something newer.
    pub fn deliver_holding(&self, cell: CellId, holding: Holding) {
        let (at, notes, engine) = (self.clock.now(), self.notes.clone(), self.clone());
        let (to, read) = (cell.clone(), holding.clone());
        let work = move |tx: &mut Tx<'_>| {
            let Some(intake) = read(tx)? else { return Ok(Vec::new()) };
            let placed = tx.deliver(&intake.delivery(&to, at))?;
            Ok(vec![(to, placed, intake)])
        };
        self.writer.submit(Load::bytes(HOLDING_BYTES), work, move |outcome| match outcome {
            Ok(intakes) => drop(notes.send(Note::Delivered { at, intakes })),
            // The next start tells it.
            Err(WriteError::Closed | WriteError::Fenced { .. }) => {}
            Err(error) => {
                tracing::error!(%cell, %error, "{cell} was not told what holds; it is tried again: {error}");
                engine.after_rest(Box::new(move |engine| engine.deliver_holding(cell, holding)));
            }
        });
    }

    fn too_large(&self, error: &WriteError) -> Trouble {
        Trouble {
            class: TroubleClass::Invalid,
            why: format!("its result cannot be stored: {error}"),
            tries: 1,
            next_try: Timestamp(self.clock.now().0 + TOO_LARGE_REST_MS),
        }
    }

    /// Gives a cell facts for its next turn: one commit where an inbox takes two.
    pub fn deliver_with_turn(&self, batch: Batch) {
        let at = self.clock.now();
        if let Err(mpsc::SendError(Note::Batch { batch, .. })) = self.notes.send(Note::Batch { at, batch }) {
            (batch.done)(Err(WriteError::Closed));
        }
    }

    /// Does something a little later: what the store refused may be accepted then.
    pub fn after_rest(&self, again: Box<dyn FnOnce(&Engine) + Send>) {
        // A loop that has ended needs nothing any more.
        let _ = self.notes.send(Note::Again(again));
    }

    /// Returns once every cell that was loaded has had a turn that is durable: each has said then what it wants. Says
    /// `false` if the loop ended before.
    pub async fn turned(&self) -> bool {
        let (send, receive) = oneshot::channel();
        self.notes.send(Note::WhenTurned(send)).is_ok() && receive.await.is_ok()
    }

    /// Returns once every cell that was loaded has had its try and nothing is in flight.
    pub async fn quiet(&self) {
        let (send, receive) = oneshot::channel();
        if self.notes.send(Note::WhenQuiet(send)).is_ok() {
            let _ = receive.await;
        }
    }

    /// The same for several cells, together with changes of records: all or nothing.
    pub fn deliver_with<T, W, D>(&self, intakes: Vec<(CellId, AnyIntake)>, records: W, done: D)
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
        D: FnOnce(Result<T, WriteError>) + Send + 'static,
    {
        let at = self.clock.now();
        let deliveries: Vec<_> = intakes.iter().map(|(cell, intake)| intake.delivery(cell, at)).collect();
        let load = Load::bytes(deliveries.iter().map(Delivery::bytes).sum());
        let notes = self.notes.clone();
        self.writer.submit(
            load,
            move |tx| {
                let value = records(tx)?;
                let seqs =
                    deliveries.iter().map(|one| tx.deliver(one)).collect::<Result<Vec<Placed>, _>>()?;
                Ok((value, seqs))
            },
            move |outcome| {
                let outcome = outcome.map(|(value, seqs)| {
                    let intakes = intakes.into_iter().zip(seqs);
                    let intakes = intakes.map(|((cell, intake), seq)| (cell, seq, intake)).collect();
                    // A loop that has ended is reloaded from the store at the next start.
                    let _ = notes.send(Note::Delivered { at, intakes });
                    value
                });
                done(outcome);
            },
        );
    }

    /// Gives a command to a gate and waits for its answer.
    ///
    /// # Errors
    /// The store refused it, or the server stopped before it was answered: whether it was carried out is then unknown.
    pub async fn command(
        &self,
        gate: GateId,
        by: Actor,
        verb: Verb,
    ) -> Result<Result<String, Refusal>, CommandError> {
        let id = crate::random::number();
        let (answer, answered) = oneshot::channel();
        let _ = self.notes.send(Note::Await { command: id, answer });
        self.tell(gate, GateEvent::Command(Box::new(Command { id, by, verb }))).await?;
        answered.await.map(|answer| answer.result).map_err(|_| CommandError::Stopped)
    }

    /// Tells a gate something, which it takes in before all that it is told later.
    ///
    /// # Errors
    /// The store refused it, or the server stopped: whether the gate was told is then unknown.
    pub async fn tell(&self, gate: GateId, event: GateEvent) -> Result<(), CommandError> {
        let (stored, committed) = oneshot::channel();
        self.deliver(CellId::Gate(gate), AnyIntake::Gate(Intake::Event(event)), |outcome| {
            let _ = stored.send(outcome);
        });
        committed.await.map_err(|_| CommandError::Stopped)?.map_err(CommandError::Store)
    }

    /// Looks at a gate as it was last committed.
    pub async fn gate<T: Send + 'static>(
        &self,
        gate: GateId,
        look: impl FnOnce(&Live<Gate>) -> T + Send + 'static,
    ) -> Option<T> {
        self.read(CellId::Gate(gate), |cell| match cell {
            Some(slot::AnyCell::Gate(cell)) => Some(look(&cell.live)),
            _ => None,
        })
        .await
    }

    /// Looks at a run that is not over, as it was last committed.
    pub async fn run<T: Send + 'static>(
        &self,
        run: RunId,
        look: impl FnOnce(&Live<Run>) -> T + Send + 'static,
    ) -> Option<T> {
        self.read(CellId::Run(run), |cell| match cell {
            Some(slot::AnyCell::Run(cell)) => Some(look(&cell.live)),
            _ => None,
        })
        .await
    }

    /// Looks at an environment as it was last committed; one that nothing was ever deployed to is not there.
    pub async fn environment<T: Send + 'static>(
        &self,
        environment: EnvironmentId,
        look: impl FnOnce(&Live<Environment>) -> T + Send + 'static,
    ) -> Option<T> {
        self.read(CellId::Environment(environment), |cell| match cell {
            Some(slot::AnyCell::Environment(cell)) => Some(look(&cell.live)),
            _ => None,
        })
        .await
    }

    /// Looks at the pool as it was last committed.
    pub async fn pool<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Live<Pool>) -> T + Send + 'static,
    ) -> Option<T> {
        self.read(CellId::Pool, |cell| match cell {
            Some(slot::AnyCell::Pool(cell)) => Some(look(&cell.live)),
            _ => None,
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        cell: CellId,
        look: impl FnOnce(Option<&slot::AnyCell>) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let (send, receive) = oneshot::channel();
        let read: ReadCell = Box::new(move |cell| {
            let _ = send.send(look(cell));
        });
        self.notes.send(Note::Read { cell, read }).ok()?;
        receive.await.ok().flatten()
    }
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It was not taken in; nothing happened.
    #[error(transparent)]
    Store(WriteError),
    /// The server stopped. It may have happened: look before trying again.
    #[error(
        "the server stopped before the command was answered; look whether it was carried out, then repeat it"
    )]
    Stopped,
}

impl Running {
    /// Has the loop begin: from now on effects are handed out. Said twice, it changes nothing.
    pub fn begin(&self) {
        // A loop that has ended needs no word.
        let _ = self.begin.send(());
    }

    /// Ends the loop once every commit in flight has returned.
    ///
    /// # Errors
    /// It had ended by itself, for that reason.
    pub fn stop(self) -> Result<(), EngineEnd> {
        let _ = self.notes.send(Note::Stop);
        drop(self.begin);
        self.thread.join().expect("invariant: the turn loop does not panic")
    }

    /// Whether the loop has ended by itself.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}
