//! Whether the server works, for load balancers, for Prometheus, and for people.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::ids::GateId;

use super::Nothing;
use crate::housekeeping::{Figures, Retention};
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::http::records;
use crate::http::stream::respond;

/// Time for the turn loop to answer before it counts as stuck.
const LOOP_DEADLINE: Duration = Duration::from_secs(5);

/// `GET /healthz`: the process answers.
pub async fn alive(_call: Call, _request: Request) -> Answer<Response> {
    Ok(respond("text/plain; charset=utf-8", "ok\n".into()))
}

/// `GET /readyz`: it can do its work. Says no more than that to strangers.
pub async fn ready(call: Call, _request: Request) -> Answer<Response> {
    let fine = checks(&call).await.iter().all(|check| check.ok || !check.vital);
    Ok(match fine {
        true => respond("text/plain; charset=utf-8", "ready\n".into()),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    })
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What.
    pub check: String,
    /// Whether it works.
    pub ok: bool,
    /// Whether the server can do its work without.
    pub vital: bool,
    /// What is known of it, or what is wrong and what to do.
    pub text: String,
}

/// The server as it finds itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Doctor {
    /// Its version.
    pub version: String,
    /// Its address.
    pub url: String,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// `GET /api/v1/doctor`
pub async fn doctor(call: Call, _: Nothing) -> Answer<Doctor> {
    Ok(Doctor {
        version: env!("CARGO_PKG_VERSION").into(),
        url: call.edge.site.url.clone(),
        checks: checks(&call).await,
    })
}

/// A server's version.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Of the program.
    pub version: String,
}

/// `GET /api/v1/version`
pub async fn version(_call: Call, _: Nothing) -> Answer<Version> {
    Ok(Version { version: env!("CARGO_PKG_VERSION").into() })
}

async fn checks(call: &Call) -> Vec<Check> {
    let shared = call.shared();
    let health = shared.store.writer().health();
    let alive = tokio::time::timeout(LOOP_DEADLINE, shared.engine.pool(|_| ())).await.ok().flatten();
    let check = |check: &str, vital: bool, trouble: Option<String>, fine: &str| Check {
        check: check.to_owned(),
        ok: trouble.is_none(),
        vital,
        text: trouble.unwrap_or_else(|| fine.to_owned()),
    };
    let full = health.full.then(|| "the disk is full: nothing is accepted until there is room".to_owned());
    let stuck =
        alive.is_none().then(|| "the turn loop does not answer; look into the log, then restart".to_owned());
    let landing =
        health.landing_stopped.map(|why| format!("landing stopped: {why}; check the disk, then restart"));
    let restored = trouble(call.read(|view| Ok(view.restored()?)).await, |restored| {
        restored.map(|restored| format!("{restored}; `towpath backup show` says how an admin accepts that"))
    });
    let secrets = shared.secrets.clone();
    let sealed = trouble(call.read(move |view| Ok(secrets.sealed_otherwise(view)?)).await, |names| {
        let names = (!names.is_empty()).then(|| names.join("`, `"))?;
        Some(format!("these cannot be opened with the key that is there, set them again: `{names}`"))
    });
    let taken_over = shared.store.taken_over().map_or_else(
        || "all of it was under a checkpoint when this server started".to_owned(),
        |leaves| {
            let (from, to) = (leaves.start, leaves.end - 1);
            format!(
                "no checkpoint covered leaves {from} to {to} when this server started: they are of the half second before \
                 the last one was killed, or nothing tells who wrote them"
            )
        },
    );
    let git = format!("git {}", shared.repos.git().version());
    vec![
        check("turns", true, stuck, "the turn loop answers"),
        check("disk", true, full, "there is room"),
        check("durability", true, landing, "the disk confirms what is written"),
        check("witness", false, health.sink_trouble, "checkpoints are kept outside the data folder"),
        check("record", false, None, &taken_over),
        check("database", false, health.fold_trouble, "its log is folded in"),
        check("restore", false, restored, "the data were not restored, or what that lost is accepted"),
        check("secrets", false, sealed, "every secret can be opened"),
        check("git", false, None, &git),
        housekeeping(call).await,
    ]
}

/// What is wrong with what was read, or that it cannot be read.
fn trouble<T>(found: Answer<T>, look: impl FnOnce(T) -> Option<String>) -> Option<String> {
    found.map_or_else(|error| Some(format!("nobody can tell: {}", error.why)), look)
}

/// When it was last done, and what it came to.
async fn housekeeping(call: &Call) -> Check {
    let found = call.read(|view| Ok((Figures::read(view)?, Retention::read(view)?))).await;
    let (ok, text) = match found {
        Ok((None, _)) => (true, "not done yet".to_owned()),
        Ok((Some(figures), retention)) => {
            let hours = (call.now().0 - figures.ended_at) / 3_600_000;
            let late = hours > i64::from(retention.every_hours) * HOUSEKEEPING_LATE;
            let trouble = figures.trouble.join("; ");
            let text = format!(
                "done {hours} h ago: {} runs, {} logs, {} files of {} bytes, {} candidates went{}{trouble}",
                figures.runs,
                figures.logs,
                figures.files,
                figures.bytes,
                figures.candidates,
                if trouble.is_empty() { "" } else { "; did not work: " },
            );
            (trouble.is_empty() && !late, text)
        }
        Err(error) => (false, error.why),
    };
    Check { check: "housekeeping".to_owned(), ok, vital: false, text }
}

/// Times of its period after which it counts as not done any more.
const HOUSEKEEPING_LATE: i64 = 3;

/// `GET /metrics`, as Prometheus reads it.
pub async fn metrics(call: Call, _request: Request) -> Answer<Response> {
    let mut text = String::new();
    let (answers, seconds) = call.edge.counters.read();
    head(&mut text, "towpath_http_answers_total", "counter", "Answers by the first digit of their code.");
    for (class, count) in answers.iter().enumerate() {
        let _ = writeln!(text, "towpath_http_answers_total{{class=\"{}xx\"}} {count}", class + 1);
    }
    single(&mut text, ("towpath_http_seconds_total", "counter"), "Time until answers began.", seconds);
    let streams = call.edge.streams.count() as f64;
    single(&mut text, ("towpath_streams_open", "gauge"), "Open event streams and followed logs.", streams);
    pool(&call, &mut text).await;
    gates(&call, &mut text).await?;
    let leaves = call.read(|view| Ok(view.leaf_count()?)).await? as f64;
    single(&mut text, ("towpath_audit_leaves", "gauge"), "Leaves of the audit log.", leaves);
    if let Some(figures) = call.read(|view| Ok(Figures::read(view)?)).await? {
        let seconds = figures.ended_at as f64 / 1000.0;
        let about = ("towpath_housekeeping_ended_seconds", "gauge");
        single(&mut text, about, "When housekeeping last ended, since 1970.", seconds);
        let about = ("towpath_housekeeping_removed_bytes", "gauge");
        single(&mut text, about, "Bytes of outputs that it removed.", figures.bytes as f64);
        let about = ("towpath_housekeeping_troubles", "gauge");
        single(&mut text, about, "Parts of it that did not work.", figures.trouble.len() as f64);
    }
    let runs = call.read(|view| Ok(view.run_count()?)).await? as f64;
    single(&mut text, ("towpath_runs_stored", "gauge"), "Runs that are stored.", runs);
    if let Some(bytes) = resident_bytes() {
        single(&mut text, ("process_resident_memory_bytes", "gauge"), "Resident memory.", bytes as f64);
    }
    Ok(respond("text/plain; version=0.0.4; charset=utf-8", text.into()))
}

async fn pool(call: &Call, text: &mut String) {
    let look = |live: &towpath_core::turn::Live<towpath_core::pool::Pool>| {
        (live.state.held(), live.state.waiting().count())
    };
    let (held, waiting) = call.shared().engine.pool(look).await.unwrap_or_default();
    let slots = u64::from(call.shared().settings.slots);
    let running = held.min(slots);
    single(text, ("towpath_pool_held", "gauge"), "Job slots in use.", running as f64);
    let ready =
        "Jobs that lie at the executor already, so that a slot that gets free has its next one at once.";
    single(text, ("towpath_pool_ready", "gauge"), ready, (held - running) as f64);
    single(text, ("towpath_pool_slots", "gauge"), "Job slots in all.", slots as f64);
    single(text, ("towpath_pool_waiting_runs", "gauge"), "Runs that wait for a slot.", waiting as f64);
}

async fn gates(call: &Call, text: &mut String) -> Answer<()> {
    let all = |view: &towpath_store::Snapshot| {
        let mut gates: Vec<GateId> = Vec::new();
        for repo in view.repos()? {
            gates.extend(
                records::settings(view, &repo.name)?.gates(&repo.name).into_iter().map(|(gate, _)| gate),
            );
        }
        Ok(gates)
    };
    let now = call.now();
    let mut found = Vec::new();
    for id in call.read(all).await? {
        let look = move |live: &towpath_core::turn::Live<towpath_core::gate::Gate>| {
            let state = &live.state;
            let running = state.runs().values().filter(|run| run.is_running()).count();
            let frozen = usize::from(state.branch().frozen.is_some() || !state.halts().is_empty());
            [state.changes().len(), state.queue(now).len(), running, frozen]
        };
        if let Some(numbers) = call.shared().engine.gate(id.clone(), look).await {
            found.push((id, numbers));
        }
    }
    let names = [
        ("towpath_changes_open", "Open changes."),
        ("towpath_queue_entries", "Entries of the queue."),
        ("towpath_runs_running", "Runs under way."),
        ("towpath_branch_frozen", "Whether nothing lands."),
    ];
    for (at, (name, help)) in names.into_iter().enumerate() {
        head(text, name, "gauge", help);
        for (id, numbers) in &found {
            // Names of repos and branches have neither quotes nor backslashes.
            let _ = writeln!(text, "{name}{{repo=\"{}\",branch=\"{}\"}} {}", id.repo, id.branch, numbers[at]);
        }
    }
    Ok(())
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn single(text: &mut String, (name, kind): (&str, &str), help: &str, value: f64) {
    head(text, name, kind, help);
    let _ = writeln!(text, "{name} {value}");
}

/// Resident memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use towpath_store::ReadError;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_taken_for_fine() {
        assert_eq!(trouble(Ok(None), |found: Option<String>| found), None);
        let said = trouble(Err(ReadError::Busy.into()), |found: Option<String>| found);
        assert_eq!(
            said.as_deref(),
            Some("nobody can tell: no read connection became free in time; try again")
        );
    }
}
