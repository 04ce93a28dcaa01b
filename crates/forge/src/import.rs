//! Who may import what (trust S6). Git's part, with its bounds and checks, is [`towpath_git::import`].

use std::path::Path;

use towpath_core::cell::RefusalClass;
use towpath_git::{Credentials, Git, GitError, ImportOptions, Imported, Reach, Source};

use crate::error::{Done, Failure};

/// Which admin of the server asks for an import, as the server authenticated them. Nobody else may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importer {
    /// One on its own machine, where they can read and reach what the server can.
    LocalAdmin,
    /// One over the network.
    Admin,
}

/// What is imported. How far the server reaches for it follows from who asks.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// An address, as git takes it.
    Address {
        /// `https://` or `ssh://`.
        address: &'a str,
        /// What opens it. Not kept.
        credentials: Credentials<'a>,
    },
    /// A folder of the server's own machine.
    Folder(&'a Path),
}

/// Imports a repository to `into`, which does not exist yet, if `by` may.
///
/// Over the network only public addresses are reached, so that the server is nobody's way into its own network; a path of
/// the server is for the local admin alone.
///
/// # Errors
/// `Denied` without the right, or where the server does not reach for this person; what [`towpath_git::import`] says
/// otherwise. Nothing is left at `into` then.
pub fn import(
    git: &Git,
    by: Importer,
    (origin, into): (Origin<'_>, &Path),
    options: ImportOptions<'_>,
) -> Done<Imported> {
    let source = permitted(by, origin)?;
    towpath_git::import(git, &source, into, options).map_err(|error| match error {
        GitError::SourceRefused { .. } => Failure::refused(RefusalClass::Denied, error.to_string()),
        GitError::Exists { .. } => Failure::refused(RefusalClass::Conflict, error.to_string()),
        error => error.into(),
    })
}

fn permitted<'a>(by: Importer, origin: Origin<'a>) -> Done<Source<'a>> {
    match (by, origin) {
        (Importer::LocalAdmin, Origin::Address { address, credentials }) => {
            Ok(Source::Remote { address, reach: Reach::Anywhere, credentials })
        }
        (Importer::Admin, Origin::Address { address, credentials }) => {
            Ok(Source::Remote { address, reach: Reach::Public, credentials })
        }
        (Importer::LocalAdmin, Origin::Folder(path)) => Ok(Source::Local(path)),
        (Importer::Admin, Origin::Folder(_)) => {
            let why = "a folder of the server is imported only for an admin on the server's own machine";
            Err(Failure::refused(RefusalClass::Denied, why))
        }
    }
}
