//! How many maps a session has, and how many more warm runs its segments may make of them.
//!
//! A process may have 65,530 maps, and the application wants some too. Each warm run may split a mapping in three.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// At most so many maps a session, whatever the pattern of its writes and checkpoints was.
const MOST: usize = 4096;

/// At most so many of them show content when a session begins: the rest is for what becomes warm.
pub(crate) const MOST_PIECES: usize = 3072;

/// Maps that every segment has or may have, however crowded the session is: the fence behind its length, and one warm run.
const OWN: usize = 3;

/// What all segments of a session have together. Changed under the session's state lock, or by who makes a segment: a count that
/// is old by one segment is as good.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    /// Pieces that content is shown in.
    pieces: AtomicUsize,
    /// Runs of windows that are warm.
    warm: AtomicUsize,
}

/// What one segment has of it; given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    maps: Arc<Maps>,
    pieces: usize,
    warm: usize,
}

impl Share {
    /// That of a segment which is one piece of anonymous memory.
    pub(crate) fn new(maps: Arc<Maps>) -> Self {
        let mut share = Self {
            maps,
            pieces: 0,
            warm: 0,
        };
        share.set_pieces(1);
        share
    }

    pub(crate) fn set_pieces(&mut self, pieces: usize) {
        replace(&self.maps.pieces, &mut self.pieces, pieces + OWN);
    }

    pub(crate) fn set_warm(&mut self, runs: usize) {
        replace(&self.maps.warm, &mut self.warm, runs);
    }

    /// How many warm runs this segment may have; as many as it has, at least.
    pub(crate) fn most_warm(&self) -> usize {
        let others = self.maps.warm.load(Ordering::Relaxed) - self.warm;
        let left = MOST.saturating_sub(self.maps.pieces.load(Ordering::Relaxed)) / 2;
        left.saturating_sub(others).max(self.warm).max(1)
    }
}

fn replace(sum: &AtomicUsize, mine: &mut usize, new: usize) {
    sum.fetch_add(new, Ordering::Relaxed);
    sum.fetch_sub(std::mem::replace(mine, new), Ordering::Relaxed);
}

impl Drop for Share {
    fn drop(&mut self) {
        replace(&self.maps.pieces, &mut self.pieces, 0);
        replace(&self.maps.warm, &mut self.warm, 0);
    }
}
