//! Scenarios: claims and ends in words, and what the environment does about them.

use expect_test::{Expect, expect};

use super::*;
use crate::ids::Epoch;
use crate::outbox::Dispatch;
use crate::policy::Actor;
use crate::turn::{Delivered, Intake, Live};

struct Bench {
    live: Live<Environment>,
    clock: i64,
    /// The replacement that a driver has.
    replacing: Option<(EffectKey, u64)>,
    log: String,
}

fn run(number: &str) -> RunId {
    format!("demo/main/{number}").parse().unwrap()
}

fn claim(number: &str) -> Claim {
    Claim {
        run: run(number),
        job: JobIndex(0),
        name: "deploy".parse().unwrap(),
        commit: CommitId([number.parse().unwrap(); 20]),
        level: Level::Landed,
        by: (number == "9").then(|| Actor { user: crate::ids::UserId(1), name: "ann".into() }),
        reason: "landing".into(),
    }
}

fn release(number: &str, outcome: Outcome, program: Option<Digest>) -> EnvironmentEvent {
    let why = if outcome == Outcome::Passed { "" } else { "said so" };
    EnvironmentEvent::Release(Release {
        run: run(number),
        job: JobIndex(0),
        outcome,
        why: why.into(),
        program,
    })
}

impl Bench {
    fn turn(&mut self, intake: Intake<EnvironmentEvent>) {
        self.clock += 1;
        let now = Timestamp(self.clock);
        let turn = self.live.turn(&[Delivered { seq: self.clock as u64, at: now, intake }], now);
        for act in &turn.write.acts {
            let said = match act {
                Act::DeploymentStarted { number, run, commit, by, .. } => {
                    let by = by.as_ref().map(|by| format!(" by {}", by.name)).unwrap_or_default();
                    format!("started {number}: {} in {run}{by}", commit.short())
                }
                Act::DeploymentEnded { number, outcome, why, .. } => {
                    format!("ended {number}: {outcome:?} {why}")
                }
                other => panic!("an environment does not do {other:?}"),
            };
            self.log += &format!("  {}\n", said.trim_end());
        }
        for (to, message) in &turn.write.messages {
            let Message::Admitted(Admission { number, before, .. }) = message else { panic!("{message:?}") };
            let before = before.map(|commit| commit.short()).unwrap_or("nothing".into());
            self.log += &format!("  {to} has turn {number}, before it {before}\n");
        }
        for dispatch in turn.dispatch {
            let Dispatch::Do { key, token, effect } = dispatch else { panic!("{dispatch:?}") };
            self.log += &format!("  owes {key}\n");
            match effect {
                Effect::Alert { .. } => self.turn(Intake::Done { key, token, result: None }),
                _ => self.replacing = Some((key, token)),
            }
        }
        self.check_reload();
    }

    /// The rows alone say everything.
    fn check_reload(&mut self) {
        let state = &mut self.live.state;
        state.config.edit();
        state.whole.edit();
        state.deploying.edit();
        let keys: Vec<u64> = state.waiting.map().keys().copied().collect();
        keys.iter().for_each(|key| assert!(state.waiting.get_mut(key).is_some()));
        let mut loaded = EnvironmentState::new(&self.live.id);
        state.take_rows().iter().for_each(|row| loaded.put_row(row).unwrap());
        let now = Timestamp(self.clock);
        assert_eq!(Environment::plan(&loaded, now), Environment::plan(&self.live.state, now));
    }

    fn word(&mut self, line: &str) {
        self.log += &format!("{line}\n");
        let (word, number) = line.split_once(' ').unwrap();
        let program = Digest([7; 32]);
        let event = match word {
            "claim" => EnvironmentEvent::Claim(Box::new(claim(number))),
            "claim-untrusted" => {
                EnvironmentEvent::Claim(Box::new(Claim { level: Level::Authorised, ..claim(number) }))
            }
            "pass" => release(number, Outcome::Passed, None),
            "pass-with-program" => release(number, Outcome::Passed, Some(program)),
            "fail" => release(number, Outcome::Failed, None),
            "error" => release(number, Outcome::Errored, None),
            "self" => EnvironmentEvent::Configured(EnvironmentConfig { is_self: number == "on" }),
            "serves" => EnvironmentEvent::Replaced { number: number.parse().unwrap(), result: Ok(()) },
            "restored" => EnvironmentEvent::Restored,
            "does-not-serve" => {
                let result = Err("it did not come up".into());
                EnvironmentEvent::Replaced { number: number.parse().unwrap(), result }
            }
            other => panic!("unknown word {other}"),
        };
        let answers = matches!(&event, EnvironmentEvent::Replaced { number, .. }
            if self.live.state.deploying().is_some_and(|one| one.number == *number));
        let replacing = self.replacing.take_if(|_| answers);
        self.turn(match replacing {
            Some((key, token)) => Intake::Done { key, token, result: Some(event) },
            None => Intake::Event(event),
        });
    }
}

fn play(script: &str) -> Bench {
    let id = CellId::Environment("demo/staging".parse().unwrap());
    let live = Live::load(id, Epoch(1), &[], []).unwrap();
    let mut bench = Bench { live, clock: 0, replacing: None, log: String::new() };
    script.split(';').map(str::trim).for_each(|line| bench.word(line));
    bench
}

fn check(script: &str, expected: Expect) {
    expected.assert_eq(&play(script).log);
}

#[test]
fn deployments_come_one_at_a_time_in_the_order_of_their_claims() {
    check(
        "claim 1; claim 9; claim 1; claim 2; pass 1; fail 9; error 2; claim 3",
        expect![[r#"
        claim 1
          started 1: 010101010101 in demo/main/1
          run:demo/main/1 has turn 1, before it nothing
        claim 9
        claim 1
        claim 2
        pass 1
          ended 1: Passed
          started 2: 090909090909 in demo/main/9 by ann
          run:demo/main/9 has turn 2, before it 010101010101
        fail 9
          ended 2: Failed said so
          started 3: 020202020202 in demo/main/2
          run:demo/main/2 has turn 3, before it 010101010101
        error 2
          ended 3: Errored said so
        claim 3
          started 4: 030303030303 in demo/main/3
          run:demo/main/3 has turn 4, before it 010101010101
    "#]],
    );
}

#[test]
fn a_claim_that_is_given_back_unused_is_not_on_record() {
    check(
        "claim 1; claim 2; fail 2; pass 2; pass 1; pass 1",
        expect![[r#"
        claim 1
          started 1: 010101010101 in demo/main/1
          run:demo/main/1 has turn 1, before it nothing
        claim 2
        fail 2
        pass 2
        pass 1
          ended 1: Passed
        pass 1
    "#]],
    );
}

#[test]
fn a_deployment_of_the_server_is_over_once_its_program_serves() {
    check(
        "self on; claim 1; pass-with-program 1; claim 2; serves 7; pass 1; serves 1; pass-with-program 2; \
         does-not-serve 2; claim 3; pass 3; claim-untrusted 4; pass-with-program 4; self off; claim 5; \
         pass-with-program 5",
        expect![[r#"
            self on
            claim 1
              started 1: 010101010101 in demo/main/1
              run:demo/main/1 has turn 1, before it nothing
            pass-with-program 1
              owes replace-server demo/staging #1
            claim 2
            serves 7
            pass 1
            serves 1
              ended 1: Passed it serves
              started 2: 020202020202 in demo/main/2
              run:demo/main/2 has turn 2, before it 010101010101
            pass-with-program 2
              owes replace-server demo/staging #2
            does-not-serve 2
              ended 2: Failed it did not come up
              owes alert-server demo/staging #2
            claim 3
              started 3: 030303030303 in demo/main/3
              run:demo/main/3 has turn 3, before it 010101010101
            pass 3
              ended 3: Failed its job passed without an output `towpath`
              owes alert-server demo/staging #3
            claim-untrusted 4
              started 4: 040404040404 in demo/main/4
              run:demo/main/4 has turn 4, before it 010101010101
            pass-with-program 4
              ended 4: Passed
            self off
            claim 5
              started 5: 050505050505 in demo/main/5
              run:demo/main/5 has turn 5, before it 040404040404
            pass-with-program 5
              ended 5: Passed
        "#]],
    );
}

#[test]
fn a_server_that_was_not_replaced_is_news_until_a_later_program_serves() {
    let alert = |script: &str| play(script).live.state.alert();
    let failed = "self on; claim 1; pass-with-program 1; does-not-serve 1; claim 2";
    assert_eq!(alert(failed), Some(EffectKey::once("alert-server", "demo/staging", 1)));
    let again = format!("{failed}; pass-with-program 2");
    assert_eq!(alert(&again), alert(failed));
    assert_eq!(alert(&format!("{again}; serves 2")), None);
}

#[test]
fn a_program_that_was_to_serve_when_the_data_were_saved_is_told_from_a_later_one() {
    let restored = |script: &str| {
        let plan = Environment::plan(&play(script).live.state, Timestamp(0));
        let replacement = plan.effects.into_values().find_map(|effect| match effect {
            Effect::ReplaceServer(replacement) => Some((replacement.number, replacement.restored)),
            _ => None,
        });
        replacement.expect("a program is to serve")
    };
    let owed = "self on; claim 1; pass-with-program 1";
    assert_eq!(restored(owed), (1, false));
    assert_eq!(restored(&format!("{owed}; restored 1; restored 1")), (1, true));
    let next = "does-not-serve 1; claim 2; restored 2; pass-with-program 2";
    assert_eq!(restored(&format!("{owed}; restored 1; {next}")), (2, false));
}
