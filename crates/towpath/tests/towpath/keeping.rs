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
fn until_over(served: &Served, count: usize) {
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
}
