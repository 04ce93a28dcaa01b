//! The border: attacks of group D, each also tried without a sandbox (K01).

use std::sync::LazyLock;

use towpath_core::graph::Outcome;
use towpath_executor::doctor::{ProbeOutcome, ProbeReport, run_border_probes};
use towpath_executor::{ExecutorError, SandboxKind};

use crate::support::{World, config, is_root, needs_root, skip};

static REPORTS: LazyLock<Result<Vec<ProbeReport>, ExecutorError>> = LazyLock::new(|| {
    let data = tempfile::tempdir().unwrap();
    run_border_probes(&config(data.path(), SandboxKind::Bubblewrap))
});

/// Every probe with this id was refused in the sandbox and worked without.
fn held(test: &str, id: &str) {
    let reports = match REPORTS.as_ref() {
        Ok(reports) => reports,
        Err(refusal) => return skip(test, &refusal.to_string()),
    };
    let mut seen = 0;
    for report in reports.iter().filter(|report| report.id == id) {
        seen += 1;
        if report.sandboxed == ProbeOutcome::NotTried && report.said.contains("is not installed") {
            return skip(test, &report.said);
        }
        assert_eq!(report.sandboxed, ProbeOutcome::Refused, "{}: {}", report.title, report.said);
        if report.control != ProbeOutcome::Open {
            assert!(!needs_root(test), "the attack does not work unsandboxed: {}", report.title);
        }
    }
    assert!(seen > 0, "there is a probe {id}");
}

macro_rules! probes {
    ($($name:ident => $id:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            held(stringify!($name), $id);
        })*
    };
}

probes! {
    d01_environ => "d01",
    d02_open_fds => "d02",
    d03_home_secrets => "d03",
    d04_unix_sockets => "d04",
    d06_loopback => "d06",
    d09_keyring => "d09",
    d10_tiocsti => "d10",
    d11_root_caps => "d11",
    d15_setuid => "d15",
    d17_root_tmpfs => "d17",
    s1_system_calls => "s1",
}

#[test]
fn k01_probe_works() {
    match REPORTS.as_ref() {
        Err(refusal) => skip("k01_probe_works", &refusal.to_string()),
        Ok(_) if !needs_root("k01_probe_works") => {} // Some attacks work as root alone.
        Ok(reports) => {
            let useless: Vec<_> =
                reports.iter().filter(|report| report.control != ProbeOutcome::Open).collect();
            assert!(useless.is_empty(), "{useless:#?}");
            assert!(reports.iter().all(ProbeReport::holds));
        }
    }
}

#[test]
fn d01_nothing_in_proc_1() {
    let Some(world) = World::sandboxed("d01_nothing_in_proc_1") else { return };
    let done = world.run("tr '\\0' '\\n' < /proc/1/environ; ls /proc | grep -c '^[0-9]'").passed();
    let processes: u32 = done.log.trim().parse().expect("the first process has no variable at all");
    assert!(processes < 8, "only its own processes: {}", done.log);
}

#[test]
fn d03_toolchains_work_and_their_home_holds_nothing_else() {
    let test = "d03_toolchains_work_and_their_home_holds_nothing_else";
    let Some(world) = World::sandboxed(test) else { return };
    let home = std::env::var("HOME").unwrap_or_default();
    let script = format!(
        "git --version; id -u; ls -A {home} {home}/.cargo 2> /dev/null || true; ls -A /var /home; echo end; \
         ! test -e {home}/.ssh; ! test -e {home}/.netrc; ! test -e {home}/.gitconfig; ! test -e {home}/.config"
    );
    let done = world.run(&script).passed();
    assert!(done.log.starts_with("git version"), "{}", done.log);
    assert!(done.log.contains("\n1000\n"));
    for line in done.log.lines() {
        assert!(!line.contains("credentials"), "{}", done.log);
    }
    let cargo = std::process::Command::new("cargo").arg("--version").output();
    if cargo.is_ok_and(|output| output.status.success()) {
        assert!(world.run("cargo --version && rustc --version").passed().log.starts_with("cargo 1."));
    }
}

#[test]
fn cargo_compiles_in_the_sandbox() {
    let Some(world) = World::sandboxed("cargo_compiles_in_the_sandbox") else { return };
    let manifest = "[package]\nname = \"hello\"\nversion = \"1.0.0\"\nedition = \"2021\"\n";
    let main = "fn main() { println!(\"compiled {}\", 6 * 7); }\n";
    let spec = world.with_tree(&[("Cargo.toml", manifest), ("src/main.rs", main)], "cargo run -q --offline");
    assert_eq!(world.run_spec(spec).passed().log, "compiled 42\n");
}

#[test]
fn d12_other_jobs() {
    let test = "d12_other_jobs";
    let attack = "import os, socket, glob, ctypes, sys, time\n\
         libc = ctypes.CDLL(None)\n\
         me = os.environ['TOWPATH_MATRIX_ME']; other = 'b' if me == 'a' else 'a'\n\
         s = socket.socket(socket.AF_UNIX); s.bind('\\0towpath-d12-' + me); s.listen()\n\
         for folder in ['/tmp', '/dev/shm']: open(f'{folder}/towpath-d12-{me}', 'w').write(me)\n\
         shm = libc.shmget(0x70770000 + ord(me), 64, 0o1666)\n\
         print('ready', flush=True)\n\
         seen = set(); until = time.monotonic() + 4\n\
         while time.monotonic() < until:\n\
         \x20   for folder in ['/tmp', '/dev/shm']:\n\
         \x20       if os.path.exists(f'{folder}/towpath-d12-{other}'): seen.add(folder)\n\
         \x20   try: socket.socket(socket.AF_UNIX).connect('\\0towpath-d12-' + other); seen.add('abstract')\n\
         \x20   except OSError: pass\n\
         \x20   if libc.shmget(0x70770000 + ord(other), 64, 0o666) >= 0: seen.add('sysv')\n\
         \x20   for path in glob.glob('/proc/[0-9]*/environ'):\n\
         \x20       try:\n\
         \x20           if ('TOWPATH_MATRIX_ME=' + other).encode() in open(path, 'rb').read(): seen.add('proc')\n\
         \x20       except OSError: pass\n\
         \x20   if len(seen) == 5: break\n\
         libc.shmctl(shm, 0, None)\n\
         print('saw', sorted(seen))\n";
    let pair = |world: &World| {
        let jobs: Vec<_> = ["a", "b"]
            .map(|me| {
                let mut spec = world.python_spec(attack);
                spec.body.matrix = [("me".to_owned(), me.to_owned())].into();
                world.submit(spec)
            })
            .into();
        jobs.iter().map(|job| world.wait(job).passed().log).collect::<Vec<_>>()
    };
    if let Some(world) = World::sandboxed(test) {
        for log in pair(&world) {
            assert!(log.ends_with("saw []\n"), "{log}");
        }
    }
    let control = pair(&World::plain());
    for channel in ["/tmp", "/dev/shm", "abstract", "sysv", "proc"] {
        assert!(control.iter().any(|log| log.contains(channel)), "{channel}: {control:?}");
    }
    for file in
        ["/tmp/towpath-d12-a", "/tmp/towpath-d12-b", "/dev/shm/towpath-d12-a", "/dev/shm/towpath-d12-b"]
    {
        let _ = std::fs::remove_file(file);
    }
}

#[test]
fn nested_namespaces_only_where_granted() {
    let test = "nested_namespaces_only_where_granted";
    let Some(world) = World::sandboxed(test) else { return };
    let nested = "bwrap --unshare-all --ro-bind / / true 2>&1 && echo nested";
    assert_eq!(world.run(nested).outcome(), Outcome::Failed);
    let mut spec = world.spec(nested);
    spec.body.user_namespaces = true;
    assert_eq!(world.run_spec(spec).passed().log, "nested\n");
}

#[test]
fn the_sandbox_works_in_a_sandbox_that_grants_it() {
    let test = "the_sandbox_works_in_a_sandbox_that_grants_it";
    let Some(world) = World::sandboxed(test) else { return };
    let mut spec = world.with_tree(&[("x", "")], "./program try /tmp/data");
    let program = spec.base.as_ref().unwrap().join("program");
    std::fs::copy(env!("CARGO_BIN_EXE_towpath-executor-process"), program).unwrap();
    spec.body.user_namespaces = true;
    let done = world.run_spec(spec).passed();
    assert!(done.log.contains("passed: SandboxCapabilities { sandbox: Bubblewrap"), "{}", done.log);
}

#[test]
fn d20_no_userns() {
    let program = env!("CARGO_BIN_EXE_towpath-executor-process");
    let data = tempfile::tempdir().unwrap();
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" serve \"$1\"";
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", forbid, program])
        .arg(data.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip("d20_no_userns", &format!("unshare(1): {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") {
        return skip("d20_no_userns", &said);
    }
    assert!(!output.status.success());
    assert!(said.contains("no sandbox can start on this machine"), "{said}");
    assert!(said.contains("hint: `sysctl user.max_user_namespaces=15000`"), "{said}");
    assert!(!data.path().join("executor.sock").exists(), "nothing is served");
}

#[test]
fn the_sandbox_works_for_an_ordinary_user() {
    let test = "the_sandbox_works_for_an_ordinary_user";
    if !is_root() {
        return; // Then every other test shows it.
    }
    let data = tempfile::tempdir_in("/tmp").unwrap();
    let program = data.path().join("program");
    std::fs::copy(env!("CARGO_BIN_EXE_towpath-executor-process"), &program).unwrap();
    let output = std::process::Command::new("chown").args(["-R", "12345:12345"]).arg(data.path()).status();
    assert!(output.unwrap().success());
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", "12345", "--regid", "12345", "--clear-groups"])
        .arg(&program)
        .arg("try")
        .arg(data.path().join("data"))
        .env("HOME", data.path())
        .env("PATH", "/usr/bin:/bin")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(test, &format!("setpriv(1): {error}")),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{trouble}");
    assert!(said.contains("Overlay"), "{said}\n{trouble}");
    assert!(said.contains("passed"), "{said}\n{trouble}");
}
