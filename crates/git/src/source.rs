//! Where an import may come from. The address is a stranger's text, and the server's network is not the stranger's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use towpath_core::address::without_secrets;

use crate::error::{GitError, printable};

/// Bytes of an address; browsers stop at about as many.
const ADDRESS_BYTES_MAX: usize = 2_000;

/// Which machines an import may speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only public addresses: not this machine, not its network, not a cloud's metadata service.
    Public,
    /// Any machine. For the server's admin.
    Anywhere,
}

/// An address of the two allowed kinds, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub kind: Kind,
    /// The whole address, as git gets it.
    pub text: String,
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Https,
    Ssh,
}

impl Address {
    /// `https://host/path`, `ssh://user@host/path`, or `user@host:path` as people copy it from pages.
    ///
    /// # Errors
    /// `SourceUnfit` for everything else: `ext::` runs commands, `file:` and plain paths read the server's disk,
    /// `http:` and `git:` can be changed on their way, a leading dash is an option.
    pub fn parse(text: &str) -> Result<Address, GitError> {
        let refuse = |why| GitError::SourceUnfit { address: shown(text), why };
        if text.len() > ADDRESS_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse(
                "an address has only printable characters without spaces, and at most 2,000 of them",
            ));
        }
        let (kind, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (Kind::Https, rest.to_owned())
        } else if let Some(rest) = text.strip_prefix("ssh://") {
            (Kind::Ssh, rest.to_owned())
        } else if let Some(rest) = copied_form(text) {
            (Kind::Ssh, rest)
        } else {
            return Err(refuse("only https:// and ssh:// addresses can be imported"));
        };
        let (authority, path) = rest.split_once('/').ok_or_else(|| refuse("the address has no path"))?;
        let (user, host_port) =
            authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
        match (kind, user) {
            (Kind::Https, Some(_)) => {
                return Err(refuse("names and passwords are given apart from the address"));
            }
            (Kind::Ssh, Some(user)) if !is_plain(user, "_-.") => {
                return Err(refuse("the user's name has odd characters"));
            }
            _ => {}
        }
        let (host, port) =
            split_port(host_port).ok_or_else(|| refuse("the host or its port is malformed"))?;
        if path.is_empty() || path.contains("/../") || path.contains('#') || path.contains('?') {
            return Err(refuse("the path is empty, or has `..`, `?` or `#`"));
        }
        let scheme = if kind == Kind::Https { "https" } else { "ssh" };
        let port = port.unwrap_or(if kind == Kind::Https { 443 } else { 22 });
        Ok(Address { kind, text: format!("{scheme}://{rest}"), host, port })
    }

    /// The machine to speak to, looked up once, so that a name cannot mean another one a moment later.
    ///
    /// # Errors
    /// `SourceRefused` if the reach does not allow it, `SourceUnfit` if the name means no machine, `Failed` (`Transient`)
    /// if the name is not known now.
    pub fn resolve(&self, reach: Reach) -> Result<SocketAddr, GitError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let found = (host, self.port).to_socket_addrs().map_err(|source| GitError::Failed {
            call: "fetch",
            status: format!("the name `{}` is not known", self.host),
            stderr: source.to_string(),
        })?;
        let mut found: Vec<SocketAddr> = found.collect();
        if reach == Reach::Public && !found.iter().all(|address| is_public(address.ip())) {
            let why = "it is, or stands for, an address that is not public; an admin on the server's own machine may import it";
            return Err(GitError::SourceRefused { address: shown(&self.text), why });
        }
        found.sort_by_key(SocketAddr::is_ipv6);
        let nowhere = || GitError::SourceUnfit { address: shown(&self.text), why: "the name has no address" };
        found.first().copied().ok_or_else(nowhere)
    }
}

/// `git@host:owner/name.git` as `git@host/owner/name.git`. A slash before the colon makes it a path, as for git.
fn copied_form(text: &str) -> Option<String> {
    let (left, path) = text.split_once(':')?;
    let (user, host) = left.split_once('@')?;
    let ok = is_plain(user, "_-.") && is_plain(host, "-.") && !path.starts_with(':') && !path.is_empty();
    ok.then(|| format!("{user}@{host}/{}", path.trim_start_matches('/')))
}

fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<Ipv6Addr>().ok()?;
            (format!("[{inside}]"), if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            is_plain(host, "-.").then_some(())?;
            (host.to_owned(), port)
        }
    };
    match port {
        None => Some((host, None)),
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port != 0)?))),
    }
}

fn is_plain(text: &str, also: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    (1..=253).contains(&text.len()) && text.chars().all(ok) && !text.starts_with(['-', '.'])
}

fn shown(text: &str) -> String {
    printable(without_secrets(text).as_bytes()).replace('\n', "?").chars().take(200).collect()
}

/// Whether an address is one of the public internet. Source: the IANA registries of special-purpose addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4().or_else(|| translated(v6)) {
            Some(v4) => is_public_v4(v4),
            // 2000::/3 is all that is given out to machines; documentation addresses lie in it.
            None => {
                v6.segments()[0] & 0xe000 == 0x2000
                    && !matches!(v6.segments(), [0x2001, 0xdb8, ..] | [0x2002, ..])
            }
        },
    }
}

/// 64:ff9b::/96 reaches IPv4 machines through a translator (RFC 6052).
fn translated(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        _ => None,
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a, b, c) == (192, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b20_only_https_and_ssh_are_sources() {
        let bad = [
            "ext::sh -c id",
            "ext::sh%20-c%20id",
            "-uid",
            "--upload-pack=id",
            "file:///etc",
            "/etc",
            "../x",
            "C:/x",
            "http://169.254.169.254/",
            "git://example.org/x",
            "https://",
            "https://example.org",
            "https://example.org/",
            "https://user:secret@example.org/x",
            "http://secret@example.org/x",
            "user:secret@example.org:x",
            "https://example.org/x?token=secret",
            "https://-oProxyCommand=id/x",
            "https://exa mple.org/x",
            "https://example.org:0/x",
            "https://example.org:x/x",
            "https://example.org/a/../../x",
            "https://[::1/x",
            "ssh://-oProxyCommand=id/x",
            "ssh://git@-oProxyCommand=id/x",
            "git@-oProxyCommand=id:x",
            "host:path",
            "a@b::c",
            "https://example.org/x\n",
        ];
        bad.iter().for_each(|text| {
            let error = Address::parse(text).expect_err(text);
            assert!(matches!(error, GitError::SourceUnfit { .. }), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        });
    }

    #[test]
    fn addresses_as_people_copy_them_are_understood() {
        let cases = [
            ("https://example.org/a/b.git", "https://example.org/a/b.git", "example.org", 443),
            ("https://example.org:8443/b", "https://example.org:8443/b", "example.org", 8443),
            ("ssh://git@example.org/b", "ssh://git@example.org/b", "example.org", 22),
            ("git@example.org:a/b.git", "ssh://git@example.org/a/b.git", "example.org", 22),
            ("https://[2001:db8::1]:1/x", "https://[2001:db8::1]:1/x", "[2001:db8::1]", 1),
        ];
        for (text, whole, host, port) in cases {
            let address = Address::parse(text).expect(text);
            assert_eq!((address.text.as_str(), address.host.as_str(), address.port), (whole, host, port));
        }
    }

    #[test]
    fn addresses_of_this_machine_and_its_network_are_not_public() {
        let inside = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "ff02::1",
        ];
        inside.iter().for_each(|text| assert!(!is_public(text.parse().expect(text)), "{text}"));
        ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808"].iter().for_each(|text| {
            assert!(is_public(text.parse().expect(text)), "{text}");
        });
        let loopback = Address::parse("https://127.0.0.1/x").expect("well-formed");
        assert!(loopback.resolve(Reach::Public).is_err());
        assert_eq!(loopback.resolve(Reach::Anywhere).expect("a literal").port(), 443);
    }
}
