//! The JSON Schema and the reader come from the same types; here they are held against each other.

use serde_json::{Value, json};
use towpath_pipeline::{Definition, FILE_NAME, schema};

/// What JSON Schema says about an instance, for the keywords that the schema uses; any other is a failure of the test.
/// Patterns are left to the reader's own tests, as the workspace has no regular expressions.
fn accepts(schema: &Value, instance: &Value) -> bool {
    let keywords = schema.as_object().expect("a schema is an object");
    keywords.iter().all(|(keyword, value)| match keyword.as_str() {
        "$schema" | "title" | "description" | "pattern" | "not" | "propertyNames" | "minLength" => true,
        "type" => types(value).iter().any(|name| has_type(instance, name)),
        "enum" => value.as_array().expect("a list").contains(instance),
        "anyOf" => value.as_array().expect("a list").iter().any(|schema| accepts(schema, instance)),
        "minimum" => instance.as_u64() >= value.as_u64(),
        "maximum" => instance.as_u64() <= value.as_u64(),
        "minItems" => {
            instance.as_array().is_none_or(|items| items.len() as u64 >= value.as_u64().expect("a number"))
        }
        "uniqueItems" => instance.as_array().is_none_or(|items| unique(items)),
        "items" => instance.as_array().is_none_or(|items| items.iter().all(|item| accepts(value, item))),
        "required" => instance.as_object().is_none_or(|map| {
            value.as_array().expect("a list").iter().all(|key| map.contains_key(key.as_str().expect("a key")))
        }),
        "properties" => instance.as_object().is_none_or(|map| {
            map.iter().all(|(key, item)| value.get(key).is_none_or(|schema| accepts(schema, item)))
        }),
        "additionalProperties" => instance.as_object().is_none_or(|map| {
            let declared =
                |key: &String| keywords.get("properties").is_some_and(|known| known.get(key).is_some());
            let others = map.iter().filter(|(key, _)| !declared(key));
            others.into_iter().all(|(_, item)| value != &json!(false) && accepts(value, item))
        }),
        other => panic!("the schema uses `{other}`, which this test does not know"),
    })
}

fn types(value: &Value) -> Vec<&str> {
    match value {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        other => panic!("`type: {other}`"),
    }
}

fn has_type(instance: &Value, name: &str) -> bool {
    match name {
        "object" => instance.is_object(),
        "array" => instance.is_array(),
        "string" => instance.is_string(),
        "boolean" => instance.is_boolean(),
        "number" => instance.is_number(),
        "integer" => instance.is_u64() || instance.is_i64(),
        other => panic!("`type: {other}`"),
    }
}

fn unique(items: &[Value]) -> bool {
    items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
}

/// JSON is YAML, so that one text serves both.
fn both(instance: &Value) -> (bool, bool) {
    let read = Definition::parse(FILE_NAME, instance.to_string().as_bytes()).is_ok();
    (accepts(&schema(), instance), read)
}

#[test]
fn both_accept_what_is_right() {
    let job = json!({
        "run": "x", "on": ["change", "queue", "land", "manual"], "needs": ["other"], "required": true,
        "when": { "paths": ["src/**", "!docs"] }, "env": { "A": "x", "B": 1, "C": true }, "timeout": "1h30m",
        "retry": { "errored": 2, "failed": 1 }, "shards": 4,
        "matrix": { "salt": ["pinned", "git"], "py": [3.9, 3], "one": "x", "exclude": [{ "salt": "git", "py": 3 }] },
        "outputs": { "wheel": "dist/*.whl" }, "reports": { "junit": "junit.xml" }, "network": true, "history": true,
        "checkout": true, "secrets": ["key"], "aborts": "other2", "user_namespaces": true,
    });
    let deploy = json!({ "run": "x", "on": "land", "environment": "staging", "restartable": true });
    let whole = json!({
        "gate": { "strategy": "rebase", "approvals": 0, "proof": "commit", "empty": "land" },
        "budget": { "change": "15m" },
        "defaults": { "timeout": "5m", "network": false, "history": false, "checkout": true, "env": { "A": 1 }, "retry": {} },
        "jobs": { "job": job, "other": "x", "other2": { "run": "y" }, "deploy": deploy },
    });
    assert_eq!(both(&whole), (true, true));
    assert_eq!(both(&json!({ "jobs": {} })), (true, true));
}

#[test]
fn both_refuse_what_is_wrong() {
    let jobs = |job: Value| json!({ "jobs": { "a": job } });
    let with = |key: &str, value: Value| jobs(json!({ "run": "x", key: value }));
    for wrong in [
        json!([]),
        json!("x"),
        json!({}),
        json!({ "jobs": [] }),
        json!({ "jobs": {}, "nope": 1 }),
        json!({ "jobs": {}, "gate": { "strategy": "ff" } }),
        json!({ "jobs": {}, "gate": { "proof": "inputs" } }),
        json!({ "jobs": {}, "gate": { "approvals": 21 } }),
        json!({ "jobs": {}, "budget": "15m" }),
        json!({ "jobs": {}, "defaults": { "image": "x" } }),
        jobs(json!(null)),
        jobs(json!([])),
        jobs(json!({})),
        with("on", json!("push")),
        with("on", json!(["change", "change"])),
        with("on", json!([{ "schedule": "x" }])),
        with("needs", json!({ "a": 1 })),
        with("required", json!("yes")),
        with("when", json!({})),
        with("when", json!({ "files": [] })),
        with("env", json!(["A=1"])),
        with("env", json!({ "A": [] })),
        with("env", json!({ "A": null })),
        with("timeout", json!(15)),
        with("retry", json!({ "errored": 6 })),
        with("retry", json!(2)),
        with("shards", json!(0)),
        with("shards", json!(513)),
        with("shards", json!("2")),
        with("matrix", json!({ "a": [] })),
        with("matrix", json!({ "a": [["x"]] })),
        with("matrix", json!({ "a": ["x", "x"] })),
        with("matrix", json!({ "a": ["x"], "exclude": [{ "a": [] }] })),
        with("outputs", json!(["dist"])),
        with("outputs", json!({ "a": [] })),
        with("reports", json!({ "coverage": "x" })),
        with("network", json!(1)),
        with("cache", json!({})),
        with("image", json!("debian")),
        with("restartable", json!("true")),
    ] {
        assert_eq!(both(&wrong), (false, false), "{wrong}");
    }
}

#[test]
fn every_key_is_described() {
    fn walk(schema: &Value, path: &str) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let exclude = key == "exclude";
            assert!(
                exclude || property["description"].as_str().is_some_and(|text| text.len() > 10),
                "{path}"
            );
            walk(property, &path);
        }
        for nested in
            schema["anyOf"].as_array().into_iter().flatten().chain([&schema["additionalProperties"]])
        {
            if nested.is_object() {
                walk(nested, path);
            }
        }
    }
    walk(&schema(), "");
}
