//! Jobs that truly run now, as the kernel knows them: found by the variables that the executor gives each.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// One try of a job of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// `repo/branch/number`.
    pub run: String,
    /// The job's name.
    pub job: String,
    /// Counts from 1.
    pub attempt: u64,
}

/// Attempts that run now for a repo, each with its processes.
pub fn running(repo: &str) -> BTreeMap<Attempt, Vec<u32>> {
    let mut found: BTreeMap<Attempt, Vec<u32>> = BTreeMap::new();
    for pid in pids() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(attempt) = attempt_of(&environment, repo) {
            found.entry(attempt).or_default().push(pid);
        }
    }
    found
}

fn attempt_of(environment: &[u8], repo: &str) -> Option<Attempt> {
    let text = String::from_utf8_lossy(environment);
    let value = |name: &str| {
        let mut variables = text.split('\0').filter_map(|variable| variable.split_once('='));
        variables.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let run = value("TOWPATH_RUN").filter(|run| run.split('/').next() == Some(repo))?;
    Some(Attempt { run, job: value("TOWPATH_JOB")?, attempt: value("TOWPATH_ATTEMPT")?.parse().ok()? })
}

/// Whether a process was stopped by a signal: it cannot end before it is killed.
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state may hold anything, a bracket too.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Sends a signal to processes that may have ended.
pub fn signal<'a>(name: &str, pids: impl IntoIterator<Item = &'a u32>) {
    let pids: Vec<String> = pids.into_iter().map(ToString::to_string).collect();
    if !pids.is_empty() {
        let _ = Command::new("kill")
            .arg(format!("-{name}"))
            .args(pids)
            .stderr(std::process::Stdio::null())
            .status();
    }
}

/// Processes whose command line holds each of these words.
pub fn pids_of(words: &[&str]) -> Vec<u32> {
    let has_all = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        words.iter().all(|word| line.iter().any(|have| have == word))
    };
    pids().filter(has_all).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_read_from_the_variables_of_its_process() {
        let environment = b"PATH=/bin\0TOWPATH_RUN=kill-1/main/7\0TOWPATH_JOB=unit\0TOWPATH_ATTEMPT=2\0";
        let attempt = Attempt { run: "kill-1/main/7".into(), job: "unit".into(), attempt: 2 };
        assert_eq!(attempt_of(environment, "kill-1"), Some(attempt));
        assert_eq!(attempt_of(environment, "kill"), None);
        assert_eq!(attempt_of(b"TOWPATH_RUN=kill-1/main/7\0", "kill-1"), None);
    }

    #[test]
    fn processes_are_stopped_and_killed_by_signals() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(!is_stopped(child.id()));
        signal("STOP", [&child.id()]);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_stopped(child.id()) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        signal("KILL", [&child.id()]);
        assert!(!child.wait().unwrap().success());
    }
}
