//! What holds after every attack, whatever it did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use super::canaries::Search;
use super::fort::{Fort, plain_git};
use super::holding::Stamp;
use super::leftovers::files_below;
use super::wire::Ask;

/// Bytes of one file that are searched at once.
const FILE_BYTES_MAX: u64 = 256 << 20;

impl Fort {
    pub fn check_aftermath(&self, case: &str) {
        self.check_nothing_is_left();
        self.check_an_honest_change_lands(case);
        self.check_every_tip_was_tested();
        self.check_repository_and_log();
        self.check_no_canary_is_out();
    }

    /// (1) A canary change that the author pushes afterwards still lands, and what runs on landing does.
    pub fn check_an_honest_change_lands(&self, case: &str) {
        let branch = format!("canary-{}", case[..3].to_lowercase());
        let (_, number) = self.push("ann", &branch, &[("canary", &format!("after {case}\n"))]);
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
        let failed = self.run(&run)["jobs"].to_string();
        assert!(failed.contains("with ***"), "its report is read, without the secret: {failed}");
    }

    /// (2) For every tip that `main` has had, a run in which each job that the commit before it requires has passed, on
    /// that very commit or on the same files.
    fn check_every_tip_was_tested(&self) {
        let tips = self.in_bare(&["rev-list", "--first-parent", "refs/heads/main"]);
        let tips: Vec<&str> = tips.lines().collect();
        let passed = self.passed_jobs_by_tree();
        let foreign = self.foreign.lock().unwrap().clone();
        let leaves = self.get("/audit/leaves?count=500").to_string();
        let mut seen = self.seen.lock().unwrap();
        for pair in tips.windows(2) {
            let [tip, parent] = pair else { unreachable!() };
            if !seen.tips.insert((*tip).to_owned()) {
                break;
            }
            assert!(leaves.contains(tip), "no leaf of the audit log tells of tip {tip}");
            if foreign.contains(&(*tip).to_owned()) {
                continue;
            }
            let tree = self.in_bare(&["rev-parse", &format!("{tip}^{{tree}}")]);
            let required = self.required_at(parent);
            let covers = |jobs: &BTreeSet<String>| {
                required.iter().all(|job| jobs.contains(job) || jobs.contains(&format!("{job}@target")))
            };
            let runs = passed.get(&tree).map(Vec::as_slice).unwrap_or_default();
            assert!(runs.iter().any(covers), "tip {tip} lacks one of {required:?}: it has {runs:?}");
        }
    }

    /// Jobs that passed, for each run, by the tree that it ran on.
    fn passed_jobs_by_tree(&self) -> BTreeMap<String, Vec<BTreeSet<String>>> {
        let mut seen = self.seen.lock().unwrap();
        for line in self.all_runs("web").iter().filter(|line| line["outcome"].is_string()) {
            let name = line["run"].as_str().unwrap();
            if seen.runs.contains_key(name) {
                continue;
            }
            let run = self.run(&line["run"]);
            let jobs = run["jobs"].as_array().unwrap().iter();
            let passed = jobs.filter(|job| job["outcome"] == "passed" && job["unsandboxed"] == false);
            let passed = passed.map(|job| job["name"].as_str().unwrap().to_owned()).collect();
            let tree =
                self.in_bare(&["rev-parse", &format!("{}^{{tree}}", line["commit"].as_str().unwrap())]);
            seen.runs.insert(name.to_owned(), (tree, passed));
        }
        let mut found: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
        for (tree, passed) in seen.runs.values() {
            found.entry(tree.clone()).or_default().push(passed.clone());
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
    pub fn check_repository_and_log(&self) {
        let fsck = self.in_bare(&["fsck", "--full", "--strict", "--no-dangling"]);
        assert!(!fsck.contains("missing") && !fsck.contains("error"), "{fsck}");
        let data = self.data().display().to_string();
        let verify = self.world.towpath(&["audit", "verify", "--data", &data]);
        self.heard.keep("towpath audit verify", verify.out.as_bytes());
        assert_eq!(verify.code, 0, "{}{}", verify.out, verify.err);
    }

    /// (4) No canary is in what anybody was told, nor in the data folder, in any form.
    pub fn check_no_canary_is_out(&self) {
        self.ask_for_everything();
        let search = self.canaries.search();
        let mut seen = self.seen.lock().unwrap();
        let words = self.heard.since(seen.words);
        seen.words += words.len();
        let mut found = Vec::new();
        for (from, bytes) in words {
            found.extend(search.found_in(&bytes).into_iter().map(|canary| format!("{canary} in {from}")));
        }
        // The vault's own repository holds its secret, and nothing else may.
        let own = self.data().join("repos/vault.git");
        for path in files_below(&self.data()).iter().filter(|path| !path.starts_with(&own)) {
            let Some(stamp) = stamp(path).filter(|stamp| seen.files.get(path) != Some(stamp)) else {
                continue;
            };
            found.extend(search_file(&search, path));
            seen.files.insert(path.clone(), stamp);
        }
        assert!(found.is_empty(), "canaries are out:\n{}", found.join("\n"));
    }

    /// The same for what is packed: git's objects, of the repositories that do not hold the vault's secret.
    pub fn check_no_object_holds_a_canary(&self) {
        let search = self.canaries.search();
        for repo in ["web", "other"] {
            let repository = self.data().join(format!("repos/{repo}.git"));
            let all = ["--git-dir=.", "cat-file", "--batch", "--batch-all-objects", "--buffer"];
            let output = plain_git(&repository, &all).output().unwrap();
            assert!(output.status.success() && output.stdout.len() > 100);
            assert_eq!(search.found_in(&output.stdout), BTreeSet::new(), "in the objects of {repo}");
        }
    }

    /// Every page and every answer about what is new since the last look, as the one sees them who may see most of it.
    fn ask_for_everything(&self) {
        let mut paths: Vec<String> =
            ["/me", "/users", "/tokens", "/secrets", "/repos", "/audit/checkpoint", "/doctor"]
                .map(|path| format!("/api/v1{path}"))
                .to_vec();
        paths.extend(["/metrics", "/openapi.json", "/api/v1/audit/leaves?count=500"].map(str::to_owned));
        for below in ["", "/settings", "/people", "/secrets", "/branches/main", "/changes?state=all"] {
            paths.push(format!("/api/v1/repos/web{below}"));
        }
        let mut pages = vec!["/".to_owned(), "/web/branches/main".to_owned()];
        for number in self.new_changes() {
            paths.push(format!("/api/v1/repos/web/changes/{number}"));
            paths.push(format!("/api/v1/repos/web/changes/{number}/why"));
            pages.push(format!("/web/changes/{number}"));
        }
        for run in self.new_runs() {
            let name = run.as_str().unwrap().replacen("web/", "", 1);
            pages.push(format!("/web/runs/{name}"));
            for job in self.run(&run)["jobs"].as_array().unwrap() {
                let job = format!("runs/{name}/jobs/{}", job["index"]);
                pages.push(format!("/web/{job}"));
                let below = ["log?lines=10000", "first-error", "artifacts"];
                paths.extend(below.map(|below| format!("/api/v1/repos/web/{job}/{below}")));
            }
        }
        paths.iter().for_each(|path| drop(self.send("ada", Ask::new("GET", path))));
        // A restore has ended the sessions from before it.
        let session = self.log_in(&format!("token={}", self.token("ada")));
        for page in pages {
            let got = Ask::new("GET", &page).with("cookie", &session).send(&self.host, &self.heard);
            assert!(!matches!(got.status, 303 | 401 | 403 | 500), "{page}: {}", got.head);
        }
        for name in ["stranger", "nobody"] {
            self.ask(name, "GET", "/repos/web", &json!({}));
        }
    }

    fn new_changes(&self) -> Vec<u64> {
        let all = self.get("/repos/web/changes?state=all");
        let numbers = all.as_array().unwrap().iter().filter_map(|change| change["change"].as_u64());
        let mut seen = self.seen.lock().unwrap();
        numbers.filter(|number| seen.changes.insert(*number)).collect()
    }

    fn new_runs(&self) -> Vec<Value> {
        let all = self.all_runs("web").into_iter().filter(|run| run["outcome"].is_string());
        let mut seen = self.seen.lock().unwrap();
        let is_new = |run: &Value| seen.asked.insert(run.as_str().unwrap().to_owned());
        all.map(|run| run["run"].clone()).filter(is_new).collect()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = path.symlink_metadata().ok().filter(|meta| meta.is_file())?;
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    Some((meta.ino(), meta.len(), times))
}

fn search_file(search: &Search, path: &Path) -> Vec<String> {
    let bytes = match path.symlink_metadata() {
        Ok(meta) if meta.len() <= FILE_BYTES_MAX => fs::read(path).unwrap_or_default(),
        _ => Vec::new(),
    };
    search.found_in(&bytes).iter().map(|canary| format!("{canary} in {}", path.display())).collect()
}
