//! The JSON API: what handlers say, and the shape of every error.

use serde_json::{Value, json};
use towpath_core::effect::EffectKey;
use towpath_core::ids::BranchName;
use towpath_forge::Proposal;
use towpath_store::records::Alert;

use crate::client::Ask;
use crate::runs::wait_for;
use crate::world::{World, git};

fn act(verb: &str, body: Value) -> Ask {
    Ask::post(&format!("/api/v1/repos/demo/changes/1/{verb}"), body)
}

/// Ann adds a revision to her change; returns its id.
fn push_again(world: &World) -> String {
    let source = world.folder.path().join("source");
    git(&source, &["checkout", "--quiet", "feature"]);
    std::fs::write(source.join("more"), "more\n").unwrap();
    git(&source, &["add", "."]);
    git(&source, &["commit", "--quiet", "-m", "Add more"]);
    let forge = world.shared.forges.get(&world.demo()).unwrap();
    let fetched = git(forge.repository().path(), &["fetch", "--quiet", source.to_str().unwrap(), "feature"]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let head = git(&source, &["rev-parse", "HEAD"]).stdout;
    let commit = String::from_utf8(head).unwrap().trim().to_owned();
    let proposal = Proposal { source: Some("feature".parse().unwrap()), ..Proposal::default() };
    let now = world.shared.engine.clock().now();
    forge.propose(world.user("ann"), commit.parse().unwrap(), &proposal, now).unwrap();
    commit
}

#[test]
fn g01_approve_then_push() {
    let world = World::new();
    let seen = world.change(1);
    let old = seen["revision"].as_str().unwrap();
    let items = seen["gate"]["checklist"].as_array().unwrap().iter();
    let items: Vec<&str> = items.map(|item| item["id"].as_str().unwrap()).collect();
    let all = ["ready", "trusted", "joins", "usable", "tested", "approved", "turn", "branch", "outside"];
    assert_eq!(items, all);
    // Between the maintainer's look and the click.
    let new = push_again(&world);
    let late = world.by("mia", act("approve", json!({ "revision": old })));
    assert_eq!(late.status, 409);
    let body = late.json();
    assert_eq!((body["class"].as_str(), body["exit_code"].as_u64()), (Some("conflict"), Some(5)));
    assert!(body["why"].as_str().unwrap().contains(&new), "{body}");
    assert_eq!(body["what"], "cannot approve a revision of a change");
    assert!(world.change(1)["reviews"].as_array().unwrap().is_empty());
    // Approved as it is now, it counts.
    world.by("mia", act("approve", json!({ "revision": new, "text": "good" }))).ok();
    let waits = |reason: &String| reason == "approvals" || reason == "reading_branch";
    world.until(|world| !world.why(1).iter().any(waits));
    let review = world.change(1)["reviews"][0].clone();
    assert_eq!((review["by"].as_str(), review["current"].as_bool()), (Some("mia"), Some(true)));
}

#[test]
fn g02_self_approve() {
    let world = World::new();
    let revision = world.change(1)["revision"].clone();
    let own = world.by("ann", act("approve", json!({ "revision": revision })));
    assert_eq!(own.status, 403);
    // Also once she has the right to approve the changes of others.
    world.ada(Ask::put("/api/v1/repos/demo/people/ann", json!({ "role": "maintainer" }))).ok();
    let own = world.by("ann", act("approve", json!({ "revision": revision })));
    assert_eq!((own.status, own.json()["class"].as_str()), (403, Some("denied")));
    assert!(world.why(1).contains(&"approvals".to_owned()));
}

#[test]
fn g08_label_by_stranger() {
    let world = World::new();
    let urgent = json!({ "add": ["prio:high"] });
    assert_eq!(world.by("bob", act("label", urgent.clone())).status, 403);
    assert_eq!(world.by("ann", act("label", urgent.clone())).status, 403);
    world.by("ann", act("label", json!({ "add": ["docs"] }))).ok();
    world.by("mia", act("label", urgent)).ok();
    assert_eq!(world.change(1)["labels"], json!(["docs", "prio:high"]));
    let listed = world.ada(Ask::get("/api/v1/repos/demo/changes?label=docs")).ok();
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[test]
fn what_people_do_with_a_change_shows() {
    let world = World::new();
    world.by("bob", act("comment", json!({ "text": "why?\u{1b}[31m" }))).ok();
    world.by("ann", act("edit", json!({ "title": "A better title" }))).ok();
    world.by("ann", act("hold", json!({ "why": "not yet" }))).ok();
    let change = world.change(1);
    assert_eq!(change["comments"][0]["text"], "why??[31m");
    assert_eq!(change["title"], "A better title");
    world.until(|world| world.why(1).contains(&"held".to_owned()));
    assert_eq!(world.by("ann", act("release", json!({}))).status, 403);
    world.by("mia", act("release", json!({}))).ok();
    world.by("ann", act("draft", json!({}))).ok();
    world.until(|world| world.why(1).contains(&"draft".to_owned()));
    world.by("ann", act("ready", json!({}))).ok();
    world.by("ann", act("close", json!({}))).ok();
    assert_eq!(world.change(1)["state"], "closed");
    assert_eq!(world.by("ann", act("hold", json!({ "why": "x" }))).status, 409);
    world.by("ann", act("reopen", json!({}))).ok();
    world.until(|world| world.change(1)["gate"].is_object());
}

#[test]
fn a_branch_freezes_with_a_reason() {
    let world = World::new();
    let branch = |verb: &str, body: Value| {
        world.by("mia", Ask::post(&format!("/api/v1/repos/demo/branches/main/{verb}"), body))
    };
    assert_eq!(branch("freeze", json!({})).status, 400);
    assert_eq!(branch("freeze", json!({ "why": "two\nlines" })).status, 400);
    branch("freeze", json!({ "why": "release day" })).ok();
    let shown = world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok();
    let frozen = (shown["frozen"]["by"].as_str(), shown["frozen"]["why"].as_str());
    assert_eq!(frozen, (Some("mia"), Some("release day")));
    assert_eq!(branch("freeze", json!({ "why": "again" })).json()["class"], "conflict");
    branch("unfreeze", json!({})).ok();
    let list = world.ada(Ask::get("/api/v1/repos/demo/branches")).ok();
    assert_eq!((list[0]["branch"].as_str(), list[0]["frozen"].as_bool()), (Some("main"), Some(false)));
}

#[test]
fn errors_have_one_shape() {
    let world = World::new();
    let cases = [
        (Ask::get("/api/v1/repos/nope"), 404, "not_found", 3),
        (Ask::get("/api/v1/repos/demo/changes/99"), 404, "not_found", 3),
        (Ask::get("/api/v1/repos/demo/changes/x"), 404, "not_found", 3),
        (Ask::get("/api/v1/repos/demo/changes?state=odd"), 400, "invalid", 2),
        (Ask::get("/api/v1/repos/demo/changes?nonsense=1"), 400, "invalid", 2),
        (Ask::get("/api/v1/repos/demo/runs/main/77"), 404, "not_found", 3),
        (Ask::post("/api/v1/repos", json!({ "repo": "demo" })), 409, "conflict", 5),
        (Ask::post("/api/v1/repos", json!({ "repo": "api" })), 400, "invalid", 2),
        (Ask::post("/api/v1/repos", json!({ "repo": "../x" })), 400, "invalid", 2),
        (Ask::post("/api/v1/users", json!({ "user": "ann" })), 409, "conflict", 5),
        (Ask::post("/api/v1/users", json!({ "user": "A B" })), 400, "invalid", 2),
        (Ask::post("/api/v1/users", json!({ "user": "zoe", "odd": 1 })), 400, "invalid", 2),
        (act("vouch", json!({ "revision": "xyz", "why": "y" })), 400, "invalid", 2),
        (Ask::new("POST", "/api/v1/users").body("user=zoe"), 400, "invalid", 2),
        (Ask::new("PATCH", "/api/v1/users"), 405, "no_method", 2),
        (Ask::get("/api/v1/nothing"), 404, "not_found", 3),
        (Ask::post("/api/v1/repos/demo/branches/main/unfreeze", json!({})), 409, "conflict", 5),
        (Ask::post("/api/v1/repos/demo/changes", json!({ "source": "nope" })), 404, "not_found", 3),
        (Ask::post("/api/v1/repos/demo/environments/nope/deploy", json!({})), 404, "not_found", 3),
        (Ask::new("DELETE", "/api/v1/repos/demo/secrets/nope"), 404, "not_found", 3),
        (act("release", json!({})), 409, "conflict", 5),
    ];
    for (ask, status, class, exit_code) in cases {
        let got = world.ada(ask.clone());
        let body = got.error();
        assert_eq!(got.status, status, "{ask:?} {body}");
        let classed = (body["class"].as_str(), body["exit_code"].as_u64());
        assert_eq!(classed, (Some(class), Some(exit_code)), "{ask:?}");
    }
    // Nobody has logged in, and no repo has such a name.
    for path in ["/api/v1/repos/%ff", "/api/v1/repos/demo/changes/%c3%28"] {
        let got = world.send(&Ask::new("GET", path));
        assert_eq!((got.status, &got.error()["class"]), (404, &json!("not_found")), "{path}");
        assert_eq!(got.error()["why"], "there is nothing at this path");
    }
    let large = Ask::post("/api/v1/users", json!({})).header("content-length", "2000000");
    assert_eq!(world.ada(large).error()["class"], "too_large");
    let open = world.ada(Ask::post("/api/v1/repos/demo/changes", json!({ "source": "nope" }))).error();
    assert_eq!(open["hint"], "push it first: `git push towpath HEAD:refs/heads/nope`");
    let odd = world.ada(Ask::get("/api/v1/repos/demo/changes/zz")).error();
    assert_eq!(odd["why"], "`zz` is not a valid change number: it is a whole number");
}

#[test]
fn a_browser_at_no_page_gets_a_page() {
    let world = World::new();
    let browser = |method: &str, path: &str| {
        let got =
            world.send(&Ask::new(method, path).header("accept", "text/html,application/xhtml+xml;q=0.9"));
        let text = String::from_utf8_lossy(&got.body).into_owned();
        assert!(got.header("content-type").unwrap().starts_with("text/html"), "{path}: {text}");
        assert!(got.header("content-security-policy").unwrap().contains("style-src 'self'"));
        (got.status, text)
    };
    let (status, text) = browser("GET", "/no/such");
    for shown in ["<h1>Not found</h1>", "there is nothing at this path", "href=\"/\""] {
        assert!(status == 404 && text.contains(shown), "no {shown} in {text}");
    }
    assert_eq!(browser("PATCH", "/login").0, 405);
    assert_eq!(browser("GET", "/%ff").0, 404);
}

#[test]
fn b20_import_url() {
    let world = World::new();
    let import = |name: &str, body: Value| world.by(name, Ask::post("/api/v1/import", body));
    let addresses = ["ext::sh -c id", "-uid", "file:///etc", "http://169.254.169.254/"];
    for address in addresses {
        assert_eq!(import("ada", json!({ "repo": "new", "url": address })).status, 400, "{address}");
        assert_eq!(import("ann", json!({ "repo": "new", "url": address })).status, 403, "{address}");
    }
    for address in ["ssh://git@example.org/x.git", "git@example.org:x.git", "file:///etc"] {
        let refused = import("ada", json!({ "repo": "new", "url": address })).error();
        assert_eq!(refused["why"], "only https:// addresses can be imported", "{address}");
        assert!(refused["hint"].as_str().unwrap().contains("`towpath repo import .`"), "{refused}");
    }
    let with_login = import("ada", json!({ "repo": "new", "url": "https://ann:pw@example.org/x.git" }));
    assert_eq!((with_login.status, with_login.error()["class"].as_str()), (400, Some("invalid")));
    assert!(with_login.error()["hint"].as_str().unwrap().contains("`--authorization-stdin`"));
    assert_eq!(import("ann", json!({ "repo": "new", "path": "/etc" })).status, 403);
    assert_eq!(import("ada", json!({ "repo": "new" })).status, 400);
    // An admin who sits at the server reaches what the server does; nobody listens there.
    let inside = json!({ "repo": "new", "url": "https://127.0.0.1:1/x.git" });
    assert_eq!(import("ann", inside.clone()).status, 403);
    let tried = import("ada", inside);
    assert_eq!((tried.status, tried.error()["class"].as_str()), (503, Some("unavailable")));
    assert!(tried.error()["hint"].as_str().unwrap().starts_with("look at the address"), "{}", tried.json());
    assert_eq!(world.ada(Ask::get("/api/v1/repos/new")).status, 404);
}

#[test]
fn b20_an_admin_who_may_sit_anywhere_imports_nothing_of_the_servers_machine_and_is_told_the_way() {
    let world = World::behind("http://gate.example");
    let source = world.source("jobs: {}\n");
    let import = |body: Value| world.ada(Ask::post("/api/v1/import", body).header("host", "gate.example"));
    for from in [
        json!({ "repo": "new", "url": "https://127.0.0.1:1/x.git" }),
        json!({ "repo": "new", "url": "https://10.0.0.5/x.git" }),
        json!({ "repo": "new", "path": source.to_str().unwrap() }),
    ] {
        let refused = import(from);
        assert_eq!(refused.status, 403, "{}", refused.json());
        let hint = refused.error()["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains("`towpath repo create NAME`") && hint.contains("git push"), "{hint}");
    }
    // What it names is open to them.
    world.ada(Ask::post("/api/v1/repos", json!({ "repo": "new" })).header("host", "gate.example")).ok();
    let remote = format!("http://ada:{}@{}/new.git", world.token("ada"), world.address);
    let pushed = git(&source, &["-c", "http.extraHeader=Host: gate.example", "push", &remote, "main"]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
}

#[test]
fn an_alert_that_goes_on_is_shown_behind_any_number_that_do_not() {
    let world = World::new();
    let now = world.shared.engine.clock().now();
    let branch: BranchName = "main".parse().unwrap();
    let alert = move |number: usize, text: &str, cause| Alert {
        repo: "demo".parse().unwrap(),
        branch: branch.clone(),
        cause,
        text: format!("{text} {number}"),
        at: now,
    };
    let written = world.shared.store.writer().write(move |tx| {
        tx.add_alert(&alert(0, "goes on", None))?;
        let over = |number: &usize| Some(EffectKey::once("alert-deploy", format!("demo/main {number}"), 1));
        (1..=60).try_for_each(|number| tx.add_alert(&alert(number, "is over", over(&number))))
    });
    written.unwrap();
    let branch = world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok();
    let alerts = branch["alerts"].as_array().unwrap();
    assert_eq!((alerts.len(), &branch["alerts_more"]), (51, &json!(0)));
    assert_eq!((&alerts[50]["text"], &alerts[50]["current"]), (&json!("goes on 0"), &json!(true)));
}

/// As a server leaves it that dies after the folder of an import is there, and before its row.
#[test]
fn an_import_that_was_cut_off_is_told_of_with_its_place() {
    let world = World::new();
    let place = world.folder.path().join("data/repos/late.git");
    let source = world.folder.path().join("source");
    let cloned = git(&source, &["clone", "--quiet", "--bare", ".", place.to_str().unwrap()]);
    assert!(cloned.status.success());
    let import = || {
        world.ada(Ask::post("/api/v1/import", json!({ "repo": "late", "path": source.to_str().unwrap() })))
    };
    for refused in [import(), world.ada(Ask::post("/api/v1/repos", json!({ "repo": "late" })))] {
        assert_eq!(refused.status, 409, "{}", refused.json());
        let told = refused.error();
        assert!(told["why"].as_str().unwrap().contains("in its data folder at `repos/late.git`"), "{told}");
        assert!(told["hint"].as_str().unwrap().contains("have `repos/late.git` moved out"), "{told}");
    }
    std::fs::rename(&place, world.folder.path().join("moved.git")).unwrap();
    import().ok();
}

#[test]
fn the_servers_admins_count_on_every_repo_and_only_while_they_are() {
    let world = World::new();
    let seen = world.change(1);
    let approve = || world.by("stranger", act("approve", json!({ "revision": seen["revision"] })));
    assert_eq!(approve().status, 404);
    world.ada(Ask::put("/api/v1/users/stranger/admin", json!({ "admin": true }))).ok();
    approve().ok();
    let lacks = |world: &World| world.why(1).contains(&"approvals".to_owned());
    world.until(|world| !lacks(world));
    // G06: the approval of somebody who has lost the right counts no more.
    world.ada(Ask::put("/api/v1/users/stranger/admin", json!({ "admin": false }))).ok();
    world.until(lacks);
}

#[test]
fn secrets_go_in_and_never_come_out() {
    let world = World::new();
    let path = "/api/v1/repos/demo/secrets/token";
    assert_eq!(world.ada(Ask::put(path, json!({ "policy": { "level": "landed" } }))).status, 404);
    assert_eq!(world.ada(Ask::put(path, json!({ "value": "short" }))).status, 400);
    let set = world.ada(Ask::put(path, json!({ "value": "canary-123456" }))).ok();
    assert_eq!(
        set["said"],
        "set secret `token`: it is for every job that asks for it on every branch, after landing alone, as a file"
    );
    let policy = json!({ "level": "authorised", "branches": ["main"] });
    world.ada(Ask::put(path, json!({ "policy": policy }))).ok();
    let list = world.ada(Ask::get("/api/v1/repos/demo/secrets"));
    assert!(!String::from_utf8_lossy(&list.body).contains("canary"));
    let list = list.ok();
    assert_eq!(
        (list[0]["secret"].as_str(), &list[0]["policy"]["branches"]),
        (Some("token"), &json!(["main"]))
    );
    let audit = world.ada(Ask::get("/api/v1/audit/leaves"));
    assert!(!String::from_utf8_lossy(&audit.body).contains("canary"));
    world.ada(Ask::new("DELETE", path)).ok();
    assert_eq!(world.ada(Ask::new("DELETE", path)).status, 404);
}

#[test]
fn who_may_have_a_secret_is_said_and_what_nobody_could_be_is_refused_or_told() {
    let world = World::new();
    let path = "/api/v1/repos/demo/secrets/token";
    let put =
        |policy: Value| world.ada(Ask::put(path, json!({ "value": "canary-123456", "policy": policy })));
    for level in ["untrusted", "vouched"] {
        let told = put(json!({ "level": level })).error();
        assert_eq!(told["why"], format!("no secret is ever given to what is {level}"), "{told}");
    }
    let said = |policy: Value| put(policy).ok()["said"].as_str().unwrap().to_owned();
    let known = said(json!({ "jobs": ["unit"], "branches": ["main"] }));
    assert_eq!(
        known,
        "set secret `token`: it is for the job `unit` on the branch `main`, after landing alone, as a file"
    );
    let slips = said(json!({
        "level": "authorised", "jobs": ["unit", "publsh"], "branches": ["mian"], "environments": ["prod"], "variable": "TOKEN"
    }));
    assert_eq!(
        slips,
        "set secret `token`: it is for the jobs `unit`, `publsh` with the environment `prod` on the branch `mian`, after \
         landing and in what authorised people propose, as the variable `TOKEN`; by now no watched branch is called `mian`, no \
         watched branch has a job `publsh`, no job has the environment `prod`"
    );
}

#[test]
fn a_secrets_variable_is_one_that_a_job_can_have_and_its_value_fits_into_it() {
    let world = World::new();
    let path = "/api/v1/repos/demo/secrets/token";
    let put = |body: Value| world.ada(Ask::put(path, body));
    let in_variable = |name: &str| json!({ "level": "landed", "variable": name });
    for name in ["A=B", "", "1A", "A-B", "TOWPATH_RUN", "A\u{0}"] {
        let refused = put(json!({ "value": "canary-123456", "policy": in_variable(name) }));
        assert_eq!(refused.status, 400, "{name}");
        assert!(String::from_utf8_lossy(&refused.body).contains("the name of a variable"), "{name}");
    }
    // `/w==` is the byte 0xff, `AAAA` are zeros.
    for bytes in ["c2VjcmV0/w==", "c2VjcmV0AAAA"] {
        let refused = put(json!({ "value_base64": bytes, "policy": in_variable("TOKEN") }));
        assert_eq!(refused.status, 400, "{bytes}");
        put(json!({ "value_base64": bytes })).ok();
        assert_eq!(put(json!({ "policy": in_variable("TOKEN") })).status, 400, "the value was set before");
    }
    put(json!({ "value": "canary-123456", "policy": in_variable("TOKEN") })).ok();
    assert_eq!(put(json!({ "value_base64": "c2VjcmV0/w==" })).status, 400, "the policy was set before");
}

#[test]
fn settings_are_read_and_set_and_a_gate_is_never_taken_away() {
    let world = World::new();
    let path = "/api/v1/repos/demo/settings";
    let mut settings = world.ada(Ask::get(path)).ok();
    let slip = json!({ "branches": { "main": {}, "featur": {} }, "default_branch": "main" });
    let told = world.ada(Ask::put(path, slip)).error();
    let hint = told["hint"].as_str().unwrap();
    let says =
        "did you mean `feature`? To watch a new branch `featur`, push it first, and it is watched for ever";
    assert!(
        hint.starts_with(says) && told["why"].as_str().unwrap().contains("`featur` is no branch"),
        "{told}"
    );
    settings["branches"]["release"] = json!({ "approvals": 2 });
    let refused = world.ada(Ask::put(path, settings.clone()));
    assert_eq!(refused.status, 400, "what is not there is a slip that could not be taken back");
    assert!(String::from_utf8_lossy(&refused.body).contains("git push towpath HEAD:refs/heads/release"));
    let repository = world.folder.path().join("data/repos/demo.git");
    assert!(git(&repository, &["branch", "release", "main"]).status.success());
    world.ada(Ask::put(path, settings.clone())).ok();
    world.until(|world| world.ada(Ask::get("/api/v1/repos/demo/branches/release")).status == 200);
    let none = json!({ "branches": {}, "default_branch": "main" });
    assert_eq!(world.ada(Ask::put(path, none)).status, 400);
    let fewer = json!({ "branches": { "main": {} }, "default_branch": "main" });
    assert_eq!(world.ada(Ask::put(path, fewer)).status, 409);
    settings["branches"]["main"] = json!({ "poll": 1 });
    assert_eq!(world.ada(Ask::put(path, settings)).status, 400);
}

#[test]
fn a_label_is_not_renamed_under_a_change_that_has_it() {
    let world = World::new();
    let path = "/api/v1/repos/demo/settings";
    let act = |verb: &str, body: Value| {
        world.ada(Ask::post(&format!("/api/v1/repos/demo/changes/1/{verb}"), body)).ok()
    };
    let rename = |key: &str, new: &str| {
        let mut settings = world.ada(Ask::get(path)).ok();
        settings["branches"]["main"]["labels"][key] = json!(new);
        world.ada(Ask::put(path, settings))
    };
    act("label", json!({ "add": ["WIP", "DO_NOT_MERGE"] }));
    for (key, old) in [("wip", "WIP"), ("never", "DO_NOT_MERGE")] {
        let refused = rename(key, "not yet");
        let told = refused.error();
        assert_eq!((refused.status, told["class"].as_str()), (409, Some("conflict")));
        let why = format!(
            "change 1 has the label `{old}` of `main`, which would steer it no more: put `not yet` on it"
        );
        assert!(told["why"].as_str().unwrap().starts_with(&why), "{told}");
        assert!(told["hint"].as_str().unwrap().contains("towpath change list"), "{told}");
    }
    assert_eq!(rename("urgent", "rush").status, 200, "no change has it");
    // What the owner could not take off counts on a closed change, too, which the owner can open again.
    act("close", json!({}));
    assert_eq!(rename("wip", "later").status, 200);
    assert_eq!(rename("never", "blocked").status, 409);
    act("label", json!({ "add": ["blocked"] }));
    assert_eq!(rename("never", "blocked").status, 200);
    act("label", json!({ "remove": ["DO_NOT_MERGE"] }));
    act("reopen", json!({}));
    let labels = |world: &World| world.change(1)["labels"].clone();
    assert_eq!(labels(&world), json!(["WIP", "blocked"]));
    world.until(|world| world.why(1).iter().any(|reason| reason == "label"));
}

#[test]
fn the_server_says_how_it_is() {
    let world = World::new();
    assert_eq!(world.send(&Ask::get("/healthz")).body, b"ok\n");
    assert_eq!(world.send(&Ask::get("/readyz")).body, b"ready\n");
    let doctor = world.ada(Ask::get("/api/v1/doctor")).ok();
    assert!(doctor["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "{doctor}");
    let metrics = world.ada(Ask::get("/metrics"));
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("towpath_changes_open{repo=\"demo\",branch=\"main\"} 1\n"), "{text}");
    assert_eq!(world.ada(Ask::get("/api/v1/audit/checkpoint")).status, 200);
    let me = world.by("rae", Ask::get("/api/v1/me")).ok();
    assert_eq!((me["user"].as_str(), &me["repos"]), (Some("rae"), &json!({ "demo": "reader" })));
}

#[test]
fn a_followed_stream_gives_its_place_back() {
    let world = World::new();
    let (head, stream) = Ask::get("/api/v1/events").token(world.token("ann")).open(world.address);
    assert_eq!((head.status, world.edge.streams.count()), (200, 1));
    drop(stream);
    // The server sees a reader that is gone when it next has something to say.
    world.by("ann", Ask::post("/api/v1/repos/demo/branches/main/ring", json!({}))).ok();
    wait_for("the stream's place is free", || world.edge.streams.count() == 0);
}

#[test]
fn a_branch_shows_as_many_slots_as_there_are() {
    let world = World::with_jobs();
    // What the change of this world has to run takes the slot at first.
    wait_for("nothing holds a slot or waits for one", || {
        let pool = &world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok()["pool"];
        (&pool["held"], &pool["slots"], &pool["ready"]) == (&json!(0), &json!(1), &json!(0))
    });
    let metrics = world.ada(Ask::get("/metrics"));
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(text.contains("\ntowpath_pool_slots 1\n"), "{text}");
}
