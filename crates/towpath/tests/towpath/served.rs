//! Commands against a real server, with real pushes.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use expect_test::expect;
use serde_json::Value;

use crate::support::{Ended, TOWPATH, World, ended, has_sandbox, own_address, stop_servants, wait_until};

/// Time for a change of one short job to land on a loaded machine.
const LANDS_WITHIN: Duration = Duration::from_secs(120);

/// A server in the world's folder, and its admin's settings in the world's home.
pub struct Served {
    pub world: World,
    pub server: Child,
    url: String,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    /// What the server says.
    said: Arc<Mutex<Vec<String>>>,
}

const PIPELINE: &str = "jobs:\n  unit: { run: './check' }\n";

impl Served {
    /// A server with the world's repository as `web`.
    pub fn with(files: &[(&str, &str)]) -> Served {
        Served::with_options(files, &[], &[])
    }

    /// The same, with options and variables of its own.
    pub fn with_options(files: &[(&str, &str)], options: &[&str], variables: &[(&str, &str)]) -> Served {
        Served::in_world(World::with(files), options, variables)
    }

    /// The same of a world that is there.
    pub fn in_world(world: World, options: &[&str], variables: &[(&str, &str)]) -> Served {
        let served = Served::start(world, options, variables);
        served.ok(&["repo", "import", ".", "--name", "web"]);
        served
    }

    fn start(world: World, options: &[&str], variables: &[(&str, &str)]) -> Served {
        let data = world.home().join("data").display().to_string();
        let init = world.towpath(&["init", "--data", &data, "--user", "ann"]);
        assert_eq!(init.code, 0, "{}", init.err);
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (server, url, said) = serve(&world, (TOWPATH, &own_address()), (&options, &variables));
        let served = Served { world, server, url, options, variables, said };
        let token = std::fs::read_to_string(format!("{data}-keys/admin.token")).unwrap();
        served.login(&served.url, &token);
        served
    }

    /// Starts the server again at its address, after it ended.
    pub fn again(&mut self) {
        self.again_from(TOWPATH);
    }

    /// The same from another file of the program.
    pub fn again_from(&mut self, program: &str) {
        let listen = self.url.trim_start_matches("http://");
        let settings = (&*self.options, &*self.variables);
        (self.server, _, self.said) = serve(&self.world, (program, listen), settings);
    }

    /// Whether the server has said something.
    pub fn has_said(&self, words: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.contains(words))
    }

    /// The same of a line that says nothing else.
    pub fn has_said_just(&self, words: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line == words)
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to it.
    pub fn call(&self) -> TcpStream {
        TcpStream::connect(self.url.trim_start_matches("http://")).unwrap()
    }

    /// The same with other options than before.
    pub fn again_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self.again();
    }

    /// The same in another environment.
    pub fn again_in(&mut self, variables: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.variables = variables.iter().map(owned).collect();
        self.again();
    }

    /// Ends the server as a person would. Its executor lives on.
    pub fn terminate(&mut self) {
        let ended = Command::new("kill").args(["-TERM", &self.server.id().to_string()]).status();
        assert!(ended.unwrap().success());
        assert!(self.server.wait().unwrap().success());
    }

    fn login(&self, url: &str, token: &str) {
        let mut command = self.world.command(TOWPATH);
        command.args(["token", "login", url]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), token.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub fn ok(&self, arguments: &[&str]) -> Ended {
        let ended = self.world.towpath(arguments);
        assert_eq!(ended.code, 0, "towpath {arguments:?}: {}", ended.err);
        ended
    }

    pub fn record(&self, arguments: &[&str]) -> Value {
        self.world.records(arguments).into_iter().next().unwrap()
    }

    /// A command with somebody else's token.
    fn with_token(&self, token: &str, arguments: &[&str]) -> Ended {
        let url = self.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
        let mut command = self.world.command(TOWPATH);
        command.env("TOWPATH_URL", url.strip_suffix("/web.git").unwrap()).env("TOWPATH_TOKEN", token);
        ended(command.args(arguments).output().unwrap())
    }

    /// A command of another user.
    pub fn as_user(&self, user: &str, arguments: &[&str]) -> Ended {
        let made = self.record(&["token", "create", "--user", user]);
        self.with_token(made["token"].as_str().unwrap(), arguments)
    }

    /// Starts a manual job, once the branch is read: it is read back after a landing.
    pub fn run_job(&self, job: &str) {
        wait_until("manual run", || self.world.towpath(&["branch", "run", "--job", job]).code == 0);
    }

    /// A branch with one commit, pushed as a change; what git was told.
    pub fn push(&self, branch: &str, path: &str, text: &str) -> String {
        self.world.git(&["switch", "--quiet", "--create", branch, "main"]);
        self.world.write(path, text);
        self.world.git(&["add", "--all"]);
        self.world.git(&["commit", "--quiet", "--message", &format!("{branch}: a title")]);
        let mut command = self.world.command("git");
        let pushed = ended(command.args(["push", "towpath", branch, "-o", "change"]).output().unwrap());
        assert_eq!(pushed.code, 0, "{}", pushed.err);
        pushed.err
    }

    pub fn until(&self, change: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&self.world, change, wanted)
    }
}

/// A server process in a world, once it serves, and its address.
fn serve(
    world: &World,
    (program, listen): (&str, &str),
    (options, variables): (&[String], &[(String, String)]),
) -> (Child, String, Arc<Mutex<Vec<String>>>) {
    let data = world.home().join("data").display().to_string();
    let mut command = world.command(program);
    command.args(["serve", "--data", &data, "--listen", listen]).args(options);
    command.envs(variables.iter().cloned()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let serving = lines.by_ref().find(|line| line.contains("serving at")).unwrap();
    let url = serving.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
    // Somebody has to read it to its end, or the server waits for a reader.
    let said = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&said);
    std::thread::spawn(move || lines.for_each(|line| heard.lock().unwrap().push(line)));
    (server, url, said)
}

impl Drop for Served {
    fn drop(&mut self) {
        stop(&mut self.server, &self.world);
    }
}

/// A server that ends with its test.
pub struct Running<'a> {
    pub world: &'a World,
    pub server: Child,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        stop(&mut self.server, self.world);
    }
}

/// Ends a server and its executor.
pub fn stop(server: &mut Child, world: &World) {
    // Both fail only if it is gone already.
    let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
    let _ = server.wait();
    stop_servants(world.folder());
}

/// Waits until a change has landed.
pub fn until_landed(world: &World, change: &str) -> Value {
    until(world, change, |change| change["state"] == "landed")
}

/// Asks for a change until it is as wanted.
pub fn until(world: &World, change: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + LANDS_WITHIN;
    loop {
        let shown = world.towpath(&["change", "show", change, "--json"]);
        assert_eq!(shown.code, 0, "{}", shown.err);
        let found: Value = serde_json::from_str(&shown.out).unwrap();
        if wanted(&found) {
            return found;
        }
        assert!(Instant::now() < end, "change {change} is still {found}");
    }
}

/// Commit ids become `COMMIT`, addresses `URL`, times and dates `TIME`.
fn stable(text: &str) -> String {
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit()) && word.len() >= 12;
    let line = |line: &str| {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word {
                word if word.starts_with("http://127.0.0.1:") => {
                    let path = word.splitn(4, '/').nth(3).unwrap_or_default();
                    format!("URL/{path}")
                }
                word if is_hex(word) => "COMMIT".to_owned(),
                word if word.len() == 10 && word.starts_with("20") && word.contains('-') => "DATE".to_owned(),
                word if word.len() == 8 && word.matches(':').count() == 2 => "TIME".to_owned(),
                word => word.to_owned(),
            })
            .collect();
        words.join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

#[test]
fn a_change_is_pushed_tested_and_landed() {
    if !has_sandbox("a_change_is_pushed_tested_and_landed") {
        return;
    }
    let served = Served::with(&[("towpath.yaml", PIPELINE), ("check", "#!/bin/sh\necho checked\n")]);
    served.world.git(&["update-index", "--chmod=+x", "check"]);
    std::fs::set_permissions(
        served.world.work().join("check"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let told = served.push("feature", "new", "x\n");
    assert!(told.contains("remote: change 1: http://"), "{told}");
    let landed = served.until("1", |change| change["state"] == "landed");
    expect![[r#"
        change 1 has landed as COMMIT
    "#]]
    .assert_eq(&stable(&served.ok(&["change", "why", "1"]).out));
    expect![[r#"
        1  landed  main  ann  feature: a title  COMMIT
    "#]]
    .assert_eq(&stable(&served.ok(&["change", "list", "--state", "all"]).out));
    assert_eq!(served.ok(&["log", "1"]).out, "checked\n");
    assert_eq!(served.ok(&["log", "main/1", "unit", "--follow"]).out, "checked\n");
    let runs = served.record(&["runs"]);
    assert_eq!((runs["outcome"].as_str(), runs["commit"] == landed["landed"]), (Some("passed"), true));
    let audit = served.ok(&["audit", "show"]).out;
    assert!(audit.contains("  landed  ") && audit.contains("run=web/main/1"), "{audit}");
    assert!(audit.contains(" approved_by=nobody "), "{audit}");
    let beyond = served.ok(&["audit", "show", "--from", "100000"]);
    assert!(beyond.err.starts_with("no leaves from 100000 on: the log has "), "{}{}", beyond.out, beyond.err);
    let data = served.world.home().join("data").display().to_string();
    assert_eq!(served.ok(&["audit", "verify", "--data", &data]).code, 0);
    // The token for git is in a file of its own that nobody else may read.
    let config = std::fs::read_to_string(served.world.work().join(".git/config")).unwrap();
    assert!(!config.contains("Bearer"), "{config}");
    let kept = served.world.work().join(".git/towpath-credentials").metadata().unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777, 0o600);
}

#[test]
fn a_failing_change_shows_its_first_error_and_says_why_it_waits() {
    if !has_sandbox("a_failing_change_shows_its_first_error_and_says_why_it_waits") {
        return;
    }
    let pipeline =
        "jobs:\n  unit: { run: 'cat file; test ! -e bad || { echo \"error: it is bad\"; exit 3; }' }\n";
    let served = Served::with(&[("towpath.yaml", pipeline), ("file", "hello\n")]);
    served.push("feature", "bad", "x\n");
    let failed = |change: &Value| change["gate"]["tests"] == "failed";
    served.until("1", failed);
    expect![[r#"
        unit failed in run web/main/1
          hint: `towpath log web/main/1 --first-error`; push a fix, or `towpath change retry 1`
    "#]]
    .assert_eq(&served.ok(&["change", "why", "1"]).out);
    expect![[r#"
               1  hello
        >      2  error: it is bad
    "#]]
    .assert_eq(&served.ok(&["log", "1", "--first-error"]).out);
    // A closed stdin is nobody to ask; a shortened id is shown whole.
    let refused = served.world.towpath(&["change", "approve", "1"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    let newest = served.record(&["change", "show", "1"])["revision"].as_str().unwrap().to_owned();
    assert!(refused.err.contains(&newest), "{}", refused.err);
    let asked = served.world.towpath(&["change", "request-changes", "1"]).err;
    let question = format!("why: request changes of revision {newest} of change 1");
    assert!(asked.contains("nobody is here to answer") && asked.contains(&question), "{asked}");
    // Whoever has not the right is told that, and not how to say it in full.
    served.ok(&["user", "add", "amy"]);
    served.ok(&["repo", "grant", "amy", "author"]);
    for verb in [&["approve", "1"][..], &["request-changes", "1"], &["vouch", "1", "--why", "x"]] {
        let denied = served.as_user("amy", &[&["change"], verb].concat());
        assert!(
            denied.code == 4 && denied.err.contains("takes the role maintainer on `web`"),
            "{}",
            denied.err
        );
    }
    // Nobody approves what they uploaded; a maintainer who names it by a shortened id sends the whole one.
    let own = served.world.towpath(&["change", "approve", "1", "--revision", &newest]);
    assert_eq!(own.code, 4, "{}", own.err);
    served.ok(&["user", "add", "bob"]);
    served.ok(&["repo", "grant", "bob", "maintainer"]);
    let approved = served.as_user("bob", &["change", "approve", "1", "--revision", &newest[..8], "--yes"]);
    assert_eq!(approved.out, format!("approved revision {newest} of change 1\n"), "{}", approved.err);
    served.ok(&["change", "hold", "1", "--why", "not today"]);
    let why = served.ok(&["change", "why", "1"]).out;
    assert!(why.contains("not today"), "{why}");
    served.ok(&["change", "release", "1"]);
    served.ok(&["change", "close", "1"]);
    assert_eq!(served.ok(&["change", "list"]).out, "");
}

#[test]
fn a_job_sees_the_facts_of_its_change_as_variables() {
    if !has_sandbox("a_job_sees_the_facts_of_its_change_as_variables") {
        return;
    }
    let pipeline = "jobs:\n  unit: { run: 'env | grep ^TOWPATH_ | sort', history: true }\n";
    let served = Served::with(&[("towpath.yaml", pipeline)]);
    served.push("feature", "new", "x\n");
    served.until("1", |change| change["state"] == "landed");
    let commit = served.record(&["runs"])["commit"].as_str().unwrap().to_owned();
    let log = served.ok(&["log", "1"]).out;
    for fact in ["TOWPATH_CHANGE=1\n".to_owned(), format!("TOWPATH_COMMIT={commit}\n")] {
        assert!(log.contains(&fact), "{fact} is not in {log}");
    }
}

#[test]
fn people_rights_secrets_and_branches_are_steered() {
    let served = Served::with(&[("Makefile", "check:\n\ttrue\n")]);
    served.ok(&["user", "add", "bob"]);
    served.ok(&["repo", "grant", "bob", "author"]);
    expect![[r#"
        ann  admin   changes are tested at once
        bob  author
    "#]]
    .assert_eq(&served.ok(&["repo", "people"]).out);
    served.ok(&["branch", "freeze", "--why", "moving house"]);
    expect![[r#"
        main  COMMIT  0 open  0 queued  0 running  frozen
    "#]]
    .assert_eq(&stable(&served.ok(&["branch", "list"]).out));
    served.ok(&["branch", "unfreeze"]);

    let mut command = served.world.command(TOWPATH);
    let mut child = command
        .args(["secret", "set", "deploy-key"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hunter-22").unwrap();
    assert!(child.wait().unwrap().success());
    let secrets = served.ok(&["secret", "list"]).out;
    assert!(secrets.starts_with("deploy-key") && !secrets.contains("hunter"), "{secrets}");
    served.ok(&["secret", "remove", "deploy-key"]);

    let made = served.record(&["token", "create", "--user", "bob", "--verb", "read"]);
    let as_bob = |arguments: &[&str]| served.with_token(made["token"].as_str().unwrap(), arguments);
    assert_eq!(as_bob(&["repo", "list"]).code, 0);
    assert_eq!(as_bob(&["branch", "freeze", "--why", "mine"]).code, 4);
    served.ok(&["token", "revoke", &made["number"].to_string()]);
    assert_eq!(as_bob(&["repo", "list"]).code, 4);

    // What git may do in a clone is as its owner may.
    for (role, says, never) in [
        ("reader", "you may fetch; to push, an admin gives you the role author", "git push"),
        ("author", "next: `git push towpath BRANCH -o change` opens a change", "you may fetch"),
    ] {
        served.ok(&["repo", "grant", "bob", role]);
        let said = served.as_user("bob", &["repo", "connect", "web"]).err;
        assert!(said.contains(says) && !said.contains(never), "{said}");
        assert_eq!(said.contains("(read), until"), role == "reader", "{said}");
    }
}

#[test]
fn exit_codes_say_what_kind_of_no_it_was() {
    let served = Served::with(&[("Makefile", "check:\n\ttrue\n")]);
    let code = |arguments: &[&str]| served.world.towpath(arguments).code;
    assert_eq!(code(&["change", "show", "99"]), 3);
    assert_eq!(code(&["runs", "99"]), 3);
    assert_eq!(code(&["runs", "not-a-run"]), 2);
    assert_eq!(code(&["repo", "import", ".", "--name", "web"]), 5);
    assert_eq!(code(&["repo", "show", "--repo", "none"]), 3);
    // A lone user could wait for ever for somebody else's approval.
    let made = served.ok(&["repo", "create", "empty"]);
    assert!(made.err.contains("you are the only user"), "{}", made.err);
    let settings: Value =
        serde_json::from_str(&served.ok(&["repo", "settings", "--repo", "empty"]).out).unwrap();
    assert_eq!(settings["branches"]["main"]["approvals"], 0);
    let mut command = served.world.command(TOWPATH);
    let nobody = command.env("TOWPATH_URL", "http://127.0.0.1:1").args(["repo", "list"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(7));
    let mut command = served.world.command(TOWPATH);
    let nowhere = command.env("TOWPATH_TOKEN", "twp_x").args(["repo", "list"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
}

/// I01: what a change and its jobs say cannot drive the terminal of whoever looks at them.
#[test]
fn i01_terminal_escape() {
    if !has_sandbox("i01_terminal_escape") {
        return;
    }
    let attack = "\u{1b}]52;c;cHduZWQ=\u{7}\u{1b}[21t\u{1b}]8;;file:///etc/passwd\u{1b}\\x\u{1b}P0q\u{1b}\\\u{9b}31m\rgone";
    let script = "jobs:\n  unit: { run: cat attack; exit 1 }\n";
    let served = Served::with(&[("towpath.yaml", script), ("attack", attack)]);
    served.push("feature", "file", "x\n");
    served.until("1", |change| change["gate"]["tests"] == "failed");
    served.ok(&["change", "comment", "1", attack.trim_end_matches('\u{7}')]);
    let looks: [&[&str]; 7] = [
        &["log", "1"],
        &["log", "1", "--first-error"],
        &["log", "1", "--follow"],
        &["change", "show", "1"],
        &["change", "list"],
        &["change", "why", "1"],
        &["log", "1", "--json"],
    ];
    for arguments in looks {
        let ended = served.ok(arguments);
        let drives = |c: char| c != '\n' && towpath_core::ids::is_unprintable(c);
        assert!(!ended.out.contains(drives), "{arguments:?}: {:?}", ended.out);
    }
    assert!(served.ok(&["log", "1"]).out.contains(r"\x1b]52;c;cHduZWQ=\x07\x1b[21t"));
}

#[test]
fn a_server_has_descriptors_for_its_connections_where_its_starter_had_few() {
    let world = World::with(&[]);
    let data = world.home().join("data").display().to_string();
    let init = world.towpath(&["init", "--data", &data, "--user", "ann"]);
    assert_eq!(init.code, 0, "{}", init.err);
    let mut command = world.command("sh");
    command.args(["-c", "ulimit -Sn 512 && exec \"$0\" \"$@\"", TOWPATH, "serve", "--data", &data]);
    let mut server = command.args(["--listen", &own_address()]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let running = Running { world: &world, server };
    assert!(lines.any(|line| line.contains("serving at")));
    std::thread::spawn(move || lines.for_each(drop));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.server.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|column| files.split_whitespace().nth(column).unwrap().parse().ok());
    // No number: no limit.
    assert_eq!(soft, Some(hard.unwrap_or(u64::MAX).min(16_384)), "{files}");
}
