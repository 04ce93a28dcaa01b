//! Alerts as they are shown: those whose cause goes on, and those that are history.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::effect::EffectKey;
use towpath_core::ids::{GateId, Timestamp};
use towpath_store::records::Alert;

use super::millis;
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::selves;

/// Alerts of a branch that its view has.
const ALERTS_SHOWN: usize = 50;
/// How long an alert that nobody can call over is news: a week, in which everybody has had a working day.
const NEWS_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Something that the people who look after a branch have to know.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AlertView {
    /// What happened and what to do.
    pub text: String,
    /// When it was told.
    pub at: i64,
    /// Whether it is still so; else it is history.
    pub current: bool,
}

/// The newest alerts of a branch, newest first. Its gate says which `go_on`.
///
/// # Errors
/// They cannot be read.
pub async fn of(call: &Call, gate: &GateId, go_on: BTreeSet<EffectKey>) -> Answer<Vec<AlertView>> {
    let of = gate.clone();
    let read = call.read(move |view| {
        let server = selves::marked(view)?.filter(|environment| environment.repo == of.repo);
        Ok((view.alerts_of(&of, ALERTS_SHOWN)?, server))
    });
    let (alerts, server) = read.await?;
    let unreplaced = match server {
        Some(server) => call.shared().engine.environment(server, |live| live.state.alert()).await.flatten(),
        None => None,
    };
    Ok(views(alerts, go_on.into_iter().chain(unreplaced).collect(), call.now()))
}

/// The newest alert of a cause says how it is now: the same told before is history.
fn views(alerts: Vec<Alert>, mut go_on: BTreeSet<EffectKey>, now: Timestamp) -> Vec<AlertView> {
    let mut seen = BTreeSet::new();
    let view = |alert: Alert| {
        let current = match &alert.cause {
            Some(cause) => go_on.remove(cause),
            None => now.0 - alert.at.0 < NEWS_MS && seen.insert(alert.text.clone()),
        };
        AlertView { text: alert.text, at: millis(alert.at), current }
    };
    alerts.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(cause: Option<&str>, text: &str, at: i64) -> Alert {
        let cause = cause.map(|cause| EffectKey::once(cause, "demo/main", 1));
        let (repo, branch) = ("demo".parse().unwrap(), "main".parse().unwrap());
        Alert { repo, branch, cause, text: text.into(), at: Timestamp(at) }
    }

    #[track_caller]
    fn check(alerts: Vec<Alert>, now: i64, current: &[bool]) {
        let go_on = BTreeSet::from([EffectKey::once("alert-halt", "demo/main", 1)]);
        let views = views(alerts, go_on, Timestamp(now));
        assert_eq!(views.iter().map(|view| view.current).collect::<Vec<_>>(), current);
    }

    #[test]
    fn an_alert_is_news_for_as_long_as_its_cause_goes_on() {
        let again = [alert(Some("alert-halt"), "b", 9), alert(Some("alert-halt"), "a", 5)];
        check(
            [again.to_vec(), vec![alert(Some("alert-deploy"), "c", 4)]].concat(),
            10,
            &[true, false, false],
        );
        check(vec![alert(Some("alert-halt"), "a", 0)], 2 * NEWS_MS, &[true]);
    }

    #[test]
    fn an_alert_that_nobody_can_call_over_is_news_for_a_week() {
        let twice = vec![alert(None, "a", 9), alert(None, "a", 5), alert(None, "b", 4)];
        check(twice, 10, &[true, false, true]);
        check(vec![alert(None, "a", 0)], NEWS_MS - 1, &[true]);
        check(vec![alert(None, "a", 0)], NEWS_MS, &[false]);
    }
}
