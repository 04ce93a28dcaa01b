//! Signals that tell a process to end, held back while it becomes another program.
//!
//! A signal that is held back stays with the process when it executes another program, and so does that it is held back: the
//! program that follows lets it in once it listens. Nobody loses one in between.
#![allow(unsafe_code)] // Two calls of sigprocmask(2), which no safe library offers.

use std::io;
use std::mem::MaybeUninit;

/// SIGTERM and SIGINT.
const HELD: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Holds them back from this thread, and from whatever it starts or executes.
///
/// # Errors
/// The system's reason.
pub fn hold_back() -> io::Result<()> {
    change(libc::SIG_BLOCK)
}

/// Lets them in again, those that have come meanwhile at once.
///
/// # Errors
/// The system's reason.
pub fn let_in() -> io::Result<()> {
    change(libc::SIG_UNBLOCK)
}

/// Whether one of them waits for a process to let it in. No: one that is gone.
pub fn waits_for(process: rustix::process::Pid) -> bool {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let pending = status.lines().filter_map(|line| {
        let line = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    let held = HELD.iter().fold(0, |mask, signal| mask | 1u64 << (signal - 1));
    pending.fold(0, |mask, pending| mask | pending) & held != 0
}

fn change(how: libc::c_int) -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset makes the set whole before anybody reads it; the other calls are given that set, numbers of signals
    // that exist, and no place for the former mask.
    let failed = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in HELD {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use rustix::process::Pid;

    use super::*;

    /// A shell that ends itself, and says so if it is still there; it stays until its input ends.
    fn shell(prepare: impl Fn() + Send + 'static) -> (Child, String) {
        let started = std::thread::spawn(move || {
            prepare();
            let mut command = Command::new("sh");
            command.args(["-c", "kill -TERM $$; echo stays; read line"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        });
        let mut child = started.join().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        (child, said)
    }

    #[test]
    fn a_signal_that_is_held_back_waits_for_the_program_that_follows_and_is_seen_to() {
        let (mut child, said) = shell(|| hold_back().unwrap());
        assert_eq!(said, "stays\n");
        let pid = Pid::from_child(&child);
        assert!(waits_for(pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!waits_for(pid), "nothing waits for one that is gone");
        let (mut child, said) = shell(|| {
            hold_back().unwrap();
            let_in().unwrap();
        });
        assert_eq!(said, "");
        assert!(!child.wait().unwrap().success());
    }
}
