//! Masking: secrets are replaced before a byte of a log is written.
//!
//! The second line of defence (trust T4): the first is that a job gets no secret it does not need. Works over the
//! joined stream, so a secret that is cut by a write or a read is still found.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::automaton::Automaton;
use aho_corasick::automaton::StateID;
use aho_corasick::nfa::noncontiguous::NFA;
use aho_corasick::{Anchored, BuildError};
use zeroize::Zeroizing;

use crate::encode::{self, Writers};
use crate::wrap;

/// Bytes of the secrets of one masker that are looked for as all [`Writers`] write them, the shortest ones first: ten keys,
/// or five configurations of a cluster. A byte of theirs has 15 to 40 bytes of forms, 120 at worst, and one of the others 5 to
/// 13; each takes 35 in memory (measured).
const ALL_WRITERS_BYTES_MAX: usize = 32 * 1024;

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
pub struct MaskError(#[from] BuildError);

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

/// An automaton of all forms (Aho and Corasick 1975).
struct Finder {
    automaton: NFA,
    /// By state: bytes of the longest beginning of a form that the text ends with there.
    depths: Vec<u32>,
}

/// What a text holds.
struct Found {
    /// Secrets, joined where they overlap, in their order.
    spans: Vec<Range<usize>>,
    /// Bytes of its longest end that is the beginning of a secret.
    begun: usize,
}

impl Masker {
    /// A masker for these secrets. Values shorter than [`encode::SECRET_BYTES_MIN`] are not masked.
    ///
    /// # Errors
    /// [`MaskError`] if the forms together are too large to search for.
    pub fn new(secrets: &[Secret]) -> Result<Masker, MaskError> {
        let patterns = patterns(secrets);
        match patterns.is_empty() {
            true => Ok(Masker::default()),
            false => Ok(Masker::of(Some(Arc::new(Finder::new(&patterns)?)))),
        }
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

    /// Takes the next bytes; answers what is safe to show so far: all but a tail that really is the beginning of a secret, so
    /// that a live log is not behind.
    pub fn push<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(finder) = &self.finder else { return bytes };
        self.held.bytes.extend_from_slice(bytes);
        let found = finder.find(&self.held);
        let safe = self.held.bytes.len() - found.begun;
        self.release(&found.spans, safe)
    }

    /// The stream is over: answers what was held back.
    pub fn finish(&mut self) -> &[u8] {
        let Some(finder) = &self.finder else { return &[] };
        let found = finder.find(&self.held);
        self.release(&found.spans, self.held.bytes.len())
    }

    /// Emits what lies before `safe`, where every secret that begins before it is whole. A secret that reaches
    /// beyond is remembered as covered, so that overlapping secrets are blanked as one.
    fn release(&mut self, spans: &[Range<usize>], safe: usize) -> &[u8] {
        self.out.clear();
        let held = &mut self.held;
        let spans = spans.iter().take_while(|span| span.start < safe);
        let (mut shown, mut end) = (0, held.covered);
        for span in spans {
            self.out.extend_from_slice(&held.bytes[shown..span.start]);
            // A span that begins the buffer goes on from the last release, which has shown its mask.
            if span.start > 0 || held.covered == 0 {
                self.out.extend_from_slice(MASK);
            }
            (shown, end) = (span.end.min(safe), span.end);
        }
        self.out.extend_from_slice(&held.bytes[shown..safe]);
        held.covered = end.saturating_sub(safe);
        held.run = wrap::run_before(&held.bytes, safe, held.run);
        held.bytes.drain(..safe);
        &self.out
    }
}

/// The forms of all secrets, as many as there is room for.
fn patterns(secrets: &[Secret]) -> BTreeSet<Vec<u8>> {
    let mut values: Vec<&[u8]> = secrets.iter().map(|secret| secret.0.as_slice()).collect();
    values.sort_by_key(|value| value.len());
    let (mut patterns, mut bytes) = (BTreeSet::new(), 0);
    for value in values {
        bytes += value.len();
        let writers = if bytes <= ALL_WRITERS_BYTES_MAX { Writers::All } else { Writers::Common };
        patterns.extend(encode::forms(value, writers));
    }
    patterns
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
    fn new(patterns: &BTreeSet<Vec<u8>>) -> Result<Finder, BuildError> {
        let automaton = NFA::builder().prefilter(false).build(patterns)?;
        let mut finder = Finder { automaton, depths: Vec::new() };
        finder.enter(&mut Vec::new(), finder.start(Anchored::No));
        // States on the way through a pattern. The next one has its beginning in common with it.
        let mut way = Vec::new();
        finder.enter(&mut way, finder.start(Anchored::Yes));
        let mut last: &[u8] = &[];
        for pattern in patterns {
            let common = pattern.iter().zip(last).take_while(|(byte, of_last)| byte == of_last).count();
            way.truncate(common + 1);
            for byte in &pattern[common..] {
                let state = finder.automaton.next_state(Anchored::Yes, way[way.len() - 1], *byte);
                finder.enter(&mut way, state);
            }
            last = pattern;
        }
        Ok(finder)
    }

    fn enter(&mut self, way: &mut Vec<StateID>, state: StateID) {
        let at = state.as_usize();
        if self.depths.len() <= at {
            self.depths.resize(at + 1, 0);
        }
        self.depths[at] = u32::try_from(way.len()).unwrap_or(u32::MAX);
        way.push(state);
    }

    /// Looks through what is held, also where a word is broken into lines.
    fn find(&self, held: &Held) -> Found {
        let mut found = self.find_in(&held.bytes);
        let words = wrap::joined(&held.bytes, held.run);
        if words.is_empty() && held.covered == 0 {
            return found;
        }
        found.spans.extend((held.covered > 0).then_some(0..held.covered));
        for word in words {
            let Found { spans, begun } = self.find_in(&word.text);
            found.spans.extend(spans.into_iter().map(|span| word.place(span)));
            if word.is_open && begun > 0 {
                let begin = word.place(word.text.len() - begun..word.text.len()).start;
                found.begun = found.begun.max(held.bytes.len() - begin);
            }
        }
        // By their ends, as they are added.
        found.spans.sort_by_key(|span| span.end);
        let mut spans = Vec::new();
        found.spans.into_iter().for_each(|span| add(&mut spans, span));
        Found { spans, ..found }
    }

    fn find_in(&self, text: &[u8]) -> Found {
        let mut spans = Vec::new();
        let mut state = self.start(Anchored::No);
        for (end, byte) in (1..).zip(text) {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            if self.automaton.is_match(state) {
                let patterns = 0..self.automaton.match_len(state);
                let length = |at| self.automaton.pattern_len(self.automaton.match_pattern(state, at));
                let longest = patterns.map(length).max().unwrap_or_default();
                add(&mut spans, end - longest..end);
            }
        }
        Found { spans, begun: self.begun(text, state) }
    }

    /// Bytes of the longest end of a text that more bytes can make a form of; the text has led to this state.
    fn begun(&self, text: &[u8], mut state: StateID) -> usize {
        loop {
            let depth = self.depths[state.as_usize()] as usize;
            let goes_on =
                |byte| !self.automaton.is_dead(self.automaton.next_state(Anchored::Yes, state, byte));
            if depth == 0 || (0..=u8::MAX).any(goes_on) {
                return depth;
            }
            // A whole form. What begins within it is shorter.
            let within = &text[text.len() - depth + 1..];
            let step = |state, byte: &u8| self.automaton.next_state(Anchored::No, state, *byte);
            state = within.iter().fold(self.start(Anchored::No), step);
        }
    }

    fn start(&self, kind: Anchored) -> StateID {
        self.automaton.start_state(kind).expect("invariant: it has one of each kind")
    }
}

/// Adds a span to others that end before it, and joins it with those that it overlaps.
fn add(spans: &mut Vec<Range<usize>>, mut next: Range<usize>) {
    while let Some(last) = spans.pop_if(|last| last.end > next.start) {
        next = last.start.min(next.start)..last.end.max(next.end);
    }
    spans.push(next);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], chunks: &[&[u8]]) -> Vec<u8> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
        let mut masker = Masker::new(&secrets).unwrap();
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(masker.push(chunk));
        }
        out.extend_from_slice(masker.finish());
        out
    }

    #[test]
    fn a_secret_cut_anywhere_is_masked() {
        let text = b"before hunter2-secret after aHVudGVyMi1zZWNyZXQ= end";
        for cut in 0..=text.len() {
            let out = masked(&["hunter2-secret"], &[&text[..cut], &text[cut..]]);
            assert_eq!(String::from_utf8(out).unwrap(), "before *** after ***= end", "cut {cut}");
        }
    }

    #[test]
    fn byte_by_byte_equals_at_once() {
        let text = b"xx secret-one-two yy one-two-three zz secret-one-two-three".as_slice();
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        let secrets = ["secret-one-two", "one-two-three"];
        assert_eq!(String::from_utf8(masked(&secrets, &bytes)).unwrap(), "xx *** yy *** zz ***");
    }

    #[test]
    fn overlapping_secrets_leave_nothing_over() {
        let text = "a".repeat(100_000);
        assert_eq!(masked(&["aaaaaa"], &[text.as_bytes()]), b"***");
        let halves: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
        assert_eq!(masked(&["aaaaaa"], &halves), b"***");
    }

    #[test]
    fn all_but_a_beginning_is_shown_at_once() {
        let mut masker = Masker::new(&[Secret::new("hunter2-secret")]).unwrap();
        assert_eq!(masker.push(b"Password: hun"), b"Password: ");
        assert_eq!(masker.push(b"gry"), b"hungry");
        assert_eq!(masker.push(b" hunter2-secret"), b" ***", "nothing longer begins so");
        // Its last bytes begin it again.
        let mut masker = Masker::new(&[Secret::new("again-and-again")]).unwrap();
        assert_eq!(masker.push(b"an again-and-again"), b"an ***");
        assert_eq!(masker.push(b"-and-again"), b"");
        assert_eq!(masker.push(b"!"), b"!");
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
    fn the_shortest_secrets_are_looked_for_in_every_form() {
        let value = |letter: &str, length: usize| Secret::new(letter.repeat(length));
        let kib = 1024;
        let forms = patterns(&[value("kl", 12 * kib), value("ab", 8 * kib), value("xy", 7 * kib)]);
        let with = |form: &str| forms.iter().any(|one| one.starts_with(form.as_bytes()));
        assert!(with("abab") && with("6162") && with("xyxy") && with("7879"));
        assert!(with("klkl") && with("a2xrb") && !with("6b6c"));
    }

    #[test]
    fn without_secrets_bytes_pass_through() {
        assert_eq!(masked(&[], &[b"plain"]), b"plain");
        assert_eq!(masked(&["tiny"], &[b"tiny"]), b"tiny");
    }
}
