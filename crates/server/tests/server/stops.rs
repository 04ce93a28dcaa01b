//! Holds, their ends and freezes, while what they are about moves.

use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use towpath_core::gate::GateState;
use towpath_core::ids::{ChangeNumber, GateId};
use towpath_forge::Retarget;

use crate::client::{Ask, Got};
use crate::git::said;
use crate::world::{World, git};

const CHANGE: ChangeNumber = ChangeNumber(1);
const LANDS_UNTESTED: &str = "gate: { empty: land }\njobs:\n  by-hand: { on: [manual], run: 'true' }\n";

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

/// A change that lands, but for the forge, which is kept from it until it is stopped: what is answered to whoever does that.
fn stopped_too_late(world: &World, stop: Ask, is_stopped: fn(&GateState) -> bool) -> Got {
    let forge = world.shared.forges.get(&world.demo()).unwrap();
    let (address, stop) = (world.address, stop.token(world.token("mia")));
    thread::scope(|scope| {
        let (let_go, kept) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        scope.spawn(move || {
            let keep = || {
                begun.send(()).unwrap();
                let _ = kept.recv();
            };
            forge.while_still(keep).unwrap();
        });
        begins.recv().unwrap();
        world.by("mia", ask("release")).ok();
        world.until(|world| at(world, "main", |gate| gate.lands(CHANGE)) == Some(true));
        let answer = scope.spawn(move || stop.send(address));
        world.until(|world| at(world, "main", is_stopped) == Some(true));
        let_go.send(()).unwrap();
        answer.join().unwrap()
    })
}

fn ready_but_held() -> World {
    let world = World::without_jobs(LANDS_UNTESTED);
    world.by("mia", ask("hold")).ok();
    let approve = json!({ "revision": world.change(1)["revision"] });
    world.by("mia", Ask::post("/api/v1/repos/demo/changes/1/approve", approve)).ok();
    world.until(|world| world.why(1) == ["held"]);
    world
}

#[test]
fn whoever_holds_what_is_landing_is_told_that_it_has_landed() {
    let world = ready_but_held();
    let got = stopped_too_late(&world, ask("hold"), |gate| gate.hold_of(CHANGE).is_some());
    let shown = world.change(1);
    let expected =
        format!("change 1 landed as {} before the hold could stop it", shown["landed"].as_str().unwrap());
    assert_eq!((got.status, sentence(&got)), (409, expected));
}

#[test]
fn whoever_freezes_a_branch_is_told_what_has_landed_all_the_same() {
    let world = ready_but_held();
    let freeze = Ask::post("/api/v1/repos/demo/branches/main/freeze", json!({ "why": "a release" }));
    let got = stopped_too_late(&world, freeze, |gate| gate.branch().frozen.is_some());
    let shown = world.change(1);
    let landed = shown["landed"].as_str().unwrap();
    assert_eq!(
        (got.status, sentence(&got)),
        (200, format!("froze demo/main: a release; {landed} was landing already, and has landed"))
    );
}
