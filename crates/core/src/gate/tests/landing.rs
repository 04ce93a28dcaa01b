//! Landings, what stops them, what takes them back, and what is deployed after them.

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
    check(
        "approvals 0; push 1; pass 1; rewind; accept; unfreeze; push 2; pass 3; rewind",
        expect![[r#"
        approvals 0
        push 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
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
    check(
        "approvals 0; push 1; pass 1; push 2; pass 3; rewind; accept; unfreeze; pass 2; foreign; rewind; rewind",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            push 2
              run 3: Change of 2 (initial run)
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
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
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; pass 1; push 2; pass 3; freeze; rewind; accept; pass 2");
    bench.log.clear();
    bench.play("unfreeze; unfreeze");
    expect![[r#"
        unfreeze
          answer Ok("unfroze demo/main; it froze itself at once: the branch no longer contains the commit that was landed last")
          froze: the branch no longer contains the commit that was landed last
          alert: demo/main is frozen: the branch no longer contains the commit that was landed last
        unfreeze
          answer Ok("unfroze demo/main at 0180808080808080808080808080808080808080, without 01c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9")
    "#]].assert_eq(&bench.log);
}

#[test]
fn a_failed_deploy_is_no_news_once_there_is_nothing_to_deploy() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; pass 1; fail-deploy 2");
    let news = |bench: &Bench| bench.gate.state.alerts(Timestamp(bench.clock)).len();
    assert_eq!((news(&bench), bench.gate.state.failed_deploy().is_some()), (1, true));
    bench.play("no-deploy; push 2; pass 3");
    assert_eq!((news(&bench), bench.gate.state.failed_deploy()), (0, None));
}

/// A change is pushed to while it lands, and what others were asked meanwhile is answered in the same turn.
#[test]
fn a_candidate_that_is_made_while_a_landing_comes_to_nothing_is_not_forgotten() {
    let mut bench = Bench::new(GateConfig::default());
    bench.hanging = ["land ", "make-candidate "].into();
    bench.play("approvals 0; push 1");
    let made = bench.answers();
    made.into_iter().for_each(|made| bench.intake(made));
    bench.play("pass 1; push 2");
    bench.hanging.insert("read-forge ");
    bench.play("close 1");
    let kinds = bench.asked.keys().map(|key| key.as_str().split(' ').next().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["land", "make-candidate", "read-forge"]);
    bench.hanging.clear();
    let answers = bench.answers();
    bench.log.clear();
    let came = bench.turn(answers);
    came.into_iter().for_each(|came| bench.intake(came));
    assert_eq!(bench.log.trim(), "run 2: Change of 2 (initial run)");
}

#[test]
fn a_persons_freeze_gives_up_no_landing() {
    check(
        "approvals 0; push 1; pass 1; push 2; freeze; rewind; pass 3; pass 4; unfreeze",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
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
fn deploys_coalesce_and_alert_once() {
    check(
        "approvals 0; push 1; pass 1; push 2; pass 3; push 3; pass 4; fail-deploy 2; pass 5",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            push 2
              run 3: Change of 2 (initial run)
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
            push 3
              run 4: Change of 3 (initial run)
            pass 4
              land 3 -> Landed
              landed 3 with ["unit"]
            fail-deploy 2
              run 5: Land of - (landing of 01f7f7f7f7f7)
              alert: run demo/main/2 of landed commit 0180808080808080808080808080808080808080 did not pass
            pass 5
        "#]],
    );
}

#[test]
fn s10_a_landing_that_was_taken_back_and_arrives_all_the_same_is_ours() {
    check(
        "push 1; push 2; pass 1; pass 2; stall; approve 1; hold 1; arrive; approve 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            stall
            approve 1
              land 1 is on its way
            hold 1
              answer Ok("held change 1: wait")
            arrive
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              run 4: Queue of 2 (merge candidate)
        "#]],
    );
}

#[test]
fn s10_a_push_onto_a_landing_whose_end_is_not_known_is_judged_when_it_is() {
    check(
        "push 1; pass 1; stall; approve 1; foreign; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        stall
        approve 1
          land 1 is on its way
        foreign
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
          run 2: Queue of 1 (merge candidate)
        why 1
          run demo/main/2 is not over
    "#]],
    );
}

#[test]
fn a_landing_that_became_due_waits_for_the_look_that_a_bell_has_asked_for() {
    let mut bench = Bench::new(GateConfig::default());
    let mut words = |line: &str| line.split("; ").for_each(|word| bench.word(word));
    words("push 1; approve 1");
    bench.reading = false;
    let mut words = |line: &str| line.split("; ").for_each(|word| bench.word(word));
    words("object 1; pass 1; why 1");
    let read = bench.read();
    bench.event(GateEvent::ForgeRead(Box::new(read)));
    bench.word("why 1");
    let said: Vec<&str> = bench.log.lines().map(str::trim).collect();
    let refused = "a reviewer asked for changes; revision 650101010101 has 0 of 1 approvals";
    assert_eq!(said, ["run 1: Change of 1 (initial run)", "the branch is being read", refused]);
}

#[test]
fn a_change_that_is_closed_while_it_lands_and_opened_again_does_not_land_twice() {
    check(
        "deaf; push 1; pass 1; approve 1; close 1; reopen 1; why 1",
        expect![[r#"
        deaf
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        approve 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
        close 1
        reopen 1
        why 1
          it is landing
    "#]],
    );
}

#[test]
fn landing_waits_for_the_deploy_where_told_to() {
    let config = GateConfig { wait_for_deploy: true, ..GateConfig::default() };
    check_with(
        config,
        "approvals 0; push 1; pass 1; push 2; pass 3; why 2; fail-deploy 2",
        expect![[r#"
        approvals 0
        push 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
        push 2
          run 3: Change of 2 (initial run)
        pass 3
        why 2
          deploy run demo/main/2 is not over
        fail-deploy 2
          alert: run demo/main/2 of landed commit 0180808080808080808080808080808080808080 did not pass
          land 2 -> Landed
          landed 2 with ["unit"]
          run 4: Land of - (landing of 01c9c9c9c9c9)
    "#]],
    );
}

#[test]
fn landing_waits_for_a_deploy_that_has_still_to_begin_unless_a_foreign_push_keeps_it() {
    let config = GateConfig { wait_for_deploy: true, ..GateConfig::default() };
    check_with(
        config.clone(),
        "approvals 0; graphs-hang; push 1; pass 1; push 2; pass 2; why 2; graphs-come; why 2; pass 3",
        expect![[r#"
            approvals 0
            graphs-hang
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
            push 2
              run 2: Change of 2 (initial run)
            pass 2
            why 2
              the deploy run of 018080808080 has not begun
            graphs-come
              run 3: Land of - (landing of 018080808080)
            why 2
              deploy run demo/main/3 is not over
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
              run 4: Land of - (landing of 01c9c9c9c9c9)
        "#]],
    );
    check_with(
        config,
        "approvals 0; graphs-hang; push 1; pass 1; foreign; push 2; pass 2",
        expect![[r#"
        approvals 0
        graphs-hang
        push 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
        foreign
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
        push 2
          run 2: Change of 2 (initial run)
        pass 2
          land 2 -> Landed
          landed 2 with ["unit"]
    "#]],
    );
}

#[test]
fn h07_a_halt_lands_and_deploys_nothing_and_one_that_ends_leaves_the_other() {
    check(
        "push 1; pass 1; restored; disk-fails; approve 1; why 1; restart; why 1; accept-restore; push 2; pass 3; \
         restored; approve 2; why 2; accept-restore",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            restored
              alert: nothing lands on demo/main: 3 leaves are lost
            disk-fails
              alert: nothing lands on demo/main: the disk did not confirm a write
            approve 1
            why 1
              nothing lands on this server: the disk did not confirm a write; nothing lands on this server: 3 leaves are lost
            restart
            why 1
              nothing lands on this server: 3 leaves are lost
            accept-restore
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            push 2
              run 3: Change of 2 (initial run)
            pass 3
            restored
              alert: nothing lands on demo/main: 3 leaves are lost
            approve 2
            why 2
              nothing lands on this server: 3 leaves are lost
            accept-restore
              land 2 -> Landed
              landed 2 with ["unit"]
        "#]],
    );
}

#[test]
fn h07_a_landing_that_a_driver_has_is_taken_back_by_a_halt_and_told_apart_if_it_arrives_all_the_same() {
    check(
        "push 1; pass 1; stall; approve 1; disk-fails; why 1; arrive; restart",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        stall
        approve 1
          land 1 is on its way
        disk-fails
          alert: nothing lands on demo/main: the disk did not confirm a write
        why 1
          nothing lands on this server: the disk did not confirm a write
        arrive
          landed 1 with ["unit"]
        restart
          run 2: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a_candidate_that_a_power_cut_took_is_made_again_and_lands_without_another_run() {
    check(
        "push 1; pass 1; power-cut; approve 1; noted",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            power-cut
            approve 1
              land 1 -> its candidate is gone
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            noted
              [018080808080]
        "#]],
    );
}

#[test]
fn a_person_deploys_a_landed_commit_to_one_environment() {
    let deploy = |environment: &str, name: &str| {
        let mut spec = job(name, &[Trigger::Land]);
        let environment: crate::ids::EnvironmentName = environment.parse().unwrap();
        let body = JobBody { environment: Some(environment.clone()), ..JobBody::script("true") };
        spec.body = Arc::new(body);
        let graph = JobGraph::from(vec![spec]);
        Verb::DeployTo { environment, commit: commit(1, 1), tree: TreeId([1; 20]), graph }
    };
    let mut bench = Bench::new(GateConfig::default());
    bench.word("approvals 0");
    bench.command(MAINTAINER, deploy("staging", "deploy"));
    bench.command(AUTHOR, deploy("staging", "deploy"));
    let mut other = deploy("staging", "deploy");
    if let Verb::DeployTo { environment, .. } = &mut other {
        *environment = "live".parse().unwrap();
    }
    bench.command(MAINTAINER, other);
    bench.word("freeze");
    bench.command(MAINTAINER, deploy("live", "deploy"));
    bench.word("foreign");
    bench.command(MAINTAINER, deploy("live", "deploy"));
    let by: Vec<String> = bench.runs.values().map(|run| run.by.clone().unwrap().name).collect();
    assert_eq!(by, ["user 1", "user 1"]);
    assert!(bench.runs.values().all(|run| run.level == Level::Landed));
    expect![[r#"
        deployments
          run 1: Manual of - (deployment to staging asked for by user 1)
          answer Ok("deploys 0101010101010101010101010101010101010101 to staging in run demo/main/1")
          answer Err("this takes the role maintainer on demo")
          answer Err("the definition at 010101010101 has no job that deploys to `live`")
          answer Ok("froze demo/main: release")
          run 2: Manual of - (deployment to live asked for by user 1)
          answer Ok("deploys 0101010101010101010101010101010101010101 to live in run demo/main/2")
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
          answer Err("no landing put the tip there; an admin who has looked at it can run `towpath branch accept main 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8`")
    "#]]
    .assert_eq(&format!("deployments\n{}", bench.log));
}

#[test]
fn a_landing_waits_until_a_flooded_inbox_is_drained_and_the_flood_is_taken_in() {
    let mut bench = Bench::new(GateConfig::default());
    bench.word("approvals 0");
    bench.word("push 1");
    let bells = std::iter::repeat_n(GateEvent::Bell(Bell { state_changed: true, ..Bell::default() }), 300);
    let flood = std::iter::once(bench.report(1, &[], Outcome::Passed)).chain(bells);
    let at = Timestamp(bench.clock + STEP_MS);
    let flood: Vec<_> = (bench.seq + 1..)
        .zip(flood)
        .map(|(seq, event)| Delivered { seq, at, intake: Intake::Event(event) })
        .collect();
    let lands = |turn: &crate::turn::Turn| {
        let is_landing = |one: &Dispatch| matches!(one, Dispatch::Do { effect: Effect::Land(_), .. });
        (turn.dispatch.iter().any(is_landing), turn.write.only_if_drained)
    };
    let first = bench.gate.turn(&flood, at);
    assert_eq!(lands(&first), (false, false), "the store would refuse it, and all that came with it");
    let taken_in = first.write.consumed.unwrap();
    let rest: Vec<_> = flood.into_iter().filter(|entry| entry.seq > taken_in).collect();
    assert_eq!(lands(&bench.gate.turn(&rest, at)), (true, true));
}
