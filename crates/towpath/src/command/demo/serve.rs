//! The demo's server: this very program as another process, so that it can be killed for real.

use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use towpath_server::ports::own_address;

use super::project::{Person, Project};
use crate::failure::{Exit, Failure};
use crate::remote::Client;
use crate::terminal::Terminal;

/// How long the server may take to answer for the first time: it probes the sandbox.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a server that starts.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The place at which `--kill` ends the server: the branch has moved, and nobody has written it down yet.
const KILL_POINT: &str = "land.after:2";

/// A running server.
pub struct DemoServer {
    child: Child,
    /// The child ends with it, and [`Child::wait`] would close it.
    input: Option<ChildStdin>,
    url: String,
    command: Vec<String>,
    log: std::path::PathBuf,
    kill: Kill,
}

/// How far the demo is with killing its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// It is not to be killed.
    NotWanted,
    /// It will kill itself at its place.
    Armed,
    /// It was killed, and the next one serves.
    Done,
}

impl Kill {
    /// How far it is after the server ended like this; `None`: nobody wanted that.
    fn after(self, status: ExitStatus) -> Option<Kill> {
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        (self == Kill::Armed && killed).then_some(Kill::Done)
    }

    fn is_still_owed(self) -> bool {
        self == Kill::Armed
    }
}

impl DemoServer {
    pub fn start(
        project: &Project,
        listen: SocketAddr,
        kill: bool,
        terminal: &Terminal,
    ) -> Result<DemoServer, Failure> {
        let listen = free_port(listen)?;
        let mut command = vec![
            "serve".to_owned(),
            "--until-input-ends".to_owned(),
            "--data".to_owned(),
            project.data().display().to_string(),
            "--keys".to_owned(),
            project.keys().display().to_string(),
            "--listen".to_owned(),
            listen.to_string(),
        ];
        if let Err(refusal) = crate::command::doctor::sandbox() {
            terminal.talk(format!("the sandbox does not work on this machine: {refusal}"));
            terminal.talk("the demo runs only code of its own, so it goes on without; every run is marked `unsandboxed`");
            command.extend(["--sandbox".to_owned(), "none".to_owned()]);
        }
        let url = format!("http://{listen}");
        let log = project.log_file();
        let (child, input) = spawn(&command, &log, kill.then_some(KILL_POINT))?;
        let kill = if kill { Kill::Armed } else { Kill::NotWanted };
        let mut server = DemoServer { child, input, url, command, log, kill };
        server.await_answer()?;
        Ok(server)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn client(&self, person: &Person) -> Result<Client, Failure> {
        Client::new(self.url.clone(), Some(person.token.clone()))
    }

    /// Starts the server again if it was killed; says whether it had to.
    pub fn revive(&mut self, terminal: &Terminal) -> Result<bool, Failure> {
        let ended = self.child.try_wait().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let Some(status) = ended else { return Ok(false) };
        let ended_by_itself = || {
            Failure::new(Exit::Failed, format!("the server ended by itself: {status}"))
                .hint(format!("its log is {}", self.log.display()))
        };
        self.kill = self.kill.after(status).ok_or_else(ended_by_itself)?;
        let begun = Instant::now();
        (self.child, self.input) = spawn(&self.command, &self.log, None)?;
        self.await_answer()?;
        terminal.talk(format!(
            "the server was killed in the middle of a landing ({status}); it serves again after {} ms",
            begun.elapsed().as_millis()
        ));
        Ok(true)
    }

    /// Whether what was asked for has happened.
    ///
    /// # Errors
    /// The server was to be killed, and was not.
    pub fn check_killed(&self) -> Result<(), Failure> {
        if !self.kill.is_still_owed() {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "the server was not killed")
            .why(format!("it never came to its place, `{KILL_POINT}`: the middle of the second landing"))
            .hint(format!("its log is {}", self.log.display())))
    }

    fn await_answer(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + START_PATIENCE;
        loop {
            if Client::new(self.url.clone(), None)?.is_up() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                let why = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(Failure::new(Exit::Unavailable, format!("the server ended: {status}")).why(why));
            }
            if Instant::now() > until {
                return Err(Failure::new(Exit::TimedOut, "the server does not answer"));
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
    }

    /// Lets the server end as SIGTERM would have it.
    pub fn stop(&mut self) {
        self.ask_to_end();
        let _ = self.child.wait();
    }

    fn ask_to_end(&self) {
        // It may have ended already.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), Signal::TERM);
    }

    /// Returns once the server has ended: by itself, or drained because this process was told to end. Ctrl-C at a terminal
    /// reaches both; whoever has the prompt again finds nobody at the address. The second signal ends this process at once.
    pub fn serve_until_told_to_end(&mut self, terminal: &Terminal) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, "the server cannot be watched").why(error.to_string())
        };
        let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
        terminal.talk(format!("{} serves until you press Ctrl-C", self.url));
        let mut is_told = false;
        while self.child.try_wait().map_err(failed)?.is_none() {
            for signal in signals.wait().filter(|signal| *signal != SIGCHLD) {
                if std::mem::replace(&mut is_told, true) {
                    signal_hook::low_level::emulate_default_handler(signal).map_err(failed)?;
                }
                self.ask_to_end();
            }
        }
        Ok(())
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The address to listen on; where any port will do, one that the next server of the demo finds free again.
fn free_port(listen: SocketAddr) -> Result<SocketAddr, Failure> {
    if listen.port() == 0
        && let Some(own) = own_address(listen.ip())
    {
        return Ok(own);
    }
    TcpListener::bind(listen).and_then(|listener| listener.local_addr()).map_err(|error| {
        Failure::new(Exit::Conflict, format!("cannot listen on {listen}"))
            .why(error.to_string())
            .hint("name another address with `--listen`")
    })
}

fn spawn(
    command: &[String],
    log: &std::path::Path,
    fault: Option<&str>,
) -> Result<(Child, Option<ChildStdin>), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, "the server cannot be started").why(error.to_string())
    };
    let log: File = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
    let mut process = Command::new(std::env::current_exe().map_err(failed)?);
    // Held open by this process and by nobody else: whatever ends the demo ends the server, too, and its executor.
    process.args(command).stdin(Stdio::piped()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    process.env_remove(towpath_server::faults::VARIABLE);
    if let Some(fault) = fault {
        process.env(towpath_server::faults::VARIABLE, fault);
    }
    let mut child = process.spawn().map_err(failed)?;
    let input = child.stdin.take();
    Ok((child, input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_that_is_asked_for_is_taken_for_one_and_it_is_owed_until_then() {
        let (killed, failed) = (ExitStatus::from_raw(9), ExitStatus::from_raw(1 << 8));
        assert_eq!(Kill::Armed.after(killed), Some(Kill::Done));
        for (kill, status) in [(Kill::Armed, failed), (Kill::Done, killed), (Kill::NotWanted, killed)] {
            assert_eq!(kill.after(status), None, "{kill:?} {status}");
        }
        assert!(Kill::Armed.is_still_owed());
        assert!(!Kill::Done.is_still_owed() && !Kill::NotWanted.is_still_owed());
    }
}
