//! Holds and their ends. Both are said at the branch on which the change is, once that knows what came along with it; who holds
//! a change that was landing already is told what came of that.

use towpath_core::cell::RefusalClass;
use towpath_core::gate::{Gate, Verb};
use towpath_core::ids::{ChangeNumber, CommitId, GateId};
use towpath_core::turn::Live;
use towpath_forge::{ChangeRecord, ChangeState};

use super::change_acts::open_change;
use super::{Nothing, Said, Why, changes, checked_why, gate};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};

/// Times that something is said of a change that is moved all the time. Source: the time of so many readings is within the
/// deadline of a request.
const TRIES_MAX: usize = 4;

/// `POST /api/v1/repos/{repo}/changes/{change}/hold`
pub async fn hold(call: Call, input: Why) -> Answer<Said> {
    let (why, change) = (checked_why(&input.why)?, call.change()?);
    let (id, said) = command_where_it_is(&call, Verb::Hold { change, why }).await?;
    let is_over = call.shared().patience(id.clone()).lands_no_more(change).await;
    match (landed(&call, id, change).await?, is_over) {
        (Some(commit), _) => {
            let why = format!("change {change} landed as {commit} before the hold could stop it");
            let hint = "what comes next is a new change: `git revert` makes one that takes it back";
            Err(ApiError::new(Class::Conflict, why).hint(hint))
        }
        (None, true) => Ok(said),
        (None, false) => {
            Ok(Said::with(said.said, Some("a landing of it was under way and may still be done".into())))
        }
    }
}

/// `POST /api/v1/repos/{repo}/changes/{change}/release`
pub async fn release(call: Call, _: Nothing) -> Answer<Said> {
    let change = call.change()?;
    Ok(command_where_it_is(&call, Verb::Release { change }).await?.1)
}

/// Gives a command to the gate at which a change is by now. No other one takes it, and that one only once it knows what came
/// along with the change.
async fn command_where_it_is(call: &Call, verb: Verb) -> Answer<(GateId, Said)> {
    let (repo, number) = (call.repo()?, call.change()?);
    let mut seen = open_change(call).await?;
    for _ in 0..TRIES_MAX {
        let id = GateId { repo: repo.clone(), branch: seen.target.clone() };
        gate(call, id.clone(), |_| ()).await?;
        let answer = call.shared().engine.command(id.clone(), call.actor()?, verb.clone()).await?;
        let refusal = match answer {
            Ok(said) => return Ok((id, Said::new(said))),
            Err(refusal) => refusal,
        };
        if !matches!(refusal.class, RefusalClass::NotYet | RefusalClass::NotFound) {
            return Err(refusal.into());
        }
        let mut now = open_change(call).await?;
        if is_where(&now, &seen) && !is_known_in_time(call, &id, &now).await {
            now = open_change(call).await?;
            if is_where(&now, &seen) {
                let why = format!("`{}` does not know yet what came along with change {number}", id.branch);
                let hint = format!("try again; `towpath change why {number}` says what it waits for");
                return Err(ApiError::new(Class::Conflict, why).hint(hint));
            }
        }
        seen = now;
    }
    let why = format!("change {number} goes from branch to branch; try again");
    Err(ApiError::new(Class::Conflict, why))
}

/// Whether nobody has moved a change since it was seen.
fn is_where(change: &ChangeRecord, seen: &ChangeRecord) -> bool {
    (&change.target, &change.came) == (&seen.target, &seen.came)
}

async fn is_known_in_time(call: &Call, id: &GateId, change: &ChangeRecord) -> bool {
    let mut patience = call.shared().patience(id.clone());
    call.shared().ring(id);
    patience.has_arrived(change).await
}

/// As what a change has landed. Its gate may know before its record says so, and forgets it once that does.
async fn landed(call: &Call, id: GateId, number: ChangeNumber) -> Answer<Option<CommitId>> {
    let repo = id.repo.clone();
    let known = move |live: &Live<Gate>| live.state.landed().get(&number).map(|landed| landed.commit);
    if let Some(commit) = gate(call, id, known).await? {
        return Ok(Some(commit));
    }
    match changes::record(call, &repo, number).await?.state {
        ChangeState::Landed { commit } => Ok(Some(commit)),
        ChangeState::Open | ChangeState::Closed { .. } => Ok(None),
    }
}
