//! What the disk says of programs that were deployed: which serves, which is being tried, which could not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use towpath_core::ids::{Digest, EnvironmentId};

/// The folder's name below the data folder.
const FOLDER: &str = "server";
const SERVING: &str = "serving.json";
const TRIAL: &str = "trial.json";
const FAILED: &str = "failed.json";

/// A program that is being tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The environment that is this server.
    pub environment: EnvironmentId,
    /// The deployment that brought the program.
    pub number: u64,
    /// The program.
    pub program: Digest,
    /// The program that served before.
    pub before: PathBuf,
    /// What was on record then.
    pub serving: Option<Serving>,
    /// What a person had installed.
    pub installed: Installed,
    /// A copy of the database as it was, where the program will bring it to a newer schema.
    pub backup: Option<PathBuf>,
    /// The program was told to end before it could show whether it serves: the next server tries it anew.
    #[serde(default)]
    pub told_to_end: bool,
}

/// The deployed program that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The program.
    pub program: Digest,
    /// What a person had installed: another one there takes over again.
    pub installed: Installed,
}

/// A program that could not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The environment that is this server.
    pub environment: EnvironmentId,
    /// The deployment that brought it.
    pub number: u64,
    /// Why it could not.
    pub why: String,
}

/// Tells one installed file from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    path: PathBuf,
    bytes: u64,
    inode: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl Installed {
    /// What is at a path now.
    ///
    /// # Errors
    /// Nothing is, or it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Installed> {
        let meta = fs::metadata(path)?;
        Ok(Installed {
            path: path.to_owned(),
            bytes: meta.len(),
            inode: meta.ino(),
            modified_seconds: meta.mtime(),
            modified_nanoseconds: meta.mtime_nsec(),
        })
    }
}

/// What was done to the records: so it stands for whoever looks, from now on.
#[derive(Debug, Default)]
#[must_use]
pub struct Kept {
    unconfirmed: Option<io::Error>,
}

impl Kept {
    /// Why the disk has not confirmed it, if so: after a power cut it may not have been done.
    pub fn unconfirmed(self) -> Option<io::Error> {
        self.unconfirmed
    }

    /// For whoever does nothing that stands on it before it is sure.
    ///
    /// # Errors
    /// The disk has not confirmed it.
    pub fn surely(self) -> io::Result<()> {
        self.unconfirmed.map_or(Ok(()), Err)
    }

    fn and(self, next: Kept) -> Kept {
        Kept { unconfirmed: self.unconfirmed.or(next.unconfirmed) }
    }
}

/// The folder of records and programs. It is made by the first write.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// Has the disk confirm what the folder lists.
    sync: fn(&Path) -> io::Result<()>,
}

impl Folder {
    /// The one of a data folder.
    pub fn of(data: &Path) -> Folder {
        // Programs are recognised by their paths, which the system shows without links.
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        Folder { path: data.join(FOLDER), sync: |path| File::open(path)?.sync_all() }
    }

    /// The same on a disk that confirms otherwise.
    #[must_use]
    pub fn synced_by(self, sync: fn(&Path) -> io::Result<()>) -> Folder {
        Folder { sync, ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of programs.
    pub fn programs(&self) -> PathBuf {
        self.path.join("programs")
    }

    /// Where a program is, or would be.
    pub fn program(&self, digest: &Digest) -> PathBuf {
        self.programs().join(digest.to_string())
    }

    /// Where a steward listens.
    pub fn socket(&self) -> PathBuf {
        self.path.join("steward.socket")
    }

    /// Where the copy of the database is kept during a trial.
    pub fn backup(&self) -> PathBuf {
        self.path.join("before.db")
    }

    /// The program that serves, if one was deployed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn serving(&self) -> io::Result<Option<Serving>> {
        self.read(SERVING)
    }

    /// The program that is being tried.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn trial(&self) -> io::Result<Option<Trial>> {
        self.read(TRIAL)
    }

    /// The program that could not serve last.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn failed(&self) -> io::Result<Option<Failed>> {
        self.read(FAILED)
    }

    /// Remembers that a program is about to be tried.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_trial(&self, trial: &Trial) -> io::Result<Kept> {
        self.write(TRIAL, trial)
    }

    /// Remembers which program serves.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_serving(&self, serving: &Serving) -> io::Result<Kept> {
        self.write(SERVING, serving)
    }

    /// The trial is over.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_trial(&self) -> io::Result<Kept> {
        // First: whoever finds a trial without its copy takes it for one that had not begun.
        let kept = self.remove(TRIAL)?;
        for copy in [self.backup(), self.backup().with_extension("draft")] {
            // One that stays is removed before the next is made.
            let _ = fs::remove_file(copy);
        }
        Ok(kept)
    }

    /// No deployed program serves.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_serving(&self) -> io::Result<Kept> {
        self.remove(SERVING)
    }

    /// Remembers of a trial that its program was told to end.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_told_to_end(&self, trial: &Trial) -> io::Result<Kept> {
        self.set_trial(&Trial { told_to_end: true, ..trial.clone() })
    }

    /// Goes back to what was on record before a trial, and remembers why; its program is gone.
    ///
    /// # Errors
    /// It cannot be written: the next start finds the trial, and gives it up.
    pub fn give_up(&self, trial: &Trial, why: &str) -> io::Result<Kept> {
        let goes_on = trial.serving.as_ref().is_some_and(|serving| serving.program == trial.program);
        if !goes_on {
            // First: where the disk is full, it makes the room that the record takes. One that stays goes with the next trial.
            let _ = fs::remove_file(self.program(&trial.program));
        }
        let (environment, number) = (trial.environment.clone(), trial.number);
        let kept = self.write(FAILED, &Failed { environment, number, why: why.to_owned() })?;
        Ok(kept.and(self.take_back(trial)?))
    }

    /// Goes back to what was on record before a trial, as if there had been none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn take_back(&self, trial: &Trial) -> io::Result<Kept> {
        let kept = match &trial.serving {
            Some(serving) => self.set_serving(serving)?,
            None => self.forget_serving()?,
        };
        Ok(kept.and(self.remove_trial()?))
    }

    /// Remembers that what was tried serves: there is no way back any more.
    ///
    /// # Errors
    /// It cannot be written; the trial goes on.
    pub fn confirm(&self, trial: &Trial) -> io::Result<Kept> {
        // Before it is confirmed: should the steward go back all the same, it puts the former record back as well.
        let serving = Serving { program: trial.program, installed: trial.installed.clone() };
        let kept = self.set_serving(&serving)?;
        // This decides. Whoever finds no trial goes back to nothing, whatever the steward has heard by then.
        Ok(kept.and(self.remove_trial()?))
    }

    /// Removes programs that nobody goes back to.
    ///
    /// # Errors
    /// They cannot be listed or removed.
    pub fn remove_programs_but(&self, kept: &[PathBuf]) -> io::Result<()> {
        for entry in fs::read_dir(self.programs())? {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn make(&self) -> io::Result<()> {
        crate::files::make_private_folder(&self.programs())
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(self.path.join(name)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<Kept> {
        self.make()?;
        let text = serde_json::to_vec(value).expect("invariant: a record is plain data");
        let fresh = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, self.path.join(name))?;
        Ok(self.kept())
    }

    fn remove(&self, name: &str) -> io::Result<Kept> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(self.kept()),
        }
    }

    fn kept(&self) -> Kept {
        let unconfirmed = (self.sync)(&self.path).err();
        // In a folder that is not there nothing can come back.
        Kept { unconfirmed: unconfirmed.filter(|error| error.kind() != io::ErrorKind::NotFound) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(path: &Path, serving: Option<Serving>) -> Trial {
        Trial {
            environment: "demo/live".parse().unwrap(),
            number: 3,
            program: Digest([1; 32]),
            before: path.to_owned(),
            serving,
            installed: Installed::of(path).unwrap(),
            backup: None,
            told_to_end: false,
        }
    }

    #[test]
    fn giving_up_leaves_what_was_before_and_says_why() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::of(place.path());
        assert_eq!((folder.trial().unwrap(), folder.serving().unwrap()), (None, None));
        folder.forget_serving().unwrap().surely().unwrap();
        let file = place.path().join("installed");
        fs::write(&file, "a").unwrap();
        let before = Serving { program: Digest([9; 32]), installed: Installed::of(&file).unwrap() };
        let tried = trial(&file, Some(before.clone()));
        folder.set_trial(&tried).unwrap().surely().unwrap();
        let other = Serving { program: Digest([1; 32]), ..before.clone() };
        folder.set_serving(&other).unwrap().surely().unwrap();
        assert_eq!(folder.trial().unwrap(), Some(tried.clone()));
        let programs = [tried.program, before.program].map(|program| folder.program(&program));
        programs.iter().for_each(|program| fs::write(program, "x").unwrap());
        folder.give_up(&tried, "it died").unwrap().surely().unwrap();
        assert_eq!(programs.map(|program| program.exists()), [false, true]);
        assert_eq!((folder.trial().unwrap(), folder.serving().unwrap()), (None, Some(before)));
        assert_eq!(folder.failed().unwrap().unwrap().why, "it died");
        folder.give_up(&trial(&file, None), "it died").unwrap().surely().unwrap();
        assert_eq!(folder.serving().unwrap(), None);
    }

    #[test]
    fn a_trial_of_a_program_that_was_told_to_end_is_taken_back_and_nothing_is_said_of_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::of(place.path());
        let file = place.path().join("installed");
        fs::write(&file, "a").unwrap();
        let before = Serving { program: Digest([9; 32]), installed: Installed::of(&file).unwrap() };
        let tried = trial(&file, Some(before.clone()));
        folder.set_trial(&tried).unwrap().surely().unwrap();
        folder.set_told_to_end(&tried).unwrap().surely().unwrap();
        let found = folder.trial().unwrap().unwrap();
        assert_eq!(found, Trial { told_to_end: true, ..tried });
        let other = Serving { program: Digest([1; 32]), ..before.clone() };
        folder.set_serving(&other).unwrap().surely().unwrap();
        folder.take_back(&found).unwrap().surely().unwrap();
        assert_eq!((folder.trial().unwrap(), folder.serving().unwrap()), (None, Some(before)));
        assert_eq!(folder.failed().unwrap(), None);
    }

    #[test]
    fn what_the_disk_does_not_confirm_stands_whole_for_whoever_looks() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::of(place.path()).synced_by(|_| Err(io::Error::other("it is broken")));
        let file = place.path().join("installed");
        fs::write(&file, "a").unwrap();
        let before = Serving { program: Digest([9; 32]), installed: Installed::of(&file).unwrap() };
        let tried = trial(&file, Some(before.clone()));
        let unsure = |kept: io::Result<Kept>| assert!(kept.unwrap().surely().is_err());
        unsure(folder.set_trial(&tried));
        unsure(folder.confirm(&tried));
        let serving = Serving { program: Digest([1; 32]), ..before.clone() };
        assert_eq!((folder.trial().unwrap(), folder.serving().unwrap()), (None, Some(serving)));
        unsure(folder.set_trial(&tried));
        unsure(folder.give_up(&tried, "it died"));
        assert_eq!((folder.trial().unwrap(), folder.serving().unwrap()), (None, Some(before)));
        assert_eq!(folder.failed().unwrap().unwrap().why, "it died");
    }

    #[test]
    fn another_installed_file_is_told_from_the_same() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("installed");
        fs::write(&file, "a").unwrap();
        let first = Installed::of(&file).unwrap();
        assert_eq!(Installed::of(&file).unwrap(), first);
        let other = place.path().join("other");
        fs::write(&other, "b").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_ne!(Installed::of(&file).unwrap(), first);
    }
}
