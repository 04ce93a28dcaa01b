//! Why git did not take a pack in, said as every refusal is: git's own answer names the object and then an exit of a program.

use super::packet::{Packet, band};
use super::report::shown;

/// What git calls a pack that was taken in.
const TAKEN: &[u8] = b"unpack ok";
/// Where git's checks of objects have found something.
const FSCK: &str = "fsck error";
const FSCK_HINT: &str = "hint: `git fsck` in the clone shows it; make what is wrong anew, and push that";

/// Git's answer to a push, with our own lines below git's where it did not take the pack in.
pub(super) fn explained(answer: Vec<u8>) -> Vec<u8> {
    let Some((at, said)) = untaken(&answer) else { return answer };
    let text: String = refusal(&said).iter().map(|line| format!("{line}\n")).collect();
    [&answer[..at], &band(2, text.as_bytes()), &answer[at..]].concat()
}

/// Where the report of a pack that was not taken begins, and what git has said by then. An answer without bands has no
/// place for more than the report.
fn untaken(answer: &[u8]) -> Option<(usize, String)> {
    let (mut rest, mut said) = (answer, Vec::new());
    loop {
        let at = answer.len() - rest.len();
        let Ok(Some(Packet::Data(data))) = Packet::read(&mut rest) else { return None };
        match data.split_first()? {
            (2, piece) => said.extend_from_slice(piece),
            (1, report) => {
                let Ok(Some(Packet::Data(first))) = Packet::read(&mut &*report) else { return None };
                let taken = first.trim_ascii_end() == TAKEN;
                return (!taken).then(|| (at, String::from_utf8_lossy(&said).into_owned()));
            }
            _ => return None,
        }
    }
}

fn refusal(said: &str) -> Vec<String> {
    let of = |kind: &str| said.lines().rev().find_map(|line| line.strip_prefix(kind)).map(shown);
    match said.contains(FSCK) {
        true => {
            let why = of("error: ").map(|why| format!(": {why}")).unwrap_or_default();
            let what =
                format!("refused: what was pushed does not pass git's own checks{why}; nothing was taken");
            vec![what, FSCK_HINT.to_owned()]
        }
        false => {
            let why = of("fatal: ").or_else(|| of("error: "));
            let why = why.unwrap_or_else(|| "it did not say why".to_owned());
            vec![format!("refused: git could not take in what was pushed: {why}; nothing was taken")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{line, text_line};
    use super::*;

    fn answer(unpack: &str, said: &str) -> Vec<u8> {
        let report =
            [text_line(unpack), text_line("ng refs/heads/a unpacker error"), b"0000".to_vec()].concat();
        [band(2, said.as_bytes()), band(1, &report), b"0000".to_vec()].concat()
    }

    #[track_caller]
    fn check(answer: &[u8], added: Option<&str>) {
        let explained = explained(answer.to_vec());
        let text = String::from_utf8_lossy(&explained);
        match added {
            None => assert_eq!(explained, answer),
            Some(added) => assert!(text.contains(added) && text.find(added) < text.find("unpack "), "{text}"),
        }
    }

    #[test]
    fn what_git_did_not_take_is_refused_in_our_words() {
        let found =
            "error: object 1234: badFilemode: contains bad file modes\nfatal: fsck error in packed object\n";
        let why = "checks: object 1234: badFilemode: contains bad file modes; nothing was taken\nhint: ";
        check(&answer("unpack index-pack abnormal exit", found), Some(why));
        let full = "fatal: write error: No space left on device\n";
        let why = "pushed: write error: No space left on device; nothing was taken\n";
        check(&answer("unpack index-pack abnormal exit", full), Some(why));
        check(&answer("unpack unpack-objects abnormal exit", ""), Some("it did not say why"));
    }

    #[test]
    fn what_was_taken_and_what_has_no_bands_stays_as_it_is() {
        check(&answer("unpack ok", "fsck error"), None);
        check(&[text_line("unpack index-pack abnormal exit"), b"0000".to_vec()].concat(), None);
        check(b"", None);
        check(&line(b""), None);
        check(b"zzzz", None);
    }
}
