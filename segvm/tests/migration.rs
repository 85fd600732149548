//! Roots of older types, brought to the program's when the image is opened; and every way in which that can fail.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use segvm::{
    Error, Migration, MigrationError, OpenError, SessionOptions, Text, Vec, persist::Persist,
};

/// The first version of a program's state, the second, the third.
mod v1 {
    use super::{Persist, Text, Vec};

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Notes {
        pub(super) all: Vec<Text>,
    }
}

mod v2 {
    use super::{Persist, Text, Vec};

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Notes {
        pub(super) all: Vec<Note>,
        pub(super) migrated: u32,
    }

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Note {
        pub(super) text: Text,
        pub(super) stars: u32,
    }
}

mod v3 {
    use super::{Persist, Text};

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Notes {
        pub(super) by_text: segvm::BTreeMap<Text, u64>,
        pub(super) migrated: u32,
    }
}

fn to_second() -> Migration {
    Migration::from::<v1::Notes, v2::Notes>("notes", |old, mut new| {
        for text in &old.all {
            new.all.push_default().text.push_str(text);
        }
        *new.migrated = 1;
    })
}

fn to_third() -> Migration {
    Migration::from::<v2::Notes, v3::Notes>("notes", |old, mut new| {
        for note in &old.all {
            new.by_text
                .insert(note.text.as_str(), u64::from(note.stars));
        }
        *new.migrated = old.migrated + 1;
    })
}

const NOTES: [&str; 3] = [
    "milk",
    "bread",
    "a longer one, that has a block of its own in the heap",
];

/// An image of the first version, and its newest commit.
fn first(store: &Path) -> segvm::CommitId {
    let session = SessionOptions::new().store(store).open("notes").unwrap();
    let notes = session.root::<v1::Notes>("notes").unwrap();
    notes.write().as_mut().all.extend(NOTES);
    *session.root::<u64>("other").unwrap().write() = 42;
    let commit = session.checkpoint().unwrap().commit;
    session.suspend().unwrap();
    commit
}

fn options(store: &Path) -> SessionOptions {
    SessionOptions::new().store(store)
}

fn is_as_it_was(store: &Path, commit: segvm::CommitId) {
    let session = options(store).open("notes").unwrap();
    assert_eq!(session.head(), Some(commit));
    assert_eq!(session.tags().unwrap(), []);
    let notes = session.root::<v1::Notes>("notes").unwrap();
    let notes = notes.read();
    let all: std::vec::Vec<&str> = notes.all.iter().map(|text| &**text).collect();
    assert_eq!(all, NOTES);
}

#[test]
fn an_old_root_becomes_a_new_one_in_one_commit_and_the_old_one_has_a_tag() {
    let store = tempfile::tempdir().unwrap();
    let old = first(store.path());
    let session = options(store.path())
        .migration(to_second())
        .open("notes")
        .unwrap();
    let log = session.log().unwrap();
    assert_eq!(log[0].commit.parents, [old]);
    assert_eq!(log.len(), 2, "one commit");
    assert_eq!(session.head(), Some(log[0].commit_id));
    let tags = session.tags().unwrap();
    assert_eq!(tags.len(), 1);
    assert_eq!(tags[0].name.as_str(), format!("before-migration-{old:.12}"));
    assert_eq!(tags[0].record.commit_id, old);
    let notes = session.root::<v2::Notes>("notes").unwrap();
    assert_eq!(notes.read().migrated, 1);
    let all: std::vec::Vec<String> = notes
        .read()
        .all
        .iter()
        .map(|note| note.text.to_string())
        .collect();
    assert_eq!(all, NOTES);
    // What was not to be migrated is as it was, and nothing of the old value is left behind.
    assert_eq!(*session.root::<u64>("other").unwrap().read(), 42);
    let heap = session.heap("heap").unwrap();
    heap.heap().check().unwrap();
    let used = heap.heap().usage().blocks;
    drop(heap);
    drop(notes);
    // It was durable when open returned; and the second time there is nothing to do.
    drop(session);
    let session = options(store.path())
        .migration(to_second())
        .open("notes")
        .unwrap();
    assert_eq!(session.log().unwrap().len(), 2);
    assert_eq!(
        session.root::<v2::Notes>("notes").unwrap().read().all.len(),
        3
    );
    assert_eq!(session.heap("heap").unwrap().heap().usage().blocks, used);

    // A heap that never had the old type takes as many blocks.
    let fresh = tempfile::tempdir().unwrap();
    let session = options(fresh.path()).open("fresh").unwrap();
    let notes = session.root::<v2::Notes>("notes").unwrap();
    for text in NOTES {
        notes
            .write()
            .as_mut()
            .all
            .push_default()
            .text
            .push_str(text);
    }
    let _other = session.root::<u64>("other").unwrap();
    assert_eq!(session.heap("heap").unwrap().heap().usage().blocks, used);
}

#[test]
fn steps_make_a_chain_in_any_order_and_still_one_commit() {
    let store = tempfile::tempdir().unwrap();
    first(store.path());
    let both = options(store.path())
        .migration(to_third())
        .migration(to_second());
    let session = both.open("notes").unwrap();
    assert_eq!(session.log().unwrap().len(), 2);
    let notes = session.root::<v3::Notes>("notes").unwrap();
    assert_eq!(notes.read().migrated, 2);
    assert_eq!(notes.read().by_text.get("milk"), Some(&0));
    assert_eq!(notes.read().by_text.len(), 3);
    drop(notes);
    drop(session);
    // An image that has come half-way already goes the rest.
    let store = tempfile::tempdir().unwrap();
    first(store.path());
    drop(
        options(store.path())
            .migration(to_second())
            .open("notes")
            .unwrap(),
    );
    let session = both_of(store.path()).open("notes").unwrap();
    assert_eq!(session.log().unwrap().len(), 3);
    assert_eq!(
        session.root::<v3::Notes>("notes").unwrap().read().migrated,
        2
    );
}

fn both_of(store: &Path) -> SessionOptions {
    options(store).migration(to_second()).migration(to_third())
}

#[test]
fn a_new_image_and_one_without_the_root_need_none() {
    let store = tempfile::tempdir().unwrap();
    let session = both_of(store.path()).open("notes").unwrap();
    assert!(session.is_new());
    assert_eq!(
        session.root::<v3::Notes>("notes").unwrap().read().migrated,
        0
    );
    *session.root::<u64>("other").unwrap().write() = 1;
    session.suspend().unwrap();
    let session = both_of(store.path()).open("notes").unwrap();
    assert_eq!(session.log().unwrap().len(), 1);
}

#[test]
fn what_panics_or_errs_leaves_the_image_as_it_was() {
    let store = tempfile::tempdir().unwrap();
    let commit = first(store.path());
    let panics = Migration::from::<v1::Notes, v2::Notes>("notes", |_, mut new| {
        new.all.push_default().text.push_str("half");
        panic!("half-way (this panic belongs to the test)");
    });
    let error = options(store.path())
        .migration(panics)
        .open("notes")
        .unwrap_err();
    assert!(
        matches!(&error, OpenError::Migration(MigrationError::Panicked { said, .. }) if said.contains("half-way")),
        "{error}"
    );
    is_as_it_was(store.path(), commit);
    let errs = Migration::fallible::<v1::Notes, v2::Notes, _>("notes", |old, _| {
        Err::<(), _>(format!("{} notes are too many", old.all.len()))
    });
    let error = options(store.path())
        .migration(errs)
        .open("notes")
        .unwrap_err();
    let OpenError::Migration(MigrationError::Failed { source, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(source.to_string(), "3 notes are too many");
    is_as_it_was(store.path(), commit);
    // The second of two steps: the first one's work is given up, too.
    let panics = Migration::from::<v2::Notes, v3::Notes>("notes", |_, _| {
        panic!("later (this panic belongs to the test)");
    });
    let error = options(store.path())
        .migration(to_second())
        .migration(panics)
        .open("notes")
        .unwrap_err();
    assert!(
        error.to_string().contains("the image is as it was"),
        "{error}"
    );
    is_as_it_was(store.path(), commit);
}

#[test]
fn an_image_that_no_step_begins_with_is_refused_with_the_difference() {
    let store = tempfile::tempdir().unwrap();
    let commit = first(store.path());
    let error = options(store.path())
        .migration(to_third())
        .open("notes")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("by_text: added, btree-map<text, u64>"),
        "{error}"
    );
    is_as_it_was(store.path(), commit);
}

#[test]
fn a_reader_sees_the_new_type_at_any_commit_and_commits_nothing() {
    let store = tempfile::tempdir().unwrap();
    let commit = first(store.path());
    let reader = both_of(store.path()).reader().open("notes").unwrap();
    assert_eq!(
        reader
            .root::<v3::Notes>("notes")
            .unwrap()
            .read()
            .by_text
            .len(),
        3
    );
    drop(reader);
    is_as_it_was(store.path(), commit);
    drop(both_of(store.path()).open("notes").unwrap());
    let before = both_of(store.path()).reader().open("notes@-1").unwrap();
    assert_eq!(
        before
            .root::<v3::Notes>("notes")
            .unwrap()
            .read()
            .by_text
            .len(),
        3
    );
}

#[test]
fn hooks_of_a_resume_meet_the_new_type() {
    let store = tempfile::tempdir().unwrap();
    first(store.path());
    let met = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&met);
    let session = both_of(store.path())
        .on_resume("count", move |resuming| {
            let notes = resuming.session.root::<v3::Notes>("notes")?;
            seen.store(notes.read().migrated, Ordering::Relaxed);
            Ok::<_, Error>(())
        })
        .open("notes")
        .unwrap();
    assert_eq!(met.load(Ordering::Relaxed), 2);
    drop(session);
}

#[test]
fn guards_refuse_a_restore_to_before_the_change() {
    let store = tempfile::tempdir().unwrap();
    let old = first(store.path());
    let session = both_of(store.path()).open("notes").unwrap();
    let notes = session.root::<v3::Notes>("notes").unwrap();
    let tag = format!("before-migration-{old:.12}");
    session.restore(&tag).unwrap();
    assert!(notes.try_read().is_err());
    session.restore("-0").unwrap();
    assert_eq!(notes.read().migrated, 2);
}

/// A process that migrates is killed at any instant; what it left is the old image or the new one.
#[test]
fn kill_9_at_any_instant_leaves_the_old_image_or_the_new_one() {
    const STORE: &str = "SEGVM_TEST_MIGRATE";
    if let Some(store) = env::var_os(STORE) {
        let session = both_of(Path::new(&store)).open("notes");
        println!("{}", session.is_ok());
        loop {
            thread::park();
        }
    }
    let mut found = [0_u32; 2];
    for round in 0..24_u64 {
        let store = tempfile::tempdir().unwrap();
        let commit = first(store.path());
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("kill_9_at_any_instant_leaves_the_old_image_or_the_new_one")
            .env(STORE, store.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The instant: spread over the time that a process takes to begin, migrate and wait.
        thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let session = options(store.path()).open("notes").unwrap();
        let log = session.log().unwrap();
        assert_eq!(log.last().unwrap().commit_id, commit);
        session.heap("heap").unwrap().heap().check().unwrap();
        if let Ok(notes) = session.root::<v1::Notes>("notes") {
            assert_eq!((log.len(), notes.read().all.len()), (1, 3), "round {round}");
            found[0] += 1;
        } else {
            let notes = session.root::<v3::Notes>("notes").unwrap();
            assert_eq!(notes.read().by_text.len(), 3, "round {round}");
            assert_eq!((log.len(), session.tags().unwrap().len()), (2, 1));
            found[1] += 1;
        }
        assert_eq!(*session.root::<u64>("other").unwrap().read(), 42);
    }
    println!("old {}, new {}", found[0], found[1]);
    assert!(found[0] > 0, "no process was killed before it was done");
}
