//! The guide's examples are definitions, and it leaves no key out.

use std::collections::BTreeSet;

use serde_json::Value;
use towpath_pipeline::schema;

use crate::support::findings;

const GUIDE: &str = include_str!("../../../../docs/guide/pipeline.md");

#[test]
fn every_example_of_the_guide_is_read_without_a_finding() {
    let examples: Vec<&str> =
        GUIDE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() > 10);
    for example in examples {
        assert_eq!(findings(example), "ok\n", "{example}");
    }
}

#[test]
fn every_key_is_in_the_guide() {
    let mut keys = BTreeSet::new();
    collect_keys(&schema(), &mut keys);
    let left_out: Vec<&String> = keys.iter().filter(|key| !GUIDE.contains(&format!("`{key}`"))).collect();
    let in_examples = ["change", "paths", "junit"];
    assert!(left_out.iter().all(|key| in_examples.contains(&key.as_str())), "{left_out:?}");
}

fn collect_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        keys.insert(key.clone());
        collect_keys(property, keys);
    }
    for nested in schema["anyOf"].as_array().into_iter().flatten().chain([&schema["additionalProperties"]]) {
        if nested.is_object() {
            collect_keys(nested, keys);
        }
    }
}
