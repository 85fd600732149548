//! What the rooms share.

use std::{fs, path::Path};

use segvm::{Session, SessionOptions};

pub(crate) const MIB: usize = 1 << 20;
pub(crate) const SECRET: &[u8] = b"the password is \xf0\x9f\x90\x8e battery staple";
pub(crate) const PUBLIC: &[u8] = b"anybody may know that staples are metal";

pub(crate) fn options(store: &Path) -> SessionOptions {
    SessionOptions::new().store(store)
}

pub(crate) fn open(store: &Path) -> Session {
    options(store).open("image").unwrap()
}

/// Bytes that compress to nothing else: block by block unlike each other.
pub(crate) fn paint(len: usize, seed: u64) -> Vec<u8> {
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
pub(crate) fn count(root: &Path, pattern: &[u8]) -> usize {
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

/// Puts the pattern on every page.
pub(crate) fn strew(bytes: &mut [u8], pattern: &[u8]) {
    for page in bytes.chunks_mut(4096) {
        page[100..100 + pattern.len()].copy_from_slice(pattern);
    }
}
