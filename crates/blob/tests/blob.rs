//! The stores on a real file system.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic, as tests do

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use towpath_blob::{
    BlobError, BlobStore, FilePath, LogOptions, LogStore, Manifest, ManifestFile, Masker, Reserve, RunLogs,
    Secret,
};
use towpath_core::ids::{Digest, LeaseId};

const LEASE: LeaseId = LeaseId([7; 16]);

fn blobs() -> (tempfile::TempDir, BlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    (folder, store)
}

fn logs() -> (tempfile::TempDir, LogStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    (folder, store)
}

#[test]
fn equal_bytes_are_one_read_only_file() {
    let (folder, store) = blobs();
    let first = store.put(&b"bytes"[..]).unwrap();
    let second = store.put(&b"bytes"[..]).unwrap();
    assert_eq!(first, second);
    assert_eq!((first.digest, first.size), (Digest::of(b"bytes"), 5));
    assert_eq!(store.read(&first.digest, 5).unwrap(), b"bytes");
    let mode = store.path(&first.digest).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
    assert_eq!(folder.path().join("tmp").read_dir().unwrap().count(), 0, "no draft is left");
}

#[test]
fn a_flipped_byte_is_found() {
    let (_folder, store) = blobs();
    let info = store.put(&b"bytes"[..]).unwrap();
    let path = store.path(&info.digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"bytez").unwrap();
    assert!(matches!(store.verify(&info.digest), Err(BlobError::Damaged { .. })));
    assert!(matches!(store.read(&info.digest, 10), Err(BlobError::Damaged { .. })));
    store.remove(&info.digest).unwrap();
    store.remove(&info.digest).unwrap();
    assert!(matches!(store.verify(&info.digest), Err(BlobError::Missing(_))));
}

#[test]
fn what_nothing_wants_goes_once_it_is_old_unless_it_is_stored_again() {
    let (_folder, store) = blobs();
    let put = |bytes: &[u8]| store.put(bytes).unwrap().digest;
    let (wanted, old, fresh) = (put(b"wanted"), put(b"old"), put(b"fresh"));
    let (again, age) = (put(b"again"), Duration::from_secs(3600));
    let long_ago = std::time::SystemTime::now() - 2 * age;
    for digest in [wanted, old, again] {
        std::fs::File::open(store.path(&digest)).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(store.put_bytes(b"again").unwrap().digest, again);
    let removed: Vec<_> = (0..=255)
        .map(|first| store.remove_unwanted(first, age, |digest| *digest == wanted).unwrap())
        .collect();
    assert_eq!(
        removed.iter().map(|one| (one.files, one.bytes)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d)),
        (1, 3)
    );
    assert_eq!([wanted, old, fresh, again].map(|digest| store.contains(&digest)), [true, false, true, true]);
}

#[test]
fn a_blob_beyond_its_limit_leaves_nothing() {
    let (folder, store) = blobs();
    let endless = std::io::repeat(0);
    assert!(matches!(store.put_at_most(endless, 1 << 20), Err(BlobError::TooLarge { .. })));
    assert_eq!(folder.path().join("tmp").read_dir().unwrap().count(), 0);
    assert_eq!(folder.path().join("sha256").read_dir().unwrap().count(), 0);
}

#[test]
fn old_drafts_are_swept() {
    let (folder, store) = blobs();
    std::fs::write(folder.path().join("tmp/1-1"), b"half").unwrap();
    assert_eq!(store.sweep(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(store.sweep(Duration::ZERO).unwrap(), 1);
}

fn file(path: &[u8]) -> ManifestFile {
    ManifestFile { path: FilePath::new(path).unwrap(), executable: true, size: 1, digest: Digest::of(path) }
}

#[test]
fn manifests_keep_any_bytes_and_have_one_form() {
    let (_folder, store) = blobs();
    let names: [&[u8]; 4] = [b"dist/a b.whl", b"caf\xe9", "dist/é".as_bytes(), b"100%\n"];
    let forward = Manifest::new(names.iter().map(|name| file(name)).collect()).unwrap();
    let backward = Manifest::new(names.iter().rev().map(|name| file(name)).collect()).unwrap();
    let info = forward.put(&store).unwrap();
    assert_eq!(info, backward.put(&store).unwrap());
    assert_eq!(Manifest::load(&store, &info.digest).unwrap(), forward);
    assert_eq!(forward.size(), 4);
}

#[test]
fn hostile_manifests_are_refused() {
    for path in ["", "/etc/x", "../x", "a/../b", "a//b", "a/", "./a", "a\0b"] {
        assert!(FilePath::new(path).is_err(), "{path:?}");
    }
    assert!(Manifest::new(vec![file(b"a"), file(b"a")]).is_err());
    assert!(Manifest::new(vec![file(b"a"), file(b"a-b"), file(b"a/b")]).is_err());
    let (_folder, store) = blobs();
    let forged = br#"{"files":[{"path":"%2E%2E/x","size":1,"digest":"00"}]}"#;
    let info = store.put_bytes(forged).unwrap();
    assert!(matches!(Manifest::load(&store, &info.digest), Err(BlobError::Manifest(_))));
}

#[test]
fn a_silent_job_leaves_no_file() {
    let (_folder, store) = logs();
    let end = store.writer(&LEASE, LogOptions::default()).finish().unwrap();
    assert_eq!((end.digest, end.bytes), (towpath_blob::log::digest(&b""[..]).unwrap(), 0));
    assert!(!store.path(&LEASE).exists());
    assert_eq!(store.reader(&LEASE).line_count().unwrap(), 0);
    assert_eq!(store.reader(&LEASE).bytes(0, 10).unwrap(), b"");
    store.remove(&LEASE).unwrap();
}

#[test]
fn any_line_opens_while_the_job_writes() {
    let (_folder, store) = logs();
    let mut writer = store.writer(&LEASE, LogOptions::default());
    let reader = store.reader(&LEASE);
    let text: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
    for chunk in text.as_bytes().chunks(777) {
        writer.write(chunk).unwrap();
    }
    writer.write(b"open end").unwrap();
    assert_eq!(reader.line_count().unwrap(), 10_001);
    for line in [0, 1, 63, 64, 65, 127, 128, 5_000, 9_999] {
        let found = reader.lines(line, 2, 1000).unwrap();
        let wanted: Vec<_> = text.lines().skip(usize::try_from(line).unwrap()).take(1).collect();
        assert!(found.bytes.starts_with(wanted[0].as_bytes()), "line {line}");
        assert_eq!(reader.bytes(found.offset, found.bytes.len()).unwrap(), found.bytes);
    }
    assert_eq!(reader.lines(10_000, 5, 1000).unwrap().bytes, b"open end");
    assert_eq!(reader.lines(20_000, 5, 1000).unwrap().bytes, b"");
    let end = writer.finish().unwrap();
    assert_eq!(end.bytes, reader.size().unwrap());
    assert_eq!(end.digest, towpath_blob::log::digest(reader.stream().unwrap()).unwrap());
}

#[test]
fn where_the_disk_has_no_room_for_jobs_a_log_is_cut_and_no_blob_stays() {
    let (folder, store) = logs();
    let store = store.with_reserve(Reserve::of_bytes(folder.path(), u64::MAX));
    let mut writer = store.writer(&LEASE, LogOptions::default());
    (0..3).for_each(|_| writer.write(b"a line\n").unwrap());
    let end = writer.finish().unwrap();
    let text = String::from_utf8(store.reader(&LEASE).bytes(0, 4096).unwrap()).unwrap();
    assert!(
        text.starts_with("[towpath] the log was cut here: this machine's disk is nearly full: "),
        "{text}"
    );
    assert!(text.ends_with("; 21 more bytes were dropped\n"), "{text}");
    assert_eq!((end.dropped, end.bytes), (21, text.len() as u64));

    let (folder, store) = blobs();
    let store = store.with_reserve(Reserve::of_bytes(folder.path(), u64::MAX));
    let refused = store.put(&b"bytes"[..]).unwrap_err();
    assert!(matches!(refused, BlobError::NoRoom(_)) && refused.is_disk_full(), "{refused}");
    assert_eq!(folder.path().join("tmp").read_dir().unwrap().count(), 0, "no draft is left");
}

#[test]
fn a_long_line_is_cut_with_a_mark() {
    let (_folder, store) = logs();
    let options = LogOptions { bytes_max: Some(1 << 20), ..LogOptions::default() };
    let mut writer = store.writer(&LEASE, options);
    for _ in 0..64 {
        writer.write(&[0xff; 1 << 20]).unwrap();
    }
    let end = writer.finish().unwrap();
    assert_eq!(end.dropped, 63 << 20);
    let tail = store.reader(&LEASE).bytes(1 << 20, 1000).unwrap();
    let tail = String::from_utf8(tail).unwrap();
    assert!(tail.starts_with("\n[towpath] the log was cut here at its limit of 1048576 bytes"), "{tail}");
    assert_eq!(store.reader(&LEASE).line_count().unwrap(), 2);
}

#[test]
fn logs_of_a_run_have_a_limit_together() {
    let (_folder, store) = logs();
    let of_run = RunLogs { kept: Arc::default(), bytes_max: 10_000, room_share: 8 };
    let leases = [1, 2, 3].map(|number| LeaseId([number; 16]));
    let mut writers = leases.map(|lease| {
        store.writer(&lease, LogOptions { of_run: Some(of_run.clone()), ..LogOptions::default() })
    });
    for _ in 0..4 {
        writers[..2].iter_mut().for_each(|writer| writer.write(&[b'x'; 2_000]).unwrap());
    }
    let ends = writers.map(|writer| writer.finish().unwrap());
    assert_eq!(ends.map(|end| end.dropped), [2_000, 4_000, 0]);
    let mark =
        "\n[towpath] the log was cut here: all logs of its run together are at their limit of 10000 bytes; ";
    for (lease, kept) in [(leases[0], 6_000), (leases[1], 4_000)] {
        let log = String::from_utf8(store.reader(&lease).bytes(0, 10_000).unwrap()).unwrap();
        assert!(log[kept..].starts_with(mark), "{log}");
    }
}

/// A disk that is full as long as this folder is there: one that cannot be asked bounds nothing.
fn full_disk(folder: &tempfile::TempDir) -> (PathBuf, Reserve) {
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let reserve = Reserve::of_bytes(&disk, u64::MAX);
    (disk, reserve)
}

#[test]
fn a_log_goes_on_behind_a_gap_once_the_disk_has_ample_room_again() {
    let (folder, store) = logs();
    let (disk, reserve) = full_disk(&folder);
    let masker = Masker::new(&[Secret::new("hunter2-secret")]).unwrap();
    let mut writer =
        store.with_reserve(reserve).writer(&LEASE, LogOptions { masker, ..LogOptions::default() });
    // The first half comes while there is no room, and so does the second half of another one.
    writer.write(b"lost hunter2-").unwrap();
    std::fs::remove_dir(&disk).unwrap();
    writer.write(b"secret; begin hunter2-").unwrap();
    std::fs::create_dir(&disk).unwrap();
    // It asks again after a MiB.
    writer.write(&[b'x'; 2 << 20]).unwrap();
    writer.write(b" hunter2-").unwrap();
    std::fs::remove_dir(&disk).unwrap();
    writer.write(b"secret end\n").unwrap();
    let end = writer.finish().unwrap();
    let reader = LogStore::open(folder.path()).unwrap().reader(&LEASE);
    let log = String::from_utf8(reader.bytes(0, 1 << 16).unwrap()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let gap = "[towpath] the log has a gap here: this machine's disk is nearly full: ";
    assert!(lines[0].starts_with(gap) && lines[0].ends_with("; 5 bytes were dropped"), "{log}");
    assert_eq!(lines[1], "***; begin ");
    assert!(lines[2].starts_with(gap) && lines[2].ends_with("; 2097161 bytes were dropped"), "{log}");
    assert_eq!(lines[3..], ["*** end"]);
    assert_eq!((end.dropped, end.bytes), (5 + 2_097_161, log.len() as u64));
}

#[test]
fn a_log_goes_on_behind_a_gap_once_its_run_may_have_more() {
    let log = |room_share| {
        let (folder, store) = logs();
        // As much room as can be.
        let store = store.with_reserve(Reserve::of_bytes(&folder.path().join("nowhere"), 0));
        let of_run = Some(RunLogs { kept: Arc::default(), bytes_max: 10, room_share });
        let mut writer = store.writer(&LEASE, LogOptions { of_run, ..LogOptions::default() });
        ["0123456789", "lost", "end\n"].iter().for_each(|text| writer.write(text.as_bytes()).unwrap());
        writer.finish().unwrap();
        String::from_utf8(store.reader(&LEASE).bytes(0, 4096).unwrap()).unwrap()
    };
    let lines = |what: &str, dropped: &str| {
        format!(
            "0123456789\n[towpath] the log {what} here: all logs of its run together are at their limit of 10 bytes; \
             {dropped} were dropped\n"
        )
    };
    assert_eq!(log(u64::MAX), lines("was cut", "8 more bytes"), "a part of it is no more than the limit");
    assert_eq!(log(8), lines("has a gap", "4 bytes") + "end\n");
}

#[test]
fn a_log_of_an_earlier_use_of_the_lease_is_replaced() {
    let (_folder, store) = logs();
    for text in ["the first and longer\n", "second\n"] {
        let mut writer = store.writer(&LEASE, LogOptions::default());
        writer.write(text.as_bytes()).unwrap();
        writer.finish().unwrap();
    }
    assert_eq!(store.reader(&LEASE).bytes(0, 100).unwrap(), b"second\n");
}

#[test]
fn secrets_never_reach_the_disk() {
    let (folder, store) = logs();
    let masker = Masker::new(&[Secret::new("correct-horse"), Secret::new("line-one\nline-two-é\n")]).unwrap();
    let mut writer = store.writer(&LEASE, LogOptions { masker, ..LogOptions::default() });
    let text =
        "a correct-horse b Y29ycmVjdC1ob3JzZQ== c 636f72726563742d686f727365 d\nline-one\nline-two-%C3%A9\n";
    for byte in text.as_bytes() {
        writer.write(&[*byte]).unwrap();
    }
    writer.finish().unwrap();
    let log = std::fs::read_to_string(store.path(&LEASE)).unwrap();
    assert_eq!(log, "a *** b ***== c *** d\n***\n***\n");
    drop(folder);
}

/// What a script of a shell makes of a text.
fn made_by(script: &str, text: &str) -> String {
    let mut command = Command::new("sh");
    let command = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

const PYTHON: &str = r#"/usr/bin/python3 -c '
import base64, html, json, sys
from xml.sax.saxutils import escape, quoteattr
text = sys.stdin.read()
lines = base64.encodebytes(text.encode()).decode()
print(json.dumps([text, lines]), lines, html.escape(text), escape(text), quoteattr(text))'"#;

/// Characters that say something: no masks, ends of base64, and breaks.
fn telling(text: &str) -> usize {
    let text = text.replace("\\n", "");
    text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '*' | '=')).count()
}

#[test]
fn however_a_common_tool_writes_a_long_secret_nothing_of_use_is_left() {
    // Every printable character, and longer than any line.
    let secret: String = (0..100).map(|at| char::from(b'!' + (at * 37 % 93) as u8)).collect();
    let masker = Masker::new(&[Secret::new(secret.clone())]).unwrap();
    let scripts = [
        "cat",
        "base64",
        "base64 -w 64",
        "od -An -v -tx1 | tr -d ' \\n' | fold -w 60",
        "base64 | sed 's/^/    /'",
        "base64 | sed 's/$/\\r/'",
        PYTHON,
    ];
    for script in scripts {
        // What stands before decides where lines break, and what base64 makes of each byte.
        for before in (0..80).step_by(19) {
            let before = "#".repeat(before);
            let text = made_by(script, &format!("{before}{secret}\n"));
            let shown = String::from_utf8(masker.masked(text.as_bytes())).unwrap();
            // In base64 a character at each end also holds bits of what stands beside.
            let left = telling(&shown).saturating_sub(telling(&made_by(script, &format!("{before}\n"))));
            assert!(left <= 12, "`{script}` of\n{before}{secret}\nis shown as\n{shown}");
        }
    }
}

/// A text as it is masked at once, and cut after so many bytes each.
fn masked(secrets: &[Secret], text: &str, cuts: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let mut masker = Masker::new(secrets).unwrap();
    let whole = masker.masked(text.as_bytes());
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    for cut in cuts {
        let (chunk, later) = rest.split_at(*cut.min(&rest.len()));
        out.extend_from_slice(masker.push(chunk));
        rest = later;
    }
    out.extend_from_slice(masker.push(rest));
    out.extend_from_slice(masker.finish());
    (whole, out)
}

proptest! {
    #[test]
    fn words_of_several_lines_are_masked_whatever_the_cuts(
        before in "[a-z #]{0,40}",
        line in 16usize..30,
        ending in "\n|\r\n|\n  |\\\\n",
        cuts in proptest::collection::vec(1usize..40, 0..20),
    ) {
        let secret = "correct-horse-battery-staple-of-some-length";
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let word = format!("0123456789abcdef{hex}");
        let lines: Vec<&str> = (0..word.len()).step_by(line).map(|at| &word[at..(at + line).min(word.len())]).collect();
        let text = format!("{before}\n{}\nend\n", lines.join(&ending));
        let secrets = [Secret::new(secret)];
        let (whole, out) = masked(&secrets, &text, &cuts);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole));
        let shown = String::from_utf8(out).unwrap();
        let has_mask = shown.ends_with("***\nend\n") && shown.matches("***").count() == 1;
        prop_assert!(has_mask, "{}", shown);
    }

    #[test]
    fn masking_does_not_depend_on_the_cuts(
        text in "[ab]{0,60}(ababab|babbab)?[ab]{0,60}",
        cuts in proptest::collection::vec(1usize..9, 0..40),
    ) {
        let secrets = [Secret::new("ababab"), Secret::new("babbabab")];
        let (whole, out) = masked(&secrets, &text, &cuts);
        prop_assert_eq!(&out, &whole);
        let shown = String::from_utf8(out).unwrap();
        prop_assert!(!shown.contains("ababab") && !shown.contains("babbabab"));
    }
}
