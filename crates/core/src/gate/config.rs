//! The server's settings for a gate. What stands in the definition (`gate:`) is not here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Settings that an admin gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Seconds between reads of the forge when no bell rings.
    pub poll_seconds: u32,
    /// Runs of changes at once, beside that of what could land next; the queue's own run is not counted.
    pub change_runs_max: u32,
    /// What is tested again when the target moves.
    pub retest: Retest,
    /// Whether landing waits for the deploy run of the landing before.
    pub wait_for_deploy: bool,
    /// Approvals that a revision needs where the target's definition names no number.
    pub approvals: u32,
    /// Names of the labels that the gate listens to.
    pub labels: Labels,
}

/// Which changes get a new run when the target moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retest {
    /// Only the merge candidate, as Hail's CI does.
    #[default]
    Candidate,
    /// All that is in the queue.
    Queued,
    /// All open changes.
    All,
}

/// Label names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Labels {
    /// Goes first.
    pub urgent: String,
    /// Tests, does not land.
    pub wip: String,
    /// Tests, does not land: its base is another change.
    pub stacked: String,
    /// Never lands.
    pub never: String,
    /// Neither tests nor lands.
    pub no_test: String,
    /// Every job runs, whatever `when` says, and nothing is carried over.
    pub rerun_all: String,
}

impl Labels {
    /// Every one of them, in the order in which they stand here.
    pub fn all(&self) -> [&String; 6] {
        let Labels { urgent, wip, stacked, never, no_test, rerun_all } = self;
        [urgent, wip, stacked, never, no_test, rerun_all]
    }

    /// Those that only a maintainer may put on or take off (G08).
    pub fn maintainers(&self) -> [&str; 2] {
        [&self.urgent, &self.never]
    }

    /// Labels of a change that goes from a branch with these names to one with others: what steered it there steers it here.
    pub fn translate(&self, labels: &BTreeSet<String>, to: &Labels) -> BTreeSet<String> {
        let names = self.all().into_iter().zip(to.all());
        let (off, on): (BTreeSet<_>, BTreeSet<_>) =
            names.filter(|(name, new)| name != new && labels.contains(*name)).unzip();
        labels.iter().filter(|label| !off.contains(label)).chain(on).cloned().collect()
    }
}

/// Seconds between polls. Source: Hail's CI polls every 300 s; a read of the built-in forge costs a few ms.
const POLL_SECONDS_DEFAULT: u32 = 60;
/// Change runs at once. Source: Hail's `MAX_CONCURRENT_PR_BATCHES`.
const CHANGE_RUNS_DEFAULT: u32 = 3;

impl Default for GateConfig {
    fn default() -> Self {
        GateConfig {
            poll_seconds: POLL_SECONDS_DEFAULT,
            change_runs_max: CHANGE_RUNS_DEFAULT,
            retest: Retest::default(),
            wait_for_deploy: false,
            approvals: 1,
            labels: Labels::default(),
        }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels {
            urgent: "prio:high".into(),
            wip: "WIP".into(),
            stacked: "stacked PR".into(),
            never: "DO_NOT_MERGE".into(),
            no_test: "do-not-test".into(),
            rerun_all: "rerun all tests".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_goes_on_meaning_what_it_meant_where_its_name_means_something_else() {
        let names =
            |wip: &str, never: &str| Labels { wip: wip.into(), never: never.into(), ..Labels::default() };
        let check = |from: &Labels, labels: &str, to: &Labels, expected: &str| {
            let set = |labels: &str| labels.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
            assert_eq!(from.translate(&set(labels), to), set(expected), "{labels}");
        };
        let (main, release) = (names("a", "b"), names("b", "c"));
        check(&main, "a ui", &release, "b ui");
        check(&main, "a b", &release, "b c");
        check(&release, "b c", &main, "a b");
        check(&main, "ui prio:high c", &release, "ui prio:high c");
        check(&main, "a", &names("b", "a"), "b");
    }
}
