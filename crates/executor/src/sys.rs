//! The few system calls that no safe library offers. Each function says why it is sound.
#![allow(unsafe_code)] // The only place of this crate with it.

pub(crate) mod spawn;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;

/// Descriptors that a process of a job has unless it asks for more, whoever started the executor and with how many. Source:
/// Linux's own default; select(2) knows no more.
const JOB_DESCRIPTORS: u64 = 1024;

/// The part of the descriptors that this process may have of which a process of a job may ask for more.
const JOB_DESCRIPTORS_SHARE: u64 = 4;

/// The limit on a job's descriptors. It may ask for a part of those that this process may have: the kernel lets a user send
/// descriptors while fewer are under way than the *sender* may have open, so what a job can have under way leaves room for
/// a sender of ours that is the same user. Source: Linux, `too_many_unix_fds`.
pub(crate) fn job_descriptors() -> Rlimit {
    let own = getrlimit(Resource::Nofile).maximum;
    let maximum = own.map(|most| (most / JOB_DESCRIPTORS_SHARE).max(most.min(JOB_DESCRIPTORS)));
    Rlimit { current: Some(maximum.map_or(JOB_DESCRIPTORS, |most| most.min(JOB_DESCRIPTORS))), maximum }
}

/// Lets this process, and what it starts with the same limits, have and send as many descriptors as it may.
pub(crate) fn raise_own_descriptors() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Which side of a [`fork`] this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old process, with the new one's id.
    Parent(Pid),
}

/// Copies this process. Only for the launcher, which has one thread: nothing else can hold a lock in the copy.
///
/// # Errors
/// The system's reason: a limit on processes or memory.
pub(crate) fn fork() -> io::Result<Fork> {
    debug_assert_eq!(thread_count(), Some(1), "fork is for processes with one thread");
    // SAFETY: one thread, so no lock is held by a thread that the child does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid).expect("fork answers a positive id"))),
    }
}

fn thread_count() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// Ends this process at once, without running what the parent has registered for its own end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and never returns.
    unsafe { libc::_exit(code) }
}

/// Leaves the shared namespaces that `flags` name.
///
/// # Errors
/// The system's reason, "operation not permitted" where user namespaces are forbidden.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsound only with `FILES`, which would take descriptors away from other threads.
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Gives every signal its default again, whatever our own starter ignored: that lasts over `exec`, and a job that ignores
/// SIGXFSZ does not end at its limit, one that ignores SIGHUP not with its terminal. Python and `nohup` start programs so.
pub(crate) fn forget_ignored_signals() {
    // SIGPIPE is ignored by ourselves; the standard library gives it back to what it executes.
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        // SAFETY: sets a default, which runs no code of ours. The few that cannot be set stay as they are.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Lets no program that this process becomes or starts inherit a descriptor beyond 0, 1 and 2, whatever our own
/// parent left open.
pub(crate) fn keep_descriptors_to_ourselves() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: sets a flag on descriptors; closes none.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Gives this process an empty session keyring of its own. A kernel without keyrings has none to hide, and a sandbox
/// around ours that refuses these calls refuses them to the job too.
pub(crate) fn join_new_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0 as libc::c_long) };
    match answer {
        -1 => match io::Error::last_os_error() {
            error if [Some(libc::ENOSYS), Some(libc::EPERM)].contains(&error.raw_os_error()) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// Makes a detached mount show its files with the ids that `users` maps them to.
///
/// # Errors
/// "Invalid argument" where kernel or file system cannot (Linux before 5.12).
pub(crate) fn map_mount_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).expect("an open descriptor is not negative"),
    };
    // SAFETY: path and structure outlive the call, and the size is the structure's.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Shuts this process and its children off from abstract sockets and signals outside (Landlock, kernel 6.12), a
/// second wall behind the namespaces. An older kernel has none; rules for files would forbid bubblewrap its mounts.
///
/// # Errors
/// The system's reason, where the kernel has the wall and refuses it.
pub(crate) fn scope_with_landlock() -> io::Result<()> {
    const SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL: u64 = 0b11;
    const LACKING: [i32; 4] = [libc::ENOSYS, libc::EOPNOTSUPP, libc::E2BIG, libc::EINVAL];
    // `struct landlock_ruleset_attr`: files, network, scopes.
    let attributes: [u64; 3] = [0, 0, SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL];
    let size = size_of_val(&attributes);
    // SAFETY: the attributes outlive the call, and the size is theirs.
    let rules = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0 as libc::c_long)
    };
    if rules < 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error().is_some_and(|code| LACKING.contains(&code)) => Ok(()),
            error => Err(error),
        };
    }
    let rules = i32::try_from(rules).map_err(io::Error::other)?;
    // SAFETY: a descriptor that was just made and that nobody else has.
    let rules = unsafe { OwnedFd::from_raw_fd(rules) };
    // SAFETY: no memory is passed.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0 as libc::c_long) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
