//! What a candidate runs, and what a change that edits the definition cannot do to its own bar.

use expect_test::{Expect, expect};
use towpath_core::definition::EmptySet;
use towpath_core::graph::{Openings, Origin, Trigger};
use towpath_pipeline::{Changed, DefinitionFile, RootTree, TreeEntry, plan};

use crate::support::{file, graph_text};

const TARGET: &str = "\
gate: { approvals: 2 }
jobs:
  wheel: { run: build }
  unit: { run: pytest, needs: [wheel], timeout: 5m }
  lint: { run: ruff, on: [change] }
  deploy: { run: ./deploy, on: [land], environment: staging }
";

fn check(target: &str, own: &str, expected: Expect) {
    check_files(&file(target), &file(own), expected);
}

fn check_files(target: &DefinitionFile, own: &DefinitionFile, expected: Expect) {
    let plan = plan(target, own, Changed::Unknown).expect("the own definition is in order");
    for (index, job) in plan.graph.iter() {
        assert!(job.needs.iter().all(|need| *need < index), "{} before what it needs", job.name);
        let reads_own = job.needs.iter().any(|need| plan.graph.job(*need).origin == Origin::Own);
        assert!(job.origin == Origin::Own || !reads_own, "{} reads what the change made", job.name);
    }
    expected.assert_eq(&graph_text(&plan.graph));
}

#[test]
fn an_unedited_definition_is_one_set() {
    check(
        TARGET,
        TARGET,
        expect![[r#"
        wheel: build | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
        lint: ruff | on change
        deploy: ./deploy | on land
    "#]],
    );
    let plan = plan(&file(TARGET), &file(TARGET), Changed::Unknown).unwrap();
    assert_eq!(plan.definition, plan.target_definition);
    assert_eq!(plan.gate.approvals, Some(2));
}

#[test]
fn a_definition_that_requires_nothing_of_what_comes_after_it_is_told_apart() {
    let requires_nothing =
        |own: &str| plan(&file(TARGET), &file(own), Changed::Unknown).unwrap().requires_nothing;
    assert!(!requires_nothing(TARGET));
    assert!(!requires_nothing("jobs: { unit: { run: pytest, when: { paths: [src] } } }"));
    for own in ["jobs: {}", "jobs: { unit: { run: x, required: false }, deploy: { run: x, on: [land] } }"] {
        assert!(requires_nothing(own), "{own}");
        assert!(!requires_nothing(&format!("gate: {{ empty: land }}\n{own}")), "{own}");
    }
}

#[test]
fn a01_deleting_required_jobs_leaves_them_required() {
    check(
        TARGET,
        "jobs: {}",
        expect![[r#"
        wheel: build | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
    "#]],
    );
    check(
        TARGET,
        "jobs: { other: x }",
        expect![[r#"
        wheel: build | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
        other: x | on change,queue | required | own
    "#]],
    );
}

#[test]
fn a01_the_gate_settings_of_the_change_do_not_count() {
    let own = "gate: { approvals: 0, empty: land }\njobs: {}\n";
    let plan = plan(&file(TARGET), &file(own), Changed::Unknown).unwrap();
    assert_eq!((plan.gate.approvals, plan.gate.empty), (Some(2), EmptySet::Refuse));
    assert_ne!(plan.definition, plan.target_definition);
}

#[test]
fn a02_a_job_of_the_same_name_stands_beside_the_targets() {
    check(
        TARGET,
        &TARGET.replace("run: pytest", "run: \"true\""),
        expect![[r#"
        wheel: build | on change,queue | required
        unit@target: pytest | on change,queue | required | needs wheel
        unit: true | on change,queue | required | own | needs wheel
        lint: ruff | on change | own
        deploy: ./deploy | on land | own
    "#]],
    );
}

#[test]
fn a02_a_changed_need_makes_another_job() {
    check(
        TARGET,
        &TARGET.replace("run: build", "run: fake"),
        expect![[r#"
        wheel@target: build | on change,queue | required
        unit@target: pytest | on change,queue | required | needs wheel@target
        wheel: fake | on change,queue | required | own
        unit: pytest | on change,queue | required | own | needs wheel
        lint: ruff | on change | own
        deploy: ./deploy | on land | own
    "#]],
    );
}

#[test]
fn a02_every_part_of_the_body_counts() {
    for edit in [
        "timeout: 5m, retry: { failed: 5 }",
        "timeout: 5m, env: { BASH_ENV: x }",
        "timeout: 5m, shards: 2",
        "timeout: 1s",
        "timeout: 5m, network: true",
        "timeout: 5m, reports: { junit: x }",
        "timeout: 5m, checkout: false",
    ] {
        let own = file(&TARGET.replace("timeout: 5m", edit));
        let graph = plan(&file(TARGET), &own, Changed::Unknown).unwrap().graph;
        let kept = graph.jobs.iter().find(|job| job.name.as_str() == "unit@target").unwrap();
        assert!(kept.required && kept.origin == Origin::Target && kept.body.run == "pytest", "{edit}");
        assert_eq!(kept.body.timeout_seconds, 300, "{edit}");
    }
}

#[test]
fn what_does_not_change_a_body_leaves_one_job_with_both_demands() {
    check(
        TARGET,
        "\
jobs:
  wheel: { run: build, required: false }
  unit: { run: pytest, needs: [wheel], timeout: 5m, on: [land, manual], aborts: [lint] }
  lint: { run: ruff }
",
        expect![[r#"
            wheel: build | on change,queue | required
            unit: pytest | on change,queue,land,manual | required | needs wheel | aborts lint
            lint: ruff | on change,queue | required | own
        "#]],
    );
}

#[test]
fn a09_variables_of_the_change_do_not_reach_required_jobs() {
    let own = file(&format!(
        "defaults: {{ env: {{ LD_PRELOAD: ./x.so }} }}\n{}",
        TARGET.split_once('\n').unwrap().1
    ));
    let graph = plan(&file(TARGET), &own, Changed::Unknown).unwrap().graph;
    let required = graph.jobs.iter().filter(|job| job.origin == Origin::Target);
    assert!(required.clone().count() == 2 && required.clone().all(|job| job.body.env.is_empty()));
}

#[test]
fn cells_of_the_target_stay_when_the_matrix_shrinks() {
    let target = "jobs: { a: { run: x, matrix: { v: [1, 2] } }, b: { run: y, shards: 2 } }";
    let own = "jobs: { a: { run: x, matrix: { v: [2, 3] } }, b: { run: y, shards: 3 } }";
    check(
        target,
        own,
        expect![[r#"
        a@target[v=1]: x | on change,queue | required
        a[v=2]: x | on change,queue | required
        b@target[1/2]: y | on change,queue | required
        b@target[2/2]: y | on change,queue | required
        a[v=3]: x | on change,queue | required | own
        b[1/3]: y | on change,queue | required | own
        b[2/3]: y | on change,queue | required | own
        b[3/3]: y | on change,queue | required | own
    "#]],
    );
}

#[test]
fn optional_jobs_come_from_the_change_alone() {
    check(
        "jobs: { a: x, lint: { run: old, on: [change] }, deploy: { run: old, on: [land] } }",
        "jobs: { a: x, lint: { run: new, on: [change] }, deploy: { run: new, on: [land] } }",
        expect![[r#"
            a: x | on change,queue | required
            lint: new | on change | own
            deploy: new | on land | own
        "#]],
    );
}

#[test]
fn after_landing_nothing_of_the_old_definition_starts() {
    let target = "jobs: { a: { run: x, on: [queue, land, manual] } }";
    let own = "jobs: { a: { run: y, on: [queue] } }";
    let graph = plan(&file(target), &file(own), Changed::Unknown).unwrap().graph;
    assert!(graph.select(Trigger::Land).jobs.is_empty() && graph.select(Trigger::Manual).jobs.is_empty());
}

#[test]
fn a_changed_definition_is_seen_running_whatever_the_paths() {
    let target = "jobs: { a: { run: x, when: { paths: [src] } } }";
    let own = "jobs: { a: { run: x, when: { paths: [nowhere] } } }";
    let paths = vec![b"towpath.yaml".to_vec()];
    let edited = plan(&file(target), &file(own), Changed::Paths(&paths)).unwrap();
    assert!(edited.graph.jobs.iter().all(|job| job.skip.is_none()));
    let unedited = plan(&file(target), &file(target), Changed::Paths(&paths)).unwrap();
    assert!(unedited.graph.jobs.iter().all(|job| job.skip.is_some()));
}

#[test]
fn a04_a_deleted_file_is_an_edit_and_the_target_still_counts() {
    let tree = RootTree {
        names: ["Makefile".to_owned()].into(),
        files: [("Makefile".to_owned(), b"check:\n\ttrue\n".to_vec())].into(),
    };
    let own = DefinitionFile::read(TreeEntry::Absent(&tree));
    let target = file(TARGET);
    assert_ne!(own.digest, target.digest);
    check_files(
        &target,
        &own,
        expect![[r#"
        wheel: build | on change,queue | required
        unit: pytest | on change,queue | required | needs wheel
        make-check: make check | on change,queue | required | own
    "#]],
    );
}

#[test]
fn a04_a_detected_set_that_shrinks_is_an_edit() {
    let tree = |makefile: &str| RootTree {
        names: ["Makefile".to_owned()].into(),
        files: [("Makefile".to_owned(), makefile.as_bytes().to_vec())].into(),
    };
    let (target, own) = (tree("check:\n\t./check\n"), tree("all:\n"));
    let (target, own) =
        (DefinitionFile::read(TreeEntry::Absent(&target)), DefinitionFile::read(TreeEntry::Absent(&own)));
    assert_ne!(target.digest, own.digest);
    check_files(
        &target,
        &own,
        expect![[r#"
        make-check: make check | on change,queue | required
    "#]],
    );
}

#[test]
fn a_broken_own_definition_has_no_plan() {
    let errors = plan(&file(TARGET), &file("jobs: { a: { rn: x } }"), Changed::Unknown).unwrap_err();
    assert_eq!(errors.items.len(), 2);
}

#[test]
fn a_broken_target_is_mended_by_the_change_and_never_passed_over() {
    let broken = file("jobs: { a: { rn: x } }");
    let mended = plan(&broken, &file("gate: { empty: land }\njobs: { a: x }"), Changed::Unknown).unwrap();
    assert!(mended.target_unusable.is_some() && mended.gate.empty == EmptySet::Refuse);
    expect![[r#"
        a: x | on change,queue | required | own
    "#]]
    .assert_eq(&graph_text(&mended.graph));
    assert!(plan(&broken, &broken, Changed::Unknown).is_err());
}

#[test]
fn the_definition_is_a_plain_file() {
    for (mode, what) in [
        (0o120_000, "symbolic link"),
        (0o100_755, "executable"),
        (0o040_000, "not a file"),
        (0o160_000, "not a file"),
    ] {
        let read = DefinitionFile::read(TreeEntry::Present { mode, bytes: TARGET.as_bytes() });
        let errors = read.definition.unwrap_err();
        assert!(errors.items[0].message.contains(what), "{mode:o}: {errors}");
    }
}

#[test]
fn an_own_job_is_granted_what_the_target_opens_to_its_job_of_that_name_before_landing() {
    let target = "jobs:
  fetch: { run: get, network: true, on: [] }
  unit: { run: pytest, needs: [fetch] }
  nested: { run: bwrap, user_namespaces: true, on: [change] }
  deploy: { run: ./deploy, on: [land], network: true, user_namespaces: true }
";
    let own = "defaults: { network: true }
jobs:
  fetch: { run: get more, on: [change] }
  unit: { run: pytest -v }
  nested: { run: bwrap -h, on: [change], user_namespaces: true }
  deploy: { run: ./grab, on: [change], user_namespaces: true }
";
    let plan = plan(&file(target), &file(own), Changed::Unknown).unwrap();
    let told = plan.graph.jobs.iter().map(|job| {
        let Openings { network, user_namespaces } = job.withheld();
        format!("{}: network {network}, user namespaces {user_namespaces}\n", job.name)
    });
    expect![[r#"
        fetch@target: network false, user namespaces false
        unit@target: network false, user namespaces false
        fetch: network false, user namespaces false
        unit: network true, user namespaces false
        nested: network true, user namespaces false
        deploy: network true, user namespaces true
    "#]]
    .assert_eq(&told.collect::<String>());
    // A target that cannot be used grants nothing.
    let broken = towpath_pipeline::plan(&file("jobs: 1"), &file(own), Changed::Unknown).unwrap();
    assert!(broken.graph.jobs.iter().all(|job| job.withheld().network));
}
