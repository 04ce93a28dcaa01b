//! F01, F02, F03, F06, F11: who may ask what.

use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::{Value, json};
use towpath_core::policy::Role;
use towpath_server::http::origin::is_read;
use towpath_server::http::route::{Face, Needs, Route};
use towpath_server::http::routes::table;

use crate::client::{Ask, Got};
use crate::world::World;

/// The route's path for things that exist.
fn path_of(route: &Route) -> String {
    let values = [
        ("{repo}", "demo"),
        ("{branch}", "main"),
        ("{change}", "1"),
        ("{run}", "1"),
        ("{job}", "0"),
        ("{environment}", "staging"),
        ("{user}", "extra"),
        ("{token}", "999999"),
        ("{secret}", "nothing"),
        ("{output}", "nothing"),
        ("{*path}", "nothing"),
        ("{path}", "nothing"),
    ];
    let path = values.iter().fold(route.path.to_owned(), |path, (name, value)| path.replace(name, value));
    if route.path.ends_with("info/refs") { format!("{path}?service=git-upload-pack") } else { path }
}

fn ask(route: &Route) -> Ask {
    Ask::new(route.method.as_str(), &path_of(route))
}

fn role(name: &str) -> Option<Role> {
    match name {
        "ada" | "narrow" => Some(Role::Admin),
        "mia" => Some(Role::Maintainer),
        "ann" | "bob" => Some(Role::Author),
        "rae" => Some(Role::Reader),
        _ => None,
    }
}

/// The table of rights in words of its own. `None`: let in, whatever the handler then says.
fn expected(route: &Route, name: &str) -> Option<u16> {
    let at_least = |need: Role| match role(name) {
        None => Some(404),
        Some(role) if role < need => Some(403),
        Some(_) => None,
    };
    match (name, route.needs) {
        ("nobody" | "revoked", _) => Some(401),
        (_, Needs::Public | Needs::User) => None,
        ("narrow", Needs::Account | Needs::ServerAdmin) => Some(403),
        (_, Needs::Account) => None,
        (_, Needs::Repo(need)) => at_least(need),
        ("ann", Needs::OwnerOr(_)) => None,
        (_, Needs::OwnerOr(need)) => at_least(need),
        ("ada", Needs::ServerAdmin) => None,
        (_, Needs::ServerAdmin) => Some(403),
    }
}

#[test]
fn f01_route_walk() {
    let world = World::new();
    // A token of the server's admin for one repo.
    let narrow = token_for(&world, json!({ "repos": ["demo"] }));
    let mut walked = 0;
    for name in ["nobody", "revoked", "stranger", "rae", "bob", "ann", "mia", "narrow", "ada"] {
        for route in table().iter().filter(|route| route.needs != Needs::Public) {
            let ask = match name {
                "nobody" => ask(route),
                "narrow" => ask(route).token(&narrow),
                name => ask(route).token(world.token(name)),
            };
            let got = world.send(&ask);
            let shown = || format!("{name} {route:?}: {} {}", got.status, String::from_utf8_lossy(&got.body));
            walked += 1;
            if route.face == Face::Page {
                // A token opens no page, whoever holds it.
                assert_eq!(got.status, 303, "{}", shown());
                continue;
            }
            match expected(route, name) {
                Some(status) => assert_eq!(got.status, status, "{}", shown()),
                None => assert!(!matches!(got.status, 401 | 403 | 405 | 421 | 500), "{}", shown()),
            }
            if got.status >= 400 && route.face == Face::Api {
                got.error();
            }
        }
    }
    assert!(walked > 9 * 60, "{walked}");
}

/// A token of ada's, who looks after the server.
fn token_for(world: &World, scope: Value) -> String {
    world.ada(Ask::post("/api/v1/tokens", scope)).ok()["token"].as_str().unwrap().to_owned()
}

/// Pages and their forms, asked by everybody with a session of their own.
#[test]
fn f01_page_walk() {
    let world = World::new();
    let mut walked = 0;
    for name in ["stranger", "rae", "bob", "ann", "mia", "ada"] {
        let cookie = world.log_in(name);
        let csrf = crate::pages::csrf_of(&world, &cookie);
        let others = |route: &&Route| route.face == Face::Page && !route.path.starts_with("/log");
        for route in table().iter().filter(others) {
            let ask = match route.method == Method::GET {
                true => ask(route),
                false => world.form(&path_of(route), &format!("csrf={csrf}")),
            };
            let (got, _) = ask.header("cookie", &cookie).open(world.address);
            walked += 1;
            match expected(route, name) {
                Some(status) => assert_eq!(got.status, status, "{name} {route:?}"),
                None => assert!(
                    !matches!(got.status, 401 | 403 | 405 | 421 | 500),
                    "{name} {route:?}: {}",
                    got.status
                ),
            }
        }
    }
    assert!(walked > 6 * 25, "{walked}");
}

#[test]
fn f01_what_is_not_in_the_table_is_not_there() {
    let world = World::new();
    let ada = world.token("ada");
    let absent = [
        "/api/v1/nothing",
        "/api/v2",
        "/demo.git/config",
        "/demo.git/HEAD",
        "/demo.git/objects/info/packs",
        "/demo.git/hooks/pre-receive",
        "/%2e%2e/x.git/info/refs",
        "/demo.git/../x.git/info/refs",
        "/demo/info/refs?service=git-upload-pack",
        "/demo.git/info/refs",
        "/demo.git/info/refs?service=git-upload-archive",
    ];
    for path in absent {
        assert_eq!(world.send(&Ask::get(path).token(ada)).status, 404, "{path}");
    }
    for route in table().iter().filter(|route| route.face == Face::Api && route.method == Method::GET) {
        let got = world.send(&Ask::new("PATCH", &path_of(route)).token(ada));
        assert_eq!(got.status, 405, "{route:?}");
        got.error();
    }
}

#[test]
fn f02_object_walk() {
    let world = World::new();
    let token = world.token("stranger");
    let renamed = |got: &Got, name: &str| String::from_utf8_lossy(&got.body).replace(name, "REPO");
    let of_repo = |route: &&Route| matches!(route.needs, Needs::Repo(_) | Needs::OwnerOr(_));
    for route in table().iter().filter(of_repo).filter(|route| route.face != Face::Page) {
        let there = world.send(&ask(route).token(token));
        let absent = Ask::new(route.method.as_str(), &path_of(route).replace("demo", "absent")).token(token);
        let absent = world.send(&absent);
        assert_eq!((there.status, absent.status), (404, 404), "{route:?}");
        assert_eq!(renamed(&there, "demo"), renamed(&absent, "absent"), "{route:?}");
    }
    let events = world.send(&Ask::get("/api/v1/events?repo=demo").token(token));
    assert_eq!(events.status, 404);
    let repos = world.by("stranger", Ask::get("/api/v1/repos")).ok();
    assert_eq!(repos.as_array().unwrap().iter().map(|repo| &repo["repo"]).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn f02_a_token_reaches_no_further_than_its_scope() {
    let world = World::new();
    let narrow = token_for(&world, json!({ "repos": ["other"], "verbs": ["read"] }));
    let status = |ask: Ask| world.send(&ask.token(&narrow)).status;
    assert_eq!(status(Ask::get("/api/v1/repos/other")), 200);
    assert_eq!(status(Ask::get("/api/v1/repos/demo")), 404);
    assert_eq!(status(Ask::post("/api/v1/repos/other/branches/main/ring", json!({}))), 403);
    assert_eq!(status(Ask::get("/other.git/info/refs?service=git-upload-pack")), 200);
    assert_eq!(status(Ask::get("/other.git/info/refs?service=git-receive-pack")), 403);
    // A token makes no token that may do more than itself.
    let maker = token_for(&world, json!({ "verbs": ["read", "administer"], "seconds": 1000 }));
    let make = |scope: Value| world.send(&Ask::post("/api/v1/tokens", scope).token(&maker));
    let made = |scope: Value| make(scope).status;
    assert_eq!(made(json!({ "verbs": ["read"], "seconds": 10 })), 200);
    assert_eq!(made(json!({ "verbs": ["push"], "seconds": 10 })), 403);
    assert_eq!(made(json!({ "seconds": 10 })), 403);
    // Nor one that lives longer: it ends with its maker where nobody says when.
    let own_end = world.send(&Ask::get("/api/v1/me").token(&maker)).ok()["expires_at"].clone();
    assert_eq!(make(json!({ "verbs": ["read"] })).ok()["expires_at"], own_end);
    let longer = make(json!({ "verbs": ["read"], "seconds": 100_000 }));
    assert_eq!(longer.status, 403);
    assert!(longer.error()["hint"].as_str().unwrap().contains("without `--days`"), "{}", longer.json());
}

#[test]
fn f02_a_token_for_one_repo_is_no_admin_of_the_server() {
    let world = World::new();
    world.ada(Ask::put("/api/v1/users/ann/password", json!({ "new": "correct horse" }))).ok();
    let narrow = token_for(&world, json!({ "repos": ["demo"], "verbs": ["read", "administer"] }));
    let leaves = world.leaves();
    let asks = [
        Ask::put("/api/v1/secrets/srv", json!({ "value": "a long value", "policy": { "level": "landed" } })),
        Ask::post("/api/v1/users", json!({ "user": "mallory", "password": "correct horse", "admin": true })),
        Ask::put("/api/v1/users/ann/password", json!({ "new": "another horse" })),
        Ask::put("/api/v1/users/ann/admin", json!({ "admin": true })),
        Ask::post("/api/v1/users/ann/tokens", json!({ "repos": ["demo"], "verbs": ["read"] })),
        Ask::put("/api/v1/me/password", json!({ "new": "correct horse" })),
        Ask::post("/api/v1/tokens", json!({ "verbs": ["read"], "seconds": 10 })),
        Ask::get("/api/v1/audit/leaves"),
    ];
    for ask in asks {
        let got = world.send(&ask.clone().token(&narrow));
        assert_eq!(got.status, 403, "{ask:?}");
        got.error();
    }
    assert_eq!(world.leaves(), leaves, "something was done");
    assert_eq!(world.send(&Ask::get("/api/v1/me").token(&narrow)).ok()["admin"], false);
    // On its repo it does what it is for.
    let settings = Ask::get("/api/v1/repos/demo/settings").token(&narrow);
    assert_eq!(world.send(&settings).status, 200);
    let right = Ask::put("/api/v1/repos/demo/people/extra", json!({ "role": "author" }));
    assert_eq!(world.send(&right.token(&narrow)).status, 200);
}

#[test]
fn a_token_rules_over_no_token_that_reaches_further() {
    let world = World::new();
    let make = |scope: Value| {
        let made = world.ada(Ask::post("/api/v1/tokens", scope)).ok();
        (made["number"].as_u64().unwrap(), made["token"].as_str().unwrap().to_owned())
    };
    let (narrow, with) = make(json!({ "repos": ["demo"], "verbs": ["read", "administer"] }));
    let (same, _) = make(json!({ "repos": ["demo"] }));
    let (wide, _) = make(json!({ "repos": ["demo", "other"] }));
    let (whole, _) = make(json!({}));
    let others = world.by("ann", Ask::post("/api/v1/tokens", json!({ "repos": ["demo"] }))).ok();
    let others = others["number"].as_u64().unwrap();
    let listed = world.send(&Ask::get("/api/v1/tokens").token(&with)).ok();
    let listed = listed.as_array().unwrap().iter().map(|token| token["token"].as_u64().unwrap());
    assert_eq!(listed.collect::<Vec<_>>(), [narrow, same]);
    let revoke = |number: u64| {
        world.send(&Ask::new("DELETE", &format!("/api/v1/tokens/{number}")).token(&with)).status
    };
    for (number, status) in [(wide, 404), (whole, 404), (others, 404), (same, 200), (narrow, 200)] {
        assert_eq!(revoke(number), status, "token {number}");
    }
    // An admin with all that is theirs revokes anybody's.
    assert_eq!(world.ada(Ask::new("DELETE", &format!("/api/v1/tokens/{others}"))).status, 200);
}

#[test]
fn a_token_that_is_revoked_takes_along_what_was_made_by_it() {
    let world = World::new();
    let make = |by: &str, path: &str| {
        let made = world.send(&Ask::post(path, json!({})).token(by)).ok();
        (made["number"].as_u64().unwrap(), made["token"].as_str().unwrap().to_owned())
    };
    let works = |token: &str| world.send(&Ask::get("/api/v1/me").token(token)).status == 200;
    let revoke = |number: u64, how: &str| {
        let said = world.ada(Ask::new("DELETE", &format!("/api/v1/tokens/{number}{how}"))).ok();
        said["said"].as_str().unwrap().to_owned()
    };
    let (first, by_first) = make(world.token("ada"), "/api/v1/tokens");
    let (second, by_second) = make(&by_first, "/api/v1/tokens");
    let (third, by_third) = make(&by_second, "/api/v1/users/ann/tokens");
    let (beside, by_beside) = make(world.token("ada"), "/api/v1/tokens");
    let listed = world.ada(Ask::get("/api/v1/users/ann/tokens")).ok();
    assert_eq!(listed.as_array().unwrap().last().unwrap()["made_by"], second);

    assert_eq!(revoke(second, "?only=true"), format!("token {second} works no more"));
    assert_eq!([&by_first, &by_second, &by_third].map(|token| works(token)), [true, false, true]);
    let said = format!("token {first} works no more, and none that was made by it: {third}");
    assert_eq!(revoke(first, ""), said);
    assert_eq!([&by_first, &by_third, &by_beside].map(|token| works(token)), [false, false, true]);
    assert!(revoke(beside, "").ends_with("works no more"));
    assert!(works(world.token("ada")));
}

#[test]
fn a_token_for_some_verbs_sets_no_password() {
    let world = World::new();
    let administer = token_for(&world, json!({ "verbs": ["read", "administer"] }));
    let set = Ask::put("/api/v1/me/password", json!({ "new": "correct horse" }));
    let got = world.send(&set.clone().token(&administer));
    assert_eq!((got.status, got.error()["class"].as_str()), (403, Some("denied")));
    world.ada(set).ok();
}

#[test]
fn f03_csrf_form() {
    let world = World::new();
    let cookie = world.log_in("mia");
    let before = world.leaves();
    let kinds = ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"];
    let mutating =
        |route: &&Route| !matches!(route.method, Method::GET | Method::HEAD) && route.face != Face::Open;
    for route in table().iter().filter(mutating) {
        for (at, kind) in kinds.iter().enumerate() {
            let foreign = ask(route)
                .header("cookie", &cookie)
                .header("content-type", kind)
                .header("origin", if at == 1 { "null" } else { "http://evil.example" })
                .header("sec-fetch-site", if at == 2 { "same-site" } else { "cross-site" })
                .body(r#"{"why":"csrf"}"#);
            assert_eq!(world.send(&foreign).status, 403, "{route:?}");
        }
        // Without a word of where it comes from, the cookie alone opens nothing either.
        let silent = world.send(&ask(route).header("cookie", &cookie));
        assert!(matches!(silent.status, 401 | 403), "{route:?} {}", silent.status);
    }
    assert_eq!(world.leaves(), before, "something was done");
}

#[test]
fn f06_dns_rebinding() {
    let world = World::new();
    let ada = world.token("ada");
    for host in ["evil.example", "evil.example:80", "", "127.0.0.1", "localhost:1"] {
        let got = world.send(&Ask::get("/api/v1/me").token(ada).header("host", host));
        assert_eq!((got.status, got.error()["class"].as_str()), (421, Some("misdirected")), "{host}");
    }
    let forwarded = Ask::get("/api/v1/repos/demo").token(ada).header("x-forwarded-host", "evil.example");
    let got = world.send(&forwarded).ok();
    assert_eq!(got["clone_url"], format!("http://{}/demo.git", world.address));
}

#[test]
fn whoever_sees_a_repo_as_an_admin_of_the_server_is_told_so_when_their_own_right_there_ends() {
    let world = World::new();
    let revoke = |name: &str| {
        let said = world.ada(Ask::new("DELETE", &format!("/api/v1/repos/demo/people/{name}"))).ok();
        said["said"].as_str().unwrap().to_owned()
    };
    let still = "ada has no right of their own on demo any more; as an admin of the server they still see it";
    assert_eq!(revoke("ada"), still);
    assert_eq!(world.by("ada", Ask::get("/api/v1/repos/demo")).status, 200);
    assert_eq!(revoke("rae"), "rae may no longer see demo");
}

#[test]
fn f11_a_stream_ends_when_its_token_does() {
    let world = World::new();
    let made = world.ada(Ask::post("/api/v1/tokens", json!({}))).ok();
    let (token, number) = (made["token"].as_str().unwrap(), made["number"].as_u64().unwrap());
    let (head, mut stream) = Ask::get("/api/v1/events?repo=demo").token(token).open(world.address);
    assert_eq!(head.status, 200);
    let mut heard = String::new();
    while !heard.contains("event: alive") {
        assert_ne!(stream.read_line(&mut heard).unwrap(), 0, "it ended while the token held: {heard}");
    }
    let revoked = Instant::now();
    world.ada(Ask::new("DELETE", &format!("/api/v1/tokens/{number}"))).ok();
    stream.read_to_string(&mut heard).unwrap();
    assert!(revoked.elapsed() < Duration::from_secs(60), "{:?}", revoked.elapsed());
    assert_eq!(world.send(&Ask::get("/api/v1/me").token(token)).status, 401);
}

#[test]
fn f11_a_stream_ends_when_the_right_does() {
    let world = World::new();
    let listen = Ask::get("/api/v1/events?repo=demo").token(world.token("rae"));
    let (head, mut stream) = listen.open(world.address);
    assert_eq!(head.status, 200);
    world.ada(Ask::new("DELETE", "/api/v1/repos/demo/people/rae")).ok();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(world.by("rae", Ask::get("/api/v1/repos/demo")).status, 404);
}

#[test]
fn what_takes_an_object_takes_no_list_and_nothing_but_the_word_takes_away() {
    let world = World::new();
    world.log_in("ada");
    world.ada(Ask::put("/api/v1/repos/demo/secrets/hook", json!({ "value": "a long secret" }))).ok();
    world.ada(Ask::put("/api/v1/repos/demo/hook", json!({ "secret": "hook" }))).ok();
    let before = world.leaves();
    let mut walked = 0;
    let takes_json =
        |route: &&Route| !is_read(&route.method) && route.method != Method::DELETE && route.output.is_some();
    for route in table().iter().filter(takes_json) {
        let list = world.ada(ask(route).json(json!([])));
        assert_eq!(list.status, 400, "{route:?}: {}", list.json());
        assert!(
            list.json()["why"].as_str().unwrap().contains("there is a list, where an object belongs"),
            "{}",
            list.json()
        );
        if route.needs_body {
            let empty = world.ada(ask(route));
            assert_eq!(empty.status, 400, "{route:?}: {}", empty.json());
            walked += 1;
        }
    }
    for path in ["/api/v1/me/password", "/api/v1/users/ada/password", "/api/v1/repos/demo/hook"] {
        assert_eq!(world.ada(Ask::put(path, json!({}))).status, 400, "{path}");
    }
    assert!(walked > 20, "{walked}");
    assert_eq!(world.leaves(), before, "something was done");
    world.ada(Ask::put("/api/v1/users/ada/password", json!({ "new": null }))).ok();
    world.ada(Ask::put("/api/v1/repos/demo/hook", json!({ "secret": null }))).ok();
}
