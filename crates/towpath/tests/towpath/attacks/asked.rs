//! Group F, what needs no browser, and I01: every route asked by everybody, by exact name, by forged words, and what a
//! terminal is told.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::canaries::PYTHON;
use super::fort::{Fort, PIPELINE};
use super::jobs::{has_python, with_jobs};
use super::web::standing;
use super::wire::{Ask, Reply};
use crate::support::has_sandbox;

/// Who may ask what, in this suite's own words: `METHOD path who face`, a route a line.
const RIGHTS: &str = include_str!("rights.txt");

/// Rights on `web`, from none on.
fn rank(who: &str) -> u32 {
    let order = ["nobody", "login", "reader", "author", "owner", "maintainer", "repo-admin", "admin"];
    let who = if who == "account" { "login" } else { who };
    order.iter().position(|name| *name == who).unwrap_or_else(|| panic!("nobody is {who}")) as u32
}

/// The people, and what each of them is on `web`. The change that is asked about is ann's.
const WALKERS: [(&str, &str); 8] = [
    ("nobody", "nobody"),
    ("revoked", "nobody"),
    ("stranger", "login"),
    ("rae", "reader"),
    ("ben", "author"),
    ("ann", "owner"),
    ("mia", "maintainer"),
    (NARROW, "repo-admin"),
];

/// A token of the server's admin that is made for `web` alone: it opens no page.
const NARROW: &str = "narrow";

/// What is asked about: ann's change, its run and its job.
struct Things {
    change: String,
    run: String,
}

impl Things {
    fn path(&self, route: &str) -> String {
        let names = [
            ("{repo}", "web"),
            ("{branch}", "main"),
            ("{change}", &self.change),
            ("{run}", &self.run),
            ("{job}", "0"),
            ("{environment}", "staging"),
            ("{user}", "max"),
            ("{token}", "1"),
            ("{secret}", "cloud-config"),
            ("{output}", "o"),
            ("{path}", "x"),
            ("{file}", "towpath.css"),
        ];
        let path = names.iter().fold(route.to_owned(), |path, (name, value)| path.replace(name, value));
        if route.ends_with("info/refs") { format!("{path}?service=git-upload-pack") } else { path }
    }
}

/// Routes of the table: method, path, who, and whether a page.
fn rights() -> impl Iterator<Item = (&'static str, &'static str, &'static str, bool)> {
    RIGHTS.lines().map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [method, path, who, face] => (method, path, who, face == "page"),
        _ => panic!("{line}"),
    })
}

fn f01_route_walk(fort: &Fort) {
    // Every route there is stands in the table, and none that is not there.
    let document = fort.send("ada", Ask::new("GET", "/openapi.json")).json();
    let mut routes: Vec<String> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        routes.extend(
            methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())),
        );
    }
    let mut table: Vec<String> = rights().map(|(method, path, ..)| format!("{method} {path}")).collect();
    routes.sort();
    table.sort();
    assert_eq!(routes, table, "a route without a row in the table of rights, or a row without a route");
    let things = things(fort);
    let people = walkers(fort);
    let before = standing(fort, things.change.parse().unwrap());
    let mut walked = 0;
    for (method, route, who, is_page) in rights().filter(|(_, _, who, _)| *who != "public") {
        for (name, is, token, cookie) in &people {
            let is_narrow = *name == NARROW;
            if is_narrow && is_page {
                continue;
            }
            let may = rank(is) >= rank(who) && !(is_narrow && who == "account");
            // What may be done is not done here; the cases of each act do it.
            if may && method != "GET" || route.ends_with("/events") || route.ends_with("/follow") {
                continue;
            }
            let path = things.path(route);
            let ask = Ask::new(method, &path);
            let (ask, by) = match is_page {
                true => (ask.with("cookie", cookie), "page"),
                false => (ask.with("authorization", &format!("Bearer {token}")), "API"),
            };
            let ask = if method == "GET" { ask } else { ask.json(&json!({})) };
            let got = ask.send(&fort.host, &fort.heard);
            let is_out = *is == "nobody";
            let refused: &[u16] = match (is_out, is_page) {
                (true, true) => &[303, 401, 403],
                (true, false) => &[401],
                // What belongs to a repo of which she may not know is not there.
                (false, _) if *is == "login" && route.contains("{repo}") => &[404, 403],
                (false, _) => &[403, 404],
            };
            let shown = format!("{name} {method} {path} ({by}): {} {}", got.status, got.text());
            let is_right = match may {
                true => !matches!(got.status, 401 | 403 | 405 | 500),
                false => refused.contains(&got.status),
            };
            assert!(is_right, "{shown}");
            walked += 1;
        }
    }
    assert!(walked > 400, "{walked}");
    assert_eq!(standing(fort, things.change.parse().unwrap()), before, "something was done");
}

/// Name, right, token and cookie of each who walks.
fn walkers(fort: &Fort) -> Vec<(&'static str, &'static str, String, String)> {
    let made = fort.ask("ada", "POST", "/users/ben/tokens", &json!({})).ok();
    let revoked = made["token"].as_str().unwrap().to_owned();
    let its_cookie = fort.log_in(&format!("token={revoked}"));
    fort.ask("ada", "DELETE", &format!("/tokens/{}", made["number"]), &Value::Null).ok();
    fort.ask("ada", "POST", "/users", &json!({ "user": "rae" })).ok();
    fort.put("/repos/web/people/rae", &json!({ "role": "reader", "authorised": false }));
    let rae =
        fort.ask("ada", "POST", "/users/rae/tokens", &json!({})).ok()["token"].as_str().unwrap().to_owned();
    let narrow = fort.ask("ada", "POST", "/tokens", &json!({ "repos": ["web"] })).ok();
    let narrow = narrow["token"].as_str().unwrap().to_owned();
    let of = |name: &str| match name {
        NARROW => (narrow.clone(), String::new()),
        "nobody" => (String::new(), String::new()),
        "rae" => (rae.clone(), fort.log_in(&format!("token={rae}"))),
        "revoked" => (revoked.clone(), its_cookie.replace(|c: char| c.is_ascii_digit(), "0")),
        name => (fort.token(name).to_owned(), fort.log_in(&format!("token={}", fort.token(name)))),
    };
    WALKERS.iter().map(|(name, is)| (*name, *is, of(name).0, of(name).1)).collect()
}

fn things(fort: &Fort) -> Things {
    let job = "  site: { run: 'mkdir d; echo x > d/x', on: [change], outputs: { o: 'd/*' } }\n";
    let number = with_jobs(fort, "asked", job, &[("asked", "secret of web\n")]);
    let run = fort.runs_of(number)[0]["run"].as_str().unwrap().replacen("web/main/", "", 1);
    Things { change: number.to_string(), run }
}

/// By exact id, whoever may not read gets what everybody gets who asks for what does not exist.
fn f02_object_walk(fort: &Fort) {
    let things = things(fort);
    let cookie = fort.log_in(&format!("token={}", fort.token("stranger")));
    let mut asked = 0;
    for (method, route, _, is_page) in
        rights().filter(|(method, route, ..)| *method == "GET" && route.contains("{repo}"))
    {
        let ask = |path: &str| -> Reply {
            let ask = Ask::new(method, path);
            match is_page {
                true => ask.with("cookie", &cookie).send(&fort.host, &fort.heard),
                false => fort.send("stranger", ask),
            }
        };
        let path = things.path(route);
        let absent = path.replacen("web", "absent", 1);
        let (there, nowhere) = (ask(&path), ask(&absent));
        assert_eq!((there.status, nowhere.status), (404, 404), "{path}");
        assert_eq!(there.text().replace("web", "absent"), nowhere.text().replace("web", "absent"), "{path}");
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
    let stream = fort.send("stranger", Ask::new("GET", "/api/v1/events?repo=web"));
    assert_eq!(stream.status, 404);
    // Whoever may read `other` finds nothing of `web` through it.
    let run = format!("/api/v1/repos/other/runs/main/{}", things.run);
    for path in
        [format!("/api/v1/repos/other/changes/{}", things.change), run.clone(), format!("{run}/jobs/0/log")]
    {
        assert_eq!(fort.send("stranger", Ask::new("GET", &path)).status, 404, "{path}");
    }
    // The control: it is all there for a reader.
    let artifact = format!("/api/v1/repos/web/runs/main/{}/jobs/site/artifacts/o/x", things.run);
    assert_eq!(fort.send("ben", Ask::new("GET", &artifact)).text(), "x\n");
    assert_eq!(fort.send("stranger", Ask::new("GET", &artifact)).status, 404);
}

fn f06_dns_rebinding(fort: &Fort) {
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]"] {
        for path in ["/api/v1/me", "/", "/login", "/web.git/info/refs?service=git-upload-pack"] {
            let got = fort.send("ada", Ask::new("GET", path).with("host", host));
            assert!([400, 421].contains(&got.status), "{host}{path}: {}", got.head);
        }
    }
    let forwarded = |ask: Ask| {
        ask.with("x-forwarded-host", "evil.example")
            .with("forwarded", "host=evil.example")
            .with("x-forwarded-proto", "https")
    };
    let repo = fort.send("ada", forwarded(Ask::new("GET", "/api/v1/repos/web"))).ok();
    assert_eq!(repo["clone_url"], format!("http://{}/web.git", fort.host));
    let page = forwarded(Ask::new("GET", "/web/branches/main")).with("cookie", &fort.session);
    let page = page.send(&fort.host, &fort.heard);
    assert!(
        page.status == 200 && !page.text().contains("evil.example") && !page.head.contains("evil.example")
    );
    // The control: under its own name it answers.
    assert_eq!(fort.send("ada", Ask::new("GET", "/api/v1/me").with("host", &fort.host)).status, 200);
}

/// Signs as a forge does, with a program that is none of ours.
fn signed(secret: &str, body: &[u8]) -> String {
    let program = "import hashlib, hmac, sys; print(hmac.new(sys.argv[1].encode(), sys.stdin.buffer.read(), hashlib.sha256).hexdigest())";
    let mut sign = Command::new(PYTHON);
    let mut child =
        sign.args(["-c", program, secret]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    format!("sha256={}", String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim())
}

/// Unsigned webhooks sent by each of the senders, while others are served.
const FLOOD: usize = 500;

fn f15_webhook_forged(fort: &Fort) {
    for (repo, secret) in [("web", "hook secret of web"), ("other", "hook secret of other")] {
        fort.put(
            &format!("/repos/{repo}/secrets/hook"),
            &json!({ "value": secret, "policy": { "level": "landed" } }),
        );
        fort.put(&format!("/repos/{repo}/hook"), &json!({ "secret": "hook" }));
    }
    let body = br#"{"ref":"refs/heads/main"}"#;
    let hook = |signature: Option<&str>, id: &str, body: &[u8]| {
        let ask = Ask::new("POST", "/hooks/web").with("x-github-event", "push").with("x-github-delivery", id);
        let ask = ask.with("content-type", "application/json").body(body);
        signature.into_iter().fold(ask, |ask, signature| ask.with("x-hub-signature-256", signature))
    };
    let send = |ask: Ask| ask.send(&fort.host, &fort.heard).status;
    let stored = || fort.get("/repos/web/branches/main")["flags"]["forge"]["set_at"].clone();
    let before = stored();
    for signature in [
        None,
        Some(signed("wrong", body)),
        Some(signed("hook secret of web", b"other bytes")),
        Some(signed("hook secret of other", body)),
        Some("sha256=".into()),
    ] {
        assert_eq!(send(hook(signature.as_deref(), "1", body)), 401, "{signature:?}");
    }
    let right = signed("hook secret of web", body);
    let large = hook(Some(&right), "2", b"").with("content-length", &(25 * 1024 * 1024 + 1).to_string());
    assert_eq!(send(large), 413);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..FLOOD).for_each(|_| assert_eq!(send(hook(None, "3", body)), 401)));
        }
        (0..20).for_each(|_| assert_eq!(fort.ask("ann", "GET", "/me", &Value::Null).status, 200));
    });
    assert_eq!(stored(), before, "nothing of the forged ones rang");
    // The control: with the right word it is taken, and rings.
    assert_eq!(send(hook(Some(&right), "4", body)), 200);
    fort.until("it rings", || (stored() != before).then_some(()));
}

/// What a change and its jobs say cannot drive the terminal of a maintainer who looks at them.
fn i01_terminal_escape(fort: &Fort) {
    let hostile = "\u{1b}]52;c;cHduZWQ=\u{7}\u{1b}[21t\u{1b}]8;;file:///etc/passwd\u{1b}\\x\u{1b}P0q\u{1b}\\\u{9b}31m\rgone";
    let report = format!(
        "<testsuite><testcase name=\"{}\" classname=\"x\"><failure>no</failure></testcase></testsuite>",
        "a&#27;]52;c;x&#7;b"
    );
    let jobs = "  tests: { run: 'cat hostile; exit 1', on: [change], reports: { junit: report.xml } }\n";
    let pipeline = format!("{PIPELINE}{jobs}");
    let clone = fort.clone_of("ann");
    for (path, text) in [("hostile", hostile), ("report.xml", &report), ("towpath.yaml", &pipeline)] {
        clone.write(path, text);
    }
    clone.commit(&format!("A title {hostile}"));
    let number = clone.propose("i01");
    fort.tested(number);
    fort.act("ann", number, "comment", &json!({ "text": hostile })).ok();
    let run = fort.runs_of(number)[0]["run"].as_str().unwrap().replacen("web/main/", "", 1);
    let change = number.to_string();
    let looks: [&[&str]; 7] = [
        &["log", &run, "tests"],
        &["log", &run, "tests", "--first-error"],
        &["change", "show", &change],
        &["change", "list"],
        &["change", "why", &change],
        &["branch", "show"],
        &["log", &run, "tests", "--json"],
    ];
    for look in looks {
        let shown = fort.command("mia", &[look, &["--repo", "web"]].concat());
        assert_eq!(shown.code, 0, "{look:?}: {}", shown.err);
        for text in [&shown.out, &shown.err] {
            let drives = |c: char| c != '\n' && towpath_core::ids::is_unprintable(c);
            assert!(!text.contains(drives), "{look:?}: {text:?}");
        }
    }
    let shown = fort.command("mia", &["log", &run, "tests", "--repo", "web"]).out;
    assert!(shown.contains(r"\x1b]52;c;cHduZWQ=\x07\x1b[21t"), "it is shown as escapes: {shown}");
    fort.act("ann", number, "close", &json!({})).ok();
}

#[test]
fn f01_f02_f06_f15_i01_who_asks_gets_what_is_theirs() {
    let test = "f01_f02_f06_f15_i01_who_asks_gets_what_is_theirs";
    if !has_sandbox(test) || !has_python(test) {
        return;
    }
    let fort = Fort::new();
    fort.hold("F01 route-walk", f01_route_walk);
    fort.hold("F02 object-walk", f02_object_walk);
    fort.hold("F06 dns-rebinding", f06_dns_rebinding);
    fort.hold("F15 webhook-forged", f15_webhook_forged);
    fort.hold("I01 terminal-escape", i01_terminal_escape);
    fort.end();
}
