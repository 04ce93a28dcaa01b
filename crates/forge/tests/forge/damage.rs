//! What the disk has spoilt of one change is that change's trouble alone, and nobody is told where the repository is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use towpath_core::ids::Timestamp;
use towpath_forge::Forge;
use towpath_git::{ExportOptions, Record};

use crate::support::{ANN, Clone, MAINTAINER, World, branch, every_git};

/// As a power cut or a worn disk leaves the file of an object, and as the start after it does.
const LOSSES: [fn(&Path); 3] = [|file| replace(file, b""), |file| replace(file, b"x\x9c spoilt"), remove];

fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}

/// Objects are read-only.
fn replace(file: &Path, content: &[u8]) {
    remove(file);
    fs::write(file, content).unwrap();
}

/// Refs of the server's own, two of them by change 1.
const OWN: [&str; 4] =
    ["refs/changes/1/meta", "refs/changes/1/1", "refs/notes/towpath", "refs/towpath/candidates/one"];

/// A world with change 1 of ann's, a note and a candidate, all of it loose.
fn loose_world(world: World) -> (World, Clone) {
    let (ann, _) = world.change("ann", "topic");
    let record = Record {
        previous: None,
        file: None,
        folder: None,
        message: "own",
        time: Timestamp(1_700_000_000_000),
    };
    for name in &OWN[2..] {
        let record = Record { message: name, ..record };
        let own = world.forge.repository().write_record(&record).unwrap();
        assert!(world.in_store(&["update-ref", name, &own.to_string()]).status.success());
    }
    world.unpack();
    (world, ann)
}

#[test]
fn a_damaged_commit_of_the_server_s_own_keeps_nobody_from_pushing() {
    for git in every_git() {
        for lose in LOSSES {
            let (world, _) = loose_world(World::with(&git, git.program(), Duration::from_secs(20)));
            for name in OWN {
                lose(&world.loose(name).1);
                let (bob, change) = world.change("bob", &name.replace('/', "-"));
                bob.commit_file("more", "more\n");
                bob.push(&["-o", &format!("change={}", change.number), "HEAD:refs/for/main"]).unwrap();
                assert_eq!(world.forge.change(change.number).unwrap().revisions.len(), 2, "{name}");
                bob.push(&[&format!("HEAD:refs/heads/{}", name.replace('/', "-"))]).unwrap();
                world.clone_of("bob");
            }
            world.check_no_quarantine();
        }
    }
}

#[test]
fn where_a_revision_is_damaged_commits_stay_with_who_brought_them_first() {
    let (world, ann) = loose_world(World::new());
    ann.run(&["reset", "--quiet", "--hard", &world.main().to_string()]);
    ann.commit_file("below", "below\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    remove(&world.loose("refs/changes/1/1").1);
    let bob = world.clone_of("bob");
    bob.go_to("refs/changes/2/1");
    bob.commit_file("above", "above\n");
    bob.push(&["HEAD:refs/for/main"]).unwrap();
    let read = world.forge.read(&branch("main"), None).unwrap();
    let above = read.changes.iter().find(|change| change.number.0 == 3).unwrap();
    assert_eq!(above.revision.stack_uploaders.iter().collect::<Vec<_>>(), [&ANN]);
    assert_eq!(read.unreadable.keys().map(|number| number.0).collect::<Vec<_>>(), [1]);
}

#[test]
fn no_other_record_is_taken_for_a_change_s_own() {
    for git in every_git() {
        let world = World::with(&git, git.program(), Duration::from_secs(20));
        let (_, change) = world.change("ann", "topic");
        let number = change.number;
        world.approve(MAINTAINER, &change).unwrap();
        world.forge.withdraw_review(MAINTAINER, number, world.now()).unwrap();
        let file = |record: &str| world.loose(&format!("refs/changes/{number}/{record}:change.json")).0;
        let (now, approved) = (file("meta"), file("meta~1"));
        world.mistake(&now, &approved);
        world.memory.forget_changes();
        let broken = world.forge.rebuild().unwrap().broken;
        assert!(broken.len() == 1 && broken[0].contains(&format!("object {now} is damaged")), "{broken:?}");
        assert!(world.forge.change(number).is_err());
        let read = world.forge.read(&branch("main"), None).unwrap();
        assert!(read.changes.is_empty() && read.unreadable.contains_key(&number), "{read:?}");
        // Nor is one in a work tree.
        let repository = world.forge.repository();
        let tree =
            repository.commit(world.ref_of(&format!("refs/changes/{number}/meta")).unwrap()).unwrap().tree;
        let out = world.folder.path().join("out");
        let exported = repository.export_tree(tree, &out, &ExportOptions::default()).unwrap_err().to_string();
        assert!(exported.contains(&format!("object {now} is damaged")), "{exported}");
        assert!(repository.damage_of(now.parse().unwrap()).is_some());
    }
}

#[test]
fn nobody_who_pushes_is_told_where_the_repository_is() {
    for git in every_git() {
        let mut all_told = String::new();
        for lose in LOSSES {
            let (world, ann) = loose_world(World::with(&git, git.program(), Duration::from_secs(20)));
            // What is lost comes back with a push that brings it again; what is spoilt stands in its way.
            for name in ["refs/changes/1/1", "refs/heads/main"] {
                lose(&world.loose(name).1);
                ann.commit_file("more", name);
                let told = match ann.push(&["HEAD:refs/for/main"]) {
                    Ok(_) if name != "refs/heads/main" && world.has("refs/changes/1/1") => continue,
                    told => told.unwrap_err(),
                };
                assert!(!told.contains(world.folder.path().to_str().unwrap()), "{told}");
                all_told += &told;
            }
            world.check_no_quarantine();
        }
        assert!(all_told.contains("object file demo.git/objects/"), "{all_told}");
    }
}
