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
