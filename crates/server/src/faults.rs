//! Places at which the process can be made to kill itself, so that crashes at effect boundaries can be tested on the
//! real binary. Nothing happens unless [`arm`] was called.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that arms a place: `land.after:2` is the second passing of `land.after`.
pub const VARIABLE: &str = "TOWPATH_FAULT";

/// Every place, in the order in which a change meets them.
pub const POINTS: &[&str] = &[
    "turn.before-commit",
    "turn.after-commit",
    "read-forge.before",
    "read-forge.after",
    "make-candidate.before",
    "make-candidate.after",
    "run-job.before",
    "run-job.sent",
    "run-job.ended",
    "land.before",
    "land.after",
    "mark-landed.before",
    "mark-landed.after",
    "note-landing.before",
    "note-landing.after",
    "read-graph.before",
    "read-graph.after",
    "set-check.before",
    "set-check.after",
    "alert.before",
    "alert.after",
    "replace-server.before",
    "replace-server.after",
    "retarget.written",
];

struct Armed {
    point: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Why a place cannot be armed.
#[derive(Debug, thiserror::Error)]
#[error("`{named}` names no fault point; it is written `land.after:2`, with one of: {}", POINTS.join(", "))]
pub struct UnknownPoint {
    named: String,
}

/// Arms one place, as [`VARIABLE`] has it.
///
/// # Errors
/// There is no such place.
pub fn arm(text: &str) -> Result<(), UnknownPoint> {
    let (point, count) = text.split_once(':').unwrap_or((text, "1"));
    let count: u64 = count.parse().unwrap_or(0);
    if !POINTS.contains(&point) || count == 0 {
        return Err(UnknownPoint { named: text.to_owned() });
    }
    let _ = ARMED.set(Armed { point: point.to_owned(), left: AtomicU64::new(count) });
    Ok(())
}

/// Kills this process, as a power cut would, if this passing of the place is the armed one.
pub fn point(kind: &str, moment: &str) {
    debug_assert!(
        POINTS.iter().any(|point| point.split_once('.') == Some((kind, moment))),
        "{kind}.{moment} is a place that cannot be armed"
    );
    let Some(armed) = ARMED.get() else { return };
    let here = armed.point.split_once('.') == Some((kind, moment));
    if here && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        let me = rustix::process::getpid();
        // SIGKILL cannot be caught: nothing is flushed, nothing is dropped.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_places_can_be_armed() {
        assert!(arm("land.now:1").unwrap_err().to_string().contains("land.after"));
        assert!(arm("land.after:0").is_err());
        assert!(arm("land.after:x").is_err());
    }
}
