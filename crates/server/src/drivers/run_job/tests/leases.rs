//! What the server takes a job for before it prepares it, gives it away, stops it or makes up its end.

use std::time::Instant;

use towpath_core::outbox::TroubleClass;
use towpath_executor::protocol::StopMode;

use super::*;

const PASSED: &str = "exit code 0";

/// A job with the files of a repository that is not there: preparing it goes wrong.
fn unpreparable(name: &str) -> JobSpec {
    let body = JobBody { checkout: true, ..(*job(name).body).clone() };
    JobSpec { body: Arc::new(body), ..job(name) }
}

fn unacked(lease: LeaseId) -> Leases {
    Leases { active: Vec::new(), unacked: vec![lease] }
}

impl World {
    /// A run of one job, which it asks for.
    fn wanted(&self, job: JobSpec) -> (Wanted, LeaseId) {
        let wanted = self.run(1, vec![job]).remove(0);
        let lease = self.lease(&wanted);
        (wanted, lease)
    }

    fn start(&self, wanted: &Wanted) {
        self.jobs.start(&self.engine, wanted.clone());
    }

    fn cancel(&self, wanted: &Wanted) {
        self.jobs.cancel(&self.engine, wanted.clone());
    }

    /// The executor has heard everything by now; nothing of it was of the job.
    fn hears_nothing(&self) {
        self.executor().cancel(&OTHER);
        assert_eq!(self.peer.heard(), ToExecutor::Cancel { lease: OTHER });
    }

    /// The executor says how the only job ended, and that counts.
    fn ends_as_told(&self, lease: LeaseId) {
        self.peer.say(&ended(lease, Outcome::Passed, PASSED));
        assert_eq!(self.ends(1), [("a".to_owned(), Outcome::Passed, PASSED.to_owned())]);
        assert_eq!(self.peer.heard(), ToExecutor::Ack { leases: vec![lease] });
    }

    fn is_cancelled_before_it_began(&self) {
        let why = "cancelled before it began".to_owned();
        assert_eq!(self.ends(1), [("a".to_owned(), Outcome::Cancelled, why)]);
    }
}

#[test]
fn a_job_that_is_cancelled_before_an_executor_is_found_stops_there_and_ends_as_it_says() {
    let mut world = World::new();
    let (wanted, lease) = world.wanted(job("a"));
    world.cancel(&wanted);
    world.connect(active(lease));
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease });
    world.hears_nothing();
    world.ends_as_told(lease);
}

#[test]
fn a_job_that_an_executor_turned_out_to_have_is_cancelled_there_and_ends_as_it_says() {
    let mut world = World::new();
    let (wanted, lease) = world.wanted(job("a"));
    world.connect(active(lease));
    world.cancel(&wanted);
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease });
    world.hears_nothing();
    world.ends_as_told(lease);
}

#[test]
fn the_end_that_an_executor_has_counts_though_its_job_is_cancelled() {
    for is_found_first in [false, true] {
        let mut world = World::new();
        let (wanted, lease) = world.wanted(job("a"));
        if is_found_first {
            world.connect(unacked(lease));
        }
        world.cancel(&wanted);
        if !is_found_first {
            world.connect(unacked(lease));
        }
        world.ends_as_told(lease);
    }
}

#[test]
fn a_cancelled_job_ends_by_itself_once_it_is_known_that_no_executor_has_it() {
    let mut world = World::new();
    let (wanted, _) = world.wanted(job("a"));
    world.cancel(&wanted);
    assert!(!world.jobs.lock().held.is_empty(), "it is not over yet");
    world.connect(Leases::default());
    world.is_cancelled_before_it_began();
}

#[test]
fn a_job_that_an_executor_has_is_neither_prepared_again_nor_stopped_as_that_goes_wrong() {
    for is_found_first in [false, true] {
        let mut world = World::new();
        let (wanted, lease) = world.wanted(unpreparable("a"));
        if is_found_first {
            world.connect(active(lease));
        }
        world.start(&wanted);
        if !is_found_first {
            world.connect(active(lease));
        }
        world.jobs.all_claimed();
        world.hears_nothing();
        world.ends_as_told(lease);
    }
}

#[test]
fn a_job_that_went_down_with_its_connection_is_given_to_the_next_executor() {
    let mut world = World::new();
    world.connect(Leases::default());
    let (wanted, lease) = world.wanted(job("a"));
    world.start(&wanted);
    for _ in 0..2 {
        assert!(matches!(world.peer.heard(), ToExecutor::Start { spec } if spec.lease == lease));
        world.connect(Leases::default());
    }
    assert!(matches!(world.peer.heard(), ToExecutor::Start { spec } if spec.lease == lease));
    world.ends_as_told(lease);
}

#[test]
fn a_job_that_went_down_with_its_connection_and_is_cancelled_has_never_begun() {
    let mut world = World::new();
    world.connect(Leases::default());
    let (wanted, lease) = world.wanted(job("a"));
    world.start(&wanted);
    assert!(matches!(world.peer.heard(), ToExecutor::Start { spec } if spec.lease == lease));
    world.cancel(&wanted);
    world.connect(Leases::default());
    world.is_cancelled_before_it_began();
}

#[test]
fn a_job_whose_repository_is_not_to_be_used_now_is_tried_again_later() {
    let mut world = World::new();
    world.jobs.sources.repos.refuse(&run(1).gate.repo);
    world.connect(Leases::default());
    let (wanted, _) = world.wanted(unpreparable("a"));
    world.start(&wanted);
    let trouble = world.trouble(&wanted);
    assert_eq!((trouble.class, trouble.tries), (TroubleClass::Transient, 1));
    world.hears_nothing();
}

#[test]
fn a_job_that_may_not_begin_for_a_minute_ends_and_frees_its_slot() {
    let mut world = World::new();
    world.jobs.sources.repos.refuse(&run(1).gate.repo);
    world.connect(Leases::default());
    let (wanted, lease) = world.wanted(unpreparable("a"));
    let mut state = world.jobs.lock();
    for _ in 0..TRIES_MAX {
        state.start(lease, wanted.clone());
        state.give_back(&lease);
    }
    drop(state);
    world.start(&wanted);
    let [(_, outcome, why)] = &world.ends(1)[..] else { panic!("one end") };
    assert!(*outcome == Outcome::Errored && why.contains("has not put this repository right"), "{why}");
    // Its end is told before it is forgotten.
    let until = Instant::now() + PATIENCE;
    while world.jobs.lock().is_open(&lease) {
        assert!(Instant::now() < until, "its slot stays taken");
        std::thread::yield_now();
    }
}

impl World {
    /// The server finds an executor that it does not want, with these jobs.
    fn connect_to_another(&mut self, leases: Leases) {
        self.peer.slots = SLOTS + 2;
        self.connect(leases);
        self.peer.slots = SLOTS;
        assert_eq!(self.peer.heard(), ToExecutor::Stop { mode: StopMode::WhenIdle });
        assert_eq!(self.peer.heard(), ToExecutor::List);
    }

    fn capacity(&self) -> u64 {
        self.jobs.capacity(&self.jobs.lock())
    }

    /// Everything that the store has refused by now has had its next try.
    fn rest(&self) {
        let (rested, has_rested) = channel();
        self.engine.after_rest(Box::new(move |_| rested.send(()).unwrap()));
        has_rested.recv_timeout(PATIENCE).expect("a rest ends in time");
    }
}

#[test]
fn an_executor_that_runs_jobs_otherwise_ends_with_those_it_has_and_its_successor_is_given_the_others() {
    let mut world = World::new();
    let jobs = world.run(1, vec![job("a"), job("b"), job("c")]);
    let leases: Vec<LeaseId> = jobs.iter().map(|wanted| world.lease(wanted)).collect();
    jobs[..2].iter().for_each(|wanted| world.start(wanted));
    world.connect_to_another(Leases { active: leases[..2].to_vec(), unacked: Vec::new() });
    assert_eq!(world.capacity(), 0, "whoever comes now waits in the pool");
    // The second one waited for a slot there, and is let go of.
    world.peer.say(&FromExecutor::Leases(active(leases[0])));
    world.start(&jobs[2]);
    world.peer.say(&ended(leases[0], Outcome::Passed, PASSED));
    assert_eq!(world.peer.heard(), ToExecutor::Ack { leases: vec![leases[0]] });
    world.hears_nothing();

    world.connect(Leases::default());
    let mut given = [world.peer.heard_start().lease, world.peer.heard_start().lease];
    given.sort_unstable();
    let mut expected = [leases[1], leases[2]];
    expected.sort_unstable();
    assert_eq!(given, expected);
    assert!(world.capacity() > 0);
    leases[1..].iter().for_each(|lease| world.peer.say(&ended(*lease, Outcome::Passed, PASSED)));
    assert!(world.ends(1).iter().all(|(_, outcome, _)| *outcome == Outcome::Passed));
}

#[test]
fn an_executor_is_asked_what_it_still_has_once_its_answer_is_heard() {
    let mut world = World::new();
    let (wanted, lease) = world.wanted(job("a"));
    world.start(&wanted);
    let answered = world.look_for_executor();
    let state = world.jobs.lock();
    world.peer.slots = SLOTS + 2;
    world.peer.welcome(active(lease));
    assert!(!world.peer.hears_soon(), "it is not the server's executor yet");
    drop(state);
    assert_eq!(world.peer.heard(), ToExecutor::Stop { mode: StopMode::WhenIdle });
    assert_eq!(world.peer.heard(), ToExecutor::List);
    assert!(matches!(answered.recv_timeout(PATIENCE).unwrap(), Ok(Standing::Leaves { jobs: 1, .. })));
    world.cancel(&wanted);
    assert_eq!(world.peer.heard(), ToExecutor::Cancel { lease });
    // It has let go of the job before it heard that, and has no word of it.
    world.peer.say(&FromExecutor::Leases(Leases::default()));
    world.is_cancelled_before_it_began();
}

#[test]
fn a_disk_that_fails_leaves_no_word_of_an_executor_that_is_gone_as_the_last_one() {
    let mut world = World::new();
    let held = world.hold_writes();
    world.connect_to_another(active(OTHER));
    // Beside it, that none runs jobs is refused as well.
    let (refuse, refused) = channel();
    let fail = |_: &mut towpath_store::Tx<'_>| {
        Err::<(), _>(WriteError::Io { why: "refused, as this test wants".into() })
    };
    world.engine.writer().submit(Load::default(), fail, move |outcome| drop(refuse.send(outcome)));
    drop(held);
    assert!(refused.recv_timeout(PATIENCE).expect("it is refused in time").is_err());
    world.connect(Leases::default());
    world.rest();
    let (wanted, lease) = world.wanted(job("a"));
    world.start(&wanted);
    assert_eq!(world.peer.heard_start().lease, lease);
    world.ends_as_told(lease);
}

#[test]
fn a_job_that_waits_for_the_next_executor_is_cancelled_at_once() {
    for is_asked_first in [true, false] {
        let mut world = World::new();
        let (wanted, _) = world.wanted(job("a"));
        world.connect_to_another(active(OTHER));
        if is_asked_first {
            world.start(&wanted);
        }
        world.cancel(&wanted);
        world.is_cancelled_before_it_began();
    }
}

#[test]
fn an_executor_that_runs_jobs_otherwise_and_has_none_is_replaced_before_jobs_can_run() {
    let mut world = World::new();
    let answered = world.look_for_executor();
    world.peer.slots = SLOTS + 2;
    world.peer.welcome(Leases::default());
    assert_eq!(world.peer.heard(), ToExecutor::Stop { mode: StopMode::WhenIdle });
    assert!(answered.try_recv().is_err());
    world.peer.slots = SLOTS;
    world.peer.stream = None;
    world.peer.welcome(Leases::default());
    assert_eq!(answered.recv_timeout(PATIENCE).unwrap().unwrap(), Standing::Serves);
    let (wanted, lease) = world.wanted(job("a"));
    world.start(&wanted);
    assert_eq!(world.peer.heard_start().lease, lease);
    world.ends_as_told(lease);
}
