//! Samples for the bench: candidates that are work, and git's own answer to each.

use towpath_git::{CandidateOutcome, Merged, sample};

use crate::support::World;

fn check(world: &World, count: usize) {
    let specs = sample::candidates(&world.repository, world.head(), count).unwrap();
    assert_eq!(specs.len(), count);
    for spec in specs {
        let outcome = world.repository.make_candidate(&spec).unwrap();
        match sample::reference(&world.repository, &spec).unwrap() {
            Merged::Clean(wanted) => {
                assert!(matches!(outcome, CandidateOutcome::Made { tree, .. } if tree == wanted))
            }
            Merged::Conflict(wanted) => assert_eq!(outcome, CandidateOutcome::Conflict { paths: wanted }),
        }
    }
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
    for at in 0..6 {
        world.commit_file(&format!("file{at}"), &format!("{at}\n"));
    }
    world.push(world.head(), "main");
    check(&world, 4);
}
