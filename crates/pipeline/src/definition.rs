//! A definition as it is meant: defaults applied, names resolved, everything checked.

use towpath_core::definition::{EmptySet, GateSettings};
use towpath_core::glob::Glob;
use towpath_core::graph::{JobBody, Trigger};
use towpath_core::ids::JobName;

use crate::diagnostic::{Diagnostic, Diagnostics, Report};
use crate::file::PipelineFile;
use crate::matrix::Cell;
use crate::resolve::resolve;
use crate::source;
use crate::value::Value;
use crate::yaml;

/// The name of the file at the root of a repository.
pub const FILE_NAME: &str = "towpath.yaml";

/// What a repository says about its own pipeline.
#[derive(Debug, Clone)]
pub struct Definition {
    /// How changes land.
    pub gate: GateSettings,
    /// From push to verdict. Exceeding it alerts; it kills nothing.
    pub budget_seconds: Option<u32>,
    /// The jobs in the order of the file, before matrix and shards.
    pub jobs: Vec<Job>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Diagnostic>,
}

/// A key under `jobs`.
#[derive(Debug, Clone)]
pub struct Job {
    /// The key.
    pub name: JobName,
    /// Where it stands in the file, from 1.
    pub line: u32,
    /// What starts it.
    pub on: Vec<Trigger>,
    /// Everything that it runs in: `on`, and whatever the jobs that need it run in.
    pub runs_in: Vec<Trigger>,
    /// Whether landing needs it.
    pub required: bool,
    /// Indices into the definition's jobs.
    pub needs: Vec<usize>,
    /// Indices into the definition's jobs.
    pub aborts: Vec<usize>,
    /// The condition on the changed paths.
    pub when: Option<PathFilter>,
    /// How many shards; absent without `shards`.
    pub shards: Option<u32>,
    /// The body, without cell and shard.
    pub body: JobBody,
    /// Without a matrix, one cell without a label.
    pub(crate) cells: Vec<Cell>,
}

/// `when: { paths }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFilter {
    /// One of them must match. Empty: any path does.
    pub take: Vec<Glob>,
    /// None of them may match the same path.
    pub leave_out: Vec<Glob>,
}

impl PathFilter {
    /// Whether this path is one that the job is about.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        (self.take.is_empty() || self.take.iter().any(|glob| glob.matches(path)))
            && !self.leave_out.iter().any(|glob| glob.matches(path))
    }
}

impl Definition {
    /// Whether a change that it is the target of would be tested by nothing and is therefore refused, unless the change brings
    /// a job of its own.
    pub fn requires_nothing(&self) -> bool {
        self.gate.empty != EmptySet::Land && !self.jobs.iter().any(|job| job.required)
    }

    /// Reads a pipeline file. `file` is its name, for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place, why, and what to write instead.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Definition, Diagnostics> {
        let source = source::decode(file, bytes)?;
        let mut report = Report::new(file, source);
        source::check(source, &mut report);
        let root = yaml::load(source, &mut report);
        let definition = match root {
            Some(root) => PipelineFile::read(&root, &mut report).map(|file| resolve(&file, &mut report)),
            None => {
                source::refuse_empty(&mut report);
                None
            }
        };
        let warnings = report.finish()?;
        let definition = definition.expect("a file that could not be read has been reported");
        Ok(Definition { warnings, ..definition })
    }
}
