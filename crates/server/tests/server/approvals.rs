//! Whose approval counts for what.

use serde_json::{Value, json};

use crate::client::{Ask, Got};
use crate::pages::review_of;
use crate::runs::after_a_run;
use crate::world::{World, git};

fn act(world: &World, name: &str, verb: &str, body: Value) -> Got {
    world.by(name, Ask::post(&format!("/api/v1/repos/demo/changes/1/{verb}"), body))
}

/// From here on nothing is read but what somebody rings for.
fn never_poll(world: &World) {
    let mut settings = world.ada(Ask::get("/api/v1/repos/demo/settings")).ok();
    settings["branches"]["main"]["poll_seconds"] = json!(24 * 3600);
    world.ada(Ask::put("/api/v1/repos/demo/settings", settings)).ok();
}

#[test]
fn an_admin_of_the_server_counts_nowhere_once_they_are_disabled() {
    let world = after_a_run();
    never_poll(&world);
    world.ada(Ask::put("/api/v1/users/stranger/admin", json!({ "admin": true }))).ok();
    act(&world, "mia", "hold", json!({ "why": "not before it is looked at" })).ok();
    let revision = world.change(1)["revision"].clone();
    act(&world, "stranger", "approve", json!({ "revision": revision })).ok();
    world.until(|world| world.why(1) == ["held"]);
    world.ada(Ask::post("/api/v1/users/stranger/disable", json!({}))).ok();
    world.until(|world| world.why(1).iter().any(|reason| reason == "approvals"));
    act(&world, "mia", "release", json!({})).ok();
    world.until(|world| world.why(1) == ["approvals"]);
    assert_eq!(world.change(1)["state"], "open");
    // The control: enabled, they count again.
    world.ada(Ask::post("/api/v1/users/stranger/enable", json!({}))).ok();
    world.until(|world| world.change(1)["state"] == "landed");
}

/// An untrusted change edits the pipeline; while it is looked at, somebody lets it run, and its definition is known.
#[test]
fn nobody_approves_a_definition_that_they_were_not_shown() {
    let world = World::with_jobs();
    let number = push_an_edit(&world);
    let path = |verb: &str| format!("/api/v1/repos/demo/changes/{number}/{verb}");
    let post = |name: &str, verb: &str, body: Value| world.by(name, Ask::post(&path(verb), body));
    let because = |kind: &'static str| move |world: &World| world.why(number).iter().any(|why| why == kind);
    let change = || world.change(number);
    let cookie = world.log_in("mia");
    let page = || {
        let got = world.send(&Ask::get(&format!("/demo/changes/{number}")).header("cookie", &cookie));
        review_of(&String::from_utf8_lossy(&got.body))
    };
    let send = |fields: &str| {
        let form = world.form(&format!("/demo/changes/{number}/approve"), fields);
        world.send(&form.header("cookie", &cookie))
    };
    world.until(because("untrusted"));
    let (seen, old) = (change(), page());
    assert_eq!(seen["definition"], Value::Null);
    let review = |seen: &Value| json!({ "revision": seen["revision"], "definition": seen["definition"] });
    // Before anybody knows of a definition, what was looked at can be approved all the same.
    post("mia", "approve", review(&seen)).ok();
    post("ada", "vouch", json!({ "revision": seen["revision"], "why": "it may run" })).ok();
    world.until(|_| change()["definition"].is_string());
    world.until(because("definition_approval"));

    // Whoever was shown none does not approve the one that there is now, whichever way they say so.
    for body in [review(&seen), json!({ "revision": seen["revision"] })] {
        let late = post("ada", "approve", body);
        let definition = change()["definition"].as_str().unwrap().to_owned();
        assert_eq!((late.status, late.error()["class"].as_str()), (409, Some("conflict")));
        assert!(late.error()["why"].as_str().unwrap().contains(&definition), "{}", late.json());
    }
    assert_eq!(send(&old).status, 409);
    assert_eq!(send(&old.replace("definition=", "other=")).status, 400);
    let other = json!({ "revision": seen["revision"], "definition": "0".repeat(64) });
    assert_eq!(post("ada", "approve", other).status, 409);
    assert_eq!(change()["reviews"].as_array().unwrap().len(), 1);
    assert!(because("definition_approval")(&world), "{:?}", world.why(number));
    // The control: what is shown now can be approved, and lands.
    assert_eq!(send(&page()).status, 303);
    world.until(|_| change()["state"] == "landed");
}

/// A change of rae's, whose uploads are tested only once somebody vouches for them.
fn push_an_edit(world: &World) -> u64 {
    let right = json!({ "role": "author", "authorised": false });
    world.ada(Ask::put("/api/v1/repos/demo/people/rae", right)).ok();
    let source = world.folder.path().join("source");
    let definition = std::fs::read_to_string(source.join("towpath.yaml")).unwrap();
    std::fs::write(source.join("towpath.yaml"), format!("{definition}  more: {{ run: 'true' }}\n")).unwrap();
    let url = format!("http://rae:{}@{}/demo.git", world.token("rae"), world.address);
    for arguments in
        [&["commit", "--quiet", "-am", "Test more"][..], &["push", "--quiet", &url, "HEAD:refs/for/main"]]
    {
        let done = git(&source, arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let open = world.ada(Ask::get("/api/v1/repos/demo/changes?owner=rae")).ok();
    open[0]["change"].as_u64().unwrap()
}
