//! The stories: what people do in each, and what has to come of it.

use towpath_core::cell::CellId;
use towpath_core::gate::{RetryScope, Verb, Verdict};
use towpath_core::ids::{ChangeNumber, CommitId, Digest, GateId, Timestamp, UserId};

use crate::fake::definition;
use crate::fake::forge::{ChangeState, Pusher, Shown};
use crate::fake::git::DEFINITION;
use crate::faults::Strike;
use crate::mutant::Mutant;
use crate::world::World;
use crate::world::people::{ADMIN, AUTHORS, MAINTAINERS, OUTSIDERS};

/// One story: what people do, and what must have come of it once everything is at rest.
pub(super) struct Story {
    pub(super) name: &'static str,
    pub(super) branches: &'static [&'static str],
    pub(super) play: fn(&mut World),
    /// A bug that shows in no other one, and would be rare in worlds of chance.
    pub(super) shows: Option<Mutant>,
    /// Changes that have landed, in any order.
    pub(super) lands: fn(&World) -> Result<(), String>,
}

const fn story(name: &'static str, play: fn(&mut World), lands: fn(&World) -> Result<(), String>) -> Story {
    Story { name, branches: &["main"], play, shows: None, lands }
}

impl Story {
    const fn shows(self, mutant: Mutant) -> Story {
        Story { shows: Some(mutant), ..self }
    }

    const fn on(self, branches: &'static [&'static str]) -> Story {
        Story { branches, ..self }
    }
}

/// The first change has landed, and no other.
const FIRST: fn(&World) -> Result<(), String> = |world| landed(world, &[1]);

/// Milliseconds that every job of a story has ended in.
const LONG: i64 = 4_000_000;
/// Milliseconds in which a candidate is made and its jobs have begun.
pub(super) const SHORT: i64 = 20_000;
/// Values of a file: one that every job takes, one that fails, two that fail together.
const GOOD: u32 = 14;
const BAD: u32 = 10;
const SKEWED: [u32; 2] = [8, 15];

pub(super) const STORIES: [Story; 23] = [
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
            world.tell_vouch(change, None, LONG * 10);
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
    story(
        "a landing that the forge confirms and that is not there",
        |world| {
            world.faults.forge_lies = 1_000;
            world.tell_approved(1, GOOD);
            world.pass(LONG);
            world.faults.forge_lies = 0;
            world.tell(Verb::Unfreeze);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::LackingIsMoved),
    story(
        "a vouch for another definition than the one that is made",
        |world| {
            let change = world.tell_change_by(DEFINITION, definition::aborting(), OUTSIDERS[0]);
            world.pass(SHORT);
            let other = world.forge.definition_of(world.forge.branch(&world.main().branch).tip);
            world.tell_vouch(change, Some(other), LONG);
            world.pass(LONG);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::VouchesAreForAnyDefinition),
    story(
        "a vouch that ends before the run that it allows",
        |world| {
            let change = world.tell_change_by(1, GOOD, OUTSIDERS[0]);
            world.pass(SHORT);
            world.tell_vouch(change, None, SHORT);
            world.pass(LONG);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::VouchesNeverEnd),
    story(
        "a restore while what has landed waits for its deployment",
        |world| {
            world.tell_approved(1, GOOD);
            world.until_row(|key, row| key == "branch" && row.contains("\"wanted\":["));
            world.strike(Strike::Restored);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::RestoresAreDiskFailures),
    story(
        "a restore while a landing is under way",
        |world| {
            world.tell_approved(1, GOOD);
            world.until_row(|key, _| key.starts_with("landing/"));
            world.strike(Strike::Restored);
            world.pass(LONG);
        },
        FIRST,
    )
    .shows(Mutant::LandingsDoNotHearOfRestores),
    story(
        "a restore while a landing is under way, and pushes that leave the branch where it was",
        |world| {
            world.tell_approved(1, GOOD);
            world.until_row(|key, _| key.starts_with("landing/"));
            world.strike(Strike::Restored);
            world.until_row(|key, row| key == "branch" && row.contains("\"maybe_done\":[\""));
            world.tell_push(3, GOOD);
            world.until("a landing that is given up", |world| {
                world.rows_of_main().all(|(key, _)| !key.starts_with("landing/"))
            });
            world.tell_push_back();
            world.pass(LONG);
        },
        FIRST,
    ),
    story(
        "a change that was elsewhere, and held there, while a landing that outlives its server was on its way",
        |world| {
            world.tell(Verb::Freeze { why: "release".into() });
            let change = world.tell_approved(1, GOOD);
            world.pass(LONG);
            (world.faults.landing_slow, world.faults.request_outlives_server) = (1_000, 1_000);
            world.tell(Verb::Unfreeze);
            world.until_row(|key, _| key.starts_with("landing/"));
            world.strike(Strike::Crash);
            (world.faults.landing_slow, world.faults.request_outlives_server) = (0, 0);
            world.tell_held_elsewhere(change);
            world.pass(LONG);
        },
        |world| landed(world, &[]).or_else(|_| landed(world, &[1])),
    )
    .on(&["main", "release"])
    .shows(Mutant::MovesAreForgotten),
    story(
        "a hold by somebody who has not seen the change go, where it was",
        |world| {
            let change = world.tell_change(1, GOOD);
            world.pass(SHORT);
            world.tell_moved(change);
            world.tell(Verb::Hold { change, why: "not there".into() });
            world.pass(SHORT);
            world.tell_approval(change);
            world.pass(LONG);
        },
        FIRST,
    )
    .on(&["main", "release"])
    .shows(Mutant::DeparturesAreNotHeard),
];

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
    /// Time passes.
    pub(super) fn pass(&mut self, ms: i64) {
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

    /// Somebody takes the newest push to main back.
    fn tell_push_back(&mut self) {
        let gate = self.main();
        let newest = self.forge.branch(&gate.branch).pushes.last();
        let before = newest.expect("invariant: the story has pushed").from;
        self.forge.push(&gate.branch, before, Pusher::Person);
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

    /// A change goes to the other branch and arrives there, of which the first one hears by that one and its own looks only.
    fn tell_moved(&mut self, change: ChangeNumber) {
        let other = self.gates[1].clone();
        if self.forge.retarget((ADMIN, change), &other.branch, (None, self.intake_time())) {
            self.ring(&other);
            self.until("a change that has come", |world| world.has_moved(change));
        }
    }

    fn has_moved(&self, change: ChangeNumber) -> bool {
        let came = self.forge.changes[&change].facts.came.as_ref();
        self.gate_state(&self.gates[1]).is_some_and(|state| state.has_arrived(change, came))
    }

    /// It is held there, and comes back.
    fn tell_held_elsewhere(&mut self, change: ChangeNumber) {
        let [main, other] = [self.gates[0].clone(), self.gates[1].clone()];
        self.tell_moved(change);
        self.command(&other, ADMIN, Verb::Hold { change, why: "not yet".into() });
        // Its giver has been answered by then.
        self.pass(3_000);
        let came = self.forge.changes[&change].facts.came.clone();
        if came.is_some() && self.has_moved(change) {
            self.forge.retarget((ADMIN, change), &main.branch, (came.as_ref(), self.intake_time()));
        }
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
        self.until("a job that runs", |world| {
            let running = world.executor.running();
            running.iter().any(|lease| world.executor.jobs[lease].script.starts_with(script))
        });
    }

    /// A maintainer vouches for the newest revision, for so long.
    fn tell_vouch(&mut self, change: ChangeNumber, definition: Option<Digest>, ms: i64) {
        let revision = self.forge.changes[&change].facts.revision.commit;
        let expires = Timestamp(self.intake_time().0 + ms);
        self.tell(Verb::Vouch { change, revision, definition, why: "read it".into(), expires });
    }

    /// Until the gate has such a row: key and value.
    fn until_row(&mut self, is_it: fn(&str, &str) -> bool) {
        self.until("a row of the gate", |world| world.rows_of_main().any(|(key, row)| is_it(key, row)));
    }

    fn rows_of_main(&self) -> impl Iterator<Item = (&String, &String)> {
        self.store.cells.get(&CellId::Gate(self.main())).into_iter().flat_map(|cell| &cell.rows)
    }

    /// Up to just about the moment at which a change is claimed for landing.
    fn until_passed(&mut self, change: ChangeNumber) {
        self.until("a run that is over", |world| {
            world.executor.running().is_empty() && world.checks.was_started_for(change)
        });
    }

    /// Until it is so, in small steps. That it never is must be told: the rest of the story would be another one.
    fn until(&mut self, what: &'static str, is_so: impl Fn(&World) -> bool) {
        let deadline = self.now + LONG;
        while self.checks.violations.is_empty() && !is_so(self) {
            if self.now >= deadline {
                self.missed = Some(what);
                return;
            }
            self.pass(10);
        }
    }
}
