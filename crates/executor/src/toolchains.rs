//! Toolchains on the host's `PATH` that lie outside the system folders: `~/.cargo/bin`, rustup, pyenv, node.
//!
//! They are bound read-only at their own paths, and nothing else of a home is. Credentials (`credentials.toml`,
//! `.netrc`, `.npmrc`) lie beside the folders that are bound, never in them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use towpath_core::ids::Digest;

/// What a host offers to its jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toolchains {
    /// `PATH` inside.
    pub path: String,
    /// Folders bound at their own paths; none lies in another.
    pub folders: Vec<PathBuf>,
    /// Variables by which they find themselves.
    pub variables: BTreeMap<String, String>,
}

/// Already there in every sandbox.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib64"];
/// Never bound, nor anything that holds them.
const NEVER: &[&str] = &[
    "/", "/boot", "/dev", "/etc", "/home", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/var",
];
/// At the end of every job's `PATH`.
const PATH_DEFAULT: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// A toolchain's own root: the variable that names it, and where it is below a home otherwise.
const ROOTS: &[(&str, &str)] = &[("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv")];

impl Toolchains {
    /// What an executor finds that is started now with this process's environment.
    pub fn here() -> Toolchains {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Toolchains::discover(&path, |key| std::env::var(key).ok())
    }

    /// Stands for all of it: two executors with the same give their jobs the same tools.
    ///
    /// Over each thing that there is, by name. A later version of the program that looks for more gives the same as this one
    /// where there is nothing of that: else its server would take every executor for one with other tools.
    pub fn digest(&self) -> Digest {
        let path = [&b"path"[..], self.path.as_bytes()];
        let folders =
            self.folders.iter().flat_map(|folder| [b"folder", folder.as_os_str().as_encoded_bytes()]);
        let variables = self.variables.iter();
        let variables = variables.flat_map(|(key, value)| [b"variable", key.as_bytes(), value.as_bytes()]);
        Digest::of_fields(path.into_iter().chain(folders).chain(variables))
    }

    /// Reads `path` (as in `PATH`) and looks up other variables with `variable`.
    pub fn discover(path: &OsStr, variable: impl Fn(&str) -> Option<String>) -> Toolchains {
        let home = variable("HOME").map(PathBuf::from);
        let roots = roots(&variable, home.as_deref());
        let mut found = Toolchains::default();
        let mut entries: Vec<String> = Vec::new();
        let mut folders = BTreeSet::new();
        let usable = |entry: &PathBuf| entry.is_absolute() && entry.is_dir() && is_plain(entry);
        for entry in std::env::split_paths(path).filter(usable) {
            let Some(text) = entry.to_str().map(str::to_owned) else { continue };
            if !SYSTEM.iter().any(|folder| entry.starts_with(folder)) {
                let Some(folder) = folder_of(&entry, &roots, home.as_deref()) else { continue };
                folders.insert(folder);
            }
            if !entries.contains(&text) {
                entries.push(text);
            }
        }
        for (key, root) in &roots {
            if used(key, root, &folders) {
                folders.insert(root.clone());
                found.variables.insert((*key).to_owned(), root.display().to_string());
            }
        }
        let missing = PATH_DEFAULT.iter().filter(|entry| !entries.iter().any(|there| there == *entry));
        let missing: Vec<String> = missing.map(|entry| (*entry).to_owned()).collect();
        entries.extend(missing);
        found.path = entries.join(":");
        found.folders = outermost(folders);
        found
    }
}

fn roots(variable: &impl Fn(&str) -> Option<String>, home: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let root = |(key, below): &(&'static str, &str)| {
        let path = variable(key).map(PathBuf::from).or_else(|| Some(home?.join(below)))?;
        (path.is_dir() && is_plain(&path) && !is_never(&path, home)).then_some((*key, path))
    };
    ROOTS.iter().filter_map(root).collect()
}

/// rustup's programs lie in cargo's folder, so its root is used where they are on the path; pyenv's lie in it.
fn used(key: &str, root: &Path, folders: &BTreeSet<PathBuf>) -> bool {
    match key {
        "RUSTUP_HOME" => folders.iter().any(|folder| folder.join("rustup").exists()),
        _ => folders.iter().any(|folder| folder.starts_with(root)),
    }
}

/// The folder to bind for one entry of the path: a known root, a toolchain's own prefix, or the entry alone.
fn folder_of(entry: &Path, roots: &[(&str, PathBuf)], home: Option<&Path>) -> Option<PathBuf> {
    if let Some((_, root)) = roots.iter().find(|(_, root)| entry.starts_with(root)) {
        return Some(root.clone());
    }
    let prefix = entry.parent()?;
    let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    let is_prefix = entry.ends_with("bin")
        && (prefix.join("lib").is_dir() || prefix.join("libexec").is_dir())
        && !is_never(prefix, home)
        // `~/.local` and `~/.cargo` hold more than programs.
        && !prefix.components().next_back().is_some_and(hidden);
    let folder = if is_prefix { prefix } else { entry };
    (!is_never(folder, home)).then(|| folder.to_owned())
}

fn is_never(folder: &Path, home: Option<&Path>) -> bool {
    NEVER.iter().any(|never| folder == Path::new(never)) || home.is_some_and(|home| home.starts_with(folder))
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

fn outermost(folders: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if !kept.iter().any(|outer| folder.starts_with(outer)) {
            kept.push(folder);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_what_a_host_offers_stays_what_it_is() {
        let found = Toolchains {
            path: "/a/bin:/usr/bin".into(),
            folders: vec!["/a".into(), "/b".into()],
            variables: BTreeMap::from([("RUSTUP_HOME".into(), "/b".into())]),
        };
        let digest = "2253bede15a68cc893fa811d79962d90ffb0d7bdf16bdfdc15410b873f4ecd7a";
        assert_eq!(found.digest().to_string(), digest);
        let others = [
            Toolchains { path: "/usr/bin".into(), ..found.clone() },
            Toolchains { folders: vec!["/a".into()], ..found.clone() },
            Toolchains { variables: BTreeMap::new(), ..found.clone() },
        ];
        assert!(others.iter().all(|other| other.digest() != found.digest()));
    }

    #[test]
    fn only_toolchains_of_a_home_are_seen() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        for folder in
            [".cargo/bin", ".rustup/toolchains", ".local/bin", ".local/lib", "node/bin", "node/lib", "bin"]
        {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        for file in [".cargo/credentials.toml", ".cargo/bin/rustup"] {
            std::fs::write(home.join(file), "").unwrap();
        }
        let entries =
            [".cargo/bin", ".local/bin", "node/bin", "bin", "missing", ""].map(|entry| home.join(entry));
        let path = std::env::join_paths(entries.iter().chain([&PathBuf::from("/usr/bin")])).unwrap();
        let found = Toolchains::discover(&path, |key| (key == "HOME").then(|| home.display().to_string()));
        let below = |folder: &PathBuf| folder.strip_prefix(home).unwrap().display().to_string();
        let folders: Vec<String> = found.folders.iter().map(below).collect();
        assert_eq!(folders, [".cargo/bin", ".local/bin", ".rustup", "bin", "node"]);
        assert_eq!(found.variables.keys().collect::<Vec<_>>(), ["RUSTUP_HOME"]);
        assert!(found.path.ends_with("/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"));
        assert!(!found.path.contains(&format!("{}:", home.display())));
    }
}
