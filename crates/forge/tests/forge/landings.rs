//! What is on the disk before a branch moves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;
use towpath_core::gate::LandTried;
use towpath_forge::{Forge, Records};
use towpath_git::{Git, GitOptions};

use crate::contract::landing;
use crate::support::{World, every_git};

#[test]
fn a_landing_that_is_tried_again_asks_again_for_its_record_to_be_durable() {
    let folder = TempDir::new().unwrap();
    let [program, log, is_cut] = ["git", "log", "is-cut"].map(|name| folder.path().join(name));
    let real = every_git().swap_remove(0).program().to_owned();
    let cut = format!("case \"$*\" in *--no-object-names*) [ ! -e {} ] || exit 1;; esac", is_cut.display());
    let script =
        format!("#!/bin/sh\necho \"$*\" >> {}\n{cut}\nexec {} \"$@\"\n", log.display(), real.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let git = Git::find(GitOptions { program: Some(program), ..GitOptions::default() }).unwrap();
    let world = World::with(&git, &real, Duration::from_secs(60));
    let (_, change) = world.change("ann", "one");
    let (main, head) = (world.main(), change.newest().commit);
    let land = || world.forge.land(&landing((change.number, head), (main, head)));

    fs::write(&is_cut, "").unwrap();
    land().unwrap_err();
    assert_eq!(world.main(), main);
    let begun = world.memory.change(change.number).unwrap().unwrap();
    assert!(begun.change.landing.is_some());
    fs::remove_file(&is_cut).unwrap();
    fs::write(&log, "").unwrap();
    assert_eq!(land().unwrap(), LandTried::Landed);
    let asked = fs::read_to_string(&log).unwrap();
    let mut lines = asked.lines().filter(|line| line.contains("--no-object-names"));
    assert!(lines.any(|line| line.contains(&begun.meta.to_string())), "{asked}");
}
