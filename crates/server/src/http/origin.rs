//! Where the server is, as others see it: which `Host` is meant for it (F06), and which pages may send it forms (F03).

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, Method, Uri, header};

use super::error::{ApiError, Class};

/// The header by which browsers tell which site caused a request.
const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// The header in which a proxy says where a request comes from. `Forwarded` (RFC 7239) is not read: most proxies hand on what
/// they are sent of it.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Names of this very machine; a name under an attacker's control is never among them.
const LOOPBACK_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// The part of an IPv6 address that names a network. Source: RFC 4291, 2.5.4, interfaces choose the other 64 bits.
const NETWORK_V6: u128 = !(u64::MAX as u128);

/// The configured address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// `http://host:port`, without a slash at its end. Every link begins with it.
    pub url: String,
    secure: bool,
    /// Values of `Host` that are meant for us.
    hosts: Vec<String>,
    /// Proxies that say where a request comes from.
    proxies: Vec<IpAddr>,
}

/// Why an address cannot be the server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` cannot be the server's address: {why}")]
pub struct UnfitUrl {
    /// As it was given, without a login.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Site {
    /// The site at an address like `https://gate.example` or `http://127.0.0.1:7700`.
    ///
    /// # Errors
    /// It has another scheme, no host, or a path.
    pub fn new(url: &str) -> Result<Site, UnfitUrl> {
        let unfit = |why| UnfitUrl { url: towpath_core::address::without_secrets(url), why };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| unfit("it has no scheme"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
        let (secure, port_default) = match scheme {
            "http" => (false, ":80"),
            "https" => (true, ":443"),
            _ => return Err(unfit("only http and https are served")),
        };
        if authority.is_empty() || !authority.bytes().all(is_authority_byte) {
            return Err(unfit("it has to be a host and, if need be, a port, without a path"));
        }
        if !has_fit_port(&authority) {
            return Err(unfit("its port is no number from 1 to 65535"));
        }
        let authority = authority.strip_suffix(port_default).unwrap_or(&authority).to_owned();
        let hosts = hosts(&authority);
        Ok(Site { url: format!("{scheme}://{authority}"), secure, hosts, proxies: Vec::new() })
    }

    /// The same behind proxies, by their addresses, that say in `X-Forwarded-For` where a request comes from.
    #[must_use]
    pub fn behind(self, proxies: &[IpAddr]) -> Site {
        Site { proxies: proxies.iter().map(IpAddr::to_canonical).collect(), ..self }
    }

    /// Whether browsers reach it by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it is this very machine's address, without anything in between.
    pub fn is_loopback(&self) -> bool {
        self.hosts.len() > 1
    }

    /// Whose address a connection comes from, if that tells one person from another. Behind a proxy everybody comes from the proxy,
    /// and TLS is always a proxy's.
    pub fn address_of(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        let proxied = match self.proxies.is_empty() {
            true => self.secure || (peer.is_loopback() && !self.is_loopback()),
            false => self.is_proxy(peer),
        };
        (!proxied).then(|| one_of_network(peer))
    }

    /// Whose address a request comes from, if that tells one person from another: what a named proxy says of it, or whoever has
    /// the connection. A proxy adds the address that it sees to the end of what it is sent, which anybody can write: from the
    /// end on, the first that is no proxy's counts. Where there is none, or no address, the request is the proxy's own.
    pub fn address_of_request(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        if !self.is_proxy(peer) {
            return self.address_of(peer);
        }
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let beyond = hops.find_map(|hop| match address(hop) {
            Some(hop) => (!self.is_proxy(hop)).then_some(Some(hop)),
            None => Some(None),
        });
        Some(one_of_network(beyond.flatten().unwrap_or(peer)))
    }

    /// Whether whoever has a connection sits at the server's own machine for certain: they speak to loopback, and no proxy can
    /// stand in between. A server with another address, or with a proxy beside it, is asked by everybody in the same way.
    pub fn is_at_its_machine(&self, peer: IpAddr) -> bool {
        let has_none = !self.secure && self.is_loopback() && !self.proxies.iter().any(IpAddr::is_loopback);
        has_none && peer.to_canonical().is_loopback()
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.contains(&address)
    }

    /// Refuses what was meant for another host: a page that had its own name point here would otherwise read answers.
    ///
    /// # Errors
    /// `Misdirected`.
    pub fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut named = headers.get_all(header::HOST).iter();
        let host = named.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let single = named.next().is_none();
        let in_uri = uri.authority().is_none_or(|authority| self.is_ours(authority.as_str()));
        match single && in_uri && self.is_ours(host) {
            true => Ok(()),
            false => Err(ApiError::new(Class::Misdirected, "this server does not answer for that host")
                .hint(format!("its address is {}; an admin sets it with `serve --url`", self.url))),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let port = if self.secure { ":443" } else { ":80" };
        let host = host.strip_suffix(port).unwrap_or(&host);
        self.hosts.iter().any(|ours| ours == host)
    }

    /// Refuses a mutation that a page of another site caused. What no browser sent carries neither header.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check_same_site(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        if is_read(method) {
            return Ok(());
        }
        let site =
            headers.get(SEC_FETCH_SITE).map(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        let origin = headers.get(header::ORIGIN).map(|origin| self.is_origin(origin.as_bytes()));
        match site.unwrap_or(true) && origin.unwrap_or(true) {
            true => Ok(()),
            false => Err(ApiError::denied("the request comes from a page of another site")),
        }
    }

    /// Whether a browser vouches for the request being from one of our own pages.
    pub fn is_from_own_page(&self, headers: &HeaderMap) -> bool {
        headers.get(SEC_FETCH_SITE).is_some_and(|site| site.as_bytes() == b"same-origin")
            || headers.get(header::ORIGIN).is_some_and(|origin| self.is_origin(origin.as_bytes()))
    }

    fn is_origin(&self, origin: &[u8]) -> bool {
        let scheme = if self.secure { "https://" } else { "http://" };
        let authority = std::str::from_utf8(origin).ok().and_then(|origin| origin.strip_prefix(scheme));
        authority.is_some_and(|authority| self.is_ours(authority))
    }
}

/// Whoever has an IPv6 address has all of its network.
fn one_of_network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & NETWORK_V6).into()
        }
        _ => address,
    }
}

/// An address as a proxy writes it.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim().parse::<IpAddr>().ok()?;
    Some(hop.to_canonical())
}

/// Whether a method never changes anything.
pub fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The host itself and, where that is this machine, its other names.
fn hosts(authority: &str) -> Vec<String> {
    let split = authority.rfind(':').filter(|at| !authority[*at..].contains(']')).unwrap_or(authority.len());
    let (host, port) = authority.split_at(split);
    match LOOPBACK_NAMES.contains(&host) {
        true => LOOPBACK_NAMES.iter().map(|name| format!("{name}{port}")).collect(),
        false => vec![authority.to_owned()],
    }
}

/// Whether what follows the host, if anything does, is a port that can be connected to.
pub fn has_fit_port(authority: &str) -> bool {
    let after_host = authority.rfind(']').map_or(authority, |end| &authority[end..]);
    match after_host.split_once(':') {
        // `parse` alone takes a sign.
        Some((_, port)) => {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0)
        }
        None => true,
    }
}

fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.:[]_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_configured_host_is_answered_for() {
        let site = Site::new("https://Gate.Example/").unwrap();
        let uri: Uri = "/x".parse().unwrap();
        let ok = |pairs: &[(&'static str, &str)]| site.check_host(&uri, &headers(pairs)).is_ok();
        assert!(ok(&[("host", "gate.example")]) && ok(&[("host", "GATE.example:443")]));
        for host in ["evil.example", "gate.example.evil", "gate.example:80", "", "127.0.0.1"] {
            assert!(!ok(&[("host", host)]), "{host}");
        }
        assert!(!ok(&[]) && !ok(&[("host", "gate.example"), ("host", "evil.example")]));
        let foreign: Uri = "http://evil.example/x".parse().unwrap();
        assert!(site.check_host(&foreign, &headers(&[("host", "gate.example")])).is_err());
    }

    #[test]
    fn addresses_are_known_where_no_proxy_stands_in_front() {
        let address = |url: &str, peer: &str| {
            let known = Site::new(url).unwrap().address_of(peer.parse().unwrap());
            known.map(|address| address.to_string())
        };
        for near in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(address("http://127.0.0.1:7700", near).as_deref(), Some("127.0.0.1"));
            assert_eq!(address("http://gate.example", near), None);
        }
        assert_eq!(address("http://gate.example", "192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(address("http://gate.example", "2001:db8:1:2:3::4").as_deref(), Some("2001:db8:1:2::"));
        for proxy in ["127.0.0.1", "192.0.2.7", "2001:db8::1"] {
            assert_eq!(address("https://gate.example", proxy), None);
        }
    }

    #[test]
    fn a_request_comes_from_where_a_named_proxy_saw_it() {
        let proxies = ["127.0.0.1", "10.0.0.5"].map(|proxy| proxy.parse().unwrap());
        let site = Site::new("https://gate.example").unwrap().behind(&proxies);
        let from = |peer: &str, lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            site.address_of_request(peer.parse().unwrap(), &headers(&lines)).unwrap().to_string()
        };
        for proxy in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(from(proxy, &["192.0.2.7"]), "192.0.2.7");
        }
        assert_eq!(from("127.0.0.1", &["2001:db8:1:2:3::4"]), "2001:db8:1:2::");
        assert_eq!(from("127.0.0.1", &["::ffff:192.0.2.7"]), "192.0.2.7");
        // What was there before the proxy wrote is anybody's word.
        assert_eq!(from("127.0.0.1", &["198.51.100.1, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(from("127.0.0.1", &["198.51.100.1", "192.0.2.7,10.0.0.5"]), "192.0.2.7");
        assert_eq!(from("127.0.0.1", &["rubbish, 192.0.2.7"]), "192.0.2.7");
        // What cannot be read is the proxy's, and nothing beyond it is looked at.
        for odd in [
            &[][..],
            &[""],
            &["192.0.2.7, unknown"],
            &["192.0.2.7,"],
            &["192.0.2.7:80"],
            &["10.0.0.5"],
            &["[::1]"],
        ] {
            assert_eq!(from("127.0.0.1", odd), "127.0.0.1", "{odd:?}");
        }
        // Whoever is no proxy says nothing of themselves.
        assert_eq!(from("192.0.2.9", &["192.0.2.7"]), "192.0.2.9");
        assert_eq!(site.address_of("192.0.2.9".parse().unwrap()), Some("192.0.2.9".parse().unwrap()));
        assert_eq!(site.address_of("127.0.0.1".parse().unwrap()), None, "its connections are everybody's");
        let site = Site::new("https://gate.example").unwrap();
        let unnamed = headers(&[("x-forwarded-for", "192.0.2.7")]);
        assert_eq!(site.address_of_request("127.0.0.1".parse().unwrap(), &unnamed), None);
    }

    #[test]
    fn nobody_who_comes_by_a_proxy_sits_at_the_servers_machine() {
        let is_at_it = |url: &str, proxies: &[&str], peer: &str| {
            let proxies: Vec<_> = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
            Site::new(url).unwrap().behind(&proxies).is_at_its_machine(peer.parse().unwrap())
        };
        let own = "http://127.0.0.1:7700";
        for near in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_at_it(own, &[], near), "{near}");
            assert!(is_at_it(own, &["10.0.0.5"], near), "{near}");
            assert!(!is_at_it(own, &["127.0.0.1"], near), "{near}");
            assert!(!is_at_it("https://127.0.0.1", &[], near), "{near}");
            assert!(!is_at_it("http://gate.example", &[], near), "{near}");
        }
        assert!(!is_at_it(own, &[], "192.0.2.7"));
    }

    #[test]
    fn loopback_has_all_its_names_at_its_port() {
        let site = Site::new("http://127.0.0.1:7700").unwrap();
        let uri: Uri = "/".parse().unwrap();
        let ok = |host: &str| site.check_host(&uri, &headers(&[("host", host)])).is_ok();
        assert!(ok("127.0.0.1:7700") && ok("localhost:7700") && ok("[::1]:7700"));
        assert!(!ok("localhost") && !ok("localhost:7701") && !ok("evil.example:7700"));
    }

    #[test]
    fn other_sites_change_nothing() {
        let site = Site::new("https://gate.example").unwrap();
        let ok =
            |pairs: &[(&'static str, &str)]| site.check_same_site(&Method::POST, &headers(pairs)).is_ok();
        assert!(ok(&[]));
        assert!(ok(&[("origin", "https://gate.example"), ("sec-fetch-site", "same-origin")]));
        assert!(!ok(&[("origin", "https://evil.example")]));
        assert!(!ok(&[("origin", "null")]));
        assert!(!ok(&[("origin", "http://gate.example")]));
        assert!(!ok(&[("sec-fetch-site", "cross-site")]) && !ok(&[("sec-fetch-site", "same-site")]));
        assert!(!site.is_from_own_page(&headers(&[])));
        assert!(site.is_from_own_page(&headers(&[("origin", "https://gate.example")])));
    }

    #[test]
    fn odd_addresses_are_refused() {
        let odd = ["gate.example", "ftp://x", "http://", "http://a/b", "http://a b", "http://u@h"];
        let ports =
            ["http://x:y", "http://x:", "http://x:0", "http://x:65536", "http://x:+1", "http://[::1]:y"];
        for url in odd.into_iter().chain(ports) {
            assert!(Site::new(url).is_err(), "{url}");
        }
        assert!(!Site::new("http://u:secret@h").unwrap_err().to_string().contains("secret"));
        assert!(Site::new("http://[::1]").is_ok());
        assert_eq!(Site::new("http://gate:80").unwrap().url, "http://gate");
    }
}
