//! The services of [`crate::Service`] as running processes.
//!
//! One request, one process (`--stateless-rpc`, as Smart HTTP has it). Whoever calls copies bytes; this module starts the
//! process, bounds it in time and leaves no child and no quarantine folder behind.

use std::io::{self, Write};
use std::process::{ChildStdin, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::error::GitError;
use crate::process::{Prepared, Running, Until};
use crate::repository::Repository;
use crate::service::{Exchange, Service, ServiceOptions};

/// Time for git to clear up after it was told to end, before it is killed.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);

/// A started server. Dropping it kills it; [`Serving::stop`] is the gentle way.
pub struct Serving {
    running: Running,
    until: Until,
}

/// The pipe into a server. Dropping it says that there is no more.
pub struct ServingInput {
    pipe: ChildStdin,
    until: Until,
}

impl Repository {
    /// Starts a service for one exchange, which has to be over at the deadline.
    ///
    /// # Errors
    /// Those of [`Repository::service`], and `NotStarted`.
    pub fn serve(
        &self,
        service: Service,
        exchange: Exchange,
        options: &ServiceOptions<'_>,
        deadline: Duration,
    ) -> Result<Serving, GitError> {
        let command = self.service(service, exchange, options)?;
        let running = Prepared {
            command,
            call: service.name(),
            file_bytes_max: None,
            interrupt: None,
            listen_for: None,
        }
        .start()?;
        Ok(Serving { running, until: Until::after(deadline) })
    }
}

impl Serving {
    /// The pipe into the server; there is one.
    pub fn take_input(&mut self) -> Option<ServingInput> {
        self.running.take_stdin().map(|pipe| ServingInput { pipe, until: self.until })
    }

    /// Reads what it says; 0 means the end.
    ///
    /// # Errors
    /// `Deadline` when the time of the whole request is over.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, GitError> {
        self.running.read_some(buffer, self.until)
    }

    /// Waits for its end, after everything was read.
    pub fn finish(mut self) -> Result<(ExitStatus, String), GitError> {
        let status = self.running.wait(self.until)?;
        Ok((status, self.running.said()))
    }

    /// Ends it early: git is asked first, so that it removes the quarantine, and killed if it does not hear.
    pub fn stop(mut self) {
        drop(self.running.take_stdin());
        self.running.terminate();
        let until = Until::after(TERMINATE_GRACE);
        let mut buffer = [0; 4096];
        while matches!(self.running.read_some(&mut buffer, until), Ok(count) if count > 0) {}
        // Dropping kills what is left after the grace.
        let _ = self.running.wait(until);
    }
}

impl Write for ServingInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
            let Some(left) = self.until.left() else { return Err(io::ErrorKind::TimedOut.into()) };
            match poll(&mut [PollFd::new(&self.pipe, PollFlags::OUT)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
