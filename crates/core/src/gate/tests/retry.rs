//! What a retry runs again, and which earlier results count after it.

use super::*;
use crate::gate::runs::RUNS_KEPT;

#[test]
fn an_older_pass_never_shows_through_a_newer_failure() {
    check(
        "push 1; approvals 2; pass 1; retry-unit 1; fail 2; retry-failed 1; approvals 1; approve 1; fail 3; why 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            approvals 2
            pass 1
            retry-unit 1
              run 2: Change of 1 (retry of `unit`) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `unit` and what did not pass run again")
            fail 2
            retry-failed 1
              run 3: Change of 1 (retry of what did not pass) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            approvals 1
            approve 1
            fail 3
            why 1
              unit failed in run demo/main/3
        "#]],
    );
    check(
        "push 1; pass 1; retry-unit 1; fail 2; retry-lint 1; approve 1; why 1; fail 3; retry-failed 1; pass 4",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            retry-unit 1
              run 2: Change of 1 (retry of `unit`) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `unit` and what did not pass run again")
            fail 2
            retry-lint 1
              run 3: Change of 1 (retry of `lint`)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `lint` and what did not pass run again")
            approve 1
            why 1
              run demo/main/3 is not over
            fail 3
            retry-failed 1
              run 4: Change of 1 (retry of what did not pass) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            pass 4
              land 1 -> Landed
              landed 1 with ["unit"]
              run 5: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn a_job_that_is_to_run_again_does_so_although_its_run_was_stopped() {
    check(
        "push 1; pass 1; retry-unit 1; cancel 2; stopped 2; approve 1; retry-failed 1; pass 3",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            retry-unit 1
              run 2: Change of 1 (retry of `unit`) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `unit` and what did not pass run again")
            cancel 2
              cancel: stop (by user 1)
              answer Ok("cancelled run demo/main/2: stop (by user 1)")
            stopped 2
            approve 1
            retry-failed 1
              run 3: Change of 1 (retry of what did not pass) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            pass 3
              land 1 -> Landed
              landed 1 with ["unit"]
              run 4: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn a_required_job_that_another_one_aborted_has_not_passed_and_no_person_has_stopped_it() {
    check(
        "budget 100; push 1; approve 1; lint-aborts-unit 1; why 1; later; retry-failed 1; error 2; why 1; wheel; push 2; \
         fail-wheel 3; approve 2; why 2",
        expect![[r#"
            budget 100
            push 1
              run 1: Change of 1 (initial run)
            approve 1
            lint-aborts-unit 1
            why 1
              unit did not run to the end in run demo/main/1: `lint` did not pass and aborts it
            later
            retry-failed 1
              run 2: Change of 1 (retry of what did not pass)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            error 2
            why 1
              our machines failed while running unit in run demo/main/2
            wheel
            push 2
              run 3: Change of 2 (initial run)
            fail-wheel 3
            approve 2
            why 2
              unit did not run to the end in run demo/main/3: it needs one that did not pass
        "#]],
    );
}

#[test]
fn what_is_made_of_a_job_that_runs_again_runs_again() {
    check(
        "wheel; push 1; pass 1; retry-wheel 1; approve 1; fail 2; why 1; retry-failed 1; pass 3",
        expect![[r#"
            wheel
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            retry-wheel 1
              run 2: Change of 1 (retry of `wheel`) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `wheel` and what did not pass run again")
            approve 1
            fail 2
            why 1
              unit failed in run demo/main/2
            retry-failed 1
              run 3: Change of 1 (retry of what did not pass) carried wheel lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            pass 3
              land 1 -> Landed
              landed 1 with ["unit"]
              run 4: Land of - (landing of 018080808080)
        "#]],
    );
    check_after(
        "wheel; push 1; pass 1; retry-wheel 1",
        "fail-wheel 2; approve 1; retry-failed 1; pass 3",
        expect![[r#"
            fail-wheel 2
            approve 1
            retry-failed 1
              run 3: Change of 1 (retry of what did not pass) carried lint
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
            pass 3
              land 1 -> Landed
              landed 1 with ["unit"]
              run 4: Land of - (landing of 018080808080)
        "#]],
    );
    check(
        "wheel; push 1; pass 1; retry-unit 1; pass 2; approve 1",
        expect![[r#"
        wheel
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        retry-unit 1
          run 2: Change of 1 (retry of `unit`) carried wheel lint
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `unit` and what did not pass run again")
        pass 2
        approve 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a_run_that_was_asked_for_is_waited_for_although_everything_required_has_passed() {
    check_after(
        "push 1; label 1 WIP; approve 1; pass 1; retry-lint 1",
        "unlabel 1 WIP; why 1; fail-lint 2",
        expect![[r#"
            unlabel 1 WIP
            why 1
              run demo/main/2 is not over
            fail-lint 2
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
        "#]],
    );
    check_after(
        "push 1; label 1 WIP; approve 1; cancel 1; stopped-in-lint 1; retry-failed 1",
        "unlabel 1 WIP; why 1; pass 2",
        expect![[r#"
            unlabel 1 WIP
            why 1
              run demo/main/2 is not over
            pass 2
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
        "#]],
    );
    // One that has still to begin, too.
    let config = GateConfig { change_runs_max: 1, ..GateConfig::default() };
    check_with(
        config,
        "push 1; label 1 WIP; approve 1; pass 1; push 2; push 3; approve 3; retry-lint 1; unlabel 1 WIP; why 1; pass 2; \
         pass 4",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            label 1 WIP
            approve 1
            pass 1
            push 2
              run 2: Change of 2 (initial run)
            push 3
            approve 3
              run 3: Change of 3 (initial run)
            retry-lint 1
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: `lint` and what did not pass run again")
            unlabel 1 WIP
            why 1
              2 change runs are under way, as many as allowed
            pass 2
              run 4: Change of 1 (retry of `lint`) carried unit
            pass 4
              land 1 -> Landed
              landed 1 with ["unit"]
              run 5: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn a_retry_of_everything_takes_no_result_of_another_change_with_the_same_tree() {
    check(
        "push 1; pass 1; twin 2; pass 2; retry 2; pass 3; approve 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        twin 2
          run 2: Change of 2 (initial run) carried lint unit
        pass 2
        retry 2
          run 3: Change of 2 (retry)
          answer Ok("retry of change 2 at 6502020202020202020202020202020202020202: everything runs again")
        pass 3
        approve 2
          land 2 -> Landed
          landed 2 with ["unit"]
          run 4: Land of - (landing of 017474747474)
    "#]],
    );
}

#[test]
fn a_failure_counts_for_every_change_with_the_same_tree_and_outlives_its_own_change() {
    check_after(
        "push 1; pass 1; twin 2; pass 2; retry 2",
        "fail 3; close 2; approve 1; why 1; pass 4",
        expect![[r#"
            fail 3
            close 2
            approve 1
              run 4: Queue of 1 (merge candidate)
            why 1
              run demo/main/4 is not over
            pass 4
              land 1 -> Landed
              landed 1 with ["unit"]
              run 5: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn a_retry_outlives_a_close() {
    check_after(
        "push 1; pass 1; twin 2; pass 2; retry 2",
        "close 2; stopped 3; reopen 2; pass 4",
        expect![[r#"
            close 2
              cancel: change 2 is no longer open
            stopped 3
            reopen 2
              run 4: Change of 2 (initial run)
            pass 4
        "#]],
    );
}

#[test]
fn what_a_job_showed_last_is_remembered_however_many_runs_have_carried_it_on() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; pass 1");
    for run in 2..=RUNS_KEPT as u64 + 5 {
        bench.play(&format!("retry-unit 1; pass {run}"));
        let lint = bench.runs[&run].carried.values().map(|carried| carried.run.number);
        assert_eq!(lint.collect::<Vec<_>>(), [1], "run {run}");
    }
    assert_eq!(bench.gate.state.runs.map().len(), RUNS_KEPT + 1);
}

#[test]
fn floors_are_forgotten_with_the_last_run_that_they_keep_from_counting() {
    let mut bench = Bench::new(GateConfig::default());
    let floors = |bench: &Bench| bench.gate.state.floors.map().len();
    bench.play("push 1; pass 1; retry 1; pass 2");
    assert_eq!(floors(&bench), 1);
    bench.play("push 1; pass 3; push 2");
    assert_eq!(floors(&bench), 0);
}

#[test]
fn what_a_retry_put_aside_stays_aside_in_rows_that_have_no_floors() {
    for (retry, lint_counts) in [("retry-unit", true), ("retry", false)] {
        let mut bench = Bench::new(GateConfig::default());
        bench.play(&format!("push 1; pass 1; {retry} 1"));
        let mut state = GateState::new(&bench.gate.id);
        let mut rows = bench.gate.state.runs.map().iter().map(|(number, run)| Row {
            key: format!("run/{number}"),
            value: Some(serde_json::to_string(run).unwrap()),
        });
        rows.try_for_each(|row| state.put_row(&row)).unwrap();
        state.loaded();
        assert_eq!(state.floors.map(), bench.gate.state.floors.map());
        let floor = state.floors.get(&ChangeNumber(1)).unwrap();
        assert_eq!(["unit", "lint"].map(|job| floor.admits(job, 1)), [false, lint_counts], "{retry}");
    }
}

#[test]
fn a_job_that_sees_history_counts_for_its_commit_alone() {
    check(
        "history; push 1; pass 1; twin 2",
        expect![[r#"
        history
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        twin 2
          run 2: Change of 2 (initial run) carried lint
    "#]],
    );
}

#[test]
fn a_result_counts_only_for_the_title_that_its_job_was_told() {
    check(
        "push 1; pass 1; retitle 1; approve 1; fail 2; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        retitle 1
        approve 1
          run 2: Queue of 1 (merge candidate)
        fail 2
          ejected 1: `unit` did not pass in run 2
        why 1
          unit failed in run demo/main/2
    "#]],
    );
    check_after(
        "push 1; pass 1; twin 2; pass 2",
        "retitle 2; approve 2; pass 3",
        expect![[r#"
            retitle 2
            approve 2
              run 3: Queue of 2 (merge candidate)
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
              run 4: Land of - (landing of 017474747474)
        "#]],
    );
    // One that failed under another title says nothing either.
    check(
        "push 1; fail 1; retitle 1; retry-failed 1; approve 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        fail 1
        retitle 1
        retry-failed 1
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
          run 2: Change of 1 (retry of what did not pass)
        approve 1
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a_retry_of_what_may_not_run_is_refused_and_gives_nothing_up() {
    for (stop, go) in [("draft 1", "undraft 1"), ("label 1 do-not-test", "unlabel 1 do-not-test")] {
        let mut bench = Bench::new(GateConfig::default());
        bench.play(&format!("push 1; pass 1; {stop}"));
        bench.log.clear();
        bench.play("retry 1; retry-unit 1; retry-failed 1");
        assert_eq!(bench.log.matches("answer Err(\"change 1 would not run: it ").count(), 3, "{}", bench.log);
        // The pass that there was is still one.
        bench.log.clear();
        bench.play(&format!("{go}; approve 1"));
        assert!(bench.log.contains("landed 1 with"), "{}", bench.log);
    }
}

#[test]
fn a_retry_of_what_conflicts_is_refused_and_what_was_slow_is_joined_once_more() {
    check(
        "push 1; push 2; push 3; conflicts 2; too-slow 3; pass 1; pass 2; pass 3; approve 1; approve 2; approve 3; retry 2; \
         why 3; foreign; quick 3; why 3; retry 3; why 3",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            push 3
              run 3: Change of 3 (initial run)
            conflicts 2
            too-slow 3
            pass 1
            pass 2
            pass 3
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 4: Land of - (landing of 018080808080)
            approve 2
              ejected 2: it conflicts with the branch in a.txt
            approve 3
              ejected 3: it is not joined with the branch: git could not merge it within 60 s
            retry 2
              answer Err("change 2 would not run: it conflicts with the branch in a.txt; `git fetch towpath && git rebase towpath/main`, then `git push towpath HEAD:refs/for/main -o change=2`")
            why 3
              it is not joined with the branch: git could not merge it within 60 s
            foreign
              foreign push
              alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
              ejected 2: it conflicts with the branch in a.txt
            quick 3
            why 3
              it is not joined with the branch: git could not merge it within 60 s
            retry 3
              answer Ok("retry of change 3 at 6503030303030303030303030303030303030303: git joins it with the branch once more")
              run 5: Queue of 3 (merge candidate)
            why 3
              run demo/main/5 is not over
        "#]],
    );
}

#[test]
fn a_retry_that_has_still_to_begin_is_called_one() {
    let config = GateConfig { change_runs_max: 1, ..GateConfig::default() };
    check_with(
        config,
        "push 1; label 1 WIP; push 2; push 3; approve 3; retry 1; retry 1; draft 2; retry 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            label 1 WIP
            push 2
            push 3
            approve 3
              run 2: Change of 3 (initial run)
            retry 1
              cancel: a retry takes its place
              run 3: Change of 2 (initial run)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
            retry 1
              answer Err("another run of change 1 is due already; `towpath change why 1` says what it waits for")
            draft 2
              cancel: change 2 may no longer be tested
            retry 2
              answer Err("change 2 would not run: it is a draft, so nothing runs; `towpath change ready 2` ends the draft")
        "#]],
    );
}
