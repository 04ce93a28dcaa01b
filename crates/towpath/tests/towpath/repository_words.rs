//! Commands that read and print: config, completions, man, wrong usage.

use expect_test::expect;

use crate::support::World;

const PIPELINE: &str = "\
jobs:
  unit:
    run: make test
    shards: 2
    timeout: 5m
  lint: { run: make lint, on: [change] }
";

#[test]
fn a_sound_file_is_said_to_be_sound() {
    let world = World::with(&[("towpath.yaml", PIPELINE)]);
    expect![[r#"
        towpath.yaml: ok (2 jobs, 3 with matrix and shards)
        exit 0
    "#]]
    .assert_eq(&world.towpath(&["config", "check"]).shown());
}

#[test]
fn every_error_has_its_place() {
    let world = World::with(&[("towpath.yaml", "jobs:\n  unit: { runn: make }\n  \tx: 1\n")]);
    let ended = world.towpath(&["config", "check"]);
    assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    assert!(ended.err.contains("--> towpath.yaml:2:11"), "{}", ended.err);
    let records = world.records(&["config", "check"]);
    let last = records.last().unwrap();
    assert_eq!((&last["ok"], last["findings"].as_u64()), (&false.into(), Some(records.len() as u64 - 1)));
    assert_eq!((records[0]["line"].as_u64(), records[0]["severity"].as_str()), (Some(2), Some("error")));
}

#[test]
fn a_repository_without_a_file_gets_the_usual_jobs_and_can_take_them_as_its_file() {
    let world = World::with(&[("Makefile", "check:\n\ttrue\n")]);
    expect![[r#"
        make-check (detected from Makefile; landing needs it)
          on       change, queue
          timeout  1 h TIME
          retry    up to 2 times after errors of the machine
          | make check
        exit 0
    "#]]
    .assert_eq(&world.towpath(&["config", "explain"]).shown().replace("1 h 00 TIME", "TIME"));
    let file = world.towpath(&["config", "explain", "--as-file"]).out;
    world.write("towpath.yaml", &file);
    assert_eq!(world.towpath(&["config", "check"]).code, 0);
    assert_eq!(world.towpath(&["config", "explain", "--as-file"]).code, 5);
}

#[test]
fn the_schema_is_one_document() {
    let world = World::with(&[]);
    let schema: serde_json::Value = serde_json::from_str(&world.towpath(&["config", "schema"]).out).unwrap();
    assert_eq!(schema["title"], "towpath.yaml");
    assert_eq!(world.towpath(&["config", "schema", "--json"]).out, format!("{schema}\n"));
}

#[test]
fn wrong_usage_and_missing_things_have_their_codes() {
    let world = World::with(&[]);
    let code = |arguments: &[&str]| world.towpath(arguments).code;
    let codes = [
        code(&["frobnicate"]),
        code(&["run", "--trigger", "moon"]),
        code(&["config", "check", "no-such-file"]),
        code(&["man", "no-such-command"]),
        code(&["--version"]),
    ];
    assert_eq!(codes, [2, 2, 3, 3, 0]);
    let error: serde_json::Value =
        serde_json::from_str(&world.towpath(&["frobnicate", "--json"]).err).unwrap();
    assert_eq!(error["error"]["exit"], 2);
}

#[test]
fn outside_of_a_repository_the_way_in_is_named() {
    let world = World::with(&[]);
    let mut command = world.command(crate::support::TOWPATH);
    let ended = crate::support::ended(command.current_dir("/").args(["run"]).output().unwrap());
    expect![[r#"
        error: / is in no git work tree
          why: towpath works on the files that git counts as part of a repository
         hint: go into a clone, or make one: `git init`
        exit 3
    "#]]
    .assert_eq(&ended.shown());
}

#[test]
fn completions_and_man_pages_come_from_the_definitions() {
    let world = World::with(&[]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.towpath(&["completions", shell]).out.contains("doctor"), "{shell}");
    }
    let page = world.towpath(&["man", "config", "check"]).out;
    assert!(page.contains(".TH towpath-config-check 1"), "{page}");
    assert!(page.contains("130 interrupted"), "{page}");
    let pages = world.towpath(&["man", "--all", "."]).out;
    assert!(pages.lines().any(|path| path == "./towpath-run.1"), "{pages}");
}
