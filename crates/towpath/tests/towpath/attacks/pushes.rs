//! Group B: what git's client, and whoever speaks its protocol, can do to the server's repository.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::definitions::land;
use super::fort::{Clone, Fort};
use super::leftovers::resident;
use super::wire::Ask;
use crate::support::{has_sandbox, within};

/// Time within which a bomb is refused. Source: the list of attacks.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// Time within which a stream ends whose token is revoked: 5 s by the list of attacks, and some for the look itself.
const STREAM_ENDS_WITHIN: Duration = Duration::from_secs(8);
const NONE: &str = "0000000000000000000000000000000000000000";

fn b01_direct_push(fort: &Fort) {
    let ann = fort.clone_of("ann");
    ann.write("evil", "evil\n");
    let evil = ann.commit("evil");
    let before = fort.refs();
    let refused = ann.push(&["HEAD:refs/heads/main"]).unwrap_err();
    assert!(refused.contains("remote: refused: `main` is watched"), "{refused}");
    assert!(refused.contains("git push <remote> HEAD:refs/for/main"), "it says how to do it: {refused}");
    ann.run(&["commit", "--quiet", "--amend", "-m", "rewritten"]);
    assert!(ann.push(&["--force", "HEAD:refs/heads/main"]).unwrap_err().contains("is watched"));
    assert!(ann.push(&[":refs/heads/main"]).unwrap_err().contains("not deleted by push"));
    // Not even an admin's push goes past the tests.
    let ada = fort.clone_of("ada");
    ada.commit("ada's");
    assert!(ada.push(&["--force", "HEAD:refs/heads/main"]).is_err());
    assert_eq!(fort.refs(), before);
    assert!(!fort.has_object(&evil));
}

fn b02_replace_ref(fort: &Fort) {
    let ann = fort.clone_of("ann");
    ann.write("bad", "bad\n");
    let bad = ann.commit("It breaks the test");
    let good = fort.main();
    let refused = ann.push(&[&format!("HEAD:refs/replace/{good}")]).unwrap_err();
    assert!(refused.contains("is not for pushing"), "{refused}");
    // Planted by hand, so that the broken commit looks like the good one to git.
    let number = ann.propose("b02");
    fort.in_bare(&["update-ref", &format!("refs/replace/{bad}"), &good]);
    assert_eq!(fort.tested(number), "failed", "the tree that was pushed is tested");
    let other = fort.push("ann", "b02-other", &[("bad", "bad\n")]).1;
    assert_eq!(fort.tested(other), "failed");
    fort.in_bare(&["update-ref", "-d", &format!("refs/replace/{bad}")]);
    for number in [number, other] {
        fort.act("ann", number, "close", &json!({})).ok();
    }
}

fn b03_tag_named_main(fort: &Fort) {
    let mia = fort.clone_of("mia");
    mia.write("evil", "evil\n");
    let evil = mia.commit("evil");
    mia.run(&["tag", "main"]);
    assert!(mia.push(&["refs/tags/main"]).unwrap_err().contains("git would take the tag for it"));
    mia.push(&["HEAD:refs/heads/b03"]).unwrap();
    // Planted by hand: git takes the tag where a name is guessed.
    fort.in_bare(&["update-ref", "refs/tags/main", &evil]);
    let landed = land(fort, "b03-honest", &[("b03-honest", "x\n")]);
    assert_eq!(fort.main(), landed);
    assert!(!fort.in_bare(&["rev-list", "refs/heads/main"]).contains(&evil));
    fort.in_bare(&["update-ref", "-d", "refs/tags/main"]);
}

/// A push written by hand, for what git's client would not send.
struct RawPush {
    head: Vec<u8>,
    pack: Vec<u8>,
}

fn line(data: &[u8]) -> Vec<u8> {
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

impl RawPush {
    fn new(name: &[u8], commit: &str, options: &[&str]) -> RawPush {
        let capabilities = b"\0report-status side-band-64k push-options object-format=sha1 agent=git/test";
        let mut head = line(&[format!("{NONE} {commit} ").as_bytes(), name, capabilities].concat());
        head.extend(b"0000");
        options.iter().for_each(|option| head.extend(line(option.as_bytes())));
        head.extend(b"0000");
        RawPush { head, pack: Vec::new() }
    }

    /// All that a clone has and main has not.
    fn with_pack_of(mut self, fort: &Fort, clone: &Clone) -> RawPush {
        let mut command = clone.command(&["pack-objects", "--quiet", "--revs", "--stdout"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(format!("{}\n^{}\n", clone.head(), fort.main()).as_bytes())
            .unwrap();
        self.pack = child.wait_with_output().unwrap().stdout;
        self
    }

    fn send(&self, fort: &Fort, name: &str) -> String {
        let authorization = STANDARD.encode(format!("{name}:{}", fort.token(name)));
        let ask = Ask::new("POST", "/web.git/git-receive-pack")
            .with("authorization", &format!("Basic {authorization}"))
            .with("content-type", "application/x-git-receive-pack-request")
            .body([&self.head[..], &self.pack].concat());
        ask.send(&fort.host, &fort.heard).text()
    }

    /// Sends the head and a part of the pack, and keeps the connection.
    pub fn hold(&self, fort: &Fort, name: &str) -> TcpStream {
        let authorization = STANDARD.encode(format!("{name}:{}", fort.token(name)));
        let mut stream = TcpStream::connect(&fort.host).unwrap();
        stream.set_read_timeout(Some(super::wire::PATIENCE)).unwrap();
        let length = self.head.len() + self.pack.len();
        let head = format!(
            "POST /web.git/git-receive-pack HTTP/1.1\r\nhost: {}\r\nauthorization: Basic {authorization}\r\n\
             content-type: application/x-git-receive-pack-request\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n",
            fort.host
        );
        let half = &self.pack[..self.pack.len() / 2];
        stream.write_all(&[head.as_bytes(), &self.head, half].concat()).unwrap();
        stream
    }
}

fn b06_ref_name_bytes(fort: &Fort) {
    let ann = fort.clone_of("ann");
    ann.write("b06", "x\n");
    let commit = ann.commit("a");
    let before = fort.refs();
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
            let said = RawPush::new(name, &commit, options).with_pack_of(fort, &ann).send(fort, "ann");
            let shown = String::from_utf8_lossy(name);
            assert!(said.contains("refused: ") && said.contains("ng refs"), "{shown}: {said}");
            assert!(!said.contains('\u{202e}'), "{shown}: {said}");
        }
    }
    assert_eq!(fort.refs(), before);
    assert!(!fort.has_object(&commit));
}

fn commit_tree(clone: &Clone, tree: &str) -> String {
    clone.run(&["commit-tree", "-p", "HEAD", "-m", "a tree", tree])
}

fn b07_dot_git_tree(fort: &Fort) {
    let ann = fort.clone_of("ann");
    let blob = ann.run_with(&["hash-object", "-w", "--stdin"], b"#!/bin/sh\n");
    let before = fort.refs();
    let hooks = ann.run_with(&["mktree"], format!("100755 blob {blob}\tpost-checkout\n").as_bytes());
    let bytes = |id: &str| -> Vec<u8> {
        (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    for name in [".git", ".GIT", "git~1", ".git."] {
        let raw = [format!("40000 {name}\0").as_bytes(), &bytes(&hooks)].concat();
        let bad = ann.run_with(&["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &raw);
        let commit = commit_tree(&ann, &bad);
        for target in ["refs/for/main", "refs/heads/mine"] {
            assert!(ann.push(&[&format!("{commit}:{target}")]).is_err(), "{name} {target}");
        }
        assert!(!fort.has_object(&commit), "{name}");
    }
    assert_eq!(fort.refs(), before);
}

fn disk(fort: &Fort) -> u64 {
    let output = std::process::Command::new("du").args(["-s", "-B1"]).arg(fort.bare()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

/// Far below what either bomb would take.
const BOMB_BYTES_MAX: u64 = 200 << 20;

fn b09_tree_bomb(fort: &Fort) {
    let ann = fort.clone_of("ann");
    let mut id = ann.run_with(&["hash-object", "-w", "--stdin"], b"x");
    let mut kind = "100644 blob";
    for _ in 0..10 {
        let lines: String = (0..10).map(|at| format!("{kind} {id}\tf{at}\n")).collect();
        id = ann.run_with(&["mktree"], lines.as_bytes());
        kind = "040000 tree";
    }
    let modules = |count| -> String {
        let lines = (0..count).map(|at| format!("160000 commit {}\t{at:05}\n", "1".repeat(40)));
        ann.run_with(&["mktree", "--missing"], lines.collect::<String>().as_bytes())
    };
    // A few kilobytes whose paths take 600 MB.
    let name = "d".repeat(250);
    let inside = |id: String, _| ann.run_with(&["mktree"], format!("040000 tree {id}\t{name}\n").as_bytes());
    let deep = (0..240).fold(modules(10_000), inside);
    let bombs = [
        (id, "the number of files and folders is over 1000000"),
        (deep, "the length of a path is over 3072 bytes"),
        (modules(10_001), "the number of submodules is over 10000"),
    ];
    let memory = resident(fort.server_pid());
    for (tree, why) in bombs {
        let commit = commit_tree(&ann, &tree);
        for target in ["refs/for/main", "refs/heads/mine"] {
            let since = Instant::now();
            let refused = ann.push(&[&format!("{commit}:{target}")]).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(since.elapsed() < within(REFUSED_WITHIN), "{:?}", since.elapsed());
        }
        assert!(!fort.has_object(&commit));
    }
    assert!(resident(fort.server_pid()) < memory + BOMB_BYTES_MAX, "memory stays flat");
}

fn b10_blob_bomb(fort: &Fort) {
    // One file of 50 GB of zeros, as far as its head goes, and 8 MB of the rest.
    let mut push = RawPush::new(b"refs/heads/bomb", &fort.main(), &[]);
    let mut size = 50_000_000_000_u64;
    push.pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    push.pack.push(0x80 | 3 << 4 | (size & 15) as u8);
    size >>= 4;
    while size > 0 {
        push.pack.push((size & 0x7f) as u8 | if size > 0x7f { 0x80 } else { 0 });
        size >>= 7;
    }
    push.pack.extend(vec![0x78; 8_000_000]);
    let (since, before) = (Instant::now(), disk(fort));
    let said = push.send(fort, "ann");
    assert!(said.contains("a file has 50000000000 bytes when unpacked"), "{said}");
    assert!(since.elapsed() < within(REFUSED_WITHIN), "{:?}", since.elapsed());
    assert!(disk(fort) < before + BOMB_BYTES_MAX);
}

fn b12_truncated_pack(fort: &Fort) {
    let ann = fort.clone_of("ann");
    ann.write("b12", &"a line\n".repeat(1_000));
    let commit = ann.commit("b12");
    let before = fort.refs();
    let whole = RawPush::new(b"refs/heads/b12", &commit, &[]).with_pack_of(fort, &ann);
    let cut = RawPush { head: whole.head.clone(), pack: whole.pack[..whole.pack.len() - 30].to_vec() };
    let said = cut.send(fort, "ann");
    assert!(said.contains("the pack ended early") && said.contains("ng refs/heads/b12"), "{said}");
    let mut garbled = RawPush { head: whole.head.clone(), pack: whole.pack.clone() };
    *garbled.pack.last_mut().unwrap() ^= 1;
    assert!(garbled.send(fort, "ann").contains("ng refs/heads/b12"));
    // Whoever stops sending and goes leaves nothing; the deadline of one who stays is the forge's own test.
    drop(whole.hold(fort, "ann"));
    assert_eq!(fort.refs(), before);
    assert!(!fort.has_object(&commit));
    assert!(whole.send(fort, "ann").contains("ok refs/heads/b12"), "the same push, whole, is taken");
}

/// Whether a person gets a commit of a repository by its id, over protocol 2.
fn can_fetch(fort: &Fort, name: &str, repo: &str, commit: &str) -> bool {
    let clone = fort.clone_of(if name == "stranger" { "ann" } else { name });
    let header = format!("Authorization: Bearer {}", fort.token(name));
    let url = format!("http://{}/{repo}.git", fort.host);
    let mut command = clone.command(&["-c", "protocol.version=2", "fetch", "--quiet", &url, commit]);
    command.env("GIT_CONFIG_VALUE_0", header);
    command.output().unwrap().status.success()
}

fn b14_refused_objects_linger(fort: &Fort) {
    let (ann, number) = fort.push("ann", "b14", &[("b14", "x\n")]);
    let kept = ann.head();
    fort.act("ann", number, "close", &json!({})).ok();
    ann.write("b14-secret", "secret\n");
    let commit = ann.commit("A second look");
    let blob = ann.run(&["rev-parse", "HEAD:b14-secret"]);
    let refused = ann.push(&["-o", "change", "HEAD:refs/heads/b14"]).unwrap_err();
    assert!(refused.contains("was closed by ann"), "{refused}");
    for id in [&commit, &blob] {
        assert!(!can_fetch(fort, "ben", "web", id) && !fort.has_object(id), "{id}");
    }
    assert!(can_fetch(fort, "ben", "web", &kept), "the control: what was taken can be fetched by its id");
}

fn b15_other_repo_by_sha(fort: &Fort) {
    let (ann, _) = fort.push("ann", "b15", &[("b15", "private\n")]);
    let private = ann.head();
    for repo in ["other", "web", "vault"] {
        assert!(!can_fetch(fort, "stranger", repo, &private), "{repo}");
    }
    // Nor once an admin imports the same repository anew beside it, for her.
    let import = json!({ "repo": "fork", "path": fort.world.work(), "branch": "main" });
    fort.ask("ada", "POST", "/import", &import).ok();
    fort.put("/repos/fork/people/stranger", &json!({ "role": "reader", "authorised": false }));
    assert!(!can_fetch(fort, "stranger", "fork", &private));
    for repo in ["web", "other", "fork"] {
        assert!(!fort.data().join(format!("repos/{repo}.git/objects/info/alternates")).exists(), "{repo}");
    }
    assert!(can_fetch(fort, "ben", "web", &private), "the control");
}

fn b17_dumb_http(fort: &Fort) {
    for path in [
        "/web.git/config",
        "/web.git/HEAD",
        "/web.git/objects/info/packs",
        "/web.git/hooks/pre-receive",
        "/%2e%2e/vault.git/info/refs",
        "/web.git/../vault.git",
        "/web.git/..%2fvault.git/HEAD",
        "/web.git/info/refs",
        "/web.git/info/refs?service=git-upload-archive",
    ] {
        for name in ["ada", "ann"] {
            assert_eq!(fort.send(name, Ask::new("GET", path)).status, 404, "{path}");
        }
    }
    let smart = Ask::new("GET", "/web.git/info/refs?service=git-upload-pack");
    assert_eq!(fort.send("ann", smart).status, 200);
}

fn b20_import_url(fort: &Fort) {
    let import = |name: &str, address: &str| {
        fort.ask(name, "POST", "/import", &json!({ "repo": "imported", "url": address })).status
    };
    let never = ["ext::sh -c id", "-uid", "file:///etc", "http://169.254.169.254/"];
    let inside = [
        "https://169.254.169.254/latest",
        "https://127.0.0.1:1/x.git",
        "https://[::ffff:127.0.0.1]/x.git",
        "https://localhost/x.git",
    ];
    for address in never.into_iter().chain(inside) {
        for name in ["ann", "mia"] {
            assert_eq!(import(name, address), 403, "{name} {address}");
        }
    }
    // The server's admin sits at its machine here, and reaches what it does; nobody listens there.
    never.iter().for_each(|address| assert_eq!(import("ada", address), 400, "{address}"));
    assert_eq!(import("ada", "https://127.0.0.1:1/x.git"), 503);
    for address in ["https://ann:tp_pasted@git.invalid/x.git", "http://tp_pasted@127.0.0.1/x.git"] {
        let refused = fort.ask("ada", "POST", "/import", &json!({ "repo": "imported", "url": address }));
        let said = refused.text();
        assert!(refused.status == 400 && !said.contains("tp_pasted"), "{said}");
    }
    let path = json!({ "repo": "imported", "path": fort.world.folder().join("vault") });
    assert_eq!(fort.ask("ann", "POST", "/import", &path).status, 403);
    assert_eq!(fort.ask("ada", "GET", "/repos/imported", &Value::Null).status, 404);
    assert!(!fort.data().join("repos/imported.git").exists());
}

fn b24_shallow_push(fort: &Fort) {
    let deep = fort.clone_of("ann");
    deep.commit("one");
    deep.commit("two");
    let shallow = fort.clone_of("ann");
    let url = format!("file://{}", deep.folder.display());
    shallow.run(&["fetch", "--quiet", "--depth=1", &url, "work"]);
    shallow.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    let commit = shallow.commit("three");
    let before = fort.refs();
    for target in ["refs/for/main", "refs/heads/mine"] {
        assert!(shallow.push(&[&format!("HEAD:{target}")]).unwrap_err().contains("git fetch --unshallow"));
    }
    assert_eq!(fort.refs(), before);
    assert!(!fort.has_object(&commit));
}

/// A token that is revoked while a push with it is under way counts for nothing at that push's end.
fn f11_token_revoked(fort: &Fort) {
    let made = fort.ask("ada", "POST", "/users/ann/tokens", &json!({})).ok();
    let (token, number) = (made["token"].as_str().unwrap(), made["number"].as_u64().unwrap());
    let listen =
        |path: &str| Ask::new("GET", path).with("authorization", &format!("Bearer {token}")).open(&fort.host);
    let (_, talker) = fort.push("ann", "f11-log", &[("attack", "echo begun; sleep 600")]);
    let run = fort.until("the job runs", || {
        let run = fort.runs_of(talker).first()?["run"].as_str()?.to_owned();
        fort.log_of(&run, "unit").contains("begun").then_some(run)
    });
    let follow = format!("/api/v1/repos/web/runs/main/{}/jobs/unit/follow", run.rsplit_once('/').unwrap().1);
    let (events, log) = (listen("/api/v1/events?repo=web"), listen(&follow));
    assert_eq!((events.0.status, log.0.status), (200, 200));

    let ann = fort.clone_of("ann");
    ann.write("f11", &"a line\n".repeat(10_000));
    let commit = ann.commit("f11");
    let push = RawPush::new(b"refs/heads/f11", &commit, &[]).with_pack_of(fort, &ann);
    let authorization = STANDARD.encode(format!("ann:{token}"));
    let mut stream = TcpStream::connect(&fort.host).unwrap();
    let head = format!(
        "POST /web.git/git-receive-pack HTTP/1.1\r\nhost: {}\r\nauthorization: Basic {authorization}\r\n\
         content-type: application/x-git-receive-pack-request\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        fort.host,
        push.head.len() + push.pack.len()
    );
    stream.write_all(&[head.as_bytes(), &push.head, &push.pack[..push.pack.len() / 2]].concat()).unwrap();
    fort.ask("ada", "DELETE", &format!("/tokens/{number}"), &Value::Null).ok();
    let revoked = Instant::now();
    stream.write_all(&push.pack[push.pack.len() / 2..]).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    fort.heard.keep("the answer to a push with a revoked token", &said);
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("your token was revoked"), "{said}");
    assert!(!fort.has_object(&commit));
    // Both streams end by themselves; the API is closed at once.
    for (_, mut stream) in [events, log] {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("the stream ends");
        assert!(revoked.elapsed() < within(STREAM_ENDS_WITHIN), "{:?}", revoked.elapsed());
    }
    let me = Ask::new("GET", "/api/v1/me").with("authorization", &format!("Bearer {token}"));
    assert_eq!(me.send(&fort.host, &fort.heard).status, 401);
    fort.act("ann", talker, "close", &json!({})).ok();
}

#[test]
fn b01_b02_b03_b06_b07_b09_b10_no_push_moves_what_it_may_not() {
    if !has_sandbox("b01_b02_b03_b06_b07_b09_b10_no_push_moves_what_it_may_not") {
        return;
    }
    let fort = Fort::new();
    fort.hold("B01 direct-push", b01_direct_push);
    fort.hold("B02 replace-ref", b02_replace_ref);
    fort.hold("B03 tag-named-main", b03_tag_named_main);
    fort.hold("B06 ref-name-bytes", b06_ref_name_bytes);
    fort.hold("B07 dot-git-tree", b07_dot_git_tree);
    fort.hold("B09 tree-bomb", b09_tree_bomb);
    fort.hold("B10 blob-bomb", b10_blob_bomb);
    fort.end();
}

#[test]
fn b12_b14_b15_b17_b20_b24_f11_nobody_gets_or_leaves_what_is_not_theirs() {
    if !has_sandbox("b12_b14_b15_b17_b20_b24_f11_nobody_gets_or_leaves_what_is_not_theirs") {
        return;
    }
    let fort = Fort::new();
    fort.hold("B12 truncated-pack", b12_truncated_pack);
    fort.hold("B14 refused-objects-linger", b14_refused_objects_linger);
    fort.hold("B15 other-repo-by-sha", b15_other_repo_by_sha);
    fort.hold("B17 dumb-http", b17_dumb_http);
    fort.hold("B20 import-url", b20_import_url);
    fort.hold("B24 shallow-push", b24_shallow_push);
    fort.hold("F11 token-revoked", f11_token_revoked);
    fort.end();
}
