//! The demo's folder: data, keys, people, and the working copies that push.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use towpath_server::setup;

use super::cases::{Case, START, Who};
use super::folder::DemoFolder;
use crate::command::executor::SandboxArg;
use crate::command::serve::{PlaceArgs, ServeArgs};
use crate::failure::{Exit, Failure};
use crate::remote::{Client, Request};

/// Somebody in the demo.
pub struct Person {
    name: &'static str,
    /// The person's token.
    pub token: String,
}

/// What the demo works on.
pub struct Project {
    folder: DemoFolder,
    /// The maintainer, who is also the server's admin.
    pub ann: Person,
    /// Those who come once the server is there: an authorised author, and one who is not.
    others: Vec<Person>,
}

/// What git said when a change was pushed.
pub struct Pushed {
    /// Lines that the server sent.
    pub remote: Vec<String>,
}

/// What git wrote.
struct Said {
    stdout: String,
    stderr: String,
}

impl Project {
    /// Makes the folder with a working copy, a data folder and the first admin.
    pub fn make(folder: &Path) -> Result<Project, Failure> {
        let folder = DemoFolder::take(folder)?;
        let ann = Person { name: "ann", token: String::new() };
        let mut project = Project { folder, ann, others: Vec::new() };
        let admin = setup::first_admin(&project.serve_arguments().settings()?, "ann", |_| Ok(()));
        project.ann.token = admin.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?.token;
        write_private(&project.token_file(), &project.ann.token)?;
        let work = project.work();
        fs::create_dir_all(&work).map_err(|error| cannot("make", &work, &error))?;
        project.git(Who::Ann, &["init", "--quiet", "--initial-branch=main"])?;
        project.commit(Who::Ann, START, "A small shell project")?;
        Ok(project)
    }

    fn serve_arguments(&self) -> ServeArgs {
        ServeArgs {
            new_keys: false,
            place: PlaceArgs { data: self.data(), keys: Some(self.keys()) },
            listen: ([127, 0, 0, 1], 0).into(),
            url: None,
            trusted_proxies: Vec::new(),
            slots: None,
            sandbox: SandboxArg::Bubblewrap,
            until_input_ends: true,
            job_limits: Vec::new(),
        }
    }

    /// Brings the repository and the other people to the server.
    pub fn move_in(&mut self, ann: &Client) -> Result<(), Failure> {
        let work = self.work().display().to_string();
        ann.ask(&Request::post(&["import"], json!({ "repo": "demo", "path": work })).long())?;
        for (name, authorised) in [("ben", true), ("eve", false)] {
            ann.ask(&Request::post(&["users"], json!({ "user": name })))?;
            let right = json!({ "role": "author", "authorised": authorised });
            ann.ask(&Request::put(&["repos", "demo", "people", name], right))?;
            let label = json!({ "label": "the demo" });
            let made = ann.ask(&Request::post(&["users", name, "tokens"], label))?;
            let token = made["token"].as_str().unwrap_or_default().to_owned();
            self.others.push(Person { name, token });
        }
        Ok(())
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.data()
    }

    /// The repository as the server has it.
    pub fn repository(&self) -> PathBuf {
        self.data().join("repos/demo.git")
    }

    /// Where main was before any of the changes: pushing them leaves the working copy's main where it is.
    pub fn start(&self) -> Result<String, Failure> {
        Ok(self.git(Who::Ann, &["rev-parse", "--verify", "refs/heads/main"])?.stdout.trim().to_owned())
    }

    /// The folder of keys.
    pub fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// Where the maintainer's token is.
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// What the server says about itself.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Makes a change on a branch of its own from the first commit, and pushes it as `git push towpath` would.
    pub fn push(&self, case: &Case, url: &str) -> Result<Pushed, Failure> {
        self.git(case.who, &["switch", "--quiet", "--create", case.name, "main"])?;
        self.commit(case.who, case.files, case.subject)?;
        let remote = format!("{url}/demo.git");
        let mut words = vec!["push", &remote, case.name, "-o", "change"];
        case.options.iter().for_each(|option| words.extend(["-o", option]));
        let said = self.git(case.who, &words)?.stderr;
        let remote = said
            .lines()
            .filter_map(|line| line.strip_prefix("remote: "))
            .map(|line| line.trim_end().to_owned());
        Ok(Pushed { remote: remote.filter(|line| !line.is_empty()).collect() })
    }

    fn commit(&self, who: Who, files: &[(&str, &str)], subject: &str) -> Result<(), Failure> {
        for (path, content) in files {
            let path = self.work().join(path);
            let folder = path.parent().expect("invariant: every file of the demo is in the work tree");
            fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
            fs::write(&path, content).map_err(|error| cannot("write", &path, &error))?;
        }
        self.git(who, &["add", "--all"])?;
        self.git(who, &["commit", "--quiet", "--message", subject])?;
        Ok(())
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn person(&self, who: Who) -> &Person {
        match who {
            Who::Ann => &self.ann,
            Who::Ben => &self.others[0],
            Who::Eve => &self.others[1],
        }
    }

    /// Runs the user's git as one person, with nothing of the user's own settings.
    fn git(&self, who: Who, words: &[&str]) -> Result<Said, Failure> {
        let person = self.person(who);
        let mail = format!("{}@demo.invalid", person.name);
        // In the environment and not among the words, where every process could read it.
        let header =
            format!("Authorization: Basic {}", STANDARD.encode(format!("{}:{}", person.name, person.token)));
        let output = Command::new("git")
            .args(words)
            .current_dir(self.work())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", person.name)
            .env("GIT_AUTHOR_EMAIL", &mail)
            .env("GIT_COMMITTER_NAME", person.name)
            .env("GIT_COMMITTER_EMAIL", &mail)
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", header)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::new(Exit::Usage, "git cannot be started").why(error.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said { stdout: text(&output.stdout), stderr: text(&output.stderr) };
        match output.status.success() {
            true => Ok(said),
            false => {
                Err(Failure::new(Exit::Failed, format!("`git {}` failed", words.join(" "))).why(said.stderr))
            }
        }
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    crate::command::file_failure(what, path, error)
}
