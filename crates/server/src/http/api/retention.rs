//! How long what is kept, and having it looked after now.

use super::{Nothing, Said};
use crate::auth::accounts::note;
use crate::housekeeping::{Figures, Retention};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};

/// `GET /api/v1/retention`
pub async fn show(call: Call, _: Nothing) -> Answer<Retention> {
    call.read(|view| Ok(Retention::read(view)?)).await
}

/// `PUT /api/v1/retention`
pub async fn set(call: Call, input: Retention) -> Answer<Said> {
    if input.grace_days == 0 || input.every_hours == 0 {
        return Err(ApiError::invalid("`grace_days` and `every_hours` are 1 at least"));
    }
    let (by, now) = (call.actor()?, call.now());
    call.write(move |tx| {
        input.write(tx)?;
        let text = serde_json::to_string(&input).expect("invariant: numbers are JSON");
        note(tx, Some(&by), now, format!("set retention: {text}"));
        Ok(())
    })
    .await?;
    Ok(Said::new("set; it holds from the next time on"))
}

/// `POST /api/v1/housekeeping`
pub async fn keep_now(call: Call, _: Nothing) -> Answer<Figures> {
    let figures = call.shared().housekeeping.now().await;
    figures.ok_or_else(|| ApiError::new(Class::Unavailable, "the server stops"))
}
