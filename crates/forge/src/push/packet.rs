//! Git's pkt-lines. Source: git's Documentation/gitprotocol-common.

use std::io::{self, Read};

/// Bytes of a packet with its length. Source: `LARGE_PACKET_MAX` of git.
const PACKET_BYTES_MAX: usize = 65_520;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// `0000`.
    Flush,
    /// Bytes, without the length.
    Data(Vec<u8>),
}

impl Packet {
    /// Reads one packet; `None` at the end of the stream.
    ///
    /// # Errors
    /// `InvalidData` for a length that is none, `UnexpectedEof` within a packet.
    pub fn read(reader: &mut dyn Read) -> io::Result<Option<Packet>> {
        let mut length = [0; 4];
        let mut have = 0;
        while have < length.len() {
            match reader.read(&mut length[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => have += count,
            }
        }
        let text =
            std::str::from_utf8(&length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let length = text.and_then(|text| usize::from_str_radix(text, 16).ok());
        match length {
            Some(0) => Ok(Some(Packet::Flush)),
            Some(length @ 4..=PACKET_BYTES_MAX) => {
                let mut data = vec![0; length - 4];
                reader.read_exact(&mut data)?;
                Ok(Some(Packet::Data(data)))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a packet has no valid length")),
        }
    }

    /// The packet as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Packet::Flush => b"0000".to_vec(),
            Packet::Data(data) => line(data),
        }
    }
}

/// A packet around some bytes, which have to fit.
pub(super) fn line(data: &[u8]) -> Vec<u8> {
    debug_assert!(data.len() + 4 <= PACKET_BYTES_MAX, "invariant: callers cut their data");
    let mut packet = format!("{:04x}", data.len() + 4).into_bytes();
    packet.extend_from_slice(data);
    packet
}

/// A line of text as a packet; longer ones are cut.
pub(super) fn text_line(text: &str) -> Vec<u8> {
    let mut end = text.len().min(4_096);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    line(format!("{}\n", &text[..end]).as_bytes())
}

/// Bytes in one band of a side-band stream, in as many packets as it takes.
pub(super) fn band(number: u8, data: &[u8]) -> Vec<u8> {
    let packet = |piece: &[u8]| line(&[&[number], piece].concat());
    data.chunks(PACKET_BYTES_MAX - 5).flat_map(packet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_are_written() {
        let mut stream: &[u8] = b"0009hello00000004";
        assert_eq!(Packet::read(&mut stream).unwrap(), Some(Packet::Data(b"hello".to_vec())));
        assert_eq!(Packet::read(&mut stream).unwrap(), Some(Packet::Flush));
        assert_eq!(Packet::read(&mut stream).unwrap(), Some(Packet::Data(Vec::new())));
        assert_eq!(Packet::read(&mut stream).unwrap(), None);
    }

    #[test]
    fn broken_packets_are_errors() {
        for broken in [&b"00"[..], b"0003", b"zzzz", b"+010aaaaaaaaaaaaaaaa", b"0010short", b"ffff"] {
            assert!(Packet::read(&mut &broken[..]).is_err(), "{broken:?}");
        }
    }
}
