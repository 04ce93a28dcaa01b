//! What a person asks for besides pushes: whatever was answered is there after any number of kills, and once.

use serde_json::Value;

use super::world::World;
use crate::failure::Failure;

/// One thing that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    kind: Kind,
    /// The round that it was asked for in, which its text names.
    number: u64,
    /// The change that it is about.
    change: u64,
    /// The server said that it is done. Where a kill cut the answer off, it may be done or not.
    is_answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Comment,
    Label,
    User,
    Hold,
}

impl Act {
    /// Asks for what it is the turn of in this round; for no hold where the change is to land before the kill.
    pub fn ask(world: &World, number: u64, change: u64, is_to_land: bool) -> Act {
        // Of a length that shares no factor with the six rounds after which kills repeat.
        let kind = match number % 5 {
            0 | 3 if !is_to_land => Kind::Hold,
            0 | 1 => Kind::Comment,
            2 | 3 => Kind::Label,
            _ => Kind::User,
        };
        let act = Act { kind, number, change, is_answered: false };
        Act { is_answered: world.cli(&words(&act.command(&world.repo))).is_ok(), ..act }
    }

    /// A held change that the next round lets go on.
    pub fn is_hold(&self) -> bool {
        self.kind == Kind::Hold
    }

    pub fn change(&self) -> u64 {
        self.change
    }

    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    fn text(&self) -> String {
        format!("asked-{}", self.number)
    }

    fn command(&self, repo: &str) -> Vec<String> {
        let (change, text) = (self.change.to_string(), self.text());
        let words = match self.kind {
            Kind::Comment => vec!["change", "comment", &change, &text, "--repo", repo],
            Kind::Label => vec!["change", "label", &change, &text, "--repo", repo],
            Kind::User => vec!["user", "add", &text],
            Kind::Hold => vec!["change", "hold", &change, "--why", &text, "--repo", repo],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// How often it is there, as the server shows it: a hold is released since, so only its leaf says that it was there.
    fn shown(&self, world: &World) -> Result<Option<usize>, Failure> {
        let text = self.text();
        let count = |values: &Value, is_it: &dyn Fn(&Value) -> bool| {
            values.as_array().map_or(0, |all| all.iter().filter(|value| is_it(value)).count())
        };
        Ok(match self.kind {
            Kind::Hold => None,
            Kind::User => {
                Some(world.json(&["user", "list"])?.iter().filter(|user| user["user"] == text).count())
            }
            Kind::Comment | Kind::Label => {
                let change = self.change.to_string();
                let shown = world.json(&["change", "show", &change, "--repo", &world.repo])?;
                let change = shown.into_iter().next().unwrap_or_default();
                Some(match self.kind {
                    Kind::Comment => count(&change["comments"], &|comment| comment["text"] == text),
                    _ => count(&change["labels"], &|label| *label == text),
                })
            }
        })
    }

    /// Whether a leaf of the record is this act's. A comment's does not hold its words.
    fn is_told_by(&self, told: &str, repo: &str) -> bool {
        let (text, of) = (self.text(), format!("({repo} change {})", self.change));
        match self.kind {
            Kind::Comment => told == format!("commented {of}"),
            Kind::Label => told.contains(&format!("\"{text}\"")) && told.ends_with(&of),
            Kind::User => told.starts_with("added user ") && told.ends_with(&format!("`{text}`")),
            Kind::Hold => told == format!("held change {}: {text}", self.change),
        }
    }
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

/// Acts that are not as they were answered, and such as stand in the record otherwise than they are.
pub fn check(world: &World, told: &[String]) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    let mut done = 0;
    for act in &world.acts {
        let shown = act.shown(world)?;
        // Another comment on the same change has a leaf that reads the same.
        let alike = world.acts.iter().filter(|other| other.kind == act.kind && other.change == act.change);
        let leaves = told.iter().filter(|told| act.is_told_by(told, &world.repo)).count();
        let of = Found { shown, leaves, alike: alike.count() };
        done += usize::from(leaves > 0);
        faults.extend(wrong(act, &of).map(|why| format!("{}: {why}", act.command(&world.repo).join(" "))));
    }
    println!("kill: {} acts were asked for, {done} are done", world.acts.len());
    Ok(faults)
}

/// What there is of an act.
struct Found {
    shown: Option<usize>,
    leaves: usize,
    /// Acts, itself included, whose leaves read like its own.
    alike: usize,
}

/// What is wrong with it; `None`: nothing.
fn wrong(act: &Act, found: &Found) -> Option<String> {
    let Found { shown, leaves, alike } = found;
    let told = shown.unwrap_or(*leaves);
    match (told, leaves) {
        (0, _) if act.is_answered => Some("was answered and is not there".to_owned()),
        (2.., _) => Some(format!("is there {told} times")),
        (1, 0) => Some("is there and in no leaf".to_owned()),
        (0, 1..) if *alike == 1 => Some("is in a leaf and not there".to_owned()),
        (_, leaves) if leaves > alike => Some(format!("is in {leaves} leaves")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_there_once_and_what_was_not_is_there_once_or_not_at_all() {
        let is_wrong = |is_answered, shown, leaves, alike| {
            let act = Act { kind: Kind::Comment, number: 5, change: 2, is_answered };
            wrong(&act, &Found { shown, leaves, alike }).is_some()
        };
        for is_answered in [true, false] {
            assert!(!is_wrong(is_answered, Some(1), 1, 1));
            assert_eq!(is_wrong(is_answered, Some(0), 0, 1), is_answered, "lost");
            assert_eq!(is_wrong(is_answered, None, 0, 1), is_answered, "a hold without a leaf");
            assert!(is_wrong(is_answered, Some(1), 0, 1), "no leaf");
            assert!(is_wrong(is_answered, Some(0), 1, 1), "a leaf alone");
            assert!(is_wrong(is_answered, Some(2), 2, 1), "twice");
            assert!(is_wrong(is_answered, Some(1), 2, 1), "two leaves");
            assert!(!is_wrong(is_answered, Some(1), 2, 2), "one is another comment's");
        }
    }

    #[test]
    fn a_leaf_is_known_by_what_it_says() {
        let act = |kind| Act { kind, number: 5, change: 2, is_answered: true };
        let told = [
            "commented (web change 2)",
            "set labels: on [\"asked-5\"], off [] (web change 2)",
            "added user 9 `asked-5`",
            "held change 2: asked-5",
        ];
        for (at, kind) in [Kind::Comment, Kind::Label, Kind::User, Kind::Hold].into_iter().enumerate() {
            let mine: Vec<usize> = (0..4).filter(|leaf| act(kind).is_told_by(told[*leaf], "web")).collect();
            assert_eq!(mine, [at]);
        }
    }
}
