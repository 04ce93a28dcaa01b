//! The executor's two entry points as a program of its own, for tests and measurements of this crate. The product
//! has them as subcommands of `towpath`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use towpath_executor::{ALONE_MAX, ExecutorConfig, SandboxKind};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sandbox-helper"] => towpath_executor::sandbox_helper(),
        ["serve", data] => serve(Path::new(data), SandboxKind::Bubblewrap, (ALONE_MAX, None)),
        ["serve", data, "--sandbox", "none"] => serve(Path::new(data), SandboxKind::None, (ALONE_MAX, None)),
        ["serve", data, "--sandbox", "none", patience, count] => {
            let patience = match (patience, count.parse().map(Duration::from_millis)) {
                ("--alone-ms", Ok(alone)) => (alone, None),
                ("--orphan-ms", Ok(orphan)) => (ALONE_MAX, Some(orphan)),
                _ => return ExitCode::from(2),
            };
            serve(Path::new(data), SandboxKind::None, patience)
        }
        ["try", data] => try_sandbox(Path::new(data)),
        _ => {
            eprintln!(
                "usage: towpath-executor-process sandbox-helper | serve FOLDER [--sandbox none [--alone-ms | --orphan-ms COUNT]] | try FOLDER"
            );
            ExitCode::from(2)
        }
    }
}

/// Serves at `FOLDER/executor.sock`.
fn serve(
    data: &Path,
    sandbox: SandboxKind,
    (alone_max, orphan_max): (Duration, Option<Duration>),
) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: cannot find this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let helper = vec![program.into(), "sandbox-helper".into()];
    let config = ExecutorConfig {
        sandbox,
        slots: 2,
        alone_max,
        orphan_max,
        ..ExecutorConfig::in_folder(data, helper)
    };
    match towpath_executor::serve(config, &data.join("executor.sock")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the sandbox once and says what it can do.
fn try_sandbox(data: &Path) -> ExitCode {
    let helper = match std::env::current_exe() {
        Ok(program) => vec![program.into(), "sandbox-helper".into()],
        Err(error) => {
            eprintln!("error: cannot find this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    match towpath_executor::JobPool::start(ExecutorConfig::in_folder(data, helper), |_| {}) {
        Ok(pool) => {
            println!("passed: {:?}", pool.capabilities());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
