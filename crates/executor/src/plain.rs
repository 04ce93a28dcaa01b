//! Jobs without a sandbox: plain processes of the executor's user. Only by a person's explicit choice.
//!
//! There is no border: a job may read and do what the executor may. Its processes are found by their group and,
//! where one left it, among the orphans that the executor inherits as subreaper.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, waitpid,
};

use crate::launcher::Exit;
use crate::pump::{Tree, TreeEnd};

/// Rounds of killing orphans. Each round kills all that are there; a job that still makes new ones outruns nobody.
const ORPHAN_ROUNDS_MAX: usize = 100;

/// How long a process may be seen without variables because it is just executing another program.
const EXEC_TIME: Duration = Duration::from_millis(50);
/// Between two looks at one.
const EXEC_LOOK: Duration = Duration::from_millis(1);

/// A started job.
pub(crate) struct PlainJob {
    child: Child,
    pid: Pid,
    end: OwnedFd,
    /// Variables that together only this job's processes have: `TOWPATH_RUN`, `_JOB` and `_ATTEMPT`.
    marks: Vec<String>,
}

/// What to start.
pub(crate) struct PlainStart<'a> {
    /// Where the command's program is, if that is known: a search by name would need a `fork`.
    pub(crate) program: Option<&'a Path>,
    pub(crate) command: &'a [String],
    pub(crate) environment: &'a std::collections::BTreeMap<String, String>,
    pub(crate) folder: &'a Path,
    pub(crate) output: OwnedFd,
}

impl PlainJob {
    /// Starts it as a process group of its own. By `posix_spawn`, which costs the same however large we are.
    pub(crate) fn start(start: PlainStart<'_>) -> io::Result<PlainJob> {
        let (name, arguments) =
            start.command.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
        let child = Command::new(start.program.unwrap_or(Path::new(name)))
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(start.environment)
            .current_dir(start.folder)
            .stdin(Stdio::null())
            .stdout(start.output.try_clone()?)
            .stderr(start.output)
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let marks = ["TOWPATH_RUN", "TOWPATH_JOB", "TOWPATH_ATTEMPT"];
        let mark = |key: &&str| Some(format!("{key}={}", start.environment.get(*key)?));
        let marks = marks.iter().filter_map(mark).collect();
        Ok(PlainJob { child, pid, end: pidfd_open(pid, PidfdFlags::empty())?, marks })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills processes that left the group: the executor inherits them when their parents die.
    fn kill_orphans(&self) -> io::Result<()> {
        let mute_until = Instant::now() + EXEC_TIME;
        for _ in 0..ORPHAN_ROUNDS_MAX {
            let children = children();
            let pids = children
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .filter_map(Pid::from_raw);
            // Dead ones are only buried: their variables are gone, so they are nobody's.
            let alive = |pid: &Pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            let alive: Vec<Pid> = pids.filter(alive).collect();
            let (mute, told): (Vec<Pid>, Vec<Pid>) =
                alive.into_iter().partition(|pid| environment_of(*pid).is_empty());
            let ours: Vec<Pid> = told.into_iter().filter(|pid| self.is_ours(*pid)).collect();
            if ours.is_empty() && (mute.is_empty() || Instant::now() > mute_until) {
                return Ok(());
            }
            if ours.is_empty() {
                std::thread::park_timeout(EXEC_LOOK);
            }
            for pid in ours {
                // An orphan is a child that is not reaped, so its id is its own.
                let _ = kill_process(pid, Signal::KILL);
                match waitpid(Some(pid), WaitOptions::empty()) {
                    // Another slot buried it while it buried its own.
                    Ok(_) | Err(rustix::io::Errno::CHILD) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(io::Error::other("its processes cannot be killed as fast as they are made"))
    }

    fn is_ours(&self, pid: Pid) -> bool {
        let environment = environment_of(pid);
        let has = |mark: &String| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
        self.marks.iter().all(has)
    }
}

/// The ids of our children, orphans among them. The kernel's list of them stays open: opening it for each job would be as
/// much work as all the rest of a job's burial. One reads it at a time, as it is made anew for who begins.
fn children() -> String {
    static LIST: Mutex<Option<File>> = Mutex::new(None);
    let mut list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    if list.is_none() {
        *list = File::open(format!("/proc/self/task/{}/children", std::process::id())).ok();
    }
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Some(list) = &*list
        && let Ok(count) = list.read_at(&mut buffer, text.len() as u64)
        && count > 0
    {
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(text).unwrap_or_default()
}

fn environment_of(pid: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default()
}

/// Inherits the orphans of plain jobs, so that none outlives its job.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Kills plain jobs that outlived an executor which died: their home or working folder is in its spool.
pub(crate) fn kill_leftovers(spool: &Path) -> io::Result<()> {
    let home = format!("HOME={}/", spool.display());
    let is_leftover = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let at_home = environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(home.as_bytes()));
        at_home || fs::read_link(process.join("cwd")).is_ok_and(|folder| folder.starts_with(spool))
    };
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && pid != rustix::process::getpid()
            && is_leftover(&entry.path())
        {
            // Found by what only our jobs have; one that is dead by now is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

impl Tree for PlainJob {
    fn end_event(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    fn kill(&self) {
        // The group's leader is not reaped yet, so the group's id is its own.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    fn end(&mut self) -> io::Result<TreeEnd> {
        self.kill(); // What the leader left in its group; before it is reaped.
        let status = self.child.wait()?;
        self.kill_orphans()?;
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        };
        Ok(TreeEnd { exit, ran: true, tree: None })
    }
}
