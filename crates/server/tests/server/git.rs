//! Plain git against the edge.

use std::path::PathBuf;
use std::process::Output;

use crate::client::Ask;
use crate::world::{World, git};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn clone(world: &World, name: &str) -> Result<PathBuf, String> {
    let url = format!("http://{name}:{}@{}/demo.git", world.token(name), world.address);
    let folder = world.folder.path().join(format!("clone-{name}"));
    let done = git(world.folder.path(), &["clone", "--quiet", &url, folder.to_str().unwrap()]);
    if done.status.success() { Ok(folder) } else { Err(said(&done)) }
}

#[test]
fn a_reader_clones_and_nobody_else_does() {
    let world = World::new();
    let folder = clone(&world, "rae").unwrap();
    assert!(folder.join("towpath.yaml").is_file());
    assert!(clone(&world, "stranger").unwrap_err().contains("not found"));
    assert!(clone(&world, "revoked").unwrap_err().contains("Authentication failed"));
    let push = git(&folder, &["push", "--quiet", "origin", "HEAD:refs/heads/mine"]);
    assert!(!push.status.success(), "{}", said(&push));
}

#[test]
fn a_push_opens_a_change_and_says_what_it_waits_for() {
    let world = World::new();
    let folder = clone(&world, "bob").unwrap();
    std::fs::write(folder.join("bob"), "bob\n").unwrap();
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "Add bob"]);
    let pushed = git(&folder, &["push", "-o", "change", "origin", "HEAD:refs/heads/bobs"]);
    let said = said(&pushed);
    assert!(pushed.status.success(), "{said}");
    let link = format!("change 2: http://{}/demo/changes/2", world.address);
    assert!(said.contains(&format!("{link} waits for: run demo/main/2, 1 approval")), "{said}");
    assert_eq!(world.change(2)["owner"], "bob");
    world.until(|world| world.why(2).contains(&"approvals".to_owned()));
    // Straight to the gated branch there is no way.
    let direct = git(&folder, &["push", "origin", "HEAD:refs/heads/main"]);
    assert!(!direct.status.success());
    let tip = world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok()["tip"]["commit"].clone();
    assert_ne!(tip, world.change(2)["revision"]);
}

/// Requests that never come to their end, as many as there are places for everybody.
#[test]
fn whoever_trickles_leaves_places_for_others() {
    let world = World::new();
    let trickle = Ask::new("POST", "/demo.git/git-upload-pack")
        .token(world.token("rae"))
        .header("content-type", "application/x-git-upload-pack-request")
        .header("content-length", "1000000")
        .body("0032want");
    let open: Vec<_> = (0..64).map(|_| trickle.start(world.address)).collect();
    let refs = || world.by("rae", Ask::get("/demo.git/info/refs?service=git-upload-pack"));
    // It may come before the last of them.
    let refused = std::iter::repeat_with(refs).take(64).find(|got| got.status != 200).unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.error()["why"].as_str().unwrap().contains("of yours"), "{}", refused.json());
    clone(&world, "ann").unwrap();
    drop(open);
}
