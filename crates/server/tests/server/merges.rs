//! Changes that git cannot merge in its time: what becomes of them, and that nobody else waits for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use towpath_git::GitOptions;

use crate::client::Ask;
use crate::world::{World, git};

const LANDS_UNTESTED: &str = "gate: { empty: land }\njobs:\n  by-hand: { on: [manual], run: 'true' }\n";
/// Changes of `slow`: more than there are threads of any kind.
const CHANGES: u64 = 20;

/// A git that merges nothing of the repo `slow`: it says so in `begun`, and hangs at `held` unless there is `released`.
fn hanging(folder: &Path) -> GitOptions {
    let [begun, held, released, draft, program] =
        ["begun", "held", "released", "draft", "git"].map(|name| folder.join(name));
    assert!(Command::new("mkfifo").arg(&held).status().unwrap().success());
    let real = ["/usr/bin/git", "/usr/local/bin/git"].into_iter().find(|path| Path::new(path).is_file());
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *slow.git*merge-tree*) echo merge >> {}; [ -e {} ] || exec cat {};; esac\nexec {} \"$@\"\n",
        begun.display(),
        released.display(),
        held.display(),
        real.unwrap()
    );
    fs::write(&draft, script).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    // Not written by this process: it may have a file that it wrote still open in a child that another test just starts.
    assert!(Command::new("cp").arg(&draft).arg(&program).status().unwrap().success());
    GitOptions { program: Some(program), ..GitOptions::default() }
}

/// Imports `slow` with a branch for each change, and opens them.
fn open_slow(world: &World, source: &Path, changes: u64) {
    for number in 1..=changes {
        git(source, &["checkout", "--quiet", "-b", &format!("topic-{number}"), "main"]);
        fs::write(source.join("topic"), format!("{number}\n")).unwrap();
        git(source, &["add", "."]);
        git(source, &["commit", "--quiet", "-m", "Add a topic"]);
    }
    git(source, &["checkout", "--quiet", "main"]);
    world.ada(Ask::post("/api/v1/import", json!({ "repo": "slow", "path": source.to_str().unwrap() }))).ok();
    for number in 1..=changes {
        let open = Ask::post("/api/v1/repos/slow/changes", json!({ "source": format!("topic-{number}") }));
        assert_eq!(world.ada(open).ok()["change"], number);
    }
}

fn why(world: &World, number: u64) -> Vec<Value> {
    let path = format!("/api/v1/repos/slow/changes/{number}/why");
    world.ada(Ask::get(&path)).ok()["reasons"].as_array().unwrap().clone()
}

fn is(reason: &str) -> impl Fn(&Value) -> bool {
    move |given| given["reason"] == reason
}

#[test]
fn a_change_that_git_cannot_merge_in_its_time_is_told_so_and_tried_again_once_it_has_moved() {
    let folder = TempDir::new().unwrap();
    let options = GitOptions { merge_deadline: Duration::from_millis(200), ..hanging(folder.path()) };
    let world = World::bare_with_git(options);
    let source = world.source(LANDS_UNTESTED);
    open_slow(&world, &source, 1);
    let merges = || fs::read_to_string(folder.path().join("begun")).unwrap().lines().count();
    world.until(|world| why(world, 1).iter().any(is("too_slow")));
    let told = why(&world, 1);
    let told = told.iter().find(|given| is("too_slow")(given)).unwrap();
    let text = "git could not merge it within 0.2 s: bring it up to date with its target (rebase or merge), or make it smaller";
    assert!(told["text"].to_string().contains(text), "{told}");
    // Each try is a merge, and before the first one comes a look at what this git can do.
    let tried = merges();
    let act = |verb: &str, body| {
        world.ada(Ask::post(&format!("/api/v1/repos/slow/changes/1/{verb}"), body)).ok();
    };
    act("comment", json!({ "text": "why?" }));
    act("label", json!({ "add": ["WIP"] }));
    let told = why(&world, 1);
    assert!(told.iter().any(is("too_slow")) && !told.iter().any(is("making_candidate")), "{told:?}");
    assert_eq!(merges(), tried);
    act("edit", json!({ "title": "Other words", "body": "" }));
    assert_eq!(merges(), tried);
    let revision = world.ada(Ask::get("/api/v1/repos/slow/changes/1")).ok()["revision"].clone();
    act("retry", json!({ "revision": revision }));
    world.until(|world| why(world, 1).iter().any(is("too_slow")) && merges() == tried + 2);
}

#[test]
fn nobody_waits_for_the_merges_of_another_repo() {
    let folder = TempDir::new().unwrap();
    let world = World::with_git(hanging(folder.path()), LANDS_UNTESTED);
    open_slow(&world, &world.folder.path().join("source"), CHANGES);
    let act = |verb: &str, body| {
        world.ada(Ask::post(&format!("/api/v1/repos/demo/changes/1/{verb}"), body)).ok();
    };
    // Another candidate, readings and a landing.
    act("edit", json!({ "title": "Other words", "body": "" }));
    let revision = world.change(1)["revision"].clone();
    world.by("mia", Ask::post("/api/v1/repos/demo/changes/1/approve", json!({ "revision": revision }))).ok();
    world.until(|world| world.change(1)["state"] == "landed");
    assert!((1..=CHANGES).all(|number| why(&world, number).iter().any(is("making_candidate"))));

    // The one that hangs is not done; it is asked for again, and the others after it.
    fs::write(folder.path().join("released"), "").unwrap();
    let (released, is_released) = channel();
    let held = folder.path().join("held");
    std::thread::spawn(move || released.send(fs::write(held, "")));
    is_released.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    world.until(|world| !(1..=CHANGES).any(|number| why(world, number).iter().any(is("making_candidate"))));
}
