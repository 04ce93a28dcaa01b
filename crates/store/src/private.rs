//! Small files that only the server's user may read.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// How the names of drafts begin.
const DRAFT: &str = ".draft-";

/// Writes a new private file, durably: under its name it is there as a whole or not at all. One that is there already is left
/// alone and is an error.
///
/// # Errors
/// As writing has them; `AlreadyExists`.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // For its owner alone from the beginning, and under a name that no draft has which a process left when it died.
    let mut draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Removes the drafts of private files that a process left in a folder when it died. Only for whoever knows that nobody is
/// writing one there.
///
/// # Errors
/// As reading the folder and removing have them.
pub fn remove_drafts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes())
            || !entry.file_type()?.is_file()
        {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_private(&at("audit.key"), b"key").unwrap();
        [".draft-abc", ".draft-", "draft-abc", ".drafts"]
            .iter()
            .for_each(|name| fs::write(at(name), "").unwrap());
        fs::create_dir(at(".draft-folder")).unwrap();
        remove_drafts(folder.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".draft-folder", ".drafts", "audit.key", "draft-abc"]);
    }
}
