//! Small stories without chance, each cut at every step of the server: whatever dies wherever, the end is the same.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::mutant::Mutant;
use crate::report::Violation;
use crate::run::threads_or_all;
use crate::world::World;

mod stories;

use stories::{SHORT, STORIES, Story};

/// The seed of every story: chance decides only latencies.
const SEED: u64 = 7;

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
    let mut world = World::new(SEED, story.branches);
    world.mutant = mutant;
    world.forge.forgets_moves = mutant == Some(Mutant::MovesAreForgotten);
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
    // A server that dies may skip over it, as a bug may.
    if let (Some(what), Cut::None | Cut::Twice, None) = (world.missed, cut, mutant) {
        world.violate("I16", format!("this did not come: {what}"));
    }
    world.finish(true);
    if world.checks.violations.is_empty()
        && let Err(what) = (story.lands)(&world)
    {
        world.violate("I12", what);
    }
    (points, world.checks.violations)
}
