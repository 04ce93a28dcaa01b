//! Holds and their ends, while what they are about moves.

use serde_json::{Value, json};
use towpath_core::gate::GateState;
use towpath_core::ids::{ChangeNumber, GateId};
use towpath_forge::Retarget;

use crate::client::{Ask, Got};
use crate::git::said;
use crate::world::{World, git};

const CHANGE: ChangeNumber = ChangeNumber(1);

fn ask(verb: &str) -> Ask {
    let input = match verb {
        "hold" => json!({ "why": "wait for ben" }),
        _ => json!({}),
    };
    Ask::post(&format!("/api/v1/repos/demo/changes/1/{verb}"), input)
}

fn sentence(got: &Got) -> String {
    let body: Value = got.json();
    body["said"].as_str().or(body["why"].as_str()).unwrap().to_owned()
}

fn at<T: Send + 'static>(
    world: &World,
    branch: &str,
    look: impl FnOnce(&GateState) -> T + Send + 'static,
) -> Option<T> {
    let gate: GateId = format!("demo/{branch}").parse().unwrap();
    world.runtime.block_on(world.shared.engine.gate(gate, |live| look(&live.state)))
}

/// A world with a second branch.
fn with_release() -> World {
    let world = World::new();
    let repository = world.folder.path().join("data/repos/demo.git");
    let made = git(&repository, &["branch", "release", "main"]);
    assert!(made.status.success(), "{}", said(&made));
    let mut settings = world.ada(Ask::get("/api/v1/repos/demo/settings")).ok();
    settings["branches"]["release"] = settings["branches"]["main"].clone();
    world.ada(Ask::put("/api/v1/repos/demo/settings", settings)).ok();
    world.until(|world| at(world, "release", |gate| gate.branch().read_at.is_some()) == Some(true));
    world
}

/// Somebody moves it, and no gate has heard of that yet.
fn moves(world: &World, by: &str, target: &str) {
    let forge = world.shared.forges.get(&world.demo()).unwrap();
    let came = forge.change(CHANGE).unwrap().came;
    let retarget = Retarget { target: target.parse().unwrap(), came };
    forge.retarget(world.user(by), CHANGE, &retarget, world.shared.engine.clock().now()).unwrap();
}

#[test]
fn a_hold_is_held_or_ended_where_its_change_has_just_gone() {
    let world = with_release();
    for target in ["release", "main", "release"] {
        moves(&world, "ann", target);
        assert_eq!(sentence(&world.by("ann", ask("hold"))), "held change 1: wait for ben");
        let held = world.change(1);
        assert_eq!((&held["target"], &held["gate"]["hold"]["by"]), (&json!(target), &json!("ann")));
        moves(&world, "ann", if target == "main" { "release" } else { "main" });
        let other = world.by("mia", ask("hold"));
        assert_eq!((other.status, sentence(&other)), (409, "ann holds change 1: wait for ben".into()));
        moves(&world, "ann", target);
        assert_eq!(sentence(&world.by("mia", ask("release"))), "released change 1");
        let free = world.change(1);
        assert_eq!((&free["target"], &free["gate"]["hold"]), (&json!(target), &Value::Null));
    }
}
