//! Reviews, labels, words and states, each with its right. Cases G of the attack list by their names.

use towpath_core::cell::RefusalClass;
use towpath_core::gate::{Labels, Verdict};
use towpath_core::ids::ChangeNumber;
use towpath_forge::{ChangeState, ChangeText, Draft, Forge, LabelEdit, ReviewRequest};

use crate::support::{
    ADMIN, ANN, BOB, MAINTAINER, OUTSIDER, READER, STRANGER, World, approval, branch, policy, why,
};

fn labels(add: &[&str], remove: &[&str]) -> LabelEdit {
    let owned = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    LabelEdit { add: owned(add), remove: owned(remove) }
}

#[test]
fn g01_approve_then_push() {
    let world = World::new();
    let (ann, seen) = world.change("ann", "topic");
    ann.commit_file("topic", "other\n");
    ann.push(&["-o", "change", "HEAD:refs/heads/topic"]).unwrap();
    let (class, text) = why(world.approve(MAINTAINER, &seen));
    assert_eq!(class, RefusalClass::Conflict);
    assert!(text.contains(&ann.head().to_string()), "{text}");
    let now = world.forge.change(seen.number).unwrap();
    assert!(now.reviews.is_empty());
    world.approve(MAINTAINER, &now).unwrap();
    let snapshot = world.forge.read(&branch("main"), None).unwrap();
    let review = &snapshot.changes[0].reviews[0];
    assert_eq!((review.by, review.revision, review.verdict), (MAINTAINER, ann.head(), Verdict::Approve));
}

#[test]
fn g02_self_approve() {
    let world = World::new();
    let (mia, change) = world.change("mia", "topic");
    let (class, _) = why(world.approve(MAINTAINER, &change));
    assert_eq!(class, RefusalClass::Denied);
    // Neither does it help to push onto somebody else's change first.
    let (_, anns) = world.change("ann", "other");
    mia.commit_file("more", "more\n");
    mia.push(&["-o", &format!("change={}", anns.number), "HEAD:refs/heads/x"]).unwrap();
    let anns = world.forge.change(anns.number).unwrap();
    assert_eq!(anns.newest().uploader, MAINTAINER);
    let (class, _) = why(world.approve(MAINTAINER, &anns));
    assert_eq!(class, RefusalClass::Denied);
    let (class, _) = why(world.approve(ANN, &anns));
    assert_eq!(class, RefusalClass::Denied, "an author's approval takes a maintainer");
    world.approve(ADMIN, &anns).unwrap();
}

#[test]
fn g03_retarget_after_approval() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    world.approve(MAINTAINER, &change).unwrap();
    world.retarget(ANN, change.number, "release").unwrap();
    assert!(world.forge.read(&branch("main"), None).unwrap().changes.is_empty());
    let snapshot = world.forge.read(&branch("release"), None).unwrap();
    let review = &snapshot.changes[0].reviews[0];
    assert_eq!(
        review.target,
        branch("main"),
        "the approval names the target that it was given for, and counts for no other"
    );
    let stale = ReviewRequest { target: branch("main"), ..approval(&change) };
    assert_eq!(why(world.forge.review(ADMIN, change.number, &stale, world.now())).0, RefusalClass::Conflict);
    let (class, text) = why(world.retarget(ANN, change.number, "nowhere"));
    assert_eq!((class, text.contains("no watched branch")), (RefusalClass::Invalid, true));
}

#[test]
fn words_that_change_after_an_approval_void_it() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    world.approve(MAINTAINER, &change).unwrap();
    let words = ChangeText { title: "Something else".into(), body: "Entirely.".into() };
    let edited = world.forge.edit_text(ANN, change.number, &words, world.now()).unwrap();
    assert_ne!(edited.reviews[0].review.message, edited.message());
    assert_eq!(why(world.approve(ADMIN, &change)).0, RefusalClass::Conflict);
    let hostile = ChangeText { title: "a\u{202e}b".into(), body: String::new() };
    assert_eq!(
        why(world.forge.edit_text(ANN, change.number, &hostile, world.now())).0,
        RefusalClass::Invalid
    );
}

#[test]
fn g06_revoked_approver() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    world.approve(MAINTAINER, &change).unwrap();
    world.memory.expel(MAINTAINER);
    let snapshot = world.forge.read(&branch("main"), None).unwrap();
    assert_eq!(snapshot.changes[0].reviews.len(), 1);
    assert!(
        !snapshot.people.contains_key(&MAINTAINER),
        "the gate counts an approval by what its giver may do now"
    );
    assert_eq!(why(world.approve(MAINTAINER, &change)).0, RefusalClass::NotFound);
}

#[test]
fn g08_label_by_stranger() {
    let world = World::new();
    let (ann, change) = world.change("ann", "topic");
    let number = change.number;
    world.forge.label(ANN, number, &labels(&["WIP", "do-not-test"], &[]), world.now()).unwrap();
    for edit in [
        labels(&["prio:high"], &[]),
        labels(&["rerun all tests"], &[]),
        labels(&[], &["WIP"]),
        labels(&[], &["do-not-test"]),
        labels(&["harmless"], &[]),
    ] {
        assert_eq!(
            why(world.forge.label(OUTSIDER, number, &edit, world.now())).0,
            RefusalClass::Denied,
            "{edit:?}"
        );
        assert_eq!(
            why(world.forge.label(READER, number, &edit, world.now())).0,
            RefusalClass::Denied,
            "{edit:?}"
        );
        assert_eq!(
            why(world.forge.label(STRANGER, number, &edit, world.now())).0,
            RefusalClass::NotFound,
            "{edit:?}"
        );
    }
    // Not even the owner makes her change urgent, by hand or by push.
    assert_eq!(
        why(world.forge.label(ANN, number, &labels(&["prio:high"], &[]), world.now())).0,
        RefusalClass::Denied
    );
    ann.commit_file("more", "more\n");
    let refused = ann.push(&["-o", "change", "-o", "label=prio:high", "HEAD:refs/heads/topic"]).unwrap_err();
    assert!(refused.contains("takes the role maintainer"), "{refused}");
    assert_eq!(world.forge.change(number).unwrap().revisions.len(), 1, "nothing of a refused push is done");
    let after =
        world.forge.label(MAINTAINER, number, &labels(&["prio:high"], &["WIP"]), world.now()).unwrap();
    assert_eq!(after.labels.iter().collect::<Vec<_>>(), ["do-not-test", "prio:high"]);
    // All or none.
    assert!(world.forge.label(ANN, number, &labels(&["fine", "a,b"], &[]), world.now()).is_err());
    assert!(!world.forge.change(number).unwrap().labels.contains("fine"));
}

/// A label means on another branch what it meant where somebody put it on, whatever it is called there.
#[test]
fn g08_a_label_is_not_left_behind() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    let mut policy = policy();
    policy.watched.insert(branch("release"), Labels { never: "frozen".into(), ..Labels::default() });
    world.memory.set_policy(policy);
    world.forge.label(MAINTAINER, number, &labels(&["DO_NOT_MERGE", "ui"], &[]), world.now()).unwrap();
    let moved = |to: &str| {
        let moved = world.retarget(ANN, number, to).unwrap();
        Vec::from_iter(moved.labels).join(" ")
    };
    assert_eq!(moved("release"), "frozen ui");
    let refused = why(world.forge.label(ANN, number, &labels(&[], &["frozen"]), world.now()));
    assert_eq!(refused.0, RefusalClass::Denied);
    let acts = world.memory.acts();
    let said = &acts.last().unwrap().what;
    assert!(said.contains(r#"its labels are called ["frozen", "ui"]"#), "{said}");
    assert_eq!(moved("main"), "DO_NOT_MERGE ui");
    // What a maintainer has taken off does not come back by a move.
    moved("release");
    world.forge.label(MAINTAINER, number, &labels(&[], &["frozen"]), world.now()).unwrap();
    assert_eq!(moved("main"), "ui");
}

#[test]
fn states_are_the_owners_and_the_maintainers() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    for person in [BOB, OUTSIDER, READER] {
        assert_eq!(why(world.forge.close(person, number, world.now())).0, RefusalClass::Denied);
        assert_eq!(
            why(world.forge.set_draft(person, number, Draft::Yes, world.now())).0,
            RefusalClass::Denied
        );
    }
    assert_eq!(why(world.forge.close(STRANGER, number, world.now())).0, RefusalClass::NotFound);
    assert_eq!(why(world.forge.close(ANN, ChangeNumber(99), world.now())).0, RefusalClass::NotFound);
    assert!(world.forge.set_draft(ANN, number, Draft::Yes, world.now()).unwrap().draft);
    assert!(!world.forge.set_draft(MAINTAINER, number, Draft::No, world.now()).unwrap().draft);
    let closed = world.forge.close(MAINTAINER, number, world.now()).unwrap();
    assert_eq!(closed.state, ChangeState::Closed { by: MAINTAINER });
    assert!(world.forge.read(&branch("main"), None).unwrap().changes.is_empty());
    assert_eq!(why(world.forge.close(ANN, number, world.now())).0, RefusalClass::Conflict);
    assert_eq!(why(world.approve(MAINTAINER, &change)).0, RefusalClass::Conflict);
    assert!(world.forge.reopen(ANN, number, world.now()).unwrap().is_open());
    assert_eq!(why(world.forge.reopen(ANN, number, world.now())).0, RefusalClass::Conflict);
}

#[test]
fn people_talk_and_take_reviews_back() {
    let world = World::new();
    let (_, change) = world.change("ann", "topic");
    let number = change.number;
    world.forge.comment(OUTSIDER, number, "Why?\r\nReally.\u{1b}[31m", world.now()).unwrap();
    let said = world.forge.comment(ANN, number, "Because.", world.now()).unwrap().comments;
    assert_eq!((said[0].text.as_str(), said[1].number), ("Why?\nReally.?[31m", 2));
    assert_eq!(why(world.forge.comment(READER, number, "x", world.now())).0, RefusalClass::Denied);
    assert_eq!(why(world.forge.comment(ANN, number, "  ", world.now())).0, RefusalClass::Invalid);
    assert_eq!(
        why(world.forge.comment(ANN, number, &"x".repeat(20_000), world.now())).0,
        RefusalClass::Invalid
    );

    let against = ReviewRequest { verdict: Verdict::RequestChanges, text: "No.".into(), ..approval(&change) };
    world.forge.review(MAINTAINER, number, &against, world.now()).unwrap();
    let both = world.approve(MAINTAINER, &change).unwrap();
    assert_eq!(both.reviews.len(), 1, "the newer review takes the place of the older");
    assert!(world.forge.withdraw_review(MAINTAINER, number, world.now()).unwrap().reviews.is_empty());
    assert_eq!(why(world.forge.withdraw_review(MAINTAINER, number, world.now())).0, RefusalClass::NotFound);
}

#[test]
fn nobody_gets_two_open_changes_of_one_change_id_by_moving_one() {
    let world = World::new();
    let ann = world.clone_of("ann");
    ann.commit(&format!("Add a\n\nChange-Id: I{}", "a".repeat(40)));
    ann.push(&["HEAD:refs/for/main"]).unwrap();
    ann.push(&["HEAD:refs/for/release"]).unwrap();
    let [one, two] = [ChangeNumber(1), ChangeNumber(2)];
    let (class, text) = why(world.retarget(ANN, two, "main"));
    assert_eq!(class, RefusalClass::Conflict);
    assert!(text.contains("`towpath change close 1` first"), "{text}");
    world.forge.close(ANN, one, world.now()).unwrap();
    world.retarget(ANN, two, "main").unwrap();
    let (class, text) = why(world.forge.reopen(MAINTAINER, one, world.now()));
    assert_eq!(class, RefusalClass::Conflict);
    assert!(text.contains("change 2 of ann"), "{text}");
    world.forge.close(ANN, two, world.now()).unwrap();
    assert!(world.forge.reopen(ANN, one, world.now()).unwrap().is_open());
}
