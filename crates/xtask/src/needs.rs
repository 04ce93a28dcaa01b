//! What a machine must have before the tests can run, and how it gets it.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;

/// One thing that the tests start or read.
pub struct Need {
    /// A program on `PATH`, or a file by its absolute path.
    pub thing: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// What goes wrong without it.
    pub why: &'static str,
}

/// Who provides a [`Need`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A package of Debian and Ubuntu.
    Package(&'static str),
    /// A part of the Rust toolchain that a minimal installation leaves out.
    Component(&'static str),
}

/// Everything beyond Git's and Rust's minimum. A C compiler is not here: without one this program would not exist.
pub const NEEDS: &[Need] = &[
    Need { thing: "git", source: Source::Package("git"), why: "repositories, merges, pushes" },
    Need { thing: "bwrap", source: Source::Package("bubblewrap"), why: "the sandbox of every job" },
    Need { thing: "slirp4netns", source: Source::Package("slirp4netns"), why: "network inside the sandbox" },
    Need { thing: "stdbuf", source: Source::Package("coreutils"), why: "answers of Git line by line" },
    Need { thing: "ip", source: Source::Package("iproute2"), why: "the network that a job must not reach" },
    Need {
        thing: "/usr/bin/python3",
        source: Source::Package("python3"),
        why: "jobs that attack their sandbox",
    },
    Need { thing: "make", source: Source::Package("make"), why: "the guide's first job" },
    Need { thing: "kill", source: Source::Package("procps"), why: "servers that die" },
    Need {
        thing: "/etc/ssl/certs/ca-certificates.crt",
        source: Source::Package("ca-certificates"),
        why: "TLS from inside the sandbox",
    },
    Need { thing: "chromium", source: Source::Package("chromium"), why: "the test that reads the pages" },
    Need {
        thing: "chromedriver",
        source: Source::Package("chromium-driver"),
        why: "the test that reads the pages",
    },
    Need {
        thing: "psql",
        source: Source::Package("postgresql"),
        why: "the test that PostgreSQL takes the store's SQL",
    },
    Need { thing: "cargo-fmt", source: Source::Component("rustfmt"), why: "the step `fmt`" },
    Need { thing: "cargo-clippy", source: Source::Component("clippy"), why: "the step `clippy`" },
];

/// How far this program may go on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// A machine without a person (`CI=true`): install silently.
    Given,
    /// A person at a terminal: ask.
    Ask,
    /// Nobody can answer: say what to type, and stop.
    Absent,
}

impl Consent {
    /// What the environment says.
    pub fn of_environment(is_ci: bool) -> Consent {
        let can_answer = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        match (is_ci, can_answer) {
            (true, _) => Consent::Given,
            (false, true) => Consent::Ask,
            (false, false) => Consent::Absent,
        }
    }
}

/// The needs that this machine does not meet.
pub fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !is_there(need)).collect()
}

fn is_there(need: &Need) -> bool {
    if let Source::Component(_) = need.source {
        // rustup leaves a proxy for a component that is not installed: only running it tells.
        let answer = Command::new(need.thing).arg("--version").output();
        return answer.is_ok_and(|answer| answer.status.success());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    Path::new(need.thing).is_absolute() && Path::new(need.thing).exists()
        || folders.into_iter().any(|folder| folder.join(need.thing).is_file())
}

/// Makes the machine ready, or says why it is not.
///
/// # Errors
/// Something is missing, and it may not or could not be installed.
pub fn provide(consent: Consent) -> Result<(), Failure> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    eprint!("{}", table(&missing));
    let commands = commands(&missing, is_root());
    let typed = typed(&commands);
    if !has_installer(&missing) {
        return Err(Failure::new(
            "the machine is not ready for the tests",
            "the programs above are missing, and this is no Debian or Ubuntu (there is no `apt-get`)",
            "install them by your system's own means, or use `cargo xtask test --as-is` to skip what needs them",
        ));
    }
    match consent {
        Consent::Given => {}
        Consent::Ask if agrees(&typed)? => {}
        Consent::Ask | Consent::Absent => {
            let hint = format!("{typed}\n       or `cargo xtask test --as-is` to skip what needs them");
            return Err(Failure::new("the machine is not ready for the tests", "the above is missing", hint));
        }
    }
    commands.iter().try_for_each(|command| install(command))?;
    match self::missing().first() {
        None => Ok(()),
        Some(need) => Err(Failure::new(
            "the machine could not be made ready",
            format!("`{}` is still missing after `{typed}`", need.thing),
            "is it installed outside of PATH?",
        )),
    }
}

/// The missing things as lines for people.
fn table(missing: &[&Need]) -> String {
    let row = |need: &&Need| {
        let from = match need.source {
            Source::Package(name) => format!("package {name}"),
            Source::Component(name) => format!("rustup component {name}"),
        };
        format!("  {:<36} {:<26} {}\n", need.thing, from, need.why)
    };
    format!("missing:\n{}", missing.iter().map(row).collect::<String>())
}

/// The commands that bring what is missing, each as its words.
fn commands(missing: &[&Need], is_root: bool) -> Vec<Vec<&'static str>> {
    let mut packages = Vec::new();
    let mut components = Vec::new();
    for need in missing {
        match need.source {
            Source::Package(name) => packages.push(name),
            Source::Component(name) => components.push(name),
        }
    }
    let privileged: &[&str] = if is_root { &[] } else { &["sudo"] };
    let apt = |words: &[&'static str]| [privileged, &["apt-get"], words].concat();
    let mut commands = Vec::new();
    if !packages.is_empty() {
        commands.push(apt(&["update"]));
        commands.push([apt(&["install", "--yes", "--no-install-recommends"]), packages].concat());
    }
    if !components.is_empty() {
        commands.push([vec!["rustup", "component", "add"], components].concat());
    }
    commands
}

fn typed(commands: &[Vec<&str>]) -> String {
    commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join(" && ")
}

fn has_installer(missing: &[&Need]) -> bool {
    let wants_package = missing.iter().any(|need| matches!(need.source, Source::Package(_)));
    !wants_package || Path::new("/usr/bin/apt-get").exists()
}

/// Whether this process may install without `sudo`: the owner of our own entry in /proc is our effective user.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn agrees(typed: &str) -> Result<bool, Failure> {
    eprint!("\nInstall now with\n  {typed}\n? [y/N] ");
    std::io::stderr().flush().ok();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|why| Failure::new("your answer cannot be read", why, "type the command yourself"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn install(words: &[&str]) -> Result<(), Failure> {
    eprintln!("$ {}", words.join(" "));
    let status = Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").status();
    let why = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("`{}` ended with {status}", words.join(" ")),
        Err(why) => format!("`{}`: {why}", words[0]),
    };
    Err(Failure::new("the machine could not be made ready", why, "run the command yourself and try again"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn packages_and_components_are_installed_by_one_command_each() {
        let all: Vec<&Need> = NEEDS.iter().collect();
        let expect = expect_test::expect![
            "sudo apt-get update && sudo apt-get install --yes --no-install-recommends git bubblewrap slirp4netns coreutils iproute2 python3 make procps ca-certificates chromium chromium-driver postgresql && rustup component add rustfmt clippy"
        ];
        expect.assert_eq(&typed(&commands(&all, false)));
        assert!(!typed(&commands(&all, true)).contains("sudo"));
        assert_eq!(commands(&[], true), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn a_program_that_does_not_exist_is_missing() {
        let need = |thing| Need { thing, source: Source::Package("x"), why: "x" };
        assert!(!is_there(&need("no-such-program-anywhere")));
        assert!(!is_there(&need("/no/such/file")));
        assert!(is_there(&need("sh")));
    }

    #[test]
    fn every_need_says_what_it_is_for() {
        let all: Vec<&Need> = NEEDS.iter().collect();
        let text = table(&all);
        assert!(text.contains("bwrap") && text.contains("package bubblewrap"), "{text}");
        assert!(NEEDS.iter().all(|need| !need.why.is_empty()));
    }

    /// Programs of Rust, and of packages that every Debian has: bsdutils, coreutils, dash, findutils,
    /// mount, util-linux. `strip` comes with the linker that Rust needs.
    const EVERYWHERE: &str = "cargo rustc strip cat chown cp df du env find mkfifo mount nsenter script setpriv setsid sh sleep tty umount unshare";

    /// Programs that a test's text starts: `Command::new("x")`, `.command("x")` and `/usr/bin/x`.
    fn programs(text: &str) -> Vec<&str> {
        let literal = |call: &'static str| text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
        let by_path = text
            .split("/usr/bin/")
            .skip(1)
            .filter_map(move |rest| rest.split(|letter| !is_part(letter)).next());
        literal("Command::new(\"")
            .chain(literal("world.command(\""))
            .chain(by_path)
            .filter_map(|name| name.rsplit('/').next().filter(|name| !name.is_empty()))
            .collect()
    }

    #[test]
    fn what_tests_start_is_provided() {
        assert_eq!(
            programs(r#"Command::new("ip"); world.command("sh"); "/usr/bin/python3 x""#),
            ["ip", "sh", "python3"]
        );
        let provided = |name: &str| {
            let is_it = |need: &&Need| need.thing.rsplit('/').next() == Some(name);
            NEEDS.iter().any(|need| is_it(&need)) || EVERYWHERE.split(' ').any(|known| known == name)
        };
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut folders: Vec<_> =
            std::fs::read_dir(crates).unwrap().map(|entry| entry.unwrap().path().join("tests")).collect();
        let (mut files, mut lacking) = (0, BTreeSet::new());
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "rs") {
                    files += 1;
                    let text = std::fs::read_to_string(&path).unwrap();
                    lacking.extend(
                        programs(&text).into_iter().filter(|name| !provided(name)).map(str::to_owned),
                    );
                }
            }
        }
        assert!(files > 50, "{files} files of tests in {}", crates.display());
        assert_eq!(lacking, BTreeSet::new(), "NEEDS has no such program");
    }

    #[test]
    fn ci_is_consent() {
        assert_eq!(Consent::of_environment(true), Consent::Given);
    }
}
