//! What the executor is asked to do, and what it answers: plain data, also on the wire.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use towpath_blob::{FilePath, MaskError, Masker, Secret};
use towpath_core::graph::{JobBody, JobResult};
use towpath_core::ids::{Digest, JobName, LeaseId, RunId};
use zeroize::Zeroizing;

use crate::environment::is_reserved;

/// Bytes of one variable, its name included, that no program starts with. Source: `MAX_ARG_STRLEN` of Linux.
const VARIABLE_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a variable beside its name and its value: `=`, the zero behind it, and its pointer or what a fact's name is
/// longer by.
const VARIABLE_BYTES: usize = 10;
/// Bytes of all variables that a job is given. Linux takes 2 MiB of arguments and variables together where a stack may have
/// 8 MiB (execve(2)); the rest is for the command and for what Towpath sets.
const VARIABLES_BYTES_MAX: usize = 1792 * 1024;
/// As many variables. Bubblewrap takes 9,000 words of options, and three of them make a variable.
const VARIABLES_MAX: usize = 2000;

/// One attempt of one job, ready to run. Holds secrets: it is never written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// Fences every answer. Starting the same lease again is success and starts nothing.
    pub lease: LeaseId,
    /// The run, as `TOWPATH_RUN`. `None` for a local run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The job, as `TOWPATH_JOB`.
    pub job: JobName,
    /// Counts the tries from 1, as `TOWPATH_ATTEMPT`.
    pub attempt: u32,
    /// What to do.
    pub body: JobBody,
    /// The immutable base of the work tree. A job with `checkout` needs it; it is read, never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// Facts about the change: `CHANGE_TITLE` becomes the variable `TOWPATH_CHANGE_TITLE`. Data: never part of a script.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// Outputs of needed jobs: folder below `TOWPATH_INPUTS` to the digest of a manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Digest>,
    /// Secrets that the server's policy grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<GrantedSecret>,
    /// What the job may use.
    #[serde(default)]
    pub limits: Limits,
}

impl StartSpec {
    /// A lease that runs a body, with nothing else.
    pub fn new(lease: LeaseId, job: JobName, body: JobBody) -> StartSpec {
        StartSpec {
            lease,
            run: None,
            job,
            attempt: 1,
            body,
            base: None,
            facts: BTreeMap::new(),
            inputs: BTreeMap::new(),
            secrets: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl StartSpec {
    /// What in it no job can be started with, in words. The pipeline refuses most of it earlier; this is the last wall
    /// before names become paths and variables become options of bubblewrap, which zeros separate.
    pub fn problem(&self) -> Option<String> {
        if let Some(problem) = self.variables_problem() {
            return Some(problem);
        }
        if let Some(problem) = self.secrets.iter().find_map(GrantedSecret::problem) {
            return Some(problem);
        }
        let matrix = self.body.matrix.values().find(|value| value.contains('\0'));
        if matrix.is_some() {
            return Some("a value of the matrix holds a zero byte".to_owned());
        }
        // An input's folder may lie in that of its job: `unit/1-of-4`, `tools/log`.
        let inputs = self.inputs.keys().filter(|name| FilePath::new(name.as_bytes()).is_err());
        let is_path = |name: &&String| name.contains('/') || FilePath::new(name.as_bytes()).is_err();
        let secrets = self.secrets.iter().map(|secret| &secret.name).filter(is_path);
        let name = inputs.chain(secrets).next()?;
        Some(format!("`{}` is no name of an input or a secret", name.escape_debug()))
    }

    /// The same of the variables that it names. What starts no program is no trouble of the machine.
    fn variables_problem(&self) -> Option<String> {
        let variables = self.body.env.iter().chain(&self.facts).map(|(key, value)| (key, value.as_bytes()));
        let secrets =
            self.secrets.iter().filter_map(|secret| Some((secret.variable.as_ref()?, &secret.value[..])));
        let (mut count, mut bytes) = (0, 0);
        for (key, value) in variables.chain(secrets) {
            let name = key.escape_debug();
            if key.is_empty() || key.contains(['=', '\0']) {
                return Some(format!("`{name}` is no name of a variable"));
            }
            if value.contains(&0) {
                return Some(format!("the variable `{name}` holds a zero byte"));
            }
            let taken = key.len() + value.len() + VARIABLE_BYTES;
            if taken > VARIABLE_BYTES_MAX {
                return Some(format!(
                    "the variable `{name}` has {} bytes, and no program starts with one of {VARIABLE_BYTES_MAX}; put its value \
                     into a file",
                    value.len()
                ));
            }
            (count, bytes) = (count + 1, bytes + taken);
        }
        (count > VARIABLES_MAX || bytes > VARIABLES_BYTES_MAX).then(|| {
            format!(
                "{count} variables of {bytes} bytes are too many to start a program with: at most {VARIABLES_MAX} of \
                 {VARIABLES_BYTES_MAX} bytes together; put long values into files, and have secrets as files"
            )
        })
    }
}

impl StartSpec {
    /// What blanks its secrets wherever the job's own words are kept. Large ones make it costly: once for an attempt.
    ///
    /// # Errors
    /// [`MaskError`].
    pub(crate) fn masker(&self) -> Result<Masker, MaskError> {
        let secrets: Vec<Secret> =
            self.secrets.iter().map(|secret| Secret::new(secret.value.to_vec())).collect();
        Masker::new(&secrets)
    }
}

/// A secret and how the job gets it. Masked in every form in the job's log and its reports.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedSecret {
    /// Its name: the file's name below `TOWPATH_SECRETS`.
    pub name: String,
    /// Its bytes.
    pub value: Zeroizing<Vec<u8>>,
    /// A variable that holds it instead of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

impl GrantedSecret {
    /// Why it cannot be in its variable, beside what holds for every variable.
    fn problem(&self) -> Option<String> {
        let variable = self.variable.as_ref()?;
        if is_reserved(variable) {
            return Some(format!(
                "only Towpath sets `{variable}`, and the secret `{}` is to be in it",
                self.name
            ));
        }
        std::str::from_utf8(&self.value).is_err().then(|| {
            format!("the secret `{}` is not UTF-8, so the variable `{variable}` cannot hold it; have it as a file", self.name)
        })
    }
}

impl fmt::Debug for GrantedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantedSecret({})", self.name)
    }
}

/// What one job may use. Reaching one ends the job, and its result says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory, those of its tmpfs included.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u32,
    /// Bytes of each tmpfs (`/tmp`, home, `/dev/shm`).
    pub tmpfs_bytes: u64,
    /// Bytes that the work tree may grow by.
    pub disk_bytes: u64,
    /// Files and folders that the work tree may grow by.
    pub disk_files: u64,
    /// Bytes of the log; more are dropped, and the log says so.
    pub log_bytes: u64,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
    /// Files of all outputs together.
    pub output_files: u32,
}

const GIB: u64 = 1024 * 1024 * 1024;

impl Default for Limits {
    /// Generous for a test suite, small against a machine of our size (24 GiB, 250 GB). Source: reference/platform.
    fn default() -> Limits {
        Limits {
            memory_bytes: 8 * GIB,
            processes: 2048,
            tmpfs_bytes: 4 * GIB,
            disk_bytes: 20 * GIB,
            disk_files: 1_000_000,
            log_bytes: towpath_blob::log::LOG_BYTES_DEFAULT,
            output_bytes: 2 * GIB,
            output_files: 10_000,
        }
    }
}

/// The end of one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// The lease.
    pub lease: LeaseId,
    /// What it left behind.
    pub result: JobResult,
    /// JUnit reports as the job wrote them, but for its secrets, also in their paths: manifest of an output like any other,
    /// bounded by [`JUNIT_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub junit: Option<Digest>,
    /// Bytes in the log.
    #[serde(default)]
    pub log_bytes: u64,
    /// CPU milliseconds of the whole tree, where a cgroup counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

/// Bytes of all JUnit files of one job. A report of 100,000 tests has about 20 MB.
pub const JUNIT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whether jobs run behind the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxKind {
    /// In bubblewrap.
    #[default]
    Bubblewrap,
    /// As plain processes of the executor's user. Only by a person's explicit choice; every result is marked.
    None,
}
