//! Repositories as files of a backup, and back.

use towpath_core::candidate::Strategy;
use towpath_git::{CandidateOutcome, GitError, RefName, Repository};

use crate::support::{World, branch, every_git, spec};

#[test]
fn a_repository_comes_back_whole_with_its_hidden_refs() {
    for git in every_git() {
        let world = World::with(git);
        let (ours, theirs) = world.fork(("a", "1"), ("b", "2"));
        let spec = spec(ours, theirs, Strategy::Merge);
        let CandidateOutcome::Made { commit, .. } = world.repository.make_candidate(&spec).unwrap() else {
            panic!()
        };
        world.in_store(&["symbolic-ref", "HEAD", "refs/heads/other"], b"");
        let (saved, back) = (world.folder.path().join("saved"), world.folder.path().join("back.git"));
        // What is let go of while the backup is made is held by a pin; a commit that is gone already is no trouble.
        world.repository.pin(&[commit, "2222222222222222222222222222222222222222".parse().unwrap()]).unwrap();
        world.repository.release_candidate(&spec).unwrap();
        world.repository.save(&saved).unwrap();
        world.repository.unpin().unwrap();
        assert_eq!(world.repository.refs("refs/towpath").unwrap(), []);

        let restored = Repository::restore(&world.git, &saved, &back).unwrap();
        assert!(restored.has_commit(commit).unwrap());
        assert_eq!(restored.all_refs().unwrap(), world.repository.all_refs().unwrap());
        assert_eq!(restored.branch_tip(&branch("main")).unwrap(), Some(ours));
        assert_eq!(restored.head().unwrap(), Some(branch("other")));
        // It is one of ours: landing works as before.
        restored.make_candidate(&spec).unwrap();
        assert_eq!(restored.ref_target(&RefName::candidate(&spec.id())).unwrap(), Some(commit.into()));
        restored.advance(&branch("main"), ours, commit).unwrap();
        assert!(matches!(Repository::restore(&world.git, &saved, &back), Err(GitError::Exists { .. })));
    }
}

#[test]
fn of_saved_settings_only_what_an_import_decided_comes_back() {
    for git in every_git() {
        let world = World::with(git);
        let commit = world.commit_file("a", "1");
        world.push(commit, "main");
        world.in_store(&["config", "receive.fsck.badFilemode", "ignore"], b"");
        let (saved, back) = (world.folder.path().join("saved"), world.folder.path().join("back.git"));
        world.repository.save(&saved).unwrap();
        // Somebody who can write to the backup, and keeps its sums right.
        let ran = world.folder.path().join("ran");
        let planted = format!(
            "[include]\n\tpath = {saved}/more\n[transfer]\n\thideRefs = !refs/towpath\n[uploadpack]\n\tallowAnySHA1InWant = true\n\
             [core]\n\trepositoryformatversion = 1\n\talternateRefsCommand = \"touch {ran};\"\n\
             [extensions]\n\tpartialClone = evil\n[remote \"evil\"]\n\tpromisor = true\n\turl = {store}\n\
             \tuploadpack = \"touch {ran}; git-upload-pack\"\n\
             [receive \"fsck\"]\n\tzeroPaddedFilemode = ignore\n\tmissingEmail = error\n",
            saved = saved.display(),
            ran = ran.display(),
            store = world.repository.path().display(),
        );
        let config = std::fs::read_to_string(saved.join("config")).unwrap() + &planted;
        std::fs::write(saved.join("config"), config).unwrap();
        std::fs::write(saved.join("more"), "[transfer]\n\tfsckObjects = false\n").unwrap();
        // A pack with a commit and nothing that it names, so that git asks whoever promised the rest.
        let packs = world.folder.path().join("alone").display().to_string();
        let id = world.in_store(&["pack-objects", "--quiet", &packs], format!("{commit}\n").as_bytes());
        let pack = std::fs::read(format!("{packs}-{id}.pack")).unwrap();
        let bundle = [format!("# v2 git bundle\n{commit} refs/heads/main\n\n").as_bytes(), &pack].concat();
        let whole = std::fs::read(saved.join("objects.bundle")).unwrap();
        std::fs::remove_file(saved.join("SHA1SUMS")).unwrap();
        std::fs::write(saved.join("objects.bundle"), bundle).unwrap();
        assert!(Repository::restore(&world.git, &saved, &back).is_err());
        std::fs::write(saved.join("objects.bundle"), whole).unwrap();
        let restored = Repository::restore(&world.git, &saved, &back).unwrap();
        assert!(!ran.exists());
        assert!(restored.tolerates("badFilemode").unwrap());
        let text = std::fs::read_to_string(restored.path().join("config")).unwrap();
        let own = std::fs::read_to_string(world.repository.path().join("config")).unwrap();
        let settings = |text: &str| {
            text.lines().filter(|line| line.contains('=')).map(str::to_lowercase).collect::<Vec<_>>()
        };
        let added: Vec<String> =
            settings(&text).into_iter().filter(|line| !settings(&own).contains(line)).collect();
        assert_eq!(added, ["\tzeropaddedfilemode = ignore"; 2]);
        std::fs::write(saved.join("HEAD"), "ref: ../../x\n").unwrap();
        let error =
            Repository::restore(&world.git, &saved, &world.folder.path().join("other.git")).unwrap_err();
        assert!(error.to_string().contains("`HEAD` names no branch"), "{error}");
    }
}

#[test]
fn an_empty_repository_and_a_damaged_bundle_are_told_apart() {
    let world = World::new();
    let (saved, back) = (world.folder.path().join("saved"), world.folder.path().join("back.git"));
    world.repository.save(&saved).unwrap();
    let restored = Repository::restore(&world.git, &saved, &back).unwrap();
    assert_eq!(restored.all_refs().unwrap(), []);
    std::fs::write(saved.join("objects.bundle"), "no bundle").unwrap();
    let elsewhere = world.folder.path().join("elsewhere.git");
    let error = Repository::restore(&world.git, &saved, &elsewhere).unwrap_err();
    assert!(matches!(error, GitError::Failed { .. }), "{error}");
    assert!(!elsewhere.exists());
}

#[test]
fn one_bit_less_of_what_was_saved_is_told_whatever_it_is_of() {
    let world = World::new();
    let commit = world.commit_file("a", "1");
    world.push(commit, "main");
    let (saved, back) = (world.folder.path().join("saved"), world.folder.path().join("back.git"));
    world.repository.save(&saved).unwrap();
    for (name, at) in [("objects.bundle", 20), ("objects.bundle", 200), ("config", 9), ("HEAD", 9)] {
        let whole = std::fs::read(saved.join(name)).unwrap();
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1;
        for left in [Some(spoilt), None] {
            match left {
                Some(left) => std::fs::write(saved.join(name), left).unwrap(),
                None => std::fs::remove_file(saved.join(name)).unwrap(),
            }
            let error = Repository::restore(&world.git, &saved, &back).unwrap_err();
            assert!(error.is_of_the_repository() && error.to_string().contains(name), "{error}");
        }
        std::fs::write(saved.join(name), whole).unwrap();
    }
    assert!(!back.exists());
    Repository::restore(&world.git, &saved, &back).unwrap();
}

#[test]
fn who_is_at_fault_where_a_repository_cannot_be_saved_is_seen_by_reading_it() {
    let world = World::new();
    let commit = world.commit_file("a", "1");
    world.push(commit, "main");
    let failed = |why: &str| GitError::Failed {
        call: "bundle",
        status: "exit status: 128".to_owned(),
        stderr: why.to_owned(),
    };
    let elsewhere = world.repository.blamed(failed("fatal: write error: No space left on device"));
    assert!(!elsewhere.is_of_the_repository(), "{elsewhere}");
    // Git names no object here.
    let refs = world.repository.path().join("packed-refs");
    std::fs::write(refs, "no refs\n").unwrap();
    let here = world.repository.blamed(world.repository.save(&world.folder.path().join("x")).unwrap_err());
    assert!(matches!(here, GitError::Unreadable { .. }) && here.is_of_the_repository(), "{here}");
}
