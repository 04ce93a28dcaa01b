//! `towpath user ...`: who there is. For admins of the server.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::command::answer::{self, done, flag, text, time};
use crate::command::{new_secret, secret_line};
use crate::failure::Failure;
use crate::remote::Request;
use crate::remote::place::client;
use crate::terminal::Terminal;
use crate::terminal::style::Style;
use crate::terminal::table::{Cell, styled};

/// List, add and steer users of the server
#[derive(Debug, clap::Subcommand)]
pub enum UserCommand {
    /// List users
    List,
    /// Show who you are here
    Me,
    /// Add a user
    Add {
        /// The name
        name: String,
        /// Looks after the whole server
        #[arg(long)]
        admin: bool,
        /// Read a first password from standard input; without it there are only tokens
        #[arg(long)]
        password: bool,
    },
    /// Say who looks after the whole server
    Admin {
        /// The name
        name: String,
        /// Not any more
        #[arg(long)]
        no: bool,
    },
    /// Let a user do nothing any more; their tokens stop working
    Disable {
        /// The name
        name: String,
    },
    /// Let a disabled user go on
    Enable {
        /// The name
        name: String,
    },
    /// Set the password for the login on the pages
    ///
    /// Your own takes two lines on standard input: the old one, then the new one. Somebody else's, which only an admin
    /// sets, takes one: the new one. At a terminal you are asked for them, for the new one twice, and what you type is not
    /// shown. Who has had no password so far leaves the line of the old one empty.
    Password {
        /// The name; without it, you
        name: Option<String>,
    },
}

pub fn run(command: &UserCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    let act = |request: Request| done(&client, &request, terminal);
    match command {
        UserCommand::List => answer::list(&client.ask(&Request::get(&["users"]))?, "users", terminal, row),
        UserCommand::Me => {
            let me = client.ask(&Request::get(&["me"]))?;
            answer::list(&json!([me]), "users", terminal, me_row)
        }
        UserCommand::Add { name, admin, password } => {
            let password = password.then(|| new_secret("password")).transpose()?;
            let body = json!({ "user": name, "admin": admin, "password": password });
            let added = client.ask(&Request::post(&["users"], body))?;
            answer::list(&json!([added]), "users", terminal, row)
        }
        UserCommand::Admin { name, no } => {
            act(Request::put(&["users", name, "admin"], json!({ "admin": !no })))
        }
        UserCommand::Disable { name } => act(Request::post(&["users", name, "disable"], json!({}))),
        UserCommand::Enable { name } => act(Request::post(&["users", name, "enable"], json!({}))),
        UserCommand::Password { name: Some(name) } => {
            let new = new_secret("new password")?;
            act(Request::put(&["users", name, "password"], json!({ "new": new })))
        }
        UserCommand::Password { name: None } => {
            let (old, new) = (secret_line("old password")?, new_secret("new password")?);
            act(Request::put(&["me", "password"], json!({ "old": old, "new": new })))
        }
    }
}

fn row(user: &Value) -> Vec<Cell> {
    let admin = if flag(user, "admin") { "admin" } else { "" };
    let disabled = if flag(user, "disabled") { "disabled" } else { "" };
    vec![
        text(user, "user").into(),
        styled(Style::Bold, admin),
        styled(Style::Yellow, disabled),
        time(user, "created_at").into(),
    ]
}

fn me_row(me: &Value) -> Vec<Cell> {
    let admin = if flag(me, "admin") { "admin of the server" } else { "" };
    let repos = me["repos"].as_object().into_iter().flatten();
    let repos: Vec<String> =
        repos.map(|(repo, role)| format!("{repo}: {}", role.as_str().unwrap_or_default())).collect();
    vec![text(me, "user").into(), admin.into(), repos.join(", ").into()]
}
