//! What happened, as one hash over everything and the newest lines for people.

use std::collections::VecDeque;

/// Lines kept for a seed that fails.
const TAIL_LINES: usize = 60;
/// Source: FNV-1a, 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The trace of one seed.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Print each line as it comes.
    pub aloud: bool,
    hash: u64,
    tail: VecDeque<String>,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { aloud: false, hash: FNV_OFFSET, tail: VecDeque::new() }
    }
}

impl Trace {
    /// Adds bytes to the hash alone.
    pub fn fold(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    /// Adds a line to the hash and to the tail.
    pub fn line(&mut self, line: String) {
        self.fold(line.as_bytes());
        if self.aloud {
            eprintln!("{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The newest lines, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
