//! F10 and what stands around logins.

use std::net::Ipv4Addr;

use serde_json::json;
use towpath_core::ids::Digest;

use crate::client::Ask;
use crate::world::World;

#[test]
fn f10_session_flags() {
    let world = World::new();
    world.ada(Ask::put("/api/v1/users/mia/password", json!({ "new": "correct horse" }))).ok();
    let fields = "name=mia&password=correct+horse&next=//evil.example";
    let got = world.send(&world.form("/login", fields));
    assert_eq!((got.status, got.header("location")), (303, Some("/")));
    let set = got.header("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax") && set.contains("Path=/"), "{set}");
    let first = set.split(';').next().unwrap().to_owned();
    let open = |cookie: &str| world.send(&Ask::get("/events").header("cookie", cookie)).status;
    assert_eq!(open(&first), 200);
    // An id that somebody planted before the login is worth nothing after it.
    let planted = format!("towpath_session={}", "a".repeat(64));
    let again = world.send(&world.form("/login", fields).header("cookie", &planted));
    assert_ne!(again.header("set-cookie").unwrap().split(';').next().unwrap(), planted);
    assert_eq!(open(&planted), 303);
    // A login in the same browser takes the place of the one before.
    let second = world.send(&world.form("/login", fields).header("cookie", &first));
    let second = second.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!((open(&first), open(&second)), (303, 200));
    // Logging out takes the form of this very session, and ends it for good.
    let out =
        |csrf: &str| world.send(&world.form("/logout", &format!("csrf={csrf}")).header("cookie", &second));
    assert_eq!(out("wrong").status, 403);
    assert_eq!(open(&second), 200);
    let ended = out(&csrf_of(&world, &second));
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(open(&second), 303);
}

/// What a page of the session has in its forms.
fn csrf_of(world: &World, cookie: &str) -> String {
    let value = cookie.split_once('=').unwrap().1;
    let now = world.shared.engine.clock().now();
    let view = world.shared.store.reader().snapshot().unwrap();
    view.session(&Digest::of(value.as_bytes()), now).unwrap().unwrap().csrf
}

#[test]
fn cookies_open_no_api_and_a_person_without_one_is_shown_the_login() {
    let world = World::new();
    let cookie = world.log_in("ada");
    assert_eq!(world.send(&Ask::get("/api/v1/me").header("cookie", &cookie)).status, 401);
    let git = Ask::get("/demo.git/info/refs?service=git-upload-pack").header("cookie", &cookie);
    let got = world.send(&git);
    assert_eq!(got.status, 401);
    assert!(got.header("www-authenticate").unwrap().starts_with("Basic "));
    let got = world.send(&Ask::get("/events?repo=demo"));
    assert_eq!((got.status, got.header("location")), (303, Some("/login?next=/events%3Frepo%3Ddemo")));
}

#[test]
fn guessing_is_slowed_and_the_disabled_stay_out() {
    let world = World::new();
    world.log_in("bob");
    world.ada(Ask::post("/api/v1/users/bob/disable", json!({}))).ok();
    let right = world.form("/login", "name=bob&password=correct+horse");
    assert_eq!(world.send(&right).header("location"), Some("/login?failed=1&next=/"));
    assert_eq!(world.by("bob", Ask::get("/api/v1/me")).status, 401);
    let wrong = world.form("/login", "name=mia&password=wrong");
    let answers: Vec<u16> = (0..10).map(|_| world.send(&wrong).status).collect();
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    let limited = world.send(&wrong);
    assert!(limited.header("retry-after").unwrap().parse::<u32>().unwrap() <= 60);
}

/// Behind a proxy everybody comes from one address.
#[test]
fn wrong_tokens_keep_nobody_out() {
    let world = World::behind("https://gate.example");
    let log_in = |token: &str| {
        let form = Ask::new("POST", "/login").header("content-type", "application/x-www-form-urlencoded");
        let form = form.header("host", "gate.example").header("origin", "https://gate.example");
        world.send(&form.header("sec-fetch-site", "same-origin").body(format!("token={token}")))
    };
    let unknown = format!("twp_{}", "0".repeat(64));
    for wrong in ["wrong", &unknown].iter().cycle().take(50) {
        assert_eq!(log_in(wrong).header("location"), Some("/login?failed=1&next=/"));
    }
    assert!(log_in(world.token("ada")).header("set-cookie").is_some());
    // Where people are told apart, a wrong token is counted like a wrong password.
    let world = World::new();
    let wrong = world.form("/login", "token=wrong");
    let answers: Vec<u16> = (0..11).map(|_| world.send(&wrong).status).collect();
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
}

/// Where a proxy is named, one who floods the login is held to their own bound and keeps nobody out.
#[test]
fn behind_a_named_proxy_people_are_told_apart() {
    let world = World::behind_named("https://gate.example", &[Ipv4Addr::LOCALHOST.into()]);
    let log_in = |from: &str, token: &str| {
        let form = Ask::new("POST", "/login").header("content-type", "application/x-www-form-urlencoded");
        let form = form.header("host", "gate.example").header("origin", "https://gate.example");
        let form = form.header("sec-fetch-site", "same-origin").header("x-forwarded-for", from);
        world.send(&form.body(format!("token={token}")))
    };
    // What they make up of themselves stands before what the proxy saw.
    let answers: Vec<u16> =
        (0..11).map(|at| log_in(&format!("203.0.113.{at}, 192.0.2.1"), "wrong").status).collect();
    assert_eq!((answers[9], answers[10]), (303, 429), "{answers:?}");
    assert_eq!(log_in("192.0.2.1", world.token("ada")).status, 429);
    assert!(log_in("192.0.2.1, 192.0.2.2", world.token("ada")).header("set-cookie").is_some());
}

#[test]
fn a_token_opens_pages_only_if_it_may_do_everything() {
    let world = World::new();
    let narrow = world.ada(Ask::post("/api/v1/tokens", json!({ "verbs": ["read"] }))).ok();
    let log_in = |token: &str| world.send(&world.form("/login", &format!("token={token}")));
    assert!(log_in(narrow["token"].as_str().unwrap()).header("set-cookie").is_none());
    assert!(log_in(world.token("ada")).header("set-cookie").is_some());
}

#[test]
fn a_session_holds_only_while_the_token_that_opened_it_does() {
    let world = World::new();
    let made = world.ada(Ask::post("/api/v1/tokens", json!({ "seconds": 3600 }))).ok();
    let log_in = |token: &str| {
        let got = world.send(&world.form("/login", &format!("token={token}")));
        let set = got.header("set-cookie").unwrap().to_owned();
        let seconds: u32 = set.split("Max-Age=").nth(1).unwrap().parse().unwrap();
        (set.split(';').next().unwrap().to_owned(), seconds)
    };
    let open = |cookie: &str| world.send(&Ask::get("/events").header("cookie", cookie)).status;
    let others = [world.log_in("ada"), log_in(world.token("ada")).0];
    let (brief, seconds) = log_in(made["token"].as_str().unwrap());
    assert!(seconds <= 3600, "{seconds}");
    assert_eq!(open(&brief), 200);
    let revoke = Ask::new("DELETE", &format!("/api/v1/tokens/{}", made["number"]));
    world.ada(revoke).ok();
    assert_eq!(open(&brief), 303);
    // The control: what another token or a password opened goes on.
    assert_eq!(others.each_ref().map(|cookie| open(cookie)), [200, 200]);
}

#[test]
fn guesses_at_once_are_no_more_than_one_after_another() {
    let at_once = |world: &World, ask: &Ask| {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let sent: Vec<_> = (0..40).map(|_| scope.spawn(|| world.send(ask).status)).collect();
            sent.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let refused = statuses.iter().filter(|status| **status == 429).count();
        assert_eq!(refused, 30, "{statuses:?}");
    };
    let world = World::new();
    world.log_in("mia");
    at_once(&world, &world.form("/login", "name=mia&password=wrong"));
    // The same of whoever has somebody's token, and would have the password.
    let world = World::new();
    world.log_in("mia");
    let guess = Ask::put("/api/v1/me/password", json!({ "old": "wrong", "new": "battery staple" }));
    at_once(&world, &guess.token(world.token("mia")));
}

#[test]
fn every_answer_keeps_browsers_in_bounds() {
    let world = World::new();
    for path in ["/healthz", "/api/v1/me", "/nothing", "/openapi.json", "/login"] {
        let got = world.send(&Ask::get(path));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(got.header("content-security-policy").unwrap().starts_with("default-src 'none'"), "{path}");
        assert!(got.header("x-request-id").is_some(), "{path}");
    }
}
