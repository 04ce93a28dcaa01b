//! A repository, a server that dies, and a person who goes on pushing.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::Failure;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long a server may take to come up before something is wrong.
const START: Duration = Duration::from_secs(30);
/// Pushes of one change before a person would call for help.
const PUSHES_MAX: u32 = 5;
/// How long a round waits for its kill to happen by itself before it kills.
const FAULT_PATIENCE: Duration = Duration::from_secs(20);
/// A job that takes so long that a kill can meet it.
const DEFINITION: &str =
    "gate: { approvals: 0 }\njobs:\n  unit: { run: sh test.sh, timeout: 1m, retry: { errored: 5 } }\n";
const TEST: &str = "for step in 1 2 3 4 5 6; do echo step $step; sleep 0.1; done\ntest ! -e red\n";

/// How a round kills.
#[derive(Debug, Clone)]
pub enum Kill {
    /// The server kills itself at this place.
    At(&'static str),
    /// The server, so long after a push.
    After(Duration),
    /// The executor, while a job runs.
    Executor,
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
    port: u16,
    token: String,
    server: Option<Child>,
    /// Changes that were pushed.
    pub pushed: Vec<u64>,
    /// Jobs that were running when the server died and ended in their first attempt.
    pub adopted: u64,
    /// Jobs that were tried again after the executor died.
    pub retried: u64,
}

fn failed(what: &str, why: impl fmt::Display) -> Failure {
    Failure::new(what, why, "look at server.log in the folder that the message names")
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
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|why| failed("no port to listen on", why))?;
        let port = listener.local_addr().map_err(|why| failed("no port to listen on", why))?.port();
        drop(listener);
        let program = target.join("debug/towpath");
        let mut world = World {
            folder,
            program,
            port,
            token: String::new(),
            server: None,
            pushed: Vec::new(),
            adopted: 0,
            retried: 0,
        };
        world.begin()?;
        Ok(world)
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
        self.cli(&["repo", "import", &work.display().to_string(), "--name", "demo"])?;
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

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        fs::write(self.path("demo").join(name), text).map_err(|why| failed("a file was not written", why))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One round: a change is pushed, something dies, and the server is there again; how long that took.
    pub fn round(&mut self, number: u64, kill: &Kill) -> Result<Duration, Failure> {
        if let Kill::At(point) = kill {
            self.stop();
            self.start(Some(point))?;
        }
        // A push that the kill cuts off is repeated, as a person would.
        let pushed = self.push(number);
        let again = match kill {
            Kill::At(_) => self.await_death(FAULT_PATIENCE)?,
            Kill::After(wait) => {
                std::thread::park_timeout(*wait);
                self.kill_server()?
            }
            Kill::Executor => {
                self.kill_executor();
                Duration::ZERO
            }
        };
        if pushed.is_err() {
            self.push_until_taken(number)?;
        }
        Ok(again)
    }

    /// A killed server leaves git's receiving end of its pushes to finish by itself; a repeat that meets it is refused.
    fn push_until_taken(&mut self, number: u64) -> Result<(), Failure> {
        for _ in 1..PUSHES_MAX {
            match self.push(number) {
                Ok(()) => return Ok(()),
                // The push that was cut off had gone through, and its change has landed since.
                Err(refused) if refused.to_string().contains("there is nothing to land") => return Ok(()),
                Err(_) => std::thread::park_timeout(LOOK * 10),
            }
        }
        self.push(number)
    }

    fn push(&mut self, number: u64) -> Result<(), Failure> {
        let branch = format!("change-{number}");
        self.git(&["switch", "--quiet", "--force-create", &branch, "main"])?;
        self.write(&format!("file-{number}"), "content\n")?;
        self.git(&["add", "--all"])?;
        // The same commit each time, so that a repeated push is recognised.
        self.git(&["commit", "--quiet", "--message", &format!("change {number}")])?;
        let remote = format!("{}/demo.git", self.url());
        let said = self.git(&["push", "--quiet", &remote, &branch, "-o", "change"])?;
        let change = said
            .lines()
            .find_map(|line| line.strip_prefix("remote: change ")?.split(':').next()?.parse().ok());
        if let Some(change) = change.filter(|change| !self.pushed.contains(change)) {
            self.pushed.push(change);
        }
        Ok(())
    }

    fn start(&mut self, fault: Option<&str>) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let log = OpenOptions::new().create(true).append(true).open(self.path("server.log"));
        let log: File = log.map_err(|why| failed("no log", why))?;
        let mut command = Command::new(&self.program);
        command.arg("serve").args(self.place());
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(fault) = fault {
            command.env("TOWPATH_FAULT", fault);
        }
        let mut child = command.spawn().map_err(|why| failed("the server was not started", why))?;
        loop {
            if self.answers() {
                self.server = Some(child);
                return Ok(begun.elapsed());
            }
            match child.try_wait() {
                // It met its place already while it started.
                Ok(Some(_)) if fault.is_some() => return self.start(None),
                Ok(Some(status)) => {
                    return Err(failed(
                        "the server ended",
                        format!("{status} in {}", self.folder.path().display()),
                    ));
                }
                _ if begun.elapsed() > START => {
                    return Err(failed("the server does not answer", self.folder.path().display()));
                }
                _ => std::thread::park_timeout(LOOK),
            }
        }
    }

    fn place(&self) -> [String; 4] {
        let path = |name: &str| self.path(name).display().to_string();
        ["--data".into(), path("data"), "--keys".into(), path("keys")]
    }

    /// Whether the server answers a request for what it keeps.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = format!(
            "GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.port, self.token
        );
        let mut answer = String::new();
        let said = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        said.is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.server.take() {
            // It may have died by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn kill_server(&mut self) -> Result<Duration, Failure> {
        let running = self.running_jobs();
        self.stop();
        let again = self.start(None)?;
        self.adopted += running;
        Ok(again)
    }

    /// Waits for the armed kill; should the place never be met, the server is killed all the same.
    fn await_death(&mut self, patience: Duration) -> Result<Duration, Failure> {
        let until = Instant::now() + patience;
        loop {
            let over = self.server.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
            if over || Instant::now() > until {
                self.stop();
                return self.start(None);
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn kill_executor(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.running_jobs() == 0 && Instant::now() < until {
            std::thread::park_timeout(LOOK);
        }
        let socket = self.path("data/executor/socket").display().to_string();
        for pid in pids_of(&["executor", &socket]) {
            self.retried += u64::from(self.running_jobs() > 0);
            // SIGKILL: nothing of it can be caught.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }

    fn running_jobs(&self) -> u64 {
        let runs = self.json(&["runs", "--repo", "demo", "--count", "20"]).unwrap_or_default();
        runs.iter().filter(|run| run["outcome"].is_null()).count() as u64
    }

    /// Waits until every change that was pushed has landed.
    pub fn drain(&mut self, until: Instant) -> Result<(), Failure> {
        loop {
            let open = self.json(&["change", "list", "--repo", "demo"]).unwrap_or_default();
            if open.is_empty() && self.landed() >= self.pushed.len() {
                return Ok(());
            }
            if Instant::now() > until {
                let numbers: Vec<String> = open.iter().map(|change| change["change"].to_string()).collect();
                let why: Vec<Value> = numbers
                    .first()
                    .map(|number| self.json(&["change", "why", number, "--repo", "demo"]))
                    .transpose()?
                    .unwrap_or_default();
                return Err(failed(
                    "not everything landed",
                    format!("open: {}; {why:?}; {}", numbers.join(" "), self.folder.path().display()),
                ));
            }
            std::thread::park_timeout(LOOK * 10);
        }
    }

    pub fn landed(&self) -> usize {
        self.json(&["change", "list", "--repo", "demo", "--state", "landed", "--count", "1000"])
            .map_or(0, |all| all.len())
    }

    /// Runs the program as a client; its records.
    pub fn json(&self, words: &[&str]) -> Result<Vec<Value>, Failure> {
        let output = self.output(&[words, &["--json"]].concat())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    pub fn cli(&self, words: &[&str]) -> Result<String, Failure> {
        let output = self.output(words)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn output(&self, words: &[&str]) -> Result<Output, Failure> {
        let mut command = Command::new(&self.program);
        command.args(words).env("TOWPATH_URL", self.url()).env("TOWPATH_TOKEN", &self.token);
        command.env("TOWPATH_DATA", self.path("data")).env("TOWPATH_KEYS", self.path("keys"));
        command.env("HOME", self.folder.path()).current_dir(self.folder.path());
        let output = command.output().map_err(|why| failed("the program was not started", why))?;
        match output.status.success() {
            true => Ok(output),
            false => Err(failed(
                &format!("`towpath {}` failed", words.join(" ")),
                String::from_utf8_lossy(&output.stderr),
            )),
        }
    }

    fn git(&self, words: &[&str]) -> Result<String, Failure> {
        let time = "2026-01-01T00:00:00Z";
        let basic = format!("Authorization: Bearer {}", self.token);
        let output = Command::new("git")
            .args(words)
            .current_dir(self.path("demo"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .envs([
                ("GIT_AUTHOR_NAME", "ann"),
                ("GIT_AUTHOR_EMAIL", "ann@kill.invalid"),
                ("GIT_AUTHOR_DATE", time),
            ])
            .envs([
                ("GIT_COMMITTER_NAME", "ann"),
                ("GIT_COMMITTER_EMAIL", "ann@kill.invalid"),
                ("GIT_COMMITTER_DATE", time),
            ])
            .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "http.extraHeader")])
            .env("GIT_CONFIG_VALUE_0", basic)
            .output()
            .map_err(|why| failed("git was not started", why))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stderr).into_owned()),
            false => Err(failed(
                &format!("`git {}` failed", words.join(" ")),
                String::from_utf8_lossy(&output.stderr),
            )),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        let socket = self.path("data/executor/socket").display().to_string();
        for pid in pids_of(&["executor", &socket]) {
            let _ = Command::new("kill").arg(pid.to_string()).status();
        }
    }
}

/// Processes whose command line holds each of these words.
fn pids_of(words: &[&str]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            words.iter().all(|word| line.iter().any(|have| have == word))
        })
        .collect()
}
