//! What could not be put right when the server started is not used, and is used once it is put right.

use std::fs;
use std::path::Path;

use serde_json::json;
use towpath_core::ids::{ChangeNumber, RepoName};
use towpath_git::ErrorClass;

use crate::client::{Ask, Got};
use crate::keeping::keep;
use crate::runs::wait_for;
use crate::world::World;

const CHANGE: &str = "/api/v1/repos/demo/changes/1";

fn act(verb: &str, body: serde_json::Value) -> Ask {
    Ask::post(&format!("{CHANGE}/{verb}"), body)
}

/// What git asks before it pushes.
fn push(world: &World, name: &str, repo: &str) -> Got {
    world.by(name, Ask::get(&format!("/{repo}.git/info/refs?service=git-receive-pack")))
}

/// Neither the store nor the mark of a repository that was looked through finds room.
fn fill(data: &Path) {
    fs::remove_file(data.join("reserve")).unwrap();
    fs::create_dir(data.join("reserve")).unwrap();
    for repo in ["demo", "other"] {
        fs::create_dir(data.join(format!("repos/{repo}.git/towpath-boot"))).unwrap();
    }
}

fn give_room(world: &World) {
    fs::remove_dir(world.folder.path().join("data/reserve")).unwrap();
    wait_for("the store notices that there is room", || !world.shared.store.writer().health().full);
}

#[test]
fn a_repository_that_a_full_disk_kept_from_being_put_right_is_used_by_nobody_until_there_is_room() {
    let world = World::new();
    let revision = world.change(1)["revision"].clone();
    world.by("mia", act("approve", json!({ "revision": revision }))).ok();
    let row = |world: &World| {
        let view = world.shared.store.reader().snapshot().unwrap();
        view.change(&world.demo(), ChangeNumber(1)).unwrap().unwrap()
    };
    let approved = row(&world);
    world.by("mia", act("withdraw", json!({}))).ok();
    // As if the server had been killed between the refs and the row.
    world.shared.store.writer().write(move |tx| tx.put_change(&approved)).unwrap();

    let world = world.restart(|folder| fill(&folder.join("data")));
    assert!(world.shared.store.writer().health().full);
    let forge = |repo: &RepoName| world.shared.forges.get(repo).map(drop);
    let error = forge(&world.demo()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(world.change(1)["reviews"].as_array().unwrap().len() == 1, "the row is still the old one");
    let why = "repo `demo` cannot be used now: the server has not put this repository right";
    let pushed = push(&world, "ann", "demo");
    let told = String::from_utf8(pushed.body).unwrap();
    assert!(pushed.status == 503 && told.contains(&format!("\n  why: {why}")), "{told}");
    let got = world.by("ann", act("comment", json!({ "text": "Well?" })));
    let body = got.json();
    assert_eq!((got.status, body["exit_code"].as_u64()), (503, Some(7)), "{body}");
    assert!(body["why"].as_str().unwrap().starts_with(why), "{body}");
    // Nothing of the other one had to be written but the mark, without which it is just as right.
    assert_eq!(forge(&"other".parse().unwrap()), Ok(()));

    give_room(&world);
    assert!(forge(&world.demo()).is_err(), "room alone puts nothing right");
    keep(&world);
    assert_eq!(forge(&world.demo()), Ok(()));
    assert!(world.change(1)["reviews"].as_array().unwrap().is_empty(), "the row says what the ref says");
    assert_eq!(push(&world, "ann", "demo").status, 200);
    world.by("ann", act("comment", json!({ "text": "Well." }))).ok();
    let view = world.shared.store.reader().snapshot().unwrap();
    let told = view.alerts(&world.demo(), 1).unwrap();
    assert_eq!(told[0].text, "`demo` was put right, and is used again");
}

#[test]
fn a_change_shows_why_it_waits_also_where_its_repository_is_not_there() {
    // At once, as a git that is ending may still write there.
    let lost =
        |folder: &Path| fs::rename(folder.join("data/repos/demo.git"), folder.join("lost.git")).unwrap();
    let world = World::new().restart(lost);
    let cookie = world.log_in("ann");
    let page = world.send(&Ask::get("/demo/changes/1").header("cookie", &cookie));
    let text = String::from_utf8_lossy(&page.body);
    assert_eq!(page.status, 200, "{text}");
    assert!(text.contains("uploaded by") && !text.contains("git author"), "{text}");
    // Acts by way of the forge, and what looks into the repository itself.
    let mut settings = world.ada(Ask::get("/api/v1/repos/demo/settings")).ok();
    settings["branches"]["next"] = settings["branches"]["main"].clone();
    for ask in [act("comment", json!({ "text": "Well?" })), Ask::put("/api/v1/repos/demo/settings", settings)]
    {
        let got = world.ada(ask);
        let body = got.json();
        assert_eq!((got.status, &body["class"], &body["exit_code"]), (503, &json!("unavailable"), &json!(7)));
    }
    assert_eq!(push(&world, "ada", "demo").status, 503);
}
