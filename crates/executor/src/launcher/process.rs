//! The launcher's own life: set up once, then one job after another.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fchown;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions, kill_process, pidfd_open, waitpid};

use super::child::{Handed, become_job, memory_file};
use super::mounts::Stage;
use super::network::Network;
use super::{Answer, Exit, Launch, Order, Setup};
use crate::{seccomp, sys, wire};

/// How long bubblewrap may take to report its process before the network cannot be made.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of bubblewrap's reports; two short lines.
const REPORT_BYTES_MAX: usize = 64 * 1024;

/// Entry point of the hidden subcommand `sandbox-helper`: serves the executor on the socket that is its standard
/// input, and ends when that closes.
pub fn sandbox_helper() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "error: the sandbox helper ends: {error}\n hint: it is started by `towpath executor`, not by hand"
            );
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    sys::keep_descriptors_to_ourselves()?;
    sys::forget_ignored_signals();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::raise_own_descriptors()?;
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me))?;
    let Some(setup) = wire::receive::<Setup>(&socket)? else { return Ok(()) };
    let mut launcher = match Launching::new(setup) {
        Ok(launcher) => launcher,
        Err(what) => return wire::send(&socket, &Answer::Refused { what }),
    };
    launcher.offer_output()?;
    wire::send(&socket, &Answer::Ready)?;
    loop {
        match wire::receive::<Order>(&socket)? {
            None => return Ok(()),
            Some(Order::Kill) => {} // Its job ended by itself meanwhile.
            Some(Order::TreeTaken) => launcher.ended_tree = None,
            Some(Order::Launch(launch)) => {
                let ended = launcher.run(&socket, &launch);
                launcher.answer(&socket, &launch, ended)?;
            }
        }
    }
}

struct Launching {
    setup: Setup,
    stage: Stage,
    me: Pid,
    /// The system call filters: without and with nested user namespaces.
    filters: [Vec<u8>; 2],
    /// The work tree of the job that ended, until the executor has it open. It is mounted for as long.
    ended_tree: Option<OwnedFd>,
}

/// A started job.
struct Running {
    child: Pid,
    child_end: OwnedFd,
    reports: OwnedFd,
    network: Option<Network>,
}

impl Launching {
    fn new(setup: Setup) -> Result<Launching, String> {
        // In the cgroup from the beginning: what it starts is born there, which costs nothing.
        for file in &setup.cgroup_procs {
            fs::write(file, "0").map_err(|error| format!("cannot join {}: {error}", file.display()))?;
        }
        let filter = |user_namespaces| seccomp::program(user_namespaces).map_err(|error| error.to_string());
        let filters = [filter(false)?, filter(true)?];
        let stage = Stage::new(&setup)?;
        Ok(Launching { setup, stage, me: rustix::process::getpid(), filters, ended_tree: None })
    }

    /// Makes a new pipe the standard output, where the executor finds it: what a job did to its own does not stay for the next.
    /// It belongs to the job's user: whoever opens `/dev/stdout` opens the pipe anew, and needs the right to.
    fn offer_output(&self) -> io::Result<()> {
        let (_, write) = pipe_with(PipeFlags::CLOEXEC)?;
        if let Some(user) = self.setup.job_user {
            fchown(&write, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?;
        }
        Ok(rustix::stdio::dup2_stdout(&write)?)
    }

    /// Runs one job to its very end: how it ended, and whether its command was reached.
    fn run(&mut self, socket: &UnixStream, launch: &Launch) -> Result<(Exit, bool), String> {
        self.stage.prepare(launch)?;
        let running = self.start(launch).map_err(|error| format!("cannot start bubblewrap: {error}"))?;
        let mut running = running;
        let network = self.connect(launch, &mut running);
        if network.is_err() {
            kill(running.child);
        }
        let exit = supervise(socket, &running).map_err(|error| format!("lost sight of the job: {error}"));
        let helper = running.network.as_ref().map(Network::pid);
        self.reap_rest(helper).map_err(|error| format!("cannot end the job's processes: {error}"))?;
        drop(running.network.take());
        network?;
        let ran = read_reports(&running.reports).contains("\"exit-code\"");
        Ok((exit?, ran))
    }

    /// Sends the answer, with the work tree if there is one, and makes ready for the next job.
    fn answer(
        &mut self,
        socket: &UnixStream,
        launch: &Launch,
        ended: Result<(Exit, bool), String>,
    ) -> io::Result<()> {
        let tree = launch.tree.as_ref().map(|_| self.stage.tree()).transpose();
        // A launcher that cannot clean up must not run another job: it ends, and the executor starts a new one.
        let ready = self.stage.clear().map_err(io::Error::other).and_then(|()| self.offer_output());
        let answer = ended.and_then(|(exit, ran)| {
            self.ended_tree = tree?;
            let tree = self.ended_tree.as_ref().map(AsRawFd::as_raw_fd);
            Ok(Answer::Ended { lease: launch.lease, exit, ran, tree })
        });
        wire::send(socket, &answer.unwrap_or_else(|what| Answer::Refused { what }))?;
        ready
    }

    fn start(&self, launch: &Launch) -> io::Result<Running> {
        let (reports, status) = pipe_with(PipeFlags::CLOEXEC)?;
        let filter = &self.filters[usize::from(launch.user_namespaces)];
        let (gate, open_gate) = match launch.network {
            true => pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (Some(read), Some(write)))?,
            false => (None, None),
        };
        let handed = Handed {
            options: memory_file("options", &zero_separated(&launch.options)?)?,
            filter: memory_file("filter", filter)?,
            status,
            gate,
        };
        match sys::fork()? {
            sys::Fork::Child => {
                drop(open_gate);
                let error = become_job(&self.setup, launch, &handed, self.me);
                eprintln!("towpath: cannot start {}: {error}", self.setup.bwrap.display());
                sys::exit_now(1)
            }
            sys::Fork::Parent(child) => {
                let child_end = pidfd_open(child, PidfdFlags::empty())?;
                let network = open_gate.map(Network::behind);
                Ok(Running { child, child_end, reports, network })
            }
        }
    }

    fn connect(&self, launch: &Launch, running: &mut Running) -> Result<(), String> {
        let Some(network) = &mut running.network else { return Ok(()) };
        debug_assert!(launch.network, "only such jobs have a gate");
        let slirp = self.setup.slirp.as_ref().ok_or("slirp4netns is not installed")?;
        let report = wait_for_report(&running.reports, &running.child_end)?;
        let init = child_pid(&report).ok_or("bubblewrap did not report its process")?;
        network.connect(slirp, init, &running.child_end)
    }

    /// Kills and reaps what the job left: bubblewrap's own first process, with which its pid namespace goes.
    fn reap_rest(&self, except: Option<Pid>) -> io::Result<()> {
        let path = format!("/proc/self/task/{}/children", self.me.as_raw_nonzero());
        loop {
            let children = fs::read_to_string(&path)?;
            let pids = children
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .filter_map(Pid::from_raw);
            let rest: Vec<Pid> = pids.filter(|pid| Some(*pid) != except).collect();
            if rest.is_empty() {
                return Ok(());
            }
            rest.iter().for_each(|pid| kill(*pid));
            for pid in rest {
                waitpid(Some(pid), WaitOptions::empty())?;
            }
        }
    }
}

fn kill(pid: Pid) {
    // A child of ours that is not reaped: its id is its own, and killing it can only fail because it is dead.
    let _ = kill_process(pid, Signal::KILL);
}

/// Waits for the job's outermost process; kills it when told to, or when the executor is gone.
fn supervise(socket: &UnixStream, running: &Running) -> io::Result<Exit> {
    let mut listening = true;
    loop {
        let watched = if listening { 2 } else { 1 };
        let mut events = [PollFd::new(&running.child_end, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        match poll(&mut events[..watched], None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !events[0].revents().is_empty() {
            return reap(running.child);
        }
        if listening && !events[1].revents().is_empty() {
            listening = !matches!(wire::receive::<Order>(socket), Ok(None) | Err(_));
            kill(running.child);
        }
    }
}

fn reap(child: Pid) -> io::Result<Exit> {
    let (_, status) =
        waitpid(Some(child), WaitOptions::empty())?.ok_or_else(|| io::Error::other("no wait status"))?;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ok(Exit::Code(code)),
        (None, Some(signal)) => Ok(Exit::Signal(signal)),
        (None, None) => Err(io::Error::other("neither an exit code nor a signal")),
    }
}

/// Options as bubblewrap reads them. One that holds a zero would be two.
fn zero_separated(options: &[String]) -> io::Result<Vec<u8>> {
    if options.iter().any(|option| option.contains('\0')) {
        return Err(io::Error::other("an option holds a zero byte"));
    }
    Ok(options.iter().flat_map(|option| option.bytes().chain([0])).collect())
}

/// Everything that bubblewrap reported. All writers are dead, so this does not wait.
fn read_reports(reports: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < REPORT_BYTES_MAX {
        match rustix::io::read(reports, &mut buffer) {
            Ok(count) if count > 0 => text.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The first report, a line that comes in pieces.
fn wait_for_report(reports: &OwnedFd, child_end: &OwnedFd) -> Result<String, String> {
    let until = Instant::now() + REPORT_TIMEOUT;
    let mut text = Vec::new();
    while !text.contains(&b'\n') && text.len() < REPORT_BYTES_MAX {
        let mut events = [PollFd::new(reports, PollFlags::IN), PollFd::new(child_end, PollFlags::IN)];
        let patience = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut events, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(|error| format!("cannot wait for bubblewrap: {error}"))?,
        };
        if !events[0].revents().contains(PollFlags::IN) {
            return Err("bubblewrap ended, or took too long, before it reported its process".to_owned());
        }
        let mut buffer = [0; 4096];
        let count = rustix::io::read(reports, &mut buffer).map_err(|error| error.to_string())?;
        text.extend_from_slice(&buffer[..count]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn child_pid(report: &str) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Report {
        #[serde(rename = "child-pid")]
        child_pid: u32,
    }
    let first = serde_json::Deserializer::from_str(report).into_iter::<Report>().next()?;
    first.ok().map(|report| report.child_pid)
}
