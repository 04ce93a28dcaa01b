//! Landing: compare-and-swap, recognised repeats, races.

use std::sync::Barrier;

use towpath_core::candidate::Strategy;
use towpath_core::ids::CommitId;
use towpath_git::{Advance, CandidateOutcome, Git, GitError, GitOptions, Interrupt, RefName, Repository};

use crate::support::{World, branch, every_git, spec, write_program};

#[test]
fn a_candidate_lands_once_however_often_it_is_asked() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, theirs) = world.fork(("a", "1"), ("b", "2"));
        let spec = spec(ours, theirs, Strategy::Merge);
        let CandidateOutcome::Made { commit, .. } = world.repository.make_candidate(&spec).unwrap() else {
            panic!()
        };
        let land = || world.repository.advance(&branch("main"), ours, commit).unwrap();
        assert_eq!(land(), Advance::Advanced);
        assert_eq!(land(), Advance::AlreadyContained { tip: commit });
        assert_eq!(world.repository.branch_tip(&branch("main")).unwrap(), Some(commit));
        world.in_store(&["fsck", "--full", "--strict"], b"");
    }
}

#[test]
fn g09_a_foreign_push_is_never_overwritten_and_never_hides_a_landing() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1"), ("b", "2"));
    let spec = spec(ours, theirs, Strategy::Merge);
    let CandidateOutcome::Made { commit, .. } = world.repository.make_candidate(&spec).unwrap() else {
        panic!()
    };

    world.checkout(ours);
    let foreign = world.commit_file("c", "3");
    world.push(foreign, "main");
    let land = || world.repository.advance(&branch("main"), ours, commit).unwrap();
    assert_eq!(land(), Advance::Moved { tip: foreign });

    world.in_store(&["update-ref", "refs/heads/shown", &commit.to_string()], b"");
    world.run(&["fetch", "--quiet", world.repository.path().to_str().unwrap(), "refs/heads/shown"]);
    world.checkout(commit);
    let on_top = world.commit_file("d", "4");
    world.push(on_top, "main");
    assert_eq!(land(), Advance::AlreadyContained { tip: on_top });
}

/// A git that moves no ref, and leaves main where `left-at` says when it answers that all is done.
fn yes_man(world: &World) -> Git {
    let (folder, real) = (world.folder.path(), world.git.program().display());
    let (left_at, main) = (folder.join("left-at"), world.repository.path().join("refs/heads/main"));
    let (left_at, main) = (left_at.display(), main.display());
    let leave = format!(
        "read -r at < {left_at}; if [ $at = nowhere ]; then /bin/rm {main}; else echo $at > {main}; fi"
    );
    let answers = format!(
        "while read -r line; do case $line in\n\
         start) echo 'start: ok';;\n\
         commit) {leave}; echo 'commit: ok';;\n\
         esac; done"
    );
    let program = folder.join("yes-man");
    let body = format!("case \" $* \" in *' update-ref '*) {answers};; *) exec {real} \"$@\";; esac");
    write_program(&program, &body);
    Git::find(GitOptions { program: Some(program), ..GitOptions::default() }).unwrap()
}

/// Git says yes, and somebody moves the branch before it is read back; or nobody does, and it never moved.
#[test]
fn a_branch_that_is_read_back_without_what_landed_is_told() {
    let world = World::new();
    let (base, other) = world.fork(("a", "1"), ("b", "2"));
    world.checkout(base);
    let to = world.commit_file("c", "3");
    let on_top = world.commit_file("d", "4");
    world.push(on_top, "shown");
    let repository = Repository::open(&yes_man(&world), world.repository.path()).unwrap();
    let lands = |left_at: Option<CommitId>| {
        world.push(base, "main");
        let left_at = left_at.map_or("nowhere".to_owned(), |at| at.to_string());
        std::fs::write(world.folder.path().join("left-at"), left_at).unwrap();
        repository.advance(&branch("main"), base, to).unwrap()
    };
    assert_eq!(lands(Some(base)), Advance::Broken { tip: Some(base) });
    assert_eq!(lands(Some(other)), Advance::Broken { tip: Some(other) });
    assert_eq!(lands(None), Advance::Broken { tip: None });
    assert_eq!(lands(Some(on_top)), Advance::AlreadyContained { tip: on_top });
    assert_eq!(lands(Some(to)), Advance::Advanced);
}

#[test]
fn what_a_client_pushed_is_made_durable_on_demand() {
    let world = World::new();
    let base = world.commit_file("a", "1");
    let tip = world.commit_file("a", "2");
    world.push(tip, "deep/er/topic");
    let name = RefName::branch(&branch("deep/er/topic"));
    world.repository.make_durable(&name, Some(base)).unwrap();
    world.repository.make_durable(&name, None).unwrap();
    world.repository.make_durable(&RefName::branch(&branch("none/at/all")), None).unwrap();
    let nowhere = "2222222222222222222222222222222222222222".parse().unwrap();
    assert!(world.repository.make_durable(&name, Some(nowhere)).is_err());
}

#[test]
fn a_branch_only_moves_forward() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1"), ("b", "2"));
    let main = branch("main");
    let error = world.repository.advance(&main, ours, theirs).unwrap_err();
    assert!(matches!(error, GitError::NotForward { .. }), "{error}");
    let error = world.repository.advance(&branch("none"), ours, theirs).unwrap_err();
    assert!(matches!(error, GitError::NotThere { .. }), "{error}");
    let nowhere = "2222222222222222222222222222222222222222".parse().unwrap();
    let error = world.repository.advance(&main, ours, nowhere).unwrap_err();
    assert!(matches!(error, GitError::Missing { .. }), "{error}");
    assert_eq!(world.repository.branch_tip(&main).unwrap(), Some(ours));
}

#[test]
fn of_many_that_land_on_one_tip_exactly_one_wins() {
    let world = World::new();
    let base = world.commit_file("base", "base");
    world.push(base, "main");
    let commits: Vec<_> = (0..4)
        .map(|at| {
            world.checkout(base);
            let commit = world.commit_file("a", &format!("{at}"));
            world.push(commit, &format!("topic{at}"));
            commit
        })
        .collect();
    let barrier = Barrier::new(commits.len());
    let outcomes: Vec<Advance> = std::thread::scope(|scope| {
        let land = |to| {
            let (repository, barrier) = (world.repository.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                repository.advance(&branch("main"), base, to).unwrap()
            })
        };
        let threads: Vec<_> = commits.iter().map(|to| land(*to)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let tip = world.repository.branch_tip(&branch("main")).unwrap().unwrap();
    let winner = commits.iter().position(|commit| *commit == tip).unwrap();
    for (at, outcome) in outcomes.iter().enumerate() {
        let wanted = if at == winner { Advance::Advanced } else { Advance::Moved { tip } };
        assert_eq!(*outcome, wanted, "{at}");
    }
}

#[test]
fn garbage_goes_and_what_is_held_stays() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, theirs) = world.fork(("a", "1"), ("b", "2"));
        let make = |strategy| match world.repository.make_candidate(&spec(ours, theirs, strategy)).unwrap() {
            CandidateOutcome::Made { commit, .. } => commit,
            other => panic!("{other:?}"),
        };
        let (held, released) = (make(Strategy::Merge), make(Strategy::Squash));
        world.repository.release_candidate(&spec(ours, theirs, Strategy::Squash)).unwrap();
        let file = |commit: CommitId| {
            let id = commit.to_string();
            world.repository.path().join("objects").join(&id[..2]).join(&id[2..])
        };
        world.repository.collect_garbage(&Interrupt::new().unwrap()).unwrap();
        assert!(world.repository.has_commit(released).unwrap(), "it is too young to go");
        assert!(!file(held).exists(), "it is not packed");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(15 * 24 * 3600);
        std::fs::File::open(file(released)).unwrap().set_modified(old).unwrap();
        world.repository.collect_garbage(&Interrupt::new().unwrap()).unwrap();
        world.repository.close_processes();
        assert!(!world.repository.has_commit(released).unwrap());
        assert!(world.repository.has_commit(held).unwrap());
        assert_eq!(world.repository.advance(&branch("main"), ours, held).unwrap(), Advance::Advanced);
        world.in_store(&["fsck", "--full", "--strict"], b"");
    }
}

#[test]
fn collecting_ends_when_it_is_interrupted_and_can_be_repeated() {
    let world = World::new();
    world.fork(("a", "1"), ("b", "2"));
    let interrupt = Interrupt::new().unwrap();
    interrupt.raise();
    for _ in 0..2 {
        let ended = world.repository.collect_garbage(&interrupt);
        assert!(matches!(ended, Err(GitError::Interrupted { call: "repack" })), "{ended:?}");
    }
    world.in_store(&["fsck", "--full", "--strict"], b"");
    world.repository.collect_garbage(&Interrupt::new().unwrap()).unwrap();
    world.in_store(&["fsck", "--full", "--strict"], b"");
}

#[test]
fn loose_objects_are_counted_with_their_bytes_in_one_folder_of_256() {
    for git in every_git() {
        let world = World::with(git);
        let before = world.repository.litter();
        // An object of the folder that is counted.
        let id = world.in_store(&["hash-object", "-w", "--stdin"], b"263\n");
        assert_eq!(&id[..2], "17");
        let file = world.repository.path().join("objects/17").join(&id[2..]);
        let bytes = 256 * std::fs::metadata(file).unwrap().len();
        let after = world.repository.litter();
        assert_eq!((after.loose, after.loose_bytes), (before.loose + 256, before.loose_bytes + bytes));
        assert_eq!(after.packs, before.packs);
    }
}
