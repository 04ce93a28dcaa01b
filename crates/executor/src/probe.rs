//! Does the sandbox work here? Asked at the start, answered by starting it (DESIGN 5: never silently without).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};

use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::LeaseId;

use crate::ExecutorConfig;
use crate::cgroup::LimitMode;
use crate::host::{Host, TreeMode, find_program};
use crate::pump::Control;
use crate::slot::Slot;
use crate::spec::{JobEnd, SandboxKind, StartSpec};
use crate::toolchains::Toolchains;
use crate::walk::remove_tree;

/// Lease of the probes' jobs; no server ever grants it.
const PROBE_LEASE: LeaseId = LeaseId([0xff; 16]);
/// Seconds that a probe may take on a loaded machine.
const PROBE_SECONDS: u32 = 60;
/// What a disk has at least that says by a probe how work trees can be made. It takes a few files and their folders.
const PROBE_ROOM: (u64, u64) = (1024 * 1024, 100);
/// Bytes of the sandbox's own words that a refusal quotes.
const QUOTED_BYTES: usize = 2_000;

/// Why no sandbox can start, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  why: {why}\n hint: {mend}")]
pub struct ProbeRefusal {
    /// What does not work.
    pub what: String,
    /// The machine's own reason.
    pub why: String,
    /// What its admin can do.
    pub mend: String,
}

/// What this machine's sandbox can do, and what its jobs find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxCapabilities {
    /// Whether there is one at all.
    pub sandbox: SandboxKind,
    /// How work trees are made.
    pub trees: TreeMode,
    /// How limits are held.
    pub limits: LimitMode,
    /// Whether jobs may have a network; if not, why.
    pub network: Result<(), String>,
    /// The tools of its jobs.
    pub toolchains: Toolchains,
}

/// Looks at what forbids a sandbox, then runs a job in one.
pub(crate) fn probe(config: ExecutorConfig) -> Result<(Host, SandboxCapabilities), crate::ExecutorError> {
    let kind = config.sandbox;
    if kind == SandboxKind::Bubblewrap {
        check_settings()?;
    }
    let mut host = Host::new(config, TreeMode::Overlay)?;
    match kind {
        SandboxKind::None => host.tree_mode = TreeMode::Copy,
        SandboxKind::Bubblewrap => host.tree_mode = tree_mode(&host)?,
    }
    let capabilities = SandboxCapabilities {
        sandbox: kind,
        trees: host.tree_mode,
        limits: host.limit_mode(),
        network: network(kind),
        toolchains: host.toolchains.clone(),
    };
    Ok((host, capabilities))
}

/// How work trees can be made. It holds as long as the executor lives: where a full disk forbids to tell, none starts.
fn tree_mode(host: &Host) -> Result<TreeMode, crate::ExecutorError> {
    let mut host = host.unreserved();
    let (bytes, files) = PROBE_ROOM;
    let room =
        |host: &Host| host.reserves.iter().try_for_each(|reserve| reserve.room_for(bytes, files).map(drop));
    let before = room(&host);
    let overlay = run_probe(&host);
    let passed = |end: &JobEnd| end.result.outcome == Outcome::Passed;
    if overlay.as_ref().is_ok_and(passed) {
        return Ok(TreeMode::Overlay);
    }
    before.and_then(|()| room(&host)).map_err(io::Error::other)?;
    overlay?;
    host.tree_mode = TreeMode::Copy;
    let copy = run_probe(&host)?;
    match passed(&copy) {
        true => Ok(TreeMode::Copy),
        false => Err(refusal(&host, &copy).into()),
    }
}

/// Settings of the kernel that forbid user namespaces, each with its mend.
fn check_settings() -> Result<(), ProbeRefusal> {
    let refuse = |why: &str, mend: &str| {
        Err(ProbeRefusal {
            what: "no sandbox can start on this machine".to_owned(),
            why: why.to_owned(),
            mend: format!("{mend}; or choose `--sandbox none` yourself, which marks every run"),
        })
    };
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    if find_program("bwrap").is_none() {
        let mend = "install it: `apt install bubblewrap`, `dnf install bubblewrap`";
        return refuse("bubblewrap (`bwrap`) is not installed", mend);
    }
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        let why = "user namespaces are forbidden (user.max_user_namespaces is 0)";
        return refuse(why, "`sysctl user.max_user_namespaces=15000`");
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        let why = "user namespaces are forbidden to ordinary users (kernel.unprivileged_userns_clone is 0)";
        return refuse(why, "`sysctl kernel.unprivileged_userns_clone=1`");
    }
    Ok(())
}

fn run_probe(host: &Host) -> io::Result<JobEnd> {
    let base = host.config.spool.join("probe-base");
    remove_tree(&base)?;
    fs::create_dir_all(&base)?;
    fs::write(base.join("file"), "base\n")?;
    let script = "echo more >> file && test -w . && test -r /etc/passwd";
    let body = JobBody { timeout_seconds: PROBE_SECONDS, ..JobBody::script(script) };
    let job = "probe".parse().map_err(io::Error::other)?;
    let mut spec = StartSpec::new(PROBE_LEASE, job, body);
    spec.base = Some(base.clone());
    let (remove, removals) = mpsc::channel();
    let mut slot = Slot::new(0, Arc::new(host.clone()), remove)?;
    let end = slot.run_now(&spec, &Control::default());
    drop(slot);
    removals.into_iter().try_for_each(|(folder, _)| folder.remove())?;
    remove_tree(&base)?;
    Ok(end)
}

fn refusal(host: &Host, end: &JobEnd) -> ProbeRefusal {
    let log = host.logs.reader(&PROBE_LEASE).bytes(0, QUOTED_BYTES).unwrap_or_default();
    let words = String::from_utf8_lossy(&log);
    let said = words.lines().find(|line| line.contains("bwrap:") || line.contains("towpath:")).unwrap_or("");
    let why = match said.trim() {
        "" => end.result.why.clone(),
        said => format!("{said}; {}", end.result.why),
    };
    let mend = mend(&why);
    ProbeRefusal {
        what: "no sandbox can start on this machine".to_owned(),
        why,
        mend: format!("{mend}; or choose `--sandbox none` yourself, which marks every run"),
    }
}

fn mend(why: &str) -> &'static str {
    let restricted = fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    if restricted.is_ok_and(|text| text.trim() == "1") {
        "Ubuntu's AppArmor rule forbids it: give bwrap a profile (`apt install apparmor-profiles`, then load \
         `bwrap-userns-restrict`), or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else if in_container() {
        "this is a container: start it with `--security-opt seccomp=unconfined --security-opt \
         systempaths=unconfined` (Docker, Podman), or run Towpath on the host"
    } else if why.contains("namespace") {
        "allow user namespaces: `sysctl user.max_user_namespaces=15000`"
    } else {
        "run `towpath doctor` for each check of its own"
    }
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
}

fn network(kind: SandboxKind) -> Result<(), String> {
    if kind == SandboxKind::None {
        return Ok(()); // The host's own.
    }
    if find_program("slirp4netns").is_none() {
        return Err("slirp4netns is not installed: `apt install slirp4netns`".to_owned());
    }
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("/dev/net/tun cannot be used: {error}")),
    }
}
