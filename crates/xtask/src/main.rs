//! Repository automation: `cargo xtask COMMAND`.
//!
//! Deliberately absent: anything that the product needs at run time. A clone without this crate builds and works.

mod attacks;
mod bench;
mod failure;
mod kill;
mod libtest;
mod needs;
mod self_host;
mod steps;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use failure::Failure;

/// One word after `cargo xtask`.
struct Command {
    name: &'static str,
    help: &'static str,
    run: fn(&Path, &mut lexopt::Parser) -> Result<bool, Failure>,
}

/// Every command. A new one is a line here and a module.
const COMMANDS: &[Command] = &[
    Command { name: "bench", help: bench::HELP, run: bench::run },
    Command { name: "test", help: test::HELP, run: test::run },
    Command { name: "kill", help: kill::HELP, run: kill::run },
    Command { name: "attacks", help: attacks::HELP, run: attacks::run },
    Command { name: "self-host", help: self_host::HELP, run: self_host::run },
    Command { name: "tidy", help: tidy::HELP, run: tidy::run },
];

fn main() -> ExitCode {
    match dispatch() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(if failure.is_usage { 2 } else { 1 })
        }
    }
}

/// Runs the command that the arguments name; `false` means that it found something wrong.
fn dispatch() -> Result<bool, Failure> {
    let mut arguments = lexopt::Parser::from_env();
    let Some(first) = arguments.next().map_err(Failure::usage)? else {
        print_help();
        return Err(Failure::usage("a command is missing"));
    };
    let name = match first {
        lexopt::Arg::Value(name) => name.to_string_lossy().into_owned(),
        lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => "help".to_owned(),
        other => return Err(Failure::usage(other.unexpected())),
    };
    if name == "help" {
        print_help();
        return Ok(true);
    }
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| Failure::usage(format!("there is no command `{name}`")))?;
    (command.run)(&workspace_root()?, &mut arguments)
}

fn print_help() {
    println!("cargo xtask COMMAND\n");
    for command in COMMANDS {
        println!("  {:<10} {}", command.name, command.help);
    }
    println!("  {:<10} this list", "help");
}

/// The nearest folder above the current one that holds this very crate.
fn workspace_root() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|why| Failure::new("the current folder cannot be read", why, "change to the repository"))?;
    let found = here.ancestors().find(|folder| folder.join("crates/xtask/Cargo.toml").is_file());
    found.map(Path::to_path_buf).ok_or_else(|| {
        let why = format!("no folder above {} holds crates/xtask", here.display());
        Failure::new("this is not a clone of Towpath", why, "change to the repository")
    })
}

/// Takes the flags of a command that has no values: each name in `known` at most once, nothing else.
fn flags<const N: usize>(
    arguments: &mut lexopt::Parser,
    known: [&'static str; N],
) -> Result<[bool; N], Failure> {
    let mut given = [false; N];
    while let Some(argument) = arguments.next().map_err(Failure::usage)? {
        let place = match &argument {
            lexopt::Arg::Long(name) => known.iter().position(|flag| flag == name),
            _ => None,
        };
        match place {
            Some(place) => given[place] = true,
            None => return Err(Failure::usage(argument.unexpected())),
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_flags_are_taken() {
        let mut arguments = lexopt::Parser::from_args(["--as-is"]);
        assert_eq!(flags(&mut arguments, ["as-is", "other"]).unwrap(), [true, false]);
        let mut arguments = lexopt::Parser::from_args(["--as-si"]);
        assert!(flags(&mut arguments, ["as-is"]).unwrap_err().to_string().contains("--as-si"));
    }
}
