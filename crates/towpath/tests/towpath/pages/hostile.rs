//! Repositories to look at: one whose every word tries to be markup (F07), and one whose job talks for a while.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::place::Place;

/// What a title, a body, a comment, a test's name and a log say. Any of it that came to life would call `boom`.
pub const MARKUP: &str = "</pre></code><script>window.boom=1;alert(1)</script><svg onload=\"window.boom=1\"> \
    <img src=x onerror='window.boom=1'> \" onfocus=\"window.boom=1\" autofocus=\" {{7*7}} {% raw %} &lt;script&gt;";

/// A label as far as labels go.
const LABEL: &str = "{{7*7}}";
/// A branch as far as git goes.
const BRANCH: &str = "x-{{7}}-javascript";

const PIPELINE: &str = "\
gate: { approvals: 1 }
jobs:
  unit:
    run: sh test.sh
    reports: { junit: junit.xml }
";

/// Imports the repository and pushes the change; it is change 1 of `xss`.
pub fn change(place: &Place, folder: &Path) {
    let work = folder.join("xss");
    std::fs::create_dir(&work).unwrap();
    git(&work, place, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(work.join("towpath.yaml"), PIPELINE).unwrap();
    std::fs::write(work.join("test.sh"), "true\n").unwrap();
    commit(&work, place, "Begin");
    place.api("POST", "/import", &json!({ "repo": "xss", "path": work }));
    git(&work, place, &["checkout", "--quiet", "-b", BRANCH]);
    std::fs::write(
        work.join("log.txt"),
        format!("\u{1b}[31merror: {MARKUP}\u{1b}[0m\n\u{1b}]8;;file:///x\u{7}link\n"),
    )
    .unwrap();
    std::fs::write(work.join("test.sh"), "cat log.txt; cp report.xml junit.xml; exit 1\n").unwrap();
    std::fs::write(work.join("report.xml"), report()).unwrap();
    commit(&work, place, &format!("{MARKUP}\n\n{MARKUP}\njavascript:alert(1)"));
    git(&work, place, &["push", "--quiet", &format!("{}/xss.git", place.url), "HEAD", "-o", "change"]);
    place.api("POST", "/repos/xss/changes/1/comment", &json!({ "text": MARKUP }));
    place.api("POST", "/repos/xss/changes/1/label", &json!({ "add": [LABEL] }));
}

/// Imports a repository and pushes a change whose job writes a line, again and again; it is change 1 of `talk`.
pub fn talker(place: &Place, folder: &Path) {
    let work = folder.join("talk");
    std::fs::create_dir(&work).unwrap();
    git(&work, place, &["init", "--quiet", "--initial-branch=main"]);
    let steps = "i=0; while :; do i=$((i + 1)); printf '\\033[32mline %s\\033[0m\\n' $i; sleep 0.1; done";
    std::fs::write(work.join("talk.sh"), steps).unwrap();
    std::fs::write(work.join("towpath.yaml"), "jobs:\n  unit:\n    run: sh talk.sh\n").unwrap();
    commit(&work, place, "Begin");
    place.api("POST", "/import", &json!({ "repo": "talk", "path": work }));
    git(&work, place, &["checkout", "--quiet", "-b", "more"]);
    std::fs::write(work.join("more"), "more\n").unwrap();
    commit(&work, place, "Say more");
    git(&work, place, &["push", "--quiet", &format!("{}/talk.git", place.url), "HEAD", "-o", "change"]);
}

/// A test report in which the name of what failed is markup.
fn report() -> String {
    let name = MARKUP.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    format!(
        "<testsuite name=\"s\"><testcase classname=\"c\" name=\"{name}\"><failure message=\"{name}\"/></testcase></testsuite>\n"
    )
}

fn commit(work: &Path, place: &Place, message: &str) {
    git(work, place, &["add", "--all"]);
    git(work, place, &["commit", "--quiet", "--message", message]);
}

fn git(work: &Path, place: &Place, words: &[&str]) {
    let header = format!("Authorization: Basic {}", STANDARD.encode(format!("ada:{}", place.token)));
    let output = Command::new("git")
        .args(words)
        .current_dir(work)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "http.extraHeader")
        .env("GIT_CONFIG_VALUE_0", header)
        .envs(["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
            let name = "javascript:alert(1) \" onload=\"window.boom=1\" {{7*7}} x";
            [(format!("GIT_{who}_NAME"), name), (format!("GIT_{who}_EMAIL"), "x\"onload=\"boom@example.org")]
        }))
        .output()
        .unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
