//! Changes that go from one branch to another, and what is said of them on the way.

use super::*;

const CHANGE: ChangeNumber = ChangeNumber(1);

/// The forge has the change on the bench's branch, where it comes from another one.
fn comes(bench: &mut Bench, from: &str) -> Timestamp {
    let at = Timestamp(bench.clock);
    bench.open.get_mut(&CHANGE).unwrap().came = Some(Came { from: from.parse().unwrap(), at });
    bench.ring();
    at
}

fn arrives(bench: &mut Bench, by: Option<&str>, at: Timestamp) {
    let hold = |by: &str| Hold { by: by.to_owned(), why: "wait for ben".into(), at: Timestamp(1) };
    bench.event(GateEvent::Arrives(Arrival { change: CHANGE, hold: by.map(hold), at }));
}

/// The other branch has it by now.
fn left(bench: &mut Bench) {
    let departure = Departure { change: CHANGE, to: "other".parse().unwrap(), at: Timestamp(bench.clock) };
    bench.event(GateEvent::Left(departure));
}

fn holder(bench: &Bench) -> Option<&str> {
    bench.gate.state.hold_of(CHANGE).map(|hold| hold.by.as_str())
}

#[test]
fn what_comes_along_takes_the_place_of_what_is_remembered_here() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1");
    let at = comes(&mut bench, "old");
    arrives(&mut bench, Some("ann"), at);
    assert_eq!(holder(&bench), Some("ann"));
    bench.play("close 1");
    let at = Timestamp(bench.clock);
    arrives(&mut bench, None, at);
    bench.play("reopen 1");
    assert_eq!(holder(&bench), None);
    // The answer to a question that was put twice is no news.
    arrives(&mut bench, Some("ann"), at);
    assert_eq!(holder(&bench), None);
}

#[test]
fn nobody_holds_or_releases_a_change_while_it_is_on_its_way() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1");
    bench.log.clear();
    let at = comes(&mut bench, "old");
    bench.play("hold 1; release 1");
    arrives(&mut bench, Some("ann"), at);
    bench.play("hold 1; release 1; hold 1");
    expect![[r#"
        hold 1
          answer Err("change 1 is still on its way from `old`; try again")
        release 1
          answer Err("change 1 is still on its way from `old`; try again")
        hold 1
          answer Err("ann holds change 1: wait for ben")
        release 1
          answer Ok("released change 1")
        hold 1
          answer Ok("held change 1: wait")
    "#]]
    .assert_eq(&bench.log);
}

#[test]
fn what_was_let_go_is_not_here_whatever_older_readings_show_until_it_comes_back() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; hold 1; reads-hang");
    bench.log.clear();
    let old = bench.read();
    left(&mut bench);
    assert_eq!(holder(&bench), None, "it went along");
    bench.play("release 1; hold 1");
    bench.event(GateEvent::ForgeRead(Box::new(old)));
    bench.play("release 1; hold 1");
    assert!(bench.gate.state.changes().is_empty());
    let at = Timestamp(bench.clock);
    bench.open.get_mut(&CHANGE).unwrap().came = Some(Came { from: "other".parse().unwrap(), at });
    let read = bench.read();
    bench.event(GateEvent::ForgeRead(Box::new(read)));
    bench.play("hold 1");
    arrives(&mut bench, None, at);
    bench.play("hold 1");
    assert!(bench.gate.state.departed.map().is_empty(), "nothing older is read");
    expect![[r#"
          cancel: change 1 is no longer open
        release 1
          answer Err("there is no open change 1 here")
        hold 1
          answer Err("there is no open change 1 here")
        release 1
          answer Err("there is no open change 1 here")
        hold 1
          answer Err("there is no open change 1 here")
        hold 1
          answer Err("change 1 is still on its way from `other`; try again")
        hold 1
          answer Ok("held change 1: wait")
    "#]]
    .assert_eq(&bench.log);
}

/// In the inbox of a server that was killed before it heard it.
#[test]
fn an_arrival_is_read_as_every_program_has_written_it() {
    for at in ["at", "seen_at"] {
        let json = format!(r#"{{"event":{{"arrives":{{"change":1,"hold":null,"{at}":5}}}}}}"#);
        let read: Intake<GateEvent> = serde_json::from_str(&json).unwrap();
        let arrival = Arrival { change: CHANGE, hold: None, at: Timestamp(5) };
        assert_eq!(read, Intake::Event(GateEvent::Arrives(arrival)));
    }
}

/// What a gate says to another one of a change, in one turn.
fn said_of_change(gate: &mut Live<Gate>, events: Vec<GateEvent>, now: i64) -> Vec<(CellId, Message)> {
    let inbox: Vec<_> = (1..)
        .zip(events)
        .map(|(seq, event)| Delivered { seq, at: Timestamp(now), intake: Intake::Event(event) })
        .collect();
    let told = gate.turn(&inbox, Timestamp(now)).write.messages;
    told.into_iter().filter(|(_, said)| matches!(said, Message::Left(_) | Message::Arrives(_))).collect()
}

#[test]
fn a_change_from_another_branch_lands_once_that_has_said_what_holds_it() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; approve 1");
    let came = Came { from: "old".parse().unwrap(), at: Timestamp(bench.clock) };
    bench.open.get_mut(&CHANGE).unwrap().came = Some(came.clone());
    bench.ring();
    bench.play("pass 1; why 1");
    for (known, goes_on) in [(None, true), (Some(&came), false)] {
        assert_eq!(bench.gate.state.may_go_on(CHANGE, known).is_ok(), goes_on);
        assert!(!bench.gate.state.has_arrived(CHANGE, known));
    }
    bench.event(GateEvent::Arrives(Arrival { change: CHANGE, hold: None, at: came.at }));
    assert!(bench.gate.state.arrived.map().is_empty(), "what has landed comes from nowhere again");
    expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        pass 1
        why 1
          `old`, where it was, is being asked what holds it
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
    "#]]
    .assert_eq(&bench.log);
}

#[test]
fn a_gate_asks_where_a_change_came_from_and_is_told_all_that_was_said_there() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("push 1; hold 1");
    let gate = |branch: &str| CellId::Gate(format!("demo/{branch}").parse().unwrap());
    let mut other = Live::<Gate>::load(gate("other"), Epoch(1), &[], []).unwrap();
    let now = bench.clock + STEP_MS;
    let came = Came { from: "main".parse().unwrap(), at: Timestamp(now) };
    let facts = ForgeChange { came: Some(came.clone()), ..bench.open[&CHANGE].clone() };
    let mut read = bench.read();
    (read.landed, read.snapshot.changes) = (None, vec![facts]);
    let read = || GateEvent::ForgeRead(Box::new(read.clone()));
    let mut asked = said_of_change(&mut other, vec![read()], now);
    assert_eq!(said_of_change(&mut other, vec![read()], now), [], "it is asked once");
    // Whoever asks again, as after a close, has been answered before.
    let (to, Message::Left(departure)) = asked.remove(0) else { panic!("it asks") };
    assert_eq!(to, gate("main"));
    for _ in 0..2 {
        let mut told = said_of_change(&mut bench.gate, vec![GateEvent::Left(departure.clone())], now);
        let (to, Message::Arrives(arrival)) = told.remove(0) else { panic!("it answers") };
        assert_eq!(to, gate("other"));
        said_of_change(&mut other, vec![GateEvent::Arrives(arrival)], now);
    }
    assert!(other.state.has_arrived(CHANGE, Some(&came)));
    let hold = other.state.hold_of(CHANGE).unwrap();
    assert_eq!((hold.by.as_str(), hold.why.as_str()), ("user 1", "wait"));
}
