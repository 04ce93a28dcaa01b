//! Who uploaded a change is who brought its commits, whoever proposes them, in whatever order. Cases of the attack list by
//! their names there.

use towpath_core::gate::ForgeChange;
use towpath_core::ids::UserId;
use towpath_forge::Forge;

use crate::support::{ANN, OUTSIDER, World, branch};

fn changes(world: &World) -> Vec<ForgeChange> {
    world.forge.read(&branch("main"), None).unwrap().changes
}

/// Who else has a part in a change, by its number.
fn others(world: &World) -> Vec<(u64, Vec<UserId>)> {
    changes(world)
        .into_iter()
        .map(|it| (it.number.0, it.revision.stack_uploaders.into_iter().collect()))
        .collect()
}

#[test]
fn a20_the_same_commit_in_two_changes_is_still_of_those_who_brought_it_first() {
    // The outsider's change is there, and was looked at, before ann proposes its very head.
    let world = World::new();
    let outsider = world.clone_of("outsider");
    outsider.commit_file("below", "theirs\n");
    outsider.commit_file("head", "theirs\n");
    outsider.push(&["-o", "change", "HEAD:refs/heads/evil"]).unwrap();
    assert_eq!(others(&world), [(1, vec![])]);
    let ann = world.clone_of("ann");
    ann.run(&["fetch", "--quiet", &ann.url, "refs/changes/1/1"]);
    ann.push(&["-o", "change", "FETCH_HEAD:refs/heads/review"]).unwrap();
    assert_eq!(others(&world), [(1, vec![]), (2, vec![OUTSIDER])]);
    assert_eq!(changes(&world)[1].revision.uploader, ANN);
    // Nor does it help that there is no more than that head.
    outsider.run(&["reset", "--quiet", "--hard", &world.main().to_string()]);
    outsider.commit_file("alone", "theirs\n");
    outsider.push(&["-o", "change", "HEAD:refs/heads/alone"]).unwrap();
    ann.run(&["fetch", "--quiet", &ann.url, "refs/changes/3/1"]);
    ann.push(&["-o", "change", "FETCH_HEAD:refs/heads/alone"]).unwrap();
    assert_eq!(others(&world)[2..], [(3, vec![]), (4, vec![OUTSIDER])]);
    world.check_sound();
}

#[test]
fn a20_the_same_commit_in_two_changes_gives_an_outsider_nothing() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit_file("below", "mine\n");
    ann.commit_file("head", "mine\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/mine"]).unwrap();
    assert_eq!(others(&world), [(1, vec![])]);
    let outsider = world.clone_of("outsider");
    outsider.run(&["fetch", "--quiet", &outsider.url, "refs/changes/1/1"]);
    outsider.push(&["-o", "change", "FETCH_HEAD:refs/heads/theirs"]).unwrap();
    assert_eq!(others(&world), [(1, vec![]), (2, vec![ANN])]);
    assert_eq!(changes(&world)[1].revision.uploader, OUTSIDER);
    world.check_sound();
}
