//! Commits that say that they are from the future.

use towpath_core::ids::{CommitId, Timestamp};
use towpath_forge::{Forge, clock_trouble};

use crate::support::{ANN, Clone, World, branch, pushed};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// A commit on top of another, with its author's and its committer's time in seconds.
fn commit_at(clone: &Clone, parent: CommitId, [author, committer]: [i64; 2]) -> CommitId {
    let tree = clone.run(&["rev-parse", "HEAD^{tree}"]);
    let person = "A <a@b>";
    let text = format!(
        "tree {tree}\nparent {parent}\nauthor {person} {author} +0000\ncommitter {person} {committer} +0000\n\nlate\n"
    );
    clone.run_with(&["hash-object", "-t", "commit", "-w", "--stdin"], text.as_bytes()).parse().unwrap()
}

fn after(now: Timestamp, hours: i64) -> i64 {
    (now.0 + hours * HOUR_MS) / 1000
}

#[test]
fn a_commit_from_the_future_is_refused_wherever_it_is_pushed() {
    let world = World::new();
    let mia = world.clone_of("mia");
    let base = mia.commit_file("a", "a\n");
    let (soon, late) = (after(world.now(), 20), after(world.now(), 30));
    for times in [[soon, late], [late, soon], [soon, i64::MAX]] {
        let bad = commit_at(&mia, base, times);
        let above = commit_at(&mia, bad, [soon, soon]);
        for commit in [bad, above] {
            for target in ["refs/for/main", "refs/heads/mine", "refs/tags/v1"] {
                let refused = mia.push(&[&format!("{commit}:{target}")]).unwrap_err();
                let named = format!("the clock of commit {} is ", bad.short());
                assert!(refused.contains(&named), "{refused}");
                assert!(refused.contains("--reset-author"), "{refused}");
            }
        }
    }
    let good = commit_at(&mia, base, [soon, soon]);
    mia.push(&[&format!("{good}:refs/for/main")]).unwrap();
    assert_eq!(world.forge.read(&branch("main"), None).unwrap().changes[0].revision.time.0, soon * 1000);
    world.check_sound();
}

#[test]
fn what_an_import_brought_from_the_future_is_believed_to_be_a_day_ahead_at_most() {
    let world = World::new();
    let elsewhere = world.clone_of("reader");
    let base = elsewhere.commit_file("imported", "x\n");
    let late = commit_at(&elsewhere, base, [after(world.now(), 0), i64::MAX]);
    elsewhere.run(&["update-ref", "refs/heads/late", &late.to_string()]);
    let from = elsewhere.folder.to_str().unwrap();
    assert!(world.in_store(&["fetch", "--quiet", from, "late:refs/heads/imported"]).status.success());
    let repository = world.forge.repository();
    let trouble = clock_trouble(repository, &branch("imported"), world.now()).unwrap().unwrap();
    assert!(trouble.contains(&late.short().to_string()) && trouble.contains(" days ahead"), "{trouble}");
    assert_eq!(clock_trouble(repository, &branch("main"), world.now()).unwrap(), None);

    let opened = world.now();
    world.forge.propose_branch(ANN, &pushed("imported"), &Default::default(), opened).unwrap();
    let facts = world.forge.read(&branch("main"), None).unwrap();
    assert_eq!(facts.changes[0].revision.time.0, after(opened, 24) * 1000);
}
