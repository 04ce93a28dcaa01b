//! Cases of the attack list that concern what a push brings, each by its name there: names, trees and packs that no git would
//! make. Every one ends with [`World::check_sound`].

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use towpath_core::ids::CommitId;

use crate::raw::{RawPush, answer};
use crate::support::{Clone, World, every_git, said};

#[test]
fn b06_ref_name_bytes() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let commit = ann.commit_file("a", "a\n");
    let before = world.refs();
    let long = format!("refs/heads/{}", "x/".repeat(2_000) + "x");
    let names: [&[u8]; 9] = [
        b"refs/heads/a$(id)",
        b"refs/heads/a<img src=x onerror=1>",
        "refs/heads/a\u{202e}b".as_bytes(),
        b"refs/heads/a\nb",
        b"refs/heads/x\n0000000000000000000000000000000000000000 1111111111111111111111111111111111111111 refs/heads/main",
        b"refs/heads/a..b",
        b"refs/heads/../../../hooks/x",
        b"refs/heads/\xff",
        long.as_bytes(),
    ];
    for name in names {
        for options in [&[][..], &["change"]] {
            let push = RawPush::new(&[name], commit, options).with_pack_of(&world, &ann);
            let text = push.send(&world, "ann");
            assert!(
                text.contains("refused: ") && text.contains("\nng ") || text.contains("ng refs"),
                "{text}"
            );
            assert!(!text.contains('\u{202e}'), "{text}");
        }
    }
    assert_eq!(world.refs(), before);
    assert!(!world.has(&commit.to_string()));
    world.check_sound();
}

fn tree(clone: &Clone, lines: &str) -> String {
    clone.run_with(&["mktree", "-z"], lines.replace('\n', "\0").as_bytes())
}

fn commit_tree(clone: &Clone, tree: &str) -> CommitId {
    clone.run(&["commit-tree", "-p", "HEAD", "-m", "a tree", tree]).parse().unwrap()
}

#[test]
fn b07_dot_git_tree() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let blob = ann.run_with(&["hash-object", "-w", "--stdin"], b"#!/bin/sh\n");
    let before = world.refs();
    for name in [".git", ".GIT", "git~1", ".git."] {
        let hooks = tree(&ann, &format!("100755 blob {blob}\tpost-checkout\n"));
        let raw: Vec<u8> = [format!("40000 {name}\0").as_bytes(), &hex(&hooks)].concat();
        let bad = ann.run_with(&["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &raw);
        let commit = commit_tree(&ann, &bad);
        for target in ["refs/for/main", "refs/heads/mine"] {
            let refused = ann.push(&[&format!("{commit}:{target}")]);
            assert!(refused.is_err(), "{name} {target}: {refused:?}");
        }
        assert!(!world.has(&commit.to_string()));
    }
    assert_eq!(world.refs(), before);
    world.check_sound();
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Well above the 2 s of the list, for machines that do other things at the same time.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn b09_tree_bomb() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let mut id = ann.run_with(&["hash-object", "-w", "--stdin"], b"x");
    let mut kind = "100644 blob";
    for _ in 0..10 {
        let lines: String = (0..10).map(|at| format!("{kind} {id}\tf{at}\n")).collect();
        id = tree(&ann, &lines);
        kind = "040000 tree";
    }
    let commit = commit_tree(&ann, &id);
    let since = Instant::now();
    for target in ["refs/for/main", "refs/heads/mine"] {
        let refused = ann.push(&[&format!("{commit}:{target}")]).unwrap_err();
        assert!(refused.contains("a checkout of") && refused.contains("is over 1000000"), "{refused}");
    }
    assert!(since.elapsed() < REFUSAL_DEADLINE, "{:?}", since.elapsed());
    assert!(!world.has(&commit.to_string()));
    world.check_sound();
}

/// Folders in each other down to submodules, whose paths take far more than the few objects, and submodules alone.
#[test]
fn b09_paths_and_submodules_are_bounded() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let modules = |count| {
        let line = |at| format!("160000 commit {}\t{at:05}\n", "1".repeat(40));
        tree(&ann, &(0..count).map(line).collect::<String>())
    };
    let name = "d".repeat(250);
    let deep = (0..13).fold(modules(10), |id, _| tree(&ann, &format!("040000 tree {id}\t{name}\n")));
    for (id, why) in [
        (deep, "the length of a path is over 3072 bytes"),
        (modules(10_001), "the number of submodules is over 10000"),
    ] {
        let commit = commit_tree(&ann, &id);
        for target in ["refs/for/main", "refs/heads/mine"] {
            let refused = ann.push(&[&format!("{commit}:{target}")]).unwrap_err();
            assert!(refused.contains("a checkout of") && refused.contains(why), "{refused}");
        }
        assert!(!world.has(&commit.to_string()));
    }
    world.check_sound();
}

#[test]
fn b10_blob_bomb() {
    let world = World::new();
    let ann = world.clone_of("ann");
    let commit = ann.head();
    // One file of 50 GB of zeros, as far as its head goes, and 8 MB of the rest.
    let mut push = RawPush::new(&[b"refs/heads/bomb"], commit, &[]);
    let mut size = 50_000_000_000u64;
    push.pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    push.pack.push(0x80 | 3 << 4 | (size & 15) as u8);
    size >>= 4;
    while size > 0 {
        push.pack.push((size & 0x7f) as u8 | if size > 0x7f { 0x80 } else { 0 });
        size >>= 7;
    }
    push.pack.extend(vec![0x78; 8_000_000]);
    let since = Instant::now();
    let text = push.send(&world, "ann");
    assert!(text.contains("a file has 50000000000 bytes when unpacked"), "{text}");
    assert!(since.elapsed() < REFUSAL_DEADLINE, "{:?}", since.elapsed());
    world.check_sound();
}

#[test]
fn b12_truncated_pack() {
    for git in every_git() {
        let world = World::with(&git, git.program(), Duration::from_secs(1));
        let ann = world.clone_of("ann");
        let commit = ann.commit_file("a", &"a line\n".repeat(1_000));
        let before = world.refs();
        let whole = RawPush::new(&[b"refs/heads/mine"], commit, &[]).with_pack_of(&world, &ann);

        let mut cut = RawPush::new(&[b"refs/heads/mine"], commit, &[]);
        cut.pack = whole.pack[..whole.pack.len() - 30].to_vec();
        let text = cut.send(&world, "ann");
        assert!(text.contains("the pack ended early") && text.contains("ng refs/heads/mine"), "{text}");

        let mut garbled = RawPush::new(&[b"refs/heads/mine"], commit, &[]);
        garbled.pack = whole.pack.clone();
        *garbled.pack.last_mut().unwrap() ^= 1;
        let text = garbled.send(&world, "ann");
        assert!(text.contains("ng refs/heads/mine"), "{text}");

        let mut held = whole.begin(&world, "ann", whole.length());
        held.write_all(&whole.pack[..whole.pack.len() / 2]).unwrap();
        held.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let mut rest = Vec::new();
        held.read_to_end(&mut rest).expect("the server closes the connection by its deadline");
        assert_eq!(world.refs(), before);
        assert!(!world.has(&commit.to_string()));
        world.check_sound();
        assert!(whole.send(&world, "ann").contains("ok refs/heads/mine"), "the same push, whole, is taken");
    }
}

#[test]
fn b12_a_held_request_line_and_garbage_are_answered() {
    let world = World::new();
    let mut garbage = RawPush::new(&[b"refs/heads/x"], world.main(), &[]);
    garbage.pack = b"this is no pack".to_vec();
    assert!(garbage.send(&world, "ann").contains("what came is no pack"));
    let mut stream = RawPush::new(&[], world.main(), &[]).begin(&world, "ann", 8);
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    world.check_sound();
}

#[test]
fn b24_shallow_push() {
    let world = World::new();
    let deep = world.clone_of("ann");
    deep.commit_file("one", "1\n");
    deep.commit_file("two", "2\n");
    let shallow = world.clone_of("ann");
    let url = format!("file://{}", deep.folder.display());
    shallow.run(&["fetch", "--quiet", "--depth=1", &url, "work"]);
    shallow.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    let commit = shallow.commit_file("three", "3\n");
    let before = world.refs();
    for target in ["refs/for/main", "refs/heads/mine"] {
        let refused = shallow.push(&[&format!("HEAD:{target}")]).unwrap_err();
        assert!(refused.contains("git fetch --unshallow"), "{refused}");
    }
    assert_eq!(world.refs(), before);
    assert!(!world.has(&commit.to_string()));
    // The control: a boundary that is here does no harm.
    let fine = world.clone_of("bob");
    fine.run(&["fetch", "--quiet", "--depth=1", &fine.url, "main"]);
    fine.commit_file("fine", "fine\n");
    fine.push(&["HEAD:refs/for/main"]).unwrap();
    world.check_sound();
}

#[test]
fn one_push_moves_a_bounded_number_of_refs() {
    let world = World::new();
    let names: Vec<String> = (0..51).map(|at| format!("refs/heads/b{at}")).collect();
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let text = RawPush::new(&names, world.main(), &[]).send(&world, "ann");
    assert!(text.contains("a push moves at most 50 refs"), "{text}");
    let text = RawPush::new(&names[..11], world.main(), &["change"]).send(&world, "ann");
    assert!(text.contains("a push opens at most 10 changes"), "{text}");
}

#[test]
fn a_hook_without_a_push_learns_and_does_nothing() {
    let world = World::new();
    let mut hook = std::process::Command::new(env!("CARGO_BIN_EXE_towpath-hook"));
    hook.arg("pre-receive").env("TOWPATH_HOOK_SOCKET", world.folder.path().join("push/push.sock"));
    hook.env("TOWPATH_HOOK_TOKEN", "guess").stdin(std::process::Stdio::null());
    let output = hook.output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("this push is over"), "{}", said(&output));
    world.check_sound();
}
