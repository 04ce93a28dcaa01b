//! The executor's side of a launcher.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use towpath_core::ids::LeaseId;

use super::{Answer, Exit, Launch, Order, Setup};
use crate::pump::OutputPipe;
use crate::wire;

/// How long a launcher may take to set itself up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A launcher process. Dropping it ends the process and, with it, its job.
pub(crate) struct Launcher {
    process: Child,
    socket: UnixStream,
}

/// The end of a job, as its launcher saw it.
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// Whether the command was reached.
    pub(crate) ran: bool,
    /// The work tree as the job left it.
    pub(crate) tree: Option<OwnedFd>,
}

impl Launcher {
    /// Starts a launcher with the command `helper` and waits until it is ready.
    ///
    /// # Errors
    /// What it could not do; the message is for people.
    pub(crate) fn start(helper: &[OsString], setup: &Setup) -> io::Result<Launcher> {
        let (program, arguments) =
            helper.split_first().ok_or_else(|| io::Error::other("no command for the sandbox helper"))?;
        let (socket, theirs) = UnixStream::pair()?;
        let process = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let launcher = Launcher { process, socket };
        wire::send(&launcher.socket, setup)?;
        launcher.socket.set_read_timeout(Some(SETUP_TIMEOUT))?;
        let answer = wire::receive::<Answer>(&launcher.socket)?;
        launcher.socket.set_read_timeout(None)?;
        match answer {
            Some(Answer::Ready) => Ok(launcher),
            Some(Answer::Refused { what }) => Err(io::Error::other(what)),
            _ => Err(io::Error::other("the sandbox helper ended at once")),
        }
    }

    /// The launcher's process id; every process of its job is a descendant.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Starts a job, and gives the pipe that it writes to.
    ///
    /// # Errors
    /// If the launcher is gone.
    pub(crate) fn launch(&self, launch: Launch) -> io::Result<OutputPipe> {
        let output = OutputPipe::open(&self.descriptor(rustix::stdio::raw_stdout()))?;
        wire::send(&self.socket, &Order::Launch(Box::new(launch)))?;
        Ok(output)
    }

    /// Where one of its descriptors can be opened. It is our child and not reaped: its id is its own.
    fn descriptor(&self, number: RawFd) -> String {
        format!("/proc/{}/fd/{number}", self.pid())
    }

    fn take_tree(&self, number: RawFd) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = open(self.descriptor(number), flags, Mode::empty())?;
        wire::send(&self.socket, &Order::TreeTaken)?;
        Ok(tree)
    }

    /// Kills the job. Its end still arrives.
    ///
    /// # Errors
    /// If the launcher is gone.
    pub(crate) fn kill(&self) -> io::Result<()> {
        wire::send(&self.socket, &Order::Kill)
    }

    /// Readable when the job's end has arrived.
    pub(crate) fn end_event(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes the end of a job; waits for it.
    ///
    /// # Errors
    /// What kept the job from running, that the launcher is gone, or that it tells of another job.
    pub(crate) fn end(&self, job: &LeaseId) -> io::Result<Ended> {
        match wire::receive::<Answer>(&self.socket)? {
            Some(Answer::Ended { lease, exit, ran, tree }) if lease == *job => {
                Ok(Ended { exit, ran, tree: tree.map(|number| self.take_tree(number)).transpose()? })
            }
            Some(Answer::Refused { what }) => Err(io::Error::other(what)),
            Some(Answer::Ready | Answer::Ended { .. }) => {
                Err(io::Error::other("the sandbox helper is out of step"))
            }
            None => Err(io::Error::other("the sandbox helper died")),
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // Closing our end tells it to go; the kill makes sure. It is our child, so both can only fail if it is dead.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_job_is_not_anothers() {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let launcher = Launcher { process: Command::new("true").spawn().unwrap(), socket };
        let [first, second] = [1, 2].map(|number| LeaseId([number; 16]));
        let ended = |lease| Answer::Ended { lease, exit: Exit::Code(0), ran: true, tree: None };
        for told in [first, second] {
            wire::send(&theirs, &ended(told)).unwrap();
            assert_eq!(launcher.end(&second).is_ok(), told == second);
        }
    }
}
