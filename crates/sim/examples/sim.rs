//! `sim [--from SEED] [--seeds N] [--every N] [--hunt N]`: seeds, the sweep of which each so many-th step is played, and
//! the planted bugs, each looked for in so many seeds. What `towpath sim` does, without the time that the product's binary
//! takes to compile.

use std::process::ExitCode;

use towpath_sim::{Options, hunt_all, run, sweep};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number =
        |name: &str, default: u64| value(name).map_or(default, |text| text.parse().expect("a number"));
    let from = number("--from", 1);
    let swept = sweep(0, number("--every", 1) as usize);
    println!("{swept}");
    let summary = run(from, number("--seeds", 100), Options::default());
    println!("{summary}");
    let hunted = hunt_all(from, number("--hunt", 100));
    println!("{hunted}");
    let holds = swept.holds() && summary.violations == 0 && hunted.holds();
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
