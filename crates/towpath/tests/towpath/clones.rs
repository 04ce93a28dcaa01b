//! What clones keep of servers, and what they bear witness to: of several repos, of several servers, and from before they
//! were set up.

use std::path::PathBuf;

use crate::served::{Served, until_landed};
use crate::support::{Ended, TOWPATH, ended, wait_until};

const PLAIN: [&str; 2] = ["--sandbox", "none"];
const PIPELINE: &str = "jobs:\n  unit: { run: 'true' }\n";
/// Where git, and a server, put notes that nobody gave a place.
const UNNAMED: &str = "refs/notes/towpath";

fn serving() -> Served {
    Served::with_options(&[("towpath.yaml", PIPELINE)], &PLAIN, &[])
}

fn home(served: &Served, name: &str) -> String {
    served.world.home().join(name).display().to_string()
}

fn key(served: &Served) -> String {
    served.ok(&["audit", "key", "--data", &home(served, "data")]).out.trim_end().to_owned()
}

/// A landing, whose note can be fetched then.
fn land(served: &Served, number: &str, branch: &str) {
    let notes = || served.world.git(&["ls-remote", "towpath", UNNAMED]);
    let before = notes();
    served.push(branch, branch, "x\n");
    until_landed(&served.world, number);
    wait_until(&format!("note of the landing of {branch}"), || notes() != before);
}

/// Makes the clone's remote `towpath` one of the other server's `web`.
fn connect(clone: &Served, other: &Served) {
    let token = std::fs::read_to_string(home(other, "data-keys/admin.token")).unwrap();
    let mut connect = clone.world.command(TOWPATH);
    connect.env("TOWPATH_URL", other.url()).env("TOWPATH_TOKEN", token.trim_end());
    let connected = ended(connect.args(["repo", "connect", "web"]).output().unwrap());
    assert_eq!(connected.code, 0, "{}", connected.err);
}

/// To where the remote fetches notes.
fn place(clone: &Served, remote: &str) -> String {
    let refspecs = clone.world.git(&["config", "--get-all", &format!("remote.{remote}.fetch")]);
    let notes: Vec<&str> =
        refspecs.lines().filter_map(|line| line.strip_prefix("refs/notes/towpath*:")).collect();
    let [place] = notes[..] else { panic!("one place for notes: {refspecs}") };
    place.strip_suffix('*').unwrap().to_owned()
}

#[track_caller]
fn says(ended: &Ended, code: i32, said: &[&str]) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    said.iter().for_each(|said| assert!(ended.out.contains(said), "`{said}` is not in {}", ended.out));
}

#[test]
fn a_clone_of_two_servers_keeps_the_notes_of_each_apart() {
    let (served, other) = (serving(), serving());
    let git = |words: &[&str]| served.world.git(words);
    land(&served, "1", "one");
    land(&other, "1", "two");
    git(&["fetch", "--quiet", "towpath"]);
    git(&["remote", "rename", "towpath", "staging"]);
    connect(&served, &other);
    ["staging", "towpath"].iter().for_each(|remote| drop(git(&["fetch", "--quiet", remote])));
    let keys = [key(&served), key(&other)];
    let verify = |data: &str, more: &[&str]| {
        let known = ["audit", "verify", "--repo", ".", "--data", data, "--key", &keys[0], "--key", &keys[1]];
        served.world.towpath(&[&known, more].concat())
    };
    let nowhere = home(&served, "nowhere");
    let witnessed = ["staging", "towpath"].map(|remote| {
        format!("web/main at refs/remotes/{remote}/main: 1 explained landing, 1 with a note\n")
    });
    says(&verify(&nowhere, &[]), 0, &witnessed.each_ref().map(String::as_str));

    // A record is of one server.
    let record = verify(&home(&served, "data"), &["--remote", "staging"]);
    says(&record, 0, &[&witnessed[0], "sound"]);
    assert!(!record.out.contains("refs/remotes/towpath/main"), "{}", record.out);
    assert_eq!(verify(&nowhere, &["--remote", "origin"]).code, 3);

    // Two remotes of one repo: its branches are two, its notes are not.
    git(&["remote", "rename", "towpath", "second"]);
    connect(&served, &other);
    assert_eq!(place(&served, "second"), place(&served, "towpath"));
    git(&["fetch", "--quiet", "towpath"]);
    let seen: serde_json::Value = serde_json::from_str(&verify(&nowhere, &["--json"]).out).unwrap();
    assert_eq!((&seen["notes"], seen["branches"].as_array().unwrap().len()), (&2.into(), 3), "{seen}");
    let noted = git(&["rev-parse", "refs/remotes/second/main"]);
    git(&[
        "notes",
        &format!("--ref={}", place(&served, "second")),
        "add",
        "--force",
        "--message=forged",
        noted.trim(),
    ]);
    let forged = verify(&nowhere, &[]);
    assert_eq!(forged.code, 1);
    assert_eq!(forged.out.matches("proves nothing").count(), 1, "{}", forged.out);
}

#[test]
fn notes_of_another_repo_than_the_remotes_are_found() {
    let served = serving();
    let git = |words: &[&str]| served.world.git(words);
    land(&served, "1", "one");
    git(&["fetch", "--quiet", "towpath"]);
    let web = place(&served, "towpath");
    git(&["remote", "rename", "towpath", "first"]);
    served.ok(&["repo", "import", ".", "--name", "other"]);
    git(&["update-ref", &place(&served, "towpath"), &web]);
    let keys = home(&served, "data-keys");
    for data in ["data", "nowhere"] {
        let found = served.world.towpath(&[
            "audit",
            "verify",
            "--repo",
            ".",
            "--data",
            &home(&served, data),
            "--keys",
            &keys,
        ]);
        says(
            &found,
            1,
            &["1 note in ", "tell of landings in the repo web, and what is fetched there is the repo other"],
        );
    }
}

#[test]
fn a_clone_goes_on_to_know_what_it_saw_before_it_was_set_up() {
    let served = serving();
    let git = |words: &[&str]| served.world.git(words);
    let verify = |data: PathBuf| {
        let (data, keys) = (data.display().to_string(), home(&served, "data-keys"));
        served.world.towpath(&["audit", "verify", "--repo", ".", "--data", &data, "--keys", &keys])
    };
    land(&served, "1", "one");
    let saved = served.world.home().join("saved");
    served.ok(&["backup", "make", saved.to_str().unwrap(), "--data", &home(&served, "data")]);
    land(&served, "2", "two");
    // As the guide has it for a clone that is not set up.
    git(&["remote", "add", "origin", git(&["remote", "get-url", "towpath"]).trim()]);
    git(&["remote", "remove", "towpath"]);
    git(&["fetch", "--quiet", "origin", &format!("{UNNAMED}:{UNNAMED}")]);
    connect(&served, &served);
    says(&verify(served.world.home().join("data")), 0, &["sound"]);
    // A record whose tail was cut off. The remote has not fetched a note yet that would say so.
    let cut = verify(saved.join("towpath.db"));
    says(&cut, 1, &["the log ends here, but the note of", &format!(" in {UNNAMED} tells of ")]);

    // A clone that an older program set up, whose server has another address by now.
    git(&["config", "--unset-all", "remote.towpath.fetch"]);
    git(&["config", "--add", "remote.towpath.fetch", &format!("{UNNAMED}*:{UNNAMED}*")]);
    connect(&served, &served);
    assert_eq!(place(&served, "towpath"), UNNAMED);
    // Two such remotes got into each other's way there.
    git(&["config", "remote.old.url", "http://127.0.0.1:1/web.git"]);
    git(&["config", "remote.old.fetch", &format!("{UNNAMED}*:{UNNAMED}*")]);
    connect(&served, &served);
    assert_ne!(place(&served, "towpath"), UNNAMED);
}
