//! The dirty flags: what raises them, and what a look lowers.

use super::*;

#[test]
fn a_due_poll_raises_all_three_and_a_look_lowers_them() {
    check(
        "flags; reads-hang; seconds 59; flags; seconds 1; flags; bell; flags",
        expect![[r#"
        flags
          up: 
        reads-hang
        seconds 59
        flags
          up: 
        seconds 1
        flags
          up: forge runs state
        bell
        flags
          up: forge
    "#]],
    );
    let mut bench = Bench::new(GateConfig::default());
    let polled = Timestamp(bench.gate.state.branch().read_at.unwrap().0 + 60_000);
    bench.play("seconds 90");
    let flags = bench.gate.state.branch().flags;
    for flag in [flags.forge, flags.runs, flags.state] {
        assert_eq!(flag.set_at, Some(polled), "raised when the poll was due");
        assert!(!flag.is_set() && flag.cleared_before > Some(polled), "{flag:?}");
    }
}

#[test]
fn a_bell_raises_its_own_flag_alone() {
    check(
        "reads-hang; bell; flags; push 1; flags; reads-come; seconds 1; flags",
        expect![[r#"
        reads-hang
        bell
        flags
          up: 
        push 1
        flags
          up: forge
        reads-come
        seconds 1
        flags
          up: forge
    "#]],
    );
}

#[test]
fn i12_without_any_bell_a_poll_finds_what_is_new_and_lands_it() {
    let mut bench = Bench::new(GateConfig::default());
    bench.push(1, AUTHOR);
    bench.play("seconds 60");
    bench.review(1, MAINTAINER, Verdict::Approve);
    bench.play("pass 1; seconds 61; flags");
    expect![[r#"
        seconds 60
          run 1: Change of 1 (initial run)
        pass 1
        seconds 61
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
        flags
          up: 
    "#]]
    .assert_eq(&bench.log);
}

#[test]
fn what_is_to_be_run_of_a_branch_is_about_to_be_known_while_something_lands_and_is_read() {
    let mut bench = Bench::new(GateConfig::default());
    let is_reading = |bench: &Bench| bench.gate.state.is_reading_landed();
    bench.play("approvals 0; no-deploy; push 1");
    assert!(!is_reading(&bench));
    bench.play("graphs-hang; reads-hang; pass 1; run");
    assert!(is_reading(&bench));
    let mut read = bench.read();
    bench.event(GateEvent::ForgeRead(Box::new(read.clone())));
    bench.play("run");
    assert!(is_reading(&bench));
    bench.play("graphs-come; run");
    assert!(!is_reading(&bench));
    // A branch that is gone is not waited for.
    (read.began, read.snapshot.tip) = (Timestamp(bench.clock), None);
    bench.event(GateEvent::ForgeRead(Box::new(read)));
    bench.play("run");
    assert!(!is_reading(&bench));
    expect![[r#"
        approvals 0
        no-deploy
        push 1
          run 1: Change of 1 (initial run)
        graphs-hang
        reads-hang
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
        run
          answer Err("the branch is being read; try again")
        run
          answer Err("the definition of the tip is being read; try again")
        graphs-come
        run
          answer Err("the definition at 018080808080 has no job with `on: [manual]`")
        run
          answer Err("the branch does not exist")
    "#]]
    .assert_eq(&bench.log);
    // Where a landing hangs, what is there can be run all the same.
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; stall; pass 1");
    assert!(is_reading(&bench));
    bench.log.clear();
    bench.play("run");
    expect![[r#"
        run
          answer Err("the definition at 010101010101 has no job with `on: [manual]`")
    "#]]
    .assert_eq(&bench.log);
}
