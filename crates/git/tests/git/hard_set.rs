//! Generated pairs of commits that git finds hard: renames, modes, links, submodules, deletions, folders against files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use towpath_core::candidate::Strategy;
use towpath_core::ids::{CommitId, TreeId};
use towpath_git::{CandidateOutcome, Git};

use crate::support::{World, every_git, spec};

/// Pairs for each git of the machine. A pair takes about 0.1 s, nearly all of it plain git's.
const PAIRS: u64 = 10;

/// xorshift64*: the same seed gives the same pair.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What plain git makes of a pair.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Tree(TreeId),
    Conflict(Vec<String>),
}

fn text(random: &mut Random) -> String {
    (0..12 + random.below(12)).map(|line| format!("line {line} {}\n", random.below(3))).collect()
}

/// The tracked files of the working tree, links included.
fn files(world: &World) -> Vec<String> {
    let listed = world.run(&["ls-files", "--stage"]);
    let plain = listed.lines().filter(|line| !line.starts_with("160000"));
    plain.filter_map(|line| line.split_once('\t')).map(|(_, path)| path.to_owned()).collect()
}

fn make_base(world: &World, random: &mut Random) -> CommitId {
    for folder in ["src", "src/deep", "docs", "."] {
        for name in 0..3 {
            let content = text(random);
            world.write(format!("{folder}/file{name}"), content);
        }
    }
    std::os::unix::fs::symlink("src/file0", world.work().join("link")).unwrap();
    world.run(&["add", "--all", "."]);
    submodule(world, 1);
    world.run(&["commit", "--quiet", "-m", "base"]);
    world.head()
}

/// An entry for another repository's commit. Its folder is empty, as in any clone without submodules.
fn submodule(world: &World, at: usize) {
    std::fs::create_dir_all(world.work().join("module")).unwrap();
    world.run(&["update-index", "--add", "--cacheinfo", &format!("160000,{at:040x},module")]);
}

/// A few random edits, as one commit.
fn edit(world: &World, random: &mut Random, label: &str) -> CommitId {
    for _ in 0..2 + random.below(4) {
        let files = files(world);
        let path = random.pick(&files).clone();
        let full = world.work().join(&path);
        match random.below(9) {
            0..=2 => change_lines(&full, random),
            3 => rename(
                world,
                &path,
                &format!("{}{}", random.pick(&["moved/", "docs/new-", "src/"]), random.below(4)),
            ),
            4 => remove(world, &path),
            5 => make_executable(&full),
            6 => add(world, random),
            7 => folder_for_file(world, &path),
            _ => rename_folder(world, random),
        }
        if random.below(6) == 0 {
            submodule(world, 2 + random.below(2));
        }
        world.run(&["add", "--all", "."]);
    }
    world.run(&["commit", "--quiet", "--allow-empty", "-m", label]);
    world.head()
}

fn change_lines(path: &Path, random: &mut Random) {
    let Ok(old) = std::fs::read_to_string(path) else { return };
    if path.is_symlink() {
        return;
    }
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    if !lines.is_empty() {
        let at = random.below(lines.len());
        lines[at] = format!("edited {}", random.below(3));
    }
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn rename(world: &World, from: &str, to: &str) {
    let to = world.work().join(to);
    if to.symlink_metadata().is_ok() || to.parent().is_some_and(|parent| parent.is_file()) {
        return;
    }
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let _ = std::fs::rename(world.work().join(from), to);
}

fn make_executable(path: &Path) {
    if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn remove(world: &World, path: &str) {
    let _ = std::fs::remove_file(world.work().join(path));
}

fn add(world: &World, random: &mut Random) {
    let path = world.work().join(random.pick(&["added", "src/added", "docs/added"]));
    if path.symlink_metadata().is_err() && path.parent().is_some_and(|parent| parent.is_dir()) {
        std::fs::write(path, text(random)).unwrap();
    }
}

fn folder_for_file(world: &World, path: &str) {
    let full = world.work().join(path);
    if full.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
        std::fs::remove_file(&full).unwrap();
        std::fs::create_dir(&full).unwrap();
        std::fs::write(full.join("inside"), "inside\n").unwrap();
    }
}

fn rename_folder(world: &World, random: &mut Random) {
    let (from, to) = *random.pick(&[("src/deep", "deeper"), ("docs", "manual"), ("src", "source")]);
    let to = world.work().join(to);
    if to.symlink_metadata().is_err() {
        let _ = std::fs::rename(world.work().join(from), to);
    }
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

/// Two sides from one base, and a root of its own; returns how many of the answers were clean and conflicts.
fn check_pair(git: &Git, seed: u64) -> [usize; 2] {
    let world = World::with(git.clone());
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let base = make_base(&world, &mut random);
    let ours = edit(&world, &mut random, "ours");
    world.run(&["reset", "--quiet", "--hard"]);
    world.run(&["clean", "-ffdxq"]);
    world.checkout(base);
    let theirs = edit(&world, &mut random, "theirs");
    world.push(ours, "main");
    world.push(theirs, "topic");

    let merged = plain_answer(&world, ours, &["merge", "--no-ff", "--no-commit", &theirs.to_string()]);
    let picked = plain_answer(&world, ours, &["cherry-pick", "--no-commit", &theirs.to_string()]);
    let pair = (ours, theirs);
    assert_eq!(our_answer(&world, pair, Strategy::Merge), merged, "merge, seed {seed}");
    assert_eq!(our_answer(&world, pair, Strategy::Squash), merged, "squash, seed {seed}");
    assert_eq!(our_answer(&world, pair, Strategy::Rebase), picked, "rebase, seed {seed}");
    let clean = |answer: &Answer| usize::from(matches!(answer, Answer::Tree(_)));
    let clean = clean(&merged) + clean(&picked);
    [clean, 2 - clean]
}

#[test]
fn trees_and_conflicts_equal_gits_own_on_a_hard_set() {
    for git in every_git() {
        let mut sum = [0, 0];
        for seed in 1..=PAIRS {
            let [clean, conflicts] = check_pair(&git, seed);
            sum = [sum[0] + clean, sum[1] + conflicts];
        }
        // The set is only hard if both happen often.
        assert!(sum.iter().all(|count| *count as u64 > PAIRS / 4), "{sum:?} clean and in conflict");
    }
}
