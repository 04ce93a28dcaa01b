//! Small stories without chance, each cut at every step of the server: whatever dies wherever, the end is the same.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use towpath_core::gate::{RetryScope, Verb, Verdict};
use towpath_core::ids::{ChangeNumber, CommitId, GateId, Timestamp, UserId};

use crate::fake::definition;
use crate::fake::forge::{ChangeState, Pusher, Shown};
use crate::fake::git::DEFINITION;
use crate::mutant::Mutant;
use crate::report::Violation;
use crate::run::threads_or_all;
use crate::world::World;
use crate::world::people::{ADMIN, AUTHORS, MAINTAINERS, OUTSIDERS};

/// One story: what people do, and what must have come of it once everything is at rest.
struct Story {
    name: &'static str,
    play: fn(&mut World),
    /// A bug that shows in no other one, and would be rare in worlds of chance.
    shows: Option<Mutant>,
    /// Changes that have landed, in any order.
    lands: fn(&World) -> Result<(), String>,
}

const fn story(name: &'static str, play: fn(&mut World), lands: fn(&World) -> Result<(), String>) -> Story {
    Story { name, play, shows: None, lands }
}

impl Story {
    const fn shows(self, mutant: Mutant) -> Story {
        Story { shows: Some(mutant), ..self }
    }
}

/// The first change has landed, and no other.
const FIRST: fn(&World) -> Result<(), String> = |world| landed(world, &[1]);

/// Milliseconds that every job of a story has ended in.
const LONG: i64 = 4_000_000;
/// Milliseconds in which a candidate is made and its jobs have begun.
const SHORT: i64 = 20_000;
/// The seed of every story: chance decides only latencies.
const SEED: u64 = 7;
/// Values of a file: one that every job takes, one that fails, two that fail together.
const GOOD: u32 = 14;
const BAD: u32 = 10;
const SKEWED: [u32; 2] = [8, 15];

const STORIES: [Story; 15] = [
    story(
        "land one",
        |world| {
            world.tell_approved(1, GOOD);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "a failing change",
        |world| {
            world.tell_approved(1, BAD);
            world.pass(LONG);
        },
        |world| landed(world, &[]),
    ),
    story(
        "two in conflict",
        |world| {
            let both = [world.tell_change(1, GOOD), world.tell_change(1, GOOD + 1)];
            both.into_iter().for_each(|change| world.tell_approval(change));
            world.pass(LONG);
        },
        one_of_two,
    ),
    story(
        "two that fail only together",
        |world| {
            let both = [world.tell_change(1, SKEWED[0]), world.tell_change(2, SKEWED[1])];
            both.into_iter().for_each(|change| world.tell_approval(change));
            world.pass(LONG);
        },
        one_of_two,
    ),
    story(
        "a flaky run and its retry",
        |world| {
            world.faults.job_flaky = 1_000;
            let change = world.tell_approved(1, GOOD);
            world.pass(LONG);
            world.faults.job_flaky = 0;
            world.tell_retry(change);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "a cancelled run and its retry",
        |world| {
            let change = world.tell_approved(1, GOOD);
            world.pass(SHORT);
            world.tell(Verb::Cancel { run: 1, why: "stop".into() });
            world.pass(SHORT);
            world.tell_retry(change);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "a foreign push while it is tested and landed",
        |world| {
            let change = world.tell_approved(1, GOOD);
            world.until_passed(change);
            world.tell_push(3, GOOD);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "a freeze at the claim, and its end",
        |world| {
            let change = world.tell_approved(1, GOOD);
            world.until_passed(change);
            world.tell(Verb::Freeze { why: "release".into() });
            world.pass(LONG);
            world.tell(Verb::Unfreeze);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "a new revision while the old one runs",
        |world| {
            let change = world.tell_approved(1, BAD);
            world.pass(SHORT);
            world.tell_revision(change, 1, GOOD);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "an outsider, vouched for and then approved",
        |world| {
            let change = world.tell_change_by(1, GOOD, OUTSIDERS[0]);
            world.pass(SHORT);
            let revision = world.forge.changes[&change].facts.revision.commit;
            let expires = Timestamp(world.intake_time().0 + LONG * 10);
            world.tell(Verb::Vouch { change, revision, definition: None, why: "read it".into(), expires });
            world.pass(LONG);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "an outsider's definition, approved before it was shown and after",
        |world| {
            let change = world.tell_change_by(DEFINITION, definition::aborting(), OUTSIDERS[0]);
            world.tell_approval_of(change, Shown::NoDefinition);
            world.pass(LONG);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::EverybodyIsShownAll),
    story(
        "everything runs again before it lands",
        |world| {
            let change = world.tell_change(1, GOOD);
            world.pass(LONG);
            world.tell_retry_of(change, RetryScope::All);
            world.pass(LONG);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::RetriesKeepEverything),
    story(
        "a failure of the same tree that is newer than the pass",
        |world| {
            let [change, twin] = world.tell_twins();
            world.faults.job_flaky = 1_000;
            world.tell_retry_of(twin, RetryScope::All);
            world.pass(LONG);
            world.faults.job_flaky = 0;
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::FailuresAreForgotten),
    story(
        "a job is made again, and what is made of it is stopped",
        |world| {
            let [change, twin] = world.tell_twins();
            world.tell_retry_of(twin, RetryScope::Job("wheel".into()));
            world.until_running("integ");
            world.tell(Verb::Cancel { run: 3, why: "stop".into() });
            world.pass(LONG);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::StoppedIsPassed),
    story(
        "a job that another one aborts, and a revision that mends it",
        |world| {
            world.tell_approved(DEFINITION, definition::aborting());
            world.pass(LONG);
            let change = world.tell_approved(9, BAD);
            world.pass(LONG);
            world.tell_revision(change, 9, GOOD);
            world.tell_approval(change);
            world.pass(LONG);
        },
        |world| landed(world, &[1, 2]),
    )
    .shows(Mutant::AbortedIsPassed),
];

/// What came of the sweep.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SweepSummary {
    /// Stories.
    pub stories: usize,
    /// Steps at which a server can die, over all stories.
    pub points: u64,
    /// Worlds that were played.
    pub runs: u64,
    /// What was broken, with the story and the cut.
    pub violations: Vec<(String, Violation)>,
}

impl SweepSummary {
    /// Whether every story ended as it should, wherever it was cut.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for SweepSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (story, violation) in &self.violations {
            writeln!(f, "{story}: {} is broken: {}", violation.invariant, violation.what)?;
        }
        let SweepSummary { stories, points, runs, violations } = self;
        write!(f, "stories {stories}, steps {points}, runs {runs}, violations {}", violations.len())
    }
}

/// How a story is disturbed.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Not at all.
    None,
    /// Every effect is carried out twice.
    Twice,
    /// The server dies at this step.
    At(u64),
    /// It dies there, and again so many steps later.
    TwiceAt(u64, u64),
}

/// Plays every story whole and with every effect done twice, and cut at every step; of the cuts, each `every`-th is
/// played, so that 1 is all of them. With no number of threads, one for each processor.
pub fn sweep(threads: usize, every: usize) -> SweepSummary {
    let threads = threads_or_all(threads);
    let mut summary = SweepSummary { stories: STORIES.len(), ..SweepSummary::default() };
    let mut cuts: Vec<(usize, Cut)> = Vec::new();
    let mut whole: Vec<(usize, Cut)> = Vec::new();
    for (at, story) in STORIES.iter().enumerate() {
        let points = play(story, Cut::None, None).0;
        summary.points += points;
        whole.extend([(at, Cut::None), (at, Cut::Twice)]);
        cuts.extend((1..=points).map(|point| (at, Cut::At(point))));
        cuts.extend((1..=points).step_by(3).map(|point| (at, Cut::TwiceAt(point, 1 + point % 5))));
    }
    let cuts: Vec<(usize, Cut)> = whole.into_iter().chain(cuts.into_iter().step_by(every.max(1))).collect();
    summary.runs = cuts.len() as u64;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, cut)) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let story = &STORIES[*at];
                    let name = format!("{}, cut {cut:?}", story.name);
                    let broken =
                        play(story, *cut, None).1.into_iter().map(|violation| (name.clone(), violation));
                    found.lock().expect("invariant: no holder panics").extend(broken);
                }
            });
        }
    });
    summary.violations = found.into_inner().expect("invariant: no holder panics");
    summary.violations.sort_by(|one, other| one.0.cmp(&other.0));
    summary
}

/// Plays the story in which a planted bug shows, if it has one; returns what was broken.
pub fn play_planted(mutant: Mutant) -> Option<Vec<Violation>> {
    let story = STORIES.iter().find(|story| story.shows == Some(mutant))?;
    Some(play(story, Cut::None, Some(mutant)).1)
}

/// Plays one story; returns the steps that it had and what was broken.
fn play(story: &Story, cut: Cut, mutant: Option<Mutant>) -> (u64, Vec<Violation>) {
    let mut world = World::new(SEED, &["main"]);
    world.mutant = mutant;
    world.open();
    world.pass(SHORT);
    world.points = 0;
    match cut {
        Cut::None => {}
        Cut::Twice => world.twice = true,
        Cut::At(point) => world.crash_at = Some(point),
        Cut::TwiceAt(point, later) => {
            world.crash_at = Some(point);
            world.crash_again = Some(later);
        }
    }
    (story.play)(&mut world);
    let points = world.points;
    world.finish(true);
    if world.checks.violations.is_empty()
        && let Err(what) = (story.lands)(&world)
    {
        world.violate("I12", what);
    }
    (points, world.checks.violations)
}

/// Changes that landed before the world was probed.
fn landed_changes(world: &World) -> Vec<u64> {
    let pushes = world.forge.branches.values().flat_map(|branch| &branch.pushes);
    let mut landed: Vec<u64> = pushes
        .filter_map(|push| match push.by {
            Pusher::Us(change) if world.forge.changes[&change].facts.title.starts_with("story") => {
                Some(change.0)
            }
            _ => None,
        })
        .collect();
    landed.sort_unstable();
    landed
}

fn landed(world: &World, expected: &[u64]) -> Result<(), String> {
    let landed = landed_changes(world);
    match landed == expected {
        true => Ok(()),
        false => Err(format!("landed are {landed:?}, not {expected:?}")),
    }
}

fn one_of_two(world: &World) -> Result<(), String> {
    match landed_changes(world).as_slice() {
        [1] | [2] => Ok(()),
        landed => Err(format!("landed are {landed:?}, not one of two")),
    }
}

impl World {
    fn pass(&mut self, ms: i64) {
        self.run_until(self.now + ms);
    }

    fn main(&self) -> GateId {
        self.gates[0].clone()
    }

    /// A commit on top of main with another value in one file.
    fn commit_on_main(&mut self, (path, value): (usize, u32), why: &'static str) -> CommitId {
        let branch = self.main().branch;
        let tip = self.forge.branch(&branch).tip;
        let mut files = self.forge.git.get(tip).files;
        files[path] = value;
        self.forge.git.commit(&[tip], files, (why, self.now))
    }

    fn tell_change(&mut self, path: usize, value: u32) -> ChangeNumber {
        self.tell_change_by(path, value, AUTHORS[0])
    }

    fn tell_change_by(&mut self, path: usize, value: u32, by: UserId) -> ChangeNumber {
        let gate = self.main();
        let head = self.commit_on_main((path, value), "story");
        let number = self.forge.propose(&gate.branch, head, by);
        let change = self.forge.changes.get_mut(&number).expect("invariant: it was just made");
        change.facts.title = format!("story {number}");
        self.ring(&gate);
        number
    }

    fn tell_revision(&mut self, number: ChangeNumber, path: usize, value: u32) {
        if self.forge.changes[&number].state != ChangeState::Open {
            return;
        }
        let gate = self.main();
        let head = self.commit_on_main((path, value), "story again");
        self.forge.revise(number, head, AUTHORS[0]);
        self.ring(&gate);
    }

    /// A change that is approved at once.
    fn tell_approved(&mut self, path: usize, value: u32) -> ChangeNumber {
        let change = self.tell_change(path, value);
        self.tell_approval(change);
        change
    }

    fn tell_approval(&mut self, number: ChangeNumber) {
        self.tell_approval_of(number, Shown::Definition);
    }

    fn tell_approval_of(&mut self, number: ChangeNumber, shown: Shown) {
        let seen = (self.forge.changes[&number].facts.revision.commit, shown);
        self.forge.review(number, (MAINTAINERS[0], Verdict::Approve), seen, Timestamp(self.now));
        let gate = self.main();
        self.ring(&gate);
    }

    fn tell_push(&mut self, path: usize, value: u32) {
        let gate = self.main();
        let to = self.commit_on_main((path, value), "foreign");
        self.forge.push(&gate.branch, to, Pusher::Person);
        self.ring(&gate);
    }

    /// A person insists: where no server answers, the person tries again.
    fn tell(&mut self, verb: Verb) {
        while self.leader().is_none() && self.checks.violations.is_empty() {
            self.pass(SHORT);
        }
        let gate = self.main();
        self.command(&gate, ADMIN, verb);
    }

    fn tell_retry(&mut self, change: ChangeNumber) {
        self.tell_retry_of(change, RetryScope::NotPassed);
    }

    fn tell_retry_of(&mut self, change: ChangeNumber, scope: RetryScope) {
        if self.forge.changes[&change].state == ChangeState::Open {
            let revision = self.forge.changes[&change].facts.revision.commit;
            self.tell(Verb::Retry { change, revision, scope });
        }
    }

    /// Two changes with one commit and title; the first one's run has passed, and the other one's has taken that over.
    fn tell_twins(&mut self) -> [ChangeNumber; 2] {
        let change = self.tell_change(1, GOOD);
        self.pass(LONG);
        let gate = self.main();
        let head = self.forge.changes[&change].facts.revision.commit;
        let twin = self.forge.propose(&gate.branch, head, AUTHORS[1]);
        // Results are about what their jobs were told, too.
        let title = self.forge.changes[&change].facts.title.clone();
        self.forge.changes.get_mut(&twin).expect("invariant: it was just made").facts.title = title;
        self.ring(&gate);
        self.pass(LONG);
        [change, twin]
    }

    fn until_running(&mut self, script: &str) {
        let deadline = self.now + LONG;
        let runs = |world: &World| {
            let running = world.executor.running();
            running.iter().any(|lease| world.executor.jobs[lease].script.starts_with(script))
        };
        while self.now < deadline && self.checks.violations.is_empty() && !runs(self) {
            self.pass(10);
        }
    }

    /// Up to just about the moment at which a change is claimed for landing.
    fn until_passed(&mut self, change: ChangeNumber) {
        let deadline = self.now + LONG;
        while self.now < deadline && self.checks.violations.is_empty() {
            if self.executor.running().is_empty() && self.checks.was_started_for(change) {
                return;
            }
            self.pass(10);
        }
    }
}
