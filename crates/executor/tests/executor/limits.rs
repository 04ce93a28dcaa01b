//! Limits: attacks of group E. Each is bounded, so that the machine survives a test that fails.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use towpath_core::graph::Outcome;
use towpath_executor::{LimitMode, StartSpec};

use crate::support::{World, long_time, processes_with, small_limits};

/// With cgroups, and without, where rlimits and polling have to do.
fn in_both_modes(test: &str, check: impl Fn(&World)) {
    for cgroups in [true, false] {
        if let Some(world) = World::sandboxed_with(test, cgroups) {
            assert!(cgroups || world.pool.capabilities().limits == LimitMode::Rlimits);
            check(&world);
        }
    }
}

#[test]
fn e01_fork_bomb() {
    in_both_modes("e01_fork_bomb", fork_bombs);
}

fn fork_bombs(world: &World) {
    // Both go on for ever, each copy of the second under a name of its own.
    let renaming = "cat > bomb <<'EOF'\n#!/usr/bin/python3\nimport os, sys\ntext = open(sys.argv[0]).read()\n\
         while True:\n  try:\n    if os.fork() == 0:\n      name = f'/tmp/b{os.getpid()}'\n      \
         open(name, 'w').write(text); os.chmod(name, 0o755)\n      os.execv(name, [name])\n  \
         except OSError: pass\nEOF\nchmod 755 bomb; ./bomb";
    let classic = "b() { b | b & }; while :; do b; done 2> /dev/null";
    // Where no cgroup counts refused forks, a bomb that gives up at the first just ends: so the one that does not.
    let counted = world.pool.capabilities().limits != LimitMode::Rlimits;
    for bomb in counted.then_some(classic).into_iter().chain([renaming]) {
        let mut spec = world.spec(bomb);
        spec.limits = small_limits();
        let job = world.submit(spec);
        let began = Instant::now();
        world.run("echo still here").passed();
        assert!(began.elapsed() < Duration::from_secs(10), "another job runs meanwhile");
        world.wait(&job).failed("ended at its limit of 64 processes");
    }
}

#[test]
fn e02_memory_many() {
    in_both_modes("e02_memory_many", memory_of_many);
}

fn memory_of_many(world: &World) {
    let program = "import os, time\n\
         for _ in range(40):\n\
         \x20   if os.fork() == 0:\n\
         \x20       x = bytearray(50 << 20)\n\
         \x20       for at in range(0, len(x), 4096): x[at] = 1\n\
         \x20       time.sleep(30); os._exit(0)\n\
         time.sleep(30)\n";
    let mut spec = world.python_spec(program);
    spec.limits = small_limits();
    world.run_spec(spec).failed("ended at its limit of 256 MiB memory");
    world.run("true").passed();
}

#[test]
fn e02_memory_of_tmpfs_counts() {
    in_both_modes("e02_memory_of_tmpfs_counts", memory_of_tmpfs);
}

fn memory_of_tmpfs(world: &World) {
    let mut spec =
        world.spec("for f in /tmp/a /dev/shm/b $HOME/c; do head -c 100M /dev/zero > $f; done; sleep 30");
    spec.limits = small_limits();
    (spec.limits.tmpfs_bytes, spec.limits.disk_bytes) = (200 << 20, 1 << 30);
    world.run_spec(spec).failed("ended at its limit of 256 MiB memory");
}

#[test]
fn e02_memory_of_files_without_a_name_counts_once() {
    in_both_modes("e02_memory_of_files_without_a_name_counts_once", memory_of_files_without_a_name);
}

fn memory_of_files_without_a_name(world: &World) {
    let program = |after: &str| {
        let mut spec = world.python_spec(&format!(
            "import mmap, os, time\n\
             def made(size):\n\
             \x20   file = os.memfd_create('made')\n\
             \x20   for _ in range(size): os.write(file, bytes(1 << 20))\n\
             \x20   return file\n{after}"
        ));
        spec.limits = small_limits();
        spec.limits.disk_bytes = 1 << 30;
        spec
    };
    // The second process has the same files, which are not twice as large by that.
    let spec = program("files = [made(60), made(60)]\nif os.fork(): os.wait()\ntime.sleep(1)\n");
    world.run_spec(spec).passed();
    let spec = program("memory = mmap.mmap(made(160), 160 << 20)\nsum(memory[::4096])\ntime.sleep(1)\n");
    world.run_spec(spec).passed();
    let spec = program("files = [made(60) for _ in range(5)]\ntime.sleep(1000)\n");
    world.run_spec(spec).failed("ended at its limit of 256 MiB memory");
}

#[test]
fn a_tmpfs_has_a_size() {
    let Some(world) = World::sandboxed("a_tmpfs_has_a_size") else { return };
    for folder in ["/tmp", "/dev/shm", "$HOME"] {
        let mut spec = world.spec(&format!("head -c 100M /dev/zero > {folder}/a"));
        spec.limits = small_limits();
        spec.limits.disk_bytes = 1 << 30;
        assert!(world.run_spec(spec).failed("exit code").log.contains("No space left"));
    }
}

#[test]
fn e04_disk_fill() {
    let Some(world) = World::sandboxed("e04_disk_fill") else { return };
    let many = "i=0; while [ $i -lt 100000 ]; do : > f$i; i=$((i+1)); done; sleep 30";
    let spread = "i=0; while [ $i -lt 30 ]; do head -c 8M /dev/zero > f$i; i=$((i+1)); done; sleep 30";
    for (script, why) in [
        (
            "dd if=/dev/zero of=big bs=1M count=200000",
            "exit code 153 (a file reached the limit of 64 MiB of disk)",
        ),
        (spread, "ended at its limit of 64 MiB of disk"),
        (many, "ended at its limit of 2000 files"),
    ] {
        let mut spec = world.with_tree(&[("x", "")], script);
        spec.limits = small_limits();
        world.run_spec(spec).failed(why);
    }
}

#[test]
fn without_a_sandbox_what_is_in_the_home_is_on_the_disk() {
    let world = World::plain();
    let mut spec =
        world.with_tree(&[("x", "")], "for f in a ~/b; do head -c 40M /dev/zero > $f; done; sleep 1000");
    spec.limits = small_limits();
    world.run_spec(spec).failed("ended at its limit of 64 MiB of disk");
}

#[test]
fn files_below_a_path_too_long_to_say_count() {
    let worlds = [World::sandboxed("files_below_a_path_too_long_to_say_count"), Some(World::plain())];
    for world in worlds.into_iter().flatten() {
        let program = "import os, time\n\
             for _ in range(100):\n\
             \x20   os.mkdir('d' * 250)\n\
             \x20   os.chdir('d' * 250)\n\
             for at in range(100000): open(str(at), 'w')\n\
             time.sleep(30)\n";
        let mut spec = world.with_tree(&[("x", "")], "/usr/bin/python3 deep.py");
        std::fs::write(spec.base.as_ref().unwrap().join("deep.py"), program).unwrap();
        spec.limits = small_limits();
        world.run_spec(spec).failed("ended at its limit of 2000 files");
    }
}

#[test]
fn e05_log_flood() {
    let worlds = [World::sandboxed("e05_log_flood"), Some(World::plain())];
    for world in worlds.into_iter().flatten() {
        for script in [
            "i=0; while [ $i -lt 300 ]; do head -c 64K /dev/urandom; i=$((i+1)); done",
            "head -c 64M /dev/zero",
            "yes 'a line of a flood' | head -n 1000000",
        ] {
            let mut spec = world.spec(script);
            spec.limits.log_bytes = 4 << 20;
            let job = world.submit(spec);
            let done = world.wait(&job).passed();
            let mark = "the log was cut here at its limit of 4194304 bytes";
            let reader = world.logs.reader(&job.lease);
            let tail = reader.bytes(4 << 20, 4096).unwrap();
            assert!(String::from_utf8_lossy(&tail).contains(mark), "{script}");
            assert!(done.end.log_bytes < (4 << 20) + 300);
            assert!(reader.line_count().unwrap() >= 2);
        }
    }
}

#[test]
fn a_whole_64_mb_line_is_kept() {
    let Some(world) = World::sandboxed("a_whole_64_mb_line_is_kept") else { return };
    let spec = world.spec("head -c 64M /dev/zero");
    let job = world.submit(spec);
    assert_eq!(world.wait(&job).passed().end.log_bytes, 64 << 20);
}

#[test]
fn a_job_has_as_many_descriptors_whoever_started_its_executor() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum }).unwrap();
    let sandboxed = World::sandboxed("a_job_has_as_many_descriptors_whoever_started_its_executor");
    for world in [sandboxed, Some(World::plain())].into_iter().flatten() {
        let said = world.run("ulimit -Sn; ulimit -Sn 1025 && ulimit -Sn").passed().log;
        assert!(said.ends_with("1024\n1025\n"), "{said}");
    }
}

/// Held by a test that takes many of the machine's terminals.
static TERMINALS: Mutex<()> = Mutex::new(());

#[test]
fn e02_what_the_machine_has_once_for_all_is_not_one_jobs() {
    let test = "e02_what_the_machine_has_once_for_all_is_not_one_jobs";
    let _alone = TERMINALS.lock();
    let Some(world) = World::sandboxed(test) else { return };
    let program = "import ctypes, os, time\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         number = {'x86_64': 206, 'aarch64': 0}[os.uname().machine]\n\
         context = ctypes.c_ulong(0)\n\
         print(libc.syscall(number, 1, ctypes.byref(context)), os.strerror(ctypes.get_errno()))\n\
         ends = []\n\
         try:\n\
         \x20   while True: ends.append(os.open('/dev/ptmx', os.O_RDWR))\n\
         except OSError as error: print(len(ends), error.strerror, flush=True)\n\
         time.sleep(1000)\n";
    let job = world.submit(world.python_spec(program));
    world.wait_for_log(&job, "-1 Function not implemented\n256 No space left on device\n");
    let terminal = "import os, pty\nassert pty.spawn(['/usr/bin/tty']) == 0\n";
    assert_eq!(world.python(terminal).passed().log, "/dev/pts/0\r\n");
    world.pool.cancel(&job.lease);
    assert_eq!(world.wait(&job).outcome(), Outcome::Cancelled);
}

#[test]
fn e02_terminals_that_a_job_mounts_for_itself_are_bounded_too() {
    let test = "e02_terminals_that_a_job_mounts_for_itself_are_bounded_too";
    if !rustix::process::geteuid().is_root() {
        // Within a job of Towpath's own it would be the outer one's.
        println!("SKIP {test}: only root takes a third of the machine's terminals");
        return;
    }
    let _alone = TERMINALS.lock();
    let Some(world) = World::sandboxed(test) else { return };
    let program = "import os, time\n\
         parent = os.getpid()\n\
         for _ in range(4): os.getpid() == parent and os.fork()\n\
         ends = [os.open('/tmp/pts/ptmx', os.O_RDWR) for _ in range(250)]\n\
         print(len(ends), flush=True)\n\
         time.sleep(1000)\n";
    let end = world.run_spec(with_own_terminals(&world, program)).failed("its limit of 1024 terminals");
    assert_eq!(end.log.lines().next(), Some("250"), "{}", end.log);
    // Under way in a socket they are no process's. Other jobs keep a few.
    let program = "import os, resource, socket, time\n\
         most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n\
         number = lambda name: int(open('/proc/sys/kernel/pty/' + name).read())\n\
         most, pairs = (number('max') - number('reserve')) * 23 // 24, []\n\
         while number('nr') < most:\n\
         \x20   ends = [os.open('/tmp/pts/ptmx', os.O_RDWR) for _ in range(50)]\n\
         \x20   pairs.append(socket.socketpair())\n\
         \x20   socket.send_fds(pairs[-1][0], [b'x'], ends)\n\
         \x20   for end in ends: os.close(end)\n\
         print('hidden', flush=True)\n\
         time.sleep(1000)\n";
    let end = world.run_spec(with_own_terminals(&world, program));
    let why = &end.end.result.why;
    if end.log.contains("Too many references") {
        println!("SKIP {test}: a job may not have so many under way here: {}", end.log);
        return;
    }
    assert_eq!(end.outcome(), Outcome::Errored, "{why}\n{}", end.log);
    assert!(why.contains("terminals that this machine has for jobs are in use"), "{why}");
}

/// A job that mounts terminals for a Python program.
fn with_own_terminals(world: &World, program: &str) -> StartSpec {
    let mut spec = world.spec(&format!(
        "mkdir /tmp/pts && exec unshare -Urm sh -c \"mount -t devpts -o newinstance,ptmxmode=666 none /tmp/pts && \
         exec /usr/bin/python3 -c \\\"{program}\\\"\""
    ));
    spec.body.user_namespaces = true;
    spec
}

#[test]
fn a_terminal_that_outlives_its_job_is_not_the_next_jobs() {
    let Some(world) = World::sandboxed("a_terminal_that_outlives_its_job_is_not_the_next_jobs") else {
        return;
    };
    // Under way in a socket that is under way in itself: nobody closes it until the kernel looks for such rings.
    let leaving = "import os, pty, socket\n\
         near, far = socket.socketpair()\n\
         socket.send_fds(near, [b'x'], [far.fileno(), *pty.openpty()])\n\
         print(sorted(os.listdir('/dev/pts')))\n";
    for _ in 0..4 {
        assert_eq!(world.python(leaving).passed().log, "['0', 'ptmx']\n");
    }
}

#[test]
fn what_ignores_signals_dies_at_its_timeout() {
    let Some(world) = World::sandboxed("what_ignores_signals_dies_at_its_timeout") else { return };
    let time = long_time();
    let mut spec = world.spec(&format!(
        "trap '' TERM INT HUP QUIT; (trap '' TERM HUP; setsid sleep {time} &) ; sleep {time}"
    ));
    spec.body.timeout_seconds = 1;
    assert_eq!(world.run_spec(spec).outcome(), Outcome::TimedOut);
    assert_eq!(processes_with(&time), Vec::<String>::new());
}
