//! Which runs are started, carried, retried, cancelled, and how the queue goes on.

use super::*;

#[test]
fn an_approved_change_lands_as_tested() {
    check(
        "push 1; why 1; pass 1; why 1; approve 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
            pass 1
            why 1
              revision 650101010101 has 0 of 1 approvals
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn two_changes_green_alone_are_tested_together() {
    check(
        "push 1; push 2; pass 1; pass 2; approve 1; approve 2; fail 4; why 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              run 4: Queue of 2 (merge candidate)
            fail 4
              ejected 2: `unit` did not pass in run 4
            why 2
              unit failed in run demo/main/4
        "#]],
    );
}

#[test]
fn a_retry_of_what_failed_carries_what_passed() {
    check(
        "push 1; approve 1; fail-lint 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            approve 1
            fail-lint 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
    check(
        "push 1; approve 1; fail 1; why 1; retry-failed 1; pass 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            approve 1
            fail 1
            why 1
              unit failed in run demo/main/1
            retry-failed 1
              run 2: Change of 1 (retry of what did not pass) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            pass 2
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
        "#]],
    );
    check_after(
        "push 1; approve 1; fail 1",
        "retry 1; pass 2",
        expect![[r#"
            retry 1
              run 2: Change of 1 (retry)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
            pass 2
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn at_most_three_change_runs() {
    check(
        "push 1; push 2; push 3; push 4; why 4; close 2; pass 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        push 2
          run 2: Change of 2 (initial run)
        push 3
          run 3: Change of 3 (initial run)
        push 4
        why 4
          revision 650404040404 has 0 of 1 approvals; 3 change runs are under way, as many as allowed
        close 2
          cancel: change 2 is no longer open
          run 4: Change of 4 (initial run)
        pass 1
    "#]],
    );
}

#[test]
fn what_is_on_deck_waits_for_no_other_changes_run_and_takes_no_place_of_one() {
    check(
        "push 1; push 2; push 3; push 4; label 4 prio:high; why 4; approve 4; push 5; why 5; close 2; pass 4",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            push 3
              run 3: Change of 3 (initial run)
            push 4
            label 4 prio:high
            why 4
              revision 650404040404 has 0 of 1 approvals; 3 change runs are under way, as many as allowed
            approve 4
              run 4: Change of 4 (initial run)
            push 5
            why 5
              revision 650505050505 has 0 of 1 approvals; 3 change runs are under way, as many as allowed
            close 2
              cancel: change 2 is no longer open
              run 5: Change of 5 (initial run)
            pass 4
              land 4 -> Landed
              landed 4 with ["unit"]
              run 6: Land of - (landing of 01c9c9c9c9c9)
        "#]],
    );
}

#[test]
fn what_comes_on_deck_after_another_waits_until_one_of_as_many_runs_as_there_are_places_is_over() {
    check(
        "push 1; push 2; push 3; push 4; push 5; approve 5; approve 4; why 4; why 5; close 1; why 4",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            push 3
              run 3: Change of 3 (initial run)
            push 4
            push 5
            approve 5
              run 4: Change of 5 (initial run)
            approve 4
            why 4
              4 change runs are under way, as many as allowed
            why 5
              run demo/main/4 is not over; ahead of it: 4
            close 1
              cancel: change 1 is no longer open
              run 5: Change of 4 (initial run)
            why 4
              run demo/main/5 is not over
        "#]],
    );
}

#[test]
fn conflicts_leave_the_queue_and_come_back_by_a_push() {
    check(
        "push 1; push 2; conflicts 2; pass 1; pass 2; approve 1; approve 2; why 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            conflicts 2
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              ejected 2: it conflicts with the branch in a.txt
            why 2
              it conflicts with the branch in a.txt
        "#]],
    );
}

#[test]
fn what_git_joins_too_slowly_leaves_the_queue_and_waits_for_a_new_revision_wherever_the_branch_moves() {
    check(
        "push 1; push 2; too-slow 2; pass 1; pass 2; approve 1; approve 2; why 2; quick 2; later; why 2; foreign; why 2; \
         push 2; why 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            too-slow 2
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              ejected 2: it is not joined with the branch: git could not merge it within 60 s
            why 2
              it is not joined with the branch: git could not merge it within 60 s
            quick 2
            later
            why 2
              it is not joined with the branch: git could not merge it within 60 s
            foreign
              foreign push
              alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
            why 2
              it is not joined with the branch: git could not merge it within 60 s
            push 2
              run 4: Change of 2 (new revision 660202020202)
            why 2
              revision 660202020202 has 0 of 1 approvals; run demo/main/4 is not over
        "#]],
    );
}

#[test]
fn a_cancelled_run_waits_for_a_person() {
    check(
        "push 1; approve 1; cancel 1; fail 1; why 1; retry-failed 1; pass 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            approve 1
            cancel 1
              cancel: stop (by user 1)
              answer Ok("cancelled run demo/main/1: stop (by user 1)")
            fail 1
            why 1
              unit failed in run demo/main/1
            retry-failed 1
              run 2: Change of 1 (retry of what did not pass) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            pass 2
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn retest_of_all_when_the_target_moves() {
    let config = GateConfig { retest: Retest::All, ..GateConfig::default() };
    check_with(
        config,
        "push 1; push 2; pass 1; pass 2; approve 1; pass 4",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
              run 4: Change of 2 (the target moved)
            pass 4
        "#]],
    );
}

#[test]
fn retest_of_what_is_queued_when_the_target_moves() {
    let config = GateConfig { retest: Retest::Queued, ..GateConfig::default() };
    let script = "push 1; push 2; push 3; pass 1; pass 2; pass 3; push 4; pass 4; \
                  freeze; approve 1; approve 2; approve 3; unfreeze; why 3; why 4";
    check_with(
        config,
        script,
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            push 3
              run 3: Change of 3 (initial run)
            pass 1
            pass 2
            pass 3
            push 4
              run 4: Change of 4 (initial run)
            pass 4
            freeze
              answer Ok("froze demo/main: release")
            approve 1
            approve 2
            approve 3
            unfreeze
              answer Ok("unfroze demo/main")
              land 1 -> Landed
              landed 1 with ["unit"]
              run 5: Land of - (landing of 018080808080)
              run 6: Change of 3 (the target moved)
              run 7: Queue of 2 (merge candidate)
            why 3
              run demo/main/6 is not over; ahead of it: 2
            why 4
              revision 650404040404 has 0 of 1 approvals
        "#]],
    );
}

#[test]
fn bells_that_ring_all_the_time_cost_a_read_now_and_then() {
    let mut gate = Live::<Gate>::load(CellId::Gate("demo/main".parse().unwrap()), Epoch(1), &[], []).unwrap();
    let mut turn = |event: GateEvent, at: i64| {
        let inbox = [Delivered { seq: at as u64, at: Timestamp(at), intake: Intake::Event(event) }];
        let turn = gate.turn(&inbox, Timestamp(at));
        let is_read = |one: &Dispatch| matches!(one, Dispatch::Do { effect: Effect::ReadForge { .. }, .. });
        (turn.dispatch.iter().any(is_read), turn.write.wake_at)
    };
    let bell = || GateEvent::Bell(Bell { forge_changed: true, ..Bell::default() });
    let snapshot = Snapshot {
        tip: None,
        keeps_landed: true,
        begun_by: BTreeSet::new(),
        changes: vec![],
        unreadable: BTreeMap::new(),
        people: BTreeMap::new(),
    };
    assert!(turn(bell(), 1000).0, "the first one is heard at once");
    let read = ForgeRead { began: Timestamp(1000), landed: None, snapshot };
    turn(GateEvent::ForgeRead(Box::new(read)), 1010);
    assert_eq!(turn(bell(), 1020), (false, Some(Timestamp(1050))));
    assert!(turn(bell(), 1050).0);
}

#[test]
fn a_verdict_beyond_its_budget_alerts_once_and_kills_nothing() {
    check(
        "budget 100; push 1; why 1; later; why 1; pass 1; why 1; retry 1; later; fail 2; push 1; later",
        expect![[r#"
            budget 100
            push 1
              run 1: Change of 1 (initial run)
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
            later
              alert: change 1 at 650101010101 has no verdict within its budget of 100 s
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over; its verdict takes longer than its budget of 100 s
            pass 1
            why 1
              revision 650101010101 has 0 of 1 approvals
            retry 1
              run 2: Change of 1 (retry)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
            later
            fail 2
            push 1
              run 3: Change of 1 (new revision 660101010101)
            later
              alert: change 1 at 660101010101 has no verdict within its budget of 100 s
        "#]],
    );
}

#[test]
fn a_change_that_cannot_be_tested_has_its_verdict_at_once() {
    check(
        "budget 100; breaks-definition 1; push 1; later; why 1; push 2; approve 2; pass 1; conflicts 3; push 3; later; why 3",
        expect![[r#"
            budget 100
            breaks-definition 1
            push 1
            later
            why 1
              its towpath.yaml cannot be used; revision 650101010101 has 0 of 1 approvals
            push 2
              run 1: Change of 2 (initial run)
            approve 2
            pass 1
              land 2 -> Landed
              landed 2 with ["unit"]
              run 2: Land of - (landing of 017474747474)
            conflicts 3
            push 3
            later
            why 3
              it conflicts with the branch in a.txt; revision 650303030303 has 0 of 1 approvals
        "#]],
    );
}

#[test]
fn a_set_without_a_required_job_lands_nothing_and_one_without_any_job_is_told_apart() {
    check(
        "no-unit; push 1; pass 1; approve 1; later; why 1; check 1",
        expect![[r#"
            no-unit
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            approve 1
            later
            why 1
              no required job would run, so nothing would be tested
            check 1
              Failure: no required job would run, so nothing would be tested
        "#]],
    );
    check(
        "no-jobs; push 1; check 1; approve 1; later; why 1; all-jobs; foreign; check 1; pass 1",
        expect![[r#"
            no-jobs
            push 1
            check 1
              Failure: it has no job, so nothing would be tested
            approve 1
            later
            why 1
              it has no job, so nothing would be tested
            all-jobs
            foreign
              foreign push
              alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
              run 1: Change of 1 (initial run)
            check 1
              Pending: run demo/main/1 is not over
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
        "#]],
    );
}

#[test]
fn who_leaves_nothing_to_require_is_told_before_it_lands() {
    check(
        "requires-nothing 1; push 1; pass 1; why 1; approve 1",
        expect![[r#"
        requires-nothing 1
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        why 1
          revision 650101010101 has 0 of 1 approvals; its pipeline requires no job, so after it no change can land that does not bring one
        approve 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a_budget_counts_from_when_a_revision_may_be_tested() {
    check(
        "budget 100; push-as-outsider 1; later; vouch 1; why 1; pass 1; later; push 2; draft 2; later; undraft 2; pass 2",
        expect![[r#"
            budget 100
            push-as-outsider 1
            later
            vouch 1
              answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
              run 1: Change of 1 (initial run)
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
            pass 1
            later
            push 2
              run 2: Change of 2 (initial run)
            draft 2
              cancel: change 2 may no longer be tested
            later
            undraft 2
            pass 2
              run 3: Change of 2 (it may be tested again) carried lint unit
        "#]],
    );
}

#[test]
fn only_what_is_on_deck_has_a_queue_run() {
    check_after(
        "push 1; push 2; pass 1; pass 2",
        "foreign; approve 2; approve 1; pass 4; pass 5",
        expect![[r#"
            foreign
              foreign push
              alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
            approve 2
              run 3: Queue of 2 (merge candidate)
            approve 1
              cancel: another change comes first now
              run 4: Queue of 1 (merge candidate)
            pass 4
              land 1 -> Landed
              landed 1 with ["unit"]
              run 5: Queue of 2 (merge candidate)
            pass 5
              land 2 -> Landed
              landed 2 with ["unit"]
        "#]],
    );
}
