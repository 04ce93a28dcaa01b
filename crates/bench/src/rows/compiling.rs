//! How long the first compilation of Towpath takes, as `cargo run -- demo` in a new clone begins with it.

use std::process::{Command, Stdio};

use crate::row::{Figure, Goal, Row};
use crate::sample::{Spent, spent};
use crate::world::{folder, this_repository};
use crate::{Extent, Fault};

/// Without optimisation.
pub fn dev(_: Extent) -> Result<Vec<Row>, Fault> {
    measure("compile-dev", &[], 360.0)
}

/// As it is used.
pub fn release(_: Extent) -> Result<Vec<Row>, Fault> {
    measure("compile-release", &["--release"], 480.0)
}

/// Compiles what `cargo run` means and all that it needs, once: there is no tenth of it, and three times are long. Nothing is
/// fetched, since this very program was made from the same sources.
fn measure(name: &'static str, profile: &[&str], goal: f64) -> Result<Vec<Row>, Fault> {
    let target = folder()?;
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--locked", "--offline"]).args(profile);
    command.arg("--target-dir").arg(target.path()).current_dir(this_repository()?);
    // All cores, and no compiler that remembers what it has compiled.
    command.env_remove("CARGO_BUILD_JOBS").env("RUSTC_WRAPPER", "");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let Spent { seconds, floor } = spent(|| match command.status()?.success() {
        true => Ok(()),
        false => Err("cargo failed".into()),
    })?;
    let figure = Figure { name, unit: "s", value: seconds, peer: Spent::FLOOR, peer_value: floor };
    Ok(vec![figure.judged(Goal::AtMost(goal))])
}
