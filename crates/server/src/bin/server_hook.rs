//! The hooks of pushes as a program of their own, for tests of this crate. The product has them as `towpath hook`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("hook") => towpath_forge::push::run_hook(&std::env::args().next_back().unwrap_or_default()),
        _ => ExitCode::FAILURE,
    }
}
