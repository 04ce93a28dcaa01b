//! From a definition to the jobs of a run.

use expect_test::{Expect, expect};
use towpath_core::candidate::Strategy;
use towpath_core::definition::{EmptySet, Proof};
use towpath_core::graph::{JobGraph, Trigger};
use towpath_pipeline::{Changed, JobExplanation, explain};

use crate::support::{file, graph_text, parse};

fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&graph_text(&parse(yaml).expand(Changed::Unknown)));
}

fn check_changed(yaml: &str, paths: &[&str], expected: Expect) {
    let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    expected.assert_eq(&graph_text(&parse(yaml).expand(Changed::Paths(&paths)).select(Trigger::Queue)));
}

fn graph(yaml: &str) -> JobGraph {
    parse(yaml).expand(Changed::Unknown)
}

#[test]
fn jobs_come_after_what_they_need() {
    check(
        "\
jobs:
  deploy: { run: ./deploy, on: [land], needs: [unit] }
  unit: { run: pytest, needs: [wheel] }
  lint: ruff check
  wheel: { run: build, on: [] }
  nightly: { run: soak, on: manual, required: false, aborts: [lint, deploy] }
",
        expect![[r#"
            lint: ruff check | on change,queue | required
            wheel: build | on 
            unit: pytest | on change,queue | required | needs wheel
            deploy: ./deploy | on land | needs unit
            nightly: soak | on manual | aborts lint deploy
        "#]],
    );
}

#[test]
fn matrix_and_shards_make_cells_with_names() {
    check(
        "\
jobs:
  wheel: { run: build, matrix: { py: [3.9, 3.10] } }
  unit: { run: pytest, shards: 2, needs: [wheel] }
  both: { run: x, shards: 2, matrix: { salt: [pinned, git], py: [3], exclude: [{ salt: git }] }, aborts: [unit] }
  report: { run: y, needs: [both] }
",
        expect![[r#"
            wheel[py=3.9]: build | on change,queue | required
            wheel[py=3.10]: build | on change,queue | required
            unit[1/2]: pytest | on change,queue | required | needs wheel[py=3.9] wheel[py=3.10]
            unit[2/2]: pytest | on change,queue | required | needs wheel[py=3.9] wheel[py=3.10]
            both[salt=pinned,py=3,1/2]: x | on change,queue | required | aborts unit[1/2] unit[2/2]
            both[salt=pinned,py=3,2/2]: x | on change,queue | required | aborts unit[1/2] unit[2/2]
            report: y | on change,queue | required | needs both[salt=pinned,py=3,1/2] both[salt=pinned,py=3,2/2]
        "#]],
    );
}

#[test]
fn a_cell_knows_its_values_and_its_shard() {
    let graph = graph("jobs:\n  a: { run: x, shards: 3, matrix: { salt: [git], py: [3.10, true] } }\n");
    let body = &graph.jobs[4].body;
    assert_eq!(graph.jobs[4].name.as_str(), "a[salt=git,py=true,2/3]");
    assert_eq!(body.shard, Some((2, 3)));
    assert_eq!(
        body.matrix,
        [("py".to_owned(), "true".to_owned()), ("salt".to_owned(), "git".to_owned())].into()
    );
    assert_eq!(graph.jobs[0].body.matrix["py"], "3.10");
}

#[test]
fn defaults_hold_where_a_job_says_nothing() {
    let yaml = "\
gate: { strategy: squash, approvals: 2, proof: commit, empty: land }
budget: { change: 15m }
defaults: { timeout: 5m, network: true, history: true, env: { A: 1, B: 2 }, retry: { errored: 1, failed: 1 } }
jobs:
  a: x
  b: { run: y, timeout: 90s, network: false, env: { B: yes, C: \"\" }, retry: { failed: 0 }, history: false }
  c: { run: z, checkout: false }
  d: { run: w, on: [land], environment: staging, secrets: key }
  e: { run: w, on: [land], environment: staging, restartable: true }
";
    let definition = parse(yaml);
    let gate = definition.gate;
    assert_eq!((gate.strategy, gate.approvals), (Strategy::Squash, Some(2)));
    assert_eq!((gate.proof, gate.empty), (Proof::Commit, EmptySet::Land));
    assert_eq!(definition.budget_seconds, Some(900));
    let body = |at: usize| definition.jobs[at].body.clone();
    let env = |at: usize| {
        body(at).env.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    assert_eq!((body(0).timeout_seconds, body(0).retry_errored, body(0).retry_failed), (300, 1, 1));
    assert_eq!(
        (body(0).network, body(0).history, env(0)),
        (true, true, vec!["A=1".to_owned(), "B=2".to_owned()])
    );
    assert_eq!((body(1).timeout_seconds, body(1).retry_errored, body(1).retry_failed), (90, 1, 0));
    assert_eq!((body(1).network, body(1).history), (false, false));
    assert_eq!(env(1), ["A=1", "B=yes", "C="]);
    assert_eq!((body(2).checkout, body(2).history), (false, false));
    assert_eq!((body(3).retry_errored, body(3).secrets), (0, vec!["key".to_owned()]));
    assert_eq!(body(4).retry_errored, 1);
}

#[test]
fn without_defaults_the_documented_ones_hold() {
    let definition = parse("jobs: { a: make check }");
    let body = &definition.jobs[0].body;
    assert_eq!(*body, towpath_core::graph::JobBody::script("make check"));
    assert_eq!(definition.gate, Default::default());
    assert_eq!(definition.jobs[0].on, [Trigger::Change, Trigger::Queue]);
}

const WITH_PATHS: &str = "\
jobs:
  rust: { run: cargo test, when: { paths: [src/**, Cargo.*, \"!**/*.md\"] } }
  docs: { run: mdbook, when: { paths: [docs, \"**/*.md\"] } }
  wheel: { run: wheel, when: { paths: [py] } }
  unit: { run: pytest, needs: [wheel] }
";

#[test]
fn paths_decide_what_runs() {
    check_changed(
        WITH_PATHS,
        &["src/a.rs"],
        expect![[r#"
        rust: cargo test | on change,queue | required
        docs: mdbook | on change,queue | required | skipped
        wheel: wheel | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
    "#]],
    );
    check_changed(
        WITH_PATHS,
        &["src/README.md"],
        expect![[r#"
        rust: cargo test | on change,queue | required | skipped
        docs: mdbook | on change,queue | required
        wheel: wheel | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
    "#]],
    );
    check_changed(
        WITH_PATHS,
        &["docs/a/b.png", "Cargo.lock"],
        expect![[r#"
        rust: cargo test | on change,queue | required
        docs: mdbook | on change,queue | required
        wheel: wheel | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
    "#]],
    );
    check_changed(
        WITH_PATHS,
        &[],
        expect![[r#"
        rust: cargo test | on change,queue | required | skipped
        docs: mdbook | on change,queue | required | skipped
        wheel: wheel | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
    "#]],
    );
}

#[test]
fn a_job_runs_where_one_that_runs_needs_it_and_rests_where_all_rest() {
    let yaml = "\
jobs:
  wheel: { run: build, when: { paths: [py] } }
  tool: { run: make, on: [] }
  unit: { run: pytest, needs: [wheel, tool], when: { paths: [tests] } }
";
    check_changed(
        yaml,
        &["tests/a.py"],
        expect![[r#"
        wheel: build | on change,queue | required
        tool: make | on 
        unit: pytest | on change,queue | required | needs wheel tool
    "#]],
    );
    check_changed(
        yaml,
        &["docs/a"],
        expect![[r#"
        wheel: build | on change,queue | required | skipped
        unit: pytest | on change,queue | required | needs wheel | skipped
    "#]],
    );
}

#[test]
fn a_path_that_was_renamed_away_counts() {
    let yaml = "jobs: { a: { run: x, when: { paths: [old] } }, b: y }";
    check_changed(
        yaml,
        &["old/a.rs", "new/a.rs"],
        expect![[r#"
        a: x | on change,queue | required
        b: y | on change,queue | required
    "#]],
    );
}

#[test]
fn too_many_comparisons_skip_nothing() {
    let patterns: Vec<String> = (0..1001).map(|at| format!("p{at}")).collect();
    let yaml = format!("jobs: {{ a: {{ run: x, when: {{ paths: [{}] }} }} }}", patterns.join(", "));
    let paths = vec![b"elsewhere".to_vec(); 10_000];
    assert!(parse(&yaml).expand(Changed::Paths(&paths)).jobs[0].skip.is_none());
    assert!(parse(&yaml).expand(Changed::Paths(&paths[..100])).jobs[0].skip.is_some());
}

#[test]
fn explain_says_what_each_job_comes_to() {
    let explained = explain(&file(
        "\
defaults: { network: true }
jobs:
  wheel: { run: build, on: [] }
  unit: { run: pytest, needs: [wheel], shards: 2, when: { paths: [src, \"!docs\"] }, timeout: 5m }
",
    ));
    let text: String = explained.iter().map(explanation).collect();
    expect![[r#"
        wheel (line 3): on [], also in [Change, Queue], required false, needs [], aborts []
          as ["wheel"] when []: `build` within 3600 s, network true
        unit (line 4): on [Change, Queue], also in [], required true, needs ["wheel"], aborts []
          as ["unit[1/2]", "unit[2/2]"] when ["src", "!docs"]: `pytest` within 300 s, network true
    "#]]
    .assert_eq(&text);
}

fn explanation(job: &JobExplanation) -> String {
    let JobExplanation { name, from, on, pulled_into, required, needs, aborts, instances, when, body } = job;
    format!(
        "{name} ({from}): on {on:?}, also in {pulled_into:?}, required {required}, needs {needs:?}, aborts {aborts:?}\n  \
         as {instances:?} when {when:?}: `{}` within {} s, network {}\n",
        body.run, body.timeout_seconds, body.network
    )
}
