//! Alerts as they are shown: those whose cause goes on, and those that are history.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::effect::EffectKey;
use towpath_core::ids::{GateId, Timestamp};
use towpath_store::records::{Alert, PAGE_ROWS_MAX};

use super::millis;
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::selves;

/// Alerts whose cause goes on that the view of a branch has: more than anybody reads one by one.
const CURRENT_SHOWN: usize = 50;
/// Alerts that are history that it has beside them.
const PAST_SHOWN: usize = 50;
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

/// Alerts of a branch.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    /// Those whose cause goes on, and the newest that are history: newest first.
    pub shown: Vec<AlertView>,
    /// How many more go on.
    pub more: usize,
}

/// The alerts of a branch. Its gate says which `go_on`: those are found however much was told since.
///
/// # Errors
/// They cannot be read.
pub async fn of(call: &Call, gate: &GateId, go_on: BTreeSet<EffectKey>) -> Answer<Alerts> {
    let of = gate.clone();
    let read = call.read(move |view| {
        let server = selves::marked(view)?.filter(|environment| environment.repo == of.repo);
        Ok((view.alerts_of(&of, PAGE_ROWS_MAX)?, server))
    });
    let (alerts, server) = read.await?;
    let unreplaced = match server {
        Some(server) => call.shared().engine.environment(server, |live| live.state.alert()).await.flatten(),
        None => None,
    };
    Ok(shown(views(alerts, go_on.into_iter().chain(unreplaced).collect(), call.now())))
}

fn shown(alerts: Vec<AlertView>) -> Alerts {
    let (mut current, mut past) = (0, 0);
    let has_room = |alert: &AlertView| {
        let (count, max) = match alert.current {
            true => (&mut current, CURRENT_SHOWN),
            false => (&mut past, PAST_SHOWN),
        };
        *count += 1;
        *count <= max
    };
    let shown = alerts.into_iter().filter(has_room).collect();
    Alerts { shown, more: current.saturating_sub(CURRENT_SHOWN) }
}

impl Alerts {
    /// What has to be known now, so many at most.
    #[must_use]
    pub fn news(&self, count: usize) -> Alerts {
        let current = || self.shown.iter().filter(|alert| alert.current);
        let more = self.more + current().count().saturating_sub(count);
        Alerts { shown: current().take(count).cloned().collect(), more }
    }
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
    fn an_alert_whose_cause_goes_on_is_shown_whatever_was_told_since() {
        let cause = |number: usize| EffectKey::once("alert-budget", format!("demo/main {number}"), 1);
        let told =
            |number: usize| Alert { cause: Some(cause(number)), ..alert(None, "late", 200 - number as i64) };
        let of = |go_on: std::ops::Range<usize>| {
            shown(views((0..200).map(told).collect(), go_on.map(cause).collect(), Timestamp(200)))
        };
        let one = of(199..200);
        assert_eq!((one.shown.len(), one.more), (PAST_SHOWN + 1, 0));
        assert!(one.shown[PAST_SHOWN].current && one.news(5).shown[0].at == 1);
        let many = of(80..200);
        assert_eq!((many.shown.len(), many.more), (PAST_SHOWN + CURRENT_SHOWN, 70));
        let news = many.news(5);
        assert_eq!((news.shown.len(), news.shown[0].at, news.more), (5, 120, 115));
    }

    #[test]
    fn an_alert_that_nobody_can_call_over_is_news_for_a_week() {
        let twice = vec![alert(None, "a", 9), alert(None, "a", 5), alert(None, "b", 4)];
        check(twice, 10, &[true, false, true]);
        check(vec![alert(None, "a", 0)], NEWS_MS - 1, &[true]);
        check(vec![alert(None, "a", 0)], NEWS_MS, &[false]);
    }
}
