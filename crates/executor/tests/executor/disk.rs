//! A disk that a job fills: whatever way it takes, the reserve stays. Each test has a small disk of its own.

use std::io::ErrorKind;
use std::process::Command;

use towpath_blob::{FilePath, Manifest, ManifestFile};
use towpath_core::graph::Outcome;
use towpath_executor::{JobPool, SandboxKind, StartSpec, TreeMode};

use crate::support::{World, config, is_root, skip, wait_until};

/// Set where a test runs on its small disk.
const ON_SMALL_DISK: &str = "TOWPATH_TEST_ON_SMALL_DISK";
/// Bytes of that disk, of which jobs leave an eighth to the server.
const DISK_BYTES: u64 = 256 << 20;
const RESERVE_BYTES: u64 = DISK_BYTES / 8;
/// What slots may write between two looks at the disk.
const OVER_BYTES: u64 = 8 << 20;
/// Fills the disk until it is ended.
const FILLING: &str = "i=0; while head -c 8M /dev/zero > f$i; do i=$((i+1)); done; exec sleep 1000";

/// Runs this test again where the folder for temporary files is a small disk, in namespaces that end with it.
fn on_a_small_disk(test: &str, check: impl Fn(&World)) {
    on_a_disk(("-rm", ""), test, check);
}

/// The same with options of unshare(1), and further ones of tmpfs(5).
fn on_a_disk(options: (&str, &str), test: &str, check: impl Fn(&World)) {
    with_a_disk(options, test, || check(&World::plain()));
}

/// The same for whoever makes a world of its own there.
fn with_a_disk((namespaces, options): (&str, &str), test: &str, check: impl Fn()) {
    if std::env::var_os(ON_SMALL_DISK).is_some() {
        return check();
    }
    let disk = tempfile::tempdir().unwrap();
    let mount = format!(
        "mount -t tmpfs -o size={DISK_BYTES},mode=700{options} none \"$TMPDIR\" || exit 77; exec \"$@\""
    );
    let mut own = Command::new("unshare");
    own.args([namespaces, "sh", "-c", &mount, "sh"]).arg(std::env::current_exe().unwrap());
    own.args(["--exact", "--nocapture", &format!("disk::{test}")]);
    own.env("TMPDIR", disk.path()).env(ON_SMALL_DISK, "1");
    let output = own.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    match output.status.success() {
        true => assert!(text.contains("1 passed"), "{text}"),
        false if !text.contains("running 1 test") => {
            println!("SKIP {test}: no disk can be mounted here: {text}");
        }
        false => panic!("{text}"),
    }
}

fn free_bytes(world: &World) -> u64 {
    let disk = rustix::fs::statvfs(world.folder.path()).unwrap();
    disk.f_bavail * disk.f_frsize
}

/// Leaves so many bytes free, as a file of somebody else's.
fn fill(world: &World, leave: u64) {
    let file = std::fs::File::create(world.folder.path().join("somebody-elses")).unwrap();
    let size = free_bytes(world) - leave;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
}

fn unfill(world: &World) {
    std::fs::remove_file(world.folder.path().join("somebody-elses")).unwrap();
}

#[track_caller]
fn errored(world: &World, spec: StartSpec) -> String {
    let done = world.run_spec(spec);
    let why = done.end.result.why;
    assert_eq!(done.end.result.outcome, Outcome::Errored, "{why}\n{}", done.log);
    assert!(why.contains("this machine's disk is nearly full: "), "{why}");
    assert!(why.contains("MiB and") && why.contains("make room there, then run the job again"), "{why}");
    why
}

#[test]
fn a_log_is_cut_where_it_would_take_the_reserve() {
    on_a_small_disk("a_log_is_cut_where_it_would_take_the_reserve", |world| {
        let mut spec = world.spec("exec cat /dev/zero");
        spec.limits.log_bytes = 1 << 40;
        let job = world.submit(spec);
        world.wait(&job).failed("MiB that this machine's disk had for jobs when it began");
        let free = free_bytes(world);
        assert!((RESERVE_BYTES - OVER_BYTES..=RESERVE_BYTES).contains(&free), "{free} bytes are free");
        let log = world.logs.reader(&job.lease);
        let end = log.bytes(log.size().unwrap() - 1024, 1024).unwrap();
        let end = String::from_utf8_lossy(&end);
        assert!(end.contains("the log was cut here: this machine's disk is nearly full"), "{end}");

        // Nobody else's job begins, or leaves a log, until there is room.
        let mut next = world.spec("echo next");
        next.body.timeout_seconds = 0;
        let lease = next.lease;
        errored(world, next);
        assert!(!world.logs.path(&lease).exists());
        world.logs.remove(&job.lease).unwrap();
        world.run("echo next").passed();
    });
}

#[test]
fn a_runs_logs_together_take_an_eighth_of_the_room() {
    on_a_small_disk("a_runs_logs_together_take_an_eighth_of_the_room", |world| {
        let spec =
            |run: &str| StartSpec { run: Some(run.parse().unwrap()), ..world.spec("head -c 12M /dev/zero") };
        let bytes_of = |run: &str| world.run_spec(spec(run)).passed().end.log_bytes;
        assert_eq!(bytes_of("app/main/1"), 12 << 20);
        let most = (DISK_BYTES - RESERVE_BYTES) / 8;
        let (second, third) = (bytes_of("app/main/1"), bytes_of("app/main/1"));
        assert!((12 << 20) + second + third < most, "{second} and {third} bytes");
        assert!(second == 12 << 20 && third < 2 << 20, "{second} and {third} bytes");
        let job = world.submit(spec("app/main/1"));
        let log = world.wait(&job).passed().log;
        assert!(
            log.starts_with("[towpath] the log was cut here: all logs of its run together are at"),
            "{log}"
        );
        assert_eq!(bytes_of("app/main/2"), 12 << 20, "another run has its own");
    });
}

#[test]
fn an_output_is_not_taken_where_it_would_take_the_reserve() {
    on_a_small_disk("an_output_is_not_taken_where_it_would_take_the_reserve", |world| {
        let before = free_bytes(world);
        // It takes room only where it is stored.
        let mut spec = world.with_tree(&[("x", "")], "truncate -s 1G big");
        spec.body.outputs.insert("big".to_owned(), "big".to_owned());
        let why = errored(world, spec);
        assert!(why.starts_with("cannot store an output: "), "{why}");
        wait_until("all of it is gone", || free_bytes(world) > before - OVER_BYTES);
        world.run("true").passed();
    });
}

/// A job whose inputs are one stored file of 40 MiB under ten names.
fn with_inputs(world: &World) -> StartSpec {
    let blob = world.blobs.put(&vec![0; 40 << 20][..]).unwrap();
    let file = |number: usize| ManifestFile {
        path: FilePath::new(format!("copy-{number}")).unwrap(),
        executable: false,
        size: blob.size,
        digest: blob.digest,
    };
    let manifest = Manifest::new((0..10).map(file).collect()).unwrap();
    let mut spec = world.spec("true");
    spec.inputs.insert("make".to_owned(), manifest.put(&world.blobs).unwrap().digest);
    spec
}

#[test]
fn inputs_are_not_copied_where_they_would_take_the_reserve() {
    on_a_small_disk("inputs_are_not_copied_where_they_would_take_the_reserve", |world| {
        let spec = with_inputs(world);
        let before = free_bytes(world);
        let why = errored(world, spec);
        // It says how much was left as it ended.
        let left = why.split(" has ").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(((RESERVE_BYTES - OVER_BYTES) >> 20..=RESERVE_BYTES >> 20).contains(&left), "{why}");
        wait_until("all of it is gone", || free_bytes(world) > before - OVER_BYTES);
        world.run("true").passed();
    });
}

#[test]
fn inputs_have_the_jobs_limits_and_its_time() {
    let world = World::plain();
    let mut spec = with_inputs(&world);
    spec.limits.disk_bytes = 200 << 20;
    world.run_spec(spec).failed("its inputs are over its limit of 200 MiB of disk; need fewer outputs");
    let mut spec = with_inputs(&world);
    spec.limits.disk_files = 9;
    world.run_spec(spec).failed("its inputs are over its limit of 9 files; need fewer outputs");
    let mut spec = with_inputs(&world);
    spec.body.timeout_seconds = 0;
    let done = world.run_spec(spec);
    assert_eq!(done.outcome(), Outcome::TimedOut);
    let why = "its inputs and its work tree were not ready within its timeout of 0 s";
    assert_eq!(done.end.result.why, why);
}

#[test]
fn who_fills_the_disk_alone_has_failed_and_nobody_else_has() {
    on_a_small_disk("who_fills_the_disk_alone_has_failed_and_nobody_else_has", |world| {
        let long = "echo begun; exec sleep 1000";
        let job = world.submit(world.spec(long));
        world.wait_for_log(&job, "begun");
        fill(world, RESERVE_BYTES / 2);
        let done = world.wait(&job);
        assert_eq!(done.outcome(), Outcome::Errored, "a job without a work tree is looked after as well");
        assert!(
            done.end.result.why.contains("this machine's disk is nearly full: "),
            "{}",
            done.end.result.why
        );
        unfill(world);

        world.run_spec(world.with_tree(&[("x", "")], FILLING)).failed("ended because it took the 2");
    });
}

#[test]
fn a_job_waits_for_room_as_long_as_it_may_take() {
    on_a_small_disk("a_job_waits_for_room_as_long_as_it_may_take", |world| {
        fill(world, RESERVE_BYTES / 2);
        let [first, cancelled] = ["echo first", "echo cancelled"].map(|run| world.submit(world.spec(run)));
        world.pool.cancel(&cancelled.lease);
        assert_eq!(world.wait(&cancelled).outcome(), Outcome::Cancelled);
        let mut late = world.spec("echo late");
        late.body.timeout_seconds = 2;
        errored(world, late);
        unfill(world);
        let done = world.wait(&first).passed();
        assert!(
            done.log.starts_with("[towpath] waited ") && done.log.ends_with("disk\nfirst\n"),
            "{}",
            done.log
        );
    });
}

#[test]
fn who_fills_the_disk_takes_no_other_job_along() {
    on_a_small_disk("who_fills_the_disk_takes_no_other_job_along", |world| {
        let go = world.folder.path().join("go");
        let wait = format!("echo begun; until [ -e '{}' ]; do sleep 0.05; done", go.display());
        let mut deployment = world.spec(&wait);
        deployment.body.environment = Some("staging".parse().unwrap());
        let small = |_| world.with_tree(&[("x", "")], &format!("head -c 1M /dev/zero > own; {wait}"));
        let [in_tree, in_home] = [world.with_tree(&[("x", "")], FILLING), world.spec(FILLING)];
        for (other, filling) in [(deployment, in_tree.clone()), (small(1), in_tree), (small(2), in_home)] {
            let other = world.submit(other);
            world.wait_for_log(&other, "begun");
            world.run_spec(filling).failed("ended because it took the ");
            // Begins once what the other has left is gone.
            world.run_spec(world.with_tree(&[("x", "")], "head -c 64M /dev/zero > f")).passed();
            std::fs::write(&go, "").unwrap();
            world.wait(&other).passed();
            std::fs::remove_file(&go).unwrap();
        }
    });
}

#[test]
fn who_took_nothing_of_a_full_disk_goes_on() {
    with_a_disk(("-rm", ""), "who_took_nothing_of_a_full_disk_goes_on", || {
        let folder = tempfile::tempdir().unwrap();
        let [logs, go] = ["logs", "go"].map(|name| folder.path().join(name));
        std::fs::create_dir(&logs).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16M", "none"]).arg(&logs).status();
        assert!(mount.unwrap().success());
        let config = config(folder.path(), SandboxKind::None);
        let world = World::start(folder, config).unwrap();
        // There are many looks at it after the disk is full.
        let wait = format!("until [ -e '{}' ]; do sleep 0.05; done; exec sleep 3", go.display());
        let run = format!("head -c 32M /dev/zero > own; echo begun; {wait}");
        let job = world.submit(world.with_tree(&[("x", "")], &run));
        world.wait_for_log(&job, "begun");
        std::fs::write(logs.join("somebody-elses"), vec![0; 15 << 20]).unwrap();
        std::fs::write(&go, "").unwrap();
        world.wait(&job).passed();
    });
}

#[test]
fn who_takes_the_little_that_others_left_has_not_failed() {
    on_a_small_disk("who_takes_the_little_that_others_left_has_not_failed", |world| {
        fill(world, RESERVE_BYTES + (4 << 20));
        let last = "head -c 8M /dev/zero > f; exec sleep 1000";
        errored(world, world.with_tree(&[("x", "")], last));
    });
}

#[test]
fn who_uses_up_a_disks_files_has_failed() {
    on_a_disk(("-rm", ",nr_inodes=4000"), "who_uses_up_a_disks_files_has_failed", |world| {
        let making = "i=0; while true > f$i; do i=$((i+1)); done; exec sleep 1000";
        let why = "files that this machine's disk had for jobs when it began";
        world.run_spec(world.with_tree(&[("x", "")], making)).failed(why);
    });
}

#[test]
fn who_uses_up_a_disks_files_takes_no_other_job_along() {
    on_a_disk(("-rm", ",nr_inodes=4000"), "who_uses_up_a_disks_files_takes_no_other_job_along", |world| {
        let go = world.folder.path().join("go");
        let wait = format!("echo begun; until [ -e '{}' ]; do sleep 0.05; done", go.display());
        let other = world.with_tree(&[("x", "")], &format!("head -c 1M /dev/zero > own; {wait}"));
        let other = world.submit(other);
        world.wait_for_log(&other, "begun");
        let making = "i=0; while true > f$i; do i=$((i+1)); done; exec sleep 1000";
        world.run_spec(world.with_tree(&[("x", "")], making)).failed("ended because it took the ");
        wait_until("it may be told to end", || std::fs::write(&go, "").is_ok());
        world.wait(&other).passed();
    });
}

#[test]
fn on_a_full_disk_it_is_found_how_work_trees_are_made() {
    let test = "on_a_full_disk_it_is_found_how_work_trees_are_made";
    if !is_root() {
        println!("SKIP {test}: the users of jobs' are not those of a namespace");
        return;
    }
    on_a_disk(("-m", ""), test, |world| {
        let trees = || Some(World::sandboxed(test)?.pool.capabilities().trees);
        let before = trees();
        fill(world, RESERVE_BYTES / 2);
        assert_eq!(trees(), before);
        fill(world, 0);
        if before == Some(TreeMode::Overlay) {
            let refused = World::of(SandboxKind::Bubblewrap).err().unwrap().to_string();
            assert!(refused.contains("this machine's disk is nearly full"), "{refused}");
        }
    });
}

#[test]
fn on_a_disk_without_files_it_is_not_found_how_work_trees_are_made() {
    let test = "on_a_disk_without_files_it_is_not_found_how_work_trees_are_made";
    if !is_root() {
        println!("SKIP {test}: the users of jobs' are not those of a namespace");
        return;
    }
    with_a_disk(("-m", ",nr_inodes=4000"), test, || {
        let folder = tempfile::tempdir().unwrap();
        let start = || JobPool::start(config(folder.path(), SandboxKind::Bubblewrap), |_| {});
        match start() {
            Err(refusal) => return skip(test, &refusal.to_string()),
            Ok(pool) => drop(pool),
        }
        let full = (0..).map(|number: u32| std::fs::create_dir(folder.path().join(number.to_string())));
        assert_eq!(full.take(5_000).find_map(Result::err).unwrap().kind(), ErrorKind::StorageFull);
        let refused = start().err().unwrap().to_string();
        assert!(refused.contains("this machine's disk is nearly full"), "{refused}");
    });
}
