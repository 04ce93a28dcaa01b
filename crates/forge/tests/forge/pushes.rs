//! What people do with `git push`.

use std::collections::BTreeSet;
use std::time::Duration;

use towpath_core::cell::RefusalClass;
use towpath_core::gate::{Labels, LandTried};
use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_forge::ChangeState;

use crate::contract::landing;
use crate::support::{ANN, Clone, MAINTAINER, World, branch, every_git, why};

#[test]
fn a_branch_becomes_a_change_and_a_second_push_a_revision() {
    for server in every_git() {
        for client in every_git() {
            let world = World::with(&server, client.program(), Duration::from_secs(20));
            let ann = world.clone_of("ann");
            let first = ann.commit_file("fix", "one\n");
            let said = ann.push(&["-o", "change", "HEAD:refs/heads/my-fix"]).unwrap();
            assert!(
                said.contains("remote: change 1: http://towpath.test/demo/changes/1 waits for: run main/1"),
                "{said}"
            );
            assert!(said.contains("refs/changes/1/1"), "{said}");
            assert_eq!(world.ref_of("refs/changes/1/1"), Some(first));
            assert_eq!(world.ref_of("refs/heads/my-fix"), None);

            ann.write("fix", "two\n");
            ann.run(&["commit", "--quiet", "--all", "--amend", "-m", "Fix it\n\nBecause."]);
            ann.push(&["-o", "change", "-o", "label=slow", "HEAD:refs/heads/my-fix"]).unwrap();
            let change = world.forge.change(ChangeNumber(1)).unwrap();
            assert_eq!(change.revisions.len(), 2);
            assert_eq!((change.newest().commit, change.newest().uploader), (ann.head(), ANN));
            assert_eq!((change.title.as_str(), change.body.as_str()), ("Fix it", "Because."));
            assert_eq!(change.labels.iter().collect::<Vec<_>>(), ["slow"]);
            assert_eq!((change.owner, change.state), (ANN, ChangeState::Open));
            assert_eq!(world.ref_of("refs/changes/1/1"), Some(first));
            world.check_sound();
        }
    }
}

fn with_id(clone: &Clone, path: &str, id: char) -> String {
    clone.write(path, &format!("{path}\n"));
    let id = format!("I{}", id.to_string().repeat(40));
    clone.commit(&format!("Add {path}\n\nWhy.\n\nChange-Id: {id}"));
    id
}

#[test]
fn a_change_id_names_the_change() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let id = with_id(&ann, "a", 'a');
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    ann.write("a", "again\n");
    ann.run(&["commit", "--quiet", "--all", "--amend", "--no-edit"]);
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    let change = world.forge.change(ChangeNumber(1)).unwrap();
    assert_eq!((change.revisions.len(), change.change_id), (2, Some(id)));
    assert_eq!((change.title.as_str(), change.body.as_str()), ("Add a", "Why."));
    // The same Change-Id on another target is another change.
    ann.push(&["HEAD:refs/for/release"]).unwrap();
    assert_eq!(world.forge.change(ChangeNumber(2)).unwrap().target, branch("release"));
}

#[test]
fn no_change_opens_beside_another_of_its_change_id() {
    let world = World::new();
    let ann = world.clone_of("ann");
    with_id(&ann, "a", 'a');
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    ann.push(&["HEAD:refs/heads/stored"]).unwrap();
    let by_push = ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap_err();
    let (class, by_name) = why(world.open(ANN, "stored"));
    assert_eq!(class, RefusalClass::Conflict);
    for refused in [by_push, by_name] {
        assert!(refused.contains("your change 1 is open for `main` with the same Change-Id"), "{refused}");
        assert!(refused.contains("-o change=1"), "{refused}");
    }
    assert_eq!(world.newest(), ChangeNumber(1));
    // As the refusal says, and for another branch, or for somebody else.
    ann.run(&["commit", "--quiet", "--amend", "--date=2024-01-01", "--no-edit"]);
    ann.push(&["-o", "change=1", "HEAD:refs/heads/topic"]).unwrap();
    assert_eq!(world.forge.change(ChangeNumber(1)).unwrap().newest().commit, ann.head());
    ann.push(&["-o", "change", "-o", "target=release", "HEAD:refs/heads/backport"]).unwrap();
    assert_eq!(world.forge.change(ChangeNumber(2)).unwrap().target, branch("release"));
    world.open(MAINTAINER, "stored").unwrap();
    world.forge.close(ANN, ChangeNumber(1), world.now()).unwrap();
    world.open(ANN, "stored").unwrap();
    assert_eq!(world.newest(), ChangeNumber(4));
}

#[test]
fn a_maintainer_names_somebody_elses_change_by_its_number() {
    let world = World::new();
    let (ann, mia) = (world.clone_of("ann"), world.clone_of("mia"));
    with_id(&ann, "a", 'a');
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    mia.go_to("refs/changes/1/1");
    mia.run(&["commit", "--quiet", "--amend", "--date=2024-01-01", "--no-edit"]);
    let said = mia.push(&["HEAD:refs/for/main"]).unwrap();
    assert_eq!(world.forge.change(ChangeNumber(2)).unwrap().owner, MAINTAINER);
    assert!(said.contains("ann's change 1 has this Change-Id too"), "{said}");
    assert!(
        said.contains("towpath change close 2, then git push <remote> HEAD:refs/for/main -o change=1"),
        "{said}"
    );
    world.forge.close(MAINTAINER, ChangeNumber(2), world.now()).unwrap();
    mia.push(&["-o", "change=1", "HEAD:refs/for/main"]).unwrap();
    let change = world.forge.change(ChangeNumber(1)).unwrap();
    assert_eq!((change.owner, change.revisions.len(), change.newest().commit), (ANN, 2, mia.head()));
}

#[test]
fn a_commit_without_any_key_opens_one_change_and_no_more() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit_file("a", "a\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    ann.push(&["-o", "title=Better words", "HEAD:refs/for/main"]).unwrap();
    assert_eq!(world.newest(), ChangeNumber(1));
    assert_eq!(world.forge.change(ChangeNumber(1)).unwrap().title, "Better words");
    ann.commit_file("b", "b\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    assert_eq!(world.newest(), ChangeNumber(2));
}

#[test]
fn options_say_title_target_draft_and_labels() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit_file("a", "a\n");
    ann.commit_file("b", "b\n");
    let options =
        ["-o", "change", "-o", "draft", "-o", "target=release", "-o", "label=x", "HEAD:refs/heads/two-files"];
    let said = ann.push(&options).unwrap();
    assert!(said.contains("it is a draft"), "{said}");
    let change = world.forge.change(ChangeNumber(1)).unwrap();
    assert_eq!((change.title.as_str(), change.body.as_str()), ("Two files", "- Add a\n- Add b"));
    assert_eq!((change.draft, change.target.as_str()), (true, "release"));
    ann.push(&["-o", "change", "-o", "ready", "-o", "title=Mine", "HEAD:refs/heads/two-files"]).unwrap();
    let change = world.forge.change(ChangeNumber(1)).unwrap();
    assert_eq!((change.draft, change.title.as_str(), change.revisions.len()), (false, "Mine", 1));
    // A title that a person gave stays.
    ann.commit_file("c", "c\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/two-files"]).unwrap();
    assert_eq!(world.forge.change(ChangeNumber(1)).unwrap().title, "Mine");
    let refused = ann.push(&["-o", "chnage", "HEAD:refs/heads/other"]).unwrap_err();
    assert!(refused.contains("remote: refused: there is no push option `chnage`"), "{refused}");
}

#[test]
fn branches_of_ones_own_are_stored() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let first = ann.commit_file("a", "a\n");
    let said = ann.push(&["HEAD:refs/heads/wip/mine"]).unwrap();
    assert!(said.contains("to open one: towpath change open"), "{said}");
    assert_eq!(world.ref_of("refs/heads/wip/mine"), Some(first));
    let bob = world.clone_of("bob");
    bob.commit_file("b", "b\n");
    let refused = bob.push(&["--force", "HEAD:refs/heads/wip/mine"]).unwrap_err();
    assert!(refused.contains("is somebody else's"), "{refused}");
    assert!(bob.push(&[":refs/heads/wip/mine"]).is_err());
    // The branch is known, so proposing under its name moves it along.
    let second = ann.commit_file("a", "more\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/wip/mine"]).unwrap();
    assert_eq!(world.ref_of("refs/heads/wip/mine"), Some(second));
    assert_eq!(world.forge.change(ChangeNumber(1)).unwrap().newest().commit, second);
    ann.push(&[":refs/heads/wip/mine"]).unwrap();
    assert_eq!(world.ref_of("refs/heads/wip/mine"), None);
    bob.push(&["HEAD:refs/heads/wip/mine"]).unwrap();
    world.check_sound();
}

#[test]
fn a_stored_branch_and_a_change_of_the_same_name_know_nothing_of_each_other() {
    for client in every_git() {
        let world = World::with(&client, client.program(), Duration::from_secs(20));
        let bob = world.clone_of("bob");
        bob.commit_file("fix", "one\n");
        bob.push(&["-o", "change", "HEAD:refs/heads/fix"]).unwrap();
        let ann = world.clone_of("ann");
        let stored = ann.commit_file("other", "other\n");
        ann.push(&["HEAD:refs/heads/fix"]).unwrap();
        // Bob's git has no reason to ask for force.
        let second = bob.commit_file("fix", "two\n");
        bob.push(&["-o", "change", "HEAD:refs/heads/fix"]).unwrap();
        let change = world.forge.change(ChangeNumber(1)).unwrap();
        assert_eq!((change.revisions.len(), change.newest().commit), (2, second));
        assert_eq!(world.ref_of("refs/heads/fix"), Some(stored));
        let refused = bob.push(&["HEAD:refs/heads/fix"]).unwrap_err();
        assert!(refused.contains("the branch `fix` is somebody else's"), "{refused}");
        // A maintainer's git knows of the branch, as the maintainer may move it: by a plain push, and never by a proposal.
        let mia = world.clone_of("mia");
        let third = mia.commit_file("third", "third\n");
        let refused = mia.push(&["-o", "change", "HEAD:refs/heads/fix"]).unwrap_err();
        assert!(refused.contains("fetch first"), "{refused}");
        mia.push(&["--force", "-o", "change", "HEAD:refs/heads/fix"]).unwrap();
        assert_eq!(world.forge.change(ChangeNumber(2)).unwrap().newest().commit, third);
        assert_eq!(world.ref_of("refs/heads/fix"), Some(stored));
        mia.push(&["--force", "HEAD:refs/heads/fix"]).unwrap();
        assert_eq!(world.ref_of("refs/heads/fix"), Some(third));
        world.check_sound();
    }
}

#[test]
fn a_change_opens_from_a_branch_that_is_there() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let head = ann.commit_file("a", "a\n");
    ann.push(&["HEAD:refs/heads/mine"]).unwrap();
    let change = world.open(ANN, "mine").unwrap();
    assert_eq!((change.number, change.newest().commit), (ChangeNumber(1), head));
    let again = world.open(ANN, "mine").unwrap();
    assert_eq!(again, change);
}

#[test]
fn several_changes_in_one_push() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit_file("a", "a\n");
    ann.run(&["branch", "one"]);
    ann.commit_file("b", "b\n");
    let said = ann.push(&["-o", "change", "one:refs/heads/one", "HEAD:refs/heads/two"]).unwrap();
    assert!(said.contains("change 1: ") && said.contains("change 2: "), "{said}");
    let refused = ann.push(&["-o", "change=1", "HEAD:refs/heads/three", "HEAD:refs/heads/four"]).unwrap_err();
    assert!(refused.contains("several refs revisions of one change"), "{refused}");
}

#[test]
fn a_name_is_used_again_after_landing_and_closed_changes_say_so() {
    let world = World::new();
    let (ann, change) = world.change("ann", "topic");
    world.forge.close(ANN, change.number, world.now()).unwrap();
    ann.commit_file("more", "more\n");
    let refused = ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("towpath change reopen 1"), "{refused}");
    world.forge.reopen(ANN, change.number, world.now()).unwrap();
    ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap();
    use towpath_forge::Forge;
    let head = ann.head();
    world.forge.land(&landing((change.number, head), (world.main(), head))).unwrap();
    world.forge.mark_landed(change.number, ann.head()).unwrap();
    let refused = ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("nothing to land"), "{refused}");
    ann.commit_file("next", "next\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap();
    assert_eq!(world.newest(), ChangeNumber(2));
    let refused = ann.push(&["-o", "change=1", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("change 1 landed as"), "{refused}");
    assert!(refused.contains("push its branch with `-o change`"), "{refused}");
    let refused = ann.push(&["-o", "change=99", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("there is no change 99; `towpath change list`"), "{refused}");
    // Of several that are over, the newest says what is.
    world.forge.close(ANN, ChangeNumber(2), world.now()).unwrap();
    let refused = ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("change 2 was closed"), "{refused}");
}

#[test]
fn a_maintainer_adds_a_revision_to_anothers_change() {
    let world = World::new();
    world.change("ann", "topic");
    let mia = world.clone_of("mia");
    mia.commit_file("topic", "better\n");
    mia.push(&["-o", "change=1", "HEAD:refs/heads/anything"]).unwrap();
    let change = world.forge.change(ChangeNumber(1)).unwrap();
    assert_eq!((change.owner, change.newest().uploader), (ANN, MAINTAINER));
}

#[test]
fn the_first_watched_branch_is_an_admins_to_make() {
    let world = World::new();
    let mut policy = crate::support::policy();
    policy.watched.insert(branch("next"), Labels::default());
    world.memory.set_policy(policy);
    let mia = world.clone_of("mia");
    let refused = mia.push(&["HEAD:refs/heads/next"]).unwrap_err();
    assert!(refused.contains("an admin makes it"), "{refused}");
    let ada = world.clone_of("ada");
    ada.push(&["HEAD:refs/heads/next"]).unwrap();
    assert_eq!(world.ref_of("refs/heads/next"), Some(world.main()));
}

#[test]
fn unrelated_and_empty_proposals_say_why() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let refused = ann.push(&["HEAD:refs/for/main"]).unwrap_err();
    assert!(refused.contains("there is nothing to land"), "{refused}");
    ann.run(&["checkout", "--quiet", "--orphan", "island"]);
    ann.commit_file("island", "island\n");
    let refused = ann.push(&["HEAD:refs/for/main"]).unwrap_err();
    assert!(refused.contains("no common history"), "{refused}");
    let refused = ann.push(&["HEAD:refs/for/nowhere"]).unwrap_err();
    assert!(refused.contains("there are: main, release"), "{refused}");
    world.check_sound();
}

#[test]
fn readers_fetch_and_strangers_find_nothing() {
    let world = World::new();
    let reader = world.clone_of("reader");
    assert_eq!(reader.head(), world.main());
    reader.commit_file("x", "x\n");
    let refused = reader.push(&["HEAD:refs/for/main"]).unwrap_err();
    assert!(refused.contains("pushing takes the role author"), "{refused}");
    let url = reader.url.replace("reader:", "stranger:");
    let output = reader.git(&["ls-remote", &url]);
    let text = crate::support::said(&output);
    assert!(!output.status.success() && text.contains("not found"), "{text}");
    let url = reader.url.replace("reader:", "nobody:");
    assert!(!reader.git(&["ls-remote", &url]).status.success());
}

#[test]
fn pushes_at_once_do_not_disturb_each_other() {
    let world = World::new();
    let clones: Vec<Clone> = ["ann", "bob", "mia", "outsider"].map(|name| world.clone_of(name)).into();
    std::thread::scope(|scope| {
        for (at, clone) in clones.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..2 {
                    clone.commit_file("file", &format!("{at} {turn}\n"));
                    clone.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap();
                }
            });
        }
    });
    let owners: Vec<_> = (1..=4).map(|number| world.forge.change(ChangeNumber(number)).unwrap()).collect();
    assert!(
        owners.iter().all(|change| change.revisions.len() == 2 && change.newest().uploader == change.owner)
    );
    assert_eq!(world.newest(), ChangeNumber(4));
    assert_eq!(world.forge.rebuild().unwrap(), towpath_forge::Rebuilt::default());
    world.check_sound();
}

#[test]
fn a_push_that_comes_too_late_takes_no_branch_from_its_owner() {
    use towpath_forge::Forge;
    for server in every_git() {
        let world = World::with(&server, server.program(), Duration::from_secs(20));
        let meanwhile = |happens: Box<dyn FnOnce() + Send>| {
            *world.server.shared.meanwhile.lock().unwrap() = Some(happens);
        };
        let [ann, bob, mia] = ["ann", "bob", "mia"].map(|name| world.clone_of(name));
        let first = ann.commit_file("fix", "anns\n");
        bob.commit_file("fix", "bobs\n");
        let again = world.clone_of("ann");
        again.run(&["fetch", "--quiet", ann.folder.to_str().unwrap(), "HEAD"]);
        again.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
        meanwhile(Box::new(move || drop(ann.push(&["HEAD:refs/heads/fix"]).unwrap())));
        let refused = bob.push(&["HEAD:refs/heads/fix", "HEAD:refs/heads/other"]).unwrap_err();
        assert!(refused.contains("the branch `fix` is somebody else's"), "{refused}");
        assert_eq!([world.ref_of("refs/heads/fix"), world.ref_of("refs/heads/other")], [Some(first), None]);
        // It is still ann's, and who moved it last is who did.
        let begun_by = || world.forge.read(&branch("fix"), None).unwrap().begun_by;
        mia.commit_file("fix", "mias\n");
        let second = again.commit_file("fix", "better\n");
        meanwhile(Box::new(move || drop(again.push(&["HEAD:refs/heads/fix"]).unwrap())));
        let refused = mia.push(&["--force", "HEAD:refs/heads/fix"]).unwrap_err();
        assert!(refused.contains("somebody else moved `refs/heads/fix` while you pushed"), "{refused}");
        assert_eq!(world.ref_of("refs/heads/fix"), Some(second));
        assert_eq!(begun_by(), BTreeSet::from([ANN]));
        let denied = bob.push(&["--force", "HEAD:refs/heads/fix"]).unwrap_err();
        assert!(denied.contains("the branch `fix` is somebody else's"), "{denied}");
        bob.push(&["HEAD:refs/heads/other"]).unwrap();
        mia.push(&["--force", "HEAD:refs/heads/fix"]).unwrap();
        assert_eq!(begun_by(), BTreeSet::from([MAINTAINER]));
        world.check_sound();
    }
}

#[test]
fn a_branch_inside_another_is_refused_and_is_nobodys() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit_file("a", "a\n");
    ann.push(&["HEAD:refs/heads/wip/mine"]).unwrap();
    let bob = world.clone_of("bob");
    for name in ["wip", "wip/mine/too"] {
        let refused = bob.push(&[&format!("HEAD:refs/heads/{name}")]).unwrap_err();
        assert!(refused.contains("cannot both be"), "{refused}");
        assert_eq!(world.ref_of(&format!("refs/heads/{name}")), None);
    }
    ann.push(&[":refs/heads/wip/mine"]).unwrap();
    bob.push(&["HEAD:refs/heads/wip"]).unwrap();
}

#[test]
fn a_tag_inside_another_is_refused() {
    let world = World::new();
    let mia = world.clone_of("mia");
    mia.push(&["HEAD:refs/tags/v1/rc"]).unwrap();
    for name in ["v1", "v1/rc/2"] {
        let refused = mia.push(&[&format!("HEAD:refs/tags/{name}")]).unwrap_err();
        assert!(refused.contains(&format!("a tag `{name}` and the tag `v1/rc` cannot both be")), "{refused}");
        assert_eq!(world.ref_of(&format!("refs/tags/{name}")), None);
    }
    mia.push(&["HEAD:refs/tags/v1.1"]).unwrap();
}

#[test]
fn two_refs_of_one_push_that_cannot_both_be_are_refused_together() {
    let world = World::new();
    let mia = world.clone_of("mia");
    mia.commit_file("a", "a\n");
    for [one, other] in
        [["heads/a", "heads/a/b"], ["heads/x", "tags/x"], ["tags/v/1", "tags/v"], ["tags/w", "tags/W"]]
    {
        let refs = [one, other].map(|name| format!("HEAD:refs/{name}"));
        let refused = mia.push(&[&refs[0], &refs[1], "HEAD:refs/heads/beside"]).unwrap_err();
        assert!(refused.contains("cannot both be"), "{refused}");
        for name in [one, other, "heads/beside"] {
            assert_eq!(world.ref_of(&format!("refs/{name}")), None, "{name}");
        }
    }
    mia.push(&["HEAD:refs/heads/a", "HEAD:refs/heads/beside", "HEAD:refs/tags/v/1"]).unwrap();
}

#[test]
fn branches_that_differ_only_by_case_are_refused() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit_file("a", "a\n");
    ann.push(&["HEAD:refs/heads/Fix/one"]).unwrap();
    let bob = world.clone_of("bob");
    bob.commit_file("b", "b\n");
    for name in ["Main", "MAIN/x", "fix/One", "FIX", "fix/one/more"] {
        let refused = bob.push(&[&format!("HEAD:refs/heads/{name}")]).unwrap_err();
        assert!(refused.contains("differ only in the case of letters"), "{refused}");
        assert_eq!(world.ref_of(&format!("refs/heads/{name}")), None);
    }
    let refused = bob.push(&["HEAD:refs/heads/b", "HEAD:refs/heads/B"]).unwrap_err();
    assert!(refused.contains("cannot both be"), "{refused}");
    bob.push(&["HEAD:refs/heads/fix-one", "HEAD:refs/heads/Fix/two", "HEAD:refs/heads/B"]).unwrap();
    // Those that an import brought are moved as ever.
    let head = bob.head().to_string();
    assert!(world.in_store(&["update-ref", "refs/heads/b", &head]).status.success());
    let mia = world.clone_of("mia");
    mia.commit_file("c", "c\n");
    mia.push(&["--force", "HEAD:refs/heads/b", "HEAD:refs/heads/B"]).unwrap();
}

/// A commit on top of HEAD whose tree has a file with a mode, and a folder of an older tree.
fn with_mode(clone: &Clone, mode: &str, folder: Option<&str>) -> (CommitId, String) {
    let blob = clone.run_with(&["hash-object", "-w", "--stdin"], mode.as_bytes());
    let bytes = |id: &str| -> Vec<u8> {
        (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let mut raw = [format!("{mode} a\0").into_bytes(), bytes(&blob)].concat();
    if let Some(folder) = folder {
        raw.extend([b"40000 old\0".to_vec(), bytes(folder)].concat());
    }
    let tree = clone.run_with(&["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &raw);
    let commit = clone.run(&["commit-tree", "-p", "HEAD", "-m", "modes", &tree]).parse().unwrap();
    (commit, tree)
}

#[test]
fn modes_that_no_git_writes_come_by_import_and_never_by_push() {
    for git in every_git() {
        let world = World::with(&git, git.program(), Duration::from_secs(20));
        let ann = world.clone_of("ann");
        for mode in ["100666", "104755", "100664"] {
            let (commit, _) = with_mode(&ann, mode, None);
            for target in ["refs/for/main", "refs/heads/mine"] {
                let refused = ann.push(&[&format!("{commit}:{target}")]).unwrap_err();
                let ours = "remote: refused: what was pushed does not pass git's own checks: object ";
                assert!(refused.contains(ours) && refused.contains("badFilemode"), "{mode} {refused}");
                assert!(refused.contains("remote: hint: `git fsck` in the clone"), "{mode} {refused}");
            }
        }
        let (old, folder) = with_mode(&ann, "100666", None);
        let from = ann.folder.to_str().unwrap();
        ann.run(&["update-ref", "refs/heads/old", &old.to_string()]);
        assert!(world.in_store(&["fetch", "--quiet", from, "old:refs/heads/main"]).status.success());
        ann.run(&["reset", "--quiet", "--soft", &old.to_string()]);
        let (above, _) = with_mode(&ann, "100644", Some(&folder));
        ann.push(&[&format!("{old}:refs/heads/again"), &format!("{above}:refs/for/main")]).unwrap();

        // Where an import was told to let them be, the rest of that history may follow.
        assert!(world.in_store(&["config", "receive.fsck.badFilemode", "ignore"]).status.success());
        let (more, _) = with_mode(&ann, "104755", None);
        ann.push(&[&format!("{more}:refs/heads/more")]).unwrap();
    }
}

#[test]
fn a_large_push_comes_in_chunks() {
    for client in every_git() {
        let world = World::with(&every_git()[0], client.program(), Duration::from_secs(20));
        let ann = world.clone_of("ann");
        // Bytes that do not compress: hashes of hashes.
        let mut noise = String::new();
        let mut seed = 1u64;
        for _ in 0..150_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise += &format!("{seed:x}\n");
        }
        ann.commit_file("noise", &noise);
        ann.run(&["config", "http.postBuffer", "65536"]);
        ann.push(&["HEAD:refs/for/main"]).unwrap();
        assert_eq!(world.ref_of("refs/changes/1/1"), Some(ann.head()));
        let bob = world.clone_of("bob");
        bob.fetch("refs/changes/1/1");
        assert_eq!(bob.run(&["cat-file", "blob", "FETCH_HEAD:noise"]).len() + 1, noise.len());
    }
}

#[test]
fn a_landing_that_a_crash_cut_off_has_happened_if_its_branch_says_so() {
    use towpath_forge::Forge;
    let world = World::new();
    let [(_, moved), (_, stayed)] = ["moved", "stayed"].map(|name| world.change("ann", name));
    let main = |to: CommitId| world.in_store(&["update-ref", "refs/heads/main", &to.to_string()]);
    // A landing from somewhere else gets as far as the record and no further, like one that a crash cuts off.
    for change in [&moved, &stayed] {
        let head = change.newest().commit;
        let cut = landing((change.number, head), (moved.newest().commit, head));
        assert_eq!(world.forge.land(&cut).unwrap(), LandTried::Moved { tip: Some(world.main()) });
        assert!(world.forge.change(change.number).unwrap().is_open());
    }
    assert!(main(moved.newest().commit).status.success());
    let landed = ChangeState::Landed { commit: moved.newest().commit };
    assert_eq!(world.forge.change(moved.number).unwrap().state, landed);
    assert!(world.retarget(ANN, moved.number, "release").is_err());
    assert!(world.forge.close(ANN, moved.number, world.now()).is_err());
    world.retarget(ANN, stayed.number, "release").unwrap();
    world.forge.mark_landed(moved.number, moved.newest().commit).unwrap();
    let open = |name: &str| world.forge.read(&branch(name), None).unwrap().changes.len();
    assert_eq!([open("main"), open("release")], [0, 1]);
}
