//! For each rule a small tree that it refuses, and what it says.

use expect_test::{Expect, expect};

use super::tree::Package;
use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

fn check(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expect: Expect) {
    check_tree(rule, &tree(files), expect);
}

fn check_tree(rule: fn(&Tree) -> Vec<Finding>, tree: &Tree, expect: Expect) {
    let found: String = rule(tree).iter().map(|finding| format!("{finding}\n")).collect();
    expect.assert_eq(&found);
}

fn package(name: &str, version: &str, licence: &str) -> Package {
    Package { name: name.to_owned(), version: version.to_owned(), licence: Some(licence.to_owned()) }
}

/// A rule that cannot fail holds nothing: the tests below have to call each of them.
#[test]
fn every_rule_is_tested() {
    let rules =
        include_str!("../tidy.rs").split("check: ").skip(1).filter_map(|rest| rest.split(" }").next());
    let rules: Vec<&str> = rules.filter(|path| path.contains("::")).collect();
    assert_eq!(rules.len(), RULES.len());
    for rule in rules {
        assert!(include_str!("tests.rs").contains(&format!("{rule},")), "{rule} has no test");
    }
}

#[test]
fn edges_point_downwards() {
    check(
        manifests::edges,
        &[
            ("crates/core/Cargo.toml", "[dependencies]\ntowpath-git.workspace = true"),
            ("crates/store/Cargo.toml", "[dependencies]\ntowpath-pipeline.workspace = true"),
            ("crates/server/Cargo.toml", "[dependencies]\ntowpath-sim = {}\ntowpath-core = {}"),
            ("crates/towpath/Cargo.toml", "[dependencies]\ntowpath-sim = {}\ntowpath-server = {}"),
            ("crates/git/Cargo.toml", "[dev-dependencies]\ntowpath-blob = {}\ntowpath-server = {}"),
            ("crates/blob/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nxtask = {}"),
            ("crates/xtask/Cargo.toml", "[build-dependencies]\ntowpath-core = {}"),
            ("crates/new/Cargo.toml", ""),
        ],
        expect![[r#"
            crates/blob/Cargo.toml: blob may not depend on xtask: nothing depends on a program
            crates/core/Cargo.toml: core may not depend on git: dependencies point downwards
            crates/git/Cargo.toml: git may not depend on server: it stands above, also for tests
            crates/new/Cargo.toml: this crate has no row in LAYERS of crates/xtask/src/tidy/manifests.rs
            crates/server/Cargo.toml: server may not depend on sim: of the product only towpath may have the simulator
            crates/store/Cargo.toml: store may not depend on pipeline: siblings never see each other
            crates/xtask/Cargo.toml: xtask may not depend on core: the tool that tests the workspace must build when the workspace does not
        "#]],
    );
}

#[test]
fn core_has_no_library_that_acts_and_sql_stays_in_the_store() {
    check(
        manifests::libraries,
        &[
            (
                "crates/core/Cargo.toml",
                "[dependencies]\nserde = {}\ntokio = {}\n[dev-dependencies]\nproptest = {}",
            ),
            ("crates/server/Cargo.toml", "[dependencies]\nsql = { package = \"rusqlite\" }\naxum = {}"),
        ],
        expect![[r#"
            crates/core/Cargo.toml: core may not use tokio: its libraries are ["serde", "serde_json", "sha2", "thiserror"]
            crates/server/Cargo.toml: rusqlite belongs to ["store"]
        "#]],
    );
}

#[test]
fn a_dependency_has_a_reason_and_a_user() {
    check(
        manifests::reasons,
        &[
            (
                "Cargo.toml",
                "[workspace.dependencies]\na = \"1\"\nb = \"1\" # why\nc = { path = \"c\" }\n\n[x]\nd = 1\n",
            ),
            ("crates/core/Cargo.toml", "[dependencies]\na.workspace = true\ne = \"1\""),
        ],
        expect![[r#"
            crates/core/Cargo.toml: `e` must be `e.workspace = true`
            Cargo.toml:2: `a` needs its reason in one line: `a = … # why`
            Cargo.toml:3: no crate uses `b`
        "#]],
    );
}

#[test]
fn lints_are_taken() {
    let files = [
        ("crates/a/Cargo.toml", "[lints]\nworkspace = true"),
        ("crates/b/Cargo.toml", "[package]\nname = \"b\""),
    ];
    check(
        manifests::lints,
        &files,
        expect![[r#"
        crates/b/Cargo.toml: add `[lints]` with `workspace = true`
    "#]],
    );
}

#[test]
fn a_second_test_binary_is_refused() {
    let files = [
        ("crates/a/Cargo.toml", ""),
        ("crates/a/tests/a.rs", ""),
        ("crates/a/tests/more/main.rs", ""),
        ("crates/a/tests/a/module.rs", ""),
        ("crates/b/Cargo.toml", ""),
        ("crates/b/tests/b.rs", ""),
    ];
    check(
        manifests::test_binaries,
        &files,
        expect![[r#"
        crates/a/tests: 2 test binaries (a.rs, more/main.rs): make them modules of one
    "#]],
    );
}

#[test]
fn a_licence_has_to_be_allowed() {
    let deny = "[licenses]\nallow = [\"MIT\"]\nexceptions = [{ crate = \"c\", allow = [\"Zlib\"] }]";
    let packages = vec![
        package("a", "1.0.0", "MIT OR GPL-3.0"),
        package("b", "1.0.0", "GPL-3.0-only"),
        package("c", "1.0.0", "Zlib"),
        Package { licence: None, ..package("d", "1.0.0", "") },
    ];
    let tree = Tree { packages, ..tree(&[("deny.toml", deny)]) };
    check_tree(
        licences::licences,
        &tree,
        expect![[r#"
        deny.toml: b 1.0.0 has GPL-3.0-only, which is not allowed
        deny.toml: d 1.0.0 has no licence, which is not allowed
    "#]],
    );
    check(
        licences::licences,
        &[],
        expect![[r#"
        deny.toml: it is not there, or is no TOML
    "#]],
    );
}

#[test]
fn a_duplicate_needs_a_reason_and_a_reason_a_duplicate() {
    let deny = "[bans]\nskip = [{ crate = \"b@1.0.0\", reason = \"old\" }, { crate = \"z@9.0.0\" }]";
    let packages = [("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0"), ("b", "2.0.0"), ("c", "1.0.0")];
    let packages = packages.map(|(name, version)| package(name, version, "MIT")).to_vec();
    let tree = Tree { packages, ..tree(&[("deny.toml", deny)]) };
    check_tree(
        licences::duplicates,
        &tree,
        expect![[r#"
        deny.toml: a is there as 1.0.0, 2.0.0: unify them, or add `crate = "a@…"` with a reason to bans.skip
        deny.toml: bans.skip has z@9.0.0 without a reason
        deny.toml: bans.skip has z@9.0.0, which nobody uses
    "#]],
    );
}

#[test]
fn long_files_functions_and_lines_are_found() {
    let aimed = "\n".repeat(600);
    let long = format!("fn f() {{{}}}\n{}", "\n".repeat(70), "\n".repeat(800));
    let wide = format!("// {}\nlet x = \"{0}\";\n", "x".repeat(150));
    let prose = format!("{}\n| {0} |\n[a](b) {0}\n", "x".repeat(150));
    let files = [
        ("a.rs", aimed.as_str()),
        ("b.rs", long.as_str()),
        ("b/tests.rs", long.as_str()),
        ("c.rs", wide.as_str()),
        ("d.md", prose.as_str()),
    ];
    check(
        sizes::files,
        &files,
        expect![[r#"
            a.rs: advice: 600 lines; the aim is 500, the limit 800
            b.rs: 871 lines; the aim is 500, the limit 800
            b/tests.rs: advice: 871 lines; the aim is 500, the limit 800
        "#]],
    );
    check(
        sizes::functions,
        &files,
        expect![[r#"
            b.rs:1: `f` has 71 lines, at most 70
            b/tests.rs:1: `f` has 71 lines, at most 70
        "#]],
    );
    check(
        sizes::lines,
        &files,
        expect![[r#"
            c.rs:1: 153 characters, at most 150
            d.md:1: 150 characters, at most 140
        "#]],
    );
}

#[test]
fn calls_that_hide_or_wait_are_found() {
    let text = "\
fn f() {
    x.unwrap(); // .unwrap()
    std::thread::sleep(time);
    run_without_sleep(\"sleep(\");
    todo!()
}
#[cfg(test)]
mod tests {
    fn g() { x.unwrap(); }
    #[ignore = \"slow\"]
    fn h() { unimplemented!() }
}
";
    check(
        calls::forbidden,
        &[("a.rs", text)],
        expect![[r#"
        a.rs:2: `.unwrap()`: say what makes it impossible: `expect("invariant: …")`, or return an error
        a.rs:3: `sleep(`: wait for the event itself, with a deadline; a clock is no event
        a.rs:5: `todo!`: finish it or leave it out
        a.rs:10: `#[ignore`: a test that is not run says nothing; print `SKIP <name>: <why>` where a machine lacks something
        a.rs:11: `unimplemented!`: finish it or leave it out
    "#]],
    );
}

#[test]
fn only_a_module_of_tests_may_hide_behind_cfg_test() {
    let text = "\
#[cfg(test)]
mod tests;
#[cfg(test)]
use x;
#[cfg(not(test))]
fn real() {}
fn f() { if cfg!(test) {} }
#[cfg_attr(test, derive(Debug))]
#[cfg(any(test, feature = \"x\"))]
mod tests {}
#[cfg(unix)]
fn latest() {}
";
    check(
        calls::forks,
        &[("a.rs", text)],
        expect![[r#"
        a.rs:3: `cfg(test)` is for `mod tests` alone
        a.rs:5: `cfg(test)` is for `mod tests` alone
        a.rs:7: `cfg(test)` is for `mod tests` alone
        a.rs:8: `cfg(test)` is for `mod tests` alone
        a.rs:9: `cfg(test)` is for `mod tests` alone
    "#]],
    );
}

#[test]
fn core_acts_on_nothing() {
    let text =
        "use std::collections::HashMap;\nfn f() { std::fs::read(x); Instant::now(); }\nstruct MyInstantly;\n";
    check(
        calls::purity,
        &[("crates/core/src/a.rs", text), ("crates/pipeline/src/a.rs", text), ("crates/git/src/a.rs", text)],
        expect![[r#"
            crates/core/src/a.rs:1: `HashMap` has no place in core
            crates/core/src/a.rs:2: `std::fs` has no place in core
            crates/core/src/a.rs:2: `Instant` has no place in core
            crates/pipeline/src/a.rs:2: `std::fs` has no place in pipeline
            crates/pipeline/src/a.rs:2: `Instant` has no place in pipeline
        "#]],
    );
}

#[test]
fn git_is_started_in_one_place() {
    let text = "\
fn f() { Command::new(\"git\").arg(\"x\"); }
// Command::new(\"git\")
#[cfg(test)]
mod tests {
    fn g() { Command::new(\"git\"); }
}
";
    check(
        calls::git,
        &[("crates/git/src/a.rs", text), ("crates/server/src/a.rs", text)],
        expect![[r#"
        crates/server/src/a.rs:1: only crates/git starts git
    "#]],
    );
}

#[test]
fn names_are_those_of_the_glossary() {
    let glossary = "| say | not |\n|---|---|\n| batch | `rollup`, `merge group` or tick |\n";
    let text = "pub struct RollUp;\npub struct RollupPlan;\nmod merge_group;\npub const fn to_merge_group() {}\n\
                fn rollup() {}\npub struct Tick;\n";
    let files = [("GLOSSARY.md", glossary), ("crates/core/src/a.rs", text)];
    check(
        words::names,
        &files,
        expect![[r#"
        crates/core/src/a.rs:2: `RollupPlan`: the glossary has another word for `rollup`
        crates/core/src/a.rs:3: `merge_group`: the glossary has another word for `merge_group`
        crates/core/src/a.rs:4: `to_merge_group`: the glossary has another word for `merge_group`
    "#]],
    );
    check(
        words::names,
        &files[1..],
        expect![[r#"
        GLOSSARY.md: no table with a column `not` that has words in backticks
    "#]],
    );
}

#[test]
fn a_path_of_one_machine_is_found() {
    let own = ["home", "root", "Users", "work"].map(|folder| format!("see /{folder}/ann/x\n")).concat();
    let fine = "a/home/b ./work/ https://x.org/home/ ${x}/root/ /homes/x\n";
    check(
        paths::machine_paths,
        &[("a.md", &own), ("b.sh", fine)],
        expect![[r#"
        a.md:1: an absolute path below a folder `home`: make it relative, or a setting
        a.md:2: an absolute path below a folder `root`: make it relative, or a setting
        a.md:3: an absolute path below a folder `Users`: make it relative, or a setting
        a.md:4: an absolute path below a folder `work`: make it relative, or a setting
    "#]],
    );
}

#[test]
fn links_to_nowhere_are_found() {
    let text = "\
# A: heading `x`
[a](b.md) [b](c.md#nothing) [c](#a-heading-x) [d](../../x.md) [e](https://x.org) `[f](no.md)`
[g]: no.png
[h](sub) [i](sub/c.md#two-1)
```
[j](no.md)
```
";
    let files = [("docs/a.md", text), ("docs/c.md", "# C\n"), ("docs/sub/c.md", "# Two\n# Two\n")];
    check(
        links::links,
        &files,
        expect![[r#"
        docs/a.md:2: the link `b.md` leads to no file
        docs/a.md:2: the link `c.md#nothing` leads to no heading
        docs/a.md:2: the link `../../x.md` leads out of the repository
        docs/a.md:3: the link `no.png` leads to no file
    "#]],
    );
}

#[test]
fn the_readme_has_two_commands() {
    let good = "# T\n\n```sh\ncargo run --release -- demo\n```\n\n```sh\ncargo xtask test\n```\n";
    check(documents::readme, &[("README.md", good), (".ci/run", "exec cargo xtask test\n")], expect![[""]]);
    let bad = format!("{good}\n```sh\nmake\n```\n{}", "\n".repeat(80));
    check(
        documents::readme,
        &[("README.md", &bad), (".ci/run", "# cargo xtask test\n")],
        expect![[r#"
        README.md: its code blocks must be exactly ["cargo run --release -- demo", "cargo xtask test"], they are ["cargo run --release -- demo", "cargo xtask test", "make"]
        README.md: 93 lines; one page has 80
        .ci/run: it must run `cargo xtask test`
    "#]],
    );
}

#[test]
fn the_code_map_has_every_crate() {
    let map = "### `crates/a`\nArchitecture invariant: x\n\n### `crates/b`\ntext\n\n### `crates/z`\nArchitecture invariant: y\n";
    let files = [
        ("ARCHITECTURE.md", map),
        ("crates/a/Cargo.toml", ""),
        ("crates/b/Cargo.toml", ""),
        ("crates/c/Cargo.toml", ""),
    ];
    check(
        documents::code_map,
        &files,
        expect![[r#"
        ARCHITECTURE.md: the section of b has no line "Architecture invariant:"
        ARCHITECTURE.md: no section `### `crates/c``
    "#]],
    );
}

#[test]
fn every_attack_has_a_test() {
    let (last, others) = {
        let mut ids: Vec<&str> = crate::attacks::ids_with_tests().collect();
        (ids.pop().unwrap().to_lowercase(), ids.join("_").to_lowercase())
    };
    let tests = format!("fn {others}_all() {{}}\nfn of_x{last}() {{}}\n// {last}_is_named\n");
    let path = "crates/towpath/tests/towpath/x.rs";
    check(
        cases::attacks,
        &[(path, &tests), ("crates/x/src/a.rs", &format!("fn {last}_a() {{}}"))],
        expect![[r#"
            crates/xtask/src/attacks/cases.rs: no test bears the id K05 in its name
        "#]],
    );
    check(cases::attacks, &[(path, &format!("{tests}fn {last}_a() {{}}"))], expect![""]);
}
