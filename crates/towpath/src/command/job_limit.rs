//! `--job-limit NAME=VALUE`: the bounds of a server's jobs, where the defaults do not fit the machine.

use std::str::FromStr;

use towpath_executor::Limits;

/// One bound, as a person writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobLimit {
    /// Bytes of memory of a job, those of its tmpfs included.
    Memory(u64),
    /// Processes and threads at once.
    Processes(u32),
    /// Bytes that the work tree may grow by.
    Disk(u64),
    /// Files that the work tree may grow by.
    Files(u64),
    /// Bytes of each tmpfs.
    Tmp(u64),
    /// Bytes of the log.
    Log(u64),
}

/// Names of the bounds, for whoever wrote another.
const NAMES: &str = "`memory`, `processes`, `disk`, `files`, `tmp` or `log`";
/// Units of bytes.
const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
/// Bytes of memory without which no shell starts in a sandbox.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// Processes without which no sandbox starts: bubblewrap, its first process, and the job.
const PROCESSES_MIN: u32 = 8;
/// Process ids that Linux has at most (`PID_MAX_LIMIT`): a group with a higher bound cannot be made.
const PROCESSES_MAX: u32 = 4 << 20;

impl FromStr for JobLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<JobLimit, String> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("write it as NAME=VALUE; a name is {NAMES}"))?;
        match name {
            "memory" => match bytes(value)? {
                few if few < MEMORY_BYTES_MIN => Err("no job starts with less than 16MiB".to_owned()),
                enough => Ok(JobLimit::Memory(enough)),
            },
            "processes" => match number(value)?.try_into().unwrap_or(u32::MAX) {
                few if few < PROCESSES_MIN => Err(format!("no job starts with fewer than {PROCESSES_MIN}")),
                many if many > PROCESSES_MAX => Err(format!("no system has more than {PROCESSES_MAX}")),
                enough => Ok(JobLimit::Processes(enough)),
            },
            "disk" => bytes(value).map(JobLimit::Disk),
            "files" => number(value).map(JobLimit::Files),
            "tmp" => bytes(value).map(JobLimit::Tmp),
            "log" => bytes(value).map(JobLimit::Log),
            other => Err(format!("there is no limit `{other}`: it is {NAMES}")),
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is no number from 1 on")),
        Ok(number) => Ok(number),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (digits, bits) = unit.unwrap_or((text, 0));
    let count = number(digits.trim_end()).map_err(|why| format!("{why}, of bytes or of KiB, MiB or GiB"))?;
    count.checked_mul(1 << bits).ok_or_else(|| format!("`{text}` is more than any machine has"))
}

/// The defaults, but for what is given; of two for one thing, the later one counts.
pub fn limits(given: &[JobLimit]) -> Limits {
    given.iter().fold(Limits::default(), |limits, limit| match *limit {
        JobLimit::Memory(memory_bytes) => Limits { memory_bytes, ..limits },
        JobLimit::Processes(processes) => Limits { processes, ..limits },
        JobLimit::Disk(disk_bytes) => Limits { disk_bytes, ..limits },
        JobLimit::Files(disk_files) => Limits { disk_files, ..limits },
        JobLimit::Tmp(tmpfs_bytes) => Limits { tmpfs_bytes, ..limits },
        JobLimit::Log(log_bytes) => Limits { log_bytes, ..limits },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_name_and_a_count() {
        let given = ["memory=256MiB", "processes=64", "files=2000", "disk=3GiB", "memory=512 MiB"];
        let given: Vec<JobLimit> = given.iter().map(|text| text.parse().unwrap()).collect();
        let limits = limits(&given);
        assert_eq!((limits.memory_bytes, limits.processes), (512 << 20, 64));
        assert_eq!((limits.disk_files, limits.disk_bytes), (2_000, 3 << 30));
        assert_eq!(limits.log_bytes, Limits::default().log_bytes);
    }

    #[test]
    fn what_is_no_limit_says_why() {
        for (text, why) in [
            ("memory", "write it as NAME=VALUE; a name is `memory`, `processes`, `disk`"),
            ("cpu=1", "there is no limit `cpu`: it is `memory`"),
            ("processes=many", "`many` is no number from 1 on"),
            ("disk=0", "`0` is no number from 1 on, of bytes or of KiB"),
            ("disk=99999999999GiB", "more than any machine has"),
            ("memory=1MiB", "no job starts with less than 16MiB"),
            ("processes=1", "no job starts with fewer than 8"),
        ] {
            let said = text.parse::<JobLimit>().unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
