//! Repositories without a pipeline file.

use expect_test::{Expect, expect};
use towpath_pipeline::{DefinitionFile, RootTree, TreeEntry, detect, explain};

use crate::support::wrapped;

fn tree(files: &[(&str, &str)]) -> RootTree {
    let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    RootTree { names, files }
}

fn check(files: &[(&str, &str)], expected: Expect) {
    let detected = detect(&tree(files)).expect("no file has a misleading name");
    detected.definition().expect("what was detected is a definition");
    let notes: String = detected.notes.iter().map(|note| format!("# {}\n", wrapped(note, 2))).collect();
    expected.assert_eq(&(detected.yaml + &notes));
}

#[test]
fn a_cargo_workspace_is_tested_with_its_lock_file() {
    check(
        &[("Cargo.toml", ""), ("Cargo.lock", "")],
        expect![[r#"
        jobs:
          cargo-test: # from Cargo.toml
            network: true
            run: |
              cargo test --workspace --locked
    "#]],
    );
    check(
        &[("Cargo.toml", "")],
        expect![[r#"
        jobs:
          cargo-test: # from Cargo.toml
            network: true
            run: |
              cargo test --workspace
    "#]],
    );
}

#[test]
fn a_python_project_is_installed_and_tested() {
    check(
        &[("pyproject.toml", "[project]\nname = 'x'\n"), ("tests", "")],
        expect![[r#"
        jobs:
          python-test: # from pyproject.toml
            network: true
            reports: { junit: junit.xml }
            run: |
              python3 -m venv .venv
              . .venv/bin/activate
              pip install .
              pip install pytest
              pytest --junitxml=junit.xml
    "#]],
    );
    check(
        &[(
            "pyproject.toml",
            "[build-system]\n[project.optional-dependencies]\ndev = ['x']\ntests = ['pytest']\n[tool.x]\n",
        )],
        expect![[r#"
            jobs:
              python-test: # from pyproject.toml
                network: true
                reports: { junit: junit.xml }
                run: |
                  python3 -m venv .venv
                  . .venv/bin/activate
                  pip install '.[tests]'
                  pip install pytest
                  pytest --junitxml=junit.xml
        "#]],
    );
    check(
        &[("setup.py", "")],
        expect![[r#"
        jobs:
          python-install: # from setup.py
            network: true
            run: |
              python3 -m venv .venv
              . .venv/bin/activate
              pip install .
    "#]],
    );
    check(
        &[("requirements.txt", "x"), ("test_x.py", "")],
        expect![[r#"
        jobs:
          python-test: # from requirements.txt
            network: true
            reports: { junit: junit.xml }
            run: |
              python3 -m venv .venv
              . .venv/bin/activate
              pip install -r requirements.txt
              pip install pytest
              pytest --junitxml=junit.xml
    "#]],
    );
}

#[test]
fn a_pyproject_that_only_configures_tools_is_no_project() {
    check(
        &[("pyproject.toml", "[tool.ruff]\nline-length = 100\n"), ("Cargo.toml", "")],
        expect![[r#"
        jobs:
          cargo-test: # from Cargo.toml
            network: true
            run: |
              cargo test --workspace
    "#]],
    );
}

#[test]
fn an_npm_package_runs_its_test_script() {
    check(
        &[("package.json", r#"{"scripts":{"test":"jest"}}"#), ("package-lock.json", "{}")],
        expect![[r#"
        jobs:
          npm-test: # from package.json
            network: true
            run: |
              npm ci
              npm test
    "#]],
    );
    check(
        &[("package.json", r#"{"scripts":{"test":"jest"}}"#)],
        expect![[r#"
        jobs:
          npm-test: # from package.json
            network: true
            run: |
              npm install --no-package-lock
              npm test
    "#]],
    );
    check(
        &[("package.json", r#"{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}"#)],
        expect![[r#"
            jobs: {}
            # package.json has no script `test`
            # no towpath.yaml, and none of what is detected: Cargo.toml, a Python project, package.json with a test script,
              a Makefile with a target `check` or `test`
        "#]],
    );
    check(
        &[("package.json", "{\n \"scripts\": not json")],
        expect![[r#"
            jobs: {}
            # package.json is not JSON: expected ident at line 2 column 14
            # no towpath.yaml, and none of what is detected: Cargo.toml, a Python project, package.json with a test script,
              a Makefile with a target `check` or `test`
        "#]],
    );
    check(
        &[("package.json", r#"{"scripts":{"test":"jest"}}"#), ("yarn.lock", "")],
        expect![[r#"
        jobs: {}
        # package.json has a yarn.lock: Yarn is not detected, write its commands into towpath.yaml
        # no towpath.yaml, and none of what is detected: Cargo.toml, a Python project, package.json with a test script,
          a Makefile with a target `check` or `test`
    "#]],
    );
}

#[test]
fn a_makefile_runs_check_before_test() {
    check(
        &[("Makefile", ".PHONY: test\nall check: x.o\n\tcc\ntest:\n\t./t\n")],
        expect![[r#"
        jobs:
          make-check: # from Makefile
            run: |
              make check
    "#]],
    );
    check(
        &[("Makefile", "test:: x\n"), ("GNUmakefile", "all:\n")],
        expect![[r#"
        jobs: {}
        # GNUmakefile has no target `check` or `test`
        # no towpath.yaml, and none of what is detected: Cargo.toml, a Python project, package.json with a test script,
          a Makefile with a target `check` or `test`
    "#]],
    );
    check(
        &[("Makefile", "check := 1\ntest ::= 2\n# check: x\n\tcheck: y\nX=a:check b\n$(T)test: z\n")],
        expect![[r#"
            jobs: {}
            # Makefile has no target `check` or `test`
            # no towpath.yaml, and none of what is detected: Cargo.toml, a Python project, package.json with a test script,
              a Makefile with a target `check` or `test`
        "#]],
    );
}

#[test]
fn several_kinds_are_all_tested() {
    check(
        &[
            ("Cargo.toml", ""),
            ("pyproject.toml", "[project]\n"),
            ("package.json", r#"{"scripts":{"test":"x"}}"#),
            ("Makefile", "test:\n"),
        ],
        expect![[r#"
            jobs:
              cargo-test: # from Cargo.toml
                network: true
                run: |
                  cargo test --workspace
              python-install: # from pyproject.toml
                network: true
                run: |
                  python3 -m venv .venv
                  . .venv/bin/activate
                  pip install .
              npm-test: # from package.json
                network: true
                run: |
                  npm install --no-package-lock
                  npm test
              make-test: # from Makefile
                run: |
                  make test
        "#]],
    );
}

#[test]
fn nothing_found_is_an_empty_set_with_a_reason() {
    check(
        &[("README", "")],
        expect![[r#"
        jobs: {}
        # no towpath.yaml, and none of what is detected: Cargo.toml, a Python project, package.json with a test script,
          a Makefile with a target `check` or `test`
    "#]],
    );
}

#[test]
fn a_misspelt_pipeline_file_is_not_passed_over() {
    let errors = detect(&tree(&[("towpath.yml", "jobs: {}"), ("Cargo.toml", "")])).unwrap_err();
    expect![[r#"
        towpath.yml:1:1: the pipeline file is named `towpath.yml`; why: only `towpath.yaml` is read; ignoring this
        file would test something else than it says; hint: run `git mv towpath.yml towpath.yaml`"#]].assert_eq(&wrapped(&errors.lines().join("\n"), 0));
}

#[test]
fn explain_names_the_file_that_a_job_was_detected_from() {
    let tree = tree(&[("Cargo.toml", "")]);
    let explained = explain(&DefinitionFile::read(TreeEntry::Absent(&tree)));
    assert_eq!(
        (explained[0].name.as_str(), explained[0].from.as_str()),
        ("cargo-test", "detected from Cargo.toml")
    );
    assert!(explained[0].required && explained[0].body.network);
}
