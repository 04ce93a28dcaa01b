//! The last steps before bubblewrap: a copy of the launcher becomes the job's outermost process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::{Launch, Setup};
use crate::sys;

/// Descriptors that the job's outermost process gets.
pub(super) struct Handed {
    /// Bubblewrap's options, separated by zeros.
    pub(super) options: OwnedFd,
    /// The system call filter.
    pub(super) filter: OwnedFd,
    /// Where bubblewrap reports the job's process id and exit code.
    pub(super) status: OwnedFd,
    /// With a network: bubblewrap waits here until it is up.
    pub(super) gate: Option<OwnedFd>,
}

/// Anonymous file with these bytes, read from its beginning.
pub(super) fn memory_file(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

/// Becomes bubblewrap. Returns only if that fails.
pub(super) fn become_job(setup: &Setup, launch: &Launch, handed: &Handed, parent: Pid) -> io::Error {
    match prepare(setup, launch, handed, parent) {
        Err(error) => error,
        Ok(mut command) => command.exec(),
    }
}

fn prepare(setup: &Setup, launch: &Launch, handed: &Handed, parent: Pid) -> io::Result<Command> {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    // The standard output is the job's already.
    rustix::stdio::dup2_stderr(rustix::stdio::stdout())?;
    set_limits(launch)?;
    // The kernel's killer takes jobs before anything else on the machine.
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    sys::join_new_keyring()?;
    if let Some(user) = setup.job_user {
        drop_to(user)?;
    }
    // After the change of user, which clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::other("the launcher is gone"));
    }
    rustix::thread::set_no_new_privs(true)?;
    sys::scope_with_landlock()?;
    let mut command = Command::new(&setup.bwrap);
    command.env_clear();
    let mut hand = |option: &str, descriptor: BorrowedFd<'_>| {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        command.arg(option).arg(descriptor.as_raw_fd().to_string());
        io::Result::Ok(())
    };
    hand("--args", handed.options.as_fd())?;
    hand("--seccomp", handed.filter.as_fd())?;
    hand("--json-status-fd", handed.status.as_fd())?;
    if let Some(gate) = &handed.gate {
        hand("--block-fd", gate.as_fd())?;
    }
    command.arg("--").args(&launch.command);
    Ok(command)
}

fn set_limits(launch: &Launch) -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, launch.file_bytes_max)?;
    rustix::process::setrlimit(Resource::Nofile, sys::job_descriptors())?;
    launch.processes_max.map_or(Ok(()), |processes| limit(Resource::Nproc, processes))
}

/// Sets a limit for good. A lower one that is in force already stays: only root may raise it.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource).maximum;
    let value = Some(now.map_or(value, |now| now.min(value)));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })?)
}

fn drop_to(user: u32) -> io::Result<()> {
    let group = rustix::process::Gid::from_raw(user);
    let user = rustix::process::Uid::from_raw(user);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}
