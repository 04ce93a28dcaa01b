//! What is asked after an act at the forge is answered with the act in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use towpath_core::gate::Reason;
use towpath_core::ids::{ChangeNumber, GateId, Timestamp};
use towpath_store::Tx;

use crate::client::Ask;
use crate::git::{clone, said};
use crate::world::{World, git};

/// Rounds of acts and questions: an answer from before an act came in about half of them.
const ROUNDS: usize = 10;

fn act(world: &World, name: &str, verb: &str, input: Value) -> String {
    let done = world.by(name, Ask::post(&format!("/api/v1/repos/demo/changes/1/{verb}"), input)).ok();
    done["said"].as_str().unwrap().to_owned()
}

#[track_caller]
fn check(world: &World, reason: &str, expected: bool) {
    let why = world.why(1);
    assert_eq!(why.iter().any(|found| found == reason), expected, "{reason}: {why:?}");
    let gate = world.change(1)["gate"].clone();
    let items = gate["checklist"].as_array().unwrap().iter();
    let against = items.filter(|item| item["why"].to_string().contains(&format!("\"{reason}\"")));
    assert_eq!(against.count() > 0, expected, "{reason}: {gate}");
}

#[test]
fn whoever_acts_is_answered_when_the_gate_knows() {
    let world = World::new();
    let revision = world.change(1)["revision"].clone();
    for _ in 0..ROUNDS {
        act(&world, "ann", "draft", json!({}));
        check(&world, "draft", true);
        act(&world, "ann", "ready", json!({}));
        check(&world, "draft", false);
        act(&world, "mia", "approve", json!({ "revision": revision }));
        check(&world, "approvals", false);
        act(&world, "mia", "withdraw", json!({}));
        check(&world, "approvals", true);
        act(&world, "ann", "label", json!({ "add": ["WIP"] }));
        check(&world, "label", true);
        act(&world, "ann", "label", json!({ "remove": ["WIP"] }));
        check(&world, "label", false);
        act(&world, "ann", "close", json!({}));
        assert!(world.change(1)["gate"].is_null() && world.why(1).is_empty());
        act(&world, "ann", "reopen", json!({}));
        check(&world, "approvals", true);
    }
}

#[test]
fn whoever_gives_or_takes_a_right_is_answered_when_the_gate_knows() {
    let world = World::new();
    let revision = world.change(1)["revision"].clone();
    act(&world, "mia", "approve", json!({ "revision": revision }));
    let role =
        |role: &str| world.ada(Ask::put("/api/v1/repos/demo/people/mia", json!({ "role": role }))).ok();
    for _ in 0..ROUNDS {
        role("author");
        check(&world, "approvals", true);
        role("maintainer");
        check(&world, "approvals", false);
    }
}

#[test]
fn a_gate_hears_of_a_right_that_was_taken_whatever_became_of_its_settings() {
    let world = World::new();
    let revision = world.change(1)["revision"].clone();
    act(&world, "mia", "approve", json!({ "revision": revision }));
    check(&world, "approvals", false);
    let spoil = |tx: &mut Tx<'_>| {
        let repo = tx.repo(&"demo".parse().unwrap())?.unwrap();
        tx.replace_repo_settings(&repo.name, (&repo.settings, "spoilt"))
    };
    world.shared.store.writer().write(spoil).unwrap();
    world.ada(Ask::put("/api/v1/repos/demo/people/mia", json!({ "role": "author" }))).ok();
    let gate: GateId = "demo/main".parse().unwrap();
    let reasons = world.shared.engine.gate(gate, |live| live.state.reasons(ChangeNumber(1), Timestamp(0)));
    let reasons = world.runtime.block_on(reasons).unwrap();
    assert!(reasons.iter().any(|reason| matches!(reason, Reason::Approvals { .. })), "{reasons:?}");
}

#[test]
fn what_is_opened_is_known_to_its_gate() {
    let world = World::new();
    for (who, number) in [("bob", 2), ("mia", 3), ("ada", 4)] {
        let open = Ask::post("/api/v1/repos/demo/changes", json!({ "source": "feature" }));
        let opened = world.by(who, open).ok();
        assert_eq!((&opened["change"], &opened["notes"]), (&json!(number), &json!([])));
        assert!(world.change(number)["gate"].is_object());
    }
}

/// A push may bring new words alone: nothing else of the change tells an old reading from a new one.
#[test]
fn a_push_of_words_is_answered_when_the_gate_knows_them() {
    let world = World::new();
    let folder = clone(&world, "ann").unwrap();
    git(&folder, &["checkout", "--quiet", "feature"]);
    let revision = world.change(1)["revision"].clone();
    for round in 0..ROUNDS {
        act(&world, "mia", "approve", json!({ "revision": revision }));
        let body = format!("body=Words of round {round}");
        let pushed = git(&folder, &["push", "-o", "change=1", "-o", &body, "origin", "HEAD:refs/for/main"]);
        assert!(pushed.status.success() && said(&pushed).contains("1 approval"), "{}", said(&pushed));
        check(&world, "approvals", true);
    }
}

#[test]
fn what_cannot_be_read_yet_has_happened_and_is_said() {
    let world = World::new();
    let main = world.folder.path().join("data/repos/demo.git/refs/heads/main");
    fs::write(&main, format!("{}\n", "1".repeat(40))).unwrap();
    let said = act(&world, "ann", "draft", json!({}));
    assert!(said.contains("is a draft") && said.contains("demo/main may not know of it yet"), "{said}");
    assert_eq!(world.change(1)["draft"], true);
    let why = world.ada(Ask::get("/api/v1/repos/demo/changes/1/why")).ok();
    let last = &why["reasons"].as_array().unwrap().last().unwrap()["text"];
    assert!(last.as_str().unwrap().starts_with("reading the branch does not work"), "{why}");
}

#[test]
fn a_change_whose_row_and_record_are_lost_is_out_of_reach_and_not_unknown() {
    let world = World::new().restart(|folder| {
        let repository = folder.join("data/repos/demo.git");
        let made = git(&repository, &["update-ref", "refs/changes/2/meta", "refs/heads/main"]);
        assert!(made.status.success(), "{}", said(&made));
    });
    let ask = |path: &str| world.ada(Ask::get(&format!("/api/v1/repos/demo/changes/{path}")));
    world.until(|_| ask("2/why").status == 200);
    let why = ask("2/why").ok();
    let [reason] = &why["reasons"].as_array().unwrap()[..] else { panic!("{why}") };
    assert_eq!((&why["state"], &reason["reason"]), (&json!("open"), &json!("unreadable")));
    assert!(reason["text"].as_str().unwrap().contains("the record of change 2"), "{why}");
    let shown = ask("2");
    assert_eq!(shown.status, 503);
    let body = shown.json();
    assert!(body["why"].as_str().unwrap().contains("change 2 is out of reach"), "{body}");
    assert_eq!(body["hint"], reason["hint"]);
    let runs = |change: u64| world.ada(Ask::get(&format!("/api/v1/repos/demo/runs?change={change}")));
    let told = runs(2);
    assert_eq!(
        (told.status, &told.json()["why"], &told.json()["hint"]),
        (503, &body["why"], &reason["hint"])
    );
    assert_eq!(runs(3).status, 404);
    assert_eq!([ask("3").status, ask("3/why").status], [404, 404]);
}

/// Puts every packed object of a repository into a file of its own.
fn unpack(repository: &Path) {
    let packs = fs::read_dir(repository.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
    let (packs, others): (Vec<_>, Vec<_>) =
        packs.partition(|path| path.extension().is_some_and(|kind| kind == "pack"));
    for pack in packs {
        let aside = repository.join("aside");
        fs::rename(&pack, &aside).unwrap();
        let input = fs::File::open(&aside).unwrap();
        let mut unpack = Command::new("git");
        unpack.arg("unpack-objects").current_dir(repository).stdin(input);
        assert!(unpack.output().unwrap().status.success());
    }
    others.iter().for_each(|path| fs::remove_file(path).unwrap());
}

/// An object of which the server's repository has lost the file.
struct Lost {
    id: String,
    file: PathBuf,
    aside: PathBuf,
}

/// Has a repository lose an object between two servers.
fn losing(world: World, object: &str) -> (World, Lost) {
    let mut lost = None;
    let world = world.restart(|folder| {
        let repository = folder.join("data/repos/demo.git");
        unpack(&repository);
        let id = said(&git(&repository, &["rev-parse", object])).trim().to_owned();
        let file = repository.join("objects").join(&id[..2]).join(&id[2..]);
        let aside = repository.join("aside");
        fs::rename(&file, &aside).unwrap();
        lost = Some(Lost { id, file, aside });
    });
    (world, lost.unwrap())
}

#[test]
fn a_change_that_has_lost_a_file_of_its_own_is_out_of_reach_until_it_is_back() {
    let (world, Lost { id, file, aside }) = losing(World::new(), "refs/changes/1/1^{tree}");
    // Where only its tests are missing, a candidate of the new words is made though a run is under way.
    let mut settings = world.ada(Ask::get("/api/v1/repos/demo/settings")).ok();
    settings["branches"]["main"]["approvals"] = json!(0);
    // No poll comes in the place of the bell.
    settings["branches"]["main"]["poll_seconds"] = json!(3600);
    world.ada(Ask::put("/api/v1/repos/demo/settings", settings)).ok();
    act(&world, "ann", "edit", json!({ "title": "Another candidate", "body": "" }));
    world.until(|world| world.why(1).iter().any(|reason| reason == "unreadable"));
    let why = world.ada(Ask::get("/api/v1/repos/demo/changes/1/why")).ok();
    let [reason] = &why["reasons"].as_array().unwrap()[..] else { panic!("{why}") };
    assert_eq!(reason["reason"], "unreadable");
    assert!(reason["text"].as_str().unwrap().contains(&id), "{why}");
    fs::rename(aside, file).unwrap();
    act(&world, "ann", "comment", json!({ "text": "It is back." }));
    assert!(world.why(1).iter().all(|reason| reason != "unreadable"));
}

/// Offers a change of one file.
fn offer(world: &World, who: &str, name: &str) {
    let folder = clone(world, who).unwrap();
    fs::write(folder.join(name), format!("{name}\n")).unwrap();
    let made = git(&folder, &["add", "."]).status.success()
        && git(&folder, &["commit", "-m", name]).status.success();
    let pushed = git(&folder, &["push", "-o", "change", "origin", &format!("HEAD:refs/heads/{name}")]);
    assert!(made && pushed.status.success(), "{}", said(&pushed));
}

fn approve(world: &World, number: u64) {
    let revision = world.change(number)["revision"].clone();
    let approve = format!("/api/v1/repos/demo/changes/{number}/approve");
    world.by("mia", Ask::post(&approve, json!({ "revision": revision }))).ok();
}

const LANDS_UNTESTED: &str = "gate: { empty: land }\njobs:\n  by-hand: { on: [manual], run: 'true' }\n";

/// Changes 1 and 3 stand on what main was before 2 landed.
fn with_a_past() -> World {
    let world = World::without_jobs(LANDS_UNTESTED);
    offer(&world, "bob", "second");
    offer(&world, "ann", "third");
    approve(&world, 2);
    world.until(|world| world.change(2)["state"] == "landed");
    world
}

#[test]
fn what_the_past_of_a_branch_has_lost_is_no_change_s_trouble() {
    let (world, Lost { id, file, aside }) = losing(with_a_past(), "refs/changes/1/1~1^{tree}");
    for number in [1, 3] {
        world.until(|world| world.why(number).contains(&"approvals".to_owned()));
        // Candidates of these words are not made yet.
        let edit = Ask::post(
            &format!("/api/v1/repos/demo/changes/{number}/edit"),
            json!({ "title": "Other words", "body": "" }),
        );
        world.ada(edit).ok();
        approve(&world, number);
    }
    let told = |number| {
        let why = world.ada(Ask::get(&format!("/api/v1/repos/demo/changes/{number}/why"))).ok();
        let reasons = why["reasons"].as_array().unwrap();
        assert!(reasons.iter().all(|reason| reason["reason"] != "unreadable"), "{why}");
        reasons.iter().any(|reason| reason["reason"] == "trouble" && reason["text"].to_string().contains(&id))
    };
    world.until(|_| [1, 3].into_iter().any(told));
    fs::rename(aside, file).unwrap();
    world.until(|world| [1, 3].iter().all(|number| world.change(*number)["state"] == "landed"));
}

#[test]
fn a_tree_of_a_candidate_that_is_spoilt_is_written_again() {
    let world = with_a_past();
    let repository = world.folder.path().join("data/repos/demo.git");
    let merge = git(&repository, &["merge-tree", "--write-tree", "refs/heads/main", "refs/changes/1/1"]);
    let tree = said(&merge).trim().to_owned();
    let file = repository.join("objects").join(&tree[..2]).join(&tree[2..]);
    fs::remove_file(&file).unwrap();
    fs::write(&file, "x\x1c spoilt").unwrap();
    approve(&world, 1);
    world.until(|world| {
        assert!(world.why(1).iter().all(|reason| reason != "unreadable"));
        world.change(1)["state"] == "landed"
    });
    let main = said(&git(&repository, &["rev-parse", "refs/heads/main^{tree}"]));
    assert_eq!(main.trim(), tree);
    assert!(git(&repository, &["cat-file", "tree", &tree]).status.success());
}

/// Nothing reads its files again before it lands.
#[test]
fn a_change_that_loses_a_file_when_its_tests_have_passed_keeps_no_other_from_the_branch() {
    let world = World::without_jobs(LANDS_UNTESTED);
    offer(&world, "bob", "second");
    world.until(|world| [1, 2].iter().all(|number| world.why(*number) == ["approvals"]));
    let (world, Lost { id, file, aside }) = losing(world, "refs/changes/1/1:feature");
    world.until(|world| [1, 2].iter().all(|number| world.why(*number) == ["approvals"]));
    [1, 2].iter().for_each(|number| approve(&world, *number));
    world.until(|world| world.change(2)["state"] == "landed");
    world.until(|world| world.why(1) == ["unreadable"]);
    let why = world.ada(Ask::get("/api/v1/repos/demo/changes/1/why")).ok();
    assert!(why["reasons"][0]["text"].as_str().unwrap().contains(&id), "{why}");
    fs::rename(aside, file).unwrap();
    act(&world, "ann", "comment", json!({ "text": "It is back." }));
    world.until(|world| world.change(1)["state"] == "landed");
}

/// By then the gate may not know of the landing, and is about to read the branch and its definition again.
#[test]
fn what_is_run_of_a_branch_waits_for_the_landing_before_it_to_be_read() {
    let definition =
        |job: &str| format!("gate: {{ empty: land }}\njobs:\n  {job}: {{ on: [manual], run: 'true' }}\n");
    let world = World::with_pipeline(&definition("at-first"));
    let mut settings = world.ada(Ask::get("/api/v1/repos/demo/settings")).ok();
    settings["branches"]["main"]["approvals"] = json!(0);
    world.ada(Ask::put("/api/v1/repos/demo/settings", settings)).ok();
    world.until(|world| world.change(1)["state"] == "landed");
    let folder = clone(&world, "mia").unwrap();
    for round in 2..ROUNDS {
        let job = format!("job-{round}");
        fs::write(folder.join("towpath.yaml"), definition(&job)).unwrap();
        let commit = git(&folder, &["commit", "--quiet", "--all", "-m", &job]);
        assert!(commit.status.success(), "{}", said(&commit));
        let to = format!("HEAD:refs/heads/{job}");
        let pushed = git(&folder, &["push", "-o", "change", "origin", &to]);
        assert!(pushed.status.success(), "{}", said(&pushed));
        world.until(|world| world.change(round as u64)["state"] == "landed");
        let run = Ask::post("/api/v1/repos/demo/branches/main/run", json!({ "job": job }));
        let said = world.by("mia", run).ok()["said"].as_str().unwrap().to_owned();
        assert!(said.starts_with("started run demo/main/"), "{said}");
    }
}
