//! Rules over the manifests: who may depend on whom, and on what.

use std::collections::BTreeMap;

use super::tree::{Finding, Tree};

/// The crates from the bottom up. A crate sees only crates of lower rows; those of one row never see each other.
const LAYERS: &[&[&str]] = &[
    &["core"],
    &["git", "blob"],
    &["forge", "executor", "release", "registry", "pipeline", "store"],
    &["sim"],
    &["server"],
    &["towpath", "bench"],
];

/// All that `core` may use of the outside. Its purity rests on this list: there is nothing in it that could open a file,
/// read a clock or draw a random number.
const CORE_LIBRARIES: &[&str] = &["serde", "serde_json", "sha2", "thiserror"];

/// Libraries that stand for a duty, and the crates whose duty it is.
const LIBRARY_OWNERS: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("axum", &["server", "sim"]),
    ("clap", &["towpath"]),
    ("miette", &["towpath"]),
];

/// The sections of a manifest that end up in the product.
const SHIPPED: [&str; 2] = ["dependencies", "build-dependencies"];
const DEV: &str = "dev-dependencies";

/// A direct dependency as a manifest states it.
struct Dependency<'a> {
    name: String,
    section: &'a str,
    value: toml::Value,
}

impl Dependency<'_> {
    /// The folder of a crate of ours.
    fn own(&self) -> Option<&str> {
        if self.name == "xtask" { Some("xtask") } else { self.name.strip_prefix("towpath-") }
    }

    /// The package's name, also where the manifest gives it another.
    fn package(&self) -> &str {
        self.value.get("package").and_then(toml::Value::as_str).unwrap_or(&self.name)
    }
}

fn manifest_path(name: &str) -> String {
    format!("crates/{name}/Cargo.toml")
}

fn dependencies(tree: &Tree, name: &str) -> Vec<Dependency<'static>> {
    let Some(manifest) = tree.toml(&manifest_path(name)) else { return Vec::new() };
    let tables = std::iter::once(&manifest).chain(
        manifest
            .get("target")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
            .filter_map(|(_, v)| v.as_table()),
    );
    let mut found = Vec::new();
    for table in tables {
        for section in SHIPPED.into_iter().chain([DEV]) {
            let entries = table.get(section).and_then(toml::Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(name, value)| Dependency {
                name: name.clone(),
                section,
                value: value.clone(),
            }));
        }
    }
    found
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// The dependency rule of ARCHITECTURE.md.
pub fn edges(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in tree.crates() {
        let path = manifest_path(name);
        if layer(name).is_none() && name != "xtask" {
            findings.push(Finding::file(
                &path,
                "this crate has no row in LAYERS of crates/xtask/src/tidy/manifests.rs",
            ));
        }
        for dependency in dependencies(tree, name) {
            let Some(other) = dependency.own() else { continue };
            if let Some(why) = refused_edge(name, other, dependency.section) {
                findings.push(Finding::file(&path, format!("{name} may not depend on {other}: {why}")));
            }
        }
    }
    findings
}

fn refused_edge(from: &str, to: &str, section: &str) -> Option<&'static str> {
    if from == "xtask" {
        return Some("the tool that tests the workspace must build when the workspace does not");
    }
    if ["xtask", "towpath", "bench"].contains(&to) {
        return Some("nothing depends on a program");
    }
    // An unknown crate is a finding of its own.
    let (from_layer, to_layer) = (layer(from)?, layer(to)?);
    if section == DEV {
        // Tests may look sideways, and into the simulator, but not up.
        return (to_layer > from_layer && to != "sim").then_some("it stands above, also for tests");
    }
    if to == "sim" && from != "towpath" {
        return Some("of the product only towpath may have the simulator");
    }
    match to_layer.cmp(&from_layer) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some("siblings never see each other"),
        std::cmp::Ordering::Greater => Some("dependencies point downwards"),
    }
}

/// `core` stays pure, and a duty stays in the crate whose duty it is.
pub fn libraries(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in tree.crates() {
        for dependency in dependencies(tree, name) {
            if dependency.own().is_some() || dependency.section == DEV {
                continue;
            }
            let library = dependency.package();
            let refuse = |why: String| Finding::file(&manifest_path(name), why);
            if name == "core" && !CORE_LIBRARIES.contains(&library) {
                findings.push(refuse(format!(
                    "core may not use {library}: its libraries are {CORE_LIBRARIES:?}"
                )));
            }
            let owners = LIBRARY_OWNERS.iter().find(|(owned, _)| *owned == library);
            if let Some((_, owners)) = owners.filter(|(_, owners)| !owners.contains(&name)) {
                findings.push(refuse(format!("{library} belongs to {owners:?}")));
            }
        }
    }
    findings
}

/// One version of a library for all crates, with the reason why it is there, and none that nobody uses.
pub fn reasons(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for name in tree.crates() {
        for dependency in dependencies(tree, name) {
            *users.entry(dependency.name.clone()).or_default() += 1;
            if dependency.value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                let what = format!("`{}` must be `{0}.workspace = true`", dependency.name);
                findings.push(Finding::file(&manifest_path(name), what));
            }
        }
    }
    for (line, name, rest) in workspace_dependencies(tree.text("Cargo.toml")) {
        let at = |what: String| Finding::line("Cargo.toml", line, what);
        let is_own = rest.contains("path = ");
        if !is_own && !rest.contains(" # ") {
            findings.push(at(format!("`{name}` needs its reason in one line: `{name} = … # why`")));
        }
        if !is_own && !users.contains_key(name) {
            findings.push(at(format!("no crate uses `{name}`")));
        }
    }
    findings
}

/// Lines `name = rest` of the section `[workspace.dependencies]`, with their numbers.
fn workspace_dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let lines =
        manifest.lines().enumerate().skip_while(|(_, line)| line.trim() != "[workspace.dependencies]");
    let section = lines.skip(1).take_while(|(_, line)| !line.starts_with('['));
    section.filter(|(_, line)| !line.starts_with([' ', '#', ']', '}'])).filter_map(|(at, line)| {
        let (name, rest) = line.split_once('=')?;
        Some((at + 1, name.trim(), rest))
    })
}

/// A crate that does not take the workspace's lints may do what they refuse.
pub fn lints(tree: &Tree) -> Vec<Finding> {
    let takes = |name: &str| {
        let manifest = tree.toml(&manifest_path(name))?;
        manifest.get("lints")?.get("workspace")?.as_bool()
    };
    let bare = tree.crates().filter(|name| takes(name) != Some(true));
    bare.map(|name| Finding::file(&manifest_path(name), "add `[lints]` with `workspace = true`")).collect()
}

/// Each test binary is linked on its own, which costs more time than it takes to run.
pub fn test_binaries(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in tree.crates() {
        let folder = format!("crates/{name}/tests/");
        let below = tree.rust.keys().filter_map(|path| path.strip_prefix(&folder));
        let binaries: Vec<&str> =
            below.filter(|path| !path.contains('/') || path.ends_with("/main.rs")).collect();
        if binaries.len() > 1 {
            let what = format!(
                "{} test binaries ({}): make them modules of one",
                binaries.len(),
                binaries.join(", ")
            );
            findings.push(Finding::file(folder.trim_end_matches('/'), what));
        }
    }
    findings
}
