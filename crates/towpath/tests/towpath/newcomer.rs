//! What somebody who meets Towpath for the first time does, and what the program answers: enough to go on by oneself.

use std::io::Write;
use std::process::Stdio;

use crate::served::{Served, until_landed};
use crate::support::{Ended, TOWPATH, World, ended, wait_until};

const PLAIN: [&str; 2] = ["--sandbox", "none"];
const PIPELINE: &str = "jobs:\n  unit: { run: 'true' }\n";

#[track_caller]
fn says(ended: &Ended, code: i32, said: &[&str]) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    for said in said {
        let all = format!("{}{}", ended.out, ended.err);
        assert!(all.contains(said), "`{said}` is not in {all}");
    }
}

/// A command line as a person pastes it.
fn pasted(world: &World, line: &str) -> Ended {
    let mut shell = world.command("sh");
    ended(shell.args(["-c", line]).output().unwrap())
}

fn push(served: &Served, arguments: &[&str]) -> Ended {
    let mut push = served.world.command("git");
    ended(push.args(["push", "towpath"]).args(arguments).output().unwrap())
}

#[test]
fn data_that_were_moved_away_from_their_keys_are_verified_with_the_key() {
    let world = World::with(&[]);
    let home = |name: &str| world.home().join(name).display().to_string();
    assert_eq!(world.towpath(&["init", "--data", &home("data")]).code, 0);
    let key = world.towpath(&["audit", "key", "--data", &home("data")]).out;
    std::fs::rename(home("data"), home("moved")).unwrap();
    let verify = |more: &[&str]| {
        world.towpath(&[&["audit", "verify", "--data", home("moved").as_str()], more].concat())
    };
    let said = format!("there is no key in `{}` to verify", home("moved-keys"));
    let alone = verify(&[]);
    says(&alone, 3, &[&said, "--keys FOLDER", "--key KEY"]);
    assert!(!alone.out.contains("finding"), "it is said once: {}", alone.out);
    says(&verify(&["--json"]), 3, &["\"exit\":3"]);
    says(&verify(&["--keys", &home("data-keys")]), 0, &["sound"]);
    says(&verify(&["--key", key.trim()]), 0, &["sound"]);
}

#[test]
fn a_second_server_at_the_same_address_loses_nobody_a_token() {
    let world = World::with(&[]);
    let home = |name: &str| world.home().join(name).display().to_string();
    let token = |name: &str| std::fs::read_to_string(home(&format!("{name}-keys/admin.token"))).unwrap();
    let init = |name: &str| world.towpath(&["init", "--data", &home(name)]);
    let first = init("one");
    assert_eq!((first.code, first.err.contains("another token")), (0, false), "{}", first.err);
    let second = init("two");
    let former = home(".config/towpath/former-1.token");
    let again = format!("`towpath token login http://127.0.0.1:7700 < {former}` takes it up again");
    says(&second, 0, &["your commands knew another token for http://127.0.0.1:7700", &again]);
    assert_eq!(std::fs::read_to_string(&former).unwrap(), token("one"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&former).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let remembered = std::fs::read_to_string(home(".config/towpath/servers.json")).unwrap();
    assert!(remembered.contains(token("two").trim()), "{remembered}");
    says(&init("three"), 0, &["former-2.token"]);
    assert_eq!(std::fs::read_to_string(home(".config/towpath/former-2.token")).unwrap(), token("two"));
}

#[test]
fn who_is_refused_leaves_no_folder_behind() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let home = |name: &str| served.world.home().join(name);
    std::os::unix::fs::symlink(home("data"), home("link")).unwrap();
    let link = home("link").display().to_string();
    let refused = served.world.towpath(&["serve", "--data", &link, "--listen", "127.0.0.1:0"]);
    says(&refused, 5, &["is in use by another server"]);
    let other = home("other").display().to_string();
    says(&served.world.towpath(&["init", "--data", &other, "--user", "A b"]), 2, &["a user's name has"]);
    let left = ["link-keys", "other", "other-keys"].map(|name| home(name).exists());
    assert_eq!(left, [false; 3]);
}

#[test]
fn wrong_words_are_answered_as_every_other_failure() {
    let world = World::with(&[]);
    let refused = world.towpath(&["runs", "--brnch", "main"]);
    says(
        &refused,
        2,
        &["error: unexpected argument '--brnch' found\n  why: ", "'--branch'", "\n hint: it is used as `"],
    );
    says(
        &world.towpath(&["change", "hold", "1"]),
        2,
        &["--why <WHY>", " hint: ", "`towpath change hold --help`"],
    );
    says(&world.towpath(&["change"]), 2, &["Usage: towpath change"]);
}

#[test]
fn a_conflict_is_mended_by_the_commands_of_its_hint() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE), ("file", "0\n")], &PLAIN, &[]);
    served.push("one", "file", "1\n");
    until_landed(&served.world, "1");
    served.push("two", "file", "2\n");
    let change = served.until("2", |change| change["gate"]["reasons"][0]["reason"] == "conflict");
    let hint = change["gate"]["reasons"][0]["hint"].as_str().unwrap().to_owned();
    let commands: Vec<&str> = hint.split('`').skip(1).step_by(2).collect();
    let [rebase, push] = commands[..] else { panic!("two commands: {hint}") };
    served.world.git(&["config", "user.name", "Ann"]);
    served.world.git(&["config", "user.email", "ann@example.org"]);
    assert_ne!(pasted(&served.world, rebase).code, 0, "it conflicts");
    served.world.write("file", "1 and 2\n");
    served.world.git(&["add", "file"]);
    says(&pasted(&served.world, "GIT_EDITOR=true git rebase --continue"), 0, &[]);
    says(&pasted(&served.world, push), 0, &["change 2: "]);
    until_landed(&served.world, "2");
}

#[test]
fn settings_are_set_in_part_and_a_lone_admin_hears_who_can_approve() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let settings =
        || -> serde_json::Value { serde_json::from_str(&served.ok(&["repo", "settings"]).out).unwrap() };
    served.world.write("whole.json", r#"{ "branches": { "main": { "poll_seconds": 77 } } }"#);
    served.ok(&["repo", "settings", "--set", "whole.json"]);
    served.world.write("part.json", r#"{ "branches": { "main": { "approvals": 1 } } }"#);
    served.ok(&["repo", "settings", "--set", "part.json"]);
    let main = settings()["branches"]["main"].clone();
    assert_eq!((&main["approvals"], &main["poll_seconds"]), (&1.into(), &77.into()));
    served.push("feature", "new", "x\n");
    served.until("1", |change| change["gate"]["reasons"][0]["reason"] == "approvals");
    let why = served.ok(&["change", "why", "1"]);
    let said = [
        "a maintainer who uploaded none of its commits can run `towpath change approve 1 --revision ",
        "`towpath repo grant USER maintainer`",
        "fewer `approvals` (`towpath repo settings`",
    ];
    says(&why, 0, &said);
    served.world.write("part.json", r#"{ "branches": { "main": { "approvals": 0 } } }"#);
    served.ok(&["repo", "settings", "--set", "part.json"]);
    until_landed(&served.world, "1");
}

#[test]
fn whoever_lets_a_second_person_in_hears_that_no_approval_is_asked_for() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let grant = |user: &str| {
        served.ok(&["user", "add", user]);
        served.ok(&["repo", "grant", user, "author"])
    };
    let told = grant("ben");
    says(&told, 0, &["ben is author on web", "note: changes for `main` land without an approval"]);
    // The note holds the part of the settings that asks for one.
    let part = &told.err[told.err.find('{').unwrap()..=told.err.rfind('}').unwrap()];
    assert!(!grant("cem").err.contains("note"), "it is said once");
    served.world.write("part.json", part);
    served.ok(&["repo", "settings", "--set", "part.json"]);
    let settings: serde_json::Value = serde_json::from_str(&served.ok(&["repo", "settings"]).out).unwrap();
    assert_eq!(settings["branches"]["main"]["approvals"], 1);
    served.ok(&["repo", "revoke", "ben"]);
    served.ok(&["repo", "revoke", "cem"]);
    assert!(!grant("dan").err.contains("note"), "approvals are asked for");
}

#[test]
fn a_lone_user_hears_of_approvals_that_a_file_asks_for_and_nobody_can_give() {
    let pipeline = format!("{PIPELINE}gate: {{ approvals: 1 }}\n");
    let served = Served::with_options(&[("towpath.yaml", &pipeline)], &PLAIN, &[]);
    served.world.git(&["remote", "rename", "towpath", "first"]);
    let strict = served.world.towpath(&["repo", "import", ".", "--name", "strict"]);
    let ways = ["asks for 1 approval, and you are the only user", "`towpath user add NAME`"];
    says(&strict, 0, &ways);
    assert!(!strict.err.contains("without an approval"), "{}", strict.err);
    served.world.git(&["remote", "rename", "towpath", "second"]);
    let wanted = served.world.towpath(&["repo", "import", ".", "--name", "wanted", "--approvals", "2"]);
    says(&wanted, 0, &["asks for 1 approval, which goes before the 2 of `--approvals`"]);
}

#[test]
fn whoever_brings_a_repo_that_nobody_else_can_approve_in_hears_so() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    served.ok(&["user", "add", "ben"]);
    let import = |name: &str, more: &[&str]| {
        served.world.git(&["remote", "remove", "towpath"]);
        served.world.towpath(&[&["repo", "import", ".", "--name", name], more].concat())
    };
    let first = import("first", &[]);
    says(
        &first,
        0,
        &["note: a change takes 1 approval", "`towpath repo grant NAME maintainer --repo first`"],
    );
    let settings = served.ok(&["repo", "settings", "--repo", "first"]).out;
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    assert_eq!(settings["branches"]["main"]["approvals"], 1);
    assert!(!import("second", &["--approvals", "1"]).err.contains("note: a change takes"), "it was wanted");
    served.ok(&["user", "add", "amy", "--admin"]);
    assert!(!import("third", &[]).err.contains("note: a change takes"), "an admin can");
}

#[test]
fn a_push_is_answered_with_what_its_own_options_made_of_the_change() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    served.world.git(&["switch", "--quiet", "--create", "feature"]);
    served.world.write("new", "x\n");
    served.world.git(&["add", "--all"]);
    served.world.git(&["commit", "--quiet", "--message", "a file"]);
    let draft = push(&served, &["HEAD:refs/for/main", "-o", "draft", "-o", "label=DO_NOT_MRGE"]);
    says(
        &draft,
        0,
        &["waits for: it is a draft", "the label `DO_NOT_MRGE` does nothing; `DO_NOT_MERGE` is the one that"],
    );
    let ready = push(&served, &["HEAD:refs/for/main", "-o", "change=1", "-o", "ready"]);
    says(&ready, 0, &["change 1: http://"]);
    assert!(!ready.err.contains("draft"), "{}", ready.err);
    until_landed(&served.world, "1");
}

#[test]
fn a_label_that_is_almost_another_is_told_of() {
    let pipeline = "jobs:\n  unit: { run: 'sleep 31803' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    served.push("feature", "new", "x\n");
    let near = served.ok(&["change", "label", "1", "DO_NOT_MRGE"]);
    says(
        &near,
        0,
        &["labels are now: DO_NOT_MRGE", "`DO_NOT_MERGE` is the one that keeps a change from landing"],
    );
    let own = served.ok(&["change", "label", "1", "documentation", "--remove", "DO_NOT_MRGE"]);
    assert_eq!(own.out, "labels are now: documentation\n");
    served.world.git(&["switch", "--quiet", "--create", "second"]);
    served.world.git(&["commit", "--quiet", "--allow-empty", "--message", "mine"]);
    says(&push(&served, &["second"]), 0, &[]);
    let opened = served.ok(&["change", "open", "second", "--label", "wipp", "--draft"]);
    says(&opened, 0, &["change 2: ", "note: the label `wipp` does nothing; `WIP`"]);
    served.ok(&["change", "close", "1"]);
}

#[test]
fn an_import_of_a_branch_that_is_not_there_says_what_to_do() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let none = served.world.towpath(&["repo", "import", ".", "--name", "other", "--branch", "nope"]);
    says(&none, 3, &["this clone has no branch `nope`"]);
    let empty = served.world.home().join("empty");
    let git = ended(served.world.command("git").args(["init", "--quiet"]).arg(&empty).output().unwrap());
    assert_eq!(git.code, 0, "{}", git.err);
    let empty = empty.display().to_string();
    for more in [&[][..], &["--branch", "main"]] {
        let refused = served.world.towpath(&[&["repo", "import", empty.as_str()], more].concat());
        says(&refused, 2, &["nothing to import yet", "commit something first", "`towpath repo create NAME`"]);
    }
    let again = served.world.towpath(&["repo", "import", ".", "--name", "web"]);
    says(&again, 5, &["why: repo `web` exists already", "hint: `towpath repo connect web`"]);
}

#[test]
fn an_import_of_a_shallow_clone_says_how_it_becomes_a_whole_one() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    served.world.git(&["commit", "--quiet", "--allow-empty", "--message=second"]);
    let shallow = served.world.home().join("shallow").display().to_string();
    let from = format!("file://{}", served.world.work().display());
    served.world.git(&["clone", "--quiet", "--depth=1", &from, &shallow]);
    let refused = served.world.towpath(&["repo", "import", &shallow]);
    says(&refused, 2, &["a shallow clone cannot be imported", "hint: `git fetch --unshallow`"]);
}

#[test]
fn an_import_without_a_pipeline_says_so() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let import = |name: &str| {
        served.world.git(&["remote", "remove", "towpath"]);
        served.ok(&["repo", "import", ".", "--name", name])
    };
    assert!(!import("fine").err.contains("changes wait"));
    served.world.git(&["rm", "--quiet", "towpath.yaml"]);
    served.world.write("README", "x\n");
    served.world.git(&["add", "--all"]);
    served.world.git(&["commit", "--quiet", "--message", "no pipeline"]);
    says(
        &import("plain"),
        0,
        &["`main` has no towpath.yaml and is of no kind", "changes wait and do not land"],
    );
    served.world.write("towpath.yaml", "jobs: [unit]\n");
    served.world.git(&["add", "--all"]);
    served.world.git(&["commit", "--quiet", "--message", "a broken pipeline"]);
    says(&import("broken"), 0, &["the pipeline of `main` cannot be used: towpath.yaml:1:7"]);
}

#[test]
fn a_clone_of_two_repos_logs_in_at_each() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let git = |words: &[&str]| served.world.git(words);
    let import = |name: &str| served.world.towpath(&["repo", "import", ".", "--name", name]);
    let names = || served.ok(&["repo", "list"]).out;
    says(
        &import("second"),
        5,
        &["has a remote `towpath` already", "/web.git, not to ", "rename towpath OTHER`"],
    );
    assert!(!names().contains("second"), "a refused import leaves nothing: {}", names());
    let land = |branch: &str| {
        served.push(branch, "new", branch);
        until_landed(&served.world, "1");
        let noted = || !git(&["ls-remote", "towpath", "refs/notes/towpath"]).is_empty();
        wait_until(&format!("a note of the landing of {branch}"), noted);
    };
    land("one");
    git(&["remote", "rename", "towpath", "first"]);
    says(&import("second"), 0, &["repo second"]);
    land("two");
    git(&["fetch", "--quiet", "first"]);
    git(&["fetch", "--quiet", "towpath"]);
    let home = |name: &str| served.world.home().join(name).display().to_string();
    for data in ["data", "nowhere"] {
        let verify = ["audit", "verify", "--repo", ".", "--data", &home(data), "--keys", &home("data-keys")];
        let witnessed = [
            "web/main at refs/remotes/first/main: 1 explained landing, 1 with a note\n",
            "second/main at refs/remotes/towpath/main: 1 explained landing, 1 with a note\n",
        ];
        says(&served.world.towpath(&verify), 0, &witnessed);
    }
    // One login for the whole server, as a clone may have it, goes on for what has none of its own.
    let kept = served.world.work().join(".git/towpath-credentials");
    let token = served.record(&["token", "create"])["token"].as_str().unwrap().to_owned();
    let url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let base = url.strip_suffix("second.git").unwrap();
    let wide = format!("[http \"{base}\"]\n\textraHeader = Authorization: Bearer {token}\n");
    std::fs::write(&kept, wide).unwrap();
    git(&["fetch", "--quiet", "first"]);
    git(&["remote", "rename", "towpath", "second"]);
    says(&import("third"), 0, &["repo third"]);
    ["first", "second", "towpath"].iter().for_each(|remote| drop(git(&["fetch", "--quiet", remote])));
}

#[test]
fn a_token_that_is_replaced_by_a_login_is_kept() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let made = served.record(&["token", "create"]);
    let url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let mut login = served.world.command(TOWPATH);
    login.args(["token", "login", url.strip_suffix("/web.git").unwrap()]);
    let mut child =
        login.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(made["token"].as_str().unwrap().as_bytes()).unwrap();
    says(
        &ended(child.wait_with_output().unwrap()),
        0,
        &["you are `ann`", "it is kept in ", "former-1.token"],
    );
}

/// Logins that people paste into addresses, as git takes them: they are neither shown nor used.
#[test]
fn a_login_in_an_address_is_never_shown() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let with_login = |login: &str| url.replacen("://", &format!("://{login}@"), 1);
    let secretly = |variables: &[(&str, &str)], arguments: &[&str], code: i32| {
        let mut command = served.world.command(TOWPATH);
        let answer = ended(command.args(arguments).envs(variables.iter().copied()).output().unwrap());
        says(&answer, code, &[]);
        assert!(!format!("{}{}", answer.out, answer.err).contains("pasted"), "{}{}", answer.out, answer.err);
    };
    served.world.git(&["remote", "set-url", "towpath", &with_login("ann:twp_pasted")]);
    secretly(&[], &["change", "list"], 0);
    secretly(&[("TOWPATH_URL", &with_login("twp_pasted"))], &["repo", "list"], 2);
    secretly(&[], &["repo", "import", "https://ann:pasted@git.invalid/x.git"], 2);
    secretly(&[], &["init", "--data", "new", "--url", "http://ann:pasted@127.0.0.1:7700"], 2);
    secretly(&[], &["token", "login", "https://ann:pasted@git.invalid"], 2);
    secretly(&[], &["repo", "connect", "web"], 0);
    assert_eq!(served.world.git(&["remote", "get-url", "towpath"]).trim(), url);
    served.world.git(&["remote", "set-url", "towpath", "https://ann:pasted@git.invalid/web.git"]);
    secretly(&[("TOWPATH_URL", url.trim_end_matches("/web.git"))], &["repo", "connect", "web"], 5);
}
