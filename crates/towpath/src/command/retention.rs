//! `towpath retention ...`: how long the server keeps what piles up.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::command::answer::{self, done};
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::client;
use crate::terminal::Terminal;
use crate::terminal::table::Cell;

/// Show and say how long runs, logs and outputs are kept
#[derive(Debug, clap::Subcommand)]
pub enum RetentionCommand {
    /// Show how long everything is kept
    Show,
    /// Change some of it: `towpath retention set run_days=30 log_days=14`
    Set {
        /// What `show` shows, with new numbers
        #[arg(required = true, value_name = "NAME=NUMBER")]
        numbers: Vec<String>,
    },
    /// Remove now what need not be kept, and show what went
    Run,
}

pub fn run(command: &RetentionCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    match command {
        RetentionCommand::Show => show(&client.ask(&Request::get(&["retention"]))?, terminal),
        RetentionCommand::Run => {
            show(&client.ask(&Request::post(&["housekeeping"], json!({})).long())?, terminal)
        }
        RetentionCommand::Set { numbers } => {
            let mut settings = client.ask(&Request::get(&["retention"]))?;
            for word in numbers {
                let (name, number) = number(word)?;
                settings[name] = number.into();
            }
            done(&client, &Request::put(&["retention"], settings), terminal)
        }
    }
}

fn number(word: &str) -> Result<(&str, u32), Failure> {
    let parsed = word.split_once('=').and_then(|(name, number)| Some((name, number.parse().ok()?)));
    parsed.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{word}` is not written as NAME=NUMBER"))
            .hint("`towpath retention show` shows the names")
    })
}

fn show(answer: &Value, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if terminal.is_json() {
        terminal.record(answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = |name: &str, value: &Value| match value {
        Value::Number(_) if name.ends_with("_at") => answer::time(answer, name),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        value => value.to_string(),
    };
    let fields = answer.as_object().into_iter().flatten();
    let rows: Vec<Vec<Cell>> =
        fields.map(|(name, value)| vec![name.as_str().into(), shown(name, value).into()]).collect();
    answer::rows(&rows, "", terminal)?;
    Ok(ExitCode::SUCCESS)
}
