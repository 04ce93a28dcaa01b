//! Generated pairs of commits that git finds hard, merged and picked by plain git in a work tree, and by us.

use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::ids::{CommitId, TreeId};
use towpath_git::{CandidateOutcome, Git, sample};

use crate::support::{World, every_git, spec};

/// Pairs for each git of the machine. A pair takes about 0.1 s, nearly all of it plain git's.
const PAIRS: usize = 10;

/// What plain git makes of a pair.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Tree(TreeId),
    Conflict(Vec<String>),
}

/// Runs plain git in the clone and takes what it left in the index.
fn plain_answer(world: &World, onto: CommitId, arguments: &[&str]) -> Answer {
    world.run(&["reset", "--quiet", "--hard"]);
    world.run(&["clean", "-ffdxq"]);
    world.checkout(onto);
    world.succeeds(arguments);
    let unmerged = world.run(&["ls-files", "--unmerged"]);
    let listed = unmerged.lines().filter_map(|line| line.split_once('\t'));
    // A file against a folder gets a name that ends in the label of its side.
    let mut paths: Vec<String> = listed.map(|(_, path)| path.split('~').next().unwrap().to_owned()).collect();
    paths.sort();
    paths.dedup();
    match paths.is_empty() {
        true => Answer::Tree(world.run(&["write-tree"]).parse().unwrap()),
        false => Answer::Conflict(paths),
    }
}

fn our_answer(world: &World, (parent, revision): (CommitId, CommitId), strategy: Strategy) -> Answer {
    match world.repository.make_candidate(&spec(parent, revision, strategy)).unwrap() {
        CandidateOutcome::Made { tree, .. } => Answer::Tree(tree),
        CandidateOutcome::Empty => Answer::Tree(world.repository.commit(parent).unwrap().tree),
        CandidateOutcome::Conflict { paths } => {
            Answer::Conflict(paths.iter().map(|path| path.to_string()).collect())
        }
    }
}

/// One pair; returns how many of the answers were clean and conflicts.
fn check_pair(world: &World, pair: &CandidateSpec) -> [usize; 2] {
    let (ours, theirs) = (pair.parent, pair.revision);
    let merged = plain_answer(world, ours, &["merge", "--no-ff", "--no-commit", &theirs.to_string()]);
    let picked = plain_answer(world, ours, &["cherry-pick", "--no-commit", &theirs.to_string()]);
    for (strategy, plain) in
        [(Strategy::Merge, &merged), (Strategy::Squash, &merged), (Strategy::Rebase, &picked)]
    {
        assert_eq!(
            &our_answer(world, (ours, theirs), strategy),
            plain,
            "{strategy:?} of {ours} and {theirs}"
        );
    }
    let clean = [merged, picked].iter().filter(|answer| matches!(answer, Answer::Tree(_))).count();
    [clean, 2 - clean]
}

fn check_set(git: Git) {
    let world = World::with(git);
    // Plain git works in the clone on what was generated in the store.
    let objects = world.repository.path().join("objects");
    world.write(".git/objects/info/alternates", format!("{}\n", objects.display()));
    let pairs = sample::hard_pairs(&world.repository, PAIRS, 1).unwrap();
    let counted = pairs.iter().map(|pair| check_pair(&world, pair));
    let sum = counted.fold([0, 0], |sum, one| [sum[0] + one[0], sum[1] + one[1]]);
    // The set is only hard if both happen often.
    assert!(sum.iter().all(|count| *count > PAIRS / 4), "{sum:?} clean and in conflict");
}

#[test]
fn trees_and_conflicts_equal_gits_own_on_a_hard_set() {
    every_git().into_iter().for_each(check_set);
}
