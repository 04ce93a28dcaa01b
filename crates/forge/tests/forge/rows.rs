//! Rows are made again from refs.

use std::sync::Arc;

use towpath_core::gate::Snapshot;
use towpath_core::ids::{ChangeNumber, CommitId, Timestamp};
use towpath_core::policy::Actor;
use towpath_forge::{
    BuiltIn, ChangeAct, ChangeState, Draft, Failure, Find, Forge, ForgeError, LabelEdit, Records, RowStep,
    SavedChange,
};
use towpath_git::Record;

use crate::contract::landing;
use crate::support::{ANN, BOB, MAINTAINER, World, Yaml, approval, branch, put_row};

fn all(world: &World) -> Vec<SavedChange> {
    let numbers: Vec<ChangeNumber> = world.memory.saved().unwrap().into_keys().collect();
    numbers.into_iter().map(|number| world.memory.change(number).unwrap().unwrap()).collect()
}

fn told(acts: &[ChangeAct]) -> Vec<(&str, &str)> {
    acts.iter().map(|act| (&*act.by.name, &*act.what)).collect()
}

#[test]
fn every_row_comes_back_from_the_refs() {
    let world = World::new();
    let (ann, one) = world.change("ann", "one");
    let (_, two) = world.change("bob", "two");
    let (_, three) = world.change("outsider", "three");
    ann.commit_file("one", "better\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/one"]).unwrap();
    let one = world.forge.change(one.number).unwrap();
    world.approve(MAINTAINER, &one).unwrap();
    world.forge.comment(BOB, one.number, "Nice.", world.now()).unwrap();
    let edit = LabelEdit { add: vec!["slow".into()], remove: Vec::new() };
    world.forge.label(ANN, one.number, &edit, world.now()).unwrap();
    world.forge.close(BOB, two.number, world.now()).unwrap();
    let head = three.newest().commit;
    world.forge.land(&landing((three.number, head), (world.main(), head))).unwrap();
    world.forge.mark_landed(three.number, head).unwrap();

    let before = all(&world);
    let snapshot = world.forge.read(&branch("main"), None).unwrap();
    world.memory.forget_changes();
    assert!(world.memory.find(&Find::Open(branch("main"))).unwrap().is_empty());
    let rebuilt = world.forge.rebuild().unwrap();
    assert_eq!((rebuilt.mended.len(), rebuilt.broken.len()), (3, 0));
    assert_eq!(all(&world), before);
    assert_eq!(world.forge.read(&branch("main"), None).unwrap(), snapshot);
    assert_eq!(all(&world)[2].change.state, ChangeState::Landed { commit: three.newest().commit });
    // A rebuild where all is well does nothing.
    assert_eq!(world.forge.rebuild().unwrap(), towpath_forge::Rebuilt::default());
    world.check_sound();
}

#[test]
fn a_row_older_than_its_ref_is_seen_and_mended() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let old = world.memory.change(change.number).unwrap().unwrap();
    world.forge.comment(BOB, change.number, "Nice.", world.now()).unwrap();
    // As after a crash between the refs and the row.
    put_row(&world, &old);
    assert_eq!(world.forge.change(change.number).unwrap().comments.len(), 1);
    put_row(&world, &old);
    let both = world.forge.comment(ANN, change.number, "Thanks.", world.now()).unwrap();
    assert_eq!(both.comments.len(), 2);
    put_row(&world, &old);
    assert_eq!(world.forge.rebuild().unwrap().mended, [change.number]);
    assert_eq!(world.memory.change(change.number).unwrap().unwrap().change.comments.len(), 2);
}

#[test]
fn what_is_done_while_nobody_writes_finds_every_row_as_its_ref_is() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    world.memory.fill_unseen();
    let edit = LabelEdit { add: vec!["WIP".into()], remove: vec![] };
    world.forge.label(ANN, change.number, &edit, world.now()).unwrap();
    let labels = || world.memory.change(change.number).unwrap().unwrap().change.labels.len();
    assert_eq!(labels(), 0, "the row is behind");
    assert!(world.forge.while_still(|| panic!("a row cannot be saved")).is_err());
    world.memory.make_room();
    assert_eq!(world.forge.while_still(labels).unwrap(), 1);
}

#[test]
fn what_a_person_did_is_told_once_with_the_row_that_shows_it() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let number = change.number;
    assert_eq!(world.memory.acts(), [], "the journal says who pushed");
    let at = world.now();
    world.forge.review(MAINTAINER, number, &approval(&change), at).unwrap();
    let by = Actor { user: MAINTAINER, name: "mia".into() };
    let what = format!("approved revision {} (demo change 1)", change.newest().commit);
    assert_eq!(world.memory.acts(), [ChangeAct { by, at, what: what.clone() }]);

    // What is refused for lack of room has not happened, and does not happen later.
    world.memory.fill();
    assert!(world.forge.withdraw_review(MAINTAINER, number, world.now()).is_err());
    let later = world.clone_of("ann");
    later.commit_file("late", "late\n");
    later.push(&["HEAD:refs/for/main"]).unwrap_err();
    world.memory.make_room();
    assert_eq!(world.forge.change(number).unwrap().reviews.len(), 1);
    assert!(world.forge.change(ChangeNumber(number.0 + 1)).is_err());
    // There is no room for the row when the ref has moved already: it has happened, and the row follows.
    world.memory.fill_unseen();
    world.forge.withdraw_review(MAINTAINER, number, world.now()).unwrap();
    assert!(world.forge.change(number).is_err(), "it is not shown yet");
    // Nor does a gate count the approval, or a push look for its change among rows that are old.
    assert!(Forge::read(&world.forge, &branch("main"), None).is_err());
    later.push(&["HEAD:refs/for/main"]).unwrap_err();
    world.memory.make_room();
    assert_eq!(told(&world.memory.acts()), [("mia", &*what)]);
    // The next reading has it count, and told. Who tries again has nothing left to do.
    let read = Forge::read(&world.forge, &branch("main"), None).unwrap();
    assert_eq!(read.changes.iter().map(|change| change.reviews.len()).collect::<Vec<_>>(), [0]);
    assert!(world.forge.withdraw_review(MAINTAINER, number, world.now()).is_err());
    world.forge.comment(BOB, number, "Why?", world.now()).unwrap();
    world.forge.rebuild().unwrap();
    let all =
        [("mia", &*what), ("mia", "withdrew a review (demo change 1)"), ("bob", "commented (demo change 1)")];
    assert_eq!(told(&world.memory.acts()), all);
    // What changes nothing writes nothing.
    world.forge.set_draft(ANN, number, Draft::No, world.now()).unwrap();
    assert_eq!(told(&world.memory.acts()), all);
}

#[test]
fn a_change_that_has_no_row_yet_is_opened_once() {
    let world = World::new();
    world.memory.fill_unseen();
    let (ann, pushed) = (world.clone_of("ann"), ["-o", "change", "HEAD:refs/heads/topic"]);
    ann.commit_file("topic", "one\n");
    ann.push(&pushed).unwrap();
    assert!(world.memory.saved().unwrap().is_empty());
    ann.commit_file("topic", "two\n");
    ann.push(&pushed).unwrap_err();
    world.memory.make_room();
    ann.push(&pushed).unwrap();
    assert_eq!(world.newest(), ChangeNumber(1));
    assert_eq!(world.forge.change(ChangeNumber(1)).unwrap().revisions.len(), 2);
}

#[test]
fn a_rebuild_tells_what_people_did_since_the_row_and_nothing_else() {
    let world = World::new();
    let clone = world.clone_of("ann");
    clone.commit_file("one", "one\n");
    clone.push(&["HEAD:refs/heads/one"]).unwrap();
    let change = world.open(ANN, "one").unwrap();
    let number = change.number;
    let opened = format!("opened demo change 1 at {}", change.newest().commit);
    world.forge.comment(BOB, number, "One.", world.now()).unwrap();
    let old = world.memory.change(number).unwrap().unwrap();
    world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
    world.forge.close(ANN, number, world.now()).unwrap();
    let newest = world.memory.change(number).unwrap().unwrap();
    let before = world.memory.acts();
    let since = [("ann", "made a draft (demo change 1)"), ("ann", "closed (demo change 1)")];
    assert_eq!(told(&before)[1..], [[("bob", "commented (demo change 1)")].as_slice(), &since].concat());

    // A backup: its rows are older than the refs, and its record is as old as its rows.
    put_row(&world, &old);
    world.forge.rebuild().unwrap();
    assert_eq!(told(&world.memory.acts()[before.len()..]), since);
    // No row at all, and so no record of anything.
    let so_far = world.memory.acts().len();
    world.memory.forget_changes();
    world.forge.rebuild().unwrap();
    let again = &world.memory.acts()[so_far..];
    assert_eq!(told(again)[0], ("ann", &*opened));
    assert_eq!(again, before);

    // Refs of an older day: what they say has been told.
    let so_far = world.memory.acts();
    let meta = old.meta.to_string();
    assert!(world.in_store(&["update-ref", "refs/changes/1/meta", &meta]).status.success());
    assert_eq!(world.forge.rebuild().unwrap().mended, [number]);
    assert_eq!(
        (world.memory.change(number).unwrap().as_ref(), world.memory.acts()),
        (Some(&old), so_far.clone())
    );
    // Two who find a row behind at once.
    let acts = before[..1].to_vec();
    let step = RowStep { from: Some(old.meta), to: newest.clone(), acts, untold: vec![] };
    world.memory.save(&step).unwrap();
    world.memory.save(&step).unwrap();
    assert_eq!(world.memory.acts().len(), so_far.len() + 1);
}

#[test]
fn an_older_record_that_is_lost_keeps_nobody_from_the_change() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let number = change.number;
    let old = world.memory.change(number).unwrap().unwrap();
    world.forge.comment(BOB, number, "One.", world.now()).unwrap();
    let lost = world.memory.change(number).unwrap().unwrap().meta.to_string();
    world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap();
    let before = world.memory.acts().len();
    put_row(&world, &old);
    let object = world.forge.repository().path().join("objects").join(&lost[..2]).join(&lost[2..]);
    std::fs::remove_file(&object).unwrap();
    assert_eq!(world.forge.change(number).unwrap().comments.len(), 1);
    assert_eq!(told(&world.memory.acts()[before..]), [("ann", "made a draft (demo change 1)")]);
    let untold = world.memory.untold();
    let said = format!("what people did to change 1 up to {lost} is lost");
    assert!(untold.len() == 1 && untold[0].starts_with(&said), "{untold:?}");
}

#[test]
fn an_act_that_cannot_be_read_hides_none_before_it() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let number = change.number;
    let old = world.memory.change(number).unwrap().unwrap();
    world.forge.comment(BOB, number, "One.", world.now()).unwrap();
    let before = world.memory.acts();
    let commented = world.memory.change(number).unwrap().unwrap().meta;
    let tree = world.in_store(&["rev-parse", "refs/changes/1/meta^{tree}"]).stdout;
    let tree = String::from_utf8(tree).unwrap();
    let record = |act: &str, parent: &str| {
        let message = format!("change 1: revision 1\n\n{act}");
        let names = ["-c", "user.name=T", "-c", "user.email=t@localhost"];
        let words = ["commit-tree", "-p", parent, "-m", &message, tree.trim()];
        let made = world.in_store(&[&names[..], &words].concat());
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let garbled = record("{}", &commented.to_string());
    let newest = record(&serde_json::to_string(before.last().unwrap()).unwrap(), &garbled);
    assert!(world.in_store(&["update-ref", "refs/changes/1/meta", &newest]).status.success());
    put_row(&world, &old);
    world.forge.rebuild().unwrap();
    let commented = before.last().cloned().unwrap();
    assert_eq!(world.memory.acts()[before.len()..], [commented.clone(), commented]);
    let untold = world.memory.untold();
    assert!(untold.len() == 1 && untold[0].contains(&garbled), "{untold:?}");
}

#[test]
fn the_words_of_an_act_say_what_changed_and_each_thing_once() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let labels = vec!["docs".to_owned(); 10_000];
    let edit = LabelEdit { add: labels, remove: Vec::new() };
    world.forge.label(ANN, change.number, &edit, world.now()).unwrap();
    let acts = world.memory.acts();
    let said = "set labels: on [\"docs\"], off [] (demo change 1)";
    assert_eq!(told(&acts).last(), Some(&("ann", said)));
}

#[test]
fn a_row_is_made_only_of_a_ref_that_the_disk_has_confirmed() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let old = world.memory.change(change.number).unwrap().unwrap();
    world.forge.comment(BOB, change.number, "Nice.", world.now()).unwrap();
    let told = world.memory.acts();
    put_row(&world, &old);
    // The ref can be read, and the folder that names it is an empty one of a disk that confirms nothing.
    assert!(world.in_store(&["pack-refs", "--all", "--prune"]).status.success());
    let folder = world.forge.repository().path().join("refs/changes/1");
    let _ = std::fs::remove_dir(&folder);
    std::os::unix::fs::symlink("/proc/tty/ldisc", &folder).unwrap();
    assert!(world.forge.change(change.number).is_err());
    assert!(world.forge.rebuild().is_err());
    assert_eq!((world.memory.change(change.number).unwrap(), world.memory.acts()), (Some(old), told));
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(world.forge.change(change.number).unwrap().comments.len(), 1);
}

#[test]
fn a_record_from_before_it_said_who_did_it_is_read_as_ever() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    let old = world.memory.change(change.number).unwrap().unwrap();
    world.forge.comment(BOB, change.number, "Nice.", world.now()).unwrap();
    let number = change.number;
    let told = world.memory.acts();
    let tree = world.in_store(&["rev-parse", "refs/changes/1/meta^{tree}"]).stdout;
    let tree = String::from_utf8(tree).unwrap();
    let [parent, message] = [old.meta.to_string(), "change 1: revision 1".to_owned()];
    let plain = world.in_store(&[
        "-c",
        "user.name=T",
        "-c",
        "user.email=t@localhost",
        "commit-tree",
        "-p",
        &parent,
        "-m",
        &message,
        tree.trim(),
    ]);
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert!(world.in_store(&["update-ref", "refs/changes/1/meta", plain.trim()]).status.success());
    put_row(&world, &old);
    assert_eq!(world.forge.change(number).unwrap().comments.len(), 1);
    world.forge.comment(ANN, number, "Thanks.", world.now()).unwrap();
    assert_eq!(world.memory.acts()[..told.len()], told);
    assert_eq!(world.memory.acts().len(), told.len() + 1);
}

#[test]
fn revisions_that_a_crash_left_out_come_back() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    assert!(world.in_store(&["update-ref", "-d", "refs/changes/1/1"]).status.success());
    world.memory.forget_changes();
    assert_eq!(world.forge.rebuild().unwrap().revisions, 1);
    assert_eq!(world.ref_of("refs/changes/1/1"), Some(change.newest().commit));
}

#[test]
fn a_repository_that_is_older_than_its_rows_is_refused_and_takes_no_row_away() {
    let world = World::new();
    let (_, one) = world.change("ann", "one");
    let (_, two) = world.change("bob", "two");
    let refused = |what: &str| {
        let before = all(&world);
        let error = world.forge.rebuild().unwrap_err();
        let Failure::Failed(ForgeError::Denied { why, .. }) = error else { panic!("{error:?}") };
        assert!(why.contains(&format!("has not what they say of {what};")), "{why}");
        assert_eq!(all(&world), before);
    };
    // A copy from before the second change: its number would be given again.
    assert!(world.in_store(&["update-ref", "-d", "refs/changes/2/meta"]).status.success());
    refused("change 2");
    // A copy from before somebody took an approval back, which would count again.
    let mut newer = world.memory.change(one.number).unwrap().unwrap();
    newer.meta = CommitId([7; 20]);
    put_row(&world, &newer);
    refused("change 1, change 2");
    // A database that is older than the repository takes everything from it.
    world.memory.forget_changes();
    assert_eq!(world.forge.rebuild().unwrap().mended, [one.number]);
    assert!(world.forge.change(two.number).is_err());
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_harms_no_other() {
    let world = World::new();
    let (_, one) = world.change("ann", "one");
    let (_, two) = world.change("ann", "two");
    let main = world.main().to_string();
    assert!(world.in_store(&["update-ref", "refs/changes/1/meta", &main]).status.success());
    world.memory.forget_changes();
    let rebuilt = world.forge.rebuild().unwrap();
    assert_eq!(rebuilt.mended, [two.number]);
    assert!(rebuilt.broken[0].contains("the record of change 1"), "{:?}", rebuilt.broken);
    assert!(world.forge.change(one.number).is_err());
    // Numbers are never given twice, whatever became of their changes.
    let (_, three) = world.change("ann", "three");
    assert_eq!(three.number, ChangeNumber(3));
}

#[test]
fn a_gate_sees_no_change_whose_newest_record_cannot_be_read() {
    let world = World::new();
    let (_, one) = world.change("ann", "one");
    world.approve(MAINTAINER, &one).unwrap();
    let approved = world.ref_of("refs/changes/1/meta").unwrap();
    let (_, two) = world.change("bob", "two");
    let [main, approved] = [world.main(), approved].map(|commit| commit.to_string());
    assert!(world.in_store(&["update-ref", "refs/changes/1/meta", &main]).status.success());
    assert_eq!(world.forge.rebuild().unwrap().broken.len(), 1);
    let seen = || -> Vec<ChangeNumber> {
        let changes = world.forge.read(&branch("main"), None).unwrap().changes;
        changes.iter().map(|change| change.number).collect()
    };
    assert_eq!(seen(), [two.number]);
    assert!(world.in_store(&["update-ref", "refs/changes/1/meta", &approved]).status.success());
    assert_eq!(seen(), [one.number, two.number]);
}

#[test]
fn a_gate_goes_on_beside_a_change_whose_newest_record_the_disk_has_spoilt() {
    for part in ["", "^{tree}", ":change.json", ":comments", ":comments/000001"] {
        let world = World::new();
        let (_, one) = world.change("ann", "one");
        let old = world.memory.change(one.number).unwrap().unwrap();
        world.forge.comment(BOB, one.number, "Nice.", world.now()).unwrap();
        let (_, two) = world.change("bob", "two");
        // As after a crash between the refs and the row.
        put_row(&world, &old);
        let (id, file) = world.loose(&format!("refs/changes/1/meta{part}"));
        let whole = std::fs::read(&file).unwrap();
        let mut spoilt = whole.clone();
        spoilt[whole.len() / 2..].iter_mut().for_each(|byte| *byte ^= 0x55);
        let read = || world.forge.read(&branch("main"), None).unwrap();
        let seen = |read: &Snapshot| read.changes.iter().map(|change| change.number).collect::<Vec<_>>();
        // The start after a power cut removes what is cut.
        for left in [Some(spoilt), None] {
            std::fs::remove_file(&file).unwrap();
            left.iter().for_each(|bytes| std::fs::write(&file, bytes).unwrap());
            let [broken] = &world.forge.rebuild().unwrap().broken[..] else { panic!("{part}") };
            let beside = read();
            assert_eq!(seen(&beside), [two.number], "{part}");
            let [(number, why)] = &Vec::from_iter(beside.unreadable)[..] else { panic!("{part}") };
            assert_eq!((*number, why), (one.number, broken));
            assert!(why.contains("the record of change 1") && why.contains(&id), "{why}");
            assert!(why.contains("its former versions are the parents of"), "{why}");
            assert!(world.forge.read(&branch("other"), None).unwrap().unreadable.is_empty());
        }

        std::fs::write(&file, whole).unwrap();
        let mended = read();
        assert_eq!((seen(&mended), mended.unreadable.len()), (vec![one.number, two.number], 0), "{part}");
        assert_eq!(world.forge.change(one.number).unwrap().comments.len(), 1);
    }
}

#[test]
fn a_gate_goes_on_beside_a_change_of_whose_commits_one_is_lost() {
    for lost in ["", "~1"] {
        let world = World::new();
        let head = ["below", "one"].into_iter().fold(world.main(), |previous, name| {
            let (file, time) = (Some((name, name.as_bytes())), Timestamp(1_700_000_060_000));
            let record = Record { previous: Some(previous), file, folder: None, message: name, time };
            world.forge.repository().write_record(&record).unwrap()
        });
        assert!(world.in_store(&["update-ref", "refs/heads/one", &head.to_string()]).status.success());
        world.open(ANN, "one").unwrap();
        let (_, two) = world.change("bob", "two");
        let (id, file) = world.loose(&format!("refs/changes/1/1{lost}"));
        let whole = std::fs::read(&file).unwrap();
        let mut spoilt = whole.clone();
        spoilt[whole.len() / 2..].iter_mut().for_each(|byte| *byte ^= 0x55);
        // As a start finds it.
        let read = || {
            let repository = world.forge.repository().clone();
            repository.close_processes();
            let name = world.forge.name().clone();
            let later = BuiltIn::new(name, repository, world.memory.clone(), Arc::new(Yaml));
            later.read(&branch("main"), None).unwrap()
        };
        for left in [Some(spoilt), None] {
            std::fs::remove_file(&file).unwrap();
            left.iter().for_each(|bytes| std::fs::write(&file, bytes).unwrap());
            let beside = read();
            assert_eq!(beside.changes.iter().map(|change| change.number).collect::<Vec<_>>(), [two.number]);
            let [(number, why)] = &Vec::from_iter(beside.unreadable)[..] else { panic!("{lost}") };
            assert_eq!(*number, ChangeNumber(1));
            assert!(why.contains("of its newest revision") && why.contains(&id), "{why}");
        }
        std::fs::write(&file, whole).unwrap();
        assert_eq!(read().changes.len(), 2);
    }
}

#[test]
fn a_gate_goes_by_no_row_that_an_earlier_process_left_behind() {
    let world = World::new();
    let (_, change) = world.change("ann", "one");
    world.approve(MAINTAINER, &change).unwrap();
    let approved = world.memory.change(change.number).unwrap().unwrap();
    world.forge.withdraw_review(MAINTAINER, change.number, world.now()).unwrap();
    put_row(&world, &approved);
    let repository = world.forge.repository().clone();
    let later = BuiltIn::new(world.forge.name().clone(), repository, world.memory.clone(), Arc::new(Yaml));
    world.memory.fill();
    assert!(later.read(&branch("main"), None).is_err());
    world.memory.make_room();
    assert!(later.read(&branch("main"), None).unwrap().changes[0].reviews.is_empty());
}

#[test]
fn uploaders_and_owners_of_branches_survive_a_restart() {
    let world = World::new();
    let outsider = world.clone_of("outsider");
    outsider.commit_file("theirs", "theirs\n");
    outsider.push(&["HEAD:refs/heads/theirs"]).unwrap();
    world.forge.rebuild().unwrap();
    let bob = world.clone_of("bob");
    bob.commit_file("b", "b\n");
    assert!(bob.push(&["--force", "HEAD:refs/heads/theirs"]).is_err());
    let ann = world.clone_of("ann");
    ann.go_to("theirs");
    ann.commit_file("mine", "mine\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    let snapshot = world.forge.read(&branch("main"), None).unwrap();
    assert_eq!(snapshot.changes[0].revision.uploader, ANN);
    assert!(snapshot.changes[0].revision.stack_uploaders.contains(&crate::support::OUTSIDER));
}
