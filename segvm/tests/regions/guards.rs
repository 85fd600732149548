//! Who gets at a region, and where one can be.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use segvm::{Attribute, OpenError, SegmentOptions, region::RegionError};
use segvm_blockcache::disk::RealDisk;
use segvm_home::{DirHome, Holder, RangeAttribute, RangeKind};

use crate::harness::*;

#[test]
fn a_discard_waits_for_guards_and_never_for_its_own() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path())
        .gate_timeout(Duration::from_secs(60))
        .open("image")
        .unwrap();
    let cache = session.region("cache", MIB, Attribute::Drop).unwrap();
    {
        let mut guard = cache.write().unwrap();
        guard.bytes_mut()[7] = 7;
        assert!(matches!(
            cache.discard().unwrap_err(),
            RegionError::HeldHere { .. }
        ));
        assert!(matches!(
            cache.read().unwrap_err(),
            RegionError::HeldHere { .. }
        ));
    }
    let page = segvm_os::page_size().unwrap().bytes() as u64;
    let (begun, barrier) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let reader = cache.read().unwrap();
        let twice = cache.read().unwrap();
        scope.spawn(|| {
            barrier.wait();
            begun.store(true, SeqCst);
            assert_eq!(cache.discard().unwrap(), page);
        });
        barrier.wait();
        while !begun.load(SeqCst) {
            thread::yield_now();
        }
        for _ in 0..1000 {
            assert_eq!((reader.bytes()[7], twice.bytes()[7]), (7, 7));
        }
        // A checkpoint does not wait for guards of regions.
        session.root::<u64>("count").unwrap();
        session.checkpoint().unwrap();
    });
    assert_eq!(cache.read().unwrap().bytes()[7], 0);
    let guard = cache.read().unwrap();
    let refused = session.suspend().unwrap_err();
    assert!(
        refused.to_string().contains("this thread holds"),
        "{refused}"
    );
    drop(guard);
    refused.into_session().suspend().unwrap();
    assert!(matches!(cache.read().unwrap_err(), RegionError::Gate(_)));
}

/// Readers of one value under a discarder: they see it whole or not at all.
#[test]
fn readers_never_see_a_discard_half_done() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let cache = session.region("cache", 64 * 1024, Attribute::Drop).unwrap();
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let guard = cache.read().unwrap();
                    let bytes = guard.bytes();
                    assert!(bytes.iter().all(|&byte| byte == bytes[0]));
                    looks.fetch_add(1, SeqCst);
                }
            })
        });
        // A busy machine begins threads late.
        while looks.load(SeqCst) == 0 && !readers.iter().any(|reader| reader.is_finished()) {
            thread::yield_now();
        }
        for n in 0..200_u8 {
            cache.write().unwrap().bytes_mut().fill(n);
            cache.discard().unwrap();
        }
        stop.store(true, SeqCst);
    });
    assert!(looks.load(SeqCst) > 0);
}

#[test]
fn regions_are_whole_blocks_of_new_memory() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let options = SegmentOptions::new().reserve(4 * MIB);
    let segment = session.segment_with("memory", MIB, &options).unwrap();
    let block = segment.block_size().bytes();
    let make = |at, len| segment.region(at, len, Attribute::Drop);
    for (at, len) in [
        (MIB + 4096, block),
        (MIB, 4096),
        (MIB, 0),
        (usize::MAX - 4095, block),
    ] {
        let error = make(at, len).unwrap_err();
        assert!(matches!(error, RegionError::Unaligned { .. }), "{error}");
    }
    let error = make(4 * MIB, block).unwrap_err();
    assert!(matches!(error, RegionError::Reservation { .. }), "{error}");
    // Also where it never was written, and also where only the end is.
    for at in [0, MIB - block] {
        let error = make(at, 2 * block).unwrap_err();
        assert!(
            matches!(error, RegionError::InUse { has: None, .. }),
            "{error}"
        );
    }
    let region = make(2 * MIB, MIB).unwrap();
    assert_eq!((segment.len(), region.len()), (3 * MIB, MIB));
    make(2 * MIB, MIB).unwrap();
    let other = segment.region(2 * MIB, MIB, Attribute::Wipe).unwrap_err();
    assert!(
        matches!(other, RegionError::InUse { has: Some(_), .. }),
        "{other}"
    );
    assert!(make(2 * MIB, block).is_err());
    // What lies before it is kept, and plain access to it is refused.
    segment.write(2 * MIB - 3, b"end").unwrap();
    for at in [2 * MIB - 1, 2 * MIB, 3 * MIB - 1] {
        let touched = || segment.write(at, &[1, 2][..(3 * MIB - at).min(2)]);
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(touched));
        assert!(refused.is_err(), "{at}");
    }
    session.restore("-0").unwrap_err();
}

#[test]
fn a_region_made_since_is_gone_after_a_restore() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", MIB).unwrap();
    segment.write(0, b"old").unwrap();
    session.checkpoint().unwrap();
    let region = segment.region(MIB, MIB, Attribute::Drop).unwrap();
    session.checkpoint().unwrap();
    session.restore("-1").unwrap();
    assert!(matches!(
        region.read().unwrap_err(),
        RegionError::Gone { .. }
    ));
    assert_eq!(segment.len(), MIB);
    segment.region(MIB, MIB, Attribute::Drop).unwrap();
    drop(region.read().unwrap());
}

/// A record of another hand: nothing of a file may ever lie in a region, and nothing of a region past the segment.
#[test]
fn a_record_whose_regions_cannot_be_is_refused() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", 2 * MIB).unwrap();
    segment.write(MIB, b"content").unwrap();
    session.suspend().unwrap();
    let home = DirHome::open(Arc::new(RealDisk), store.path().to_owned());
    let whole = |start, len| RangeAttribute {
        start,
        len,
        kind: RangeKind::Drop,
    };
    let mib = MIB as u64;
    for (ranges, is_good) in [
        (vec![whole(0, mib)], true),
        (vec![whole(0, mib + 16384)], false),
        (vec![whole(mib, mib)], false),
        (vec![whole(0, 4096)], false),
        (vec![whole(2 * mib, mib)], false),
        (vec![whole(0, mib), whole(mib + 16384, mib - 16384)], true),
    ] {
        let holder = Holder {
            pid: std::process::id(),
            host: "box".into(),
            program: "forger".into(),
            since: std::time::SystemTime::now().into(),
        };
        let mut lease = home.acquire(&"image".parse().unwrap(), holder).unwrap();
        let head = lease.head().unwrap().clone();
        let mut commit = head.commit;
        commit.parents = vec![head.commit_id];
        commit.segments[0].ranges.clone_from(&ranges);
        lease.publish(&commit, &head.mark).unwrap();
        drop(lease);
        match options(store.path()).open("image") {
            Ok(_session) => assert!(is_good, "{ranges:?}"),
            Err(OpenError::BadRecord { .. }) => assert!(!is_good, "{ranges:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}
