//! Landings, what they wait for, and what stops them.

use super::*;

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
fn s10_a_landing_that_was_taken_back_and_arrives_all_the_same_is_ours() {
    check_after(
        "push 1; push 2; pass 1; pass 2",
        "stall; approve 1; hold 1; arrive; approve 2",
        expect![[r#"
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
fn whoever_holds_a_change_can_tell_whether_it_lands_all_the_same() {
    for (script, landed) in [("landings-hang; approve 1", true), ("stall; approve 1", false)] {
        let mut bench = Bench::new(GateConfig::default());
        let lands = |bench: &Bench| bench.gate.state.lands(ChangeNumber(1));
        bench.play("deaf; push 1; push 2; pass 1");
        assert!(!lands(&bench));
        bench.play(script);
        assert!(lands(&bench) && !bench.gate.state.lands(ChangeNumber(2)));
        bench.play("hold 1");
        assert_eq!(lands(&bench), landed, "{script}: a landing that was not tried is taken back");
        bench.play("landings-come");
        assert!(!lands(&bench));
        assert_eq!(bench.gate.state.has_landed(ChangeNumber(1)), landed);
        bench.log.clear();
        bench.play("release 1");
        let said = match landed {
            true => "change 1 landed as",
            false => "released change 1",
        };
        assert!(bench.log.contains(said), "{}", bench.log);
    }
}

#[test]
fn s10_a_push_onto_a_landing_whose_end_is_not_known_is_judged_when_it_is() {
    check_after(
        "push 1; pass 1; stall; approve 1",
        "foreign; why 1",
        expect![[r#"
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
    check_after(
        "push 1; pass 1; stall; approve 1",
        "disk-fails; why 1; arrive; restart",
        expect![[r#"
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

#[test]
fn h07_what_was_to_be_deployed_when_the_data_were_saved_is_told_from_what_lands_later() {
    let restored = |script: &str| {
        let mut bench = Bench::new(GateConfig::default());
        bench.play(script);
        bench
            .runs
            .values()
            .filter(|run| run.trigger == Trigger::Land)
            .map(|run| run.restored)
            .collect::<Vec<_>>()
    };
    let ready = "push 1; pass 1; graphs-hang; approve 1";
    let next = "push 2; pass 3; approve 2";
    assert_eq!(restored(&format!("{ready}; restored; graphs-come")), [false; 0]);
    assert_eq!(restored(&format!("{ready}; restored; graphs-come; accept-restore")), [true]);
    let later = format!("{ready}; restored; graphs-come; accept-restore; pass 2; {next}");
    assert_eq!(restored(&later), [true, false]);
    assert_eq!(restored(&format!("{ready}; disk-fails; graphs-come; restart")), [false]);
    // Nobody knows when a landing happened that a driver had.
    let landing = "push 1; pass 1; stall; approve 1; restored";
    assert_eq!(restored(&format!("{landing}; arrive; accept-restore")), [true]);
    assert_eq!(restored(&format!("{landing}; accept-restore; arrive")), [true]);
}

#[test]
fn h07_a_landing_of_before_a_restore_stays_so_when_its_candidate_has_to_be_made_again() {
    // Also where somebody else has moved the branch meanwhile, and back.
    for meanwhile in ["flags", "foreign; rewind; accept"] {
        let mut bench = Bench::new(GateConfig::default());
        bench.play("landings-hang; push 1; pass 1; approve 1; restored; power-cut; landings-come");
        bench.play(&format!("{meanwhile}; accept-restore"));
        let log = &bench.log;
        assert!(log.contains("its candidate is gone") && log.contains("landed 1"), "{log}");
        let landed = bench.runs.values().find(|run| run.trigger == Trigger::Land);
        assert!(landed.is_some_and(|run| run.restored), "{log}");
    }
}

#[test]
fn h07_a_deployment_that_begins_in_the_turn_that_hears_of_a_restore_is_of_before_it() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; pass 1; graphs-hang; approve 1");
    let mut heard = bench.answers();
    let halts = Halts::from([(HaltCause::Restore, Some("3 leaves are lost".to_owned()))]);
    heard.push(Intake::Event(GateEvent::Halts(halts)));
    bench.turn(heard);
    assert!(bench.runs[&2].restored);
}

#[test]
fn h07_nobody_begins_a_deployment_before_a_restore_is_accepted() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; pass 1; approve 1; pass 2; restored");
    bench.command(MAINTAINER, Verb::Deploy);
    let refused = "nothing is deployed: 3 leaves are lost; `towpath backup show` says what is lost";
    assert!(bench.log.contains(refused), "{}", bench.log);
    bench.word("accept-restore");
    bench.command(MAINTAINER, Verb::Deploy);
    let again = bench.runs.last_key_value().unwrap().1;
    assert_eq!((again.run.number, again.restored), (3, false));
}
