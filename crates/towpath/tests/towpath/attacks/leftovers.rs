//! What is left of a case: its processes, mounts, groups of processes, locks and work trees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fort::Fort;
use crate::support::{processes_of, rest, within};

/// Time within which everything of a case is gone after its last run ended. Source: the list of attacks.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// Where the kernel shows groups of processes.
const GROUPS: &str = "/sys/fs/cgroup";

/// The machine's mounts, each without the numbers that differ from look to look.
pub fn mounts() -> BTreeSet<String> {
    mounts_seen_by("self")
}

/// Mounts as a process sees them. Named network namespaces are mounts too: root's `ip` makes them, for other tests.
fn mounts_seen_by(pid: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
    lines.filter(|line| !line.contains(" /run/netns")).map(str::to_owned).collect()
}

impl Fort {
    /// No process, mount, group, lock or work tree of a case is left, 2 s after the end of its last run.
    pub fn check_nothing_is_left(&self) {
        self.until("every run of the case is over", || {
            let runs = self.get("/repos/web/runs?count=50");
            let is_over = |run: &serde_json::Value| run["outcome"].is_string();
            runs.as_array().unwrap().iter().all(is_over).then_some(())
        });
        let end = Instant::now() + within(GONE_WITHIN);
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n{}", left.join("\n"));
            rest();
        }
    }

    pub fn left(&self) -> Vec<String> {
        let executor = self.executor_pid();
        let mut left = self.files_left();
        left.extend(mounts().difference(&self.mounts).map(|line| format!("mount {line}")));
        for pid in self.pids(executor) {
            let command = command_of(pid);
            let is_server = [self.server_pid(), executor].contains(&pid);
            if !is_server && !is_launcher(&command) && !is_kept_open(&command) {
                left.push(format!("process {pid}: {command}"));
            }
            // A job's tree is mounted where its launcher alone sees it.
            let jobs = self.jobs().display().to_string();
            let seen = mounts_seen_by(&pid.to_string()).into_iter();
            left.extend(
                seen.filter(|line| line.contains(&jobs)).map(|line| format!("mount of {pid}: {line}")),
            );
        }
        left.extend(groups_left(executor));
        left
    }

    fn jobs(&self) -> PathBuf {
        self.data().join("executor/executor/jobs")
    }

    fn files_left(&self) -> Vec<String> {
        let folders = [self.jobs(), self.data().join("histories")];
        let trees = folders.iter().flat_map(|folder| files_below(folder));
        let is_rest = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with("incoming-")
        };
        let rests = files_below(&self.data().join("repos")).into_iter().filter(is_rest);
        trees.chain(rests).map(|path| path.display().to_string()).collect()
    }

    pub fn executor_pid(&self) -> u32 {
        let all = processes_of(&self.data());
        let executor = all.iter().find(|process| process.words.get(1).is_some_and(|word| word == "executor"));
        executor.expect("there is an executor").pid.parse().unwrap()
    }

    /// Every process that has to do with this server: those that it and its executor started, and any that names its
    /// folder in its command, its environment, its place or its mounts, whoever is its parent by now.
    fn pids(&self, executor: u32) -> BTreeSet<u32> {
        let folder = self.world.folder().display().to_string();
        let named = |pid: &u32| {
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let texts = [read("cmdline"), read("environ"), read("mountinfo")].concat();
            link("cwd").starts_with(&folder)
                || link("exe").starts_with(&folder)
                || texts.windows(folder.len()).any(|window| window == folder.as_bytes())
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let own = std::process::id();
        let mut found: BTreeSet<u32> = all.filter(|pid| *pid != own && named(pid)).collect();
        for servant in [executor, self.server_pid()] {
            found.extend(processes_below(servant));
        }
        found
    }
}

fn command_of(pid: u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ")
}

/// The helpers that wait for the next job. They are the executor's, and belong to no job.
fn is_launcher(command: &str) -> bool {
    command.contains(" sandbox-helper ") || command.ends_with(" sandbox-helper")
}

/// The server's own git, kept open to read objects and to merge; and what is gone since it was listed.
fn is_kept_open(command: &str) -> bool {
    let is_git = command.split(' ').next().is_some_and(|program| program.ends_with("git"));
    command.is_empty() || is_git && (command.contains(" --batch-command") || command.contains(" --stdin"))
}

/// Everything that a process has started, and what that has.
fn processes_below(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
    });
    children.flat_map(|child| [vec![child], processes_below(child)].concat()).collect()
}

/// Groups of an executor that hold anything but its launchers: each slot has one, and a job none of its own.
fn groups_left(executor: u32) -> Vec<String> {
    let of_slot = format!("-{executor}-");
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_ours = |path: &Path| name(path).starts_with("towpath-") && name(path).contains(&of_slot);
    let mut left = Vec::new();
    for group in folders_below(Path::new(GROUPS)) {
        if group.parent().is_some_and(is_ours) {
            left.push(format!("group {}", group.display()));
        }
        if is_ours(&group) {
            let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let commands = members.lines().filter_map(|pid| Some(command_of(pid.parse().ok()?)));
            let others = commands.filter(|command| !command.is_empty() && !is_launcher(command));
            left.extend(others.map(|command| format!("in group {}: {command}", group.display())));
        }
    }
    left
}

fn folders_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.flat_map(|entry| [vec![entry.path()], folders_below(&entry.path())].concat()).collect()
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

/// Bytes that a process has in memory.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The control of the look itself: what a case could leave is seen.
pub fn every_rest_is_seen(fort: &Fort) {
    let sees = |what: &str| {
        let left = fort.left();
        assert!(left.iter().any(|line| line.contains(what)), "{what} is not seen: {left:?}");
    };
    assert_eq!(fort.left(), Vec::<String>::new());
    let here = fort.marker("rest");
    fs::create_dir(&here).unwrap();
    // A process whose parent is gone, and which names the folder nowhere but by where it is.
    let mut start = std::process::Command::new("sh");
    start.args(["-c", "setsid sleep 31778 &"]).current_dir(&here).env_clear().env("PATH", "/usr/bin:/bin");
    assert!(start.status().unwrap().success());
    sees("sleep 31778");
    let all = fort.pids(fort.executor_pid());
    let mine = all.into_iter().filter(|pid| command_of(*pid).ends_with("sleep 31778"));
    mine.for_each(|pid| drop(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()));
    for file in [fort.bare().join("refs/heads/main.lock"), fort.jobs().join("rest")] {
        fs::write(&file, "").unwrap();
        sees(&file.display().to_string());
        fs::remove_file(&file).unwrap();
    }
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "rest"]).arg(&here).output().unwrap();
    if mount.status.success() {
        let seen = std::panic::catch_unwind(|| sees("- tmpfs rest"));
        assert!(std::process::Command::new("umount").arg(&here).status().unwrap().success());
        assert!(seen.is_ok(), "a mount is not seen");
    }
    fs::remove_dir(&here).unwrap();
    fort.check_nothing_is_left();
}
