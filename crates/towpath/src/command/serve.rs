//! `towpath serve`: the server, in the foreground.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use towpath_executor::held_signals;
use towpath_git::GitOptions;
use towpath_server::faults;
use towpath_server::replace;
use towpath_server::server::ServerError;
use towpath_server::service::{self, Progress};
use towpath_server::settings::{ExecutorLife, ServerSettings};
use towpath_server::setup;
use towpath_store::OpenError;

use crate::command::executor::{SandboxArg, leave_no_core_dump};
use crate::command::job_limit::{self, JobLimit};
use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;

/// Where a server listens unless a person says otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7700";
/// Says so for a server and for those who start it.
pub const LISTEN_VARIABLE: &str = "TOWPATH_LISTEN";

/// Descriptors that a server asks the system for: twice as many as it has places for connections, and as many again.
const DESCRIPTORS: u64 = 16_384;

/// How a server's address is written.
pub const URL_HINT: &str = "write it as `--url https://towpath.example.org` or `--url http://127.0.0.1:7700`";

/// What to do where the keys of the data are not.
pub const KEYS_HINT: &str = "put the keys of these data there, or name their folder, `--keys FOLDER`; if they are lost for good, \
                         start once with `towpath serve --new-keys`: the record says so from then on, and secrets have to be \
                         set again";

/// Jobs at once at most: each has a launcher that waits, and a user of its own from a block of so many.
const SLOTS_MAX: i64 = towpath_executor::JOB_USERS_PER_EXECUTOR as i64;

/// Serve repositories, changes, the API and the pages, until SIGTERM or Ctrl-C
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Make new keys where those of the data are missing, because they are lost for good: the record says so from then on, and
    /// secrets have to be set again
    #[arg(long)]
    pub new_keys: bool,
    /// Address to listen on; loopback unless a proxy with TLS stands in front
    #[arg(long, env = LISTEN_VARIABLE, default_value = LISTEN_DEFAULT)]
    pub listen: SocketAddr,
    /// How others reach the server; links use nothing else [default: http:// and the address]
    #[arg(long)]
    pub url: Option<String>,
    /// A proxy, by its address as the server sees it, that says in `X-Forwarded-For` where a request comes from. May be given
    /// more than once
    #[arg(long = "trusted-proxy", value_name = "ADDRESS")]
    pub trusted_proxies: Vec<IpAddr>,
    /// Jobs at once [default: one for each processor]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=SLOTS_MAX))]
    pub slots: Option<u32>,
    /// Whether jobs run behind the border; `none` marks every run
    #[arg(long, value_enum, default_value = "bubblewrap")]
    pub sandbox: SandboxArg,
    /// End when standard input ends, and the executor with it: for whoever has a server as a part of itself
    #[arg(long, hide = true)]
    pub until_input_ends: bool,
    /// A bound of each job: `memory`, `disk`, `tmp` or `log` in bytes or KiB, MiB, GiB; `processes`; `files`. May be given
    /// more than once [default: memory=8GiB, processes=2048, disk=20GiB, files=1000000, tmp=4GiB, log=128MiB]
    #[arg(long = "job-limit", value_name = "NAME=VALUE")]
    pub job_limits: Vec<JobLimit>,
}

/// Where a server keeps its things.
#[derive(Debug, Clone, clap::Args)]
pub struct PlaceArgs {
    /// Folder of everything durable
    #[arg(long, env = "TOWPATH_DATA", default_value = "towpath-data")]
    pub data: PathBuf,
    /// Folder of the keys, which no backup holds [default: the data folder's name and `-keys`, beside it]
    #[arg(long, env = "TOWPATH_KEYS")]
    pub keys: Option<PathBuf>,
}

impl PlaceArgs {
    /// The folder of the keys.
    pub fn keys(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| {
            let mut name = self.data.clone().into_os_string();
            name.push("-keys");
            name.into()
        })
    }
}

impl ServeArgs {
    /// A server at a place, with the defaults otherwise.
    pub fn settings(&self) -> Result<ServerSettings, Failure> {
        let program = own_program().map_err(|error| {
            Failure::new(Exit::Usage, "this program's own file cannot be found").why(error.to_string())
        })?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(ServerSettings {
            data: self.place.data.clone(),
            keys: self.place.keys(),
            new_keys: self.new_keys,
            listen: self.listen,
            url: self.url.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            slots: self.slots.unwrap_or(u32::try_from(cores).unwrap_or(2)),
            sandbox: self.sandbox.into(),
            limits: job_limit::limits(&self.job_limits),
            program,
            git: GitOptions::default(),
            executor: match self.until_input_ends {
                true => ExecutorLife::WithServer,
                false => ExecutorLife::Own,
            },
        })
    }
}

pub fn run(arguments: &ServeArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if let Ok(fault) = std::env::var(faults::VARIABLE) {
        faults::arm(&fault).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        terminal.talk(format!("this server will kill itself at `{fault}`"));
    }
    crate::terminal::log::to_stderr();
    leave_no_core_dump();
    have_descriptors();
    if !setup::is_made(&arguments.place.data) {
        return Err(not_made(&arguments.place.data));
    }
    give_way(&arguments.place.data)?;
    let signalled = listen_for_signals()?;
    let settings = arguments.settings()?;
    if let Some(warning) = in_plain_text(&settings) {
        terminal.talk(warning);
    }
    // A program that was given the listener has it as its input.
    let heeds_input = arguments.until_input_ends && std::env::var_os(replace::LISTENER_VARIABLE).is_none();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Unavailable, "no threads").why(error.to_string()))?;
    let told = |progress: Progress| match progress {
        Progress::Serving { listen, url } => {
            terminal.talk(format!("serving at {url} (listening on {listen})"))
        }
        Progress::Ready => terminal.talk("jobs can run"),
        Progress::GivingWay => terminal.talk("the deployed program takes over"),
        Progress::Draining => terminal.talk("draining: answers and commits under way end first"),
    };
    let ends = (signalled, input_ends(heeds_input));
    runtime.block_on(service::run(settings, told, ends)).map_err(failure)?;
    Ok(ExitCode::SUCCESS)
}

/// Each connection takes a descriptor. Many a system gives 1,024 unless a process asks for more, which it may.
fn have_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // The places for connections follow from what there is.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// What is set as soon as this process is told to end. Before any other thread is there: those that a server before this
/// program held back for it come in now.
fn listen_for_signals() -> Result<Arc<AtomicBool>, Failure> {
    let signalled = Arc::new(AtomicBool::new(false));
    let listens = [SIGTERM, SIGINT]
        .into_iter()
        .try_for_each(|signal| signal_hook::flag::register(signal, Arc::clone(&signalled)).map(drop));
    listens.and_then(|()| held_signals::let_in()).map_err(|error| {
        Failure::new(Exit::Unavailable, "signals cannot be listened for").why(error.to_string())
    })?;
    Ok(signalled)
}

/// This program's file. Where another one has its name by now, or none, the system has a way to it while this process is.
fn own_program() -> std::io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    let is_there = named.is_file();
    Ok(if is_there { named } else { format!("/proc/{}/exe", std::process::id()).into() })
}

fn not_made(data: &Path) -> Failure {
    Failure::new(Exit::NotFound, format!("`{}` is no data folder of a server yet", data.display()))
        .why("it has no admin, so nobody could use the server")
        .hint(format!(
            "`towpath init --data {}` makes it; if yours is another one, name it: `--data FOLDER`",
            data.display()
        ))
}

/// What is to be said of a server that others than this machine can reach, and listen to.
fn in_plain_text(settings: &ServerSettings) -> Option<String> {
    let by_tls = settings.url.as_ref().is_some_and(|url| url.starts_with("https://"));
    (!settings.listen.ip().is_loopback() && !by_tls).then(|| {
        format!(
            "warning: {} is reached from other machines in plain HTTP: whoever is on the way reads passwords and \
             tokens, and may use them\n hint: listen on loopback, put a proxy with TLS in front, and name its address: \
             `--url https://towpath.example.org`",
            settings.listen
        )
    })
}

/// Comes when nobody holds the other end of standard input any more; never, if that is not heeded.
async fn input_ends(is_heeded: bool) {
    if !is_heeded {
        return std::future::pending().await;
    }
    let (over, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(|| {
        // What is written there means nothing; an input that breaks has ended, too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = over.send(());
    });
    // A reader that is gone hears of no end any more: it is one.
    let _ = ended.await;
}

/// Executes what was deployed to this server instead, if that is another program than this one.
fn give_way(data: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Unavailable, "the deployed program cannot be executed").why(error.to_string())
    };
    match replace::deployed_instead(data) {
        Ok(Some(program)) => Err(failed(replace::execute_instead(&program))),
        Ok(None) => Ok(()),
        // A folder that is not there yet has nothing deployed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Why a server could not be, as every command says it.
pub fn failure(error: ServerError) -> Failure {
    let exit = match &error {
        // Somebody else has the folder, or a newer program had it.
        ServerError::Open(
            OpenError::InUse { .. }
            | OpenError::OtherRecord { .. }
            | OpenError::ForgedLeaf { .. }
            | OpenError::OtherKey { .. }
            | OpenError::NewerSchema { .. },
        )
        | ServerError::MissingKeys { .. }
        | ServerError::Engine(_) => Exit::Conflict,
        ServerError::Open(
            OpenError::Permissions { .. }
            | OpenError::NotTowpath { .. }
            | OpenError::ForeignSchema { .. }
            | OpenError::OldLibrary { .. },
        ) => Exit::Usage,
        ServerError::Open(_)
        | ServerError::Io { .. }
        | ServerError::Executor(_)
        | ServerError::Revoked(_) => Exit::Unavailable,
        _ => Exit::Usage,
    };
    let is_taken =
        matches!(&error, ServerError::Io { why, .. } if why.kind() == std::io::ErrorKind::AddrInUse);
    let failure = Failure::new(exit, "the server cannot serve").why(error.to_string());
    match error {
        _ if is_taken => {
            failure.hint("`--listen` takes another address; `--listen 127.0.0.1:0` takes any free port")
        }
        ServerError::Url(_) => failure.hint(URL_HINT),
        ServerError::MissingKeys { .. } | ServerError::Open(OpenError::OtherKey { .. }) => {
            failure.hint(KEYS_HINT)
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_program_on_newer_data_is_stale_and_says_what_to_do() {
        let newer = OpenError::NewerSchema { found: 9, known: 8 };
        let failure = failure(ServerError::Open(newer));
        assert_eq!(failure.record()["error"]["exit"], 5);
        expect_test::expect![[r#"
            error: the server cannot serve
              why: the database has schema 9, this Towpath knows 8: a newer version made it or went on with it; install that one, or restore a backup from before"#]].assert_eq(&failure.to_string());
    }
}
