//! What people do with changes. What the forge keeps is done by the forge; what the gate decides is asked of the gate.
//! Both look at the caller's right once more when they act (I18).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::gate::{Gate, RetryScope, Verb, Verdict};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Digest, GateId, Timestamp, UserId};
use towpath_core::turn::Live;
use towpath_forge::{
    BuiltIn, ChangeRecord, ChangeText, Draft, Failure, LabelEdit, Proposal, PushedBranch, ReviewRequest,
};

use super::{Nothing, Said, changes, checked_why, command, gate};
use crate::faults;
use crate::http::call::{Call, blocking};
use crate::http::error::{Answer, ApiError, Class};
use crate::http::{labels, links};

/// Seconds for which a maintainer's word holds when nobody says otherwise: a day, as long as one looks at a change.
const VOUCH_SECONDS_DEFAULT: u32 = 24 * 3600;
/// Seconds for which it holds at most.
const VOUCH_SECONDS_MAX: u32 = 30 * 24 * 3600;

/// Who acts on what, when.
struct Acting {
    by: UserId,
    number: ChangeNumber,
    now: Timestamp,
}

/// A change as an act left it.
struct Acted {
    change: ChangeRecord,
    /// What is to be said of gates that may not know of it.
    unread: Option<String>,
}

impl Acted {
    fn said(self, what: impl Into<String>) -> Said {
        Said::with(what, self.unread)
    }
}

/// Has the forge do something with a change, which also puts it on record, and rings the gates that it concerns: all of
/// it also where the sender has hung up meanwhile. Returns once they know of it.
async fn on_forge<F, E>(call: &Call, act: F) -> Answer<Acted>
where
    F: FnOnce(&BuiltIn, &Acting) -> Result<ChangeRecord, E> + Send + 'static,
    E: Into<ApiError>,
{
    let (repo, number) = (call.repo()?, call.change()?);
    let acting = Acting { by: call.person()?.user, number, now: call.now() };
    let edge = call.edge.clone();
    let done = blocking(move || {
        let forge = edge.shared.forges.get(&repo)?;
        let before = forge.change(acting.number)?.target;
        let after = act(&forge, &acting).map_err(E::into)?;
        let branches = [before, after.target.clone()];
        let rung = edge.shared.ring_all(branches.map(|branch| GateId { repo: repo.clone(), branch }));
        Ok((after, rung))
    });
    let (change, rung) = done.await?;
    Ok(Acted { change, unread: rung.unread().await })
}

/// A change that is open.
pub(super) async fn open_change(call: &Call) -> Answer<ChangeRecord> {
    let (repo, number) = (call.repo()?, call.change()?);
    let record = changes::record(call, &repo, number).await?;
    match record.is_open() {
        true => Ok(record),
        false => Err(ApiError::new(Class::Conflict, format!("change {number} is not open"))),
    }
}

/// The gate at which a change is open.
async fn gate_of(call: &Call) -> Answer<(GateId, ChangeNumber)> {
    let change = open_change(call).await?;
    Ok((GateId { repo: call.repo()?, branch: change.target }, change.number))
}

/// A change to be opened.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The branch, pushed before, whose commits are proposed.
    pub source: String,
    /// The whole id of the commit that you mean, if the branch must be at no other; absent: whatever it is at.
    #[serde(default)]
    pub commit: Option<String>,
    /// The branch that they should land on; absent: the repo's default.
    #[serde(default)]
    pub target: Option<String>,
    /// The title; absent: from the commits.
    #[serde(default)]
    pub title: Option<String>,
    /// The body; absent: from the commits.
    #[serde(default)]
    pub body: Option<String>,
    /// Whether nothing of it runs yet.
    #[serde(default)]
    pub draft: bool,
    /// Its labels.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// A change that was opened or updated.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// Its number.
    pub change: u64,
    /// Its newest revision.
    pub revision: String,
    /// Its page.
    pub url: String,
    /// What to look at once more: a label that does nothing and is near to one that does, or that the branch may not know
    /// of it yet.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `POST /api/v1/repos/{repo}/changes`
pub async fn open(call: Call, input: Open) -> Answer<Opened> {
    let (repo, by, now) = (call.repo()?, call.person()?.user, call.now());
    let seen = input.commit.as_deref().map(str::parse).transpose()?;
    let source = PushedBranch { name: input.source.parse()?, seen };
    let proposal = Proposal {
        target: input.target.as_deref().map(str::parse).transpose()?,
        title: input.title,
        body: input.body,
        draft: input.draft.then_some(true),
        labels: input.labels,
        ..Proposal::default()
    };
    let (edge, name) = (call.edge.clone(), repo.clone());
    let opened = move || {
        let record = edge.shared.forges.get(&name)?.propose_branch(by, &source, &proposal, now)?;
        let rung = edge.shared.ring_all([GateId { repo: name, branch: record.target.clone() }]);
        Ok((record, rung))
    };
    let (record, rung) = blocking(opened).await.map_err(|error| missing_source(error, &input.source))?;
    let mut notes = near_labels(&call, &record).await?;
    notes.extend(rung.unread().await);
    Ok(Opened {
        change: record.number.0,
        revision: record.newest().commit.to_string(),
        url: format!("{}{}", call.edge.site.url, links::change(&repo, record.number)),
        notes,
    })
}

fn missing_source(error: ApiError, source: &str) -> ApiError {
    match error.class {
        Class::NotFound => error.hint(format!("push it first: `git push towpath HEAD:refs/heads/{source}`")),
        _ => error,
    }
}

/// A verdict. It counts for just what its giver saw: say what that was.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// The whole id of the revision that was looked at.
    pub revision: String,
    /// The target that was shown; absent: as it is now.
    #[serde(default)]
    pub target: Option<String>,
    /// `message` of the change as it was shown; absent: as it is now.
    #[serde(default)]
    pub message: Option<String>,
    /// `definition` of the change as it was shown; absent or `null`: none was shown. It is never filled in: whoever has not
    /// seen a definition approves none.
    #[serde(default)]
    pub definition: Option<String>,
    /// Words to go with it.
    #[serde(default)]
    pub text: String,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/approve`
pub async fn approve(call: Call, input: Review) -> Answer<Said> {
    review(call, input, Verdict::Approve).await
}

/// `POST /api/v1/repos/{repo}/changes/{change}/request-changes`
pub async fn request_changes(call: Call, input: Review) -> Answer<Said> {
    review(call, input, Verdict::RequestChanges).await
}

async fn review(call: Call, input: Review, verdict: Verdict) -> Answer<Said> {
    let (id, number) = gate_of(&call).await?;
    let revision: CommitId = input.revision.parse()?;
    let definition = input.definition.as_deref().map(str::parse).transpose()?;
    let target = input.target.as_deref().map(str::parse).transpose()?;
    let message = input.message.as_deref().map(str::parse).transpose()?;
    must_be_shown(&call, id, (number, revision), definition).await?;
    let what = match verdict {
        Verdict::Approve => format!("approved revision {revision}"),
        Verdict::RequestChanges => format!("asked for changes of revision {revision}"),
    };
    let acted = on_forge(&call, move |forge, acting| {
        let now = forge.change(acting.number)?;
        let request = ReviewRequest {
            verdict,
            revision,
            target: target.unwrap_or_else(|| now.target.clone()),
            definition,
            message: message.unwrap_or_else(|| now.message()),
            text: input.text,
        };
        if verdict == Verdict::Approve {
            forge.may_approve(acting.by, &now).map_err(|failure| asks_another(failure, acting.number))?;
        }
        Ok::<_, ApiError>(forge.review(acting.by, acting.number, &request, acting.now)?)
    })
    .await?;
    Ok(acted.said(format!("{what} of change {number}")))
}

/// Whoever may not approve their own lacks no right.
fn asks_another(failure: Failure, number: ChangeNumber) -> ApiError {
    let is_refused = matches!(failure, Failure::Refused(_));
    let error = ApiError::from(failure);
    match is_refused {
        true => error.hint(format!(
            "ask another maintainer: `towpath repo people` shows who they are; where each has uploaded some of it, `towpath \
             change why {number}` says what else helps"
        )),
        false => error,
    }
}

/// Whether the gate shows the definition of a revision as its reviewer saw it. The forge, which knows nothing of
/// definitions, looks at all else; also at a revision that the gate has not read, for which it shows none.
async fn must_be_shown(
    call: &Call,
    id: GateId,
    (number, revision): (ChangeNumber, CommitId),
    seen: Option<Digest>,
) -> Answer<()> {
    let look = move |live: &Live<Gate>| {
        let change = live.state.changes().get(&number)?;
        let same = change.facts.revision.commit == revision;
        same.then(|| live.state.edited_definition(change))
    };
    let Some(shown) = call.shared().engine.gate(id, look).await.flatten() else { return Ok(()) };
    if seen == shown {
        return Ok(());
    }
    let [seen, now] = [seen, shown].map(|definition| match definition {
        Some(definition) => format!("the definition {definition}"),
        None => "no definition".to_owned(),
    });
    let why =
        format!("change {number} shows {now} now, and the review is for {seen}; look at it again first");
    Err(ApiError::new(Class::Conflict, why))
}

/// `POST /api/v1/repos/{repo}/changes/{change}/withdraw`
pub async fn withdraw(call: Call, _: Nothing) -> Answer<Said> {
    let act = |forge: &BuiltIn, at: &Acting| forge.withdraw_review(at.by, at.number, at.now);
    Ok(on_forge(&call, act).await?.said("your review no longer counts"))
}

/// A maintainer's word for one revision.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// The whole commit id.
    pub revision: String,
    /// `definition` of the change as it was shown; absent: that of the first candidate made of the revision.
    #[serde(default)]
    pub definition: Option<String>,
    /// Why it may run.
    pub why: String,
    /// Seconds for which it holds; absent: a day.
    #[serde(default)]
    pub seconds: Option<u32>,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/vouch`
pub async fn vouch(call: Call, input: Vouch) -> Answer<Said> {
    let revision = input.revision.parse()?;
    let definition = input.definition.as_deref().map(str::parse).transpose()?;
    let why = checked_why(&input.why)?;
    let seconds = input.seconds.unwrap_or(VOUCH_SECONDS_DEFAULT);
    if seconds > VOUCH_SECONDS_MAX {
        return Err(ApiError::invalid("a word for a revision holds for 30 days at most"));
    }
    let expires = call.now().plus_seconds(seconds);
    let (id, change) = gate_of(&call).await?;
    command(&call, id, Verb::Vouch { change, revision, definition, why, expires }).await
}

/// Words about a change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comment {
    /// The words.
    pub text: String,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/comment`
pub async fn comment(call: Call, input: Comment) -> Answer<Said> {
    let act = move |forge: &BuiltIn, at: &Acting| forge.comment(at.by, at.number, &input.text, at.now);
    Ok(on_forge(&call, act).await?.said("commented"))
}

/// Labels to put on and to take off.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Put on.
    #[serde(default)]
    pub add: Vec<String>,
    /// Taken off.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/label`
pub async fn label(call: Call, input: Labels) -> Answer<Said> {
    let edit = LabelEdit { add: input.add, remove: input.remove };
    let acted = on_forge(&call, move |forge, at| forge.label(at.by, at.number, &edit, at.now)).await?;
    let near = near_labels(&call, &acted.change).await?;
    let said: Vec<String> =
        std::iter::once(format!("labels are now: {}", in_words(&acted.change.labels))).chain(near).collect();
    Ok(acted.said(said.join("; ")))
}

fn in_words(labels: &BTreeSet<String>) -> String {
    match labels.is_empty() {
        true => "none".into(),
        false => Vec::from_iter(labels.iter().map(String::as_str)).join(", "),
    }
}

/// What to say of its labels that were perhaps meant to be others.
async fn near_labels(call: &Call, change: &ChangeRecord) -> Answer<Vec<String>> {
    let (repo, change) = (call.repo()?, change.clone());
    call.read(move |view| labels::near(view, &repo, &change)).await
}

/// `POST /api/v1/repos/{repo}/changes/{change}/close`
pub async fn close(call: Call, _: Nothing) -> Answer<Said> {
    let acted = on_forge(&call, |forge, at| forge.close(at.by, at.number, at.now)).await?;
    Ok(acted.said(format!("closed change {}", call.change()?)))
}

/// `POST /api/v1/repos/{repo}/changes/{change}/reopen`
pub async fn reopen(call: Call, _: Nothing) -> Answer<Said> {
    let acted = on_forge(&call, |forge, at| forge.reopen(at.by, at.number, at.now)).await?;
    Ok(acted.said(format!("reopened change {}", call.change()?)))
}

/// `POST /api/v1/repos/{repo}/changes/{change}/draft`
pub async fn draft(call: Call, _: Nothing) -> Answer<Said> {
    let act = |forge: &BuiltIn, at: &Acting| forge.set_draft(at.by, at.number, Draft::Yes, at.now);
    let acted = on_forge(&call, act).await?;
    Ok(acted.said(format!("change {} is a draft; nothing of it runs", call.change()?)))
}

/// `POST /api/v1/repos/{repo}/changes/{change}/ready`
pub async fn ready(call: Call, _: Nothing) -> Answer<Said> {
    let act = |forge: &BuiltIn, at: &Acting| forge.set_draft(at.by, at.number, Draft::No, at.now);
    let acted = on_forge(&call, act).await?;
    Ok(acted.said(format!("change {} is ready", call.change()?)))
}

/// New words.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The title; absent: as it is.
    #[serde(default)]
    pub title: Option<String>,
    /// The body; absent: as it is.
    #[serde(default)]
    pub body: Option<String>,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/edit`
pub async fn edit(call: Call, input: Edit) -> Answer<Said> {
    let acted = on_forge(&call, move |forge, at| {
        let now = forge.change(at.number)?;
        let text =
            ChangeText { title: input.title.unwrap_or(now.title), body: input.body.unwrap_or(now.body) };
        forge.edit_text(at.by, at.number, &text, at.now)
    })
    .await?;
    Ok(acted.said("edited; approvals of the old words count no more"))
}

/// Another target.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retarget {
    /// A watched branch.
    pub target: String,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/retarget`
pub async fn retarget(call: Call, input: Retarget) -> Answer<Said> {
    let target: BranchName = input.target.parse()?;
    let (repo, by, now) = (call.repo()?, call.actor()?, call.now());
    let ChangeRecord { number, target: from, came, .. } = open_change(&call).await?;
    let seen = came.clone();
    let look = move |live: &Live<Gate>| {
        live.state.may_go_on(number, seen.as_ref())?;
        live.state.permit_to_leave(&by, number, now)
    };
    gate(&call, GateId { repo: repo.clone(), branch: from.clone() }, look).await??;
    let to = GateId { repo, branch: target.clone() };
    let mut patience = call.shared().patience(to.clone());
    let retarget = towpath_forge::Retarget { target, came };
    let act = move |forge: &BuiltIn, at: &Acting| {
        let moved = forge.retarget(at.by, at.number, &retarget, at.now)?;
        faults::point("retarget", "written");
        Ok::<_, Failure>(moved)
    };
    let acted = on_forge(&call, act).await?;
    let held = match patience.has_arrived(&acted.change).await {
        true => {
            let look = move |live: &Live<Gate>| live.state.hold_of(number).cloned();
            let hold = call.shared().engine.gate(to, look).await.flatten();
            hold.map(|hold| format!("; {} holds it there, too", hold.by)).unwrap_or_default()
        }
        false => format!("; what held it is still being asked of `{from}`, and until then it does not land"),
    };
    let labels = match acted.change.labels.is_empty() {
        true => String::new(),
        false => format!(", with these labels: {}", in_words(&acted.change.labels)),
    };
    Ok(acted.said(format!("it is for `{}` now{labels}; earlier approvals count no more{held}", input.target)))
}

/// What to run again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The whole id of the revision that was looked at.
    pub revision: String,
    /// Only what did not pass; otherwise everything.
    #[serde(default)]
    pub failed: bool,
    /// The job of this name, or all of this key under `jobs:`, and what did not pass.
    #[serde(default)]
    pub job: Option<String>,
}

/// `POST /api/v1/repos/{repo}/changes/{change}/retry`
pub async fn retry(call: Call, input: Retry) -> Answer<Said> {
    let revision = input.revision.parse()?;
    let scope = match (input.job, input.failed) {
        (Some(job), _) => RetryScope::Job(job),
        (None, true) => RetryScope::NotPassed,
        (None, false) => RetryScope::All,
    };
    let (id, change) = gate_of(&call).await?;
    command(&call, id, Verb::Retry { change, revision, scope }).await
}
