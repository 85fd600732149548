//! A double that spares too much shows nothing: each kind of loss must occur, and nothing that was synced is lost.

use std::{collections::BTreeSet, io::ErrorKind, path::Path};

use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn disk_with(path: &Path, bytes: &[u8], seed: u64) -> (CrashDisk, Arc<dyn DiskFile>) {
    let disk = CrashDisk::new(seed);
    let dir = path.parent().unwrap();
    disk.create_dir_all(dir).unwrap();
    for dir in dir.ancestors() {
        disk.sync_dir(dir).unwrap();
    }
    let file = disk.open(path, Open::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir).unwrap();
    (disk, file)
}

fn content(disk: &CrashDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, Open::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

/// Whether each of `outcomes` is met by some of 200 crashes, and nothing else is.
fn outcomes_are(met: impl Fn(u64) -> &'static str, outcomes: &[&str]) {
    let mut seen: BTreeSet<&str> = (0..200).map(met).collect();
    for outcome in outcomes {
        assert!(seen.remove(outcome), "never met: {outcome}");
    }
    assert!(seen.is_empty(), "not allowed: {seen:?}");
}

#[test]
fn writes_are_torn_by_sectors_and_reordered() {
    let path = Path::new("/d/f");
    let met = |seed| {
        let (disk, file) = disk_with(path, &[1; 2048], seed);
        file.write_at(0, &[2; 1024]).unwrap();
        file.write_at(1024, &[3; 1024]).unwrap();
        let found = content(&disk.crash(), path).unwrap();
        assert_eq!(found.len(), 2048);
        let sectors: Vec<u8> = found.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            found
                .chunks(512)
                .all(|s| s.iter().all(|byte| *byte == s[0]))
        );
        match (&sectors[..2], &sectors[2..]) {
            ([1, 1], [1, 1]) => "nothing",
            ([2, 2], [3, 3]) => "everything",
            ([2, 2], [1, 1]) => "the first alone",
            ([1, 1], [3, 3]) => "the second alone",
            ([1 | 2, 1 | 2], [1 | 3, 1 | 3]) => "torn",
            _ => "invented bytes",
        }
    };
    let all = [
        "nothing",
        "everything",
        "the first alone",
        "the second alone",
        "torn",
    ];
    outcomes_are(met, &all);
}

#[test]
fn a_small_write_brings_its_whole_sector_as_it_was_in_memory() {
    let path = Path::new("/d/f");
    let met = |seed| {
        let (disk, file) = disk_with(path, &[1; 512], seed);
        file.write_at(0, &[2; 10]).unwrap();
        file.write_at(10, &[3; 10]).unwrap();
        match content(&disk.crash(), path).unwrap()[..20] {
            [1, .., 1] => "nothing",
            [2, .., 1] => "the first",
            [2, .., 3] => "both",
            _ => "the second without the first",
        }
    };
    outcomes_are(met, &["nothing", "the first", "both"]);
}

#[test]
fn lengths_travel_apart_from_bytes() {
    let path = Path::new("/d/f");
    let met = |seed| {
        let (disk, file) = disk_with(path, &[1; 512], seed);
        file.write_at(512, &[2; 512]).unwrap();
        match &content(&disk.crash(), path).unwrap()[..] {
            bytes if bytes.len() == 512 => "short",
            bytes if bytes.len() == 1024 && bytes[512..] == [2; 512] => "whole",
            bytes if bytes.len() == 1024 && bytes[512..] == [0; 512] => "long, with zeros",
            _ => "else",
        }
    };
    outcomes_are(met, &["short", "whole", "long, with zeros"]);
    let cut = |seed| {
        let (disk, file) = disk_with(path, &[1; 1024], seed);
        file.set_len(512).unwrap();
        match content(&disk.crash(), path).unwrap().len() {
            512 => "cut",
            1024 => "uncut",
            _ => "else",
        }
    };
    outcomes_are(cut, &["cut", "uncut"]);
}

#[test]
fn names_are_not_durable_before_their_directory_is_synced() {
    let (old, new) = (Path::new("/d/old"), Path::new("/d/new"));
    let created = |seed| {
        let (disk, _) = disk_with(old, b"1", seed);
        disk.open(new, Open::Create).unwrap().sync().unwrap();
        if disk.crash().exists(new).unwrap() {
            "there"
        } else {
            "missing"
        }
    };
    outcomes_are(created, &["there", "missing"]);
    let renamed = |seed| {
        let (disk, _) = disk_with(old, b"1", seed);
        disk.rename(old, new).unwrap();
        let after = disk.crash();
        match (
            content(&after, old).as_deref(),
            content(&after, new).as_deref(),
        ) {
            (Some(b"1"), None) => "not renamed",
            (None, Some(b"1")) => "renamed",
            _ => "both or neither",
        }
    };
    outcomes_are(renamed, &["renamed", "not renamed"]);
    let synced = |seed| {
        let (disk, _) = disk_with(old, b"1", seed);
        disk.rename(old, new).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        content(&disk.crash(), new).map_or("lost", |_| "renamed")
    };
    outcomes_are(synced, &["renamed"]);
    let in_a_new_directory = |seed| {
        let (disk, _) = disk_with(old, b"1", seed);
        disk.create_dir_all(Path::new("/d/e")).unwrap();
        disk.open(Path::new("/d/e/f"), Open::Create).unwrap();
        disk.sync_dir(Path::new("/d/e")).unwrap();
        // The file's name is durable in a directory whose own name is not.
        if disk.crash().exists(Path::new("/d/e/f")).unwrap() {
            "there"
        } else {
            "missing"
        }
    };
    outcomes_are(in_a_new_directory, &["there", "missing"]);
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let path = Path::new("/d/f");
    let met = |seed| {
        let (disk, file) = disk_with(path, &[1; 512], seed);
        file.write_at(0, &[2; 512]).unwrap();
        disk.fail_operation(disk.operations(), EIO);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
        file.sync().unwrap();
        assert_eq!(
            content(&disk, path).unwrap(),
            [2; 512],
            "the process still sees it"
        );
        match content(&disk.crash(), path).unwrap()[0] {
            1 => "lost",
            2 => "kept",
            _ => "else",
        }
    };
    outcomes_are(met, &["lost", "kept"]);
}

#[test]
fn a_full_disk_writes_what_fits() {
    let path = Path::new("/d/f");
    let (disk, file) = disk_with(path, b"", 1);
    disk.fill_after(Some(700));
    file.write_at(0, &[1; 512]).unwrap();
    let full = |answer: io::Result<()>| answer.unwrap_err().raw_os_error() == Some(ENOSPC);
    assert!(full(file.write_at(512, &[2; 512])));
    assert_eq!(file.len().unwrap(), 700);
    assert!(full(file.preallocate(0, 1)) && full(file.write_at(0, &[3])));
    disk.fill_after(None);
    file.write_at(512, &[2; 512]).unwrap();
}

#[test]
fn a_range_that_cannot_be_read_and_one_that_changed() {
    let path = Path::new("/d/f");
    let (disk, file) = disk_with(path, &[1; 1024], 1);
    disk.fail_reads(path, 100..101).unwrap();
    file.read_at(0, &mut [0; 100]).unwrap();
    file.read_at(101, &mut [0; 100]).unwrap();
    assert_eq!(
        file.read_at(0, &mut [0; 101]).unwrap_err().raw_os_error(),
        Some(EIO)
    );
    disk.flip(path, 5..6).unwrap();
    let after = content(&disk.crash(), path).unwrap();
    assert_eq!((after[4], after[5], after[6]), (1, 0xfe, 1));
    let missing = disk.flip(Path::new("/d/g"), 0..1).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn without_power_nothing_works_and_the_operation_in_flight_may_have() {
    let path = Path::new("/d/f");
    let met = |seed| {
        let (disk, file) = disk_with(path, &[1; 512], seed);
        let at = disk.operations();
        disk.power_off_at(at);
        assert!(file.write_at(0, &[2; 512]).is_err());
        assert!(file.read_at(0, &mut [0]).is_err() && file.len().is_err() && file.sync().is_err());
        assert!(disk.open(path, Open::Read).is_err() && disk.list(Path::new("/d")).is_err());
        assert_eq!(disk.operations(), at + 1);
        match content(&disk.crash(), path).unwrap()[0] {
            1 => "not",
            2 => "written",
            _ => "else",
        }
    };
    outcomes_are(met, &["not", "written"]);
}

#[test]
fn one_seed_gives_one_outcome() {
    let run = |seed| {
        let (disk, file) = disk_with(Path::new("/d/f"), &[1; 8192], seed);
        file.write_at(100, &[2; 8000]).unwrap();
        content(&disk.crash().crash(), Path::new("/d/f")).unwrap()
    };
    assert!((0..50).all(|seed| run(seed) == run(seed)));
    assert!((1..50).any(|seed| run(seed) != run(0)));
}
