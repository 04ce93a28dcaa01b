//! Plain git against the edge.

use std::path::PathBuf;
use std::process::Output;

use crate::client::Ask;
use crate::world::{World, git};

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn clone(world: &World, name: &str) -> Result<PathBuf, String> {
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

/// Git shows its people what it is told in plain text, and nothing else of what is refused before it begins.
#[test]
fn git_shows_what_was_refused_why_and_what_to_do() {
    let world = World::new();
    let (address, folder) = (world.address, world.folder.path());
    let url = |login: &str, place: &str| format!("http://{login}@{address}/{place}");
    let of = |name: &str| format!("{name}:{}", world.token(name));
    let to_other_host = "http.extraHeader=Host: other.example";
    let wrong = [
        "why: the token or session is malformed, unknown, revoked or over",
        "hint: `towpath token login URL`",
    ];
    let elsewhere =
        ["why: there is nothing at this path", "hint: a repo's address for git ends in `/NAME.git`"];
    // As a clone keeps a token: git asks for a login, and sends what it keeps all the same.
    let kept = "http.extraHeader=Authorization: Bearer twp_0123";
    let cases: [(&str, String, [&str; 2]); 7] = [
        (kept, url(&of("rae"), "demo.git"), wrong),
        ("gc.auto=0", url("ann:twp_0123", "demo.git"), wrong),
        ("gc.auto=0", url(&of("revoked"), "demo.git"), wrong),
        (
            "gc.auto=0",
            url(&of("stranger"), "demo.git"),
            ["why: there is no repo `demo`, or you may not see it", "hint: `towpath repo list`"],
        ),
        ("gc.auto=0", url(&of("rae"), "demo"), elsewhere),
        ("gc.auto=0", url(&of("rae"), "ann/demo.git"), elsewhere),
        (
            to_other_host,
            url(&of("rae"), "demo.git"),
            ["why: this server does not answer for that host", "hint: its address is http"],
        ),
    ];
    let shows = |done: &Output, words: [&str; 2]| {
        let said = said(done);
        let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("remote: ")).collect();
        let is_shown = |word: &str| lines.iter().any(|line| line.trim_start().starts_with(word));
        assert!(!done.status.success() && lines[0].starts_with("cannot "), "{said}");
        assert!(words.into_iter().all(is_shown), "{words:?}: {said}");
    };
    for (setting, url, words) in &cases {
        shows(&git(folder, &["-c", setting, "ls-remote", url]), *words);
    }
    let pushed = git(&clone(&world, "rae").unwrap(), &["push", "origin", "HEAD:refs/heads/mine"]);
    shows(&pushed, ["why: pushing takes the role author on `demo`", "hint: `towpath user me`"]);
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
    git(&folder, &["commit", "--quiet", "--amend", "-m", "Add bob, not yet"]);
    let labelled =
        git(&folder, &["push", "-o", "change", "-o", "label=WIP", "origin", "HEAD:refs/heads/bobs"]);
    let labelled = self::said(&labelled);
    assert!(labelled.contains(", 1 approval; it has the label `WIP`"), "{labelled}");
    // Straight to the gated branch there is no way.
    let direct = git(&folder, &["push", "origin", "HEAD:refs/heads/main"]);
    assert!(!direct.status.success());
    let tip = world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok()["tip"]["commit"].clone();
    assert_ne!(tip, world.change(2)["revision"]);
}

#[test]
fn a_push_that_leaves_later_changes_without_a_test_says_so() {
    let world = World::new();
    let folder = clone(&world, "bob").unwrap();
    std::fs::write(folder.join("towpath.yaml"), "jobs: {}\n").unwrap();
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "Test nothing"]);
    let pushed = git(&folder, &["push", "-o", "change", "origin", "HEAD:refs/heads/bobs"]);
    let said = said(&pushed);
    let note =
        "note: its pipeline requires no job, so after it no change can land that does not bring one; give";
    assert!(pushed.status.success() && said.contains(note), "{said}");
    assert!(world.why(2).contains(&"last_to_land".to_owned()), "{:?}", world.why(2));
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
    assert_eq!((refused.status, refused.header("content-type")), (429, Some("text/plain; charset=utf-8")));
    let told = String::from_utf8(refused.body).unwrap();
    assert!(
        told.contains("why: as many fetches and pushes of yours") && told.contains("hint: wait"),
        "{told}"
    );
    clone(&world, "ann").unwrap();
    drop(open);
}
