//! The hooks of the built-in forge as a program of their own: what the `towpath` binary does as `towpath hook <name>`.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_forge::push::run_hook(&std::env::args().next_back().unwrap_or_default())
}
