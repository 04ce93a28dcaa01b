//! `measure [CHANGES]`: how long one turn of a gate takes with so many open changes (1,000), for each kind of event.
//!
//! Every third change lacks an approval, every third has failed, and the rest is in the queue. The time is that of the
//! processor, so that other programs do not count. A turn should take 5 ms at most: the turns of all cells come one after
//! another, and a landing takes a dozen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use towpath_core::candidate::{Candidate, CandidateResult, CandidateSpec};
use towpath_core::cell::CellId;
use towpath_core::effect::Effect;
use towpath_core::gate::{
    Bell, ForgeChange, ForgeRead, Gate, GateConfig, GateEvent, Review, RevisionFacts, Snapshot, Tip, Verdict,
    message_digest,
};
use towpath_core::graph::{JobBody, JobGraph, JobResult, JobSpec, Outcome, Trigger};
use towpath_core::ids::{ChangeNumber, CommitId, Digest, Epoch, GateId, Timestamp, TreeId, UserId};
use towpath_core::message::{JobReport, Message, RunReport, RunStart};
use towpath_core::policy::{Rights, Role};
use towpath_core::turn::{Delivered, Dispatch, Intake, Live};

const CHANGES_DEFAULT: u64 = 1_000;
const MAINTAINER: UserId = UserId(1);
const AUTHOR: UserId = UserId(2);
/// Turns of one kind over which the mean is taken: the kernel counts in ticks of a few milliseconds.
const SAMPLES: u32 = 200;

/// A gate, and a world in which every effect is carried out at once.
struct World {
    gate: Live<Gate>,
    open: BTreeMap<ChangeNumber, ForgeChange>,
    seq: u64,
    /// The time of the newest turn.
    took: Duration,
    /// Whether jobs end by themselves.
    idle: bool,
    started: VecDeque<Arc<RunStart>>,
}

fn main() {
    let count = std::env::args().nth(1).map_or(CHANGES_DEFAULT, |text| text.parse().expect("a number"));
    let mut world = World::new(count);
    world.intake(Intake::Event(GateEvent::ForgeRead(Box::new(world.read()))));
    world.idle = true;
    let states: BTreeSet<String> = world
        .gate
        .state
        .changes()
        .values()
        .map(|change| {
            format!("{:?}", world.gate.state.test_state(change)).split('(').next().unwrap_or("").into()
        })
        .collect();
    println!(
        "{count} changes ({}), {} runs",
        Vec::from_iter(states).join(", "),
        world.gate.state.runs().len()
    );
    world.sample("nothing", |_| None);
    world.sample("a bell", |_| {
        let bell = Bell { state_changed: true, ..Bell::default() };
        Some(GateEvent::Bell(bell))
    });
    world.sample("a read that shows a new revision", |world| {
        let first = world.open.values_mut().next().expect("there are changes");
        first.revision.commit.0[19] = first.revision.commit.0[19].wrapping_add(1);
        Some(GateEvent::ForgeRead(Box::new(world.read())))
    });
    world.sample("the end of a run", |world| world.started.pop_front().map(|start| ended(&start)));
}

impl World {
    fn new(count: u64) -> World {
        let id = CellId::Gate("demo/main".parse::<GateId>().expect("a name"));
        let gate = Live::load(id, Epoch(1), &[], []).expect("no rows");
        let open = (1..=count).map(|number| (ChangeNumber(number), change(number))).collect();
        let mut world =
            World { gate, open, seq: 0, took: Duration::ZERO, idle: false, started: VecDeque::new() };
        let config = GateConfig { change_runs_max: u32::MAX, ..GateConfig::default() };
        world.intake(Intake::Event(GateEvent::Configured(Box::new(config))));
        world
    }

    fn sample(&mut self, what: &str, mut event: impl FnMut(&mut World) -> Option<GateEvent>) {
        let mut sum = Duration::ZERO;
        for _ in 0..SAMPLES {
            let intake = event(self).map(Intake::Event);
            self.turn(intake.as_slice());
            sum += self.took;
        }
        println!("{what}: {:.2} ms", (sum / SAMPLES).as_secs_f64() * 1e3);
    }

    fn turn(&mut self, intakes: &[Intake<GateEvent>]) -> VecDeque<Intake<GateEvent>> {
        let at = Timestamp(1_000_000 + self.seq as i64);
        let inbox: Vec<_> = intakes
            .iter()
            .map(|intake| {
                self.seq += 1;
                Delivered { seq: self.seq, at, intake: intake.clone() }
            })
            .collect();
        let begun = on_processor();
        let turn = self.gate.turn(&inbox, at);
        self.took = on_processor().saturating_sub(begun);
        let mut next = VecDeque::new();
        for (_, message) in &turn.write.messages {
            if let Message::Start(start) = message {
                match self.idle {
                    true => self.started.push_back(start.clone()),
                    false => next.push_back(Intake::Event(ended(start))),
                }
            }
        }
        for dispatch in turn.dispatch {
            let Dispatch::Do { key, token, effect } = dispatch else { continue };
            if let Some(result) = carry_out(&effect) {
                next.push_back(Intake::Done { key, token, result });
            }
        }
        next
    }

    fn intake(&mut self, first: Intake<GateEvent>) {
        let mut open = VecDeque::from([first]);
        while !open.is_empty() {
            let some: Vec<_> = open.drain(..open.len().min(256)).collect();
            open.extend(self.turn(&some));
        }
    }

    fn read(&self) -> ForgeRead {
        let rights = |role| Rights { role, authorised: true };
        let tip = Tip {
            commit: CommitId([1; 20]),
            tree: TreeId([1; 20]),
            time: Timestamp(0),
            settings: Ok(Default::default()),
        };
        ForgeRead {
            began: Timestamp(1_000_000 + self.seq as i64),
            snapshot: Snapshot {
                tip: Some(tip),
                keeps_landed: true,
                changes: self.open.values().cloned().collect(),
                people: BTreeMap::from([
                    (MAINTAINER, rights(Role::Maintainer)),
                    (AUTHOR, rights(Role::Author)),
                ]),
            },
        }
    }
}

/// How long this thread has been on a processor.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    Duration::from_nanos(text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number"))
}

fn change(number: u64) -> ForgeChange {
    let mut commit = CommitId([2; 20]);
    commit.0[..8].copy_from_slice(&number.to_be_bytes());
    let (title, body) = (format!("change {number}"), "why it is right\n".repeat(20));
    let review = Review {
        by: MAINTAINER,
        verdict: Verdict::Approve,
        revision: commit,
        target: "main".parse().expect("a name"),
        definition: None,
        message: message_digest(&title, &body),
        at: Timestamp(1),
    };
    ForgeChange {
        number: ChangeNumber(number),
        title,
        body,
        draft: false,
        labels: BTreeSet::new(),
        owner: AUTHOR,
        revision: RevisionFacts {
            commit,
            number: 1,
            time: Timestamp(0),
            uploader: AUTHOR,
            stack_uploaders: BTreeSet::new(),
        },
        reviews: if number.is_multiple_of(3) { vec![] } else { vec![review] },
    }
}

fn carry_out(effect: &Effect) -> Option<Option<GateEvent>> {
    match effect {
        Effect::MakeCandidate { id, spec, .. } => {
            let result = Box::new(CandidateResult::Made(candidate(spec)));
            Some(Some(GateEvent::CandidateMade { id: *id, result }))
        }
        Effect::ReadGraph { commit, .. } => {
            Some(Some(GateEvent::GraphRead { commit: *commit, graph: Ok(graph()) }))
        }
        Effect::SetCheck { .. } => Some(None),
        // The branch stays where it is, so that every turn has as much to look at.
        _ => None,
    }
}

fn candidate(spec: &CandidateSpec) -> Candidate {
    let mixed = Digest::of_fields([&spec.parent.0[..], &spec.revision.0]).0;
    Candidate {
        commit: CommitId(std::array::from_fn(|at| mixed[at])),
        tree: TreeId(std::array::from_fn(|at| mixed[at + 12])),
        changed_paths: 1,
        target_definition: Digest([0; 32]),
        definition: Digest([0; 32]),
        graph: graph(),
    }
}

fn graph() -> JobGraph {
    let job = |name: &str| JobSpec {
        name: name.parse().expect("a name"),
        base: name.parse().expect("a name"),
        origin: Default::default(),
        on: vec![Trigger::Change, Trigger::Queue],
        required: true,
        needs: vec![],
        aborts: vec![],
        skip: None,
        body: Arc::new(JobBody::script("make check")),
    };
    JobGraph { jobs: Arc::new([job("lint"), job("unit"), job("docs")]), budget_seconds: None }
}

/// A run's end: that of every third change failed.
fn ended(start: &RunStart) -> GateEvent {
    let failed = start.change.is_some_and(|(number, _)| number.0 % 3 == 1);
    let digests = start.graph.digests();
    let report = |(job, spec): (towpath_core::graph::JobIndex, &JobSpec)| {
        let outcome = if failed && job.0 == 1 { Outcome::Failed } else { Outcome::Passed };
        JobReport {
            job,
            name: spec.name.to_string(),
            digest: digests[job.0 as usize],
            result: Arc::new(JobResult::unrun(outcome, "")),
            carried: None,
        }
    };
    let outcome = if failed { Outcome::Failed } else { Outcome::Passed };
    let jobs = start.graph.iter().map(report).collect();
    GateEvent::RunEnded(Arc::new(RunReport { run: start.run.clone(), outcome, jobs }))
}
