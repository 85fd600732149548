//! A store that is removed, or moved away, under a program that has it open.

use std::fs;

use segvm::SessionOptions;

use crate::support::{get, put, store};

#[test]
fn a_program_whose_store_is_removed_is_told_by_its_next_checkpoint_and_keeps_its_memory() {
    for life in 0..2 {
        let (_dir, store) = store();
        let open = || SessionOptions::new().store(&store).open("notes").unwrap();
        let mut session = open();
        put(&session, 1, 4).unwrap();
        if life == 1 {
            // Mapped from a pack that is about to go.
            session.suspend().unwrap();
            session = open();
        }
        fs::remove_dir_all(&store).unwrap();
        assert_eq!(
            get(&session).unwrap(),
            1,
            "removed files live as long as they are mapped"
        );
        let told = format!("{:?}", put(&session, 2, 4).unwrap_err());
        assert!(
            told.contains("No such file or directory")
                && told.contains(&store.display().to_string()),
            "{told}"
        );
        assert_eq!(get(&session).unwrap(), 2);
        drop(session);
        assert!(!store.exists(), "nothing makes a new one in its place");
    }
}

#[test]
fn a_store_that_is_moved_away_and_back_goes_on() {
    let (dir, store) = store();
    let open = || SessionOptions::new().store(&store).open("notes").unwrap();
    let session = open();
    put(&session, 1, 4).unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&store, &aside).unwrap();
    put(&session, 2, 4).unwrap_err();
    fs::rename(&aside, &store).unwrap();
    session.checkpoint().unwrap();
    drop(session);
    assert_eq!(get(&open()).unwrap(), 2);
}
