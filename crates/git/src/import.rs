//! Importing a repository: its branches, its tags, what they reach, and nothing else of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_core::ids::BranchName;

use crate::environment::{Call, Git, OUTPUT_BYTES_MAX};
use crate::error::{GitError, printable};
use crate::process::Bounds;
use crate::refs::{Expected, Ref, RefUpdate};
use crate::repository::Repository;
use crate::source::{Address, Kind, Reach};

/// Time for one import: an hour is 4 GB at 10 Mbit/s.
const IMPORT_DEADLINE: Duration = Duration::from_secs(3600);
/// Bytes of one pack. Linux's whole history has 5 GiB.
const PACK_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// The variable by which git is told how to log in.
const LOGIN_VARIABLE: &str = "GIT_CONFIG_VALUE_0";
/// Refs that are deleted in one transaction.
const REFS_AT_ONCE: usize = 1_000;

/// Where to import from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// An `https` or `ssh` address.
    Remote {
        /// As a person wrote it.
        address: &'a str,
        /// Which machines it may name.
        reach: Reach,
        /// How to log in there.
        credentials: Credentials<'a>,
    },
    /// A path on this machine. Only for its admin, who can read it anyway.
    Local(&'a Path),
}

/// How to log in at the source. Never part of an address, an argument or a file of the repository.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// Not at all.
    None,
    /// Value of an HTTP `Authorization` header: `Basic ...`, `Bearer ...`.
    Authorization(&'a str),
    /// An SSH key and the hosts' known keys, both files.
    SshKey {
        /// The private key.
        key: &'a Path,
        /// A `known_hosts` file; a host that is not in it is refused.
        known_hosts: &'a Path,
    },
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::Authorization(_) => "Authorization(***)",
            Credentials::SshKey { .. } => "SshKey",
        })
    }
}

/// What an import takes and asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions<'a> {
    /// Checks of `git fsck` that old history may fail (`zeroPaddedFilemode`); they are recorded in the repository, since
    /// later pushes carry the same objects.
    pub tolerated: &'a [&'a str],
    /// A branch that has to be among what comes in.
    pub branch: Option<&'a BranchName>,
}

/// What came in.
#[derive(Debug)]
pub struct Imported {
    /// The new repository.
    pub repository: Repository,
    /// Branches and tags that it has now.
    pub refs: usize,
    /// Names that were left out, since no push could make them here: hex-like, odd characters, a tag like a branch.
    pub left_out: Vec<String>,
}

/// Imports a repository to `into`, which does not exist yet.
///
/// Objects are checked as those of a push.
///
/// # Errors
/// `SourceUnfit` for an address that is none, `SourceRefused` for one that is not allowed, `SourceNotWhole` for a shallow
/// clone, `NotThere` without the wanted branch, `Exists`, `Failed` with git's words. Nothing is left at `into` then.
pub fn import(
    git: &Git,
    source: &Source<'_>,
    into: &Path,
    options: ImportOptions<'_>,
) -> Result<Imported, GitError> {
    let link = Link::to(source, git.certificates())?;
    check_tolerated(options.tolerated)?;
    let draft = Repository::create_draft(git, into)?;
    let filled = fill(&draft, &link, options);
    match filled {
        Ok(left_out) => {
            let repository = draft.publish(into)?;
            let refs = repository.all_refs()?.len();
            Ok(Imported { repository, refs, left_out })
        }
        Err(error) => {
            draft.close_processes();
            let _ = std::fs::remove_dir_all(draft.path());
            Err(error)
        }
    }
}

/// A source that was found allowed, with what git needs to speak to it.
struct Link {
    address: OsString,
    protocol: &'static str,
    config: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
}

impl Link {
    fn to(source: &Source<'_>, certificates: Option<&Path>) -> Result<Link, GitError> {
        match source {
            Source::Remote { address, reach, credentials } => {
                let address = Address::parse(address)?;
                match address.kind {
                    Kind::Https => Link::https(&address, *reach, *credentials, certificates),
                    Kind::Ssh => Link::ssh(&address, *reach, *credentials),
                }
            }
            Source::Local(path) => Link::local(path),
        }
    }

    fn https(
        address: &Address,
        reach: Reach,
        credentials: Credentials<'_>,
        certificates: Option<&Path>,
    ) -> Result<Link, GitError> {
        let machine = address.resolve(reach)?;
        let ip = if machine.is_ipv6() { format!("[{}]", machine.ip()) } else { machine.ip().to_string() };
        let mut config = vec![
            OsString::from("http.followRedirects=false"),
            "credential.helper=".into(),
            "http.lowSpeedLimit=1000".into(),
            "http.lowSpeedTime=60".into(),
        ];
        if !address.host.starts_with('[') {
            config.push(format!("http.curloptResolve={}:{}:{ip}", address.host, address.port).into());
        }
        if let Some(certificates) = certificates {
            let mut setting = OsString::from("http.sslCAInfo=");
            setting.push(certificates);
            config.push(setting);
        }
        let mut variables = Vec::new();
        match credentials {
            Credentials::None => {}
            // Through the environment: arguments can be read by every user of the machine.
            Credentials::Authorization(value) if value.bytes().all(|byte| (b' '..0x7f).contains(&byte)) => {
                variables.push(("GIT_CONFIG_COUNT", "1".into()));
                variables.push(("GIT_CONFIG_KEY_0", "http.extraHeader".into()));
                variables.push((LOGIN_VARIABLE, format!("Authorization: {value}").into()));
            }
            _ => {
                return Err(unfit_credentials(
                    "https takes the value of an Authorization header, in one line",
                ));
            }
        }
        Ok(Link { address: address.text.clone().into(), protocol: "https", config, variables })
    }

    fn ssh(address: &Address, reach: Reach, credentials: Credentials<'_>) -> Result<Link, GitError> {
        let machine = address.resolve(reach)?;
        let Credentials::SshKey { key, known_hosts } = credentials else {
            return Err(unfit_credentials("ssh takes a key and a known_hosts file"));
        };
        let (key, known_hosts) = (shell_word(key)?, shell_word(known_hosts)?);
        let name = address.host.trim_start_matches('[').trim_end_matches(']');
        let command = format!(
            "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none \
             -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null \
             -o ConnectTimeout=30 -o ServerAliveInterval=30 -o HostKeyAlias={name} -o HostName={} -i {key}",
            machine.ip()
        );
        let variables = vec![("GIT_SSH_COMMAND", command.into()), ("GIT_SSH_VARIANT", "ssh".into())];
        Ok(Link { address: address.text.clone().into(), protocol: "ssh", config: Vec::new(), variables })
    }

    fn local(path: &Path) -> Result<Link, GitError> {
        let path = path.canonicalize().map_err(GitError::io("find", path))?;
        Ok(Link { address: path.into(), protocol: "file", config: Vec::new(), variables: Vec::new() })
    }

    /// What a failed question of the source means. Git says so when the login was not taken, and when there was none: it is
    /// told to ask nobody for one.
    fn refusal(&self, error: GitError) -> GitError {
        match &error {
            GitError::Failed { stderr, .. } if stderr.contains("could not read Username") => {
                let given = self.variables.iter().any(|(name, _)| *name == LOGIN_VARIABLE);
                GitError::LoginRefused { address: printable(self.address.as_encoded_bytes()), given }
            }
            _ => error,
        }
    }

    fn apply<'a>(&'a self, mut call: Call<'a>) -> Call<'a> {
        for setting in &self.config {
            call = call.config(setting);
        }
        for (name, value) in &self.variables {
            call = call.variable(name, value);
        }
        let call = call.config(format!("protocol.{}.allow=always", self.protocol));
        call.protocols(self.protocol).file_bytes_max(PACK_BYTES_MAX)
    }
}

/// The check of `git fsck` for modes that no git writes any more, 100666 for instance. Left to itself git takes them with a
/// warning, of which every clone then tells for ever; a history that has them goes on with them.
pub const ODD_MODES: &str = "badFilemode";

fn fill(draft: &Repository, link: &Link, options: ImportOptions<'_>) -> Result<Vec<String>, GitError> {
    let bounds = Bounds { deadline: IMPORT_DEADLINE, output_bytes_max: OUTPUT_BYTES_MAX };
    record_tolerated(draft, options.tolerated)?;
    let trusting_config = match link.protocol {
        "file" => Some(TrustingConfig::write(draft)?),
        _ => None,
    };
    let trusting = |call: Call<'_>| match &trusting_config {
        None => call.prepare(),
        Some(config) => call.variable("GIT_CONFIG_GLOBAL", &config.0).prepare(),
    };
    let ask = || {
        let call = link.apply(draft.call("ls-remote")).args(["--symref", "--end-of-options"]);
        let call = call.arg(&link.address).args(["HEAD", "refs/heads/*", "refs/tags/*"]);
        trusting(call).output(&[], bounds).map_err(|error| link.refusal(error))
    };
    let offered = ask()?;
    let fetch = link.apply(draft.call("fetch")).args([
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--no-recurse-submodules",
        "--no-show-forced-updates",
        "--end-of-options",
    ]);
    let fetch = fetch.arg(&link.address).args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]);
    let fetched = trusting(fetch).listening_for(ODD_MODES).finish(&[], bounds)?;
    if !fetched.status.success() {
        return Err(fetched.failed("fetch"));
    }
    if fetched.heard {
        record_tolerated(draft, &[ODD_MODES])?;
    }
    let missing = missing_refs(draft, &offered)?;
    // What was deleted there meanwhile is not missing.
    if !missing.is_empty() && missing_refs(draft, &ask()?)?.iter().any(|name| missing.contains(name)) {
        return Err(GitError::SourceNotWhole);
    }
    let mut left_out = drop_unfit_refs(draft)?;
    left_out.extend(draft.drop_unreadable_refs()?);
    if let Some(branch) = options.branch
        && draft.branch_tip(branch)?.is_none()
    {
        return Err(GitError::NotThere { what: "the source's branch", name: branch.to_string() });
    }
    choose_head(draft, &offered)?;
    Ok(left_out)
}

/// A folder of another user's is refused by git unless a file of the user says otherwise. The admin asked for exactly
/// this one, and reading it starts nothing that it names.
struct TrustingConfig(PathBuf);

impl TrustingConfig {
    fn write(draft: &Repository) -> Result<TrustingConfig, GitError> {
        let path = draft.path().join("import-config");
        draft.git().write_synced(&path, "[safe]\n\tdirectory = *\n")?;
        Ok(TrustingConfig(path))
    }
}

impl Drop for TrustingConfig {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn check_tolerated(tolerated: &[&str]) -> Result<(), GitError> {
    let is_check = |name: &&&str| {
        // Git's one setting beside them that is none.
        let is_list = name.eq_ignore_ascii_case("skipList");
        !name.is_empty() && !is_list && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    match tolerated.iter().find(|name| !is_check(name)) {
        None => Ok(()),
        Some(name) => {
            let why = format!("`{}` is not the name of a check of git fsck", name.escape_debug());
            Err(GitError::BadInput { what: "a tolerated check", why })
        }
    }
}

pub(crate) fn record_tolerated(draft: &Repository, tolerated: &[&str]) -> Result<(), GitError> {
    for name in tolerated {
        for section in ["fetch", "receive"] {
            let call = draft.call("config").arg(format!("{section}.fsck.{name}")).arg("ignore");
            call.prepare().output(&[], draft.bounds())?;
        }
    }
    Ok(())
}

impl Repository {
    /// Whether its history may fail a check of `git fsck`: its import was told so, or found that it does.
    ///
    /// # Errors
    /// Those of git.
    pub fn tolerates(&self, check: &str) -> Result<bool, GitError> {
        let call = self.call("config").args(["--local", "--get"]).arg(format!("receive.fsck.{check}"));
        let finished = call.prepare().finish(&[], self.bounds())?;
        Ok(finished.status.success() && finished.output.trim_ascii() == b"ignore")
    }
}

fn drop_unfit_refs(draft: &Repository) -> Result<Vec<String>, GitError> {
    let refs = draft.all_refs()?;
    let branches: Vec<&str> =
        refs.iter().filter_map(|found| found.name.as_str().strip_prefix("refs/heads/")).collect();
    let unfit = |found: &&Ref| {
        let name = found.name.as_str();
        let tag = name.strip_prefix("refs/tags/");
        let short = tag.or_else(|| name.strip_prefix("refs/heads/")).unwrap_or_default();
        short.parse::<BranchName>().is_err() || tag.is_some_and(|tag| branches.binary_search(&tag).is_ok())
    };
    let left_out: Vec<&Ref> = refs.iter().filter(unfit).collect();
    for some in left_out.chunks(REFS_AT_ONCE) {
        let delete =
            |found: &&Ref| RefUpdate { name: found.name.clone(), expected: Expected::Anything, target: None };
        draft.ref_transaction(&some.iter().map(delete).collect::<Vec<_>>())?;
    }
    Ok(left_out.iter().map(|found| found.name.to_string()).collect())
}

/// What was offered and did not come: git leaves out refs whose history is cut, and calls it a success.
fn missing_refs(draft: &Repository, offered: &[u8]) -> Result<BTreeSet<String>, GitError> {
    let came: BTreeSet<String> = draft.all_refs()?.into_iter().map(|found| found.name.to_string()).collect();
    let offered = String::from_utf8_lossy(offered);
    let lines = offered.lines().filter(|line| !line.starts_with("ref: "));
    // A name that is not UTF-8 came as well, and goes again later.
    // Git lists `refs/remotes/origin/HEAD` of a clone as well where `HEAD` is asked for.
    let is_fetched = |name: &str| ["refs/heads/", "refs/tags/"].iter().any(|below| name.starts_with(below));
    let comes = |name: &str| is_fetched(name) && !name.ends_with("^{}") && !name.contains('\u{fffd}');
    let names = lines.filter_map(|line| line.split('\t').nth(1)).filter(|name| comes(name));
    Ok(names.filter(|name| !came.contains(*name)).map(str::to_owned).collect())
}

/// `ref: refs/heads/<branch> TAB HEAD`; without it, `main`, `master`, or the first branch.
fn choose_head(draft: &Repository, answer: &[u8]) -> Result<(), GitError> {
    let text = String::from_utf8_lossy(answer);
    let named = text.lines().find_map(|line| line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD"));
    let refs = draft.refs("refs/heads")?;
    let branches: Vec<&str> =
        refs.iter().filter_map(|found| found.name.as_str().strip_prefix("refs/heads/")).collect();
    let wanted = named.into_iter().chain(["main", "master"]).chain(branches.first().copied());
    let chosen = wanted.into_iter().find(|name| branches.contains(name)).and_then(|name| name.parse().ok());
    chosen.map_or(Ok(()), |branch| draft.set_head(&branch))
}

fn unfit_credentials(why: &str) -> GitError {
    GitError::BadInput { what: "the credentials", why: why.to_owned() }
}

/// A path as one word of a shell: git hands the ssh command to one.
fn shell_word(path: &Path) -> Result<String, GitError> {
    match path.to_str() {
        Some(text) if !text.contains('\'') && path.is_absolute() => Ok(format!("'{text}'")),
        _ => Err(unfit_credentials("the path of a key is absolute, UTF-8, and without quotes")),
    }
}
