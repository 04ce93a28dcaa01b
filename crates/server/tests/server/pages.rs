//! The pages as a browser without scripts gets them. What only a real browser shows is tested with the program itself.

use serde_json::json;
use towpath_core::ids::{ChangeNumber, GateId, Timestamp};

use crate::client::{Ask, Got};
use crate::git::{clone, said};
use crate::world::{World, git};

/// A page of somebody who is logged in.
fn page(world: &World, cookie: &str, path: &str) -> Got {
    world.send(&Ask::get(path).header("cookie", cookie))
}

fn text(got: &Got) -> String {
    String::from_utf8_lossy(&got.body).into_owned()
}

/// What follows a mark in a page, up to the next quote.
fn after(text: &str, mark: &str) -> String {
    let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {text}"));
    rest.split('"').next().unwrap().to_owned()
}

/// What forms of a session bring back.
pub fn csrf_of(world: &World, cookie: &str) -> String {
    after(&text(&page(world, cookie, "/")), "name=\"csrf\" value=\"")
}

/// Fields of the form that approves, as the page has them.
pub fn review_of(text: &str) -> String {
    let names = ["csrf", "revision", "target", "message", "definition"];
    let form = &text[text.find("id=\"review\"").unwrap()..];
    let field = |name: &str| format!("{name}={}", after(form, &format!("name=\"{name}\" value=\"")));
    names.map(field).join("&")
}

#[test]
fn the_four_pages_read_without_a_script() {
    let world = crate::runs::after_a_run();
    let cookie = world.log_in("mia");
    let overview = text(&page(&world, &cookie, "/"));
    assert!(overview.contains("href=\"/demo/branches/main\"") && !overview.contains(">other<"));
    let branch = text(&page(&world, &cookie, "/demo/branches/main"));
    for shown in ["Dirty flags", "href=\"/demo/changes/1\"", "Add a feature", "/demo/branches/main/freeze"] {
        assert!(branch.contains(shown), "no {shown} in {branch}");
    }
    let change = text(&page(&world, &cookie, "/demo/changes/1"));
    for shown in ["it is approved", "uploaded by", "git author", "a@example.org", "/demo/changes/1/approve"] {
        assert!(change.contains(shown), "no {shown} in {change}");
    }
    let run = "/demo/runs/main/1";
    let shown = text(&page(&world, &cookie, run));
    assert!(
        shown.contains("unsandboxed") && shown.contains("href=\"/demo/runs/main/1/jobs/unit\""),
        "{shown}"
    );
    let log = text(&page(&world, &cookie, &format!("{run}/jobs/unit")));
    for shown in
        ["lines 1 to 2 of 2", "id=\"L2\"", "&lt;script&gt;alert(1)&lt;/script&gt;", "/artifacts/site/x.html"]
    {
        assert!(log.contains(shown), "no {shown} in {log}");
    }
    assert!(shown.contains("<p>1 job: 1 passed."), "{shown}");
    let absent = page(&world, &cookie, &format!("{run}/jobs/absent"));
    assert!(absent.status == 404 && text(&absent).contains("<h1>Not found</h1>"), "{}", text(&absent));
    // Who may only read gets no form but the one that logs out.
    let reader = world.log_in("rae");
    for path in ["/", "/demo/branches/main", "/demo/changes/1", run] {
        let got = page(&world, &reader, path);
        assert_eq!((got.status, text(&got).matches("<form").count()), (200, 1), "{path}");
    }
}

#[test]
fn a_branch_shows_its_landings_newest_first() {
    let world = World::new();
    let folder = clone(&world, "bob").unwrap();
    git(&folder, &["commit", "--quiet", "--allow-empty", "-m", "Another title"]);
    assert!(git(&folder, &["push", "-o", "change", "origin", "HEAD:refs/heads/bobs"]).status.success());
    let gate = GateId { repo: world.demo(), branch: "main".parse().unwrap() };
    let landed = world.shared.store.writer().write(move |tx| {
        tx.put_landing(&gate, ChangeNumber(2), Timestamp(1_000))?;
        tx.put_landing(&gate, ChangeNumber(1), Timestamp(2_000))?;
        // What lands once more is no news.
        tx.put_landing(&gate, ChangeNumber(2), Timestamp(3_000))
    });
    landed.unwrap();
    let branch = text(&page(&world, &world.log_in("rae"), "/demo/branches/main"));
    let (_, listed) = branch.split_once("id=\"landed\"").unwrap();
    let place = |title: &str| listed.find(title).unwrap_or_else(|| panic!("no {title} in {listed}"));
    assert!(place("1 Add a feature") < place("2 Another title"), "{listed}");
}

#[test]
fn g01_an_approval_by_a_form_is_for_what_was_shown() {
    let world = World::new();
    let cookie = world.log_in("mia");
    let fields = review_of(&text(&page(&world, &cookie, "/demo/changes/1")));
    let send =
        |fields: &str| world.send(&world.form("/demo/changes/1/approve", fields).header("cookie", &cookie));
    world
        .by("ann", Ask::post("/api/v1/repos/demo/changes/1/edit", json!({ "title": "Something else" })))
        .ok();
    let late = send(&fields);
    assert_eq!(late.status, 409);
    assert!(text(&late).contains("href=\"/demo/changes/1\""), "{}", text(&late));
    assert_eq!(world.change(1)["reviews"], json!([]));
    // Without what was shown, nothing is approved; without the session's own token neither.
    assert_eq!(send(&fields.replace("message=", "other=")).status, 400);
    assert_eq!(send(&fields.replace("csrf=", "csrf=x")).status, 403);
    let fresh = review_of(&text(&page(&world, &cookie, "/demo/changes/1")));
    let done = send(&fresh);
    assert_eq!((done.status, done.header("location")), (303, Some("/demo/changes/1")));
    assert_eq!(world.change(1)["reviews"][0]["by"], "mia");
    // Whose session is over comes back to the page, as a form's own path shows nothing.
    let over = world.send(&world.form("/demo/changes/1/approve", &fresh));
    assert_eq!((over.status, over.header("location")), (303, Some("/login?next=/demo/changes/1")));
}

#[test]
fn what_was_written_into_a_form_that_is_not_taken_is_shown() {
    let world = World::new();
    let cookie = world.log_in("mia");
    let send = |verb: &str, fields: &str| {
        let path = format!("/demo/changes/1/{verb}");
        text(&world.send(&world.form(&path, fields).header("cookie", &cookie)))
    };
    let shows = |page: &str, words: &str| {
        let shown = page.split_once("readonly>\n").and_then(|(_, rest)| rest.split_once("</textarea>"));
        assert_eq!(shown.map(|(shown, _)| shown), Some(words), "{page}");
    };
    let fields = review_of(&text(&page(&world, &cookie, "/demo/changes/1")));
    push_on(&world, "ann");
    // The revision has moved on: with any of the buttons that send the form.
    let hostile = format!("{fields}&text=Tabs%2C+please.%0A%3C%2Ftextarea%3E%3Cscript%3E");
    for verb in ["request-changes", "approve"] {
        let late = send(verb, &hostile);
        shows(&late, "Tabs, please.\n&#60;/textarea&#62;&#60;script&#62;");
        assert_eq!(late.matches("<script").count(), 1, "{late}");
    }
    // What the form itself brings along is nobody's words.
    assert!(!send("request-changes", &fields).contains("<textarea"));
    // What is wrong in itself, wherever that is found.
    let csrf = csrf_of(&world, &cookie);
    let label = send("label", &format!("csrf={csrf}&add=a%2Cb"));
    shows(&label, "a,b");
    assert!(label.contains("mend what the form has there"), "{label}");
    let revision = world.change(1)["revision"].as_str().unwrap().to_owned();
    shows(&send("vouch", &format!("csrf={csrf}&revision={revision}&why=read+it&hours=many")), "read it");
    shows(&send("request-changes", &format!("csrf={csrf}&text=Tabs")), "Tabs");
    let long = send("comment", &format!("csrf={csrf}&text={}", "é".repeat(100_000)));
    shows(&long, &"é".repeat(64 << 10));
    assert!(long.contains("(its beginning)"));
}

#[test]
fn f07_a_page_runs_no_script_but_our_own() {
    let world = World::new();
    let cookie = world.log_in("ada");
    let hostile = "<script>alert(1)</script><svg onload=x>{{7*7}}";
    world.by("ann", Ask::post("/api/v1/repos/demo/changes/1/comment", json!({ "text": hostile }))).ok();
    let got = page(&world, &cookie, "/demo/changes/1");
    let policy = got.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = text(&got);
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&lt;svg onload=x&gt;{{7*7}}"), "{text}");
    assert_eq!(text.matches("<script").count(), 1);
    assert!(!text.contains("<svg") && !text.contains(" style=") && !text.contains("javascript:"));
}

#[test]
fn files_of_pages_are_kept_by_browsers_for_good() {
    let world = World::new();
    let login = text(&world.send(&Ask::get("/login")));
    for mark in ["rel=\"stylesheet\" href=\"", "<script src=\"", "rel=\"icon\" href=\""] {
        let got = world.send(&Ask::get(&after(&login, mark)));
        assert_eq!(got.status, 200);
        assert!(got.header("cache-control").unwrap().contains("immutable"), "{mark}");
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(world.send(&Ask::get("/static/towpath-0000000000000000.js")).status, 404);
    assert_eq!(world.send(&Ask::get("/login?failed=1")).status, 401);
}

#[test]
fn a_repos_name_alone_leads_to_its_branch() {
    let world = World::new();
    let cookie = world.log_in("rae");
    let got = page(&world, &cookie, "/demo");
    assert_eq!((got.status, got.header("location")), (303, Some("/demo/branches/main")));
    // Who may not see a repo does not learn where it leads.
    assert_eq!(page(&world, &cookie, "/other").status, 404);
}

#[test]
fn nobody_is_offered_to_approve_what_they_uploaded() {
    let world = World::new();
    let shown = |name: &str| text(&page(&world, &world.log_in(name), "/demo/changes/1"));
    world.ada(Ask::put("/api/v1/repos/demo/people/ann", json!({ "role": "maintainer" }))).ok();
    let own = shown("ann");
    assert!(own.contains("somebody else has to approve it") && !own.contains("id=\"approve\""), "{own}");
    assert!(own.contains("/demo/changes/1/request-changes"), "{own}");
    assert!(shown("mia").contains("id=\"approve\""));
}

/// A commit on top of change 1, pushed to it by `name`.
fn push_on(world: &World, name: &str) {
    let folder = clone(world, name).unwrap();
    let newest = world.change(1)["revisions"].as_array().unwrap().len();
    git(&folder, &["fetch", "--quiet", "origin", &format!("refs/changes/1/{newest}")]);
    git(&folder, &["checkout", "--quiet", "--detach", "FETCH_HEAD"]);
    std::fs::write(folder.join(name), "more\n").unwrap();
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "Add more"]);
    let pushed = git(&folder, &["push", "-o", "change=1", "origin", "HEAD:refs/for/main"]);
    assert!(pushed.status.success(), "{}", said(&pushed));
}

#[test]
fn whoever_uploaded_a_lower_commit_is_told_to_ask_somebody_else() {
    let world = World::new();
    ["mia", "ann"].iter().for_each(|name| push_on(&world, name));
    let shown = |name: &str| text(&page(&world, &world.log_in(name), "/demo/changes/1"));
    let own = shown("mia");
    assert!(own.contains("You cannot approve it: you uploaded commits of this change"), "{own}");
    assert!(!own.contains("id=\"approve\"") && shown("ada").contains("id=\"approve\""), "{own}");
    let approve = json!({ "revision": world.change(1)["revision"] });
    let refused = world.by("mia", Ask::post("/api/v1/repos/demo/changes/1/approve", approve));
    assert_eq!(refused.status, 403);
    let (why, hint) = (refused.error()["why"].clone(), refused.error()["hint"].clone());
    assert!(why.as_str().unwrap().contains("you uploaded commits of this change"), "{why}");
    assert!(hint.as_str().unwrap().starts_with("ask another maintainer"), "{hint}");
}

#[test]
fn an_owner_is_offered_what_the_gate_takes_from_them() {
    let world = World::new();
    let newest =
        || world.ada(Ask::get("/api/v1/repos/demo/runs?change=1&branch=main")).ok()[0]["run"].clone();
    world.until(|_| !newest().is_null());
    let offers = |name: &str| {
        let run = format!("/{}", run_path(&newest()));
        let (cookie, change) = (world.log_in(name), "/demo/changes/1");
        let form =
            |path: &str, verb: &str| text(&page(&world, &cookie, path)).contains(&format!("{path}/{verb}"));
        [form(&run, "cancel"), form(change, "hold"), form(change, "retry"), form(change, "close")]
    };
    assert_eq!((offers("ann"), offers("mia"), offers("bob")), ([true; 4], [true; 4], [false; 4]));
    let cancel = Ask::post(&format!("/api/v1/repos/{}/cancel", run_path(&newest())), json!({ "why": "no" }));
    assert_eq!(world.by("bob", cancel).status, 403);
    let act = |verb: &str| format!("/api/v1/repos/demo/changes/1/{verb}");
    let revision = json!({ "revision": world.change(1)["revision"] });
    // Approved, it goes on being tested whoever owns it.
    world.by("mia", Ask::post(&act("approve"), revision.clone())).ok();
    let role = json!({ "role": "author", "authorised": false });
    world.ada(Ask::put("/api/v1/repos/demo/people/ann", role)).ok();
    assert_eq!((offers("ann"), offers("mia")), ([true; 4], [true; 4]));
    world.by("mia", Ask::post(&act("withdraw"), json!({}))).ok();
    assert_eq!(offers("ann")[1..], [true, false, true]);
    let refused = world.by("ann", Ask::post(&act("retry"), revision));
    let why = refused.error()["why"].clone();
    assert!(refused.status == 403 && why.as_str().unwrap().contains("or an admin authorises"), "{why}");
    world.by("ann", Ask::post(&act("hold"), json!({ "why": "not yet" }))).ok();
}

/// A run within the paths of the API: `demo/runs/main/1`.
fn run_path(run: &serde_json::Value) -> String {
    run.as_str().unwrap().replacen("demo/", "demo/runs/", 1)
}

#[test]
fn a_vouch_is_shown_with_its_end() {
    let world = World::new();
    let cookie = world.log_in("mia");
    let revision = world.change(1)["revision"].as_str().unwrap().to_owned();
    let vouch = |hours: &str| {
        let fields =
            format!("csrf={}&revision={revision}&why=read+it&hours={hours}", csrf_of(&world, &cookie));
        world.send(&world.form("/demo/changes/1/vouch", &fields).header("cookie", &cookie))
    };
    assert_eq!(vouch("many").status, 400);
    assert_eq!(vouch("2").status, 303);
    let now = || world.change(1)["gate"]["vouch"].clone();
    let (given, ends) = (now()["at"].as_i64().unwrap(), now()["expires"].as_i64().unwrap());
    assert!((ends - given - 2 * 3_600_000).abs() < 60_000, "{}", now());
    let shown = || text(&page(&world, &cookie, "/demo/changes/1"));
    assert!(now()["standing"] == "holds" && shown().contains("It ends <time "), "{}", shown());
    world
        .ada(Ask::put("/api/v1/repos/demo/people/mia", json!({ "role": "author", "authorised": true })))
        .ok();
    world.until(|_| now()["standing"] == "void");
    assert!(shown().contains("It <strong>no longer counts</strong>: mia does not maintain"), "{}", shown());
    let short = json!({ "revision": revision, "why": "read it", "seconds": 1 });
    world.ada(Ask::post("/api/v1/repos/demo/changes/1/vouch", short)).ok();
    crate::runs::wait_for("the vouch ends", || now()["standing"] == "ended");
    assert!(shown().contains("It <strong>ended</strong> <time "), "{}", shown());
}
