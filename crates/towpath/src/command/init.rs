//! `towpath init`: a new data folder with its first admin.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use towpath_server::http::origin::Site;
use towpath_server::settings::ServerSettings;
use towpath_server::setup::{self, SetupError};

use crate::command::executor::SandboxArg;
use crate::command::file_failure;
use crate::command::serve::{LISTEN_DEFAULT, LISTEN_VARIABLE, PlaceArgs, ServeArgs, URL_HINT, failure};
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
    let url = arguments.url.clone().unwrap_or_else(|| format!("http://{}", arguments.listen));
    let base = checked(&url)?;
    Site::new(&base).map_err(|error| Failure::new(Exit::Usage, error.to_string()).hint(URL_HINT))?;
    setup::check_name(&arguments.user).map_err(|error| not_set_up(error, arguments))?;
    let settings = settings(arguments)?;
    if setup::is_made(&settings.data) {
        return Err(made_already(arguments));
    }
    let path = arguments.token_file.clone().unwrap_or_else(|| settings.keys.join("admin.token"));
    let file = TokenFile::make(&path, &settings)?;
    let written = file.writer()?;
    let admin = setup::first_admin(&settings, &arguments.user, written)
        .map_err(|error| not_set_up(error, arguments))?;
    file.keep();
    let remembered = token::remember(&base, admin.token);
    if terminal.is_json() {
        terminal.record(&serde_json::json!({
            "user": admin.name,
            "token_file": path,
            "data": settings.data,
            "keys": settings.keys,
            "url": base,
            "remembered": remembered.as_ref().ok().map(|remembered| &remembered.file),
            "former": remembered.as_ref().ok().and_then(|remembered| remembered.former.as_ref()),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.data(format!("made {} with the admin `{}`", settings.data.display(), admin.name))?;
    terminal.data(format!("the token is in {}", path.display()))?;
    match remembered {
        Ok(remembered) => {
            let file = remembered.file.display();
            terminal.data(format!("your commands know {base} and the token from {file}"))?;
            remembered.tell_of_former(&base, terminal);
        }
        // The server is made, and its token is kept: commands can be told of both at any time.
        Err(failure) => {
            terminal.talk(failure);
            terminal.talk(format!(
                "your commands do not know the token yet: `towpath token login {base} < {}`",
                path.display()
            ));
        }
    }
    terminal.talk(format!("next: {}", serve_command(arguments, &settings)));
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: &InitArgs) -> Result<ServerSettings, Failure> {
    let serve = ServeArgs {
        new_keys: false,
        place: arguments.place.clone(),
        listen: arguments.listen,
        url: None,
        trusted_proxies: Vec::new(),
        slots: None,
        sandbox: SandboxArg::Bubblewrap,
        job_limits: Vec::new(),
        until_input_ends: false,
    };
    serve.settings()
}

fn not_set_up(error: SetupError, arguments: &InitArgs) -> Failure {
    match error {
        SetupError::Server(error) => failure(error),
        SetupError::NotEmpty => made_already(arguments),
        SetupError::Write(error) => Failure::new(Exit::Usage, "there is no admin yet")
            .why(error.to_string())
            .hint("nothing has to be removed: run `towpath init` again"),
    }
}

fn made_already(arguments: &InitArgs) -> Failure {
    let data = arguments.place.data.display();
    Failure::new(Exit::Conflict, format!("`{data}` is a data folder with users already"))
        .why("a new one has none")
        .hint(format!(
            "`towpath serve --data {data}` serves it; `towpath user add` adds more users while it runs"
        ))
}

/// How the server is started that was just made.
fn serve_command(arguments: &InitArgs, settings: &ServerSettings) -> String {
    let mut command = format!("towpath serve --data {}", settings.data.display());
    if arguments.place.keys.is_some() {
        command.push_str(&format!(" --keys {}", settings.keys.display()));
    }
    if arguments.listen.to_string() != LISTEN_DEFAULT {
        command.push_str(&format!(" --listen {}", arguments.listen));
    }
    arguments.url.iter().for_each(|url| command.push_str(&format!(" --url {url}")));
    command
}

/// The file of the token, there before the admin is. Dropping it removes it again, so that a failed command can be
/// repeated as it was.
struct TokenFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl TokenFile {
    fn make(path: &Path, settings: &ServerSettings) -> Result<TokenFile, Failure> {
        if path.parent() == Some(&settings.keys) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&settings.keys);
            made.map_err(|error| file_failure("make", &settings.keys, &error))?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Failure::new(Exit::Conflict, format!("`{}` is there already", path.display()))
                    .why("a token is written to a new file only")
                    .hint("remove it if it is of no use, or name another one with `--token-file`")
            }
            _ => file_failure("write", path, &error)
                .hint("name a file in a folder that is there and yours: `--token-file FILE`"),
        })?;
        Ok(TokenFile { path: path.to_owned(), file, kept: false })
    }

    /// What writes the token, durably.
    fn writer(&self) -> Result<impl FnOnce(&str) -> std::io::Result<()> + Send + use<>, Failure> {
        let file = self.file.try_clone().map_err(|error| file_failure("write", &self.path, &error))?;
        Ok(move |token: &str| {
            writeln!(&file, "{token}")?;
            file.sync_all()
        })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.kept {
            // If it stays, the next try says so.
            let _ = fs::remove_file(&self.path);
        }
    }
}
