//! What acts on a change cost, and how many there may be.

use std::fs;
use std::path::Path;

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{ChangeNumber, CommitId, Timestamp};
use towpath_forge::{ChangeRecord, Draft, Failure, Policy, Records, SavedChange};
use towpath_git::{Expected, GitError, Interrupt, Record, RefName, RefUpdate, Transaction};

use crate::support::{ANN, BOB, Clone, MAINTAINER, World, policy, put_row, why};

/// Text that does not compress well.
fn noise(seed: usize, bytes: usize) -> String {
    let mut state = seed as u32 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + (state >> 16) as u8 % 90)
    };
    std::iter::from_fn(|| Some(next())).take(bytes).collect()
}

/// Bytes of all loose objects.
fn loose_bytes(world: &World) -> u64 {
    let folders = fs::read_dir(world.forge.repository().path().join("objects")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    let of_objects = folders.filter(|path| path.file_name().is_some_and(|name| name.len() == 2));
    let files = of_objects.flat_map(|path| fs::read_dir(path).unwrap());
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn files_of(world: &World, number: ChangeNumber) -> String {
    let shown = world.in_store(&["ls-tree", "-r", "--name-only", &format!("refs/changes/{number}/meta")]);
    String::from_utf8(shown.stdout).unwrap()
}

fn talk(world: &World, number: ChangeNumber, comments: usize) -> ChangeRecord {
    for at in 0..comments {
        world.forge.comment(BOB, number, &noise(at, 8_000), world.now()).unwrap();
    }
    world.forge.change(number).unwrap()
}

/// What the refs say, when the rows are lost.
fn from_refs(world: &World, number: ChangeNumber) -> ChangeRecord {
    world.memory.forget_changes();
    assert!(world.forge.rebuild().unwrap().broken.is_empty());
    world.forge.change(number).unwrap()
}

#[test]
fn an_act_writes_what_is_new_and_not_the_whole_talk_once_more() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    talk(&world, number, 11);
    // What is in a pack is not written anew either.
    world.forge.repository().collect_garbage(&Interrupt::new().unwrap()).unwrap();
    let before = loose_bytes(&world);
    let change = world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
    let written = loose_bytes(&world) - before;
    assert!(written < 4_000, "{written}");
    assert_eq!(files_of(&world, number).lines().nth(10), Some("comments/000010"));
    assert_eq!(from_refs(&world, number), change);

    let before = loose_bytes(&world);
    let change = talk(&world, number, 1);
    let written = loose_bytes(&world) - before;
    assert!(written < 12_000, "{written}");
    assert_eq!(change.comments.len(), 12);
    assert_eq!(from_refs(&world, number), change);
    world.check_sound();
}

/// As a power cut leaves the file of an object, and as the start after it does.
const LOSSES: [fn(&Path); 2] = [
    |file| {
        fs::remove_file(file).unwrap();
        fs::write(file, "").unwrap();
    },
    |file| fs::remove_file(file).unwrap(),
];

/// What a backup and housekeeping make of a repository.
fn keep(world: &World) -> [Result<(), GitError>; 2] {
    let repository = world.forge.repository();
    let saved =
        repository.save(&tempfile::TempDir::new_in(world.folder.path()).unwrap().path().join("saved"));
    [saved.map_err(|error| repository.blamed(error)), repository.collect_garbage(&Interrupt::new().unwrap())]
}

#[test]
fn the_record_after_a_damaged_one_is_whole() {
    for lose in LOSSES {
        for part in ["", "^{tree}", ":change.json", ":comments", ":comments/000001", ":comments/000003"] {
            let world = World::new();
            let (_, change) = world.change("ann", "topic");
            let number = change.number;
            let before = talk(&world, number, 3);
            let row = world.memory.change(number).unwrap().unwrap();
            lose(&world.loose(&format!("refs/changes/{number}/meta{part}")).1);
            let change = world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
            assert_eq!(change.comments, before.comments, "{part}");
            // As after a crash between the refs and the row: the next question finds it, or the next start.
            for is_start in [false, true] {
                put_row(&world, &row);
                let told = world.memory.acts().len();
                if is_start {
                    assert_eq!(world.forge.rebuild().unwrap().mended, [number], "{part}");
                }
                assert_eq!(world.forge.change(number).unwrap(), change, "{part}");
                assert_eq!(world.memory.acts()[told..].len(), 1, "{part}");
            }
            // Nothing of it is read from the one before, whose acts are another matter.
            assert_eq!(from_refs(&world, number), change, "{part}");
            // The record goes on from the one before if everything of that is in its row.
            let parents = world.in_store(&["rev-parse", "--verify", &format!("refs/changes/{number}/meta^")]);
            assert_eq!(parents.status.success(), !part.is_empty(), "{part}");
            let kept = keep(&world);
            assert!(kept.iter().all(Result::is_ok), "{part}: {kept:?}");
        }
    }
}

/// Makes a change as a person looks at it a minute later.
fn later(world: &World, number: ChangeNumber, text: &str) -> SavedChange {
    let now = Timestamp(world.now().0 + 60_000);
    world.forge.comment(BOB, number, text, now).unwrap();
    world.memory.change(number).unwrap().unwrap()
}

#[test]
fn a_row_from_before_a_record_began_anew_is_older_and_one_from_after_it_is_newer() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    let meta = format!("refs/changes/{number}/meta");
    let old = world.memory.change(number).unwrap().unwrap();
    world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
    fs::remove_file(world.loose(&meta).1).unwrap();
    let begun = later(&world, number, "It begins anew.");
    let newest = later(&world, number, "It goes on.");
    // An older database, after housekeeping has taken what nothing reaches any more.
    fs::remove_file(world.loose(&old.meta.to_string()).1).unwrap();
    put_row(&world, &old);
    assert_eq!(world.forge.rebuild().unwrap().mended, [number]);
    assert_eq!(world.memory.change(number).unwrap().unwrap(), newest);
    let untold = world.memory.untold();
    assert!(untold.len() == 1 && untold[0].contains("is lost"), "{untold:?}");

    // An older copy of the repository, in which the record had begun anew already.
    assert!(world.in_store(&["update-ref", &meta, &begun.meta.to_string()]).status.success());
    fs::remove_file(world.loose(&newest.meta.to_string()).1).unwrap();
    let Err(Failure::Failed(error)) = world.forge.rebuild() else { panic!("an older copy was taken") };
    assert!(error.to_string().contains("the repository is older than its rows"), "{error}");
    assert_eq!(world.memory.change(number).unwrap().unwrap(), newest);
}

#[test]
fn a_record_begins_anew_where_an_earlier_one_is_lost() {
    for part in ["~1", "~1^{tree}", "~1:change.json"] {
        let world = World::new();
        let (_, change) = world.change("ann", "topic");
        let number = change.number;
        world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
        world.forge.set_draft(ANN, number, Draft::No, world.now()).unwrap();
        let (id, file) = world.loose(&format!("refs/changes/{number}/meta{part}"));
        fs::remove_file(&file).unwrap();
        for kept in keep(&world) {
            let why = kept.unwrap_err().to_string();
            assert!(why.contains(&id) && why.contains(&format!("refs/changes/{number}/meta")), "{why}");
            assert!(why.contains("a comment on the change"), "{why}");
        }
        let change = world.forge.comment(BOB, number, "Go on.", world.now()).unwrap();
        let kept = keep(&world);
        assert!(kept.iter().all(Result::is_ok), "{part}: {kept:?}");
        assert_eq!(from_refs(&world, number), change);
    }
}

#[test]
fn a_record_that_has_its_comments_in_one_file_is_read_as_ever() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    let change = talk(&world, number, 3);
    let repository = world.forge.repository();
    let name: RefName = format!("refs/changes/{number}/meta").parse().unwrap();
    let content = serde_json::to_vec(&change).unwrap();
    let previous = repository.ref_target(&name).unwrap().map(|found| CommitId(found.0));
    let (file, time) = (Some(("change.json", &content[..])), change.updated_at);
    let message = "change 1: revision 1\n";
    let old = repository.write_record(&Record { previous, file, folder: None, message, time }).unwrap();
    let update = RefUpdate { name, expected: Expected::Anything, target: Some(old.into()) };
    assert_eq!(repository.ref_transaction(&[update]).unwrap(), Transaction::Done);

    assert_eq!(from_refs(&world, number), change);
    let drafted = world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
    assert_eq!(drafted.comments, change.comments);
    assert_eq!(files_of(&world, number).lines().count(), 4);
    assert_eq!(from_refs(&world, number), drafted);
    world.check_sound();
}

#[test]
fn the_comments_of_a_change_have_so_many_bytes_and_no_more() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    let comment = |text: &str| world.forge.comment(BOB, number, text, world.now());
    (0..64).for_each(|at| drop(comment(&noise(at, 16 * 1024)).unwrap()));
    let (class, text) = why(comment("!"));
    assert_eq!(class, RefusalClass::Invalid);
    assert!(text.contains("1048576") && text.contains("fewer words"), "{text}");
    assert_eq!(world.forge.change(number).unwrap().comments.len(), 64);
    world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
}

#[test]
fn one_author_pushes_so_often_in_an_hour_and_others_as_ever() {
    let world = World::new();
    world.memory.set_policy(Policy { acts_per_hour: 3, ..policy() });
    let ann = world.clone_of("ann");
    let push = |clone: &Clone| {
        clone.commit_file("more", &clone.head().to_string());
        clone.push(&["HEAD:refs/heads/scratch"])
    };
    (0..3).for_each(|_| drop(push(&ann).unwrap()));
    let before = world.refs();
    let told = push(&ann).unwrap_err();
    assert!(told.contains("3 times in this hour, as often as one person may; try again in"), "{told}");
    assert_eq!(world.refs(), before);
    // It is one count with what is done otherwise.
    let (_, change) = world.change("bob", "other");
    assert_eq!(why(world.forge.comment(ANN, change.number, "So.", world.now())).0, RefusalClass::Limited);
    world.forge.comment(BOB, change.number, "So.", world.now()).unwrap();
    let mia = world.clone_of("mia");
    assert!((0..5).all(|at| {
        mia.commit_file("more", &at.to_string());
        mia.push(&["HEAD:refs/heads/mine"]).is_ok()
    }));
    world.check_no_quarantine();
}

#[test]
fn one_person_does_so_much_in_an_hour_and_no_more() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    let hour = |hour: i64| Timestamp(world.now().0 / 3_600_000 * 3_600_000 + hour * 3_600_000);
    let flip = |by, at: usize, now| {
        let draft = if at.is_multiple_of(2) { Draft::Yes } else { Draft::No };
        world.forge.set_draft(by, number, draft, now)
    };
    let now = hour(1);
    // What changes nothing is no act.
    flip(ANN, 1, now).unwrap();
    (0..500).for_each(|at| drop(flip(ANN, at, now).unwrap()));
    let (class, text) = why(flip(ANN, 0, now));
    assert_eq!(class, RefusalClass::Limited);
    assert!(text.contains("500") && text.contains("try again in 60 min"), "{text}");
    flip(MAINTAINER, 0, now).unwrap();
    world.forge.comment(BOB, number, "Why?", now).unwrap();
    assert!(
        why(world.forge.comment(ANN, number, "So.", Timestamp(now.0 + 59 * 60_000))).1.contains("in 1 min")
    );
    world.forge.comment(ANN, number, "So.", hour(2)).unwrap();
    assert_eq!(world.memory.change(number).unwrap().unwrap().change.comments.len(), 2);
}
