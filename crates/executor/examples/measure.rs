//! Prints the executor's figures beside their floors, each pair measured in turn.
//!
//! `cargo run --release -p towpath-executor --example measure [plain] [sandboxed] [tree] [log]`

use std::time::Duration;

use towpath_executor::{ExecutorConfig, SandboxKind, measure};

const JOBS_PLAIN: u32 = 10_000;
const JOBS_SANDBOXED: u32 = 1_000;
const LOG_BYTES: u64 = 512 * 1024 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("sandbox-helper") {
        towpath_executor::sandbox_helper();
        return Ok(());
    }
    let data = std::env::temp_dir().join(format!("towpath-measure-{}", std::process::id()));
    std::fs::create_dir_all(&data)?;
    let result = measure_all(&data);
    std::fs::remove_dir_all(&data)?;
    result
}

fn measure_all(data: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let helper = vec![std::env::current_exe()?.into(), "sandbox-helper".into()];
    let config = |name: &str, sandbox| -> ExecutorConfig {
        measure::config(&data.join(name), helper.clone(), 2, sandbox)
    };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let rounds = |name: &str| if wants(name) { 0..3 } else { 0..0 };
    for _ in rounds("plain") {
        let floor = measure::spawn_floor(JOBS_PLAIN, 2)?;
        let own = measure::pool_jobs(config("plain", SandboxKind::None), JOBS_PLAIN)?;
        print("10,000 plain jobs / posix_spawn", own, floor);
    }
    for _ in rounds("sandboxed") {
        let floor = measure::bwrap_floor(config("floor", SandboxKind::Bubblewrap), JOBS_SANDBOXED, 2)?;
        let own = measure::pool_jobs(config("sandboxed", SandboxKind::Bubblewrap), JOBS_SANDBOXED)?;
        print("1,000 sandboxed jobs / bare bwrap", own, floor);
    }
    for _ in rounds("tree") {
        let tree = measure::overlay_tree(config("tree", SandboxKind::Bubblewrap), 5_000, 50)?;
        println!("overlay tree of 5,000 files: {:.2} ms", tree.as_secs_f64() * 1e3);
    }
    for _ in rounds("log") {
        let floor = measure::cat_floor(data, LOG_BYTES)?;
        let own = measure::log_stream(data, LOG_BYTES)?;
        print("512 MiB of log / cat | cat", own, floor);
    }
    Ok(())
}

fn print(name: &str, own: Duration, floor: Duration) {
    let (own, floor) = (own.as_secs_f64(), floor.as_secs_f64());
    println!("{name}: {own:.3} s, floor {floor:.3} s, ratio {:.2}", own / floor);
}
