//! What stands behind `git push -o`.

use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::{BranchName, ChangeNumber};

/// Options of one push.
const OPTIONS_MAX: usize = 64;
/// The words for people.
const KNOWN: &str =
    "change, change=<number>, target=<branch>, title=<text>, body=<text>, label=<name>, draft, ready";

/// The options of a push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushOptions {
    /// Branches are proposed and not stored.
    pub change: bool,
    /// The change that is meant.
    pub number: Option<ChangeNumber>,
    /// The branch that it should be on.
    pub target: Option<BranchName>,
    /// Its title.
    pub title: Option<String>,
    /// Its body.
    pub body: Option<String>,
    /// Labels to put on.
    pub labels: Vec<String>,
    /// A draft, or ready.
    pub draft: Option<bool>,
}

impl PushOptions {
    /// Reads the options as git sends them.
    pub fn parse(options: &[String]) -> Result<PushOptions, Refusal> {
        if options.len() > OPTIONS_MAX {
            return Err(invalid(format!("a push has at most {OPTIONS_MAX} options")));
        }
        let mut parsed = PushOptions::default();
        for option in options {
            parsed.take(option)?;
        }
        Ok(parsed)
    }

    /// Whether anything is said that only a change can have.
    pub fn speak_of_a_change(&self) -> bool {
        *self != PushOptions::default()
    }

    fn take(&mut self, option: &str) -> Result<(), Refusal> {
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("change", None) => self.change = true,
            ("change", Some(number)) => {
                let number =
                    number.parse().map_err(|_| invalid(format!("`{number}` is no change's number")))?;
                (self.change, self.number) = (true, Some(number));
            }
            ("target", Some(branch)) => {
                self.target = Some(branch.parse().map_err(|error| invalid(format!("{error}")))?);
            }
            ("title", Some(title)) => self.title = Some(title.to_owned()),
            ("body", Some(body)) => self.body = Some(body.to_owned()),
            ("label", Some(label)) => self.labels.push(label.to_owned()),
            ("draft", None) if self.draft != Some(false) => self.draft = Some(true),
            ("ready", None) if self.draft != Some(true) => self.draft = Some(false),
            ("draft" | "ready", None) => return Err(invalid("a change is a draft or ready, not both")),
            _ => {
                let shown: String = key.chars().take(40).filter(|c| !c.is_control()).collect();
                return Err(invalid(format!(
                    "there is no push option `{shown}` of this form; there are: {KNOWN}"
                )));
            }
        }
        Ok(())
    }
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(RefusalClass::Invalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<PushOptions, Refusal> {
        PushOptions::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options =
            parse(&["change=7", "title=a = b", "label=x", "label=y", "target=main", "draft"]).unwrap();
        assert_eq!((options.change, options.number), (true, Some(ChangeNumber(7))));
        assert_eq!((options.title.as_deref(), options.labels.len()), (Some("a = b"), 2));
        assert_eq!(options.draft, Some(true));
        assert!(!parse(&[]).unwrap().speak_of_a_change());
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for wrong in [&["chnage"][..], &["draft", "ready"], &["change=x"], &["target=a..b"], &["title"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["merge"]).unwrap_err().why.contains("there are: change"));
    }
}
