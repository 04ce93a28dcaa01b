//! Gits that outlived the server which started them.
//!
//! A server that is killed leaves its gits running: a push that was cut off is received to its end, a ref still moves.
//! Each git of a server bears the server's mark in its environment, and so does all that it starts. The next server ends
//! whatever bears the mark before it looks at a repository, so that nothing moves there that it does not know of.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::environment::{Git, OWNER};

/// Milliseconds until a killed process has to be gone. One that the disk holds cannot be ended by anybody.
const GONE_MS_MAX: u64 = 5_000;

impl Git {
    /// Ends every process that bears this git's owner and was not started by this process; how many there were.
    ///
    /// Only for the start of the only server of its data, before the first git call on a repository.
    pub fn end_orphans(&self) -> usize {
        let Some(owner) = self.owner() else { return 0 };
        let mark = [OWNER.as_bytes(), b"=", owner.as_bytes()].concat();
        let Ok(entries) = fs::read_dir("/proc") else { return 0 };
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let ended: Vec<_> = numbers.filter_map(|number| end(Pid::from_raw(number)?, &mark)).collect();
        let deadline = Instant::now() + Duration::from_millis(GONE_MS_MAX);
        for process in &ended {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            // Its end shows on the descriptor; where waiting fails, the process is dying all the same.
            let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left));
        }
        ended.len()
    }
}

/// Kills a process that bears the mark. The descriptor comes first: another process that is given the number of one that
/// has ended meanwhile is not hit.
fn end(pid: Pid, mark: &[u8]) -> Option<std::os::fd::OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    environment.split(|byte| *byte == 0).find(|variable| *variable == mark)?;
    pidfd_send_signal(&process, Signal::KILL).ok()?;
    Some(process)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::environment::GitOptions;

    #[test]
    fn what_bears_the_mark_is_ended_with_what_it_started_and_nothing_else() {
        let start = |owner: &str| {
            let mut child = Command::new("sh")
                .args(["-c", "sleep 600 & echo ready; wait"])
                .env(OWNER, owner)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            output.read_line(&mut String::new()).unwrap();
            (child, output)
        };
        let folder = tempfile::tempdir().unwrap();
        let owner = folder.path().to_str().unwrap();
        let (mut ours, mut output) = start(owner);
        let (mut others, _output) = start(&format!("{owner}x"));
        let git = Git::find(GitOptions { owner: Some(owner.into()), ..GitOptions::default() }).unwrap();
        assert_eq!(git.end_orphans(), 2);
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        // The grandchild held the other end of this pipe.
        assert_eq!(output.read_line(&mut String::new()).unwrap(), 0);
        assert!(others.try_wait().unwrap().is_none());
        assert_eq!(git.end_orphans(), 0);
        let theirs =
            Git::find(GitOptions { owner: Some(format!("{owner}x").into()), ..GitOptions::default() });
        assert_eq!(theirs.unwrap().end_orphans(), 2);
        others.wait().unwrap();
        assert_eq!(Git::find(GitOptions::default()).unwrap().end_orphans(), 0);
    }
}
