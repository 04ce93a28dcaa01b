//! Rows are made again from refs.

use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_forge::{ChangeState, Failure, Find, Forge, ForgeError, LabelEdit, Records};

use crate::contract::landing;
use crate::support::{ANN, BOB, MAINTAINER, World, approval, branch};

fn all(world: &World) -> Vec<towpath_forge::SavedChange> {
    let numbers: Vec<ChangeNumber> = world.memory.saved().unwrap().into_keys().collect();
    numbers.into_iter().map(|number| world.memory.change(number).unwrap().unwrap()).collect()
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
    world.forge.review(MAINTAINER, one.number, &approval(&one), world.now()).unwrap();
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
    world.memory.save(&old).unwrap();
    assert_eq!(world.forge.change(change.number).unwrap().comments.len(), 1);
    world.memory.save(&old).unwrap();
    let both = world.forge.comment(ANN, change.number, "Thanks.", world.now()).unwrap();
    assert_eq!(both.comments.len(), 2);
    world.memory.save(&old).unwrap();
    assert_eq!(world.forge.rebuild().unwrap().mended, [change.number]);
    assert_eq!(world.memory.change(change.number).unwrap().unwrap().change.comments.len(), 2);
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
    world.memory.save(&newer).unwrap();
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
    ann.run(&["fetch", "--quiet", &ann.url, "theirs"]);
    ann.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    ann.commit_file("mine", "mine\n");
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    let snapshot = world.forge.read(&branch("main"), None).unwrap();
    assert_eq!(snapshot.changes[0].revision.uploader, ANN);
    assert!(snapshot.changes[0].revision.stack_uploaders.contains(&crate::support::OUTSIDER));
}
