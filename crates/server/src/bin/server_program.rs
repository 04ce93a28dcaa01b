//! What a server starts beside itself, as a program of its own for tests of this crate: hooks of pushes, and the executor.
//! The product has them as subcommands of `towpath`.

use std::path::Path;
use std::process::ExitCode;

use towpath_executor::{ExecutorConfig, SandboxKind};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["hook", name] => towpath_forge::push::run_hook(name),
        // A server without slots has no jobs to run: most tests need none.
        ["executor", "--folder", folder, "--socket", socket, "--slots", slots, "--sandbox", "none"]
            if slots != "0" =>
        {
            executor(Path::new(folder), Path::new(socket), slots)
        }
        _ => ExitCode::FAILURE,
    }
}

fn executor(folder: &Path, socket: &Path, slots: &str) -> ExitCode {
    let config = ExecutorConfig {
        sandbox: SandboxKind::None,
        slots: slots.parse().unwrap_or(1),
        ..ExecutorConfig::in_folder(folder, Vec::new())
    };
    match towpath_executor::serve(config, socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
