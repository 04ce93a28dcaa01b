//! Samples for the bench: candidates that are work, and git's own answer to each.

use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::ids::Timestamp;
use towpath_git::{CandidateOutcome, Merged, sample};

use crate::support::World;

fn check(world: &World, count: usize) {
    let specs = sample::candidates(&world.repository, world.head(), count).unwrap();
    assert_eq!(specs.len(), count);
    let clean = check_each(world, specs);
    assert_eq!(clean, count);
}

/// Compares ours with git's own; says how many merged.
fn check_each(world: &World, specs: Vec<CandidateSpec>) -> usize {
    let mut clean = 0;
    for spec in specs {
        let outcome = world.repository.make_candidate(&spec).unwrap();
        match sample::reference(&world.repository, &spec).unwrap() {
            Merged::Clean(wanted) => {
                let made = match outcome {
                    CandidateOutcome::Made { tree, .. } => tree,
                    _ => world.repository.commit(spec.parent).unwrap().tree,
                };
                assert_eq!(made, wanted);
                let commit = sample::reference_commit(&world.repository, &spec, wanted).unwrap();
                assert_eq!(world.repository.commit(commit).unwrap().parents, [spec.parent, spec.revision]);
                clean += 1;
            }
            Merged::Conflict(wanted) => assert_eq!(outcome, CandidateOutcome::Conflict { paths: wanted }),
        }
    }
    clean
}

#[test]
fn a_history_of_merges_gives_branch_and_change() {
    let world = World::new();
    let base = world.commit_file("base", "0");
    let mut tip = base;
    for at in 0..7 {
        world.checkout(base);
        let change = world.commit_file(&format!("file{at}"), &format!("{at}\n"));
        world.checkout(tip);
        world.run(&["merge", "--quiet", "--no-ff", "-m", "merge", &change.to_string()]);
        tip = world.head();
    }
    world.push(tip, "main");
    check(&world, 4);
}

#[test]
fn a_straight_history_gives_neighbours() {
    let world = World::new();
    for at in 0..7 {
        world.commit_file(&format!("file{at}"), &format!("{at}\n"));
    }
    world.push(world.head(), "main");
    check(&world, 4);
}

#[test]
fn what_is_merged_is_in_no_history_before() {
    let world = World::new();
    for at in 0..7 {
        world.commit_file(&format!("file{at}"), &format!("{at}\n"));
    }
    world.push(world.head(), "main");
    let specs = sample::candidates(&world.repository, world.head(), 4).unwrap();
    let all = ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"];
    let before = world.in_store(&all, b"");
    for spec in specs {
        let CandidateOutcome::Made { tree, .. } = world.repository.make_candidate(&spec).unwrap() else {
            panic!("{spec:?} is not made")
        };
        assert!(!before.contains(&tree.to_string()), "{spec:?}");
    }
}

#[test]
fn generated_pairs_are_hard_and_the_same_each_time() {
    const PAIRS: usize = 20;
    let [one, two] = [(); 2].map(|()| World::new());
    let specs = sample::hard_pairs(&one.repository, PAIRS, 7).unwrap();
    assert_eq!(specs, sample::hard_pairs(&two.repository, PAIRS, 7).unwrap());
    let clean = check_each(&one, specs);
    // The set is only hard if both happen often.
    assert!((PAIRS / 5..=PAIRS * 4 / 5).contains(&clean), "{clean} of {PAIRS} are clean");
    let fsck = one.in_store(&["fsck", "--strict", "--no-dangling", "--no-reflogs"], b"");
    assert_eq!(fsck, "", "{fsck}");
}

#[test]
fn changes_land_one_after_the_other_and_all_of_them() {
    let world = World::new();
    world.push(world.commit_file("base", "0"), "main");
    let branches = sample::changes(&world.repository, "jobs: {}\n", 3).unwrap();
    let tip = |name: &str| world.repository.branch_tip(&name.parse().unwrap()).unwrap().unwrap();
    assert_eq!(world.in_store(&["ls-tree", "--name-only", "main"], b""), "towpath.yaml");
    let mut main = tip("main");
    for branch in &branches {
        let revision = tip(branch.as_str());
        let Merged::Clean(tree) = world.repository.merge(main, revision).unwrap() else {
            panic!("{branch} is in conflict")
        };
        let (message, time) = ("land".to_owned(), Timestamp(0));
        let spec = CandidateSpec { parent: main, revision, strategy: Strategy::Merge, message, time };
        main = sample::reference_commit(&world.repository, &spec, tree).unwrap();
    }
    let files = world.in_store(&["ls-tree", "--name-only", &main.to_string()], b"");
    assert_eq!(files, "file-1\nfile-2\nfile-3\ntowpath.yaml");
}
