//! The words of the command line. Help, man pages and completions come from these types and from nowhere else.

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command;
use crate::failure::{EXIT_CODES, Exit, Failure};
use crate::terminal::Terminal;

/// Takes a change from git push to landed and deployed, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "towpath", version, propagate_version = true, infer_long_args = false, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Copy, Args)]
pub struct Global {
    /// Print data as JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(command::demo::DemoArgs),
    Init(command::init::InitArgs),
    Serve(command::serve::ServeArgs),
    Run(command::run::RunArgs),
    #[command(subcommand)]
    Repo(command::repo::RepoCommand),
    Change(command::change::ChangeArgs),
    Branch(command::branch::BranchArgs),
    Runs(command::runs::RunsArgs),
    Log(command::log::LogArgs),
    Tests(command::test_results::TestsArgs),
    Cancel(command::runs::CancelArgs),
    Deploy(command::deploy::DeployArgs),
    #[command(subcommand)]
    Retention(command::retention::RetentionCommand),
    #[command(subcommand)]
    User(command::user::UserCommand),
    #[command(subcommand)]
    Token(command::token::TokenCommand),
    Secret(command::secret::SecretArgs),
    #[command(subcommand)]
    Audit(command::audit::AuditCommand),
    #[command(subcommand)]
    Backup(command::backup::BackupCommand),
    #[command(subcommand)]
    Config(command::config::ConfigCommand),
    Doctor(command::doctor::DoctorArgs),
    Sim(command::sim::SimArgs),
    Completions(command::completions::CompletionsArgs),
    Man(command::man::ManArgs),
    #[command(hide = true)]
    Executor(command::executor::ExecutorArgs),
}

/// Parses, runs, and turns the end into an exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let terminal = Terminal::detect(json);
    let called = called(&arguments);
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &called, &terminal),
    };
    match dispatch(cli.command, &terminal) {
        Ok(code) => code,
        Err(failure) => report(&failure, &terminal),
    }
}

/// The definitions, with the exit codes below every help.
pub fn definitions() -> clap::Command {
    fn with_codes(command: clap::Command) -> clap::Command {
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        let command =
            if command.get_after_help().is_some() { command } else { command.after_help(EXIT_CODES) };
        names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_codes))
    }
    with_codes(Cli::command().long_version(LONG_VERSION.as_str()))
}

/// What a server asks a program before it lets it take its place.
static LONG_VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (schema {})", env!("CARGO_PKG_VERSION"), towpath_store::SCHEMA));

fn parse(arguments: Vec<std::ffi::OsString>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&definitions().try_get_matches_from(arguments)?)
}

fn dispatch(command: Command, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(arguments) => command::run::run(&arguments, terminal),
        Command::Repo(repo) => command::repo::run(&repo, terminal),
        Command::Change(arguments) => command::change::run(&arguments, terminal),
        Command::Branch(arguments) => command::branch::run(&arguments, terminal),
        Command::Runs(arguments) => command::runs::run(&arguments, terminal),
        Command::Log(arguments) => command::log::run(&arguments, terminal),
        Command::Tests(arguments) => command::test_results::run(&arguments, terminal),
        Command::Cancel(arguments) => command::runs::cancel(&arguments, terminal),
        Command::Deploy(arguments) => command::deploy::run(&arguments, terminal),
        Command::Retention(retention) => command::retention::run(&retention, terminal),
        Command::User(user) => command::user::run(&user, terminal),
        Command::Token(token) => command::token::run(&token, terminal),
        Command::Secret(arguments) => command::secret::run(&arguments, terminal),
        Command::Audit(audit) => command::audit::run(&audit, terminal),
        Command::Backup(backup) => command::backup::run(&backup, terminal),
        Command::Config(config) => command::config::run(&config, terminal),
        Command::Sim(arguments) => command::sim::run(&arguments, terminal),
        Command::Doctor(arguments) => command::doctor::run(&arguments, terminal),
        Command::Completions(arguments) => command::completions::run(&arguments, terminal),
        Command::Man(arguments) => command::man::run(&arguments, terminal),
        Command::Executor(arguments) => command::executor::run(&arguments),
        Command::Demo(arguments) => command::demo::run(&arguments, terminal),
        Command::Init(arguments) => command::init::run(&arguments, terminal),
        Command::Serve(arguments) => command::serve::run(&arguments, terminal),
    }
}

/// Help and version are data; everything else is wrong usage.
fn usage(error: &clap::Error, called: &str, terminal: &Terminal) -> ExitCode {
    let text = error.to_string();
    let written = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => terminal.data(text.trim_end()),
        // A group of commands without one of them: what there is says more than what is wrong.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !terminal.is_json() => {
            terminal.talk(text.trim_end());
            return Failure::shown(Exit::Usage).code();
        }
        kind => return report(&wrong_usage((kind, &text), called), terminal),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::from(error).code(),
    }
}

/// The command that the words name, as far as they name one: `towpath repo grant`.
fn called(words: &[std::ffi::OsString]) -> String {
    let definitions = definitions();
    let (mut command, mut called) = (&definitions, vec![definitions.get_name()]);
    for word in words.iter().skip(1) {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
            called.push(sub.get_name());
        }
    }
    called.join(" ")
}

/// The parser's words in the form of every other failure: its first paragraph is what is wrong, tips and what is possible
/// say why, and how the command is used is what to do.
fn wrong_usage((kind, text): (ErrorKind, &str), called: &str) -> Failure {
    let mut paragraphs = text.trim_end().split("\n\n");
    let what = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    let (mut why, mut usage) = (Vec::new(), None);
    let mut what_lines: Vec<&str> = Vec::new();
    for line in what.lines() {
        match line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(possible) => why.push(possible),
            None => what_lines.push(line.trim()),
        }
    }
    for paragraph in paragraphs {
        match paragraph.trim().strip_prefix("Usage: ") {
            Some(found) => usage = found.lines().next(),
            None if paragraph.starts_with("For more information") => {}
            None => why.extend(paragraph.lines().map(|line| line.trim().trim_start_matches("tip: "))),
        }
    }
    let hint = match usage {
        // The usage that the parser shows then is of one of the two, together with the other.
        _ if kind == ErrorKind::ArgumentConflict && what.contains("multiple times") => {
            format!("give it once; `{called} --help` says more")
        }
        _ if kind == ErrorKind::ArgumentConflict => {
            format!("leave out one of the two; `{called} --help` says more")
        }
        Some(usage) => format!("it is used as `{usage}`; `{called} --help` says more"),
        None => format!("`{called} --help` says what it takes"),
    };
    let failure = Failure::new(Exit::Usage, what_lines.join(" ")).hint(hint);
    match why.is_empty() {
        true => failure,
        false => failure.why(why.join("\n")),
    }
}

fn report(failure: &Failure, terminal: &Terminal) -> ExitCode {
    if failure.is_shown() {
        return failure.code();
    }
    match terminal.is_json() {
        true => terminal.talk(failure.record()),
        false => terminal.talk(failure),
    }
    failure.code()
}

#[cfg(test)]
mod tests;
