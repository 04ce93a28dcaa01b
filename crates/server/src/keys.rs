//! The keys that data are bound to, in a folder of their own: no backup holds them, so a folder may lack some.

use std::path::Path;
use std::{fmt, io};

use serde::Serialize;
use towpath_store::audit::{AuditKey, KeyFileError};
use towpath_store::{DATABASE, OpenError, ReadError, View};

use crate::secrets::{SecretError, Secrets};

/// The file with the key that signs the record, in the folder of the keys.
pub const KEY_OF_AUDIT: &str = "audit.key";
/// The file with the key that opens secrets, there too.
pub const KEY_OF_SECRETS: &str = "secrets.key";

/// What a folder lacks of the keys of some data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Missing {
    /// The key that signs the record: it is not there, or is another one.
    pub audit_key: bool,
    /// How many secrets are sealed under a key that is not there.
    pub sealed_secrets: usize,
}

/// Why nobody can say whether the keys of a data folder are there.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// The folder of the keys cannot be looked at.
    #[error(transparent)]
    Folder(#[from] io::Error),
    /// The key that signs the record cannot be used.
    #[error(transparent)]
    Audit(#[from] KeyFileError),
    /// The key that opens secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretError),
}

impl From<ReadError> for Unknown {
    fn from(error: ReadError) -> Unknown {
        Unknown::Data(error.into())
    }
}

impl Missing {
    /// Looks for the key that signs the record of these data, if there is one, and for the one that so many secrets are sealed
    /// under.
    pub fn of((verifier, secrets): (Option<&str>, usize), keys: &Path) -> Missing {
        let path = keys.join(KEY_OF_AUDIT);
        // A file that cannot be read as one may be the key: whoever needs it says what is wrong with it.
        let is_it =
            AuditKey::load(&path).map_or(path.exists(), |key| verifier == Some(&key.verifier().to_string()));
        let audit_key = verifier.is_some() && !is_it;
        let sealed_secrets = if keys.join(KEY_OF_SECRETS).is_file() { 0 } else { secrets };
        Missing { audit_key, sealed_secrets }
    }

    /// Looks for the keys of a data folder. One that is not made yet lacks none.
    ///
    /// # Errors
    /// The data cannot be asked which keys are theirs, or are a newer program's.
    pub fn of_folder(data: &Path, keys: &Path) -> Result<Missing, OpenError> {
        let database = data.join(DATABASE);
        if !database.is_file() {
            return Ok(Missing::default());
        }
        let view = View::open_copy(&database)?;
        match view.check_schema() {
            // A start that was cut leaves an empty one. Whoever opens it to write says so where it is another program's.
            Err(OpenError::NotTowpath { .. }) => Ok(Missing::default()),
            checked => {
                checked?;
                let (verifier, sealed) = bound_to(&view)?;
                Ok(Missing::of((verifier.as_deref(), sealed), keys))
            }
        }
    }

    /// Looks for the keys of a data folder, and whether each can be used.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn known(data: &Path, keys: &Path) -> Result<Missing, Unknown> {
        let view = View::open_copy(&data.join(DATABASE))?;
        view.check_schema()?;
        let (verifier, sealed) = bound_to(&view)?;
        let (audit, secrets) = (keys.join(KEY_OF_AUDIT), keys.join(KEY_OF_SECRETS));
        if audit.try_exists()? {
            AuditKey::load(&audit)?;
        }
        if secrets.is_file() {
            Secrets::check_key(&secrets)?;
        }
        Ok(Missing::of((verifier.as_deref(), sealed), keys))
    }

    /// Whether nothing is.
    pub fn is_none(&self) -> bool {
        *self == Missing::default()
    }
}

/// What data are bound to their keys by: the key that has signed leaves of their record, and how many secrets are sealed.
fn bound_to(view: &View) -> Result<(Option<String>, usize), ReadError> {
    let verifier = if view.leaf_count()? == 0 { None } else { view.audit_verifier()? };
    Ok((verifier, view.secret_count()?))
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.audit_key {
            write!(f, "the key that signs the record of these data (`{KEY_OF_AUDIT}`)")?;
        }
        match (self.audit_key, self.sealed_secrets) {
            (_, 0) => Ok(()),
            (audit_key, sealed) => {
                let and = if audit_key { " and " } else { "" };
                let secrets = if sealed == 1 { "secret" } else { "secrets" };
                write!(f, "{and}the key that opens the {sealed} {secrets} in them (`{KEY_OF_SECRETS}`)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_core::act::Act;
    use towpath_core::ids::Timestamp;
    use towpath_store::{AuditOptions, Options, Store};

    use super::*;

    #[test]
    fn data_are_bound_to_the_key_that_signs_their_record_from_its_first_leaf_on() {
        let base = tempfile::tempdir().unwrap();
        let (data, key) = (base.path().join("data"), base.path().join(KEY_OF_AUDIT));
        let missing = |leaves: u64| {
            let audit = AuditOptions {
                key: AuditKey::load_or_create(&key, "towpath.test/log").unwrap(),
                succeeds: false,
                sink: None,
            };
            let options =
                Options { audit: Some(audit), reserve_bytes: 0, ..Options::new(&data, Timestamp(1)) };
            let store = Store::open(options).unwrap();
            for _ in 0..leaves {
                let act = Act::Administered { by: None, what: "tested".into() };
                store.writer().write(move |tx| Ok(tx.act(&act, Timestamp(1)))).unwrap();
            }
            store.close();
            std::fs::remove_file(&key).unwrap();
            Missing::of_folder(&data, base.path()).unwrap()
        };
        assert_eq!(missing(0), Missing::default());
        assert_eq!(missing(1), Missing { audit_key: true, sealed_secrets: 0 });
    }
}
