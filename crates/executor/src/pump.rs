//! The life of a started job as its slot sees it: output comes, time passes, limits are looked at, it ends.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use towpath_blob::{BlobError, LogWriter};

use crate::launcher::Exit;
use crate::watch::{Breach, FIRST_LOOK, LOOK_INTERVAL, Watch};

/// Bytes read from a job at once, and written to its log: they stay in a core's cache between the two. With a quarter of
/// them a stream is a tenth slower (measured).
const READ_BYTES: usize = 256 * 1024;
/// A pipe this large saves a talkative job most of its waiting. Source: reference/performance 7.
const PIPE_BYTES: usize = 1024 * 1024;
/// A pipe's size without asking. A full one shows that the job is talkative. Source: pipe(7).
const PIPE_BYTES_DEFAULT: usize = 64 * 1024;

/// Reads after the end. The largest pipe of an ordinary user is 1 MiB (pipe(7)); this is 16 of them.
const DRAIN_READS_MAX: usize = 64;

/// A page of memory on every machine that we run on, or several.
const PAGE_BYTES: usize = 4096;

/// What a job's output passes through: [`READ_BYTES`] that begin with a page. The kernel copies between them and pages of
/// its own; from a place a few bytes into a page, where an allocator puts such a buffer, processors of AMD (Zen 3 and 4)
/// take several times as long for it (measured).
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
    begin: usize,
}

impl ReadBuffer {
    pub(crate) fn new() -> ReadBuffer {
        let bytes = vec![0; READ_BYTES + PAGE_BYTES];
        let begin = bytes.as_ptr().align_offset(PAGE_BYTES);
        ReadBuffer { bytes, begin }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..][..READ_BYTES]
    }
}

/// Tells a job to stop. Shared between its slot and whoever cancels. Has a descriptor only while the job runs: every
/// open one makes each start of a process slower, and 10,000 jobs may wait.
#[derive(Debug, Default)]
pub(crate) struct Control {
    cancelled: AtomicBool,
    wake: OnceLock<OwnedFd>,
}

impl Control {
    /// Asks for the end; asking twice is asking once.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        // With the fence in `wake`: either we see its event, or it sees our word.
        fence(Ordering::SeqCst);
        if let Some(wake) = self.wake.get() {
            // Full means that it is awake already.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Readable once the job is cancelled; whoever asks looks at [`Control::is_cancelled`] afterwards.
    fn wake(&self) -> io::Result<&OwnedFd> {
        if self.wake.get().is_none() {
            let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Only the job's slot comes here, so nobody else has set it meanwhile.
            let _ = self.wake.set(event);
            fence(Ordering::SeqCst);
        }
        self.wake.get().ok_or_else(|| io::Error::other("no event"))
    }
}

/// A started process tree.
pub(crate) trait Tree {
    /// Readable when [`Tree::end`] does not wait.
    fn end_event(&self) -> BorrowedFd<'_>;
    /// Kills every process of it.
    fn kill(&self);
    /// Waits for the end of its last process.
    fn end(&mut self) -> io::Result<TreeEnd>;
}

/// The end of a process tree.
#[derive(Debug)]
pub(crate) struct TreeEnd {
    pub(crate) exit: Exit,
    /// Whether the command was reached.
    pub(crate) ran: bool,
    /// The work tree, where it is not just a folder.
    pub(crate) tree: Option<OwnedFd>,
}

/// Why the executor ended a job.
#[derive(Debug)]
pub(crate) enum Stop {
    Cancelled,
    TimedOut,
    Limit(Breach),
    Log(BlobError),
}

/// How a job's life went.
#[derive(Debug)]
pub(crate) struct Life {
    /// What the executor did to it.
    pub(crate) stop: Option<Stop>,
    /// How it ended; an error is our own trouble.
    pub(crate) end: io::Result<TreeEnd>,
}

/// A pipe for a job's output. Its other end stays open here, too: that no process of the job has it any more is no news, as
/// the job's end is heard otherwise, and being woken for both would be once too often.
pub(crate) struct OutputPipe {
    /// Ours to read, without waiting.
    read: OwnedFd,
    /// The job's to write.
    pub(crate) write: OwnedFd,
}

impl OutputPipe {
    pub(crate) fn new() -> io::Result<OutputPipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
        Ok(OutputPipe { read, write })
    }

    /// One that another process has open, by its path below `/proc`.
    pub(crate) fn open(path: &str) -> io::Result<OutputPipe> {
        let read = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        // Opened second: to write waits for somebody who reads.
        let write = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(OutputPipe { read, write })
    }
}

/// What a pump works with.
pub(crate) struct Pump<'a> {
    pub(crate) output: OutputPipe,
    pub(crate) log: &'a mut LogWriter,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) control: &'a Control,
    pub(crate) deadline: Instant,
    /// How long the killed tree may take to be gone.
    pub(crate) kill_max: Duration,
    /// Whether the pipe was made larger.
    pub(crate) talkative: bool,
}

impl Pump<'_> {
    /// Follows a job to its end.
    pub(crate) fn follow(&mut self, tree: &mut impl Tree, watch: &mut Watch<'_>) -> Life {
        let mut stop = None;
        match self.wait(tree, watch, &mut stop) {
            Err(error) => {
                tree.kill();
                Life { stop, end: Err(error) }
            }
            Ok(()) => {
                let end = tree.end();
                watch.over();
                if let Err(error) = self.drain() {
                    stop.get_or_insert(Stop::Log(error));
                }
                let stop = match stop {
                    Some(Stop::Limit(breach)) => Some(Stop::Limit(watch.settled(breach, self.log.bytes()))),
                    other => other,
                };
                Life { stop, end }
            }
        }
    }

    /// Returns when the tree's end has come.
    fn wait(
        &mut self,
        tree: &mut impl Tree,
        watch: &mut Watch<'_>,
        stop: &mut Option<Stop>,
    ) -> io::Result<()> {
        self.control.wake()?;
        let mut look_at = Instant::now() + FIRST_LOOK;
        let mut killed_until = None;
        loop {
            let now = Instant::now();
            if stop.is_none() {
                *stop = self.reason_to_stop(now, &mut look_at, watch);
            }
            if stop.is_some() && killed_until.is_none() {
                tree.kill();
                killed_until = Some(now + self.kill_max);
            }
            if killed_until.is_some_and(|until| now >= until) {
                let seconds = self.kill_max.as_secs();
                let why = format!("its processes did not die within {seconds} s of being killed");
                return Err(io::Error::other(why));
            }
            let until = killed_until.unwrap_or(self.deadline.min(look_at));
            let ready = self.poll(tree, until.saturating_duration_since(now))?;
            if ready.output
                && let Err(error) = self.read()
            {
                stop.get_or_insert(Stop::Log(error));
            }
            if ready.ended {
                return Ok(());
            }
        }
    }

    fn reason_to_stop(&self, now: Instant, look_at: &mut Instant, watch: &mut Watch<'_>) -> Option<Stop> {
        if self.control.is_cancelled() {
            return Some(Stop::Cancelled);
        }
        if now >= self.deadline {
            return Some(Stop::TimedOut);
        }
        if now < *look_at {
            return None;
        }
        let breach = watch.look(self.log.bytes());
        *look_at = Instant::now() + LOOK_INTERVAL;
        breach.map(Stop::Limit)
    }

    /// Reads what is left in the pipe. No process writes to it any more.
    fn drain(&mut self) -> Result<(), BlobError> {
        for _ in 0..DRAIN_READS_MAX {
            if self.read()? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn poll(&self, tree: &impl Tree, timeout: Duration) -> io::Result<Ready> {
        let end = tree.end_event();
        let mut events = [
            PollFd::from_borrowed_fd(end, PollFlags::IN),
            PollFd::new(self.control.wake()?, PollFlags::IN),
            PollFd::new(&self.output.read, PollFlags::IN),
        ];
        // Once cancelled the event stays readable: it is not looked at again.
        let from = usize::from(self.control.is_cancelled());
        if from == 1 {
            events.swap(0, 1);
        }
        let timeout =
            Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: i64::from(timeout.subsec_nanos()) };
        match poll(&mut events[from..], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => {
                other?;
            }
        }
        Ok(Ready { ended: !events[from].revents().is_empty(), output: !events[2].revents().is_empty() })
    }

    /// One read into the log; 0 when there is nothing.
    fn read(&mut self) -> Result<usize, BlobError> {
        let count = match rustix::io::read(&self.output.read, &mut *self.buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(BlobError::Source(error.into())),
        };
        self.log.write(&self.buffer[..count])?;
        if count == PIPE_BYTES_DEFAULT && !self.talkative {
            self.talkative = true;
            // A user's pipes may be bounded; then it stays as it is.
            let _ = fcntl_setpipe_size(&self.output.read, PIPE_BYTES);
        }
        Ok(count)
    }
}

struct Ready {
    ended: bool,
    output: bool,
}
