//! Labels by which people steer a gate: those that are almost one, and those that are to be called otherwise.

use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::gate::Labels;
use towpath_core::ids::{BranchName, ChangeNumber, RepoName};
use towpath_forge::ChangeRecord;
use towpath_pipeline::nearest;
use towpath_store::records::ChangeQuery;
use towpath_store::{View, WriteError};

use super::error::Answer;
use super::records;
use crate::settings::RepoSettings;

/// Changes that a refusal names at most; a list of all of them is a command's.
const CHANGES_NAMED_MAX: usize = 10;

/// What to say of the labels of a change that do nothing, and may have been meant to: a line for each.
///
/// # Errors
/// Those of reading.
pub fn near(view: &View, repo: &RepoName, change: &ChangeRecord) -> Answer<Vec<String>> {
    let settings = records::settings(view, repo)?;
    let Some(gate) = settings.branches.get(&change.target) else { return Ok(Vec::new()) };
    Ok(change.labels.iter().filter_map(|label| note(label, &gate.labels)).collect())
}

fn note(label: &str, known: &Labels) -> Option<String> {
    let meanings = [
        (&known.urgent, "lets a change go first"),
        (&known.wip, "keeps a change from landing"),
        (&known.stacked, "keeps a change from landing"),
        (&known.never, "keeps a change from landing"),
        (&known.no_test, "keeps a change from being tested and from landing"),
        (&known.rerun_all, "has every job run"),
    ];
    if meanings.iter().any(|(known, _)| *known == label) {
        return None;
    }
    let meant = nearest(label, meanings.iter().map(|(known, _)| known.as_str()))?;
    let (_, meaning) = meanings.iter().find(|(known, _)| *known == meant)?;
    Some(format!("note: the label `{label}` does nothing; `{meant}` is the one that {meaning}"))
}

/// Looks whether a label that settings call otherwise is on a change without its new name: nothing would steer the change
/// any more, and what kept it from landing would be gone.
///
/// # Errors
/// Such a change, as a refusal, or those of reading.
pub fn check_renames(
    view: &View,
    repo: &RepoName,
    (before, after): (&RepoSettings, &RepoSettings),
) -> Result<(), WriteError> {
    for (branch, old) in &before.branches {
        let Some(new) = after.branches.get(branch) else { continue };
        let pairs = old.labels.all().into_iter().zip(new.labels.all());
        for (name, new) in pairs.filter(|(name, new)| name != new) {
            // An owner who could not take it off reopens the change without a word of anybody else.
            let outlives_a_close = *name == old.labels.never;
            let states: &[&str] = if outlives_a_close { &["open", "closed"] } else { &["open"] };
            let mut left = Vec::new();
            for state in states {
                left.extend(without(view, (repo, branch, state), (name, new))?);
            }
            if !left.is_empty() {
                let why = rename_refused(branch, &left, (name, new));
                return Err(WriteError::Refused(Refusal::new(RefusalClass::Conflict, why)));
            }
        }
    }
    Ok(())
}

/// The changes that have one label and not the other.
fn without(
    view: &View,
    (repo, target, state): (&RepoName, &BranchName, &str),
    (name, new): (&String, &String),
) -> Result<Vec<ChangeNumber>, WriteError> {
    let query = ChangeQuery {
        repo: Some(repo.clone()),
        target: Some(target.clone()),
        state: Some(state.to_owned()),
        ..ChangeQuery::default()
    };
    let mut found = Vec::new();
    for row in view.changes(&query)? {
        let number = row.number;
        let saved =
            crate::forges::saved(row).map_err(|error| WriteError::Damaged { why: error.to_string() })?;
        let labels = &saved.change.labels;
        if labels.contains(name) && !labels.contains(new) {
            found.push(number);
        }
    }
    Ok(found)
}

fn rename_refused(branch: &BranchName, changes: &[ChangeNumber], (name, new): (&str, &str)) -> String {
    let named = changes.iter().take(CHANGES_NAMED_MAX).map(ChangeNumber::to_string);
    let named = named.collect::<Vec<_>>().join(", ");
    let (changes, them) = match changes.len() {
        1 => (format!("change {named} has"), "it"),
        count if count > CHANGES_NAMED_MAX => {
            (format!("changes {named} and {} more have", count - CHANGES_NAMED_MAX), "them")
        }
        _ => (format!("changes {named} have"), "them"),
    };
    format!(
        "{changes} the label `{name}` of `{branch}`, which would steer {them} no more: put `{new}` on {them} as well before \
         you set the settings, or take `{name}` off"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_rename_names_a_few_of_the_changes() {
        let said = |count: u64| {
            let changes: Vec<ChangeNumber> = (1..=count).map(ChangeNumber).collect();
            rename_refused(&"main".parse().unwrap(), &changes, ("WIP", "not yet"))
        };
        assert_eq!(
            said(1),
            "change 1 has the label `WIP` of `main`, which would steer it no more: put `not yet` on it as well before you \
             set the settings, or take `WIP` off"
        );
        assert!(said(3).starts_with("changes 1, 2, 3 have the label"), "{}", said(3));
        assert!(
            said(12).starts_with("changes 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more have"),
            "{}",
            said(12)
        );
    }

    #[test]
    fn a_slip_of_the_hand_is_told_from_a_label_of_ones_own() {
        let known = Labels::default();
        let said = |label: &str| note(label, &known);
        let slip = format!("{}x", known.never);
        let expected = format!(
            "note: the label `{slip}` does nothing; `{}` is the one that keeps a change from landing",
            known.never
        );
        assert_eq!(said(&slip), Some(expected));
        assert!(said(&known.never.to_lowercase()).is_some(), "case counts");
        for fine in [known.never.as_str(), known.urgent.as_str(), "documentation", "ui"] {
            assert_eq!(said(fine), None, "{fine}");
        }
    }
}
