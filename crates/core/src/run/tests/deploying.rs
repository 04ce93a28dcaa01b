//! Jobs that wait for their turn in an environment.

use super::*;

/// What an environment was told: `claim 1`, `release 1 Passed`.
fn told(state: &RunState) -> Vec<String> {
    let plan = Run::plan(state, Timestamp(0));
    let words = plan.effects.values().filter_map(|effect| match effect {
        Effect::Send { to: CellId::Environment(to), message: Message::Claim(claim) } => {
            Some(format!("{to}: claim {}", claim.name))
        }
        Effect::Send { to: CellId::Environment(to), message: Message::Release(release) } => {
            Some(format!("{to}: release {} {:?}", release.job.0, release.outcome))
        }
        _ => None,
    });
    words.collect()
}

#[test]
fn a_deployment_waits_for_its_turn_and_gives_it_back_at_its_end() {
    check(
        "a b:a~ c:b",
        "+1 a=p +2 @b +3 b=p +4 c=p",
        expect![[r#"
            start: want 1 back 0 | runs [] | 
            +1: want 1 back 0 | runs [a] | 
            a=p: want 1 back 1 | runs [] | a=Passed
            +2: want 2 back 2 | runs [] | a=Passed
            @b: want 3 back 2 | runs [] | a=Passed
            +3: want 3 back 2 | runs [b] | a=Passed
            b=p: want 4 back 3 | runs [] | a=Passed b=Passed
            +4: want 4 back 3 | runs [c] | a=Passed b=Passed
            c=p: want 4 back 4 | runs [] | a=Passed b=Passed c=Passed | run Passed
        "#]],
    );
    let mut bench = Bench::new("a b:a~ c:b", false);
    assert_eq!(told(&bench.state), [""; 0]);
    bench.event(RunEvent::Granted { total: 1 });
    bench.end("a", Outcome::Passed);
    assert_eq!(told(&bench.state), ["demo/staging: claim b"]);
    let admission = Admission { job: JobIndex(1), number: 7, before: Some(CommitId([9; 20])) };
    bench.event(RunEvent::Admitted(admission.clone()));
    bench.event(RunEvent::Granted { total: 2 });
    let facts = |bench: &Bench, job: u32| {
        bench.state.facts(bench.state.start().unwrap(), JobIndex(job)).into_values().collect::<Vec<_>>()
    };
    let (before, commit) = (CommitId([9; 20]).to_string(), CommitId([1; 20]).to_string());
    assert_eq!(facts(&bench, 1), [commit, before, "7".into(), "staging".into()]);
    assert_eq!(facts(&bench, 2), facts(&bench, 1));
    assert_eq!(facts(&bench, 0), [""; 0]);
    bench.end("b", Outcome::Passed);
    assert_eq!(told(&bench.state), ["demo/staging: release 1 Passed"]);
    // A turn that comes once more, or too late, starts nothing.
    bench.event(RunEvent::Admitted(admission));
    bench.event(RunEvent::Granted { total: 3 });
    assert_eq!(bench.state.wanted().count(), 1);
}

#[test]
fn a_deployment_that_is_cancelled_while_it_waits_gives_its_place_back() {
    let mut bench = Bench::new("a~ b~", false);
    assert_eq!(told(&bench.state), ["demo/staging: claim a", "demo/staging: claim b"]);
    bench.event(RunEvent::Admitted(Admission { job: JobIndex(0), number: 1, before: None }));
    bench.event(RunEvent::Cancel { why: "superseded".into() });
    assert_eq!(
        told(&bench.state),
        ["demo/staging: release 0 Cancelled", "demo/staging: release 1 Cancelled"]
    );
    assert_eq!(bench.state.ended().unwrap().0, Outcome::Cancelled);
    bench.event(RunEvent::Admitted(Admission { job: JobIndex(1), number: 2, before: None }));
    assert_eq!(bench.state.ready(), 0);
}

#[test]
fn a_deployment_that_may_be_restarted_keeps_its_turn_over_its_attempts() {
    let mut bench = Bench::new("a~", false);
    let mut start = bench.state.start().unwrap().clone();
    let mut job = start.graph.jobs[0].clone();
    Arc::make_mut(&mut job.body).restartable = true;
    start.graph = vec![job].into();
    bench.begin(start);
    bench.event(RunEvent::Admitted(Admission { job: JobIndex(0), number: 1, before: None }));
    bench.event(RunEvent::Granted { total: 1 });
    bench.end("a", Outcome::Errored);
    assert_eq!((bench.state.ready(), told(&bench.state)), (1, vec!["demo/staging: claim a".into()]));
}
