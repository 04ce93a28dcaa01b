//! `towpath token ...`: what commands, git and robots show to be let in.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::command::answer::{self, done, flag, joined, number, text, time};
use crate::command::secret_input;
use crate::failure::Failure;
use crate::remote::place::{checked, client};
use crate::remote::settings::{self, ClientSettings};
use crate::remote::{Client, Request};
use crate::terminal::style::Style;
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

/// Make, list and revoke tokens, and remember one for a server
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Remember a server and your token for it, which is read from standard input
    Login {
        /// The server's address
        #[arg(value_name = "URL")]
        url: String,
    },
    /// List your tokens
    List {
        /// Somebody else's, as an admin of the server
        #[arg(long)]
        user: Option<String>,
    },
    /// Make a token; it is shown once
    Create {
        /// For somebody else, as an admin of the server
        #[arg(long)]
        user: Option<String>,
        /// What it is for, in words
        #[arg(long, default_value = "")]
        label: String,
        /// Only for this repo; may be given more than once
        #[arg(long, value_name = "REPO")]
        repo: Vec<String>,
        /// Only for this; may be given more than once
        #[arg(long, value_parser = ["read", "push", "act", "administer"])]
        verb: Vec<String>,
        /// Days for which it works [default: 365, or as long as the token that asks for it]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// Revoke a token at once, and those that were made by it
    Revoke {
        /// Its number in the list
        number: u64,
        /// Let those go on that were made by it
        #[arg(long)]
        only: bool,
    },
}

pub fn run(command: &TokenCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Login { url } => login(url, terminal),
        TokenCommand::List { user } => {
            let answer = client()?.ask(&Request::get(&path(user.as_deref())))?;
            answer::list(&answer, "tokens", terminal, row)
        }
        TokenCommand::Create { user, label, repo, verb, days } => {
            let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
            let body = json!({
                "label": label, "repos": some(repo), "verbs": some(verb), "seconds": days.map(|days| days * 86_400),
            });
            let made = client()?.ask(&Request::post(&path(user.as_deref()), body))?;
            match terminal.is_json() {
                true => terminal.record(&made)?,
                false => {
                    terminal.data(inline(text(&made, "token")))?;
                    terminal.talk(format!(
                        "token {}, until {}: it is not shown again",
                        number(&made, "number"),
                        time(&made, "expires_at")
                    ));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        TokenCommand::Revoke { number, only } => {
            let request = Request::delete(&["tokens", &number.to_string()]);
            done(&client()?, &request.with("only", only.then_some(true)), terminal)
        }
    }
}

fn path(user: Option<&str>) -> Vec<&str> {
    match user {
        Some(user) => vec!["users", user, "tokens"],
        None => vec!["tokens"],
    }
}

/// Tries the token before it is remembered.
fn login(url: &str, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let base = checked(url)?;
    let token = secret_input("token")?;
    let me = Client::new(base.clone(), Some(token.clone()))?.ask(&Request::get(&["me"]));
    let me = me.map_err(|failure| failure.of(format!("cannot log in at {base}")))?;
    let remembered = remember(&base, token)?;
    let user = text(&me, "user");
    match terminal.is_json() {
        true => terminal.record(&json!({
            "server": base, "user": user, "file": remembered.file, "former": remembered.former,
        }))?,
        false => {
            let file = remembered.file.display();
            terminal.data(format!("you are `{}` at {base}; remembered in {file}", inline(user)))?;
            remembered.tell_of_former(&base, terminal);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of a token that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The file in which it is.
    pub file: PathBuf,
    /// The file in which the one is now that was remembered for this server before, if it was another.
    pub former: Option<PathBuf>,
}

impl Remembered {
    /// Says where the former token is, and how it is taken up again.
    pub fn tell_of_former(&self, base: &str, terminal: &Terminal) {
        if let Some(former) = &self.former {
            let former = former.display();
            terminal.talk(format!(
                "note: your commands knew another token for {base}; it is kept in {former}, and `towpath token login \
                 {base} < {former}` takes it up again"
            ));
        }
    }
}

/// Remembers a token. From now on this server is the one that is meant where nothing names one. The token that was
/// remembered for it before goes into a file of its own: it may be the only copy, as servers keep none.
pub fn remember(base: &str, token: String) -> Result<Remembered, Failure> {
    let mut settings = ClientSettings::load()?;
    let before = settings.tokens.insert(base.to_owned(), token.clone()).filter(|before| *before != token);
    settings.default = Some(base.to_owned());
    let former = before.map(|before| settings::keep_former(&before)).transpose()?;
    Ok(Remembered { file: settings.save()?, former })
}

fn row(token: &Value) -> Vec<Cell> {
    let works = match flag(token, "works") {
        true => styled(Style::Green, "works"),
        false => styled(Style::Dim, "over"),
    };
    let scope = |key: &str, all: &str| match token[key].is_array() {
        true => joined(token, key),
        false => all.to_owned(),
    };
    let used = match time(token, "used_at") {
        used if used.is_empty() => "never used".to_owned(),
        used => format!("used {used}"),
    };
    vec![
        number(token, "token").into(),
        format!("{}…", text(token, "prefix")).into(),
        works,
        scope("repos", "every repo").into(),
        scope("verbs", "everything").into(),
        used.into(),
        text(token, "label").into(),
    ]
}
