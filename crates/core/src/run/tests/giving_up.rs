//! Runs of which more is left than can be kept or told.

use super::*;

impl Bench {
    fn end_with(&mut self, job: u32, result: JobResult) {
        let lease = self.state.lease(JobIndex(job)).cloned().unwrap();
        self.event(RunEvent::JobEnded { lease, result: Box::new(result) });
    }

    /// What the gate is told, if the run is over.
    fn report(&self) -> Option<Arc<RunReport>> {
        let plan = Run::plan(&self.state, Timestamp(self.clock));
        plan.effects.values().find_map(|effect| match effect {
            Effect::Send { message: Message::RunEnded(report), .. } => Some(report.clone()),
            _ => None,
        })
    }
}

fn passed_with(outputs: usize) -> JobResult {
    let outputs = (0..outputs).map(|at| (format!("output-{at}"), Digest([1; 32]))).collect();
    JobResult { outputs, ..JobResult::unrun(Outcome::Passed, "exit code 0") }
}

#[test]
fn a_run_whose_jobs_say_much_ends_with_what_a_message_holds() {
    let names: Vec<String> = (0..1_000).map(|at| format!("j{at}x")).collect();
    let start = Bench::new(&names.join(" "), false).state.start().unwrap().clone();
    let mut state = RunState::new(&CellId::Run(start.run.clone()));
    Run::apply(&mut state, &RunEvent::Start(Arc::new(start)), Timestamp(1));
    Run::apply(&mut state, &RunEvent::Granted { total: 1_000 }, Timestamp(2));
    for job in 0..1_000 {
        let lease = state.lease(JobIndex(job)).cloned().unwrap();
        let mut result = JobResult::unrun(Outcome::Passed, "");
        result.why = "%E4".repeat(33_000);
        Run::apply(&mut state, &RunEvent::JobEnded { lease, result: Box::new(result) }, Timestamp(3));
    }
    assert_eq!(state.ended().unwrap().0, Outcome::Passed);
    let report = state.report(state.start().unwrap(), Outcome::Passed);
    assert_eq!(report.jobs.len(), 1_000);
    assert!(serde_json::to_string(&report).unwrap().len() < 2_000_000);
    // Rows of an earlier version may say more.
    for (_, row) in state.jobs.map().clone() {
        let JobState::Done { mut result, .. } = row else { panic!("it is over") };
        assert_eq!(result.why.len(), WHY_BYTES_MAX);
        Arc::make_mut(&mut result).why = "%E4".repeat(33_000);
        assert_eq!(told(&result).why.len(), WHY_BYTES_MAX);
    }
}

#[test]
fn a_run_that_the_store_does_not_take_ends_and_says_why() {
    let mut bench = Bench::new("a b c:b d?", false);
    bench.event(RunEvent::Granted { total: 2 });
    bench.end_with(0, passed_with(1));
    bench.event(RunEvent::TooLarge { why: "a row has 99 bytes".into() });
    assert_eq!((bench.state.ended(), bench.state.wanted().count()), (None, 0), "`b` is to stop");
    bench.end_with(1, passed_with(3));
    let report = bench.report().expect("it is over");
    let said: Vec<_> =
        report.jobs.iter().map(|job| (&*job.name, job.result.outcome, &*job.result.why)).collect();
    let why = "a row has 99 bytes";
    assert_eq!(
        said,
        [
            ("a", Outcome::Failed, why),
            ("b", Outcome::Failed, why),
            ("c", Outcome::Cancelled, why),
            ("d", Outcome::Skipped, why)
        ]
    );
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.jobs.iter().all(|job| job.result.outputs.is_empty()));
    assert_eq!(bench.state.demand().returned, 2);
    // Late words change nothing.
    bench.event(RunEvent::TooLarge { why: "again".into() });
    assert_eq!(bench.report().unwrap(), report);
}

#[test]
fn a_run_whose_results_no_message_holds_fails_and_says_why() {
    let mut bench = Bench::new("a b", false);
    bench.event(RunEvent::Granted { total: 2 });
    bench.end_with(0, passed_with(200_000));
    bench.end_with(1, passed_with(200_000));
    let report = bench.report().expect("it is over");
    assert_eq!(report.outcome, Outcome::Failed);
    let why = &report.jobs[0].result.why;
    assert!(why.contains("at most 33554432; let its jobs have fewer outputs"), "{why}");
    assert!(serde_json::to_string(&report).unwrap().len() < 2_000);
}
