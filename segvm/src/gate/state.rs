//! The gate's counts and flags in one atomic word, so that entering is one addition.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Closing, Kind};

/// Bits 0..28 count writers, bits 28..56 readers; the flags follow.
///
/// Additions acquire what the last closer released; subtractions release to the closer that sees the zero.
pub(super) struct Word(AtomicU64);

const ONE_WRITER: u64 = 1;
const ONE_READER: u64 = 1 << 28;
const WRITERS: u64 = ONE_READER - 1;
const READERS: u64 = WRITERS << 28;
const NO_WRITERS: u64 = 1 << 60;
const NO_READERS: u64 = 1 << 61;
const SHUT: u64 = 1 << 62;

const fn one(kind: Kind) -> u64 {
    match kind {
        Kind::Write => ONE_WRITER,
        Kind::Read => ONE_READER,
    }
}

const fn refuses(kind: Kind) -> u64 {
    match kind {
        Kind::Write => NO_WRITERS | SHUT,
        Kind::Read => NO_READERS | SHUT,
    }
}

impl Word {
    pub(super) const fn open() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one in, if the gate is open to it.
    ///
    /// The order of changes to one atomic is total: either the closer's flag comes first and is seen here, or this
    /// addition comes first and the closer counts it.
    pub(super) fn add(&self, kind: Kind) -> bool {
        // Asked first, so that those who wait do not come and go in the counts that a closer watches.
        if self.0.load(Ordering::Relaxed) & refuses(kind) != 0 {
            return false;
        }
        let before = self.0.fetch_add(one(kind), Ordering::Acquire);
        if before & refuses(kind) == 0 {
            return true;
        }
        // A closer may have counted this one and gone to sleep: the caller wakes it.
        self.0.fetch_sub(one(kind), Ordering::Release);
        false
    }

    /// Counts one in, whatever the flags say.
    pub(super) fn add_unasked(&self, kind: Kind) {
        self.0.fetch_add(one(kind), Ordering::Acquire);
    }

    /// Counts one out; `true` when somebody waits for that.
    pub(super) fn sub(&self, kind: Kind) -> bool {
        let before = self.0.fetch_sub(one(kind), Ordering::Release);
        before & (NO_WRITERS | NO_READERS) != 0
    }

    pub(super) fn start_closing(&self, closing: Closing) {
        let flags = match closing {
            Closing::Writers => NO_WRITERS,
            Closing::Everybody => NO_WRITERS | NO_READERS,
        };
        self.0.fetch_or(flags, Ordering::Acquire);
    }

    pub(super) fn end_closing(&self) {
        self.0
            .fetch_and(!(NO_WRITERS | NO_READERS), Ordering::Release);
    }

    pub(super) fn closing(&self) -> Option<Closing> {
        let word = self.0.load(Ordering::Acquire);
        if word & NO_READERS != 0 {
            Some(Closing::Everybody)
        } else if word & NO_WRITERS != 0 {
            Some(Closing::Writers)
        } else {
            None
        }
    }

    /// Tells whether passes are out that `closing` waits for.
    pub(super) fn is_held(&self, closing: Closing) -> bool {
        let counts = match closing {
            Closing::Writers => WRITERS,
            Closing::Everybody => WRITERS | READERS,
        };
        self.0.load(Ordering::Acquire) & counts != 0
    }

    pub(super) fn shut(&self) {
        self.0.fetch_or(SHUT, Ordering::Release);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire) & SHUT != 0
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.0.load(Ordering::Relaxed);
        f.debug_struct("Word")
            .field("writers", &(word & WRITERS))
            .field("readers", &((word & READERS) >> 28))
            .field("closing", &self.closing())
            .field("shut", &(word & SHUT != 0))
            .finish()
    }
}
