//! The service as `towpath serve` runs it, in a process of its own, and its executor beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use towpath_executor::SandboxKind;
use towpath_server::service::{self, Progress};

use crate::Fault;
use crate::world::settings;

/// How long a service may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of the process: serves the folder until it is told to end, and prints its address and when jobs can run.
///
/// # Errors
/// The service's own.
pub fn serve(folder: &str) -> Result<(), Fault> {
    let settings = settings(folder.as_ref(), SandboxKind::None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let told = |progress| match progress {
        Progress::Serving { listen, .. } => println!("{listen}"),
        Progress::Ready => println!("ready"),
        Progress::GivingWay | Progress::Draining => {}
    };
    let never_asked = (Default::default(), std::future::pending());
    Ok(runtime.block_on(service::run(settings, told, never_asked))?)
}

/// A running service. Dropping it ends it; its executor is left to [`crate::world::World::end_executor_of`].
pub struct Service {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
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
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("serve").arg(folder).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().ok_or("its output is piped")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let address = line.trim().parse()?;
        ask(address)?;
        Ok(Service { child, said, answered_after: began.elapsed() })
    }

    /// Waits until jobs can run.
    ///
    /// # Errors
    /// It ended instead.
    pub fn wait_until_ready(&mut self) -> Result<(), Fault> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        match line.trim() {
            "ready" => Ok(()),
            other => Err(format!("the service said `{other}` instead of being ready").into()),
        }
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
