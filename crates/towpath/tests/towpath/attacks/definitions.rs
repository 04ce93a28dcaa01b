//! Group A, the pipeline file, with G12, G13 and K02: what a change says of its own tests decides nothing.

use serde_json::{Value, json};

use super::fort::{Fort, PIPELINE};
use crate::support::has_sandbox;

/// A change that breaks the test, and what else it brings; approved by a maintainer, definition and all.
fn broken(fort: &Fort, branch: &str, files: &[(&str, &str)]) -> u64 {
    let (_, number) = fort.push("ann", branch, &[files, &[("bad", "bad\n")]].concat());
    assert_eq!(fort.approve("mia", number).status, 200);
    number
}

fn jobs(fort: &Fort, number: u64) -> Vec<(String, String)> {
    let run = fort.run(&fort.runs_of(number)[0]["run"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    run["jobs"].as_array().unwrap().iter().map(|job| (text(&job["name"]), text(&job["outcome"]))).collect()
}

/// The run failed by the target's own job, and the change did not land.
fn is_held_by(fort: &Fort, number: u64, job: &str) {
    assert_eq!(fort.tested(number), "failed", "{:?}", jobs(fort, number));
    assert!(jobs(fort, number).contains(&(job.to_owned(), "failed".to_owned())), "{:?}", jobs(fort, number));
    let only = |change: &Value| {
        let reasons = change["gate"]["reasons"].as_array().unwrap();
        matches!(&reasons[..], [only] if only["reason"] == "tests_failed")
    };
    fort.until_change(number, "is held by its tests alone", only);
    assert_eq!(fort.change(number)["state"], "open");
}

/// An approval for another definition than the one that would land, or for none, is refused.
fn needs_a_word_for_its_definition(fort: &Fort, number: u64) {
    let change = fort.change(number);
    let definition = change["definition"].as_str().unwrap_or_else(|| panic!("no definition: {change}"));
    let other = if definition.starts_with('0') {
        definition.replacen('0', "1", 1)
    } else {
        format!("0{}", &definition[1..])
    };
    for named in [json!(other), Value::Null] {
        let body = json!({ "revision": change["revision"], "definition": named });
        assert_eq!(fort.act("mia", number, "approve", &body).status, 409, "{named}");
    }
    assert_eq!(fort.why(number), ["approvals"]);
    assert_eq!(fort.change(number)["state"], "open");
}

const EASY: &str = "gate: { approvals: 0, empty: land }\njobs:\n  easy: { run: 'true' }\n";

fn a01_empty_the_bar(fort: &Fort) {
    let number = broken(fort, "a01", &[("towpath.yaml", EASY)]);
    is_held_by(fort, number, "unit");
}

fn a02_same_name_true(fort: &Fort) {
    let pipeline = PIPELINE.replace("sh ./check", "'true'");
    let number = broken(fort, "a02", &[("towpath.yaml", &pipeline)]);
    is_held_by(fort, number, "unit@target");
    assert!(jobs(fort, number).contains(&("unit".to_owned(), "passed".to_owned())));
}

fn a04_delete_file(fort: &Fort) {
    let delete = |branch: &str, files: &[(&str, &str)]| {
        let clone = fort.clone_of("ann");
        clone.run(&["rm", "--quiet", "towpath.yaml"]);
        clone.write("Makefile", "check:\n\ttrue\n");
        files.iter().for_each(|(path, text)| clone.write(path, text));
        clone.commit(&format!("{branch}: without a pipeline"));
        clone.propose(branch)
    };
    let number = delete("a04", &[("bad", "bad\n")]);
    assert_eq!(fort.approve("mia", number).status, 200);
    is_held_by(fort, number, "unit");
    // What passes the target's set is an edit of the definition all the same: an approval that does not name it is none.
    let honest = delete("a04-honest", &[]);
    assert_eq!(fort.tested(honest), "passed", "{:?}", jobs(fort, honest));
    needs_a_word_for_its_definition(fort, honest);
    assert_eq!(fort.act("ann", honest, "close", &json!({})).status, 200);
}

fn a08_never_errored(fort: &Fort) {
    for (at, attack) in
        ["kill -KILL $$", "kill -KILL $PPID", "exit 125", "exit 137", "exit 255", "kill -SEGV $$"]
            .iter()
            .enumerate()
    {
        let files = [("attack", *attack), ("bad", "bad\n")];
        let (_, number) = fort.push("ann", &format!("a08-{at}"), &files);
        let tests = fort.tested(number);
        assert!(tests == "failed" || tests == "errored", "{attack}: {tests}");
        assert!(!fort.why(number).is_empty());
        fort.act("ann", number, "close", &json!({})).ok();
    }
}

fn a09_env_hook(fort: &Fort) {
    let env =
        "env: { BASH_ENV: ./hook, ENV: ./hook, LD_PRELOAD: ./hook.so, GIT_DIR: x, GIT_CONFIG_COUNT: '0' }";
    let pipeline = PIPELINE.replace("sh ./check,", &format!("sh ./check, {env},"));
    let attack = "env | grep -E '^(BASH_ENV|ENV|LD_PRELOAD|GIT_)' && echo hooked || echo clean";
    let files = [("towpath.yaml", pipeline.as_str()), ("attack", attack), ("hook", "exit 0\n")];
    let number = broken(fort, "a09", &files);
    is_held_by(fort, number, "unit@target");
    assert!(fort.log(number, "unit@target").starts_with("clean\n"), "{}", fort.log(number, "unit@target"));
    // The control: the change's own job of that name has them.
    assert!(fort.log(number, "unit").contains("BASH_ENV=./hook"), "{}", fort.log(number, "unit"));
    let reserved = PIPELINE.replace("sh ./check,", "sh ./check, env: { TOWPATH_JOB: other },");
    let (_, number) = fort.push("ann", "a09-reserved", &[("towpath.yaml", &reserved)]);
    let bad = |change: &Value| change["gate"]["reasons"].to_string().contains("bad_definition");
    let change = fort.until_change(number, "is refused for its definition", bad);
    let said = change["gate"]["reasons"].to_string();
    assert!(said.contains("towpath.yaml:3:") && said.contains("TOWPATH_JOB"), "{said}");
    assert_eq!(fort.runs_of(number), Vec::<Value>::new());
}

fn a11_ask_for_secret(fort: &Fort) {
    let look = "env; ls -la /towpath; cat /towpath/secrets/* \"$TOWPATH_SECRETS\"/* 2>&1; true";
    for on in ["change", "queue"] {
        let job = format!("  steal: {{ run: '{look}', on: [{on}], secrets: [cloud-config] }}\n");
        let (_, number) =
            fort.push("ann", &format!("a11-{on}"), &[("towpath.yaml", &format!("{PIPELINE}{job}"))]);
        if on == "queue" {
            // Required there: approved, it is run, and holds the change.
            assert_eq!(fort.approve("mia", number).status, 200);
            fort.until_change(number, "fails", |change| change["gate"]["tests"] == "failed");
            is_held_by(fort, number, "steal");
        } else {
            fort.tested(number);
        }
        let job = fort.job(number, "steal");
        let why = job["why"].as_str().unwrap();
        assert!(why.contains("`cloud-config` is not given") && why.contains("level landed"), "{why}");
        assert_eq!(job["outcome"], "failed");
        fort.act("ann", number, "close", &json!({}));
    }
}

fn a13_manual_unlanded(fort: &Fort) {
    let steal = "  steal: { run: 'cat $TOWPATH_SECRETS/*', on: [manual], secrets: [cloud-config] }\n";
    let (_, number) = fort.push("ann", "a13", &[("towpath.yaml", &format!("{PIPELINE}{steal}"))]);
    assert_eq!(fort.tested(number), "passed");
    let before = fort.all_runs("web").len();
    let run = |name: &str, job: &str| {
        fort.ask(name, "POST", "/repos/web/branches/main/run", &json!({ "job": job }))
    };
    assert_eq!(run("ann", "steal").status, 403);
    assert_eq!(run("ann", "sign").status, 403);
    // A request names no commit, so what is not on the branch is not there.
    let foreign = json!({ "job": "steal", "commit": fort.change(number)["revision"] });
    assert_eq!(fort.ask("mia", "POST", "/repos/web/branches/main/run", &foreign).status, 400);
    assert!(run("mia", "steal").status >= 400, "the branch has no job of that name");
    assert_eq!(fort.all_runs("web").len(), before);
    // The control: a maintainer runs what is on the branch.
    assert_eq!(run("mia", "sign").status, 200);
    fort.until("the manual run", || {
        let runs = fort.get("/repos/web/runs?count=20");
        let passed = |run: &&Value| run["trigger"] == "manual" && run["outcome"] == "passed";
        runs.as_array().unwrap().iter().find(passed).cloned()
    });
    fort.act("ann", number, "close", &json!({})).ok();
}

fn a26_tag_release_trigger(fort: &Fort) {
    let ann = fort.clone_of("ann");
    ann.run(&["tag", "-a", "-m", "release", "v9.9.9"]);
    let before = fort.refs();
    let refused = ann.push(&["refs/tags/v9.9.9"]).unwrap_err();
    assert!(refused.contains("pushing tags takes the role maintainer"), "{refused}");
    assert_eq!(fort.refs(), before);
    let release = format!("{PIPELINE}  ship: {{ run: 'true', on: [release] }}\n");
    let (_, number) = fort.push("ann", "a26", &[("towpath.yaml", &release)]);
    let bad = |change: &Value| change["gate"]["reasons"].to_string().contains("bad_definition");
    let said = fort.until_change(number, "is refused for `release`", bad)["gate"]["reasons"].to_string();
    assert!(said.contains("release"), "{said}");
}

fn a28_title_into_shell(fort: &Fort) {
    let title = "\"; curl x #$(id) `id` ' \\";
    let clone = fort.clone_of("ann");
    clone.write("attack", "printf 'title:%s\\n' \"$TOWPATH_CHANGE_TITLE\"; env");
    clone.commit(title);
    let branch = "a$(id)";
    let said = clone.push(&["-o", "change", &format!("HEAD:refs/heads/{branch}")]).unwrap_err();
    assert!(said.contains("refused"), "{said}");
    let number = clone.propose("a28");
    assert_eq!(fort.change(number)["title"], title);
    assert_eq!(fort.tested(number), "passed");
    let log = fort.log(number, "unit");
    assert!(log.contains(&format!("title:{title}\n")) && !log.contains("uid="), "{log}");
    fort.act("ann", number, "close", &json!({})).ok();
}

#[test]
fn a01_a02_a04_a08_a09_a11_a13_a26_a28_a_change_decides_nothing_about_its_tests() {
    if !has_sandbox("a01_a02_a04_a08_a09_a11_a13_a26_a28_a_change_decides_nothing_about_its_tests") {
        return;
    }
    let fort = Fort::new();
    fort.hold("A01 empty-the-bar", a01_empty_the_bar);
    fort.hold("A02 same-name-true", a02_same_name_true);
    fort.hold("A04 delete-file", a04_delete_file);
    fort.hold("A08 never-errored", a08_never_errored);
    fort.hold("A09 env-hook", a09_env_hook);
    fort.hold("A11 ask-for-secret", a11_ask_for_secret);
    fort.hold("A13 manual-unlanded", a13_manual_unlanded);
    fort.hold("A26 tag-release-trigger", a26_tag_release_trigger);
    fort.hold("A28 title-into-shell", a28_title_into_shell);
    fort.end();
}

/// A required set that is empty, or is skipped whole, is not a pass.
fn g12_empty_set(fort: &Fort) {
    let when = |paths: &str| {
        format!(
            "gate: {{ approvals: 1 }}\njobs:\n  unit: {{ run: sh ./check, when: {{ paths: [{paths}] }} }}\n"
        )
    };
    land(fort, "g12-when", &[("towpath.yaml", &when("src"))]);
    let (_, number) = fort.push("ann", "g12-skipped", &[("elsewhere", "x\n")]);
    assert_eq!(fort.approve("mia", number).status, 200);
    let waits = |change: &Value| change["gate"]["reasons"].to_string().contains("empty_set");
    fort.until_change(number, "waits for something to be tested", waits);
    assert_eq!(fort.change(number)["state"], "open");
    // In words, it may.
    let said = when("src").replace("approvals: 1", "approvals: 1, empty: land");
    land(fort, "g12-said", &[("towpath.yaml", &said), ("src", "x\n")]);
    assert_eq!(fort.landed(number).len(), 40);
    fort.foreign.lock().unwrap().push(fort.main());
    // Nor is a set without any required job.
    let none = "gate: { approvals: 1 }\njobs:\n  unit: { run: sh ./check, required: false }\n";
    land(fort, "g12-none", &[("towpath.yaml", none), ("src", "z\n")]);
    let (_, number) = fort.push("ann", "g12-nothing", &[("nothing", "x\n")]);
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.until_change(number, "waits for a required job", waits);
    assert_eq!(fort.change(number)["state"], "open");
    fort.act("ann", number, "close", &json!({})).ok();
    land(fort, "g12-back", &[("towpath.yaml", PIPELINE), ("src", "y\n")]);
}

pub fn land(fort: &Fort, branch: &str, files: &[(&str, &str)]) -> String {
    let (_, number) = fort.push("ann", branch, files);
    assert_eq!(fort.tested(number), "passed", "{:?}", jobs(fort, number));
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.landed(number)
}

/// A required job that was skipped because its need did not pass has not passed.
fn g13_skipped_required(fort: &Fort) {
    let pipeline = "gate: { approvals: 1 }\njobs:\n  need: { run: sh ./check, on: [] }\n  unit: { run: 'true', needs: [need] }\n";
    land(fort, "g13-needs", &[("towpath.yaml", pipeline)]);
    let (_, number) = fort.push("ann", "g13", &[("bad", "bad\n")]);
    assert_eq!(fort.approve("mia", number).status, 200);
    assert_eq!(fort.tested(number), "failed");
    let outcome = |job: &str| fort.job(number, job)["outcome"].clone();
    assert_eq!((outcome("need"), outcome("unit")), (json!("failed"), json!("skipped")));
    assert_eq!(fort.change(number)["state"], "open");
    // The same if the need was cancelled: by a person, while it ran.
    let (_, number) = fort.push("ann", "g13-cancelled", &[("attack", "echo begun; sleep 600")]);
    assert_eq!(fort.approve("mia", number).status, 200);
    let run = fort.until("the need runs", || {
        let run = fort.runs_of(number).first()?["run"].clone();
        fort.log_of(run.as_str().unwrap(), "need").contains("begun").then_some(run)
    });
    let number_of = run.as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
    let cancel = json!({ "why": "enough" });
    fort.ask("mia", "POST", &format!("/repos/web/runs/main/{number_of}/cancel"), &cancel).ok();
    assert_eq!(fort.tested(number), "cancelled");
    assert_ne!(fort.job(number, "unit")["outcome"], "passed");
    assert_eq!(fort.change(number)["state"], "open");
    fort.act("ann", number, "close", &json!({})).ok();
    land(fort, "g13-back", &[("towpath.yaml", PIPELINE)]);
}

/// The control: a change of the required set that a maintainer approved lands once both sets have passed.
fn k02_honest_pipeline_change(fort: &Fort) {
    let renamed = PIPELINE.replace("  unit:", "  renamed:");
    let (_, number) = fort.push("ann", "k02", &[("towpath.yaml", &renamed)]);
    assert_eq!(fort.tested(number), "passed");
    assert_eq!(fort.change(number)["state"], "open");
    needs_a_word_for_its_definition(fort, number);
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.landed(number);
    let passed = |job: &str| (job.to_owned(), "passed".to_owned());
    let both = jobs(fort, number);
    assert!(both.contains(&passed("renamed")) && both.contains(&passed("unit")), "{both:?}");
    // From now on the new set is the bar.
    let number = broken(fort, "k02-broken", &[]);
    is_held_by(fort, number, "renamed");
    land(fort, "k02-back", &[("towpath.yaml", PIPELINE)]);
}

#[test]
fn g12_g13_k02_the_required_set_is_the_targets_and_never_empty() {
    if !has_sandbox("g12_g13_k02_the_required_set_is_the_targets_and_never_empty") {
        return;
    }
    let fort = Fort::new();
    fort.hold("K02 honest-pipeline-change", k02_honest_pipeline_change);
    fort.hold("G13 skipped-required", g13_skipped_required);
    fort.hold("G12 empty-set", g12_empty_set);
    fort.end();
}
