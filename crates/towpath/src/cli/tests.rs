//! The words of the command line.

use super::*;

mod hints;
mod usage;

#[test]
fn wrong_words_are_refused_in_the_form_of_every_failure() {
    let said = |words: &[&str]| {
        let words: Vec<std::ffi::OsString> =
            std::iter::once("towpath").chain(words.iter().copied()).map(Into::into).collect();
        let called = called(&words);
        let error = parse(words).unwrap_err();
        wrong_usage((error.kind(), &error.to_string()), &called).to_string()
    };
    expect_test::expect![[r#"
        error: unexpected argument '--chnge' found
          why: a similar argument exists: '--change'
         hint: it is used as `towpath runs --change <CHANGE> [RUN]`; `towpath runs --help` says more"#]]
    .assert_eq(&said(&["runs", "--chnge", "1"]));
    expect_test::expect![[r#"
        error: the following required arguments were not provided: --why <WHY>
         hint: it is used as `towpath change hold --why <WHY> <CHANGE>`; `towpath change hold --help` says more"#]].assert_eq(&said(&["change", "hold", "1"]));
    expect_test::expect![[r#"
        error: invalid value 'king' for '<ROLE>'
          why: possible values: reader, author, maintainer, admin
         hint: `towpath repo grant --help` says what it takes"#]]
    .assert_eq(&said(&["repo", "grant", "bob", "king"]));
    expect_test::expect![[r#"
        error: unrecognized subcommand 'serv'
          why: some similar subcommands exist: 'secret', 'user', 'serve'
         hint: it is used as `towpath [OPTIONS] <COMMAND>`; `towpath --help` says more"#]]
    .assert_eq(&said(&["serv"]));
    expect_test::expect![[r#"
        error: invalid value '0' for '--slots <SLOTS>': 0 is not in 1..=256
         hint: `towpath serve --help` says what it takes"#]]
    .assert_eq(&said(&["serve", "--slots", "0"]));
    expect_test::expect![[r#"
        error: the argument '--changed-since <COMMIT>' cannot be used with '[JOB]...'
         hint: leave out one of the two; `towpath run --help` says more"#]]
    .assert_eq(&said(&["run", "--changed-since", "HEAD", "docs"]));
    expect_test::expect![[r#"
        error: the argument '--attempt <ATTEMPT>' cannot be used multiple times
         hint: give it once; `towpath tests --help` says more"#]]
    .assert_eq(&said(&["tests", "1", "--attempt", "1", "--attempt", "2"]));
}

#[test]
fn words_are_taken_under_the_name_that_another_verb_has_for_them() {
    for line in [
        "change approve 4 --why fine",
        "change request-changes 4 --why no",
        "change comment 4 --text words",
        "change comment 4 --why words",
        "change hold 4 --text words",
        "change vouch 4 --text words",
        "branch freeze --text words",
        "cancel 4 --text words",
        "repo show web",
        "repo settings web",
        "repo people web",
    ] {
        let words = std::iter::once("towpath").chain(line.split(' '));
        let taken = parse(words.map(Into::into).collect());
        assert!(taken.is_ok(), "{line}: {}", taken.unwrap_err());
    }
}

#[test]
fn definitions_are_sound() {
    definitions().debug_assert();
}

#[test]
fn every_help_says_the_exit_codes_and_every_command_says_what_it_does() {
    fn walk(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_after_help().is_some(), "{name} does not say its exit codes");
        assert!(command.get_about().is_some(), "{name} does not say what it does");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{name} {argument} is not explained");
        }
        command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(walk);
    }
    walk(&definitions());
}
