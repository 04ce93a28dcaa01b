//! What to do next, where nobody who refuses knows more than the class of the error: where to look at what was asked for.

use super::error::Class;

/// Where to look, by what the path is about; the first that it has counts.
const LOOKS: [(&str, &str); 18] = [
    ("/jobs/", "`towpath runs RUN` shows the run with its jobs, and what each came to"),
    ("/runs", "`towpath runs` lists the runs that there are"),
    ("/changes/{change}", "`towpath change show NUMBER` shows the change as it is now"),
    ("/changes", "`towpath change list` shows the changes that there are"),
    ("/branches/{branch}", "`towpath branch show BRANCH` shows the branch as it is now"),
    ("/branches", "`towpath branch list` shows the branches that are watched"),
    ("/environments", "`towpath deploy list` shows what runs where"),
    ("/secrets", "`towpath secret list` shows the secrets that there are"),
    ("/people", "`towpath repo people` shows who may do what here"),
    ("/hook", "`towpath secret list` shows the secrets that there are"),
    (
        "/settings",
        "`towpath repo settings` shows them as they are, `towpath change list --state all --label LABEL` who has a label",
    ),
    ("/users", "`towpath user list` shows the users that there are"),
    ("/tokens", "`towpath token list` shows the tokens that there are"),
    ("/audit", "`towpath audit show` shows the newest leaves of the log"),
    ("/restore", "`towpath backup show` shows what was lost, and whether it waits to be accepted"),
    ("{repo}", "`towpath repo list` shows the repos that you may see"),
    ("/repos", "`towpath repo list` shows the repos that you may see"),
    ("/import", "`towpath repo list` shows the repos that there are; `--name` takes another name"),
];

/// What to send instead, by how the path ends.
const MENDS: [(&str, &str); 18] = [
    ("/settings", "`towpath repo settings` shows them as they are; docs/guide/gate.md says what each does"),
    ("/retention", "`towpath retention show` shows the numbers; docs/guide/retention.md says what each does"),
    ("/branches/{branch}/accept", "name the whole commit id: `towpath branch show BRANCH` shows it"),
    ("/branches/{branch}/freeze", REASON),
    ("/runs/{branch}/{run}/cancel", REASON),
    ("/changes/{change}/hold", REASON),
    (
        "/changes/{change}/vouch",
        "say why in one line, and for how long at most a month: `towpath change vouch CHANGE --why \"WORDS\" --hours 24`",
    ),
    (
        "/changes/{change}/comment",
        "say it in a word at least, and in a few kilobytes at most: `towpath change comment CHANGE \"WORDS\"`",
    ),
    (
        "/changes/{change}/label",
        "name each label by itself: `towpath change label CHANGE FIRST SECOND`, or `--remove LABEL` for one to take off",
    ),
    (
        "/changes/{change}/edit",
        "`--title` takes one line, `--body` all else: `towpath change edit CHANGE --title \"LINE\" --body \"WORDS\"`",
    ),
    ("/changes/{change}/retarget", "`towpath branch list` shows the branches that are watched"),
    (
        "/secrets/{secret}",
        "`towpath secret set --help` says what it takes; `towpath secret list` shows those that there are",
    ),
    ("/restore/accept", "`towpath backup show` shows what to name"),
    (
        "/repos/{repo}/changes",
        "push a branch with commits of its own, and name that one: `towpath change open BRANCH`; `--title` takes one line",
    ),
    (
        "/import",
        "`--name NAME` gives it a name that fits; `--authorization-stdin` takes a login, `Bearer TOKEN` say; `towpath repo import \
         --help` says what else there is",
    ),
    ("/repos", "`towpath repo create --help` says what it takes; a name has a-z, 0-9, `-`, `_` and `.`"),
    ("/users", "choose another name or password, and give it again"),
    ("/password", "choose another one, and give it again"),
];

const REASON: &str = "say why in one line: `--why \"WORDS\"`";

/// What to do after an error of this class about `path`, as the route table has it.
pub fn step(class: Class, path: &str) -> &'static str {
    match class {
        Class::Invalid => mend(path),
        Class::Unauthenticated => "`towpath token login URL` takes a token in",
        Class::Denied => "`towpath user me` says what you may; an admin can give you more, or do it for you",
        Class::NotFound | Class::Conflict => look(path),
        Class::NoMethod => "`/openapi.json` of the server says how each path is asked",
        Class::TooLarge => "send less at once",
        Class::Misdirected => "ask it by its own address",
        Class::Limited => "wait a little, then try again",
        Class::TimedOut => "look whether it has happened before you try again",
        // What does not answer is most often not this server.
        Class::Unavailable if path.ends_with("/import") => {
            "look at the address, and whether the server's machine reaches it; what is private takes `--authorization-stdin`"
        }
        Class::Unavailable => "try again in a moment; `towpath doctor` says what is wrong, if it goes on",
        Class::Internal => "look into the server's log, and report what it says there",
    }
}

fn mend(path: &str) -> &'static str {
    let known = MENDS.iter().find(|(end, _)| path.ends_with(end));
    known.map_or(
        "mend what was sent: `--help` of the command and `/openapi.json` of the server say what is taken",
        |(_, mend)| mend,
    )
}

fn look(path: &str) -> &'static str {
    let known = LOOKS.iter().find(|(part, _)| path.contains(part));
    known.map_or("`/openapi.json` of the server lists what can be asked", |(_, look)| look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_misses_something_is_told_where_its_like_are_shown() {
        for (path, verb) in [
            ("/api/v1/repos/{repo}/changes/{change}/retry", "towpath change show"),
            ("/api/v1/repos/{repo}/branches/{branch}/unfreeze", "towpath branch show"),
            ("/api/v1/repos/{repo}/runs/{branch}/{run}/jobs/{job}/log", "towpath runs RUN"),
            ("/api/v1/repos/{repo}/secrets/{secret}", "towpath secret list"),
            ("/api/v1/secrets/{secret}", "towpath secret list"),
            ("/api/v1/users/{user}/tokens", "towpath user list"),
            ("/api/v1/repos/{repo}", "towpath repo list"),
            ("/api/v1/repos/{repo}/settings", "towpath change list"),
            ("/api/v1/import", "--name"),
            ("/api/v1/restore/accept", "towpath backup show"),
            ("/no/such", "/openapi.json"),
        ] {
            assert!(step(Class::NotFound, path).contains(verb), "{path}");
        }
    }

    #[test]
    fn whoever_sends_something_wrong_is_told_what_to_send() {
        for (path, words) in [
            ("/api/v1/repos/{repo}/settings", "docs/guide/gate.md"),
            ("/api/v1/retention", "docs/guide/retention.md"),
            ("/api/v1/repos/{repo}/branches/{branch}/accept", "towpath branch show BRANCH"),
            ("/api/v1/repos/{repo}/changes", "towpath change open BRANCH"),
            ("/api/v1/repos/{repo}/branches/{branch}/freeze", "--why"),
            ("/api/v1/repos/{repo}/runs/{branch}/{run}/cancel", "--why"),
            ("/api/v1/repos/{repo}/changes/{change}/hold", "--why"),
            ("/api/v1/repos/{repo}/changes/{change}/vouch", "--hours"),
            ("/api/v1/repos/{repo}/changes/{change}/comment", "towpath change comment"),
            ("/api/v1/repos/{repo}/changes/{change}/label", "--remove"),
            ("/api/v1/repos/{repo}/changes/{change}/edit", "--title"),
            ("/api/v1/repos/{repo}/changes/{change}/retarget", "towpath branch list"),
            ("/api/v1/repos/{repo}/secrets/{secret}", "towpath secret set"),
            ("/api/v1/import", "--name"),
            ("/api/v1/me/password", "choose another one"),
            ("/api/v1/repos/{repo}/hook", "/openapi.json"),
        ] {
            assert!(step(Class::Invalid, path).contains(words), "{path}");
        }
    }
}
