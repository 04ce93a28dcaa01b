//! One started git: pipes that never block past a deadline, and a process group that never outlives its owner.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, prlimit};

use crate::error::{GitError, printable, without_place};

/// Bytes of git's error output that are kept, from the end: the last line says why.
const STDERR_BYTES_MAX: usize = 8 * 1024;
/// How long an interrupted git may take to remove what it has begun. It deletes some files and ends.
const LEAVE: Duration = Duration::from_secs(2);
/// Bytes read from a pipe at once: a Linux pipe's default capacity.
const READ_BYTES: usize = 64 * 1024;

/// Ends gits that work for nobody any more, from another thread: once raised, it stays so.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<OwnedFd>);

impl Interrupt {
    /// One that is not raised.
    ///
    /// # Errors
    /// This process has no descriptor left.
    pub fn new() -> io::Result<Interrupt> {
        Ok(Interrupt(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends what runs under it now, and whatever is started under it later.
    pub fn raise(&self) {
        // It fails only when it was raised more often than a number can count: it is raised then.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// A command that is ready to start, with the words for its errors.
pub(crate) struct Prepared {
    pub command: Command,
    /// The git subcommand.
    pub call: &'static str,
    /// What may end it before it is done.
    pub interrupt: Option<Interrupt>,
    /// Bytes that any one file may have that it or its children write.
    pub file_bytes_max: Option<u64>,
    /// A word on its error output that somebody wants to know of, however much else it says.
    pub listen_for: Option<&'static str>,
}

/// How long a call may take and how much it may say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub deadline: Duration,
    pub output_bytes_max: u64,
}

/// What a finished call left.
pub(crate) struct Finished {
    pub status: ExitStatus,
    pub output: Vec<u8>,
    pub stderr: String,
    /// Whether it said the word for which it was listened to.
    pub heard: bool,
}

/// An instant until which something has to happen, and the time that there was, for the error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    at: Instant,
    span: Duration,
}

impl Until {
    pub fn after(span: Duration) -> Until {
        Until { at: Instant::now() + span, span }
    }

    pub fn left(&self) -> Option<Timespec> {
        let left = self.at.checked_duration_since(Instant::now())?;
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }
}

/// A started process. Dropping it kills its whole group and reaps it.
pub(crate) struct Running {
    child: Child,
    call: &'static str,
    interrupt: Option<Interrupt>,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    stderr_tail: Vec<u8>,
    folder: Option<PathBuf>,
    listen_for: Option<&'static str>,
    heard: bool,
}

enum Side {
    Stdin,
    Stdout,
    Exit(OwnedFd),
}

impl Prepared {
    /// The same, ended once the interrupt is raised.
    pub fn under(self, interrupt: &Interrupt) -> Prepared {
        Prepared { interrupt: Some(interrupt.clone()), ..self }
    }

    /// The same, with an ear for a word on its error output.
    pub fn listening_for(self, word: &'static str) -> Prepared {
        Prepared { listen_for: Some(word), ..self }
    }

    /// Starts the process in a group of its own, with pipes for its three streams.
    pub fn start(mut self) -> Result<Running, GitError> {
        let program = PathBuf::from(self.command.get_program());
        let folder = self.command.get_current_dir().map(Path::to_owned);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let not_started =
            |source| GitError::NotStarted { program, needed: crate::environment::VERSION_NEEDED, source };
        let mut child = self.command.spawn().map_err(not_started)?;
        let stdin = child.stdin.take().expect("stdin was asked for as a pipe");
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        let running = Running {
            child,
            call: self.call,
            interrupt: self.interrupt,
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            stderr_tail: Vec::new(),
            folder,
            listen_for: self.listen_for,
            heard: false,
        };
        running.never_block().map_err(|source| running.broken(source))?;
        if let Some(bytes) = self.file_bytes_max {
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            // A process that ended already writes no file.
            let _ = prlimit(Some(running.pid()), Resource::Fsize, limit);
        }
        Ok(running)
    }

    /// Runs the command to its end.
    ///
    /// # Errors
    /// `Deadline` and `OutputTooLarge` after killing it. A non-zero exit is not an error here.
    pub fn finish(self, input: &[u8], bounds: Bounds) -> Result<Finished, GitError> {
        let (call, bytes_max) = (self.call, bounds.output_bytes_max);
        let mut output = Vec::new();
        let finished = self.stream(input, bounds.deadline, |piece| {
            output.extend_from_slice(piece);
            match output.len() as u64 > bytes_max {
                true => Err(GitError::OutputTooLarge { call, bytes_max }),
                false => Ok(()),
            }
        })?;
        Ok(Finished { output, ..finished })
    }

    /// Runs the command to its end and hands its output on in pieces, however much that is.
    ///
    /// # Errors
    /// `Deadline`, and those of the sink, after killing it. A non-zero exit is not an error here.
    pub fn stream(
        self,
        input: &[u8],
        deadline: Duration,
        mut sink: impl FnMut(&[u8]) -> Result<(), GitError>,
    ) -> Result<Finished, GitError> {
        let until = Until::after(deadline);
        let mut running = self.start()?;
        running.write_all(input, until)?;
        running.stdin = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = running.read_some(&mut buffer, until)?;
            if count == 0 {
                break;
            }
            sink(&buffer[..count])?;
        }
        let status = running.wait(until)?;
        Ok(Finished { status, output: Vec::new(), stderr: running.words(), heard: running.heard })
    }

    /// Runs the command to its end and takes its output; any exit but 0 is an error.
    pub fn output(self, input: &[u8], bounds: Bounds) -> Result<Vec<u8>, GitError> {
        let call = self.call;
        let finished = self.finish(input, bounds)?;
        if finished.status.success() {
            return Ok(finished.output);
        }
        Err(finished.failed(call))
    }
}

impl Finished {
    pub fn failed(&self, call: &'static str) -> GitError {
        GitError::Failed { call, status: self.status.to_string(), stderr: self.stderr.clone() }
    }
}

impl Running {
    /// Writes everything, or fails at the deadline.
    pub fn write_all(&mut self, mut bytes: &[u8], until: Until) -> Result<(), GitError> {
        while !bytes.is_empty() {
            let Some(stdin) = self.stdin.as_mut() else { return Err(self.ended()) };
            match stdin.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready(Side::Stdin, until)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A process that ends early says why on stderr; the reader meets its end and reports it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting until the deadline for the first byte; 0 means the end.
    pub fn read_some(&mut self, buffer: &mut [u8], until: Until) -> Result<usize, GitError> {
        loop {
            match self.stdout.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready(Side::Stdout, until)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// The pipe to the process, for a thread that feeds it while another one reads.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Asks the whole group to end, so that git removes its temporary files.
    pub fn terminate(&self) {
        let _ = kill_process_group(self.pid(), Signal::TERM);
    }

    /// Has the process remove what it has begun and end; the error for it. Whatever is left of it is killed when this
    /// is dropped.
    fn leave(&mut self) -> GitError {
        self.interrupt = None;
        self.terminate();
        // One that does not end in time is killed.
        let _ = self.wait(Until::after(LEAVE));
        GitError::Interrupted { call: self.call }
    }

    /// What it wrote to its error output since this was asked last, printable and cut.
    pub fn said(&mut self) -> String {
        self.drain_stderr();
        let said = self.words();
        self.stderr_tail.clear();
        said
    }

    /// Waits for the process itself, which may outlive its streams.
    pub fn wait(&mut self, until: Until) -> Result<ExitStatus, GitError> {
        if let Ok(fd) = pidfd_open(self.pid(), PidfdFlags::empty()) {
            self.ready(Side::Exit(fd), until)?;
        }
        self.drain_stderr();
        self.child.wait().map_err(|source| self.broken(source))
    }

    /// The error for a process that ended in the middle of an exchange.
    pub fn ended(&mut self) -> GitError {
        self.stdin = None;
        let until = Until::after(Duration::from_secs(1));
        let status = self.wait(until).map_or_else(|error| error.to_string(), |status| status.to_string());
        GitError::Failed { call: self.call, status, stderr: self.words() }
    }

    pub fn call(&self) -> &'static str {
        self.call
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn never_block(&self) -> io::Result<()> {
        let (stdin, stderr) = (self.stdin.as_ref(), self.stderr.as_ref());
        rustix::io::ioctl_fionbio(&self.stdout, true)?;
        stdin.map_or(Ok(()), |pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        stderr.map_or(Ok(()), |pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        Ok(())
    }

    /// Waits until one side is ready, and keeps stderr flowing meanwhile.
    fn ready(&mut self, side: Side, until: Until) -> Result<(), GitError> {
        loop {
            let Some(left) = until.left() else {
                return Err(GitError::Deadline { call: self.call, milliseconds: until.span.as_millis() });
            };
            let wanted = match &side {
                Side::Stdin => self.stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)),
                Side::Stdout => Some(PollFd::new(&self.stdout, PollFlags::IN)),
                Side::Exit(fd) => Some(PollFd::new(fd, PollFlags::IN)),
            };
            let Some(wanted) = wanted else { return Ok(()) };
            let mut fds = vec![wanted];
            fds.extend(
                self.stderr.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)),
            );
            let interrupt = self.interrupt.clone();
            fds.extend(interrupt.as_ref().map(|interrupt| PollFd::new(&*interrupt.0, PollFlags::IN)));
            match poll(&mut fds, Some(&left)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(self.broken(error.into())),
            }
            let side_ready = !fds[0].revents().is_empty();
            let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let stderr_ready = self.stderr.is_some() && ready(1);
            let interrupted = interrupt.is_some() && ready(fds.len() - 1);
            if interrupted {
                return Err(self.leave());
            }
            if stderr_ready {
                self.drain_stderr();
            }
            if side_ready {
                return Ok(());
            }
        }
    }

    /// Takes what stderr has now and keeps its end.
    fn drain_stderr(&mut self) {
        let mut buffer = [0; STDERR_BYTES_MAX];
        while let Some(pipe) = self.stderr.as_mut() {
            match pipe.read(&mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(count) => self.stderr_tail.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            if let Some(word) = self.listen_for {
                self.heard |= self.stderr_tail.windows(word.len()).any(|said| said == word.as_bytes());
            }
            let surplus = self.stderr_tail.len().saturating_sub(STDERR_BYTES_MAX);
            self.stderr_tail.drain(..surplus);
        }
    }

    fn words(&self) -> String {
        let said = printable(&self.stderr_tail);
        match &self.folder {
            Some(folder) => without_place(&said, folder),
            None => said,
        }
    }

    fn broken(&self, source: io::Error) -> GitError {
        GitError::Failed { call: self.call, status: "its pipes broke".to_owned(), stderr: source.to_string() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A process that was waited for has no group any more, and its number may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_ends_what_works_and_what_is_started_later() {
        let interrupt = Interrupt::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tidied = folder.path().join("tidied");
        let script = format!("trap 'touch {}; exit 1' TERM; echo begun; sleep 600 & wait", tidied.display());
        let prepared = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Prepared { command, call: "repack", interrupt: None, file_bytes_max: None, listen_for: None }
                .under(&interrupt)
        };
        let until = Until::after(Duration::from_secs(300));
        let mut running = prepared(&script).start().unwrap();
        assert_eq!(running.read_some(&mut [0; 16], until).unwrap(), 6);
        let raising = interrupt.clone();
        let raiser = std::thread::spawn(move || raising.raise());
        let ended = running.read_some(&mut [0; 16], until);
        assert!(matches!(ended, Err(GitError::Interrupted { call: "repack" })), "{ended:?}");
        raiser.join().unwrap();
        drop(running);
        assert!(tidied.exists(), "it was not given the time to tidy up");
        let bounds = Bounds { deadline: Duration::from_secs(300), output_bytes_max: 16 };
        let ended = prepared("sleep 600").output(&[], bounds);
        assert!(matches!(ended, Err(GitError::Interrupted { .. })), "{ended:?}");
    }
}
