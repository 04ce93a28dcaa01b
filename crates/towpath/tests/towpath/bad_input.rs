//! Bad input at the whole program: a clear error, the exit code that is documented, nothing lost, nobody else disturbed.
//!
//! What attacks with the same input stands beside the other attacks: truncated packs (B12), names of refs (B06), a log line
//! of 64 MB (E05); a full disk (E11) and a second server (H11) stand with the record.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::served::{Served, stop, until_landed};
use crate::support::{TOWPATH, ended, has_sandbox, wait_until};

/// Where jobs wait for files of the test: what is under test is the server.
const PLAIN: [&str; 2] = ["--sandbox", "none"];
const PIPELINE: &str = "jobs:\n  unit: { run: 'true' }\n";

/// Broken pipeline files: a name, the file, and what has to be said of it, with its place.
fn broken_files() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let many = (0..10).map(|at| format!("a{at}: &a{at} [{}]\n", format!("*a{}, ", at - 1).repeat(10)));
    let bomb = format!("a: &a0 [x, x]\n{}", many.skip(1).collect::<String>());
    let jobs = (0..=10_000).map(|at| format!("  j{at}: 'true'\n"));
    let huge = format!("jobs:\n{}", jobs.collect::<String>());
    vec![
        (
            "unknown-key",
            "jobs:\n  unit: { run: 'true', timout: 5m }\n  lint: { run: x, timeout: [5] }\n".into(),
            vec!["towpath.yaml:2:24: jobs.unit: unknown key `timout`", "towpath.yaml:3:28: "],
        ),
        (
            "circle",
            "jobs:\n  a: { run: 'true', needs: [b] }\n  b: { run: 'true', needs: [a] }\n".into(),
            vec!["towpath.yaml:2:"],
        ),
        ("bomb", bomb, vec!["towpath.yaml:"]),
        ("huge", huge, vec!["towpath.yaml:", "at most 10000 jobs"]),
        ("tab", "jobs:\n\tunit: { run: 'true' }\n".into(), vec!["towpath.yaml:2:1: a tab indents this line"]),
        ("wrong-type", "jobs: [unit]\n".into(), vec!["towpath.yaml:1:7: "]),
    ]
}

/// Whether a line begins with the place of an error.
fn has_place(line: &str) -> bool {
    let mut parts = line.split(':');
    let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok_and(|at| at > 0));
    parts.next() == Some("towpath.yaml") && number(parts.next()) && number(parts.next())
}

#[test]
fn broken_pipeline_files_are_said_on_their_changes_and_disturb_nobody() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let files = broken_files();
    for (name, file, _) in &files {
        let told = served.push(name, "towpath.yaml", file);
        assert!(told.contains("remote: change "), "{told}");
    }
    served.push("good", "new", "x\n");
    let good = (files.len() + 1).to_string();
    until_landed(&served.world, &good);
    for (at, (name, file, expected)) in files.iter().enumerate() {
        let number = (at + 1).to_string();
        let change = served.until(&number, |change| {
            change["gate"]["reasons"][0]["reason"] == "bad_definition"
                && change["checks"][0]["verdict"] == "failure"
        });
        let reason = &change["gate"]["reasons"][0];
        let details: Vec<&str> =
            reason["details"].as_array().unwrap().iter().map(|detail| detail.as_str().unwrap()).collect();
        for expected in expected {
            let is_said = details.iter().any(|detail| detail.contains(expected));
            assert!(is_said, "{name}: {expected} is not in {details:#?}");
        }
        assert!(details.iter().all(|detail| has_place(detail)), "{name}: {details:#?}");
        // The check that is shown on the change says the same, and so does the person's own command.
        let check = change["checks"][0]["text"].as_str().unwrap();
        assert!(details.iter().all(|detail| check.contains(detail)), "{name}: {check}");
        let why = served.ok(&["change", "why", &number]).out;
        let below: Vec<&str> = why.lines().filter_map(|line| line.strip_prefix("  towpath.yaml:")).collect();
        assert_eq!(below.len(), details.len(), "{name}: an error a line: {why}");
        assert!(why.contains("  hint: mend towpath.yaml"), "{why}");
        served.world.write("towpath.yaml", file);
        let checked = served.world.towpath(&["config", "check"]);
        assert_eq!(checked.code, 2, "{name}: {}", checked.err);
        let records = served.world.records(&["config", "check"]);
        assert_eq!(records.len(), details.len() + 1, "{name}: {records:?}");
        served.world.git(&["checkout", "--quiet", "."]);
    }
    assert_eq!(served.record(&["branch", "list"])["frozen"], false);
}

/// A named pipe for which jobs wait.
fn pipe() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("gate");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    (folder, path)
}

#[test]
fn the_result_of_a_run_whose_revision_was_replaced_counts_for_nothing() {
    let (_folder, gate) = pipe();
    // The first revision would pass, the second fails.
    let job = format!(
        "jobs:\n  unit: {{ run: 'if test -e bad; then exit 3; fi; echo waits; read line < {}' }}\n",
        gate.display()
    );
    let mut served = Served::with_options(&[("towpath.yaml", &job)], &PLAIN, &[]);
    served.push("feature", "new", "x\n");
    wait_until("run of the first revision", || served.world.towpath(&["log", "1"]).out.contains("waits"));
    let before = served.world.git(&["ls-remote", "towpath", "refs/heads/main"]);
    let old = served.record(&["change", "show", "1"])["revision"].clone();
    served.world.write("bad", "x\n");
    served.world.git(&["add", "--all"]);
    served.world.git(&["commit", "--quiet", "--amend", "--message", "feature: another try"]);
    let mut push = served.world.command("git");
    let push = push.args(["push", "--force", "towpath", "feature", "-o", "change"]);
    let pushed = ended(push.output().unwrap());
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    let change = served.until("1", |change| change["gate"]["tests"] == "failed");
    assert_ne!(change["revision"], old);
    wait_until("end of the first run", || !served.record(&["runs", "1"])["outcome"].is_null());
    let first = served.record(&["runs", "1"]);
    assert_eq!((&first["revision"], &first["outcome"]), (&old, &Value::from("cancelled")), "{first}");
    // Nor does it count for a server that starts over.
    stop(&mut served.server, &served.world);
    served.again();
    let again = served.until("1", |change| change["gate"]["tests"] == "failed");
    assert_eq!((&again["state"], &again["revision"]), (&Value::from("open"), &change["revision"]));
    assert_eq!(served.world.git(&["ls-remote", "towpath", "refs/heads/main"]), before);
}

#[test]
fn a_wrong_or_missing_token_is_refused_by_every_face() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let clone_url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let base = clone_url.strip_suffix("/web.git").unwrap();
    let wrong = "malformed, unknown, revoked or over";
    for (token, said) in [(Some("twp_0123"), wrong), (Some("half"), wrong), (None, "nobody is logged in")] {
        let mut command = served.world.command(TOWPATH);
        command.env("TOWPATH_URL", base).env("HOME", served.world.folder().join("nobody"));
        command.envs(token.map(|token| ("TOWPATH_TOKEN", token)));
        let refused = ended(command.args(["change", "list"]).output().unwrap());
        assert_eq!(refused.code, 4, "{}", refused.err);
        assert!(refused.err.contains(said) && refused.err.contains("hint: "), "{}", refused.err);
    }
    let main = served.world.git(&["rev-parse", "main"]);
    // A clone of somebody else's, which knows no token.
    let stranger = served.world.folder().join("stranger");
    let git = |folder: &Path| {
        let mut command = served.world.command("git");
        command.current_dir(folder).env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
    };
    let from = served.world.work().display().to_string();
    let cloned = git(served.world.folder()).args(["clone", "--quiet", &from, "stranger"]).status().unwrap();
    assert!(cloned.success());
    for header in
        [None, Some("Authorization: Bearer twp_0123"), Some("Authorization: Basic bm90OmF0b2tlbg==")]
    {
        let mut push = git(&stranger);
        push.args(header.iter().flat_map(|header| ["-c".to_owned(), format!("http.extraHeader={header}")]));
        let refused = ended(push.args(["push", &clone_url, "HEAD:refs/heads/stolen"]).output().unwrap());
        assert_ne!(refused.code, 0, "{header:?}: {}", refused.err);
        let said = ["could not read Username", "Authentication failed", "401"];
        assert!(said.iter().any(|said| refused.err.contains(said)), "{header:?}: {}", refused.err);
    }
    let refs = served.world.git(&["ls-remote", "towpath", "refs/heads/*"]);
    assert_eq!(refs, format!("{}\trefs/heads/main\n", main.trim()));
}

#[test]
fn binary_output_is_kept_and_shown_as_text() {
    if !has_sandbox("binary_output_is_kept_and_shown_as_text") {
        return;
    }
    let script = "jobs:\n  unit:\n    run: |\n      i=0; while test $i -lt 256; do printf \"\\\\$(printf %o $i)\"; i=$((i + 1)); \
                  done\n      head -c 1000000 /dev/urandom\n      printf '\\nthe end'\n";
    let served = Served::with(&[("towpath.yaml", script)]);
    served.push("feature", "new", "x\n");
    until_landed(&served.world, "1");
    for arguments in [&["log", "1"][..], &["log", "1", "--follow"], &["log", "1", "--json"]] {
        let shown = served.ok(arguments);
        let drives = |c: char| !matches!(c, '\n' | '\t') && towpath_core::ids::is_unprintable(c);
        assert!(!shown.out.contains(drives), "{arguments:?}");
        assert!(shown.out.len() > 1_000_000 && shown.out.contains("the end"), "{arguments:?}");
    }
    let end = served.ok(&["log", "1", "--tail", "1"]).out;
    assert_eq!(end.trim_end(), "the end");
}

#[test]
fn a_fork_bomb_fails_and_another_change_lands() {
    if !has_sandbox("a_fork_bomb_fails_and_another_change_lands") {
        return;
    }
    let pipeline = "jobs:\n  unit: { run: 'if test -e bomb; then sh bomb; fi', timeout: 1m }\n";
    // Far below what a job may have by itself: where these tests are a job, all of the bomb counts for that one, too.
    let options = ["--job-limit", "processes=256"];
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &options, &[]);
    served.push("bomb", "bomb", "b() { b | b & }\nwhile :; do b; done 2> /dev/null\n");
    served.push("good", "new", "x\n");
    until_landed(&served.world, "2");
    let change = served.until("1", |change| {
        !matches!(change["gate"]["tests"].as_str(), Some("running" | "untested") | None)
    });
    assert_eq!((&change["state"], &change["gate"]["tests"]), (&Value::from("open"), &Value::from("failed")));
    let run = change["gate"]["run"].as_str().unwrap();
    let job = served.record(&["runs", run])["jobs"][0].clone();
    let why = job["why"].as_str().unwrap();
    // Where no group counts refused forks, the shell says so by its own exit code.
    assert!(why == "ended at its limit of 256 processes" || why.starts_with("exit code 2"), "{job}");
}

#[test]
fn an_older_program_leaves_newer_data_alone() {
    let mut served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    served.push("feature", "new", "x\n");
    until_landed(&served.world, "1");
    stop(&mut served.server, &served.world);
    let data = served.world.home().join("data");
    let sql = |script: &str| {
        let program =
            format!("import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); {script}; c.commit(); c.close()");
        Command::new("/usr/bin/python3").args(["-c", &program]).arg(data.join("towpath.db")).status()
    };
    let newer = "c.execute(\"INSERT INTO schema_steps SELECT max(step) + 1, 'x', 0 FROM schema_steps\")";
    if !Path::new("/usr/bin/python3").exists() {
        println!("SKIP an_older_program_leaves_newer_data_alone: no python3 is here");
        return;
    }
    assert!(sql(newer).unwrap().success());
    let before = std::fs::read(data.join("towpath.db")).unwrap();
    let [shown, saved] = [&data, &served.world.home().join("saved")].map(|path| path.display().to_string());
    let mut command = served.world.command(TOWPATH);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let refused = ended(command.output().unwrap());
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("went on with it; install that one"), "{}", refused.err);
    let make = served.world.towpath(&["backup", "make", &saved, "--data", &shown]);
    assert!(make.code == 5 && make.err.contains("install that one"), "{}", make.err);
    assert!(!Path::new(&saved).exists());
    let doctor = served.world.towpath(&["doctor", "--quick", "--data", &shown]);
    assert!(doctor.code == 2 && doctor.out.contains("install that one"), "{}", doctor.out);
    assert!(std::fs::read(data.join("towpath.db")).unwrap() == before, "not a byte was changed");
    assert!(sql("c.execute('DELETE FROM schema_steps WHERE digest = \\'x\\'')").unwrap().success());
    // A backup by the newer program, as far as this one can tell.
    served.ok(&["backup", "make", &saved, "--data", &shown]);
    let step = format!("c.close(); c=sqlite3.connect('{saved}/towpath.db'); {newer}");
    assert!(sql(&step).unwrap().success());
    let other = served.world.home().join("other").display().to_string();
    let restore = served.world.towpath(&["backup", "restore", &saved, "--data", &other]);
    assert!(restore.code == 5 && restore.err.contains("install that one"), "{}", restore.err);
    assert!(!Path::new(&other).exists());
    served.again();
    assert_eq!(served.record(&["change", "show", "1"])["state"], "landed");
    served.ok(&["audit", "verify", "--data", &data.display().to_string()]);
}

#[test]
fn sigterm_drains_and_loses_nothing() {
    let (_folder, gate) = pipe();
    let job = format!("jobs:\n  unit: {{ run: 'echo waits; read line < {}; echo $line' }}\n", gate.display());
    let mut served = Served::with_options(&[("towpath.yaml", &job)], &PLAIN, &[]);
    served.push("feature", "new", "x\n");
    wait_until("running job", || served.world.towpath(&["log", "1"]).out.contains("waits"));
    // One who follows a log is let go, and hears the rest from the server that comes next.
    let mut follow = served.world.command(TOWPATH);
    let mut follow =
        follow.args(["log", "1", "--follow"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = [0; 5];
    follow.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"waits");
    let pid = served.server.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut ended_with = None;
    wait_until("end of the server", || {
        ended_with = served.server.try_wait().unwrap();
        ended_with.is_some()
    });
    assert_eq!(ended_with.unwrap().code(), Some(0), "a server that was told to end has done what it should");
    assert_eq!(served.world.towpath(&["change", "list"]).code, 7, "nobody answers");
    // The job lived on, and ends while no server is there.
    std::fs::OpenOptions::new().write(true).open(&gate).unwrap().write_all(b"go\n").unwrap();
    served.again();
    let followed = ended(follow.wait_with_output().unwrap());
    assert_eq!((followed.code, followed.out.as_str()), (0, "\ngo\n"), "{}", followed.err);
    until_landed(&served.world, "1");
    let run = served.record(&["runs", "1"]);
    let attempts = run["jobs"][0]["attempts"].as_array().unwrap().len();
    assert_eq!((&run["outcome"], attempts), (&Value::from("passed"), 1), "{run}");
    served.ok(&["audit", "verify", "--data", &served.world.home().join("data").display().to_string()]);
}
