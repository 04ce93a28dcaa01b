//! Input of any size, depth and content is answered, and answered soon.

use expect_test::expect;
use proptest::prelude::*;
use towpath_pipeline::{
    Changed, Definition, DefinitionFile, FILE_NAME, GRAPH_BYTES_MAX, RootTree, TreeEntry, detect, plan,
};

use crate::support::{check, findings, parse};

#[test]
fn an_alias_bomb_is_refused() {
    let mut yaml = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        let aliases = vec![format!("*{of}"); 10].join(", ");
        yaml.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    check(
        &yaml,
        expect![[r#"
        1:1 unknown key `a`
            why: a key that nothing reads would change nothing, unseen
           hint: known here: gate, budget, defaults, jobs
        2:1 unknown key `b`
            why: a key that nothing reads would change nothing, unseen
           hint: known here: gate, budget, defaults, jobs
        3:1 unknown key `c`
            why: a key that nothing reads would change nothing, unseen
           hint: known here: gate, budget, defaults, jobs
        4:1 unknown key `d`
            why: a key that nothing reads would change nothing, unseen
           hint: known here: gate, budget, defaults, jobs
        5:1 unknown key `e`
            why: a key that nothing reads would change nothing, unseen
           hint: known here: gate, budget, defaults, jobs
        6:1 unknown key `f`
            why: a key that nothing reads would change nothing, unseen
           hint: known here: gate, budget, defaults, jobs
        6:20 the file is too large once its aliases are expanded
            why: with every alias written out it has more than 500000 values or 16777216 bytes of text
           hint: use fewer aliases of large values; put what all jobs share under `defaults`
    "#]],
    );
}

#[test]
fn an_alias_bomb_of_text_is_refused() {
    let text = "x".repeat(90_000);
    let uses: String = (0..200).map(|at| format!("  j{at}: *run\n")).collect();
    let found = findings(&format!("jobs:\n  a: &run \"{text}\"\n{uses}"));
    assert!(found.contains("the file is too large once its aliases are expanded"), "{found}");
}

#[test]
fn a_merge_bomb_is_refused() {
    let keys: String = (0..5_000).map(|at| format!("k{at}: 1, ")).collect();
    let uses: String = (0..200).map(|at| format!("  j{at}: {{ <<: *a }}\n")).collect();
    let found = findings(&format!("jobs:\n  a: &a {{ {keys} }}\n{uses}"));
    assert!(found.contains("the file is too large once its aliases are expanded"), "{found}");
}

#[test]
fn nesting_is_bounded_also_through_aliases() {
    check(
        &format!("jobs: {}", "[".repeat(100_000)),
        expect![[r#"
            1:7 jobs: a list does not belong here
                why: `jobs` takes a mapping from job names to jobs
               hint: write for example `jobs: { test: make check }`
            1:262 lists and mappings are nested too deeply
                why: a pipeline file has at most 32 levels, aliases written out
               hint: write fewer lists and mappings inside each other; no key needs more than 7
        "#]],
    );
    let mut yaml = "a0: &a0 [x]\n".to_owned();
    for at in 1..2_000 {
        yaml.push_str(&format!("a{at}: &a{at} [*a{}]\n", at - 1));
    }
    let found = findings(&yaml);
    assert!(found.contains("lists and mappings are nested too deeply"), "{found}");
}

#[test]
fn a_large_file_is_refused_by_its_size() {
    check(
        &"#".repeat(4 * 1024 * 1024 + 1),
        expect![[r#"
        1:1 the file is too large
            why: it has 4194305 bytes; a pipeline file has at most 4194304
           hint: move long scripts into files of the repository
    "#]],
    );
}

fn many_jobs(count: usize) -> String {
    let jobs: String = (1..count)
        .map(|at| format!("  job-{at}: {{ run: make part-{at}, needs: [job-{}] }}\n", at - 1))
        .collect();
    format!("jobs:\n  job-0: make\n{jobs}")
}

#[test]
fn ten_thousand_jobs_are_read_and_expanded() {
    let graph = parse(&many_jobs(10_000)).expand(Changed::Unknown);
    assert_eq!((graph.jobs.len(), graph.jobs[9_999].name.as_str()), (10_000, "job-9999"));
    assert!(graph.iter().skip(1).all(|(index, job)| job.needs.len() == 1 && job.needs[0].0 + 1 == index.0));
}

#[test]
fn a_file_of_one_line_takes_no_longer_than_one_of_many() {
    let jobs: String = (0..5_000).map(|at| format!("j{at}: {{ run: \"{}\" }}, ", "x".repeat(300))).collect();
    assert_eq!(parse(&format!("jobs: {{ {jobs} }}")).jobs.len(), 5_000);
}

#[test]
fn aliases_of_a_large_matrix_are_counted_and_not_made() {
    let matrix = "{ a: &a [0, 1, 2, 3], b: *a, c: *a, d: *a, exclude: [{ a: 0 }] }";
    let jobs: String = (0..5_000).map(|at| format!("  j{at}: *job\n")).collect();
    let found = findings(&format!("jobs:\n  first: &job {{ run: x, matrix: {matrix} }}\n{jobs}"));
    assert!(found.contains("960192 jobs are too many"), "{found}");
}

#[test]
fn ten_thousand_and_one_jobs_are_refused() {
    check(
        &many_jobs(10_001),
        expect![[r#"
        2:3 jobs: 10001 jobs are too many
            why: a definition has at most 10000 jobs, matrix cells and shards counted
           hint: let one job do what several small ones do
    "#]],
    );
}

#[test]
fn cells_and_shards_count_as_jobs() {
    check(
        "jobs:\n  a: { run: x, shards: 512, matrix: { v: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20] } }\n",
        expect![[r#"
            2:3 jobs: 10240 jobs are too many
                why: a definition has at most 10000 jobs, matrix cells and shards counted
               hint: use fewer cells or shards, or let one job do what several small ones do
        "#]],
    );
    check(
        "jobs:\n  a: { run: x, matrix: { a: &a [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], b: *a, c: *a, d: *a, e: *a, f: *a, g: *a, h: *a, i: *a, j: *a, k: *a, l: *a, m: *a, n: *a, o: *a, p: *a, q: *a, r: *a, s: *a, t: *a } }\n",
        expect![[r#"
            2:24 jobs.a.matrix: the matrix is too large
                why: a matrix has at most 16 keys and 256 combinations, before `exclude`
               hint: use fewer keys or values
        "#]],
    );
    check(
        "jobs:\n  a: { run: x, shards: 500 }\n  b: { run: x, shards: 500, needs: [a] }\n",
        expect![[r#"
        2:3 jobs: too many jobs need too many others
            why: each cell and shard needs each cell and shard of what it needs: 250000 edges, at most 200000
           hint: put a job in between that needs all of one side and is needed by all of the other
    "#]],
    );
}

#[test]
fn the_graph_has_a_size() {
    let text = "x".repeat(50_000);
    check(
        &format!("jobs:\n  a: {{ shards: 512, run: \"{text}\" }}\n"),
        expect![[r#"
        2:3 jobs: the jobs' scripts and variables are too large
            why: all jobs together, each cell and shard counted, take more than 16777216 bytes where they are stored, as JSON
           hint: move long scripts into files of the repository
    "#]],
    );
    let found = findings(&format!("jobs:\n  a: \"{}\"\n", "x".repeat(102_401)));
    assert!(found.contains("it has 102401 bytes; a program's argument or variable holds 102400"), "{found}");
}

/// A job of bells, which take two bytes in the file, one in memory and six where they are stored.
fn bells(count: usize) -> String {
    format!("\"{}\"", "\\a".repeat(count))
}

#[test]
fn a_graph_is_measured_as_it_is_stored() {
    // 180 KB of YAML, 13 MB of text, 81 MB of JSON.
    let uses: String = (0..150).map(|at| format!("  j{at}: *run\n")).collect();
    check(
        &format!("jobs:\n  a: &run {}\n{uses}", bells(90_000)),
        expect![[r#"
            2:3 jobs: the jobs' scripts and variables are too large
                why: all jobs together, each cell and shard counted, take more than 16777216 bytes where they are stored, as JSON
               hint: move long scripts into files of the repository
        "#]],
    );
}

#[test]
fn a_candidate_takes_no_more_than_the_graphs_of_both_sides() {
    let side = |name: &str| {
        let jobs: String = (1..27).map(|at| format!("  {name}{at}: *run\n")).collect();
        let text = format!("jobs:\n  {name}: &run {}\n{jobs}", bells(102_400));
        DefinitionFile::read(TreeEntry::Present { mode: 0o100_644, bytes: text.as_bytes() })
    };
    let plan = plan(&side("target"), &side("own"), Changed::Unknown).unwrap();
    assert_eq!(plan.graph.jobs.len(), 54);
    let bytes = serde_json::to_vec(&plan.graph).unwrap().len();
    assert!((GRAPH_BYTES_MAX * 19 / 10..=GRAPH_BYTES_MAX * 2).contains(&bytes), "{bytes}");
}

#[test]
fn outputs_are_counted() {
    let outputs: Vec<String> = (0..200).map(|at| format!("o{at}: x")).collect();
    check(
        &format!("jobs:\n  a: {{ run: x, shards: 501, outputs: {{ {} }} }}\n", outputs.join(", ")),
        expect![[r#"
            2:3 jobs: 100200 outputs are too many
                why: all jobs together, each cell and shard counted, have at most 100000
               hint: let one output take several files: its path may have `*` and `**`
        "#]],
    );
}

#[test]
fn a_job_has_no_more_variables_than_a_program_can_start_with() {
    let values = |prefix: &str, count: usize, bytes: usize| {
        let each: Vec<String> = (0..count).map(|at| format!("{prefix}{at}: {}", "x".repeat(bytes))).collect();
        each.join(", ")
    };
    // Each side is small enough; a job has both, and its own where both say the same.
    let shared = values("S", 6, 99_998);
    let text = |own: &str| {
        format!("defaults: {{ env: {{ {shared} }} }}\njobs:\n  a:\n    run: x\n    env: {{ {own} }}\n")
    };
    assert_eq!(findings(&text(&values("S", 6, 100_000))), "ok\n");
    check(
        &text(&values("O", 5, 100_000)),
        expect![[r#"
        5:10 jobs.a.env: 11 variables of 1100010 bytes are too many
            why: no program starts with much more: one job has at most 1000 of 1048576 bytes together, those of `defaults`
                 counted
           hint: put long values into files of the repository
    "#]],
    );
    check(
        &format!("defaults: {{ env: {{ {} }} }}\njobs: {{ a: x, b: x }}\n", values("V", 1001, 1)),
        expect![[r#"
            1:18 defaults.env: 1001 variables of 4896 bytes are too many
                why: no program starts with much more: one job has at most 1000 of 1048576 bytes together, those of `defaults`
                     counted
               hint: put long values into files of the repository
        "#]],
    );
}

#[test]
fn long_names_of_cells_are_refused() {
    let key = "k".repeat(30);
    let value = "v".repeat(30);
    check(
        &format!("jobs:\n  a: {{ run: x, matrix: {{ {key}a: [{value}], {key}b: [{value}] }} }}\n"),
        expect![[r#"
            2:24 jobs.a: a cell's name would have 125 bytes
                why: keys and values of a cell become part of its name, which holds 100
               hint: use shorter keys or values
        "#]],
    );
}

#[test]
fn a_thousand_errors_are_counted_and_a_hundred_shown() {
    let jobs: String = (0..1_000).map(|at| format!("  j{at}: {{ rn: x }}\n")).collect();
    let errors = Definition::parse(FILE_NAME, format!("jobs:\n{jobs}").as_bytes()).unwrap_err();
    assert_eq!((errors.items.len(), errors.left_off), (100, 1_900));
    assert!(errors.render().ends_with("and 1900 more\n"));
}

#[test]
fn an_error_behind_an_alias_is_told_once() {
    let uses: String = (0..50).map(|at| format!("  j{at}: *a\n")).collect();
    check(
        &format!("jobs:\n  a: &a {{ run: x, shards: 0 }}\n{uses}"),
        expect![[r#"
        2:27 jobs.a.shards: `0` is not a whole number from 1 to 512
            why: `shards` takes no other value
           hint: write a number from 1 to 512
    "#]],
    );
}

/// Pieces from which most random files come close to being a definition.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "jobs:",
        "\n",
        "\n  ",
        "\n    ",
        "a:",
        " {",
        "}",
        " [",
        "]",
        ", ",
        "run: x",
        "needs: [a]",
        "&a ",
        "*a",
        "<<: *a",
        "- ",
        "matrix: { x: [1, 2] }",
        "shards: 3",
        "timeout: 5m",
        "\t",
        "'",
        "\"",
        "|",
        ">",
        "#",
        "!",
        "---\n",
        "? ",
        ": ",
        "on: [land]",
        "\u{feff}",
        "\u{202e}",
        "%",
        "@",
        "`",
        "exclude: [{ x: 1 }]",
        "when: { paths: [a/**] }",
        "environment: e",
        "\r\n",
        "~",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn answers(bytes: &[u8]) {
    match Definition::parse(FILE_NAME, bytes) {
        Ok(definition) => {
            let graph = definition.expand(Changed::Paths(&[b"a/b".to_vec()]));
            assert!(graph.iter().all(|(index, job)| job.needs.iter().all(|need| *need < index)));
        }
        Err(errors) => {
            assert!(!errors.items.is_empty());
            assert!(
                errors.items.iter().all(|item| item.line > 0 && item.column > 0 && !item.hint.is_empty())
            );
            errors.render();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        answers(&bytes);
    }

    #[test]
    fn arbitrary_text_is_answered(text in ".{0,200}") {
        answers(text.as_bytes());
    }

    #[test]
    fn texts_that_look_like_definitions_are_answered(text in pieces()) {
        answers(text.as_bytes());
    }

    #[test]
    fn arbitrary_roots_are_detected(text in "(?s).{0,200}", name in prop::sample::select(towpath_pipeline::DETECTION_FILES.to_vec())) {
        let tree = RootTree { names: [name.to_owned()].into(), files: [(name.to_owned(), text.into_bytes())].into() };
        detect(&tree).unwrap().definition().unwrap();
    }
}
