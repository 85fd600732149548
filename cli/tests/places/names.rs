//! Names that mean harm: of images, references, segments, roots, tags.

use std::{fs, path::Path, process::Command};

use segvm::{OpenError, SessionOptions};

use crate::support::store;

const HOSTILE: [&str; 17] = [
    "",
    ".",
    "..",
    "../notes",
    "/etc/passwd",
    "a/b",
    ".hidden",
    "Notes",
    "notes ",
    "no\ntes",
    "notes\0",
    "n\u{f6}tes",
    "\u{202e}seton",
    "\u{1b}[2J\u{7}gone",
    "$(reboot)",
    "a@../b",
    "a:b:c",
];

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).map(|entries| entries.map(|entry| entry.unwrap().path()));
    let mut all: Vec<_> = entries.into_iter().flatten().collect();
    for path in all.clone() {
        all.extend(files(&path));
    }
    all.sort();
    all
}

#[test]
fn hostile_names_are_refused_and_make_nothing() {
    let (dir, store) = store();
    let session = SessionOptions::new().store(&store).open("notes").unwrap();
    session.segment("memory", 1).unwrap();
    session.checkpoint().unwrap();
    let before = files(dir.path());
    let long = "n".repeat(65);
    for name in HOSTILE.into_iter().chain([long.as_str()]) {
        let options = SessionOptions::new().store(&store);
        let opened = options.open(name);
        let refused = opened
            .err()
            .unwrap_or_else(|| panic!("{name:?} was opened"));
        assert!(
            matches!(
                refused,
                OpenError::Name(_)
                    | OpenError::Reference(_)
                    | OpenError::OtherHome { .. }
                    | OpenError::NeedsReader { .. }
            ),
            "{name:?}: {refused}"
        );
        assert!(session.branch(name).is_err(), "{name:?}");
        assert!(session.branch_here(name).is_err(), "{name:?}");
        assert!(session.tag(name).is_err(), "{name:?}");
        assert!(session.restore(name).is_err(), "{name:?}");
        let run = Command::new(env!("CARGO_BIN_EXE_segvm"))
            .arg("--store")
            .arg(&store)
            .args(["branch", "notes"])
            .arg(name.replace('\0', "\u{1}"))
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2), "{name:?}: {run:?}");
        // What is shown on a terminal has no control character of the name's in it.
        let told = refused.to_string();
        assert!(
            !told.contains('\n') && !told.contains('\0') && !told.contains('\u{202e}'),
            "{told:?}"
        );
    }
    assert_eq!(files(dir.path()), before);
    assert_eq!(session.image(), "notes");
}

/// Names of segments are bytes of the record, never of a path: whatever they are, they come back as they were, or are refused.
#[test]
fn names_of_segments_lead_nowhere() {
    let (dir, store) = store();
    let mut kept = Vec::new();
    for name in HOSTILE {
        let session = SessionOptions::new().store(&store).open("notes").unwrap();
        let Ok(segment) = session.segment(name, 1) else {
            continue;
        };
        segment.write(0, b"here").unwrap();
        match session.suspend() {
            Ok(_) => kept.push(name),
            Err(refused) => println!("{name:?}: {refused}"),
        }
    }
    for name in kept {
        let session = SessionOptions::new().store(&store).open("notes").unwrap();
        let mut bytes = [0; 4];
        session
            .segment(name, 1)
            .unwrap()
            .read(0, &mut bytes)
            .unwrap();
        assert_eq!(&bytes, b"here", "{name:?}");
    }
    // Shown on a terminal, they are text.
    for arguments in [
        &["show", "notes"][..],
        &["show", "notes", "--map"],
        &["diff", "notes@-1", "notes"],
        &["export", "notes", "\u{1b}[2J\u{7}missing", "-"],
        &["show", "notes", "--root", "\u{1b}[2J\u{7}missing"],
        &["images"],
        &["log", "notes"],
        &["fsck", "--deep"],
    ] {
        let run = Command::new(env!("CARGO_BIN_EXE_segvm"))
            .arg("--store")
            .arg(&store)
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8([run.stdout, run.stderr].concat()).unwrap();
        let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(
            !text.contains(harmful) && !text.is_empty(),
            "{arguments:?}: {text:?}"
        );
    }
    let outside: Vec<_> = files(dir.path())
        .into_iter()
        .filter(|path| !path.starts_with(&store))
        .collect();
    assert_eq!(outside, Vec::<std::path::PathBuf>::new());
}

#[test]
fn names_of_roots_are_bounded_and_any_text() {
    let (_dir, store) = store();
    let open = || SessionOptions::new().store(&store).open("notes").unwrap();
    let session = open();
    let long = "n".repeat(65);
    for refused in ["", "notes\0", &long] {
        let error = format!("{:?}", session.root::<u64>(refused).unwrap_err());
        assert!(error.contains("1 to 64 bytes and no NUL"), "{error}");
    }
    let names = HOSTILE
        .iter()
        .zip(1_u64..)
        .filter(|(name, _)| !name.is_empty() && !name.contains('\0'));
    for (name, n) in names.clone() {
        *session.root::<u64>(name).unwrap().write() = n;
    }
    session.suspend().unwrap();
    let session = open();
    for (name, n) in names {
        assert_eq!(*session.root::<u64>(name).unwrap().read(), n, "{name:?}");
    }
}
