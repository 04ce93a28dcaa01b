//! How many approvals changes of a new repo take, and who there is to give them.

use serde_json::{Value, json};
use towpath_core::gate::GateConfig;

use crate::command::answer::{flag, items, text};
use crate::failure::Failure;
use crate::remote::{Client, Request};
use crate::terminal::inline;
use crate::terminal::style::count;

/// Sets how many approvals a new repo's branches take where their towpath.yaml does not say: as many as are `wanted`, or none
/// if there is nobody else on the server. What whoever brought it should know of that, for people.
pub(super) fn set_approvals(
    client: &Client,
    repo: &Value,
    wanted: Option<u32>,
) -> Result<Option<String>, Failure> {
    let (name, branch) = (text(repo, "repo"), text(repo, "default_branch"));
    let asked = repo["approvals"].as_u64();
    let givers = if wanted.is_none() { Some(givers(client, name)?) } else { None };
    let alone = givers == Some(Givers::OnlyUser);
    let Some(approvals) = wanted.or(alone.then_some(0)) else {
        let nobody = givers == Some(Givers::NobodyElse);
        return Ok(nobody
            .then(|| nobody_else_note((name, branch), asked))
            .flatten()
            .map(|note| format!("note: {note}")));
    };
    let path = ["repos", name, "settings"];
    let mut settings = client.ask(&Request::get(&path))?;
    for branch in settings["branches"].as_object_mut().into_iter().flat_map(|branches| branches.values_mut())
    {
        branch["approvals"] = json!(approvals);
    }
    client.ask(&Request::put(&path, settings))?;
    Ok(approvals_note((name, branch), (approvals, asked), alone).map(|note| format!("note: {note}")))
}

/// Who there is to approve what is uploaded by whoever brings a repo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Givers {
    /// The server has no other user.
    OnlyUser,
    /// It has others, none of whom maintains the repo.
    NobodyElse,
    /// Somebody else does.
    Others,
}

fn givers(client: &Client, repo: &str) -> Result<Givers, Failure> {
    let users = client.ask(&Request::get(&["users"]))?;
    let users: Vec<&Value> = items(&users).iter().filter(|user| !flag(user, "disabled")).collect();
    if users.len() == 1 {
        return Ok(Givers::OnlyUser);
    }
    let me = client.ask(&Request::get(&["me"]))?;
    let people = client.ask(&Request::get(&["repos", repo, "people"]))?;
    let maintains = |name: &str| {
        let has = |person: &&Value| text(person, "user") == name;
        items(&people)
            .iter()
            .find(has)
            .is_some_and(|person| matches!(text(person, "role"), "maintainer" | "admin"))
    };
    let gives = |user: &&Value| {
        let name = text(user, "user");
        name != text(&me, "user") && (flag(user, "admin") || maintains(name))
    };
    Ok(if users.iter().any(gives) { Givers::Others } else { Givers::NobodyElse })
}

/// What waits for whom where nobody else can approve: as the branch's own file has `asked`, or the server's default.
fn nobody_else_note((repo, branch): (&str, &str), asked: Option<u64>) -> Option<String> {
    let needed = asked.unwrap_or_else(|| GateConfig::default().approvals.into());
    let fewer = match asked {
        Some(_) => "or ask for none: `gate: { approvals: 0 }` in the branch's towpath.yaml".to_owned(),
        None => format!("or ask for none: {}", how_to_set((repo, branch), 0)),
    };
    (needed > 0).then(|| {
        format!(
            "a change takes {}, nobody approves what they uploaded, and nobody else here can yet. Let somebody: `towpath repo \
             grant NAME maintainer --repo {repo}`; {fewer}",
            approvals_in_words(needed)
        )
    })
}

/// How a branch comes to ask for so many approvals where its own file names no number.
pub(super) fn how_to_set((repo, branch): (&str, &str), approvals: u32) -> String {
    let part = json!({ "branches": { branch: { "approvals": approvals } } });
    let part = inline(&part.to_string());
    format!("`towpath repo settings --repo {} --set FILE`, with {part} in FILE", inline(repo))
}

fn approvals_in_words(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "approval")
}

/// What holds where the settings say `approvals` and the branch's own file what it has `asked` for, which goes before.
fn approvals_note(
    (repo, branch): (&str, &str),
    (approvals, asked): (u32, Option<u64>),
    alone: bool,
) -> Option<String> {
    match asked.filter(|asked| *asked != u64::from(approvals)) {
        Some(asked) if alone => Some(format!(
            "the branch's towpath.yaml asks for {}, and you are the only user: nobody can give that, so changes wait. \
             Make a user who can: `towpath user add NAME`, then `towpath repo grant NAME maintainer`",
            approvals_in_words(asked)
        )),
        Some(asked) => Some(format!(
            "the branch's towpath.yaml asks for {}, which goes before the {approvals} of `--approvals`",
            approvals_in_words(asked)
        )),
        None => alone.then(|| {
            let place = match asked {
                Some(_) => {
                    "`gate: { approvals: 1 }` in the branch's towpath.yaml, which goes before the repo's settings".to_owned()
                }
                None => how_to_set((repo, branch), 1),
            };
            format!("you are the only user, so changes land without an approval; once there are others, ask for one: {place}")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_alone_hears_which_place_decides_on_approvals() {
        let web = ("web", "main");
        let note = |approvals, asked| approvals_note(web, (approvals, asked), true).unwrap();
        let set = r#"`towpath repo settings --repo web --set FILE`, with {"branches":{"main":{"approvals":1}}} in FILE"#;
        assert!(note(0, None).contains(set), "{}", note(0, None));
        let none = set.replace(r#""approvals":1"#, r#""approvals":0"#);
        let nobody_else = nobody_else_note(web, None).unwrap();
        assert!(nobody_else.contains(&none), "{nobody_else}");
        let file = note(0, Some(0));
        assert!(
            file.contains("approvals: 1 }` in the branch's towpath.yaml")
                && !file.contains("towpath repo settings")
        );
        assert!(note(0, Some(1)).contains("nobody can give that"));
        assert_eq!(approvals_note(web, (2, Some(2)), false), None);
    }
}
