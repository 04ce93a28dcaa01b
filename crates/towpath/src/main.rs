//! The program: `main`, and one file for each command.
//!
//! Deliberately absent: logic. A command parses, calls, prints. What decides is in `core`, what acts in the crates
//! between.

mod cli;
mod command;
mod failure;
mod local;
mod remote;
mod terminal;

use std::process::ExitCode;

use towpath_server::replace::STEWARD_COMMAND;

/// Watches over a program that takes a server's place.
fn steward() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(2).collect();
    match towpath_server::replace::steward::run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the steward failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    // Both are started by machines, often, and with streams that are theirs alone: nothing else may happen first.
    let words: Vec<String> =
        std::env::args_os().skip(1).take(2).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [command::SANDBOX_HELPER, ..] => towpath_executor::sandbox_helper(),
        [command::HOOK, name] => towpath_forge::push::run_hook(name),
        [STEWARD_COMMAND, ..] => steward(),
        _ => cli::main(),
    }
}
