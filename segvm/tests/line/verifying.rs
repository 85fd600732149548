//! What `Verify::All` finds, and what is found without it.

use segvm::{OpenError, Verify};
use segvm_blockcache::disk::{Disk, Open};

use super::*;

/// Flips a bit of the byte that `find` ends at, wherever in the packs it lies.
fn damage(disk: &MemDisk, find: &[u8]) {
    let dir = Path::new("/store/packs");
    for name in disk.list(dir).unwrap() {
        let file = disk.open(&dir.join(name), Open::Write).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        if let Some(at) = bytes.windows(find.len()).position(|window| window == find) {
            file.write_at(at as u64, &[bytes[at] ^ 1]).unwrap();
            return;
        }
    }
    panic!("not in any pack");
}

#[test]
fn a_flipped_bit_is_found_before_anything_is_visible() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "notes");
    memory.write(50_000, b"older and whole").unwrap();
    session.checkpoint().unwrap();
    memory.write(50_000, b"needle in a pack").unwrap();
    session.suspend().unwrap();
    let all = process(&disk).verify(Verify::All);
    assert_eq!(with(&all, "notes").0.log().unwrap().len(), 2);
    damage(&disk, b"needle in a pack");
    // Trusted, it is mapped as it is.
    drop(write(&disk, "notes"));
    for options in [
        process(&disk).verify(Verify::All),
        process(&disk).verify(Verify::All).reader(),
    ] {
        match refused(&options, "notes") {
            OpenError::Damaged {
                segment, offset, ..
            } => {
                assert_eq!((segment.as_str(), offset), ("memory", 50_000 / 4096 * 4096));
            }
            other => panic!("{other}"),
        }
    }
    // An older commit that is whole opens, and a session that checks does not go where it is not.
    let (reader, memory) = with(&process(&disk).verify(Verify::All).reader(), "notes@-1");
    let error = reader.follow().unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    let mut found = [0; 15];
    memory.read(50_000, &mut found).unwrap();
    assert_eq!(&found, b"older and whole", "memory is what it was");
}

#[test]
fn what_a_living_writer_appended_is_checked_without_being_asked() {
    let disk = MemDisk::new();
    let (writer, memory) = write(&disk, "notes");
    memory.write(50_000, b"needle in a pack").unwrap();
    writer.checkpoint().unwrap();
    damage(&disk, b"needle in a pack");
    let error = refused(&process(&disk).reader(), "notes");
    assert!(matches!(error, OpenError::Read(_)), "{error}");
}
