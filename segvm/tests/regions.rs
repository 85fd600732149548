//! Regions on whole sessions: what is not saved is nowhere in the store, comes back as it should, and is not pulled from under guards.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use segvm::{
    Attribute, BlockSize, OpenError, Region, Rounds, Secret, Segment, SegmentOptions, Session,
    SessionOptions, World, hooks::HookFailure, region::RegionError,
};
use segvm_blockcache::disk::MemDisk;
use segvm_os::ModelKernel;

const MIB: usize = 1 << 20;

fn options(store: &Path) -> SessionOptions {
    SessionOptions::new().store(store)
}

fn open(store: &Path) -> Session {
    options(store).open("image").unwrap()
}

/// Bytes that compress to nothing else: block by block unlike each other.
fn paint(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let words = (0..len / 8).flat_map(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.collect()
}

/// How often the pattern is in any file below `root`.
fn count(root: &Path, pattern: &[u8]) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += count(&path, pattern);
        } else {
            let bytes = fs::read(&path).unwrap();
            let first = pattern[0];
            let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
            found += starts
                .filter(|(at, _)| bytes[*at..].starts_with(pattern))
                .count();
        }
    }
    found
}

const SECRET: &[u8] = b"the password is \xf0\x9f\x90\x8e battery staple";
const PUBLIC: &[u8] = b"anybody may know that staples are metal";

/// Puts the pattern on every page.
fn strew(bytes: &mut [u8], pattern: &[u8]) {
    for page in bytes.chunks_mut(4096) {
        page[100..100 + pattern.len()].copy_from_slice(pattern);
    }
}

#[test]
fn a_secret_is_in_no_byte_of_the_store_over_checkpoints_rounds_and_suspends() {
    let store = tempfile::tempdir().unwrap();
    for life in 0..3_u64 {
        let session = open(store.path());
        let segment = session.segment("memory", 8 * MIB).unwrap();
        // In the middle: saved blocks before and behind.
        let secret = segment.region(8 * MIB, 6 * MIB, Attribute::Wipe).unwrap();
        segment.grow(24 * MIB).unwrap();
        assert!(secret.read().unwrap().bytes().iter().all(|&byte| byte == 0));
        for (n, rounds) in [Rounds::Auto, Rounds::Off, Rounds::Auto].iter().enumerate() {
            strew(secret.write().unwrap().bytes_mut(), SECRET);
            let mut public = paint(8 * MIB, 77 + life * 10 + n as u64);
            strew(&mut public, PUBLIC);
            segment.write(0, &public).unwrap();
            segment.write(14 * MIB, &public).unwrap();
            let saved = session.checkpoint_with(*rounds).unwrap();
            assert!(saved.rounds > 0 || *rounds == Rounds::Off, "{saved:?}");
        }
        // A small change beside a secret: its block is filled from live neighbours.
        strew(secret.write().unwrap().bytes_mut(), SECRET);
        segment.write(8 * MIB - 10, b"0123456789").unwrap();
        segment.write(14 * MIB, b"0123456789").unwrap();
        session.checkpoint().unwrap();
        strew(secret.write().unwrap().bytes_mut(), SECRET);
        segment.write(5, b"again").unwrap();
        let saved = session.suspend().unwrap();
        assert!(saved.changed);
        assert_eq!(count(store.path(), SECRET), 0);
        assert!(
            count(store.path(), PUBLIC) >= 4096,
            "the search finds what is there"
        );
    }
}

#[test]
fn a_secret_is_gone_after_a_restore_and_is_kept_out_of_dumps_again() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let secret = session.region("keys", MIB, Attribute::Wipe).unwrap();
    let other = session.segment("memory", MIB).unwrap();
    other.write(0, b"one").unwrap();
    session.checkpoint().unwrap();
    other.write(0, b"two").unwrap();
    session.checkpoint().unwrap();
    secret.write().unwrap().bytes_mut()[..3].copy_from_slice(b"key");
    assert!(is_secluded(&secret));
    session.restore("-1").unwrap();
    assert!(secret.read().unwrap().bytes().iter().all(|&byte| byte == 0));
    assert!(is_secluded(&secret));
    session.suspend().unwrap();
    let session = open(store.path());
    let secret = session.region("keys", MIB, Attribute::Wipe).unwrap();
    assert!(is_secluded(&secret));
    assert!(!is_secluded(
        &session.region("cache", MIB, Attribute::Drop).unwrap()
    ));
}

fn is_secluded(region: &Region) -> bool {
    let at = region.read().unwrap().bytes().as_ptr().addr();
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    for line in maps.lines() {
        let span = line.split(' ').next().and_then(|span| span.split_once('-'));
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        if let Some((Some(start), Some(end))) = span.map(|(a, b)| (number(a), number(b))) {
            here = (start..end).contains(&at);
        }
        if here && line.starts_with("VmFlags:") {
            return line.contains(" dd") && line.contains(" dc");
        }
    }
    panic!("nothing at {at:#x}");
}

#[test]
fn a_cache_is_not_written_and_comes_back_empty() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let state = session.segment("state", 12 * MIB).unwrap();
    let cache = session.region("cache", 4 * MIB, Attribute::Drop).unwrap();
    state.write(0, &paint(12 * MIB, 1)).unwrap();
    cache
        .write()
        .unwrap()
        .bytes_mut()
        .copy_from_slice(&paint(4 * MIB, 2));
    let saved = session.checkpoint().unwrap();
    assert_eq!(saved.bytes_blocks, 12 * MIB as u64);
    // What is only in the cache is no change.
    cache.write().unwrap().bytes_mut()[5] ^= 1;
    assert!(!session.checkpoint().unwrap().changed);
    assert_ne!(cache.read().unwrap().bytes()[..MIB], vec![0; MIB][..]);
    session.suspend().unwrap();

    let session = open(store.path());
    let cache = session.region("cache", 4 * MIB, Attribute::Drop).unwrap();
    assert!(cache.read().unwrap().bytes().iter().all(|&byte| byte == 0));
    let state = session.segment("state", 0).unwrap();
    let mut back = vec![0; 12 * MIB];
    state.read(0, &mut back).unwrap();
    assert_eq!(back, paint(12 * MIB, 1));
}

/// The proof that flushing pays, at a 64th of its size: a quarter is cache.
#[test]
fn a_suspend_writes_three_quarters_where_a_quarter_is_cache_that_fills_on_demand() {
    let whole = {
        let store = tempfile::tempdir().unwrap();
        let session = open(store.path());
        let state = session.segment("state", 16 * MIB).unwrap();
        state.write(0, &paint(16 * MIB, 3)).unwrap();
        session.suspend().unwrap().bytes_written
    };
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let state = session.segment("state", 12 * MIB).unwrap();
    let cache = session.region("cache", 4 * MIB, Attribute::Drop).unwrap();
    state.write(0, &paint(12 * MIB, 3)).unwrap();
    let fill = paint(4 * MIB, 4);
    cache.write().unwrap().bytes_mut().copy_from_slice(&fill);
    let flushed = cache.clone();
    session.on_flush("cache", move |flush| {
        flush.dropped(flushed.discard()?);
        Ok::<_, RegionError>(())
    });
    let saved = session.suspend().unwrap();
    assert_eq!(saved.flushed[0].dropped, 4 * MIB as u64);
    let part = saved.bytes_written;
    assert!(part * 100 <= whole * 76, "{part} of {whole} bytes");
}

fn squares(refill: &segvm::region::Refill<'_>, buffer: &mut [u8]) {
    let first = (refill.offset / 8) as u64;
    for (n, place) in (first..).zip(buffer.chunks_exact_mut(8)) {
        place.copy_from_slice(&(n * n + 1).to_le_bytes());
    }
}

fn are_squares(region: &Region) {
    let guard = region.read().unwrap();
    for (n, place) in (0_u64..).zip(guard.bytes().chunks_exact(8)) {
        assert_eq!(u64::from_le_bytes(place.try_into().unwrap()), n * n + 1);
    }
}

#[test]
fn what_is_regenerated_is_filled_before_anybody_can_look_and_is_never_stored() {
    let store = tempfile::tempdir().unwrap();
    let len = 2 * MIB + 16 * 1024;
    let with = || options(store.path()).regenerate("squares", squares);
    let session = with().open("image").unwrap();
    let region = session
        .region("squares", len, Attribute::Regenerate)
        .unwrap();
    are_squares(&region);
    session
        .segment("other", MIB)
        .unwrap()
        .write(0, &[1])
        .unwrap();
    let saved = session.checkpoint().unwrap();
    assert!(saved.bytes_blocks <= 16 * 1024, "{saved:?}");
    region.write().unwrap().bytes_mut().fill(9);
    session.restore("-0").unwrap();
    are_squares(&region);
    region.write().unwrap().bytes_mut().fill(9);
    assert_eq!(region.discard().unwrap(), len as u64);
    are_squares(&region);
    session.suspend().unwrap();

    // Hooks find it filled.
    let seen = Arc::new(AtomicBool::new(false));
    let saw = Arc::clone(&seen);
    let session = with()
        .on_resume("looks", move |told| {
            let region = told.session.region("squares", len, Attribute::Regenerate);
            are_squares(&region.unwrap());
            saw.store(true, SeqCst);
        })
        .open("image")
        .unwrap();
    assert!(seen.load(SeqCst));
    drop(session);

    let error = options(store.path()).open("image").unwrap_err();
    assert!(
        matches!(&error, OpenError::Region(RegionError::NoCallback { segment }) if segment == "squares"),
        "{error}"
    );
    let error = options(store.path())
        .regenerate("squares", |refill, _buffer| {
            assert!(refill.offset == 0, "not the second piece");
        })
        .open("image")
        .unwrap_err();
    let OpenError::Region(RegionError::Hook(hook)) = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(hook.failure, HookFailure::Panicked { .. }),
        "{error}"
    );
    // The lease was given back.
    let session = with().open("image").unwrap();
    are_squares(
        &session
            .region("squares", len, Attribute::Regenerate)
            .unwrap(),
    );
}

#[test]
fn a_region_whose_callback_failed_stays_shut_until_one_succeeds() {
    let store = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicU32::new(1));
    let left = Arc::clone(&fails);
    let session = options(store.path())
        .regenerate("squares", move |refill, buffer| {
            if left.load(SeqCst) > 0 {
                return Err("not today");
            }
            squares(refill, buffer);
            Ok(())
        })
        .open("image")
        .unwrap();
    let make = |session: &Session| session.region("squares", MIB, Attribute::Regenerate);
    assert!(
        make(&session)
            .unwrap_err()
            .to_string()
            .contains("not today")
    );
    fails.store(0, SeqCst);
    let region = make(&session).unwrap();
    are_squares(&region);
    session.checkpoint().unwrap();
    fails.store(1, SeqCst);
    assert!(matches!(
        region.discard().unwrap_err(),
        RegionError::Hook(_)
    ));
    assert!(matches!(
        region.read().unwrap_err(),
        RegionError::Unfilled { .. }
    ));
    assert!(session.restore("-0").is_err());
    assert!(matches!(
        region.read().unwrap_err(),
        RegionError::Unfilled { .. }
    ));
    fails.store(0, SeqCst);
    are_squares(&make(&session).unwrap());
    are_squares(&region);
}

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
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let guard = cache.read().unwrap();
                    let bytes = guard.bytes();
                    assert!(bytes.iter().all(|&byte| byte == bytes[0]));
                    looks.fetch_add(1, SeqCst);
                }
            });
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

/// In a simulation, and with a kernel that refuses each call once: nothing of a region is ever copied, saved or lost sight of.
#[test]
fn a_kernel_that_fails_at_any_call_never_lets_a_region_be_saved() {
    fn live(world: &World, memory: &mut Option<(Session, Segment)>) -> Result<u64, String> {
        let session = SessionOptions::new()
            .store("/store")
            .world(world.clone())
            .open("image")
            .map_err(|error| error.to_string())?;
        let small = SegmentOptions::new()
            .block_size(BlockSize::MIN)
            .reserve(MIB);
        let segment = session
            .segment_with("memory", 64 << 10, &small)
            .map_err(|error| error.to_string())?;
        let region = segment
            .region(64 << 10, 64 << 10, Attribute::Wipe)
            .map_err(|error| error.to_string())?;
        let told = |error: RegionError| error.to_string();
        let mut pages = vec![0; 64 << 10];
        strew(&mut pages, SECRET);
        region
            .write()
            .map_err(told)?
            .copy_in(0, &pages)
            .map_err(told)?;
        segment
            .write(7, b"kept")
            .map_err(|error| error.to_string())?;
        let saved = session.checkpoint().map_err(|error| error.to_string())?;
        *memory = Some((session, segment));
        Ok(saved.bytes_blocks)
    }
    let world = |kernel: &ModelKernel, disk: &MemDisk| {
        World::with(Arc::new(kernel.clone()), Arc::new(disk.clone()))
    };
    let calls = {
        let kernel = ModelKernel::new();
        let mut kept = None;
        let blocks = live(&world(&kernel, &MemDisk::new()), &mut kept).unwrap();
        assert_eq!(blocks, 4096);
        kernel.calls()
    };
    let mut refused = 0;
    for nth in 1..=calls {
        let (kernel, disk) = (ModelKernel::new(), MemDisk::new());
        kernel.fail_nth(nth, 12);
        let mut kept = None;
        match live(&world(&kernel, &disk), &mut kept) {
            Ok(blocks) => assert_eq!(blocks, 4096, "with call {nth} refused"),
            Err(_said) => refused += 1,
        }
    }
    assert!(refused > 3, "{refused} of {calls}");
}

#[test]
fn a_secret_value_is_zeroed_when_it_is_dropped_and_its_place_is_used_again() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let make = |session: &Session, byte: u8| -> Secret<[u8; 48]> {
        session
            .secret(|key: &mut [u8; 48]| {
                assert_eq!(*key, [0; 48], "a place is zero");
                key[..SECRET.len()].copy_from_slice(SECRET);
                key[47] = byte;
            })
            .unwrap()
    };
    let place = |secret: &Secret<[u8; 48]>| secret.read(|key| key.as_ptr().addr()).unwrap();
    let (one, mut two) = (make(&session, 1), make(&session, 2));
    let (at_one, at_two) = (place(&one), place(&two));
    assert!(at_one.abs_diff(at_two) >= 48);
    two.write(|key| key[46] = 9).unwrap();
    assert_eq!(one.read(|key| (key[46], key[47])).unwrap(), (0, 1));
    drop(one);
    assert_eq!(two.read(|key| (key[46], key[47])).unwrap(), (9, 2));
    assert_eq!(place(&make(&session, 3)), at_one, "and was zero");
    let many: Vec<_> = (0..4000_u32).map(|n| make(&session, n as u8)).collect();
    assert!(
        many.iter()
            .enumerate()
            .all(|(n, secret)| secret.read(|key| key[47]).unwrap() == n as u8)
    );
    // Nobody else gets at it.
    let block = session.segment("segvm.secrets", 0).unwrap();
    let whole = block.region(0, 64 << 10, Attribute::Wipe).unwrap();
    assert!(matches!(
        whole.read().unwrap_err(),
        RegionError::HeldHere { .. }
    ));
    session
        .segment("other", MIB)
        .unwrap()
        .write(0, PUBLIC)
        .unwrap();
    session.checkpoint().unwrap();
    session.restore("-0").unwrap();
    assert!(matches!(
        two.read(|_| ()).unwrap_err(),
        RegionError::Gone { .. }
    ));
    let three = make(&session, 3);
    drop((two, many));
    assert_eq!(three.read(|key| key[47]).unwrap(), 3);
    session.suspend().unwrap();
    assert!(matches!(
        three.read(|_| ()).unwrap_err(),
        RegionError::Gate(_)
    ));
    drop(three);
    assert_eq!(
        (count(store.path(), SECRET), count(store.path(), PUBLIC)),
        (0, 1)
    );
    let session = open(store.path());
    let len = session.segment("segvm.secrets", 0).unwrap().len();
    make(&session, 1);
    assert_eq!(
        session.segment("segvm.secrets", 0).unwrap().len(),
        len,
        "regions are used again"
    );
}
