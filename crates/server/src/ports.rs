//! Ports at which whoever serves is found again after an end.

use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::random;

/// Ports that are tried: only where nearly all are in use are so many of them.
const TRIED_MAX: usize = 1_000;
/// The lowest of them where the system hands out none below: what lies under it are ports of known services.
const LOWEST: u16 = 10_000;
/// The first port that Linux hands out unless somebody says otherwise.
const FIRST_HANDED_OUT: u16 = 32_768;

/// An address at which nobody listens now, and whose port the system gives to no connection: the next server finds it free
/// after the one before was ended. Its port is chosen at random, so that two who ask at once get two. `None`: none is free.
pub fn own_address(ip: IpAddr) -> Option<SocketAddr> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = first_of(&range).unwrap_or(FIRST_HANDED_OUT);
    let lowest = LOWEST.min(end / 2);
    let port = || lowest + u16::from_ne_bytes(random::bytes()) % (end - lowest);
    let addresses = std::iter::repeat_with(|| SocketAddr::new(ip, port()));
    addresses.take(TRIED_MAX).find(|address| TcpListener::bind(address).is_ok())
}

/// The first port of a range as the kernel shows it; there are some below it.
fn first_of(range: &str) -> Option<u16> {
    range.split_whitespace().next()?.parse().ok().filter(|first| *first > 1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_own_address_has_a_port_below_those_that_the_system_hands_out() {
        let own = own_address(Ipv4Addr::LOCALHOST.into()).unwrap();
        let handed_out = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        assert!(own.ip() == handed_out.ip() && own.port() < handed_out.port(), "{own} {handed_out}");
    }

    #[test]
    fn a_range_says_where_it_begins() {
        assert_eq!(first_of("32768\t60999\n"), Some(32_768));
        for none in ["", "1\t65535", "0 1", "x"] {
            assert_eq!(first_of(none), None, "{none}");
        }
    }
}
