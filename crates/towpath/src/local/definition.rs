//! The definition of a work tree, read as the server reads that of a commit.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use towpath_pipeline::{
    DETECTION_BYTES_MAX, DETECTION_FILES, DefinitionFile, FILE_BYTES_MAX, FILE_NAME, RootTree, TreeEntry,
};

use crate::command::{file_failure, own_checkout, own_git};
use crate::failure::{Exit, Failure};

/// Git's modes of what can stand in a tree.
const MODE_REGULAR: u32 = 0o100_644;
const MODE_EXECUTABLE: u32 = 0o100_755;
const MODE_LINK: u32 = 0o120_000;
const MODE_TREE: u32 = 0o040_000;

/// The definition of the repository that the command was called in, uncommitted changes included.
pub fn of_here() -> Result<DefinitionFile, Failure> {
    let git = own_git()?;
    let checkout = own_checkout(&git)?;
    let root = |path: &towpath_git::TreePath| {
        let first = path.0.split(|byte| *byte == b'/').next().unwrap_or_default();
        String::from_utf8_lossy(first).into_owned()
    };
    let names = checkout.files()?.files.iter().map(root).collect();
    of_folder(checkout.top(), names)
}

/// The definition of a folder that holds exactly a work tree's files.
pub fn of_copy(folder: &Path) -> Result<DefinitionFile, Failure> {
    let failed = |error: std::io::Error| file_failure("read", folder, &error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<_, _>>().map_err(failed)?;
    of_folder(folder, names)
}

fn of_folder(folder: &Path, names: BTreeSet<String>) -> Result<DefinitionFile, Failure> {
    let path = folder.join(FILE_NAME);
    let failed = |error: std::io::Error| file_failure("read", &path, &error);
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.map_err(failed)?),
    };
    let Some(found) = found else {
        let files = DETECTION_FILES.into_iter().filter(|name| names.contains(*name));
        let files = files.filter_map(|name| Some((name.to_owned(), head_of(&folder.join(name))?))).collect();
        return Ok(DefinitionFile::read(TreeEntry::Absent(&RootTree { names, files })));
    };
    let mode = match found.file_type() {
        kind if kind.is_symlink() => MODE_LINK,
        kind if !kind.is_file() => MODE_TREE,
        _ if found.permissions().mode() & 0o100 != 0 => MODE_EXECUTABLE,
        _ => MODE_REGULAR,
    };
    let bytes = if mode == MODE_REGULAR { bytes_of(&path)? } else { Vec::new() };
    Ok(DefinitionFile::read(TreeEntry::Present { mode, bytes: &bytes }))
}

/// The bytes of a pipeline file. Of one that is too large, or never ends, enough to say so.
pub fn bytes_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = |file: fs::File| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    fs::File::open(path).and_then(read).map_err(|error| file_failure("read", path, &error))?;
    Ok(bytes)
}

/// The beginning of a regular file; what is no file or cannot be read does not tell of a job.
fn head_of(path: &Path) -> Option<Vec<u8>> {
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(DETECTION_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// There is no job of this name; the nearest one is named.
pub fn no_such_job(name: &str, known: &[&str]) -> Failure {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(known, name), *known)).min();
    let hint = match near {
        Some((distance, near)) if distance <= 1 + name.len() / 3 => format!("did you mean `{near}`?"),
        _ if known.is_empty() => "`towpath config explain` says why there are none".to_owned(),
        _ => format!("the jobs are: {}", known.join(", ")),
    };
    Failure::new(Exit::NotFound, format!("there is no job `{name}`")).hint(hint)
}
