//! Nobody rings: what happens to a forge past the server is found by looking there again and again.

use crate::served::{Served, until_landed};
use crate::support::{ended, wait_until};

const PIPELINE: &str = "gate: { approvals: 0 }\njobs:\n  unit: { run: 'cat line' }\n";
/// As fast as can be: the test waits for two of them.
const EVERY_SECOND: &str = r#"{ "branches": { "main": { "poll_seconds": 1 } } }"#;

#[test]
fn a_change_is_tested_and_landed_by_polling_alone() {
    let options = ["--sandbox", "none"];
    let served = Served::with_options(&[("towpath.yaml", PIPELINE), ("line", "first\n")], &options, &[]);
    let world = &served.world;
    world.write("every-second.json", EVERY_SECOND);
    served.ok(&["repo", "settings", "--set", "every-second.json"]);
    let bare = world.home().join("data/repos/web.git").display().to_string();
    let in_bare = |words: &[&str]| world.git(&[&["--git-dir", &bare], words].concat()).trim().to_owned();
    // As whoever has the machine may: neither hooks nor the server hear of it.
    let write_past_the_server = |text: &str| {
        world.git(&["switch", "--quiet", "main"]);
        world.write("line", text);
        world.git(&["commit", "--quiet", "--all", "--message", text]);
        let commit = world.git(&["rev-parse", "HEAD"]).trim().to_owned();
        in_bare(&["fetch", "--quiet", world.work().to_str().unwrap(), "main"]);
        in_bare(&["update-ref", "refs/heads/main", &commit]);
        commit
    };

    // A branch that is in conflict with what main is by then: no run of it can be made.
    world.git(&["branch", "--quiet", "first", "main"]);
    write_past_the_server("second\n");
    let tip = || served.record(&["branch", "show"])["tip"]["commit"].as_str().unwrap_or_default().to_owned();
    let second = world.git(&["rev-parse", "main"]).trim().to_owned();
    wait_until("a reading of what was written", || tip() == second);
    world.git(&["switch", "--quiet", "first"]);
    world.write("line", "mine\n");
    world.git(&["commit", "--quiet", "--all", "--message", "Mine"]);
    let mut push = world.command("git");
    let pushed =
        ended(push.args(["push", "towpath", "HEAD:refs/heads/mine", "-o", "change"]).output().unwrap());
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    served.until("1", |change| change["gate"]["reasons"].to_string().contains("\"conflict\""));
    assert_eq!(served.ok(&["runs", "--change", "1", "--json"]).out, "");

    // The last that anybody does: main is written as the branch has it before. No bell rings for it.
    let third = write_past_the_server("first\n");
    let landed = until_landed(world, "1")["landed"].as_str().unwrap().to_owned();
    assert_eq!(in_bare(&["rev-parse", "refs/heads/main"]), landed);
    assert_eq!(in_bare(&["rev-parse", &format!("{landed}^1")]), third);
    assert_eq!(in_bare(&["show", &format!("{landed}:line")]), "mine");
    let runs = world.records(&["runs", "--change", "1"]);
    assert!(runs.iter().any(|run| run["commit"] == *landed && run["outcome"] == "passed"), "{runs:?}");
}
