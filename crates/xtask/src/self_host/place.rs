//! A server with a data folder of its own, a clone of this repository, and the two people whom a landing takes.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The repo's name on the server.
const REPO: &str = "towpath";
/// Who uploads the change, and who approves it.
const UPLOADER: &str = "ann";
const APPROVER: &str = "bob";
/// Jobs at once. Each of them uses every core, and together they would need more memory than many machines have.
const SLOTS: &str = "1";

pub struct Place {
    folder: tempfile::TempDir,
    program: PathBuf,
    /// The commit that is to land.
    change: String,
    server: Child,
    url: String,
}

fn failed(what: &str, why: impl Display) -> Failure {
    Failure::new(what, why, "look at server.log in the folder that the last line names")
}

impl Place {
    /// Compiles the program, copies the history, and serves.
    pub fn new(root: &Path, debug: bool) -> Result<Place, Failure> {
        let (change, parent) = newest(root)?;
        let compiled = compiled(root, debug)?;
        let folder = tempfile::Builder::new().prefix("towpath-self-host-").tempdir();
        let folder = folder.map_err(|why| failed("no folder to work in", why))?;
        let path = |name: &str| folder.path().join(name);
        for name in ["home", "work"] {
            std::fs::create_dir(path(name)).map_err(|why| failed("no folder to work in", why))?;
        }
        // A copy, as whoever goes on working in this clone compiles it anew.
        let program = path("towpath");
        std::fs::copy(&compiled, &program).map_err(|why| failed("the program was not copied", why))?;
        let work = path("work");
        git(&work, &["init", "--quiet", "--initial-branch=main"])?;
        git(&work, &["fetch", "--quiet", &root.display().to_string(), &change])?;
        git(&work, &["update-ref", "refs/heads/newest", &change])?;
        git(&work, &["reset", "--quiet", "--hard", &parent])?;
        let mut init = client(&program, folder.path());
        said(
            init.args(["init", "--user", UPLOADER, "--data"]).arg(path("data")),
            "the data folder was not made",
        )?;
        let (server, url) = serve(&program, folder.path())?;
        let place = Place { folder, program, change, server, url };
        let token = File::open(place.path("data-keys/admin.token"));
        let token = token.map_err(|why| failed("there is no token", why))?;
        let mut login = client(&place.program, place.folder.path());
        said(login.args(["token", "login", &place.url]).stdin(token), "the token is not taken")?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The commit that is to land.
    pub fn change(&self) -> &str {
        &self.change
    }

    /// Leaves the folder where it is when this ends.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Brings the history to the server, and the second person; says how many commits it has.
    pub fn import(&self) -> Result<usize, Failure> {
        self.cli(&["repo", "import", ".", "--name", REPO])?;
        self.cli(&["user", "add", APPROVER])?;
        self.cli(&["repo", "grant", APPROVER, "maintainer"])?;
        let count = git(&self.path("work"), &["rev-list", "--count", "main"])?;
        count.parse().map_err(|why| failed("the commits cannot be counted", why))
    }

    /// Pushes the newest commit as a change.
    pub fn push(&self) -> Result<(), Failure> {
        git(&self.path("work"), &["push", "--quiet", "towpath", "newest", "-o", "change"]).map(drop)
    }

    /// Has the other person approve exactly what was pushed.
    pub fn approve(&self, change: &str) -> Result<(), Failure> {
        let made = self.record(&["token", "create", "--user", APPROVER])?;
        let token = made["token"].as_str().unwrap_or_default();
        let mut approve = client(&self.program, self.folder.path());
        approve.env("TOWPATH_URL", &self.url).env("TOWPATH_TOKEN", token);
        approve.args(["change", "approve", change, "--revision", &self.change, "--yes"]);
        said(&mut approve, "the change was not approved").map(drop)
    }

    /// Where the branch is on the server.
    pub fn tip(&self) -> Result<String, Failure> {
        let shown = git(&self.path("work"), &["ls-remote", "towpath", "refs/heads/main"])?;
        Ok(shown.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Verifies the record by the server's data, and once more by what a clone has of it.
    pub fn audit(&self) -> Result<(), Failure> {
        let data = self.path("data").display().to_string();
        self.cli(&["audit", "verify", "--data", &data])?;
        git(&self.path("work"), &["fetch", "--quiet", "towpath"])?;
        self.cli(&["audit", "verify", "--data", &data, "--repo", "."]).map(drop)
    }

    /// What a command prints.
    pub fn cli(&self, words: &[&str]) -> Result<String, Failure> {
        let mut command = client(&self.program, self.folder.path());
        said(command.args(words), &format!("`towpath {}` failed", words.join(" ")))
    }

    /// The objects that a command prints.
    pub fn records(&self, words: &[&str]) -> Result<Vec<Value>, Failure> {
        let text = self.cli(&[words, &["--json"]].concat())?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The one object that a command prints.
    pub fn record(&self, words: &[&str]) -> Result<Value, Failure> {
        let first = self.records(words)?.into_iter().next();
        first.ok_or_else(|| failed(&format!("`towpath {}` says nothing", words.join(" ")), "no record"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let terminate = |pid: u32| {
            // It fails only if it is gone already.
            let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).stderr(Stdio::null()).status();
        };
        terminate(self.server.id());
        let _ = self.server.wait();
        // The executor outlives its server by design; this one's work is done.
        let socket = self.path("data/executor/socket").display().to_string();
        crate::kill::pids_of(&["executor", &socket]).into_iter().for_each(terminate);
    }
}

/// The newest commit of a clone, and its parent.
fn newest(root: &Path) -> Result<(String, String), Failure> {
    let asked = |words: &[&str], hint: &str| {
        git(root, words).map_err(|why| Failure::new("there is no change to land in this clone", why, hint))
    };
    if asked(&["rev-parse", "--is-shallow-repository"], "clone the repository by git")? == "true" {
        let hint = "`git fetch --unshallow` brings the rest";
        return Err(Failure::new("the whole history is needed", "this clone is cut off", hint));
    }
    let change = asked(&["rev-parse", "--verify", "HEAD^{commit}"], "commit something")?;
    let parent = asked(
        &["rev-parse", "--verify", "HEAD^"],
        "it takes two commits: one that is there, one that lands",
    )?;
    Ok((change, parent))
}

fn compiled(root: &Path, debug: bool) -> Result<PathBuf, Failure> {
    let mut build = Command::new("cargo");
    build.args(["build", "--locked", "--package", "towpath"]).current_dir(root);
    if !debug {
        build.arg("--release");
    }
    if !build.status().is_ok_and(|status| status.success()) {
        return Err(Failure::new("the program was not compiled", "cargo failed", "see what it says above"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(if debug { "debug" } else { "release" }).join("towpath"))
}

/// A command in the clone, with a home of its own: nothing is remembered in that of whoever runs this.
fn client(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder.join("work")).env("HOME", folder.join("home")).stdin(Stdio::null());
    for name in ["XDG_CONFIG_HOME", "TOWPATH_URL", "TOWPATH_TOKEN", "TOWPATH_DATA", "TOWPATH_KEYS"] {
        command.env_remove(name);
    }
    command
}

/// The server with the home and the toolchains of whoever runs this, once it serves, and its address.
fn serve(program: &Path, folder: &Path) -> Result<(Child, String), Failure> {
    let cannot = |why: std::io::Error| failed("the server was not started", why);
    let log = folder.join("server.log");
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--slots", SLOTS, "--data"]).arg(folder.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = command.spawn().map_err(cannot)?;
    let mut lines = BufReader::new(server.stderr.take().expect("invariant: it is piped")).lines();
    let mut kept = File::create(log).map_err(cannot)?;
    let (tell, told) = std::sync::mpsc::channel();
    // Somebody has to read it to its end, or the server waits for a reader.
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let url = line.split(' ').find(|word| word.starts_with("http://")).map(str::to_owned);
            if let Some(url) = url.filter(|_| line.contains("serving at")) {
                // Whoever waits is there until the server serves or ends.
                let _ = tell.send(url);
            }
            let _ = std::io::Write::write_all(&mut kept, format!("{line}\n").as_bytes());
        }
    });
    match told.recv() {
        Ok(url) => Ok((server, url)),
        Err(_) => Err(failed("the server does not serve", "it ended")),
    }
}

fn git(folder: &Path, words: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("git");
    // The clone that this is may be somebody else's.
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    command.env("GIT_TERMINAL_PROMPT", "0").current_dir(folder).stdin(Stdio::null());
    said(command.args(words), &format!("`git {}` failed", words.join(" ")))
}

fn said(command: &mut Command, what: &str) -> Result<String, Failure> {
    let Output { status, stdout, stderr } = command.output().map_err(|why| failed(what, why))?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned()),
        false => Err(failed(what, String::from_utf8_lossy(&stderr).trim())),
    }
}
