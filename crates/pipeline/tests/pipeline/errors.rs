//! Keys and values of the wrong kind: where, what, why, and what to write instead.

use expect_test::expect;
use towpath_pipeline::{Definition, FILE_NAME};

use crate::support::{check, wrapped};

#[test]
fn all_errors_come_at_once() {
    check(
        "\
gate: { strategy: sqash, aprovals: 1 }
defaults: { timeout: 15 }
jobs:
  unit:
    run: make check
    neds: [wheel]
    shards: 0
    network: yes
  lint:
    needs: [untit]
    timeout: 1x
",
        expect![[r#"
            1:19 gate.strategy: `sqash` is not known here
                why: `strategy` takes one of `merge` `squash` `rebase`
               hint: did you mean `squash`?
            1:26 gate: unknown key `aprovals`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `approvals`?
            2:22 defaults.timeout: `15` has no unit
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write `15m` or `15s`
            6:5 jobs.unit: unknown key `neds`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `needs`?
            7:13 jobs.unit.shards: `0` is not a whole number from 1 to 512
                why: `shards` takes no other value
               hint: write a number from 1 to 512
            8:14 jobs.unit.network: `yes` does not belong here
                why: `network` takes `true` or `false`
               hint: write for example `network: true`
            10:5 jobs.lint: `run` is missing
                why: a job does nothing without a script
               hint: add `run:`
            10:13 jobs.lint.needs: there is no job `untit`
                why: no job under `jobs` has this name
               hint: did you mean `unit`?
            11:14 jobs.lint.timeout: `1x` does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
        "#]],
    );
}

/// One error of each kind, so that none of them keeps another from being told.
const OF_EACH_KIND: &str = "\
gate: *nowhere
jobs:
  a: { run: x, needs: [b], history: true, checkout: false }
  b: { run: x, needs: [a, early], aborts: [a] }
  early: { run: x, environment: prod, on: [land] }
  c: { run: *n1, on: *n2, timeout: *n3, matrix: { k: *n4 }, foo: 1 }
  d: { run: x, environment: prod, on: [change, land] }
  e: { run: x, restartable: true, required: true, on: [land] }
  f: *n5
  g: { run: x, needs: [f, nobody], env: { <<: *n6, *n7 : 1 } }
  many: { run: x, shards: 512, matrix: { k: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20] } }
";

#[test]
fn neither_a_circle_nor_a_lost_alias_hides_another_error() {
    check(
        OF_EACH_KIND,
        expect![[r#"
            1:7 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            3:3 jobs: 10247 jobs are too many
                why: a definition has at most 10000 jobs, matrix cells and shards counted
               hint: use fewer cells or shards, or let one job do what several small ones do
            3:23 jobs: a circle of needs: a -> b -> a
                why: none of them could ever start
               hint: take one of these names out of `needs`
            3:37 jobs.a: a history without files
                why: with `checkout: false` there is no work tree that could have a history
               hint: delete one of the two keys
            4:44 jobs.b.aborts: `a` has always ended by then
                why: this job needs it, directly or through others, so it ends first
               hint: delete it here
            5:33 jobs.early: it would deploy before landing
                why: a job that runs before landing needs it, so it would run there too
               hint: take this job out of the other's `needs`, or let the other run on `land`
            6:13 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            6:22 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            6:36 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            6:54 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            6:61 jobs.c: unknown key `foo`
                why: a key that nothing reads would change nothing, unseen
               hint: known here: run, on, needs, required, when, env, timeout, retry, shards, matrix, outputs, reports, network,
                     history, checkout, secrets, environment, restartable, aborts, user_namespaces
            7:39 jobs.d: it would deploy before landing
                why: a job with `environment` deploys, and `change` and `queue` (the default of `on`) run before landing
               hint: write `on: [land]` or `on: [manual]`
            8:29 jobs.e: `restartable` without a deployment
                why: it says that a deployment may be tried again, and this job has no `environment`
               hint: delete it, or say which `environment` the job deploys to
            8:45 jobs.e: it is required but never runs before landing
                why: a required job runs before landing, so `on` must have `queue`
               hint: add `queue` to `on`, or delete `required`
            9:6 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            10:27 jobs.g.needs: there is no job `nobody`
                why: no job under `jobs` has this name
               hint: add a job `nobody`, or delete it here
            10:47 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
            10:52 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text
        "#]],
    );
}

#[test]
fn an_error_shows_its_line_with_a_mark() {
    let errors = Definition::parse(FILE_NAME, b"jobs:\n  unit: { run: make, timout: 5m }\n").unwrap_err();
    expect![[r#"
        error: jobs.unit: unknown key `timout`
         --> towpath.yaml:2:22
          |
        2 |   unit: { run: make, timout: 5m }
          |                      ^^^^^^
          why: a key that nothing reads would change nothing, unseen
         hint: did you mean `timeout`?
    "#]]
    .assert_eq(&errors.render());
    expect![[r#"
        towpath.yaml:2:22: jobs.unit: unknown key `timout`; why: a key that nothing reads would change nothing,
        unseen; hint: did you mean `timeout`?"#]].assert_eq(&wrapped(&errors.lines().join("\n"), 0));
}

#[test]
fn a_long_line_is_cut_around_its_mark() {
    let yaml = format!("jobs: {{ unit: {{ env: {{ A: \"{}\" }}, run: x, nope: 1 }} }}", "ü".repeat(300));
    let errors = Definition::parse(FILE_NAME, yaml.as_bytes()).unwrap_err();
    let item = &errors.items[0];
    assert_eq!(
        item.excerpt.chars().skip(item.mark as usize).take(item.width as usize).collect::<String>(),
        "nope"
    );
    assert!(item.excerpt.chars().count() <= 100);
}

#[test]
fn unknown_keys_get_the_nearest_known_one() {
    check(
        "\
job: {}
jobs:
  a: { runs: x, on: [change], environmet: x, xyzzy: 1 }
  b: { run: x, when: { path: [a] }, retry: { erorred: 1 }, reports: { junitt: a } }
",
        expect![[r#"
            1:1 unknown key `job`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `jobs`?
            3:6 jobs.a: `run` is missing
                why: a job does nothing without a script
               hint: add `run:`
            3:8 jobs.a: unknown key `runs`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `run`?
            3:31 jobs.a: unknown key `environmet`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `environment`?
            3:46 jobs.a: unknown key `xyzzy`
                why: a key that nothing reads would change nothing, unseen
               hint: known here: run, on, needs, required, when, env, timeout, retry, shards, matrix, outputs, reports, network,
                     history, checkout, secrets, environment, restartable, aborts, user_namespaces
            4:22 jobs.b.when: `paths` is missing
                why: `when` has no other condition
               hint: add `paths:`
            4:24 jobs.b.when: unknown key `path`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `paths`?
            4:46 jobs.b.retry: unknown key `erorred`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `errored`?
            4:71 jobs.b.reports: unknown key `junitt`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `junit`?
        "#]],
    );
}

#[test]
fn wrong_types_name_the_right_one() {
    check(
        "\
gate: merge
budget: [15m]
defaults:
jobs:
  a: { run: [make, check] }
  e: [make check]
  f:
  g: { run: '' }
  h: { run: x, env: { A: [1], B: } }
",
        expect![[r#"
            1:7 gate: `merge` does not belong here
                why: `gate` takes a mapping with `strategy` `approvals` `proof` `empty`
               hint: write for example `gate: { strategy: merge, approvals: 1 }`
            2:9 budget: a list does not belong here
                why: `budget` takes a mapping with `change`
               hint: write for example `budget: { change: 15m }`
            3:9 defaults: nothing stands here
                why: `defaults` takes a mapping with `timeout` `network` `history` `checkout` `env` `retry`
               hint: write for example `defaults: { timeout: 15m }`
            5:13 jobs.a.run: a list does not belong here
                why: `run` takes one text, of one line or, after `|`, of several
               hint: write for example `run: cargo test`
            6:6 jobs.e: a list does not belong here
                why: `e` takes a mapping with `run` `on` `needs` `required` `when` `env` `timeout` `retry` `shards` `matrix`
                     `outputs` `reports` `network` `history` `checkout` `secrets` `environment` `restartable` `aborts`
                     `user_namespaces`
               hint: write for example `e: { run: make check }`
            7:4 jobs.f: the job `f` is empty
                why: a job does nothing without a script
               hint: write its script, such as `make check`
            8:13 jobs.g.run: the text `""` does not belong here
                why: `run` takes one text, of one line or, after `|`, of several
               hint: write for example `run: cargo test`
            9:26 jobs.h.env.A: a list does not belong here
                why: `A` takes text
               hint: write for example `A: "text"`
            9:32 jobs.h.env.B: nothing stands here
                why: `B` takes text
               hint: write for example `B: "text"`
        "#]],
    );
}

#[test]
fn wrong_types_within_a_job_name_the_right_one() {
    check(
        "\
jobs:
  b: { run: x, on: { push: main }, needs: { a: 1 } }
  c: { run: x, env: [A=1], network: \"true\", shards: many, timeout: { h: 1 } }
  d: { run: x, outputs: dist, matrix: [1, 2], secrets: { a: b }, required: 1 }
",
        expect![[r#"
            2:20 jobs.b.on: one word belongs here
                why: `on` takes one of `change` `queue` `land` `manual`
               hint: write one of: change, queue, land, manual
            2:43 jobs.b.needs: a mapping does not belong here
                why: `needs` takes the name of a job: 1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit,
                     without `..`
               hint: write for example `needs: [wheel]`
            3:21 jobs.c.env: a list does not belong here
                why: `env` takes a mapping from names to values
               hint: write for example `env: { name: value }`
            3:37 jobs.c.network: the text `"true"` does not belong here
                why: `network` takes `true` or `false`
               hint: write for example `network: true`
            3:53 jobs.c.shards: `many` is not a whole number from 1 to 512
                why: `shards` takes no other value
               hint: write a number from 1 to 512
            3:68 jobs.c.timeout: a mapping does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
            4:25 jobs.d.outputs: `dist` does not belong here
                why: `outputs` takes a mapping from names to values
               hint: write for example `outputs: { name: value }`
            4:39 jobs.d.matrix: a list does not belong here
                why: `matrix` takes keys, each with a list of values, and `exclude` with combinations to leave out
               hint: write for example `matrix: { python: [3.12, 3.13] }`
            4:56 jobs.d.secrets: a mapping does not belong here
                why: `secrets` takes the name of a secret: 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or
                     digit, without `..`
               hint: write for example `secrets: [registry-token]`
            4:76 jobs.d.required: `1` does not belong here
                why: `required` takes `true` or `false`
               hint: write for example `required: true`
        "#]],
    );
}

#[test]
fn what_comes_later_is_refused_by_name() {
    check(
        "\
gate: { proof: inputs, protected: [ci/**] }
defaults: { image: debian }
jobs:
  a:
    run: x
    on: [change, { schedule: \"0 2 * * *\" }, release]
    cache: { pip: ~/.cache/pip }
    image: debian
    services: []
    namespace: x
    resources: { memory: 4G }
    reuse: true
    fresh: 24h
    reports: { coverage: coverage.xml }
  b: { run: x, on: release }
  c: { run: x, on: { schedule: \"0 2 * * *\" } }
",
        expect![[r#"
            1:16 gate.proof: `inputs` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: write `tree`: a result counts for every commit with the same tree
            1:24 gate.protected: `protected` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; `approvals` asks for people's eyes on every change
            2:13 defaults.image: `image` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; jobs run in the host's sandbox, with the tools of the host
            6:18 jobs.a.on[1]: `schedule` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: write `manual`; nothing would start it on a schedule yet
            6:45 jobs.a.on[2]: `release` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: write `manual`; nothing would start it for a release yet
            7:5 jobs.a.cache: `cache` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; fetch what the job needs, with `network: true`
            8:5 jobs.a.image: `image` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; the job runs in the host's sandbox, with the tools of the host
            9:5 jobs.a.services: `services` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: start the service in `run`, in the background
            10:5 jobs.a.namespace: `namespace` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; deploy to an `environment` after landing
            11:5 jobs.a.resources: `resources` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; the server's limits hold for every job
            12:5 jobs.a.reuse: `reuse` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; the job runs for each tree
            13:5 jobs.a.fresh: `fresh` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: delete it; the job runs for each tree
            14:16 jobs.a.reports.coverage: `coverage` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: keep the file with `outputs: { coverage: coverage.xml }`
            15:20 jobs.b.on: `release` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: write `manual`; nothing would start it for a release yet
            16:20 jobs.c.on: `schedule` comes in a later version
                why: this version cannot do it, and leaving it out without a word would be a trap
               hint: write `manual`; nothing would start it on a schedule yet
        "#]],
    );
}

#[test]
fn durations_need_units_and_bounds() {
    check(
        "\
budget: { change: 2 days }
jobs:
  a: { run: x, timeout: 15 }
  b: { run: x, timeout: 25h }
  c: { run: x, timeout: 0s }
  d: { run: x, timeout: 30m1h }
  e: { run: x, timeout: -5m }
  f: { run: x, timeout: 1h30m }
",
        expect![[r#"
            1:19 budget.change: `2 days` does not belong here
                why: `change` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `change: 1h30m`
            3:25 jobs.a.timeout: `15` has no unit
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write `15m` or `15s`
            4:25 jobs.b.timeout: `25h` does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
            5:25 jobs.c.timeout: `0s` does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
            6:25 jobs.d.timeout: `30m1h` does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
            7:25 jobs.e.timeout: `-5m` does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
        "#]],
    );
}

#[test]
fn numbers_have_bounds() {
    check(
        "\
gate: { approvals: -1 }
jobs:
  a: { run: x, shards: 513 }
  b: { run: x, retry: { errored: 6, failed: 99999999999 } }
  c: { run: x, shards: 2.5 }
  d: { run: x, retry: 2 }
",
        expect![[r#"
            1:20 gate.approvals: `-1` is not a whole number from 0 to 20
                why: `approvals` takes no other value
               hint: write a number from 0 to 20
            3:24 jobs.a.shards: `513` is not a whole number from 1 to 512
                why: `shards` takes no other value
               hint: write a number from 1 to 512
            4:34 jobs.b.retry.errored: `6` is not a whole number from 0 to 5
                why: `errored` takes no other value
               hint: write a number from 0 to 5
            4:45 jobs.b.retry.failed: `99999999999` is not a whole number from 0 to 5
                why: `failed` takes no other value
               hint: write a number from 0 to 5
            5:24 jobs.c.shards: `2.5` is not a whole number from 1 to 512
                why: `shards` takes no other value
               hint: write a number from 1 to 512
            6:23 jobs.d.retry: `2` does not belong here
                why: `retry` takes a mapping with `errored` `failed`
               hint: write for example `retry: { errored: 2 }`
        "#]],
    );
}
