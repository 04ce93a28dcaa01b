//! The page of a change: what it still takes to land, and what people can say about it.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use towpath_core::gate::{RetryScope, Verb};
use towpath_core::ids::{CommitId, GateId};
use towpath_core::policy::Role;
use towpath_forge::Failure;

use super::forms::NO_DEFINITION;
use super::{Frame, crumb, permitted, render, text};
use crate::http::api::Nothing;
use crate::http::api::change_views::ChangeView;
use crate::http::api::changes;
use crate::http::api::checklist::Item;
use crate::http::call::{Call, blocking};
use crate::http::error::Answer;
use crate::http::links;

/// Revisions whose commit is looked up for its author, newest first.
const AUTHORS_SHOWN: usize = 20;

#[derive(Template)]
#[template(path = "change.html")]
struct ChangePage {
    frame: Frame,
    change: ChangeView,
    url: String,
    branch_url: String,
    /// Authors of revisions as git has them, by commit.
    authors: BTreeMap<String, String>,
    maintains: bool,
    /// Why whoever looks may not approve it, if so.
    no_approval: Option<String>,
    /// Owns it, or maintains.
    steers: bool,
    holds: bool,
    retries: bool,
    writes: bool,
}

/// How far an item of the checklist is.
struct Sign {
    class: &'static str,
    sign: &'static str,
    word: &'static str,
}

impl ChangePage {
    fn sign(item: &Item) -> Sign {
        match item {
            Item { met: true, .. } => Sign { class: "ok", sign: "✓", word: "met" },
            Item { why, .. } if why.iter().any(|reason| reason.blocks) => {
                Sign { class: "bad", sign: "✗", word: "not met" }
            }
            Item { outdated: true, .. } => {
                Sign { class: "idle", sign: "○", word: "not looked at since it or the branch changed" }
            }
            Item { why, .. } if why.is_empty() => {
                Sign { class: "idle", sign: "○", word: "not looked at yet" }
            }
            _ => Sign { class: "run", sign: "●", word: "waiting" },
        }
    }

    fn is_open(&self) -> bool {
        self.change.line.state == "open"
    }

    fn held(&self) -> bool {
        self.change.gate.as_ref().is_some_and(|gate| gate.hold.is_some())
    }

    fn untrusted(&self) -> bool {
        self.change.gate.as_ref().is_some_and(|gate| gate.entry.level == "untrusted")
    }

    fn tested(&self) -> bool {
        self.change.gate.as_ref().is_some_and(|gate| gate.entry.run.is_some())
    }

    fn reviewed_by_me(&self) -> bool {
        self.change.reviews.iter().any(|review| Some(&review.by) == self.frame.who.as_ref())
    }

    /// The definition that a review is about.
    fn definition(&self) -> &str {
        self.change.definition.as_deref().unwrap_or(NO_DEFINITION)
    }

    /// What a review is about. A form that was shown for something else is not brought up to date behind one's back.
    fn seen(&self) -> String {
        let (line, definition) = (&self.change.line, self.definition());
        format!("{} {} {} {definition} {}", line.revision, self.change.message, line.target, line.state)
    }

    fn author(&self, commit: &str) -> &str {
        self.authors.get(commit).map_or("", String::as_str)
    }

    fn met(&self) -> usize {
        self.change.gate.as_ref().map_or(0, |gate| gate.checklist.iter().filter(|item| item.met).count())
    }
}

/// `GET /{repo}/changes/{change}`
pub async fn show(call: Call, _request: Request) -> Answer<Response> {
    let change = changes::show(call.clone(), Nothing {}).await?;
    let authors = authors(&call, &change).await?;
    let gate = GateId { repo: call.repo()?, branch: change.line.target.parse()? };
    let url = links::change(&gate.repo, call.change()?);
    let branch_url = links::branch(&gate);
    let crumbs = vec![
        crumb(format!("{} / {}", change.repo, change.line.target), branch_url.clone()),
        crumb(format!("change {}", change.line.change), url.clone()),
    ];
    let role = call.role.unwrap_or(Role::Reader);
    let owns = call.person()?.name == change.line.owner && role >= Role::Author;
    let [holds, retries] = permitted(&call, gate, commands(&call, &change)?).await?;
    let page = ChangePage {
        frame: Frame::within(&call, crumbs)?,
        url,
        branch_url,
        authors,
        maintains: role >= Role::Maintainer,
        no_approval: no_approval(&call).await?,
        steers: role >= Role::Maintainer || owns,
        holds,
        retries,
        writes: role >= Role::Author,
        change,
    };
    render(StatusCode::OK, &page)
}

/// What whoever owns a change may ask of its gate.
fn commands(call: &Call, shown: &ChangeView) -> Answer<[Verb; 2]> {
    let (change, revision) = (call.change()?, shown.line.revision.parse()?);
    Ok([Verb::Hold { change, why: String::new() }, Verb::Retry { change, revision, scope: RetryScope::All }])
}

/// Why whoever looks could not approve the change if they maintain the repo, in the words of whoever would refuse it.
async fn no_approval(call: &Call) -> Answer<Option<String>> {
    let (forges, repo, number) = (call.shared().forges.clone(), call.repo()?, call.change()?);
    let by = call.person()?.user;
    let asked = move || {
        let forge = forges.get(&repo)?;
        forge.may_approve(by, &forge.change(number)?)
    };
    blocking(move || Ok(asked().err().map(|failure: Failure| failure.to_string()))).await
}

/// Who git says wrote each revision. It is only what the commit says: who uploaded it is what counts (T1). What cannot be
/// read is shown without its author, as the page says above all why a change waits.
async fn authors(call: &Call, change: &ChangeView) -> Answer<BTreeMap<String, String>> {
    let (repos, repo) = (call.shared().repos.clone(), call.repo()?);
    let newest = change.revisions.iter().rev().take(AUTHORS_SHOWN);
    let commits: Vec<CommitId> = newest.filter_map(|revision| revision.commit.parse().ok()).collect();
    blocking(move || {
        let Ok(repository) = repos.get(&repo) else { return Ok(BTreeMap::new()) };
        let read = |id: CommitId| Some((id.to_string(), repository.commit(id).ok()?.author));
        let found = commits.into_iter().filter_map(read);
        Ok(found.map(|(id, author)| (id, format!("{} <{}>", author.name, author.email))).collect())
    })
    .await
}
