//! What is not saved, and what is filled again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use segvm::{Attribute, OpenError, Region, Session, hooks::HookFailure, region::RegionError};

use crate::harness::*;

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
