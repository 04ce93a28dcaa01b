//! docs/guide/your-repository.md, run as it is written.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::served::{Running, until_landed};
use crate::support::{TOWPATH, World, ended, has_sandbox, own_address};

/// The commands of the guide, in its order.
fn commands() -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/your-repository.md");
    let text = std::fs::read_to_string(guide).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[test]
fn the_guide_leads_from_nothing_to_a_landed_change() {
    if !has_sandbox("the_guide_leads_from_nothing_to_a_landed_change") {
        return;
    }
    let commands = commands();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let [init, serve, import, push] = commands[..] else {
        panic!("the guide promises four commands: {commands:?}")
    };
    let world = World::with(&[("Makefile", "check:\n\ttest -e Makefile\n")]);
    world.git(&["switch", "--quiet", "--create", "my-branch"]);
    world.write("new", "x\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=my change"]);
    // The one thing that a test may not share with whoever else runs a server here.
    let address = own_address();
    let shell = |line: &str, folder: &Path| {
        let path = std::env::var("PATH").unwrap();
        let own = Path::new(TOWPATH).parent().unwrap().display();
        let mut command = world.command("sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(folder);
        command.env("PATH", format!("{own}:{path}")).env("TOWPATH_LISTEN", &address);
        command
    };
    let ok = |line: &str, folder: &Path| {
        let ended = ended(shell(line, folder).output().unwrap());
        assert_eq!(ended.code, 0, "{line}: {}", ended.err);
    };
    ok(init, world.folder());
    let mut server = shell(serve, world.folder()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let serving = lines.by_ref().any(|line| line.contains("serving at"));
    let _running = Running { world: &world, server };
    assert!(serving);
    std::thread::spawn(move || lines.for_each(drop));
    ok(import, &world.work());
    ok(push, &world.work());
    until_landed(&world, "1");
}
