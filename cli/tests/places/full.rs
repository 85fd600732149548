//! A file system that fills up, and gets room again.

use std::fs;

use segvm::{Session, default_store};

use crate::support::{get, no_mounts, put, said, store, wrapped};

/// In the other process: writes until the disk is full, makes room, goes on.
pub(crate) fn fill() -> Result<String, segvm::Error> {
    let store = default_store().unwrap();
    let ballast = store.parent().unwrap().join("ballast");
    fs::write(&ballast, vec![7; 4 << 20])?;
    let session = Session::open("notes")?;
    let mut last = 0;
    let full = loop {
        match put(&session, last + 1, 40) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
    };
    let mut told = format!("full after {}: {full}\n", last.min(1));
    let segvm::Error::Checkpoint(full) = full else {
        return Err(full);
    };
    told += if is_no_space(&full) {
        "no space\n"
    } else {
        "another reason\n"
    };
    // The program goes on, with what it wrote; the last checkpoint is the newest.
    told += if get(&session)? == last + 1 {
        "memory is as it was\n"
    } else {
        "memory changed\n"
    };
    told += if session.log()?.len() == usize::from(last) {
        "the line is whole\n"
    } else {
        "the line is not\n"
    };
    fs::remove_file(ballast)?;
    session.checkpoint()?;
    told += "saved with room\n";
    session.suspend()?;
    Ok(told)
}

fn is_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
            return true;
        }
        at = error.source();
    }
    matches!(error.to_string(), text if text.contains("No space left"))
}

#[test]
fn a_full_home_directory_fails_checkpoints_by_name_and_goes_on_with_room() {
    if no_mounts("a full file system").is_some() {
        return;
    }
    let (dir, _) = store();
    let mount = dir.path().join("small");
    fs::create_dir(&mount).unwrap();
    // 16 MiB, of which ballast takes 4: some checkpoints fit.
    let small = format!("mount -t tmpfs -o size=16m tmpfs {}", mount.display());
    let text = said(&mut wrapped(&small, &mount.join("store"), "fill"));
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("full after 1: ") && lines[0].contains("No space left"),
        "{text}"
    );
    assert_eq!(
        lines[1..],
        [
            "no space",
            "memory is as it was",
            "the line is whole",
            "saved with room"
        ],
        "{text}"
    );
}

#[test]
fn a_store_is_not_made_where_there_is_no_room_at_all() {
    if no_mounts("a full file system").is_some() {
        return;
    }
    let (dir, _) = store();
    let mount = dir.path().join("full");
    fs::create_dir(&mount).unwrap();
    let path = mount.display();
    let full = format!(
        "mount -t tmpfs -o size=64k tmpfs {path}; dd if=/dev/zero of={path}/ballast 2>/dev/null || true"
    );
    let text = said(&mut wrapped(&full, &mount.join("store"), "write"));
    assert!(
        text.starts_with("error: ") && text.contains("No space left") && text.contains("store"),
        "{text}"
    );
}
