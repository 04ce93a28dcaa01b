//! What is on the disk before a branch moves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use tempfile::TempDir;
use towpath_core::candidate::Strategy;
use towpath_core::gate::LandTried;
use towpath_core::ids::Timestamp;
use towpath_forge::{ChangeRecord, ChangeState, Forge, Records};
use towpath_git::{ErrorClass, Git, GitOptions, Record};

use crate::contract::landing;
use crate::support::{ANN, BOB, World, branch, candidate_of, every_git};

const PATIENCE: Duration = Duration::from_secs(60);

/// A git that does `before` each time, and then what it is told.
fn preceded_by(folder: &Path, before: &str) -> Git {
    let [draft, program] = ["draft", "git"].map(|name| folder.join(name));
    let real = every_git().swap_remove(0).program().to_owned();
    fs::write(&draft, format!("#!/bin/sh\n{before}\nexec {} \"$@\"\n", real.display())).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    // Not written by this process: it may have a file that it wrote still open in a child that another test just starts.
    assert!(Command::new("cp").arg(&draft).arg(&program).status().unwrap().success());
    Git::find(GitOptions { program: Some(program), ..GitOptions::default() }).unwrap()
}

/// A world whose server has such a git.
fn world_preceded_by(folder: &Path, before: &str) -> World {
    let real = every_git().swap_remove(0).program().to_owned();
    World::with(&preceded_by(folder, before), &real, Duration::from_secs(60))
}

#[test]
fn a_landing_that_is_tried_again_asks_again_for_its_record_to_be_durable() {
    let folder = TempDir::new().unwrap();
    let [log, is_cut] = ["log", "is-cut"].map(|name| folder.path().join(name));
    let cut = format!("case \"$*\" in *--no-object-names*) [ ! -e {} ] || exit 1;; esac", is_cut.display());
    let world = world_preceded_by(folder.path(), &format!("echo \"$*\" >> {}\n{cut}", log.display()));
    let (_, change) = world.change("ann", "one");
    let (main, head) = (world.main(), change.newest().commit);
    let land = || world.forge.land(&landing((change.number, head), (main, head)));

    fs::write(&is_cut, "").unwrap();
    land().unwrap_err();
    assert_eq!(world.main(), main);
    let begun = world.memory.change(change.number).unwrap().unwrap();
    assert!(begun.change.landing.is_some());
    fs::remove_file(&is_cut).unwrap();
    fs::write(&log, "").unwrap();
    assert_eq!(land().unwrap(), LandTried::Landed);
    let asked = fs::read_to_string(&log).unwrap();
    let mut lines = asked.lines().filter(|line| line.contains("--no-object-names"));
    assert!(lines.any(|line| line.contains(&begun.meta.to_string())), "{asked}");
}

/// Main has moved on since a commit was made of which somebody opens a change, so that the candidate of that has a tree of its
/// own. Every object lies loose.
fn forked() -> (World, ChangeRecord) {
    let world = World::new();
    let (file, time) = (Some(("one", &b"one\n"[..])), Timestamp(1_700_000_060_000));
    let record = Record { previous: Some(world.main()), file, folder: None, message: "one", time };
    let head = world.forge.repository().write_record(&record).unwrap();
    assert!(world.in_store(&["update-ref", "refs/heads/one", &head.to_string()]).status.success());
    world.advance_main();
    let change = world.open(ANN, "one").unwrap();
    (world, change)
}

#[test]
fn a_change_that_has_lost_something_when_it_lands_is_out_of_reach_until_that_is_back() {
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::Rebase] {
        // What the other two land does not reach the revision, nor its tree.
        let parts = match strategy {
            Strategy::Merge => &["", "^{tree}", ":one"][..],
            Strategy::Squash | Strategy::Rebase => &["", ":one"],
        };
        for part in parts {
            let (world, change) = forked();
            let (main, head) = (world.main(), change.newest().commit);
            let made = candidate_of(&world, &change, strategy);
            let land = || world.forge.land(&landing((change.number, head), (main, made)));
            let read = || world.forge.read(&branch("main"), Some(main)).unwrap();
            assert_eq!(read().changes.len(), 1);
            let (id, file) = world.loose(&format!("{head}{part}"));
            let whole = fs::read(&file).unwrap();
            // No git reads a file to find out whether it is there.
            let spoilt = (*part != ":one").then(|| Some(Vec::new()));
            for left in spoilt.into_iter().chain([None]) {
                fs::remove_file(&file).unwrap();
                left.iter().for_each(|bytes| fs::write(&file, bytes).unwrap());
                world.forge.repository().close_processes();
                assert_eq!(land().unwrap(), LandTried::Gone, "{strategy:?} {part}");
                assert_eq!(world.main(), main);
                let beside = read();
                assert_eq!(beside.changes, [], "{strategy:?} {part}");
                assert!(beside.unreadable[&change.number].contains(&id), "{beside:?}");
                // Where a landing was taken back, its end is looked for.
                let asked = world.forge.read(&branch("main"), Some(made)).unwrap();
                assert!(!asked.keeps_landed, "{strategy:?} {part}");
            }
            fs::write(&file, whole).unwrap();
            assert_eq!(read().changes.len(), 1, "{strategy:?} {part}");
            assert_eq!(land().unwrap(), LandTried::Landed, "{strategy:?} {part}");
        }
    }
}

/// Main with a past, and two changes for it that have a file of that past again. Every object lies loose.
fn with_a_past(world: World) -> (World, [ChangeRecord; 2]) {
    let past = world.clone_of("ann");
    past.commit_file("one", "old\n");
    past.commit_file("one", "new\n");
    past.push(&["HEAD:refs/heads/past"]).unwrap();
    assert!(world.in_store(&["update-ref", "refs/heads/main", "refs/heads/past"]).status.success());
    let changes = [("ann", "two"), ("bob", "three")].map(|(person, name)| {
        let clone = world.clone_of(person);
        clone.commit_file(name, "old\n");
        clone.push(&["-o", "change", &format!("HEAD:refs/heads/{name}")]).unwrap();
        world.forge.change(world.newest()).unwrap()
    });
    world.unpack();
    (world, changes)
}

#[test]
fn what_the_branch_has_lost_is_no_change_s_trouble() {
    let spoilt: &[u8] = b"x\x9c spoilt";
    for (part, left) in [("~1", Some(spoilt)), ("~2", Some(spoilt)), ("~1:one", None)] {
        let (world, changes) = with_a_past(World::new());
        let main = world.main();
        let candidates = [0, 1].map(|at| candidate_of(&world, &changes[at], Strategy::Merge));
        let land = |at: usize, to| {
            let change = (changes[at].number, changes[at].newest().commit);
            world.forge.land(&landing(change, (world.main(), to)))
        };
        let (id, file) = world.loose(&format!("{main}{part}"));
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        left.iter().for_each(|bytes| fs::write(&file, bytes).unwrap());
        world.forge.repository().close_processes();
        // Once as the branch is read for the first time, and once as it was met at a landing.
        for _ in 0..2 {
            match world.forge.read(&branch("main"), None) {
                Ok(read) => assert_eq!((read.changes.len(), read.unreadable.len()), (2, 0), "{part}"),
                Err(error) => {
                    assert_eq!(error.class(), ErrorClass::Transient);
                    assert!(error.to_string().contains(&id), "{part}: {error}");
                }
            }
            for (at, to) in candidates.into_iter().enumerate() {
                let error = land(at, to).expect_err(part);
                assert_eq!(error.class(), ErrorClass::Transient, "{part}: {error}");
                assert!(error.to_string().contains(&id), "{part}: {error}");
            }
        }
        assert_eq!(world.main(), main);
        if left.is_some() {
            fs::remove_file(&file).unwrap();
        }
        fs::write(&file, whole).unwrap();
        assert_eq!(world.forge.read(&branch("main"), None).unwrap().changes.len(), 2, "{part}");
        for (at, change) in changes.iter().enumerate() {
            let to = candidate_of(&world, change, Strategy::Merge);
            assert_eq!(land(at, to).unwrap(), LandTried::Landed, "{part}");
        }
    }
}

#[test]
fn all_history_is_walked_through_once_for_what_a_branch_has_lost() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let world = world_preceded_by(folder.path(), &format!("echo \"$*\" >> {}", log.display()));
    let (world, _) = with_a_past(world);
    let (id, file) = world.loose(&format!("{}~1", world.main()));
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"x\x9c spoilt").unwrap();
    world.forge.repository().close_processes();
    fs::write(&log, "").unwrap();
    for _ in 0..3 {
        let error = world.forge.read(&branch("main"), None).unwrap_err().to_string();
        assert!(error.contains(&id), "{error}");
    }
    let asked = fs::read_to_string(&log).unwrap();
    assert_eq!(asked.lines().filter(|line| line.contains("--missing=print")).count(), 1, "{asked}");
    fs::remove_file(&file).unwrap();
    fs::write(&file, whole).unwrap();
    assert_eq!(world.forge.read(&branch("main"), None).unwrap().changes.len(), 2);
}

#[test]
fn changes_are_written_while_it_is_found_out_whose_the_damage_is_that_a_landing_met() {
    let folder = TempDir::new().unwrap();
    let [begun, held, released] = ["begun", "held", "released"].map(|name| folder.path().join(name));
    assert!(Command::new("mkfifo").args([&begun, &held]).status().unwrap().success());
    let hold = format!(
        "case \"$*\" in *--missing=print*) [ -e {} ] || {{ echo > {}; cat {}; }};; esac",
        released.display(),
        begun.display(),
        held.display()
    );
    let world = world_preceded_by(folder.path(), &hold);
    let (_, beside) = world.change("bob", "beside");
    let clone = world.clone_of("ann");
    clone.commit_file("one", "one\n");
    clone.commit_file("two", "two\n");
    clone.push(&["-o", "change", "HEAD:refs/heads/two"]).unwrap();
    let change = world.forge.change(world.newest()).unwrap();
    world.advance_main();
    world.unpack();
    let made = candidate_of(&world, &change, Strategy::Rebase);
    let (_, file) = world.loose(&format!("{made}~1"));
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"x\x9c spoilt").unwrap();
    world.forge.repository().close_processes();

    let (tell, told) = channel();
    let (forge, main, head) = (world.forge.clone(), world.main(), change.newest().commit);
    let order = landing((change.number, head), (main, made));
    let lander = std::thread::spawn(move || forge.land(&order));
    let telling = tell.clone();
    std::thread::spawn(move || telling.send(fs::read(begun).is_ok()));
    assert!(told.recv_timeout(PATIENCE).unwrap(), "the walk did not begin");
    let (forge, now) = (world.forge.clone(), world.now());
    std::thread::spawn(move || tell.send(forge.comment(BOB, beside.number, "meanwhile", now).is_ok()));
    let commented = told.recv_timeout(PATIENCE);
    fs::write(released, "").unwrap();
    fs::write(held, "").unwrap();
    assert_eq!(commented, Ok(true), "the comment waits for the walk");
    assert_eq!(lander.join().unwrap().unwrap(), LandTried::Lost);
}

#[test]
fn a_candidate_that_is_not_whole_any_more_is_lost_and_made_again() {
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::Rebase] {
        for part in ["", "^{tree}"] {
            let (world, change) = forked();
            let (main, head) = (world.main(), change.newest().commit);
            let made = candidate_of(&world, &change, strategy);
            let land = || world.forge.land(&landing((change.number, head), (main, made)));
            let (_, file) = world.loose(&format!("{made}{part}"));
            for left in [None, Some("x\x1c spoilt")] {
                fs::remove_file(&file).unwrap();
                left.iter().for_each(|bytes| fs::write(&file, bytes).unwrap());
                world.forge.repository().close_processes();
                assert_eq!(land().unwrap(), LandTried::Lost, "{strategy:?} {part}");
                assert_eq!(world.main(), main);
                assert_eq!(candidate_of(&world, &change, strategy), made);
            }
            assert_eq!(land().unwrap(), LandTried::Landed, "{strategy:?} {part}");
        }
    }
}

#[test]
fn a_landing_whose_record_is_damaged_between_two_tries_writes_it_again() {
    for part in ["", "^{tree}", "~1", "~1:change.json"] {
        for left in [Some(&b""[..]), None] {
            let (world, change) = forked();
            let (main, head) = (world.main(), change.newest().commit);
            let made = candidate_of(&world, &change, Strategy::Merge);
            let land = || world.forge.land(&landing((change.number, head), (main, made)));
            // A try that comes to nothing, but for the record.
            fs::remove_file(world.loose(&format!("{made}^{{tree}}")).1).unwrap();
            assert_eq!(land().unwrap(), LandTried::Lost);
            assert_eq!(candidate_of(&world, &change, Strategy::Merge), made);
            let begun = world.memory.change(change.number).unwrap().unwrap();
            assert!(begun.change.landing.is_some());

            let (_, file) = world.loose(&format!("{}{part}", begun.meta));
            fs::remove_file(&file).unwrap();
            left.iter().for_each(|bytes| fs::write(&file, bytes).unwrap());
            world.forge.repository().close_processes();
            assert_eq!(land().unwrap(), LandTried::Landed, "{part}");
            let state = ChangeState::Landed { commit: made };
            assert_eq!(world.forge.change(change.number).unwrap().state, state, "{part}");
        }
    }
}
