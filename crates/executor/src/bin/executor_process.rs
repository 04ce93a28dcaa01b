//! The executor's two entry points as a program of its own, for tests and measurements of this crate. The product
//! has them as subcommands of `towpath`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("sandbox-helper") => towpath_executor::sandbox_helper(),
        _ => {
            eprintln!("usage: towpath-executor-process sandbox-helper");
            ExitCode::from(2)
        }
    }
}
