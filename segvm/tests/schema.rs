//! Types that changed between two runs of a program: what is refused, in which words, and what is not.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::path::Path;

use segvm::{
    Error, Maybe, Session, SessionOptions, Text, Vec,
    persist::{Persist, Schema},
    root::RootError,
};

mod before {
    use super::{Maybe, Persist, Text, Vec};

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Notes {
        pub(super) opened: u64,
        pub(super) all: Vec<Note>,
        pub(super) mood: Mood,
    }

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Note {
        pub(super) text: Text,
        pub(super) stars: u32,
        pub(super) last: Maybe<u64>,
    }

    #[derive(Persist, Clone, Copy, PartialEq, Debug)]
    #[repr(u8)]
    pub(super) enum Mood {
        Unknown,
        Glad,
    }
}

/// Names that changed, and a variant that is new.
mod renamed {
    use super::{Maybe, Persist, Text, Vec};

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Diary {
        #[persist(renamed_from = "opened")]
        pub(super) times: u64,
        pub(super) all: Vec<Entry>,
        pub(super) mood: Mood,
    }

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Entry {
        #[persist(renamed_from = "text")]
        pub(super) body: Text,
        pub(super) stars: u32,
        pub(super) last: Maybe<u64>,
    }

    #[derive(Persist, Clone, Copy, PartialEq, Debug)]
    #[repr(u8)]
    pub(super) enum Mood {
        Unknown,
        #[persist(renamed_from = "Glad")]
        Happy,
        Sad,
    }
}

mod changed {
    use super::{Maybe, Persist, Text, Vec};

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Notes {
        pub(super) opened: u64,
        pub(super) all: Vec<Note>,
        pub(super) mood: super::before::Mood,
    }

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Note {
        pub(super) text: Text,
        pub(super) stars: u32,
        pub(super) last: Maybe<u64>,
        pub(super) tags: Vec<Text>,
    }
}

fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("notes").unwrap()
}

fn write(session: &Session) {
    let notes = session.root::<before::Notes>("notes").unwrap();
    let mut guard = notes.write();
    let mut notes = guard.as_mut();
    *notes.opened = 7;
    *notes.mood = before::Mood::Glad;
    let mut note = notes.all.push_default();
    note.text.push_str("milk");
    *note.stars = 3;
}

#[test]
fn names_that_are_said_to_have_changed_are_found_and_written_anew() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    write(&session);
    let first = session.checkpoint().unwrap().commit;
    // A handle of the old type would meet variants that it does not know.
    let refused = session.root::<renamed::Diary>("notes").unwrap_err();
    assert!(refused.to_string().contains("times: renamed, was opened"));
    session.suspend().unwrap();

    let session = open(store.path());
    let diary = session.root::<renamed::Diary>("notes").unwrap();
    assert_eq!(diary.read().times, 7);
    assert_eq!(&*diary.read().all[0].body, "milk");
    assert_eq!(diary.read().mood, renamed::Mood::Happy);
    *diary.write().as_mut().mood = renamed::Mood::Sad;
    let second = session.checkpoint().unwrap();
    assert!(second.changed);
    // Memory of before the change, in the eyes of a handle of after it.
    session.restore(&first.to_string()).unwrap();
    assert_eq!(diary.read().mood, renamed::Mood::Happy);
    session.restore(&second.commit.to_string()).unwrap();
    assert_eq!(diary.read().mood, renamed::Mood::Sad);
    session.suspend().unwrap();

    // Now it is stored as what it is, and a program of before the change does not know the third mood.
    let session = open(store.path());
    assert_eq!(
        session
            .root::<renamed::Diary>("notes")
            .unwrap()
            .read()
            .times,
        7
    );
    drop(session);
    let session = open(store.path());
    let refused = session
        .root::<before::Notes>("notes")
        .unwrap_err()
        .to_string();
    for line in [
        "opened: renamed? times was there",
        "all[].text: renamed? body was there",
        "mood::Sad: removed, was the variant 2",
    ] {
        assert!(refused.contains(line), "{refused}");
    }
}

#[test]
fn another_type_is_refused_field_by_field_with_the_call_to_migrate() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    write(&session);
    session.suspend().unwrap();
    let session = open(store.path());
    let error = session.root::<changed::Notes>("notes").unwrap_err();
    let Error::Root(RootError::WrongType { mismatch, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*mismatch.found().unwrap(), Schema::of::<before::Notes>());
    assert_eq!(error.to_string(), REFUSED);
    // Nothing has happened to it.
    assert_eq!(
        session
            .root::<before::Notes>("notes")
            .unwrap()
            .read()
            .opened,
        7
    );
}

const REFUSED: &str = r##"root "notes" of image "notes" is not a Notes as this program knows it:
  all[]: resized, from 48 to 72 bytes
  all[].tags: added, vec<text>
The image is as it was. If the type was changed on purpose, keep it as it was beside the new one, and say how one becomes the other when the image is opened:

    #[derive(segvm::Persist)]
    #[repr(C)]
    struct OldNotes {
        opened: u64,
        all: segvm::Vec<OldNote>,
        mood: OldMood,
    }

    #[derive(segvm::Persist)]
    #[repr(C)]
    struct OldNote {
        text: segvm::Text,
        stars: u32,
        last: segvm::Maybe<u64>,
    }

    #[derive(segvm::Persist, Clone, Copy, Debug)]
    #[repr(u8)]
    enum OldMood {
        Unknown = 0,
        Glad = 1,
    }

    let session = segvm::SessionOptions::new()
        .migration(segvm::Migration::from::<OldNotes, Notes>("notes", |old, mut new| {
            // copy what `new` needs out of `old`
        }))
        .open("notes")?;
"##;
