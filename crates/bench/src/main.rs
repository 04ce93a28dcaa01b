//! Measures Towpath beside its peers and beside what the machine itself needs: the program behind `cargo xtask bench`.
//!
//! Each row is one figure of the project's goals. Ours and the peer's are taken in the same run, one after the other. A
//! goal that is a ratio is judged by that peer; one in milliseconds or a second is absolute, and the peer's figure tells
//! how busy the machine was.

mod post;
mod row;
mod rows;
mod sample;
mod service;
mod slot;
mod spawner;
mod world;

use std::process::ExitCode;

use row::Row;
use rows::{Asked, ROWS};
use spawner::Order;

/// Whatever went wrong: a program for developers tells it and ends.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What the goals speak of.
    Whole,
    /// A tenth of it, to look at one figure while working on it.
    Tenth,
}

impl Extent {
    /// So many of `count`.
    pub fn of(self, count: u32) -> u32 {
        match self {
            Extent::Whole => count,
            Extent::Tenth => count / 10,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["executor", ref options @ ..] => world::executor(options),
        ["sandbox-helper"] => return towpath_executor::sandbox_helper(),
        ["spawn", order] => spawn(order),
        ["post", order] => post(order),
        _ => return measure(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn spawn(order: &str) -> Result<(), Fault> {
    println!("{}", serde_json::from_str::<Order>(order)?.carry_out()?);
    Ok(())
}

fn post(order: &str) -> Result<(), Fault> {
    let answered = serde_json::from_str::<post::Order>(order)?.carry_out()?;
    println!("{}", serde_json::to_string(&answered)?);
    Ok(())
}

/// Prints one JSON object a row; fails if a row cannot be measured. Whether rows hold is for the reader to judge.
fn measure(words: &[&str]) -> ExitCode {
    let (flags, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("--"));
    let extent = match flags[..] {
        [] => Extent::Whole,
        ["--quick"] => Extent::Tenth,
        _ => return usage(&flags.join(" ")),
    };
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|group| group.is_named(name))) {
        return usage(unknown);
    }
    let mut code = ExitCode::SUCCESS;
    for group in ROWS.iter().filter(|group| group.is_asked(&names)) {
        eprintln!("measuring {}", group.names.join(", "));
        // What the rows before have left to be written would be written now, under a row that measures the disk.
        rustix::fs::sync();
        match (group.measure)(extent) {
            Ok(rows) => rows.iter().for_each(print),
            Err(fault) => {
                eprintln!("error: {} cannot be measured: {fault}", group.names.join(", "));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn print(row: &Row) {
    println!("{}", serde_json::to_string(row).expect("invariant: a row has only types that JSON can hold"));
}

fn usage(word: &str) -> ExitCode {
    eprintln!("error: there is no row or flag `{word}`\n hint: --quick, or the beginning of one of these:");
    for group in ROWS {
        let only = match group.asked {
            Asked::Always => "",
            Asked::ByName => " (takes minutes: measured only where it is named)",
        };
        group.names.iter().for_each(|name| eprintln!("  {name}{only}"));
    }
    ExitCode::from(2)
}
