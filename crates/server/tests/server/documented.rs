//! What the document says of a route is what the route does.

use serde_json::Value;

use crate::client::{Ask, Got};
use crate::runs::after_a_run;
use crate::world::World;

/// Things that exist, by the names of parameters.
const THINGS: [(&str, &str); 14] = [
    ("repo", "demo"),
    ("branch", "main"),
    ("change", "1"),
    ("run", "1"),
    ("job", "unit"),
    ("user", "extra"),
    ("output", "site"),
    ("path", "x.html"),
    ("service", "git-upload-pack"),
    ("name", "a::test"),
    ("leaf", "0"),
    ("size", "2"),
    ("old", "1"),
    ("new", "2"),
];

fn thing(name: &str) -> &'static str {
    THINGS.iter().find(|(known, _)| *known == name).map_or("nothing", |(_, value)| value)
}

/// A request as the document has it: its path, and every parameter that is required.
fn asked(path: &str, operation: &Value) -> String {
    let of = |place: &str| {
        let all = operation["parameters"].as_array().unwrap().iter();
        let wanted = all.filter(|one| one["in"] == place && one["required"] == true);
        wanted.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = of("path").iter().fold(path.to_owned(), |path, name| {
        let mark = format!("{{{name}}}");
        assert!(path.contains(&mark), "no {mark} in {path}");
        path.replace(&mark, thing(name))
    });
    assert!(!path.contains('{'), "{path}");
    let query: Vec<String> = of("query").iter().map(|name| format!("{name}={}", thing(name))).collect();
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

/// The answer as one that the document has.
fn is_documented(got: &Got, operation: &Value) -> Result<(), String> {
    let responses = &operation["responses"];
    let entry = responses.get(got.status.to_string()).filter(|entry| !entry.is_null());
    if got.status < 400 && entry.is_none() {
        return Err(format!("{} is none of {responses}", got.status));
    }
    let entry = entry.unwrap_or(&responses["default"]);
    if entry["headers"]["Location"].is_object() && got.header("location").is_none() {
        return Err("it leads nowhere".into());
    }
    let media = got.header("content-type").map(|media| media.split(';').next().unwrap());
    match (entry["content"].as_object(), media) {
        (Some(known), Some(media)) if known.contains_key(media) => Ok(()),
        (None, None) => Ok(()),
        (known, media) => Err(format!("{media:?} is none of {known:?}")),
    }
}

fn document(world: &World) -> Vec<(String, String, Value)> {
    let document = world.send(&Ask::get("/openapi.json")).ok();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, operation)| (path.clone(), method.clone(), operation.clone()))
    });
    operations.collect()
}

#[test]
fn every_read_is_answered_as_the_document_says() {
    let world = after_a_run();
    let cookie = world.log_in("ada");
    let (mut walked, mut absent) = (0, 0);
    for (path, _, operation) in document(&world).into_iter().filter(|(_, method, _)| method == "get") {
        let needs = operation["security"].to_string();
        let as_ada = |ask: Ask| match (needs.contains("session"), needs.contains("bearer")) {
            (true, _) => ask.header("cookie", &cookie),
            (_, true) => ask.token(world.token("ada")),
            (false, false) => ask,
        };
        let target = asked(&path, &operation);
        let (got, _) = as_ada(Ask::get(&target)).open(world.address);
        if let Err(why) = is_documented(&got, &operation) {
            panic!("{target}: {why}");
        }
        let may_be_absent = ["{environment}", "{file}"].iter().any(|name| path.contains(name));
        assert!(got.status < 400 || may_be_absent, "{target}: {}", got.status);
        // The same where nothing of it is there, and for nobody.
        if path.contains("{repo}") {
            let (missing, _) = as_ada(Ask::get(&target.replacen("demo", "absent", 1))).open(world.address);
            assert_eq!(missing.status, 404, "{target}");
            is_documented(&missing, &operation).unwrap_or_else(|why| panic!("{target}, absent: {why}"));
            absent += 1;
        }
        let (nobody, _) = Ask::get(&target).open(world.address);
        is_documented(&nobody, &operation).unwrap_or_else(|why| panic!("{target}, nobody: {why}"));
        walked += 1;
    }
    assert!(walked > 50 && absent > 25, "{walked} {absent}");
}

#[test]
fn every_act_that_takes_something_says_what() {
    let world = World::new();
    let all = document(&world);
    let of = |path: &str| &all.iter().find(|(known, method, _)| known == path && method == "post").unwrap().2;
    let sent = |path: &str, media: &str| of(path)["requestBody"]["content"][media].clone();
    assert!(sent("/{repo}.git/git-upload-pack", "application/x-git-upload-pack-request").is_object());
    assert!(sent("/hooks/{repo}", "application/json").is_object());
    let signature = of("/hooks/{repo}")["parameters"].as_array().unwrap().iter();
    assert!(signature.clone().any(|one| one["name"] == "X-Hub-Signature-256" && one["required"] == true));
    let form = |path: &str| sent(path, "application/x-www-form-urlencoded")["schema"].clone();
    assert!(form("/login")["properties"]["password"].is_object());
    let hold = form("/{repo}/changes/{change}/hold");
    assert!(hold["properties"]["why"].is_object() && hold["required"][0] == "csrf", "{hold}");
    for (path, method, operation) in &all {
        let is_silent = operation["requestBody"].is_null();
        assert!(!is_silent || ["get", "delete"].contains(&method.as_str()), "{method} {path}");
    }
    // A form is refused by a page, and done by the way to one.
    let cookie = world.log_in("mia");
    let csrf = crate::pages::csrf_of(&world, &cookie);
    let hold = "/demo/changes/1/hold";
    let send = |fields: &str| world.send(&world.form(hold, fields).header("cookie", &cookie));
    let operation = of("/{repo}/changes/{change}/hold");
    let (refused, done) = (send("why=x"), send(&format!("csrf={csrf}&why=x")));
    assert_eq!((refused.status, done.status), (403, 303));
    for got in [refused, done] {
        is_documented(&got, operation).unwrap();
    }
}
