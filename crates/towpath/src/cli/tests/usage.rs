//! What a usage line shows can be typed as it stands there.

use clap::{Arg, Command};

use crate::cli::definitions;

/// What arguments are tried with, the first that fits: a word before a number, so that a number's place takes nothing else.
const VALUES: [&str; 6] = ["word", "x=1", "1", "true", "memory=1GiB", "http://127.0.0.1:7700"];

/// A value that the argument takes.
fn value(argument: &Arg) -> String {
    let possible = argument.get_possible_values();
    if let Some(first) = possible.first() {
        return first.get_name().to_owned();
    }
    let alone = Command::new("alone").arg(
        Arg::new("value")
            .value_parser(argument.get_value_parser().clone())
            .num_args(1)
            .allow_hyphen_values(true),
    );
    let fits = |value: &&&str| alone.clone().try_get_matches_from(["alone", value]).is_ok();
    VALUES.iter().find(fits).unwrap_or_else(|| panic!("no value for {argument}")).to_string()
}

/// The usage line with the first of what can stand at a place, and a value for each name.
fn example(command: &Command, usage: &str) -> Vec<String> {
    let mut line = usage.trim_start_matches("Usage: ").replace("[OPTIONS]", "");
    while let Some(start) = line.find('|') {
        let end = start + line[start..].find(">>").map_or(line.len() - start, |end| end + 1);
        line.replace_range(start..end, "");
    }
    let of_name = |name: &str| {
        let named = |argument: &&Arg| {
            let names = argument.get_value_names().into_iter().flatten();
            argument.is_positional() && names.into_iter().any(|own| own == name)
        };
        command.get_arguments().find(named)
    };
    let mut option: Option<&Arg> = None;
    let words = line.split_whitespace().map(|word| {
        let word = word.trim_matches(['<', '>', '[', ']', '.']).to_owned();
        let name = word.trim_start_matches('-');
        let found = command
            .get_arguments()
            .find(|argument| word.starts_with('-') && argument.get_long().is_some_and(|long| long == name));
        match (found, option.take()) {
            (Some(found), _) => {
                option = Some(found);
                word
            }
            (None, Some(of_option)) => value(of_option),
            (None, None) => of_name(name).map_or(word.clone(), value),
        }
    });
    words.collect()
}

#[test]
fn every_usage_line_can_be_typed_as_it_stands() {
    fn walk(command: &mut Command, count: &mut usize) {
        if command.get_name() == "help" {
            return;
        }
        if command.has_subcommands() {
            command.get_subcommands_mut().for_each(|sub| walk(sub, count));
            return;
        }
        let usage = command.render_usage().to_string();
        let words = example(command, &usage);
        let taken = definitions().try_get_matches_from(&words);
        assert!(taken.is_ok(), "{usage}\n{words:?}\n{}", taken.unwrap_err());
        *count += 1;
    }
    let (mut all, mut count) = (definitions(), 0);
    all.build();
    walk(&mut all, &mut count);
    assert!(count > 60, "{count} commands");
}
