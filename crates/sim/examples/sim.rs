//! `sim [--from SEED] [--seeds N] [--every N]`: seeds, and the sweep of which each so many-th step is played. What
//! `towpath sim` does, without the time that the product's binary takes to compile.

use std::process::ExitCode;

use towpath_sim::{Options, run, sweep};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number =
        |name: &str, default: u64| value(name).map_or(default, |text| text.parse().expect("a number"));
    let swept = sweep(0, number("--every", 1) as usize);
    println!("{swept}");
    let summary = run(number("--from", 1), number("--seeds", 100), Options::default());
    println!("{summary}");
    if swept.holds() && summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
