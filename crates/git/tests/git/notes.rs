//! Notes beside commits, as every clone has them.

use towpath_core::ids::Timestamp;
use towpath_git::RefName;

use crate::support::{World, every_git};

#[test]
fn a_note_reaches_a_clone_byte_by_byte_and_is_never_changed() {
    for git in every_git() {
        let world = World::with(git);
        let (one, two) = (world.commit_file("a", "1"), world.commit_file("a", "2"));
        world.push(two, "main");
        let name = RefName::landing_notes();
        let add = |commit, text: &str| {
            world.repository.add_note((&name, commit), text.as_bytes(), Timestamp(7_000))
        };
        // Git would strip the space and the empty lines of a message.
        let text = "{\"leaf\":1} \n\n\n— towpath x\n";
        add(one, text).unwrap();
        let first = world.repository.ref_target(&name).unwrap();
        add(one, "another text").unwrap();
        assert_eq!(world.repository.ref_target(&name).unwrap(), first);
        add(two, "two").unwrap();
        let store = world.repository.path().to_str().unwrap();
        world.run(&["fetch", "--quiet", store, "refs/notes/towpath:refs/notes/towpath"]);
        let shown = |commit: &towpath_core::ids::CommitId| {
            world.run(&["notes", "--ref=towpath", "show", &commit.to_string()])
        };
        assert_eq!((shown(&one).as_str(), shown(&two).as_str()), (text.trim(), "two"));
        let mut notes = world.repository.notes(&name).unwrap();
        notes.sort_by_key(|(_, text)| text.len());
        assert_eq!(notes, [(two, b"two".to_vec()), (one, text.as_bytes().to_vec())]);
        let log = world.run(&["log", "--format=%an %at", "refs/notes/towpath"]);
        assert_eq!(log, "Towpath 7\nTowpath 7");
        world.in_store(&["fsck", "--full", "--strict"], b"");
    }
}

#[test]
fn a_repository_without_notes_has_none() {
    let world = World::new();
    assert_eq!(world.repository.notes(&RefName::landing_notes()).unwrap(), []);
}
