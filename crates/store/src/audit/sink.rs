//! Where checkpoints go outside the data folder: a file that only grows. Put it on another disk or machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::note::SignedCheckpoint;
use crate::error::OpenError;
use crate::folder::{file_error, hold};

/// A file of signed checkpoints, oldest first, in a folder that this process holds alone: two records in one file
/// contradict each other for ever.
#[derive(Debug)]
pub(crate) struct Sink {
    path: PathBuf,
    _folder: File,
}

impl Sink {
    /// Takes the folder of `path`, which must lie outside the data folder that the checkpoints bear witness about.
    ///
    /// # Errors
    /// It lies inside, another server has it, or it cannot be opened.
    pub fn open(path: PathBuf, data: &Path) -> Result<Sink, OpenError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real = parent.canonicalize().map_err(|why| file_error("open", parent, &why))?;
        if real.starts_with(data) {
            let why = "it must lie outside the data folder, which it bears witness about".to_owned();
            return Err(OpenError::File { what: "use as a sink of checkpoints", path, why });
        }
        let folder = File::open(&real).map_err(|why| file_error("open", parent, &why))?;
        hold(&folder, &real, ("folder of the keys", parent))?;
        Ok(Sink { path, _folder: folder })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
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
        let path = folder.path().join("checkpoints");
        let sink = Sink::open(path.clone(), Path::new("/nowhere")).unwrap();
        let second = Sink::open(path, Path::new("/nowhere")).unwrap_err().to_string();
        let holder = format!("is in use by another server (process {})", std::process::id());
        assert!(second.contains("the folder of the keys") && second.contains(&holder), "{second}");
        assert_eq!(sink.load().unwrap(), Vec::<String>::new());
        let key = AuditKey::generate("log").unwrap();
        let notes = [1, 2].map(|size| key.sign_checkpoint(size, Digest::of(b""), None));
        notes.iter().for_each(|note| sink.append(note).unwrap());
        let expect = notes.each_ref().map(ToString::to_string);
        assert_eq!(sink.load().unwrap(), expect);

        let mut file = OpenOptions::new().append(true).open(&sink.path).unwrap();
        file.write_all(&expect[0].as_bytes()[..30]).unwrap();
        assert_eq!(sink.load().unwrap(), expect);
        assert_eq!(fs::read_to_string(&sink.path).unwrap(), expect.concat());
    }
}
