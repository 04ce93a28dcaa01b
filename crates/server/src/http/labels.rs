//! Labels that are almost those by which people steer a gate.

use towpath_core::gate::Labels;
use towpath_core::ids::RepoName;
use towpath_forge::ChangeRecord;
use towpath_pipeline::nearest;
use towpath_store::View;

use super::error::Answer;
use super::records;

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

#[cfg(test)]
mod tests {
    use super::*;

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
