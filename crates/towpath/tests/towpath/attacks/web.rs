//! Group F: what a browser is made to do, in a real one. What needs none is tested beside the server.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::fort::{Fort, PIPELINE};
use super::wire::Ask;
use crate::pages::assert_inert;
use crate::pages::browser::Browser;
use crate::support::has_sandbox;

/// Opens a session by password; its cookie.
pub fn log_in(fort: &Fort, name: &str) -> String {
    fort.put(&format!("/users/{name}/password"), &json!({ "new": "correct horse" }));
    fort.log_in(&format!("name={name}&password=correct+horse"))
}

fn log_in_here(fort: &Fort, browser: &Browser, name: &str) {
    browser.go(&format!("http://{}/login", fort.host));
    browser.fill("#token", fort.token(name));
    browser.click("button.primary");
    browser.until("document.querySelector('h1').textContent === 'Overview'");
}

/// A page of somebody else, served until the test's process ends; its port.
fn evil_site(page: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = lines.by_ref().find(String::is_empty);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
            let _ = write!(&stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
        }
    });
    port
}

/// Every mutating route of the API and of the pages, for things that exist.
fn mutating_routes(fort: &Fort, change: u64) -> Vec<(String, String)> {
    let document = fort.send("ada", Ask::new("GET", "/openapi.json")).json();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path =
            [("{repo}", "web"), ("{branch}", "main"), ("{change}", &change.to_string()), ("{run}", "1")]
                .iter()
                .chain(&[("{user}", "ben"), ("{token}", "1"), ("{secret}", "cloud-config"), ("{job}", "0")])
                .fold(path.clone(), |path, (name, value)| path.replace(name, value));
        let methods = methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|method| ["post", "put", "delete"].contains(&method.as_str()));
        routes.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
    }
    for verb in ["approve", "withdraw", "close", "draft", "comment", "label", "hold", "retry"] {
        routes.push(("POST".into(), format!("/web/changes/{change}/{verb}")));
    }
    for verb in ["freeze", "unfreeze", "accept", "deploy", "ring"] {
        routes.push(("POST".into(), format!("/web/branches/main/{verb}")));
    }
    routes.push(("POST".into(), "/logout".into()));
    routes
}

/// A page that sends to every route what a page of another site can: to all of them fetches, to those of `forms` also a
/// form in a frame of its own. Frames are what takes a browser's time: half a second each.
fn evil_page(fort: &Fort, routes: &[(String, String)], forms: &[(String, String)], revision: &str) -> String {
    let mut page =
        format!("<!doctype html><title>evil</title><script>const all = [], to = 'http://{}';\n", fort.host);
    let body = json!({ "why": "csrf", "revision": revision, "text": "csrf", "add": ["csrf"], "admin": true, "role": "admin" });
    // Each in one of the ways that a page of another site has; three of every route keep a browser busy for minutes.
    let kinds = ["text/plain", "application/json", "application/x-www-form-urlencoded"];
    for ((method, path), kind) in routes.iter().zip(kinds.iter().cycle()) {
        page += &format!(
            "all.push(fetch(to + {path:?}, {{ method: {method:?}, mode: 'no-cors', credentials: 'include', \
             headers: {{ 'content-type': {kind:?} }}, body: {:?} }}).catch(() => 0));\n",
            body.to_string()
        );
    }
    page += "Promise.all(all).then(() => { document.title = 'fetched'; });\n</script><body>\n";
    for (at, (_, path)) in forms.iter().filter(|(method, _)| method == "POST").enumerate() {
        page += &format!(
            "<iframe name=f{at}></iframe><form id=g{at} target=f{at} method=post action=\"http://{}{path}\" enctype=text/plain>\
             <input name='{{\"why\":\"csrf\",\"revision\":\"{revision}\",\"text\":\"' value='\"}}'></form>\
             <script>g{at}.submit()</script>\n",
            fort.host
        );
    }
    page
}

/// What any of it would have changed.
pub fn standing(fort: &Fort, change: u64) -> Vec<Value> {
    let mut change = fort.change(change);
    change.as_object_mut().unwrap().retain(|key, _| {
        ["reviews", "comments", "labels", "state", "draft", "title", "target"].contains(&key.as_str())
    });
    let branch = fort.get("/repos/web/branches/main")["frozen"].clone();
    let people = ["/repos/web/people", "/repos/web/settings", "/repos/web/secrets", "/users", "/repos"];
    [change, branch].into_iter().chain(people.map(|path| fort.get(path))).collect()
}

fn f03_csrf_form(fort: &Fort, browser: &Browser) {
    let (clone, change) = fort.push("ann", "f03", &[("f03", "x\n")]);
    fort.tested(change);
    log_in_here(fort, browser, "ada");
    let before = (standing(fort, change), fort.get("/audit/leaves?count=0")["size"].clone());
    let routes = mutating_routes(fort, change);
    assert!(routes.len() > 50, "{}", routes.len());
    // Another site; and another port of this host, which is the same site to a browser and gets the cookie: there only the
    // routes of pages take a form at all.
    let of_pages: Vec<_> = routes.iter().filter(|(_, path)| !path.starts_with("/api/")).cloned().collect();
    for (site, forms) in [("evil.example", &routes), ("127.0.0.1", &of_pages)] {
        let port = evil_site(evil_page(fort, &routes, forms, &clone.head()));
        browser.go(&format!("http://{site}:{port}/"));
        browser.until("document.title === 'fetched' && document.readyState === 'complete'");
        // What was sent is answered before the next page is: the server has nothing of it left to do.
        browser.go(&format!("http://{}/", fort.host));
        browser.until("document.querySelector('h1').textContent === 'Overview'");
        let after = (standing(fort, change), fort.get("/audit/leaves?count=0")["size"].clone());
        assert_eq!(after, before, "{site}");
    }
    // The control: the same from a page of the server's own does what it says.
    browser.go(&format!("http://{}/web/changes/{change}", fort.host));
    browser.fill("#review-text", "by hand");
    browser.click("#approve");
    browser.until("document.querySelector('#talk').innerText.includes('by hand')");
    fort.landed(change);
}

const MARKUP: &str =
    "<script>window.boom=1</script><svg onload=window.boom=1><img src=x onerror=window.boom=1>{{7*7}}";

/// Markup in what people cannot write into a title: names of files, keys and jobs, errors, reasons.
fn f07_xss_everywhere(fort: &Fort, browser: &Browser) {
    // What another case was refused is not this one's.
    drop(browser.complaints());
    let name = "<img src=x onerror=window.boom=1>.html";
    let mut numbers = Vec::new();
    for (branch, pipeline) in [
        ("f07-key", format!("{PIPELINE}'{MARKUP}': 1\n")),
        ("f07-job", format!("{PIPELINE}  '{MARKUP}': {{ run: 'true' }}\n")),
        ("f07-value", format!("gate: {{ strategy: '{MARKUP}' }}\njobs:\n  unit: {{ run: 'true' }}\n")),
        (
            "f07-matrix",
            format!(
                "{PIPELINE}  cells: {{ run: 'true', on: [change], matrix: {{ x: ['<svg onload=window.boom=1>', b] }} }}\n"
            ),
        ),
        ("f07-need", format!("{PIPELINE}  needy: {{ run: 'true', needs: ['<b onclick=window.boom=1>'] }}\n")),
        (
            "f07-file",
            format!("{PIPELINE}  site: {{ run: sh ./site, on: [change], outputs: {{ o: 'd/*' }} }}\n"),
        ),
    ] {
        let site = format!(
            "mkdir d; echo '<script>window.boom=1</script>' > d/x.html; cp d/x.html 'd/{name}'; cp d/x.html d/x.svg\n"
        );
        let (_, number) = fort.push("ann", branch, &[("towpath.yaml", &pipeline), ("site", &site)]);
        numbers.push(number);
    }
    // A conflict names the file.
    let clones = ["f07-one", "f07-two"].map(|branch| fort.push("ann", branch, &[(name, branch)]));
    assert_eq!(fort.approve("mia", clones[0].1).status, 200);
    fort.landed(clones[0].1);
    numbers.push(clones[1].1);
    assert_eq!(fort.approve("mia", clones[1].1).status, 200);
    let in_conflict = |change: &Value| change["gate"]["reasons"].to_string().contains("\"conflict\"");
    fort.until_change(clones[1].1, "is in conflict", in_conflict);
    fort.act("ann", clones[1].1, "hold", &json!({ "why": MARKUP })).ok();
    fort.act(
        "ann",
        clones[1].1,
        "comment",
        &json!({ "text": format!("javascript:alert(1) [x](javascript:boom=1) {MARKUP}") }),
    )
    .ok();
    fort.act("ann", clones[1].1, "edit", &json!({ "title": MARKUP, "body": MARKUP })).ok();
    fort.ask("mia", "POST", "/repos/web/branches/main/freeze", &json!({ "why": MARKUP })).ok();
    fort.tested(numbers[5]);
    let pages = pages_of(fort, &numbers);
    log_in_here(fort, browser, "mia");
    let mut text = String::new();
    for page in &pages {
        browser.go(&format!("http://{}{page}", fort.host));
        assert_inert(browser);
        text += &browser.text();
    }
    assert!(
        pages.len() > 12 && text.matches("<script>window.boom=1</script>").count() >= 5,
        "it is shown: {text}"
    );
    fort.ask("mia", "POST", "/repos/web/branches/main/unfreeze", &json!({})).ok();
}

/// The overview, the branch, and every page about these changes, once each was tested or refused.
fn pages_of(fort: &Fort, numbers: &[u64]) -> Vec<String> {
    let looked_at = |change: &Value| {
        let reasons = change["gate"]["reasons"].to_string();
        ["bad_definition", "\"conflict\""].iter().any(|reason| reasons.contains(reason))
            || change["gate"]["tests"] != "untested"
    };
    let mut pages = vec!["/".to_owned(), "/web/branches/main".to_owned()];
    for number in numbers {
        let change = fort.until_change(*number, "is looked at", looked_at);
        pages.push(format!("/web/changes/{number}"));
        for run in change["runs"].as_array().unwrap() {
            let name = run["run"].as_str().unwrap().replacen("web/main/", "", 1);
            pages.push(format!("/web/runs/main/{name}"));
            let shown = fort.run(&run["run"]);
            let jobs = shown["jobs"].as_array().unwrap().iter();
            pages.extend(jobs.map(|job| format!("/web/runs/main/{name}/jobs/{}", job["index"])));
        }
    }
    pages
}

/// A file of a job, and its log, as a maintainer's browser opens them.
fn f08_html_artifact(fort: &Fort, browser: &Browser) {
    let html = "<script>window.boom=1;document.title='boom';fetch('/logout',{method:'POST'})</script>";
    let site = format!(
        "mkdir d; echo '{html}' > d/x.html; echo '<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"window.boom=1\"/>' > d/x.svg; echo '%PDF-1.4' > d/x.pdf; cat d/x.html\n"
    );
    let pipeline = format!("{PIPELINE}  site: {{ run: sh ./site, on: [change], outputs: {{ o: 'd/*' }} }}\n");
    let (_, number) = fort.push("ann", "f08", &[("towpath.yaml", &pipeline), ("site", &site)]);
    fort.tested(number);
    let run = fort.runs_of(number)[0]["run"].as_str().unwrap().replacen("web/main/", "", 1);
    let job = format!("/web/runs/main/{run}/jobs/site");
    let session = log_in(fort, "mia");
    log_in_here(fort, browser, "mia");
    let home = browser.url();
    for path in ["artifacts/o/x.html", "artifacts/o/x.svg", "artifacts/o/x.pdf", "log", "log?raw"] {
        let got =
            Ask::new("GET", &format!("{job}/{path}")).with("cookie", &session).send(&fort.host, &fort.heard);
        if path == "log?raw" && got.status == 400 {
            continue;
        }
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(got.header("content-security-policy").unwrap().ends_with("sandbox"), "{path}: {}", got.head);
        assert!(got.header("content-disposition").unwrap().starts_with("attachment"), "{path}: {}", got.head);
        browser.eval(&format!("location.assign('{job}/{path}'); return true"));
        browser.until("document.readyState === 'complete'");
        assert_eq!(browser.url(), home, "{path} is saved, and opens no page");
        assert_eq!(
            browser.eval("return [window.boom === undefined, document.title.includes('boom')]"),
            json!([true, false])
        );
    }
    fort.act("ann", number, "close", &json!({})).ok();
}

fn f10_session_flags(fort: &Fort, browser: &Browser) {
    const COOKIE: &str = "towpath_session";
    let planted = "a".repeat(64);
    browser.go(&format!("http://{}/login", fort.host));
    browser.add_cookie(COOKIE, &planted);
    log_in_here(fort, browser, "mia");
    let cookie = browser.cookie(COOKIE).expect("there is a session");
    assert_ne!(cookie["value"], planted.as_str(), "a new id at login");
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Lax")), "{cookie}");
    assert_eq!(browser.eval("return document.cookie"), "", "no script sees it");
    let value = cookie["value"].as_str().unwrap().to_owned();
    let status = |value: &str| {
        let ask = Ask::new("GET", "/").with("cookie", &format!("{COOKIE}={value}"));
        ask.send(&fort.host, &fort.heard).status
    };
    assert_eq!((status(&value), status(&planted)), (200, 303));
    browser.go(&format!("http://{}/", fort.host));
    browser.click("form[action='/logout'] button");
    browser.until("location.pathname === '/login'");
    assert!(browser.cookie(COOKIE).is_none());
    assert_eq!(status(&value), 303, "dead after logout");
    browser.add_cookie(COOKIE, &value);
    browser.go(&format!("http://{}/", fort.host));
    browser.until("location.pathname === '/login'");
}

#[test]
fn f03_f07_f08_f10_a_browser_is_made_to_do_nothing() {
    let test = "f03_f07_f08_f10_a_browser_is_made_to_do_nothing";
    let rules = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    if !has_sandbox(test) {
        return;
    }
    let Some(browser) = Browser::open_with(test, &[rules]) else { return };
    let fort = Fort::new();
    fort.hold("F10 session-flags", |fort| f10_session_flags(fort, &browser));
    fort.hold("F03 csrf-form", |fort| f03_csrf_form(fort, &browser));
    fort.hold("F08 html-artifact", |fort| f08_html_artifact(fort, &browser));
    fort.hold("F07 xss-everywhere", |fort| f07_xss_everywhere(fort, &browser));
    fort.end();
}
