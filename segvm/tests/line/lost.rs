//! Packs that are not there any more, and maps that still name them.

use segvm::{OpenError, Verify};
use segvm_blockcache::disk::Disk;

use super::*;

fn packs(disk: &MemDisk) -> Vec<String> {
    let mut names = disk.list(Path::new("/store/packs")).unwrap_or_default();
    names.sort();
    names
}

/// Suspends a session that wrote `text`; answers which packs are new.
fn suspended(disk: &MemDisk, image: &str, text: &str) -> Vec<String> {
    let before = packs(disk);
    let (session, memory) = write(disk, image);
    say(&memory, text);
    session.suspend().unwrap();
    let after = packs(disk).into_iter();
    after.filter(|name| !before.contains(name)).collect()
}

fn lose(disk: &MemDisk, pack: &str) {
    disk.remove(&Path::new("/store/packs").join(pack)).unwrap();
}

#[test]
fn a_map_that_names_a_missing_pack_is_made_again_from_where_the_blocks_are() {
    // The map is the tree's, so it is the second session's in the end: it names the one pack or the other.
    for gone in 0..2 {
        let disk = MemDisk::new();
        let mut made = suspended(&disk, "notes", "the same");
        // Short runs are stored again: the other image has all of it in a pack of its own.
        made.extend(suspended(&disk, "others", "the same"));
        assert_eq!(made.len(), 2);
        lose(&disk, &made[gone]);
        for image in ["notes", "others"] {
            let (session, memory) = with(&process(&disk).verify(Verify::All), image);
            assert_eq!(said(&memory), "the same");
            say(&memory, "and on");
            session.suspend().unwrap();
            assert_eq!(said(&write(&disk, image).1), "and on");
        }
    }
}

#[test]
fn blocks_that_are_really_gone_are_named_with_the_pack_that_had_them() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "notes");
    for at in 1..40 {
        memory.write(at * 4096, &[at as u8; 4096]).unwrap();
    }
    session.suspend().unwrap();
    let old = packs(&disk);
    // The newest tree's nodes are in the second pack, and most of its blocks in the first.
    suspended(&disk, "notes", "later");
    lose(&disk, &old[0]);
    let error = refused(&process(&disk), "notes");
    match &error {
        OpenError::Lost { pack, source } => {
            assert!(pack.ends_with(&old[0]), "{pack:?}");
            assert!(matches!(**source, OpenError::Layout { .. }), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    let text = error.to_string();
    assert!(
        text.contains("nor are 38 more") && text.contains(&old[0]),
        "{text}"
    );
}

#[test]
fn nodes_that_are_really_gone_are_named_with_the_pack_that_had_them() {
    let disk = MemDisk::new();
    let packs = suspended(&disk, "notes", "gone");
    lose(&disk, &packs[0]);
    for options in [process(&disk), process(&disk).reader()] {
        let error = refused(&options, "notes");
        let text = error.to_string();
        assert!(matches!(error, OpenError::Lost { .. }), "{text}");
        assert!(text.contains("node ") && text.contains(&packs[0]), "{text}");
    }
}
