//! Reading commits, files and differences, hostile ones included.

use std::path::Path;
use std::time::{Duration, Instant};

use towpath_core::ids::{Timestamp, TreeId};
use towpath_git::{
    ChangedPaths, ErrorClass, ExportOptions, FileAt, GitError, ObjectId, Range, TREE_LIMITS, TreeLimits, Walk,
};

use crate::support::{World, every_git};

/// Writes a tree object as given, past all of git's checks.
fn raw_tree(world: &World, entries: &[(&str, &[u8], &str)]) -> TreeId {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        let id = id.parse::<TreeId>().unwrap();
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(&id.0);
    }
    world.in_store(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &bytes).parse().unwrap()
}

fn blob(world: &World, bytes: &[u8]) -> String {
    world.in_store(&["hash-object", "-w", "--stdin"], bytes)
}

#[test]
fn a_commit_is_read_as_it_is() {
    for git in every_git() {
        let world = World::with(git);
        let first = world.commit_file("a", "1");
        world.write("a", "2");
        let second = world.commit("subject\n\nbody with ü");
        world.push(second, "main");
        let info = world.repository.commit(second).unwrap();
        assert_eq!(info.parents, [first]);
        assert_eq!(info.tree, world.tree_of("HEAD"));
        assert_eq!((info.author.name.as_str(), info.author.email.as_str()), ("Ada", "ada@example.org"));
        assert_eq!(info.committer.time, Timestamp(1_700_000_000_000));
        assert_eq!(info.message, "subject\n\nbody with ü\n");
        let missing = world.repository.commit("00000000000000000000000000000000deadbeef".parse().unwrap());
        assert_eq!(missing.unwrap_err().class(), ErrorClass::Gone);
        let tree = world.repository.commit(info.tree.to_string().parse().unwrap());
        assert!(matches!(tree.unwrap_err(), GitError::WrongKind { .. }));
        assert!(!world.repository.has_commit(info.tree.to_string().parse().unwrap()).unwrap());
    }
}

#[test]
fn a_definition_is_a_plain_file_and_nothing_else() {
    let world = World::new();
    world.write("towpath.yaml", "jobs: {}\n");
    world.write("sub/inner.yaml", "x\n");
    world.write("run.sh", "#!/bin/sh\n");
    std::os::unix::fs::symlink("towpath.yaml", world.work().join("link.yaml")).unwrap();
    std::os::unix::fs::symlink("sub", world.work().join("folder")).unwrap();
    world.run(&["add", "--all", "."]);
    world.run(&["update-index", "--chmod=+x", "run.sh"]);
    world.run(&["commit", "--quiet", "-m", "files"]);
    let commit = world.head();
    world.push(commit, "main");
    let tree = world.repository.commit(commit).unwrap().tree;
    let at = |path: &str| world.repository.file_at(tree, path, 100).unwrap();
    assert_eq!(at("towpath.yaml"), FileAt::Content(b"jobs: {}\n".to_vec()));
    assert_eq!(at("sub/inner.yaml"), FileAt::Content(b"x\n".to_vec()));
    assert_eq!(at("link.yaml"), FileAt::NotRegular { mode: 0o120000 });
    assert_eq!(at("folder/inner.yaml"), FileAt::NotRegular { mode: 0o120000 });
    assert_eq!(at("run.sh"), FileAt::NotRegular { mode: 0o100755 });
    assert_eq!(at("sub"), FileAt::NotRegular { mode: 0o040000 });
    assert_eq!(
        [at("nothing"), at("sub/nothing"), at("../towpath.yaml"), at("")],
        [const { FileAt::Absent }; 4]
    );
    assert_eq!(world.repository.file_at(tree, "towpath.yaml", 8).unwrap(), FileAt::TooLarge { bytes: 9 });
    let names: Vec<String> =
        world.repository.names_in(tree, "").unwrap().iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["folder", "link.yaml", "run.sh", "sub", "towpath.yaml"]);
}

#[test]
fn reading_goes_on_after_git_was_killed() {
    let world = World::new();
    let commit = world.commit_file("a", "1");
    world.push(commit, "main");
    world.repository.commit(commit).unwrap();
    assert_eq!(world.kill_kept_open("cat-file"), 1);
    assert_eq!(world.repository.commit(commit).unwrap().id, commit);
}

/// Spoils some bytes of a file in their second half, as a disk does.
fn spoil(path: &Path, bytes: std::ops::Range<usize>) {
    let mut content = std::fs::read(path).unwrap();
    content[bytes.start + bytes.len() / 2..bytes.end].iter_mut().for_each(|byte| *byte ^= 0x55);
    // Objects are read-only: whoever spoils one is not stopped by that.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}

#[test]
fn an_object_that_the_disk_has_spoilt_is_damaged_and_no_trouble_of_gits() {
    for git in every_git() {
        let world = World::with(git);
        let noise: String =
            (0..2_000_u32).map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761))).collect();
        let commit = world.commit_file("noise", &noise);
        world.push(commit, "main");
        let (tree, whole) = (world.tree_of("HEAD"), FileAt::Content(noise.clone().into_bytes()));
        let read = || world.repository.file_at(tree, "noise", 1 << 20);
        assert_eq!(read().unwrap(), whole);
        let id = world.run(&["rev-parse", "HEAD:noise"]);
        let objects = world.repository.path().join("objects");
        let loose = objects.join(&id[..2]).join(&id[2..]);
        spoil(&loose, 0..std::fs::metadata(&loose).unwrap().len() as usize);
        let is_told = || {
            let error = read().unwrap_err();
            assert!(matches!(&error, GitError::Damaged { id: told } if told.to_string() == id), "{error}");
            assert_eq!(error.class(), ErrorClass::Transient, "it can be put back");
            assert_eq!(world.repository.commit(commit).unwrap().id, commit, "others are read on");
        };
        is_told();
        std::fs::remove_file(&loose).unwrap();
        blob(&world, noise.as_bytes());
        assert_eq!(read().unwrap(), whole);

        world.in_store(&["repack", "-a", "-d", "--quiet"], b"");
        let packs = std::fs::read_dir(objects.join("pack")).unwrap().map(|entry| entry.unwrap().path());
        let pack =
            packs.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "pack")).unwrap();
        let listed = world.in_store(&["verify-pack", "-v", pack.to_str().unwrap()], b"");
        let line: Vec<&str> =
            listed.lines().find(|line| line.starts_with(&id)).unwrap().split_whitespace().collect();
        let [size, offset] = [3, 4].map(|at| line[at].parse::<usize>().unwrap());
        spoil(&pack, offset..offset + size);
        is_told();
    }
}

#[test]
fn what_a_commit_reaches_is_told_also_of_what_is_lost_or_spoilt() {
    for git in every_git() {
        let world = World::with(git);
        world.write("folder/inner", "inner\n");
        let old = world.commit_file("old", "old\n");
        std::fs::remove_dir_all(world.work().join("folder")).unwrap();
        let new = world.commit_file("old", "new\n");
        let beside = world.commit_file("beside", "beside\n");
        world.push(beside, "main");
        let id = |object: String| world.run(&["rev-parse", &object]).parse::<ObjectId>().unwrap();
        let file = |object: ObjectId| {
            let name = object.to_string();
            world.repository.path().join("objects").join(&name[..2]).join(&name[2..])
        };
        let reaches = |object| world.repository.reaches(new, object);
        for beside in [beside.into(), id(format!("{beside}:beside"))] {
            assert!(!reaches(beside).unwrap());
        }
        for part in ["", "^{tree}", ":folder", ":folder/inner", ":old"] {
            let object = id(format!("{old}{part}"));
            let whole = std::fs::read(file(object)).unwrap();
            assert!(reaches(object).unwrap(), "{part}");
            for left in [Some("x\x1c spoilt"), None] {
                std::fs::remove_file(file(object)).unwrap();
                left.iter().for_each(|bytes| std::fs::write(file(object), bytes).unwrap());
                assert!(reaches(object).unwrap(), "{part} {left:?}");
                let other = reaches(beside.into());
                let told = matches!(&other, Err(GitError::Damaged { id }) if *id == object);
                assert!(told || matches!(other, Ok(false)), "{part} {left:?}: {other:?}");
            }
            std::fs::write(file(object), whole).unwrap();
        }
    }
}

#[test]
fn only_the_file_of_a_spoilt_object_is_dropped() {
    let world = World::new();
    let commit = world.commit_file("a", "1\n");
    world.push(commit, "main");
    let name = commit.to_string();
    let file = world.repository.path().join("objects").join(&name[..2]).join(&name[2..]);
    let whole = std::fs::read(&file).unwrap();
    world.repository.drop_damaged(commit.into()).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    // A whole object, of another name.
    let tree = world.tree_of("HEAD").to_string();
    let other = world.repository.path().join("objects").join(&tree[..2]).join(&tree[2..]);
    for spoilt in [std::fs::read(other).unwrap(), whole[..whole.len() / 2].to_vec(), Vec::new()] {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, spoilt).unwrap();
        world.repository.drop_damaged(commit.into()).unwrap();
        assert!(!file.exists());
        std::fs::write(&file, &whole).unwrap();
    }
    std::fs::remove_file(&file).unwrap();
    world.repository.drop_damaged(commit.into()).unwrap();
    let left = std::fs::read_dir(file.parent().unwrap()).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("tmp_")));
}

#[test]
fn history_is_walked_within_bounds() {
    let world = World::new();
    let commits: Vec<_> = (0..5).map(|at| world.commit_file("a", &format!("{at}\n"))).collect();
    world.push(commits[4], "main");
    let range = Range { from: commits[1], to: commits[4] };
    let between = |max| world.repository.commits_between(range, Walk::All, max);
    assert_eq!(between(3).unwrap(), commits[2..]);
    assert_eq!(between(2).unwrap_err().class(), ErrorClass::Invalid);
    assert!(world.repository.is_ancestor(commits[0], commits[4]).unwrap());
    assert!(!world.repository.is_ancestor(commits[4], commits[0]).unwrap());
    assert!(world.repository.is_ancestor(commits[2], commits[2]).unwrap());
    let nowhere = "1111111111111111111111111111111111111111".parse().unwrap();
    assert_eq!(world.repository.is_ancestor(nowhere, commits[0]).unwrap_err().class(), ErrorClass::Gone);
    assert_eq!(world.repository.merge_base(commits[1], commits[3]).unwrap(), Some(commits[1]));
    assert_eq!(world.repository.log(commits[4], Walk::FirstParents, 2).unwrap(), [commits[4], commits[3]]);
}

#[test]
fn changed_paths_have_both_sides_of_a_rename_and_raw_bytes() {
    let world = World::new();
    world.write("old name", "the same text\n".repeat(20));
    world.write("kept", "k");
    let from = world.commit("one");
    std::fs::rename(world.work().join("old name"), world.work().join("new name")).unwrap();
    world.write(crate::support::latin1(b"caf\xe9\n"), "x");
    let to = world.commit("two");
    world.push(to, "main");
    let tree = |commit| world.repository.commit(commit).unwrap().tree;
    let changed = world.repository.changed_paths(tree(from), tree(to), 3).unwrap();
    let ChangedPaths::All(paths) = changed else { panic!("three paths are not too many") };
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.0.as_slice()).collect();
    assert_eq!(paths, [b"caf\xe9\n".as_slice(), b"new name", b"old name"]);
    assert_eq!(world.repository.changed_paths(tree(from), tree(to), 2).unwrap(), ChangedPaths::TooMany);
    assert_eq!(world.repository.changed_paths(tree(to), tree(to), 0).unwrap(), ChangedPaths::All(vec![]));
}

#[test]
fn b09_a_tree_bomb_is_refused_at_once() {
    for git in every_git() {
        let world = World::with(git);
        let file = blob(&world, b"x");
        let names: Vec<String> = (0..10).map(|at| format!("{at}")).collect();
        let level = |mode, id: &str| {
            let entries: Vec<(&str, &[u8], &str)> =
                names.iter().map(|name| (mode, name.as_bytes(), id)).collect();
            raw_tree(&world, &entries)
        };
        let mut tree = level("100644", &file);
        for _ in 0..9 {
            tree = level("40000", &tree.to_string());
        }
        let began = Instant::now();
        let error = world.repository.measure_tree(tree, TREE_LIMITS).unwrap_err();
        assert!(matches!(error, GitError::TooLarge { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(world.repository.changed_paths(empty(), tree, 100).unwrap(), ChangedPaths::TooMany);
    }
}

fn empty() -> TreeId {
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904".parse().unwrap()
}

#[test]
fn the_size_of_files_counts_as_often_as_they_occur() {
    let world = World::new();
    let file = blob(&world, &[b'x'; 1000]);
    let tree = raw_tree(&world, &[("100644", b"a", &file), ("100755", b"b", &file)]);
    let tree = raw_tree(&world, &[("40000", b"x", &tree.to_string()), ("40000", b"y", &tree.to_string())]);
    let limits = |entries_max, bytes_max| TreeLimits { entries_max, bytes_max };
    let measure = world.repository.measure_tree(tree, limits(6, 4000)).unwrap();
    assert_eq!((measure.entries, measure.bytes), (6, 4000));
    assert!(world.repository.measure_tree(tree, limits(5, 4000)).is_err());
    assert!(world.repository.measure_tree(tree, limits(6, 3999)).is_err());
}

/// A tree inside so many folders, each with a name of 250 bytes.
fn buried(world: &World, tree: TreeId, depth: usize) -> TreeId {
    let name = [b'd'; 250];
    (0..depth).fold(tree, |tree, _| raw_tree(world, &[("40000", &name, &tree.to_string())]))
}

/// So many entries of one kind, with names of four bytes.
fn wide(world: &World, (mode, id): (&str, &str), count: usize) -> TreeId {
    let names: Vec<String> = (0..count).map(|at| format!("{at:04x}")).collect();
    let entries: Vec<(&str, &[u8], &str)> = names.iter().map(|name| (mode, name.as_bytes(), id)).collect();
    raw_tree(world, &entries)
}

fn why_too_large(world: &World, tree: TreeId, limits: TreeLimits) -> String {
    let error = world.repository.measure_tree(tree, limits).unwrap_err();
    assert!(matches!(error, GitError::TooLarge { .. }), "{error}");
    error.to_string()
}

#[test]
fn b09_paths_are_bounded_by_their_bytes_too() {
    let world = World::new();
    let file = blob(&world, b"x");
    let paths = |tree, paths_max| world.repository.changed_paths(empty(), tree, paths_max).unwrap();
    // Twelve folders, and a name, are 12 * 251 + 60 bytes: the longest that is taken.
    let longest =
        |bytes: usize| buried(&world, raw_tree(&world, &[("100644", &vec![b'f'; bytes], &file)]), 12);
    assert_eq!(world.repository.measure_tree(longest(60), TREE_LIMITS).unwrap().entries, 13);
    assert!(matches!(paths(longest(60), 1), ChangedPaths::All(found) if found[0].0.len() == 3072));
    let why = why_too_large(&world, longest(61), TREE_LIMITS);
    assert_eq!(why, "the length of a path is over the limit of 3072 bytes");
    assert_eq!(paths(longest(61), 1), ChangedPaths::TooMany);
    let into = world.folder.path().join("files");
    let exported = world.repository.export_tree(longest(61), &into, &ExportOptions::default());
    assert_eq!(exported.unwrap_err().to_string(), why);
    assert!(!into.exists(), "nothing is written before all is known");

    // Below eleven folders, a thousand files in each of some: a folder of them takes 2,770,766 bytes of paths.
    let files = wide(&world, ("100644", &file), 1_000);
    let many = |folders| buried(&world, wide(&world, ("40000", &files.to_string()), folders), 11);
    assert_eq!(world.repository.measure_tree(many(96), TREE_LIMITS).unwrap().entries, 11 + 96 * 1_001);
    let why = why_too_large(&world, many(97), TREE_LIMITS);
    assert_eq!(why, "the length of all paths together is over the limit of 268435456 bytes");
    assert!(matches!(paths(many(24), 100_000), ChangedPaths::All(found) if found.len() == 24_000));
    assert_eq!(paths(many(25), 100_000), ChangedPaths::TooMany);
}

#[test]
fn b09_what_is_in_a_tree_is_counted_before_what_is_below() {
    let world = World::new();
    let file = blob(&world, b"x");
    // Nothing is at the bottom, which is not looked for when there is too much above it.
    let nothing = "1".repeat(40);
    let names: Vec<String> = (0..9).map(|at| format!("f{at}")).collect();
    let mut tree: TreeId = nothing.parse().unwrap();
    for _ in 0..5 {
        let id = tree.to_string();
        let mut entries: Vec<(&str, &[u8], &str)> = vec![("40000", b"d", &id)];
        entries.extend(names.iter().map(|name| ("100644", name.as_bytes(), file.as_str())));
        tree = raw_tree(&world, &entries);
    }
    let limits = |entries_max| TreeLimits { entries_max, ..TREE_LIMITS };
    let why = why_too_large(&world, tree, limits(49));
    assert_eq!(why, "the number of files and folders is over the limit of 49");
    let missing = world.repository.measure_tree(tree, limits(50)).unwrap_err();
    assert!(matches!(missing, GitError::Missing { .. }), "{missing}");
}

#[test]
fn b09_submodules_are_bounded() {
    let world = World::new();
    let modules = |count| wide(&world, ("160000", &"1".repeat(40)), count);
    assert_eq!(world.repository.measure_tree(modules(10_000), TREE_LIMITS).unwrap().entries, 10_000);
    let why = why_too_large(&world, modules(10_001), TREE_LIMITS);
    assert_eq!(why, "the number of submodules is over the limit of 10000");
    let half = modules(5_001).to_string();
    let twice = raw_tree(&world, &[("40000", b"a", &half), ("40000", b"b", &half)]);
    assert_eq!(why_too_large(&world, twice, TREE_LIMITS), why, "as often as they occur");
    // Each becomes a folder.
    let room = |needed| Err(GitError::NoRoom { needed, why: "full".into() });
    let options = ExportOptions { room: &room, ..ExportOptions::default() };
    let full = world.repository.export_tree(modules(10_000), &world.folder.path().join("files"), &options);
    let Err(GitError::NoRoom { needed, .. }) = full else { panic!("{full:?}") };
    assert!(needed.bytes >= 10_000 * (4096 + 256), "{needed:?}");
}

#[test]
fn b07_names_that_leave_the_tree_are_refused() {
    let world = World::new();
    let file = blob(&world, b"x");
    let empty = empty().to_string();
    let bad: &[&[u8]] =
        &[b".git", b".GIT", b"git~1", b".git.", b".git ", b"..", b".", b"", b"a/b", b".g\xe2\x80\x8cit"];
    for name in bad {
        let tree = raw_tree(&world, &[("100644", name, &file)]);
        let error = world.repository.measure_tree(tree, TREE_LIMITS).unwrap_err();
        assert!(matches!(error, GitError::Malformed { .. }), "{:?}: {error}", String::from_utf8_lossy(name));
    }
    let twice: [&[(&str, &[u8], &str)]; 3] = [
        &[("120000", b"a", &file), ("100644", b"a", &file)],
        &[("120000", b"a", &file), ("100644", b"a.b", &file), ("40000", b"a", &empty)],
        &[("40000", b"a", &empty), ("120000", b"a", &file)],
    ];
    for entries in twice {
        let tree = raw_tree(&world, entries);
        assert!(world.repository.measure_tree(tree, TREE_LIMITS).is_err(), "{entries:?}");
    }
    let fine = raw_tree(
        &world,
        &[("100644", b".gitignore", &file), ("40000", b"git", &empty), ("100644", b"x\xff", &file)],
    );
    assert_eq!(world.repository.measure_tree(fine, TREE_LIMITS).unwrap().entries, 3);
}

#[test]
fn what_nobody_uses_is_not_kept_open() {
    let world = World::new();
    let commit = world.commit_file("a", "1");
    world.push(commit, "main");
    for (idle, kept) in [(Duration::from_secs(3600), 1), (Duration::ZERO, 0)] {
        world.repository.commit(commit).unwrap();
        world.repository.close_idle_processes(idle);
        assert_eq!(world.kill_kept_open("cat-file"), kept);
    }
    world.repository.commit(commit).unwrap();
}
