//! Measures a pack while it streams by, before git stores a byte of it.
//!
//! Each entry of a pack says how large it will be when it is unpacked, and git holds it to that. So the bounds on the whole
//! are kept by adding up what the entries say: a pack of 50 MB that describes 50 GB is refused at the entry that does
//! (B10). Nothing is kept: memory is two buffers. Source of the format: git's Documentation/gitformat-pack.

use flate2::{Decompress, FlushDecompress, Status};

/// Bounds on one push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackLimits {
    /// Bytes as sent.
    pub pack_bytes_max: u64,
    /// Objects.
    pub objects_max: u64,
    /// Bytes of one object.
    pub object_bytes_max: u64,
    /// Bytes of an object that is sent as a difference; git builds these in memory.
    pub delta_bytes_max: u64,
    /// Bytes of one commit, tree or tag.
    pub small_bytes_max: u64,
    /// Bytes of all objects.
    pub expanded_bytes_max: u64,
}

/// The Linux kernel's whole history is a pack of 3 GB and 10 million objects, and comes by `repo import`. A push of more
/// than this is a mistake or an attack. The bound on differences is git's `core.bigFileThreshold`: it makes none above it.
pub(super) const PACK_LIMITS: PackLimits = PackLimits {
    pack_bytes_max: 2 * 1024 * 1024 * 1024,
    objects_max: 5_000_000,
    object_bytes_max: 2 * 1024 * 1024 * 1024,
    delta_bytes_max: 512 * 1024 * 1024,
    small_bytes_max: 32 * 1024 * 1024,
    expanded_bytes_max: 16 * 1024 * 1024 * 1024,
};

/// Bytes unpacked at once, and thrown away.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Bytes of a difference that say how large its result is: two numbers of at most ten bytes.
const DELTA_HEAD_BYTES: usize = 20;

/// Reads a pack piece by piece.
pub(super) struct PackScan {
    limits: PackLimits,
    state: State,
    taken: u64,
    left: u64,
    expanded: u64,
    inflate: Decompress,
    scratch: Vec<u8>,
}

enum State {
    Start(Vec<u8>),
    Entry(Vec<u8>),
    Body { size: u64, is_delta: bool, delta_head: Vec<u8> },
    Trailer(usize),
}

impl PackScan {
    pub fn new(limits: PackLimits) -> PackScan {
        PackScan {
            limits,
            state: State::Start(Vec::new()),
            taken: 0,
            left: 0,
            expanded: 0,
            inflate: Decompress::new(true),
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Why the pack is not taken.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        self.taken += bytes.len() as u64;
        if self.taken > self.limits.pack_bytes_max {
            return Err(format!("the pack is over {} bytes", self.limits.pack_bytes_max));
        }
        while !bytes.is_empty() {
            let used = match &mut self.state {
                State::Start(_) => self.start(bytes)?,
                State::Entry(_) => self.entry(bytes)?,
                State::Body { .. } => self.body(bytes)?,
                State::Trailer(left) => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    match used {
                        0 => return Err("there is something behind the pack".into()),
                        used => used,
                    }
                }
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Says whether the pack came whole.
    pub fn finish(&self) -> Result<(), String> {
        match self.state {
            State::Trailer(0) => Ok(()),
            State::Start(_) => Err("the pack ended before it began".into()),
            _ => Err(format!("the pack ended early: {} objects and its checksum are missing", self.left)),
        }
    }

    fn start(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let State::Start(head) = &mut self.state else { return Ok(0) };
        let used = bytes.len().min(12 - head.len());
        head.extend_from_slice(&bytes[..used]);
        if let Ok(head) = <[u8; 12]>::try_from(&head[..]) {
            if !head.starts_with(b"PACK") || !matches!(head[4..8], [0, 0, 0, 2 | 3]) {
                return Err("what came is no pack".into());
            }
            self.left = u64::from(u32::from_be_bytes([head[8], head[9], head[10], head[11]]));
            if self.left > self.limits.objects_max {
                return Err(format!("the pack has more than {} objects", self.limits.objects_max));
            }
            self.next_entry();
        }
        Ok(used)
    }

    fn next_entry(&mut self) {
        self.state = match self.left {
            0 => State::Trailer(20),
            _ => State::Entry(Vec::new()),
        };
    }

    /// Collects the head of an entry: kind and size, and for a difference its base.
    fn entry(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let State::Entry(head) = &mut self.state else { return Ok(0) };
        head.push(bytes[0]);
        let Some((kind, size, length)) = kind_and_size(head)? else { return Ok(1) };
        let whole = match kind {
            6 => head.len() > length && head[head.len() - 1] & 0x80 == 0,
            7 => head.len() == length + 20,
            _ => true,
        };
        if head.len() > 40 {
            return Err("an entry of the pack has no end to its head".into());
        }
        if !whole {
            return Ok(1);
        }
        let is_delta = matches!(kind, 6 | 7);
        let (what, max) = match kind {
            1 | 2 | 4 => ("a commit, tree or tag", self.limits.small_bytes_max),
            3 => ("a file", self.limits.object_bytes_max),
            6 | 7 => ("a difference", self.limits.delta_bytes_max),
            _ => return Err("the pack has an entry of an unknown kind".into()),
        };
        check(what, size, max)?;
        self.add(if is_delta { 0 } else { size })?;
        self.inflate.reset(true);
        self.state = State::Body { size, is_delta, delta_head: Vec::new() };
        Ok(1)
    }

    fn add(&mut self, size: u64) -> Result<(), String> {
        self.expanded = self.expanded.saturating_add(size);
        check("all that the pack unpacks to", self.expanded, self.limits.expanded_bytes_max)
    }

    fn body(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let State::Body { size, is_delta, delta_head } = &mut self.state else { return Ok(0) };
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(bytes, &mut self.scratch, FlushDecompress::None);
        let status = status.map_err(|_| "an entry of the pack cannot be unpacked".to_owned())?;
        let used = (self.inflate.total_in() - in_before) as usize;
        let made = (self.inflate.total_out() - out_before) as usize;
        if self.inflate.total_out() > *size {
            return Err("an entry of the pack is larger than it says".into());
        }
        let room = DELTA_HEAD_BYTES - delta_head.len();
        delta_head.extend_from_slice(&self.scratch[..made.min(room)]);
        match status {
            Status::StreamEnd => {}
            _ if used == 0 && made == 0 => return Err("an entry of the pack cannot be unpacked".into()),
            _ => return Ok(used),
        }
        if self.inflate.total_out() != *size {
            return Err("an entry of the pack is smaller than it says".into());
        }
        if *is_delta {
            let result = delta_result(delta_head).ok_or("a difference in the pack has no valid head")?;
            check("an object made by a difference", result, self.limits.delta_bytes_max)?;
            self.add(result)?;
        }
        self.left -= 1;
        self.next_entry();
        Ok(used)
    }
}

fn check(what: &str, bytes: u64, max: u64) -> Result<(), String> {
    match bytes > max {
        true => Err(format!("{what} has {bytes} bytes when unpacked, more than the {max} that are taken")),
        false => Ok(()),
    }
}

/// Kind, size and length of an entry's head, once all of it is there.
fn kind_and_size(head: &[u8]) -> Result<Option<(u8, u64, usize)>, String> {
    let kind = head[0] >> 4 & 7;
    let mut size = u64::from(head[0] & 15);
    for (at, byte) in head.iter().enumerate() {
        if at > 0 {
            let shift = 4 + 7 * (at as u32 - 1);
            if shift > 56 {
                return Err("an entry of the pack has a size without an end".into());
            }
            size |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Ok(Some((kind, size, at + 1)));
        }
    }
    Ok(None)
}

/// The size of what a difference makes: its second number.
fn delta_result(head: &[u8]) -> Option<u64> {
    let mut numbers = head.split_inclusive(|byte| byte & 0x80 == 0);
    numbers.next().filter(|base| base.last().is_some_and(|byte| byte & 0x80 == 0))?;
    let result = numbers.next().filter(|result| result.len() <= 8 && result[result.len() - 1] & 0x80 == 0)?;
    Some(result.iter().rev().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    const SMALL: PackLimits = PackLimits {
        pack_bytes_max: 10_000,
        objects_max: 3,
        object_bytes_max: 1_000,
        delta_bytes_max: 1_000,
        small_bytes_max: 500,
        expanded_bytes_max: 1_500,
    };

    fn entry(kind: u8, claimed: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
        let mut size = claimed >> 4;
        let mut head = vec![kind << 4 | (claimed & 15) as u8];
        while size > 0 {
            *head.last_mut().unwrap() |= 0x80;
            head.push((size & 0x7f) as u8);
            size >>= 7;
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        [&head[..], base, &encoder.finish().unwrap()].concat()
    }

    fn pack(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(count.to_be_bytes());
        entries.iter().for_each(|entry| pack.extend(entry));
        pack.extend([7; 20]);
        pack
    }

    /// The whole pack at once, and byte by byte: both must say the same.
    fn scan(pack: &[u8]) -> Result<(), String> {
        let run = |pieces: std::slice::Chunks<'_, u8>| {
            let mut scan = PackScan::new(SMALL);
            pieces.into_iter().try_for_each(|piece| scan.take(piece))?;
            scan.finish()
        };
        let whole = run(pack.chunks(pack.len().max(1)));
        assert_eq!(whole, run(pack.chunks(1)));
        whole
    }

    #[test]
    fn honest_packs_pass() {
        let delta = [&[10, 20][..], &[0; 5]].concat();
        let entries = [
            entry(3, 600, &[], &[1; 600]),
            entry(6, 7, &[0x81, 0x02], &delta),
            entry(7, 7, &[9; 20], &delta),
        ];
        assert_eq!(scan(&pack(3, &entries)), Ok(()));
        assert_eq!(scan(&pack(0, &[])), Ok(()));
    }

    #[test]
    fn b10_what_unpacks_to_too_much_is_refused_by_what_it_says() {
        let big = |entries: &[Vec<u8>], count| scan(&pack(count, entries)).unwrap_err();
        assert!(big(&[entry(3, 50_000_000_000, &[], &[0; 10])], 1).contains("a file has 50000000000 bytes"));
        assert!(big(&[entry(2, 501, &[], &[0; 501])], 1).contains("a commit, tree or tag"));
        let many = [entry(3, 900, &[], &[0; 900]), entry(3, 900, &[], &[0; 900])];
        assert!(big(&many, 2).contains("all that the pack unpacks to"));
        let delta = [10, 0xff, 0xff, 0x7f];
        assert!(big(&[entry(7, 4, &[9; 20], &delta)], 1).contains("made by a difference"));
        assert!(scan(&pack(4, &[])).unwrap_err().contains("more than 3 objects"));
    }

    #[test]
    fn b12_broken_packs_are_seen() {
        let good = pack(1, &[entry(3, 600, &[], &[1; 600])]);
        for cut in 0..good.len() {
            assert!(scan(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(scan(&pack(1, &[entry(3, 10, &[], &[0; 600])])).unwrap_err().contains("larger than it says"));
        assert!(
            scan(&pack(1, &[entry(3, 900, &[], &[0; 600])])).unwrap_err().contains("smaller than it says")
        );
        assert!(scan(b"HTTP/1.1 200 OK").unwrap_err().contains("no pack"));
        assert!(scan(&[&good[..], b"x"].concat()).unwrap_err().contains("behind the pack"));
        assert!(scan(&pack(1, &[vec![0x35, 0x00, 0xff, 0xff, 0xff]])).is_err());
    }
}
