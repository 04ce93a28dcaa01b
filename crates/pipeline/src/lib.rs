//! The pipeline file: read with places, checked, and expanded to the job graph that a run executes.
//!
//! Deliberately absent: IO of any kind, and running anything. Bytes come in, plain data goes out, and whoever wrote the
//! bytes is not trusted: every size is bounded, and nothing here may panic.

mod check;
mod definition;
mod definition_file;
mod detect;
mod diagnostic;
mod expand;
mod explain;
mod file;
pub mod junit;
mod matrix;
mod name;
mod nearest;
mod order;
mod plan;
mod record;
mod resolve;
mod schema;
mod source;
mod value;
mod yaml;

pub use check::GRAPH_BYTES_MAX;
pub use definition::{Definition, FILE_NAME, Job, PathFilter};
pub use definition_file::{DefinitionFile, TreeEntry};
pub use detect::{DETECTION_BYTES_MAX, DETECTION_FILES, Detected, DetectedJob, RootTree, detect};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use expand::Changed;
pub use explain::{JobExplanation, explain};
pub use file::APPROVALS_MAX;
pub use name::variable_fault;
pub use nearest::nearest;
pub use plan::{GraphPlan, plan};
pub use schema::schema;
pub use yaml::FILE_BYTES_MAX;
