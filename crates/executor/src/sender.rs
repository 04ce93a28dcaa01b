//! The server's way to say something to its executor: nobody who speaks waits until the executor reads.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use zeroize::Zeroizing;

/// The writing half of a connection. What the socket does not take at once, a thread of its own sends, in order.
#[derive(Debug)]
pub(crate) struct Sender {
    half: Arc<Half>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Half {
    stream: UnixStream,
    rest: Mutex<Rest>,
    changed: Condvar,
}

/// What the socket has not taken yet, secrets of jobs among it. As large as the jobs that the server may have at its executor.
#[derive(Debug, Default)]
struct Rest {
    bytes: Zeroizing<Vec<u8>>,
    /// The thread is sending what was before `bytes`.
    is_sending: bool,
    /// Nothing is sent any more.
    is_over: bool,
}

impl Sender {
    /// Sends on `stream`. An executor that reads nothing for as long as `patience` is taken for stuck: the connection is
    /// shut then, as if it had died.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn start(stream: UnixStream, patience: Duration) -> io::Result<Sender> {
        stream.set_write_timeout(Some(patience))?;
        let half = Arc::new(Half { stream, rest: Mutex::default(), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("executor-sender".to_owned());
        let thread = thread.spawn({
            let half = half.clone();
            move || half.send_rest()
        })?;
        Ok(Sender { half, thread: Some(thread) })
    }

    /// Sends whole messages after those before, sooner or later; returns at once.
    ///
    /// # Errors
    /// If the connection is over.
    pub(crate) fn send(&self, frames: &[u8]) -> io::Result<()> {
        let mut rest = self.half.rest();
        if rest.is_over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let is_first = rest.bytes.is_empty() && !rest.is_sending;
        let sent = if is_first { send_now(&self.half.stream, frames)? } else { 0 };
        if sent < frames.len() {
            rest.bytes.extend_from_slice(&frames[sent..]);
            self.half.changed.notify_one();
        }
        Ok(())
    }

    /// Ends the connection. What has not been sent is not.
    pub(crate) fn shut(&self) {
        self.half.end();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shut();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Half {
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.rest().is_over = true;
        self.changed.notify_one();
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The thread: sends what the socket did not take, until the connection is over.
    fn send_rest(&self) {
        while let Some(bytes) = self.next() {
            if (&self.stream).write_all(&bytes).is_err() {
                return self.end();
            }
            self.rest().is_sending = false;
        }
    }

    fn next(&self) -> Option<Zeroizing<Vec<u8>>> {
        let is_idle = |rest: &mut Rest| rest.bytes.is_empty() && !rest.is_over;
        let rest = self.changed.wait_while(self.rest(), is_idle);
        let mut rest = rest.unwrap_or_else(PoisonError::into_inner);
        if rest.is_over {
            return None;
        }
        rest.is_sending = true;
        Some(std::mem::take(&mut rest.bytes))
    }
}

/// Sends as much as the socket takes without waiting.
fn send_now(stream: &UnixStream, frames: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < frames.len() {
        match send(stream, &frames[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;

    use super::*;

    /// No test waits so long for anything, on the slowest machine.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// More than a socket takes.
    const MUCH: usize = 4 << 20;

    /// Numbered bytes, so that what is out of order shows.
    fn much(from: usize) -> Vec<u8> {
        (from..from + MUCH).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn whoever_speaks_to_an_executor_does_not_wait_until_it_reads() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = Arc::new(Sender::start(ours, PATIENCE).unwrap());
        let (done, is_done) = channel();
        std::thread::spawn({
            let sender = sender.clone();
            move || {
                (0..3).for_each(|at| sender.send(&much(at * MUCH)).unwrap());
                let _ = done.send(());
            }
        });
        is_done.recv_timeout(PATIENCE).expect("it goes on though nothing is read");
        let mut heard = vec![0; 3 * MUCH];
        theirs.read_exact(&mut heard).unwrap();
        let said: Vec<u8> = (0..3).flat_map(|at| much(at * MUCH)).collect();
        assert!(heard == said, "all of it, in its order");
    }

    #[test]
    fn an_executor_that_never_reads_loses_its_connection() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut hearing = ours.try_clone().unwrap();
        hearing.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = Sender::start(ours, Duration::from_millis(1)).unwrap();
        sender.send(&much(0)).unwrap();
        assert_eq!(hearing.read(&mut [0]).unwrap(), 0, "whoever listens hears of the end");
        assert_eq!(sender.send(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
