//! Sessions to attack, words of memory, and the check of every commit.

use std::{
    path::Path,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use segvm::{Segment, Session, SessionOptions};

pub(crate) const PAGE: usize = 4096;
pub(crate) const BLOCK: usize = 16 << 10;

pub(crate) fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("hostile").unwrap()
}

pub(crate) fn memory(session: &Session, len: usize) -> Segment {
    session.segment("memory", len).unwrap()
}

pub(crate) fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

/// A word of the segment, for as long as its session is open.
pub(crate) fn word(segment: &Segment, at: usize) -> &AtomicU64 {
    assert!(at.is_multiple_of(8) && at + 8 <= segment.len());
    let address = segment.as_ptr() as usize + at;
    // SAFETY: committed memory, aligned, and in these tests written by atomics and by system calls only.
    unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(address) }
}

pub(crate) fn put(segment: &Segment, at: usize, value: u64) {
    word(segment, at).store(value, Ordering::Relaxed);
}

pub(crate) fn put_in(model: &mut [u8], at: usize, value: u64) {
    model[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

pub(crate) fn get_in(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A number that looks random and depends on the input alone.
pub(crate) fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[track_caller]
pub(crate) fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
        let wrong = found
            .chunks(PAGE)
            .zip(expected.chunks(PAGE))
            .filter(|(a, b)| a != b);
        let word = at / 8 * 8;
        panic!(
            "{what}: {} pages are wrong; the word at {word} (page {} of its block) is {} and not {}",
            wrong.count(),
            at % BLOCK / PAGE,
            get_in(found, word),
            get_in(expected, word)
        );
    }
}

/// Restores every commit of the image, oldest first, and hands its bytes to `check`; answers how many there were.
pub(crate) fn each_commit(
    session: &Session,
    segment: &Segment,
    mut check: impl FnMut(&str, &[u8]),
) -> usize {
    let mut commits: Vec<String> = session
        .log()
        .unwrap()
        .iter()
        .map(|record| record.commit_id.to_string())
        .collect();
    commits.reverse();
    for commit in &commits {
        session.restore(&commit[..16]).unwrap();
        check(commit, &content(segment));
    }
    commits.len()
}
