//! `towpath man [COMMAND...]`: man pages from the same definitions as the help.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;

use crate::cli::definitions;
use crate::command::file_failure;
use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;

/// Print a man page, or write all of them into a folder
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The command whose page is wanted: `towpath man change approve | man -l -`
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder, which must exist
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    all: Option<PathBuf>,
}

pub fn run(arguments: &ManArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let mut definitions = definitions().disable_help_subcommand(true);
    definitions.build();
    match &arguments.all {
        Some(folder) => write_all(&definitions, folder, terminal)?,
        None => terminal.verbatim(&render(&find(&definitions, &arguments.command)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(definitions: &clap::Command, words: &[String]) -> Result<clap::Command, Failure> {
    let mut found = definitions;
    for word in words {
        found = found.find_subcommand(word).filter(|sub| !sub.is_hide_set()).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no command `towpath {}`", words.join(" ")))
                .hint("`towpath --help` lists the commands")
        })?;
    }
    Ok(found.clone())
}

/// A page's name, as `man` wants it: `towpath-change-approve`.
fn page_name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn render(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

fn write_all(command: &clap::Command, folder: &Path, terminal: &Terminal) -> Result<(), Failure> {
    let path = folder.join(format!("{}.1", page_name(command)));
    std::fs::write(&path, render(command)?).map_err(|error| file_failure("write", &path, &error))?;
    match terminal.is_json() {
        true => terminal.record(&serde_json::json!({ "page": path }))?,
        false => terminal.data(path.display())?,
    }
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .try_for_each(|sub| write_all(sub, folder, terminal))
}
