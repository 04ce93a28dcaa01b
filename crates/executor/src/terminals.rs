//! Terminals (pty(7)) that a job has open. All jobs of a machine share 3,072, and whoever is in no namespace has 1,024 more.
//! Source: Linux, `kernel.pty.max` and `kernel.pty.reserve`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::makedev;

/// Terminals that a job may have at once.
pub(crate) const TERMINALS_MAX: usize = 256;
/// The same of a job that may mount terminals of its own, and so may have jobs: a third of the machine's.
pub(crate) const MOUNTED_TERMINALS_MAX: usize = 4 * TERMINALS_MAX;
/// All jobs have few terminals left where no more than one part in so many is free: as many as one of them may have.
const FEW_LEFT: u64 = 12;
/// The device by which terminals are made: `/dev/ptmx`, whatever it is called. Source: Linux, admin-guide/devices.txt.
const MASTER: (u32, u32) = (5, 2);

/// Terminals of the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineTerminals {
    /// There are so many, also where no process has them: under way in a socket, say.
    pub(crate) made: u64,
    /// Whoever is in a namespace makes one while there are fewer.
    pub(crate) most: u64,
}

impl MachineTerminals {
    /// What the kernel says; `None` where it does not.
    pub(crate) fn now() -> Option<MachineTerminals> {
        let number = |name: &str| {
            fs::read_to_string(format!("/proc/sys/kernel/pty/{name}")).ok()?.trim().parse::<u64>().ok()
        };
        Some(MachineTerminals {
            made: number("nr")?,
            most: number("max")?.saturating_sub(number("reserve")?),
        })
    }

    /// Whether all jobs have few left.
    pub(crate) fn are_few_left(&self) -> bool {
        self.made >= self.most - self.most / FEW_LEFT
    }

    /// Whether there are more of them than there were by more than a job may have.
    pub(crate) fn are_many_new(&self, before: u64) -> bool {
        self.made.saturating_sub(before) > MOUNTED_TERMINALS_MAX as u64
    }
}

/// How many terminals these processes have made and hold, but for a few more than a job may have and for those that are not seen
/// until then: which ones is told by where their folder is mounted and by their number there, so that what a process has from
/// its parent counts once.
pub(crate) fn held_terminals(processes: &[u32], until: Instant) -> usize {
    let mut held = BTreeSet::new();
    for path in descriptors(processes, until).filter(|path| is_master(path)) {
        // As `/proc/7/fd/3`.
        let info = path.to_string_lossy().replacen("/fd/", "/fdinfo/", 1);
        held.extend(identity(&fs::read_to_string(info).unwrap_or_default()));
        if held.len() > MOUNTED_TERMINALS_MAX {
            break;
        }
    }
    held.len()
}

/// The descriptors of these processes below `/proc`, as many as are seen until then: a job may have a hundred million of them.
pub(crate) fn descriptors(processes: &[u32], until: Instant) -> impl Iterator<Item = PathBuf> {
    let folders = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let paths = folders.flat_map(|entries| entries.flatten().map(|entry| entry.path()));
    paths.take_while(move |_| Instant::now() < until)
}

fn is_master(path: &Path) -> bool {
    let device = makedev(MASTER.0, MASTER.1);
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == device)
}

/// Mount and number of a terminal, as the lines of proc_pid_fdinfo(5) have them.
fn identity(info: &str) -> Option<(u64, u64)> {
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((value("mnt_id:")?, value("tty-index:")?))
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::time::Duration;

    use super::*;

    #[test]
    fn terminals_are_counted_and_their_copies_are_not() {
        let (now, until) = (Instant::now(), Instant::now() + Duration::from_secs(600));
        let before = held_terminals(&[process::id()], until);
        let open = || fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        let held = [open(), open()];
        let copies = held.each_ref().map(|one| one.try_clone().unwrap());
        assert_eq!(held_terminals(&[process::id(), process::id()], until), before + 2);
        assert_eq!(held_terminals(&[process::id()], now), 0, "there is no time to look");
        assert!(MachineTerminals::now().unwrap().made >= 2);
        drop((held, copies));
        assert_eq!(identity("pos:\t0\nflags:\t02\nmnt_id:\t26\nino:\t2\ntty-index:\t7\n"), Some((26, 7)));
        assert_eq!(identity("pos:\t0\nmnt_id:\t26\n"), None);
    }
}
