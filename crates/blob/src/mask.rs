//! Masking: secrets are replaced before a byte of a log is written.
//!
//! The second line of defence (trust T4): the first is that a job gets no secret it does not need. Works over the
//! joined stream, so a secret that is cut by a write or a read is still found.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use zeroize::Zeroizing;

use crate::encode;
use crate::wrap;

/// What stands in a log where a secret was.
pub const MASK: &[u8] = b"***";

/// A secret's bytes. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the value.
    pub fn new(value: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(value.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A secret that cannot be masked as asked.
#[derive(Debug, thiserror::Error)]
#[error("the secrets of this job cannot be masked ({0}): give it fewer or shorter ones")]
pub struct MaskError(#[from] aho_corasick::BuildError);

/// Replaces every form of every secret in a stream of bytes. See [`encode::forms`].
#[derive(Default)]
pub struct Masker {
    finder: Option<Arc<Finder>>,
    held: Held,
    out: Vec<u8>,
}

/// Bytes that may be the beginning of a secret.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Leading ones that belong to a secret whose mask is already shown.
    covered: usize,
    /// What was shown before them; see [`wrap::run_before`].
    run: usize,
}

struct Finder {
    automaton: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    /// Bytes of the longest pattern.
    longest: usize,
}

impl Masker {
    /// A masker for these secrets. Values shorter than [`encode::SECRET_BYTES_MIN`] are not masked.
    ///
    /// # Errors
    /// [`MaskError`] if the forms together are too large to search for.
    pub fn new(secrets: &[Secret]) -> Result<Masker, MaskError> {
        let patterns: BTreeSet<Vec<u8>> =
            secrets.iter().flat_map(|secret| encode::forms(&secret.0)).collect();
        let patterns: Vec<Vec<u8>> = patterns.into_iter().collect();
        let Some(longest) = patterns.iter().map(Vec::len).max() else { return Ok(Masker::default()) };
        let automaton = AhoCorasick::builder().build(&patterns)?;
        Ok(Masker::of(Some(Arc::new(Finder { automaton, patterns, longest }))))
    }

    fn of(finder: Option<Arc<Finder>>) -> Masker {
        Masker { finder, ..Masker::default() }
    }

    /// A masker of the same secrets for another stream; costs nothing.
    pub fn for_another(&self) -> Masker {
        Masker::of(self.finder.clone())
    }

    /// A whole text with its secrets blanked. It is never longer than before.
    pub fn masked(&self, text: &[u8]) -> Vec<u8> {
        let mut masker = self.for_another();
        let mut out = masker.push(text).to_vec();
        out.extend_from_slice(masker.finish());
        out
    }

    /// Takes the next bytes; answers what is safe to show so far. May hold back a tail that is shorter than the
    /// longest form.
    pub fn push<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(finder) = &self.finder else { return bytes };
        self.held.bytes.extend_from_slice(bytes);
        let safe = (self.held.bytes.len() + 1).saturating_sub(wrap::extent(finder.longest));
        self.release(safe)
    }

    /// Called when no further bytes are waiting: answers all but a tail that really is the beginning of a secret,
    /// so that a live log is not behind.
    pub fn idle(&mut self) -> &[u8] {
        let Some(finder) = &self.finder else { return &[] };
        let safe = finder.beginning_in(&self.held);
        self.release(safe)
    }

    /// The stream is over: answers what was held back.
    pub fn finish(&mut self) -> &[u8] {
        self.release(self.held.bytes.len())
    }

    /// Emits what lies before `safe`, where every secret that begins before it is whole. A secret that reaches
    /// beyond is remembered as covered, so that overlapping secrets are blanked as one.
    fn release(&mut self, safe: usize) -> &[u8] {
        self.out.clear();
        let Some(finder) = &self.finder else { return &[] };
        let held = &mut self.held;
        let spans = finder.spans_before(held, safe);
        let mut shown = 0;
        for span in &spans {
            self.out.extend_from_slice(&held.bytes[shown..span.start.min(safe)]);
            // A span that begins the buffer goes on from the last release, which has shown its mask.
            if span.start > 0 || held.covered == 0 {
                self.out.extend_from_slice(MASK);
            }
            shown = span.end.min(safe);
        }
        self.out.extend_from_slice(&held.bytes[shown..safe]);
        held.covered = spans.last().map_or(0, |span| span.end.saturating_sub(safe));
        held.run = wrap::run_before(&held.bytes, safe, held.run);
        held.bytes.drain(..safe);
        &self.out
    }
}

/// Reads a stream with its secrets blanked. What comes out is never longer than what goes in.
pub struct Masked<R> {
    source: R,
    masker: Masker,
    chunk: Vec<u8>,
    shown: Vec<u8>,
    /// How much of `shown` was given away.
    given: usize,
    is_over: bool,
}

/// Bytes that are read from a masked stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

impl<R: Read> Masked<R> {
    /// What `source` gives, as `masker` shows it, which is at its beginning.
    pub fn new(source: R, masker: Masker) -> Masked<R> {
        let chunk = vec![0; CHUNK_BYTES];
        Masked { source, masker, chunk, shown: Vec::new(), given: 0, is_over: false }
    }
}

impl<R: Read> Read for Masked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.shown.len() && !self.is_over {
            let count = self.source.read(&mut self.chunk)?;
            self.is_over = count == 0;
            let shown = match self.is_over {
                true => self.masker.finish(),
                false => self.masker.push(&self.chunk[..count]),
            };
            self.shown.clear();
            self.shown.extend_from_slice(shown);
            self.given = 0;
        }
        let count = (&self.shown[self.given..]).read(buffer)?;
        self.given += count;
        Ok(count)
    }
}

impl Finder {
    /// Where secrets lie that begin before `safe`, joined where they overlap.
    fn spans_before(&self, held: &Held, safe: usize) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        if held.covered > 0 {
            spans.push(0..held.covered);
        }
        let found = self.automaton.find_overlapping_iter(&held.bytes).map(|found| found.range());
        found.filter(|range| range.start < safe).for_each(|range| add(&mut spans, range));
        let words = wrap::joined(&held.bytes, held.run);
        if words.is_empty() {
            return spans;
        }
        let mut wrapped = Vec::new();
        for word in words {
            let found = self.automaton.find_overlapping_iter(&word.text);
            let found = found.map(|found| word.place(found.range()));
            found.filter(|range| range.start < safe).for_each(|range| add(&mut wrapped, range));
        }
        spans.append(&mut wrapped);
        // By their ends, as they are added.
        spans.sort_by_key(|span| span.end);
        let mut all = Vec::new();
        spans.into_iter().for_each(|span| add(&mut all, span));
        all
    }

    /// Where the longest end of what is held begins that is the beginning of a secret.
    fn beginning_in(&self, held: &Held) -> usize {
        let at_end = held.bytes.len() - self.longest_beginning_at_end(&held.bytes);
        let words = wrap::joined(&held.bytes, held.run);
        let Some(word) = words.last().filter(|word| word.is_open) else { return at_end };
        match self.longest_beginning_at_end(&word.text) {
            0 => at_end,
            length => word.place(word.text.len() - length..word.text.len()).start.min(at_end),
        }
    }

    /// Length of the longest end of `bytes` that is the beginning of a pattern (Knuth, Morris and Pratt 1977).
    fn longest_beginning_at_end(&self, bytes: &[u8]) -> usize {
        let tail = &bytes[bytes.len().saturating_sub(self.longest - 1)..];
        self.patterns.iter().map(|pattern| beginning_at_end(pattern, tail)).max().unwrap_or(0)
    }
}

/// Adds a span to others that end before it, and joins it with those that it overlaps.
fn add(spans: &mut Vec<Range<usize>>, mut next: Range<usize>) {
    while let Some(last) = spans.pop_if(|last| last.end > next.start) {
        next = last.start.min(next.start)..last.end.max(next.end);
    }
    spans.push(next);
}

fn beginning_at_end(pattern: &[u8], text: &[u8]) -> usize {
    let mut border = vec![0; pattern.len()];
    let step = |border: &[usize], mut matched: usize, byte: u8| {
        while matched > 0 && (matched == pattern.len() || pattern[matched] != byte) {
            matched = border[matched - 1];
        }
        if pattern[matched] == byte { matched + 1 } else { 0 }
    };
    for at in 1..pattern.len() {
        border[at] = step(&border, border[at - 1], pattern[at]);
    }
    let matched = text.iter().fold(0, |matched, byte| step(&border, matched, *byte));
    if matched == pattern.len() { border[matched - 1] } else { matched }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], chunks: &[&[u8]], idle: bool) -> Vec<u8> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
        let mut masker = Masker::new(&secrets).unwrap();
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(masker.push(chunk));
            if idle {
                out.extend_from_slice(masker.idle());
            }
        }
        out.extend_from_slice(masker.finish());
        out
    }

    #[test]
    fn a_secret_cut_anywhere_is_masked() {
        let text = b"before hunter2-secret after aHVudGVyMi1zZWNyZXQ= end";
        for cut in 0..=text.len() {
            for idle in [false, true] {
                let out = masked(&["hunter2-secret"], &[&text[..cut], &text[cut..]], idle);
                assert_eq!(String::from_utf8(out).unwrap(), "before *** after ***= end", "cut {cut}");
            }
        }
    }

    #[test]
    fn byte_by_byte_equals_at_once() {
        let text = b"xx secret-one-two yy one-two-three zz secret-one-two-three".as_slice();
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        let secrets = ["secret-one-two", "one-two-three"];
        for idle in [false, true] {
            let out = masked(&secrets, &bytes, idle);
            assert_eq!(String::from_utf8(out).unwrap(), "xx *** yy *** zz ***");
        }
    }

    #[test]
    fn overlapping_secrets_leave_nothing_over() {
        let text = "a".repeat(100_000);
        assert_eq!(masked(&["aaaaaa"], &[text.as_bytes()], false), b"***");
        let halves: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
        assert_eq!(masked(&["aaaaaa"], &halves, true), b"***");
    }

    #[test]
    fn idle_shows_all_but_a_beginning() {
        let mut masker = Masker::new(&[Secret::new("hunter2-secret")]).unwrap();
        assert_eq!(masker.push(b"Password: hun"), b"");
        assert_eq!(masker.idle(), b"Password: ");
        assert_eq!(masker.push(b"gry").len(), 0);
        assert_eq!(masker.idle(), b"hungry");
    }

    #[test]
    fn a_masked_stream_is_read_in_any_portions_and_each_has_a_beginning_of_its_own() {
        let masker = Masker::new(&[Secret::new("hunter2-secret")]).unwrap();
        for portion in [1, 5, 4096] {
            let text = b"hunter2-secret, and hunter2-secret, and hunter2".as_slice();
            let mut source = Masked::new(text, masker.for_another());
            let (mut out, mut buffer) = (Vec::new(), vec![0; portion]);
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                out.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(String::from_utf8(out).unwrap(), "***, and ***, and hunter2", "by {portion}");
        }
        assert_eq!(masker.masked(b"-secret"), b"-secret");
    }

    #[test]
    fn without_secrets_bytes_pass_through() {
        assert_eq!(masked(&[], &[b"plain"], true), b"plain");
        assert_eq!(masked(&["tiny"], &[b"tiny"], true), b"tiny");
    }
}
