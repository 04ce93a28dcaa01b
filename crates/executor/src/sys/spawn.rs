//! Starting a program without copying this process, for a slot that does so thousands of times.
//!
//! What `posix_spawn` of the C library does around the kernel's own work costs nearly as much as that: it asks for each of 64
//! signals how it is handled, and makes and removes a stack. Here both are kept from one program to the next. Between
//! `clone` and `execve` the new process is a guest in our memory, while the thread that started it waits.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, WaitOptions, waitpid};

/// Bytes of the stack between `clone` and `execve`, which a few system calls use. The C library gives as many.
const STACK_BYTES: usize = 32 * 1024;
/// A stack begins at a multiple of it on every processor that we run on.
const STACK_ALIGN: usize = 16;

/// What is executed, and with what.
pub(crate) struct Program<'a> {
    /// Absolute: nothing is searched for.
    pub(crate) path: &'a Path,
    /// How it is called, and its arguments.
    pub(crate) line: &'a [String],
    /// All its variables.
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// Where it begins.
    pub(crate) folder: &'a Path,
    /// Its standard output and standard error.
    pub(crate) output: BorrowedFd<'a>,
}

/// A process that was started: its id until it is reaped, and a descriptor that is readable once it has ended.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) end: OwnedFd,
}

/// What starting a program takes, kept from one to the next.
pub(crate) struct Spawner {
    stack: Box<[MaybeUninit<u8>]>,
    /// What programs read.
    nothing: File,
    /// Signals that this process does not leave at their default: handled ones, and ignored ones, which `execve` keeps.
    changed: Vec<c_int>,
    /// How many descriptors programs may have.
    descriptors: libc::rlimit,
}

impl Spawner {
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub(crate) fn new() -> io::Result<Spawner> {
        let descriptors = super::job_descriptors();
        Ok(Spawner {
            stack: Box::new_uninit_slice(STACK_BYTES),
            nothing: File::open("/dev/null")?,
            changed: (1..=libc::SIGRTMAX()).filter(|signal| is_changed(*signal)).collect(),
            descriptors: libc::rlimit {
                rlim_cur: descriptors.current.unwrap_or(libc::RLIM_INFINITY),
                rlim_max: descriptors.maximum.unwrap_or(libc::RLIM_INFINITY),
            },
        })
    }

    /// Starts a program as the leader of a process group of its own, with every signal at its default and none blocked.
    ///
    /// # Errors
    /// Those of the system: program or folder are not there, too many arguments, a limit on processes.
    pub(crate) fn start(&mut self, program: &Program<'_>) -> io::Result<Spawned> {
        let path = CString::new(program.path.as_os_str().as_bytes())?;
        let folder = CString::new(program.folder.as_os_str().as_bytes())?;
        let line = Texts::new(program.line.iter().map(|word| [word, "", ""]))?;
        let variables = Texts::new(program.environment.iter().map(|(key, value)| [key, "=", value]))?;
        let (words, variables) = (line.pointers(), variables.pointers());
        let task = Task {
            path: path.as_ptr(),
            line: words.as_ptr(),
            variables: variables.as_ptr(),
            folder: folder.as_ptr(),
            input: self.nothing.as_raw_fd(),
            output: program.output.as_raw_fd(),
            changed: &self.changed,
            descriptors: &self.descriptors,
            failure: AtomicI32::new(0),
        };
        task.start_on(&mut self.stack)
    }
}

/// Texts as `execve` takes them: each ends with a zero.
struct Texts {
    bytes: Vec<u8>,
    begins: Vec<usize>,
}

impl Texts {
    /// # Errors
    /// One holds a zero byte.
    fn new<'a>(texts: impl Iterator<Item = [&'a str; 3]>) -> io::Result<Texts> {
        let mut all = Texts { bytes: Vec::new(), begins: Vec::new() };
        for text in texts {
            let begin = all.bytes.len();
            all.begins.push(begin);
            text.iter().for_each(|part| all.bytes.extend_from_slice(part.as_bytes()));
            if all.bytes[begin..].contains(&0) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a zero byte in a word or a variable",
                ));
            }
            all.bytes.push(0);
        }
        Ok(all)
    }

    /// Where each begins, and a null pointer behind them. They point into the texts.
    fn pointers(&self) -> Vec<*const c_char> {
        let begins = self.begins.iter().map(|begin| self.bytes[*begin..].as_ptr().cast());
        begins.chain([ptr::null()]).collect()
    }
}

/// What the new process has to do. Every pointer outlives it: the thread that owns them waits for its `execve` or its end.
struct Task<'a> {
    path: *const c_char,
    line: *const *const c_char,
    variables: *const *const c_char,
    folder: *const c_char,
    input: RawFd,
    output: RawFd,
    changed: &'a [c_int],
    descriptors: &'a libc::rlimit,
    /// Why it could not, as an `errno`; 0 if it could.
    failure: AtomicI32,
}

impl Task<'_> {
    fn start_on(&self, stack: &mut [MaybeUninit<u8>]) -> io::Result<Spawned> {
        let range = stack.as_mut_ptr_range();
        let top = range.end.wrapping_sub(range.end.addr() % STACK_ALIGN);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let mut end: c_int = -1;
        let blocked = Blocked::all();
        // SAFETY: the new process has a stack of its own, the whole of `stack`, and shares our memory while we wait
        // (`VFORK`): task and stack outlive its use of them. It allocates nothing, takes no lock and does not unwind; no
        // handler of ours runs in it, as all signals are blocked until those that have one are at their default.
        let (pid, error) = unsafe {
            let task = ptr::from_ref(self).cast_mut().cast::<c_void>();
            (libc::clone(become_program, top.cast(), flags, task, &raw mut end), io::Error::last_os_error())
        };
        drop(blocked);
        let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Err(error) };
        // SAFETY: the kernel has just made it for us (`PIDFD`).
        let end = unsafe { OwnedFd::from_raw_fd(end) };
        match self.failure.load(Ordering::Relaxed) {
            0 => Ok(Spawned { pid, end }),
            code => {
                // It has ended, or does so now. Its id is its own until here.
                waitpid(Some(pid), WaitOptions::empty())?;
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }

    /// In the new process: becomes the program. Returns only if that fails.
    ///
    /// # Safety
    /// For a process that [`Task::start_on`] has made.
    unsafe fn execute(&self) {
        // SAFETY: system calls with numbers, and with pointers that the thread that waits keeps alive. All of them may be
        // called where nothing else may (signal-safety(7)), and so may `setrlimit`, which is one system call.
        unsafe {
            for signal in self.changed {
                libc::signal(*signal, libc::SIG_DFL);
            }
            let mut none = MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            let is_ready = libc::setpgid(0, 0) == 0
                && libc::chdir(self.folder) == 0
                && libc::dup2(self.input, 0) == 0
                && libc::dup2(self.output, 1) == 1
                && libc::dup2(self.output, 2) == 2
                && libc::setrlimit(libc::RLIMIT_NOFILE, self.descriptors) == 0
                && libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) == 0;
            if is_ready {
                libc::execve(self.path, self.line, self.variables);
            }
            self.failure.store(*libc::__errno_location(), Ordering::Relaxed);
        }
    }
}

/// The new process's first and only function of ours. What it answers is the exit code that nobody reads.
extern "C" fn become_program(task: *mut c_void) -> c_int {
    // SAFETY: `start_on` passes its task, and waits.
    unsafe { (*task.cast::<Task<'_>>()).execute() };
    127
}

/// While it lives, this thread gets no signals.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn all() -> Blocked {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both sets are ours; the second is filled, as neither call can fail with these arguments.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Blocked { before: before.assume_init() }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: a set that the system gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Whether this process handles or ignores a signal. One that the C library keeps for itself does not count.
fn is_changed(signal: c_int) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; zeros are a valid answer for one that it refuses to tell of.
    let now = unsafe {
        libc::sigaction(signal, ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction != libc::SIG_DFL
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Starts a program of the system and gives what it wrote, and its exit code.
    fn run(spawner: &mut Spawner, line: &[&str], variables: &[(&str, &str)]) -> io::Result<(String, i32)> {
        let (mut read, write) = io::pipe()?;
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let environment =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let spawned = spawner.start(&Program {
            path: Path::new(&line[0]),
            line: &line,
            environment: &environment,
            folder: Path::new("/usr"),
            output: std::os::fd::AsFd::as_fd(&write),
        })?;
        drop(write);
        let mut said = String::new();
        read.read_to_string(&mut said)?;
        let mut events = [rustix::event::PollFd::new(&spawned.end, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut events, None)?;
        let status = waitpid(Some(spawned.pid), WaitOptions::NOHANG)?.expect("its end has been told").1;
        Ok((said, status.exit_status().unwrap_or(-1)))
    }

    #[test]
    fn a_program_gets_its_words_variables_folder_and_nothing_to_read() {
        let mut spawner = Spawner::new().unwrap();
        let script = r#"echo "$0 $1 $(pwd)"; cat; exit 7"#;
        for _ in 0..3 {
            let ran = run(&mut spawner, &["/bin/sh", "-c", script, "me", "two words"], &[]).unwrap();
            assert_eq!(ran, ("me two words /usr\n".to_owned(), 7));
            // No shell, which would set some of its own.
            let ran = run(&mut spawner, &["/usr/bin/env"], &[("A", "x=y z")]).unwrap();
            assert_eq!(ran, ("A=x=y z\n".to_owned(), 0));
        }
    }

    #[test]
    fn a_program_leads_a_group_and_has_no_signal_ignored_or_blocked() {
        // Rust ignores SIGPIPE; whoever starts us with `nohup` makes us ignore more.
        // SAFETY: nobody in this process sends or needs it.
        unsafe { libc::signal(libc::SIGTTIN, libc::SIG_IGN) };
        let script = "read -r pid name state parent group rest < /proc/$$/stat; test $group -eq $$ && echo leads; \
                      sed -n 's/^Sig\\(Blk\\|Ign\\)://p' /proc/self/status";
        let (said, code) = run(&mut Spawner::new().unwrap(), &["/bin/sh", "-c", script], &[]).unwrap();
        let [leads, blocked, ignored] = said.split_ascii_whitespace().collect::<Vec<_>>().try_into().unwrap();
        // Two signals are the C library's own, which nobody else can set.
        let own = 0b11 << (32 - 1);
        let none = |set| u64::from_str_radix(set, 16).unwrap() & !own == 0;
        assert!(code == 0 && leads == "leads" && none(blocked) && none(ignored), "{said}");
    }

    #[test]
    fn a_program_has_as_many_descriptors_as_any_whatever_we_have() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum }).unwrap();
        let (said, _) =
            run(&mut Spawner::new().unwrap(), &["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"], &[]).unwrap();
        let most = maximum.map_or("unlimited".to_owned(), |most| (most / 4).max(1024).to_string());
        assert_eq!(said, format!("1024\n{most}\n"));
    }

    #[test]
    fn what_cannot_be_started_says_why_and_leaves_nothing() {
        let mut spawner = Spawner::new().unwrap();
        let kind = |line: &[&str], spawner: &mut Spawner| run(spawner, line, &[]).unwrap_err().kind();
        assert_eq!(kind(&["/bin/no-such-program"], &mut spawner), io::ErrorKind::NotFound);
        assert_eq!(kind(&["/etc/passwd"], &mut spawner), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(&["/bin/true", "a\0b"], &mut spawner), io::ErrorKind::InvalidInput);
        let long = "x".repeat(256 * 1024);
        assert_eq!(kind(&["/bin/true", &long], &mut spawner), io::ErrorKind::ArgumentListTooLong);
        let children = std::fs::read_to_string(format!(
            "/proc/self/task/{}/children",
            rustix::thread::gettid().as_raw_nonzero()
        ));
        assert_eq!(children.unwrap(), "", "each was reaped");
    }
}
