//! What the program says to words that mean nothing here: what is wrong, why, and what to do next, with its exit code.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::served::{Served, until_landed};
use crate::support::{Ended, TOWPATH, World, ended, servants, wait_until};

const PLAIN: [&str; 2] = ["--sandbox", "none"];
const PIPELINE: &str = "jobs:\n  unit: { run: 'true' }\n";

/// A refusal with its exit code, that says all of these and what to do.
#[track_caller]
fn refused(ended: &Ended, code: i32, said: &[&str]) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    for said in said.iter().chain(&[" hint: "]) {
        assert!(ended.err.contains(said), "`{said}` is not in {}", ended.err);
    }
}

#[test]
fn an_init_that_failed_can_be_repeated_as_it_was() {
    let world = World::with(&[]);
    let data = world.home().join("data").display().to_string();
    let init = |arguments: &[&str]| world.towpath(&[&["init", "--data", &data], arguments].concat());
    let odd: [(&[&str], i32, &str); 5] = [
        (&["--url", "http://gate.example.org"], 2, "without TLS"),
        (&["--url", "http://localhost:y"], 2, "its port is no number"),
        (&["--url", "https://gate.example.org/sub"], 2, "without a path"),
        (&["--token-file", "/nowhere/token"], 3, "cannot write `/nowhere/token`"),
        (&["--user", "A b"], 2, "a user's name has"),
    ];
    for (arguments, code, said) in odd {
        let failed = init(arguments);
        assert_eq!(failed.code, code, "{arguments:?}: {}", failed.err);
        assert!(failed.err.contains(said), "{arguments:?}: {}", failed.err);
        // Nothing serves what is half made.
        refused(
            &world.towpath(&["serve", "--data", &data]),
            3,
            &["no data folder of a server yet", "towpath init"],
        );
    }
    assert!(!std::path::Path::new(&format!("{data}-keys/admin.token")).exists());
    let made = init(&[]);
    assert_eq!(made.code, 0, "{}", made.err);
    refused(&init(&[]), 5, &["with users already", "towpath serve"]);
}

#[test]
fn an_init_without_a_home_keeps_the_token_in_its_file() {
    let world = World::with(&[]);
    let data = world.home().join("data").display().to_string();
    let mut command = world.command(TOWPATH);
    command.args(["init", "--data", &data, "--listen", "127.0.0.1:7799"]).env_remove("HOME");
    let made = ended(command.output().unwrap());
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(
        made.err.contains(&format!("towpath token login http://127.0.0.1:7799 < {data}-keys/admin.token"))
    );
    assert!(
        made.err.contains(&format!("next: towpath serve --data {data} --listen 127.0.0.1:7799")),
        "{}",
        made.err
    );
    let file = std::fs::metadata(format!("{data}-keys/admin.token")).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.len() > 20), (0o600, true));
}

#[test]
fn a_server_is_not_started_with_words_that_cannot_be_meant() {
    let world = World::with(&[]);
    let data = world.home().join("data").display().to_string();
    assert_eq!(world.towpath(&["init", "--data", &data]).code, 0);
    let serve = |arguments: &[&str]| world.towpath(&[&["serve", "--data", &data], arguments].concat());
    let none = serve(&["--slots", "0"]);
    assert_eq!(none.code, 2, "{}", none.err);
    assert!(none.err.contains("0 is not in 1..="), "{}", none.err);
    let odd = serve(&["--url", "http://x:y", "--listen", "127.0.0.1:0"]);
    refused(&odd, 2, &["its port is no number from 1 to 65535", "`--url https://"]);
    // What others can listen to is said; the address is no machine's (RFC 5737), so that the server ends at once.
    let plain = serve(&["--listen", "192.0.2.1:7700"]);
    assert!(plain.err.contains("in plain HTTP") && plain.err.contains("--url https://"), "{}", plain.err);
    let behind = serve(&["--listen", "192.0.2.1:7700", "--url", "https://gate.example.org"]);
    assert!(!behind.err.contains("in plain HTTP"), "{}", behind.err);
}

#[test]
fn a_branch_that_was_pushed_as_it_is_can_be_opened_as_a_change() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    served.world.git(&["switch", "--quiet", "--create", "my-branch"]);
    served.world.git(&["commit", "--quiet", "--allow-empty", "--message", "mine"]);
    served.world.write("new", "x\n");
    served.world.git(&["add", "--all"]);
    served.world.git(&["commit", "--quiet", "--message", "a new file"]);
    let mut push = served.world.command("git");
    let pushed = ended(push.args(["push", "towpath", "my-branch"]).output().unwrap());
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    let said = ["no change is open from it", "to open one: towpath change open my-branch"];
    assert!(said.iter().all(|said| pushed.err.contains(said)), "{}", pushed.err);
    let opened = served.ok(&["change", "open", "my-branch"]);
    assert!(opened.out.starts_with("change 1: http://"), "{}", opened.out);
    until_landed(&served.world, "1");
    // The second push of a change, by the habit of elsewhere.
    served.world.git(&["switch", "--quiet", "--create", "second"]);
    let commit_and_push = |content: &str, options: &[&str]| {
        served.world.write("new", content);
        served.world.git(&["commit", "--quiet", "--all", "--message", "an edit"]);
        let mut push = served.world.command("git");
        ended(push.args(["push", "towpath", "second"]).args(options).output().unwrap())
    };
    let opened = commit_and_push("y\n", &["-o", "change", "-o", "draft"]);
    assert!(opened.err.contains("change 2: http://"), "{}", opened.err);
    let stored = commit_and_push("z\n", &[]);
    let said = "change 2 is open from it and keeps its former commit";
    assert!(stored.err.contains(said) && stored.err.contains("to update it: towpath"), "{}", stored.err);
    served.ok(&["change", "open", "second"]);
    let change = served.record(&["change", "show", "2"]);
    assert_eq!(change["revisions"].as_array().unwrap().len(), 2, "{change}");
    // Who names no branch means what is checked out, and that is not what the server has.
    served.world.git(&["commit", "--quiet", "--allow-empty", "--message", "not pushed"]);
    let here = served.world.git(&["rev-parse", "HEAD"]);
    let refused = served.world.towpath(&["change", "open"]);
    let said = format!("not at {}: push yours first (`git push towpath second`)", here.trim());
    assert!(refused.code == 5 && refused.err.contains(&said), "{}", refused.shown());
    let pushed = commit_and_push("a\n", &[]);
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    served.ok(&["change", "open"]);
    let change = served.record(&["change", "show", "2"]);
    assert_eq!(change["revisions"].as_array().unwrap().len(), 3, "{change}");
}

#[test]
fn names_that_are_not_there_are_refused() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    served.push("feature", "towpath.yaml", "jobs: [unit]\n");
    served.until("1", |change| !change["gate"]["reasons"].as_array().unwrap().is_empty());
    let cases: [(&[&str], i32, &str); 23] = [
        (&["repo", "import", "nope"], 3, "there is no folder `nope`"),
        (&["repo", "import", "towpath.yaml"], 2, "`towpath.yaml` is no folder"),
        (&["audit", "verify", "--repo", "nope", "--key", "towpath+00000000+AA"], 2, ""),
        (&["deploy", "self", "nope"], 3, "no job on a watched branch of `web` deploys to `nope`"),
        (&["deploy", "start"], 3, "has no job with `on: [land]`"),
        (&["deploy", "start", "nope"], 3, "has no job that deploys to `nope`"),
        (&["deploy", "show", "nope"], 3, "nothing was ever deployed to `nope`"),
        (&["token", "create", "--repo", "nope"], 3, "there is no repo `nope`"),
        (&["change", "label", "1", "--remove", "nope"], 3, "change 1 has no label `nope`; it has none"),
        (&["change", "list", "--target", "nope"], 3, "no change was ever for `nope`"),
        (&["change", "show", "99"], 3, "there is no change 99"),
        (&["change", "show", "x"], 2, "a change is named by its number"),
        (&["runs", "--branch", "nope"], 3, "`nope` is no watched branch of `web`, so it has no runs"),
        (&["runs", "--change", "99"], 3, "there is no change 99"),
        (&["cancel", "99", "--why", "x"], 3, "there is no run web/main/99"),
        (&["branch", "show", "nope"], 3, "`nope` is no watched branch of `web`"),
        (&["branch", "run"], 3, "has no job with `on: [manual]`"),
        (&["branch", "run", "--job", "nope"], 3, "has no job `nope`"),
        (&["user", "disable", "nope"], 3, "there is no user `nope`"),
        (&["repo", "grant", "nope", "author"], 3, "there is no user `nope`"),
        (&["token", "revoke", "999"], 3, "you have no such token"),
        (&["secret", "remove", "nope"], 3, "secret `nope` does not exist"),
        (&["retention", "set", "nope=3"], 2, "there is no `nope`; there is `run_days`"),
    ];
    for (arguments, code, said) in cases {
        let refused = served.world.towpath(arguments);
        assert_eq!(refused.code, code, "{arguments:?}: {}{}", refused.out, refused.err);
        assert!(refused.err.contains(said), "{arguments:?}: {}", refused.err);
        let words = ["invalid type", "missing field", "unknown field", "at line ", "has no a"];
        assert!(!words.iter().any(|word| refused.err.contains(word)), "{arguments:?}: {}", refused.err);
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_in_words_that_name_the_place() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let mut settings: Value = serde_json::from_str(&served.ok(&["repo", "settings"]).out).unwrap();
    settings["branches"]["main"]["approvals"] = Value::from("many");
    served.world.write("settings.json", &settings.to_string());
    let set = ["repo", "settings", "--set", "settings.json"];
    let said = ["at `branches.main.approvals`, there is the text \"many\", where a whole number"];
    refused(&served.world.towpath(&set), 2, &said);
    served.world.write("settings.json", r#"{"default_branch": null}"#);
    refused(&served.world.towpath(&set), 2, &["is missing"]);
    let policy = given(&served, &["secret", "set", "key", "--policy", r#"{"level":"nobody"}"#], b"x");
    refused(&policy, 2, &["at `level`, `nobody` is none of what can stand there"]);
}

#[test]
fn what_was_wrong_is_followed_by_what_is_right() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let said = |arguments: &[&str], code: i32, said: &str| {
        refused(&served.world.towpath(arguments), code, &[said]);
    };
    said(&["retention", "set", "run_dys=3"], 2, "docs/guide/retention.md");
    said(&["backup", "accept", "--lost", "3"], 5, "`towpath backup show`");
    said(&["change", "open", "main"], 2, "a branch with commits of its own");
    said(&["branch", "accept", "main", "c098"], 5, "`towpath branch show main`");
    served.world.git(&["remote", "remove", "towpath"]);
    said(&["repo", "import", ".", "--name", "my repo"], 2, "`--name NAME` gives it a name that fits");
    let short = given(&served, &["user", "password"], b"\nshort\n");
    refused(&short, 2, &["choose another one"]);
    let url = served.url();
    let login = given(&served, &["token", "login", url], b"twp_wrong\n");
    refused(&login, 4, &[&format!("cannot log in at {url}\n"), " hint: "]);
}

#[test]
fn a_branch_that_somebody_else_pushed_begins_once_an_admin_accepts_it() {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n  sign: { run: 'true', on: [manual] }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    served.ok(&["user", "add", "bob"]);
    served.ok(&["repo", "grant", "bob", "maintainer"]);
    let token = served.record(&["token", "create", "--user", "bob"])["token"].as_str().unwrap().to_owned();
    let git = |words: &[&str]| served.world.git(words);
    git(&["switch", "--quiet", "--create", "release"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "Bob's own"]);
    let url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let as_bob = url.replace("http://", &format!("http://bob:{token}@"));
    // Without the login that the import left in the clone.
    let no_header = format!("http.{url}.extraHeader=");
    git(&["-c", &no_header, "push", "--quiet", &as_bob, "HEAD:refs/heads/release"]);
    let theirs = git(&["rev-parse", "HEAD"]).trim().to_owned();
    let mut settings: Value = serde_json::from_str(&served.ok(&["repo", "settings"]).out).unwrap();
    settings["branches"]["release"] = settings["branches"]["main"].clone();
    served.world.write("settings.json", &settings.to_string());
    served.ok(&["repo", "settings", "--set", "settings.json"]);

    let accept = format!("towpath branch accept release {theirs}");
    wait_until("an alert", || served.ok(&["branch", "show", "release"]).out.contains(&accept));
    let run = ["branch", "run", "release", "--job", "sign"];
    let told = served.world.towpath(&run);
    assert!(told.code == 5 && told.err.contains(&accept), "{}", told.err);
    assert_eq!(served.as_user("bob", &["branch", "accept", "release", &theirs]).code, 4);
    // A shortened id is shown whole, to be asked about; nobody is here to answer.
    let short = served.world.towpath(&["branch", "accept", "release", &theirs[..4]]);
    refused(&short, 2, &[&format!("accept {theirs} as the tip of `release`?"), &accept]);
    let other = served.world.towpath(&["branch", "accept", "release", "zzzz"]);
    refused(&other, 5, &["`zzzz` waits to be accepted", &format!("what waits is {theirs}")]);
    // What is proposed for it waits and says for what.
    served.world.write("on-top", "x\n");
    git(&["add", "on-top"]);
    git(&["commit", "--quiet", "--message", "On top"]);
    git(&["push", "--quiet", "towpath", "HEAD:refs/for/release"]);
    let why = || served.ok(&["change", "why", "1"]).out;
    wait_until("a reason", || why().contains("somebody who is no admin"));
    assert!(why().contains(&accept), "{}", why());
    assert_eq!(served.record(&["branch", "show", "release"])["foreign"], theirs.as_str());

    served.ok(&["branch", "accept", "release", &theirs]);
    wait_until("the manual job", || served.world.towpath(&run).code == 0);
    until_landed(&served.world, "1");
}

/// A command with something on its standard input.
fn given(served: &Served, arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = served.world.command(TOWPATH);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses before it reads has closed it.
    let _ = child.stdin.take().unwrap().write_all(input);
    ended(child.wait_with_output().unwrap())
}

#[test]
fn ones_own_password_takes_the_old_one_and_the_first_takes_none() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let set = |input: &str| given(&served, &["user", "password"], input.as_bytes());
    refused(&set("\n"), 2, &["there is no new password"]);
    assert_eq!(set("\ncorrect horse one\n").code, 0);
    refused(&set("\ncorrect horse two\n"), 4, &["the present password is another one"]);
    assert_eq!(set("correct horse one\ncorrect horse two\n").code, 0);
    let help = served.ok(&["user", "password", "--help"]).out;
    assert!(help.contains("two lines on standard input: the old one, then the new one"), "{help}");
}

/// As a person at a terminal: `script` is one. Nothing is typed before it is asked for, as that would be dropped.
#[test]
fn at_a_terminal_a_new_password_is_typed_twice() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let typed = |lines: [&str; 3]| {
        let mut script = served.world.command("script");
        let line = format!("exec {TOWPATH} user password");
        script.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut terminal = script.spawn().unwrap();
        let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
        let (mut said, mut byte) = (String::new(), [0]);
        for (line, asked) in
            lines.iter().zip(["old password: ", "new password: ", "new password once more: "])
        {
            while !said.ends_with(asked) {
                assert_eq!(screen.read(&mut byte).unwrap(), 1, "it ended before it asked: {said}");
                said.push(char::from(byte[0]));
            }
            keys.write_all(line.as_bytes()).unwrap();
        }
        screen.read_to_string(&mut said).unwrap();
        assert!(!said.contains("horse"), "{said}");
        (terminal.wait().unwrap().code(), said)
    };
    let (code, said) = typed(["\n", "correct horse one\n", "correct horse two\n"]);
    assert!(code == Some(2) && said.contains("was not typed twice alike"), "{said}");
    assert_eq!(typed(["\n", "correct horse one\n", "correct horse one\n"]).0, Some(0));
    let changed = given(&served, &["user", "password"], b"correct horse one\ncorrect horse two\n");
    assert_eq!(changed.code, 0, "{}", changed.err);
}

#[test]
fn an_empty_list_is_said_to_people_and_is_no_data() {
    let served = Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[]);
    let lists: [(&[&str], &str); 5] = [
        (&["change", "list"], "no open changes\n"),
        (&["runs"], "no runs\n"),
        (&["runs", "--running"], "no runs under way\n"),
        (&["secret", "list"], "no secrets\n"),
        (&["deploy", "list"], "no environments\n"),
    ];
    for (arguments, said) in lists {
        let shown = served.ok(arguments);
        assert_eq!((shown.out.as_str(), shown.err.as_str()), ("", said), "{arguments:?}");
        let json = served.ok(&[arguments, &["--json"]].concat());
        assert_eq!((json.out.as_str(), json.err.as_str()), ("", ""), "{arguments:?}");
    }
}

#[test]
fn a_run_that_was_cancelled_says_so_and_is_not_cancelled_twice() {
    let pipeline =
        "jobs:\n  slow: { run: 'echo begun; sleep 31801' }\n  after: { run: 'true', needs: [slow] }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    served.push("feature", "new", "x\n");
    wait_until("running job", || served.world.towpath(&["log", "1", "slow"]).out.contains("begun"));
    served.ok(&["cancel", "1", "--why", "enough"]);
    wait_until("end of the run", || served.record(&["runs", "1"])["outcome"] == "cancelled");
    refused(
        &served.world.towpath(&["cancel", "1", "--why", "again"]),
        5,
        &["run web/main/1 is over: cancelled"],
    );
    let found = served.ok(&["log", "1", "--first-error"]);
    assert!(
        found.out.contains("begun") && found.err.contains("job `slow`: cancelled: enough (by ann)"),
        "{}",
        found.err
    );
    let unbegun = served.ok(&["log", "1", "after", "--first-error"]);
    assert!(
        unbegun.err.contains("the log is empty") && unbegun.err.contains("job `after`: cancelled"),
        "{}",
        unbegun.err
    );
    // Silence could be anything; which job is shown is said where nobody named one.
    let unbegun = served.ok(&["log", "1", "after"]);
    assert_eq!(unbegun.out, "");
    assert!(unbegun.err.starts_with("the log is empty\njob `after`: cancelled"), "{}", unbegun.err);
    let chosen = served.ok(&["log", "1"]);
    assert!(chosen.out.starts_with("begun\n"), "{}", chosen.out);
    assert_eq!(chosen.err, "run web/main/1 (change 1), job `slow`:\n");
}

#[test]
fn a_folder_without_a_pipeline_says_what_to_do() {
    let world = World::with(&[]);
    refused(&world.towpath(&["config", "check"]), 3, &["there is no towpath.yaml to check", "Makefile"]);
    let run = world.towpath(&["run"]);
    refused(&run, 2, &["there is nothing to run", "write a towpath.yaml: docs/guide/pipeline.md"]);
    assert!(!run.err.contains("name a job"), "{}", run.err);
    refused(&world.towpath(&["config", "check", "nope.yaml"]), 3, &["cannot read `nope.yaml`"]);
    refused(&world.towpath(&["config", "check", "/dev/zero"]), 2, &["the file is too large"]);
    let mut outside = world.command(TOWPATH);
    let outside = ended(outside.args(["config", "check"]).current_dir(world.home()).output().unwrap());
    refused(&outside, 3, &["is in no git work tree"]);
}

#[test]
fn help_says_what_a_verb_does_and_nothing_of_another() {
    let world = World::with(&[]);
    let about =
        |verb: &str| world.towpath(&["change", verb, "--help"]).out.lines().next().unwrap().to_owned();
    assert_ne!(about("approve"), about("request-changes"));
}

/// What a value on standard input comes to in a job.
#[test]
fn the_line_end_of_a_piped_secret_is_no_part_of_it() {
    let pipeline = "jobs:\n  use:\n    on: [land]\n    secrets: [one, key]\n    run: |\n      \
                    for name in one key; do wc -c < \"$TOWPATH_SECRETS/$name\"; done\n  unit: { run: 'true' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &PLAIN, &[]);
    let ok = |arguments: &[&str], input: &[u8]| {
        let set = given(&served, arguments, input);
        assert_eq!(set.code, 0, "{}", set.err);
    };
    ok(&["secret", "set", "one"], b"hunter-22\n");
    ok(&["secret", "set", "key"], b"-----BEGIN-----\nAAAAAAAA\n");
    served.push("feature", "new", "x\n");
    until_landed(&served.world, "1");
    wait_until("run after landing", || {
        let runs = served.world.records(&["runs"]);
        runs.iter().any(|run| run["trigger"] == "land" && run["outcome"] == "passed")
    });
    let runs = served.world.records(&["runs"]);
    let run = runs.iter().find(|run| run["trigger"] == "land").unwrap();
    let sizes = served.ok(&["log", run["run"].as_str().unwrap(), "use"]).out;
    let sizes: Vec<&str> = sizes.split_whitespace().collect();
    assert_eq!(sizes, ["9", "25"]);
}

/// Whoever had the server is gone before it serves: it drains nevertheless, and takes along the executor that it starts.
#[test]
fn a_server_whose_input_has_ended_while_it_starts_takes_its_executor_along() {
    let world = World::with(&[]);
    let data = world.home().join("data").display().to_string();
    assert_eq!(world.towpath(&["init", "--data", &data]).code, 0);
    let mut command = world.command(TOWPATH);
    command.args(["serve", "--until-input-ends", "--data", &data, "--listen", "127.0.0.1:0"]).args(PLAIN);
    let ended = ended(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("draining"), "{}", ended.err);
    assert_eq!(servants(world.folder()), []);
}

/// A demo leaves nobody behind: not when it ends by itself, and not when it is ended, however that is.
#[test]
fn a_demo_takes_its_server_and_executor_along() {
    let world = World::with(&[]);
    let demo = |folder: &str| {
        let mut command = world.command(TOWPATH);
        command.args(["demo", "--json", "--folder", folder]).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).spawn().unwrap()
    };
    // A terminal that closes and Ctrl-\\ reach all of its group: the server has no time to end its executor.
    for (signal, whom) in [("-INT", ""), ("-KILL", ""), ("-HUP", "-"), ("-QUIT", "-")] {
        let mut child = demo(&format!("demo{signal}"));
        wait_until("server and executor of the demo", || servants(world.folder()).len() >= 2);
        let whom = format!("{whom}{}", child.id());
        assert!(Command::new("kill").args([signal, "--", &whom]).status().unwrap().success());
        child.wait().unwrap();
        wait_until("end of both", || servants(world.folder()).is_empty());
    }
    let mut child = demo("demo-whole");
    child.wait().unwrap();
    assert_eq!(servants(world.folder()), [], "they end before the demo does");
}
