//! Group A, levels of trust, with K05: who uploaded decides, and nothing that a pusher writes.

use serde_json::{Value, json};

use super::fort::{Clone, Fort, PIPELINE};
use super::wire::Ask;
use crate::support::has_sandbox;

fn is_untrusted(fort: &Fort, number: u64) {
    let is_seen = |change: &Value| {
        change["gate"]["level"].is_string() && change["gate"]["revision"] == change["revision"]
    };
    let change = fort.until_change(number, "is seen by its gate as it is", is_seen);
    assert_eq!(change["gate"]["level"], "untrusted", "{change}");
    // One reason why nothing runs, and what a landing lacks besides.
    assert_eq!(fort.why(number), ["untrusted", "approvals"]);
    assert_eq!(fort.runs_of(number), Vec::<Value>::new(), "nothing runs");
}

fn vouch(fort: &Fort, name: &str, number: u64, revision: &str) -> u16 {
    fort.act(name, number, "vouch", &json!({ "revision": revision, "why": "read it" })).status
}

fn a14_hijack_change_id(fort: &Fort) {
    let id = format!("Change-Id: I{}", "a".repeat(40));
    let ann = fort.clone_of("ann");
    ann.write("a14", "a\n");
    ann.commit(&format!("Add a\n\n{id}"));
    let said = ann.push(&["HEAD:refs/for/main"]).unwrap();
    let number: u64 = said.split_once("change ").unwrap().1.split(':').next().unwrap().parse().unwrap();
    ann.write("a14-topic", "a\n");
    ann.commit("A topic");
    let topic = ann.propose("a14-topic");
    let before = (fort.change(number)["revisions"].clone(), fort.change(topic)["revisions"].clone());

    let outsider = fort.clone_of("outsider");
    outsider.write("evil", "evil\n");
    let evil = outsider.commit(&format!("Add a\n\n{id}"));
    let as_anns = format!("change={number}");
    let refused = outsider.push(&["-o", &as_anns, "HEAD:refs/for/main"]).unwrap_err();
    assert!(refused.contains("only ann or a maintainer"), "{refused}");
    let as_theirs = format!("change={topic}");
    assert!(
        outsider.push(&["-o", &as_theirs, "HEAD:refs/heads/a14-topic"]).unwrap_err().contains("is ann's")
    );
    for name in [format!("refs/changes/{number}/2"), format!("refs/changes/{number}/meta")] {
        assert!(outsider.push(&[&format!("HEAD:{name}")]).is_err(), "{name}");
    }
    assert!(!fort.has_object(&evil), "what was refused is not kept");
    // The same Change-Id is a change of the outsider's own, of which nothing runs, and so is the same branch name.
    let said = outsider.push(&["HEAD:refs/for/main"]).unwrap();
    let by_id: u64 = said.split_once("change ").unwrap().1.split(':').next().unwrap().parse().unwrap();
    assert_ne!(by_id, number);
    is_untrusted(fort, by_id);
    outsider.commit("Mine");
    let own = outsider.propose("a14-topic");
    assert_ne!(own, topic);
    is_untrusted(fort, own);
    assert_eq!((fort.change(number)["revisions"].clone(), fort.change(topic)["revisions"].clone()), before);
}

fn a16_git_author_spoof(fort: &Fort) {
    let outsider = fort.clone_of("outsider");
    outsider.write("a16", "x\n");
    outsider.run(&["add", "."]);
    let spoof = ["-c", "user.name=ann", "-c", "user.email=ann@example.org", "commit", "--quiet"];
    outsider.run(&[&spoof[..], &["--author=ann <ann@example.org>", "-m", "Mine"]].concat());
    let number = outsider.propose("a16");
    is_untrusted(fort, number);
    let change = fort.change(number);
    assert_eq!(
        (change["owner"].clone(), change["revisions"][0]["uploader"].clone()),
        (json!("outsider"), json!("outsider"))
    );
    // The page shows who uploaded it, beside what the commit says of its author.
    let page = Ask::new("GET", &format!("/web/changes/{number}")).with("cookie", &fort.session);
    let page = page.send(&fort.host, &fort.heard).text();
    assert!(page.contains("outsider") && page.contains("ann"), "{page}");
    // Nor is it of who opens the outsider's branch.
    outsider.push(&["HEAD:refs/heads/a16-bait"]).unwrap();
    let open = |name: &str, commit: &str| {
        let body = json!({ "source": "a16-bait", "commit": commit });
        fort.ask(name, "POST", "/repos/web/changes", &body)
    };
    assert_eq!(open("ann", &outsider.head()).status, 403);
    assert_eq!(open("mia", &fort.main()).status, 409);
    let opened = open("mia", &outsider.head()).ok()["change"].as_u64().unwrap();
    is_untrusted(fort, opened);
    assert_eq!(fort.change(opened)["revisions"][0]["uploader"], "outsider");
}

fn a17_not_vouched(fort: &Fort) {
    let (outsider, number) = fort.push("outsider", "a17", &[("attack", "echo it runs\n")]);
    is_untrusted(fort, number);
    let again = fort.act("outsider", number, "retry", &json!({ "revision": outsider.head() }));
    assert!(again.status >= 400, "{}", again.text());
    // The label is hers to put on her own change, and changes nothing.
    let _ = outsider.push(&["-o", "change", "-o", "label=rerun all tests", "HEAD:refs/heads/a17"]);
    fort.act("outsider", number, "label", &json!({ "add": ["rerun all tests"] }));
    assert_eq!(vouch(fort, "outsider", number, &outsider.head()), 403);
    assert_eq!(vouch(fort, "ann", number, &outsider.head()), 403);
    for name in ["ann", "mia"] {
        fort.ask(name, "POST", "/repos/web/branches/main/ring", &json!({})).ok();
    }
    is_untrusted(fort, number);
}

/// A job that says that it began and goes on until it is stopped.
const WAITS: &str = "echo begun; sleep 600\n";

fn until_begun(fort: &Fort, number: u64) -> String {
    fort.until("the job runs", || {
        let run = fort.runs_of(number).first()?["run"].as_str().unwrap().to_owned();
        fort.log_of(&run, "unit").contains("begun").then_some(run)
    })
}

fn a18_vouched_then_moved(fort: &Fort) {
    let (outsider, number) = fort.push("outsider", "a18", &[("attack", WAITS)]);
    let first = outsider.head();
    is_untrusted(fort, number);
    let move_on = |clone: &Clone, text: &str| {
        clone.write("attack", text);
        clone.commit("moved on");
        clone.propose("a18")
    };
    // Before the run starts: a word for the old revision is refused.
    move_on(&outsider, "echo second begun\n");
    is_untrusted(fort, number);
    assert_eq!(vouch(fort, "mia", number, &first), 409);
    is_untrusted(fort, number);
    // During it: the run ends, and the new revision does not run.
    move_on(&outsider, WAITS);
    let vouched = outsider.head();
    is_untrusted(fort, number);
    assert_eq!(vouch(fort, "mia", number, &vouched), 200);
    let run = until_begun(fort, number);
    move_on(&outsider, "echo third begun\n");
    let over = fort.until("the vouched run ends", || {
        let run = fort.run(&json!(run));
        run["outcome"].is_string().then_some(run)
    });
    assert_eq!(over["outcome"], "cancelled", "{over}");
    let level = |change: &Value| change["gate"]["level"] == "untrusted";
    let change = fort.until_change(number, "is untrusted again", level);
    assert_eq!((change["gate"]["tests"].clone(), fort.runs_of(number).len()), (json!("untested"), 1));
}

fn a20_stacked_on_untrusted(fort: &Fort) {
    let (outsider, below) = fort.push("outsider", "a20-below", &[("attack", "echo theirs\n")]);
    is_untrusted(fort, below);
    let ann = fort.clone_of("ann");
    ann.run(&["fetch", "--quiet", outsider.folder.to_str().unwrap(), "HEAD"]);
    ann.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    // The very commit, which the gate has seen in the outsider's change.
    is_untrusted(fort, ann.propose("a20-same"));
    ann.write("mine", "mine\n");
    ann.commit("Mine, on theirs");
    is_untrusted(fort, ann.propose("a20"));
}

/// What a maintainer vouched for opens nothing of the sandbox that the target's definition keeps shut.
fn a18_vouched_opens_the_sandbox(fort: &Fort) {
    let grab =
        |key: &str| format!("{PIPELINE}  grab: {{ run: 'echo grabbed', on: [change], {key}: true }}\n");
    for key in ["network", "user_namespaces"] {
        let branch = format!("a18-{key}");
        let (outsider, number) = fort.push("outsider", &branch, &[("towpath.yaml", &grab(key))]);
        is_untrusted(fort, number);
        assert_eq!(vouch(fort, "mia", number, &outsider.head()), 200);
        fort.tested(number);
        let job = fort.job(number, "grab");
        let why = job["why"].as_str().unwrap();
        assert!(why.contains(&format!("`{key}: true` is not given to job `grab`")), "{job}");
        assert_eq!(job["outcome"], "failed");
        let change = fort.change(number);
        assert_eq!(change["gate"]["vouch"]["definition"], change["definition"], "{change}");
        assert!(change["definition"].is_string(), "{change}");
        // A word for another definition than the one that would land is none.
        let other = json!({ "revision": outsider.head(), "why": "read it", "definition": "0".repeat(64) });
        assert_eq!(fort.act("mia", number, "vouch", &other).status, 409);
        fort.act("outsider", number, "close", &json!({})).ok();
    }
}

/// Nor does an approval whose giver was shown no definition, as none is known of what nobody trusts.
fn a18_approved_before_it_was_shown(fort: &Fort) {
    let grab = format!("{PIPELINE}  grab: {{ run: 'echo grabbed', on: [change], network: true }}\n");
    let (outsider, number) = fort.push("outsider", "a18-unseen", &[("towpath.yaml", &grab)]);
    is_untrusted(fort, number);
    assert_eq!(fort.act("mia", number, "approve", &json!({ "revision": outsider.head() })).status, 200);
    fort.tested(number);
    assert_eq!(fort.run(&fort.runs_of(number)[0]["run"])["level"], "vouched");
    let job = fort.job(number, "grab");
    assert!(job["why"].as_str().unwrap().contains("no maintainer has approved this definition"), "{job}");
    assert_eq!(fort.why(number), ["definition_approval"]);
    fort.act("outsider", number, "close", &json!({})).ok();
}

/// The control: what a maintainer vouched for runs with nothing to take, reports, and lands once it is approved.
fn k05_honest_untrusted(fort: &Fort) {
    let look = "ls -A ~; cat /towpath/secrets/* 2> /dev/null || echo no secret\n";
    let (outsider, number) = fort.push("outsider", "k05", &[("attack", look), ("theirs", "x\n")]);
    is_untrusted(fort, number);
    assert_eq!(vouch(fort, "mia", number, &outsider.head()), 200);
    assert_eq!(fort.tested(number), "passed");
    assert_eq!(fort.log(number, "unit"), "no secret\n");
    assert_eq!(fort.run(&fort.runs_of(number)[0]["run"])["level"], "vouched");
    assert_eq!(fort.why(number), ["approvals"]);
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.landed(number);
    // For the changes after it.
    let ann = fort.clone_of("ann");
    ann.run(&["rm", "--quiet", "attack"]);
    ann.commit("Clear up");
    let number = ann.propose("k05-clear");
    assert_eq!(fort.approve("mia", number).status, 200);
    fort.landed(number);
}

#[test]
fn a14_a16_a17_a18_a20_k05_only_the_uploader_and_a_maintainers_word_count() {
    if !has_sandbox("a14_a16_a17_a18_a20_k05_only_the_uploader_and_a_maintainers_word_count") {
        return;
    }
    let fort = Fort::new();
    fort.hold("A14 hijack-change-id", a14_hijack_change_id);
    fort.hold("A16 git-author-spoof", a16_git_author_spoof);
    fort.hold("A17 not-vouched", a17_not_vouched);
    fort.hold("A18 vouched-then-moved", a18_vouched_then_moved);
    fort.hold("A18 vouched-opens-the-sandbox", a18_vouched_opens_the_sandbox);
    fort.hold("A18 approved-before-it-was-shown", a18_approved_before_it_was_shown);
    fort.hold("A20 stacked-on-untrusted", a20_stacked_on_untrusted);
    fort.hold("K05 honest-untrusted", k05_honest_untrusted);
    fort.end();
}
