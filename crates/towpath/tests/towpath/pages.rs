//! The pages in a real browser, served by the real program.

use serde_json::{Value, json};
use tempfile::TempDir;

pub mod browser;
mod hostile;
pub mod place;
mod proxy;

use browser::Browser;
use place::{Place, init, program};
use proxy::Proxy;

use crate::support::wait_until;

const WINDOW: (u32, u32) = (1280, 860);
/// A telephone held upright.
const NARROW: (u32, u32) = (390, 844);

fn log_in(browser: &Browser, place: &Place) {
    browser.go(&format!("{}/", place.url));
    assert!(browser.url().contains("/login?next="), "{}", browser.url());
    browser.fill("#token", &place.token);
    browser.click("button.primary");
    browser.until("document.querySelector('h1').textContent === 'Overview'");
}

/// Nothing on the page was refused by its policy, and no script of anybody else ran.
fn assert_quiet(browser: &Browser) {
    assert!(!browser.has_dialogue(), "a dialogue is open at {}", browser.url());
    let complaints = browser.complaints();
    let ours = |text: &&String| !text.contains("favicon.ico");
    assert_eq!(
        complaints.iter().filter(ours).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "{}",
        browser.url()
    );
    let scripts = browser.eval("return [...document.scripts].map(script => script.getAttribute('src'))");
    assert_eq!(scripts.as_array().unwrap().len(), 1, "{scripts}");
    assert!(scripts[0].as_str().unwrap().starts_with("/static/towpath-"), "{scripts}");
}

/// What a change is about as the demo names it, by its number.
fn demo_changes(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn change_of(changes: &[Value], case: &str) -> u64 {
    let found = changes.iter().find(|change| change["case"] == case);
    found.unwrap_or_else(|| panic!("no case {case} in {changes:?}"))["change"].as_u64().unwrap()
}

/// Plays the demo, and serves what it left.
fn demo(folder: &TempDir) -> (Place, Vec<Value>) {
    let demo = folder.path().join("demo");
    let mut command = program(folder.path());
    let played = command.args(["demo", "--json", "--no-serve", "--folder"]).arg(&demo).output().unwrap();
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    let changes = demo_changes(&String::from_utf8(played.stdout).unwrap());
    (Place::serve(&demo.join("data"), &demo.join("keys"), &demo.join("token")), changes)
}

#[test]
fn the_pages_of_the_demo_are_walked_in_a_browser() {
    let Some(browser) = Browser::open("the walk through the pages") else { return };
    let folder = TempDir::new().unwrap();
    let (place, changes) = demo(&folder);
    browser.look("light", WINDOW);
    browser.go(&format!("{}/login", place.url));
    browser.picture("login");
    log_in(&browser, &place);
    browser.until("document.querySelector('#pulse').textContent === 'live'");
    browser.picture("overview");
    assert_quiet(&browser);

    browser.click("tbody th a");
    browser.until("document.querySelector('#queue')");
    browser.picture("branch");
    assert_quiet(&browser);
    in_other_lights(&browser, "branch");
    freeze_and_unfreeze(&browser);

    let failed = change_of(&changes, "fails-a-test");
    browser.go(&format!("{}/demo/changes/{failed}", place.url));
    browser.until("document.querySelector('.checklist .bad')");
    browser.picture("change");
    assert_quiet(&browser);
    in_other_lights(&browser, "change");

    browser.click("#runs .entries a");
    browser.until("document.querySelector('details.failed')");
    browser.picture("run");
    assert_quiet(&browser);
    in_other_lights(&browser, "run");
    browser.click("details.failed .row.error a");
    browser.until("document.querySelector('#log .row.error:target')");
    browser.picture("log");
    assert_quiet(&browser);

    approve(&browser, &place, change_of(&changes, "skips-the-tests"));
}

/// The same page in the dark, and on a telephone, where nothing may stick out sideways.
fn in_other_lights(browser: &Browser, name: &str) {
    browser.look("dark", WINDOW);
    browser.until("getComputedStyle(document.body).backgroundColor === 'rgb(18, 21, 23)'");
    browser.picture(&format!("{name}-dark"));
    browser.look("light", NARROW);
    browser.until("document.documentElement.scrollWidth <= innerWidth");
    browser.picture(&format!("{name}-narrow"));
    browser.look("light", WINDOW);
}

/// Both by the forms; the page tells at once.
fn freeze_and_unfreeze(browser: &Browser) {
    browser.fill("#freeze-why", "the canal is drained");
    browser.click("#acts .danger");
    browser.until("document.querySelector('#head').innerText.includes('the canal is drained')");
    browser.click("#acts .primary");
    browser.until("!document.querySelector('#head').innerText.includes('the canal is drained')");
    assert_quiet(browser);
}

fn approve(browser: &Browser, place: &Place, change: u64) {
    let path = format!("/repos/demo/changes/{change}");
    let before = place.get(&path);
    assert_eq!(before["reviews"], json!([]));
    browser.go(&format!("{}/demo/changes/{change}", place.url));
    browser.fill("#review-text", "Looked at in a browser.");
    browser.click("#approve");
    browser.until("document.querySelector('#talk').innerText.includes('Looked at in a browser.')");
    let review = &place.get(&path)["reviews"][0];
    assert_eq!((&review["by"], &review["verdict"]), (&json!("ann"), &json!("approve")));
    assert_eq!(review["revision"], before["revision"]);
    assert_quiet(browser);
}

#[test]
fn f07_markup_of_others_is_inert_in_a_browser() {
    let Some(browser) = Browser::open("markup in a browser") else { return };
    let folder = TempDir::new().unwrap();
    let (data, keys, token) = init(folder.path());
    let place = Place::serve(&data, &keys, &token);
    hostile::change(&place, folder.path());
    log_in(&browser, &place);
    let change = format!("{}/xss/changes/1", place.url);
    browser.go(&change);
    // Live updates bring it in, too: the run ends while the page is open.
    browser.until("document.querySelector('#runs .pill.bad')");
    let run = browser.eval("return document.querySelector('#runs .entries a').href");
    let run = run.as_str().unwrap();
    let pages = [
        place.url.clone(),
        format!("{}/xss/branches/main", place.url),
        change,
        run.to_owned(),
        format!("{run}/jobs/unit"),
        format!("{}/xss/branches/%3Cscript%3Ewindow.boom=1%3C%2Fscript%3E", place.url),
        format!("{}/login?next=%22%3E%3Cscript%3Ewindow.boom=1%3C/script%3E", place.url),
    ];
    for (at, page) in pages.iter().enumerate() {
        browser.go(page);
        assert_inert(&browser);
        if (2..=4).contains(&at) {
            assert!(browser.text().contains(hostile::MARKUP), "{page} does not show it:\n{}", browser.text());
        }
    }
}

pub fn assert_inert(browser: &Browser) {
    assert_eq!(browser.eval("return window.boom === undefined"), true, "{}", browser.url());
    assert!(!browser.has_dialogue(), "a dialogue is open at {}", browser.url());
    let alive = browser.eval(
        "return [...document.querySelectorAll('*')].filter(element =>
           ['SVG', 'IFRAME', 'OBJECT', 'EMBED', 'BASE', 'STYLE'].includes(element.tagName.toUpperCase())
           || element.tagName === 'IMG' && !element.getAttribute('src').startsWith('/static/')
           || [...element.attributes].some(attribute => attribute.name.startsWith('on') || attribute.name === 'style')
           || /^\\s*javascript:/i.test(element.getAttribute('href') || '')).map(element => element.outerHTML)",
    );
    assert_eq!(alive, json!([]), "{}", browser.url());
    let refused: Vec<String> =
        browser.complaints().into_iter().filter(|text| text.contains("Content Security Policy")).collect();
    assert_eq!(refused, Vec::<String>::new(), "{}", browser.url());
}

/// Shows the log of a job that talks until it is cancelled, so however slow the machine is, it is met while it grows. The
/// address of its run.
fn listen_to_talker(browser: &Browser, place: &Place, folder: &TempDir) -> String {
    log_in(browser, place);
    hostile::talker(place, folder.path());
    browser.go(&format!("{}/talk/changes/1", place.url));
    browser.until("document.querySelector('#runs .entries a')");
    let run = browser.eval("return document.querySelector('#runs .entries a').href");
    let run = run.as_str().unwrap().to_owned();
    browser.go(&format!("{run}/jobs/unit"));
    assert_eq!(browser.eval("return document.querySelector('#log').dataset.over"), "false");
    browser.eval("window.same = true");
    run
}

#[test]
fn a_page_is_live_again_after_a_proxy_had_no_server() {
    let Some(browser) = Browser::open("a page behind a proxy") else { return };
    let folder = TempDir::new().unwrap();
    let (data, keys, token) = init(folder.path());
    let proxy = Proxy::open();
    let place = Place::serve_with((&data, &keys, &token), &["--url", &proxy.url]);
    proxy.lead_to(place.listens);
    listen_to_talker(&browser, &place, &folder);
    browser.until("document.querySelector('#pulse').textContent === 'live'");
    browser.until("document.querySelector('#L20')");
    let events = browser.eval("return document.body.dataset.events");
    proxy.lose_server();
    // A browser that got such an answer does not connect again by itself.
    for path in [events.as_str().unwrap(), "/jobs/unit/follow"] {
        wait_until(&format!("a request for {path}"), || proxy.has_refused(path));
    }
    browser.until("document.querySelector('#pulse').textContent !== 'live'");
    let last = "document.querySelector('#log').lastElementChild.id.slice(1)";
    let seen: u64 = browser.eval(&format!("return {last}")).as_str().unwrap().parse().unwrap();
    proxy.lead_to(place.listens);
    browser.until("document.querySelector('#pulse').textContent === 'live'");
    browser.until(&format!("Number({last}) > {}", seen + 100));
    assert_eq!(browser.eval("return window.same"), true, "the page was loaded again");

    // Whoever is logged out is told so.
    browser.forget_cookies();
    proxy.lose_server();
    proxy.lead_to(place.listens);
    browser.until("document.querySelector('#news').innerText.includes('you have to log in again')");
}

#[test]
fn a_page_that_could_not_listen_from_the_start_shows_what_happened_meanwhile() {
    let Some(browser) = Browser::open("a page that cannot listen") else { return };
    let folder = TempDir::new().unwrap();
    let (data, keys, token) = init(folder.path());
    let proxy = Proxy::open();
    let place = Place::serve_with((&data, &keys, &token), &["--url", &proxy.url]);
    proxy.lead_to(place.listens);
    log_in(&browser, &place);
    let events = browser.eval("return document.body.dataset.events");
    let events = events.as_str().unwrap();
    proxy.refuse(Some(events));
    browser.go(&format!("{}/", place.url));
    browser.until("document.querySelector('#pulse').textContent !== 'live'");
    wait_until("a request for events", || proxy.has_refused(events));
    // All that comes of it has happened before anybody listens, and nothing comes by itself.
    place.api("POST", "/repos", &json!({ "repo": "later" }));
    let seldom = json!({ "default_branch": "main", "branches": { "main": { "poll_seconds": 86400 } } });
    place.api("PUT", "/repos/later/settings", &seldom);
    wait_until("its gate is quiet", || {
        !place.get("/repos/later/branches/main")["flags"]["read_at"].is_null()
    });
    assert_eq!(browser.eval("return document.querySelector('#repos').innerText.includes('later')"), false);
    browser.eval("window.same = true");
    proxy.refuse(None);
    browser.until("document.querySelector('#pulse').textContent === 'live'");
    browser.until("document.querySelector('#repos').innerText.includes('later')");
    assert_eq!(browser.eval("return window.same"), true, "the page was loaded again");
}

#[test]
fn a_log_is_followed_while_it_grows() {
    let Some(browser) = Browser::open("a log that grows") else { return };
    let folder = TempDir::new().unwrap();
    let (data, keys, token) = init(folder.path());
    let place = Place::serve(&data, &keys, &token);
    let run = listen_to_talker(&browser, &place, &folder);
    browser.click("#follow");
    browser.until("document.querySelector('#L60')");
    let run = run.rsplit('/').next().unwrap();
    place.api(
        "POST",
        &format!("/repos/talk/runs/main/{run}/cancel"),
        &json!({ "why": "it has said enough" }),
    );
    browser.until("document.querySelector('#head .pill').textContent.includes('cancelled')");
    assert_eq!(browser.eval("return window.same"), true, "the page was loaded again");
    // Taken at once: the last lines may still come in.
    let rows = browser.eval(
        "return [...document.querySelectorAll('#log .row')]
           .map(row => [row.innerText.trim(), row.querySelectorAll('.f2').length])",
    );
    let told: Vec<(&str, u64)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_str().unwrap(), row[1].as_u64().unwrap()))
        .filter(|(text, _)| text.contains("line "))
        .collect();
    let is_line = |(at, (text, green)): (usize, &(&str, u64))| {
        text.split_whitespace().eq(format!("{at} line {at}").split(' ')) && *green == 1
    };
    assert!(told.len() >= 60 && (1..).zip(told.iter()).all(is_line), "{rows:?}");
    assert_quiet(&browser);
}
