//! `cargo xtask kill`: SIGKILL of the real server and of the executor while real changes land, half of the kills at
//! effect boundaries; then the books are checked.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::failure::Failure;

mod acts;
mod books;
mod jobs;
mod world;

pub use jobs::pids_of;
use world::{Death, Kill, Round, World};

pub const HELP: &str = "kill the real server and executor again and again: --count N (30), --seed S (1)";

/// A server must serve again within this. Source: the "serving again in under 2 s".
const SERVING_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Kills when no number is given, as in CI.
const COUNT_DEFAULT: u64 = 30;
/// Kills at an effect boundary, in percent of all, at least. Source: the "half of the kills at effect boundaries".
const AT_PLACES_PERCENT_MIN: u64 = 50;
/// Of so many kills one more is meant for a place where others missed theirs: what a change passes on its way hangs on what
/// else is under way. A place that is never met is a fault of its own.
const MORE_OF: u64 = 5;
/// Effects that this world never has, with whose kills are tested elsewhere.
const ELSEWHERE: &[(&str, &str)] = &[
    ("replace-server", "the tests of deployments kill a server that gives way"),
    ("retarget", "the test of moved changes kills a server in the middle of a move"),
];
/// Time from one landing to the next after the last kill.
const DRAIN: Duration = Duration::from_secs(120);

pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let (count, seed) = options(arguments)?;
    let mut world = World::new(root)?;
    let outcome = play(&mut world, count, seed);
    if !matches!(outcome, Ok(true)) {
        println!("kept for a look: {}", world.keep().display());
        println!("again: cargo xtask kill --count {count} --seed {seed}");
    }
    outcome
}

fn play(world: &mut World, count: u64, seed: u64) -> Result<bool, Failure> {
    let mut draw = Draw::new(places(world.points()?), seed);
    let mut slowest = Duration::ZERO;
    let (mut late, mut at_places, mut number) = (0, 0, 0);
    while is_on((number, at_places), count) {
        number += 1;
        let kill = draw.next(number, at_places);
        let round = world.round(number, &kill)?;
        slowest = slowest.max(round.again);
        late += u64::from(round.again > SERVING_AGAIN_MAX);
        at_places += u64::from(round.death == Death::AtItsPlace);
        println!("kill {number}: {}", told(&kill, round));
    }
    world.drain(DRAIN)?;
    let mut faults = books::check(world)?;
    faults.extend(draw.armed.difference(&world.met).map(|place| format!("`{place}` was never met")));
    faults.extend(too_few(at_places, number));
    if late > 0 {
        faults.push(format!(
            "{late} times it took more than {} ms to serve again",
            SERVING_AGAIN_MAX.as_millis()
        ));
    }
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    println!(
        "kill: {number} kills (seed {seed}), {at_places} of them at effect boundaries ({} places), {} changes landed, {} jobs \
         ran on over a server's death, {} died with the executor (up to {} at once) and passed in a later attempt, slowest \
         start {} ms, {} faults",
        world.met.len(),
        world.landed(),
        world.adopted.len(),
        world.killed.len(),
        world.killed_at_once,
        slowest.as_millis(),
        faults.len()
    );
    Ok(faults.is_empty())
}

/// A round in words: how it was meant, and how it came about.
fn told(kill: &Kill, round: Round) -> String {
    let again = round.again.as_millis();
    match (kill, round.death) {
        (_, Death::OfTheExecutor) => format!("{kill}; the server went on"),
        (Kill::At(_), Death::FromOutside) => {
            format!("{kill} was not met, so it was killed from outside; serving again after {again} ms")
        }
        (_, Death::AtItsPlace | Death::FromOutside) => format!("{kill}; serving again after {again} ms"),
    }
}

/// Places that this world can meet.
fn places(mut points: Vec<String>) -> Vec<String> {
    points.retain(|point| !ELSEWHERE.iter().any(|(kind, _)| point.split('.').next() == Some(kind)));
    points
}

/// Whether the series goes on after so many kills, of which so many were at places: as long as too few were, within reason.
fn is_on((number, at_places): (u64, u64), count: u64) -> bool {
    number < count || too_few(at_places, number).is_some() && number < count + count.div_ceil(MORE_OF)
}

/// What is wrong with the share of kills at effect boundaries; `None`: nothing.
fn too_few(at_places: u64, count: u64) -> Option<String> {
    let enough = at_places * 100 >= count * AT_PLACES_PERCENT_MIN;
    (!enough).then(|| {
        format!("only {at_places} of {count} kills were at effect boundaries: {AT_PLACES_PERCENT_MIN} % are the least")
    })
}

fn options(arguments: &mut lexopt::Parser) -> Result<(u64, u64), Failure> {
    let (mut count, mut seed) = (COUNT_DEFAULT, 1);
    while let Some(argument) = arguments.next().map_err(Failure::usage)? {
        let place = match argument {
            lexopt::Arg::Long("count") => &mut count,
            lexopt::Arg::Long("seed") => &mut seed,
            other => return Err(Failure::usage(other.unexpected())),
        };
        let value = arguments.value().map_err(Failure::usage)?;
        *place = value.to_string_lossy().parse().map_err(Failure::usage)?;
    }
    Ok((count, seed))
}

/// The kills of a series: at an effect boundary as long as no half of them were, every sixth the executor's.
struct Draw {
    random: Random,
    /// Every place, in an order of the seed's own: a series of twice as many kills as there are places meets each.
    places: Vec<String>,
    next: usize,
    /// Places that were to be met.
    armed: BTreeSet<String>,
}

impl Draw {
    fn new(mut places: Vec<String>, seed: u64) -> Draw {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for at in (1..places.len()).rev() {
            places.swap(at, random.below(at as u64 + 1) as usize);
        }
        Draw { random, places, next: 0, armed: BTreeSet::new() }
    }

    /// The kill of this number, after so many at places.
    fn next(&mut self, number: u64, at_places: u64) -> Kill {
        match number % 6 {
            0 => Kill::Executor,
            _ if at_places * 2 < number => {
                let place = self.places[self.next % self.places.len()].clone();
                self.next += 1;
                let passing = 1 + self.random.below(passings(&place));
                self.armed.insert(place.clone());
                Kill::At(format!("{place}:{passing}"))
            }
            _ => Kill::After(Duration::from_millis(self.random.below(600))),
        }
    }
}

/// How often one change surely passes a place.
fn passings(place: &str) -> u64 {
    match place.split_once('.').map_or(place, |(kind, _)| kind) {
        "turn" => 12,
        "read-forge" | "set-check" | "run-job" => 2,
        _ => 1,
    }
}

/// Xorshift: repeatable, and nothing here needs better.
pub struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_kills_are_at_effect_boundaries_each_place_comes_and_a_seed_repeats_them() {
        let places = || ["turn.before-commit", "land.before", "land.after"].map(str::to_owned).to_vec();
        // Of the kills at places every so manieth misses.
        let drawn = |seed, misses: usize| -> (Vec<String>, u64) {
            let (mut draw, mut kills, mut met, mut tries) = (Draw::new(places(), seed), Vec::new(), 0, 0);
            while is_on((kills.len() as u64, met), 60) {
                let kill = draw.next(kills.len() as u64 + 1, met);
                if matches!(kill, Kill::At(_)) {
                    tries += 1;
                    met += u64::from(tries % misses != 0);
                }
                kills.push(kill.to_string());
            }
            (kills, met)
        };
        assert_eq!(drawn(7, 9), drawn(7, 9));
        assert_ne!(drawn(7, 9), drawn(8, 9));
        let (kills, met) = drawn(7, 1000);
        assert_eq!((kills.len(), met), (60, 30));
        assert_eq!(kills.iter().filter(|kill| kill.contains("executor")).count(), 10);
        for place in places() {
            assert_eq!(kills.iter().filter(|kill| kill.contains(&place)).count(), 10, "{place}");
        }
        let (kills, met) = drawn(7, 4);
        assert!(met * 2 >= kills.len() as u64 && kills.len() < 72, "{met} of {}", kills.len());
        let (kills, met) = drawn(7, 2);
        assert!(met * 2 < kills.len() as u64 && kills.len() == 72, "{met} of {}", kills.len());
    }

    #[test]
    fn what_the_world_never_has_is_no_place_of_it() {
        let points = ["land.after", "replace-server.before"].map(str::to_owned).to_vec();
        assert_eq!(places(points), ["land.after"]);
    }

    #[test]
    fn a_kill_is_told_as_it_came_about() {
        let at = Kill::At("land.after:1".into());
        let round = |death| Round { death, again: Duration::from_millis(7) };
        assert_eq!(
            told(&at, round(Death::AtItsPlace)),
            "the server at land.after:1; serving again after 7 ms"
        );
        let missed = told(&at, round(Death::FromOutside));
        assert!(missed.contains("was not met, so it was killed from outside"), "{missed}");
        let executor = told(&Kill::Executor, round(Death::OfTheExecutor));
        assert_eq!(executor, "the executor while a job runs; the server went on");
    }

    #[test]
    fn a_series_with_few_kills_at_effect_boundaries_is_a_fault() {
        for (at_places, count, is_fault) in [(14, 30, true), (15, 30, false), (0, 1, true)] {
            assert_eq!(too_few(at_places, count).is_some(), is_fault, "{at_places} of {count}");
        }
    }
}
