//! A job's life: start, environment, end.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use towpath_core::graph::Outcome;
use towpath_core::ids::Digest;
use towpath_executor::{ExecutorConfig, GrantedSecret, SandboxKind};

use crate::support::{World, helper, long_time, processes_with};

fn both(test: &str, check: impl Fn(&World, SandboxKind)) {
    if let Some(world) = World::sandboxed(test) {
        check(&world, SandboxKind::Bubblewrap);
    }
    check(&World::plain(), SandboxKind::None);
}

#[test]
fn a_job_passes_or_fails_by_its_exit_code() {
    both("a_job_passes_or_fails_by_its_exit_code", |world, kind| {
        let done = world.run("echo out; echo err >&2").passed();
        assert_eq!(done.log, "out\nerr\n");
        assert_eq!(done.end.result.unsandboxed, kind == SandboxKind::None);
        let done = world.run("exit 3").failed("exit code 3");
        assert_eq!(done.end.result.exit_code, Some(3));
        world.run("false; true").failed("exit code 1");
        world.run("true").passed();
    });
}

#[test]
fn a_job_may_open_its_output_by_name() {
    both("a_job_may_open_its_output_by_name", |world, _| {
        // Each slot's first and later ones.
        for user_namespaces in [false, true, false, true] {
            let mut spec =
                world.spec("echo out > /dev/stdout; echo err > /dev/stderr; echo both | tee /dev/stderr");
            spec.body.user_namespaces = user_namespaces;
            assert_eq!(world.run_spec(spec).passed().log, "out\nerr\nboth\nboth\n");
        }
    });
}

#[test]
fn a08_never_errored() {
    both("a08_never_errored", |world, _| {
        for script in [
            "kill -9 $$",
            "exit 125",
            "exit 126",
            "exit 127",
            "exit 255",
            "kill -SEGV $$",
            "/no/such/program",
            "nosuchprogram",
        ] {
            let done = world.run(script);
            assert_eq!(done.outcome(), Outcome::Failed, "{script}: {}\n{}", done.end.result.why, done.log);
        }
        assert_eq!(world.run("nosuchprogram").end.result.exit_code, Some(127));
    });
}

#[test]
fn the_environment_is_exactly_what_is_named() {
    both("the_environment_is_exactly_what_is_named", |world, _| {
        let mut spec = world.spec("/usr/bin/env");
        spec.run = Some("demo/main/12".parse().unwrap());
        spec.attempt = 2;
        spec.body.shard = Some((1, 4));
        spec.body.matrix = BTreeMap::from([("salt".to_owned(), "git".to_owned())]);
        spec.body.env = BTreeMap::from([
            ("MODE".to_owned(), "fast".to_owned()),
            ("TOWPATH_JOB".to_owned(), "forged".to_owned()),
        ]);
        spec.facts = BTreeMap::from([("CHANGE_TITLE".to_owned(), "\"; curl x #$(id)".to_owned())]);
        let done = world.run_spec(spec).passed();
        // By the host's toolchains; and bubblewrap sets `PWD`, as every shell does.
        let toolchains = ["RUSTUP_HOME", "PYENV_ROOT", "PWD"];
        let mut names: Vec<&str> =
            done.log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.retain(|name| !toolchains.contains(name));
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "CI",
                "HOME",
                "LANG",
                "MODE",
                "PATH",
                "TOWPATH",
                "TOWPATH_ATTEMPT",
                "TOWPATH_CHANGE_TITLE",
                "TOWPATH_JOB",
                "TOWPATH_MATRIX_SALT",
                "TOWPATH_RUN",
                "TOWPATH_SHARD",
                "TOWPATH_SHARDS",
                "USER",
            ]
        );
        assert!(done.log.contains("TOWPATH_JOB=unit\n"));
        assert!(done.log.contains("TOWPATH_RUN=demo/main/12\n"));
    });
}

#[test]
fn a28_title_into_shell() {
    both("a28_title_into_shell", |world, _| {
        let mut spec = world.spec("printf '%s\\n' \"$TOWPATH_CHANGE_TITLE\"");
        spec.facts = BTreeMap::from([("TOWPATH_CHANGE_TITLE".to_owned(), "\"; curl x #$(id)".to_owned())]);
        assert_eq!(world.run_spec(spec).passed().log, "\"; curl x #$(id)\n");
    });
}

#[test]
fn secrets_arrive_and_are_masked() {
    both("secrets_arrive_and_are_masked", |world, _| {
        let script = "cat \"$TOWPATH_SECRETS/file-secret\" | od -An -c | tr -d ' \\n'; echo; echo \"$TOKEN\"; \
                      printf %s \"$TOKEN\" | base64; cat /proc/*/cmdline | tr '\\0' ' '";
        let mut spec = world.spec(script);
        spec.secrets = vec![
            GrantedSecret {
                name: "file-secret".to_owned(),
                value: b"first\nsecond".to_vec().into(),
                variable: None,
            },
            GrantedSecret {
                name: "token".to_owned(),
                value: b"tok-canary-77".to_vec().into(),
                variable: Some("TOKEN".to_owned()),
            },
        ];
        let done = world.run_spec(spec).passed();
        assert!(done.log.starts_with("***\n***\n***"), "{}", done.log);
        assert!(!done.log.contains("tok-canary-77"));
    });
}

#[test]
fn secrets_are_in_memory_for_nobody_else_and_gone_with_the_job() {
    both("secrets_are_in_memory_for_nobody_else_and_gone_with_the_job", |world, kind| {
        let mut spec = world.spec(
            "cd \"$TOWPATH_SECRETS\"; pwd; stat -f -c %T .; stat -c %a . token; touch own || true; exit 1",
        );
        spec.secrets = vec![GrantedSecret {
            name: "token".into(),
            value: b"tok-canary-78".to_vec().into(),
            variable: None,
        }];
        let done = world.run_spec(spec).failed("exit code 1");
        let lines: Vec<&str> = done.log.lines().collect();
        assert_eq!(lines[1], "tmpfs", "{}", done.log);
        if kind == SandboxKind::None {
            assert_eq!(lines[2..4], ["700", "600"], "{}", done.log);
            assert!(!std::path::Path::new(lines[0]).exists(), "{}", lines[0]);
        }
    });
}

#[test]
fn a_long_script_runs_from_a_file() {
    both("a_long_script_runs_from_a_file", |world, _| {
        let script = format!("{}echo done\n", "echo 0123456789 > /dev/null\n".repeat(8_000));
        assert!(script.len() > 200_000);
        assert_eq!(world.run(&script).passed().log, "done\n");
    });
}

#[test]
fn a_timeout_ends_the_whole_tree() {
    both("a_timeout_ends_the_whole_tree", |world, _| {
        let time = long_time();
        let mut spec = world.spec(&format!("sleep {time} & sleep {time}"));
        spec.body.timeout_seconds = 1;
        let done = world.run_spec(spec);
        assert_eq!(done.outcome(), Outcome::TimedOut, "{}", done.log);
        assert_eq!(done.end.result.why, "ran into its timeout of 1 s");
        assert!(done.log.contains("[towpath] ran into its timeout of 1 s\n"));
        assert_eq!(processes_with(&time), Vec::<String>::new());
    });
}

#[test]
fn a_cancel_ends_what_waits_and_what_runs() {
    both("a_cancel_ends_what_waits_and_what_runs", |world, _| {
        let time = long_time();
        let run = format!("echo up; sleep {time}; echo never");
        let jobs: Vec<_> = (0..2).map(|_| world.submit(world.spec(&run))).collect();
        let waiting = world.submit(world.spec("echo never"));
        jobs.iter().for_each(|job| world.wait_for_log(job, "up"));
        for job in [&waiting].into_iter().chain(&jobs) {
            world.pool.cancel(&job.lease);
            let done = world.wait(job);
            assert_eq!(done.outcome(), Outcome::Cancelled);
            assert!(!done.log.contains("never"));
        }
        assert_eq!(processes_with(&time), Vec::<String>::new());
        assert!(world.pool.leases().is_empty());
    });
}

#[test]
fn e06_daemonise() {
    both("e06_daemonise", |world, _| {
        let time = long_time();
        let done = world.python(&format!(
            "import os, signal, time\n\
             if os.fork() == 0:\n\
             \x20   os.setsid()\n\
             \x20   signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
             \x20   if os.fork() == 0:\n\
             \x20       os.execvp('sleep', ['sleep', '{time}'])\n\
             \x20   os._exit(0)\n\
             print('main exits', flush=True)\n",
        ));
        let done = done.passed();
        assert!(done.end.result.duration_ms < 20_000, "the run ends at once");
        assert_eq!(processes_with(&time), Vec::<String>::new());
    });
}

#[test]
fn a_background_child_in_the_group_dies_too() {
    both("a_background_child_in_the_group_dies_too", |world, _| {
        let time = long_time();
        world.run(&format!("sleep {time} &")).passed();
        assert_eq!(processes_with(&time), Vec::<String>::new());
    });
}

#[test]
fn a_name_that_does_not_resolve_gets_a_hint() {
    let Some(world) = World::sandboxed("a_name_that_does_not_resolve_gets_a_hint") else { return };
    let done = world.python("import socket\nsocket.create_connection(('crates.io', 443), 5)");
    done.failed("a name did not resolve: jobs have no network unless they say `network: true`");
}

#[test]
fn the_same_lease_starts_once() {
    let world = World::plain();
    let spec = world.spec("echo once");
    let job = world.submit(spec.clone());
    world.pool.submit([spec]);
    world.wait(&job).passed();
}

#[test]
fn whatever_a_job_without_a_sandbox_makes_of_its_home_the_next_one_has_an_empty_folder_of_its_own() {
    let world = World::plain();
    // Of two slots one is kept, so that all others are in one home after another.
    let kept = world.submit(world.spec("sleep 1000"));
    let gone = "cd /; rm -r \"$HOME\"";
    for leaves in [
        "touch file .hidden",
        gone,
        &format!("{gone}; touch \"$HOME\""),
        &format!("{gone}; ln -s /usr \"$HOME\""),
        "chmod 500 \"$HOME\"",
        "chmod 000 \"$HOME\"",
        "chmod 1777 \"$HOME\"",
    ] {
        world.run(&format!("echo \"$HOME\"; {leaves}")).passed();
        let next = world.run("ls -A \"$HOME\"; test ! -h \"$HOME\"; stat -c '%F %a' \"$HOME\"").passed();
        assert_eq!(next.log, "directory 700\n", "after {leaves}");
    }
    world.pool.cancel(&kept.lease);
    world.wait(&kept);
}

#[test]
fn many_jobs_leave_nothing_behind() {
    both("many_jobs_leave_nothing_behind", |world, _| {
        let jobs: Vec<_> = (0..60).map(|_| world.submit(world.spec("true"))).collect();
        for job in &jobs {
            world.wait(job).passed();
        }
        assert!(world.pool.leases().is_empty());
    });
}

#[test]
fn no_option_of_the_sandbox_can_be_smuggled_in() {
    both("no_option_of_the_sandbox_can_be_smuggled_in", |world, _| {
        let smuggled = "x\0--ro-bind\0/\0/mnt";
        let mut spec = world.spec("ls /mnt");
        spec.body.env = BTreeMap::from([("X".to_owned(), smuggled.to_owned())]);
        world.run_spec(spec).failed("the variable `X` holds a zero byte");
        let mut spec = world.spec("ls /mnt");
        spec.facts = BTreeMap::from([("TOWPATH_CHANGE_TITLE".to_owned(), smuggled.to_owned())]);
        world.run_spec(spec).failed("holds a zero byte");
        let mut spec = world.spec("ls /mnt");
        spec.body.matrix = BTreeMap::from([("k".to_owned(), smuggled.to_owned())]);
        world.run_spec(spec).failed("holds a zero byte");
    });
}

#[test]
fn variables_that_no_program_starts_with_fail_the_job_and_as_many_as_may_be_start_it() {
    both("variables_that_no_program_starts_with_fail_the_job_and_as_many_as_may_be_start_it", |world, _| {
        let with = |count: usize, length: usize| {
            let mut spec = world.spec("echo \"started with $V0\" | wc -c");
            let variable = |at| (format!("V{at}"), "v".repeat(length));
            spec.body.env = (0..count).map(variable).collect();
            world.run_spec(spec)
        };
        const KIB: usize = 1024;
        assert_eq!(with(1, 127 * KIB).passed().log.trim(), (127 * KIB + 14).to_string());
        with(1, 128 * KIB)
            .failed("the variable `V0` has 131072 bytes, and no program starts with one of 131072");
        assert_eq!(with(17, 100 * KIB).passed().log.trim(), (100 * KIB + 14).to_string());
        with(18, 100 * KIB).failed("18 variables of 1843");
        with(2000, 1).passed();
        with(2001, 1).failed("2001 variables of ");
    });
}

#[test]
fn a_secret_that_its_variable_cannot_hold_fails_the_job_by_name() {
    let world = World::plain();
    let with = |variable: &str, value: &[u8]| {
        let mut spec = world.spec("true");
        let (name, variable) = ("token".to_owned(), Some(variable.to_owned()));
        spec.secrets = vec![GrantedSecret { name, value: value.to_vec().into(), variable }];
        world.run_spec(spec)
    };
    with("TOKEN", b"a-secret").passed();
    with("TOKEN", b"a-\xff-secret").failed("the secret `token` is not UTF-8");
    with("TOKEN", b"a-\0-secret").failed("the variable `TOKEN` holds a zero byte");
    with("TOWPATH_RUN", b"a-secret").failed("only Towpath sets `TOWPATH_RUN`");
    with("A=B", b"a-secret").failed("`A=B` is no name of a variable");
    with("", b"a-secret").failed("`` is no name of a variable");
}

#[test]
fn names_cannot_leave_their_folders() {
    both("names_cannot_leave_their_folders", |world, _| {
        for name in ["../x", "/etc/x", "a/b", "..", ""] {
            let mut spec = world.spec("true");
            let secret = GrantedSecret {
                name: name.to_owned(),
                value: b"value-of-it".to_vec().into(),
                variable: None,
            };
            spec.secrets = vec![secret];
            world.run_spec(spec).failed("is no name of");
            let mut spec = world.spec("true");
            spec.inputs = BTreeMap::from([(name.to_owned(), Digest::of(b""))]);
            let why = world.run_spec(spec).end.result.why;
            // An input's folder may lie in that of its job, `tools/log`; here nothing is found for it.
            assert_eq!(why.contains("is no name of"), name != "a/b", "{name}: {why}");
        }
    });
}

#[test]
fn a_helper_that_has_not_told_of_its_jobs_end_runs_no_other_job() {
    let test = "a_helper_that_has_not_told_of_its_jobs_end_runs_no_other_job";
    let folder = tempfile::tempdir().unwrap();
    let helpers = folder.path().join("helpers");
    let noting = format!("echo $$ >> '{}'; exec \"$@\"", helpers.display());
    let noting = ["/bin/sh", "-c", &noting, "sh"].map(Into::into).into_iter().chain(helper()).collect();
    let config = ExecutorConfig::in_folder(folder.path(), noting);
    let config = ExecutorConfig { slots: 1, kill_max: Duration::from_secs(1), ..config };
    let Some(world) = World::unless_refused(test, World::start(folder, config)) else { return };
    let first = world.submit(world.spec("echo first; exec sleep 1000"));
    world.wait_for_log(&first, "first");
    let pids = std::fs::read_to_string(helpers).unwrap();
    let pid = pids.lines().last().and_then(|pid| Pid::from_raw(pid.parse().unwrap())).unwrap();
    let helper = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    // As if it waited for a process of its job that does not die.
    pidfd_send_signal(&helper, Signal::STOP).unwrap();
    world.pool.cancel(&first.lease);
    assert_eq!(world.wait(&first).outcome(), Outcome::Cancelled);
    let second = world.submit(world.spec("echo second"));
    // It is gone, or would now tell of its first job's end.
    let _ = pidfd_send_signal(&helper, Signal::CONT);
    assert_eq!(world.wait(&second).passed().log, "second\n");
}
