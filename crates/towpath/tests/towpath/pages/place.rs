//! A server of the real program, and what a test asks of it beside the browser.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::TOWPATH;

pub struct Place {
    server: Child,
    data: PathBuf,
    pub url: String,
    /// Where it listens, whatever its address is.
    pub listens: SocketAddr,
    pub token: String,
}

impl Place {
    /// Serves a data folder; `token` is that of its admin.
    pub fn serve(data: &Path, keys: &Path, token: &Path) -> Place {
        Place::serve_with((data, keys, token), &[])
    }

    /// The same, with words for its command line.
    pub fn serve_with((data, keys, token): (&Path, &Path, &Path), words: &[&str]) -> Place {
        let mut command = program(data.parent().unwrap());
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(words);
        command.arg("--data").arg(data).arg("--keys").arg(keys);
        if !crate::support::has_sandbox("the pages' server") {
            command.args(["--sandbox", "none"]);
        }
        let mut server = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.find_map(|line| {
            let (url, listens) = line.split_once("serving at ")?.1.split_once(" (listening on ")?;
            Some((url.to_owned(), listens.trim_end_matches(')').parse().unwrap()))
        });
        let (url, listens) = said.expect("the server says where it serves");
        // Whatever it says later is read to its end, or the server would wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        let token = std::fs::read_to_string(token).unwrap().trim().to_owned();
        Place { server, data: data.to_owned(), url, listens, token }
    }

    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let mut answer = agent.run(request.body(body).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {} {text}", answer.status());
        serde_json::from_str(&text).unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        self.api("GET", path, &json!({}))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.server.wait();
        crate::support::stop_servants(&self.data);
    }
}

/// The program with nothing of the person who runs the tests.
pub fn program(home: &Path) -> Command {
    let mut command = Command::new(TOWPATH);
    command.env("HOME", home).stdin(Stdio::null());
    for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TOWPATH_URL", "TOWPATH_TOKEN", "TOWPATH_DATA"] {
        command.env_remove(name);
    }
    command
}

/// Data, keys and token file of a new server with the admin `ada`.
pub fn init(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let (data, keys, token) = (folder.join("data"), folder.join("keys"), folder.join("token"));
    let mut command = program(folder);
    command.args(["init", "--user", "ada"]).arg("--data").arg(&data);
    command.arg("--keys").arg(&keys).arg("--token-file").arg(&token);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (data, keys, token)
}
