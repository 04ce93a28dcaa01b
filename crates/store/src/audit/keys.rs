//! The audit key's file: outside the data folder and its backups, readable by its owner alone.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::note::{AuditKey, NoteError};
use crate::private::write_private;

/// Why a key file could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The system said no.
    #[error("cannot {what} the audit key `{}`: {why}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// Others may read it.
    #[error("the audit key `{}` can be read by others (mode {mode:o}); run `chmod 600` on it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no key.
    #[error("`{}`: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: NoteError,
    },
}

impl AuditKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// There is none, it is open to others, or it holds no key.
    pub fn load(path: &Path) -> Result<AuditKey, KeyFileError> {
        let text = fs::read_to_string(path).map_err(|why| file(path, "read", &why))?;
        let mode = fs::metadata(path).map_err(|why| file(path, "read", &why))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
        AuditKey::from_secret_text(&text)
            .map_err(|why| KeyFileError::Malformed { path: path.to_owned(), why })
    }

    /// Writes the key to a new file with mode 0600, as a whole and durably. Never over an existing one.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        write_private(path, self.secret_text().as_bytes()).map_err(|why| file(path, "write", &why))
    }

    /// Reads a key file, or makes one with a new key for the log `name` if there is none.
    ///
    /// # Errors
    /// Those of [`AuditKey::load`] and [`AuditKey::save`], or the name is not allowed.
    pub fn load_or_create(path: &Path, name: &str) -> Result<AuditKey, KeyFileError> {
        if path.exists() {
            return AuditKey::load(path);
        }
        let key =
            AuditKey::generate(name).map_err(|why| KeyFileError::Malformed { path: path.to_owned(), why })?;
        key.save(path)?;
        Ok(key)
    }
}

fn file(path: &Path, what: &'static str, why: &io::Error) -> KeyFileError {
    KeyFileError::File { what, path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let key = AuditKey::load_or_create(&path, "log").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(AuditKey::load_or_create(&path, "log").unwrap().verifier(), key.verifier());
        assert!(matches!(key.save(&path), Err(KeyFileError::File { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(AuditKey::load(&path), Err(KeyFileError::Permissions { mode: 0o640, .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Where the test has itself make a key.
    const MAKE: &str = "TOWPATH_TEST_MAKE_KEY";

    #[test]
    fn whoever_dies_or_has_no_room_while_it_makes_a_key_leaves_none() {
        if let Some(path) = std::env::var_os(MAKE) {
            let made = AuditKey::load_or_create(Path::new(&path), "log");
            return assert!(matches!(made, Err(KeyFileError::File { what: "write", .. })));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let left = || fs::read_dir(folder.path()).unwrap().count();
        // Whoever writes to a file is killed, unless it ignores the signal: then there is no room.
        let make = |ignores: &str| {
            let shell = format!("ulimit -c 0; ulimit -f 0; {ignores} exec \"$0\" --exact \"$1\"");
            let test = "audit::keys::tests::whoever_dies_or_has_no_room_while_it_makes_a_key_leaves_none";
            let mut child = Command::new("sh");
            child.args(["-c", &shell]).arg(std::env::current_exe().unwrap()).arg(test);
            child.env(MAKE, &path).output().unwrap()
        };
        let told = make("trap '' XFSZ;");
        let said = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success() && said.contains("1 passed"), "{said}");
        assert_eq!(left(), 0);
        assert!(make("").status.signal().is_some());
        assert!(!path.exists() && left() == 1, "a draft alone");
        AuditKey::load_or_create(&path, "log").unwrap();
        assert!(AuditKey::load(&path).is_ok());
    }
}
