//! Group E: what takes more than a job may have, while somebody else's job and the server go on.

use std::process::Command;

use serde_json::{Value, json};

use super::canaries::PYTHON;
use super::fort::Fort;
use super::jobs::has_python;
use super::leftovers::resident;
use super::wire::Ask;
use crate::support::has_sandbox;

/// Bounds that no honest job of these tests meets, small enough for any machine.
const OPTIONS: [&str; 12] = [
    "--slots",
    "2",
    "--job-limit",
    "memory=256MiB",
    "--job-limit",
    "processes=128",
    "--job-limit",
    "disk=64MiB",
    "--job-limit",
    "files=2000",
    "--job-limit",
    "log=32MiB",
];
/// The largest share of the disk that a case may take while it lasts: far below what each tries.
const TAKEN_BYTES_MAX: u64 = 4 << 30;

/// Bytes that a flood of some 64 MB may cost whoever passes it on.
const GROWN_BYTES_MAX: u64 = 48 << 20;

/// A job of somebody else, which says that it lives for as long as it does.
struct Witness<'a> {
    fort: &'a Fort,
    number: u64,
    run: String,
}

impl Witness<'_> {
    fn start<'a>(fort: &'a Fort, name: &str) -> Witness<'a> {
        let lives = "n=0; while test $n -lt 3000; do n=$((n + 1)); echo $n; sleep 0.1; done\n";
        let (_, number) = fort.push("ben", &format!("{name}-witness"), &[("attack", lives)]);
        let run = fort.until("the witness runs", || {
            let run = fort.runs_of(number).first()?["run"].as_str()?.to_owned();
            (!fort.log_of(&run, "unit").is_empty()).then_some(run)
        });
        Witness { fort, number, run }
    }

    fn said(&self) -> usize {
        self.fort.log_of(&self.run, "unit").lines().count()
    }

    /// It goes on from here.
    fn lives(&self) {
        let said = self.said();
        self.fort.until("the witness goes on", || (self.said() > said).then_some(()));
        assert_eq!(self.fort.run(&json!(self.run))["outcome"], Value::Null);
    }

    fn end(self) {
        self.lives();
        self.fort.act("ben", self.number, "close", &json!({})).ok();
    }
}

/// Runs an attack beside a witness, asks the server all the time, and says why it failed.
fn against(fort: &Fort, name: &str, files: &[(&str, &str)]) -> String {
    let witness = Witness::start(fort, name);
    let (server, disk) = (fort.server_pid(), free_bytes(fort));
    let (_, number) = fort.push("ann", name, files);
    let tests = fort.until("the attack is over", || {
        let health = Ask::new("GET", "/healthz").send(&fort.host, &fort.heard);
        assert_eq!(health.status, 200);
        assert!(free_bytes(fort) + TAKEN_BYTES_MAX > disk, "the disk fills");
        let tests = fort.change(number)["gate"]["tests"].as_str()?.to_owned();
        (!["untested", "running"].contains(&tests.as_str())).then_some(tests)
    });
    assert_eq!(tests, "failed", "{}", fort.log(number, "unit"));
    witness.end();
    assert_eq!(fort.server_pid(), server);
    let why = fort.job(number, "unit")["why"].as_str().unwrap().to_owned();
    fort.act("ann", number, "close", &json!({})).ok();
    why
}

fn free_bytes(fort: &Fort) -> u64 {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(fort.data()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap().trim().parse().unwrap()
}

fn e01_fork_bomb(fort: &Fort) {
    let renaming = format!(
        "#!{PYTHON}\nimport os, sys\ntext = open(sys.argv[0]).read()\nwhile True:\n  try:\n    if os.fork() == 0:\n      \
         name = f'/tmp/b{{os.getpid()}}'\n      open(name, 'w').write(text); os.chmod(name, 0o755)\n      \
         os.execv(name, [name])\n  except OSError: pass\n"
    );
    let start = "cp bomb /tmp/bomb; chmod 755 /tmp/bomb; exec /tmp/bomb\n";
    let why = against(fort, "e01-renaming", &[("attack", start), ("bomb", &renaming)]);
    assert!(why.contains("ended at its limit of 128 processes"), "{why}");
    // A shell gives up at the first refused fork, and where no group counts those that is how it ends.
    let why =
        against(fort, "e01-classic", &[("attack", "b() { b | b & }; while :; do b; done 2> /dev/null\n")]);
    assert!(why.contains("ended at its limit of 128 processes") || why.contains("exit code"), "{why}");
}

/// 64 processes of 500 MB each: none is over a bound of its own.
fn e02_memory_many(fort: &Fort) {
    let program = "import os, time\nfor _ in range(64):\n  if os.fork() == 0:\n    x = bytearray(500 << 20)\n    \
                   for at in range(0, len(x), 4096): x[at] = 1\n    time.sleep(60); os._exit(0)\ntime.sleep(60)\n";
    let start = format!("exec {PYTHON} many.py\n");
    let why = against(fort, "e02", &[("attack", &start), ("many.py", program)]);
    assert!(why.contains("ended at its limit of 256 MiB memory"), "{why}");
}

fn e04_disk_fill(fort: &Fort) {
    for (name, attack, wanted) in [
        (
            "e04-one",
            "exec dd if=/dev/zero of=big bs=1M count=200000 2> /dev/null\n",
            "a file reached the limit of 64 MiB",
        ),
        (
            "e04-spread",
            "i=0; while :; do head -c 8M /dev/zero > f$i; i=$((i+1)); done\n",
            "ended at its limit of 64 MiB of disk",
        ),
        (
            "e04-files",
            "i=0; while test $i -lt 10000000; do : > f$i; i=$((i+1)); done\n",
            "ended at its limit of 2000 files",
        ),
    ] {
        let why = against(fort, name, &[("attack", attack)]);
        assert!(why.contains(wanted), "{name}: {why}");
    }
}

/// A flood without a newline, and one of lines: each is cut with a mark, the page opens, and nobody's memory grows with it.
fn e05_log_flood(fort: &Fort) {
    let session = fort.log_in(&format!("token={}", fort.token("ann")));
    for (name, flood) in [
        ("e05-line", "head -c 64M /dev/zero | tr '\\0' x; echo; echo the end\n"),
        ("e05-lines", "yes 'a line of a flood' | head -n 3000000; echo the end\n"),
    ] {
        let memory = (resident(fort.server_pid()), resident(fort.executor_pid()));
        let (_, number) = fort.push("ann", name, &[("attack", flood)]);
        assert_eq!(fort.tested(number), "passed");
        let run = fort.runs_of(number)[0]["run"].as_str().unwrap().replacen("web/main/", "", 1);
        let job = format!("/api/v1/repos/web/runs/main/{run}/jobs/unit/log");
        let windows = ["?from_line=0&lines=10", "?from_line=500000&lines=10", "?tail=1"];
        for window in windows {
            let got = fort.send("ann", Ask::new("GET", &format!("{job}{window}")));
            assert_eq!(got.status, 200, "{window}");
            assert!(got.body.len() < 4 << 20, "{window}: {}", got.body.len());
            let is_cut = got.text().contains("the log was cut here at its limit of 33554432 bytes");
            assert!(is_cut || window != "?tail=1", "{name}: {}", got.text().len());
        }
        let page = Ask::new("GET", &format!("/web/runs/main/{run}/jobs/unit")).with("cookie", &session);
        let page = page.send(&fort.host, &fort.heard);
        assert_eq!(page.status, 200);
        assert!(page.body.len() < 8 << 20, "{}", page.body.len());
        let now = (resident(fort.server_pid()), resident(fort.executor_pid()));
        let grown = (now.0.saturating_sub(memory.0), now.1.saturating_sub(memory.1));
        assert!(grown.0.max(grown.1) < GROWN_BYTES_MAX, "{name}: server and executor grew by {grown:?}");
        fort.act("ann", number, "close", &json!({})).ok();
    }
}

#[test]
fn e01_e02_e04_e05_a_job_takes_no_more_than_it_may() {
    let test = "e01_e02_e04_e05_a_job_takes_no_more_than_it_may";
    if !has_sandbox(test) || !has_python(test) {
        return;
    }
    let fort = Fort::with_sandbox(&OPTIONS);
    fort.hold("E01 fork-bomb", e01_fork_bomb);
    fort.hold("E02 memory-many", e02_memory_many);
    fort.hold("E04 disk-fill", e04_disk_fill);
    fort.hold("E05 log-flood", e05_log_flood);
    fort.end();
}
