//! Many seeds on all cores; each seed on one thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use towpath_core::gate::{GateConfig, Retest};

use crate::fake::store::StoreBugs;
use crate::faults::Faults;
use crate::mutant::Mutant;
use crate::report::{SeedResult, Summary};
use crate::rng::Rng;
use crate::world::World;

/// Each seed has at least so many changes, applied events and fired faults. Source: trust.md 6.4, U1.
pub const CHANGES_MIN: u64 = 40;
const EVENTS_MIN: u64 = 2_000;
const FAULTS_MIN: u64 = 25;
/// People act at most so often in one seed, should the figures above not be reached before.
const ACTS_MAX: u32 = 3_000;
/// Milliseconds between two acts, at most.
const PAUSE_MS_MAX: i64 = 180_000;
/// One seed of so many runs twice, to show that it gives the same trace (I17).
const TWICE_EVERY: u64 = 100;

/// What to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Threads; 0: one for each core.
    pub threads: usize,
    /// A planted bug, for showing that it is noticed.
    pub mutant: Option<Mutant>,
    /// Print the whole trace to stderr while it is made.
    pub aloud: bool,
    /// Stop at the first seed that fails.
    pub stop_at_failure: bool,
}

/// So many threads; of 0, one for each processor.
pub(crate) fn threads_or_all(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}

/// Runs `count` seeds from `from` on.
pub fn run(from: u64, count: u64, options: Options) -> Summary {
    let threads = threads_or_all(options.threads);
    let next = AtomicU64::new(0);
    let done: Mutex<Vec<(SeedResult, bool)>> = Mutex::new(Vec::new());
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let stop = options.stop_at_failure && failed.load(Ordering::Relaxed) > 0;
                    if index >= count || stop {
                        return;
                    }
                    let (result, twice) = run_seed(from.wrapping_add(index), index, options);
                    failed.fetch_add(u64::from(!result.violations.is_empty()), Ordering::Relaxed);
                    done.lock().expect("invariant: no holder panics").push((result, twice));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("invariant: no holder panics");
    done.sort_by_key(|(result, _)| result.seed.wrapping_sub(from));
    let mut summary = Summary::default();
    for (result, twice) in done {
        summary.run_twice += u64::from(twice);
        summary.add(result);
    }
    summary
}

/// One seed, and some of them again: says whether it was run twice.
fn run_seed(seed: u64, index: u64, options: Options) -> (SeedResult, bool) {
    let mut result = one(seed, options);
    let twice = index.is_multiple_of(TWICE_EVERY) && options.mutant.is_none() && !options.aloud;
    if twice && one(seed, options).trace_hash != result.trace_hash {
        let what = "the second run of the seed gave another trace".to_owned();
        result.violations.push(crate::report::Violation { invariant: "I17", what });
    }
    (result, twice)
}

/// The server's settings of one seed.
fn config(rng: &mut Rng) -> GateConfig {
    let retests = [Retest::Candidate, Retest::Queued, Retest::All];
    GateConfig {
        poll_seconds: rng.between(60, 600) as u32,
        change_runs_max: rng.between(1, 4) as u32,
        retest: rng.pick(&retests).expect("invariant: there are some"),
        wait_for_deploy: rng.chance(300),
        approvals: rng.below(3) as u32,
        ..GateConfig::default()
    }
}

fn store_bugs(mutant: Option<Mutant>) -> StoreBugs {
    StoreBugs {
        ignores_epochs: mutant == Some(Mutant::StoreIgnoresEpochs),
        ignores_drained: mutant == Some(Mutant::StoreIgnoresDrained),
        ignores_halts: mutant == Some(Mutant::StoreIgnoresHalts),
        drops_outbox_row: mutant == Some(Mutant::StoreDropsEffect),
        drops_messages: mutant == Some(Mutant::StoreDropsMessages),
        drops_questions: mutant == Some(Mutant::NobodyAsksWhatHolds),
        keeps_consumed: mutant == Some(Mutant::StoreKeepsConsumed),
        keeps_removed_rows: mutant == Some(Mutant::StoreKeepsRemovedRows),
    }
}

fn one(seed: u64, options: Options) -> SeedResult {
    let mutant = options.mutant;
    let mut world = World::new(seed, &["main", "release"]);
    let mut rng = world.rng.fork();
    world.config = config(&mut rng);
    world.faults = Faults::swarm(&mut rng);
    world.mutant = mutant;
    world.trace.aloud = options.aloud;
    world.store.bugs = store_bugs(mutant);
    if mutant == Some(Mutant::NobodyPolls) {
        world.config.poll_seconds = u32::MAX;
    }
    world.open();
    let mut acts = 0;
    while world.checks.violations.is_empty() && acts < ACTS_MAX && !is_enough(&world) {
        acts += 1;
        world.someone_acts();
        world.maybe_strike();
        let pause = rng.between(1_000, PAUSE_MS_MAX);
        world.run_until(world.now + pause);
    }
    if mutant == Some(Mutant::NobodyPolls) {
        world.config.poll_seconds = 600;
    }
    world.finish(rng.chance(500));
    if mutant.is_none() {
        world.check_worth();
    }
    summarise(seed, world)
}

fn is_enough(world: &World) -> bool {
    world.forge.changes.len() as u64 >= CHANGES_MIN
        && world.applied >= EVENTS_MIN
        && world.fired >= FAULTS_MIN
}

impl World {
    /// A seed in which little happened shows little.
    fn check_worth(&mut self) {
        if self.checks.violations.is_empty() && !is_enough(self) {
            let (changes, events, faults) = (self.forge.changes.len(), self.applied, self.fired);
            let what = format!(
                "it had {changes} changes, {events} events and {faults} faults; {CHANGES_MIN}, {EVENTS_MIN} and \
                 {FAULTS_MIN} are wanted of each seed"
            );
            self.violate("U1", what);
        }
    }

    /// Heals, checks that everything is at rest and right, and that the world still works.
    pub fn finish(&mut self, bells: bool) {
        let steps: [fn(&mut World); 3] = [World::check_rest, World::probe, World::check_rest];
        self.heal(bells);
        for step in steps {
            if self.checks.violations.is_empty() {
                step(self);
            }
        }
    }
}

fn summarise(seed: u64, world: World) -> SeedResult {
    let failed = !world.checks.violations.is_empty();
    SeedResult {
        seed,
        changes: world.forge.changes.len() as u64,
        landed: world
            .forge
            .branches
            .values()
            .flat_map(|branch| &branch.pushes)
            .filter(|push| push.by != crate::fake::forge::Pusher::Person)
            .count() as u64,
        events: world.applied,
        faults: world.fired,
        virtual_ms: world.now,
        trace_hash: world.trace.hash(),
        tail: if failed { world.trace.tail() } else { Vec::new() },
        violations: world.checks.violations,
    }
}
