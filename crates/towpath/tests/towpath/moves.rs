//! Changes that go from one branch to another.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use crate::served::{Served, until_landed};

const FILES: [(&str, &str); 1] = [("towpath.yaml", "jobs:\n  unit: 'true'\n")];
const SETTINGS: &str = r#"{ "branches": { "main": { "approvals": 1 }, "release": { "approvals": 0 } } }"#;

/// The forge has it on its new branch, and nobody has told that of anything.
#[test]
fn a_hold_comes_along_though_the_server_dies_in_the_middle_of_a_move() {
    let killed = [("TOWPATH_FAULT", "retarget.written")];
    let mut served = Served::with_options(&FILES, &["--sandbox", "none"], &killed);
    served.world.git(&["push", "--quiet", "towpath", "main:refs/heads/release"]);
    served.world.write("two-branches.json", SETTINGS);
    served.ok(&["repo", "settings", "--set", "two-branches.json"]);
    served.push("topic", "a", "1");
    served.ok(&["change", "hold", "1", "--why", "wait for ben"]);
    assert_ne!(served.world.towpath(&["change", "retarget", "1", "release"]).code, 0);
    assert_eq!(served.server.wait().unwrap().signal(), Some(9));
    served.again_in(&[]);
    let is_held_on =
        |change: &Value, target: &str| change["target"] == target && change["gate"]["hold"]["by"] == "ann";
    served.until("1", |change| is_held_on(change, "release"));
    // It goes on from there, with what it came with: a gate that lets a change go keeps no hold of it.
    for target in ["main", "release"] {
        served.ok(&["change", "retarget", "1", target]);
        served.until("1", |change| is_held_on(change, target));
    }
    served.ok(&["change", "release", "1"]);
    assert_eq!(until_landed(&served.world, "1")["target"], "release");
}
