//! One test for each kind of mistake: where it is, what, why, and what to write instead.

use expect_test::expect;
use towpath_pipeline::{Definition, FILE_NAME};

use crate::support::check;

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
    expect!["towpath.yaml:2:22: jobs.unit: unknown key `timout`; why: a key that nothing reads would change nothing, unseen; hint: did you mean `timeout`?"].assert_eq(&errors.lines().join("\n"));
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
               hint: known here: run, on, needs, required, when, env, timeout, retry, shards, matrix, outputs, reports, network, history, checkout, secrets, environment, restartable, aborts, user_namespaces
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
  b: { run: x, on: { push: main }, needs: { a: 1 } }
  c: { run: x, env: [A=1], network: \"true\", shards: many, timeout: { h: 1 } }
  d: { run: x, outputs: dist, matrix: [1, 2], secrets: { a: b }, required: 1 }
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
            6:20 jobs.b.on: one word belongs here
                why: `on` takes one of `change` `queue` `land` `manual`
               hint: write one of: change, queue, land, manual
            6:43 jobs.b.needs: a mapping does not belong here
                why: `needs` takes the name of a job: 1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: write for example `needs: [wheel]`
            7:21 jobs.c.env: a list does not belong here
                why: `env` takes a mapping from names to values
               hint: write for example `env: { name: value }`
            7:37 jobs.c.network: the text `"true"` does not belong here
                why: `network` takes `true` or `false`
               hint: write for example `network: true`
            7:53 jobs.c.shards: `many` is not a whole number from 1 to 512
                why: `shards` takes no other value
               hint: write a number from 1 to 512
            7:68 jobs.c.timeout: a mapping does not belong here
                why: `timeout` takes a duration: whole hours, minutes and seconds with their units, from `1s` to `24h`
               hint: write for example `timeout: 1h30m`
            8:25 jobs.d.outputs: `dist` does not belong here
                why: `outputs` takes a mapping from names to values
               hint: write for example `outputs: { name: value }`
            8:39 jobs.d.matrix: a list does not belong here
                why: `matrix` takes keys, each with a list of values, and `exclude` with combinations to leave out
               hint: write for example `matrix: { python: [3.12, 3.13] }`
            8:56 jobs.d.secrets: a mapping does not belong here
                why: `secrets` takes the name of a secret: 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: write for example `secrets: [registry-token]`
            8:76 jobs.d.required: `1` does not belong here
                why: `required` takes `true` or `false`
               hint: write for example `required: true`
            9:6 jobs.e: a list does not belong here
                why: `e` takes a mapping with `run` `on` `needs` `required` `when` `env` `timeout` `retry` `shards` `matrix` `outputs` `reports` `network` `history` `checkout` `secrets` `environment` `restartable` `aborts` `user_namespaces`
               hint: write for example `e: { run: make check }`
            10:4 jobs.f: the job `f` is empty
                why: a job does nothing without a script
               hint: write its script, such as `make check`
            11:13 jobs.g.run: the text `""` does not belong here
                why: `run` takes one text, of one line or, after `|`, of several
               hint: write for example `run: cargo test`
            12:26 jobs.h.env.A: a list does not belong here
                why: `A` takes text
               hint: write for example `A: "text"`
            12:32 jobs.h.env.B: nothing stands here
                why: `B` takes text
               hint: write for example `B: "text"`
        "#]],
    );
}

#[test]
fn the_whole_file_of_another_shape_is_refused() {
    check(
        "- jobs\n- gate\n",
        expect![[r#"
            1:1 a list does not belong here
                why: a pipeline file is a mapping with `gate` `budget` `defaults` `jobs`
               hint: write for example `{ jobs: { test: make check } }`
        "#]],
    );
    check(
        "make check\n",
        expect![[r#"
            1:1 `make check` does not belong here
                why: a pipeline file is a mapping with `gate` `budget` `defaults` `jobs`
               hint: write for example `{ jobs: { test: make check } }`
        "#]],
    );
    check(
        "",
        expect![[r#"
        1:1 the file is empty
            why: a definition without jobs would test nothing
           hint: write `jobs:` with at least one job, or delete the file to have the usual checks detected
    "#]],
    );
    check(
        "# nothing here yet\n",
        expect![[r#"
        1:1 the file is empty
            why: a definition without jobs would test nothing
           hint: write `jobs:` with at least one job, or delete the file to have the usual checks detected
    "#]],
    );
    check(
        "gate: { strategy: merge }\n",
        expect![[r#"
        1:1 `jobs` is missing
            why: a pipeline is its jobs
           hint: add `jobs:`
    "#]],
    );
    check(
        "jobs:\n",
        expect![[r#"
        1:5 jobs: nothing stands here
            why: `jobs` takes a mapping from job names to jobs
           hint: write for example `jobs: { test: make check }`
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
fn needs_must_exist_and_lead_somewhere() {
    check(
        "\
jobs:
  wheel: { run: x }
  unit: { run: x, needs: [whel, unit, wheel, wheel, nothing-like-it] }
  stop: { run: x, needs: [wheel], aborts: [wheel, stop, wehel, unit] }
",
        expect![[r#"
            3:27 jobs.unit.needs: there is no job `whel`
                why: no job under `jobs` has this name
               hint: did you mean `wheel`?
            3:33 jobs.unit.needs: `unit` names itself
                why: a job can neither wait for itself nor stop itself
               hint: delete it here
            3:46 jobs.unit.needs: `wheel` is listed twice
                why: each entry counts once
               hint: delete one of the two
            3:53 jobs.unit.needs: there is no job `nothing-like-it`
                why: no job under `jobs` has this name
               hint: add a job `nothing-like-it`, or delete it here
            4:44 jobs.stop.aborts: `wheel` has always ended by then
                why: this job needs it, directly or through others, so it ends first
               hint: delete it here
            4:51 jobs.stop.aborts: `stop` names itself
                why: a job can neither wait for itself nor stop itself
               hint: delete it here
            4:57 jobs.stop.aborts: there is no job `wehel`
                why: no job under `jobs` has this name
               hint: did you mean `wheel`?
        "#]],
    );
}

#[test]
fn circles_are_named() {
    check(
        "\
jobs:
  a: { run: x, needs: [b] }
  b: { run: x, needs: [c, d] }
  c: { run: x, needs: [a] }
  d: { run: x }
  e:
    run: x
    needs:
      - f
  f: { run: x, needs: [e, a] }
",
        expect![[r#"
            2:23 jobs: a circle of needs: a -> b -> c -> a
                why: none of them could ever start
               hint: take one of these names out of `needs`
            9:7 jobs: a circle of needs: e -> f -> e
                why: none of them could ever start
               hint: take one of these names out of `needs`
        "#]],
    );
}

#[test]
fn an_abort_of_what_has_ended_is_refused() {
    check(
        "jobs:\n  a: { run: x }\n  b: { run: x, needs: [a] }\n  c: { run: x, needs: [b], aborts: [a] }\n",
        expect![[r#"
            4:37 jobs.c.aborts: `a` has always ended by then
                why: this job needs it, directly or through others, so it ends first
               hint: delete it here
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

#[test]
fn names_are_safe_as_files_and_variables() {
    check(
        "\
jobs:
  unit/a: x
  unit@target: x
  \"unit[1]\": x
  a..b: { run: x, outputs: { ../x: a, .hidden: b } }
  ok: { run: x, secrets: [../key, \"a b\"], env: { 1A: x, A-B: x, \"\": x }, environment: a/b, on: [land] }
  9: x
  [a]: x
",
        expect![[r#"
            2:3 jobs.unit/a: `unit/a` cannot be the name of a job
                why: such a name has 1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            3:3 jobs.unit@target: `unit@target` cannot be the name of a job
                why: such a name has 1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            4:3 jobs.unit[1]: `unit[1]` cannot be the name of a job
                why: such a name has 1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            5:3 jobs.a..b: `a..b` cannot be the name of a job
                why: such a name has 1 to 80 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            5:30 jobs.a..b.outputs.../x: `../x` cannot be the name of an output
                why: such a name has 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            5:39 jobs.a..b.outputs..hidden: `.hidden` cannot be the name of an output
                why: such a name has 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            6:27 jobs.ok.secrets[0]: `../key` cannot be the name of a secret
                why: such a name has 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            6:35 jobs.ok.secrets[1]: `a b` cannot be the name of a secret
                why: such a name has 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            6:50 jobs.ok.env.1A: `1A` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH_`, which Towpath alone sets
               hint: choose another name
            6:57 jobs.ok.env.A-B: `A-B` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH_`, which Towpath alone sets
               hint: choose another name
            6:65 jobs.ok.env.: `` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH_`, which Towpath alone sets
               hint: choose another name
            6:87 jobs.ok.environment: `a/b` cannot be the name of an environment
                why: such a name has 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            8:3 a key that is not text
                why: a key is a word; lists, mappings and nothing at all cannot be one
               hint: write a word before the `:`
        "#]],
    );
}

#[test]
fn a09_variables_of_towpath_itself_are_refused() {
    check(
        "\
defaults: { env: { TOWPATH_TOKEN: x } }
jobs:
  a: { run: x, env: { TOWPATH_SHARD: \"1\", BASH_ENV: ./x.sh } }
",
        expect![[r#"
            1:20 defaults.env.TOWPATH_TOKEN: `TOWPATH_TOKEN` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH_`, which Towpath alone sets
               hint: choose another name
            3:23 jobs.a.env.TOWPATH_SHARD: `TOWPATH_SHARD` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH_`, which Towpath alone sets
               hint: choose another name
        "#]],
    );
}

#[test]
fn c03_paths_stay_in_the_work_tree() {
    check(
        "\
jobs:
  a: { run: x, outputs: { x: ../../*, y: /etc/*, ../z: dist, ok: dist/*.whl } }
  b: { run: x, reports: { junit: /proc/self/environ } }
  c: { run: x, when: { paths: [../a, ~/x, \"!/etc\", \".git/config\", \"a\\\\b\", \"{a,b}\", \"**.rs\", \"[\", \"\"] } }
",
        expect![[r#"
            2:30 jobs.a.outputs.x: `../../*` is not a path in the work tree
                why: `..` leaves the work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
            2:42 jobs.a.outputs.y: `/etc/*` is not a path in the work tree
                why: it is absolute, and a job sees only paths below its work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
            2:50 jobs.a.outputs.../z: `../z` cannot be the name of an output
                why: such a name has 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`
               hint: choose another name
            3:34 jobs.b.reports.junit: `/proc/self/environ` is not a path in the work tree
                why: it is absolute, and a job sees only paths below its work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
            4:32 jobs.c.when.paths[0]: `../a` is not a path in the work tree
                why: `..` leaves the work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
            4:38 jobs.c.when.paths[1]: `~/x` is not a path in the work tree
                why: `~` is a home folder, and a job sees only paths below its work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
            4:43 jobs.c.when.paths[2]: `/etc` is not a path in the work tree
                why: it is absolute, and a job sees only paths below its work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
            4:52 jobs.c.when.paths[3]: `.git/config` is not a path in the work tree
                why: `.git` is not part of the tree
               hint: let the job copy what it needs from there into a file of the work tree
            4:67 jobs.c.when.paths[4]: `a\b` is not a path in the work tree
                why: `\` neither separates folders nor escapes here
               hint: separate folders with `/`; write `[*]` for a literal `*`
            4:75 jobs.c.when.paths[5]: `{a,b}` is not a path in the work tree
                why: `{a,b}` is not understood
               hint: write one entry for each alternative
            4:84 jobs.c.when.paths[6]: `**.rs` is not a path in the work tree
                why: `**` stands for whole folders, so it must be alone between slashes
               hint: write `**/*.rs` for every `.rs` file, or `src/**` for everything below `src`
            4:93 jobs.c.when.paths[7]: `[` is not a path in the work tree
                why: the class in `[...]` is not complete
               hint: write `[abc]`, `[a-z]` or `[!a-z]`
            4:98 jobs.c.when.paths[8]: `` is not a path in the work tree
                why: it names no path
               hint: write a path such as `dist/*.whl`, or `**` for everything
        "#]],
    );
}

#[test]
fn a28_nothing_is_put_into_a_script() {
    let yaml = "jobs:\n  a:\n    run: echo \"${{ change.title }}\" $(id)\n    matrix: { x: [1] }\n";
    check(
        yaml,
        expect![[r#"
        3:10 warning: jobs.a.run: `${{` is not a template here
            why: nothing is ever put into `run`, so the shell sees `${{` as it stands and stops at it
           hint: use a variable of the shell: `$TOWPATH_MATRIX_<KEY>`, `$TOWPATH_SHARD`, or one of `env`
    "#]],
    );
    let definition = Definition::parse(FILE_NAME, yaml.as_bytes()).unwrap();
    assert_eq!(definition.jobs[0].body.run, "echo \"${{ change.title }}\" $(id)");
}

#[test]
fn matrices_are_checked() {
    check(
        "\
jobs:
  a: { run: x, matrix: {} }
  b: { run: x, matrix: { salt: [] } }
  c: { run: x, matrix: { Salt: [a], py: [3.10, 3.10, \"a b\", a/b, \"\", [x]] } }
  d: { run: x, matrix: { salt: [a, b], exclude: [{ slat: a }, { salt: c }, {}] } }
  e: { run: x, matrix: { salt: [a, b], exclude: [{ salt: a }, { salt: b }] } }
  f: { run: x, matrix: { exclude: [] } }
",
        expect![[r#"
            2:24 jobs.a.matrix: the matrix is empty
                why: a matrix without a single cell makes no job at all
               hint: add a key with values, or delete `matrix`
            3:32 jobs.b.matrix.salt: no values
                why: a key without values leaves no cell
               hint: add a value, or delete the key
            4:26 jobs.c.matrix.Salt: `Salt` cannot be the name of a matrix key
                why: such a name has 1 to 32 lower-case letters, digits and `_`, beginning with a letter
               hint: choose another name
            4:48 jobs.c.matrix.py: `3.10` is listed twice
                why: each entry counts once
               hint: delete one of the two
            4:54 jobs.c.matrix.py[2]: `a b` cannot be a matrix value
                why: it takes 1 to 40 visible characters without spaces and `,=/[]`, as they become part of the job's name
               hint: write a short word, and let the script make of it what it needs
            4:61 jobs.c.matrix.py[3]: `a/b` cannot be a matrix value
                why: it takes 1 to 40 visible characters without spaces and `,=/[]`, as they become part of the job's name
               hint: write a short word, and let the script make of it what it needs
            4:66 jobs.c.matrix.py[4]: `` cannot be a matrix value
                why: it takes 1 to 40 visible characters without spaces and `,=/[]`, as they become part of the job's name
               hint: write a short word, and let the script make of it what it needs
            4:70 jobs.c.matrix.py[5]: a list does not belong here
                why: `py` takes 1 to 40 visible characters without spaces and `,=/[]`, as they become part of the job's name
               hint: write for example `py: [stable, latest]`
            5:52 jobs.d.matrix.exclude: `slat` is not in the matrix
                why: an exclusion of what is not there would leave out nothing
               hint: did you mean `salt`?
            5:71 jobs.d.matrix.exclude: `c` is not in the matrix
                why: an exclusion of what is not there would leave out nothing
               hint: name a key of this matrix and one of its values
            5:76 jobs.d.matrix.exclude: nothing to exclude
                why: an empty combination would leave out every cell
               hint: name a key and one of its values
            6:24 jobs.e.matrix: the matrix is empty
                why: a matrix without a single cell makes no job at all
               hint: add a key with values, or delete `matrix`
            7:24 jobs.f.matrix: the matrix is empty
                why: a matrix without a single cell makes no job at all
               hint: add a key with values, or delete `matrix`
        "#]],
    );
}

#[test]
fn deployments_run_after_landing() {
    check(
        "\
jobs:
  a: { run: x, environment: staging }
  b: { run: x, environment: staging, on: [queue, land] }
  c: { run: x, environment: staging, on: [land] }
  d: { run: x, needs: [c] }
  e: { run: x, restartable: true }
  f: { run: x, environment: staging, on: [land], retry: { errored: 1 } }
  g: { run: x, environment: staging, on: [land], retry: { errored: 1 }, restartable: true }
",
        expect![[r#"
            2:29 jobs.a: it would deploy before landing
                why: a job with `environment` deploys, and `change` and `queue` (the default of `on`) run before landing
               hint: write `on: [land]` or `on: [manual]`
            3:42 jobs.b: it would deploy before landing
                why: a job with `environment` deploys, and `change` and `queue` (the default of `on`) run before landing
               hint: write `on: [land]` or `on: [manual]`
            4:29 jobs.c: it would deploy before landing
                why: a job that runs before landing needs it, so it would run there too
               hint: take this job out of the other's `needs`, or let the other run on `land`
            6:29 jobs.e: `restartable` without a deployment
                why: it says that a deployment may be tried again, and this job has no `environment`
               hint: delete it, or say which `environment` the job deploys to
            7:68 jobs.f: a deployment that retries
                why: a deployment that may have happened halfway is not repeated by itself
               hint: add `restartable: true` if running it again does no harm, else delete `errored`
        "#]],
    );
}

#[test]
fn contradictions_are_refused() {
    check(
        "\
jobs:
  a: { run: x, required: true, on: [land] }
  b: { run: x, checkout: false, history: true }
",
        expect![[r#"
            2:26 jobs.a: it is required but never runs before landing
                why: a required job runs before landing, so `on` must have `queue`
               hint: add `queue` to `on`, or delete `required`
            3:42 jobs.b: a history without files
                why: with `checkout: false` there is no work tree that could have a history
               hint: delete one of the two keys
        "#]],
    );
}

#[test]
fn a_bar_that_lands_nothing_is_warned_about() {
    check(
        "jobs: {}\n",
        expect![[r#"
        1:7 warning: no change can land
            why: no job has `queue` in `on`, so nothing would be tested before landing, and such a change is refused
           hint: add `queue` to the `on` of a job, or write `gate: { empty: land }` if nothing needs a test
    "#]],
    );
    check(
        "jobs: { a: { run: x, on: [change] } }\n",
        expect![[r#"
        1:7 warning: no change can land
            why: no job has `queue` in `on`, so nothing would be tested before landing, and such a change is refused
           hint: add `queue` to the `on` of a job, or write `gate: { empty: land }` if nothing needs a test
    "#]],
    );
    check(
        "jobs: { a: { run: x, when: { paths: [src] } } }\n",
        expect![[r#"
        1:7 warning: some changes cannot land
            why: every required job has `when`, and a change for which all of them are skipped is refused
           hint: take `when` from one required job, or write `gate: { empty: land }` if such a change needs no test
    "#]],
    );
    check(
        "gate: { empty: land }\njobs: { a: { run: x, when: { paths: [src] } } }\n",
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn tabs_are_named() {
    check(
        "jobs:\n  a:\n\trun: x\n",
        expect![[r#"
        3:1 a tab indents this line
            why: YAML indents with spaces only
           hint: replace each tab by two spaces; what stands below this line was not checked
    "#]],
    );
    check(
        "jobs:\n  a: { rn: x }\n  b:\n    run: x\n  \ttimeout: 5m\n",
        expect![[r#"
            2:8 jobs.a: unknown key `rn`
                why: a key that nothing reads would change nothing, unseen
               hint: did you mean `run`?
            5:3 a tab indents this line
                why: YAML indents with spaces only
               hint: replace each tab by two spaces; what stands below this line was not checked
        "#]],
    );
    check(
        "jobs:\n  a:\n    run: |\n      all:\n      \tmake\n",
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn broken_yaml_is_told_with_what_stands_above_it() {
    check(
        "jobs:\n  a: { run: x, neds: [b] }\n  b: { run: 'x }\n",
        expect![[r#"
        2:16 jobs.a: unknown key `neds`
            why: a key that nothing reads would change nothing, unseen
           hint: did you mean `needs`?
        3:13 this is not YAML
            why: while scanning a quoted scalar, found unexpected end of stream
           hint: look for a missing quote, bracket or `:` here or just above; what stands below was not checked
    "#]],
    );
    check(
        "jobs:\n  a: { run: x\n  b: { run: x }\n",
        expect![[r#"
        3:4 this is not YAML
            why: while parsing a flow mapping, did not find expected ',' or '}'
           hint: look for a missing quote, bracket or `:` here or just above; what stands below was not checked
    "#]],
    );
    check(
        "jobs:\n  a: *nowhere\n",
        expect![[r#"
            2:6 this alias has no anchor
                why: `*name` repeats the value before which `&name` stands, above it in the file
               hint: put `&name` before that value, or quotes around the text; what stands below was not checked
        "#]],
    );
    check(
        "jobs: {a: x}}\n",
        expect![[r#"
        1:13 this is not YAML
            why: misplaced bracket
           hint: look for a missing quote, bracket or `:` here or just above; what stands below was not checked
    "#]],
    );
}

#[test]
fn duplicates_documents_and_tags_are_refused() {
    check(
        "jobs:\n  a: { run: x, run: y }\n  b: x\n  a: z\n",
        expect![[r#"
        2:16 the key `run` stands here twice
            why: line 2 has it already, and only one can hold
           hint: delete one of the two
        4:3 the key `a` stands here twice
            why: line 2 has it already, and only one can hold
           hint: delete one of the two
    "#]],
    );
    check(
        "jobs: { a: x }\n---\njobs: { b: x }\n",
        expect![[r#"
        2:1 a second document begins here
            why: a pipeline file is one YAML document, and `---` begins another
           hint: delete the `---` and join both parts, or delete one of them
    "#]],
    );
    check(
        "jobs:\n  a: { run: x, when: { paths: [ !docs/** ] } }\n  b: !!str x\n",
        expect![[r#"
        2:33 the tag `!docs/**` is not allowed
            why: a word that begins with `!` is a YAML tag, and a pipeline file has none
           hint: put quotes around the text if the `!` belongs to it: "!docs/**"
        2:33 jobs.a.when.paths[0]: nothing stands here
            why: `paths` takes paths below the repository's root, `!` in front of those to leave out
           hint: write for example `paths: [src/**, "!**/*.md"]`
        3:6 the tag `tag:yaml.org,2002:!str` is not allowed
            why: a word that begins with `!` is a YAML tag, and a pipeline file has none
           hint: put quotes around the text if the `!` belongs to it: "!docs/**"
    "#]],
    );
    check(
        "jobs:\n  a: { ? [x] : y }\n",
        expect![[r#"
            2:6 jobs.a: `run` is missing
                why: a job does nothing without a script
               hint: add `run:`
            2:10 a key that is not text
                why: a key is a word; lists, mappings and nothing at all cannot be one
               hint: write a word before the `:`
        "#]],
    );
}

#[test]
fn what_cannot_be_seen_is_refused() {
    check(
        "jobs:\n  a: make \u{202e}check\n",
        expect![[r#"
        2:11 the character U+202E stands here
            why: control characters and those that turn the direction of text hide what the file says
           hint: delete it, or write it as `\u202e` within double quotes
    "#]],
    );
    check(
        "jobs:\n  a: make \u{1b}[0m\n",
        expect![[r#"
        2:11 the character U+001B stands here
            why: control characters and those that turn the direction of text hide what the file says
           hint: delete it, or write it as `\u001b` within double quotes
    "#]],
    );
    check(
        "jobs:\n  a: \"make \\0\"\n",
        expect![[r#"
        2:6 jobs.a: this text contains a zero byte
            why: a program's arguments and variables end at the first zero byte
           hint: delete the `\0`
    "#]],
    );
    let errors = Definition::parse(FILE_NAME, b"jobs:\n  a: caf\xe9\n").unwrap_err();
    expect!["towpath.yaml:2:9: this byte is not UTF-8; why: a pipeline file is text in UTF-8; hint: save the file as UTF-8, without any other encoding"].assert_eq(&errors.lines().join("\n"));
}

#[test]
fn anchors_aliases_and_merges_are_allowed() {
    check(
        "\
jobs:
  a: &a { run: &run make check, env: &env { A: 1 } }
  b: { <<: *a, timeout: 5m }
  c: { run: *run, env: { <<: *env, B: 2 } }
  d: { <<: [*a, { network: true }], run: y }
",
        expect![[r#"
            ok
        "#]],
    );
    check(
        "jobs:\n  a: &a { run: x, env: *a }\n",
        expect![[r#"
        2:24 an anchor contains itself
            why: the alias stands inside the value that its anchor names, so it would never end
           hint: name a smaller part with the anchor, or write the value out
    "#]],
    );
    check(
        "jobs:\n  a: &a x\n  b: { <<: *a }\n",
        expect![[r#"
        3:6 jobs.b: `run` is missing
            why: a job does nothing without a script
           hint: add `run:`
        3:8 `<<` without a mapping
            why: `<<` takes over the keys of a mapping, and this is none
           hint: write `<<: *name`, where `&name` stands before a mapping
    "#]],
    );
}
