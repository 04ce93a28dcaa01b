//! `towpath serve`, the program that people run, and its executor beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Fault;
use crate::world::SLOTS;

/// How long a service may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it says before the address that it listens on, and behind that.
const LISTENS: (&str, &str) = ("(listening on ", ")");
/// What it says once its executor has answered.
const READY: &str = "jobs can run";

/// The program that was built beside this one.
///
/// # Errors
/// It was not built.
pub fn towpath() -> Result<PathBuf, Fault> {
    let program = std::env::current_exe()?.with_file_name("towpath");
    match program.is_file() {
        true => Ok(program),
        false => Err(
            "there is no `towpath` beside this program: `cargo build --release -p towpath -p towpath-bench`"
                .into(),
        ),
    }
}

/// A command of the program, about the service of a folder: data, keys and what its person's commands know are all in there.
fn command(folder: &Path, words: &[&str]) -> Result<Command, Fault> {
    let mut command = Command::new(towpath()?);
    command.args(words);
    command.env("TOWPATH_DATA", folder.join("data")).env("TOWPATH_KEYS", folder.join("keys"));
    command.env("HOME", folder).env_remove("XDG_CONFIG_HOME").current_dir(folder).stdin(Stdio::null());
    Ok(command)
}

fn succeeded(output: Output) -> Result<String, Fault> {
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("towpath failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Makes what a service needs, with its first admin, in a folder that is there.
///
/// # Errors
/// `towpath init` fails.
pub fn init(folder: &Path) -> Result<(), Fault> {
    succeeded(command(folder, &["init"])?.output()?).map(drop)
}

/// A running service. Dropping it ends it; its executor is left to [`crate::world::World::end_executor_of`].
pub struct Service {
    child: Child,
    said: BufReader<ChildStderr>,
    folder: PathBuf,
    address: SocketAddr,
    /// From its start to its first answer.
    pub answered_after: Duration,
}

impl Service {
    /// Starts it on a folder and waits for the answer to a first request.
    ///
    /// # Errors
    /// It does not start, or does not answer.
    pub fn start(folder: &Path) -> Result<Service, Fault> {
        let began = Instant::now();
        let mut command =
            command(folder, &["serve", "--listen", "127.0.0.1:0", "--slots", &SLOTS.to_string()])?;
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stderr.take().ok_or("its errors are piped")?);
        let address = hears(&mut said, LISTENS.0)?;
        let address = address.strip_suffix(LISTENS.1).ok_or("an address ends with a bracket")?.parse()?;
        ask(address)?;
        Ok(Service { child, said, folder: folder.to_owned(), address, answered_after: began.elapsed() })
    }

    /// Waits until jobs can run.
    ///
    /// # Errors
    /// It ended instead.
    pub fn wait_until_ready(&mut self) -> Result<(), Fault> {
        hears(&mut self.said, READY).map(drop)
    }

    /// What a command of its first admin prints.
    ///
    /// # Errors
    /// The command fails.
    pub fn tell(&self, words: &[&str]) -> Result<String, Fault> {
        let token = std::fs::read_to_string(self.folder.join("keys/admin.token"))?;
        let mut command = command(&self.folder, words)?;
        command.env("TOWPATH_URL", format!("http://{}", self.address)).env("TOWPATH_TOKEN", token.trim());
        succeeded(command.output()?)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if kill_process(Pid::from_child(&self.child), Signal::TERM).is_ok() {
            // It ends by itself; how does not matter any more.
            let _ = self.child.wait();
        }
    }
}

/// Reads on until a line has `mark` in it; what stands behind that.
fn hears(said: &mut impl BufRead, mark: &str) -> Result<String, Fault> {
    let mut all = String::new();
    loop {
        let begin = all.len();
        if said.read_line(&mut all)? == 0 {
            return Err(format!("the service ended instead of saying `{mark}`: {all}").into());
        }
        if let Some((_, rest)) = all[begin..].trim_end().split_once(mark) {
            return Ok(rest.to_owned());
        }
    }
}

/// One request of one connection.
fn ask(address: SocketAddr) -> Result<(), Fault> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(format!("the first answer was: {answer}").into()),
    }
}
