//! At which level a change's runs begin, and which results count once it is another one.

use super::*;

/// The trigger and level of each run that a script begins.
fn levels(script: &str) -> (String, Bench) {
    let mut bench = Bench::new(GateConfig::default());
    bench.play(script);
    let runs = bench.runs.values().map(|run| format!("{:?} {:?}", run.trigger, run.level));
    (runs.collect::<Vec<String>>().join(", "), bench)
}

/// The table of docs/decisions/0020, for a change of somebody who is not authorised.
#[test]
fn an_approval_of_what_nobody_was_shown_is_worth_a_vouch_until_the_definition_is_approved() {
    let unseen = "edits-definition 1; push-as-outsider 1; approve 1";
    let runs = |script: &str| levels(script).0;
    let waits = |script: &str| {
        let (_, bench) = levels(script);
        let reasons = bench.gate.state.reasons(ChangeNumber(1), Timestamp(bench.clock));
        reasons.iter().map(ToString::to_string).collect::<Vec<String>>().join("; ")
    };
    let plain = "push-as-outsider 1; approve 1; pass 1";
    assert_eq!(runs(plain), "Change Authorised, Land Landed", "there is nothing to be shown");
    assert_eq!(runs(unseen), "Change Vouched");
    let passed = format!("{unseen}; pass 1; bell; bell");
    assert_eq!(runs(&passed), "Change Vouched", "it is asked for once");
    assert_eq!(waits(&passed), "revision 650101010101 edits the pipeline, which a maintainer has to approve");
    // What ran with less says nothing about what runs with more.
    let landed = "Change Vouched, Queue Authorised, Land Landed";
    assert_eq!(runs(&format!("{passed}; approve 1; bell; pass 2")), landed);
    assert_eq!(runs(&format!("{unseen}; approve 1; pass 1; pass 2")), landed, "approved while it runs");
    // A failure is for a person to look at, as after a vouch.
    let failed = format!("{unseen}; fail 1; approve 1; bell");
    assert_eq!(runs(&failed), "Change Vouched");
    assert_eq!(waits(&failed), "unit failed in run demo/main/1");
    let retried = format!("{failed}; retry 1; pass 2");
    assert_eq!(runs(&retried), "Change Vouched, Change Authorised, Land Landed");
    // A vouch beside it changes nothing, but what a vouch has had tested can be shown.
    let vouched = |words: &str| format!("edits-definition 1; push-as-outsider 1; {words}; pass 1");
    assert_eq!(runs(&vouched("approve 1; vouch 1")), "Change Vouched");
    assert_eq!(runs(&vouched("vouch 1; approve 1")), "Change Vouched, Queue Authorised");
}

#[test]
fn a_definition_that_another_tip_makes_of_a_change_is_approved_anew_before_it_runs_with_more() {
    let stands = "edits-definition 1; push-as-outsider 1; approve 1; fail 1; approve 1; retry 1";
    let moved = format!("{stands}; foreign-edits-definition");
    let (runs, bench) = levels(&moved);
    assert_eq!(runs, "Change Vouched, Change Authorised");
    assert!(!bench.log.contains("cancel"), "what runs is what was approved: {}", bench.log);
    let (runs, bench) = levels(&format!("{moved}; pass 2; retry 1"));
    assert_eq!(runs, "Change Vouched, Change Authorised, Change Vouched", "{}", bench.log);
    let (runs, bench) = levels(&format!("{moved}; pass 2; retry 1; approve 1; pass 3; pass 4"));
    assert_eq!(runs, "Change Vouched, Change Authorised, Change Vouched, Queue Authorised");
    assert!(bench.log.contains("landed 1"), "{}", bench.log);
}

#[test]
fn a_run_is_made_again_with_less_once_nobody_stands_for_its_definition() {
    let (_, mut bench) = levels("edits-definition 1; push-as-outsider 1");
    bench.review(1, ADMIN, Verdict::Approve);
    bench.ring();
    bench.play("fail 1; approve 1; retry 1; object 1; stopped 2; bell; fail 3; bell");
    let levels: Vec<Level> = bench.runs.values().map(|run| run.level).collect();
    assert_eq!(levels, [Level::Vouched, Level::Authorised, Level::Vouched], "{}", bench.log);
    assert!(bench.log.contains("cancel: change 1 is trusted less than it was"), "{}", bench.log);
}

#[test]
fn a_vouch_lets_a_revision_run_and_not_land_also_where_no_approval_is_asked_for() {
    let vouched = "approvals 0; push-as-outsider 1; vouch 1; pass 1; bell; bell";
    let (runs, bench) = levels(vouched);
    assert_eq!(runs, "Change Vouched");
    let reasons = bench.gate.state.reasons(ChangeNumber(1), Timestamp(bench.clock));
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    let takes = "is from somebody who is not authorised, which takes a maintainer's approval";
    assert_eq!(reasons, [format!("revision 650101010101 {takes}")]);
    let (_, bench) = levels(&format!("{vouched}; approve 1; bell; pass 2"));
    assert!(bench.log.contains("landed 1"), "{}", bench.log);
}

#[test]
fn a_maintainer_who_is_alone_and_not_authorised_is_told_what_an_admin_can_do() {
    let mut bench = Bench::new(GateConfig::default());
    bench.people.insert(MAINTAINER, Rights { role: Role::Maintainer, authorised: false });
    bench.play("approvals 0; push-as-maintainer 1; vouch 1; pass 1; approve 1");
    let reasons = bench.gate.state.reasons(ChangeNumber(1), Timestamp(bench.clock));
    let hints = reasons.iter().filter_map(|reason| reason.hint(ChangeNumber(1), &bench.gate.state.id.branch));
    let told = hints.collect::<Vec<String>>().join("; ");
    assert!(told.contains("`towpath repo grant USER maintainer --authorised true`"), "{told}");
    bench.people.insert(MAINTAINER, Rights { role: Role::Maintainer, authorised: true });
    bench.ring();
    bench.play("pass 2");
    assert!(bench.log.contains("landed 1"), "{}", bench.log);
}
