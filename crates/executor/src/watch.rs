//! Looking after a running job's limits, a few times a second.
//!
//! Where a cgroup bounds memory and processes, only its counters are read. Elsewhere the tree is added up from
//! `/proc`, which a job can outrun for a moment: the weaker mode that `doctor` names.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use towpath_blob::{Amount, NoRoom, Reserve};

use crate::cgroup::{Counters, SlotGroup};
use crate::sharing::Share;
use crate::spec::Limits;
use crate::terminals::{MOUNTED_TERMINALS_MAX, MachineTerminals, descriptors, held_terminals};
use crate::walk::{TreeSize, tree_size};

/// The first look at a job comes after this long; most jobs of a fast suite are over by then.
pub(crate) const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Between two looks.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Counting a tree, or a job's descriptors, may take at most this part of the time.
const COUNT_SHARE: u32 = 20;
/// Counting a job's descriptors may take so long at once: meanwhile nobody heeds its timeout, or that it is cancelled.
const DESCRIPTORS_TIME: Duration = Duration::from_millis(200);
/// A job has filled a disk by itself if it took all but this part of the room there was: what a file system needs to hold
/// files is in none of them.
const FILLED_BUT: u64 = 8;

/// The limit that a job reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Breach {
    Memory,
    Processes,
    DiskBytes,
    DiskFiles,
    Terminals,
    /// The machine has few terminals left for jobs, and they became few while the job may have made them.
    MachineTerminals(MachineTerminals),
    /// One of the host's disks is nearly full, whoever filled it.
    Reserve(NoRoom),
    /// The job itself filled the host's disk, which had so much room.
    Room(String),
}

impl Breach {
    /// One sentence for people.
    pub(crate) fn why(&self, limits: &Limits) -> String {
        match self {
            Breach::Memory => format!("ended at its limit of {} memory", size_text(limits.memory_bytes)),
            Breach::Processes => format!("ended at its limit of {} processes", limits.processes),
            Breach::DiskBytes => format!("ended at its limit of {} of disk", size_text(limits.disk_bytes)),
            Breach::DiskFiles => format!("ended at its limit of {} files", limits.disk_files),
            Breach::Terminals => format!("ended at its limit of {MOUNTED_TERMINALS_MAX} terminals"),
            Breach::MachineTerminals(MachineTerminals { made, most }) => format!(
                "ended because {made} of the {most} terminals that this machine has for jobs are in use, more than \
                 {MOUNTED_TERMINALS_MAX} of them since it began, and with `user_namespaces: true` they may be its own"
            ),
            Breach::Reserve(no_room) => format!("ended because {no_room}"),
            Breach::Room(all) => {
                format!("ended because it took the {all} that this machine's disk had for jobs when it began")
            }
        }
    }
}

/// `2 GiB`, `512 MiB`, `100 bytes`.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// The disk of jobs' folders. For any other no job ends while it runs: there a log has a gap, and an output is not stored.
pub(crate) struct Disk<'a> {
    pub(crate) reserve: &'a Reserve,
    /// Logs are on it as well.
    pub(crate) has_logs: bool,
    /// What it had for jobs before the job took any.
    pub(crate) room: Amount,
    /// The job's among the others.
    pub(crate) share: &'a Share,
}

/// Something is counted seldom enough to take its share of the time.
#[derive(Default)]
struct Pace {
    again: Option<Instant>,
}

impl Pace {
    /// Counts if it is time to.
    fn count<T>(&mut self, count: impl FnOnce() -> T) -> Option<T> {
        let began = Instant::now();
        if self.again.is_some_and(|again| began < again) {
            return None;
        }
        let counted = count();
        self.again = Some(Instant::now() + began.elapsed() * COUNT_SHARE);
        Some(counted)
    }
}

/// What is watched of one job.
pub(crate) struct Watch<'a> {
    pub(crate) limits: Limits,
    pub(crate) group: &'a SlotGroup,
    /// Every process of the job is below this one, where no group bounds them.
    pub(crate) ancestor: Option<u32>,
    /// The folders in which the job takes of the disk.
    pub(crate) grows: Vec<PathBuf>,
    disk: Disk<'a>,
    before: Counters,
    tree_pace: Pace,
    /// Those folders when they were last counted, and when that was.
    tree: (TreeSize, Option<Instant>),
    memory_file_pace: Pace,
    /// Bytes of the job's memory files when they were last counted.
    memory_file_bytes: u64,
    /// How often its processes were looked at.
    looks: usize,
    /// The job may mount terminals of its own.
    mounts_terminals: bool,
    terminal_pace: Pace,
    /// At the last look it was the job that ends for the machine's terminals.
    ends_for_terminals: bool,
}

impl<'a> Watch<'a> {
    /// Begins as the job's processes do.
    pub(crate) fn new(limits: Limits, group: &'a SlotGroup, disk: Disk<'a>) -> Watch<'a> {
        disk.share.runs();
        Watch {
            limits,
            group,
            ancestor: None,
            grows: Vec::new(),
            disk,
            before: group.counters_before(),
            tree_pace: Pace::default(),
            tree: (TreeSize::default(), None),
            memory_file_pace: Pace::default(),
            memory_file_bytes: 0,
            looks: 0,
            mounts_terminals: false,
            terminal_pace: Pace::default(),
            ends_for_terminals: false,
        }
    }

    /// The job may mount terminals of its own.
    pub(crate) fn mounts_terminals(&mut self) {
        self.mounts_terminals = true;
        self.disk.share.mounts_terminals(MachineTerminals::now());
    }

    /// One look. The log has so many bytes.
    pub(crate) fn look(&mut self, log_bytes: u64) -> Option<Breach> {
        self.breach(&self.group.counters())
            .or_else(|| self.tree_breach())
            .or_else(|| self.terminal_breach())
            .or_else(|| self.disk_breach())
            .or_else(|| self.reserve_breach(log_bytes))
    }

    /// No process of the job lives any more.
    pub(crate) fn over(&self) {
        self.disk.share.over();
    }

    /// Whose doing a breach is, once no process of the job writes any more: a disk may be full by others.
    pub(crate) fn settled(&self, breach: Breach, log_bytes: u64) -> Breach {
        match &breach {
            Breach::Reserve(no_room) => {
                self.filled(no_room.lacks_bytes(), log_bytes).map_or(breach, Breach::Room)
            }
            _ => breach,
        }
    }

    /// What the job has filled by itself. Of a disk that was nearly full everybody can take the rest.
    fn filled(&self, lacks_bytes: bool, log_bytes: u64) -> Option<String> {
        let Disk { room, reserve, .. } = self.disk;
        if !reserve.is_ample(room) {
            return None;
        }
        let limit = TreeSize { bytes: room.bytes, files: room.files };
        let size = self.taken(tree_size(&self.grows, limit), log_bytes);
        let is_all = |took: u64, room: u64| took >= room - room / FILLED_BUT;
        match lacks_bytes {
            true => is_all(size.bytes, room.bytes).then(|| format!("{} MiB", room.bytes >> 20)),
            false => is_all(size.files, room.files).then(|| format!("{} files", room.files)),
        }
    }

    /// What the group's counters say after the end: the limit that was reached, CPU milliseconds, and the counters.
    pub(crate) fn at_end(&self) -> (Option<Breach>, Option<u64>, Counters) {
        let now = self.group.counters();
        let cpu_us = now.cpu_us.zip(self.before.cpu_us).map(|(now, before)| now.saturating_sub(before));
        (self.breach(&now), cpu_us.map(|microseconds| microseconds / 1000), now)
    }

    fn breach(&self, now: &Counters) -> Option<Breach> {
        if now.memory_kills > self.before.memory_kills {
            return Some(Breach::Memory);
        }
        (now.fork_refusals > self.before.fork_refusals).then_some(Breach::Processes)
    }

    fn tree_breach(&mut self) -> Option<Breach> {
        let ancestor = self.ancestor.filter(|_| !self.group.bounds())?;
        let processes = descendants(ancestor);
        if processes.len() >= self.limits.processes as usize {
            return Some(Breach::Processes);
        }
        let most = self.limits.memory_bytes;
        let until = Instant::now() + DESCRIPTORS_TIME;
        // Where one look does not see all, the next one begins with others.
        self.looks = self.looks.wrapping_add(1);
        let (later, first) = processes.split_at(self.looks % processes.len().max(1));
        let in_turn = [first, later].concat();
        if let Some(bytes) = self.memory_file_pace.count(|| memory_file_bytes(&in_turn, most, until)) {
            // What was not seen this time may be there all the same.
            let least = if Instant::now() < until { 0 } else { self.memory_file_bytes };
            self.memory_file_bytes = bytes.max(least);
        }
        let resident = processes.iter().map(|pid| Resident::of(*pid));
        let resident = resident.fold(Resident::default(), Resident::and);
        // Pages of a memory file that a process has mapped are in its share already.
        let beside = tmpfs_bytes(&processes) + self.memory_file_bytes.saturating_sub(resident.shared_bytes);
        (resident.bytes + beside > most).then_some(Breach::Memory)
    }

    /// What mounts bound is not counted; a job that may mount can have terminals that no mount of ours bounds.
    fn terminal_breach(&mut self) -> Option<Breach> {
        let ancestor = self.ancestor.filter(|_| self.mounts_terminals)?;
        let until = Instant::now() + DESCRIPTORS_TIME;
        let held = self.terminal_pace.count(|| held_terminals(&descendants(ancestor), until));
        if held.is_some_and(|held| held > MOUNTED_TERMINALS_MAX) {
            return Some(Breach::Terminals);
        }
        // What no process has is counted by nobody but the kernel.
        let machine = MachineTerminals::now()?;
        let ends = self.disk.share.ends_for_terminals(&machine);
        // Those of a job that has just ended may be there for a moment.
        let ended = std::mem::replace(&mut self.ends_for_terminals, ends);
        (ends && ended).then_some(Breach::MachineTerminals(machine))
    }

    fn disk_breach(&mut self) -> Option<Breach> {
        let (now, limit) = (Instant::now(), self.tree_limit());
        let size = self.tree_pace.count(|| tree_size(&self.grows, limit))?;
        self.tree = (size, Some(now));
        if size.bytes > limit.bytes {
            return Some(Breach::DiskBytes);
        }
        (size.files > limit.files).then_some(Breach::DiskFiles)
    }

    fn tree_limit(&self) -> TreeSize {
        TreeSize { bytes: self.limits.disk_bytes, files: self.limits.disk_files }
    }

    /// Where the disk has no room, one of the jobs on it ends.
    fn reserve_breach(&mut self, log_bytes: u64) -> Option<Breach> {
        let share = self.disk.share;
        self.tell_taken(log_bytes);
        let Err(no_room) = self.disk.reserve.room() else {
            share.has_room();
            return None;
        };
        let since = share.short_since();
        if self.tree.1.is_none_or(|counted| counted < since) {
            let now = Instant::now();
            self.tree = (tree_size(&self.grows, self.tree_limit()), Some(now));
            self.tell_taken(log_bytes);
        }
        share.yields(&no_room).then_some(Breach::Reserve(no_room))
    }

    /// Tells the others what the job is known to have taken.
    fn tell_taken(&self, log_bytes: u64) {
        let (size, counted) = self.tree;
        self.disk.share.took(self.taken(size, log_bytes), counted);
    }

    /// What a job has taken of the disk by such folders and so large a log.
    fn taken(&self, tree: TreeSize, log_bytes: u64) -> TreeSize {
        let log_bytes = if self.disk.has_logs { log_bytes } else { 0 };
        TreeSize { bytes: tree.bytes.saturating_add(log_bytes), ..tree }
    }
}

/// Every process below one, from a single pass over `/proc`.
pub(crate) fn descendants(ancestor: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything; the parent is the second field after it.
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut below = vec![ancestor];
    let mut at = 0;
    while at < below.len() {
        let of = below[at];
        below.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    below.split_off(1)
}

/// A share of memory: shared pages are counted once over all processes that share them.
#[derive(Clone, Copy, Default)]
struct Resident {
    bytes: u64,
    /// Those of them that are in a tmpfs, in a memory file, or made to be shared.
    shared_bytes: u64,
}

impl Resident {
    fn of(pid: u32) -> Resident {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let bytes = |name: &str| {
            let kilobytes =
                rollup.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
            kilobytes.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Resident { bytes: bytes("Pss:"), shared_bytes: bytes("Pss_Shmem:") }
    }

    fn and(self, other: Resident) -> Resident {
        Resident { bytes: self.bytes + other.bytes, shared_bytes: self.shared_bytes + other.shared_bytes }
    }
}

/// What the job keeps in memory files (memfd_create(2)), which are in no folder and, unless mapped, in no process's memory; no
/// more of them are counted once they have `most` bytes, or after that time.
fn memory_file_bytes(processes: &[u32], most: u64, until: Instant) -> u64 {
    let is_memory = |path: &Path| {
        fs::read_link(path).is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"/memfd:"))
    };
    let mut known = HashSet::new();
    let mut bytes = 0;
    for path in descriptors(processes, until).filter(|path| is_memory(path)) {
        let Ok(meta) = fs::metadata(&path) else { continue };
        if known.insert((meta.dev(), meta.ino())) {
            bytes += meta.blocks() * 512;
        }
        if bytes > most {
            break;
        }
    }
    bytes
}

/// What the job keeps in its tmpfs mounts, which no process's memory shows.
fn tmpfs_bytes(processes: &[u32]) -> u64 {
    let used = |folder: &str| {
        let of = |pid: &u32| rustix::fs::statvfs(format!("/proc/{pid}/root{folder}")).ok();
        let disk = processes.iter().rev().find_map(of)?;
        // The host's own folder, seen before bubblewrap changed the root, is not the job's.
        let host = rustix::fs::statvfs(folder).ok().map(|host| host.f_fsid);
        (host != Some(disk.f_fsid)).then(|| (disk.f_blocks - disk.f_bfree) * disk.f_frsize)
    };
    ["/tmp", crate::profile::HOME, "/dev/shm"].into_iter().filter_map(used).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Cgroups;
    use crate::sharing::Sharing;

    #[test]
    fn who_has_not_counted_again_is_known_to_have_taken_what_it_had() {
        let (folder, sharing) = (tempfile::tempdir().unwrap(), Sharing::default());
        fs::write(folder.path().join("file"), [1; 1 << 20]).unwrap();
        let group = Cgroups::absent().slot("none").unwrap();
        let [large, small] = [0, 1].map(|slot| sharing.share(slot, false));
        let [full, roomy] = [u64::MAX, 0].map(|kept| Reserve::of_bytes(folder.path(), kept));
        let watch = |share, reserve| {
            let room = Amount { bytes: 0, files: 0 };
            Watch::new(Limits::default(), &group, Disk { reserve, has_logs: true, room, share })
        };
        let mut watches = [watch(&large, &roomy), watch(&small, &full)];
        watches[0].grows = vec![folder.path().to_owned()];
        assert_eq!(watches[0].look(0), None);
        let since = small.short_since();
        // By then everybody should have counted.
        while since.elapsed() < Duration::from_secs(2) {
            std::thread::park_timeout(LOOK_INTERVAL);
            assert_eq!(watches[1].look(1), None, "the other one took more");
        }
        large.took(TreeSize::default(), None);
        assert!(matches!(watches[1].look(1), Some(Breach::Reserve(_))));
    }

    #[test]
    fn a_log_counts_on_the_disk_that_it_is_on() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), [1; 1 << 20]).unwrap();
        let group = Cgroups::absent().slot("none").unwrap();
        let reserve = &Reserve::of_bytes(folder.path(), u64::MAX);
        let room = Amount { bytes: 0, files: 0 };
        for (has_logs, first) in [(true, 1), (false, 0)] {
            let sharing = Sharing::default();
            let shares = [0, 1].map(|slot| sharing.share(slot, false));
            let watch =
                |share| Watch::new(Limits::default(), &group, Disk { reserve, has_logs, room, share });
            let mut watches = shares.each_ref().map(watch);
            watches[0].grows = vec![folder.path().to_owned()];
            let mut ended = Vec::new();
            for (at, log_bytes) in [(0, 0), (1, 1 << 30)].repeat(3) {
                ended.extend(watches[at].look(log_bytes).map(|_| at));
            }
            assert_eq!(ended, [first]);
        }
    }
}
