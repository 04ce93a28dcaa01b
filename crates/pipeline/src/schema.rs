//! The JSON Schema of the pipeline file, for editors.

use serde_json::{Value as Json, json};

use crate::file::PipelineFile;
use crate::value::Value;

/// The JSON Schema (draft 2020-12) of `towpath.yaml`, made from the types that read it.
///
/// It knows what can be said about one value at a time. What lies between values (circles, unknown jobs, sizes) only
/// [`crate::Definition::parse`] finds.
pub fn schema() -> Json {
    let mut schema = PipelineFile::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("towpath.yaml");
    schema
}
