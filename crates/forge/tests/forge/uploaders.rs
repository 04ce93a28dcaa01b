//! Who uploaded a change is who brought its commits, whoever proposes them, in whatever order. Cases of the attack list by
//! their names there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_core::candidate::Strategy;
use towpath_core::cell::RefusalClass;
use towpath_core::effect::Landing;
use towpath_core::gate::{ForgeChange, LandTried, NOBODY, Verdict};
use towpath_core::ids::{CandidateId, CommitId, UserId};
use towpath_forge::{ChangeRecord, Forge, Proposal, PushedBranch, ReviewRequest};
use towpath_git::Git;

use crate::support::{
    ADMIN, ANN, MAINTAINER, OUTSIDER, World, approval, branch, candidate_of, every_git, pushed, scripted, why,
};

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
    ann.fetch("refs/changes/1/1");
    ann.push(&["-o", "change", "FETCH_HEAD:refs/heads/review"]).unwrap();
    assert_eq!(others(&world), [(1, vec![]), (2, vec![OUTSIDER])]);
    assert_eq!(changes(&world)[1].revision.uploader, ANN);
    // Nor does it help that there is no more than that head.
    outsider.run(&["reset", "--quiet", "--hard", &world.main().to_string()]);
    outsider.commit_file("alone", "theirs\n");
    outsider.push(&["-o", "change", "HEAD:refs/heads/alone"]).unwrap();
    ann.fetch("refs/changes/3/1");
    ann.push(&["-o", "change", "FETCH_HEAD:refs/heads/alone"]).unwrap();
    assert_eq!(others(&world)[2..], [(3, vec![]), (4, vec![OUTSIDER])]);
    world.check_sound();
}

/// Git does what it is told and dies with its answer.
#[test]
fn a20_what_a_push_brought_whose_answer_was_lost_is_of_who_pushed_it() {
    let git = every_git().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let lossy = Lossy::of(&git, folder.path());
    let world = World::with(&lossy.git, git.program(), Duration::from_secs(20));
    let outsider = world.clone_of("outsider");
    let theirs = outsider.commit_file("theirs", "theirs\n");
    // What the journal says is known by now.
    world.change("ann", "first");
    lossy.lose_next();
    outsider.push(&["HEAD:refs/heads/theirs"]).unwrap_err();
    assert_eq!(world.ref_of("refs/heads/theirs"), Some(theirs), "it stands all the same");
    let ann = world.clone_of("ann");
    ann.fetch("refs/heads/theirs");
    ann.push(&["-o", "change", "FETCH_HEAD:refs/heads/mine"]).unwrap();
    assert_eq!(others(&world), [(1, vec![]), (2, vec![OUTSIDER])]);
    world.check_sound();
}

/// A git whose word that refs have moved can get lost.
struct Lossy {
    git: Git,
    loses: PathBuf,
}

impl Lossy {
    fn of(git: &Git, folder: &Path) -> Lossy {
        let loses = folder.join("loses");
        let mark = loses.display();
        let answers = format!(
            "while read -r line; do\n\
             if [ \"$line\" = 'commit: ok' ] && [ -e {mark} ]; then /bin/rm {mark}; kill -KILL $$; exit; fi\n\
             echo \"$line\"\ndone"
        );
        Lossy { git: scripted(git, folder, &format!("$git \"$@\" | {answers}")), loses }
    }

    fn lose_next(&self) {
        std::fs::write(&self.loses, "").unwrap();
    }
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
    outsider.fetch("refs/changes/1/1");
    outsider.push(&["-o", "change", "FETCH_HEAD:refs/heads/theirs"]).unwrap();
    assert_eq!(others(&world), [(1, vec![]), (2, vec![ANN])]);
    assert_eq!(changes(&world)[1].revision.uploader, OUTSIDER);
    world.check_sound();
}

#[test]
fn a16_who_opens_a_branch_has_not_uploaded_it() {
    let world = World::new();
    let outsider = world.clone_of("outsider");
    let bait = outsider.commit_file("evil", "evil\n");
    outsider.push(&["HEAD:refs/heads/bait"]).unwrap();
    let open =
        |by, from: &PushedBranch| world.forge.propose_branch(by, from, &Default::default(), world.now());
    let (class, text) = why(open(ANN, &pushed("bait")));
    assert_eq!(class, RefusalClass::Denied, "{text}");
    assert!(text.contains("is outsider's") && text.contains("under another name"), "{text}");
    // Who means another commit of that name opens nothing.
    let other = PushedBranch { seen: Some(world.main()), ..pushed("bait") };
    let (class, text) = why(open(MAINTAINER, &other));
    assert_eq!(class, RefusalClass::Conflict, "{text}");
    assert!(text.contains(&bait.to_string()) && text.contains(&world.main().to_string()), "{text}");
    assert!(changes(&world).is_empty());
    let opened = open(MAINTAINER, &PushedBranch { seen: Some(bait), ..pushed("bait") }).unwrap();
    assert_eq!((opened.owner, opened.newest().uploader), (MAINTAINER, OUTSIDER));
    // A branch of her own is no better for it.
    let ann = world.clone_of("ann");
    ann.fetch("refs/heads/bait");
    ann.push(&["FETCH_HEAD:refs/heads/mine"]).unwrap();
    let opened = open(ANN, &pushed("mine")).unwrap();
    assert_eq!((opened.owner, opened.newest().uploader), (ANN, OUTSIDER));
    world.check_sound();
}

#[test]
fn what_an_import_brought_is_of_who_opens_it() {
    let world = World::new();
    let elsewhere = world.clone_of("reader");
    elsewhere.commit_file("imported", "x\n");
    let from = elsewhere.folder.to_str().unwrap();
    assert!(world.in_store(&["fetch", "--quiet", from, "HEAD:refs/heads/imported"]).status.success());
    for by in [OUTSIDER, ANN] {
        let opened = world.open(by, "imported").unwrap();
        assert_eq!((opened.owner, opened.newest().uploader), (by, by));
    }
    assert_eq!(others(&world), [(1, vec![]), (2, vec![])]);
}

#[test]
fn g02_whoever_opens_the_branch_its_uploader_does_not_approve() {
    let world = World::new();
    let mia = world.clone_of("mia");
    mia.commit_file("big", "big\n");
    mia.push(&["HEAD:refs/heads/big"]).unwrap();
    assert_eq!(why(world.open(ANN, "big")).0, RefusalClass::Denied);
    let change = world.open(ADMIN, "big").unwrap();
    assert_eq!(change.newest().uploader, MAINTAINER);
    let (class, _) = why(world.approve(MAINTAINER, &change));
    assert_eq!(class, RefusalClass::Denied);
    world.approve(ADMIN, &change).unwrap();
}

#[test]
fn g02_nor_does_who_uploaded_what_is_below_the_head() {
    let world = World::new();
    let mia = world.clone_of("mia");
    mia.commit_file("big", "big\n");
    mia.push(&["HEAD:refs/heads/big"]).unwrap();
    let ann = world.clone_of("ann");
    ann.go_to("refs/heads/big");
    ann.commit_file("small", "small\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/small"]).unwrap();
    let change = world.forge.change(world.newest()).unwrap();
    assert_eq!(change.newest().uploader, ANN);
    let (class, text) = why(world.approve(MAINTAINER, &change));
    assert_eq!(class, RefusalClass::Denied, "{text}");
    assert!(text.contains("you uploaded commits of this change"), "{text}");
    let against = ReviewRequest { verdict: Verdict::RequestChanges, ..approval(&change) };
    world.forge.review(MAINTAINER, change.number, &against, world.now()).unwrap();
    world.approve(ADMIN, &change).unwrap();
}

/// A gate asks as long as nothing has landed (A13): what a branch holds before is of whoever put it there.
#[test]
fn a13_a_branch_is_of_who_put_it_where_it_is_and_brought_its_head() {
    let world = World::new();
    let begun_by = |name: &str| world.forge.read(&branch(name), None).unwrap().begun_by;
    assert!(begun_by("main").is_empty(), "it was imported");
    assert!(begun_by("nowhere").is_empty());
    let outsider = world.clone_of("outsider");
    let theirs = outsider.commit_file("evil", "evil\n");
    outsider.push(&["HEAD:refs/heads/later"]).unwrap();
    assert_eq!(begun_by("later"), BTreeSet::from([OUTSIDER]));
    // Somebody else's move of it, an admin's among them, does not make the commit theirs.
    let admin = world.clone_of("ada");
    let own = admin.commit_file("good", "good\n");
    admin.push(&["--force", "HEAD:refs/heads/later"]).unwrap();
    assert_eq!(begun_by("later"), BTreeSet::from([ADMIN]));
    admin.push(&["--force", &format!("{}:refs/heads/later", world.main())]).unwrap();
    assert_eq!(begun_by("later"), BTreeSet::from([ADMIN]));
    admin.run(&["fetch", "--quiet", outsider.folder.to_str().unwrap(), "HEAD"]);
    admin.push(&["--force", &format!("{theirs}:refs/heads/later")]).unwrap();
    assert_eq!(begun_by("later"), BTreeSet::from([ADMIN, OUTSIDER]));
    // Nor is a branch an admin's because its commit is.
    outsider.run(&["fetch", "--quiet", admin.folder.to_str().unwrap(), "HEAD"]);
    outsider.push(&[&format!("{own}:refs/heads/next")]).unwrap();
    assert_eq!(begun_by("next"), BTreeSet::from([ADMIN, OUTSIDER]));
    // So it is where a change moves it along, and read back from the repository.
    let moved = outsider.commit_file("mine", "mine\n");
    outsider.push(&["--force", "-o", "change", "HEAD:refs/heads/next"]).unwrap();
    assert_eq!(begun_by("next"), BTreeSet::from([OUTSIDER]), "{moved}");
    assert!(world.forge.read(&branch("next"), Some(moved)).unwrap().begun_by.is_empty());
    world.check_sound();
}

#[test]
fn a20_what_the_server_made_of_a_change_is_of_whoever_pushes_it() {
    for strategy in [Strategy::Squash, Strategy::Rebase, Strategy::Merge] {
        for git in every_git() {
            let world = World::with(&git, git.program(), Duration::from_secs(20));
            let (outsider, change) = world.change("outsider", "lib");
            // The base of what is rebased has to be another one, or it stays what it is.
            world.advance_main();
            let made = candidate_of(&world, &change, strategy);
            outsider.fetch(&made.to_string());
            outsider.push(&[&format!("{made}:refs/heads/lib")]).unwrap();
            let ann = world.clone_of("ann");
            ann.go_to("refs/heads/lib");
            ann.commit_file("mine", "mine\n");
            ann.push(&["-o", "change", "HEAD:refs/heads/mine"]).unwrap();
            assert_eq!(others(&world), [(1, vec![]), (2, vec![OUTSIDER])], "{strategy:?}");
            world.check_sound();
        }
    }
}

#[test]
fn g02_nor_is_the_candidate_of_a_change_of_who_opens_it() {
    let world = World::new();
    let (mia, change) = world.change("mia", "mine");
    let made = candidate_of(&world, &change, Strategy::Squash);
    mia.fetch(&made.to_string());
    mia.push(&[&format!("{made}:refs/heads/big")]).unwrap();
    let opened = world.open(ADMIN, "big").unwrap();
    assert_eq!((opened.owner, opened.newest().uploader), (ADMIN, MAINTAINER));
    let (class, _) = why(world.approve(MAINTAINER, &opened));
    assert_eq!(class, RefusalClass::Denied);
}

/// Lands what the server has made of a change on main, where that is at `from`.
fn land_from(world: &World, change: &ChangeRecord, from: CommitId, to: CommitId) -> LandTried {
    let (repo, branch, candidate) = (world.forge.name().clone(), branch("main"), CandidateId([7; 20]));
    let (change, revision) = (change.number, change.newest().commit);
    let landing = Landing { repo, branch, change, revision, came_at: None, candidate, from, to };
    world.forge.land(&landing).unwrap()
}

fn land(world: &World, change: &ChangeRecord, made: CommitId) -> LandTried {
    land_from(world, change, world.main(), made)
}

/// Everybody who has a part in what the newest change would bring to the other branch.
fn parts_in_newest(world: &World) -> BTreeSet<UserId> {
    let read = world.forge.read(&branch("release"), None).unwrap();
    let newest = read.changes.into_iter().max_by_key(|change| change.number).unwrap();
    newest.revision.uploaders().collect()
}

fn entries(world: &World) -> String {
    let counted = world.in_store(&["rev-list", "--count", "refs/towpath/pushes"]);
    String::from_utf8(counted.stdout).unwrap().trim().to_owned()
}

/// A change of mia's commit and one of ann's on top of it.
fn of_two(world: &World) -> ChangeRecord {
    let mia = world.clone_of("mia");
    mia.commit_file("big", "big\n");
    mia.push(&["HEAD:refs/heads/big"]).unwrap();
    let ann = world.clone_of("ann");
    ann.run(&["fetch", "--quiet", &ann.url, "refs/heads/big"]);
    ann.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    ann.commit_file("small", "small\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/small"]).unwrap();
    world.forge.change(world.newest()).unwrap()
}

#[test]
fn g02_what_landed_on_one_branch_is_still_of_who_uploaded_it_on_the_way_to_the_next() {
    for strategy in [Strategy::Squash, Strategy::Rebase, Strategy::Merge] {
        let world = World::new();
        let change = of_two(&world);
        world.advance_main();
        let made = candidate_of(&world, &change, strategy);
        assert_eq!(land(&world, &change, made), LandTried::Landed);
        let to_release = Proposal { target: Some(branch("release")), ..Proposal::default() };
        let open = world.forge.propose_branch(ADMIN, &pushed("main"), &to_release, world.now());
        let opened = open.unwrap();
        // Also as read back from the repository.
        for _ in 0..2 {
            let parts = parts_in_newest(&world);
            assert!(parts.is_superset(&BTreeSet::from([ANN, MAINTAINER])), "{strategy:?}: {parts:?}");
            let approve = world.forge.review(MAINTAINER, opened.number, &approval(&opened), world.now());
            assert_eq!(why(approve).0, RefusalClass::Denied, "{strategy:?}");
            world.forge.rebuild().unwrap();
        }
        // A branch that begins there is of who made it: what landed was reviewed.
        let ada = world.clone_of("ada");
        ada.push(&["HEAD:refs/heads/next"]).unwrap();
        let begun_by = world.forge.read(&branch("next"), None).unwrap().begun_by;
        assert_eq!(begun_by, BTreeSet::from([ADMIN]), "{strategy:?}");
        world.check_sound();
    }
}

#[test]
fn who_uploaded_what_lands_is_written_down_once_before_its_branch_moves() {
    let world = World::new();
    let change = of_two(&world);
    let made = candidate_of(&world, &change, Strategy::Squash);
    let before = entries(&world);
    // The branch has moved on: nothing lands, however often it is tried.
    let from = world.main();
    let tip = world.advance_main();
    for _ in 0..2 {
        assert_eq!(land_from(&world, &change, from, made), LandTried::Moved { tip: Some(tip) });
        let once = (before.parse::<u64>().unwrap() + 1).to_string();
        assert_eq!(entries(&world), once);
        world.forge.rebuild().unwrap();
    }
    // A merge brings the change's own commits along, and says nothing of its own.
    let merged = candidate_of(&world, &change, Strategy::Merge);
    let before = entries(&world);
    assert_eq!(land(&world, &change, merged), LandTried::Landed);
    assert_eq!(entries(&world), before);
}

#[test]
fn g02_nor_is_what_lands_of_who_had_pushed_the_same_commit_before() {
    let world = World::new();
    let (_, change) = world.change("mia", "lib");
    let made = candidate_of(&world, &change, Strategy::Squash);
    let ann = world.clone_of("ann");
    ann.run(&["fetch", "--quiet", &ann.url, &made.to_string()]);
    ann.push(&["-o", "change", "-o", "target=release", &format!("{made}:refs/heads/mine")]).unwrap();
    assert_eq!(parts_in_newest(&world), BTreeSet::from([ANN]));
    assert_eq!(land(&world, &change, made), LandTried::Landed);
    assert_eq!(parts_in_newest(&world), BTreeSet::from([ANN, MAINTAINER]));
}

#[test]
fn g02_nor_is_a_change_of_many_commits_for_who_uploaded_some_to_approve() {
    let world = World::new();
    let mia = world.clone_of("mia");
    mia.commit_many(2_001);
    mia.push(&["HEAD:refs/heads/many"]).unwrap();
    let ann = world.clone_of("ann");
    ann.go_to("refs/heads/many");
    ann.commit_file("mine", "mine\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/mine"]).unwrap();
    assert_eq!(others(&world), [(1, vec![MAINTAINER])]);
    let change = world.forge.change(world.newest()).unwrap();
    let (class, _) = why(world.approve(MAINTAINER, &change));
    assert_eq!(class, RefusalClass::Denied);
    world.approve(ADMIN, &change).unwrap();
}

#[test]
fn g02_of_too_many_commits_to_look_for_nobody_approves_any() {
    let world = World::new();
    let main = world.main();
    let elsewhere = world.clone_of("reader");
    let many = elsewhere.commit_many(100_001);
    let from = elsewhere.folder.to_str().unwrap();
    assert!(world.in_store(&["fetch", "--quiet", from, "HEAD:refs/heads/many"]).status.success());
    let (class, text) = why(world.open(ADMIN, "many"));
    assert_eq!(class, RefusalClass::Invalid);
    assert!(text.contains("more than 100000 commits") && text.contains("propose an earlier one"), "{text}");
    // A target that went back leaves a change that was small before.
    let move_main = |to: CommitId| {
        assert!(world.in_store(&["update-ref", "refs/heads/main", &to.to_string()]).status.success());
    };
    move_main(many);
    let (_, change) = world.change("ann", "small");
    assert_eq!(others(&world), [(1, vec![])]);
    move_main(main);
    assert_eq!(others(&world), [(1, vec![NOBODY])]);
    for by in [MAINTAINER, ADMIN] {
        let (class, text) = why(world.approve(by, &change));
        assert_eq!(class, RefusalClass::Denied);
        assert!(text.contains("too many to find out who uploaded them"), "{text}");
    }
}
