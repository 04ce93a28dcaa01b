//! A server of the real program with people of every kind, secrets at every place, and a repository to attack.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::canaries::Canaries;
use super::holding::Seen;
use super::leftovers;
use super::wire::{Ask, Bell, Heard, PATIENCE, Reply};
use crate::support::{Ended, TOWPATH, World, ended, own_address, processes_of, rest, stop_servants};

/// Who there is: name, role on `web`, and whether their changes are tested at once.
const PEOPLE: [(&str, &str, bool); 5] = [
    ("mia", "maintainer", true),
    ("max", "maintainer", true),
    ("ann", "author", true),
    ("ben", "author", true),
    ("outsider", "author", false),
];

/// What `web` begins with: one required job that runs whatever a change brings along as `attack`, one that may use a
/// secret once its commit has landed, and talks of it in its log and in a report.
pub const PIPELINE: &str = r#"gate: { approvals: 1 }
jobs:
  unit: { run: sh ./check, timeout: 2m }
  sign: { run: sh ./sign, on: [land, manual], secrets: [cloud-config], reports: { junit: signing.xml } }
"#;
const CHECK: &str = "if test -e attack; then . ./attack; fi\ntest ! -e bad\n";
const SIGN: &str = r#"value=$(cat "$TOWPATH_SECRETS/cloud-config")
quoted=$(echo "$value" | sed 's/"/\&quot;/g')
cat > signing.xml << END
<testsuite name="signing"><testcase name="with $quoted"><failure message="$quoted">$value <![CDATA[$value]]></failure></testcase></testsuite>
END
cd "$TOWPATH_SECRETS"; cat cloud-config; echo; base64 cloud-config; od -An -tx1 cloud-config | tr -d ' \n'
"#;

pub struct Fort {
    pub world: World,
    pub canaries: Canaries,
    pub heard: Heard,
    /// `127.0.0.1:port`.
    pub host: String,
    server: Mutex<Child>,
    tokens: BTreeMap<String, String>,
    /// What cases failed, and why.
    pub failed: Mutex<Vec<String>>,
    pub seen: Mutex<Seen>,
    /// The machine's mounts before any case.
    pub mounts: BTreeSet<String>,
    /// The cookie of an admin's browser.
    pub session: String,
    clones: Mutex<u32>,
    /// Commits of `main` that came by another way than a landing, as a case wanted it.
    pub foreign: Mutex<Vec<String>>,
}

impl Fort {
    pub fn new() -> Fort {
        Fort::with_sandbox(&[])
    }

    /// `options` go to `towpath serve`.
    pub fn with_sandbox(options: &[&str]) -> Fort {
        let files = [("towpath.yaml", PIPELINE), ("check", CHECK), ("sign", SIGN), ("base", "base\n")];
        let world = World::with(&files);
        let canaries = Canaries::plant(&world.home());
        let heard = Heard::default();
        let data = world.home().join("data").display().to_string();
        let init = world.towpath(&["init", "--data", &data, "--user", "ada"]);
        assert_eq!(init.code, 0, "{}", init.err);
        // Drivers and hooks that whoever runs the server has for a git of their own.
        let ran = world.folder().join("driver-ran");
        let driver = format!("touch {}; cat", ran.display());
        let config = format!(
            "[filter \"lfs\"]\n\tclean = {driver}\n\tsmudge = {driver}\n[diff \"x\"]\n\tcommand = {driver}\n\ttextconv = {driver}\n\
             [merge \"x\"]\n\tdriver = {driver}\n[core]\n\tfsmonitor = {driver}\n"
        );
        std::fs::write(world.home().join(".gitconfig"), config).unwrap();
        let (server, host) = serve(&world, &canaries, &heard, options);
        let token = std::fs::read_to_string(format!("{data}-keys/admin.token")).unwrap();
        let mut fort = Fort {
            world,
            canaries,
            heard,
            host,
            server: Mutex::new(server),
            tokens: BTreeMap::from([("ada".to_owned(), token.trim().to_owned())]),
            failed: Mutex::default(),
            seen: Mutex::default(),
            mounts: leftovers::mounts(),
            session: String::new(),
            clones: Mutex::default(),
            foreign: Mutex::default(),
        };
        fort.fill();
        fort.session = fort.log_in(&format!("token={}", fort.token("ada")));
        fort
    }

    /// Repositories, people, secrets.
    fn fill(&mut self) {
        let key = std::fs::read_to_string(self.keys().join("audit.key")).unwrap();
        // `PRIVATE+KEY+name+id+base64`, and base64 has a plus of its own.
        let key = STANDARD.decode(key.trim().splitn(5, '+').nth(4).unwrap()).unwrap();
        // Its first byte says of which kind it is.
        self.canaries.know("audit key", key[1..].to_vec());
        self.admit("stranger");
        PEOPLE.iter().for_each(|(name, ..)| self.admit(name));
        self.import("web", &self.world.work());
        for (name, role, authorised) in PEOPLE {
            self.put(
                &format!("/repos/web/people/{name}"),
                &json!({ "role": role, "authorised": authorised }),
            );
        }
        let vault = self.world.folder().join("vault");
        std::fs::create_dir(&vault).unwrap();
        let git = |words: &[&str]| assert!(plain_git(&vault, words).output().unwrap().status.success());
        git(&["init", "--quiet", "--initial-branch=main", "."]);
        std::fs::write(vault.join("secret"), self.canaries.of("vault")).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "A secret"]);
        self.import("vault", &vault);
        self.import("other", &self.world.work());
        self.put("/repos/other/people/stranger", &json!({ "role": "reader", "authorised": false }));
        let secret = json!({ "value": self.canaries.of("landed"), "policy": { "level": "landed" } });
        self.put("/repos/web/secrets/cloud-config", &secret);
    }

    fn admit(&mut self, name: &str) {
        self.ask("ada", "POST", "/users", &json!({ "user": name })).ok();
        let made = self.ask("ada", "POST", &format!("/users/{name}/tokens"), &json!({})).ok();
        self.tokens.insert(name.to_owned(), made["token"].as_str().unwrap().to_owned());
    }

    fn import(&self, name: &str, from: &Path) {
        self.ask("ada", "POST", "/import", &json!({ "repo": name, "path": from, "branch": "main" })).ok();
    }

    pub fn put(&self, path: &str, body: &Value) {
        self.ask("ada", "PUT", path, body).ok();
    }

    /// The server's process.
    pub fn server_pid(&self) -> u32 {
        self.server.lock().unwrap().id()
    }

    /// Ends the server and its executor, as whoever has the machine does.
    pub fn stop(&self) {
        let mut server = self.server.lock().unwrap();
        // Both fail only if it is gone already.
        let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
        let _ = server.wait();
        stop_servants(self.world.folder());
        // The executor ends its jobs first.
        let end = std::time::Instant::now() + PATIENCE;
        while !processes_of(&self.data()).is_empty() && std::time::Instant::now() < end {
            rest();
        }
    }

    /// Starts it again at the same address. What was seen of it before need not be so any more.
    pub fn start(&self) {
        let (server, host) = serve(&self.world, &self.canaries, &self.heard, &["--listen", &self.host]);
        assert_eq!(host, self.host);
        *self.server.lock().unwrap() = server;
        *self.seen.lock().unwrap() = Seen::default();
    }

    pub fn data(&self) -> PathBuf {
        self.world.home().join("data")
    }

    pub fn keys(&self) -> PathBuf {
        self.world.home().join("data-keys")
    }

    /// A file that some attack makes outside of its sandbox, if it can.
    pub fn marker(&self, name: &str) -> PathBuf {
        self.world.folder().join(name)
    }

    /// The bare repository of `web`, as whoever has the machine sees it.
    pub fn bare(&self) -> PathBuf {
        self.data().join("repos/web.git")
    }

    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    /// Asks the API as a person; `nobody` has no token.
    pub fn ask(&self, name: &str, method: &str, path: &str, body: &Value) -> Reply {
        let ask = Ask::new(method, &format!("/api/v1{path}"));
        let ask = if method == "GET" { ask } else { ask.json(body) };
        self.send(name, ask)
    }

    pub fn send(&self, name: &str, ask: Ask) -> Reply {
        let ask = match self.tokens.get(name) {
            Some(token) => ask.with("authorization", &format!("Bearer {token}")),
            None => ask,
        };
        ask.send(&self.host, &self.heard)
    }

    pub fn get(&self, path: &str) -> Value {
        self.ask("ada", "GET", path, &Value::Null).ok()
    }

    pub fn change(&self, number: u64) -> Value {
        self.get(&format!("/repos/web/changes/{number}"))
    }

    /// Something that a person does with a change.
    pub fn act(&self, name: &str, number: u64, verb: &str, body: &Value) -> Reply {
        self.ask(name, "POST", &format!("/repos/web/changes/{number}/{verb}"), body)
    }

    /// An approval of what the change is, as the command sends it, once it is known what that is.
    pub fn approve(&self, name: &str, number: u64) -> Reply {
        // A run shows it, or that there is nothing to run.
        let is_known = |change: &Value| {
            !change["runs"].as_array().unwrap().is_empty()
                || change["gate"]["reasons"].to_string().contains("empty_set")
        };
        let change = self.until_change(number, "is looked at", is_known);
        let body = json!({
            "revision": change["revision"], "target": change["target"], "message": change["message"],
            "definition": change["definition"],
        });
        self.act(name, number, "approve", &body)
    }

    /// The command, as a person in a folder of theirs.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Ended {
        let home = self.world.folder().join(format!("home-{name}"));
        std::fs::create_dir_all(&home).unwrap();
        let mut command = self.world.command(TOWPATH);
        command.current_dir(&home).env("HOME", &home);
        command.env("TOWPATH_URL", format!("http://{}", self.host)).env("TOWPATH_TOKEN", self.token(name));
        let output = command.args(arguments).output().unwrap();
        self.heard.keep(&format!("towpath {arguments:?}"), &[&output.stdout[..], &output.stderr].concat());
        ended(output)
    }

    /// Waits until something is so; looks whenever the server says that something changed.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let found = Bell::of(&self.host, self.token("ada")).until(|| look().ok_or(Value::Null));
        found.unwrap_or_else(|_| panic!("{what}: not so after {PATIENCE:?}"))
    }

    #[track_caller]
    pub fn until_change(&self, number: u64, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let change = self.change(number);
            if is_so(&change) { Ok(change) } else { Err(change) }
        };
        let found = Bell::of(&self.host, self.token("ada")).until(look);
        found.unwrap_or_else(|seen| panic!("change {number} never {what}: {seen}"))
    }

    /// Waits until the change's newest revision was tested; how it ended.
    #[track_caller]
    pub fn tested(&self, number: u64) -> String {
        let over =
            |change: &Value| !matches!(change["gate"]["tests"].as_str(), None | Some("untested" | "running"));
        self.until_change(number, "is tested", over)["gate"]["tests"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn landed(&self, number: u64) -> String {
        let change = self.until_change(number, "lands", |change| change["state"] == "landed");
        change["landed"].as_str().unwrap().to_owned()
    }

    /// Kinds of the reasons why a change has not landed.
    pub fn why(&self, number: u64) -> Vec<String> {
        let why = self.get(&format!("/repos/web/changes/{number}/why"));
        let kinds =
            why["reasons"].as_array().unwrap().iter().map(|reason| reason["reason"].as_str().unwrap());
        kinds.map(str::to_owned).collect()
    }

    /// Runs for a change, newest first.
    pub fn runs_of(&self, number: u64) -> Vec<Value> {
        self.get(&format!("/repos/web/runs?change={number}")).as_array().unwrap().clone()
    }

    /// A run with its jobs, by its whole name.
    pub fn run(&self, name: &Value) -> Value {
        let (gate, number) = name.as_str().unwrap().rsplit_once('/').unwrap();
        let (repo, branch) = gate.split_once('/').unwrap();
        self.get(&format!("/repos/{repo}/runs/{}/{number}", branch.replace('/', "%2F")))
    }

    /// The job of that name in the newest run of a change.
    pub fn job(&self, number: u64, job: &str) -> Value {
        let run = self.run(&self.runs_of(number)[0]["run"]);
        let found = run["jobs"].as_array().unwrap().iter().find(|other| other["name"] == job);
        found.unwrap_or_else(|| panic!("no job {job} in {run}")).clone()
    }

    /// The whole log of a job in the newest run of a change.
    pub fn log(&self, number: u64, job: &str) -> String {
        let run = self.runs_of(number)[0]["run"].as_str().unwrap().to_owned();
        self.log_of(&run, job)
    }

    pub fn log_of(&self, run: &str, job: &str) -> String {
        let (gate, number) = run.rsplit_once('/').unwrap();
        let (repo, branch) = gate.split_once('/').unwrap();
        let path = format!("/repos/{repo}/runs/{branch}/{number}/jobs/{job}/log?lines=10000");
        self.ask("ada", "GET", &path, &Value::Null).text()
    }

    /// Where `main` stands, by the repository itself.
    pub fn main(&self) -> String {
        self.in_bare(&["rev-parse", "refs/heads/main"])
    }

    /// Plain git in the bare repository, past all of the program's own code.
    pub fn in_bare(&self, words: &[&str]) -> String {
        let output = plain_git(&self.bare(), &[&["--git-dir=."], words].concat()).output().unwrap();
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn has_object(&self, id: &str) -> bool {
        plain_git(&self.bare(), &["--git-dir=.", "cat-file", "-e", id]).output().unwrap().status.success()
    }

    /// Sends the form of the login page; the cookie of the session.
    pub fn log_in(&self, form: &str) -> String {
        let ask = Ask::new("POST", "/login")
            .with("origin", &format!("http://{}", self.host))
            .with("sec-fetch-site", "same-origin")
            .with("content-type", "application/x-www-form-urlencoded")
            .body(format!("{form}&next=/"));
        let got = ask.send(&self.host, &self.heard);
        let set = got.header("set-cookie").unwrap_or_else(|| panic!("{}", got.head));
        set.split(';').next().unwrap().to_owned()
    }

    /// Every ref but the journals of pushes and candidates.
    pub fn refs(&self) -> Vec<String> {
        let all = self.in_bare(&["for-each-ref", "--format=%(objectname) %(refname)"]);
        all.lines().filter(|line| !line.contains(" refs/towpath/")).map(str::to_owned).collect()
    }

    /// A clone of `web` as it is now.
    pub fn clone_of(&self, name: &str) -> Clone {
        let number = {
            let mut clones = self.clones.lock().unwrap();
            *clones += 1;
            *clones
        };
        let folder = self.world.folder().join(format!("clones/{name}-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        let header =
            format!("Authorization: Basic {}", STANDARD.encode(format!("{name}:{}", self.token(name))));
        let url = format!("http://{}/web.git", self.host);
        let clone = Clone { folder, url, header, heard: self.heard.clone() };
        clone.run(&["init", "--quiet", "--initial-branch=work", "."]);
        clone.run(&["fetch", "--quiet", &clone.url, "refs/heads/main"]);
        clone.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
        clone
    }

    /// A new change of a person with these files; its clone and number.
    pub fn push(&self, name: &str, branch: &str, files: &[(&str, &str)]) -> (Clone, u64) {
        let clone = self.clone_of(name);
        files.iter().for_each(|(path, text)| clone.write(path, text));
        clone.commit(&format!("{branch}: a change of {name}"));
        let number = clone.propose(branch);
        (clone, number)
    }
}

fn serve(world: &World, canaries: &Canaries, heard: &Heard, options: &[&str]) -> (Child, String) {
    let data = world.home().join("data").display().to_string();
    let mut words = canaries.launcher();
    words.extend([TOWPATH, "serve", "--data", &data].map(str::to_owned));
    if !options.contains(&"--listen") {
        words.extend(["--listen".to_owned(), own_address()]);
    }
    words.extend(options.iter().map(|option| (*option).to_owned()));
    let mut command = world.command(&words[0]);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(&words[1..])
        .env("PATH", format!("{}:{path}", world.home().join(".cargo/bin").display()))
        .env("TOWPATH_TEST_CANARY", canaries.of("environment"))
        .env("SSH_AUTH_SOCK", canaries.agent_socket())
        .stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let host = lines.by_ref().find_map(|line| {
        let found =
            line.split_once("serving at http://").map(|(_, rest)| rest.split(' ').next().unwrap().to_owned());
        said.push(line);
        found
    });
    let host = host.unwrap_or_else(|| panic!("the server does not serve: {said:?}"));
    let heard = heard.clone();
    std::thread::spawn(move || lines.for_each(|line| heard.keep("the server's log", line.as_bytes())));
    (server, host)
}

impl Drop for Fort {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A work tree of one person.
pub struct Clone {
    pub folder: PathBuf,
    pub url: String,
    header: String,
    heard: Heard,
}

impl Clone {
    pub fn git(&self, words: &[&str]) -> Output {
        let output = self.command(words).output().unwrap();
        self.heard.keep(&format!("git {words:?}"), &[&output.stdout[..], &output.stderr].concat());
        output
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = plain_git(&self.folder, words);
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", &self.header);
        command
    }

    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.git(words);
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn run_with(&self, words: &[&str], input: &[u8]) -> String {
        let mut command = self.command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {words:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn commit(&self, message: &str) -> String {
        self.run(&["add", "--all", "."]);
        self.run(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    pub fn head(&self) -> String {
        self.run(&["rev-parse", "HEAD"])
    }

    /// What git was told, as `Ok` or `Err`.
    pub fn push(&self, words: &[&str]) -> Result<String, String> {
        let at = words.iter().position(|word| word.contains("refs/")).unwrap_or(words.len());
        let (options, refs) = words.split_at(at);
        let output = self.git(&[&["push"], options, &[self.url.as_str()], refs].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// Pushes what is checked out as a change of a branch; its number.
    #[track_caller]
    pub fn propose(&self, branch: &str) -> u64 {
        let said = self.push(&["-o", "change", &format!("HEAD:refs/heads/{branch}")]).unwrap();
        let number = said.split_once("change ").and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no number of a change in {said}"))
    }
}

/// Git with nobody's settings.
pub fn plain_git(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(words).current_dir(folder).env_clear();
    for (name, value) in [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_COMMITTER_NAME", "A"),
        ("GIT_COMMITTER_EMAIL", "a@example.org"),
    ] {
        command.env(name, value);
    }
    command.env("HOME", folder).stdin(Stdio::null());
    command
}
