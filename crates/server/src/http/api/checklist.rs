//! What landing takes, item by item, read off the reasons that stand against it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::gate::Reason;
use towpath_core::ids::{BranchName, ChangeNumber};

use super::change_views::{Entry, ReasonView};

/// One item of what landing takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// What it takes.
    pub item: String,
    /// Whether that is so.
    pub met: bool,
    /// Why not. Empty although not met: it was not looked at yet.
    pub why: Vec<ReasonView>,
}

/// The items of the checklist, and which reasons stand against each.
type Against = fn(&Reason) -> bool;

const JOINS: &str = "it joins the branch without a conflict";
const USABLE: &str = "its pipeline can be used and tests something";
const TESTED: &str = "the required jobs passed";

const ITEMS: [(&str, Against); 9] = [
    ("it is ready, and nobody holds it", |reason| {
        matches!(reason, Reason::Draft | Reason::Label { .. } | Reason::Held { .. })
    }),
    ("its author is trusted", |reason| matches!(reason, Reason::Untrusted { .. })),
    (JOINS, |reason| {
        matches!(
            reason,
            Reason::Conflict { .. }
                | Reason::NoCandidate { .. }
                | Reason::NothingToLand
                | Reason::MakingCandidate
                | Reason::NoBranch
                | Reason::ReadingBranch
        )
    }),
    (USABLE, |reason| matches!(reason, Reason::BadDefinition { .. } | Reason::EmptySet)),
    (TESTED, |reason| {
        matches!(
            reason,
            Reason::TestsFailed { .. }
                | Reason::OurMachines { .. }
                | Reason::NotRun { .. }
                | Reason::RunCancelled { .. }
                | Reason::WaitsForRun { .. }
                | Reason::WaitsForChangeRuns { .. }
                | Reason::OverBudget { .. }
        )
    }),
    ("it is approved", |reason| {
        matches!(
            reason,
            Reason::Approvals { .. } | Reason::ChangesRequested { .. } | Reason::DefinitionApproval { .. }
        )
    }),
    ("it is its turn", |reason| matches!(reason, Reason::Ahead { .. })),
    ("the branch takes landings", |reason| {
        matches!(reason, Reason::Frozen { .. } | Reason::WaitsForDeploy { .. } | Reason::DeployIsDue { .. })
    }),
    ("everything outside works", |reason| matches!(reason, Reason::Trouble { .. })),
];

/// The checklist of a change to `target`.
pub fn checklist(reasons: &[Reason], entry: &Entry, target: &BranchName) -> Vec<Item> {
    // Nothing of an untrusted change or a draft is looked at; what was not looked at is not met.
    let looked_at = !reasons.iter().any(|reason| matches!(reason, Reason::Untrusted { .. } | Reason::Draft));
    let known = |item: &str| match item {
        JOINS | USABLE => looked_at,
        TESTED => looked_at && entry.tests == "passed",
        _ => true,
    };
    let number = ChangeNumber(entry.change);
    let item = |(item, against): &(&str, Against)| {
        let why = reasons.iter().filter(|reason| against(reason));
        let why: Vec<ReasonView> = why.map(|reason| ReasonView::of(reason, number, target)).collect();
        Item { item: (*item).to_owned(), met: why.is_empty() && known(item), why }
    };
    ITEMS.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_stands_against_exactly_one_item() {
        let commit = "0123456789012345678901234567890123456789".parse().unwrap();
        let run: towpath_core::ids::RunId = "demo/main/1".parse().unwrap();
        let text = String::from("x");
        let all = [
            Reason::NoBranch,
            Reason::Untrusted { revision: commit },
            Reason::Draft,
            Reason::Label { label: text.clone() },
            Reason::Held { by: text.clone(), why: text.clone() },
            Reason::Conflict { paths: vec![] },
            Reason::NoCandidate { why: text.clone() },
            Reason::NothingToLand,
            Reason::BadDefinition { errors: vec![] },
            Reason::TestsFailed { run: run.clone(), jobs: vec![] },
            Reason::OurMachines { run: run.clone(), jobs: vec![] },
            Reason::NotRun { run: run.clone(), jobs: vec![], why: text.clone() },
            Reason::RunCancelled { run: run.clone(), why: text.clone() },
            Reason::ChangesRequested { people: 1 },
            Reason::Approvals { have: 0, need: 1, revision: commit },
            Reason::DefinitionApproval { revision: commit },
            Reason::EmptySet,
            Reason::ReadingBranch,
            Reason::MakingCandidate,
            Reason::WaitsForRun { run: run.clone() },
            Reason::WaitsForChangeRuns { running: 1 },
            Reason::Ahead { changes: vec![] },
            Reason::WaitsForDeploy { run },
            Reason::DeployIsDue { commit },
            Reason::OverBudget { budget_seconds: 60, since: towpath_core::ids::Timestamp(0) },
            Reason::Frozen { by: text.clone(), why: text.clone() },
            Reason::Trouble { what: text.clone(), why: text },
        ];
        for reason in all {
            let against = ITEMS.iter().filter(|(_, against)| against(&reason)).count();
            assert_eq!(against, 1, "{reason:?}");
        }
        assert_eq!(ITEMS.iter().filter(|(_, against)| against(&Reason::Landing)).count(), 0);
    }

    #[test]
    fn what_was_never_tested_is_not_shown_as_passed() {
        let entry = Entry {
            change: 1,
            title: String::new(),
            revision: String::new(),
            labels: BTreeSet::new(),
            draft: true,
            tests: "untested".into(),
            run: None,
            level: "authorised".into(),
            reasons: Vec::new(),
        };
        let list = checklist(&[Reason::Draft], &entry, &"main".parse().unwrap());
        let met: Vec<&str> = list.iter().filter(|item| item.met).map(|item| item.item.as_str()).collect();
        assert!(!met.contains(&TESTED) && !met.contains(&JOINS) && met.contains(&"it is approved"));
    }
}
