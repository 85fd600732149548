//! Handles of raw segments over a restore: they follow the segment to the length it had.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use segvm::{OpenError, Segment, Session, SessionOptions};

const MIB: usize = 1 << 20;

fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("image").unwrap()
}

fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

fn back_to(session: &Session, commit: &str) {
    session.restore(&commit[..16]).unwrap();
}

/// Bytes from the segment's beginning on that may be written, as the kernel has it.
fn writable(segment: &Segment) -> usize {
    let mut end = segment.as_ptr() as usize;
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let at = |text| usize::from_str_radix(text, 16).unwrap();
        if at(from) == end && rest.starts_with("rw") {
            end = at(to);
        }
    }
    end - segment.as_ptr() as usize
}

#[test]
fn every_handle_has_the_length_of_the_commit_that_was_restored() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", MIB).unwrap();
    let copy = segment.clone();
    // Lengths that grow, each with bytes of its own up to the end.
    let mut saved = Vec::new();
    for n in 1..=4_usize {
        segment.grow(n * n * MIB).unwrap();
        segment.write(0, &vec![n as u8; n * n * MIB]).unwrap();
        saved.push(session.checkpoint().unwrap().commit.to_string());
    }
    // Shorter and longer, one step and several.
    for n in [2_usize, 4, 1, 3, 3, 1, 4] {
        let len = n * n * MIB;
        back_to(&session, &saved[n - 1]);
        assert_eq!((segment.len(), copy.len()), (len, len));
        assert_eq!(session.segment("memory", 0).unwrap().len(), len);
        assert!(content(&copy).iter().all(|&byte| byte == n as u8));
        assert_eq!(writable(&segment), len);
        // What is past the end is refused as it would be in any segment of that length.
        let past = catch_unwind(AssertUnwindSafe(|| segment.write(len - 1, &[0; 2])));
        assert!(past.is_err());
        let past = catch_unwind(AssertUnwindSafe(|| copy.read(len, &mut [0])));
        assert!(past.is_err());
    }
    // Bytes of a longer commit do not come back by growing again.
    back_to(&session, &saved[0]);
    copy.grow(5 * MIB).unwrap();
    assert_eq!(segment.len(), 5 * MIB);
    let (old, new) = (content(&segment), 0..5 * MIB);
    assert!(
        old.iter()
            .zip(new)
            .all(|(&byte, at)| byte == u8::from(at < MIB))
    );
    segment.write(5 * MIB - 3, b"end").unwrap();
    let expected = content(&segment);
    session.checkpoint().unwrap();
    back_to(&session, &saved[3]);
    session.restore("-0").unwrap();
    assert!(content(&copy) == expected);
    session.suspend().unwrap();
    let session = open(store.path());
    assert!(content(&session.segment("memory", 0).unwrap()) == expected);
}

#[test]
fn a_commit_without_one_of_the_segments_is_not_restored() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let old = session.segment("old", MIB).unwrap();
    old.write(0, b"one").unwrap();
    let first = session.checkpoint().unwrap().commit.to_string();
    let new = session.segment("new", MIB).unwrap();
    new.write(0, b"two").unwrap();
    old.write(0, b"two").unwrap();
    // Also where the new one is not saved yet.
    for saved in [false, true] {
        if saved {
            session.checkpoint().unwrap();
        }
        let error = session.restore(&first[..16]).unwrap_err();
        match &error {
            OpenError::NoSegmentThen { segment, .. } => assert_eq!(segment, "new"),
            other => panic!("{other}"),
        }
        assert_eq!(content(&old)[..3], *b"two");
        assert_eq!((old.len(), new.len()), (MIB, MIB));
    }
}

/// Who grows during a restore does so before it, and then the restored length holds, or after it.
#[test]
fn growing_during_a_restore_leaves_no_hole() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", MIB).unwrap();
    segment.write(0, &[1; MIB]).unwrap();
    let short = session.checkpoint().unwrap().commit.to_string();
    segment.grow(8 * MIB).unwrap();
    segment.write(0, &[2; 8 * MIB]).unwrap();
    let long = session.checkpoint().unwrap().commit.to_string();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let grower = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let len = segment.len();
                segment.grow(len + 16_384).unwrap();
                n += 1;
            }
            n
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for turn in 0..200 {
                let (commit, least) = [(&short, MIB), (&long, 8 * MIB)][turn % 2];
                back_to(&session, commit);
                let len = segment.len();
                assert!(
                    len >= least,
                    "turn {turn}: {len} after a restore of {least}"
                );
                // Read by address: a page that is fenced in the middle of it is an error.
                assert!(
                    writable(&segment) >= len,
                    "turn {turn}: not all of {len} bytes is there"
                );
            }
        }));
        stop.store(true, Ordering::Relaxed);
        assert!(grower.join().unwrap() > 0);
        outcome.unwrap();
    });
    back_to(&session, &short);
    assert!(content(&segment) == vec![1; MIB]);
}
