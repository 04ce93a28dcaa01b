//! What a person does in a world: pushes, asks by the program and by HTTP, and waits for what follows.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::acts::Act;
use super::{LOOK, World, failed};
use crate::failure::Failure;

impl World {
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        fs::write(self.path("demo").join(name), text).map_err(|why| failed("a file was not written", why))
    }

    /// Nothing of the dead server is left that could be in the way: the first repeat is taken.
    pub(super) fn push_again(&mut self, number: u64) -> Result<(), Failure> {
        match self.push(number) {
            // The push that was cut off had gone through, and its change has landed since.
            Err(refused) if refused.to_string().contains("there is nothing to land") => Ok(()),
            pushed => pushed,
        }
    }

    pub(super) fn push(&mut self, number: u64) -> Result<(), Failure> {
        let branch = format!("change-{number}");
        self.git(&["switch", "--quiet", "--force-create", &branch, "main"])?;
        self.write(&format!("file-{number}"), "content\n")?;
        self.git(&["add", "--all"])?;
        // The same commit each time, so that a repeated push is recognised.
        self.git(&["commit", "--quiet", "--message", &format!("change {number}")])?;
        let remote = format!("{}/{}.git", self.url(), self.repo);
        let said = self.git(&["push", "--quiet", &remote, &branch, "-o", "change"])?;
        let change = said
            .lines()
            .find_map(|line| line.strip_prefix("remote: change ")?.split(':').next()?.parse().ok());
        if let Some(change) = change.filter(|change| !self.pushed.contains(change)) {
            self.pushed.push(change);
        }
        Ok(())
    }

    /// Asks for something beside the push, of the newest change.
    pub(super) fn ask(&mut self, number: u64, is_to_land: bool) {
        let Some(change) = self.pushed.last() else { return };
        let act = Act::ask(self, number, *change, is_to_land);
        if act.is_hold() {
            self.held.push(act.change());
        }
        self.acts.push(act);
    }

    /// Lets those go on that are held: what was answered to be held has not landed meanwhile.
    pub(super) fn let_go(&mut self) -> Result<(), Failure> {
        for change in std::mem::take(&mut self.held) {
            let is_held =
                self.acts.iter().any(|act| act.is_hold() && act.is_answered() && act.change() == change);
            let number = change.to_string();
            let shown = self.json(&["change", "show", &number, "--repo", &self.repo])?;
            match shown.first().is_some_and(|shown| shown["state"] == "landed") {
                true if is_held => self.slipped.push(change),
                true => {}
                // Where the answer was cut off there may be none to release.
                false if is_held => drop(self.cli(&["change", "release", &number, "--repo", &self.repo])?),
                false => drop(self.cli(&["change", "release", &number, "--repo", &self.repo])),
            }
        }
        Ok(())
    }

    /// Of the server that serves; of none while there is none.
    fn url(&self) -> String {
        self.address.map_or_else(|| "http://127.0.0.1:0".to_owned(), |address| format!("http://{address}"))
    }

    /// What the server answers, if it does and has no objection.
    pub fn get(&self, path: &str) -> Option<Value> {
        let (address, token) = (self.address?, &self.token);
        let mut stream = TcpStream::connect(address).ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
    }

    /// A run as the server shows it.
    pub fn run(&self, run: &str) -> Option<Value> {
        let (gate, number) = run.rsplit_once('/')?;
        let branch = gate.split_once('/')?.1;
        self.get(&format!("/api/v1/repos/{}/runs/{branch}/{number}", self.repo))
    }

    /// Every run, as the server shows it.
    pub fn all_runs(&self) -> Result<Vec<Value>, Failure> {
        const PAGE: usize = 50;
        let mut names: Vec<String> = Vec::new();
        loop {
            let after = names.last().map(|run| format!("&after={run}")).unwrap_or_default();
            let page = self.get(&format!("/api/v1/repos/{}/runs?count={PAGE}{after}", self.repo));
            let page = page.and_then(|page| page.as_array().cloned());
            let page = page.ok_or_else(|| failed("the server does not list its runs", self.url()))?;
            names.extend(page.iter().filter_map(|run| run["run"].as_str().map(str::to_owned)));
            if page.len() < PAGE {
                break;
            }
        }
        let shown =
            |name: &String| self.run(name).ok_or_else(|| failed("the server does not show a run", name));
        names.iter().map(shown).collect()
    }

    /// Waits until every change that was pushed has landed, for so long from one landing to the next.
    pub fn drain(&mut self, patience: Duration) -> Result<(), Failure> {
        let (mut before, mut until) = (self.landed(), Instant::now() + patience);
        loop {
            let open = self.json(&["change", "list", "--repo", &self.repo]).unwrap_or_default();
            let landed = self.landed();
            if open.is_empty() && landed >= self.pushed.len() {
                return Ok(());
            }
            if landed > before {
                (before, until) = (landed, Instant::now() + patience);
            }
            if Instant::now() > until {
                let numbers: Vec<String> = open.iter().map(|change| change["change"].to_string()).collect();
                let why: Vec<Value> = numbers
                    .first()
                    .map(|number| self.json(&["change", "why", number, "--repo", &self.repo]))
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
        self.json(&["change", "list", "--repo", &self.repo, "--state", "landed", "--count", "1000"])
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

    pub(super) fn git(&self, words: &[&str]) -> Result<String, Failure> {
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
