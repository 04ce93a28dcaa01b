//! From what was seen of a job to its outcome. Only the executor's own trouble is "errored" (attack A08).

use std::collections::BTreeMap;
use std::io;

use towpath_blob::LogReader;
use towpath_core::graph::{CODE_ZERO, Outcome, cut_why};
use towpath_core::ids::Digest;

use crate::launcher::Exit;
use crate::outputs::{OutputBudget, OutputError, Taking, Wanted};
use crate::pump::Stop;
use crate::spec::{JUNIT_BYTES_MAX, JobEnd, Limits, StartSpec};
use crate::watch::{Breach, size_text};

/// Bytes of a log's end that are searched for a hint.
const HINT_BYTES: u64 = 64 * 1024;
/// What programs say where there is no network, and what that means. The first that fits is told.
const NO_NETWORK: [(&[&str], &str); 3] = [
    (LOOKUP_FAILURES, "a name did not resolve: jobs have no network unless they say `network: true`"),
    (
        &["etwork is unreachable", "ENETUNREACH"],
        "an address was out of reach: jobs have no network unless they say `network: true`",
    ),
    (
        // All that pip says without tries: no more than that an index, if there is one, has nothing.
        &["(from versions: none)"],
        "if it asks an index: jobs have no network unless they say `network: true`",
    ),
];
/// What programs say when a name does not resolve.
const LOOKUP_FAILURES: &[&str] = &[
    // curl, git, ssh, cargo; wget.
    "ould not resolve host",
    "Couldn't resolve host",
    "unable to resolve host address",
    // glibc, and with it Python, .NET and most others; apt; musl and busybox.
    "Temporary failure in name resolution",
    "Name or service not known",
    "Temporary failure resolving",
    "Name does not resolve",
    "bad address '",
    // Rust; Node and with it npm; Ruby and PHP; Perl.
    "failed to lookup address",
    "getaddrinfo E",
    "getaddrinfo: ",
    "getaddrinfo failed",
    "Bad hostname",
    // Java; Erlang and Elixir; Go with its own resolver, which speaks to the server itself.
    "UnknownHostException",
    ":nxdomain",
    "dial tcp: lookup ",
    "no such host",
    "server misbehaving",
];
/// Programs that can be told to say nothing, or never do, and the exit codes by which they say that a name did not resolve
/// or nothing could be reached. Source: curl(1), wget(1), getent(1).
const QUIET: [(&str, i32); 4] = [("curl", 6), ("curl", 7), ("wget", 4), ("getent", 2)];
/// For those.
const QUIET_HINT: &str =
    "its exit code is that of a program without network: jobs have none unless they say `network: true`";

/// A job's outcome in the making.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) why: String,
    outputs: BTreeMap<String, Digest>,
    junit: Option<Digest>,
}

impl Verdict {
    fn new(outcome: Outcome, exit_code: Option<i32>, why: impl Into<String>) -> Verdict {
        Verdict { outcome, exit_code, why: why.into(), outputs: BTreeMap::new(), junit: None }
    }

    /// Our machine's trouble.
    pub(crate) fn errored(why: String) -> Verdict {
        Verdict::new(Outcome::Errored, None, why)
    }

    pub(crate) fn cancelled() -> Verdict {
        Verdict::new(Outcome::Cancelled, None, "cancelled")
    }

    /// The definition asks for what no job can have.
    pub(crate) fn unfit(problem: String) -> Verdict {
        Verdict::new(Outcome::Failed, None, problem)
    }

    /// What it asks for could not be made ready in its time.
    pub(crate) fn late(why: String) -> Verdict {
        Verdict::new(Outcome::TimedOut, None, why)
    }

    /// The end of the process tree could not be seen.
    pub(crate) fn of_trouble(stop: Option<Stop>, error: &io::Error, limits: &Limits) -> Verdict {
        match stop {
            // It was to end anyway, and nothing of it counts.
            Some(Stop::Cancelled) => Verdict::cancelled(),
            Some(Stop::Limit(breach)) => {
                Verdict::errored(format!("{}, and then: {error}", breach.why(limits)))
            }
            _ => Verdict::errored(error.to_string()),
        }
    }

    /// The process tree ended as seen from outside. A limit that was reached counts whatever the exit code says.
    pub(crate) fn of_end(
        stop: Option<Stop>,
        breach: Option<Breach>,
        (exit, ran): (Exit, bool),
        spec: &StartSpec,
    ) -> Verdict {
        let limits = &spec.limits;
        let code = match exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        };
        match (stop, breach) {
            (Some(Stop::Cancelled), _) => Verdict::cancelled(),
            (Some(Stop::Log(error)), _) => Verdict::errored(error.to_string()),
            (Some(Stop::Limit(breach @ (Breach::Reserve(_) | Breach::MachineTerminals(_)))), _) => {
                Verdict::errored(breach.why(limits))
            }
            (Some(Stop::Limit(breach)), _) | (None, Some(breach)) => {
                Verdict::new(Outcome::Failed, Some(code), breach.why(limits))
            }
            (Some(Stop::TimedOut), _) => {
                let why = format!("ran into its timeout of {} s", spec.body.timeout_seconds);
                Verdict::new(Outcome::TimedOut, None, why)
            }
            (None, None) if !ran => {
                Verdict::errored("the sandbox did not start; its log says why".to_owned())
            }
            (None, None) if code == 0 => Verdict::new(Outcome::Passed, Some(0), CODE_ZERO),
            (None, None) => Verdict::new(Outcome::Failed, Some(code), exit_text(code, limits)),
        }
    }

    /// Takes JUnit reports of a job that ran to its end, and outputs of one that passed.
    pub(crate) fn take_outputs(&mut self, spec: &StartSpec, taking: &Taking<'_>) {
        if !matches!(self.outcome, Outcome::Passed | Outcome::Failed) {
            return;
        }
        if let Err(error) = self.try_outputs(spec, taking) {
            self.outputs.clear();
            let outcome = match error {
                OutputError::Refused(_) => Outcome::Failed,
                OutputError::Cancelled => Outcome::Cancelled,
                // What makes it long are the job's files: were it errored, a job could have itself tried again.
                OutputError::Late => Outcome::TimedOut,
                OutputError::Store(_) | OutputError::Tree(_) => Outcome::Errored,
            };
            // A job that failed by itself keeps its own reason.
            if self.outcome == Outcome::Passed {
                (self.outcome, self.why) = (outcome, error.to_string());
            }
        }
    }

    fn try_outputs(&mut self, spec: &StartSpec, taking: &Taking<'_>) -> Result<(), OutputError> {
        if let Some(pattern) = &spec.body.junit {
            let mut budget = OutputBudget { bytes: JUNIT_BYTES_MAX, files: spec.limits.output_files };
            // Whoever may see the run sees what is in its reports, as with its log.
            let wanted = Wanted { what: "report `junit`", pattern, masker: Some(taking.masker) };
            let manifest = taking.take(wanted, &mut budget)?;
            match manifest.files().is_empty() {
                false => self.junit = Some(manifest.put(taking.store)?.digest),
                // A job that failed may not have come so far.
                true if self.outcome == Outcome::Passed => {
                    self.why.push_str(&format!("; report `junit`: nothing matches `{pattern}`"));
                }
                true => {}
            }
        }
        if self.outcome != Outcome::Passed {
            return Ok(());
        }
        let mut budget = OutputBudget { bytes: spec.limits.output_bytes, files: spec.limits.output_files };
        for (name, pattern) in &spec.body.outputs {
            let what = format!("output `{name}`");
            let manifest = taking.take(Wanted { what: &what, pattern, masker: None }, &mut budget)?;
            if manifest.files().is_empty() {
                return Err(OutputError::Refused(format!("{what}: nothing matches `{pattern}`")));
            }
            self.outputs.insert(name.clone(), manifest.put(taking.store)?.digest);
        }
        Ok(())
    }

    /// The log's last line, where the job itself did not say why it ended.
    pub(crate) fn log_line(&self) -> Option<String> {
        let own_words = self.outcome == Outcome::Passed || self.why.starts_with("exit code ");
        (!own_words || self.why.contains("; ")).then(|| format!("[towpath] {}\n", self.why))
    }

    pub(crate) fn fill(self, end: &mut JobEnd) {
        end.result.outcome = self.outcome;
        end.result.exit_code = self.exit_code;
        end.result.why = cut_why(self.why);
        end.result.outputs = self.outputs;
        end.junit = self.junit;
    }
}

fn exit_text(code: i32, limits: &Limits) -> String {
    const OVER_FILE_LIMIT: i32 = 128 + libc::SIGXFSZ;
    match code {
        OVER_FILE_LIMIT => {
            format!("exit code {code} (a file reached the limit of {} of disk)", size_text(limits.disk_bytes))
        }
        126 => "exit code 126 (the program cannot be executed)".to_owned(),
        127 => "exit code 127 (no such program)".to_owned(),
        129..=192 => format!("exit code {code} (ended by signal {})", code - 128),
        _ => format!("exit code {code}"),
    }
}

/// What to do about it, where the log makes that plain.
pub(crate) fn hint(verdict: &Verdict, spec: &StartSpec, log: &LogReader) -> Option<&'static str> {
    if verdict.outcome != Outcome::Failed || spec.body.network {
        return None;
    }
    let size = log.size().ok()?;
    let end = log.bytes(size.saturating_sub(HINT_BYTES), usize::try_from(HINT_BYTES).ok()?).ok()?;
    let told = network_hint(&String::from_utf8_lossy(&end));
    told.or_else(|| quiet_hint(&spec.body.run, verdict.exit_code?))
}

/// What a log says of a network that was missing.
fn network_hint(log: &str) -> Option<&'static str> {
    let is_told = |(failures, _): &&(&[&str], &str)| failures.iter().any(|failure| log.contains(failure));
    NO_NETWORK.iter().find(is_told).map(|(_, hint)| *hint)
}

/// What an exit code says of it, where the script itself runs such a program. Any other script that fails without a word
/// has a hundred reasons, and a hint for each of them would be noise.
fn quiet_hint(script: &str, code: i32) -> Option<&'static str> {
    let runs = |program: &str| {
        script.split(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c)).any(|word| word == program)
    };
    QUIET.iter().any(|(program, failed)| *failed == code && runs(program)).then_some(QUIET_HINT)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;
    use towpath_blob::{BlobStore, Masker};
    use towpath_core::graph::JobBody;
    use towpath_core::ids::LeaseId;

    use super::*;
    use crate::outputs::heeded;
    use crate::pump::Control;

    /// What becomes of a job that passed and left its output, where the taking may go on `until` then.
    fn taken(environment: Option<&str>, control: &Control, until: Instant) -> (Outcome, String) {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let tree = std::fs::File::open(folder.path()).unwrap();
        let store = TempDir::new().unwrap();
        let store = BlobStore::open(store.path()).unwrap();
        let environment = environment.map(|name| name.parse().unwrap());
        let outputs = [("o".into(), "a".into())].into();
        let body = JobBody { outputs, environment, ..JobBody::script("true") };
        let spec = StartSpec::new(LeaseId([1; 16]), "unit".parse().unwrap(), body);
        let mut verdict = Verdict::of_end(None, None, (Exit::Code(0), true), &spec);
        let control = heeded(&spec, control);
        let masker = &Masker::default();
        verdict.take_outputs(&spec, &Taking { tree: tree.as_fd(), store: &store, masker, control, until });
        assert_eq!(verdict.outputs.len(), usize::from(verdict.outcome == Outcome::Passed));
        (verdict.outcome, verdict.why)
    }

    #[test]
    fn a_job_that_misses_the_network_is_told_so_in_whatever_words_its_tools_have() {
        let unresolved = [
            "curl: (6) Could not resolve host: example.org",
            "fatal: unable to access 'https://h/x/': Could not resolve host: h",
            "ssh: Could not resolve hostname h: Temporary failure in name resolution",
            "wget: unable to resolve host address \u{2018}example.org\u{2019}",
            "wget: bad address 'example.org'",
            "ping: h: Name or service not known",
            "W: Failed to fetch http://h/ Temporary failure resolving 'h'",
            "error: failed to lookup address information: Name does not resolve",
            "Error: getaddrinfo EAI_AGAIN registry.npmjs.org",
            "Error: getaddrinfo ENOTFOUND example.org",
            "Failed to open TCP connection to h:443 (getaddrinfo: System error)",
            "php_network_getaddresses: getaddrinfo failed",
            "IO::Socket::INET: Bad hostname 'example.org:80' at -e line 1.",
            "Caused by: java.net.UnknownHostException: repo.maven.apache.org",
            "** (Mix) httpc request failed with: {:failed_connect, [{:inet, [:inet], :nxdomain}]}",
            "dial tcp: lookup proxy.golang.org on 10.0.0.53:53: dial udp 10.0.0.53:53: connect: network is unreachable",
            "dial tcp: lookup h on 127.0.0.53:53: read udp 127.0.0.1:1->127.0.0.53:53: read: connection refused",
            "lookup h: no such host",
        ];
        for said in unresolved {
            assert_eq!(network_hint(said), Some(NO_NETWORK[0].1), "{said}");
        }
        for said in ["connect: Network is unreachable", "Error: connect ENETUNREACH 192.0.2.1:80"] {
            assert_eq!(network_hint(said), Some(NO_NETWORK[1].1), "{said}");
        }
        let pip = "ERROR: Could not find a version that satisfies the requirement x (from versions: none)";
        assert_eq!(network_hint(pip), Some(NO_NETWORK[2].1));
        assert_eq!(network_hint("assertion failed: left == right"), None);
    }

    #[test]
    fn a_program_that_says_nothing_is_known_by_its_exit_code() {
        let quiet = [
            ("curl -sf https://example.org | sh", 6),
            ("a=$(curl -s http://192.0.2.1)", 7),
            ("make\nwget -q https://example.org/x", 4),
            ("getent hosts example.org", 2),
        ];
        quiet.iter().for_each(|(script, code)| assert!(quiet_hint(script, *code).is_some(), "{script}"));
        let others =
            [("curl -sf https://example.org", 22), ("./curl.sh", 6), ("grep -q x y", 2), ("exit 4", 4)];
        others.iter().for_each(|(script, code)| assert!(quiet_hint(script, *code).is_none(), "{script}"));
    }

    #[test]
    fn a_result_has_a_sentence_of_bounded_length() {
        let mut end = crate::pool::unrun(LeaseId([1; 16]), Outcome::Errored, "");
        Verdict::errored("%E4".repeat(33_000)).fill(&mut end);
        assert_eq!(end.result.why.len(), towpath_core::graph::WHY_BYTES_MAX);
    }

    #[test]
    fn a_job_whose_outputs_are_still_taken_can_be_cancelled_and_has_its_time() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert_eq!(taken(None, &Control::default(), later).0, Outcome::Passed);
        let (outcome, why) = taken(None, &Control::default(), now);
        assert_eq!(outcome, Outcome::TimedOut);
        assert!(why.contains("could not be taken within 900 s"), "{why}");
        let cancelled = Control::default();
        cancelled.cancel();
        assert_eq!(taken(None, &cancelled, later), (Outcome::Cancelled, "cancelled".into()));
        assert_eq!(taken(Some("staging"), &cancelled, later).0, Outcome::Passed);
    }
}
