//! A folder with a home, a repository, and the program in it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program under test.
pub const TOWPATH: &str = env!("CARGO_BIN_EXE_towpath");

pub struct World {
    folder: TempDir,
}

/// What a command left.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl World {
    /// A repository with one commit of these files.
    pub fn with(files: &[(&str, &str)]) -> World {
        World::below(&std::env::temp_dir(), files)
    }

    /// The same, in a folder of somebody's.
    pub fn below(parent: &Path, files: &[(&str, &str)]) -> World {
        let world = World { folder: TempDir::new_in(parent).unwrap() };
        std::fs::create_dir_all(world.home()).unwrap();
        std::fs::create_dir_all(world.work()).unwrap();
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        files.iter().for_each(|(path, text)| world.write(path, text));
        world.git(&["add", "--all"]);
        world.git(&["commit", "--quiet", "--allow-empty", "--message=first"]);
        world
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let names = ["user.name=Ann", "user.email=ann@example.org"];
        let mut command = self.command("git");
        command.args(names.iter().flat_map(|name| ["-c", name])).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command in the repository, with a home of its own and nothing else of the person who runs the tests but the
    /// way to their toolchains.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.work()).env("HOME", self.home()).env("GIT_CONFIG_NOSYSTEM", "1");
        for name in [
            "NO_COLOR",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "TOWPATH_URL",
            "TOWPATH_TOKEN",
            "TOWPATH_DATA",
            "TOWPATH_KEYS",
            "TOWPATH_LISTEN",
        ] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn towpath(&self, arguments: &[&str]) -> Ended {
        ended(self.command(TOWPATH).args(arguments).output().unwrap())
    }

    /// The objects that a command prints.
    pub fn records(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let ended = self.towpath(&[arguments, &["--json"]].concat());
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Time for what follows from a push, a signal or a start on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Looks until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
        rest();
    }
}

/// Between two looks, so that waiting takes no time from what is waited for.
pub fn rest() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// How long something may take that the list of attacks gives a time for: that time under `cargo xtask attacks`, which runs
/// them to measure it, and far more beside everything else that tests do.
pub fn within(listed: Duration) -> Duration {
    match std::env::var_os("TOWPATH_LISTED_TIMES") {
        Some(_) => listed,
        None => listed * 30,
    }
}

/// An address of this machine that no other test is given, and that a server finds free again after it was ended.
pub fn own_address() -> String {
    let own = towpath_server::ports::own_address(Ipv4Addr::LOCALHOST.into());
    own.expect("a port is free").to_string()
}

/// A copy of the program that can be started at once. A file that this process wrote may still be open for writing in a child
/// that another test is just starting, and is refused as busy then.
pub fn copy_program(to: &Path) {
    assert!(Command::new("cp").arg(TOWPATH).arg(to).status().unwrap().success());
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// Code and both streams as one text, spans of time left out.
    pub fn shown(&self) -> String {
        format!("{}{}exit {}\n", without_spans(&self.out), without_spans(&self.err), self.code)
    }
}

/// `1.2 s`, `40 ms` and `1 min 05 s` become `TIME`.
fn without_spans(text: &str) -> String {
    let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '.') && !word.is_empty();
    let line = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let unit = word.trim_end_matches([';', ',', ')']);
            match words.last_mut() {
                Some(last) if matches!(unit, "s" | "ms" | "min") && is_number(last) => {
                    *last = word.replacen(unit, "TIME", 1);
                }
                _ => words.push(word.to_owned()),
            }
        }
        words.join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

/// Whether jobs can be boxed in here; a test that needs it says so and is skipped where they cannot.
pub fn has_sandbox(test: &str) -> bool {
    let world = World::with(&[]);
    let doctor = world.towpath(&["doctor", "--quick"]);
    if doctor.code != 0 {
        println!("SKIP {test}: no sandbox can start here: {}", doctor.out);
    }
    doctor.code == 0
}

/// A process of this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: String,
    pub words: Vec<String>,
}

/// Every process whose environment or command names a folder.
pub fn processes_of(folder: &Path) -> Vec<Process> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let about = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let command = about("cmdline");
        let bytes = [command.as_slice(), &about("environ")].concat();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            let words = command.split(|byte| *byte == 0);
            let words = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            found.push(Process { pid: entry.file_name().into_string().unwrap(), words });
        }
    }
    found
}

/// Servers, their stewards and executors, whose folders are below `folder`.
pub fn servants(folder: &Path) -> Vec<Process> {
    let serves = |process: &Process| {
        process.words.get(1).is_some_and(|word| ["serve", "executor", "steward"].contains(&word.as_str()))
    };
    processes_of(folder).into_iter().filter(serves).collect()
}

/// Ends them: another process may serve by now, and executors live on by design; a test's have to end with it.
pub fn stop_servants(folder: &Path) {
    let is_executor = |process: &Process| process.words[1] == "executor";
    let stop = |process: Process| {
        // It fails only if it is gone already.
        let _ = Command::new("kill").args(["-TERM", &process.pid]).status();
    };
    // Servers first: one that lives starts its executor's successor.
    servants(folder).into_iter().filter(|process| !is_executor(process)).for_each(stop);
    let end = Instant::now() + PATIENCE;
    while !servants(folder).iter().all(is_executor) && Instant::now() < end {
        rest();
    }
    servants(folder).into_iter().for_each(stop);
}
