//! `towpath run`: the pipeline on a work tree, boxed in, leaving nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::expect;

use crate::support::{TOWPATH, World, ended, has_sandbox, processes_of};

#[test]
fn jobs_see_uncommitted_files_and_what_they_need() {
    if !has_sandbox("jobs_see_uncommitted_files_and_what_they_need") {
        return;
    }
    let world = World::with(&[
        (
            "towpath.yaml",
            "jobs:\n  make: { run: cat a new > out, outputs: { out: out } }\n  \
             use: { run: 'cat $TOWPATH_INPUTS/make/out; test ! -e ignored', needs: [make] }\n",
        ),
        ("a", "old\n"),
        (".gitignore", "ignored\n"),
    ]);
    world.write("a", "changed\n");
    world.write("new", "fresh\n");
    world.write("ignored", "x\n");
    expect![[r#"
        --- log of make (passed: exit code 0)
        --- end of make (passed: exit code 0)
        --- log of use (passed: exit code 0)
        changed
        fresh
        --- end of use (passed: exit code 0)
        started    make
        passed     make  TIME
        started    use
        passed     use   TIME
        passed: 2 jobs passed, in TIME
        exit 0
    "#]]
    .assert_eq(&world.towpath(&["run", "--logs"]).shown());
    assert_eq!(left_behind(&world), Vec::<String>::new());
}

#[test]
fn outputs_lie_below_their_job_as_below_the_folder_that_their_pattern_names() {
    if !has_sandbox("outputs_lie_below_their_job_as_below_the_folder_that_their_pattern_names") {
        return;
    }
    // The guide's example, with files in the place of wheels.
    let world = World::with(&[(
        "towpath.yaml",
        "jobs:
  wheel: { run: 'mkdir -p dist/more; echo wheel > dist/a-1.whl; touch dist/a.txt', outputs: { wheel: dist/*.whl } }
  tools:
    run: 'mkdir -p out/deb/x; echo deb > out/deb/x/b.deb; echo log > out/make.log'
    outputs: { packages: 'out/**/*.deb', log: out/make.log }
  unit:
    needs: [wheel, tools]
    run: |
      cat \"$TOWPATH_INPUTS\"/wheel/*.whl
      cd \"$TOWPATH_INPUTS\" && find . -type f | sort
",
    )]);
    let shown = world.towpath(&["run", "--logs"]).shown();
    let log = shown.split("--- log of unit").nth(1).and_then(|rest| rest.split("--- end").next());
    expect![[r#"
         (passed: exit code 0)
        wheel
        ./tools/log/make.log
        ./tools/packages/deb/x/b.deb
        ./wheel/a-1.whl
    "#]]
    .assert_eq(log.unwrap_or(&shown));
}

#[test]
fn a_failing_required_job_shows_its_log_and_fails_the_run() {
    if !has_sandbox("a_failing_required_job_shows_its_log_and_fails_the_run") {
        return;
    }
    let world = World::with(&[(
        "towpath.yaml",
        "jobs:\n  bad: { run: 'printf \"\\033[31mred\\033[0m \\033]52;c;eA==\\007\\n\"; exit 3' }\n  \
         after: { run: 'true', needs: [bad] }\n  \
         optional: { run: exit 1, required: false, needs: [bad] }\n",
    )]);
    expect![[r#"
        --- log of bad (failed: exit code 3)
        red \x1b]52;c;eA==\x07
        --- end of bad (failed: exit code 3)
        started    bad
        failed     bad       TIME  exit code 3
        skipped    after     it needs `bad`, which did not pass
        skipped    optional  it needs `bad`, which did not pass
        failed: 0 jobs passed, 1 failed, 1 not run, in TIME
        exit 1
    "#]]
    .assert_eq(&world.towpath(&["run"]).shown());
    let records = world.records(&["run"]);
    let shown: Vec<_> = records.iter().map(|job| (job["job"].as_str(), job["outcome"].as_str())).collect();
    let expected = [("bad", "failed"), ("after", "skipped"), ("optional", "skipped")];
    assert_eq!(shown, expected.map(|(job, outcome)| (Some(job), Some(outcome))));
    assert!(records[0]["log"].as_str().unwrap().contains("red"));
}

#[test]
fn objects_of_jobs_have_the_logs_that_people_are_shown() {
    let world = World::with(&[(
        "towpath.yaml",
        "jobs:\n  good: { run: echo fine }\n  bad: { run: echo broken; false }\n",
    )]);
    let logs = |options: &[&str]| {
        let records = world.records(&[&["run", "--sandbox", "none", "--slots", "1"], options].concat());
        records.iter().map(|job| job["log"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let told = |text: &str| Some(text.to_owned());
    assert_eq!(logs(&[]), [None, told("broken\n")]);
    assert_eq!(logs(&["--logs"]), [told("fine\n"), told("broken\n")]);
}

#[test]
fn an_optional_job_fails_only_a_run_that_asked_for_it() {
    if !has_sandbox("an_optional_job_fails_only_a_run_that_asked_for_it") {
        return;
    }
    let world = World::with(&[(
        "towpath.yaml",
        "jobs:\n  maybe: { run: exit 1, required: false }\n  ok: { run: 'true' }\n",
    )]);
    let all = world.towpath(&["run"]);
    assert!(all.code == 0 && all.err.contains("passed: 1 job passed, 1 advisory failed, in "), "{}", all.err);
    let named = world.towpath(&["run", "maybe"]);
    assert!(named.code == 1 && named.err.contains("failed: 0 jobs passed, 1 failed, in "), "{}", named.err);
}

#[test]
fn before_the_first_commit_a_job_that_sees_history_is_told_that_there_is_none() {
    let world = World::with(&[("towpath.yaml", "jobs:\n  log: { run: git log, history: true }\n")]);
    world.git(&["update-ref", "-d", "HEAD"]);
    let ended = world.towpath(&["run", "--sandbox", "none"]);
    assert!(ended.code == 1 && ended.err.contains("note: there is no commit yet"), "{}", ended.err);
}

#[test]
fn failed_tests_are_named_from_their_report() {
    if !has_sandbox("failed_tests_are_named_from_their_report") {
        return;
    }
    let report = "<testsuite><testcase classname=\"math\" name=\"adds\"><failure message=\"1 + 1 is 3\"/></testcase>\
                  <testcase classname=\"math\" name=\"subtracts\"/></testsuite>";
    let world = World::with(&[
        ("report.xml", report),
        (
            "towpath.yaml",
            "jobs:\n  unit: { run: 'cp report.xml junit.xml; exit 1', reports: { junit: junit.xml } }\n",
        ),
    ]);
    let records = world.records(&["run"]);
    assert_eq!(records[0]["failed_tests"], serde_json::json!(["math::adds"]));
    let shown = world.towpath(&["run"]).err;
    assert!(shown.contains("failed tests: math::adds"), "{shown}");
}

#[test]
fn what_only_the_server_does_is_left_out_by_name() {
    let pipeline = "jobs:\n  ship: { run: 'touch /shipped', on: [land], environment: staging }\n  \
                    sign: { run: 'true', on: [land], secrets: [key] }\n";
    if !has_sandbox("what_only_the_server_does_is_left_out_by_name") {
        return;
    }
    let world = World::with(&[("towpath.yaml", pipeline)]);
    expect![[r#"
        skipped    ship  it deploys to `staging`, which only the server does
        skipped    sign  it asks for `key`, and only the server has secrets
        passed: 0 jobs passed, in TIME; 2 jobs only for the server
        exit 0
    "#]]
    .assert_eq(&world.towpath(&["run", "--trigger", "land"]).shown());
    expect![[r#"
        error: job `ship` cannot run here
          why: it deploys to `staging`, which only the server does
         hint: leave it out: `towpath run` without names runs what a change and the queue start
        exit 2
    "#]]
    .assert_eq(&world.towpath(&["run", "ship"]).shown());
}

#[test]
fn a_path_that_did_not_change_skips_its_job() {
    if !has_sandbox("a_path_that_did_not_change_skips_its_job") {
        return;
    }
    let world = World::with(&[(
        "towpath.yaml",
        "jobs:\n  docs: { run: 'true', when: { paths: [docs/**] } }\n  code: { run: 'true', when: { paths: [src/**] } }\n",
    )]);
    world.write("src/a", "x");
    let records = world.records(&["run", "--changed-since", "main"]);
    let outcome =
        |at: usize| (records[at]["job"].as_str().unwrap(), records[at]["outcome"].as_str().unwrap());
    assert_eq!([outcome(0), outcome(1)], [("docs", "skipped"), ("code", "passed")]);
    assert_eq!(world.towpath(&["run", "--changed-since", "no-such-commit"]).code, 3);
}

#[test]
fn without_a_sandbox_every_result_is_marked() {
    let world = World::with(&[("towpath.yaml", "jobs:\n  unit: { run: 'true' }\n")]);
    expect![[r#"
        warning: jobs run without a sandbox, as you chose: they can do whatever you can
        started    unit
        passed     unit  TIME  [no sandbox]
        passed: 1 job passed, in TIME
        exit 0
    "#]]
    .assert_eq(&world.towpath(&["run", "--sandbox", "none"]).shown());
    assert_eq!(world.records(&["run", "--sandbox", "none"])[0]["unsandboxed"], true);
}

/// Waits for a line on the program's standard error, then sends a signal; every process of the run has to be gone.
fn interrupted(world: &World, signal: &str, arguments: &[&str]) {
    let mut command = world.command(TOWPATH);
    let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains("started")));
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.last().unwrap().contains("interrupted"), "{rest:?}");
    assert_eq!(processes_of(&world.home()), []);
    assert_eq!(left_behind(world), Vec::<String>::new());
}

#[test]
fn an_interrupt_ends_every_process_and_removes_every_file() {
    if !has_sandbox("an_interrupt_ends_every_process_and_removes_every_file") {
        return;
    }
    let world =
        World::with(&[("towpath.yaml", "jobs:\n  long: { run: 'sleep 600 & setsid sleep 600 & wait' }\n")]);
    interrupted(&world, "-INT", &["run"]);
    interrupted(&world, "-TERM", &["run"]);
    interrupted(&world, "-INT", &["run", "--sandbox", "none"]);
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next_one() {
    let world = World::with(&[("towpath.yaml", "jobs:\n  unit: { run: 'true' }\n")]);
    let left = world.home().join(".cache/towpath/run-left");
    std::fs::create_dir_all(left.join("base")).unwrap();
    assert_eq!(world.towpath(&["run", "--sandbox", "none"]).code, 0);
    assert!(!left.exists());
}

#[test]
fn doctor_tries_the_border_and_names_what_it_stands_on() {
    if !has_sandbox("doctor_tries_the_border_and_names_what_it_stands_on") {
        return;
    }
    let findings = World::with(&[]).records(&["doctor"]);
    let of = |check: &str| findings.iter().filter(|finding| finding["check"] == check).collect::<Vec<_>>();
    assert!(of("git")[0]["what"].as_str().unwrap().contains("git version 2."));
    assert!(of("sqlite")[0]["what"].as_str().unwrap().starts_with("3."));
    assert!(of("border").iter().all(|finding| finding["verdict"] != "broken"), "{findings:?}");
}

/// C17: the jobs of a hostile branch cannot reach the developer's `.git` or home.
pub fn a_hostile_branch_is_run(parent: &Path) {
    let world = World::below(parent, &[]);
    let (work, home) = (world.work(), world.home());
    let script = format!(
        "mkdir -p .git/hooks; echo x > .git/hooks/pre-commit; echo x >> ~/.bashrc; \
         for f in {0}/.git/hooks/pre-commit {0}/planted {1}/.bashrc; do (echo x > $f) || true; done",
        work.display(),
        home.display()
    );
    world.write("towpath.yaml", &format!("jobs:\n  bad: {{ run: '{script}' }}\n"));
    let ended = world.towpath(&["run"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    for path in [work.join(".git/hooks/pre-commit"), work.join("planted"), home.join(".bashrc")] {
        assert!(!path.exists(), "{}", path.display());
    }
    // The control: without a sandbox the same job reaches them.
    assert_eq!(world.towpath(&["run", "--sandbox", "none"]).code, 0);
    assert!(work.join("planted").exists());
}

/// D10: a job of `towpath run` cannot type into the terminal that it was called from.
pub fn jobs_type_nothing(parent: &Path) {
    let tools = ["script", "perl"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok());
    if !tools {
        println!("SKIP d10_tiocsti: it takes script and perl");
        return;
    }
    let inject = "perl -e 'open(my $t, \"+<\", \"/dev/tty\"); for my $f (0, 1, 2, fileno($t) // 0) { \
                  open(my $h, \"+<&=\", $f); for (split //, \"typed\\n\") { my $c = $_; ioctl($h, 0x5412, $c) } }'; true";
    let files = [("inject", inject), ("towpath.yaml", "jobs:\n  bad: { run: sh ./inject }\n")];
    let world = World::below(parent, &files);
    // What was typed into a terminal is what the next program reads from it.
    let typed = |run: &str| {
        let read = "perl -e '$SIG{ALRM} = sub { exit }; alarm 1; print \"READ:$_\" while <STDIN>'";
        let line = format!("{run} >/dev/null 2>&1; {read}");
        let mut script = world.command("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        // At the end of its input `script` ends the terminal's.
        let held = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(held);
        ended(output).out.contains("READ:typed")
    };
    if typed("sh ./inject") {
        assert!(!typed(&format!("{TOWPATH} run")));
    } else {
        println!("SKIP d10_tiocsti: this kernel lets nobody type by TIOCSTI");
    }
    a_job_does_not_paste(&world);
}

/// TIOCLINUX types on a console that no test has: so the call itself is refused (EPERM), which elsewhere only finds that
/// the descriptor is no console (ENOTTY).
fn a_job_does_not_paste(world: &World) {
    world.write(
        "inject",
        "perl -e 'my $paste = \"\\3\"; ioctl(STDIN, 0x541C, $paste); print \"errno \", $! + 0, \"\\n\"'\n",
    );
    let errno = |options: &[&str]| {
        let said = world.towpath(&[&["run", "--logs"], options].concat()).out;
        said.lines().find_map(|line| line.strip_prefix("errno ").map(str::to_owned)).unwrap_or(said)
    };
    assert_eq!(errno(&[]), "1");
    match errno(&["--sandbox", "none"]).as_str() {
        "25" => {}
        "1" => println!("SKIP d10_paste: here the call is refused to everybody, as in a sandbox of ours"),
        other => panic!("the control says {other}"),
    }
}

/// Folders of runs that are still there.
fn left_behind(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.home().join(".cache/towpath")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("run-")).collect()
}
