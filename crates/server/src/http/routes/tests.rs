//! What must hold for every entry of the table.

use std::collections::BTreeSet;

use super::*;
use crate::http::origin::is_read;

#[test]
fn the_guide_shows_every_route() {
    let guide = openapi::guide(&table());
    expect_test::expect_file!["../../../../../docs/guide/api.md"].assert_eq(&guide);
}

#[test]
fn no_two_routes_are_one() {
    let routes = table();
    let distinct: BTreeSet<String> = routes.iter().map(|route| format!("{route:?}")).collect();
    assert_eq!(distinct.len(), routes.len());
}

#[test]
fn a_browser_changes_things_by_forms_alone() {
    for route in table().iter().filter(|route| route.face == Face::Page) {
        assert!(is_read(&route.method) || route.reads_forms(), "{route:?}");
    }
}

#[test]
fn a_repo_is_in_the_path_of_what_needs_a_role_there() {
    for route in table() {
        let of_repo = matches!(route.needs, Needs::Repo(_) | Needs::OwnerOr(_));
        let has = |name| route.parameters().any(|parameter| parameter == name);
        assert!(!of_repo || has("repo"), "{route:?}");
        let is_owned = has("change") || has("run");
        assert!(!matches!(route.needs, Needs::OwnerOr(_)) || is_owned, "{route:?}");
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = openapi::document(&table());
    let text = document.to_string();
    let mut count = 0;
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        count += 1;
    }
    assert!(count > 100, "{count}");
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn a_body_is_required_where_there_is_something_to_say() {
    let document = openapi::document(&table());
    let required =
        |path: &str, method: &str| document["paths"][path][method]["requestBody"]["required"].clone();
    assert_eq!(required("/api/v1/repos/{repo}/changes/{change}/approve", "post"), true);
    assert_eq!(required("/api/v1/repos/{repo}/changes/{change}/close", "post"), false);
    let password = &document["components"]["schemas"]["Password"];
    assert_eq!(password["required"], serde_json::json!(["new"]), "{password}");
}
