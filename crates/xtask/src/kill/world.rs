//! A repository, a server that dies, and a person who goes on pushing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::acts::Act;
use super::jobs::{Attempt, is_stopped, pids_of, running, signal};
use crate::failure::Failure;

mod person;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long a server may take to come up before something is wrong.
const START: Duration = Duration::from_secs(30);
/// How long a round waits for its kill to happen by itself before it kills.
const FAULT_PATIENCE: Duration = Duration::from_secs(30);
/// How long the jobs of a push may take to run.
const JOBS_PATIENCE: Duration = Duration::from_secs(20);
/// Jobs that run at once, and so many that the executor is killed under several of them.
const SLOTS: u32 = 4;
/// Jobs that take so long that a kill can meet them, and a deployment that never passes: there is always something to
/// alert of. A job that dies with its executor is tried again, the deployment is not.
const DEFINITION: &str = "gate: { approvals: 0 }
defaults: { timeout: 10m }
jobs:
  unit: { run: sh test.sh, retry: { errored: 5 } }
  lint: { run: sh test.sh, retry: { errored: 5 } }
  deploy: { run: 'echo it never works; false', on: [land], environment: nowhere }
";
const TEST: &str = "for step in 1 2 3 4 5 6; do echo step $step; sleep 0.1; done\ntest ! -e red\n";

/// How a round kills.
#[derive(Debug, Clone)]
pub enum Kill {
    /// The server kills itself at the so-manieth passing of this place.
    At(String),
    /// The server, so long after a push.
    After(Duration),
    /// The executor, while a job runs.
    Executor,
}

/// How a round's kill truly came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The server killed itself at the place that it was given.
    AtItsPlace,
    /// The server was killed from outside: so it was meant, or it did not come to its place.
    FromOutside,
    /// The executor was killed, and the server went on.
    OfTheExecutor,
}

/// A round that is over.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// How something died.
    pub death: Death,
    /// How long the next server took to serve; zero where the same one went on.
    pub again: Duration,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kill::At(point) => write!(f, "the server at {point}"),
            Kill::After(wait) => write!(f, "the server {} ms after a push", wait.as_millis()),
            Kill::Executor => f.write_str("the executor while a job runs"),
        }
    }
}

pub struct World {
    folder: tempfile::TempDir,
    program: PathBuf,
    /// Where the server listens, once it has said so.
    address: Option<SocketAddr>,
    token: String,
    server: Option<Child>,
    /// Its name is no other world's: jobs are found by it.
    pub repo: String,
    /// Changes that were pushed.
    pub pushed: Vec<u64>,
    /// What was asked for besides.
    pub acts: Vec<Act>,
    /// Changes that are held, and have not landed as long as they are.
    held: Vec<u64>,
    /// Held changes that landed.
    pub slipped: Vec<u64>,
    /// Jobs that ran when the server died, and still ran when it was dead.
    pub adopted: BTreeSet<Attempt>,
    /// Jobs that ran when the executor was killed.
    pub killed: BTreeSet<Attempt>,
    /// Places at which the server has killed itself.
    pub met: BTreeSet<String>,
    /// Set when an armed server died at its place while it started: how long the next one took.
    early: Option<Duration>,
    /// The most jobs that one kill of the executor met.
    pub killed_at_once: usize,
}

/// `land.after` of `land.after:2`.
pub fn place(point: &str) -> &str {
    point.split(':').next().unwrap_or(point)
}

/// Whether a process died as an armed place has it, and not of something else.
fn was_killed(status: ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    status.signal() == Some(SIGKILL)
}

/// The jobs that the definition requires: all but those that wait for a landing. A job a line, as it is written above.
pub fn required() -> Vec<&'static str> {
    let jobs = DEFINITION.lines().skip_while(|line| *line != "jobs:").skip(1);
    let jobs = jobs.filter_map(|line| line.strip_prefix("  ")?.split_once(": {"));
    jobs.filter(|(_, body)| !body.contains("on: [")).map(|(name, _)| name).collect()
}

fn failed(what: &str, why: impl fmt::Display) -> Failure {
    Failure::new(what, why, "look at server.log in the folder that the message names")
}

/// Where a server listens by what it says once it does: `serving at http://… (listening on 127.0.0.1:4711)`.
fn address_in(said: &str) -> Option<SocketAddr> {
    said.split_once("(listening on ")?.1.split_once(')')?.0.parse().ok()
}

impl World {
    /// Compiles the program, makes a data folder and a repository, and serves.
    pub fn new(root: &Path) -> Result<World, Failure> {
        let built = Command::new("cargo")
            .args(["build", "--locked", "--package", "towpath"])
            .current_dir(root)
            .status();
        if !built.is_ok_and(|status| status.success()) {
            return Err(failed("the program was not compiled", "cargo failed"));
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let folder = tempfile::Builder::new().prefix("towpath-kill-").tempdir();
        let folder = folder.map_err(|why| failed("no folder to work in", why))?;
        let program = target.join("debug/towpath");
        let mut world = World {
            folder,
            program,
            address: None,
            token: String::new(),
            server: None,
            repo: format!("kill-{}", std::process::id()),
            pushed: Vec::new(),
            acts: Vec::new(),
            held: Vec::new(),
            slipped: Vec::new(),
            adopted: BTreeSet::new(),
            killed: BTreeSet::new(),
            met: BTreeSet::new(),
            early: None,
            killed_at_once: 0,
        };
        world.begin()?;
        Ok(world)
    }

    /// Every place at which the server can be made to kill itself, as it says itself when it is given one that is none.
    pub fn points(&self) -> Result<Vec<String>, Failure> {
        let mut command = Command::new(&self.program);
        command.arg("serve").args(self.place()).env("TOWPATH_FAULT", "nowhere").stdin(Stdio::null());
        let output = command.output().map_err(|why| failed("the program was not started", why))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = said.split(|c: char| !(c.is_ascii_lowercase() || c == '-' || c == '.'));
        // The example that it gives is one of them, too.
        let places: BTreeSet<String> = words
            .map(|word| word.trim_matches('.'))
            .filter(|word| word.contains('.'))
            .map(str::to_owned)
            .collect();
        match places.contains("land.after") {
            true => Ok(places.into_iter().collect()),
            false => Err(failed("the program names no places to be killed at", said)),
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let token_file = self.path("token");
        self.cli(&["init", "--user", "ann", "--token-file", &token_file.display().to_string()])?;
        let token = fs::read_to_string(&token_file).map_err(|why| failed("no token", why))?;
        self.token = token.trim().to_owned();
        let work = self.path("demo");
        fs::create_dir_all(&work).map_err(|why| failed("no folder to work in", why))?;
        self.git(&["init", "--quiet", "--initial-branch=main"])?;
        self.write("towpath.yaml", DEFINITION)?;
        self.write("test.sh", TEST)?;
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", "first"])?;
        self.start(None)?;
        self.cli(&["repo", "import", &work.display().to_string(), "--name", &self.repo])?;
        Ok(())
    }

    /// Leaves the folder where it is when this world ends.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One round: a change is pushed, something dies, and the server is there again.
    pub fn round(&mut self, number: u64, kill: &Kill) -> Result<Round, Failure> {
        if let Kill::At(point) = kill {
            self.stop();
            self.start(Some(point))?;
        }
        // A push that the kill cuts off is repeated, as a person would.
        let pushed = self.push(number);
        self.ask(number, matches!(kill, Kill::At(_)));
        let round = match kill {
            Kill::At(point) => self.await_death(point)?,
            Kill::After(wait) => {
                std::thread::park_timeout(*wait);
                Round { death: Death::FromOutside, again: self.restart()? }
            }
            Kill::Executor => {
                self.kill_executor()?;
                Round { death: Death::OfTheExecutor, again: Duration::ZERO }
            }
        };
        if pushed.is_err() {
            self.push_again(number)?;
        }
        self.let_go()?;
        Ok(round)
    }

    fn start(&mut self, fault: Option<&str>) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let log = OpenOptions::new().create(true).append(true).open(self.path("server.log"));
        let mut log: File = log.map_err(|why| failed("no log", why))?;
        let own_part = log.seek(SeekFrom::End(0)).map_err(|why| failed("no log", why))?;
        self.address = None;
        let mut command = Command::new(&self.program);
        command.arg("serve").args(self.place());
        command.args(["--listen", "127.0.0.1:0", "--slots", &SLOTS.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(fault) = fault {
            command.env("TOWPATH_FAULT", fault);
        }
        let mut child = command.spawn().map_err(|why| failed("the server was not started", why))?;
        loop {
            self.address = self.address.or_else(|| address_in(&self.said_since(own_part).ok()?));
            if self.answers() {
                self.server = Some(child);
                return Ok(begun.elapsed());
            }
            match child.try_wait() {
                // It met its place already while it started.
                Ok(Some(status)) if fault.is_some() && was_killed(status) => {
                    self.met.extend(fault.map(|point| place(point).to_owned()));
                    self.early = Some(self.start(None)?);
                    return Ok(begun.elapsed());
                }
                Ok(Some(status)) => return Err(self.ended(status)),
                _ if begun.elapsed() > START => {
                    return Err(failed("the server does not answer", self.folder.path().display()));
                }
                _ => std::thread::park_timeout(LOOK),
            }
        }
    }

    /// What the log says from a place in it on.
    fn said_since(&self, place: u64) -> io::Result<String> {
        let mut log = File::open(self.path("server.log"))?;
        log.seek(SeekFrom::Start(place))?;
        let mut said = Vec::new();
        log.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn place(&self) -> [String; 4] {
        let path = |name: &str| self.path(name).display().to_string();
        ["--data".into(), path("data"), "--keys".into(), path("keys")]
    }

    /// Whether the server answers a request for what it keeps.
    fn answers(&self) -> bool {
        self.get("/api/v1/me").is_some()
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.server.take() {
            // It may have died by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL of the server, and the next one.
    fn restart(&mut self) -> Result<Duration, Failure> {
        let before = running(&self.repo);
        self.stop();
        self.adopt(&before);
        self.start(None)
    }

    /// Jobs that run over the server's death.
    fn adopt(&mut self, before: &BTreeMap<Attempt, Vec<u32>>) {
        let after = running(&self.repo);
        self.adopted.extend(after.into_keys().filter(|attempt| before.contains_key(attempt)));
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        failed("the server ended by itself", format!("{status} in {}", self.folder.path().display()))
    }

    /// Waits for the armed kill, and kills from outside if it does not come.
    fn await_death(&mut self, point: &str) -> Result<Round, Failure> {
        if let Some(again) = self.early.take() {
            return Ok(Round { death: Death::AtItsPlace, again });
        }
        let until = Instant::now() + FAULT_PATIENCE;
        let mut before = BTreeMap::new();
        while Instant::now() < until {
            if let Some(status) = self.server.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                if !was_killed(status) {
                    return Err(self.ended(status));
                }
                self.met.insert(place(point).to_owned());
                self.adopt(&before);
                self.stop();
                return Ok(Round { death: Death::AtItsPlace, again: self.start(None)? });
            }
            before = running(&self.repo);
            std::thread::park_timeout(LOOK);
        }
        Ok(Round { death: Death::FromOutside, again: self.restart()? })
    }

    /// SIGKILL of the executor under all the jobs that it runs now. They are stopped first, so that none ends before it.
    fn kill_executor(&mut self) -> Result<(), Failure> {
        let executors = self.executors();
        let until = Instant::now() + JOBS_PATIENCE;
        let mut met = BTreeMap::new();
        while met.is_empty() {
            if Instant::now() > until {
                return Err(failed("no job ran", "the executor was to be killed under one"));
            }
            std::thread::park_timeout(LOOK);
            // A moment for the other jobs of the run to begin.
            if running(&self.repo).is_empty() {
                continue;
            }
            std::thread::park_timeout(LOOK * 5);
            met = running(&self.repo);
            signal("STOP", met.values().flatten());
            met.retain(|_, pids| pids.iter().any(|pid| is_stopped(*pid)));
        }
        signal("KILL", &executors);
        self.killed_at_once = self.killed_at_once.max(met.len());
        self.killed.extend(met.into_keys());
        Ok(())
    }

    fn executors(&self) -> Vec<u32> {
        pids_of(&["executor", &self.path("data/executor/socket").display().to_string()])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        signal("TERM", &self.executors());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_definition_requires_is_read_from_it() {
        assert_eq!(required(), ["unit", "lint"]);
    }

    #[test]
    fn where_a_server_listens_is_known_once_it_has_said_all_of_it() {
        let said = "armed\nserving at http://127.0.0.1:4711 (listening on 127.0.0.1:4711)\njobs can run\n";
        assert_eq!(address_in(said), Some(([127, 0, 0, 1], 4711).into()));
        assert_eq!(address_in(&said[..said.len() - 16]), None);
    }
}
