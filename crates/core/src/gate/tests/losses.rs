//! A branch that somebody else moves: foreign pushes, lost landings, and the freeze that follows them.

use super::*;

#[test]
fn g09_a_foreign_push_resets_the_queue_and_is_kept() {
    check(
        "push 1; pass 1; foreign; approve 1; why 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        foreign
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
        approve 1
          run 2: Queue of 1 (merge candidate)
        why 1
          run demo/main/2 is not over
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
    "#]],
    );
}

#[test]
fn an_unfreeze_gives_a_lost_landing_up_for_good() {
    check_after(
        "approvals 0; push 1; pass 1",
        "rewind; accept; unfreeze; push 2; pass 3; rewind",
        expect![[r#"
            rewind
              foreign push
              froze: the branch no longer contains the commit that was landed last
              alert: somebody else pushed 0101010101010101010101010101010101010101 to demo/main
              alert: demo/main is frozen: the branch no longer contains the commit that was landed last
            accept
              answer Ok("accepted the foreign push of 0101010101010101010101010101010101010101 to demo/main")
            unfreeze
              answer Ok("unfroze demo/main at 0101010101010101010101010101010101010101, without 0180808080808080808080808080808080808080")
            push 2
              run 3: Change of 2 (initial run)
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
            rewind
              foreign push
              froze: the branch no longer contains the commit that was landed last
              alert: somebody else pushed 0101010101010101010101010101010101010101 to demo/main
              alert: demo/main is frozen: the branch no longer contains the commit that was landed last
        "#]],
    );
}

#[test]
fn what_is_lost_further_after_an_unfreeze_freezes_again_and_is_not_deployed() {
    check_after(
        "approvals 0; push 1; pass 1; push 2; pass 3",
        "rewind; accept; unfreeze; pass 2; foreign; rewind; rewind",
        expect![[r#"
            rewind
              foreign push
              froze: the branch no longer contains the commit that was landed last
              alert: somebody else pushed 0180808080808080808080808080808080808080 to demo/main
              alert: demo/main is frozen: the branch no longer contains the commit that was landed last
            accept
              answer Ok("accepted the foreign push of 0180808080808080808080808080808080808080 to demo/main")
            unfreeze
              answer Ok("unfroze demo/main at 0180808080808080808080808080808080808080, without 01c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9")
            pass 2
            foreign
              foreign push
              alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
            rewind
              foreign push
              alert: somebody else pushed 0180808080808080808080808080808080808080 to demo/main
            rewind
              foreign push
              froze: the branch no longer contains 018080808080, at which it was unfrozen after such a loss
              alert: somebody else pushed 0101010101010101010101010101010101010101 to demo/main
              alert: demo/main is frozen: the branch no longer contains 018080808080, at which it was unfrozen after such a loss
        "#]],
    );
}

#[test]
fn a_read_that_was_asked_for_a_landing_before_that_was_given_up_freezes_nothing() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; pass 1; rewind");
    let late = bench.read();
    bench.reading = false;
    bench.word("unfreeze");
    bench.event(GateEvent::ForgeRead(Box::new(ForgeRead { began: Timestamp(bench.clock), ..late })));
    let branch = bench.gate.state.branch();
    assert_eq!((&branch.frozen, branch.flags.forge.is_set()), (&None, true), "it is read again");
}

#[test]
fn a_loss_that_was_undone_before_the_unfreeze_gives_nothing_up() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; pass 1; push 2; pass 3");
    let landed = bench.tip;
    bench.play("rewind");
    bench.behind.push(std::mem::replace(&mut bench.tip, landed));
    bench.log.clear();
    bench.ring();
    bench.play("accept; unfreeze; pass 2");
    expect![[r#"
          foreign push
          alert: somebody else pushed 01c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9 to demo/main
        accept
          answer Ok("accepted the foreign push of 01c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9 to demo/main")
        unfreeze
          answer Ok("unfroze demo/main")
        pass 2
          run 4: Land of - (landing of 01c9c9c9c9c9)
    "#]]
    .assert_eq(&bench.log);
}

#[test]
fn what_was_lost_while_a_person_had_frozen_the_branch_is_not_deployed_at_the_unfreeze() {
    check_after(
        "approvals 0; push 1; pass 1; push 2; pass 3; freeze; rewind; accept; pass 2",
        "unfreeze; unfreeze",
        expect![[r#"
        unfreeze
          answer Ok("unfroze demo/main; it froze itself at once: the branch no longer contains the commit that was landed last")
          froze: the branch no longer contains the commit that was landed last
          alert: demo/main is frozen: the branch no longer contains the commit that was landed last
        unfreeze
          answer Ok("unfroze demo/main at 0180808080808080808080808080808080808080, without 01c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9")
    "#]],
    );
}

#[test]
fn the_record_has_a_command_before_what_came_of_it() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; pass 1; push 2; freeze; rewind");
    let by = Actor { user: MAINTAINER, name: "may".into() };
    let intake = Intake::Event(GateEvent::Command(Box::new(Command { id: 99, by, verb: Verb::Unfreeze })));
    let at = Timestamp(bench.clock + STEP_MS);
    let acts = bench.gate.turn(&[Delivered { seq: bench.seq + 1, at, intake }], at).write.acts;
    assert!(matches!(&acts[..], [Act::Command { .. }, Act::Froze { .. }]), "{acts:?}");
}

#[test]
fn a_persons_freeze_gives_up_no_landing() {
    check_after(
        "approvals 0; push 1; pass 1",
        "push 2; freeze; rewind; pass 3; pass 4; unfreeze",
        expect![[r#"
            push 2
              run 3: Change of 2 (initial run)
            freeze
              answer Ok("froze demo/main: release")
            rewind
              foreign push
              alert: somebody else pushed 0101010101010101010101010101010101010101 to demo/main
            pass 3
              run 4: Queue of 2 (merge candidate)
            pass 4
            unfreeze
              answer Ok("unfroze demo/main; it froze itself at once: the branch no longer contains the commit that was landed last")
              froze: the branch no longer contains the commit that was landed last
              alert: demo/main is frozen: the branch no longer contains the commit that was landed last
        "#]],
    );
}

#[test]
fn a_landing_that_the_forge_did_not_make_is_told_and_freezes_also_where_a_person_froze_the_branch_before() {
    check_after(
        "approvals 0; push 1; landings-hang; forge-lies; pass 1",
        "freeze; landings-come; why 1; unfreeze; unfreeze",
        expect![[r#"
            freeze
              answer Ok("froze demo/main: release")
            landings-come
              land 1 -> Broken { tip: Some(010101010101) }
              alert: demo/main is frozen: change 1 was said to have landed as 018080808080, but the branch is at 010101010101, without it
            why 1
              user 1 froze the branch: release
            unfreeze
              answer Ok("unfroze demo/main; it froze itself at once: change 1 was said to have landed as 018080808080, but the branch is at 010101010101, without it")
              froze: change 1 was said to have landed as 018080808080, but the branch is at 010101010101, without it
            unfreeze
              answer Ok("unfroze demo/main")
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn a_landing_that_the_forge_confirms_and_did_not_make_freezes_until_a_person_has_looked() {
    check_after(
        "approvals 0; push 1; push 2; forge-lies",
        "pass 1; pass 2; why 1; unfreeze",
        expect![[r#"
            pass 1
              land 1 -> Broken { tip: Some(010101010101) }
              froze: change 1 was said to have landed as 018080808080, but the branch is at 010101010101, without it
              alert: demo/main is frozen: change 1 was said to have landed as 018080808080, but the branch is at 010101010101, without it
            pass 2
            why 1
              the server froze the branch: change 1 was said to have landed as 018080808080, but the branch is at 010101010101, without it
            unfreeze
              answer Ok("unfroze demo/main")
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
              run 4: Queue of 2 (merge candidate)
        "#]],
    );
}
