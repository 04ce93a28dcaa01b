//! The head of a push: commands, capabilities and options, in front of the pack.

use std::io::{self, Read};

use towpath_core::ids::CommitId;
use towpath_git::ObjectId;

use super::packet::Packet;

/// Bytes in front of the pack. A thousand commands with names of the greatest length fit.
const HEAD_BYTES_MAX: usize = 1024 * 1024;
/// The id that stands for "no object".
const NO_OBJECT: ObjectId = ObjectId([0; 20]);

/// What a client wants to do to one ref. The name is as sent: any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What the client believes is there; `None`: nothing.
    pub old: Option<ObjectId>,
    /// What shall be there; `None`: nothing.
    pub new: Option<ObjectId>,
    /// The full name of the ref.
    pub name: Vec<u8>,
}

/// Everything in front of the pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PushHead {
    pub commands: Vec<Command>,
    pub options: Vec<String>,
    /// Where the client's history is cut off.
    pub shallow: Vec<CommitId>,
    capabilities: Vec<String>,
    /// All of it, to be handed on.
    pub raw: Vec<u8>,
}

impl PushHead {
    /// Reads the head and leaves the reader at the pack.
    ///
    /// # Errors
    /// `InvalidData` with the reason; whatever the reader says.
    pub fn read(reader: &mut dyn Read) -> io::Result<PushHead> {
        let mut head = PushHead::default();
        while let Some(line) = head.next(reader)? {
            head.take_command(&line)?;
        }
        if head.can("push-options") && !head.commands.is_empty() {
            while let Some(line) = head.next(reader)? {
                let option = String::from_utf8(line).map_err(|_| invalid("a push option is not UTF-8"))?;
                head.options.push(option.trim_end_matches('\n').to_owned());
            }
        }
        Ok(head)
    }

    /// Whether the client has a capability.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// Whether a pack follows: deletions alone bring none.
    pub fn brings_pack(&self) -> bool {
        self.commands.iter().any(|command| command.new.is_some())
    }

    /// The next line; `None` at the flush.
    fn next(&mut self, reader: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
        let packet = Packet::read(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.raw.extend(packet.bytes());
        if self.raw.len() > HEAD_BYTES_MAX {
            return Err(invalid("a push has at most 1 MiB in front of its pack"));
        }
        match packet {
            Packet::Flush => Ok(None),
            Packet::Data(data) => Ok(Some(data)),
        }
    }

    fn take_command(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(id) = line.strip_prefix(b"shallow ") {
            let id =
                hex(id.strip_suffix(b"\n").unwrap_or(id)).ok_or_else(|| invalid("a bad shallow line"))?;
            self.shallow.push(CommitId(id.0));
            return Ok(());
        }
        let end = line.iter().position(|byte| *byte == 0);
        if let (Some(end), true) = (end, self.commands.is_empty()) {
            let words = String::from_utf8_lossy(&line[end + 1..]);
            self.capabilities = words.split_whitespace().map(str::to_owned).collect();
        }
        let line = &line[..end.unwrap_or(line.len())];
        // Git takes one line end away, and so do we: what is left is the name, whatever bytes it has.
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let bad = || invalid("a command is `<old> <new> <ref>`; signed pushes are not taken");
        if line.len() < 83 || line[40] != b' ' || line[81] != b' ' {
            return Err(bad());
        }
        let id = |bytes| hex(bytes).map(|id| Some(id).filter(|id| *id != NO_OBJECT)).ok_or_else(bad);
        self.commands.push(Command {
            old: id(&line[..40])?,
            new: id(&line[41..81])?,
            name: line[82..].to_vec(),
        });
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> Option<ObjectId> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::super::packet::line;
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const NONE: &str = "0000000000000000000000000000000000000000";

    fn head(lines: &[&[u8]]) -> io::Result<PushHead> {
        let mut bytes: Vec<u8> = lines.iter().flat_map(|data| line(data)).collect();
        bytes.extend(b"00000000PACK");
        PushHead::read(&mut &bytes[..])
    }

    #[test]
    fn commands_capabilities_and_names_are_read_as_sent() {
        let first = format!("{NONE} {ONE} refs/heads/a\nb\0 report-status side-band-64k agent=git/2\n");
        let second = format!("{ONE} {NONE} refs/heads/\u{202e}\n");
        let head =
            head(&[b"shallow 1111111111111111111111111111111111111111", first.as_bytes(), second.as_bytes()])
                .unwrap();
        assert_eq!(head.commands[0].name, b"refs/heads/a\nb");
        assert_eq!((head.commands[0].old, head.commands[1].new), (None, None));
        assert_eq!(head.commands[1].name, "refs/heads/\u{202e}".as_bytes());
        assert_eq!(
            (head.shallow.len(), head.can("report-status"), head.can("push-options")),
            (1, true, false)
        );
        assert!(head.raw.ends_with(b"0000"));
    }

    #[test]
    fn other_lines_are_refused() {
        for bad in [&b"push-cert\0x"[..], b"", b"1 2 refs/heads/a"] {
            assert!(head(&[bad]).is_err(), "{bad:?}");
        }
    }
}
