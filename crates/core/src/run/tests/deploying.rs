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

/// A run of deployments that may be done again.
fn restartable(graph: &str) -> Bench {
    let mut bench = Bench::new(graph, false);
    let mut start = bench.state.start().unwrap().clone();
    let mut jobs: Vec<JobSpec> = start.graph.iter().map(|(_, spec)| spec.clone()).collect();
    jobs.iter_mut().for_each(|job| Arc::make_mut(&mut job.body).restartable = true);
    start.graph = jobs.into();
    bench.begin(start);
    bench
}

fn turn(job: u32) -> RunEvent {
    RunEvent::Admitted(Admission { job: JobIndex(job), number: 7, before: None })
}

/// How jobs ended, in their order; `-`: they have not.
fn outcomes(bench: &Bench) -> Vec<String> {
    let outcome = |job| match bench.state.job(job) {
        Some(JobState::Done { result, .. }) => format!("{:?}", result.outcome),
        _ => "-".into(),
    };
    bench.state.graph.iter().map(|(job, _)| outcome(job)).collect()
}

/// Orders, and of which of them nobody knows what became of them.
fn ordered(bench: &Bench) -> Vec<(u32, u32, bool)> {
    let ordered = bench.state.wanted();
    ordered.map(|(job, lease, restored)| (job.0, lease.attempt, restored)).collect()
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
    let mut bench = restartable("a~");
    bench.event(RunEvent::Admitted(Admission { job: JobIndex(0), number: 1, before: None }));
    bench.event(RunEvent::Granted { total: 1 });
    bench.end("a", Outcome::Errored);
    assert_eq!((bench.state.ready(), told(&bench.state)), (1, vec!["demo/staging: claim a".into()]));
}

#[test]
fn what_was_to_be_deployed_when_the_data_were_saved_is_not_deployed_once_more() {
    let mut bench = Bench::new("a~ b~ c d~:c e:a f:c", false);
    bench.event(turn(0));
    bench.event(RunEvent::Granted { total: 2 });
    assert_eq!(ordered(&bench), [(0, 1, false), (2, 1, false)]);
    bench.event(RunEvent::Restored);
    assert_eq!(ordered(&bench), [(0, 1, true), (2, 1, false)]);
    assert_eq!(outcomes(&bench), ["-", "Errored", "-", "Errored", "-", "-"]);
    let Some(JobState::Done { result, .. }) = bench.state.job(JobIndex(1)) else { panic!("it is over") };
    assert_eq!(result.why, RESTORED);
    assert_eq!(told(&bench.state), ["demo/staging: claim a", "demo/staging: release 1 Errored"]);
    bench.end("a", Outcome::Errored);
    bench.event(turn(1));
    bench.event(RunEvent::RestoreAccepted);
    // Tests go on, before the restore is accepted and after.
    bench.end("c", Outcome::Passed);
    bench.event(RunEvent::Granted { total: 3 });
    assert_eq!(ordered(&bench), [(5, 1, false)]);
    bench.end("f", Outcome::Passed);
    assert_eq!(outcomes(&bench), ["Errored", "Errored", "Passed", "Errored", "Skipped", "Passed"]);
    assert_eq!(bench.state.ended().unwrap().0, Outcome::Errored);
}

#[test]
fn what_may_be_deployed_again_waits_without_a_slot_until_a_restore_is_accepted() {
    let mut bench = restartable("a~ b~ c~");
    bench.event(turn(0));
    bench.event(turn(1));
    bench.event(RunEvent::Granted { total: 1 });
    assert_eq!((ordered(&bench), bench.state.ready()), (vec![(0, 1, false)], 1));
    bench.event(RunEvent::Restored);
    assert_eq!((ordered(&bench), bench.state.ready()), (vec![(0, 1, true)], 0));
    bench.end("a", Outcome::Errored);
    bench.event(RunEvent::Restored);
    bench.event(turn(2));
    let demand = bench.state.demand();
    assert_eq!((demand.asked, demand.returned, bench.state.ready()), (1, 1, 0));
    assert!((0..3).all(|job| bench.state.is_halted(JobIndex(job))));
    bench.event(RunEvent::RestoreAccepted);
    assert_eq!((bench.state.demand().asked, bench.state.is_halted(JobIndex(0))), (4, false));
    bench.event(RunEvent::Granted { total: 4 });
    assert_eq!(ordered(&bench), [(0, 2, false), (1, 1, false), (2, 1, false)]);
}

#[test]
fn a_run_that_was_owed_when_the_data_were_saved_deploys_nothing() {
    let start = Bench::new("a b~ c:b d~:a", false).state.start().unwrap().clone();
    let start = RunStart { restored: true, ..start };
    let mut bench = Bench::new("a", false);
    bench.state = RunState::new(&CellId::Run(start.run.clone()));
    bench.event(RunEvent::Start(Arc::new(start)));
    assert_eq!(outcomes(&bench), ["-", "Errored", "Skipped", "Errored"]);
    assert_eq!((told(&bench.state), bench.state.ready()), (vec![], 1));
}
