//! Group G: what lands is what somebody with the right looked at, on the branch where it was looked at.

use serde_json::{Value, json};

use super::definitions::land;
use super::fort::{Fort, plain_git};
use crate::support::has_sandbox;

fn approval_of(change: &Value) -> Value {
    json!({
        "revision": change["revision"], "target": change["target"], "message": change["message"],
        "definition": change["definition"],
    })
}

fn lacks_approval(fort: &Fort, number: u64) {
    assert_eq!(fort.tested(number), "passed");
    let lacks = |change: &Value| change["gate"]["reasons"].to_string().contains("\"approvals\"");
    fort.until_change(number, "lacks an approval", lacks);
    assert_eq!(fort.change(number)["state"], "open");
}

fn g01_approve_then_push(fort: &Fort) {
    let (outsider, number) = fort.push("outsider", "g01", &[("g01", "fine\n")]);
    let seen = fort.change(number);
    outsider.write("g01", "evil\n");
    outsider.commit("Between the look and the click");
    assert_eq!(outsider.propose("g01"), number);
    for verb in ["approve", "vouch"] {
        let mut body = approval_of(&seen);
        if verb == "vouch" {
            body = json!({ "revision": seen["revision"], "why": "read it" });
        }
        // The gate may not have read the push yet when it is asked to vouch: then it vouches for what no longer counts.
        let late = fort.act("mia", number, verb, &body);
        let is_void = verb == "vouch" && late.status == 200;
        assert!(late.status == 409 || is_void, "{verb}: {}", late.text());
    }
    assert_eq!(fort.change(number)["reviews"], json!([]));
    let moved = |change: &Value| change["gate"]["revision"] == *outsider.head();
    let change = fort.until_change(number, "is read again", moved);
    assert_eq!(change["gate"]["level"], "untrusted");
}

fn g02_self_approve(fort: &Fort) {
    let (_, own) = fort.push("ann", "g02", &[("g02", "x\n")]);
    assert_eq!(fort.act("ann", own, "approve", &approval_of(&fort.change(own))).status, 403);
    // A maintainer's own upload, and an upload onto somebody else's change: neither approver counts.
    let (max, others) = fort.push("ben", "g02-others", &[("g02-others", "x\n")]);
    lacks_approval(fort, others);
    let clone = fort.clone_of("max");
    clone.run(&["fetch", "--quiet", max.folder.to_str().unwrap(), "HEAD"]);
    clone.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    clone.write("g02-more", "x\n");
    clone.commit("max adds to it");
    clone.push(&["-o", &format!("change={others}"), "HEAD:refs/heads/g02-others"]).unwrap();
    let moved =
        |change: &Value| change["revision"] == *clone.head() && change["gate"]["revision"] == *clone.head();
    fort.until_change(others, "has the new revision", moved);
    assert_eq!(fort.act("max", others, "approve", &approval_of(&fort.change(others))).status, 403);
    // Nor does ann's, who by now is a maintainer too.
    fort.put("/repos/web/people/ann", &json!({ "role": "maintainer", "authorised": true }));
    assert_eq!(fort.act("ann", own, "approve", &approval_of(&fort.change(own))).status, 403);
    fort.put("/repos/web/people/ann", &json!({ "role": "author", "authorised": true }));
    lacks_approval(fort, own);
    lacks_approval(fort, others);
    // Nor that of who uploaded what others opened, or put a commit on.
    let mia = fort.clone_of("mia");
    mia.write("g02-big", "x\n");
    mia.commit("A big one");
    mia.push(&["HEAD:refs/heads/g02-big"]).unwrap();
    let open = |name: &str| fort.ask(name, "POST", "/repos/web/changes", &json!({ "source": "g02-big" }));
    assert_eq!(open("ann").status, 403);
    let opened = open("max").ok()["change"].as_u64().unwrap();
    let ann = fort.clone_of("ann");
    ann.run(&["fetch", "--quiet", mia.folder.to_str().unwrap(), "HEAD"]);
    ann.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    ann.commit("A small one");
    let on_it = ann.propose("g02-small");
    for number in [opened, on_it] {
        assert_eq!(fort.act("mia", number, "approve", &approval_of(&fort.change(number))).status, 403);
        lacks_approval(fort, number);
    }
    for (name, number) in [("ann", own), ("ben", others), ("max", opened), ("ann", on_it)] {
        fort.act(name, number, "close", &json!({})).ok();
    }
}

fn g03_retarget_after_approval(fort: &Fort) {
    let tip = fort.main();
    fort.in_bare(&["update-ref", "refs/heads/release", &tip]);
    let mut settings = fort.get("/repos/web/settings");
    settings["branches"]["release"] = json!({});
    fort.put("/repos/web/settings", &settings);
    // Frozen, so that the approval does not land it at once.
    fort.ask("mia", "POST", "/repos/web/branches/main/freeze", &json!({ "why": "g03" })).ok();
    let (_, number) = fort.push("ann", "g03", &[("g03", "x\n")]);
    assert_eq!(fort.approve("mia", number).status, 200);
    let approved = |change: &Value| change["gate"]["reasons"].to_string().contains("frozen");
    fort.until_change(number, "is only frozen", approved);
    fort.act("ann", number, "retarget", &json!({ "target": "release" })).ok();
    lacks_approval(fort, number);
    assert_eq!(fort.change(number)["reviews"][0]["current"], false);
    fort.act("ann", number, "close", &json!({})).ok();
    fort.ask("mia", "POST", "/repos/web/branches/main/unfreeze", &json!({})).ok();
    assert_eq!(fort.in_bare(&["rev-parse", "refs/heads/release"]), tip);
}

/// What a maintainer has against a revision goes with it to another branch.
fn g03_retarget_after_objection(fort: &Fort) {
    let (_, number) = fort.push("ann", "g03-objection", &[("g03-objection", "x\n")]);
    fort.act("mia", number, "request-changes", &approval_of(&fort.change(number))).ok();
    fort.act("mia", number, "hold", &json!({ "why": "a backdoor?" })).ok();
    for (verb, body) in [("hold", json!({ "why": "mine" })), ("retarget", json!({ "target": "release" }))] {
        let refused = fort.act("ann", number, verb, &body);
        assert_eq!(refused.status, 409, "{verb}");
        let said = String::from_utf8_lossy(&refused.body);
        assert!(said.contains("mia holds change"), "{verb}: {said}");
    }
    fort.act("mia", number, "release", &json!({})).ok();
    fort.act("ann", number, "hold", &json!({ "why": "mine" })).ok();
    assert_eq!(fort.act("ann", number, "retarget", &json!({ "target": "main" })).status, 409);
    fort.act("ann", number, "retarget", &json!({ "target": "release" })).ok();
    let objected = |change: &Value| change["gate"]["reasons"].to_string().contains("asked for changes");
    fort.until_change(number, "is objected to", objected);
    assert_eq!(fort.change(number)["gate"]["hold"]["by"], "ann");
    assert_eq!(fort.change(number)["reviews"][0]["current"], true);
    fort.act("ann", number, "close", &json!({})).ok();
}

/// Approved while it is tested; then the approver is demoted, and only then the tests pass.
fn g06_revoked_approver(fort: &Fort) {
    let (_, number) = fort.push("ann", "g06", &[("g06", "x\n")]);
    fort.act("mia", number, "hold", &json!({ "why": "g06" })).ok();
    assert_eq!(fort.approve("max", number).status, 200);
    fort.put("/repos/web/people/max", &json!({ "role": "author", "authorised": true }));
    fort.act("mia", number, "release", &json!({})).ok();
    lacks_approval(fort, number);
    // The control: with the right, the same approval counts again.
    fort.put("/repos/web/people/max", &json!({ "role": "maintainer", "authorised": true }));
    fort.landed(number);
}

fn g08_label_by_stranger(fort: &Fort) {
    let (_, number) = fort.push("ann", "g08", &[("g08", "x\n")]);
    fort.act("mia", number, "label", &json!({ "add": ["WIP"] })).ok();
    for (name, status) in [("outsider", 403), ("ben", 403), ("stranger", 404), ("nobody", 401)] {
        for label in ["prio:high", "rerun all tests", "do-not-test", "WIP"] {
            for edit in [json!({ "add": [label] }), json!({ "remove": [label] })] {
                assert_eq!(fort.act(name, number, "label", &edit).status, status, "{name} {edit}");
            }
        }
    }
    // Her own change, but not her right.
    assert_eq!(fort.act("ann", number, "label", &json!({ "add": ["prio:high"] })).status, 403);
    let outsider = fort.clone_of("outsider");
    outsider.write("g08-push", "x\n");
    outsider.commit("By a push");
    let said = outsider.push(&["-o", "change", "-o", "label=prio:high", "HEAD:refs/heads/g08-push"]);
    assert!(said.is_err(), "{said:?}");
    assert_eq!(fort.change(number)["labels"], json!(["WIP"]));
    fort.act("ann", number, "close", &json!({})).ok();
}

/// She cannot take a maintainer's label off, and moves her change to a branch that calls it otherwise.
fn g08_retarget_past_a_label(fort: &Fort) {
    let mut settings = fort.get("/repos/web/settings");
    settings["branches"]["release"]["labels"]["never"] = json!("frozen");
    fort.put("/repos/web/settings", &settings);
    let (_, number) = fort.push("ann", "g08-moved", &[("g08-moved", "x\n")]);
    fort.act("mia", number, "label", &json!({ "add": ["DO_NOT_MERGE"] })).ok();
    assert_eq!(fort.act("ann", number, "label", &json!({ "remove": ["DO_NOT_MERGE"] })).status, 403);
    let tip = fort.in_bare(&["rev-parse", "refs/heads/release"]);
    let said = fort.act("ann", number, "retarget", &json!({ "target": "release" })).ok();
    assert!(said["said"].to_string().contains("with these labels: frozen"), "{said}");
    assert_eq!(fort.change(number)["labels"], json!(["frozen"]));
    assert_eq!(fort.act("ann", number, "label", &json!({ "remove": ["frozen"] })).status, 403);
    // Somebody who knows nothing of it approves it there.
    assert_eq!(fort.approve("max", number).status, 200);
    assert_eq!(fort.tested(number), "passed");
    fort.until_change(number, "has only its label", |change| {
        let reasons = change["gate"]["reasons"].as_array().unwrap();
        reasons.len() == 1 && reasons[0].to_string().contains("frozen")
    });
    assert_eq!(fort.in_bare(&["rev-parse", "refs/heads/release"]), tip);
    fort.act("ann", number, "close", &json!({})).ok();
}

/// A commit that is written straight into the repository while a candidate is tested.
fn g09_foreign_push(fort: &Fort) {
    let wait = "echo begun; n=0; while test $n -lt 600; do n=$((n + 1)); sleep 0.1; done";
    let (_, number) = fort.push("ann", "g09", &[("attack", wait)]);
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.until("the candidate is tested", || {
        let run = fort.runs_of(number).first()?["run"].as_str()?.to_owned();
        fort.log_of(&run, "unit").contains("begun").then_some(())
    });
    let before = fort.main();
    let clone = fort.clone_of("mia");
    clone.write("foreign", "x\n");
    let foreign = clone.commit("Written past the program");
    let fetch =
        plain_git(&fort.bare(), &["fetch", "--quiet", clone.folder.to_str().unwrap(), "HEAD"]).output();
    assert!(fetch.unwrap().status.success());
    fort.in_bare(&["update-ref", "refs/heads/main", &foreign, &before]);
    fort.foreign.lock().unwrap().push(foreign.clone());
    fort.ask("ann", "POST", "/repos/web/branches/main/ring", &json!({})).ok();
    // It is said, and it stays.
    let branch = fort.until("the foreign push is seen", || {
        let branch = fort.get("/repos/web/branches/main");
        (branch["foreign"] == *foreign).then_some(branch)
    });
    assert_eq!(branch["tip"]["commit"], *foreign);
    let leaves = fort.get("/audit/leaves?count=1000").to_string();
    assert!(leaves.contains(&foreign), "there is a leaf of it");
    // The change is tested anew on top of it; an admin says that it may stay, and things go on.
    let accept =
        |name: &str| fort.ask(name, "POST", "/repos/web/branches/main/accept", &json!({ "tip": foreign }));
    assert_eq!(accept("ann").status, 403);
    assert_eq!(accept("ada").status, 200);
    assert_eq!(fort.main(), foreign, "not overwritten");
    fort.act("ann", number, "close", &json!({})).ok();
    let landed = land(fort, "g09-after", &[("g09-after", "x\n")]);
    assert_eq!(
        fort.in_bare(&["rev-parse", &format!("{landed}^1")]),
        foreign,
        "the next candidate is on top of it"
    );
}

#[test]
fn g01_g02_g03_g06_g08_g09_only_what_was_looked_at_lands() {
    if !has_sandbox("g01_g02_g03_g06_g08_g09_only_what_was_looked_at_lands") {
        return;
    }
    let fort = Fort::new();
    fort.hold("G01 approve-then-push", g01_approve_then_push);
    fort.hold("G02 self-approve", g02_self_approve);
    fort.hold("G03 retarget-after-approval", g03_retarget_after_approval);
    fort.hold("G03 retarget-after-objection", g03_retarget_after_objection);
    fort.hold("G06 revoked-approver", g06_revoked_approver);
    fort.hold("G08 label-by-stranger", g08_label_by_stranger);
    fort.hold("G08 retarget-past-a-label", g08_retarget_past_a_label);
    fort.hold("G09 foreign-push", g09_foreign_push);
    fort.end();
}
