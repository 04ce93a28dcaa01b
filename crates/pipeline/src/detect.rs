//! The conventional checks of a repository without a pipeline file.
//!
//! Only names and a few small files at the root are looked at, as bytes: no tool runs on a tree that nobody vouched for
//! (trust T5). What is found is written down as a pipeline file, so that it is read, checked and shown like any other,
//! and can be taken as the first one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::definition::{Definition, FILE_NAME};
use crate::diagnostic::{Diagnostics, Place, Report, fault, shown};

/// Files at the root whose contents detection reads, if they are there.
pub const DETECTION_FILES: [&str; 7] =
    ["GNUmakefile", "Makefile", "makefile", "package.json", "pyproject.toml", "setup.cfg", "tox.ini"];
/// Bytes of each of these files that are looked at.
pub const DETECTION_BYTES_MAX: usize = 256 * 1024;
/// The name that messages about a detected definition give.
const DETECTED_NAME: &str = "detected pipeline";
/// Names that were meant to be the pipeline file.
const MISNAMED: [&str; 5] = ["towpath.yml", ".towpath.yaml", ".towpath.yml", "Towpath.yaml", "Towpath.yml"];

/// The root of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootTree {
    /// Names of its entries, files and folders.
    pub names: BTreeSet<String>,
    /// Contents of those of [`DETECTION_FILES`] that are regular files, cut at [`DETECTION_BYTES_MAX`].
    pub files: BTreeMap<String, Vec<u8>>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    /// The definition as a pipeline file.
    pub yaml: String,
    /// Each job and the file that it was detected from.
    pub jobs: Vec<DetectedJob>,
    /// What was seen and not made a job of, and why; with no job at all, what was looked for.
    pub notes: Vec<String>,
}

/// A job that convention asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectedJob {
    /// Its name.
    pub name: String,
    /// The file that tells of it.
    pub from: String,
    /// Its script.
    pub run: String,
    /// Whether its tools fetch what they need.
    pub network: bool,
    /// The JUnit file that it writes.
    pub junit: Option<String>,
}

impl Detected {
    /// The definition that [`Detected::yaml`] writes down.
    ///
    /// # Errors
    /// None are known: every text in it is a constant of this module, and a test reads each kind.
    pub fn definition(&self) -> Result<Definition, Diagnostics> {
        Definition::parse(DETECTED_NAME, self.yaml.as_bytes())
    }
}

/// Looks for the kinds that are known, all of which may be there at once.
///
/// # Errors
/// The pipeline file is there under another name.
pub fn detect(tree: &RootTree) -> Result<Detected, Diagnostics> {
    if let Some(name) = MISNAMED.iter().find(|name| tree.names.contains(**name)) {
        return Err(misnamed(name));
    }
    let mut notes = Vec::new();
    let found = [cargo(tree), python(tree), npm(tree, &mut notes), make(tree, &mut notes)];
    let jobs: Vec<DetectedJob> = found.into_iter().flatten().collect();
    if jobs.is_empty() {
        notes.push(format!(
            "no {FILE_NAME}, and none of what is detected: Cargo.toml, a Python project, package.json with a test \
             script, a Makefile with a target `check` or `test`"
        ));
    }
    Ok(Detected { yaml: yaml(&jobs), jobs, notes })
}

fn misnamed(name: &str) -> Diagnostics {
    let mut report = Report::new(name, "");
    let what = format!("the pipeline file is named `{}`", shown(name));
    let why =
        format!("only `{FILE_NAME}` is read; ignoring this file would test something else than it says");
    report.error(Place::START, fault(what, why, format!("run `git mv {} {FILE_NAME}`", shown(name))));
    report.finish().expect_err("an error was reported")
}

fn yaml(jobs: &[DetectedJob]) -> String {
    if jobs.is_empty() {
        return "jobs: {}\n".to_owned();
    }
    let mut text = "jobs:\n".to_owned();
    for job in jobs {
        text.push_str(&format!("  {}: # from {}\n", job.name, job.from));
        if job.network {
            text.push_str("    network: true\n");
        }
        if let Some(junit) = &job.junit {
            text.push_str(&format!("    reports: {{ junit: {junit} }}\n"));
        }
        text.push_str("    run: |\n");
        job.run.lines().for_each(|line| text.push_str(&format!("      {line}\n")));
    }
    text
}

impl RootTree {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn text(&self, name: &str) -> String {
        let bytes =
            self.files.get(name).map_or(&[][..], |bytes| &bytes[..bytes.len().min(DETECTION_BYTES_MAX)]);
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn cargo(tree: &RootTree) -> Option<DetectedJob> {
    let locked = if tree.has("Cargo.lock") { " --locked" } else { "" };
    tree.has("Cargo.toml").then(|| DetectedJob {
        name: "cargo-test".to_owned(),
        from: "Cargo.toml".to_owned(),
        run: format!("cargo test --workspace{locked}"),
        network: true,
        junit: None,
    })
}

/// A `pyproject.toml` without a project in it only configures tools.
fn python(tree: &RootTree) -> Option<DetectedJob> {
    let project = tree.text("pyproject.toml");
    let is_project = ["[project]", "[build-system]", "[tool.poetry]"]
        .iter()
        .any(|header| project.lines().any(|line| line.trim() == *header));
    let from = match (is_project, tree.has("setup.py"), tree.has("requirements.txt")) {
        (true, ..) => "pyproject.toml",
        (_, true, _) => "setup.py",
        (_, _, true) => "requirements.txt",
        _ => return None,
    };
    let mut steps = vec!["python3 -m venv .venv", ". .venv/bin/activate"];
    steps.push(match (from, test_extra(&project)) {
        ("requirements.txt", _) => "pip install -r requirements.txt",
        (_, Some(install)) => install,
        _ => "pip install .",
    });
    let tested = has_python_tests(tree, &project);
    if tested {
        steps.extend(["pip install pytest", "pytest --junitxml=junit.xml"]);
    }
    Some(DetectedJob {
        name: if tested { "python-test" } else { "python-install" }.to_owned(),
        from: from.to_owned(),
        run: steps.join("\n"),
        network: true,
        junit: tested.then(|| "junit.xml".to_owned()),
    })
}

fn has_python_tests(tree: &RootTree, project: &str) -> bool {
    let configured =
        [project, &tree.text("setup.cfg"), &tree.text("tox.ini")].iter().any(|text| text.contains("pytest"));
    let named =
        |name: &String| name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"));
    configured
        || ["tests", "test", "pytest.ini", "conftest.py"].iter().any(|name| tree.has(name))
        || tree.names.iter().any(named)
}

/// The extra that a project declares for its tests, if it has one of the usual names.
fn test_extra(project: &str) -> Option<&'static str> {
    let section = project.split("[project.optional-dependencies]").nth(1)?;
    let keys: BTreeSet<&str> = section
        .lines()
        .take_while(|line| !line.trim_start().starts_with('['))
        .filter_map(|line| line.split_once('=').map(|(key, _)| key.trim().trim_matches('"')))
        .collect();
    [
        ("test", "pip install '.[test]'"),
        ("tests", "pip install '.[tests]'"),
        ("testing", "pip install '.[testing]'"),
    ]
    .into_iter()
    .find(|(extra, _)| keys.contains(extra))
    .map(|(_, install)| install)
}

fn npm(tree: &RootTree, notes: &mut Vec<String>) -> Option<DetectedJob> {
    if !tree.has("package.json") {
        return None;
    }
    let locked = tree.has("package-lock.json") || tree.has("npm-shrinkwrap.json");
    let other =
        [("yarn.lock", "Yarn"), ("pnpm-lock.yaml", "pnpm"), ("bun.lock", "Bun"), ("bun.lockb", "Bun")]
            .into_iter()
            .find(|(lock, _)| !locked && tree.has(lock));
    if let Some((lock, tool)) = other {
        notes.push(format!(
            "package.json has a {lock}: {tool} is not detected, write its commands into {FILE_NAME}"
        ));
        return None;
    }
    let package: serde_json::Value = match serde_json::from_str(&tree.text("package.json")) {
        Ok(package) => package,
        Err(error) => {
            notes.push(format!("package.json is not JSON: {error}"));
            return None;
        }
    };
    let script = package["scripts"]["test"].as_str().unwrap_or_default();
    if script.is_empty() || script.contains("no test specified") {
        notes.push("package.json has no script `test`".to_owned());
        return None;
    }
    let install = if locked { "npm ci" } else { "npm install --no-package-lock" };
    Some(DetectedJob {
        name: "npm-test".to_owned(),
        from: "package.json".to_owned(),
        run: format!("{install}\nnpm test"),
        network: true,
        junit: None,
    })
}

fn make(tree: &RootTree, notes: &mut Vec<String>) -> Option<DetectedJob> {
    // The order in which make itself looks for them.
    let from = ["GNUmakefile", "makefile", "Makefile"].into_iter().find(|name| tree.has(name))?;
    let text = tree.text(from);
    let targets = make_targets(&text);
    let Some(target) = ["check", "test"].into_iter().find(|target| targets.contains(target)) else {
        notes.push(format!("{from} has no target `check` or `test`"));
        return None;
    };
    Some(DetectedJob {
        name: format!("make-{target}"),
        from: from.to_owned(),
        run: format!("make {target}"),
        network: false,
        junit: None,
    })
}

/// Names before the `:` of rules; recipes, assignments and comments have none.
fn make_targets(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.starts_with(['\t', ' ', '#']))
        .filter_map(|line| line.split_once(':'))
        .filter(|(names, rest)| {
            !rest.trim_start_matches(':').starts_with('=') && !names.contains(['=', '$', '#'])
        })
        .flat_map(|(names, _)| names.split_whitespace())
        .collect()
}
