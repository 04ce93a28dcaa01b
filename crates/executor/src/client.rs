//! The server's side of the executor's socket.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use towpath_core::ids::{Epoch, LeaseId};
use zeroize::Zeroizing;

use crate::protocol::{FromExecutor, Leases, PROTOCOL_VERSION, StopMode, ToExecutor, Welcome};
use crate::sender::Sender;
use crate::spec::{JobEnd, StartSpec};
use crate::wire::EncodeError;
use crate::{socket, wire};

/// Bytes received at once: ends of some hundred jobs.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How long an executor may take to answer a hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an executor may read nothing before it is taken for stuck. What it does between two reads takes milliseconds.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at an executor that ends.
const END_LOOK: Duration = Duration::from_millis(5);

/// Why an executor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers at the socket.
    #[error("no executor answers at {path}: {source}", path = path.display())]
    Unreachable {
        /// The socket.
        path: std::path::PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It answers, and refuses us.
    #[error("the executor refuses this server: {why}")]
    Refused {
        /// Its reason.
        why: String,
        /// The epoch that has it.
        epoch: Epoch,
    },
}

/// What an executor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorEvent {
    /// A job has a slot and begins.
    Started(LeaseId),
    /// Jobs are over: those that were told together. Told again after a reconnect until [`ExecutorClient::ack`].
    Ended(Vec<JobEnd>),
    /// Answer to [`ExecutorClient::list`].
    Leases(Leases),
    /// The connection is over: the executor died, or a higher epoch took it.
    Gone(String),
}

/// A job as it is handed over: encoded by itself, so that one that does not fit keeps no other from being sent.
pub struct StartMessage {
    lease: LeaseId,
    frame: Zeroizing<Vec<u8>>,
}

impl StartMessage {
    /// A job that is ready to run.
    ///
    /// # Errors
    /// [`EncodeError`]: it can never be handed over.
    pub fn new(spec: StartSpec) -> Result<StartMessage, EncodeError> {
        let lease = spec.lease;
        let frame = wire::encode(&ToExecutor::Start { spec: Box::new(spec) })?;
        Ok(StartMessage { lease, frame: frame.into() })
    }

    /// Its lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }
}

/// It holds secrets.
impl fmt::Debug for StartMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StartMessage({}, {} bytes)", self.lease, self.frame.len())
    }
}

/// A connection to an executor. Dropping it leaves the executor and its jobs as they are.
#[derive(Debug)]
pub struct ExecutorClient {
    sender: Sender,
    welcome: Welcome,
    listener: Option<JoinHandle<()>>,
    teller: Option<JoinHandle<()>>,
}

impl ExecutorClient {
    /// Takes the executor over, waiting up to `patience` for one that is starting. `known` are the leases that may
    /// go on; others are killed. `on_event` is called on a thread of its own, in order.
    ///
    /// # Errors
    /// [`ConnectError`]; `Refused` if a server with a higher epoch has it.
    pub fn connect(
        path: &Path,
        (epoch, known): (Epoch, Option<Vec<LeaseId>>),
        patience: Duration,
        on_event: impl FnMut(ExecutorEvent) + Send + 'static,
    ) -> Result<ExecutorClient, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { path: path.to_owned(), source };
        let stream = socket::connect_within(path, patience).map_err(unreachable)?;
        let hello = ToExecutor::Hello { version: PROTOCOL_VERSION, epoch, known };
        wire::send(&stream, &hello).map_err(unreachable)?;
        stream.set_read_timeout(Some(WELCOME_TIMEOUT)).map_err(unreachable)?;
        let answer = wire::receive(&stream).map_err(unreachable)?;
        stream.set_read_timeout(None).map_err(unreachable)?;
        let welcome = match answer {
            Some(FromExecutor::Welcome(welcome)) => welcome,
            Some(FromExecutor::Refused { why, epoch }) => return Err(ConnectError::Refused { why, epoch }),
            _ => return Err(unreachable(io::Error::other("it closed the connection"))),
        };
        let [reading, hanging_up] = [stream.try_clone(), stream.try_clone()];
        let (reading, hanging_up) = (reading.map_err(unreachable)?, hanging_up.map_err(unreachable)?);
        let sender = Sender::start(stream, SEND_TIMEOUT).map_err(unreachable)?;
        // Whoever hears an event may wait for somebody who is writing, and the executor reads on only once it is listened
        // to. So one thread listens and waits for nobody; what it has heard is bounded by the executor's jobs.
        let (tell, told) = channel();
        let listener = spawn("executor-listener", move || listen(&reading, &tell)).map_err(unreachable)?;
        let teller = spawn("executor-events", move || pass_on(told, &hanging_up, on_event));
        let teller = teller.map_err(unreachable)?;
        Ok(ExecutorClient { sender, welcome, listener: Some(listener), teller: Some(teller) })
    }

    /// What the executor said at the beginning.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Starts jobs. Safe to repeat. Returns at once, as all that is said here does: an executor that does not read is gone
    /// after a while, and what was said to it may not have been heard.
    ///
    /// # Errors
    /// If the connection is over; connect again and repeat.
    pub fn start(&self, jobs: impl IntoIterator<Item = StartMessage>) -> io::Result<()> {
        let jobs: Vec<StartMessage> = jobs.into_iter().collect();
        let frames: Vec<&[u8]> = jobs.iter().map(|job| job.frame.as_slice()).collect();
        self.sender.send(&Zeroizing::new(frames.concat()))
    }

    /// Ends a job; its end is told like any other. Safe to repeat, also for a lease that is unknown.
    ///
    /// # Errors
    /// As [`ExecutorClient::start`].
    pub fn cancel(&self, lease: LeaseId) -> io::Result<()> {
        self.send(&ToExecutor::Cancel { lease })
    }

    /// Says that these ends are durable in the server. Safe to repeat.
    ///
    /// # Errors
    /// As [`ExecutorClient::start`].
    pub fn ack(&self, leases: Vec<LeaseId>) -> io::Result<()> {
        self.send(&ToExecutor::Ack { leases })
    }

    /// Asks for all leases; the answer is [`ExecutorEvent::Leases`].
    ///
    /// # Errors
    /// As [`ExecutorClient::start`].
    pub fn list(&self) -> io::Result<()> {
        self.send(&ToExecutor::List)
    }

    /// Ends the executor.
    ///
    /// # Errors
    /// As [`ExecutorClient::start`].
    pub fn stop(&self, mode: StopMode) -> io::Result<()> {
        self.send(&ToExecutor::Stop { mode })
    }

    /// Ends the executor, its jobs as `mode` has it; whether it has ended within `patience`.
    pub fn end(&self, mode: StopMode, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        if self.stop(mode).is_err() {
            return true; // It is gone.
        }
        let is_over = || self.listener.as_ref().is_none_or(JoinHandle::is_finished);
        while !is_over() && Instant::now() < until {
            std::thread::park_timeout(END_LOOK);
        }
        is_over()
    }

    fn send(&self, message: &ToExecutor) -> io::Result<()> {
        self.sender.send(&wire::encode(message)?)
    }
}

impl Drop for ExecutorClient {
    fn drop(&mut self) {
        self.sender.shut();
        for thread in [self.listener.take(), self.teller.take()].into_iter().flatten() {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Tells `on_event` what was heard. If that panics, it has missed something that only a new connection tells again: this one
/// is over then.
fn pass_on(
    told: Receiver<ExecutorEvent>,
    stream: &UnixStream,
    mut on_event: impl FnMut(ExecutorEvent) + Send + 'static,
) {
    for event in told {
        if catch_unwind(AssertUnwindSafe(|| on_event(event))).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            let why = "what it said was not taken in: a bug of Towpath".to_owned();
            return on_event(ExecutorEvent::Gone(why));
        }
    }
}

/// Hears all that the executor says. Nobody is left to be told once the teller has panicked.
fn listen(stream: &UnixStream, tell: &mpsc::Sender<ExecutorEvent>) {
    let mut reader = io::BufReader::with_capacity(RECEIVE_BYTES, stream);
    let mut ended = Vec::new();
    let why = loop {
        let message = match wire::receive(&mut reader) {
            Ok(Some(message)) => message,
            Ok(None) => break "the executor closed the connection".to_owned(),
            Err(error) => break error.to_string(),
        };
        let other = match message {
            FromExecutor::Ended { end } => {
                ended.push(*end);
                None
            }
            FromExecutor::Started { lease } => Some(ExecutorEvent::Started(lease)),
            FromExecutor::Leases(leases) => Some(ExecutorEvent::Leases(leases)),
            FromExecutor::Welcome(_) | FromExecutor::Refused { .. } => {
                break "the executor is out of step".to_owned();
            }
        };
        if !ended.is_empty() && (other.is_some() || !wire::begins_with_whole(reader.buffer())) {
            let _ = tell.send(ExecutorEvent::Ended(std::mem::take(&mut ended)));
        }
        if let Some(other) = other {
            let _ = tell.send(other);
        }
    };
    let _ = tell.send(ExecutorEvent::Gone(why));
}

/// Starts an executor process, which leads a session of its own and outlives this one; what it says about itself goes to
/// `log`.
///
/// # Errors
/// The system's reason. That it came up is known when [`ExecutorClient::connect`] succeeds.
pub fn start_executor(command: &[OsString], log: File) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
    Command::new(program).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use towpath_core::graph::{JobBody, Outcome};

    use super::*;

    #[test]
    fn a_job_that_fits_no_message_is_told_from_one_that_does() {
        let message = |run: &str| {
            let body = JobBody::script(run);
            StartMessage::new(StartSpec::new(LeaseId([1; 16]), "unit".parse().unwrap(), body))
        };
        let small = message("true").unwrap();
        assert!(wire::begins_with_whole(&small.frame));
        // Six bytes for each.
        let large = message(&"\u{1}".repeat(wire::FRAME_BYTES_MAX / 6)).unwrap_err();
        assert!(matches!(large, EncodeError::TooLarge { bytes } if bytes > wire::FRAME_BYTES_MAX), "{large}");
    }

    /// Ends that no socket holds.
    const ENDS: u32 = 20_000;
    /// No test waits so long for anything, on the slowest machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// An executor that says hello, ends, and no more.
    fn tell_ends(listener: &UnixListener) -> io::Result<()> {
        let (stream, _) = listener.accept()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        wire::receive::<ToExecutor>(&stream)?;
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            incarnation: "test".to_owned(),
            pid: std::process::id(),
            slots: 1,
            unsandboxed: true,
            stopping: false,
            ends_with_server: false,
            tools: None,
            leases: Leases::default(),
        };
        wire::send(&stream, &FromExecutor::Welcome(welcome))?;
        (0..ENDS).try_for_each(|number| {
            let mut lease = [0; 16];
            lease[..4].copy_from_slice(&number.to_be_bytes());
            let end = crate::pool::unrun(LeaseId(lease), Outcome::Passed, "exit code 0");
            wire::send(&stream, &FromExecutor::Ended { end: Box::new(end) })
        })
    }

    #[test]
    fn an_executor_is_heard_out_whatever_its_server_waits_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let telling = std::thread::spawn(move || tell_ends(&listener));
        let (listen, until) = channel::<()>();
        let (count, ends) = channel();
        let client = ExecutorClient::connect(&socket, (Epoch(1), None), PATIENCE, move |event| {
            // As a server that has to write first.
            let _ = until.recv();
            if let ExecutorEvent::Ended(ended) = event {
                let _ = count.send(ended);
            }
        });
        telling.join().unwrap().expect("the executor is heard out");
        drop(listen);
        let heard: Vec<JobEnd> = ends.iter().flatten().take(ENDS as usize).collect();
        let number = |end: &JobEnd| u32::from_be_bytes(*end.lease.0.first_chunk().unwrap());
        assert!(heard.iter().map(number).eq(0..ENDS), "all of them, in their order");
        drop(client);
    }

    #[test]
    fn a_connection_whose_events_cannot_be_taken_in_is_over_and_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let telling = std::thread::spawn(move || {
            let told = tell_ends(&listener);
            // It goes on as if nothing were.
            told.err().map(|error| error.kind())
        });
        let (heard, events) = channel();
        let client = ExecutorClient::connect(&socket, (Epoch(1), None), PATIENCE, move |event| {
            let is_gone = matches!(event, ExecutorEvent::Gone(_));
            let _ = heard.send(event);
            assert!(is_gone, "as this test wants");
        });
        let first = events.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(first, ExecutorEvent::Ended(_)), "{first:?}");
        let last = events.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(&last, ExecutorEvent::Gone(why) if why.contains("a bug")), "{last:?}");
        assert!(client.unwrap().ack(Vec::new()).is_err(), "nothing is said to it any more");
        telling.join().unwrap();
        assert!(events.recv_timeout(PATIENCE).is_err(), "and nothing more is told");
    }
}
