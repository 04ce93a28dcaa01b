//! The pages' forms. Each does what a route of the API does, and leads back to the page that it is on.

use axum::response::Response;

use super::problem::{self, Written};
use crate::http::api::change_acts::{self as acts, Comment, Labels, Retry, Review, Vouch};
use crate::http::api::{Nothing, Said, Why, branches, holds, runs};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};
use crate::http::links;
use crate::http::login::{Form, redirect};

/// Fields that a person fills in themselves, and what each is to them.
const WRITTEN: [(&str, &str); 4] = [
    ("text", "What you wrote"),
    ("why", "The reason that you wrote"),
    ("add", "The label that you wrote"),
    ("hours", "The hours that you wrote"),
];

/// Leads back after what was done; shows why it was not, with what was written: the page that it leads back to does not have it.
fn done(call: &Call, form: &Form, said: Answer<Said>, back: String) -> Answer<Response> {
    match said {
        Ok(_) => Ok(redirect(&back)),
        Err(error) => Ok(problem::of_form(call, &explained(call, error), &back, written(form))),
    }
}

fn written(form: &Form) -> Vec<Written> {
    let of = |(name, label)| Written::new(label, form.sent(name).trim());
    WRITTEN.into_iter().map(of).filter(|written| !written.text.is_empty()).collect()
}

fn explained(call: &Call, error: ApiError) -> ApiError {
    let hint = match error.class {
        Class::Conflict => "the page shows how it is now; look at it, and decide again",
        Class::Invalid => "go back, mend what the form has there, and send it again",
        _ => return call.told(error),
    };
    match error.hint {
        Some(_) => call.told(error),
        None => call.told(error.hint(hint)),
    }
}

fn why(form: &Form) -> Why {
    Why { why: form.get("why").to_owned() }
}

/// What a form says, unless it says nothing.
fn given(form: &Form, name: &str) -> Option<String> {
    let value = form.get(name).trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn branch_page(call: &Call) -> Answer<String> {
    Ok(links::branch(&call.gate()?))
}

/// `POST /{repo}/branches/{branch}/freeze`
pub async fn freeze(call: Call, form: Form) -> Answer<Response> {
    let back = branch_page(&call)?;
    done(&call, &form, branches::freeze(call.clone(), why(&form)).await, back)
}

/// `POST /{repo}/branches/{branch}/unfreeze`
pub async fn unfreeze(call: Call, form: Form) -> Answer<Response> {
    let back = branch_page(&call)?;
    done(&call, &form, branches::unfreeze(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/branches/{branch}/accept`
pub async fn accept(call: Call, form: Form) -> Answer<Response> {
    let back = branch_page(&call)?;
    let tip = branches::Accept { tip: form.get("tip").to_owned() };
    done(&call, &form, branches::accept(call.clone(), tip).await, back)
}

/// `POST /{repo}/branches/{branch}/deploy`
pub async fn deploy(call: Call, form: Form) -> Answer<Response> {
    let back = branch_page(&call)?;
    done(&call, &form, branches::deploy(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/branches/{branch}/ring`
pub async fn ring(call: Call, form: Form) -> Answer<Response> {
    let back = branch_page(&call)?;
    done(&call, &form, branches::ring(call.clone(), Nothing {}).await, back)
}

fn change_page(call: &Call) -> Answer<String> {
    Ok(links::change(&call.repo()?, call.change()?))
}

/// What a verdict's form has as its definition where the page shows none.
pub const NO_DEFINITION: &str = "none";

/// Fields of a verdict's form.
pub const REVIEW: &[&str] = &["revision", "target", "message", "definition", "text"];

/// What was on the page: a verdict counts for just that.
///
/// # Errors
/// `Invalid`: the form does not say what it was shown for.
fn review(form: &Form) -> Answer<Review> {
    let shown =
        |name| given(form, name).ok_or_else(|| ApiError::invalid(format!("the form has no `{name}`")));
    let definition = shown("definition")?;
    Ok(Review {
        revision: shown("revision")?,
        target: Some(shown("target")?),
        message: Some(shown("message")?),
        definition: (definition != NO_DEFINITION).then_some(definition),
        text: form.get("text").trim().to_owned(),
    })
}

/// `POST /{repo}/changes/{change}/approve`
pub async fn approve(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    let said = async { acts::approve(call.clone(), review(&form)?).await };
    done(&call, &form, said.await, back)
}

/// `POST /{repo}/changes/{change}/request-changes`
pub async fn request_changes(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    let said = async { acts::request_changes(call.clone(), review(&form)?).await };
    done(&call, &form, said.await, back)
}

/// `POST /{repo}/changes/{change}/withdraw`
pub async fn withdraw(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, acts::withdraw(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/changes/{change}/vouch`
pub async fn vouch(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    let said = async { acts::vouch(call.clone(), vouch_of(&form)?).await };
    done(&call, &form, said.await, back)
}

fn vouch_of(form: &Form) -> Answer<Vouch> {
    let seconds = given(form, "hours").map(|hours| seconds_of(&hours)).transpose()?;
    let (revision, definition) = (form.get("revision").to_owned(), given(form, "definition"));
    Ok(Vouch { revision, definition, why: form.get("why").to_owned(), seconds })
}

fn seconds_of(hours: &str) -> Answer<u32> {
    let seconds = hours.parse::<u32>().ok().and_then(|hours| hours.checked_mul(3600));
    seconds.ok_or_else(|| ApiError::invalid(format!("`{hours}` is no number of hours")).hint("write say 24"))
}

/// `POST /{repo}/changes/{change}/comment`
pub async fn comment(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    let text = form.get("text").trim().to_owned();
    done(&call, &form, acts::comment(call.clone(), Comment { text }).await, back)
}

/// `POST /{repo}/changes/{change}/label`
pub async fn label(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    let labels = Labels {
        add: given(&form, "add").into_iter().collect(),
        remove: given(&form, "remove").into_iter().collect(),
    };
    done(&call, &form, acts::label(call.clone(), labels).await, back)
}

/// `POST /{repo}/changes/{change}/hold`
pub async fn hold(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, holds::hold(call.clone(), why(&form)).await, back)
}

/// `POST /{repo}/changes/{change}/release`
pub async fn release(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, holds::release(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/changes/{change}/close`
pub async fn close(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, acts::close(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/changes/{change}/reopen`
pub async fn reopen(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, acts::reopen(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/changes/{change}/draft`
pub async fn draft(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, acts::draft(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/changes/{change}/ready`
pub async fn ready(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    done(&call, &form, acts::ready(call.clone(), Nothing {}).await, back)
}

/// `POST /{repo}/changes/{change}/retry`
pub async fn retry(call: Call, form: Form) -> Answer<Response> {
    let back = change_page(&call)?;
    let retry = Retry {
        revision: form.get("revision").to_owned(),
        failed: form.get("scope") == "failed",
        job: given(&form, "job"),
    };
    done(&call, &form, acts::retry(call.clone(), retry).await, back)
}

/// `POST /{repo}/runs/{branch}/{run}/cancel`
pub async fn cancel(call: Call, form: Form) -> Answer<Response> {
    let back = links::run(&call.run()?);
    done(&call, &form, runs::cancel(call.clone(), why(&form)).await, back)
}
