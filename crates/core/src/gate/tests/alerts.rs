//! What people are told once is news for as long as it is so.

use super::*;

/// The kinds of the alerts whose cause goes on after a script.
#[track_caller]
fn check(script: &str, expected: &[&str]) {
    let mut bench = Bench::new(GateConfig::default());
    bench.play(script);
    let go_on = bench.gate.state.alerts(Timestamp(bench.clock));
    let kinds: Vec<&str> = go_on.iter().filter_map(|key| key.as_str().split(' ').next()).collect();
    assert_eq!(kinds, expected, "{script}");
}

#[test]
fn a_deploy_that_did_not_pass_is_news_until_a_later_one_passes() {
    let failed = "approvals 0; push 1; pass 1; fail-deploy 2";
    check(failed, &["alert-deploy"]);
    check(&format!("{failed}; push 2; pass 3"), &["alert-deploy"]);
    check(&format!("{failed}; push 2; pass 3; pass 4"), &[]);
    check(&format!("{failed}; push 2; pass 3; fail-deploy 4"), &["alert-deploy"]);
}

#[test]
fn what_stops_landing_is_news_until_it_ends() {
    check("disk-fails; restored", &["alert-halt", "alert-halt"]);
    check("disk-fails; restored; restart", &["alert-halt"]);
    check("foreign", &["alert-foreign"]);
    check("freeze", &[]);
}

#[test]
fn a_change_that_cannot_be_read_is_news_until_it_can_and_others_land() {
    check("push 1; spoil 1", &["alert-unreadable"]);
    check("push 1; spoil 1; mend 1", &[]);
    super::check(
        "approvals 0; push 1; push 2; spoil 1; why 1; pass 2; mend 1; why 1",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            spoil 1
              cancel: change 1 cannot be read
              alert: change 1 of demo/main is out of reach, others go on: it cannot be read: it is damaged
            why 1
              it cannot be read: it is damaged
            pass 2
              land 2 -> Landed
              landed 2 with ["unit"]
              run 3: Land of - (landing of 017474747474)
            mend 1
              run 4: Change of 1 (it may be tested again)
            why 1
              run demo/main/4 is not over
        "#]],
    );
}

#[test]
fn a_late_verdict_is_news_until_it_comes() {
    check("budget 100; push 1; later", &["alert-budget"]);
    check("budget 100; push 1; later; pass 1", &[]);
    check("budget 100; push 1; later; close 1", &[]);
}
