//! The known word that was probably meant.

/// Words compared for one hint. A file may have 10,000 jobs and 100 misspelt needs.
const WORDS_COMPARED_MAX: usize = 1000;
/// Characters beyond which a word is compared with nothing. Comparing costs the product of both lengths.
const WORD_CHARS_MAX: usize = 40;

/// The nearest of `known`, if it is near enough to be a slip of the hand: one edit in three characters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_CHARS_MAX {
        return None;
    }
    let length = word.chars().count();
    let edits_max = (length / 3).max(1).min(length - 1);
    let lower = word.to_lowercase();
    known
        .into_iter()
        .take(WORDS_COMPARED_MAX)
        .filter(|other| other.len() <= WORD_CHARS_MAX && other.len().abs_diff(word.len()) <= 2 * edits_max)
        .map(|other| (strsim::osa_distance(&lower, &other.to_lowercase()), other))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_are_recognised_and_other_words_are_not() {
        let known = ["timeout", "run", "needs", "network", "env"];
        for (word, expected) in [
            ("timout", Some("timeout")),
            ("Needs", Some("needs")),
            ("rn", Some("run")),
            ("netwrok", Some("network")),
            ("image", None),
            ("", None),
            ("e", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
