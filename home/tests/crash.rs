//! Power cuts and failing disks below a directory home: the head is the last promised record or a newer whole one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::disk::{CrashDisk, Disk, Open};
use segvm_home::{
    Commit, DirHome, Holder, HomeError, ImageName, LogError, PublishError, Record, Timestamp,
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const LOG: &str = "/store/images/notes/log";

fn notes() -> ImageName {
    "notes".parse().unwrap()
}

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        host: "box".into(),
        program: "test".into(),
        since: Timestamp::default(),
    }
}

/// Commit number `n`; every third is longer than a few sectors.
fn commit(n: u64) -> Commit {
    let mut commit = Commit {
        generation: n,
        page_size_log2: 12,
        pointer_width: 8,
        ..Commit::default()
    };
    if n % 3 == 1 {
        let bytes = (0..251)
            .cycle()
            .take(3000 + usize::try_from(n).unwrap() * 700);
        commit.attributes.insert("long".into(), bytes.collect());
    }
    commit
}

fn home(disk: &CrashDisk) -> DirHome {
    DirHome::open(Arc::new(disk.clone()), PathBuf::from("/store"))
}

fn log(home: &DirHome) -> Vec<Record> {
    home.log(&notes()).unwrap().map(Result::unwrap).collect()
}

/// Publishes until something fails; the number of commits that were promised.
fn publish_until_failure(home: &DirHome, from: u64, to: u64) -> u64 {
    let Ok(mut lease) = home.acquire(&notes(), holder()) else {
        return from;
    };
    for n in from..to {
        if lease.publish(&commit(n), &n.to_le_bytes()).is_err() {
            return n;
        }
    }
    to
}

/// Asserts that the home holds commits 0, 1, .. in order, and at least `promised` of them; how many there are.
fn intact(home: &DirHome, promised: u64, context: &str) -> u64 {
    let found = log(home);
    let count = found.len() as u64;
    for (record, n) in found.iter().zip((0..count).rev()) {
        assert_eq!(record.seq, n, "{context}");
        assert_eq!(record.commit, commit(n), "{context}");
        assert_eq!(record.mark, n.to_le_bytes(), "{context}");
    }
    assert!(
        (promised..=promised + 1).contains(&count),
        "{context}: {count} of {promised}"
    );
    let head = home.image(&notes()).unwrap().and_then(|image| image.head);
    assert_eq!(head.as_ref(), found.first(), "{context}");
    count
}

#[test]
fn a_power_cut_in_any_operation_loses_nothing_that_was_promised() {
    const COMMITS: u64 = 7;
    let whole = CrashDisk::new(0);
    assert_eq!(publish_until_failure(&home(&whole), 0, COMMITS), COMMITS);
    let mut torn = 0;
    for at in 0..whole.operations() {
        for seed in 0..12 {
            let disk = CrashDisk::new(seed * 1000 + at);
            disk.power_off_at(at);
            let promised = publish_until_failure(&home(&disk), 0, COMMITS);
            for outcome in 0..4 {
                let context = format!("operation {at}, seed {seed}, outcome {outcome}");
                let after = disk.crash();
                let count = intact(&home(&after), promised, &context);
                torn += u32::from(count == promised);
                // Life goes on, and is cut once more at the first operations of the next writer.
                let again = after.operations() + at % 8;
                after.power_off_at(again);
                let promised = publish_until_failure(&home(&after), count, count + 3).max(count);
                let last = after.crash();
                let count = intact(&home(&last), promised, &format!("{context}, then"));
                assert_eq!(
                    publish_until_failure(&home(&last), count, count + 2),
                    count + 2
                );
                intact(
                    &home(&last.crash()),
                    count + 2,
                    &format!("{context}, at last"),
                );
            }
        }
    }
    assert!(torn > 100, "the dice spared everything: {torn}");
}

#[test]
fn any_failing_operation_leaves_the_head_before_it() {
    for errno in [EIO, ENOSPC] {
        let whole = CrashDisk::new(0);
        publish_until_failure(&home(&whole), 0, 5);
        for at in 0..whole.operations() {
            let context = format!("operation {at} answers {errno}");
            let disk = CrashDisk::new(at);
            disk.fail_operation(at, errno);
            let home = home(&disk);
            let promised = publish_until_failure(&home, 0, 5);
            assert_eq!(intact(&home, promised, &context), promised, "{context}");
            assert_eq!(
                publish_until_failure(&home, promised, promised + 3),
                promised + 3
            );
            assert_eq!(
                intact(&home, promised + 3, &context),
                promised + 3,
                "{context}"
            );
            let after = self::home(&disk.crash());
            assert_eq!(
                intact(&after, promised + 3, &context),
                promised + 3,
                "{context}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_room_makes_it_good() {
    for room in 0..2000 {
        let disk = CrashDisk::new(room);
        let home = home(&disk);
        let mut lease = home.acquire(&notes(), holder()).unwrap();
        lease.publish(&commit(0), &0_u64.to_le_bytes()).unwrap();
        disk.fill_after(Some(usize::try_from(room).unwrap()));
        let error = lease.publish(&commit(1), &1_u64.to_le_bytes()).unwrap_err();
        let PublishError::Write { path, source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(path, Path::new(LOG));
        assert_eq!(source.raw_os_error(), Some(ENOSPC));
        assert_eq!(intact(&home, 1, "full"), 1);
        disk.fill_after(None);
        lease.publish(&commit(1), &1_u64.to_le_bytes()).unwrap();
        assert_eq!(lease.head().unwrap().seq, 1);
        intact(&self::home(&disk.crash()), 2, "room again");
    }
}

#[test]
fn rubble_is_cleared_by_the_next_record() {
    let mut seen = 0;
    for seed in 0..100 {
        let disk = CrashDisk::new(seed);
        publish_until_failure(&home(&disk), 0, 1);
        // Acquiring takes a few operations; the cut comes in the last, the sync of a record of many sectors.
        let before = disk.operations();
        drop(home(&disk).acquire(&notes(), holder()).unwrap());
        let acquiring = disk.operations() - before;
        disk.power_off_at(disk.operations() + acquiring + 3);
        assert_eq!(publish_until_failure(&home(&disk), 1, 2), 1);
        let disk = disk.crash();
        if log(&home(&disk)).len() == 2 {
            continue;
        }
        let bytes = read_log(&disk);
        seen += u32::from(bytes[1024..].iter().any(|byte| *byte != 0));
        let mut lease = home(&disk).acquire(&notes(), holder()).unwrap();
        lease.publish(&commit(0), &[]).unwrap();
        let bytes = read_log(&disk);
        assert!(bytes[512..1024].iter().any(|byte| *byte != 0));
        assert!(bytes[1024..].iter().all(|byte| *byte == 0), "seed {seed}");
    }
    assert!(seen > 20, "the dice left no rubble: {seen}");
}

fn read_log(disk: &CrashDisk) -> Vec<u8> {
    let file = disk.open(Path::new(LOG), Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn after_a_failed_sync_the_lease_publishes_no_more() {
    let disk = CrashDisk::new(3);
    let home = home(&disk);
    let mut lease = home.acquire(&notes(), holder()).unwrap();
    lease.publish(&commit(0), &0_u64.to_le_bytes()).unwrap();
    // The log grows, then the record is written, then comes the sync.
    disk.fail_operation(disk.operations() + 2, EIO);
    let error = lease.publish(&commit(1), &[]).unwrap_err();
    assert!(matches!(error, PublishError::Sync { .. }), "{error}");
    assert_eq!(lease.head().unwrap().seq, 0);
    for _ in 0..2 {
        let error = lease.publish(&commit(1), &[]).unwrap_err();
        assert!(matches!(error, PublishError::Poisoned { .. }), "{error}");
    }
}

#[test]
fn a_head_that_is_in_memory_alone_is_made_durable_by_the_next_writer() {
    let mut lost = 0;
    for seed in 0..200 {
        let disk = CrashDisk::new(seed);
        let home = home(&disk);
        publish_until_failure(&home, 0, 2);
        // The sync fails, and so does taking the record back: the next writer meets it, whole, in memory.
        let next = disk.operations();
        let mut lease = home.acquire(&notes(), holder()).unwrap();
        let acquired = disk.operations() - next;
        // Proving the head takes one write, the record another.
        let sync = next + acquired + 2;
        disk.fail_operation(sync, EIO);
        disk.fail_operation(sync + 1, EIO);
        lease.publish(&commit(2), &2_u64.to_le_bytes()).unwrap_err();
        drop(lease);
        lost += u32::from(log(&self::home(&disk.crash())).len() == 2);
        let found = log(&home).len() as u64;
        assert_eq!(publish_until_failure(&home, found, found + 1), found + 1);
        intact(
            &self::home(&disk.crash()),
            found + 1,
            &format!("seed {seed}"),
        );
    }
    assert!(lost > 20, "the dice spared the head: {lost}");
}

#[test]
fn damage_below_a_newer_record_is_reported_with_its_place() {
    let disk = CrashDisk::new(0);
    let home = home(&disk);
    publish_until_failure(&home, 0, 1);
    let second = 512;
    publish_until_failure(&home, 1, 4);
    disk.flip(Path::new(LOG), second + 100..second + 101)
        .unwrap();
    // The head is whole, and is given; what stands below it is not.
    assert_eq!(home.image(&notes()).unwrap().unwrap().head.unwrap().seq, 3);
    let mut log = home.log(&notes()).unwrap();
    assert_eq!(log.next().unwrap().unwrap().seq, 3);
    assert_eq!(log.next().unwrap().unwrap().seq, 2);
    match log.next() {
        Some(Err(LogError::Damaged { path, offset, .. })) => {
            assert_eq!((path.as_path(), offset), (Path::new(LOG), second as u64));
        }
        other => panic!("{other:?}"),
    }
    assert!(log.next().is_none());
}

#[test]
fn a_read_error_is_an_error_and_never_an_empty_image() {
    let disk = CrashDisk::new(0);
    let home = home(&disk);
    publish_until_failure(&home, 0, 3);
    disk.fail_reads(Path::new(LOG), 0..1 << 20).unwrap();
    let error = home.image(&notes()).unwrap_err();
    let HomeError::Log(LogError::Io { path, source, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(path, Path::new(LOG));
    assert_eq!(source.raw_os_error(), Some(EIO));
    assert!(home.acquire(&notes(), holder()).is_err());
}

#[test]
fn ruins_longer_than_one_record_are_damage_and_not_an_empty_image() {
    let disk = CrashDisk::new(0);
    let home = home(&disk);
    publish_until_failure(&home, 0, 1);
    let log = disk.open(Path::new(LOG), Open::Write).unwrap();
    log.write_at(0, &vec![0xee; 2 << 20]).unwrap();
    let error = home.image(&notes()).unwrap_err();
    assert!(
        matches!(error, HomeError::Log(LogError::NoRecord { .. })),
        "{error}"
    );
}

/// Kills whoever publishes commit 1 after commit 0, in the middle of operation `at` of the second publish. Answers whether
/// that operation came at all.
fn killed_in_the_second(disk: &CrashDisk, at: u64) -> bool {
    let mut lease = home(disk).acquire(&notes(), holder()).unwrap();
    lease.publish(&commit(0), b"").unwrap();
    disk.power_off_at(disk.operations() + at);
    let killed = lease.publish(&commit(1), b"").is_err();
    drop(lease);
    disk.power_off_at(u64::MAX);
    killed
}

/// The head that a killed process left may not be durable. Whatever is promised after it stands on it.
#[test]
fn a_head_that_nobody_synced_is_durable_before_anything_that_follows_it() {
    let mut unsynced = 0;
    for at in 0.. {
        let mut died = false;
        for seed in 0..30 {
            // The next one's publish is cut off at each of its operations in turn, and at none.
            for cut in 0..8 {
                let disk = CrashDisk::new(1000 * at + seed);
                died = killed_in_the_second(&disk, at);
                let mut lease = home(&disk).acquire(&notes(), holder()).unwrap();
                let head = lease.head().unwrap().commit_id;
                unsynced += u32::from(died && lease.head().unwrap().seq == 1);
                disk.power_off_at(disk.operations() + cut);
                let published = lease.publish(&commit(2), b"");
                drop(lease);
                let left = log(&home(&disk.crash()));
                let ids: Vec<_> = left.iter().map(|record| record.commit_id).collect();
                assert!(
                    left.iter()
                        .rev()
                        .map(|record| record.seq)
                        .eq(0..left.len() as u64)
                );
                if let Ok(published) = published {
                    assert_eq!(ids[..2], [published, head], "killed at {at}, cut at {cut}");
                }
            }
        }
        if !died {
            break;
        }
    }
    assert!(unsynced > 0);
}

#[test]
fn a_head_is_confirmed_before_it_is_told_as_durable() {
    let mut unsynced = 0;
    for at in 0.. {
        let mut died = false;
        for seed in 0..40 {
            let disk = CrashDisk::new(1000 * at + seed);
            died = killed_in_the_second(&disk, at);
            let mut lease = home(&disk).acquire(&notes(), holder()).unwrap();
            let head = lease.head().unwrap().clone();
            unsynced += u32::from(died && head.seq == 1);
            lease.confirm().unwrap();
            let operations = disk.operations();
            lease.confirm().unwrap();
            assert_eq!(disk.operations(), operations, "once is enough");
            let left = log(&home(&disk.crash()));
            assert_eq!(
                left[0].commit_id, head.commit_id,
                "killed at {at}, seed {seed}"
            );
        }
        if !died {
            break;
        }
    }
    assert!(unsynced > 0);
}
