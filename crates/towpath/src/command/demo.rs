//! `towpath demo`: a small real repository, about ten real changes, and what becomes of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::terminal::Terminal;

mod cases;
mod folder;
mod project;
mod record;
mod serve;
mod watch;

use cases::{CASES, Case, Outcome};
use project::Project;
use record::Record;
use serve::DemoServer;

/// Where the demo lives unless told otherwise.
const FOLDER: &str = ".towpath-demo";
/// Everything the demo does takes less on two cores; beyond it something is wrong.
const DEADLINE: Duration = Duration::from_secs(180);

/// Shows the gate at work: a small repository, a server, and about ten changes by real git pushes
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder of the demo; what an earlier demo left there is replaced
    #[arg(long, default_value = FOLDER)]
    folder: PathBuf,
    /// Kill the server with SIGKILL in the middle of a landing, start it again, and carry on
    #[arg(long)]
    kill: bool,
    /// Address to serve on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// End when the table is printed, also on a terminal
    #[arg(long)]
    no_serve: bool,
}

/// One change of the demo and how far it is.
#[derive(Debug)]
struct Shown {
    case: &'static Case,
    change: u64,
    title: String,
    outcome: Outcome,
    why: String,
    commit: Option<String>,
    /// In what the record does not bear out what the table says of its case.
    amiss: Vec<String>,
}

impl Shown {
    fn is_well(&self) -> bool {
        self.outcome == self.case.expected && self.amiss.is_empty()
    }
}

/// What came of all of it.
struct Played {
    changes: Vec<Shown>,
    /// Commits of main on which not all that is required has passed.
    red: Vec<String>,
}

impl Played {
    fn is_well(&self) -> bool {
        self.red.is_empty() && self.changes.iter().all(Shown::is_well)
    }

    fn main_in_words(&self) -> String {
        match &self.red[..] {
            [] => "main was never red".to_owned(),
            red => format!("main was red at {}", red.join(", ")),
        }
    }
}

pub fn run(arguments: &DemoArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let mut project = Project::make(&arguments.folder)?;
    let mut server = DemoServer::start(&project, arguments.listen, arguments.kill, terminal)?;
    terminal.talk(format!(
        "serving at {}  (user `ann`, token in {})",
        server.url(),
        project.token_file().display()
    ));
    let result = play(&mut project, &mut server, begun, terminal);
    let played = match result {
        Ok(played) => played,
        Err(failure) => {
            server.stop();
            return Err(failure);
        }
    };
    watch::print_table(&played, begun.elapsed(), terminal)?;
    if terminal.is_live() && !arguments.no_serve {
        server.serve_until_told_to_end(terminal)?;
    } else {
        server.stop();
    }
    if !played.is_well() {
        return Err(Failure::new(Exit::Failed, "not everything went as it should")
            .why(format!("the table above says what; {}", played.main_in_words()))
            .hint(format!("the server's log is {}", project.log_file().display())));
    }
    server.check_killed()?;
    Ok(ExitCode::SUCCESS)
}

fn play(
    project: &mut Project,
    server: &mut DemoServer,
    begun: Instant,
    terminal: &Terminal,
) -> Result<Played, Failure> {
    let ann = server.client(&project.ann)?;
    project.move_in(&ann)?;
    // A gate knows nobody's rights before its first reading of the forge.
    let branch = Request::get(&["repos", "demo", "branches", "main"]);
    while ann.ask(&branch)?["tip"].is_null() {
        if begun.elapsed() > DEADLINE {
            return Err(Failure::new(Exit::TimedOut, "the branch of the demo is not read in time"));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let why = serde_json::json!({ "why": "the demo's changes arrive" });
    ann.ask(&Request::post(&["repos", "demo", "branches", "main", "freeze"], why))?;
    let mut changes = Vec::new();
    for case in CASES {
        let pushed = project.push(case, server.url())?;
        changes.push(watch::opened(case, &ann, &pushed, terminal)?);
    }
    terminal.talk(
        "every change is tested alone, on the same main; then the branch is unfrozen and they land in turn",
    );
    watch::until_tested(server, project, &mut changes, begun + DEADLINE, terminal)?;
    let unfreeze = Request::post(&["repos", "demo", "branches", "main", "unfreeze"], serde_json::json!({}));
    server.client(&project.ann)?.ask(&unfreeze)?;
    watch::until_settled(server, project, &mut changes, begun + DEADLINE, terminal)?;
    let record = Record::read(project, &server.client(&project.ann)?)?;
    let amiss: Vec<_> = changes.iter().map(|shown| record.amiss(shown, &changes)).collect();
    for (shown, amiss) in changes.iter_mut().zip(amiss) {
        shown.amiss = amiss;
    }
    Ok(Played { changes, red: record.red().into_iter().map(|tip| tip.commit.clone()).collect() })
}
