//! Settings of the server and of a repo. What stands in the definition is not here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use towpath_core::gate::GateConfig;
use towpath_core::ids::{BranchName, GateId, RepoName};
use towpath_executor::{Limits, SandboxKind};
use towpath_forge::{ACTS_PER_HOUR, Policy, unfit_label};
use towpath_git::GitOptions;
use towpath_pipeline::APPROVALS_MAX;

use crate::http::wording;

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Everything durable, mode 0700.
    pub data: PathBuf,
    /// Keys: outside the data folder, so that no backup holds them.
    pub keys: PathBuf,
    /// Whether keys that the data are bound to may be replaced where they are missing: they are lost.
    pub new_keys: bool,
    /// Where it listens. Loopback unless a person says otherwise.
    pub listen: SocketAddr,
    /// How others reach it; links use nothing else. Absent: `http://` and the address.
    pub url: Option<String>,
    /// Proxies whose word counts for where a request comes from.
    pub trusted_proxies: Vec<IpAddr>,
    /// Jobs at once.
    pub slots: u32,
    /// Whether jobs run behind the border.
    pub sandbox: SandboxKind,
    /// What one job may use.
    pub limits: Limits,
    /// The program that has the executor, the sandbox helper and the hooks as subcommands: this binary.
    pub program: PathBuf,
    /// Which git it uses, and how long that may take.
    pub git: GitOptions,
    /// What becomes of the executor when the server is told to end.
    pub executor: ExecutorLife,
}

/// How long an executor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorLife {
    /// Its own: jobs go on over a restart of the server.
    Own,
    /// The server's: jobs end with it.
    WithServer,
}

/// Settings of one repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoSettings {
    /// Watched branches and how their gates behave.
    pub branches: BTreeMap<BranchName, GateConfig>,
    /// The target of a change whose push names none.
    pub default_branch: BranchName,
    /// How often one author may push or do something to a change in an hour.
    #[serde(default = "acts_per_hour", skip_serializing_if = "is_as_ever")]
    pub acts_per_hour: u32,
}

/// Unless an admin says otherwise.
pub fn acts_per_hour() -> u32 {
    ACTS_PER_HOUR
}

fn is_as_ever(acts_per_hour: &u32) -> bool {
    *acts_per_hour == ACTS_PER_HOUR
}

impl RepoSettings {
    /// One gated branch with the defaults.
    pub fn one_branch(branch: BranchName) -> RepoSettings {
        let branches = BTreeMap::from([(branch.clone(), GateConfig::default())]);
        RepoSettings { branches, default_branch: branch, acts_per_hour: ACTS_PER_HOUR }
    }

    /// Settings as they are stored or sent.
    ///
    /// # Errors
    /// They are not JSON, have an unknown key, or their default branch is not watched.
    pub fn parse(text: &str) -> Result<RepoSettings, SettingsError> {
        let settings: RepoSettings = wording::read(text.as_bytes()).map_err(SettingsError::Json)?;
        match settings.branches.contains_key(&settings.default_branch) {
            true => Ok(settings),
            false => Err(SettingsError::DefaultNotWatched(settings.default_branch)),
        }
    }

    /// Looks at settings that somebody gives. Those that are stored are not looked at again: a server starts with them.
    ///
    /// # Errors
    /// Nobody could push, or a gate with them would read its forge without rest, test nothing, ask for more approvals than anybody gives, or take
    /// one label for another.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.acts_per_hour == 0 {
            return Err(SettingsError::NoActs);
        }
        for (branch, config) in &self.branches {
            let least_one =
                [("poll_seconds", config.poll_seconds), ("change_runs_max", config.change_runs_max)];
            if let Some((key, _)) = least_one.into_iter().find(|(_, value)| *value == 0) {
                return Err(SettingsError::Zero { branch: branch.clone(), key });
            }
            if config.approvals > APPROVALS_MAX {
                return Err(SettingsError::Approvals { branch: branch.clone(), number: config.approvals });
            }
            let mut names = config.labels.all();
            if let Some((label, why)) = names.iter().find_map(|label| Some((*label, unfit_label(label)?))) {
                return Err(SettingsError::Label { branch: branch.clone(), label: label.clone(), why });
            }
            names.sort();
            if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(SettingsError::OneLabel { branch: branch.clone(), label: twice[0].clone() });
            }
        }
        Ok(())
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("invariant: settings have only types that JSON can hold")
    }

    /// The gates of a repo with these settings.
    pub fn gates(&self, repo: &RepoName) -> Vec<(GateId, GateConfig)> {
        let gate = |(branch, config): (&BranchName, &GateConfig)| {
            (GateId { repo: repo.clone(), branch: branch.clone() }, config.clone())
        };
        self.branches.iter().map(gate).collect()
    }

    /// What the built-in forge has to know.
    pub fn policy(&self) -> Policy {
        let watched = self.branches.iter().map(|(branch, config)| (branch.clone(), config.labels.clone()));
        Policy {
            watched: watched.collect(),
            default_target: self.default_branch.clone(),
            acts_per_hour: self.acts_per_hour,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not JSON of this shape.
    #[error("the settings cannot be read: {0}")]
    Json(String),
    /// A number that has to be more.
    #[error("`{key}` of `{branch}` is at least 1")]
    Zero {
        /// Whose.
        branch: BranchName,
        /// Which.
        key: &'static str,
    },
    /// Authors who may do nothing.
    #[error("`acts_per_hour` is at least 1")]
    NoActs,
    /// More approvals than `towpath.yaml` may ask for.
    #[error("`approvals` of `{branch}` is {number}; it is at most {APPROVALS_MAX}")]
    Approvals {
        /// Whose.
        branch: BranchName,
        /// How many.
        number: u32,
    },
    /// A label that no change can bear.
    #[error("no change can have the label `{}` of `{branch}`: {why}", .label.escape_debug())]
    Label {
        /// Whose.
        branch: BranchName,
        /// Which.
        label: String,
        /// Why not.
        why: String,
    },
    /// A label that would mean two things.
    #[error("two labels of `{branch}` are called `{label}`")]
    OneLabel {
        /// Whose.
        branch: BranchName,
        /// Which.
        label: String,
    },
    /// The default branch has no gate.
    #[error("the default branch `{0}` is not among the watched branches")]
    DefaultNotWatched(BranchName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_not_told_to_read_without_rest_or_to_test_nothing() {
        let check =
            |text: &str| RepoSettings::parse(text).unwrap().check().map_err(|error| error.to_string());
        let of_main = |main: &str| format!(r#"{{"default_branch":"main","branches":{{"main":{main}}}}}"#);
        assert_eq!(check(&of_main(r#"{"poll_seconds":1,"change_runs_max":1,"approvals":0}"#)), Ok(()));
        let refused = check(&of_main(r#"{"poll_seconds":0}"#));
        assert_eq!(refused, Err("`poll_seconds` of `main` is at least 1".into()));
        assert!(check(&of_main(r#"{"change_runs_max":0}"#)).is_err());
        assert_eq!(check(&of_main(r#"{"approvals":20}"#)), Ok(()));
        let refused = check(&of_main(r#"{"approvals":21}"#));
        assert_eq!(refused, Err("`approvals` of `main` is 21; it is at most 20".into()));
        let of_all = |acts: u32| {
            format!(r#"{{"default_branch":"main","branches":{{"main":{{}}}},"acts_per_hour":{acts}}}"#)
        };
        assert_eq!(check(&of_all(1)), Ok(()));
        assert_eq!(check(&of_all(0)), Err("`acts_per_hour` is at least 1".into()));
        let refused = check(&of_main(r#"{"labels":{"wip":"prio:high"}}"#));
        assert_eq!(refused, Err("two labels of `main` are called `prio:high`".into()));
        for odd in ["", " frozen", "a,b", "a\\u0007"] {
            let refused = check(&of_main(&format!(r#"{{"labels":{{"never":"{odd}"}}}}"#))).unwrap_err();
            assert!(refused.starts_with("no change can have the label"), "{refused}");
        }
    }

    #[test]
    fn what_stops_or_hurries_any_gate_is_for_maintainers_to_label() {
        let text = r#"{"default_branch":"main","branches":{"main":{},"release":{"labels":{"never":"frozen","urgent":"rush"}}}}"#;
        let policy = RepoSettings::parse(text).unwrap().policy();
        for reserved in ["DO_NOT_MERGE", "frozen", "prio:high", "rush"] {
            assert!(policy.is_for_maintainers(reserved), "{reserved}");
        }
        assert!(!policy.is_for_maintainers("WIP"));
    }
}
