//! P7: a job's output on its way into its log, with hash and line index.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use towpath_core::graph::JobBody;
use towpath_executor::{Limits, SandboxKind};

use crate::row::{Figure, Goal, Row};
use crate::sample::{alternate, seconds};
use crate::slot::Slot;
use crate::world::folder;
use crate::{Extent, Fault};

/// Bytes of the file that the job prints.
const FILE_BYTES: usize = 64 << 20;
/// How often it prints it: 640 MiB in all.
const TIMES: u32 = 10;
/// Bytes of a line: the middle one of real logs of builds.
const LINE_BYTES: usize = 85;

/// One stream through the executor, beside `cat | cat` into a file.
pub fn stream(extent: Extent) -> Result<Vec<Row>, Fault> {
    let folder = folder()?;
    let text = folder.path().join("text");
    write_text(&text)?;
    let files = vec![text; extent.of(TIMES) as usize];
    let mib = (files.len() * FILE_BYTES) as f64 / f64::from(1 << 20);
    let slot = Slot::start(folder.path(), SandboxKind::None)?;
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let body = JobBody { checkout: false, ..JobBody::script(&format!("cat {}", names.join(" "))) };
    let limits = Limits { log_bytes: u64::MAX, ..Limits::default() };
    let ours = || Ok(mib / slot.run(body.clone(), None, limits)?);
    let copy = folder.path().join("copy");
    let peer = || {
        remove(&copy)?;
        Ok(mib / seconds(|| cat_to_cat(&files, &copy))?)
    };
    let (value, peer_value) = alternate(ours, peer)?;
    let figure = Figure { name: "P7-log", unit: "MiB/s", value, peer: "cat | cat > file", peer_value };
    Ok(vec![figure.judged(Goal::RatioAtLeast(0.65))])
}

fn write_text(path: &Path) -> Result<(), Fault> {
    let mut text = Vec::with_capacity(FILE_BYTES + LINE_BYTES);
    for number in 0..FILE_BYTES.div_ceil(LINE_BYTES) {
        writeln!(text, "{number:<width$}", width = LINE_BYTES - 1)?;
    }
    text.truncate(FILE_BYTES);
    Ok(File::create(path)?.write_all(&text)?)
}

/// Removes the copy of the time before, if there was one: before the clock runs, as a slot does with its last log.
fn remove(copy: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn cat_to_cat(files: &[PathBuf], copy: &Path) -> Result<(), Fault> {
    // A new file, as each log is one.
    let copy = File::create_new(copy)?;
    let mut first = Command::new("cat").args(files).stdout(Stdio::piped()).spawn()?;
    let output = first.stdout.take().ok_or("a pipe was asked for")?;
    let second = Command::new("cat").stdin(output).stdout(copy).status()?;
    match first.wait()?.success() && second.success() {
        true => Ok(()),
        false => Err("cat failed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_new_file_and_the_old_one_goes_before_the_clock_runs() {
        let folder = tempfile::tempdir().unwrap();
        let [text, copy] = ["text", "copy"].map(|name| folder.path().join(name));
        std::fs::write(&text, "line\n").unwrap();
        let files = [text.clone(), text];
        for _ in 0..2 {
            remove(&copy).unwrap();
            cat_to_cat(&files, &copy).unwrap();
            assert_eq!(std::fs::read_to_string(&copy).unwrap(), "line\nline\n");
        }
        assert!(cat_to_cat(&files, &copy).is_err());
    }
}
