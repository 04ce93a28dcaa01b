//! Whose approval counts for what.

use serde_json::{Value, json};

use crate::client::{Ask, Got};
use crate::runs::after_a_run;
use crate::world::World;

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
