//! Rules about the list of attacks.

use super::source::words;
use super::tree::{Finding, Tree};
use crate::attacks;

/// The list itself.
const LIST: &str = "crates/xtask/src/attacks/cases.rs";

/// Every attack that what it attacks exists for has a test that bears its id.
pub fn attacks(tree: &Tree) -> Vec<Finding> {
    let tests: Vec<&str> = tree
        .rust
        .values()
        .flat_map(|source| source.lines().filter(|(.., is_test)| *is_test))
        .flat_map(|(_, code, _)| words(code).map(|(_, word)| word))
        .collect();
    let has_test = |id: &str| tests.iter().any(|name| attacks::is_of(name, id));
    attacks::ids_with_tests()
        .filter(|id| !has_test(id))
        .map(|id| Finding::file(LIST, format!("no test bears the id {id} in its name")))
        .collect()
}
