//! What holds after every attack, whatever it did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::canaries::Search;
use super::fort::Fort;
use super::wire::Ask;

/// Time within which everything of a job is gone after its end. The list of attacks says 2 s, of a machine that does
/// nothing else.
const GONE_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of one file that are searched at once.
const FILE_BYTES_MAX: u64 = 256 << 20;

impl Fort {
    pub fn check_aftermath(&self) {
        self.check_an_honest_change_lands();
        self.check_every_tip_was_tested();
        self.check_repository_and_log();
        self.check_nothing_is_left();
        self.check_no_canary_is_out();
    }

    /// (1) A canary change that the author pushes afterwards still lands, and what runs on landing does.
    fn check_an_honest_change_lands(&self) {
        let (_, number) = self.push("ann", "canary", &[("canary", "canary\n")]);
        assert_eq!(self.tested(number), "passed", "{}", self.log(number, "unit"));
        assert_eq!(self.approve("mia", number).status, 200);
        let commit = self.landed(number);
        let signed =
            |run: &Value| run["trigger"] == "land" && run["commit"] == *commit && run["outcome"] == "passed";
        let run = self.until("what runs on landing", || {
            let runs = self.get("/repos/web/runs?count=20");
            runs.as_array().unwrap().iter().find(|run| signed(run)).map(|run| run["run"].clone())
        });
        let log = self.log_of(run.as_str().unwrap(), "sign");
        assert!(log.contains("***"), "the landed job has the secret, and its log has not: {log}");
    }

    /// (2) For every tip that `main` has had, a run in which each job that the commit before it requires has passed, on
    /// that very commit or on the same files.
    fn check_every_tip_was_tested(&self) {
        let tips = self.in_bare(&["rev-list", "--first-parent", "refs/heads/main"]);
        let tips: Vec<&str> = tips.lines().collect();
        let passed = self.passed_jobs_by_tree();
        let foreign = self.foreign.lock().unwrap().clone();
        for pair in tips.windows(2).filter(|pair| !foreign.contains(&pair[0].to_owned())) {
            let [tip, parent] = pair else { unreachable!() };
            let tree = self.in_bare(&["rev-parse", &format!("{tip}^{{tree}}")]);
            let required = self.required_at(parent);
            let covers = |jobs: &BTreeSet<String>| {
                required.iter().all(|job| jobs.contains(job) || jobs.contains(&format!("{job}@target")))
            };
            let runs = passed.get(&tree).map(Vec::as_slice).unwrap_or_default();
            assert!(runs.iter().any(covers), "tip {tip} lacks one of {required:?}: it has {runs:?}");
        }
        let leaves = self.get("/audit/leaves?count=500").to_string();
        for tip in &tips[..tips.len() - 1] {
            assert!(leaves.contains(tip), "no leaf of the audit log tells of tip {tip}");
        }
    }

    /// Jobs that passed, for each run, by the tree that it ran on.
    fn passed_jobs_by_tree(&self) -> BTreeMap<String, Vec<BTreeSet<String>>> {
        let mut found: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
        for line in self.all_runs("web") {
            let run = self.run(&line["run"]);
            let jobs = run["jobs"].as_array().unwrap().iter();
            let passed = jobs.filter(|job| job["outcome"] == "passed" && job["unsandboxed"] == false);
            let passed = passed.map(|job| job["name"].as_str().unwrap().to_owned()).collect();
            let tree =
                self.in_bare(&["rev-parse", &format!("{}^{{tree}}", line["commit"].as_str().unwrap())]);
            found.entry(tree).or_default().push(passed);
        }
        found
    }

    pub fn all_runs(&self, repo: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map(|run| format!("&after={}", run["run"].as_str().unwrap()));
            let page = self.get(&format!("/repos/{repo}/runs?count=50{}", after.unwrap_or_default()));
            let page = page.as_array().unwrap();
            all.extend_from_slice(page);
            if page.len() < 50 {
                return all;
            }
        }
    }

    /// Names of the jobs that a commit's file requires, by reading it as these tests write it: a job a line.
    fn required_at(&self, commit: &str) -> Vec<String> {
        let text = self.in_bare(&["show", &format!("{commit}:towpath.yaml")]);
        let jobs = text.lines().skip_while(|line| *line != "jobs:").skip(1);
        let jobs = jobs.filter_map(|line| {
            line.strip_prefix("  ")?.split_once(": ").filter(|(name, _)| !name.starts_with(' '))
        });
        let required = jobs.filter(|(_, body)| !body.contains("on: [") && !body.contains("required: false"));
        required.map(|(name, _)| name.to_owned()).collect()
    }

    /// (3) Repository and audit log are whole.
    fn check_repository_and_log(&self) {
        let fsck = self.in_bare(&["fsck", "--full", "--strict", "--no-dangling"]);
        assert!(!fsck.contains("missing") && !fsck.contains("error"), "{fsck}");
        let data = self.data().display().to_string();
        let verify = self.world.towpath(&["audit", "verify", "--data", &data]);
        self.heard.keep("towpath audit verify", verify.out.as_bytes());
        assert_eq!(verify.code, 0, "{}{}", verify.out, verify.err);
    }

    /// (4) No canary is in what anybody was told, nor in the data folder, in any form.
    fn check_no_canary_is_out(&self) {
        self.ask_for_everything();
        let search = self.canaries.search();
        let mut found = Vec::new();
        for (from, bytes) in self.heard.all() {
            found.extend(search.found_in(&bytes).into_iter().map(|canary| format!("{canary} in {from}")));
        }
        // The vault's own repository holds its secret, and nothing else may.
        let own = self.data().join("repos/vault.git");
        search_folder(&search, &self.data(), &own, &mut found);
        assert!(found.is_empty(), "canaries are out:\n{}", found.join("\n"));
    }

    /// Every page and every answer about what the cases made, as the one sees them who may see most of it.
    fn ask_for_everything(&self) {
        let mut paths: Vec<String> =
            ["/me", "/users", "/tokens", "/secrets", "/repos", "/audit/checkpoint", "/doctor"]
                .map(|path| format!("/api/v1{path}"))
                .to_vec();
        paths.extend(["/metrics", "/openapi.json", "/api/v1/audit/leaves?count=500"].map(str::to_owned));
        for below in ["", "/settings", "/people", "/secrets", "/branches/main", "/changes?state=all"] {
            paths.push(format!("/api/v1/repos/web{below}"));
        }
        for change in self.get("/repos/web/changes?state=all").as_array().unwrap() {
            paths.push(format!("/api/v1/repos/web/changes/{}", change["change"]));
            paths.push(format!("/api/v1/repos/web/changes/{}/why", change["change"]));
        }
        for line in self.all_runs("web") {
            for job in self.run(&line["run"])["jobs"].as_array().unwrap() {
                let run = line["run"].as_str().unwrap().replacen("web/", "", 1);
                let job = format!("/api/v1/repos/web/runs/{run}/jobs/{}", job["index"]);
                for below in ["log?lines=10000", "first-error", "artifacts"] {
                    paths.push(format!("{job}/{below}"));
                }
            }
        }
        for path in paths {
            self.send("ada", Ask::new("GET", &path));
        }
        for name in ["stranger", "nobody"] {
            self.ask(name, "GET", "/repos/web", &json!({}));
        }
    }

    /// (5) No process, mount, lock or work tree of a case is left.
    fn check_nothing_is_left(&self) {
        let end = Instant::now() + GONE_WITHIN;
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n{}", left.join("\n"));
            std::thread::yield_now();
        }
    }

    fn left(&self) -> Vec<String> {
        let executor = self.data().join("executor");
        let mut left = Vec::new();
        for folder in [executor.join("executor/jobs"), self.data().join("histories")] {
            left.extend(files_below(&folder).iter().map(|path| path.display().to_string()));
        }
        let repos = files_below(&self.data().join("repos")).into_iter();
        let is_rest = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with("incoming-")
        };
        left.extend(repos.filter(is_rest).map(|path| path.display().to_string()));
        left.extend(processes_below(self.executor_pid()).into_iter().filter(|line| !is_launcher(line)));
        left
    }

    fn executor_pid(&self) -> u32 {
        let is_executor =
            |process: &&crate::support::Process| process.words.get(1).is_some_and(|word| word == "executor");
        let all = crate::support::processes_of(&self.data());
        all.iter().find(is_executor).expect("there is an executor").pid.parse().unwrap()
    }
}

/// The helpers that wait for the next job. They are the executor's, and belong to no job.
fn is_launcher(line: &str) -> bool {
    line.contains(" sandbox-helper ")
        || line.ends_with(" sandbox-helper")
        || line.contains("slirp4netns --version")
}

/// Commands of everything that a process has started, and what that has.
fn processes_below(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
    });
    let mut found = Vec::new();
    for child in children.collect::<Vec<u32>>() {
        let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        found.push(String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " "));
        found.extend(processes_below(child));
    }
    found
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
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

fn search_folder(search: &Search, folder: &Path, except: &Path, found: &mut Vec<String>) {
    for path in files_below(folder).iter().filter(|path| !path.starts_with(except)) {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_file() && meta.len() <= FILE_BYTES_MAX {
            let bytes = fs::read(path).unwrap_or_default();
            found.extend(
                search.found_in(&bytes).iter().map(|canary| format!("{canary} in {}", path.display())),
            );
        }
    }
}
