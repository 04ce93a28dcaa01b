//! The variables of a job: those named here and in its definition, and no others.

use std::collections::BTreeMap;

use crate::spec::StartSpec;

/// Folders that a job finds, different with and without a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFolders {
    /// Its home.
    pub home: String,
    /// Where it begins.
    pub start: String,
    /// Outputs of the jobs that it needs.
    pub inputs: String,
    /// Its secrets as files.
    pub secrets: String,
}

/// What the host adds: the way to its toolchains and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostVariables {
    /// `PATH`.
    pub path: String,
    /// What toolchains on that path need to find themselves (`RUSTUP_HOME`, `PYENV_ROOT`).
    pub toolchains: BTreeMap<String, String>,
    /// The host's certificates, for jobs with a network.
    pub certificates: Option<String>,
}

/// Variables that name a bundle of certificates. Source: trust S1.
const CERTIFICATE_VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"];

/// The whole environment of a job; bubblewrap adds `PWD`. What the definition names wins over the host's, but never over `TOWPATH_*`.
pub fn environment(spec: &StartSpec, host: &HostVariables, folders: &JobFolders) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |key: &str, value: &str| variables.insert(key.to_owned(), value.to_owned());
    set("PATH", &host.path);
    set("HOME", &folders.home);
    set("USER", "job");
    set("LANG", "C.UTF-8");
    set("CI", "true");
    host.toolchains.iter().for_each(|(key, value)| {
        set(key, value);
    });
    if let (true, Some(bundle)) = (spec.body.network, &host.certificates) {
        CERTIFICATE_VARIABLES.iter().for_each(|key| {
            set(key, bundle);
        });
    }
    spec.body.env.iter().filter(|(key, _)| !is_reserved(key)).for_each(|(key, value)| {
        set(key, value);
    });
    spec.facts.iter().for_each(|(key, value)| {
        set(&fact_variable(key), value);
    });
    set("TOWPATH", "true");
    set("TOWPATH_JOB", spec.job.as_str());
    set("TOWPATH_ATTEMPT", &spec.attempt.to_string());
    if let Some(run) = &spec.run {
        set("TOWPATH_RUN", &run.to_string());
    }
    if let Some((shard, shards)) = spec.body.shard {
        set("TOWPATH_SHARD", &shard.to_string());
        set("TOWPATH_SHARDS", &shards.to_string());
    }
    spec.body.matrix.iter().for_each(|(key, value)| {
        set(&format!("TOWPATH_MATRIX_{}", variable_part(key)), value);
    });
    if !spec.inputs.is_empty() {
        set("TOWPATH_INPUTS", &folders.inputs);
    }
    if spec.secrets.iter().any(|secret| secret.variable.is_none()) {
        set("TOWPATH_SECRETS", &folders.secrets);
    }
    for secret in &spec.secrets {
        // A spec whose secrets fit no variables has a problem, and is not started.
        if let (Some(key), Ok(value)) = (&secret.variable, std::str::from_utf8(&secret.value)) {
            set(key, value);
        }
    }
    variables
}

/// `CHANGE` and `TOWPATH_CHANGE` are the same fact.
fn fact_variable(key: &str) -> String {
    if is_reserved(key) { key.to_owned() } else { format!("TOWPATH_{key}") }
}

/// Whether only Towpath sets a variable.
pub(crate) fn is_reserved(key: &str) -> bool {
    key == "TOWPATH" || key.starts_with("TOWPATH_")
}

fn variable_part(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use towpath_core::graph::JobBody;
    use towpath_core::ids::LeaseId;

    use super::*;

    #[test]
    fn what_a_definition_names_wins_but_over_towpaths_own() {
        let named = [("CI", "false"), ("LANG", "de_DE.UTF-8"), ("TOWPATH", "no"), ("TOWPATH_JOB", "other")];
        let env = named.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let set = |env| {
            let body = JobBody { env, ..JobBody::script("true") };
            let spec = StartSpec::new(LeaseId([1; 16]), "unit".parse().expect("a name"), body);
            let folder = || "/x".to_owned();
            let folders = JobFolders { home: folder(), start: folder(), inputs: folder(), secrets: folder() };
            let variables = environment(&spec, &HostVariables::default(), &folders);
            ["CI", "LANG", "TOWPATH", "TOWPATH_JOB"].map(|key| variables[key].clone())
        };
        assert_eq!(set(env), ["false", "de_DE.UTF-8", "true", "unit"]);
        assert_eq!(set(BTreeMap::new()), ["true", "C.UTF-8", "true", "unit"]);
    }
}
