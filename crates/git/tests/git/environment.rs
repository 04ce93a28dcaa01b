//! What git is started with, and that nothing of it can hang or flood us.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use towpath_git::{ErrorClass, Git, GitError, GitOptions, Mended, Repository};

use crate::support::{World, every_git, pretend_git, write_program};

#[test]
fn every_git_of_the_machine_is_fit() {
    for git in every_git() {
        assert!(git.version().starts_with("git version 2."), "{}", git.version());
    }
}

#[test]
fn an_old_git_and_a_missing_one_are_named() {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("git");
    let missing = GitOptions { program: Some(program.clone()), ..GitOptions::default() };
    let error = Git::find(missing.clone()).unwrap_err();
    assert!(matches!(error, GitError::NotStarted { .. }));
    assert_eq!(error.class(), ErrorClass::Denied);

    write_program(&program, "echo git version 2.37.4");
    let error = Git::find(missing).unwrap_err().to_string();
    assert!(error.contains("git version 2.37.4") && error.contains("2.38"), "{error}");
}

#[test]
fn a_git_that_hangs_is_killed_with_its_children() {
    let folder = TempDir::new().unwrap();
    let mark = folder.path().join("pid");
    let body = format!("sleep 1000 & echo $! > {}; wait", mark.display());
    let git = Git::find(pretend_git(&folder, &body)).unwrap();
    let began = Instant::now();
    let error = Repository::create(&git, &folder.path().join("x.git")).unwrap_err();
    assert!(matches!(error, GitError::Deadline { call: "init", milliseconds: 300 }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30));
    let child = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    // It has its signal; until it is scheduled once more it still counts as running.
    if let Ok(child) = pidfd_open(Pid::from_raw(child).unwrap(), PidfdFlags::empty()) {
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&patience)).unwrap();
        assert_eq!(ended, 1, "the child of a killed git lives");
    }
}

#[test]
fn a_git_that_never_stops_talking_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut options = pretend_git(&folder, "exec cat /dev/zero");
    options.call_deadline = Duration::from_secs(60);
    let git = Git::find(options).unwrap();
    let error = Repository::create(&git, &folder.path().join("x.git")).unwrap_err();
    assert!(matches!(error, GitError::OutputTooLarge { call: "init", .. }), "{error}");
}

#[test]
fn a_failure_carries_the_last_words_without_control_characters() {
    let folder = TempDir::new().unwrap();
    let git = Git::find(pretend_git(&folder, "printf 'fatal: \\033[31mno\\033[0m' >&2; exit 128")).unwrap();
    let error = Repository::create(&git, &folder.path().join("x.git")).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(error.to_string(), "git init failed (exit status: 128): fatal: ?[31mno?[0m");
}

#[test]
fn nothing_of_the_callers_environment_or_configuration_reaches_git() {
    let folder = TempDir::new().unwrap();
    let seen = folder.path().join("seen");
    let git = Git::find(pretend_git(&folder, &format!("env > {}", seen.display()))).unwrap();
    let _ = Repository::create(&git, &folder.path().join("x.git"));
    let seen = std::fs::read_to_string(seen).unwrap();
    let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    let wanted = [
        "GIT_ALLOW_PROTOCOL",
        "GIT_ATTR_NOSYSTEM",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_GRAFT_FILE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_PROTOCOL_FROM_USER",
        "GIT_TERMINAL_PROMPT",
        "HOME",
        "LC_ALL",
        "PATH",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn a_repository_is_made_whole_or_not_at_all() {
    let world = World::new();
    let path = world.repository.path();
    let error = Repository::create(&world.git, path).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert_eq!(world.in_store(&["config", "receive.fsckObjects"], b""), "true");
    assert_eq!(world.in_store(&["config", "core.fsync"], b""), "all");
    assert_eq!(world.in_store(&["config", "transfer.hideRefs"], b""), "refs/towpath");
    assert!(!path.join("hooks").exists(), "a template was used");
    assert!(Repository::open(&world.git, &path.join("objects")).is_err());
}

#[test]
fn leftovers_of_a_power_cut_do_not_block_landing() {
    let world = World::new();
    let path = world.repository.path();
    let leftovers = ["refs/heads/main.lock", "packed-refs.lock", "objects/tmp_objdir-incoming-x/ab/cd"];
    for name in leftovers {
        std::fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        std::fs::write(path.join(name), "").unwrap();
    }
    assert_eq!(world.repository.clear_leftovers().unwrap(), Mended::default());
    assert!(leftovers.iter().all(|name| !path.join(name).exists()));
    assert!(!path.join("objects/tmp_objdir-incoming-x").exists());

    let cut = path.join("objects/ab").join("c".repeat(38));
    std::fs::write(&cut, "").unwrap();
    world.repository.mark_in_order().unwrap();
    assert_eq!(world.repository.clear_leftovers().unwrap(), Mended::default(), "the machine runs on");
    std::fs::write(path.join("towpath-boot"), "another start of the machine").unwrap();
    assert_eq!(world.repository.clear_leftovers().unwrap(), Mended { objects: 1, candidates: 0 });
    assert!(!cut.exists());
}

#[test]
fn a_mark_that_finds_no_room_leaves_the_repository_put_right_and_looked_through_again() {
    let world = World::new();
    let path = world.repository.path();
    // As little can be written there as on a full disk.
    std::fs::create_dir(path.join("towpath-boot")).unwrap();
    let cut = path.join("objects/ab").join("c".repeat(38));
    for _ in 0..2 {
        std::fs::write(&cut, "").unwrap();
        assert_eq!(world.repository.clear_leftovers().unwrap(), Mended { objects: 1, candidates: 0 });
        let error = world.repository.mark_in_order().unwrap_err();
        assert!(matches!(error, GitError::Io { .. }), "{error}");
    }
    std::fs::remove_dir(path.join("towpath-boot")).unwrap();
    world.repository.mark_in_order().unwrap();
    std::fs::write(&cut, "").unwrap();
    assert_eq!(world.repository.clear_leftovers().unwrap(), Mended::default());
}

#[test]
fn what_cannot_be_read_is_not_taken_for_cut_and_stays() {
    let world = World::new();
    let path = world.repository.path();
    let no_stream = path.join("objects/ab").join("c".repeat(38));
    std::fs::write(&no_stream, "not what zlib writes").unwrap();
    assert_eq!(world.repository.mend().unwrap(), Mended { objects: 1, candidates: 0 });
    assert!(!no_stream.exists());

    // Two ways of a disk, or of a process at its limits: the file does not open, and it opens and does not read.
    for (unreadable, name) in [("itself", "d"), ("/proc/self/mem", "e")] {
        let object = path.join("objects/ab").join(name.repeat(38));
        let target = path.join("objects/ab").join(unreadable.replace("itself", &name.repeat(38)));
        std::os::unix::fs::symlink(&target, &object).unwrap();
        let error = world.repository.clear_leftovers().unwrap_err();
        assert!(matches!(error, GitError::Io { .. }), "{error}");
        assert!(object.symlink_metadata().is_ok(), "{unreadable}: a file that may be whole was removed");
        assert!(!path.join("towpath-boot").exists(), "{unreadable}: the boot counts as looked at");
        std::fs::remove_file(&object).unwrap();
    }
    let candidates = path.join("refs/towpath/candidates");
    std::fs::create_dir_all(&candidates).unwrap();
    let candidate = candidates.join("ab".repeat(20));
    std::os::unix::fs::symlink("/proc/self/mem", &candidate).unwrap();
    assert!(world.repository.mend().is_err());
    assert!(candidate.symlink_metadata().is_ok());
}
