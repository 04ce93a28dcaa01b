//! Who may test and land what: authorised authors, vouches, approvals, objections.

use super::*;

#[test]
fn a_new_revision_inherits_nothing() {
    check(
        "push 1; approve 1; push 1; why 1; pass 1; pass 2; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        push 1
          cancel: change 1 has a newer revision
          run 2: Change of 1 (new revision 660101010101)
        why 1
          revision 660101010101 has 0 of 1 approvals; run demo/main/2 is not over
        pass 1
        pass 2
        why 1
          revision 660101010101 has 0 of 1 approvals
    "#]],
    );
}

#[test]
fn a17_not_vouched_runs_nothing_and_a18_a_vouch_is_for_one_revision() {
    check(
        "push-as-outsider 1; why 1; label 1 rerun all tests; vouch-as-author 1; vouch 1; push-as-outsider 1; why 1; pass 1",
        expect![[r#"
            push-as-outsider 1
            why 1
              revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
            label 1 rerun all tests
            vouch-as-author 1
              answer Err("this takes the role maintainer on `demo`")
            vouch 1
              answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
              run 1: Change of 1 (initial run)
            push-as-outsider 1
              cancel: change 1 has a newer revision
            why 1
              revision 660101010101 is from somebody who is not authorised, so nothing of it runs; revision 660101010101 has 0 of 1 approvals
            pass 1
        "#]],
    );
}

#[test]
fn a_vouch_that_ends_stops_what_runs_although_nothing_else_happens() {
    let config = GateConfig { poll_seconds: 3600, ..GateConfig::default() };
    check_with(
        config,
        "push-as-outsider 1; vouch 1; seconds 50; seconds 51",
        expect![[r#"
        push-as-outsider 1
        vouch 1
          answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
          run 1: Change of 1 (initial run)
        seconds 50
        seconds 51
          cancel: change 1 may no longer be tested
    "#]],
    );
}

#[test]
fn k05_a_vouched_change_is_tested_again_once_it_is_trusted() {
    check(
        "push-as-outsider 1; vouch 1; pass 1; why 1; approve 1; pass 2",
        expect![[r#"
        push-as-outsider 1
        vouch 1
          answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
          run 1: Change of 1 (initial run)
        pass 1
        why 1
          revision 650101010101 has 0 of 1 approvals
        approve 1
          run 2: Queue of 1 (merge candidate)
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a20_a_change_stacked_on_an_outsiders_commit_is_untrusted() {
    check(
        "push 1; stack-on-outsider 1; why 1; pass 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        stack-on-outsider 1
          cancel: change 1 may no longer be tested
        why 1
          revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
        pass 1
    "#]],
    );
}

#[test]
fn g02_own_approval_g06_revoked_approver_do_not_count() {
    check(
        "approvals 1; push 1; pass 1; approve-as-author 1; why 1; push-as-maintainer 2; pass 2; approve 2; why 2",
        expect![[r#"
            approvals 1
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            approve-as-author 1
            why 1
              revision 650101010101 has 0 of 1 approvals
            push-as-maintainer 2
              run 2: Change of 2 (initial run)
            pass 2
            approve 2
            why 2
              revision 650202020202 has 0 of 1 approvals
        "#]],
    );
    check(
        "push 1; hold 1; approve 1; pass 1; demote; release 1; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
        approve 1
        pass 1
        demote
        release 1
          answer Err("this takes the role maintainer on `demo`")
        why 1
          user 1 holds it: wait; revision 650101010101 has 0 of 1 approvals
    "#]],
    );
}

#[test]
fn g02_an_approval_of_who_uploaded_a_commit_below_does_not_count() {
    check(
        "push 1; stack-on-maintainer 1; pass 1; approve 1; why 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            stack-on-maintainer 1
            pass 1
            approve 1
            why 1
              revision 650101010101 has 0 of 1 approvals
        "#]],
    );
    // A level is not had by it either.
    check(
        "push-as-outsider 1; stack-on-maintainer 1; approve 1; why 1",
        expect![[r#"
            push-as-outsider 1
            stack-on-maintainer 1
            approve 1
            why 1
              revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
        "#]],
    );
    // Where nobody can tell who uploaded it, anybody may have.
    check(
        "push 1; stack-on-nobody 1; approve 1; why 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            stack-on-nobody 1
              cancel: change 1 may no longer be tested
            approve 1
            why 1
              revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
        "#]],
    );
}

#[test]
fn an_edited_title_voids_the_approval() {
    check(
        "push 1; hold 1; approve 1; retitle 1; pass 1; release 1; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
        approve 1
        retitle 1
        pass 1
        release 1
          answer Ok("released change 1")
        why 1
          revision 650101010101 has 0 of 1 approvals
    "#]],
    );
}

#[test]
fn an_edit_of_the_pipeline_takes_a_maintainers_approval() {
    check(
        "approvals 0; push 1; edits-definition 1; push 1; pass 1; pass 2; why 1; approve 1",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            edits-definition 1
            push 1
              cancel: change 1 has a newer revision
              run 2: Change of 1 (new revision 660101010101)
            pass 1
            pass 2
            why 1
              revision 660101010101 edits the pipeline, which a maintainer has to approve
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 014e4e4e4e4e)
        "#]],
    );
    check(
        "approvals 0; edits-definition 1; push-as-maintainer 1; pass 1",
        expect![[r#"
        approvals 0
        edits-definition 1
        push-as-maintainer 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
    "#]],
    );
    // What somebody else uploaded below it is not the maintainer's word.
    check(
        "approvals 0; edits-definition 1; push-as-maintainer 1; stack-on-author 1; pass 1; why 1",
        expect![[r#"
            approvals 0
            edits-definition 1
            push-as-maintainer 1
              run 1: Change of 1 (initial run)
            stack-on-author 1
              cancel: no maintainer stands for the pipeline of change 1 any more
            pass 1
              run 2: Change of 1 (it may be tested again) carried lint unit own
            why 1
              revision 650101010101 edits the pipeline, which a maintainer has to approve; run demo/main/2 is not over
        "#]],
    );
}

#[test]
fn the_definition_that_reviewers_are_shown_outlasts_the_candidate_that_it_was_seen_in() {
    check(
        "push 2; edits-definition 1; push 1; pass 1; pass 2; approve 2; approve 1; pass 4",
        expect![[r#"
        push 2
          run 1: Change of 2 (initial run)
        edits-definition 1
        push 1
          run 2: Change of 1 (initial run)
        pass 1
        pass 2
        approve 2
          land 2 -> Landed
          landed 2 with ["unit"]
          run 3: Land of - (landing of 017474747474)
        approve 1
          run 4: Queue of 1 (merge candidate)
        pass 4
          land 1 -> Landed
          landed 1 with ["unit"]
    "#]],
    );
    check(
        "edits-definition 1; push 1; pass 1; retitle 1; approve 1",
        expect![[r#"
            edits-definition 1
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            retitle 1
            approve 1
              run 2: Queue of 1 (merge candidate)
        "#]],
    );
}

#[test]
fn another_definition_on_a_new_tip_is_approved_anew() {
    check(
        "edits-definition 1; push 1; pass 1; foreign-edits-definition; approve 1; why 1; approve 1; pass 2",
        expect![[r#"
            edits-definition 1
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            foreign-edits-definition
              foreign push
              alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
            approve 1
            why 1
              revision 650101010101 edits the pipeline, which a maintainer has to approve
            approve 1
              run 2: Queue of 1 (merge candidate)
            pass 2
              land 1 -> Landed
              landed 1 with ["unit"]
        "#]],
    );
}

#[test]
fn objections_and_their_end() {
    check(
        "push 1; object 1; pass 1; why 1; approve 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            object 1
            pass 1
            why 1
              a reviewer asked for changes; revision 650101010101 has 0 of 1 approvals
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn g03_an_approval_is_for_one_branch_and_an_objection_follows_the_revision() {
    check(
        "push 1; approve 1; came-from-dev 1; pass 1; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        came-from-dev 1
        pass 1
        why 1
          revision 650101010101 has 0 of 1 approvals
    "#]],
    );
    check(
        "approvals 0; push 1; object 1; came-from-dev 1; retitle 1; pass 1; why 1; approve 1",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            object 1
            came-from-dev 1
            retitle 1
            pass 1
            why 1
              a reviewer asked for changes
            approve 1
              run 2: Queue of 1 (merge candidate)
        "#]],
    );
    // Like an approval, it counts for as long as its giver has the right.
    check(
        "approvals 0; push 1; object 1; came-from-dev 1; demote; pass 1",
        expect![[r#"
        approvals 0
        push 1
          run 1: Change of 1 (initial run)
        object 1
        came-from-dev 1
        demote
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn an_author_cancels_the_runs_of_their_own_change_alone() {
    let mut bench = Bench::new(GateConfig::default());
    ["push 1", "push-as-maintainer 2", "push-as-outsider 3", "vouch 3"]
        .iter()
        .for_each(|word| bench.word(word));
    bench.log.clear();
    let cancel = |run| Verb::Cancel { run, why: "enough".into() };
    bench.command(AUTHOR, cancel(2));
    bench.command(AUTHOR, cancel(3));
    bench.command(OUTSIDER, cancel(1));
    bench.command(OUTSIDER, cancel(3));
    bench.command(AUTHOR, cancel(1));
    expect![[r#"
        runs 1 to 3
          answer Err("this takes the role maintainer on `demo`")
          answer Err("this takes the role maintainer on `demo`")
          answer Err("this takes the role maintainer on `demo`")
          cancel: enough (by user 3)
          answer Ok("cancelled run demo/main/3: enough (by user 3)")
          cancel: enough (by user 2)
          answer Ok("cancelled run demo/main/1: enough (by user 2)")
    "#]]
    .assert_eq(&format!("runs 1 to 3\n{}", bench.log));
}

#[test]
fn whoever_owns_a_change_holds_it_and_runs_again_what_may_run() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push-as-outsider 1; push 2");
    let hold = |change| Verb::Hold { change: ChangeNumber(change), why: "wait".into() };
    let retry = Verb::Retry { change: ChangeNumber(1), revision: commit(1, 101), scope: RetryScope::All };
    bench.log.clear();
    bench.command(OUTSIDER, hold(2));
    bench.command(OUTSIDER, hold(1));
    bench.command(OUTSIDER, Verb::Release { change: ChangeNumber(1) });
    bench.command(OUTSIDER, retry.clone());
    bench.play("vouch 1; pass 2");
    bench.command(OUTSIDER, retry.clone());
    bench.play("later");
    bench.command(OUTSIDER, retry);
    expect![[r#"
          answer Err("this takes the role maintainer on `demo`")
          answer Ok("held change 1: wait")
          answer Err("this takes the role maintainer on `demo`")
          answer Err("revision 650101010101 is from somebody who is not authorised, so nothing of it runs; a maintainer can run `towpath change vouch 1 --revision 650101010101 --why '…'`, or an admin authorises who uploaded it (`towpath repo grant USER author --authorised true`)")
        vouch 1
          answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
          run 2: Change of 1 (initial run)
        pass 2
          run 3: Change of 1 (retry)
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
        later
          cancel: change 1 may no longer be tested
          answer Err("revision 650101010101 is from somebody who is not authorised, so nothing of it runs; a maintainer can run `towpath change vouch 1 --revision 650101010101 --why '…'`, or an admin authorises who uploaded it (`towpath repo grant USER author --authorised true`)")
    "#]].assert_eq(&bench.log);
}

/// What the newest run with a job of a change's own, which asks for network and user namespaces, withholds from it.
fn withheld(script: &str) -> [bool; 2] {
    let mut bench = Bench::new(GateConfig::default());
    bench.play(script);
    let own = |run: &Arc<RunStart>| run.graph.jobs.iter().find(|job| job.origin == Origin::Own).cloned();
    let own = bench.runs.values().rev().find_map(own).expect("a change edits the definition");
    let Openings { network, user_namespaces } = own.withheld();
    [network, user_namespaces]
}

#[test]
fn what_a_change_opens_by_its_own_definition_takes_the_targets_word_or_a_maintainers() {
    let vouched = "edits-definition 1; push-as-outsider 1; vouch 1";
    assert_eq!(withheld(vouched), [true, true], "a vouch opens nothing");
    let unseen = "edits-definition 1; push-as-outsider 1; approve 1";
    assert_eq!(withheld(unseen), [true, true], "nor does an approval of what nobody was shown");
    let shown = format!("{unseen}; fail 1; approve 1; retry 1");
    assert_eq!(withheld(&shown), [false, false], "until its giver is shown the definition");
    let approved = format!("{vouched}; fail 1; approve 1; retry 1");
    assert_eq!(withheld(&approved), [false, false], "a maintainer stands for just this definition");
    let authorised = "approvals 0; edits-definition 1; push 1";
    assert_eq!(withheld(authorised), [false, true], "an authorised author reaches the network");
    let own = "edits-definition 1; push-as-maintainer 1";
    assert_eq!(withheld(own), [false, true], "nobody approves their own");
    let own = format!("approvals 0; {own}");
    assert_eq!(withheld(&own), [false, false], "unless no approval is asked for");
}

#[test]
fn a_vouch_for_a_definition_that_was_seen_is_for_no_other() {
    let vouch = |bench: &mut Bench, seen: u8| {
        let (change, why) = (ChangeNumber(1), "read it".to_owned());
        let revision = bench.open[&change].revision.commit;
        let (definition, expires) = (Some(Digest([seen; 32])), Timestamp(bench.clock + 100_000));
        bench.command(MAINTAINER, Verb::Vouch { change, revision, definition, why, expires });
    };
    let vouched = |seen: u8| {
        let mut bench = Bench::new(GateConfig::default());
        bench.play("edits-definition 1; push-as-outsider 1");
        vouch(&mut bench, seen);
        bench
    };
    assert_eq!(vouched(100).runs.len(), 1);
    let mut bench = vouched(8);
    assert!(bench.runs.is_empty() && bench.gate.state.changes()[&ChangeNumber(1)].vouch.is_none());
    // Where the candidate is made already, it is said at once.
    bench.play("vouch 1");
    vouch(&mut bench, 8);
    assert!(bench.log.contains("would land the definition 6464"), "{}", bench.log);
}

#[test]
fn a13_what_somebody_else_put_on_a_branch_before_it_was_watched_is_not_landed() {
    let mut bench = Bench::begun_by(&[AUTHOR, ADMIN], GateConfig::default());
    bench.play("approvals 0; push 1; why 1; run; accept; why 1; pass 1; run");
    expect![[r#"
          foreign push
          alert: demo/main stands at 0101010101010101010101010101010101010101, which is from somebody who is no admin, so nothing of it runs
        approvals 0
        push 1
        why 1
          the branch stands at 010101010101, which is from somebody who is no admin, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
        run
          answer Err("no landing put the tip there; an admin who has looked at it can run `towpath branch accept main 0101010101010101010101010101010101010101`")
        accept
          answer Ok("accepted the foreign push of 0101010101010101010101010101010101010101 to demo/main")
          run 1: Change of 1 (initial run)
        why 1
          run demo/main/1 is not over
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
        run
          answer Err("the definition at 018080808080 has no job with `on: [manual]`")
    "#]].assert_eq(&bench.log);
    // Where the branch is gone, there is nothing to accept.
    let mut bench = Bench::begun_by(&[AUTHOR], GateConfig::default());
    let mut gone = bench.read();
    (gone.began, gone.snapshot.tip) = (Timestamp(bench.clock), None);
    bench.event(GateEvent::ForgeRead(Box::new(gone)));
    assert_eq!(bench.gate.state.branch().foreign, None);
    // An import is nobody's.
    let mut bench = Bench::begun_by(&[], GateConfig::default());
    bench.play("push 1");
    expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
    "#]]
    .assert_eq(&bench.log);
}

#[test]
fn what_a_maintainer_opened_is_shut_when_nobody_stands_for_it_any_more() {
    check_after(
        "edits-definition 1; push 1; hold 1; pass 1; approve 1; retry 1",
        "object 1; pass 2",
        expect![[r#"
            object 1
              cancel: no maintainer stands for the pipeline of change 1 any more
            pass 2
              run 3: Change of 1 (it may be tested again) carried lint unit own
        "#]],
    );
    // What opens nothing goes on.
    check_after(
        "push 1; hold 1; pass 1; approve 1; retry 1",
        "object 1",
        expect![[r#"
            object 1
        "#]],
    );
}
