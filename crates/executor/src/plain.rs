//! Jobs without a sandbox: plain processes of the executor's user. Only by a person's explicit choice.
//!
//! There is no border: a job may read and do what the executor may. Its processes are found by their group and,
//! where one left it, among the orphans that the executor inherits as subreaper.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, waitpid};

use crate::launcher::Exit;
use crate::pool::{HOME, JOBS};
use crate::pump::{Tree, TreeEnd};
use crate::sys::spawn::{Program, Spawned, Spawner};

/// Rounds of killing orphans. Each round kills all that are there; a job that still makes new ones outruns nobody.
const ORPHAN_ROUNDS_MAX: usize = 100;

/// How long a process may be seen without variables because it is just executing another program.
const EXEC_TIME: Duration = Duration::from_millis(50);
/// Between two looks at one.
const EXEC_LOOK: Duration = Duration::from_millis(1);

/// A started job.
pub(crate) struct PlainJob {
    process: Spawned,
    /// Variables that together only this job's processes have: `TOWPATH_RUN`, `_JOB` and `_ATTEMPT`.
    marks: Vec<String>,
}

impl PlainJob {
    /// Starts it as a process group of its own.
    pub(crate) fn start(spawner: &mut Spawner, program: &Program<'_>) -> io::Result<PlainJob> {
        let marks = ["TOWPATH_RUN", "TOWPATH_JOB", "TOWPATH_ATTEMPT"];
        let mark = |key: &&str| Some(format!("{key}={}", program.environment.get(*key)?));
        let marks = marks.iter().filter_map(mark).collect();
        Ok(PlainJob { process: spawner.start(program)?, marks })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills processes that left the group: the executor inherits them when their parents die.
    fn kill_orphans(&self) -> io::Result<()> {
        let mute_until = Instant::now() + EXEC_TIME;
        for _ in 0..ORPHAN_ROUNDS_MAX {
            let orphans = orphans();
            let pids =
                orphans.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw);
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

/// The ids of the orphans that we have inherited: the children of our first thread, which starts no job. The kernel's list of
/// them stays open: opening it for each job would be as much work as all the rest of a job's burial.
fn orphans() -> String {
    static LIST: OnceLock<Option<File>> = OnceLock::new();
    let list =
        LIST.get_or_init(|| File::open(format!("/proc/self/task/{}/children", std::process::id())).ok());
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Some(list) = list
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
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Kills plain jobs that outlived an executor which died. They have their home in its spool. Those that changed their
/// variables are known by where they work, with what is left of the variables or in the session of that executor: whoever
/// else works there only looks at what a job did.
pub(crate) fn kill_leftovers(spool: &Path) -> io::Result<()> {
    let home = format!("HOME={}/", spool.display());
    let is_leftover = |pid: Pid| {
        let environment = environment_of(pid);
        let has = |begin: &str| {
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(begin.as_bytes()))
        };
        has(&home) || works_in(spool, pid) && (has("TOWPATH_JOB=") || is_without_leader(pid))
    };
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && pid != getpid()
            && is_leftover(pid)
        {
            // Found by what only our jobs have; one that is dead by now is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// Whether a process works in the home or the work tree of a job.
fn works_in(spool: &Path, pid: Pid) -> bool {
    let folder = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).unwrap_or_default();
    let Ok(folder) = folder.strip_prefix(spool) else { return false };
    let mut parts = folder.components().map(|part| part.as_os_str().to_string_lossy());
    parts.next().is_some_and(|top| top.starts_with(HOME) || top == JOBS && parts.next().is_some())
}

/// Whether the leader of a process's session is dead, be it buried or not.
fn is_without_leader(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // Behind the name, which may hold anything: state, parent, group, session (proc(5)).
    let session = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(3));
    // Zero is one that we cannot see.
    let Some(leader) = session.and_then(|leader| leader.parse().ok()).and_then(Pid::from_raw) else {
        return false;
    };
    let program = fs::read_link(format!("/proc/{}/exe", leader.as_raw_nonzero()));
    program.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

impl Tree for PlainJob {
    fn end_event(&self) -> BorrowedFd<'_> {
        self.process.end.as_fd()
    }

    fn kill(&self) {
        // The group's leader is not reaped yet, so the group's id is its own.
        let _ = kill_process_group(self.process.pid, Signal::KILL);
    }

    fn end(&mut self) -> io::Result<TreeEnd> {
        self.kill(); // What the leader left in its group; before it is reaped.
        let ended = loop {
            match waitpid(Some(self.process.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        let (_, status) = ended.ok_or_else(|| io::Error::other("no wait status"))?;
        self.kill_orphans()?;
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        };
        Ok(TreeEnd { exit, ran: true, tree: None })
    }
}
