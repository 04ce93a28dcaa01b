//! Candidates: what they look like, that they are the same everywhere, and what cannot change them.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::ids::{CommitId, TreeId};
use towpath_git::{
    CandidateOutcome, ErrorClass, Expected, Git, GitError, GitOptions, Mended, ObjectId, Range, RefName,
    RefUpdate, Repository, Transaction, Walk,
};

use crate::support::{World, every_git, spec, write_program};

const STRATEGIES: [Strategy; 3] = [Strategy::Merge, Strategy::Squash, Strategy::Rebase];

fn made(outcome: CandidateOutcome) -> (CommitId, TreeId) {
    match outcome {
        CandidateOutcome::Made { commit, tree } => (commit, tree),
        other => panic!("{other:?}"),
    }
}

fn conflict_paths(outcome: CandidateOutcome) -> Vec<String> {
    match outcome {
        CandidateOutcome::Conflict { paths } => paths.iter().map(|path| path.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_strategy_has_its_parents_its_message_and_its_people() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
        let parents = [vec![ours, theirs], vec![ours], vec![ours]];
        let messages = ["land it\n", "land it\n", "b: 2\n"];
        let authors = ["Towpath", "Towpath", "Ada"];
        for (at, strategy) in STRATEGIES.into_iter().enumerate() {
            let (commit, tree) =
                made(world.repository.make_candidate(&spec(ours, theirs, strategy)).unwrap());
            let info = world.repository.commit(commit).unwrap();
            assert_eq!((info.tree, &info.parents), (tree, &parents[at]), "{strategy:?}");
            assert_eq!(info.message, messages[at]);
            assert_eq!((info.author.name.as_str(), info.committer.name.as_str()), (authors[at], "Towpath"));
            assert_eq!(info.committer.time.0, 1_700_000_123_000);
            let held = RefName::candidate(&spec(ours, theirs, strategy).id());
            assert_eq!(world.repository.ref_target(&held).unwrap(), Some(commit.into()));
        }
        world.in_store(&["fsck", "--full", "--strict"], b"");
        world.in_store(&["gc", "--quiet", "--prune=now"], b"");
        let (commit, _) =
            made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
        assert!(world.repository.has_commit(commit).unwrap());
    }
}

#[test]
fn the_commit_is_the_one_that_git_itself_would_write() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let (commit, _) = made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
    let content = world.in_store(&["cat-file", "commit", &commit.to_string()], b"") + "\n";
    let again = world.in_store(&["hash-object", "-t", "commit", "--stdin"], content.as_bytes());
    assert_eq!(again, commit.to_string());
}

#[test]
fn the_same_description_gives_the_same_commit_in_every_clone_and_with_every_git() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let all = |repository: &Repository| {
        STRATEGIES.map(|strategy| made(repository.make_candidate(&spec(ours, theirs, strategy)).unwrap()))
    };
    let first = all(&world.repository);
    assert_eq!(all(&world.repository), first);
    for git in every_git() {
        let other = World::with(git);
        let source = world.repository.path().to_str().unwrap();
        other.in_store(
            &["-c", "protocol.file.allow=always", "fetch", "--quiet", source, "+refs/heads/*:refs/heads/*"],
            b"",
        );
        assert_eq!(all(&other.repository), first);
    }
}

#[test]
fn b02_b03_planted_refs_change_no_candidate() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let before = made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
    world.checkout(ours);
    let bad = world.commit_file("evil", "x");
    world.push(bad, "bad");
    let (bad, id) = (bad.to_string(), ours.to_string());
    for name in [
        format!("refs/replace/{id}"),
        format!("refs/replace/{theirs}"),
        format!("refs/tags/{id}"),
        "refs/tags/main".to_owned(),
    ] {
        world.in_store(&["update-ref", &name, &bad], b"");
    }
    std::fs::write(world.repository.path().join("info/grafts"), format!("{theirs}\n{id} {bad}\n")).unwrap();
    let fresh = Repository::open(&world.git, world.repository.path()).unwrap();
    assert_eq!(made(fresh.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap()), before);
    assert_eq!(fresh.commit(ours).unwrap().tree, world.repository.commit(ours).unwrap().tree);
}

#[test]
fn c12_c13_attributes_hide_no_conflict_and_start_no_driver() {
    for git in every_git() {
        let world = World::with(git);
        world.write("list", "one\n");
        let base = world.commit("base");
        let ours = world.commit_file("list", "one\nours\n");
        world.checkout(base);
        world.write("list", "one\ntheirs\n");
        world.write(".gitattributes", "* merge=union filter=bad diff=bad\n* text eol=crlf\n");
        let theirs = world.commit("theirs");
        world.push(ours, "main");
        world.push(theirs, "topic");
        // A target that already has the attribute, as HEAD of the bare repository, must not help either.
        world.in_store(&["symbolic-ref", "HEAD", "refs/heads/topic"], b"");
        let mark = world.folder.path().join("driver-ran");
        for (key, value) in
            [("filter.bad.clean", "touch"), ("filter.bad.smudge", "touch"), ("merge.bad.driver", "touch")]
        {
            world.in_store(&["config", key, &format!("{value} {}", mark.display())], b"");
        }
        for strategy in STRATEGIES {
            let outcome = world.repository.make_candidate(&spec(ours, theirs, strategy)).unwrap();
            assert_eq!(conflict_paths(outcome), ["list"], "{strategy:?}");
        }
        assert!(!mark.exists(), "a driver ran");
    }
}

#[test]
fn a_change_that_is_contained_already_is_empty() {
    let world = World::new();
    let base = world.commit_file("a", "1\n");
    let topic = world.commit_file("a", "2\n");
    world.write("b", "b\n");
    let tip = world.commit("on top");
    world.checkout(base);
    let same = world.commit_file("a", "2\n");
    [("main", tip), ("topic", topic), ("same", same)]
        .iter()
        .for_each(|(name, commit)| world.push(*commit, name));
    for strategy in STRATEGIES {
        for revision in [topic, tip, same] {
            let outcome = world.repository.make_candidate(&spec(tip, revision, strategy)).unwrap();
            assert_eq!(outcome, CandidateOutcome::Empty, "{strategy:?}");
        }
        assert!(matches!(
            world.repository.make_candidate(&spec(base, topic, strategy)).unwrap(),
            CandidateOutcome::Made { tree, .. } if tree == world.tree_of(&topic.to_string())
        ));
    }
}

#[test]
fn a_rebase_keeps_each_commit_and_what_a_merge_inside_it_resolved() {
    let world = World::new();
    let base = world.commit_file("shared", "base\n");
    let main = world.commit_file("other", "main\n");
    world.checkout(base);
    let first = world.commit_file("topic", "one\n");
    world.run(&["merge", "--quiet", "--no-ff", "--no-commit", &main.to_string()]);
    world.write("resolved", "written in the merge\n");
    world.commit("merge main");
    let last = world.commit_file("topic", "two\n");
    world.checkout(main);
    let tip = world.commit_file("later", "later\n");
    world.push(tip, "main");
    world.push(last, "topic");
    let (commit, tree) = made(world.repository.make_candidate(&spec(tip, last, Strategy::Rebase)).unwrap());
    world.in_store(&["update-ref", "refs/heads/shown", &commit.to_string()], b"");
    world.run(&["fetch", "--quiet", world.repository.path().to_str().unwrap(), "refs/heads/shown"]);
    let subjects = world.run(&["log", "--format=%s", &format!("{tip}..{commit}")]);
    assert_eq!(subjects, "topic: two\nmerge main\ntopic: one");
    assert_eq!(world.run(&["show", &format!("{commit}:resolved")]), "written in the merge");
    assert_eq!(world.run(&["rev-list", "--merges", &format!("{tip}..{commit}")]), "");
    let merged = made(world.repository.make_candidate(&spec(tip, last, Strategy::Merge)).unwrap());
    assert_eq!(tree, merged.1);
    assert_eq!(world.repository.commit(first).unwrap().message, "topic: one\n");
}

#[test]
fn a_root_commit_can_be_rebased_where_histories_meet() {
    let world = World::new();
    let base = world.commit_file("a", "1\n");
    world.run(&["checkout", "--quiet", "--orphan", "island"]);
    world.run(&["rm", "-rfq", "."]);
    let root = world.commit_file("island", "i\n");
    world.run(&["merge", "--quiet", "--allow-unrelated-histories", "-m", "join", &base.to_string()]);
    let joined = world.head();
    world.checkout(base);
    let tip = world.commit_file("b", "2\n");
    [("main", tip), ("joined", joined), ("root", root)]
        .iter()
        .for_each(|(name, commit)| world.push(*commit, name));
    let (commit, tree) = made(world.repository.make_candidate(&spec(tip, joined, Strategy::Rebase)).unwrap());
    world.run(&["cherry-pick", "--no-commit", &root.to_string()]);
    assert_eq!(tree.to_string(), world.run(&["write-tree"]));
    assert_eq!(world.repository.commit(commit).unwrap().parents, [tip]);
    for strategy in STRATEGIES {
        let error = world.repository.make_candidate(&spec(tip, root, strategy)).unwrap_err();
        assert!(matches!(error, GitError::Unrelated { .. }), "{strategy:?}: {error}");
        assert_eq!(error.class(), ErrorClass::Invalid);
    }
    assert!(made(world.repository.make_candidate(&spec(tip, joined, Strategy::Merge)).unwrap()).1 == tree);
}

#[test]
fn a_commit_in_another_encoding_is_rebased_byte_by_byte() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let tree = world.tree_of(&theirs.to_string());
    let parent = world.repository.commit(theirs).unwrap().parents[0];
    let mut content = format!("tree {tree}\nparent {parent}\nauthor J").into_bytes();
    content.extend_from_slice(b"\xf6rg <j@example.org> 1600000000 -0230\ncommitter X <x@y> 1600000000 +0000\nencoding ISO-8859-1\n\ngr\xfc\xdfe\n");
    let odd: CommitId =
        world.in_store(&["hash-object", "-t", "commit", "-w", "--stdin"], &content).parse().unwrap();
    let (commit, _) = made(world.repository.make_candidate(&spec(ours, odd, Strategy::Rebase)).unwrap());
    let mut raw = Command::new(world.git.program());
    raw.arg("--git-dir").arg(world.repository.path()).args(["cat-file", "commit", &commit.to_string()]);
    let raw = raw.output().unwrap().stdout;
    let has = |wanted: &[u8]| raw.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(b"author J\xf6rg <j@example.org> 1600000000 -0230\n"));
    assert!(has(b"encoding ISO-8859-1\n\ngr\xfc\xdfe\n"));
}

#[test]
fn a_rebase_lands_no_trailer_that_only_towpath_may_write() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    world.checkout(theirs);
    let body = "Why: because\nChange-Number: 9\ntowpath-run : demo/main/1\nSigned-off-by: J <j@example.org>";
    world.run(&["commit", "--quiet", "--amend", "-m", "Change-Number: 9", "-m", body]);
    let forged = world.head();
    world.push(forged, "topic");
    let (commit, _) = made(world.repository.make_candidate(&spec(ours, forged, Strategy::Rebase)).unwrap());
    let message = world.repository.commit(commit).unwrap().message;
    assert_eq!(message, "Change-Number: 9\n\nWhy: because\nSigned-off-by: J <j@example.org>\n");
}

#[test]
fn a_missing_commit_is_gone_and_the_engine_works_on() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let nowhere = "3333333333333333333333333333333333333333".parse().unwrap();
    for pair in [(ours, nowhere), (nowhere, theirs)] {
        for strategy in STRATEGIES {
            let error = world.repository.make_candidate(&spec(pair.0, pair.1, strategy)).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Gone, "{strategy:?}: {error}");
        }
    }
    made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
}

#[test]
fn without_stdbuf_each_merge_has_a_git_of_its_own_and_the_same_result() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let clash = {
        world.checkout(ours);
        let base = world.repository.merge_base(ours, theirs).unwrap().unwrap();
        world.checkout(base);
        world.commit_file("a", "other\n")
    };
    world.push(clash, "clash");
    let kept = made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
    assert_eq!(world.repository.merges_kept_open(), Some(true));
    let alone = GitOptions {
        program: Some(world.git.program().to_owned()),
        search_path: "/nonexistent".into(),
        ..GitOptions::default()
    };
    let git = Git::find(alone).unwrap();
    let repository = Repository::open(&git, world.repository.path()).unwrap();
    assert_eq!(made(repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap()), kept);
    assert_eq!(repository.merges_kept_open(), Some(false));
    assert_eq!(
        conflict_paths(repository.make_candidate(&spec(ours, clash, Strategy::Merge)).unwrap()),
        ["a"]
    );
    let nowhere = "3333333333333333333333333333333333333333".parse().unwrap();
    assert_eq!(repository.merge(ours, nowhere).unwrap_err().class(), ErrorClass::Gone);
}

#[test]
fn a_merge_that_keeps_its_answers_to_itself_is_found_out() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let wanted = made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
    let programs = world.folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    // A machine whose stdbuf does not do what it says, as with a git that is linked statically.
    write_program(&programs.join("stdbuf"), "shift; exec \"$@\"");
    let program = Some(world.git.program().to_owned());
    let options = GitOptions { program, search_path: programs.into(), ..GitOptions::default() };
    let repository = Repository::open(&Git::find(options).unwrap(), world.repository.path()).unwrap();
    let nowhere = "3333333333333333333333333333333333333333".parse().unwrap();
    assert_eq!(repository.merge(nowhere, theirs).unwrap_err().class(), ErrorClass::Gone);
    assert_eq!(
        repository.merges_kept_open(),
        None,
        "a commit that is not there says nothing about the machine"
    );
    assert_eq!(made(repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap()), wanted);
    assert_eq!(repository.merges_kept_open(), Some(false));
}

/// A repository with a git that does this before each merge, and that has so long for the merges of a candidate.
fn merging_slowly(world: &World, before: &str, merge_deadline: Duration) -> Repository {
    let program = world.folder.path().join("slow");
    let real = world.git.program().display();
    let body =
        format!("PATH=/usr/bin:/bin\ncase \"$*\" in *merge-tree*) {before};; esac\nexec {real} \"$@\"");
    write_program(&program, &body);
    let search_path = "/nonexistent".into();
    let options = GitOptions { program: Some(program), search_path, merge_deadline, ..GitOptions::default() };
    Repository::open(&Git::find(options).unwrap(), world.repository.path()).unwrap()
}

#[test]
fn a_merge_that_does_not_end_is_told_as_that() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let repository = merging_slowly(&world, "exec sleep 1000", Duration::from_millis(200));
    for strategy in STRATEGIES {
        let error = repository.make_candidate(&spec(ours, theirs, strategy)).unwrap_err();
        assert!(matches!(error, GitError::MergeTooSlow { .. }), "{strategy:?}: {error}");
        assert!(error.to_string().starts_with("git could not merge it within 0.2 s: "), "{error}");
    }
}

#[test]
fn the_merges_of_a_rebase_share_their_time() {
    let world = World::new();
    let (ours, _) = world.fork(("a", "1\n"), ("b", "2\n"));
    let steps: Vec<CommitId> = (0..20).map(|at| world.commit_file("b", &format!("{at}\n"))).collect();
    let theirs = steps[steps.len() - 1];
    world.push(theirs, "topic");
    // None of them takes as long as all have together.
    let repository = merging_slowly(&world, "sleep 0.5", Duration::from_secs(5));
    let error = repository.make_candidate(&spec(ours, theirs, Strategy::Rebase)).unwrap_err();
    assert!(matches!(error, GitError::MergeTooSlow { .. }), "{error}");
    let repository = merging_slowly(&world, "true", Duration::from_secs(600));
    made(repository.make_candidate(&spec(ours, theirs, Strategy::Rebase)).unwrap());
}

#[test]
fn candidates_go_on_after_their_processes_were_killed() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let make = || made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
    let wanted = make();
    for subcommand in ["merge-tree", "update-ref", "cat-file"] {
        // Without its folder, a candidate's ref is git's to write.
        std::fs::remove_dir_all(world.repository.path().join("refs/towpath")).unwrap();
        assert_eq!(make(), wanted);
        std::fs::remove_dir_all(world.repository.path().join("refs/towpath")).unwrap();
        assert_eq!(world.kill_kept_open(subcommand), 1, "{subcommand}");
        assert_eq!(make(), wanted, "{subcommand}");
    }
    world.repository.close_processes();
    assert_eq!(world.kill_kept_open("merge-tree"), 0, "a closed process lives");
    assert_eq!(make(), wanted);
}

#[test]
fn many_threads_share_one_engine() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let wanted = made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Squash)).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let repository = world.repository.clone();
            scope.spawn(move || {
                for _ in 0..10 {
                    assert_eq!(
                        made(repository.make_candidate(&spec(ours, theirs, Strategy::Squash)).unwrap()),
                        wanted
                    );
                }
            });
        }
    });
}

#[test]
fn a_message_is_cut_to_one_line_end_and_refuses_nul() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let mut spec = spec(ours, theirs, Strategy::Squash);
    spec.message = "subject\n\nbody \n\n\n".to_owned();
    let (commit, _) = made(world.repository.make_candidate(&spec).unwrap());
    assert_eq!(world.repository.commit(commit).unwrap().message, "subject\n\nbody\n");
    spec.message = "a\0b".to_owned();
    assert_eq!(world.repository.make_candidate(&spec).unwrap_err().class(), ErrorClass::Invalid);
}

#[test]
fn a_candidate_is_held_also_while_somebody_holds_its_lock_or_has_packed_it() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let (first, second) = (spec(ours, theirs, Strategy::Merge), spec(ours, theirs, Strategy::Squash));
    let held = |spec: &CandidateSpec| world.repository.ref_target(&RefName::candidate(&spec.id())).unwrap();
    let commit = made(world.repository.make_candidate(&first).unwrap()).0;
    world.in_store(&["pack-refs", "--all", "--prune"], b"");
    assert_eq!(held(&first), Some(commit.into()));
    assert_eq!(made(world.repository.make_candidate(&first).unwrap()).0, commit);
    world.repository.release_candidate(&first).unwrap();
    assert_eq!(held(&first), None);

    let lock = world.repository.path().join(format!("{}.lock", RefName::candidate(&second.id())));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "").unwrap();
    let error = world.repository.make_candidate(&second).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    world.repository.clear_leftovers().unwrap();
    let commit = made(world.repository.make_candidate(&second).unwrap()).0;
    assert_eq!(held(&second), Some(commit.into()));
}

#[test]
fn a_released_candidate_is_not_held_any_more() {
    let world = World::new();
    let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
    let spec = spec(ours, theirs, Strategy::Merge);
    made(world.repository.make_candidate(&spec).unwrap());
    world.repository.release_candidate(&spec).unwrap();
    world.repository.release_candidate(&spec).unwrap();
    assert_eq!(world.repository.refs("refs/towpath").unwrap(), []);
}

#[test]
fn a_candidate_that_a_power_cut_left_in_pieces_is_made_again() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, theirs) = world.fork(("a/x", "1\n"), ("b/y", "2\n"));
        let (merge, squash) = (spec(ours, theirs, Strategy::Merge), spec(ours, theirs, Strategy::Squash));
        let (commit, tree) = made(world.repository.make_candidate(&merge).unwrap());
        let (other, _) = made(world.repository.make_candidate(&squash).unwrap());
        assert_eq!(world.repository.mend().unwrap(), Mended::default());
        // The tree is cut to nothing, one commit holds another's bytes, the other one is whole.
        let file = |id: &str| world.repository.path().join("objects").join(&id[..2]).join(&id[2..]);
        let (commit_file, other_file) = (file(&commit.to_string()), file(&other.to_string()));
        for file in [&file(&tree.to_string()), &commit_file] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        std::fs::write(file(&tree.to_string()), "").unwrap();
        std::fs::write(world.repository.path().join("refs/towpath/candidates").join("ab".repeat(20)), "")
            .unwrap();
        std::fs::copy(other_file, commit_file).unwrap();
        let mended = world.repository.mend().unwrap();
        assert_eq!((mended.objects, mended.candidates), (2, 3));
        assert_eq!(world.repository.refs("refs/towpath").unwrap(), []);
        assert_eq!(made(world.repository.make_candidate(&merge).unwrap()), (commit, tree));
        world.in_store(&["fsck", "--full", "--strict"], b"");
    }
}

#[test]
fn what_the_server_made_for_itself_is_new_to_whoever_pushes_it() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, theirs) = world.fork(("a", "1\n"), ("b", "2\n"));
        let new = |tip: CommitId| -> Vec<CommitId> {
            let commits = world.repository.new_commits(&[tip], 10).unwrap();
            commits.into_iter().map(|commit| commit.id).collect()
        };
        let name = |name: &str| name.parse::<RefName>().unwrap();
        let hold = |at: &str, commit: CommitId| {
            let (expected, target) = (Expected::Anything, Some(commit.into()));
            let update = RefUpdate { name: name(at), expected, target };
            assert_eq!(world.repository.ref_transaction(&[update]).unwrap(), Transaction::Done);
        };
        hold("refs/heads/ours", ours);
        hold("refs/changes/1/1", theirs);
        assert!(new(theirs).is_empty(), "a revision was pushed");
        for strategy in STRATEGIES {
            let (made, _) = made(world.repository.make_candidate(&spec(ours, theirs, strategy)).unwrap());
            assert_eq!(new(made), [made], "{strategy:?}");
            for own in ["refs/changes/1/meta", "refs/notes/towpath", "refs/towpath/pushes"] {
                hold(own, made);
                assert_eq!(new(made), [made], "{own}");
            }
        }
        let (made, _) = made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Squash)).unwrap());
        hold("refs/heads/ours", made);
        assert!(new(made).is_empty(), "it landed");
    }
}

#[test]
fn what_a_side_of_a_merge_has_lost_is_named() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, _) = world.fork(("folder/a", "1\n"), ("folder/b", "2\n"));
        let theirs = world.commit_file("folder/b", "3\n");
        world.push(theirs, "topic");
        let range = Range { from: ours, to: theirs };
        for (part, is_of_history) in [("", true), ("~1", true), ("^{tree}", false), (":folder", false)] {
            let id: ObjectId = world.run(&["rev-parse", &format!("{theirs}{part}")]).parse().unwrap();
            let hex = id.to_string();
            let file = world.repository.path().join("objects").join(&hex[..2]).join(&hex[2..]);
            let whole = std::fs::read(&file).unwrap();
            let mut spoilt = whole.clone();
            spoilt[whole.len() / 2..].iter_mut().for_each(|byte| *byte ^= 0x55);
            for left in [Some(spoilt), Some(Vec::new()), None] {
                std::fs::remove_file(&file).unwrap();
                left.iter().for_each(|bytes| std::fs::write(&file, bytes).unwrap());
                world.repository.close_processes();
                let names = |error: GitError| match error {
                    GitError::Missing { id: told } => told == id && left.is_none(),
                    GitError::Damaged { id: told } => told == id,
                    _ => panic!("{part}: {error}"),
                };
                for strategy in STRATEGIES {
                    let made = world.repository.make_candidate(&spec(ours, theirs, strategy));
                    assert!(names(made.expect_err(part)), "{part} {strategy:?}");
                }
                let walks = [
                    world.repository.commits_between(range, Walk::All, 10).err(),
                    world.repository.merge_base(ours, theirs).err(),
                    world.repository.is_ancestor(ours, theirs).err(),
                ];
                for error in walks {
                    assert!(error.map_or(!is_of_history, |error| is_of_history && names(error)), "{part}");
                }
                // What one side has lost says nothing of what the other one contains.
                match world.repository.is_ancestor(theirs, ours) {
                    Ok(contained) => assert!(!contained),
                    Err(error) => assert!(part.is_empty() && left.is_none() && names(error), "{part}"),
                }
            }
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, whole).unwrap();
        }
        made(world.repository.make_candidate(&spec(ours, theirs, Strategy::Merge)).unwrap());
    }
}
