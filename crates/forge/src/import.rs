//! Who may import what (trust S6). Git's part, with its bounds and checks, is [`towpath_git::import`].

use std::path::Path;

use towpath_core::cell::RefusalClass;
use towpath_git::{Git, GitError, ImportOptions, Imported, Reach, Source};

use crate::error::{Done, Failure};

/// Who asks for an import, as the server authenticated them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importer {
    /// An admin of the server, on its own machine, where they can read what the server can.
    LocalAdmin,
    /// An admin of the server, over the network.
    Admin,
    /// Anybody else.
    Other,
}

/// Imports a repository to `into`, which does not exist yet, if `by` may.
///
/// Over the network only public addresses are reached, so that the server is nobody's way into its own network; a path of
/// the server is for the local admin alone.
///
/// # Errors
/// `Denied` without the right; what [`towpath_git::import`] says otherwise. Nothing is left at `into` then.
pub fn import(
    git: &Git,
    by: Importer,
    (source, into): (&Source<'_>, &Path),
    options: ImportOptions<'_>,
) -> Done<Imported> {
    may_import(by, source)?;
    towpath_git::import(git, source, into, options).map_err(|error| match error {
        GitError::SourceRefused { .. } => Failure::refused(RefusalClass::Denied, error.to_string()),
        GitError::Exists { .. } => Failure::refused(RefusalClass::Conflict, error.to_string()),
        error => error.into(),
    })
}

fn may_import(by: Importer, source: &Source<'_>) -> Done<()> {
    let why = match (by, source) {
        (Importer::LocalAdmin, _) => return Ok(()),
        (Importer::Admin, Source::Remote { reach: Reach::Public, .. }) => return Ok(()),
        (Importer::Admin, Source::Remote { reach: Reach::Anywhere, .. }) => {
            "importing from an address that is not public takes an admin on the server's own machine: run \
             `towpath repo import` there"
        }
        (Importer::Admin, Source::Local(_)) => {
            "importing a path of the server takes an admin on the server's own machine: run `towpath repo import` there"
        }
        (Importer::Other, _) => "importing makes a repo, which takes an admin of the server",
    };
    Err(Failure::refused(RefusalClass::Denied, why))
}
