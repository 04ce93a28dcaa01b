//! A job's network: slirp4netns in the job's own network namespace, with this machine's own addresses refused.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// How long slirp4netns may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at the loopback, which takes bubblewrap well under a millisecond.
const LOOPBACK_INTERVAL: Duration = Duration::from_micros(200);
/// Where jobs find a resolver: slirp4netns's own, which asks the host's. Source: slirp4netns(1).
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Never reachable from a job: "this host" (which Linux takes for the loopback) and link-local addresses, where
/// clouds keep the machine's credentials (RFC 3927).
const REFUSED_ALWAYS: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::UNSPECIFIED, 8), (Ipv4Addr::new(169, 254, 0, 0), 16)];

/// A job's network, and the gate behind which the job waits for it.
pub(super) struct Network {
    gate: Option<OwnedFd>,
    helper: Option<Pid>,
}

impl Network {
    /// A network that is not up yet.
    pub(super) fn behind(gate: OwnedFd) -> Network {
        Network { gate: Some(gate), helper: None }
    }

    /// The process that carries the packets.
    pub(super) fn pid(&self) -> Pid {
        self.helper.unwrap_or(rustix::process::getpid())
    }

    /// Connects the network namespace of process `init`, refuses this machine's addresses, lets the job go.
    pub(super) fn connect(&mut self, slirp: &Path, init: u32, child_end: &OwnedFd) -> Result<(), String> {
        let namespace = format!("/proc/{init}/ns/net");
        wait_for_loopback(init, child_end)?;
        let (ready, tell_ready) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| error.to_string())?;
        self.helper = Some(start_slirp(slirp, &namespace, &tell_ready).map_err(|error| error.to_string())?);
        drop(tell_ready);
        wait_ready(&ready)?;
        refuse_own_addresses(&namespace)?;
        let gate = self.gate.take().ok_or("the network is up already")?;
        rustix::io::write(&gate, b"+").map_err(|error| format!("cannot let the job go: {error}"))?;
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(helper) = self.helper {
            // Our own child that is not reaped: both can only fail because it is dead.
            let _ = kill_process(helper, Signal::KILL);
            let _ = waitpid(Some(helper), WaitOptions::empty());
        }
    }
}

/// Waits until bubblewrap has set the loopback up: slirp4netns does the same, and whoever comes second fails. Nothing
/// tells of it, so between two looks this waits for bubblewrap's end.
fn wait_for_loopback(init: u32, child_end: &OwnedFd) -> Result<(), String> {
    let until = Instant::now() + READY_TIMEOUT;
    let table = format!("/proc/{init}/net/fib_trie");
    loop {
        let text = std::fs::read_to_string(&table).map_err(|error| format!("bubblewrap is gone: {error}"))?;
        if text.contains("|-- 127.0.0.1\n") {
            return Ok(());
        }
        if Instant::now() > until {
            return Err("bubblewrap did not set the loopback up".to_owned());
        }
        let mut events = [PollFd::new(child_end, PollFlags::IN)];
        let interval = Timespec { tv_sec: 0, tv_nsec: LOOPBACK_INTERVAL.subsec_nanos().into() };
        if poll(&mut events, Some(&interval)).is_ok_and(|count| count > 0) {
            return Err("bubblewrap ended before its loopback was up".to_owned());
        }
    }
}

fn start_slirp(slirp: &Path, namespace: &str, ready: &OwnedFd) -> io::Result<Pid> {
    match sys::fork()? {
        sys::Fork::Parent(pid) => Ok(pid),
        sys::Fork::Child => {
            let error = exec_slirp(slirp, namespace, ready);
            eprintln!("towpath: cannot start {}: {error}", slirp.display());
            sys::exit_now(1)
        }
    }
}

fn exec_slirp(slirp: &Path, namespace: &str, ready: &OwnedFd) -> io::Error {
    let prepared = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| rustix::io::fcntl_setfd(ready, FdFlags::empty()))
        .and_then(|()| {
            let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)
        });
    if let Err(error) = prepared {
        return error.into();
    }
    Command::new(slirp)
        .env_clear()
        .args(["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"])
        .arg(format!("--ready-fd={}", ready.as_raw_fd()))
        .args([namespace, "tap0"])
        .exec()
}

fn wait_ready(ready: &OwnedFd) -> Result<(), String> {
    let mut events = [PollFd::new(ready, PollFlags::IN)];
    let timeout = Timespec { tv_sec: READY_TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut events, Some(&timeout)).map_err(|error| format!("cannot wait for slirp4netns: {error}"))?;
    match rustix::io::read(ready, &mut [0; 1][..]) {
        Ok(1) if events[0].revents().contains(PollFlags::IN) => Ok(()),
        _ => Err("slirp4netns did not bring the job's network up: is /dev/net/tun there?".to_owned()),
    }
}

/// Adds routes to the namespace that answer "prohibited". The job has no rights there, so they stay.
fn refuse_own_addresses(namespace: &str) -> Result<(), String> {
    let own = std::fs::read_to_string("/proc/net/fib_trie")
        .map_err(|error| format!("cannot list own addresses: {error}"))?;
    let refused: Vec<(Ipv4Addr, u8)> = REFUSED_ALWAYS
        .into_iter()
        .chain(own_addresses(&own).into_iter().map(|address| (address, 32)))
        .collect();
    match sys::fork().map_err(|error| error.to_string())? {
        sys::Fork::Child => sys::exit_now(i32::from(add_refusals(namespace, &refused).is_err())),
        sys::Fork::Parent(pid) => {
            let status = waitpid(Some(pid), WaitOptions::empty()).map_err(|error| error.to_string())?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err("cannot refuse this machine's addresses in the job's network".to_owned()),
            }
        }
    }
}

/// This machine's IPv4 addresses, loopback left out: the kernel's table lists each as `/32 host LOCAL`.
fn own_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut lines = fib_trie.lines().map(str::trim).peekable();
    let mut addresses = Vec::new();
    while let Some(line) = lines.next() {
        let local = lines.peek().is_some_and(|next| next.starts_with("/32 host LOCAL"));
        let address = line.strip_prefix("|-- ").and_then(|text| text.parse::<Ipv4Addr>().ok());
        addresses.extend(address.filter(|address| local && !address.is_loopback()));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn add_refusals(namespace: &str, refused: &[(Ipv4Addr, u8)]) -> io::Result<()> {
    let namespace = std::fs::File::open(namespace)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // Protocol 0 is NETLINK_ROUTE.
    )?;
    for (address, prefix) in refused {
        rustix::net::send(&socket, &prohibit_route(*address, *prefix), SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (_, count) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
        let code = answer[..count].get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
        match code {
            Some(0) => {}
            Some(code) if code == -libc::EEXIST => {}
            _ => return Err(io::Error::other("the kernel refused a route")),
        }
    }
    Ok(())
}

/// `RTM_NEWROUTE` of type "prohibit" (rtnetlink(7)): header, `rtmsg`, destination.
fn prohibit_route(address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    const NLM_F_REQUEST_ACK_CREATE: u16 = 0x1 | 0x4 | 0x400;
    let message = [
        u8::try_from(libc::AF_INET).expect("a small number"),
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_PROHIBIT,
    ];
    let mut bytes = Vec::with_capacity(36);
    bytes.extend_from_slice(&36u32.to_ne_bytes());
    bytes.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST_ACK_CREATE.to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&message);
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&8u16.to_ne_bytes());
    bytes.extend_from_slice(&libc::RTA_DST.to_ne_bytes());
    bytes.extend_from_slice(&address.octets());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_read_from_the_kernels_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.1.2.3\n        /32 host LOCAL\n";
        assert_eq!(own_addresses(table), [Ipv4Addr::new(10, 1, 2, 3)]);
    }

    #[test]
    fn a_route_message_has_the_size_that_it_names() {
        let message = prohibit_route(Ipv4Addr::new(10, 1, 2, 3), 32);
        assert_eq!(message.len(), 36);
        assert_eq!(&message[32..], [10, 1, 2, 3]);
    }
}
