//! `sim [--from SEED] [--seeds N] [--json] [--trace] [--sweep] [--mutants]`: the simulator without the product's binary.

use std::process::ExitCode;

use towpath_sim::{MUTANTS, Options, hunt, run, sweep};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number =
        |name: &str, default: u64| value(name).map_or(default, |text| text.parse().expect("a number"));
    let (from, seeds) = (number("--from", 1), number("--seeds", 100));
    if args.iter().any(|arg| arg == "--mutants") {
        return mutants(from, seeds);
    }
    let aloud = args.iter().any(|arg| arg == "--trace");
    if args.iter().any(|arg| arg == "--sweep") {
        return crashes();
    }
    let threads = number("--threads", 0) as usize;
    let summary = run(from, seeds, Options { threads, aloud, ..Options::default() });
    if args.iter().any(|arg| arg == "--json") {
        println!("{}", serde_json::to_string(&summary).expect("a summary is JSON"));
    } else {
        println!("{summary}");
    }
    if summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn crashes() -> ExitCode {
    let summary = sweep(std::thread::available_parallelism().map_or(1, usize::from), 1);
    for (story, violation) in &summary.violations {
        println!("{story}: {} is broken: {}", violation.invariant, violation.what);
    }
    println!(
        "stories {}, steps {}, runs {}, violations {}",
        summary.stories,
        summary.points,
        summary.runs,
        summary.violations.len()
    );
    if summary.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn mutants(from: u64, seeds: u64) -> ExitCode {
    let mut alive = 0;
    for mutant in MUTANTS {
        let notice = hunt(mutant, from, seeds);
        match notice.by {
            Some(by) => {
                println!(
                    "{mutant:?}: noticed within {} seeds by {}: {}",
                    notice.seeds, by.invariant, by.what
                );
            }
            None => {
                alive += 1;
                println!("{mutant:?}: NOT noticed in {} seeds", notice.seeds);
            }
        }
    }
    if alive == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
