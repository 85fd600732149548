//! Numbers of a heap in its segment. They are read and written under the lock that they belong to (see `locks`), or
//! peeked at without one, for a guess that the lock confirms. Being atomic they need no reference that nobody else has,
//! and a program that frees from two threads what is one block harms its heap, not the meaning of this code.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A number of 32 bits.
///
/// Relaxed, and no read-modify-write: the lock orders what belongs together. On the machines we know this is a plain
/// load and a plain store.
#[repr(transparent)]
pub(super) struct Cell32(AtomicU32);

impl Cell32 {
    #[inline]
    pub(super) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, to: u32) {
        self.0.store(to, Relaxed);
    }

    /// Sets it and answers what it was.
    #[inline]
    pub(super) fn replace(&self, to: u32) -> u32 {
        let was = self.get();
        self.set(to);
        was
    }
}

/// A number of 64 bits; as [`Cell32`].
#[repr(transparent)]
pub(super) struct Cell64(AtomicU64);

impl Cell64 {
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, to: u64) {
        self.0.store(to, Relaxed);
    }

    /// Sets it and answers what it was.
    #[inline]
    pub(super) fn replace(&self, to: u64) -> u64 {
        let was = self.get();
        self.set(to);
        was
    }
}
