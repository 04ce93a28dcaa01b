//! Scenarios: a graph in one line, events in another, and what the run owes after each.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::*;
use crate::graph::{JobBody, JobSpec};
use crate::policy::Level;

mod deploying;
mod giving_up;

/// `a b:a c:a,b! d?` — jobs with needs; `!` aborts the job before it, `?` is skipped by `when`, `~` is a deployment,
/// `2` at the end retries failures twice. Every job is required, but those with `-`.
fn graph(text: &str) -> JobGraph {
    const MARKS: [char; 5] = ['!', '?', '~', '2', '-'];
    let mut jobs: Vec<JobSpec> = Vec::new();
    for word in text.split_whitespace() {
        let (name, rest) = word.split_once(':').unwrap_or((word.trim_end_matches(MARKS), ""));
        let needs = rest.trim_end_matches(MARKS);
        let index =
            |wanted: &str| JobIndex(jobs.iter().position(|job| job.name.as_str() == wanted).unwrap() as u32);
        let mut body = JobBody::script("true");
        body.environment = word.contains('~').then(|| "staging".parse().unwrap());
        body.retry_failed = if word.contains('2') { 2 } else { 0 };
        let needs: Vec<_> = needs.split(',').filter(|need| !need.is_empty()).map(index).collect();
        let aborts = if word.contains('!') { vec![JobIndex(jobs.len() as u32 - 1)] } else { vec![] };
        let skip = word.contains('?').then_some(SkipReason::When);
        let job = JobSpec::new(name.parse().unwrap(), vec![Trigger::Queue], body);
        let required = !word.contains('-');
        jobs.push(JobSpec { needs, aborts, skip, required, ..job });
    }
    jobs.into()
}

struct Bench {
    state: RunState,
    log: String,
    clock: i64,
}

impl Bench {
    fn new(graph_text: &str, fail_fast: bool) -> Bench {
        let id: RunId = "demo/main/1".parse().unwrap();
        let mut bench =
            Bench { state: RunState::new(&CellId::Run(id.clone())), log: String::new(), clock: 0 };
        bench.begin(RunStart {
            run: id,
            trigger: Trigger::Queue,
            change: None,
            reason: "initial run".into(),
            by: None,
            commit: CommitId([1; 20]),
            tree: crate::ids::TreeId([2; 20]),
            level: Level::Authorised,
            graph: graph(graph_text),
            carried: BTreeMap::new(),
            priority: 0,
            fail_fast,
            restored: false,
            facts: BTreeMap::new(),
        });
        bench
    }

    /// Begins anew with another start.
    fn begin(&mut self, start: RunStart) {
        self.state = RunState::new(&CellId::Run(start.run.clone()));
        self.event(RunEvent::Start(Arc::new(start)));
    }

    fn event(&mut self, event: RunEvent) {
        self.clock += 1;
        Run::apply(&mut self.state, &event, Timestamp(self.clock));
        for effect in Run::plan(&self.state, Timestamp(self.clock)).effects.values() {
            self.state.handed_out(effect, Timestamp(self.clock));
        }
        self.check_reload();
    }

    /// The rows alone say everything: a state loaded from them plans the same.
    fn check_reload(&self) {
        let mut whole = RunState { notes: Notes::default(), ..self.copy() };
        whole.start.edit();
        whole.whole.edit();
        let keys: Vec<u32> = whole.jobs.map().keys().copied().collect();
        keys.iter().for_each(|key| assert!(whole.jobs.get_mut(key).is_some()));
        let keys: Vec<u32> = whole.turns.map().keys().copied().collect();
        keys.iter().for_each(|key| assert!(whole.turns.get_mut(key).is_some()));
        let mut loaded = RunState::new(&CellId::Run(self.state.id.clone()));
        whole.take_rows().iter().for_each(|row| loaded.put_row(row).unwrap());
        loaded.loaded();
        assert_eq!(Run::plan(&loaded, Timestamp(0)), Run::plan(&self.state, Timestamp(0)));
        assert_eq!(
            (&loaded.ready, loaded.open, &loaded.lost.is_some()),
            (&self.state.ready, self.state.open, &self.state.lost.is_some())
        );
    }

    fn copy(&self) -> RunState {
        RunState {
            id: self.state.id.clone(),
            start: self.state.start.clone(),
            whole: self.state.whole.clone(),
            jobs: self.state.jobs.clone(),
            turns: self.state.turns.clone(),
            graph: self.state.graph.clone(),
            notes: self.state.notes.clone(),
            ready: self.state.ready.clone(),
            running: self.state.running.clone(),
            needs_left: self.state.needs_left.clone(),
            dependants: self.state.dependants.clone(),
            open: self.state.open,
            lost: self.state.lost.clone(),
            fresh: self.state.fresh.clone(),
        }
    }

    fn end(&mut self, name: &str, outcome: Outcome) {
        let job = self.state.graph.iter().find(|(_, spec)| spec.name.as_str() == name).unwrap().0;
        let lease = self.state.lease(job).cloned().unwrap_or_else(|| panic!("{name} is not running"));
        let result = Box::new(JobResult::unrun(outcome, "said so"));
        self.event(RunEvent::JobEnded { lease, result });
    }

    fn line(&mut self, said: &str) {
        let demand = self.state.demand();
        let names = |jobs: Vec<JobIndex>| {
            jobs.iter().map(|job| self.state.graph.job(*job).name.to_string()).collect::<Vec<_>>().join(" ")
        };
        let running = names(self.state.wanted().map(|(job, ..)| job).collect());
        let done: Vec<String> = self
            .state
            .jobs
            .map()
            .iter()
            .filter_map(|(job, state)| match state {
                JobState::Done { result, .. } => {
                    Some(format!("{}={:?}", self.state.graph.job(JobIndex(*job)).name, result.outcome))
                }
                _ => None,
            })
            .collect();
        let ended = self.state.ended().map(|(outcome, _)| format!(" | run {outcome:?}")).unwrap_or_default();
        self.log += &format!(
            "{said}: want {} back {} | runs [{running}] | {}{ended}\n",
            demand.asked,
            demand.returned,
            done.join(" ")
        );
    }
}

/// Words: `+N` grants up to N in all, `@name` gives a job its turn to deploy, `name=p|f|e|t` ends one, `cancel`.
fn check_with(graph_text: &str, fail_fast: bool, script: &str, expected: Expect) {
    let mut bench = Bench::new(graph_text, fail_fast);
    bench.line("start");
    for word in script.split_whitespace() {
        if let Some(total) = word.strip_prefix('+') {
            bench.event(RunEvent::Granted { total: total.parse().unwrap() });
        } else if let Some(job) = word.strip_prefix('@') {
            let job = bench.state.graph.iter().find(|(_, spec)| spec.name.as_str() == job).unwrap().0;
            bench.event(RunEvent::Admitted(Admission { job, number: 7, before: None }));
        } else if word == "cancel" {
            bench.event(RunEvent::Cancel { why: "superseded".into() });
        } else {
            let (name, outcome) = word.split_once('=').unwrap();
            let outcome = match outcome {
                "p" => Outcome::Passed,
                "f" => Outcome::Failed,
                "e" => Outcome::Errored,
                "c" => Outcome::Cancelled,
                _ => Outcome::TimedOut,
            };
            bench.end(name, outcome);
        }
        bench.line(word);
    }
    expected.assert_eq(&bench.log);
}

fn check(graph_text: &str, script: &str, expected: Expect) {
    check_with(graph_text, false, script, expected);
}

#[test]
fn needs_come_first_and_slots_are_given_back() {
    check(
        "a b c:a,b",
        "+1 a=p +2 b=p +3 c=p",
        expect![[r#"
        start: want 2 back 0 | runs [] | 
        +1: want 2 back 0 | runs [a] | 
        a=p: want 2 back 1 | runs [] | a=Passed
        +2: want 2 back 1 | runs [b] | a=Passed
        b=p: want 3 back 2 | runs [] | a=Passed b=Passed
        +3: want 3 back 2 | runs [c] | a=Passed b=Passed
        c=p: want 3 back 3 | runs [] | a=Passed b=Passed c=Passed | run Passed
    "#]],
    );
}

#[test]
fn a_failed_need_skips_what_depends_on_it() {
    check(
        "a b:a c:b d",
        "+2 a=f d=p",
        expect![[r#"
        start: want 2 back 0 | runs [] | 
        +2: want 2 back 0 | runs [a d] | 
        a=f: want 2 back 1 | runs [d] | a=Failed b=Skipped c=Skipped
        d=p: want 2 back 2 | runs [] | a=Failed b=Skipped c=Skipped d=Passed | run Failed
    "#]],
    );
}

#[test]
fn our_machines_fault_is_tried_again_but_never_a_deployment() {
    check(
        "a b~",
        "@b +2 a=e b=e +3 a=e +4 a=e",
        expect![[r#"
        start: want 1 back 0 | runs [] | 
        @b: want 2 back 0 | runs [] | 
        +2: want 2 back 0 | runs [a b] | 
        a=e: want 3 back 1 | runs [b] | 
        b=e: want 3 back 2 | runs [] | b=Errored
        +3: want 3 back 2 | runs [a] | b=Errored
        a=e: want 4 back 3 | runs [] | b=Errored
        +4: want 4 back 3 | runs [a] | b=Errored
        a=e: want 4 back 4 | runs [] | a=Errored b=Errored | run Errored
    "#]],
    );
}

#[test]
fn a_failure_is_retried_only_where_the_definition_says_so() {
    check(
        "a2",
        "+1 a=f +2 a=f +3 a=p",
        expect![[r#"
        start: want 1 back 0 | runs [] | 
        +1: want 1 back 0 | runs [a] | 
        a=f: want 2 back 1 | runs [] | 
        +2: want 2 back 1 | runs [a] | 
        a=f: want 3 back 2 | runs [] | 
        +3: want 3 back 2 | runs [a] | 
        a=p: want 3 back 3 | runs [] | a=Passed | run Passed
    "#]],
    );
}

#[test]
fn cancelled_runs_wait_for_their_jobs_to_be_dead() {
    check(
        "a b c:a",
        "+1 cancel +2 a=c",
        expect![[r#"
        start: want 2 back 0 | runs [] | 
        +1: want 2 back 0 | runs [a] | 
        cancel: want 1 back 0 | runs [] | b=Cancelled c=Cancelled
        +2: want 2 back 1 | runs [] | b=Cancelled c=Cancelled
        a=c: want 2 back 2 | runs [] | a=Cancelled b=Cancelled c=Cancelled | run Cancelled
    "#]],
    );
}

#[test]
fn a_job_that_starts_and_stops_in_one_turn_ends_without_a_driver() {
    let mut bench = Bench::new("a b:a", false);
    // Both events come in one turn: nothing is handed out between them.
    Run::apply(&mut bench.state, &RunEvent::Granted { total: 1 }, Timestamp(1));
    Run::apply(&mut bench.state, &RunEvent::Cancel { why: "superseded".into() }, Timestamp(2));
    bench.line("+1 and cancel");
    let expected =
        expect!["+1 and cancel: want 1 back 1 | runs [] | a=Cancelled b=Skipped | run Cancelled\n"];
    expected.assert_eq(&bench.log);
}

#[test]
fn a_run_that_cannot_pass_stops_when_told_to_fail_fast() {
    check_with(
        "a b c",
        true,
        "+2 a=f b=c",
        expect![[r#"
        start: want 3 back 0 | runs [] | 
        +2: want 3 back 0 | runs [a b] | 
        a=f: want 2 back 1 | runs [] | a=Failed c=Cancelled
        b=c: want 2 back 2 | runs [] | a=Failed b=Cancelled c=Cancelled | run Failed
    "#]],
    );
}

#[test]
fn a_failure_aborts_the_jobs_it_names() {
    check(
        "a b!",
        "+2 b=f a=c",
        expect![[r#"
        start: want 2 back 0 | runs [] | 
        +2: want 2 back 0 | runs [a b] | 
        b=f: want 2 back 1 | runs [] | b=Failed
        a=c: want 2 back 2 | runs [] | a=Cancelled b=Failed | run Failed
    "#]],
    );
}

#[test]
fn a_required_job_that_an_advisory_one_aborted_fails_the_run() {
    check(
        "a b!-",
        "+2 b=f a=c",
        expect![[r#"
        start: want 2 back 0 | runs [] | 
        +2: want 2 back 0 | runs [a b] | 
        b=f: want 2 back 1 | runs [] | b=Failed
        a=c: want 2 back 2 | runs [] | a=Cancelled b=Failed | run Failed
    "#]],
    );
    check(
        "a b!- c",
        "+3 b=f c=e +4 c=e +5 c=e a=c",
        expect![[r#"
        start: want 3 back 0 | runs [] | 
        +3: want 3 back 0 | runs [a b c] | 
        b=f: want 3 back 1 | runs [c] | b=Failed
        c=e: want 4 back 2 | runs [] | b=Failed
        +4: want 4 back 2 | runs [c] | b=Failed
        c=e: want 5 back 3 | runs [] | b=Failed
        +5: want 5 back 3 | runs [c] | b=Failed
        c=e: want 5 back 4 | runs [] | b=Failed c=Errored
        a=c: want 5 back 5 | runs [] | a=Cancelled b=Failed c=Errored | run Errored
    "#]],
    );
}

#[test]
fn skipped_by_when_drags_its_dependants_and_counts_as_passed() {
    check(
        "a? b:a c",
        "+1 c=p",
        expect![[r#"
        start: want 1 back 0 | runs [] | a=Skipped b=Skipped
        +1: want 1 back 0 | runs [c] | a=Skipped b=Skipped
        c=p: want 1 back 1 | runs [] | a=Skipped b=Skipped c=Passed | run Passed
    "#]],
    );
}

#[test]
fn answers_under_an_old_lease_change_nothing() {
    let mut bench = Bench::new("a", false);
    bench.event(RunEvent::Granted { total: 1 });
    let old = bench.state.lease(JobIndex(0)).cloned().unwrap();
    bench.end("a", Outcome::Errored);
    bench.event(RunEvent::Granted { total: 2 });
    bench.event(RunEvent::JobEnded {
        lease: old,
        result: Box::new(JobResult::unrun(Outcome::Passed, "late")),
    });
    assert_eq!(bench.state.ended(), None);
    assert_eq!(bench.state.wanted().count(), 1);
}

#[test]
fn reports_and_names_of_failed_tests_stay_with_their_run() {
    let mut bench = Bench::new("a", false);
    bench.event(RunEvent::Granted { total: 1 });
    let lease = bench.state.lease(JobIndex(0)).cloned().unwrap();
    let failed_tests = vec!["test_login".to_owned()];
    let junit = Some(Digest([1; 32]));
    let result = JobResult { junit, failed_tests, ..JobResult::unrun(Outcome::Failed, "exit code 1") };
    bench.event(RunEvent::JobEnded { lease, result: Box::new(result) });
    let plan = Run::plan(&bench.state, Timestamp(bench.clock));
    let told = plan.effects.values().find_map(|effect| match effect {
        Effect::Send { message: Message::RunEnded(report), .. } => Some(report.jobs[0].result.clone()),
        _ => None,
    });
    assert_eq!(*told.unwrap(), JobResult::unrun(Outcome::Failed, "exit code 1"));
    let JobState::Done { result, .. } = &bench.state.jobs.map()[&0] else { panic!("it is over") };
    assert_eq!((result.junit, &result.failed_tests[..]), (junit, &["test_login".to_owned()][..]));
}

#[test]
fn a_chain_of_ten_thousand_falls_without_recursion() {
    let text: Vec<String> =
        (0..10_000).map(|at| if at == 0 { "j0".into() } else { format!("j{at}:j{}", at - 1) }).collect();
    let state = Bench::new("a", false).state;
    let jobs: Vec<JobSpec> = (0..text.len())
        .map(|at| JobSpec {
            name: format!("j{at}").parse().unwrap(),
            needs: if at == 0 { vec![] } else { vec![JobIndex(at as u32 - 1)] },
            ..state.graph.jobs[0].clone()
        })
        .collect();
    let start = RunStart { graph: jobs.into(), ..state.start().unwrap().clone() };
    let mut fresh = RunState::new(&CellId::Run(start.run.clone()));
    Run::apply(&mut fresh, &RunEvent::Start(Arc::new(start)), Timestamp(1));
    Run::apply(&mut fresh, &RunEvent::Granted { total: 1 }, Timestamp(2));
    let lease = fresh.lease(JobIndex(0)).cloned().unwrap();
    let result = Box::new(JobResult::unrun(Outcome::Failed, "no"));
    Run::apply(&mut fresh, &RunEvent::JobEnded { lease, result }, Timestamp(3));
    assert_eq!(fresh.ended(), Some((Outcome::Failed, Timestamp(3))));
}

#[test]
fn only_a_pass_after_a_fault_of_the_code_is_flaky() {
    let is_flaky = |tries: &[Outcome], last: Outcome| {
        let result = |outcome: &Outcome| Arc::new(JobResult::unrun(*outcome, "said so"));
        let tries = tries.iter().map(result).collect();
        JobState::Done { result: result(&last), tries, carried: None, at: Timestamp(0) }.is_flaky()
    };
    assert!(is_flaky(&[Outcome::Failed], Outcome::Passed));
    assert!(is_flaky(&[Outcome::Errored, Outcome::TimedOut], Outcome::Passed));
    assert!(!is_flaky(&[Outcome::Errored], Outcome::Passed));
    assert!(!is_flaky(&[], Outcome::Passed));
    assert!(!is_flaky(&[Outcome::Failed], Outcome::Failed));
}

#[test]
fn what_is_only_an_advice_before_landing_fails_no_run_there() {
    let outcome = |trigger: Trigger, on: &[Trigger], required: bool| {
        let mut bench = Bench::new("a b", false);
        let mut start = bench.state.start().unwrap().clone();
        let mut jobs = start.graph.jobs.to_vec();
        jobs[0] = JobSpec { on: on.to_vec(), required, ..jobs[0].clone() };
        (start.trigger, start.graph) = (trigger, jobs.into());
        bench.begin(start);
        bench.event(RunEvent::Granted { total: 2 });
        bench.end("a", Outcome::Failed);
        bench.end("b", Outcome::Passed);
        bench.state.ended().unwrap().0
    };
    let both = [Trigger::Change, Trigger::Queue];
    assert_eq!(outcome(Trigger::Change, &both, true), Outcome::Failed);
    assert_eq!(outcome(Trigger::Change, &both, false), Outcome::Passed);
    assert_eq!(outcome(Trigger::Queue, &both, false), Outcome::Passed);
    // Of the change's own run alone it is no advice, and nothing that runs after landing is one.
    assert_eq!(outcome(Trigger::Change, &[Trigger::Change], false), Outcome::Failed);
    assert_eq!(outcome(Trigger::Land, &[Trigger::Queue, Trigger::Land], false), Outcome::Failed);
}
