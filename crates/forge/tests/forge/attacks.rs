//! Cases of the attack list that concern the built-in forge, each by its name there: people who try what is not theirs to do.
//! Every one ends with [`World::check_sound`]: the repository is whole, nothing is left, and an honest push works.

use std::sync::atomic::Ordering;
use std::time::Duration;

use towpath_core::cell::RefusalClass;
use towpath_core::gate::Snapshot;
use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_forge::{ChangeRecord, Failure, Forge, Importer, Origin};
use towpath_git::{Credentials, ImportOptions};

use crate::contract::landing;
use crate::raw::status;
use crate::support::{ANN, BOB, Clone, MAINTAINER, OUTSIDER, World, branch, every_git, said, why};

/// Whether a person gets a commit by its id, over protocol 2.
fn can_fetch(clone: &Clone, commit: CommitId) -> bool {
    clone
        .git(&["-c", "protocol.version=2", "fetch", "--quiet", &clone.url, &commit.to_string()])
        .status
        .success()
}

fn facts(world: &World) -> Snapshot {
    world.forge.read(&branch("main"), None).unwrap()
}

#[test]
fn a14_hijack_change_id() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let id = format!("Change-Id: I{}", "a".repeat(40));
    ann.write("a", "a\n");
    ann.commit(&format!("Add a\n\n{id}"));
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    ann.commit_file("b", "b\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap();
    let before = (world.forge.change(ChangeNumber(1)).unwrap(), world.refs());

    let outsider = world.clone_of("outsider");
    outsider.write("evil", "evil\n");
    let evil = outsider.commit(&format!("Add a\n\n{id}"));
    assert!(outsider.push(&["-o", "change=1", "HEAD:refs/heads/topic"]).unwrap_err().contains("is ann's"));
    let refused = outsider.push(&["-o", "change=1", "HEAD:refs/for/main"]).unwrap_err();
    assert!(refused.contains("only ann or a maintainer can add a revision"), "{refused}");
    assert!(outsider.push(&["HEAD:refs/changes/1/2"]).is_err());
    assert!(outsider.push(&["HEAD:refs/changes/1/meta"]).is_err());
    assert_eq!((world.forge.change(ChangeNumber(1)).unwrap(), world.refs()), before);
    assert!(!world.has(&evil.to_string()));
    // The same Change-Id is a change of the outsider's own, and so is the same branch name.
    for arguments in [&["HEAD:refs/for/main"][..], &["-o", "change", "HEAD:refs/heads/topic"]] {
        let last = world.newest();
        outsider.push(arguments).unwrap();
        assert_ne!(world.newest(), last);
        outsider.commit("Mine");
        let own = world.forge.change(world.newest()).unwrap();
        assert_eq!((own.owner, own.newest().uploader), (OUTSIDER, OUTSIDER));
    }
    assert_eq!(world.forge.change(ChangeNumber(1)).unwrap(), before.0);
    world.check_sound();
}

/// Pushes a commit with a Change-Id for a branch, and returns the newest change and what the push was told.
fn push_id(clone: &Clone, world: &World, (id, target): (&str, &str)) -> (ChangeRecord, String) {
    clone.commit(&format!("By {}\n\n{id}", clone.url));
    let said = clone.push(&[&format!("HEAD:refs/for/{target}")]).unwrap();
    (world.forge.change(world.newest()).unwrap(), said)
}

#[test]
fn a14_hijack_change_id_by_retarget() {
    for (victim, user) in [("ann", ANN), ("mia", MAINTAINER)] {
        let world = World::new();
        let id = format!("Change-Id: I{}", "a".repeat(40));
        let (theirs, bob) = (world.clone_of(victim), world.clone_of("bob"));
        let (first, _) = push_id(&theirs, &world, (&id, "main"));
        let (moved, _) = push_id(&bob, &world, (&id, "release"));
        let moved = world.retarget(BOB, moved.number, "main").unwrap();
        theirs.run(&["commit", "--quiet", "--allow-empty", "--amend", "-m", &format!("Better\n\n{id}")]);
        theirs.push(&["HEAD:refs/for/main"]).unwrap();
        let updated = world.forge.change(first.number).unwrap();
        assert_eq!((updated.revisions.len(), updated.newest().commit), (2, theirs.head()));
        assert_eq!(world.forge.change(moved.number).unwrap(), moved);

        // Nor does it help to be there first, or to have given up.
        let (squatted, _) = push_id(&bob, &world, (&id, "release"));
        let (own, said) = push_id(&theirs, &world, (&id, "release"));
        assert_eq!((own.owner, own.revisions.len()), (user, 1));
        assert!(said.contains(&format!("bob's change {} has this Change-Id too", squatted.number)), "{said}");
        let by_number = format!("change={}", squatted.number);
        assert_eq!(said.contains(&by_number), user == MAINTAINER, "{said}");
        assert_eq!(world.forge.change(squatted.number).unwrap(), squatted);
        world.forge.close(user, own.number, world.now()).unwrap();
        let closed = push_id(&bob, &world, (&id.replace('a', "b"), "main")).0;
        world.forge.close(BOB, closed.number, world.now()).unwrap();
        let (own, said) = push_id(&theirs, &world, (&id.replace('a', "b"), "main"));
        assert!(own.owner == user && !said.contains("Change-Id"), "{said}");
        world.check_sound();
    }
}

#[test]
fn a16_git_author_spoof() {
    let world = World::new();
    let outsider = world.clone_of("outsider");
    outsider.write("evil", "evil\n");
    outsider.run(&["add", "."]);
    let author = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"];
    outsider
        .run(&[&author[..], &["commit", "--quiet", "--author=ann <ann@example.org>", "-m", "Mine"]].concat());
    outsider.push(&["HEAD:refs/for/main"]).unwrap();
    let facts = facts(&world);
    assert_eq!((facts.changes[0].owner, facts.changes[0].revision.uploader), (OUTSIDER, OUTSIDER));
    assert!(!facts.people[&OUTSIDER].authorised);
    world.check_sound();
}

#[test]
fn a17_not_vouched() {
    let world = World::new();
    let (outsider, change) = world.change("outsider", "topic");
    outsider.push(&["-o", "change", "-o", "label=rerun all tests", "HEAD:refs/heads/topic"]).unwrap();
    let facts = facts(&world);
    assert_eq!((facts.changes.len(), facts.changes[0].revision.uploader), (1, OUTSIDER));
    assert_eq!(world.forge.change(change.number).unwrap().revisions.len(), 1);
    assert!(!facts.people[&OUTSIDER].authorised);
}

#[test]
fn a18_vouched_then_moved() {
    let world = World::new();
    let (outsider, first) = world.change("outsider", "topic");
    let before = facts(&world);
    outsider.commit_file("topic", "evil\n");
    outsider.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap();
    let after = facts(&world);
    assert_eq!(before.changes[0].revision.commit, first.newest().commit);
    assert_eq!((after.changes[0].revision.commit, after.changes[0].revision.number), (outsider.head(), 2));
}

#[test]
fn a20_stacked_on_untrusted() {
    let world = World::new();
    let outsider = world.clone_of("outsider");
    outsider.commit_file("theirs", "theirs\n");
    outsider.push(&["HEAD:refs/for/main"]).unwrap();
    let ann = world.clone_of("ann");
    ann.go_to("refs/changes/1/1");
    ann.commit_file("mine", "mine\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    let stacked = facts(&world).changes.swap_remove(1);
    assert_eq!(stacked.revision.uploader, ANN);
    assert_eq!(stacked.revision.stack_uploaders.into_iter().collect::<Vec<_>>(), [OUTSIDER]);
    // Once the commit below has landed, nobody else is left.
    let below = world.ref_of("refs/changes/1/1").unwrap();
    world.forge.land(&landing((ChangeNumber(1), below), (world.main(), below))).unwrap();
    let stacked = facts(&world).changes.pop().unwrap();
    assert!(stacked.revision.stack_uploaders.is_empty());
    world.check_sound();
}

#[test]
fn a26_tag_release_trigger() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.run(&["tag", "-a", "-m", "release", "v9.9.9"]);
    let before = world.refs();
    let refused = ann.push(&["v9.9.9"]).unwrap_err();
    assert!(refused.contains("pushing tags takes the role maintainer"), "{refused}");
    assert_eq!(world.refs(), before);
    let mia = world.clone_of("mia");
    mia.run(&["tag", "-a", "-m", "release", "v1.0.0"]);
    mia.push(&["v1.0.0"]).unwrap();
    mia.run(&["tag", "--force", "-a", "-m", "other", "v1.0.0"]);
    assert!(mia.push(&["--force", "v1.0.0"]).unwrap_err().contains("stays what it is"));
    world.check_sound();
}

#[test]
fn b01_direct_push() {
    for client in every_git() {
        let world = World::with(&every_git()[0], client.program(), Duration::from_secs(20));
        let ann = world.clone_of("ann");
        let evil = ann.commit_file("evil", "evil\n");
        let before = world.refs();
        let refused = ann.push(&["HEAD:refs/heads/main"]).unwrap_err();
        assert!(refused.contains("remote: refused: `main` is watched"), "{refused}");
        assert!(refused.contains("git push <remote> HEAD:refs/for/main"), "{refused}");
        assert!(refused.contains("! [remote rejected]"), "{refused}");
        ann.run(&["commit", "--quiet", "--amend", "-m", "rewritten"]);
        assert!(ann.push(&["--force", "HEAD:refs/heads/main"]).unwrap_err().contains("is watched"));
        assert!(ann.push(&[":refs/heads/main"]).unwrap_err().contains("not deleted by push"));
        assert!(ann.push(&["-o", "change", "HEAD:refs/heads/main"]).unwrap_err().contains("is watched"));
        // One refused ref refuses the push.
        assert!(ann.push(&["HEAD:refs/heads/fine", "HEAD:refs/heads/main"]).is_err());
        assert_eq!(world.refs(), before);
        assert!(!world.has(&evil.to_string()));
        world.check_sound();
    }
}

#[test]
fn b02_replace_ref() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let good = world.main();
    let evil = ann.commit_file("evil", "evil\n");
    let refused = ann.push(&[&format!("HEAD:refs/replace/{good}")]).unwrap_err();
    assert!(refused.contains("is not for pushing"), "{refused}");
    // Planted by hand, it changes nothing that is read.
    ann.push(&["HEAD:refs/heads/evil"]).unwrap();
    let before = facts(&world).tip;
    assert!(
        world.in_store(&["update-ref", &format!("refs/replace/{good}"), &evil.to_string()]).status.success()
    );
    world.forge.repository().close_processes();
    assert_eq!(facts(&world).tip, before);
    let reader = world.clone_of("bob");
    assert!(!reader.folder.join("evil").exists());
}

#[test]
fn b03_tag_named_main() {
    let world = World::new();
    let mia = world.clone_of("mia");
    let evil = mia.commit_file("evil", "evil\n");
    mia.run(&["tag", "main"]);
    let refused = mia.push(&["refs/tags/main"]).unwrap_err();
    assert!(refused.contains("git would take the tag for it"), "{refused}");
    mia.push(&["HEAD:refs/heads/evil"]).unwrap();
    let before = facts(&world).tip;
    assert!(world.in_store(&["update-ref", "refs/tags/main", &evil.to_string()]).status.success());
    assert_eq!(facts(&world).tip, before);
    let ann = world.clone_of("ann");
    ann.commit_file("a", "a\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    assert!(facts(&world).changes[0].revision.stack_uploaders.is_empty());
}

#[test]
fn b14_refused_objects_linger() {
    let world = World::new();
    let (ann, change) = world.change("ann", "topic");
    world.forge.close(ANN, change.number, world.now()).unwrap();
    let secret = ann.commit_file("secret", "secret\n");
    let blob = ann.run(&["rev-parse", "HEAD:secret"]);
    let refused = ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("was closed by ann"), "{refused}");
    let outsider = world.clone_of("outsider");
    let theirs = outsider.commit_file("theirs", "theirs\n");
    assert!(outsider.push(&["-o", "change=1", "HEAD:refs/heads/x"]).is_err());
    let bob = world.clone_of("bob");
    for (commit, object) in [(secret, blob), (theirs, theirs.to_string())] {
        assert!(!can_fetch(&bob, commit));
        assert!(!world.has(&object) && !world.has(&commit.to_string()));
    }
    // The control: what was taken can be fetched by its id.
    assert!(can_fetch(&bob, change.newest().commit));
    world.check_sound();
}

#[test]
fn b15_other_repo_by_sha() {
    let (one, other) = (World::new(), World::new());
    let ann = one.clone_of("ann");
    let commit = ann.commit_file("private", "private\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    assert!(!can_fetch(&other.clone_of("bob"), commit));
    assert!(!other.forge.repository().path().join("objects/info/alternates").exists());
    let bob = one.clone_of("bob");
    let stranger = bob.url.replace("bob:", "stranger:");
    let text = said(&bob.git(&["fetch", &stranger, &commit.to_string()]));
    assert!(text.contains("not found"), "{text}");
    assert!(can_fetch(&bob, commit));
}

#[test]
fn b17_dumb_http() {
    let world = World::new();
    for target in [
        "/demo.git/config",
        "/demo.git/HEAD",
        "/demo.git/objects/info/packs",
        "/demo.git/hooks/pre-receive",
        "/%2e%2e/demo.git/info/refs?service=git-upload-pack",
        "/demo.git/../demo.git",
        "/demo.git/info/refs",
        "/demo.git/info/refs?service=git-upload-archive",
    ] {
        for method in ["GET", "POST"] {
            assert_eq!(status(&world, method, target), 404, "{method} {target}");
        }
    }
    assert_eq!(status(&world, "GET", "/demo.git/info/refs?service=git-upload-pack"), 200);
}

#[test]
fn b20_import_url() {
    let world = World::new();
    let git = world.forge.repository().git().clone();
    let into = world.folder.path().join("imported.git");
    let try_import =
        |by, origin: Origin<'_>| towpath_forge::import(&git, by, (origin, &into), ImportOptions::default());
    let remote = |address| Origin::Address { address, credentials: Credentials::None };
    let never = ["ext::sh -c id", "-uid", "file:///etc", "/etc", "http://169.254.169.254/"];
    let inside = [
        "https://169.254.169.254/latest",
        "https://127.0.0.1:1/x.git",
        "https://[::ffff:127.0.0.1]/x.git",
        "https://localhost/x.git",
    ];
    let never = never.map(|address| (address, RefusalClass::Invalid));
    for (address, as_what) in never.into_iter().chain(inside.map(|address| (address, RefusalClass::Denied))) {
        let (class, text) = why(try_import(Importer::Admin, remote(address)));
        assert_eq!(class, as_what, "{address}: {text}");
        assert!(!into.exists());
    }
    for (address, class) in never {
        assert_eq!(why(try_import(Importer::LocalAdmin, remote(address))).0, class);
    }
    let here = world.clone_of("ann");
    here.commit_file("a", "a\n");
    let local = Origin::Folder(&here.folder);
    assert!(why(try_import(Importer::Admin, local)).1.contains("admin"));
    // The control: the admin of the machine may, and reaches what nobody else does through the server.
    let tried = try_import(Importer::LocalAdmin, remote("https://127.0.0.1:1/x.git"));
    assert!(matches!(tried, Err(Failure::Failed(_))), "nobody listens there: {:?}", tried.err());
    let imported = try_import(Importer::LocalAdmin, local).unwrap();
    assert_eq!(imported.repository.branch_tip(&branch("work")).unwrap(), Some(here.head()));
    assert_eq!(why(try_import(Importer::LocalAdmin, local)).0, RefusalClass::Conflict);
}

#[test]
fn f11_token_revoked() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let commit = ann.commit_file("a", "a\n");
    world.server.shared.tokens_hold.store(false, Ordering::SeqCst);
    let refused = ann.push(&["HEAD:refs/for/main"]).unwrap_err();
    assert!(refused.contains("your token was revoked"), "{refused}");
    assert!(!world.has(&commit.to_string()));
    world.server.shared.tokens_hold.store(true, Ordering::SeqCst);
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    world.check_sound();
}

#[test]
fn g09_foreign_push() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let (_, foreign) = world.change("bob", "foreign");
    let from = world.main();
    let store = |to: CommitId| world.in_store(&["update-ref", "refs/heads/main", &to.to_string()]);
    assert!(store(foreign.newest().commit).status.success());
    let head = change.newest().commit;
    let tried = world.forge.land(&landing((change.number, head), (from, head))).unwrap();
    assert_eq!(tried, towpath_core::gate::LandTried::Moved { tip: Some(foreign.newest().commit) });
    assert_eq!(world.main(), foreign.newest().commit, "not overwritten");
    assert!(
        !facts(&world).keeps_landed || world.forge.read(&branch("main"), Some(from)).unwrap().keeps_landed
    );
}
