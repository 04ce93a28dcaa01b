//! Terminals (pty(7)) that a job has open. All jobs of a machine share 3,072, and whoever is in no namespace has 1,024 more.
//! Source: Linux, `kernel.pty.max` and `kernel.pty.reserve`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::makedev;

/// Terminals that a job may have at once.
pub(crate) const TERMINALS_MAX: usize = 256;
/// The same of a job that may mount terminals of its own, and so may have jobs: a third of the machine's.
pub(crate) const MOUNTED_TERMINALS_MAX: usize = 4 * TERMINALS_MAX;
/// The device by which terminals are made: `/dev/ptmx`, whatever it is called. Source: Linux, admin-guide/devices.txt.
const MASTER: (u32, u32) = (5, 2);

/// How many terminals these processes have made and hold, but for a few more than a job may have: which ones is told by where
/// their folder is mounted and by their number there, so that what a process has from its parent counts once.
pub(crate) fn held_terminals(processes: &[u32]) -> usize {
    let mut held = BTreeSet::new();
    for pid in processes {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for path in descriptors.flatten().map(|entry| entry.path()).filter(|path| is_master(path)) {
            let Some(number) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
            held.extend(identity(&info));
        }
        if held.len() > MOUNTED_TERMINALS_MAX {
            break;
        }
    }
    held.len()
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

    use super::*;

    #[test]
    fn terminals_are_counted_and_their_copies_are_not() {
        let before = held_terminals(&[process::id()]);
        let open = || fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        let held = [open(), open()];
        let copies = held.each_ref().map(|one| one.try_clone().unwrap());
        assert_eq!(held_terminals(&[process::id(), process::id()]), before + 2);
        drop((held, copies));
        assert_eq!(identity("pos:\t0\nflags:\t02\nmnt_id:\t26\nino:\t2\ntty-index:\t7\n"), Some((26, 7)));
        assert_eq!(identity("pos:\t0\nmnt_id:\t26\n"), None);
    }
}
