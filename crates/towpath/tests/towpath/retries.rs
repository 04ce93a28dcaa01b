//! What runs again when somebody says so, on a real server with real jobs.

use serde_json::Value;

use crate::keeping::until_over;
use crate::served::Served;

/// The first wheel is good, each later one is broken.
const PIPELINE: &str = "jobs:\n  \
    wheel: { run: 'case $TOWPATH_RUN in */1) echo good;; *) echo broken;; esac > out', outputs: { out: out } }\n  \
    unit: { run: 'grep good $TOWPATH_INPUTS/wheel/out', needs: [wheel] }\n  \
    docs: { run: 'echo fine' }\n";

/// Each job of a run by name, with its outcome, and the run that it was taken over from.
fn jobs(served: &Served, run: &str) -> Vec<(String, String, Option<String>)> {
    let run = served.record(&["runs", run]);
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let job = |job: &Value| {
        let [name, outcome, carried] = ["name", "outcome", "carried"].map(|key| word(&job[key]));
        (name.unwrap(), outcome.unwrap(), carried)
    };
    let mut jobs: Vec<_> = run["jobs"].as_array().unwrap().iter().map(job).collect();
    jobs.sort();
    jobs
}

#[test]
fn a_wheel_that_is_made_again_is_tested_again_and_a_failure_is_not_forgotten() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &["--sandbox", "none"], &[]);
    let as_told = |name: &str, outcome: &str, carried: Option<&str>| {
        (name.to_owned(), outcome.to_owned(), carried.map(str::to_owned))
    };
    served.ok(&["branch", "freeze", "--why", "retries first"]);
    served.push("first", "one", "x\n");
    until_over(&served, 1);
    served.ok(&["change", "retry", "1", "--job", "wheel"]);
    until_over(&served, 2);
    let docs = as_told("docs", "passed", Some("web/main/1"));
    let second = [docs.clone(), as_told("unit", "failed", None), as_told("wheel", "passed", None)];
    assert_eq!(jobs(&served, "main/2"), second);

    served.ok(&["change", "retry", "1", "--failed"]);
    until_over(&served, 3);
    let wheel = as_told("wheel", "passed", Some("web/main/2"));
    assert_eq!(jobs(&served, "main/3"), [docs, as_told("unit", "failed", None), wheel]);
    served.ok(&["branch", "unfreeze"]);
    let why = served.ok(&["change", "why", "1"]).out;
    assert!(why.contains("unit failed in run web/main/3"), "{why}");
}

/// Its second cell does not pass at first.
const CELLS: &str = "jobs:\n  \
    unit: { run: 'echo in $TOWPATH_MATRIX_K; case $TOWPATH_MATRIX_K$TOWPATH_RUN in b*/1) exit 1; esac', \
    matrix: { k: [a, b] } }\n  \
    docs: { run: 'echo fine' }\n";

#[test]
fn a_key_means_all_its_cells() {
    let served = Served::with_options(&[("towpath.yaml", CELLS)], &["--sandbox", "none"], &[]);
    served.ok(&["branch", "freeze", "--why", "retries first"]);
    served.push("first", "one", "x\n");
    until_over(&served, 1);
    for how in [&["--first-error"][..], &["--follow"], &["--tail", "1"], &[]] {
        let log = served.ok(&[&["log", "1", "unit"], how].concat());
        assert!(log.out.contains("in b"), "{how:?}: {}", log.out);
        assert!(log.err.starts_with("run web/main/1 (change 1), job `unit[k=b]`:\n"), "{how:?}: {}", log.err);
    }
    assert_eq!(served.ok(&["log", "1", "unit[k=a]"]).out, "in a\n");

    let said = served.ok(&["change", "retry", "1", "--job", "unit"]).out;
    assert!(said.contains("`unit` and what did not pass run again"), "{said}");
    until_over(&served, 2);
    let of_run =
        |name: &str, carried: Option<&str>| (name.to_owned(), "passed".to_owned(), carried.map(Into::into));
    let all = [of_run("docs", Some("web/main/1")), of_run("unit[k=a]", None), of_run("unit[k=b]", None)];
    assert_eq!(jobs(&served, "main/2"), all);
    let unclear = served.world.towpath(&["log", "2", "unit"]);
    assert_eq!(unclear.code, 2);
    assert!(unclear.err.ends_with("hint: name one of: unit[k=a], unit[k=b]\n"), "{}", unclear.err);
}
