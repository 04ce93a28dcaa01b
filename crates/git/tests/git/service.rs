//! What clients of a smart HTTP endpoint get.

use std::io::Write;
use std::process::Stdio;

use towpath_git::{ErrorClass, Exchange, Service, ServiceOptions};

use crate::support::{World, every_git, write_program};

fn exchange(
    world: &World,
    service: Service,
    how: Exchange,
    (options, request): (&ServiceOptions<'_>, &[u8]),
) -> String {
    let mut command = world.repository.service(service, how, options).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(request).unwrap();
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

fn packet(line: &str) -> Vec<u8> {
    format!("{:04x}{line}", line.len() + 4).into_bytes()
}

#[test]
fn fetching_shows_branches_and_not_our_own_refs() {
    for git in every_git() {
        let world = World::with(git);
        let one = world.commit_file("a", "1");
        world.push(one, "main");
        world.in_store(&["update-ref", "refs/towpath/candidates/x", &one.to_string()], b"");
        let plain = ServiceOptions::default();
        let refs = exchange(&world, Service::UploadPack, Exchange::Advertise, (&plain, b""));
        assert!(refs.contains(&format!("{one} refs/heads/main")), "{refs}");
        assert!(!refs.contains("refs/towpath"), "{refs}");
        let second = ServiceOptions { protocol: Some("version=2"), ..plain };
        let capabilities = exchange(&world, Service::UploadPack, Exchange::Advertise, (&second, b""));
        assert!(capabilities.contains("version 2"), "{capabilities}");
        let request = [packet("command=ls-refs\n"), b"0000".to_vec()].concat();
        let refs = exchange(&world, Service::UploadPack, Exchange::Serve, (&second, &request));
        assert!(refs.contains("refs/heads/main") && !refs.contains("refs/towpath"), "{refs}");
        let odd = ServiceOptions { protocol: Some("version=2\nX: y"), ..plain };
        let error = world.repository.service(Service::UploadPack, Exchange::Serve, &odd).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid);
    }
}

#[test]
fn a_push_asks_the_hook_that_the_caller_names() {
    for git in every_git() {
        let world = World::with(git);
        let one = world.commit_file("a", "1");
        world.push(one, "main");
        let pack =
            [b"PACK\0\0\0\x02\0\0\0\0".as_slice(), &hex("029d08823bd8a8eab510ad6ac75c823cfd3ed31e")].concat();
        let request = |name: &str| {
            let line = format!("{:040} {one} refs/heads/{name}\0 report-status\n", 0);
            [packet(&line), b"0000".to_vec(), pack.clone()].concat()
        };
        let free = ServiceOptions::default();
        let answer = exchange(&world, Service::ReceivePack, Exchange::Serve, (&free, &request("free")));
        assert!(answer.contains("ok refs/heads/free"), "{answer}");

        let hooks = world.folder.path().join("hooks");
        std::fs::create_dir(&hooks).unwrap();
        let seen = world.folder.path().join("seen");
        write_program(
            &hooks.join("pre-receive"),
            &format!("echo $TOWPATH_SOCKET > {}; cat; exit 1", seen.display()),
        );
        let variables = [("TOWPATH_SOCKET", "/data/socket".into())];
        let guarded = ServiceOptions { hooks: Some(&hooks), variables: &variables, ..free };
        let answer = exchange(&world, Service::ReceivePack, Exchange::Serve, (&guarded, &request("guarded")));
        assert!(answer.contains("ng refs/heads/guarded pre-receive hook declined"), "{answer}");
        assert_eq!(std::fs::read_to_string(seen).unwrap(), "/data/socket\n");
        let names: Vec<String> =
            world.repository.refs("refs/heads").unwrap().iter().map(|found| found.name.to_string()).collect();
        assert_eq!(names, ["refs/heads/free", "refs/heads/main"]);
    }
}

#[test]
fn b14_a_hooks_reader_sees_objects_that_nobody_else_sees() {
    let world = World::new();
    let one = world.commit_file("a", "1");
    world.push(one, "main");
    let two = world.commit_file("a", "2");
    let quarantine = world.work().join(".git/objects");
    let inside = world.repository.quarantined(&quarantine);
    assert_eq!(inside.commit(two).unwrap().parents, [one]);
    assert_eq!(inside.commit(one).unwrap().id, one);
    assert!(!world.repository.has_commit(two).unwrap());
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
