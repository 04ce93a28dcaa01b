//! Where the pages are: the one place that knows, for everything that links to them.

use std::fmt::Write as _;

use towpath_core::ids::{ChangeNumber, GateId, RepoName, RunId};

/// Names that no repo may have, because something else stands at their place.
pub const RESERVED: [&str; 14] = [
    "api",
    "events",
    "healthz",
    "hooks",
    "login",
    "logout",
    "me",
    "metrics",
    "openapi.json",
    "readyz",
    "repos",
    "schema",
    "static",
    "admin",
];

/// The page of a branch.
pub fn branch(gate: &GateId) -> String {
    format!("/{}/branches/{}", gate.repo, escaped(gate.branch.as_str()))
}

/// The page of a change.
pub fn change(repo: &RepoName, number: ChangeNumber) -> String {
    format!("/{repo}/changes/{number}")
}

/// The page of a run.
pub fn run(run: &RunId) -> String {
    format!("/{}/runs/{}/{}", run.gate.repo, escaped(run.gate.branch.as_str()), run.number)
}

/// The page of a job, with its log.
pub fn job(run: &RunId, job: &str) -> String {
    format!("{}/jobs/{}", self::run(run), escaped(job))
}

/// A name as one segment of a path.
pub fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-~".contains(&byte);
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => write!(text, "%{byte:02X}").expect("invariant: a string takes any text"),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_one_segment() {
        let id: RunId = "web/release/1.0/12".parse().unwrap();
        assert_eq!(run(&id), "/web/runs/release%2F1.0/12");
        assert_eq!(branch(&id.gate), "/web/branches/release%2F1.0");
        assert_eq!(escaped("unit[3/4]é"), "unit%5B3%2F4%5D%C3%A9");
    }
}
