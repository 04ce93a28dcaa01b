//! Control groups: what counts and bounds a whole process tree.
//!
//! One group for each slot, made once: its launcher lives in it, so every process of a job is born there. A delegated
//! v2 tree is used where there is one, else the v1 controllers, else rlimits and polling (see [`crate::watch`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How process trees are bounded on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// Control groups, version 2.
    CgroupV2,
    /// Control groups, version 1.
    CgroupV1,
    /// Resource limits and polling: weaker, as a job may overshoot between two looks.
    Rlimits,
}

impl std::fmt::Display for LimitMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LimitMode::CgroupV2 => "control groups (v2)",
            LimitMode::CgroupV1 => "control groups (v1)",
            LimitMode::Rlimits => {
                "resource limits and polling; a job may overshoot for a moment (delegate a cgroup to mend it)"
            }
        })
    }
}

/// Where slots' groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroups {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    V2 { parent: PathBuf },
    V1 { memory: PathBuf, pids: PathBuf, cpu: Option<PathBuf> },
    Absent,
}

/// A job's use of its group, as counters that only grow while the group lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Processes that the kernel killed for memory.
    pub(crate) memory_kills: u64,
    /// Forks that the limit refused.
    pub(crate) fork_refusals: u64,
    /// CPU time in microseconds.
    pub(crate) cpu_us: Option<u64>,
}

/// One slot's group.
#[derive(Debug)]
pub(crate) struct SlotGroup {
    kind: Kind,
    limits: Option<(u64, u32)>,
    /// The counters when the last job ended: where the next one's begin.
    last: Counters,
}

impl Cgroups {
    /// Finds out what this process may use, by making and removing a group.
    pub(crate) fn detect(name: &str) -> Cgroups {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let kinds = [v2(&own, &mounts), v1(&own, &mounts)];
        let usable = |kind: &Kind| {
            let cgroups = Cgroups { kind: kind.clone() };
            let works =
                cgroups.slot(&format!("{name}-probe")).and_then(|mut slot| slot.set_limits(1 << 30, 1000));
            cgroups.remove(&format!("{name}-probe"));
            works.is_ok()
        };
        let kind = kinds.into_iter().flatten().find(usable).unwrap_or(Kind::Absent);
        Cgroups { kind }
    }

    /// None: limits are held otherwise.
    pub(crate) fn absent() -> Cgroups {
        Cgroups { kind: Kind::Absent }
    }

    pub(crate) fn mode(&self) -> LimitMode {
        match self.kind {
            Kind::V2 { .. } => LimitMode::CgroupV2,
            Kind::V1 { .. } => LimitMode::CgroupV1,
            Kind::Absent => LimitMode::Rlimits,
        }
    }

    /// Makes a slot's group, or takes over one that an earlier executor left.
    pub(crate) fn slot(&self, name: &str) -> io::Result<SlotGroup> {
        let make = |parent: &Path| {
            let path = parent.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(path),
            }
        };
        let kind = match &self.kind {
            Kind::V2 { parent } => Kind::V2 { parent: make(parent)? },
            Kind::V1 { memory, pids, cpu } => Kind::V1 {
                memory: make(memory)?,
                pids: make(pids)?,
                cpu: cpu.as_deref().map(make).transpose()?,
            },
            Kind::Absent => Kind::Absent,
        };
        let mut group = SlotGroup { kind, limits: None, last: Counters::default() };
        group.last = group.counters();
        Ok(group)
    }

    /// Removes a slot's group. A group with processes stays, and is taken over later.
    pub(crate) fn remove(&self, name: &str) {
        for folder in self.folders() {
            let _ = fs::remove_dir(folder.join(name));
        }
    }

    /// Removes groups that executors left which are dead: first those of this very folder with all that is in them,
    /// as their jobs must not outlive them; then empty ones of any.
    pub(crate) fn sweep(&self, spool_name: &str) {
        for folder in self.folders() {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let Some(owner) = owner(&name).filter(|owner| !Path::new(&format!("/proc/{owner}")).exists())
                else {
                    continue;
                };
                if name.starts_with(&format!("{spool_name}-{owner}-")) {
                    kill_all(&entry.path().join("cgroup.procs"));
                }
                // Not empty yet: the next start removes it.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    fn folders(&self) -> Vec<&Path> {
        match &self.kind {
            Kind::V2 { parent } => vec![parent],
            Kind::V1 { memory, pids, cpu } => {
                [Some(memory), Some(pids), cpu.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect()
            }
            Kind::Absent => Vec::new(),
        }
    }
}

impl SlotGroup {
    /// The files through which a process joins.
    pub(crate) fn procs(&self) -> Vec<PathBuf> {
        let folders: Vec<&PathBuf> = match &self.kind {
            Kind::V2 { parent } => vec![parent],
            Kind::V1 { memory, pids, cpu } => {
                [Some(memory), Some(pids), cpu.as_ref()].into_iter().flatten().collect()
            }
            Kind::Absent => Vec::new(),
        };
        folders.into_iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Whether the kernel bounds the tree.
    pub(crate) fn bounds(&self) -> bool {
        self.kind != Kind::Absent
    }

    /// Sets the bounds for the next job; a write only where they change.
    pub(crate) fn set_limits(&mut self, memory_bytes: u64, processes: u32) -> io::Result<()> {
        if self.limits == Some((memory_bytes, processes)) {
            return Ok(());
        }
        let memory_text = memory_bytes.to_string();
        match &self.kind {
            Kind::V2 { parent } => {
                fs::write(parent.join("memory.max"), memory_text)?;
                // Without swap the limit is one of memory alone. Absent where the kernel has no swap accounting.
                let _ = fs::write(parent.join("memory.swap.max"), "0");
                fs::write(parent.join("pids.max"), processes.to_string())?;
            }
            Kind::V1 { memory, pids, .. } => {
                // Raised before it is lowered: the sum with swap may never be below the limit without.
                let _ = fs::write(memory.join("memory.memsw.limit_in_bytes"), "-1");
                fs::write(memory.join("memory.limit_in_bytes"), &memory_text)?;
                let _ = fs::write(memory.join("memory.memsw.limit_in_bytes"), &memory_text);
                fs::write(pids.join("pids.max"), processes.to_string())?;
            }
            Kind::Absent => {}
        }
        self.limits = Some((memory_bytes, processes));
        Ok(())
    }

    /// Where the counters of the present job begin.
    pub(crate) fn counters_before(&self) -> Counters {
        self.last
    }

    /// A job is over; the next one's counters begin here.
    pub(crate) fn settle(&mut self, counters: Counters) {
        self.last = counters;
    }

    /// Reads the counters.
    pub(crate) fn counters(&self) -> Counters {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        match &self.kind {
            Kind::V2 { parent } => Counters {
                memory_kills: field(&read(parent.join("memory.events")), "oom_kill").unwrap_or(0),
                fork_refusals: field(&read(parent.join("pids.events")), "max").unwrap_or(0),
                cpu_us: field(&read(parent.join("cpu.stat")), "usage_usec"),
            },
            Kind::V1 { memory, pids, cpu } => Counters {
                memory_kills: field(&read(memory.join("memory.oom_control")), "oom_kill").unwrap_or(0),
                fork_refusals: field(&read(pids.join("pids.events")), "max").unwrap_or(0),
                cpu_us: cpu
                    .as_ref()
                    .and_then(|cpu| read(cpu.join("cpuacct.usage")).trim().parse::<u64>().ok())
                    .map(|nanoseconds| nanoseconds / 1000),
            },
            Kind::Absent => Counters::default(),
        }
    }
}

/// The executor that made a slot's group: `towpath-<spool>-<process>-<slot>`.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix("towpath-")?.split('-').skip(1);
    let (process, _slot) = (parts.next()?, parts.next()?);
    process.parse().ok()
}

fn kill_all(procs: &Path) {
    let text = fs::read_to_string(procs).unwrap_or_default();
    for pid in text.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
        // Dead by now is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// This process's own group in a hierarchy, below where that is mounted.
fn own_group(mount: &Path, own_path: &str) -> Option<PathBuf> {
    let inside = mount.join(own_path.trim_start_matches('/'));
    // In a container the path may be the host's, while the mount shows only our part of it.
    [inside, mount.to_owned()].into_iter().find(|path| path.join("cgroup.procs").exists())
}

fn v2(own: &str, mounts: &str) -> Option<Kind> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = own_group(&mount_point(mounts, "cgroup2", None)?, path)?;
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).ok()?;
    let has = |name: &str| controllers.split_ascii_whitespace().any(|controller| controller == name);
    if !has("memory") || !has("pids") {
        return None;
    }
    // A group with processes cannot bound its children: move to a leaf first. The root group may have both.
    if fs::write(group.join("cgroup.subtree_control"), "+memory +pids").is_err() {
        let leaf = group.join("towpath-executor");
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => fs::write(leaf.join("cgroup.procs"), "0").ok()?,
        }
        fs::write(group.join("cgroup.subtree_control"), "+memory +pids").ok()?;
    }
    Some(Kind::V2 { parent: group })
}

fn v1(own: &str, mounts: &str) -> Option<Kind> {
    let group = |controller: &str| {
        let path = own.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|name| name == controller).then_some(path)
        })?;
        own_group(&mount_point(mounts, "cgroup", Some(controller))?, path)
    };
    Some(Kind::V1 { memory: group("memory")?, pids: group("pids")?, cpu: group("cpuacct") })
}

fn mount_point(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, this_kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = option.is_none_or(|option| options.split(',').any(|this| this == option));
        (this_kind == kind && fits).then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_tells_its_executor() {
        assert_eq!(owner("towpath-0123456789ab-4711-0"), Some(4711));
        assert_eq!(owner("towpath-executor"), None);
        assert_eq!(owner("user.slice"), None);
    }

    #[test]
    fn counters_are_read_by_name() {
        let text = "low 0\noom 3\noom_kill 2\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(3));
        assert_eq!(field(text, "max"), None);
    }

    #[test]
    fn mounts_are_found_by_controller() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(mounts, "cgroup", Some("cpuacct")), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(mount_point(mounts, "cgroup", Some("memory")), None);
        assert_eq!(mount_point(mounts, "cgroup2", None), Some("/sys/fs/cgroup/unified".into()));
    }
}
