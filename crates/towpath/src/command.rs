//! One file for each command.

pub mod completions;
pub mod config;
pub mod doctor;
pub mod executor;
pub mod man;
pub mod run;

use std::path::{Path, PathBuf};

use towpath_git::{Checkout, Git, GitOptions};

use crate::failure::{Exit, Failure};

/// The hidden subcommand that the executor starts for each of its slots.
pub const SANDBOX_HELPER: &str = "sandbox-helper";

/// The hidden subcommand that git starts as a hook of a push, followed by the hook's name.
pub const HOOK: &str = "hook";

/// The developer's own git: the first on their path.
pub fn own_git() -> Result<Git, Failure> {
    let options = GitOptions::default();
    let search_path = std::env::var_os("PATH").unwrap_or_else(|| options.search_path.clone());
    Ok(Git::find(GitOptions { search_path, ..options })?)
}

/// The work tree that the command was called in.
pub fn own_checkout(git: &Git) -> Result<Checkout, Failure> {
    let here = here()?;
    Checkout::find(git, &here)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("{} is in no git work tree", here.display()))
            .why("towpath works on the files that git counts as part of a repository")
            .hint("go into a clone, or make one: `git init`")
    })
}

/// The folder that the command was called in.
pub fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| {
        Failure::new(Exit::Usage, "the current folder cannot be used")
            .why(error.to_string())
            .hint("go into a folder that exists")
    })
}

/// A failed access to a file.
pub fn file_failure(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        std::io::ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Usage,
    };
    Failure::new(exit, format!("cannot {action} `{}`", path.display())).why(error.to_string())
}
