//! What piles up goes again, and what must stay stays: on a real server, with real runs and real Git.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::served::{Served, until_landed};

/// Runs that a gate remembers of one change.
const REMEMBERED: usize = 20;
const RUNS: usize = REMEMBERED + 4;
const RUNS_WITHIN: Duration = Duration::from_secs(240);

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// Waits until so many runs are over.
pub fn until_over(served: &Served, count: usize) {
    let end = Instant::now() + RUNS_WITHIN;
    loop {
        let runs = served.world.records(&["runs", "--count", "100"]);
        if runs.iter().filter(|run| !run["outcome"].is_null()).count() >= count {
            return;
        }
        assert!(Instant::now() < end, "{count} runs are not over: {runs:?}");
    }
}

/// Makes everything that is stored old, and has it looked after.
fn keep(served: &Served, blobs: &Path) -> Value {
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 86_400);
    for file in files(blobs) {
        std::fs::File::open(file).unwrap().set_modified(long_ago).unwrap();
    }
    let figures = served.record(&["retention", "run"]);
    assert_eq!(figures["trouble"], Value::Array(vec![]), "{figures}");
    figures
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git").arg("--git-dir").arg(folder).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn what_piles_up_goes_and_what_must_stay_stays() {
    let pipeline = "jobs:\n  unit: { run: 'echo hello; date +%N > made', outputs: { made: made } }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &["--sandbox", "none"], &[]);
    let data = served.world.home().join("data");
    let (blobs, logs) = (data.join("executor/blobs/sha256"), data.join("executor/logs"));
    let repository = data.join("repos/web.git");
    let count_logs =
        || files(&logs).iter().filter(|path| path.extension().is_some_and(|end| end == "log")).count();
    served.ok(&["branch", "freeze", "--why", "collect runs"]);
    served.push("first", "one", "x\n");
    for run in 1..RUNS {
        until_over(&served, run);
        served.ok(&["change", "retry", "1"]);
    }
    until_over(&served, RUNS);
    assert_eq!(count_logs(), RUNS);
    let stored = files(&blobs).len();
    // The list of a branch has what the list of runs has, whatever the gate remembers of it.
    let listed = |runs: &[Value]| runs.iter().map(|run| run["run"].clone()).collect::<Vec<_>>();
    let of_branch = || listed(served.record(&["branch", "show"])["runs"].as_array().unwrap());
    let newest_runs = || listed(&served.world.records(&["runs", "--count", "20"]));
    assert_eq!(of_branch(), newest_runs());

    // Nothing is old enough yet.
    assert_eq!(keep(&served, &blobs)["runs"], 0);
    assert_eq!((count_logs(), files(&blobs).len()), (RUNS, stored));
    let set = ["run_days=0", "log_days=0", "artifact_days=0", "runs_min=0", "grace_days=1", "packs_max=0"];
    served.ok(&[&["retention", "set"], &set[..]].concat());
    assert_eq!(served.world.towpath(&["retention", "set", "grace_days=0"]).code, 2);
    assert_eq!(served.world.towpath(&["retention", "set", "nonsense=1"]).code, 2);

    // Of an open change goes what its gate has forgotten; what it refers to is whole.
    let figures = keep(&served, &blobs);
    assert_eq!((figures["runs"].as_u64(), figures["jobs"].as_u64()), (Some(4), Some(4)), "{figures}");
    let runs = served.world.records(&["runs", "--count", "100"]);
    assert_eq!((runs.len(), count_logs()), (REMEMBERED, REMEMBERED));
    let newest = runs[0]["run"].as_str().unwrap().strip_prefix("web/").unwrap();
    assert_eq!(served.ok(&["log", newest, "unit"]).out, "hello\n");
    assert!(files(&blobs).len() < stored && files(&blobs).len() >= 2 * REMEMBERED);
    assert_eq!(git(&repository, &["for-each-ref", "refs/towpath/candidates"]).lines().count(), 1);

    // It lands as if nothing had happened. Then its proof stays, and little else.
    served.ok(&["branch", "unfreeze"]);
    let landed = until_landed(&served.world, "1")["landed"].as_str().unwrap().to_owned();
    let figures = keep(&served, &blobs);
    assert_eq!(figures["runs"].as_u64(), Some(REMEMBERED as u64 - 1), "{figures}");
    let runs = served.world.records(&["runs", "--count", "100"]);
    assert_eq!((runs.len(), runs[0]["commit"].as_str()), (1, Some(landed.as_str())));
    assert_eq!((count_logs(), files(&blobs).len()), (0, 0));
    assert_eq!(git(&repository, &["for-each-ref", "refs/towpath/candidates"]), "");
    // What refs reach is packed; what nothing reaches stays loose for two weeks.
    assert_eq!(figures["repositories"], 1, "{figures}");
    let kept = git(&repository, &["rev-list", "--objects", "--all"]).lines().count();
    assert!(git(&repository, &["count-objects", "-v"]).contains(&format!("in-pack: {kept}\n")));
    git(&repository, &["fsck", "--full", "--strict"]);
    let verified = served.ok(&["audit", "verify", "--data", &data.display().to_string()]);
    assert_eq!(verified.code, 0);
    assert_eq!(served.ok(&["change", "show", "1", "--json"]).code, 0);

    // Numbers go on, and so does everything else.
    served.push("second", "two", "x\n");
    until_landed(&served.world, "2");
    let newest = served.record(&["runs"]);
    assert_eq!(newest["run"], format!("web/main/{}", RUNS + 1));
    let again = keep(&served, &blobs);
    assert_eq!(again["runs"], 0, "{again}");
    assert_eq!(served.world.records(&["runs", "--count", "100"]).len(), 2);
    assert_eq!(of_branch(), newest_runs());
}

/// A landing's proof is whole: also the older run, not passed as a whole, from which a result was carried.
#[test]
fn what_a_landing_rests_on_stays_however_old_and_however_the_run_ended() {
    let pipeline =
        "jobs:\n  build: { run: echo built }\n  unit: { run: 'case $TOWPATH_RUN in */1) exit 1; esac' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &["--sandbox", "none"], &[]);
    let data = served.world.home().join("data");
    let blobs = data.join("executor/blobs/sha256");
    served.ok(&["branch", "freeze", "--why", "collect runs"]);
    served.push("first", "one", "x\n");
    until_over(&served, 1);
    served.ok(&["change", "retry", "1", "--failed"]);
    for run in 2..REMEMBERED + 3 {
        until_over(&served, run);
        // Whoever carries a result on names the run that made it.
        served.ok(&["change", "retry", "1", "--job", "unit"]);
    }
    until_over(&served, REMEMBERED + 3);
    let numbers = || -> Vec<u64> {
        let runs = served.world.records(&["runs", "--count", "100"]);
        let number = |run: &Value| run["run"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap();
        runs.iter().map(number).collect()
    };
    let newest = REMEMBERED as u64 + 3;
    assert_eq!(numbers(), (1..=newest).rev().collect::<Vec<_>>());
    served.ok(&["retention", "set", "run_days=0", "log_days=0", "runs_min=0"]);

    // While the change is open the runs that its gate remembers rest on the first one.
    keep(&served, &blobs);
    let remembered: Vec<u64> = (newest + 1 - REMEMBERED as u64..=newest).rev().collect();
    assert_eq!(numbers(), [&remembered[..], &[1]].concat());
    served.ok(&["branch", "unfreeze"]);
    until_landed(&served.world, "1");
    keep(&served, &blobs);
    assert_eq!(numbers(), [newest, 1]);
    let first = served.record(&["runs", "main/1"]);
    let outcomes: Vec<&Value> = first["jobs"].as_array().unwrap().iter().map(|job| &job["outcome"]).collect();
    assert_eq!((&first["outcome"], outcomes), (&"failed".into(), vec![&"passed".into(), &"failed".into()]));
    let leaves = served.world.records(&["audit", "show", "--count", "500"]);
    let landed = leaves.iter().map(|leaf| &leaf["entry"]["act"]).find(|act| act["act"] == "landed").unwrap();
    let run =
        |number: u64| serde_json::json!({ "gate": { "repo": "web", "branch": "main" }, "number": number });
    assert_eq!(landed["runs"], Value::from(vec![run(1), run(newest)]));
}
