//! The executor's memory on disk: which leases began, which ended and how, which ends the server has.
//!
//! One line each, appended: `S <lease>`, `E <end as JSON>`, `A <lease>`. It outlives this process and not the machine,
//! so nothing is synced: what a power cut takes of it are jobs that the cut has ended too, but for ends that the server
//! has made durable in its own database before it acknowledges them. Holds no secrets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use towpath_core::graph::Outcome;
use towpath_core::ids::LeaseId;

use crate::pool::unrun;
use crate::spec::JobEnd;

/// Bytes after which the journal is written anew with what still matters.
const COMPACT_BYTES: u64 = 8 * 1024 * 1024;
/// Leases whose end is acknowledged and that are still recognised, so that a start that comes late starts nothing.
const REMEMBERED_MAX: usize = 65_536;

/// What the executor knows of its leases, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    active: HashSet<LeaseId>,
    unacked: HashMap<LeaseId, JobEnd>,
    acked: HashSet<LeaseId>,
    acked_order: VecDeque<LeaseId>,
}

impl Journal {
    /// Opens the journal in `spool`. Leases that a dead executor had begun end as errored.
    pub(crate) fn open(spool: &Path) -> io::Result<Journal> {
        let path = spool.join("journal");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let file = append(&path)?;
        let mut journal = Journal {
            path,
            file,
            bytes: 0,
            active: HashSet::new(),
            unacked: HashMap::new(),
            acked: HashSet::new(),
            acked_order: VecDeque::new(),
        };
        // What follows the last newline was being written when the machine died: nobody was told of it.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            journal.replay(line);
        }
        for lease in std::mem::take(&mut journal.active) {
            let why = "the executor died while the job ran";
            journal.unacked.insert(lease, unrun(lease, Outcome::Errored, why));
        }
        journal.compact()?;
        Ok(journal)
    }

    fn replay(&mut self, line: &[u8]) {
        let Some((kind, rest)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else {
            return;
        };
        match kind {
            "S" => self.active.extend(rest.parse::<LeaseId>()),
            "A" => {
                if let Ok(lease) = rest.parse() {
                    self.unacked.remove(&lease);
                    self.remember(lease);
                }
            }
            "E" => {
                if let Ok(end) = serde_json::from_str::<JobEnd>(rest) {
                    self.active.remove(&end.lease);
                    self.unacked.insert(end.lease, end);
                }
            }
            _ => {}
        }
    }

    /// Records that leases begin, and gives those of them that were not known.
    pub(crate) fn begin(&mut self, leases: impl Iterator<Item = LeaseId>) -> io::Result<HashSet<LeaseId>> {
        let is_known = |lease: &LeaseId| {
            self.active.contains(lease) || self.unacked.contains_key(lease) || self.acked.contains(lease)
        };
        let begun: HashSet<LeaseId> = leases.filter(|lease| !is_known(lease)).collect();
        let lines: String = begun.iter().map(|lease| format!("S {lease}\n")).collect();
        self.write(lines.as_bytes())?;
        self.active.extend(&begun);
        Ok(begun)
    }

    /// Forgets leases that were to begin and never did, so that another executor may have them. If that cannot be written,
    /// the next executor takes them for jobs that died with this one.
    pub(crate) fn forget(&mut self, leases: &[LeaseId]) -> io::Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        for lease in leases {
            self.active.remove(lease);
        }
        self.compact()
    }

    /// Makes what was recorded outlive a power cut as well.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Records ends. They may be told only afterwards.
    pub(crate) fn end(&mut self, ends: &[JobEnd]) -> io::Result<()> {
        let mut lines = Vec::new();
        for end in ends {
            lines.extend_from_slice(b"E ");
            serde_json::to_writer(&mut lines, end)?;
            lines.push(b'\n');
        }
        self.write(&lines)?;
        for end in ends {
            self.active.remove(&end.lease);
            self.unacked.insert(end.lease, end.clone());
        }
        Ok(())
    }

    /// Records that the server has these ends. Lost in a power cut, they are told once more.
    pub(crate) fn acknowledge(&mut self, leases: &[LeaseId]) -> io::Result<()> {
        let mut lines = String::new();
        for lease in leases {
            if self.unacked.remove(lease).is_some() {
                self.remember(*lease);
                lines.push_str(&format!("A {lease}\n"));
            }
        }
        self.write(lines.as_bytes())?;
        match self.bytes > COMPACT_BYTES {
            true => self.compact(),
            false => Ok(()),
        }
    }

    /// An end that the server does not have.
    pub(crate) fn unacked(&self, lease: &LeaseId) -> Option<&JobEnd> {
        self.unacked.get(lease)
    }

    /// Whether the server has had this lease's end.
    pub(crate) fn is_acknowledged(&self, lease: &LeaseId) -> bool {
        self.acked.contains(lease)
    }

    /// Every end that the server does not have.
    pub(crate) fn all_unacked(&self) -> impl Iterator<Item = &JobEnd> {
        self.unacked.values()
    }

    /// Leases that have begun and not ended.
    pub(crate) fn active(&self) -> impl Iterator<Item = &LeaseId> {
        self.active.iter()
    }

    fn remember(&mut self, lease: LeaseId) {
        if self.acked.insert(lease) {
            self.acked_order.push_back(lease);
        }
        if self.acked_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.acked_order.pop_front()
        {
            self.acked.remove(&oldest);
        }
    }

    /// Appends whole lines or nothing: half a line would take the next one with it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes the journal anew, with what still matters.
    fn compact(&mut self) -> io::Result<()> {
        let folder = self.path.parent().ok_or_else(|| io::Error::other("the journal lies in no folder"))?;
        self.compact_in(&File::open(folder)?)
    }

    fn compact_in(&mut self, folder: &File) -> io::Result<()> {
        let mut lines = Vec::new();
        for lease in &self.active {
            writeln!(lines, "S {lease}")?;
        }
        for end in self.unacked.values() {
            writeln!(lines, "E {}", serde_json::to_string(end)?)?;
        }
        let draft = self.path.with_extension("draft");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = append(&draft)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // Whatever follows: lines in the file of before would be read by nobody.
        (self.file, self.bytes) = (file, lines.len() as u64);
        folder.sync_all()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(number: u8) -> LeaseId {
        LeaseId([number; 16])
    }

    fn passed(number: u8) -> JobEnd {
        unrun(lease(number), Outcome::Passed, "exit code 0")
    }

    fn outcomes(journal: &Journal) -> Vec<(u8, Outcome)> {
        let mut outcomes: Vec<_> =
            journal.all_unacked().map(|end| (end.lease.0[0], end.result.outcome)).collect();
        outcomes.sort();
        outcomes
    }

    #[test]
    fn a_dead_executors_leases_are_errored_and_ends_are_kept() {
        let spool = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(spool.path()).unwrap();
        assert_eq!(journal.begin([1, 2].map(lease).into_iter()).unwrap().len(), 2);
        assert_eq!(journal.begin([1, 3, 3].map(lease).into_iter()).unwrap(), HashSet::from([lease(3)]));
        journal.end(&[passed(1), passed(2)]).unwrap();
        journal.acknowledge(&[lease(1), lease(9)]).unwrap();
        assert!(
            journal.begin([lease(1)].into_iter()).unwrap().is_empty(),
            "a late start of an acknowledged lease starts nothing"
        );
        drop(journal);
        let again = Journal::open(spool.path()).unwrap();
        assert_eq!(outcomes(&again), [(2, Outcome::Passed), (3, Outcome::Errored)]);
        drop(again);
        let thrice = Journal::open(spool.path()).unwrap();
        assert_eq!(outcomes(&thrice), [(2, Outcome::Passed), (3, Outcome::Errored)]);
    }

    #[test]
    fn a_line_that_was_cut_is_left_out() {
        let spool = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(spool.path()).unwrap();
        journal.begin([lease(1)].into_iter()).unwrap();
        journal.end(&[passed(1)]).unwrap();
        drop(journal);
        let path = spool.path().join("journal");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let journal = Journal::open(spool.path()).unwrap();
            let first_line = whole.iter().position(|byte| *byte == b'\n').unwrap();
            let wanted: &[(u8, Outcome)] = if cut <= first_line { &[] } else { &[(1, Outcome::Errored)] };
            assert_eq!(outcomes(&journal), wanted, "cut {cut}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_synced_takes_no_later_line_with_it() {
        let spool = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(spool.path()).unwrap();
        journal.begin([1, 2].map(lease).into_iter()).unwrap();
        // It can be opened, and not be synced.
        journal.compact_in(&File::open("/dev/null").unwrap()).unwrap_err();
        journal.begin([lease(3)].into_iter()).unwrap();
        journal.end(&[passed(1)]).unwrap();
        drop(journal);
        let again = Journal::open(spool.path()).unwrap();
        let wanted = [(1, Outcome::Passed), (2, Outcome::Errored), (3, Outcome::Errored)];
        assert_eq!(outcomes(&again), wanted);
    }

    #[test]
    fn the_journal_does_not_grow_for_ever() {
        let spool = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(spool.path()).unwrap();
        let mut long = passed(1);
        long.result.why = "x".repeat(1 << 20);
        for number in 0..20 {
            long.lease = lease(number);
            journal.begin([long.lease].into_iter()).unwrap();
            journal.end(std::slice::from_ref(&long)).unwrap();
            journal.acknowledge(&[long.lease]).unwrap();
        }
        assert!(spool.path().join("journal").metadata().unwrap().len() <= COMPACT_BYTES + (2 << 20));
    }
}
