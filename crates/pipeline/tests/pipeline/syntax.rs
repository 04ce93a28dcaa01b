//! Files that are not quite YAML, or more YAML than a pipeline file takes.

use expect_test::expect;
use towpath_pipeline::{Definition, FILE_NAME};

use crate::support::{check, wrapped};

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
           hint: put `&name` before that value, or quotes around the text
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
            3:6 the tag `!!str` is not allowed
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
    expect![[r#"
        towpath.yaml:2:9: this byte is not UTF-8; why: a pipeline file is text in UTF-8; hint: save the file as UTF-8,
        without any other encoding"#]].assert_eq(&wrapped(&errors.lines().join("\n"), 0));
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
