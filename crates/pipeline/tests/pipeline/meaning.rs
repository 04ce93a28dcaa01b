//! Names, paths and jobs that do not fit together.

use expect_test::expect;
use towpath_pipeline::{Definition, FILE_NAME};

use crate::support::check;

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
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH`, which only
                     Towpath sets
               hint: choose another name
            6:57 jobs.ok.env.A-B: `A-B` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH`, which only
                     Towpath sets
               hint: choose another name
            6:65 jobs.ok.env.: `` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH`, which only
                     Towpath sets
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
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH`, which only
                     Towpath sets
               hint: choose another name
            3:23 jobs.a.env.TOWPATH_SHARD: `TOWPATH_SHARD` cannot be the name of a variable
                why: such a name has 1 to 128 letters, digits and `_`, not beginning with a digit, nor with `TOWPATH`, which only
                     Towpath sets
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
fn a_condition_has_a_path_at_least() {
    check(
        "jobs:\n  a: { run: x, when: { paths: [] } }\n  b: { run: x, when: { paths: [/x] } }\n",
        expect![[r#"
            2:31 jobs.a.when.paths: no path
                why: without a path no change would concern the job
               hint: add a path, or delete `when`
            3:32 jobs.b.when.paths[0]: `/x` is not a path in the work tree
                why: it is absolute, and a job sees only paths below its work tree
               hint: write the path from the root of the repository, such as `dist/*.whl`; let the job copy what lies elsewhere
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
