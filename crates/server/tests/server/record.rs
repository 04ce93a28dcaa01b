//! What the record asks of a landing: nothing lands while the disk or a restore forbids it, each landing has its note,
//! and a candidate that a power cut took is made again.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use serde_json::{Value, json};
use towpath_core::act::Act;
use towpath_core::cell::CellId;
use towpath_core::gate::Verdict;
use towpath_core::graph::{JobBody, JobSpec};
use towpath_core::ids::{CandidateId, ChangeNumber, CommitId, GateId, RunId, Timestamp, TreeId};
use towpath_core::message::RunStart;
use towpath_core::policy::{Actor, Role};
use towpath_core::run::{RESTORED, RunEvent};
use towpath_core::turn::Intake;
use towpath_forge::{
    BuiltIn, ChangeAct, Definitions, ForgeError, Member, Memory, ReviewRequest, RowStep, Settings,
};
use towpath_git::{RefName, Repository};
use towpath_server::engine::AnyIntake;
use towpath_server::housekeeping::Retention;
use towpath_server::witness::{Kept, Seen};
use towpath_store::audit::{AuditKey, Entry, Leaf, LeafProof};
use towpath_store::{DATABASE, View, backup, restore_over};

use crate::client::Ask;
use crate::runs::after_a_run;
use crate::units::{job, start};
use crate::world::{World, git};

fn approve(world: &World) {
    let revision = world.change(1)["revision"].clone();
    world.by("mia", Ask::post("/api/v1/repos/demo/changes/1/approve", json!({ "revision": revision }))).ok();
}

fn branch(world: &World) -> Value {
    world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok()
}

fn until_landed(world: &World) -> CommitId {
    world.until(|world| world.change(1)["state"] == "landed");
    world.change(1)["landed"].as_str().unwrap().parse().unwrap()
}

#[test]
fn e11_a_disk_that_does_not_confirm_stops_landing_and_everybody_is_told_why() {
    let world = after_a_run();
    let before = branch(&world)["tip"].clone();
    world.shared.store.writer().stop_landing("fsync: input/output error");
    // Whoever is first: the gate that is told, or the store that refuses the claim.
    approve(&world);
    world.until(|world| world.why(1) == ["halted"]);
    let shown = branch(&world);
    assert_eq!((&shown["tip"], shown["halts"][0]["cause"].as_str()), (&before, Some("disk")), "{shown}");
    let why = shown["halts"][0]["why"].as_str().unwrap();
    assert!(why.contains("fsync: input/output error"), "{why}");
    let list = world.ada(Ask::get("/api/v1/repos/demo/branches")).ok();
    assert_eq!(list[0]["halted"], true);
    let cookie = world.log_in("rae");
    let page = world.send(&Ask::get("/demo/branches/main").header("cookie", &cookie));
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("Nothing lands on this server") && page.contains("input/output error"), "{page}");
    assert_eq!(world.send(&Ask::get("/readyz")).status, 503);
    // A repo that comes later hears of it as well.
    world.ada(Ask::post("/api/v1/repos", json!({ "repo": "later" }))).ok();
    world.until(|world| {
        let got = world.ada(Ask::get("/api/v1/repos/later/branches/main"));
        got.status == 200 && got.json()["halts"][0]["cause"] == "disk"
    });
}

/// Reads no definition: nothing here is tested.
struct NoDefinitions;

impl Definitions for NoDefinitions {
    fn settings(&self, _: &Repository, _: TreeId) -> Result<Settings, ForgeError> {
        Ok(Err(Vec::new()))
    }
}

/// Leaves a change as a server does that dies between ref and row: mia's approval is in the repository, and in no row.
fn approve_and_die(world: &World) {
    let forge = world.shared.forges.get(&world.demo()).unwrap();
    let change = forge.change(ChangeNumber(1)).unwrap();
    let memory = Memory::new(forge.records().policy().unwrap());
    let mia = Member { name: "mia".into(), role: Role::Maintainer };
    memory.admit(world.user("mia"), mia, true);
    let twin =
        BuiltIn::new(world.demo(), forge.repository().clone(), Arc::new(memory), Arc::new(NoDefinitions));
    let request = ReviewRequest {
        verdict: Verdict::Approve,
        revision: change.newest().commit,
        target: change.target.clone(),
        definition: None,
        message: change.message(),
        text: String::new(),
    };
    let now = world.shared.engine.clock().now();
    twin.review(world.user("mia"), ChangeNumber(1), &request, now).unwrap();
}

/// Who did what to change 1, as the record has it; the server's own words are nobody's.
fn acts(world: &World) -> Vec<(String, String)> {
    administered(world).into_iter().filter(|(_, what)| what.contains("demo change 1")).collect()
}

fn administered(world: &World) -> Vec<(String, String)> {
    let leaves = world.ada(Ask::get("/api/v1/audit/leaves")).ok()["leaves"].clone();
    let entries = leaves.as_array().unwrap().iter().map(|leaf| {
        let leaf: Leaf = serde_json::from_str(leaf.as_str().unwrap()).unwrap();
        leaf.entry
    });
    let administered = entries.filter_map(|entry| match entry {
        Entry::Act(Act::Administered { by, what }) => {
            Some((by.map_or("nobody".to_owned(), |by| by.name), what))
        }
        _ => None,
    });
    administered.collect()
}

#[test]
fn an_act_that_counts_after_a_crash_has_its_leaf_and_only_one() {
    let world = World::new();
    let revision = world.change(1)["revision"].as_str().unwrap().to_owned();
    let opened = ("ann".to_owned(), format!("opened demo change 1 at {revision}"));
    let approved = ("mia".to_owned(), format!("approved revision {revision} (demo change 1)"));
    let commented = ("bob".to_owned(), "commented (demo change 1)".to_owned());
    approve_and_die(&world);
    assert_eq!((acts(&world), world.change(1)["reviews"].clone()), (vec![opened.clone()], json!([])));

    let world = world.restart(|_| ());
    assert_eq!(world.change(1)["reviews"][0]["by"], "mia");
    assert_eq!(acts(&world), [opened.clone(), approved.clone()]);
    let world = world.restart(|_| ());
    world.by("bob", Ask::post("/api/v1/repos/demo/changes/1/comment", json!({ "text": "Why?" }))).ok();
    let so_far = [opened, approved.clone(), commented.clone()];
    assert_eq!(acts(&world), so_far);

    // No start comes between: whoever does something next finds the row behind.
    approve_and_die(&world);
    world.by("bob", Ask::post("/api/v1/repos/demo/changes/1/comment", json!({ "text": "So." }))).ok();
    assert_eq!(world.change(1)["reviews"][0]["by"], "mia");
    let all = [&so_far[..], &[approved, commented]].concat();
    assert_eq!(acts(&world), all);
    // Two may find it at once: the one who comes later adds nothing.
    let forge = world.shared.forges.get(&world.demo()).unwrap();
    let saved = forge.records().change(ChangeNumber(1)).unwrap().unwrap();
    let by = Actor { user: world.user("mia"), name: "mia".into() };
    let act = ChangeAct { by, at: world.shared.engine.clock().now(), what: "twice (demo change 1)".into() };
    let late = RowStep { from: None, to: saved.clone(), acts: vec![act], untold: vec![] };
    forge.records().save(&late).unwrap();
    assert_eq!(acts(&world), all);
    // What a damaged record no longer says has a leaf of its own.
    let untold = vec!["what made it so is lost (demo change 1)".to_owned()];
    forge.records().save(&RowStep { from: Some(saved.meta), to: saved, acts: vec![], untold }).unwrap();
    let lost = "repo demo: what made it so is lost (demo change 1)".to_owned();
    assert_eq!(acts(&world).last(), Some(&("nobody".to_owned(), lost)));
}

/// What a disk does that confirms nothing: no folder below here can be made durable.
const NEVER_DURABLE: &str = "/proc/sys";

/// Packs of a repository are found elsewhere, and their own folder is on a disk that confirms nothing.
fn put_packs_on_a_bad_disk(world: &World, repo: &str) {
    let repo = repo.parse().unwrap();
    let objects = world.shared.repos.get(&repo).unwrap().path().join("objects");
    let elsewhere = world.folder.path().join("packs-elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(objects.join("pack"), elsewhere.join("pack")).unwrap();
    std::fs::create_dir_all(objects.join("info")).unwrap();
    std::fs::write(objects.join("info/alternates"), format!("{}\n", elsewhere.display())).unwrap();
    symlink(NEVER_DURABLE, objects.join("pack")).unwrap();
}

fn nothing_lands_for(world: &World, why: &str) {
    let stopped = world.shared.store.writer().health().landing_stopped.unwrap();
    assert!(stopped.contains("did not confirm") && stopped.contains(why), "{stopped}");
    world.until(|world| world.ada(Ask::get("/api/v1/repos/other/branches")).ok()[0]["halted"] == true);
}

#[test]
fn a_disk_that_does_not_confirm_what_a_person_did_stops_landing() {
    let world = World::new();
    put_packs_on_a_bad_disk(&world, "demo");
    let draft = Ask::post("/api/v1/repos/demo/changes/1/draft", json!({}));
    assert!(world.by("ann", draft).status >= 400);
    nothing_lands_for(&world, "demo.git/objects/pack");
}

#[test]
fn a_disk_that_does_not_confirm_at_a_start_stops_landing() {
    let world = World::new().restart(|folder| {
        symlink("/dev/null", folder.join("data/repos/demo.git/towpath-boot")).unwrap();
    });
    nothing_lands_for(&world, "demo.git/towpath-boot");
}

#[test]
fn a_disk_that_does_not_confirm_a_pack_stops_landing_and_nothing_is_collected_any_more() {
    let world = World::new();
    world.ada(Ask::post("/api/v1/repos", json!({ "repo": "empty" }))).ok();
    put_packs_on_a_bad_disk(&world, "empty");
    // Nothing to pack, and enough to look at.
    let objects = world.shared.repos.get(&"empty".parse().unwrap()).unwrap().path().join("objects");
    std::fs::write(objects.join("17").join("a".repeat(38)), "").unwrap();
    let retention = Retention { packs_max: 0, loose_objects_max: 0, ..Retention::default() };
    world.shared.store.writer().write(move |tx| retention.write(tx)).unwrap();
    let keep = || world.runtime.block_on(world.shared.housekeeping.now()).unwrap();
    let figures = keep();
    assert!(figures.trouble.iter().any(|trouble| trouble.starts_with("repo empty: ")), "{figures:?}");
    nothing_lands_for(&world, "empty.git/objects/pack");
    // The kernel says it once: whoever asks again is told that all is well, and would delete what the pack has.
    std::fs::remove_file(objects.join("pack")).unwrap();
    std::fs::create_dir(objects.join("pack")).unwrap();
    let figures = keep();
    assert_eq!((figures.repositories, &figures.trouble[..]), (0, &[][..]), "{figures:?}");
}

#[test]
fn a_landings_note_proves_to_any_clone_that_the_record_holds_it() {
    let world = after_a_run();
    approve(&world);
    let commit = until_landed(&world);
    let repository = world.shared.repos.get(&world.demo()).unwrap();
    let notes = || repository.notes(&RefName::landing_notes()).unwrap();
    world.until(|_| !notes().is_empty());
    let [(noted, text)] = &notes()[..] else { panic!("one landing, one note") };
    assert_eq!(*noted, commit);
    let key = AuditKey::load(&world.shared.settings.keys.join("audit.key")).unwrap();
    let proof: LeafProof = std::str::from_utf8(text).unwrap().parse().unwrap();
    let leaf = proof.verify(key.verifier()).unwrap();
    let Entry::Act(Act::Landed(landed)) = leaf.entry else { panic!("{leaf:?}") };
    let info = repository.commit(commit).unwrap();
    assert_eq!((landed.commit, landed.tree, landed.parent), (commit, info.tree, info.parents[0]));
    assert_eq!(landed.results.keys().collect::<Vec<_>>(), ["unit"]);
    assert_eq!(landed.approvals, [world.user("mia")]);
    // Lists and the branch itself say when, too; its tip is read anew after a landing.
    let view = world.shared.store.reader().snapshot().unwrap();
    assert_eq!(view.landings(&landed.gate, 10).unwrap(), [(landed.change, landed.at)]);
    let tip = || world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok()["tip"].clone();
    world.until(|_| tip()["commit"] == commit.to_string());
    assert_eq!(tip()["landed_at"], landed.at.0);
}

#[test]
fn a_landings_note_waits_until_its_checkpoint_is_outside_the_data_folder() {
    let world = after_a_run();
    let sink = world.shared.settings.keys.join("checkpoints");
    let aside = sink.with_extension("aside");
    std::fs::rename(&sink, &aside).unwrap();
    std::fs::create_dir(&sink).unwrap();
    approve(&world);
    until_landed(&world);
    let repository = world.shared.repos.get(&world.demo()).unwrap();
    let notes = || repository.notes(&RefName::landing_notes()).unwrap();
    let waits = |world: &World| {
        let gate = CellId::Gate(GateId { repo: world.demo(), branch: "main".parse().unwrap() });
        let cell = world.shared.store.reader().snapshot().unwrap().cell(&gate).unwrap();
        cell.outbox.iter().any(|(_, row)| format!("{row:?}").contains("cannot be put outside"))
    };
    world.until(|world| {
        assert!(notes().is_empty());
        waits(world)
    });
    std::fs::remove_dir(&sink).unwrap();
    std::fs::rename(&aside, &sink).unwrap();
    world.until(|_| !notes().is_empty());
    let proof: LeafProof = std::str::from_utf8(&notes()[0].1).unwrap().parse().unwrap();
    assert!(std::fs::read_to_string(&sink).unwrap().contains(&proof.checkpoint.to_string()));
}

/// A landing moves its branch, then its leaf is written, then its note.
#[test]
fn a_server_that_lands_while_its_record_is_compared_with_a_repository_is_no_finding() {
    let world = after_a_run();
    let repository = world.shared.repos.get(&world.demo()).unwrap();
    let key = AuditKey::load(&world.shared.settings.keys.join("audit.key")).unwrap();
    let trusted = [key.verifier().clone()];
    let kept = Kept::by_remote("towpath", None, RefName::landing_notes());
    let seen = || Seen::in_repository((&repository, &kept), &trusted).unwrap();
    let view = || world.shared.store.reader().snapshot().unwrap();
    let before = seen();
    approve(&world);
    let commit = until_landed(&world);
    world.until(|_| !repository.notes(&RefName::landing_notes()).unwrap().is_empty());
    let witness = before.compared_with(&view(), |_| Ok(false)).unwrap();
    assert_eq!((witness.findings, witness.branches[0].behind, witness.notes), (vec![], true, 0));

    let tree = repository.commit(commit).unwrap().tree;
    let made =
        git(repository.path(), &["commit-tree", "-m", "next", "-p", &commit.to_string(), &tree.to_string()]);
    let next: CommitId = String::from_utf8(made.stdout).unwrap().trim().parse().unwrap();
    let moved = git(repository.path(), &["update-ref", "refs/remotes/towpath/main", &next.to_string()]);
    assert!(moved.status.success());
    let ahead = seen();
    let database = View::open_copy(&world.shared.store.path().join(DATABASE)).unwrap();
    let witness = ahead.compared_with(&database, |_| Ok(false)).unwrap();
    assert!(witness.findings[0].starts_with(&format!("no leaf explains the tip {next}")), "{witness:?}");
    let gate = GateId { repo: world.demo(), branch: "main".parse().unwrap() };
    let act = Act::ForeignPush { gate, from: Some(commit), to: next };
    let mut asked = 0;
    let witness = ahead.compared_with(&database, |_| {
        asked += 1;
        let act = act.clone();
        world.shared.store.writer().write(move |tx| Ok(tx.act(&act, Timestamp(1)))).unwrap();
        Ok(true)
    });
    assert_eq!((witness.unwrap().findings, asked), (vec![], 1));
}

#[test]
fn a_candidate_that_is_gone_is_made_again_and_lands() {
    let world = after_a_run();
    let repository = world.shared.repos.get(&world.demo()).unwrap();
    let run = world.ada(Ask::get("/api/v1/repos/demo/runs/main/1")).ok();
    let commit = run["commit"].as_str().unwrap();
    let object = repository.path().join("objects").join(&commit[..2]).join(&commit[2..]);
    std::fs::remove_file(&object).unwrap();
    let held = repository.refs("refs/towpath/candidates").unwrap();
    let id: CandidateId = held[0].name.as_str().rsplit('/').next().unwrap().parse().unwrap();
    std::fs::remove_file(repository.path().join(RefName::candidate(&id).as_str())).unwrap();
    approve(&world);
    assert_eq!(until_landed(&world).to_string(), commit);
    assert!(object.is_file());
}

#[test]
fn a_restore_brings_back_no_token_that_was_revoked_and_no_login() {
    let world = World::new();
    let make = |by: &str| {
        let made = world.send(&Ask::post("/api/v1/tokens", json!({})).token(by)).ok();
        (made["number"].as_u64().unwrap(), made["token"].as_str().unwrap().to_owned())
    };
    let works = |world: &World, token: &str| world.send(&Ask::get("/api/v1/me").token(token)).status == 200;
    let (number, first) = make(world.token("ada"));
    let (_, by_first) = make(&first);
    let (_, beside) = make(world.token("ada"));
    let cookie = world.log_in("ann");
    let page = |world: &World| world.send(&Ask::get("/demo/changes/1").header("cookie", &cookie)).status;
    assert_eq!(page(&world), 200);
    let files = world.folder.path().to_owned();
    let [data, saved, aside, listed] =
        ["data", "saved", "aside", "keys/revoked"].map(|name| files.join(name));
    backup(&data, &saved).unwrap();
    world.ada(Ask::new("DELETE", &format!("/api/v1/tokens/{number}"))).ok();
    assert_eq!(std::fs::read_to_string(&listed).unwrap().lines().count(), 2);

    let world = world.restart(|_| restore_over(&saved, &data, &aside).unwrap());
    let work = |world: &World| [&first, &by_first, &beside].map(|token| works(world, token));
    assert_eq!((work(&world), page(&world)), ([false, false, true], 303));
    let again = |world: &World| {
        let said =
            administered(world).into_iter().filter(|(_, what)| what.contains("as it was before a restore"));
        said.map(|(by, _)| by).collect::<Vec<_>>()
    };
    assert_eq!(again(&world), ["nobody", "nobody"]);
    // Once is enough; and what the rows know is listed again.
    std::fs::remove_file(&listed).unwrap();
    let world = world.restart(|_| ());
    assert_eq!((again(&world).len(), work(&world)), (2, [false, false, true]));
    let restored = std::fs::read_to_string(&listed).unwrap();
    assert!(restored.lines().count() >= 2, "{restored}");
}

#[test]
fn a_token_that_could_not_be_listed_as_revoked_is_revoked_all_the_same() {
    let world = World::new();
    let made = world.ada(Ask::post("/api/v1/tokens", json!({}))).ok();
    let token = made["token"].as_str().unwrap();
    let by_it = world.send(&Ask::post("/api/v1/tokens", json!({})).token(token)).ok();
    let revoke = || world.ada(Ask::new("DELETE", &format!("/api/v1/tokens/{}", made["number"])));
    let listed = world.shared.settings.keys.join("revoked");
    std::fs::remove_file(&listed).unwrap();
    let told = revoke();
    assert_eq!(told.status, 503);
    let error = told.error();
    assert!(error["why"].as_str().unwrap().contains("works no more, but"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("again"), "{error}");
    for token in [token, by_it["token"].as_str().unwrap()] {
        assert_eq!(world.send(&Ask::get("/api/v1/me").token(token)).status, 401);
    }
    std::fs::write(&listed, "").unwrap();
    revoke().ok();
    assert_eq!(std::fs::read_to_string(&listed).unwrap().lines().count(), 2, "the one that it made, too");
}

#[test]
fn h07_a_restore_is_accepted_only_where_there_was_one() {
    let world = World::new();
    assert_eq!(world.ada(Ask::get("/api/v1/restore")).ok()["restored"], Value::Null);
    let accept = Ask::post("/api/v1/restore/accept", json!({ "leaves_lost": 0 }));
    assert_eq!(world.by("mia", accept.clone()).status, 403);
    assert_eq!(world.ada(accept).status, 409);
}

#[test]
fn h07_what_was_to_be_deployed_is_over_after_a_restore_or_waits_until_it_is_accepted() {
    let world = World::new();
    let deploys = |name: &str, restartable| {
        let spec = job(name, &[]);
        let environment = Some(name.parse().unwrap());
        let body = JobBody { environment, restartable, ..(*spec.body).clone() };
        JobSpec { body: Arc::new(body), ..spec }
    };
    let run: RunId = "demo/main/50".parse().unwrap();
    let graph = vec![deploys("once", false), deploys("again", true), job("tests", &[])].into();
    let start = RunEvent::Start(Arc::new(RunStart { graph, ..start(run.clone()) }));
    let shown = |world: &World| world.ada(Ask::get("/api/v1/repos/demo/runs/main/50"));
    world.shared.engine.deliver_surely(CellId::Run(run), AnyIntake::Run(Intake::Event(start)));
    world.until(|world| shown(world).status == 200);
    let world = world.restart(|folder| {
        let [data, saved, aside] = ["data", "saved", "aside"].map(|name| folder.join(name));
        backup(&data, &saved).unwrap();
        restore_over(&saved, &data, &aside).unwrap();
    });
    let jobs = |world: &World| {
        let run = shown(world).ok();
        let jobs = run["jobs"].as_array().unwrap().iter();
        jobs.map(|job| (job["stage"].clone(), job["why"].as_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let waits = |why: &str| (json!("waiting"), why.to_owned());
    let halted = "nothing is deployed before an admin has accepted what a restore lost";
    world.until(|world| jobs(world)[1] == waits(halted));
    assert_eq!(jobs(&world), [(json!("ended"), RESTORED.to_owned()), waits(halted), waits("")]);
    let lost = &world.ada(Ask::get("/api/v1/restore")).ok()["restored"]["leaves_lost"];
    world.ada(Ask::post("/api/v1/restore/accept", json!({ "leaves_lost": lost }))).ok();
    world.until(|world| jobs(world)[1] == waits(""));
}
