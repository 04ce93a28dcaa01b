//! The floor of everything that starts processes: a small process that starts a program again and again.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use crate::Fault;

/// What to start, and how often.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    /// How often.
    pub count: u32,
    /// How many at once.
    pub width: u32,
    /// The command line.
    pub command: Vec<String>,
    /// The user whose processes they are; absent: ours, by plain `posix_spawn`.
    pub user: Option<u32>,
    /// A file that each gets open, as the value of this option before its other arguments.
    pub descriptor: Option<(String, PathBuf)>,
}

impl Order {
    /// `true`, without anything around it.
    pub fn floor(count: u32, width: u32) -> Order {
        Order { count, width, command: vec!["/bin/true".to_owned()], ..Order::default() }
    }

    /// Carries the order out in a new process of its own; seconds from the first start to the last end.
    ///
    /// # Errors
    /// The process, or one that it started, failed.
    pub fn run(&self) -> Result<f64, Fault> {
        let order = serde_json::to_string(self)?;
        let output = Command::new(std::env::current_exe()?).args(["spawn", &order]).output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
        }
    }

    /// The body of that process: answers the seconds.
    ///
    /// # Errors
    /// A program could not be started, or failed.
    pub fn carry_out(&self) -> Result<f64, Fault> {
        let began = Instant::now();
        let (mut started, mut running) = (0, 0);
        while started < self.count || running > 0 {
            while started < self.count && running < self.width {
                self.start()?;
                started += 1;
                running += 1;
            }
            let Some((_, status)) = waitpid(None, WaitOptions::empty())? else { continue };
            if status.exit_status() != Some(0) {
                return Err(format!("`{}` ended with {status:?}", self.command.join(" ")).into());
            }
            running -= 1;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn start(&self) -> io::Result<Pid> {
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null());
        let mut open = None;
        if let Some((option, path)) = &self.descriptor {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::fcntl_setfd(&file, FdFlags::empty())?;
            command.arg(option).arg(file.as_raw_fd().to_string());
            open = Some(file);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        // Reaped by `waitpid`, in whatever order they end.
        let child = command.args(arguments).spawn()?;
        drop(open);
        Ok(Pid::from_child(&child))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_ordered_run_and_a_failure_is_told() {
        assert!(Order::floor(5, 2).carry_out().unwrap() > 0.0);
        let order = Order { command: vec!["/bin/false".to_owned()], ..Order::floor(1, 1) };
        assert!(order.carry_out().unwrap_err().to_string().contains("/bin/false"));
    }
}
