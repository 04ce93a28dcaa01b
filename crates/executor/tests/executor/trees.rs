//! Work trees, inputs and outputs.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use towpath_blob::Manifest;
use towpath_core::graph::Outcome;
use towpath_core::ids::Digest;
use towpath_executor::{GrantedSecret, JobPool, SandboxKind, TreeMode};

use crate::support::{Done, World, config, needs_root, small_limits};

fn both(test: &str, check: impl Fn(&World, SandboxKind)) {
    if let Some(world) = World::sandboxed(test) {
        check(&world, SandboxKind::Bubblewrap);
    }
    check(&World::plain(), SandboxKind::None);
}

fn manifest(world: &World, digest: &Digest) -> Manifest {
    Manifest::load(&world.blobs, digest).unwrap()
}

fn files(world: &World, digest: &Digest) -> Vec<(String, bool, String)> {
    let manifest = manifest(world, digest);
    let text = |digest: &Digest| {
        let mut text = String::new();
        world.blobs.open_blob(digest).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    manifest.files().iter().map(|file| (file.path.to_string(), file.executable, text(&file.digest))).collect()
}

#[test]
fn a_job_owns_its_tree_and_the_base_never_changes() {
    both("a_job_owns_its_tree_and_the_base_never_changes", |world, _| {
        let script = "echo more >> src/a; rm b; mkdir -p new/folder; echo x > new/folder/c; chmod 755 src/a; touch -d @1 src/a; git --version; ls";
        let spec = world.with_tree(&[("src/a", "one\n"), ("b", "two\n")], script);
        let base = spec.base.clone().unwrap();
        let done = world.run_spec(spec.clone()).passed();
        assert!(done.log.ends_with("new\nsrc\n"), "{}", done.log);
        assert_eq!(fs::read_to_string(base.join("src/a")).unwrap(), "one\n");
        assert!(base.join("b").exists() && !base.join("new").exists());
        assert_eq!(base.join("src/a").metadata().unwrap().mode() & 0o777, 0o644);
    });
}

#[test]
fn trees_are_overlays_here_and_are_removed() {
    let Some(world) = World::sandboxed("trees_are_overlays_here_and_are_removed") else { return };
    assert_eq!(world.pool.capabilities().trees, TreeMode::Overlay);
    let spec = world
        .with_tree(&[("a", "one\n")], "grep ' /work ' /proc/self/mounts; mkdir d; echo x > d/f; chmod 000 d");
    let done = world.run_spec(spec).passed();
    assert!(done.log.contains("overlay"), "{}", done.log);
    let jobs = world.folder.path().join("executor/jobs");
    drop(world.pool); // Waits for the janitor.
    assert_eq!(fs::read_dir(jobs).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(world.folder.path().to_str().unwrap()), "{mounts}");
}

/// Makes folders within each other, deeper than a path can say.
const NEST: &str =
    "/usr/bin/python3 -c 'import os\nfor _ in range(2000): os.mkdir(\"deep\"); os.chdir(\"deep\")'";

/// As many descriptors as a process has where nobody asks for more.
fn few_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum }).unwrap();
}

#[test]
fn a_tree_that_is_very_deep_is_removed() {
    few_descriptors();
    let worlds = [World::sandboxed("a_tree_that_is_very_deep_is_removed"), Some(World::plain())];
    for world in worlds.into_iter().flatten() {
        world.run_spec(world.with_tree(&[("x", "")], NEST)).passed();
        let jobs = world.folder.path().join("executor/jobs");
        drop(world.pool); // Waits for the janitor.
        assert_eq!(fs::read_dir(jobs).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_be_swept_keeps_no_executor_from_starting() {
    few_descriptors();
    let folder = tempfile::tempdir().unwrap();
    let jobs = folder.path().join("executor/jobs");
    let killed = jobs.join("ab".repeat(16));
    fs::create_dir_all(&killed).unwrap();
    let nested = Command::new("sh").args(["-c", NEST]).current_dir(&killed).status();
    assert!(nested.unwrap().success());
    // No executor makes a file there.
    fs::write(jobs.join("cd".repeat(16)), "x").unwrap();
    for _ in 0..2 {
        drop(JobPool::start(config(folder.path(), SandboxKind::None), |_| {}).unwrap());
        let left: Vec<_> = fs::read_dir(&jobs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [format!("unswept-{}", "cd".repeat(16)).as_str()]);
    }
}

#[test]
fn k04_honest_inputs() {
    both("k04_honest_inputs", |world, _| {
        let script = "mkdir -p dist/sub; printf one > dist/a.whl; printf two > dist/sub/run.sh; chmod 755 dist/sub/run.sh; \
                      printf lat > \"$(printf 'dist/caf\\351.whl')\"; printf utf > dist/café.whl; printf no > dist/c.txt";
        let mut spec = world.with_tree(&[("x", "")], script);
        spec.body.outputs =
            [("wheel".to_owned(), "dist/*.whl".to_owned()), ("tools".to_owned(), "dist/sub".to_owned())]
                .into();
        let done = world.run_spec(spec).passed();
        let wheel = done.end.result.outputs["wheel"];
        let names: Vec<String> = files(world, &wheel).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a.whl", "caf%C3%A9.whl", "caf%E9.whl"]);
        let tools = done.end.result.outputs["tools"];
        assert_eq!(files(world, &tools), [("sub/run.sh".to_owned(), true, "two".to_owned())]);

        let script = "cd \"$TOWPATH_INPUTS\"; cat wheel/a.whl tools/sub/run.sh \"$(printf 'wheel/caf\\351.whl')\" wheel/café.whl; \
                      test -x tools/sub/run.sh; test ! -x wheel/a.whl";
        let mut spec = world.spec(script);
        spec.inputs = [("wheel".to_owned(), wheel), ("tools".to_owned(), tools)].into();
        assert_eq!(world.run_spec(spec).passed().log, "onetwolatutf");
    });
}

#[test]
fn links_inside_the_tree_stay() {
    both("links_inside_the_tree_stay", |world, _| {
        let spec = world.with_tree(&[("real", "text\n")], "cat link; test -L link");
        symlink("real", spec.base.as_ref().unwrap().join("link")).unwrap();
        assert_eq!(world.run_spec(spec).passed().log, "text\n");
    });
}

#[test]
fn c07_write_through_input() {
    both("c07_write_through_input", |world, kind| {
        let mut first = world.with_tree(&[("x", "")], "printf good > out.bin");
        first.body.outputs = [("bin".to_owned(), "out.bin".to_owned())].into();
        let output = world.run_spec(first).passed().end.result.outputs["bin"];
        let attack =
            "chmod -R u+w \"$TOWPATH_INPUTS\"; printf evil > \"$TOWPATH_INPUTS/bin/out.bin\"; echo written";
        let mut spec = world.spec(attack);
        spec.inputs = [("bin".to_owned(), output)].into();
        let attacked = world.run_spec(spec);
        if kind == SandboxKind::Bubblewrap {
            assert_eq!(attacked.outcome(), Outcome::Failed, "{}", attacked.log);
        } else {
            assert!(attacked.passed().log.contains("written"), "the attack is real without a sandbox");
        }
        let file = &manifest(world, &output).files()[0].clone();
        world.blobs.verify(&file.digest).unwrap();
        let mut next = world.spec("cat \"$TOWPATH_INPUTS/bin/out.bin\"");
        next.inputs = [("bin".to_owned(), output)].into();
        assert_eq!(world.run_spec(next).passed().log, "good");
    });
}

fn output(world: &World, script: &str, pattern: &str) -> Done {
    let mut spec = world.with_tree(&[("x", "")], script);
    spec.limits = small_limits();
    spec.body.outputs = [("o".to_owned(), pattern.to_owned())].into();
    world.run_spec(spec)
}

#[test]
fn c01_symlink_artifact() {
    both("c01_symlink_artifact", |world, _| {
        let key = world.folder.path().join("key");
        fs::write(&key, "canary-of-the-server").unwrap();
        let absolute = format!("mkdir dist; ln -s {} dist/a.whl", key.display());
        output(world, &absolute, "dist/*.whl").failed("it is not a regular file");
        output(world, "mkdir dist; ln -s ../../../../key dist/a.whl", "dist/*.whl")
            .failed("it is not a regular file");
        let folder = format!("ln -s {} dist", world.folder.path().display());
        output(world, &folder, "dist/*").failed("nothing matches");
        output(world, &folder, "dist").failed("it is not a regular file");
        output(world, "ln -s / dist", "**/shadow").failed("nothing matches");
    });
}

#[test]
fn c05_fifo_socket_artifact() {
    both("c05_fifo_socket_artifact", |world, _| {
        output(world, "mkdir d; mkfifo d/p", "d/*").failed("it is not a regular file");
        output(world, "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'", "s")
            .failed("it is not a regular file");
        output(world, "mkdir -p d/e; ln -s .. d/e/loop", "d").failed("it is not a regular file");
        output(world, "mkdir d; for i in $(seq 30); do echo > d/$i; done", "d")
            .failed("more files than the job's limit");
        output(world, "head -c 2000000 /dev/zero > big", "big").failed("larger than the job's limit");
        output(world, "truncate -s 60M sparse", "sparse").failed("larger than the job's limit");
        output(world, "true", "missing/*").failed("nothing matches `missing/*`");
        let name = "$(printf '\\342\\200\\256%.0s' $(seq 85))";
        let done = output(world, &format!("echo x > \"{name}\"; echo y > \"$(printf 'new\\nline')\""), "*");
        let names: Vec<String> =
            files(world, &done.passed().end.result.outputs["o"]).into_iter().map(|file| file.0).collect();
        assert_eq!(names, ["new%0Aline".to_owned(), "x".to_owned(), "%E2%80%AE".repeat(85)]);
    });
}

#[test]
fn c05_sparse_terabyte() {
    let Some(world) = World::sandboxed("c05_sparse_terabyte") else { return };
    let mut spec = world.with_tree(&[("x", "")], "truncate -s 1T sparse");
    spec.limits.disk_bytes = 2 << 40;
    spec.body.outputs = [("o".to_owned(), "sparse".to_owned())].into();
    let why = world.run_spec(spec).failed("limit").end.result.why;
    // In a sandbox around ours its limit is met first.
    assert!(why.contains("larger than the job's limit") || why.contains("a file reached the limit"), "{why}");
}

#[test]
fn junit_of_a_failed_job_is_kept() {
    both("junit_of_a_failed_job_is_kept", |world, _| {
        let mut spec = world.with_tree(&[("x", "")], "mkdir r; echo '<testsuite/>' > r/a.xml; exit 1");
        spec.body.junit = Some("r/*.xml".to_owned());
        spec.body.outputs = [("o".to_owned(), "r".to_owned())].into();
        let done = world.run_spec(spec).failed("exit code 1");
        assert_eq!(files(world, &done.end.junit.unwrap())[0].2, "<testsuite/>\n");
        assert!(done.end.result.outputs.is_empty(), "outputs are those of jobs that passed");
    });
}

/// What a test framework makes of a failure that talks of a secret: in an attribute, in a text, in another form.
const TALKING: &str = r#"import base64, os
from xml.sax.saxutils import escape, quoteattr
secret = open(os.environ['TOWPATH_SECRETS'] + '/token').read()
print(f'<testsuite name="s"><testcase name={quoteattr(secret)}><failure message={quoteattr("is " + secret)}>'
      f'{escape(secret)} {secret.encode().hex()}</failure></testcase></testsuite>', file=open('r.xml', 'w'))
open('kept', 'w').write(secret)
os.mkfifo('fifo-' + secret.replace('/', ''))
"#;

#[test]
fn secrets_are_masked_in_reports_and_refusals_and_left_in_outputs() {
    both("secrets_are_masked_in_reports_and_refusals_and_left_in_outputs", |world, _| {
        let spec = |output: &str, secret: &str| {
            let mut spec =
                world.with_tree(&[("x", "")], &format!("/usr/bin/python3 - <<'END'\n{TALKING}END\n"));
            spec.secrets = vec![GrantedSecret {
                name: "token".into(),
                value: secret.as_bytes().to_vec().into(),
                variable: None,
            }];
            spec.body.junit = Some("r.xml".to_owned());
            spec.body.outputs = [("o".to_owned(), output.to_owned())].into();
            spec
        };
        let secret = "a<canary>&'\"77";
        let done = world.run_spec(spec("kept", secret)).passed();
        assert_eq!(files(world, &done.end.result.outputs["o"])[0].2, secret);
        let report = files(world, &done.end.junit.unwrap()).remove(0).2;
        let masked = "<testsuite name=\"s\"><testcase name=\"***\"><failure message=\"is ***\">*** ***</failure>\
                      </testcase></testsuite>\n";
        assert_eq!(report, masked);
        world.run_spec(spec("fifo*", "canary-77")).failed("refuses `fifo-***`: it is not a regular file");
    });
}

#[test]
fn a_report_with_a_secret_in_its_path_is_kept_under_another_one() {
    both("a_report_with_a_secret_in_its_path_is_kept_under_another_one", |world, _| {
        let run = "mkdir -p r/canary-77; cd r; for name in a canary-77/b 1-canary-77 1-Y2FuYXJ5LTc3; do\n\
                   echo $name > $name; done; mkdir d-canary-77; echo d > d-canary-77/c; echo d > d-Y2FuYXJ5LTc3";
        let mut spec = world.with_tree(&[("x", "")], run);
        let value = b"canary-77".to_vec().into();
        spec.secrets = vec![GrantedSecret { name: "token".into(), value, variable: None }];
        spec.body.junit = Some("r".to_owned());
        let done = world.run_spec(spec).passed();
        let kept = files(world, &done.end.junit.unwrap());
        let told: Vec<(&str, &str)> = kept.iter().map(|(path, _, text)| (&path[..], text.trim())).collect();
        let wanted = [
            ("r/***/b.4", "***/b"),
            ("r/1-***.1", "1-***"),
            ("r/1-***.2", "1-***"),
            ("r/a", "a"),
            ("r/d-***.5", "d"),
            ("r/d-***/c.6", "d"),
        ];
        assert_eq!(told, wanted);
    });
}

#[test]
fn a_report_that_is_not_there_is_told_of_where_the_job_passed() {
    both("a_report_that_is_not_there_is_told_of_where_the_job_passed", |world, _| {
        let run = |script: &str| {
            let mut spec = world.with_tree(&[("x", "")], script);
            spec.body.junit = Some("none.xml".to_owned());
            world.run_spec(spec)
        };
        let passed = run("true");
        let why = "exit code 0; report `junit`: nothing matches `none.xml`";
        assert_eq!((passed.end.result.outcome, passed.end.result.why.as_str()), (Outcome::Passed, why));
        assert!(passed.log.contains(why), "{}", passed.log);
        run("exit 1").failed("exit code 1");
    });
}

#[test]
fn c11_config_bomb() {
    both("c11_config_bomb", |world, _| {
        let marker = world.folder.path().join("marker");
        let script = format!(
            "git init -q .; git config core.fsmonitor 'touch {0}'; git config core.sshCommand 'touch {0}'; \
             printf '#!/bin/sh\\ntouch {0}\\n' > .git/hooks/post-checkout; chmod 755 .git/hooks/post-checkout; echo x > out",
            marker.display()
        );
        let done = output(world, &script, "out").passed();
        assert_eq!(files(world, &done.end.result.outputs["o"])[0].2, "x\n");
        assert!(!marker.exists());
    });
}

#[test]
fn the_base_may_belong_to_anybody() {
    let Some(world) = World::sandboxed("the_base_may_belong_to_anybody") else { return };
    if !needs_root("the_base_may_belong_to_anybody") {
        return;
    }
    let spec = world.with_tree(&[("a", "one\n")], "echo more >> a; stat -c %u a . ; cat a");
    let base = spec.base.clone().unwrap();
    for path in [base.join("a"), base.clone()] {
        std::os::unix::fs::chown(path, Some(1234), Some(1234)).unwrap();
    }
    fs::set_permissions(&base, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(world.run_spec(spec).passed().log, "1000\n1000\none\nmore\n");
}
