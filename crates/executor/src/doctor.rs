//! Attacks on the border that `towpath doctor` runs, each in the sandbox and, as a control, without it.
//!
//! A refusal means something only if the same attack works where nothing refuses it (attack K01).

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::{Digest, LeaseId};

use crate::spec::{SandboxKind, StartSpec};
use crate::{ExecutorConfig, ExecutorError, JobEvent, JobPool};

/// Seconds for one attack on a loaded machine.
const PROBE_SECONDS: u32 = 60;
/// The interpreter of the attacks: most need a system call that no shell has.
const PYTHON: &str = "/usr/bin/python3";

/// What an attack did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It worked.
    Open,
    /// It was refused.
    Refused,
    /// It could not be tried.
    NotTried,
}

/// One attack, tried twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Its id among the attack cases, or `s1` for a line of the sandbox's profile.
    pub id: &'static str,
    /// What it does.
    pub title: &'static str,
    /// In the sandbox. Anything but [`ProbeOutcome::Refused`] is a hole.
    pub sandboxed: ProbeOutcome,
    /// Without. Anything but [`ProbeOutcome::Open`] means that the attack proves nothing here.
    pub control: ProbeOutcome,
    /// What it said in the sandbox.
    pub said: String,
}

impl ProbeReport {
    /// Whether the border held and the attack is a real one.
    pub fn holds(&self) -> bool {
        self.sandboxed == ProbeOutcome::Refused && self.control == ProbeOutcome::Open
    }
}

struct Probe {
    id: &'static str,
    title: &'static str,
    /// Ends with 0 if the attack worked. Canaries are in `C`, a dictionary.
    program: &'static str,
}

/// What there is to steal and to reach, made for the attacks alone.
struct Canaries {
    /// Text that must not be seen.
    word: String,
    file: String,
    socket: String,
    port: u16,
    victim: Child,
    /// A descriptor that a program without care lets its children inherit.
    _inherited: OwnedFd,
    _path_socket: UnixListener,
    _abstract_socket: UnixListener,
    _tcp: TcpListener,
}

impl Canaries {
    fn new(folder: &Path) -> io::Result<Canaries> {
        let word = format!("canary-{}", Digest::of(folder.as_os_str().as_encoded_bytes()).short());
        let file = folder.join("server.key");
        fs::write(&file, &word)?;
        let socket = folder.join("server.sock");
        let path_socket = crate::socket::listen(&socket)?;
        let abstract_socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&word)?)?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let inherited = OwnedFd::from(fs::File::open(&file)?);
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).map_err(io::Error::from)?;
        let victim = Command::new("sleep").arg("3600").env("SECRET", &word).stdin(Stdio::null()).spawn()?;
        Ok(Canaries {
            file: file.display().to_string(),
            socket: socket.display().to_string(),
            port: tcp.local_addr()?.port(),
            word,
            victim,
            _inherited: inherited,
            _path_socket: path_socket,
            _abstract_socket: abstract_socket,
            _tcp: tcp,
        })
    }

    /// The attack as a script: the canaries, a few words that all use, and the attack. The word that must not be seen
    /// is split, so that the script itself does not hold it.
    fn script(&self, probe: &Probe) -> String {
        let (left, right) = self.word.split_at(self.word.len() / 2);
        let (file, socket, port, pid) = (&self.file, &self.socket, self.port, self.victim.id());
        let program = probe.program;
        format!(
            "{PYTHON} - <<'PROGRAM'\n\
             import ctypes, os, socket, sys, glob, fcntl, signal, subprocess\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             word = '{left}' + '{right}'\n\
             file, path_socket, port, victim = '{file}', '{socket}', {port}, {pid}\n\
             def open_if(what): print('open' if what else 'refused'); sys.exit(0 if what else 3)\n\
             def read(path):\n\
             \x20   try: return open(path, 'rb').read(65536)\n\
             \x20   except OSError: return b''\n\
             def works(attack):\n\
             \x20   try: attack(); return True\n\
             \x20   except OSError as error: print(error); return False\n\
             def call(number, *arguments): return libc.syscall(number, *arguments) >= 0\n\
             {program}\nPROGRAM\n"
        )
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        // Our child: both can only fail because it is dead.
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

const PROBES: &[Probe] = &[
    Probe {
        id: "d01",
        title: "reads another process's environment",
        program: "open_if(any(word.encode() in read(path) for path in glob.glob('/proc/[0-9]*/environ')))",
    },
    Probe {
        id: "d02",
        title: "finds an open descriptor beyond 0, 1 and 2",
        program: "found = [number for number in map(int, os.listdir('/proc/self/fd')) if number > 2 and os.path.exists(f'/proc/self/fd/{number}')]\nprint(found)\nopen_if(found)",
    },
    Probe { id: "d03", title: "reads a file of the server", program: "open_if(word.encode() in read(file))" },
    Probe {
        id: "d03",
        title: "sees the host's configuration, users and services",
        program: "print([path for path in ['/etc/shadow', '/etc/sudoers', '/var/lib', '/var/log', '/run/lock', '/sys/kernel', '/boot'] if os.path.exists(path)])\nopen_if(any(map(os.path.exists, ['/etc/shadow', '/etc/pip.conf', '/etc/gitconfig', '/var/lib', '/sys/kernel', '/boot'])))",
    },
    Probe {
        id: "d04",
        title: "connects to a unix socket of the host",
        program: "open_if(works(lambda: socket.socket(socket.AF_UNIX).connect(path_socket)))",
    },
    Probe {
        id: "d04",
        title: "connects to an abstract socket of the host",
        program: "open_if(works(lambda: socket.socket(socket.AF_UNIX).connect('\\0' + word)))",
    },
    Probe {
        id: "d06",
        title: "connects to a service on the host's loopback",
        program: "open_if(works(lambda: socket.create_connection(('127.0.0.1', port), 5)))",
    },
    Probe {
        id: "d09",
        title: "adds a key to a keyring",
        program: "number = {'x86_64': 248, 'aarch64': 217}[os.uname().machine]\nopen_if(call(number, b'user', b'towpath-probe', b'x', 1, -1))",
    },
    Probe {
        id: "d10",
        title: "types into a terminal (TIOCSTI)",
        program: "import pty, termios\npid, master = pty.fork()\nif pid == 0:\n    try: fcntl.ioctl(0, termios.TIOCSTI, b'x'); os._exit(0)\n    except OSError: os._exit(3)\nopen_if(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0)",
    },
    Probe {
        id: "d11",
        title: "has a capability or can mount",
        program: "status = open('/proc/self/status').read()\ncaps = int(status.split('CapEff:')[1].split()[0], 16)\nprint(hex(caps), os.getuid())\nopen_if(caps != 0 or libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0)",
    },
    Probe {
        id: "d11",
        title: "signals a process of the host",
        program: "open_if(works(lambda: os.kill(victim, 0)))",
    },
    Probe {
        id: "d11",
        title: "may change the kernel's core pattern",
        program: "open_if(works(lambda: os.close(os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY))))",
    },
    Probe {
        id: "d15",
        title: "may gain rights by a setuid program",
        program: "open_if('NoNewPrivs:\\t0' in open('/proc/self/status').read())",
    },
    Probe {
        id: "d17",
        title: "writes to a system folder",
        program: "def write(folder):\n    path = folder + '/.towpath-probe'\n    os.close(os.open(path, os.O_CREAT | os.O_WRONLY)); os.unlink(path)\nopen_if(any([works(lambda: write(folder)) for folder in ['/', '/dev', '/usr', '/usr/bin', '/etc']]))",
    },
    Probe { id: "s1", title: "makes a user namespace", program: "open_if(libc.unshare(0x10000000) == 0)" },
    Probe {
        id: "s1",
        title: "opens a socket that knows no namespace (AF_VSOCK, AF_PACKET, AF_ALG, AF_XDP)",
        program: "open_if(any([works(lambda: socket.socket(family, kind).close()) for family, kind in [(40, 1), (17, 3), (38, 5), (44, 3)]]))",
    },
    Probe {
        id: "s1",
        title: "uses a part of the kernel that often has holes (bpf, io_uring, userfaultfd, perf)",
        program: "numbers = {'x86_64': [321, 425, 323, 298], 'aarch64': [280, 425, 282, 241]}[os.uname().machine]\nresults = []\nfor number in numbers:\n    libc.syscall(number, 0, 0, 0, 0, 0)\n    results.append(ctypes.get_errno())\nprint(results)\nopen_if(any(error not in (1, 38) for error in results))",
    },
];

/// Runs every attack in the sandbox and without, in folders below `config.spool`, which is removed afterwards by
/// whoever made it.
///
/// # Errors
/// As [`JobPool::start`].
pub fn run_border_probes(config: &ExecutorConfig) -> Result<Vec<ProbeReport>, ExecutorError> {
    let folder = config.spool.join("doctor");
    fs::create_dir_all(&folder)?;
    let canaries = Canaries::new(&folder)?;
    let sandboxed = run_all(config, SandboxKind::Bubblewrap, &canaries)?;
    let control = run_all(config, SandboxKind::None, &canaries)?;
    let both = PROBES.iter().zip(sandboxed.into_iter().zip(control));
    Ok(both
        .map(|(probe, ((sandboxed, said), (control, _)))| ProbeReport {
            id: probe.id,
            title: probe.title,
            sandboxed,
            control,
            said,
        })
        .collect())
}

fn run_all(
    config: &ExecutorConfig,
    sandbox: SandboxKind,
    canaries: &Canaries,
) -> Result<Vec<(ProbeOutcome, String)>, ExecutorError> {
    if !Path::new(PYTHON).exists() {
        let not_tried = (ProbeOutcome::NotTried, format!("{PYTHON} is not installed"));
        return Ok(vec![not_tried; PROBES.len()]);
    }
    let spool = config.spool.join(match sandbox {
        SandboxKind::Bubblewrap => "doctor/sandboxed",
        SandboxKind::None => "doctor/control",
    });
    let logs = spool.join("logs");
    let config = ExecutorConfig { spool, logs, sandbox, slots: 1, ..config.clone() };
    let reader = towpath_blob::LogStore::open(&config.logs).map_err(io::Error::other)?;
    let (tell, events) = channel();
    let pool = JobPool::start(config, move |event| {
        // The listener waits below.
        let _ = tell.send(event);
    })?;
    PROBES
        .iter()
        .enumerate()
        .map(|(at, probe)| {
            let mut lease = [0xfe; 16];
            lease[..8].copy_from_slice(&(at as u64).to_be_bytes());
            let lease = LeaseId(lease);
            let body = JobBody {
                checkout: false,
                timeout_seconds: PROBE_SECONDS,
                ..JobBody::script(&canaries.script(probe))
            };
            pool.submit([StartSpec::new(lease, "probe".parse().map_err(io::Error::other)?, body)]);
            let outcome = wait(&events);
            let said = reader.reader(&lease).bytes(0, 4096).unwrap_or_default();
            Ok((outcome, String::from_utf8_lossy(&said).into_owned()))
        })
        .collect()
}

fn wait(events: &Receiver<JobEvent>) -> ProbeOutcome {
    for event in events {
        if let JobEvent::Ended(end) = event {
            return match (end.result.outcome, end.result.exit_code) {
                (Outcome::Passed, _) => ProbeOutcome::Open,
                (Outcome::Failed, Some(3)) => ProbeOutcome::Refused,
                _ => ProbeOutcome::NotTried,
            };
        }
    }
    ProbeOutcome::NotTried
}
