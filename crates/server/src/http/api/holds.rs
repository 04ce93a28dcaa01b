//! Holds and their ends. Both are said at the branch on which the change is, once that knows what came along with it.

use towpath_core::cell::RefusalClass;
use towpath_core::gate::Verb;
use towpath_core::ids::GateId;
use towpath_forge::ChangeRecord;

use super::change_acts::open_change;
use super::{Nothing, Said, Why, checked_why, gate};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};

/// Times that something is said of a change that is moved all the time. Source: the time of so many readings is within the
/// deadline of a request.
const TRIES_MAX: usize = 4;

/// `POST /api/v1/repos/{repo}/changes/{change}/hold`
pub async fn hold(call: Call, input: Why) -> Answer<Said> {
    let (why, change) = (checked_why(&input.why)?, call.change()?);
    command_where_it_is(&call, Verb::Hold { change, why }).await
}

/// `POST /api/v1/repos/{repo}/changes/{change}/release`
pub async fn release(call: Call, _: Nothing) -> Answer<Said> {
    let change = call.change()?;
    command_where_it_is(&call, Verb::Release { change }).await
}

/// Gives a command to the gate at which a change is by now. No other one takes it, and that one only once it knows what came
/// along with the change.
async fn command_where_it_is(call: &Call, verb: Verb) -> Answer<Said> {
    let (repo, number) = (call.repo()?, call.change()?);
    let mut seen = open_change(call).await?;
    for _ in 0..TRIES_MAX {
        let id = GateId { repo: repo.clone(), branch: seen.target.clone() };
        gate(call, id.clone(), |_| ()).await?;
        let answer = call.shared().engine.command(id.clone(), call.actor()?, verb.clone()).await?;
        let refusal = match answer {
            Ok(said) => return Ok(Said::new(said)),
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
