//! What people and changes can write into a definition, and what becomes of it.

#[path = "pipeline/bar.rs"]
mod bar;
#[path = "pipeline/detection.rs"]
mod detection;
#[path = "pipeline/errors.rs"]
mod errors;
#[path = "pipeline/expansion.rs"]
mod expansion;
#[path = "pipeline/guide.rs"]
mod guide;
#[path = "pipeline/junit.rs"]
mod junit;
#[path = "pipeline/limits.rs"]
mod limits;
#[path = "pipeline/meaning.rs"]
mod meaning;
#[path = "pipeline/plans.rs"]
mod plans;
#[path = "pipeline/schema.rs"]
mod schema;
#[path = "pipeline/support.rs"]
mod support;
#[path = "pipeline/syntax.rs"]
mod syntax;
