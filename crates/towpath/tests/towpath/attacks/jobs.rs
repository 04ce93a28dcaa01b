//! Groups C, D, E and I04: what a job does, in its sandbox and to whoever takes its outputs, as the server runs it.

use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::definitions::land;
use super::fort::{Clone, Fort, PIPELINE, plain_git};
use super::neighbours::twins;
use super::wire::Ask;
use crate::support::has_sandbox;

const PROBES: &str = include_str!("probes.py");

/// What an attacker may know of the machine: where everything lies.
fn known(fort: &Fort) -> Value {
    let home = fort.world.home();
    let below = |path: &str| home.join(path).display().to_string();
    let (host, port) = fort.host.split_once(':').unwrap();
    json!({
        "files": [below(".cargo/credentials.toml"), below(".netrc"), below(".config/pip/pip.conf"), below("keyring"), below("descriptor")],
        "folders": [below(".ssh"), below(".config")],
        "data": fort.data(),
        "key": fort.keys().join("audit.key"),
        "vault": fort.data().join("repos/vault.git"),
        "agent": fort.canaries.agent_socket(),
        "sockets": path_sockets(fort),
        "host": host,
        "port": port.parse::<u16>().unwrap(),
        "pid": fort.server_pid(),
    })
}

/// Towpath's own sockets, and those streams of the host that somebody listens on, as many as a job may try in a moment.
/// Those of other tests come and go.
fn path_sockets(fort: &Fort) -> Vec<PathBuf> {
    const LISTENS: &str = "00010000";
    const STREAM: &str = "0001";
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let of_line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, LISTENS, STREAM, _, _, path] => Some(PathBuf::from(path)),
        _ => None,
    };
    let is_hosts =
        |path: &PathBuf| path.is_absolute() && !path.starts_with(std::env::temp_dir()) && path.exists();
    let own = ["executor/socket", "push/push.sock"].map(|path| fort.data().join(path));
    own.into_iter().chain(table.lines().filter_map(of_line).filter(is_hosts).take(20)).collect()
}

/// Variables of a job that neither its definition nor its own shell names.
const VARIABLES: [&str; 12] =
    ["CI", "HOME", "LANG", "LC_ALL", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHLVL", "TMPDIR", "USER", "_"];

/// Where toolchains lie that the host's path leads to.
const TOOLCHAINS: [&str; 4] = ["CARGO_HOME", "PYENV_ROOT", "RUSTUP_HOME", "SSL_CERT_FILE"];

/// The log of a job that tries everything, and how many sockets it tried.
fn probe(fort: &Fort, branch: &str) -> (String, usize) {
    let known = known(fort);
    let sockets = known["sockets"].as_array().unwrap().len();
    let known = known.to_string();
    let files =
        [("attack", "/usr/bin/python3 probes.py"), ("probes.py", PROBES), ("known.json", known.as_str())];
    let (_, number) = fort.push("ann", branch, &files);
    assert_eq!(fort.tested(number), "passed", "{}", fort.log(number, "unit"));
    let log = fort.log(number, "unit");
    fort.act("ann", number, "close", &json!({})).ok();
    (log, sockets)
}

/// D01 to D17: nothing of the server is there, and nothing more than a job's own rights.
fn d_probes(fort: &Fort) {
    let (log, sockets) = probe(fort, "probes");
    for line in log.lines() {
        assert!(!line.ends_with(": open") && !line.starts_with("CANARY"), "{log}");
    }
    let refused = log.lines().filter(|line| line.ends_with(": refused"));
    assert_eq!(refused.count(), 18 + sockets, "{log}");
    assert!(log.contains("looked at") && log.contains("STDIN /dev/null\n"), "{log}");
    let names = log.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let is_known =
        |name: &&str| VARIABLES.contains(name) || name.starts_with("TOWPATH") || TOOLCHAINS.contains(name);
    let others: Vec<&str> = names.split(' ').filter(|name| !is_known(name)).collect();
    assert_eq!(others, Vec::<&str>::new(), "variables that no definition names");
}

#[test]
fn d01_d02_d03_d04_d06_d09_d11_d15_d17_e06_i04_a_job_of_the_server_stays_in_its_sandbox() {
    let test = "d01_d02_d03_d04_d06_d09_d11_d15_d17_e06_i04_a_job_of_the_server_stays_in_its_sandbox";
    if !has_sandbox(test) || !has_python(test) {
        return;
    }
    let fort = Fort::new();
    fort.hold(
        "D01 environ, D02 open-fds, D03 home-secrets, D04 unix-sockets, D06 loopback, D09 keyring, D11 root-caps, \
         D15 setuid, D17 root-tmpfs",
        d_probes,
    );
    fort.hold("E06 daemonise", e06_daemonise);
    fort.hold("I04 log-commands", i04_log_commands);
    fort.end();
}

pub fn has_python(test: &str) -> bool {
    let found = Path::new(super::canaries::PYTHON).exists();
    if !found {
        println!("SKIP {test}: there is no {}", super::canaries::PYTHON);
    }
    found
}

/// The control: without a sandbox the same job finds every canary there is, and most of its attacks work.
#[test]
fn k01_without_a_sandbox_the_same_job_finds_every_canary() {
    let test = "k01_without_a_sandbox_the_same_job_finds_every_canary";
    if !has_python(test) {
        return;
    }
    let fort = Fort::with_sandbox(&["--sandbox", "none", "--slots", "3"]);
    fort.hold_open("K01 probe-works", k01_probe_works);
    fort.hold_open("K01 the look at what is left", super::leftovers::every_rest_is_seen);
    assert_eq!(*fort.failed.lock().unwrap(), Vec::<String>::new());
}

fn k01_probe_works(fort: &Fort) {
    let twins = twins(fort, "twins");
    let (log, _) = probe(fort, "probes");
    let search = fort.canaries.search();
    let found = search.found_in(log.as_bytes());
    for place in
        ["environment", "cargo", "netrc", "pip", "agent", "keyring", "descriptor", "vault", "audit key"]
    {
        // A kernel without keyrings has no canary there either.
        let is_there = place != "keyring" || !log.contains("D09 keyring: refused");
        assert!(!is_there || found.iter().any(|name| name.starts_with(place)), "{place}: {found:?}\n{log}");
    }
    // Every attack that is refused in the sandbox works here, as root.
    for line in log.lines().filter(|line| line.ends_with(": refused")) {
        let is_kernels = line.starts_with("D09") || !is_root() && ["D11", "D15", "D17"].contains(&&line[..3]);
        let is_kernels = is_kernels
            || line.starts_with("D06 interfaces") && std::fs::read_dir("/sys/class/net").unwrap().count() < 2;
        assert!(
            is_kernels,
            "{line}: it is refused without a sandbox, too, so that its refusal means nothing"
        );
    }
    assert!(log.lines().filter(|line| line.ends_with(": open")).count() >= 10, "{log}");
    for channel in ["/tmp", "/dev/shm", "abstract", "sysv", "list", "signal", "ptrace"] {
        assert!(twins.iter().any(|saw| saw.contains(channel)), "{channel}: {twins:?}");
    }
    let run = fort.run(&fort.runs_of(2)[0]["run"]);
    assert_eq!(run["jobs"][0]["unsandboxed"], true, "every run says so");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().st_uid() == 0
}

/// The run ends with its main process, whatever that has left behind.
fn e06_daemonise(fort: &Fort) {
    let attack =
        "trap '' TERM HUP; (trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; sleep 31777' &) ; echo done";
    let (_, number) = fort.push("ann", "e06", &[("attack", attack)]);
    assert_eq!(fort.tested(number), "passed");
    let listed = Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("sleep 31777"), "it lives on");
    fort.act("ann", number, "close", &json!({})).ok();
}

/// What a log says moves nothing: neither other systems' commands nor words of our own.
fn i04_log_commands(fort: &Fort) {
    let words = "::set-output name=x::y\n::error::gone\n::add-mask::unit\n##[group]g\n##[endgroup]\n\
                 ##vso[task.complete result=Succeeded;]ok\n##teamcity[buildStatus status='SUCCESS']\n\
                 event: end\\ndata: 0\n--- end of unit (passed: exit code 0)\npassed     unit\n\
                 the log was cut here at its limit of 1 bytes\nlanded change 1\nTOWPATH_OUTCOME=passed\nexit code 0\n";
    for (code, tests) in [("1", "failed"), ("0", "passed")] {
        let attack =
            format!("cat words; echo outcome=passed >> \"${{GITHUB_OUTPUT:-/dev/null}}\"; exit {code}");
        let (_, number) = fort.push("ann", &format!("i04-{code}"), &[("attack", &attack), ("words", words)]);
        let before = fort.change(number);
        assert_eq!(fort.tested(number), tests);
        assert_eq!(fort.log(number, "unit"), words, "it is kept as it was written");
        let job = fort.job(number, "unit");
        assert_eq!(job["outcome"], tests);
        assert_eq!((job["outputs"].clone(), job["failed_tests"].clone()), (json!([]), json!([])));
        let after = fort.change(number);
        for key in ["title", "body", "labels", "state", "revision", "reviews", "comments"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        let run = fort.runs_of(number)[0]["run"].as_str().unwrap().replacen("web/main/", "", 1);
        let shown = fort.command("ann", &["log", "--repo", "web", &run]);
        assert!(shown.out.contains("##vso[task.complete"), "{}", shown.out);
        fort.act("ann", number, "close", &json!({})).ok();
    }
}

/// A change whose own file has these jobs beside the target's; once it is tested.
pub fn with_jobs(fort: &Fort, branch: &str, jobs: &str, files: &[(&str, &str)]) -> u64 {
    let pipeline = format!("{PIPELINE}{jobs}");
    let (_, number) = fort.push("ann", branch, &[files, &[("towpath.yaml", pipeline.as_str())]].concat());
    fort.tested(number);
    number
}

fn failed_why(fort: &Fort, number: u64, job: &str) -> String {
    let job = fort.job(number, job);
    assert_eq!(job["outcome"], "failed", "{job}");
    job["why"].as_str().unwrap().to_owned()
}

fn c01_c05_hostile_outputs(fort: &Fort) {
    let key = fort.keys().join("audit.key").display().to_string();
    let outputs: [(&str, String, &str, &str); 8] = [
        ("absolute", format!("mkdir dist; ln -s {key} dist/a.whl"), "dist/*.whl", "not a regular file"),
        (
            "relative",
            "mkdir dist; ln -s ../../../../../data-keys/audit.key dist/a.whl".into(),
            "dist/*.whl",
            "not a regular file",
        ),
        ("folder", format!("ln -s {} dist", fort.keys().display()), "dist/*", "nothing matches"),
        ("fifo", "mkdir d; mkfifo d/p".into(), "d/*", "not a regular file"),
        (
            "socket",
            "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'".into(),
            "s",
            "not a regular file",
        ),
        ("loop", "mkdir -p d/e; ln -s .. d/e/loop".into(), "d", "not a regular file"),
        ("sparse", "truncate -s 1T sparse".into(), "sparse", ""),
        ("many", "mkdir d; cd d; seq 20000 | xargs touch; cd ..".into(), "d", "limit"),
    ];
    let job = |(name, run, output, _): &(&str, String, &str, &str)| {
        let run = run.replace('\'', "''");
        format!("  {name}: {{ run: '{run}', on: [change], outputs: {{ o: \"{output}\" }} }}\n")
    };
    let jobs: String = outputs.iter().map(job).collect();
    let number = with_jobs(fort, "c01", &jobs, &[]);
    for (name, .., why) in &outputs {
        // The file of 1 TB fails already where a job may not make one.
        let said = failed_why(fort, number, name);
        assert!(said.contains(why), "{name}: {said}");
    }
    // Names that are hard to show do no harm: they are taken, and shown as escapes.
    let names = "echo x > \"$(printf '\\342\\200\\256%.0s' $(seq 85))\"; echo y > \"$(printf 'new\\nline')\"";
    let names = format!(
        "  names: {{ run: '{}', on: [change], outputs: {{ o: \"*\" }} }}\n",
        names.replace('\'', "''")
    );
    let number = with_jobs(fort, "c05-names", &names, &[]);
    assert_eq!(fort.job(number, "names")["outcome"], "passed");
    let run = fort.runs_of(number)[0]["run"].as_str().unwrap().replacen("web/main/", "", 1);
    let list = fort.get(&format!("/repos/web/runs/main/{run}/jobs/names/artifacts")).to_string();
    assert!(list.contains("new%0Aline") && list.contains("%E2%80%AE"), "{list}");
}

fn c03_path_outputs(fort: &Fort) {
    for (at, bad) in [
        "outputs: { x: \"../../*\" }",
        "outputs: { x: /etc/* }",
        "outputs: { ../x: dist }",
        "reports: { junit: /proc/self/environ }",
        "reports: { junit: ../../x.xml }",
    ]
    .iter()
    .enumerate()
    {
        let pipeline = format!("{PIPELINE}  hostile: {{ run: 'true', {bad} }}\n");
        let (_, number) = fort.push("ann", &format!("c03-{at}"), &[("towpath.yaml", &pipeline)]);
        let is_bad = |change: &Value| change["gate"]["reasons"].to_string().contains("bad_definition");
        let change = fort.until_change(number, "is refused", is_bad);
        assert!(change["gate"]["reasons"].to_string().contains("towpath.yaml:5:"), "{bad}: {change}");
        assert_eq!(fort.runs_of(number), Vec::<Value>::new(), "{bad}");
    }
}

fn c07_write_through_input(fort: &Fort) {
    let jobs = "  make: { run: 'printf good > out.bin', on: [change], outputs: { bin: out.bin } }\n  \
                harm: { run: 'chmod -R u+w \"$TOWPATH_INPUTS\"; f=$(find \"$TOWPATH_INPUTS\" -name out.bin); printf evil > $f || mv $f x || rm -f $f', on: [change], needs: [make] }\n  \
                use: { run: 'cat $(find \"$TOWPATH_INPUTS\" -name out.bin)', on: [change], needs: [make] }\n";
    let number = with_jobs(fort, "c07", jobs, &[]);
    let again = fort.act(
        "ann",
        number,
        "retry",
        &json!({ "revision": fort.change(number)["revision"], "job": "use" }),
    );
    assert_eq!(again.status, 200, "{}", again.text());
    let twice = |change: &Value| {
        change["runs"].as_array().unwrap().len() == 2 && change["gate"]["tests"] != "running"
    };
    fort.until_change(number, "is run again", twice);
    assert_eq!(fort.log(number, "use"), "good", "after `harm` had its turn");
    assert_eq!(fort.job(number, "harm")["outcome"], "failed");
    let run = fort.runs_of(number)[1]["run"].as_str().unwrap().replacen("web/main/", "", 1);
    let file = format!("/repos/web/runs/main/{run}/jobs/make/artifacts/bin/out.bin");
    assert_eq!(fort.ask("ann", "GET", &file, &Value::Null).body, b"good");
}

/// Inode and bytes of every file of the store. Not its time: an object that is stored again counts as young.
fn store(fort: &Fort) -> BTreeMap<String, (u64, Vec<u8>)> {
    let output = Command::new("find").arg(fort.bare().join("objects")).args(["-type", "f"]).output().unwrap();
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let about = |path: &str| {
        Some((path.to_owned(), (std::fs::metadata(path).ok()?.st_ino(), std::fs::read(path).ok()?)))
    };
    listed.lines().filter_map(about).collect()
}

fn c08_c09_c11_repository_of_a_job(fort: &Fort) {
    // Another open change, and a branch that is there no more.
    let other = fort.push("ben", "c09-other", &[("c09", "other\n")]).0.head();
    let ben = fort.clone_of("ben");
    ben.write("c09-gone", "gone\n");
    let gone = ben.commit("gone");
    ben.push(&["HEAD:refs/heads/c09-gone"]).unwrap();
    ben.push(&[":refs/heads/c09-gone"]).unwrap();
    let before = store(fort);
    let marker = fort.marker("config-ran");
    let script = format!(
        "git cat-file --batch-all-objects --batch-check > objects\n\
         for id in {other} {gone}; do git cat-file -e $id 2> /dev/null && echo has $id; grep $id objects; done\n\
         ls .git/objects/info/alternates 2> /dev/null; git for-each-ref; git config --list\n\
         chmod -R u+w .git; find .git/objects -type f | while read f; do echo garbage > $f; done\n\
         for key in core.fsmonitor core.sshCommand core.hooksPath core.pager diff.external filter.x.clean alias.status; do\n\
           printf '[%s]\\n\\t%s = touch {0}\\n' ${{key%.*}} ${{key##*.}} >> .git/config; done\n\
         for hook in post-checkout pre-commit reference-transaction; do\n\
           mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch {0}\\n' > .git/hooks/$hook; chmod 755 .git/hooks/$hook; done\n\
         echo out > out\n",
        marker.display()
    );
    let job = "  harm: { run: sh ./harm, on: [change], history: true, outputs: { o: out } }\n";
    let number = with_jobs(fort, "c08", job, &[("harm", &script)]);
    let log = fort.log(number, "harm");
    assert_eq!(fort.job(number, "harm")["outcome"], "passed", "{log}");
    assert!(!log.contains(&other) && !log.contains(&gone) && !log.contains("alternates"), "{log}");
    let after = store(fort);
    let is_touched = |path: &&String| after.get(*path) != before.get(*path);
    let touched: Vec<&String> = before.keys().filter(is_touched).collect();
    assert!(touched.is_empty(), "{touched:?}");
    assert!(!marker.exists(), "a command of the job's configuration ran outside");
    assert!(fort.has_object(&other) && fort.has_object(&gone), "the control: the store has both");
}

fn c12_c13_attributes(fort: &Fort) {
    let attributes = "* filter=lfs diff=x merge=x\n";
    land(fort, "c12", &[(".gitattributes", attributes), ("c12", "one\ntwo\nthree\n")]);
    land(fort, "c12-more", &[("c12", "one\ntwo\nthree\nfour\n")]);
    let ran = fort.marker("driver-ran");
    assert!(!ran.exists(), "a driver of the server's user ran");
    // The control: git with that user's configuration runs it.
    let clone = fort.clone_of("ann");
    let mut command = plain_git(&clone.folder, &["checkout", "--force", "HEAD", "--", "c12"]);
    clone.run(&["rm", "--quiet", "--cached", "c12"]);
    std::fs::remove_file(clone.folder.join("c12")).unwrap();
    clone.run(&["reset", "--quiet", "HEAD"]);
    command.env("GIT_CONFIG_GLOBAL", fort.world.home().join(".gitconfig")).output().unwrap();
    assert!(ran.exists());
    std::fs::remove_file(&ran).unwrap();

    // Both sides add a line at the same place; `union` would take both.
    let edit = |line: &str, branch: &str| {
        let clone = fort.clone_of("ann");
        clone.write(".gitattributes", "* merge=union\n");
        clone.write("c12", &format!("one\n{line}\ntwo\nthree\nfour\n"));
        clone.commit(branch);
        (clone, branch.to_owned())
    };
    let [first, second] = [edit("mine", "c13-first"), edit("theirs", "c13-second")];
    let propose = |(clone, branch): &(Clone, String)| clone.propose(branch);
    let (first, second) = (propose(&first), propose(&second));
    assert_eq!(fort.approve("mia", first).status, 200);
    fort.landed(first);
    assert_eq!(fort.approve("mia", second).status, 200);
    let conflicts = |change: &Value| change["gate"]["reasons"].to_string().contains("\"conflict\"");
    fort.until_change(second, "is in conflict", conflicts);
    let clear = fort.clone_of("ann");
    clear.run(&["rm", "--quiet", ".gitattributes"]);
    clear.commit("Clear up");
    let number = clear.propose("c13-clear");
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.landed(number);
}

/// A change without a pipeline file, whose project would have its own programs run by tools that look at it.
fn c15_cargo_config_rustc(fort: &Fort) {
    let marker = fort.marker("rustc-ran");
    let program = format!("#!/bin/sh\ntouch {}\n", marker.display());
    let clone = fort.clone_of("ann");
    clone.run(&["rm", "--quiet", "towpath.yaml"]);
    for (path, text) in [
        (
            "Cargo.toml",
            "[package]\nname = \"hello\"\nversion = \"1.0.0\"\nedition = \"2021\"\nbuild = \"build.rs\"\n",
        ),
        ("src/main.rs", "fn main() {}\n"),
        ("build.rs", "fn main() {}\n"),
        (".cargo/config.toml", "[build]\nrustc = \"./x.sh\"\n[alias]\ntest = \"run\"\n"),
        ("rust-toolchain.toml", "[toolchain]\npath = \"./toolchain\"\n"),
        ("toolchain/bin/rustc", program.as_str()),
        ("toolchain/bin/cargo", program.as_str()),
        ("x.sh", program.as_str()),
    ] {
        clone.write(path, text);
    }
    for path in ["x.sh", "toolchain/bin/rustc", "toolchain/bin/cargo"] {
        let path = clone.folder.join(path);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    clone.commit("A project with programs of its own");
    let number = clone.propose("c15");
    fort.tested(number);
    let run = fort.run(&fort.runs_of(number)[0]["run"]);
    assert!(run["jobs"].to_string().contains("cargo-test"), "it is detected and planned: {run}");
    let session = super::web::log_in(fort, "mia");
    let page = Ask::new("GET", &format!("/web/changes/{number}")).with("cookie", &session);
    assert_eq!(page.send(&fort.host, &fort.heard).status, 200);
    assert!(!marker.exists(), "a program of the change ran outside the sandbox");
    // The control: the very program makes the marker where it runs.
    Command::new(clone.folder.join("x.sh")).status().unwrap();
    assert!(marker.exists());
    fort.act("ann", number, "close", &json!({})).ok();
}

#[test]
fn c01_c03_c05_c07_c08_c09_c11_c12_c13_c15_a_tree_and_its_outputs_stay_what_they_are() {
    let test = "c01_c03_c05_c07_c08_c09_c11_c12_c13_c15_a_tree_and_its_outputs_stay_what_they_are";
    if !has_sandbox(test) || !has_python(test) {
        return;
    }
    let fort = Fort::new();
    fort.hold("C01 symlink-artifact, C05 fifo-socket-artifact", c01_c05_hostile_outputs);
    fort.hold("C03 path-outputs", c03_path_outputs);
    fort.hold("C07 write-through-input", c07_write_through_input);
    fort.hold(
        "C08 write-through-objects, C09 read-all-objects, C11 config-bomb",
        c08_c09_c11_repository_of_a_job,
    );
    fort.hold("C12 filter-attributes, C13 union-merge", c12_c13_attributes);
    fort.hold("C15 cargo-config-rustc", c15_cargo_config_rustc);
    fort.end();
}
