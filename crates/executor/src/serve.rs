//! The executor as a process: a pool behind a socket, with a journal.
//!
//! Threads: the listener (the process's first), one per connection, one that spools ends, the slots. It lives through
//! any number of servers; the highest epoch has it.

use std::fs;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use towpath_core::graph::Outcome;
use towpath_core::ids::{Epoch, LeaseId};

use crate::journal::Journal;
use crate::pool::{ExecutorError, JobEvent, JobPool, unrun};
use crate::protocol::{FromExecutor, Leases, PROTOCOL_VERSION, StopMode, ToExecutor, Welcome};
use crate::spec::{JobEnd, SandboxKind, StartSpec};
use crate::{ExecutorConfig, plain, socket, wire};

/// How long a connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two times that ends are told under load. Alone, an end is told at once.
const TELL_INTERVAL: Duration = Duration::from_millis(2);
/// The same while many more jobs lie ready than slots: telling many ends at once costs the server little more than one.
const TELL_INTERVAL_BUSY: Duration = Duration::from_millis(20);
/// How long a server may leave its socket full before it is taken for dead. Its successor gets the ends again.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes to be received at once.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Bytes to be sent at once.
const SEND_BYTES: usize = 256 * 1024;

/// An executor looks so many times whether it is alone before it has been for too long.
const LOOKS_ALONE: u32 = 20;

/// Runs the executor until it is told to stop, or has been alone for too long: the body of `towpath executor`.
///
/// # Errors
/// [`ExecutorError`] if the sandbox does not work, the folder has another owner, or the socket cannot be made.
pub fn serve(config: ExecutorConfig, socket_path: &Path) -> Result<(), ExecutorError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&config.spool)?;
    let _lock = socket::lock_folder(&config.spool)?;
    // Out of the server's session: a terminal that closes ends the server, not the jobs. Fails where we lead a session, or a
    // shell made us lead a group, already.
    let _ = rustix::process::setsid();
    // Also those of an executor that had no sandbox where this one has.
    plain::kill_leftovers(&config.spool)?;
    let journal = Journal::open(&config.spool)?;
    let (tell, events) = channel();
    let pool = JobPool::start(config.clone(), move |event| {
        // The spooler lives as long as the pool.
        let _ = tell.send(event);
    })?;
    let desk = Arc::new(Desk {
        epoch_path: config.spool.join("epoch"),
        incarnation: incarnation()?,
        slots: config.slots,
        unsandboxed: config.sandbox == SandboxKind::None,
        patience: Patience { alone: config.alone_max, orphan: config.orphan_max },
        pool,
        stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?,
        books: Mutex::new(Books {
            journal,
            epoch: read_epoch(&config.spool)?,
            server: None,
            connections: 0,
            stopping: false,
        }),
    });
    let listener = socket::listen(socket_path)?;
    let spooling = Arc::clone(&desk);
    std::thread::Builder::new().name("spooler".to_owned()).spawn(move || spooling.spool(&events))?;
    desk.accept(&listener)?;
    let _ = fs::remove_file(socket_path);
    desk.finish();
    Ok(())
}

/// Everything that the threads share.
struct Desk {
    epoch_path: PathBuf,
    incarnation: String,
    slots: u32,
    unsandboxed: bool,
    patience: Patience,
    pool: JobPool,
    /// Readable when the process shall end.
    stop: std::os::fd::OwnedFd,
    books: Mutex<Books>,
}

/// How long an executor stays without a server.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// With nothing to do.
    alone: Duration,
    /// Whatever it has to do.
    orphan: Option<Duration>,
}

impl Patience {
    fn shortest(self) -> Duration {
        self.orphan.map_or(self.alone, |orphan| orphan.min(self.alone))
    }
}

struct Books {
    journal: Journal,
    epoch: Epoch,
    server: Option<Server>,
    connections: u64,
    stopping: bool,
}

/// The server that has the executor.
struct Server {
    connection: u64,
    stream: UnixStream,
}

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Desk>, listener: &UnixListener) -> io::Result<()> {
        let look = Timespec::try_from(self.patience.shortest() / LOOKS_ALONE).map_err(io::Error::other)?;
        let mut alone_since = None;
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            match poll(&mut events, Some(&look)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if !events[1].revents().is_empty() {
                return Ok(());
            }
            if events[0].revents().is_empty() {
                let mut books = self.books();
                let patience = books.patience_left(self.patience);
                alone_since = patience.map(|_| alone_since.unwrap_or_else(Instant::now));
                if let (Some(since), Some(patience)) = (alone_since, patience)
                    && since.elapsed() >= patience
                    && !books.stopping
                {
                    eprintln!("towpath executor: no server for {patience:?}: it ends");
                    self.stop(&mut books, StopMode::Now)?;
                }
                continue;
            }
            alone_since = None;
            let (stream, _) = listener.accept()?;
            let desk = Arc::clone(self);
            let served = move || {
                if let Err(error) = desk.converse(&stream) {
                    eprintln!("towpath executor: a server's connection ended: {error}");
                }
            };
            std::thread::Builder::new().name("connection".to_owned()).spawn(served)?;
        }
    }

    /// One connection, from hello to its end.
    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        if !socket::is_trusted(stream) {
            return Err(io::Error::other("it belongs to another user"));
        }
        stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        let hello = wire::receive(stream)?;
        stream.set_read_timeout(None)?;
        let Some(ToExecutor::Hello { version, epoch, known }) = hello else {
            return Err(io::Error::other("it did not say hello"));
        };
        let Some(connection) = self.take_over(stream, version, epoch, known)? else { return Ok(()) };
        let heard = self.hear(connection, stream);
        self.books().part_with(connection);
        heard
    }

    /// Does what a server says until it says nothing more, or another one has the executor.
    fn hear(&self, connection: u64, stream: &UnixStream) -> io::Result<()> {
        let mut reader = io::BufReader::with_capacity(RECEIVE_BYTES, stream);
        while let Some(first) = wire::receive::<ToExecutor>(&mut reader)? {
            let mut messages = vec![first];
            while wire::begins_with_whole(reader.buffer()) {
                messages.extend(wire::receive(&mut reader)?);
            }
            if !self.handle(connection, messages)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives the executor to a server; `None` if it was refused.
    fn take_over(
        &self,
        stream: &UnixStream,
        version: u32,
        epoch: Epoch,
        known: Option<Vec<LeaseId>>,
    ) -> io::Result<Option<u64>> {
        let mut books = self.books();
        let refusal = if version != PROTOCOL_VERSION {
            Some(format!(
                "this executor speaks version {PROTOCOL_VERSION}, the server {version}: stop it when idle"
            ))
        } else if epoch < books.epoch {
            Some(format!("a server with the higher epoch {} has this executor", books.epoch))
        } else {
            None
        };
        if let Some(why) = refusal {
            wire::send(stream, &FromExecutor::Refused { why, epoch: books.epoch })?;
            return Ok(None);
        }
        write_epoch(&self.epoch_path, epoch)?;
        books.epoch = epoch;
        books.connections += 1;
        let connection = books.connections;
        if let Some(last) = books.server.replace(Server { connection, stream: stream.try_clone()? }) {
            // It may be gone already.
            let _ = last.stream.shutdown(Shutdown::Both);
        }
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            incarnation: self.incarnation.clone(),
            pid: std::process::id(),
            slots: self.slots,
            unsandboxed: self.unsandboxed,
            stopping: books.stopping,
            ends_with_server: self.patience.orphan.is_some(),
            tools: Some(self.pool.capabilities().toolchains.digest()),
            leases: books.leases(),
        };
        let ends = books.journal.all_unacked().map(|end| FromExecutor::Ended { end: Box::new(end.clone()) });
        let messages: Vec<FromExecutor> =
            std::iter::once(FromExecutor::Welcome(welcome)).chain(ends).collect();
        let unknown: Vec<LeaseId> = match known {
            Some(known) => books.journal.active().filter(|lease| !known.contains(lease)).copied().collect(),
            None => Vec::new(),
        };
        books.tell(&messages);
        // Still under the lock: no start of the last server can come in between.
        unknown.iter().for_each(|lease| self.pool.cancel(lease));
        Ok(Some(connection))
    }

    /// Does what a server says, if it still has the executor; `false` if not.
    fn handle(&self, connection: u64, messages: Vec<ToExecutor>) -> io::Result<bool> {
        let mut books = self.books();
        if books.server.as_ref().is_none_or(|server| server.connection != connection) {
            return Ok(false);
        }
        let mut starts = Vec::new();
        for message in messages {
            if !matches!(message, ToExecutor::Start { .. }) {
                self.start(&mut books, std::mem::take(&mut starts))?;
            }
            match message {
                ToExecutor::Start { spec } => starts.push(*spec),
                ToExecutor::Hello { .. } => return Err(io::Error::other("it said hello twice")),
                ToExecutor::Cancel { lease } => self.pool.cancel(&lease),
                ToExecutor::Ack { leases } => books.journal.acknowledge(&leases)?,
                ToExecutor::List => {
                    let leases = books.leases();
                    books.tell(&[FromExecutor::Leases(leases)]);
                }
                ToExecutor::Stop { mode } => self.stop(&mut books, mode)?,
            }
        }
        self.start(&mut books, starts)?;
        Ok(true)
    }

    fn stop(&self, books: &mut Books, mode: StopMode) -> io::Result<()> {
        books.stopping = true;
        match mode {
            StopMode::Now => self.pool.leases().iter().for_each(|lease| self.pool.cancel(lease)),
            // Not begun, as far as anybody will find: the next executor may have them.
            StopMode::WhenIdle => books.journal.forget(&self.pool.withdraw())?,
        }
        self.stop_if_idle(books);
        Ok(())
    }

    /// Starts jobs: writes down in one go that they begin, then lets them.
    fn start(&self, books: &mut Books, mut specs: Vec<StartSpec>) -> io::Result<()> {
        if books.stopping || specs.is_empty() {
            return Ok(()); // Not begun, so the next executor may have them.
        }
        specs.retain(|spec| books.is_new(&spec.lease));
        let begun = books.journal.begin(specs.iter().map(|spec| spec.lease))?;
        specs.retain(|spec| begun.contains(&spec.lease));
        if specs.iter().any(|spec| spec.body.environment.is_some()) {
            // A power cut that took this line would let the same deployment begin again. What is begun and not
            // started is told by a successor.
            books.journal.sync().unwrap_or_else(|error| give_up(&error));
        }
        self.pool.submit(specs);
        Ok(())
    }

    fn stop_if_idle(&self, books: &Books) {
        if books.stopping && books.journal.active().next().is_none() {
            // The counter can only be full if it was written before.
            let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        }
    }

    /// Writes ends down, then tells them. Ends the process if the journal cannot be written: what its successor does not
    /// find there must not have been told.
    fn spool(&self, events: &Receiver<JobEvent>) {
        let mut told = Instant::now();
        while let Ok(first) = events.recv() {
            self.pool.rest_while_busy(Instant::now() + TELL_INTERVAL_BUSY);
            let (started, ended) = gather(first, events, told + TELL_INTERVAL);
            let mut messages: Vec<FromExecutor> =
                started.into_iter().map(|lease| FromExecutor::Started { lease }).collect();
            if !ended.is_empty() {
                self.books().journal.end(&ended).unwrap_or_else(|error| give_up(&error));
                told = Instant::now();
            }
            messages.extend(ended.into_iter().map(|end| FromExecutor::Ended { end: Box::new(end) }));
            let mut books = self.books();
            books.tell(&messages);
            self.stop_if_idle(&books);
        }
    }

    /// The last words: what the pool still had is in the journal as begun, and the next executor reports it.
    fn finish(&self) {
        let mut books = self.books();
        let rest: Vec<JobEnd> = books
            .journal
            .active()
            .map(|lease| unrun(*lease, Outcome::Cancelled, "the executor was stopped"))
            .collect();
        // Without it the next executor reports these leases as errored.
        let _ = books.journal.end(&rest);
    }
}

impl Books {
    /// How long the executor may stay as it is: for ever with a server, or with a job that needs none.
    fn patience_left(&self, patience: Patience) -> Option<Duration> {
        match (&self.server, patience.orphan) {
            (Some(_), _) => None,
            (None, Some(orphan)) => Some(orphan.min(patience.alone)),
            (None, None) => self.journal.active().next().is_none().then_some(patience.alone),
        }
    }

    /// Forgets a server whose connection is over, unless another one has come since.
    fn part_with(&mut self, connection: u64) {
        self.server = self.server.take().filter(|server| server.connection != connection);
    }

    /// Whether a lease has not ended; tells the end of one that has. Whoever asks for it again has lost the answer, and one
    /// that never comes would keep its run waiting for ever.
    fn is_new(&mut self, lease: &LeaseId) -> bool {
        let end = match self.journal.unacked(lease) {
            Some(end) => end.clone(),
            None if !self.journal.is_acknowledged(lease) => return true,
            None => unrun(*lease, Outcome::Errored, "its end was acknowledged before"),
        };
        self.tell(&[FromExecutor::Ended { end: Box::new(end) }]);
        false
    }

    fn leases(&self) -> Leases {
        let unacked = self.journal.all_unacked().map(|end| end.lease).collect();
        Leases { active: self.journal.active().copied().collect(), unacked }
    }

    /// Tells the server. One that does not listen loses the connection, not the ends.
    fn tell(&mut self, messages: &[FromExecutor]) {
        let Some(server) = &self.server else { return };
        if send_all(&server.stream, messages).is_err() {
            let _ = server.stream.shutdown(Shutdown::Both);
            self.server = None;
        }
    }
}

/// Ends the process, as what its successor does not find in the journal must not have happened.
fn give_up(error: &io::Error) {
    eprintln!("towpath executor: cannot write the journal: {error}; ends, so that nothing is lost");
    std::process::exit(1);
}

fn send_all(mut stream: &UnixStream, messages: &[FromExecutor]) -> io::Result<()> {
    use io::Write;
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend(wire::encode(message)?);
        if bytes.len() >= SEND_BYTES {
            stream.write_all(&bytes)?;
            bytes.clear();
        }
    }
    stream.write_all(&bytes)
}

/// Takes what has come; waits for more until `until` once an end is among it.
fn gather(first: JobEvent, events: &Receiver<JobEvent>, until: Instant) -> (Vec<LeaseId>, Vec<JobEnd>) {
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(event) = next {
        match event {
            JobEvent::Started(lease) => started.push(lease),
            JobEvent::Ended(end) => ended.push(*end),
        }
        let patience =
            if ended.is_empty() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        next = events.recv_timeout(patience).ok();
    }
    (started, ended)
}

fn incarnation() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(LeaseId(bytes).to_string())
}

fn read_epoch(spool: &Path) -> io::Result<Epoch> {
    match fs::read_to_string(spool.join("epoch")) {
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}/epoch is damaged; remove it", spool.display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Epoch(0)),
        Err(error) => Err(error),
    }
}

fn write_epoch(path: &Path, epoch: Epoch) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, epoch.to_string())?;
    fs::File::open(&draft)?.sync_all()?;
    fs::rename(&draft, path)
}
