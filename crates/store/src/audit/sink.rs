//! Where checkpoints go outside the data folder: a file that only grows. Put it on another disk or machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::note::SignedCheckpoint;

/// A file of signed checkpoints, oldest first.
#[derive(Debug)]
pub(crate) struct Sink {
    path: PathBuf,
}

impl Sink {
    pub fn new(path: PathBuf) -> Sink {
        Sink { path }
    }

    /// Appends a checkpoint, durably. A half-written one is taken back.
    pub fn append(&self, note: &SignedCheckpoint) -> io::Result<()> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        let before = file.seek(SeekFrom::End(0))?;
        let written = file.write_all(note.to_string().as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            file.set_len(before)?;
        }
        written
    }

    /// Every whole checkpoint, oldest first; what a crash left half-written is cut off.
    pub fn load(&self) -> io::Result<Vec<String>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(why),
        };
        let text = String::from_utf8_lossy(&bytes);
        let notes = split_notes(&text);
        let whole: usize = notes.iter().map(String::len).sum();
        let torn = !text.ends_with('\n') && notes.last().is_none_or(|last| !last.ends_with('\n'));
        if torn {
            let keep = whole - notes.last().map_or(0, String::len);
            OpenOptions::new().write(true).open(&self.path)?.set_len(keep as u64)?;
            return Ok(notes[..notes.len().saturating_sub(1)].to_vec());
        }
        Ok(notes)
    }
}

/// Cuts a text of several signed checkpoints into them. Text that belongs to none comes as a piece of its own.
pub fn split_notes(text: &str) -> Vec<String> {
    let mut notes = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let note = notes.last_mut().expect("invariant: there is always an open note");
        note.push_str(line);
        if line.starts_with("— ") && line.ends_with('\n') {
            notes.push(String::new());
        }
    }
    notes.retain(|note| !note.is_empty());
    notes
}

#[cfg(test)]
mod tests {
    use towpath_core::ids::Digest;

    use super::super::note::AuditKey;
    use super::*;

    #[test]
    fn notes_come_back_and_a_torn_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::new(folder.path().join("checkpoints"));
        assert_eq!(sink.load().unwrap(), Vec::<String>::new());
        let key = AuditKey::generate("log").unwrap();
        let notes = [1, 2].map(|size| key.sign_checkpoint(size, Digest::of(b"")));
        notes.iter().for_each(|note| sink.append(note).unwrap());
        let expect = notes.each_ref().map(ToString::to_string);
        assert_eq!(sink.load().unwrap(), expect);

        let mut file = OpenOptions::new().append(true).open(&sink.path).unwrap();
        file.write_all(&expect[0].as_bytes()[..30]).unwrap();
        assert_eq!(sink.load().unwrap(), expect);
        assert_eq!(fs::read_to_string(&sink.path).unwrap(), expect.concat());
    }
}
