//! Small files that only the server's user may read.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes a new private file, durably: under its name it is there as a whole or not at all. One that is there already is left
/// alone and is an error.
///
/// # Errors
/// As writing has them; `AlreadyExists`.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // For its owner alone from the beginning, and under a name that no draft has which a process left when it died.
    let mut draft = tempfile::Builder::new().prefix(".draft-").tempfile_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}
