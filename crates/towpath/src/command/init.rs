//! `towpath init`: a new data folder with its first admin.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use towpath_server::setup::{self, SetupError};

use crate::command::executor::SandboxArg;
use crate::command::file_failure;
use crate::command::serve::{LISTEN_DEFAULT, LISTEN_VARIABLE, PlaceArgs, ServeArgs, failure};
use crate::command::token;
use crate::failure::{Exit, Failure};
use crate::remote::place::checked;
use crate::terminal::Terminal;

/// Make a data folder with its first admin, whose token is written to a file
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The admin's name
    #[arg(long, default_value = "admin")]
    user: String,
    /// Where the server will listen
    #[arg(long, env = LISTEN_VARIABLE, default_value = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// How it will be reached; your commands remember this with the token [default: http:// and the address]
    #[arg(long)]
    url: Option<String>,
    /// File for the admin's token, made with mode 0600 [default: `admin.token` in the folder of the keys]
    #[arg(long)]
    token_file: Option<PathBuf>,
}

pub fn run(arguments: &InitArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let serve = ServeArgs {
        place: arguments.place.clone(),
        listen: arguments.listen,
        url: None,
        slots: None,
        sandbox: SandboxArg::Bubblewrap,
        job_limits: Vec::new(),
    };
    let settings = serve.settings()?;
    let path = arguments.token_file.clone().unwrap_or_else(|| settings.keys.join("admin.token"));
    if path.exists() {
        return Err(Failure::new(Exit::Conflict, format!("`{}` is there already", path.display()))
            .why("a token is written to a new file only")
            .hint("name another one with `--token-file`"));
    }
    let admin = setup::first_admin(&settings, &arguments.user).map_err(|error| match error {
        SetupError::Server(error) => failure(error),
        SetupError::NotEmpty => Failure::new(Exit::Conflict, error.to_string()),
        SetupError::Write(error) => Failure::new(Exit::Usage, error.to_string()),
    })?;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| writeln!(file, "{}", admin.token))
        .map_err(|error| file_failure("write", &path, &error))?;
    let url = arguments.url.clone().unwrap_or_else(|| format!("http://{}", arguments.listen));
    let remembered = token::remember(&checked(&url)?, admin.token)?;
    if terminal.is_json() {
        terminal.record(&serde_json::json!({
            "user": admin.name,
            "token_file": path,
            "data": settings.data,
            "keys": settings.keys,
            "url": url,
            "remembered": remembered,
        }))?;
    } else {
        terminal.data(format!("made {} with the admin `{}`", settings.data.display(), admin.name))?;
        terminal.data(format!("the token is in {}", path.display()))?;
        terminal.data(format!("your commands know {url} and the token from {}", remembered.display()))?;
        terminal.talk(format!("next: towpath serve --data {}", settings.data.display()));
    }
    Ok(ExitCode::SUCCESS)
}
