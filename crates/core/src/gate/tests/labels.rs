//! What labels and holds do.

use super::*;

#[test]
fn labels_urgency_and_drafts() {
    check(
        "push 1; push 2; label 2 WIP; approve 2; pass 1; pass 2; why 2; push 3; draft 3; why 3; unlabel 2 WIP",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            label 2 WIP
            approve 2
            pass 1
            pass 2
            why 2
              it has the label `WIP`
            push 3
              run 3: Change of 3 (initial run)
            draft 3
              cancel: change 3 may no longer be tested
            why 3
              it is a draft, so nothing runs; revision 650303030303 has 0 of 1 approvals
            unlabel 2 WIP
              land 2 -> Landed
              landed 2 with ["unit"]
              run 4: Land of - (landing of 017474747474)
        "#]],
    );
    check_after(
        "push 1; push 2; pass 1; pass 2",
        "freeze; approve 1; approve 2; label 2 prio:high; why 1; unfreeze",
        expect![[r#"
            freeze
              answer Ok("froze demo/main: release")
            approve 1
            approve 2
            label 2 prio:high
            why 1
              ahead of it: 2; user 1 froze the branch: release
            unfreeze
              answer Ok("unfroze demo/main")
              land 2 -> Landed
              landed 2 with ["unit"]
              run 3: Land of - (landing of 017474747474)
              run 4: Queue of 1 (merge candidate)
        "#]],
    );
}

#[test]
fn a_hold_outlives_a_close() {
    check(
        "push 1; hold 1; approve 1; pass 1; close 1; reopen 1; why 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
        approve 1
        pass 1
        close 1
        reopen 1
          run 2: Change of 1 (initial run)
        why 1
          user 1 holds it: wait; run demo/main/2 is not over
        pass 2
    "#]],
    );
}

#[test]
fn a_hold_is_reworded_by_who_gave_it_and_by_nobody_else() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; hold 1");
    let hold = |why: &str| Verb::Hold { change: ChangeNumber(1), why: why.to_owned() };
    bench.command(AUTHOR, hold("mine"));
    bench.command(ADMIN, hold("mine"));
    bench.play("why 1");
    bench.command(MAINTAINER, hold("wait for ben"));
    bench.play("why 1");
    // Nobody knows whose a change is that is not here.
    bench.command(AUTHOR, Verb::Hold { change: ChangeNumber(2), why: "mine".into() });
    expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
          answer Err("user 1 holds change 1: wait")
          answer Err("user 1 holds change 1: wait")
        why 1
          user 1 holds it: wait; revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
          answer Ok("held change 1: wait for ben")
        why 1
          user 1 holds it: wait for ben; revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
          answer Err("there is no open change 2 here")
    "#]].assert_eq(&bench.log);
}

#[test]
fn a_hold_keeps_a_change_on_its_branch_also_where_it_was_reopened_and_is_not_read_yet() {
    let mut bench = Bench::new(GateConfig::default());
    let may_leave = |bench: &Bench, user: UserId| {
        let by = Actor { user, name: format!("user {user}") };
        bench.gate.state.permit_to_leave(&by, ChangeNumber(1), Timestamp(bench.clock)).is_ok()
    };
    bench.play("push 1");
    assert!(may_leave(&bench, AUTHOR));
    for script in ["hold 1", "close 1", "reopen 1"] {
        bench.play(script);
        assert_eq!([AUTHOR, MAINTAINER].map(|user| may_leave(&bench, user)), [false, true], "{script}");
    }
    bench.play("release 1");
    assert!(may_leave(&bench, AUTHOR));
}

#[test]
fn a_vouch_outlives_a_close_until_it_expires_or_another_revision_comes() {
    check(
        "push-as-outsider 1; vouch 1; pass 1; close 1; reopen 1; pass 2; close 1; later; reopen 1; why 1",
        expect![[r#"
            push-as-outsider 1
            vouch 1
              answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
              run 1: Change of 1 (initial run)
            pass 1
            close 1
            reopen 1
              run 2: Change of 1 (initial run)
            pass 2
            close 1
            later
            reopen 1
            why 1
              revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
        "#]],
    );
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push-as-outsider 1; vouch 1; pass 1; close 1");
    bench.closed[0].revision.commit = commit(1, 102);
    bench.play("reopen 1");
    assert!(bench.gate.state.changes()[&ChangeNumber(1)].vouch.is_none());
    assert!(bench.gate.state.vouches.map().is_empty());
}

#[test]
fn do_not_test_starts_nothing_and_stops_what_runs() {
    check(
        "push 1; label 1 do-not-test; why 1; approve 1; pass 1; why 1; unlabel 1 do-not-test; pass 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            label 1 do-not-test
              cancel: change 1 may no longer be tested
            why 1
              it has the label `do-not-test`; revision 650101010101 has 0 of 1 approvals
            approve 1
            pass 1
            why 1
              it has the label `do-not-test`
            unlabel 1 do-not-test
              run 2: Change of 1 (it may be tested again) carried lint unit
            pass 2
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn do_not_merge_and_stacked_are_tested_and_do_not_land() {
    let [never, stacked] = ["DO_NOT_MERGE", "stacked PR"].map(|label| {
        let mut bench = Bench::new(GateConfig::default());
        let script = format!("push 1; label 1 {label}; approve 1; pass 1; why 1; unlabel 1 {label}");
        bench.play(&script);
        bench.log.replace(label, "LABEL")
    });
    assert_eq!(never, stacked);
    expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        label 1 LABEL
        approve 1
        pass 1
        why 1
          it has the label `LABEL`
        unlabel 1 LABEL
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
    "#]]
    .assert_eq(&never);
}

#[test]
fn a_gates_labels_have_the_names_that_an_admin_gives_them() {
    let labels = Labels {
        urgent: "now".into(),
        wip: "early".into(),
        stacked: "on top".into(),
        never: "no".into(),
        no_test: "quiet".into(),
        rerun_all: "again".into(),
    };
    let config = GateConfig { labels, ..GateConfig::default() };
    let script = "push 1; label 1 WIP; label 1 DO_NOT_MERGE; label 1 do-not-test; label 1 stacked PR; why 1; \
                  label 1 no; label 1 early; why 1; unlabel 1 no; unlabel 1 early; label 1 on top; label 1 quiet; why 1";
    check_with(
        config.clone(),
        script,
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        label 1 WIP
        label 1 DO_NOT_MERGE
        label 1 do-not-test
        label 1 stacked PR
        why 1
          revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
        label 1 no
        label 1 early
        why 1
          it has the label `no`; it has the label `early`; revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
        unlabel 1 no
        unlabel 1 early
        label 1 on top
        label 1 quiet
          cancel: change 1 may no longer be tested
        why 1
          it has the label `on top`; it has the label `quiet`; revision 650101010101 has 0 of 1 approvals
    "#]],
    );
    let urgent = "push 1; push 2; pass 1; pass 2; freeze; approve 1; approve 2; label 2 now; label 1 prio:high; unfreeze";
    check_with(
        config,
        urgent,
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        push 2
          run 2: Change of 2 (initial run)
        pass 1
        pass 2
        freeze
          answer Ok("froze demo/main: release")
        approve 1
        approve 2
        label 2 now
        label 1 prio:high
        unfreeze
          answer Ok("unfroze demo/main")
          land 2 -> Landed
          landed 2 with ["unit"]
          run 3: Land of - (landing of 017474747474)
          run 4: Queue of 1 (merge candidate)
    "#]],
    );
}

#[test]
fn rerun_all_carries_nothing_over() {
    let moved = "push 1; fail 1; label 1 rerun all tests; retry-failed 1";
    check(
        moved,
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        fail 1
        label 1 rerun all tests
        retry-failed 1
          run 2: Change of 1 (retry of what did not pass)
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
    "#]],
    );
    let after_a_pass = "push 1; pass 1; label 1 rerun all tests; why 1; check 1; approve 1; why 1; pass 2";
    check(
        after_a_pass,
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        label 1 rerun all tests
        why 1
          revision 650101010101 has 0 of 1 approvals; it is tested again as the merge candidate, as it has the label `rerun all tests`
        check 1
          Pending: revision 650101010101 has 0 of 1 approvals
        approve 1
          run 2: Queue of 1 (merge candidate)
        why 1
          run demo/main/2 is not over
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
    let from_the_start = "push 1; fail 1; label 1 rerun all tests; retry 1; pass 2; why 1; check 1";
    check(
        from_the_start,
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            fail 1
            label 1 rerun all tests
            retry 1
              run 2: Change of 1 (retry)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
            pass 2
            why 1
              revision 650101010101 has 0 of 1 approvals
            check 1
              Success: revision 650101010101 has 0 of 1 approvals
        "#]],
    );
}
