//! `cargo xtask kill`: SIGKILL of the real server and of the executor while real changes land, half of the kills at
//! effect boundaries; then the books are checked.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::Failure;

mod books;
mod world;

use world::{Kill, World};

pub const HELP: &str = "kill the real server and executor again and again: --count N (30), --seed S (1)";

/// A server must serve again within this. Source: the "serving again in under 2 s".
const SERVING_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Kills when no number is given, as in CI.
const COUNT_DEFAULT: u64 = 30;
/// Time for what is under way after the last kill to land.
const DRAIN: Duration = Duration::from_secs(120);

/// Places inside the server at which it can be made to kill itself. Source: `crates/server/src/faults.rs`.
const POINTS: &[&str] = &[
    "turn.before-commit:9",
    "turn.after-commit:9",
    "read-forge.before:2",
    "read-forge.after:2",
    "make-candidate.before:1",
    "make-candidate.after:1",
    "run-job.before:1",
    "run-job.sent:1",
    "run-job.ended:1",
    "land.before:1",
    "land.after:1",
    "mark-landed.before:1",
    "mark-landed.after:1",
    "set-check.before:2",
    "set-check.after:2",
];

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
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut slowest = Duration::ZERO;
    let mut late = 0;
    for number in 1..=count {
        let kill = draw(&mut random, number);
        let again = world.round(number, &kill)?;
        slowest = slowest.max(again);
        late += u64::from(again > SERVING_AGAIN_MAX);
        println!("kill {number}: {kill}; serving again after {} ms", again.as_millis());
    }
    world.drain(Instant::now() + DRAIN)?;
    let mut faults = books::check(world)?;
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
        "kill: {count} kills (seed {seed}), {} changes landed, {} runs went on over a server's death, {} after an \
         executor's death, slowest start {} ms, {} faults",
        world.landed(),
        world.adopted,
        world.retried,
        slowest.as_millis(),
        faults.len()
    );
    Ok(faults.is_empty())
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

/// Every second kill is at an effect boundary; every sixth is the executor's.
fn draw(random: &mut Random, number: u64) -> Kill {
    match number % 6 {
        0 => Kill::Executor,
        1 | 3 | 5 => Kill::At(POINTS[random.below(POINTS.len() as u64) as usize]),
        _ => Kill::After(Duration::from_millis(random.below(600))),
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
    fn half_of_the_kills_are_at_effect_boundaries_and_a_seed_repeats_them() {
        let drawn = |seed| -> Vec<String> {
            let mut random = Random(seed);
            (1..=60).map(|number| draw(&mut random, number).to_string()).collect()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_eq!(drawn(7).iter().filter(|kill| kill.contains("at ")).count(), 30);
        assert_eq!(drawn(7).iter().filter(|kill| kill.contains("executor")).count(), 10);
    }
}
