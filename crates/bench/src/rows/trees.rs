//! P3: what an overlay work tree of five thousand files adds to a job.

use std::fs;
use std::path::Path;

use towpath_core::graph::JobBody;
use towpath_executor::{Limits, SandboxKind};

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, median, seconds};
use crate::slot::Slot;
use crate::world::folder;
use crate::{Extent, Fault};

/// Files in the work tree.
const FILES: u32 = 5_000;
/// Bytes of each: 53 MB in all.
const FILE_BYTES: usize = 10_600;
/// Jobs with, and as many without, for one median.
const JOBS: u32 = 50;

/// A job in the sandbox with a work tree less the same job without, beside a copy of the same files.
pub fn overlay(extent: Extent) -> Result<Vec<Row>, Fault> {
    let folder = folder()?;
    let base = folder.path().join("base");
    make_tree(&base)?;
    let slot = Slot::start(folder.path(), SandboxKind::Bubblewrap)?;
    let count = extent.of(JOBS);
    let job = |checkout| {
        let body = JobBody { checkout, ..JobBody::script("true") };
        slot.run(body, Some(base.clone()), Limits::default())
    };
    let ours = || {
        let mut added = Vec::new();
        for _ in 0..count {
            let without = job(false)?;
            added.push((job(true)? - without) * 1e3);
        }
        Ok(median(added))
    };
    let mut copies = 0;
    let copy = || {
        copies += 1;
        let target = folder.path().join(format!("copy-{copies}"));
        Ok(seconds(|| copy_tree(&base, &target))? * 1e3)
    };
    let (value, peer_value) = alternate(ours, copy)?;
    let peer = "a plain copy of the files";
    let figure = Figure { name: "P3-work-tree", unit: "ms", value, peer, peer_value };
    Ok(vec![figure.judged(Goal::AtMost(10.0))])
}

fn make_tree(base: &Path) -> Result<(), Fault> {
    for number in 0..FILES {
        let folder = base.join(format!("folder-{}", number % 100));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("file-{number}")), vec![b'x'; FILE_BYTES])?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Fault> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
