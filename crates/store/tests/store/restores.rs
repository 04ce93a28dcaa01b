//! A backup that is put in the place of a database.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use towpath_store::{BackupError, OpenError, backup, restore, restore_over};

use crate::cells::commit;
use crate::children::numbered;
use crate::subject::{Place, gate};

/// A database with so many rows more than its backup; the backup, and where the database is to go.
fn saved_and_gone_on(place: &Place) -> (PathBuf, PathBuf) {
    let store = place.open();
    commit(&store, numbered(0, 10, &store)).unwrap();
    let saved = place.base.path().join("saved.db");
    backup(store.path(), &saved).unwrap();
    commit(&store, numbered(1, 10, &store)).unwrap();
    store.close();
    (saved, place.base.path().join("aside.db"))
}

/// Commits that a place's database has.
fn commits(place: &Place) -> usize {
    let store = place.open();
    let rows = store.reader().snapshot().unwrap().cell(&gate()).unwrap().rows.len();
    store.close();
    rows / 2
}

fn database(place: &Place) -> PathBuf {
    place.data().join("towpath.db")
}

#[test]
fn a_backup_takes_the_place_of_a_database_which_is_kept_aside() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let file = std::fs::metadata(&saved).unwrap().ino();
    restore_over(&saved, &place.data(), &aside).unwrap();
    assert_eq!(std::fs::metadata(database(&place)).unwrap().ino(), file, "it takes no room of its own");
    assert_eq!(commits(&place), 1);
    std::fs::rename(&aside, database(&place)).unwrap();
    for beside in ["towpath.db-wal", "towpath.db-shm"] {
        let _ = std::fs::remove_file(place.data().join(beside));
    }
    assert_eq!(commits(&place), 2);
}

#[test]
fn what_is_kept_aside_is_one_database_and_its_own_log() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let beside = ["-wal", "-shm"].map(|suffix| place.base.path().join(format!("aside.db{suffix}")));
    beside.iter().for_each(|file| std::fs::write(file, "of an earlier one").unwrap());
    let again = place.base.path().join("again.db");
    std::fs::copy(&saved, &again).unwrap();
    restore_over(&saved, &place.data(), &aside).unwrap();
    assert_eq!((aside.exists(), beside.map(|file| file.exists())), (true, [false, false]));
    // Cut off when the database had been moved, and its log had not.
    std::fs::remove_file(database(&place)).unwrap();
    std::fs::write(place.data().join("towpath.db-wal"), "its own").unwrap();
    restore_over(&again, &place.data(), &aside).unwrap();
    assert_eq!(std::fs::read_to_string(place.base.path().join("aside.db-wal")).unwrap(), "its own");
    assert!(aside.exists());
    assert_eq!(commits(&place), 1);
}

#[test]
fn a_damaged_backup_leaves_the_database_as_it_was() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    std::fs::write(&saved, "no database").unwrap();
    assert!(matches!(restore_over(&saved, &place.data(), &aside), Err(BackupError::Read(_))));
    assert_eq!((commits(&place), aside.exists()), (2, false));
}

/// As a later program leaves a database that it has had.
fn had_by_a_newer_one(database: &Path) {
    let conn = Connection::open(database).unwrap();
    let step = "INSERT INTO schema_steps SELECT max(step) + 1, 'x', 0 FROM schema_steps";
    assert_eq!(conn.execute(step, []).unwrap(), 1);
}

#[test]
fn what_a_newer_program_had_is_neither_saved_nor_restored() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let is_newer = |done: Result<(), BackupError>| {
        assert!(matches!(done, Err(BackupError::Open(OpenError::NewerSchema { .. }))), "{done:?}");
    };
    had_by_a_newer_one(&saved);
    is_newer(restore_over(&saved, &place.data(), &aside));
    assert_eq!((commits(&place), aside.exists()), (2, false));
    let other = place.base.path().join("other");
    is_newer(restore(&saved, &other));
    assert!(!other.join("towpath.db").exists());
    had_by_a_newer_one(&database(&place));
    let again = place.base.path().join("again.db");
    is_newer(backup(&place.data(), &again));
    assert!(!again.exists());
}

#[test]
fn a_restore_that_cannot_be_noted_leaves_everything_where_it_was() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let note = place.data().join("high-water.json.new");
    std::fs::create_dir(&note).unwrap();
    assert!(matches!(restore_over(&saved, &place.data(), &aside), Err(BackupError::Open(_))));
    assert!(database(&place).exists() && saved.exists() && !aside.exists());
    std::fs::remove_dir(&note).unwrap();
    assert_eq!(commits(&place), 2);
    restore_over(&saved, &place.data(), &aside).unwrap();
    assert_eq!(commits(&place), 1);
}

#[test]
fn a_database_in_whose_place_the_backup_cannot_be_moved_was_not_restored() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let mark = place.data().join("high-water.json");
    let notes = [std::fs::read(&mark).ok(), None];
    assert!(notes[0].is_some());
    for noted in notes {
        if noted.is_none() {
            std::fs::remove_file(&mark).unwrap();
        }
        // By a name that is read like any other, and that nothing can be moved away from.
        let held = std::fs::File::open(&saved).unwrap();
        let name = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let refused = restore_over(&name, &place.data(), &aside);
        assert!(matches!(refused, Err(BackupError::File { what: "move", .. })), "{refused:?}");
        assert_eq!((std::fs::read(&mark).ok(), aside.exists()), (noted, false));
        let store = place.open();
        assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
        store.close();
        assert_eq!(commits(&place), 2);
    }
}

#[test]
fn a_folder_into_which_a_backup_cannot_be_copied_was_not_restored() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let mark = || std::fs::read(place.data().join("high-water.json")).unwrap();
    let before = mark();
    std::fs::rename(database(&place), &aside).unwrap();
    let copy = place.data().join("restore.new");
    std::fs::create_dir(&copy).unwrap();
    let refused = restore(&saved, &place.data());
    assert!(matches!(refused, Err(BackupError::File { what: "copy to", .. })), "{refused:?}");
    assert_eq!(mark(), before);
    std::fs::remove_dir(&copy).unwrap();
    std::fs::rename(&aside, database(&place)).unwrap();
    let store = place.open();
    assert_eq!(store.reader().snapshot().unwrap().restored().unwrap(), None);
    store.close();
    assert_eq!(commits(&place), 2);
}

#[test]
fn nothing_is_touched_in_a_folder_that_somebody_has() {
    let place = Place::new();
    let (saved, aside) = saved_and_gone_on(&place);
    let other = std::fs::File::open(place.data()).unwrap();
    other.try_lock().unwrap();
    let data = place.data();
    let restores = std::thread::spawn(move || restore_over(&saved, &data, &aside));
    let mut was_there = database(&place).exists();
    while !restores.is_finished() {
        was_there &= database(&place).exists();
    }
    let refused = restores.join().unwrap();
    assert!(was_there && matches!(refused, Err(BackupError::Open(OpenError::InUse { .. }))), "{refused:?}");
    drop(other);
    assert_eq!(commits(&place), 2);
}
