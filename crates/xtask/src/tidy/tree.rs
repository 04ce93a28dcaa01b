//! What the rules read: every file of the repository as text, and what Cargo says about the libraries.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use super::source::Source;
use crate::failure::Failure;

/// The repository at one moment.
pub struct Tree {
    /// Every file by its path from the root, with its text; data has none.
    pub files: BTreeMap<String, String>,
    /// Rust files, read as Rust.
    pub rust: BTreeMap<String, Source>,
    /// The packages that `cargo metadata` lists.
    pub packages: Vec<Package>,
}

/// A library from a registry, as far as the rules look at it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its SPDX expression, as its manifest has it.
    pub licence: Option<String>,
}

/// A place where a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `path`, or `path:line`.
    pub place: String,
    /// What is wrong, and what to do.
    pub what: String,
    /// Worth a look; it fails nothing.
    pub is_advice: bool,
}

impl Finding {
    /// A finding about a whole file.
    pub fn file(path: &str, what: impl Into<String>) -> Finding {
        Finding { place: path.to_owned(), what: what.into(), is_advice: false }
    }

    /// A finding about one line, counted from 1.
    pub fn line(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding::file(&format!("{path}:{line}"), what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_advice { "advice: " } else { "" };
        write!(f, "{}: {kind}{}", self.place, self.what)
    }
}

/// Bytes that a file may have to be read as text; larger ones are data.
const TEXT_BYTES_MAX: u64 = 4 << 20;

impl Tree {
    /// Reads the repository.
    ///
    /// # Errors
    /// A folder cannot be read, or Cargo does not list the libraries.
    pub fn read(root: &Path) -> Result<Tree, Failure> {
        let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let mut skipped: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
        skipped.push(".git");
        let mut files = BTreeMap::new();
        read_folder(root, "", &skipped, &mut files)
            .map_err(|why| Failure::new("the repository cannot be read", why, "check the folder's rights"))?;
        let mut tree = Tree::of(files);
        tree.packages = packages(root, tree.toml("deny.toml").as_ref())?;
        Ok(tree)
    }

    /// A tree of these files, and no libraries.
    pub fn of(files: BTreeMap<String, String>) -> Tree {
        let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
        let rust = rust.map(|(path, text)| (path.clone(), Source::new(path, text))).collect();
        Tree { files, rust, packages: Vec::new() }
    }

    /// A file's text; empty where there is no such file.
    pub fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// A file as TOML, if it is there and is TOML.
    pub fn toml(&self, path: &str) -> Option<toml::Table> {
        self.files.get(path)?.parse().ok()
    }

    /// The folder names of the workspace's crates.
    pub fn crates(&self) -> impl Iterator<Item = &str> {
        let manifest = |path: &'_ String| {
            let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!name.contains('/')).then_some(name.len())
        };
        self.files.keys().filter_map(move |path| manifest(path).map(|length| &path[7..7 + length]))
    }
}

/// Marks a folder as one that a program made and can make again (<https://bford.info/cachedir/>): Cargo's, say.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// Symbolic links are not followed: what they lead to is read at its own place.
fn read_folder(
    root: &Path,
    below: &str,
    skipped: &[&str],
    files: &mut BTreeMap<String, String>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        if skipped.contains(&path.as_str()) {
            continue;
        }
        if kind.is_dir() && root.join(&path).join(CACHE_TAG).exists() {
            continue;
        }
        if kind.is_dir() {
            read_folder(root, &path, skipped, files)?;
        } else if kind.is_file() {
            let is_text = entry.metadata()?.len() <= TEXT_BYTES_MAX;
            let bytes = if is_text { std::fs::read(entry.path())? } else { Vec::new() };
            files.insert(path, String::from_utf8(bytes).unwrap_or_default());
        }
    }
    Ok(())
}

/// The libraries that the platforms of `deny.toml` need.
fn packages(root: &Path, deny: Option<&toml::Table>) -> Result<Vec<Package>, Failure> {
    let hint = "`cargo metadata --locked` shows it; Cargo.lock has to be committed with the manifests";
    let failed = |why: String| Failure::new("Cargo does not list the libraries", why, hint);
    let targets = deny.and_then(|deny| deny.get("graph")?.get("targets")?.as_array());
    let mut command = Command::new("cargo");
    command.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root);
    for target in targets.into_iter().flatten().filter_map(toml::Value::as_str) {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().map_err(|why| failed(why.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|why| failed(why.to_string()))?;
    Ok(registry_packages(&metadata))
}

/// The packages of the resolved graph that have a registry as their source.
fn registry_packages(metadata: &serde_json::Value) -> Vec<Package> {
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let resolved: std::collections::BTreeSet<&str> = nodes.filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let outside = packages.filter(|package| {
        !package["source"].is_null() && package["id"].as_str().is_some_and(|id| resolved.contains(id))
    });
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let package = |package: &serde_json::Value| {
        let (name, version) = (text(&package["name"])?, text(&package["version"])?);
        Some(Package { name, version, licence: text(&package["license"]) })
    };
    let mut packages: Vec<Package> = outside.filter_map(package).collect();
    packages.sort();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolved_packages_of_a_registry_are_listed() {
        let metadata = serde_json::json!({
            "packages": [
                { "id": "a", "name": "a", "version": "1.0.0", "license": "MIT", "source": "registry+x" },
                { "id": "own", "name": "own", "version": "0.1.0", "license": null, "source": null },
                { "id": "w", "name": "w", "version": "1.0.0", "license": "X", "source": "registry+x" },
            ],
            "resolve": { "nodes": [{ "id": "a" }, { "id": "own" }] },
        });
        let names: Vec<_> = registry_packages(&metadata).into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn crates_are_the_folders_with_a_manifest() {
        let files = ["crates/core/Cargo.toml", "crates/core/tests/x/Cargo.toml", "Cargo.toml"];
        let tree = Tree::of(files.map(|path| (path.to_owned(), String::new())).into());
        assert_eq!(tree.crates().collect::<Vec<_>>(), ["core"]);
    }
}
