//! A git that is kept open: one request, one answer, over and over. It is restarted when it has ended.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::error::GitError;
use crate::process::{Prepared, Running, Until};

/// Bytes read from the pipe at once.
const READ_BYTES: usize = 64 * 1024;

/// An open process with the bytes that were read ahead.
pub(crate) struct Coprocess {
    running: Running,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Coprocess {
    pub fn start(prepared: Prepared) -> Result<Coprocess, GitError> {
        Ok(Coprocess { running: prepared.start()?, buffer: vec![0; READ_BYTES], start: 0, end: 0 })
    }

    /// Sends a request. Requests that are sent before their answers are read must fit into a pipe (64 KiB).
    pub fn send(&mut self, request: &[u8], until: Until) -> Result<(), GitError> {
        self.running.write_all(request, until)
    }

    /// The bytes up to `delimiter`, which is taken off.
    pub fn line(&mut self, delimiter: u8, bytes_max: usize, until: Until) -> Result<Vec<u8>, GitError> {
        let mut line = Vec::new();
        loop {
            let ahead = self.fill(until)?;
            match ahead.iter().position(|byte| *byte == delimiter) {
                Some(at) => {
                    line.extend_from_slice(&ahead[..at]);
                    self.start += at + 1;
                    return Ok(line);
                }
                None => {
                    line.extend_from_slice(ahead);
                    self.start = self.end;
                }
            }
            if line.len() > bytes_max {
                return Err(GitError::OutputTooLarge {
                    call: self.running.call(),
                    bytes_max: bytes_max as u64,
                });
            }
        }
    }

    /// Hands exactly `count` bytes to `sink`, in pieces.
    pub fn pieces(
        &mut self,
        mut count: u64,
        until: Until,
        mut sink: impl FnMut(&[u8]) -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        while count > 0 {
            let ahead = self.fill(until)?;
            let take = ahead.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            sink(&ahead[..take])?;
            self.start += take;
            count -= take as u64;
        }
        Ok(())
    }

    /// What it has written to its error output since this was asked last. It is there as soon as the answer that came after it.
    pub fn complaints(&mut self) -> String {
        self.running.said()
    }

    fn fill(&mut self, until: Until) -> Result<&[u8], GitError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = self.running.read_some(&mut self.buffer, until)?;
            if self.end == 0 {
                return Err(self.running.ended());
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }
}

/// The place of a process that is started when needed and used by one thread at a time.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Option<Kept>>);

/// An open process, and when it was last used.
struct Kept {
    process: Coprocess,
    used_at: Instant,
}

impl Slot {
    /// Lets `exchange` talk to the open process, or to a new one.
    ///
    /// A process that broke is never used again. If one that was already open turns out to have ended (it was killed,
    /// or the machine ran out of memory), the exchange is tried once more with a fresh one: requests are repeatable.
    pub fn with<T>(
        &self,
        prepare: impl Fn() -> Prepared,
        mut exchange: impl FnMut(&mut Coprocess) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that an early return or a panic drops, and so kills, a process in the middle of an exchange.
        if let Some(Kept { process: mut open, .. }) = slot.take() {
            match exchange(&mut open) {
                Err(GitError::Failed { .. }) => drop(open),
                Err(error) => return Err(error),
                Ok(value) => {
                    *slot = Some(Kept { process: open, used_at: Instant::now() });
                    return Ok(value);
                }
            }
        }
        let mut fresh = Coprocess::start(prepare())?;
        let value = exchange(&mut fresh)?;
        *slot = Some(Kept { process: fresh, used_at: Instant::now() });
        Ok(value)
    }

    /// Ends the process if there is one.
    pub fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends the process if nobody has used it for so long.
    pub fn close_idle(&self, idle: Duration) {
        let mut slot = match self.0.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody uses it now.
            Err(TryLockError::WouldBlock) => return,
        };
        slot.take_if(|kept| kept.used_at.elapsed() >= idle);
    }
}
