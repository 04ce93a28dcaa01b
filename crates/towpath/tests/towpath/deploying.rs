//! Deployments on a real server: on record, taken over by the next server, and of the server itself.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::served::{Served, until_landed};
use crate::support::TOWPATH;
use crate::support::servants;

/// Time for a deployment on a loaded machine, with a debug build that hashes programs.
const DEPLOYS_WITHIN: Duration = Duration::from_secs(180);
/// Jobs here wait for files of the test, so they run without a sandbox: what is under test is the server.
pub const PLAIN: [&str; 2] = ["--sandbox", "none"];

pub fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + DEPLOYS_WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it never happened: {what}");
    }
}

/// The newest deployment once it is as wanted.
pub fn deployment(served: &Served, environment: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(&format!("a deployment to {environment}"), || {
        let shown = served.world.towpath(&["deploy", "show", environment, "--json"]);
        let shown: Value = serde_json::from_str(&shown.out).ok()?;
        Some(shown["deployments"][0].clone()).filter(|newest| wanted(newest))
    })
}

pub fn is_over(deployment: &Value) -> bool {
    !deployment["outcome"].is_null()
}

pub fn land(served: &Served, change: &str, path: &str) -> String {
    land_with(served, change, (path, "x\n"))
}

fn land_with(served: &Served, change: &str, (path, content): (&str, &str)) -> String {
    served.push(&format!("branch-{change}"), path, content);
    let landed = until_landed(&served.world, change)["landed"].as_str().unwrap().to_owned();
    served.world.git(&["fetch", "--quiet", "towpath"]);
    served.world.git(&["switch", "--quiet", "main"]);
    served.world.git(&["reset", "--quiet", "--hard", &landed]);
    landed
}

/// A file for which a job waits, where every user may see it.
pub fn gate_of(served: &Served, name: &str) -> PathBuf {
    let mut folder = served.world.folder();
    loop {
        let mode = folder.metadata().unwrap().permissions().mode();
        let _ = std::fs::set_permissions(folder, PermissionsExt::from_mode(mode | 0o011));
        match folder.parent() {
            Some(parent) if parent != Path::new("/") && parent != Path::new("/tmp") => folder = parent,
            _ => return served.world.folder().join(name),
        }
    }
}

#[test]
fn the_alert_of_what_failed_after_a_landing_is_history_once_it_passes() {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n  \
        docs: { on: [land], run: 'grep good state' }\n  \
        ship: { on: [land], environment: live, run: 'grep fine state' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    let branch = || served.record(&["branch", "show"]);
    let told = |commit: &str| {
        let newest =
            || branch()["alerts"].get(0).filter(|told| told["text"].to_string().contains(commit)).cloned();
        let told = until("the alert", newest);
        assert_eq!(told["current"], true, "{told}");
        told["text"].as_str().unwrap().to_owned()
    };
    let shows = |label: &str, text: &str| {
        let shown = served.ok(&["branch", "show"]).out;
        assert!(shown.contains("\nalerts\n") && shown.contains(text) && shown.contains(label), "{shown}");
    };
    let failed = land_with(&served, "1", ("state", "good\n"));
    let text = told(&failed);
    let again = "`towpath deploy start live --branch main` deploys there again";
    assert!(text.contains("did not pass: `ship`; `towpath runs main/") && text.ends_with(again), "{text}");
    shows("deploy failed", &text);
    let failed = land_with(&served, "2", ("state", "fine\n"));
    let text = told(&failed);
    let again = "`towpath branch run main --job docs` runs that job again";
    assert!(text.contains("did not pass: `docs`; `towpath runs main/") && text.ends_with(again), "{text}");
    shows("landed run failed", &text);

    land_with(&served, "3", ("state", "good fine\n"));
    let mended = |branch: &Value| branch["deploy"]["failed_run"].is_null();
    let after = until("a run that passes", || Some(branch()).filter(mended));
    let alerts = after["alerts"].as_array().unwrap();
    assert_eq!(alerts.iter().map(|alert| &alert["current"]).collect::<Vec<_>>(), [false, false], "{after}");
    assert_eq!(alerts[0]["text"], text.as_str(), "{after}");
    let shown = served.ok(&["branch", "show"]).out;
    assert!(
        !shown.contains("alerts") && !shown.contains("deploy failed") && !shown.contains("run failed"),
        "{shown}"
    );
}

#[test]
fn a_landing_deploys_and_a_person_goes_back_to_what_landed_before() {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n  \
        ship: { on: [land], environment: staging, run: 'env | grep ^TOWPATH_ | sort' }\n  \
        smoke: { on: [land], needs: [ship], run: 'echo $TOWPATH_DEPLOYMENT of $TOWPATH_ENVIRONMENT' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    assert_eq!(served.ok(&["deploy", "list"]).out, "");
    assert_eq!(served.world.towpath(&["deploy", "show", "staging"]).code, 3);
    let first = land(&served, "1", "one");
    let made = deployment(&served, "staging", is_over);
    assert_eq!((&made["outcome"], &made["commit"]), (&"passed".into(), &first.as_str().into()), "{made}");
    assert_eq!((&made["job"], &made["by"], &made["deployment"]), (&"ship".into(), &Value::Null, &1.into()));
    assert!(made["why"].as_str().unwrap().starts_with("landing of "), "{made}");
    let run = made["run"].as_str().unwrap().strip_prefix("web/").unwrap().to_owned();
    let log = served.ok(&["log", &run, "ship", "--follow"]).out;
    for line in
        [format!("TOWPATH_COMMIT={first}"), "TOWPATH_COMMIT_BEFORE=".into(), "TOWPATH_DEPLOYMENT=1".into()]
    {
        assert!(log.lines().any(|found| found == line), "{log}");
    }
    let smoked = || Some(served.world.towpath(&["log", &run, "smoke"]).out).filter(|log| !log.is_empty());
    assert_eq!(until("the job after the deployment", smoked), "1 of staging\n");

    let second = land(&served, "2", "two");
    deployment(&served, "staging", |newest| newest["commit"] == second.as_str() && is_over(newest));
    served.ok(&["branch", "freeze", "--why", "the second one is bad"]);
    let said = served.ok(&["deploy", "start", "staging", "--commit", &first]).out;
    assert!(said.starts_with(&format!("deploys {first} to staging in run web/main/")), "{said}");
    let back = deployment(&served, "staging", |newest| newest["deployment"] == 3 && is_over(newest));
    assert_eq!((&back["commit"], &back["by"]), (&first.as_str().into(), &"ann".into()), "{back}");
    let list = served.record(&["deploy", "list"]);
    assert_eq!(
        (&list["environment"], &list["current"]["commit"]),
        (&"staging".into(), &first.as_str().into())
    );
    let audit = served.ok(&["audit", "show", "--json"]).out;
    assert!(audit.contains("deployment_started") && audit.contains("deployment_ended"), "{audit}");

    let refused = |arguments: &[&str]| served.world.towpath(&[&["deploy", "start"], arguments].concat());
    let unborn = "1".repeat(40);
    assert_eq!(refused(&["staging", "--commit", &unborn]).code, 3);
    for (named, said) in
        [("nope", "is no branch or tag of `web`"), ("0000000", "no change landed on `main` as")]
    {
        let refused = refused(&["staging", "--commit", named]);
        assert!(refused.code == 3 && refused.err.contains(said), "{}", refused.err);
    }
    served.world.git(&["push", "--quiet", "towpath", &format!("{first}:refs/tags/v1")]);
    for (named, commit) in [(&first[..7], &first), ("v1", &first), ("main", &second)] {
        let said = served.ok(&["deploy", "start", "staging", "--commit", named]).out;
        assert!(said.starts_with(&format!("deploys {commit} to staging")), "{named}: {said}");
    }
    assert_eq!(refused(&["nowhere"]).code, 3);
    served.ok(&["user", "add", "bob"]);
    served.ok(&["repo", "grant", "bob", "author"]);
    // An author pushes branches that are named like the beginnings of ids, of a landed commit and of one that is not.
    let (short, unlanded) = (&second[..8], "abcdef12");
    for name in [short, unlanded] {
        served.world.git(&["push", "--quiet", "towpath", &format!("{first}:refs/heads/{name}")]);
    }
    assert_eq!(refused(&["staging", "--commit", unlanded]).code, 3);
    for (named, commit) in [(short, &second), (&second, &second), (&format!("refs/heads/{short}"), &first)] {
        let said = served.ok(&["deploy", "start", "staging", "--commit", named]).out;
        assert!(said.starts_with(&format!("deploys {commit} to staging")), "{said}");
    }
    assert_eq!(served.as_user("bob", &["deploy", "start", "staging"]).code, 4);
    assert_eq!(served.as_user("bob", &["deploy", "self", "staging"]).code, 4);
    assert_eq!(served.as_user("bob", &["deploy", "list"]).code, 0);
}

#[test]
fn a_deployment_goes_on_while_no_server_runs_and_is_tried_no_second_time() {
    let files = |go: &str| {
        format!(
            "jobs:\n  unit: {{ run: 'true' }}\n  ship:\n    on: [land]\n    environment: live\n    \
             run: 'echo began; until [ -e {go} ]; do sleep 0.1; done; echo ended'\n"
        )
    };
    let mut served = Served::with_options(&[("towpath.yaml", "jobs: { unit: 'true' }\n")], &PLAIN, &[]);
    let go = gate_of(&served, "go");
    served.world.write("towpath.yaml", &files(&go.display().to_string()));
    let landed = land(&served, "1", "one");
    let begun = deployment(&served, "live", |newest| newest["outcome"].is_null());
    let run = begun["run"].as_str().unwrap().strip_prefix("web/").unwrap().to_owned();
    until("the job prints", || {
        Some(()).filter(|()| served.world.towpath(&["log", &run, "ship"]).out == "began\n")
    });
    served.server.kill().unwrap();
    served.server.wait().unwrap();
    served.again();
    assert_eq!(deployment(&served, "live", |_| true)["outcome"], Value::Null);
    std::fs::write(&go, "").unwrap();
    let over = deployment(&served, "live", is_over);
    assert_eq!((&over["outcome"], &over["commit"]), (&"passed".into(), &landed.as_str().into()), "{over}");
    assert_eq!(served.ok(&["log", &run, "ship"]).out, "began\nended\n");

    // The executor dies with its job: who knows how far the deployment was?
    std::fs::remove_file(&go).unwrap();
    land(&served, "2", "two");
    let begun = deployment(&served, "live", |newest| newest["deployment"] == 2);
    let run = begun["run"].as_str().unwrap().strip_prefix("web/").unwrap().to_owned();
    until("the job prints", || {
        Some(()).filter(|()| served.world.towpath(&["log", &run, "ship"]).out == "began\n")
    });
    let executor =
        servants(served.world.folder()).into_iter().find(|process| process.words[1] == "executor").unwrap();
    assert!(Command::new("kill").args(["-KILL", &executor.pid]).status().unwrap().success());
    let over = deployment(&served, "live", is_over);
    assert_eq!((&over["outcome"], &over["deployment"]), (&"errored".into(), &2.into()), "{over}");
    let shown = served.record(&["deploy", "list"]);
    assert_eq!((&shown["current"]["deployment"], &shown["newest"]["deployment"]), (&1.into(), &2.into()));
}

/// This program without what only a debugger needs: it is hashed and copied several times.
pub fn program(served: &Served) -> PathBuf {
    let path = gate_of(served, "program");
    let stripped = Command::new("strip").arg("-o").arg(&path).arg(TOWPATH).status();
    if !stripped.is_ok_and(|status| status.success()) {
        std::fs::copy(TOWPATH, &path).unwrap();
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

pub fn executable(pid: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn a_landing_replaces_the_server_while_jobs_go_on() {
    let at_first = "jobs:\n  unit: 'true'\n  ship: { run: 'true', on: [manual], environment: live }\n  \
                    move: { run: 'true', on: [manual], environment: other }\n";
    let mut served = Served::with_options(&[("towpath.yaml", at_first)], &PLAIN, &[]);
    let (go, program) = (gate_of(&served, "go"), program(&served));
    let pipeline = format!(
        "jobs:\n  unit: {{ run: 'true' }}\n  slow:\n    on: [manual]\n    \
         run: 'echo began; until [ -e {} ]; do sleep 0.1; done; echo ended'\n  ship:\n    on: [land]\n    \
         environment: live\n    run: 'cp {} towpath && cat marker >> towpath'\n    outputs: {{ towpath: towpath }}\n",
        go.display(),
        program.display()
    );
    served.ok(&["deploy", "self", "live"]);
    assert_eq!(served.world.towpath(&["deploy", "self", "other"]).code, 5);
    // The first landing brings the pipeline, a job that outlives the server begins, and the next one the program.
    served.world.write("towpath.yaml", &pipeline);
    served.world.write("marker", "one");
    let before = executable(served.server.id());
    land(&served, "1", "one");
    let first = deployment(&served, "live", is_over);
    assert_eq!(first["outcome"], "passed", "{first}");
    // Nothing of that went wrong, and the log says so.
    assert!(served.has_said("goes on: the server gives way to it") && !served.has_said("failed: the server"));
    let pid = served.server.id();
    let serves = executable(pid);
    assert!(
        serves != before && serves.starts_with(served.world.home().join("data/server/programs")),
        "{serves:?}"
    );
    let shown = served.record(&["deploy", "list"]);
    assert_eq!((&shown["is_self"], &shown["waiting"]), (&true.into(), &0.into()));
    let digest = serves.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(shown["serving"]["digest"], digest.as_str());

    served.run_job("slow");
    let slow = until("the slow job begins", || {
        let runs = served.world.records(&["runs"]);
        let run = runs.iter().find(|run| run["trigger"] == "manual")?["run"].as_str()?.to_owned();
        let run = run.strip_prefix("web/")?.to_owned();
        (served.world.towpath(&["log", &run, "slow"]).out == "began\n").then_some(run)
    });
    served.world.write("marker", "two");
    land(&served, "2", "two");
    let second = deployment(&served, "live", |newest| newest["deployment"] == 2 && is_over(newest));
    assert_eq!(second["outcome"], "passed", "{second}");
    assert_eq!(served.server.try_wait().unwrap(), None);
    let serves = executable(pid);
    assert_ne!(serves.file_name().unwrap().to_str().unwrap(), digest);
    assert!(
        std::fs::read(&serves).unwrap().ends_with(b"onetwo")
            || std::fs::read(&serves).unwrap().ends_with(b"two")
    );
    std::fs::write(&go, "").unwrap();
    let log = || Some(served.world.towpath(&["log", &slow, "slow"]).out).filter(|log| log.contains("ended"));
    assert_eq!(until("the slow job ends", log), "began\nended\n");
    let run = until("the slow run ends", || {
        let runs = served.world.records(&["runs"]);
        runs.into_iter().find(|run| run["trigger"] == "manual" && !run["outcome"].is_null())
    });
    assert_eq!(run["outcome"], "passed");
    let data = served.world.home().join("data").display().to_string();
    assert_eq!(served.ok(&["audit", "verify", "--data", &data]).code, 0);

    // Whoever starts the installed program gets the deployed one.
    served.server.kill().unwrap();
    served.server.wait().unwrap();
    served.again();
    assert_eq!(executable(served.server.id()), serves);
}

/// A program that says it is one of ours, and does not serve.
pub fn impostor(serve: &str) -> String {
    let version = Command::new(TOWPATH).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{}'; else {serve}; fi\n", version.trim())
}

fn check_that_the_server_goes_on(serve: &str, expected: &str) {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n  ship:\n    on: [land]\n    environment: live\n    \
        run: 'cp program towpath; chmod +x towpath'\n    outputs: { towpath: towpath }\n";
    let files = [("towpath.yaml", pipeline), ("program", &*impostor(serve))];
    let variables = [("TOWPATH_TRIAL_MS", "10000")];
    let served = Served::with_options(&files, &PLAIN, &variables);
    served.ok(&["deploy", "self", "live"]);
    land(&served, "1", "one");
    let failed = deployment(&served, "live", is_over);
    assert_eq!(failed["outcome"], "failed", "{failed}");
    assert!(failed["why"].as_str().unwrap().contains(expected), "{failed}");
    let shown = served.record(&["deploy", "list"]);
    assert_eq!(shown["current"], Value::Null);
    // The next landing works as before, and the next start is of the installed program.
    served.ok(&["deploy", "self", "live", "--off"]);
    land(&served, "2", "two");
    assert_eq!(
        deployment(&served, "live", |newest| newest["deployment"] == 2 && is_over(newest))["outcome"],
        "passed"
    );
    let data = served.world.home().join("data");
    assert!(!data.join("server/serving.json").exists() && !data.join("server/trial.json").exists());
}

#[test]
fn a_program_that_dies_at_its_start_does_not_end_the_server() {
    check_that_the_server_goes_on("exit 1", "it ended before it served");
}

#[test]
fn a_program_that_does_not_come_up_does_not_end_the_server() {
    check_that_the_server_goes_on("exec sleep 600", "it did not serve within 10 s");
}

#[test]
fn a_program_that_is_none_of_ours_is_not_tried() {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n  ship:\n    on: [land]\n    environment: live\n    \
        run: 'cp /bin/true towpath'\n    outputs: { towpath: towpath }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    served.ok(&["deploy", "self", "live"]);
    land(&served, "1", "one");
    let failed = deployment(&served, "live", is_over);
    assert!(failed["why"].as_str().unwrap().contains("it is no Towpath"), "{failed}");
    assert!(executable(served.server.id()).ends_with("towpath"));
}
