//! Which regions a segment has.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use segvm_home::{RangeAttribute, RangeKind};
use segvm_os::PageRange;

use super::turns::Turns;

/// A secret one, and warm memory around any, takes maps of its own, of which a process has 65,530. A commit has room for 16,384.
pub(super) const MOST: usize = 1024;

/// One region of an open segment.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Whole blocks, within the segment's length.
    pub(crate) range: PageRange,
    pub(crate) kind: RangeKind,
    pub(super) turns: Turns,
    /// Whether it has the content that it promises. Changed and read by whoever has a turn, whose lock orders it.
    filled: AtomicBool,
}

impl Entry {
    pub(crate) fn new(range: PageRange, kind: RangeKind) -> Self {
        Self {
            range,
            kind,
            turns: Turns::default(),
            filled: AtomicBool::new(kind != RangeKind::Regenerate),
        }
    }

    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }

    pub(super) fn set_filled(&self, filled: bool) {
        self.filled.store(filled, Ordering::Relaxed);
    }
}

/// The regions of a segment, ascending. They never overlap, and lie within the segment's length as soon as that can be seen.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// A leaf lock.
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl Table {
    /// Their pages: what no checkpoint looks at. Free where there are none.
    pub(crate) fn ranges(&self) -> Vec<PageRange> {
        self.entries
            .lock()
            .iter()
            .map(|entry| entry.range)
            .collect()
    }

    pub(crate) fn touches(&self, range: PageRange) -> bool {
        let entries = self.entries.lock();
        entries.iter().any(|entry| {
            entry
                .range
                .intersect(range)
                .is_some_and(|both| !both.is_empty())
        })
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.lock().clone()
    }

    pub(super) fn find(&self, range: PageRange) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        entries.iter().find(|entry| entry.range == range).cloned()
    }

    /// Adds the last one; answers whether there was room.
    pub(crate) fn push(&self, entry: Arc<Entry>) -> bool {
        let mut entries = self.entries.lock();
        let room = entries.len() < MOST;
        if room {
            entries.push(entry);
        }
        room
    }

    /// Replaces all: the segment's memory was made anew.
    pub(crate) fn set(&self, entries: Vec<Arc<Entry>>) {
        *self.entries.lock() = entries;
    }

    /// As a commit records them, for a segment of that length.
    pub(crate) fn records(&self, base: usize, len: u64) -> Vec<RangeAttribute> {
        let entries = self.entries.lock();
        let all = entries.iter().map(|entry| RangeAttribute {
            start: (entry.range.start() - base) as u64,
            len: entry.range.len() as u64,
            kind: entry.kind,
        });
        // One that was made since the capture belongs to the next commit.
        all.filter(|range| range.start + range.len <= len).collect()
    }
}
