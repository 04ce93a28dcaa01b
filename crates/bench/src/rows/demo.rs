//! The demo, as somebody meets it who has just compiled Towpath.

use std::process::{Command, Stdio};

use crate::row::{Figure, Goal, Row};
use crate::sample::{REPETITIONS, Spent, median, spent};
use crate::service::towpath;
use crate::world::folder;
use crate::{Extent, Fault};

/// From its start until its table is printed and it has ended.
pub fn demo(extent: Extent) -> Result<Vec<Row>, Fault> {
    let repetitions = match extent {
        Extent::Whole => REPETITIONS,
        Extent::Tenth => 1,
    };
    let all = (0..repetitions).map(|_| once()).collect::<Result<Vec<Spent>, Fault>>()?;
    let value = median(all.iter().map(|spent| spent.seconds).collect());
    let peer_value = median(all.iter().map(|spent| spent.floor).collect());
    let figure = Figure { name: "demo", unit: "s", value, peer: Spent::FLOOR, peer_value };
    Ok(vec![figure.judged(Goal::AtMost(60.0))])
}

fn once() -> Result<Spent, Fault> {
    let folder = folder()?;
    let mut command = Command::new(towpath()?);
    command
        .arg("demo")
        .arg("--no-serve")
        .arg("--folder")
        .arg(folder.path().join("demo"))
        .stdin(Stdio::null());
    spent(|| {
        let output = command.output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("the demo failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    })
}
