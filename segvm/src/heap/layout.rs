//! What lies where in a heap. Part of the image format: a change here is a new [`VERSION`].

use std::{alloc::Layout, mem};

/// The unit in which a heap hands out its segment: the size of a span and the grain of large blocks, in bytes.
pub const UNIT: usize = 1 << 16;

pub(super) const MAGIC: [u8; 8] = *b"segvmhp\0";
pub(super) const VERSION: u32 = 1;

/// Size classes: 16 to 128 in steps of 16, then four to a doubling, up to 16 KiB.
pub(super) const CLASSES: usize = 36;
const LARGEST: usize = 16 << 10;
/// Every block is aligned to this at least, and no class is smaller: room for a link and a mark in a free block.
const GRAIN: usize = 16;

/// Bins of free runs, by the base-2 logarithm of their length in units.
pub(super) const BINS: usize = 32;

/// The first bytes of the segment.
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) zero: u32,
    /// Absolute address of this header.
    pub(super) base: u64,
    /// Bytes reserved: what the unit table was made for.
    pub(super) reserved: u64,
    pub(super) seed: u64,
    /// Units before this one hold header and table.
    pub(super) first_unit: u32,
    /// Units from here on were never used, or are whole again: zeros or old bytes, in no list.
    pub(super) top: u32,
    /// Bytes in live blocks, rounded up to their class or to whole units.
    pub(super) allocated: u64,
    pub(super) blocks: u64,
    /// The directory of roots: address, entries, entries that fit.
    pub(super) roots: u64,
    pub(super) roots_len: u64,
    pub(super) roots_cap: u64,
    /// Bit b is set where `bins[b]` is not empty.
    pub(super) filled_bins: u64,
    /// Units at the head of each list of free runs; 0 where there is none.
    pub(super) bins: [u32; BINS],
    /// Spans of each class that have room; 0 where there is none.
    pub(super) open_spans: [u32; CLASSES],
}

/// Where the unit table begins: the header has a page of its own.
pub(super) const TABLE: usize = 4096;
const _: () = assert!(mem::size_of::<Header>() <= TABLE);

pub(super) const KIND_NONE: u32 = 0;
pub(super) const KIND_SPAN: u32 = 1;
pub(super) const KIND_LARGE: u32 = 2;
pub(super) const KIND_FREE: u32 = 3;

/// One unit's entry in the table: the truth for the first unit of a run; of a free run's last unit, `kind` and `len`
/// too, so that its neighbour behind finds the run's head. Entries in between are stale and never read.
///
/// A span's state is here and not in the span: headers at multiples of 64 KiB would share one set of every cache (measured:
/// 400 ns for a pair of take and give), and a page of entries serves 64 spans when a checkpoint looks for what changed.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) kind: u32,
    /// Length of the run, in units.
    pub(super) len: u32,
    /// Of a free run: its neighbours in the bin; 0 where there is none.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Where `kind` is [`KIND_SPAN`].
    pub(super) span: Span,
}

/// The state of a span: one unit of objects of one size.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) class: u32,
    pub(super) used: u32,
    /// Objects from this one on were never handed out since the span was made.
    pub(super) fresh: u32,
    pub(super) capacity: u32,
    /// Address of the first free object before `fresh`, or 0. A free object holds the next one's address and a mark.
    pub(super) free: u64,
    /// Neighbours in the class's list of spans with room.
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) zero: [u64; 2],
}

const _: () = assert!(mem::size_of::<Unit>() == 64);

/// The bytes that the table takes for `reserved` bytes of segment, in whole units together with the header.
pub(super) const fn overhead_units(reserved: usize) -> usize {
    (TABLE + reserved / UNIT * mem::size_of::<Unit>()).div_ceil(UNIT)
}

/// A size class, below [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// The class for a block, or `None` for a large one.
    pub(super) fn of(layout: Layout) -> Option<Self> {
        let size = if layout.align() <= GRAIN {
            layout.size()
        } else {
            // A span's objects lie at multiples of the largest power of two that divides their size.
            layout
                .size()
                .max(layout.align())
                .checked_next_power_of_two()?
        };
        if size > LARGEST {
            return None;
        }
        let class = if size <= 128 {
            size.max(1).div_ceil(GRAIN) - 1
        } else {
            let log = (size - 1).ilog2();
            let quarter = ((size - 1) >> (log - 2)) & 3;
            8 + (log as usize - 7) * 4 + quarter
        };
        u8::try_from(class).ok().map(Self)
    }

    pub(super) fn from_index(index: u32) -> Option<Self> {
        let index = u8::try_from(index).ok()?;
        (usize::from(index) < CLASSES).then_some(Self(index))
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The size of the class's objects, in bytes.
    pub(super) const fn size(self) -> usize {
        let at = self.0 as usize;
        if at < 8 {
            (at + 1) * GRAIN
        } else {
            let (log, quarter) = (7 + (at - 8) / 4, (at - 8) % 4);
            (1 << log) + (quarter + 1) * (1 << (log - 2))
        }
    }

    /// How many objects a span holds.
    pub(super) const fn capacity(self) -> usize {
        UNIT / self.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=LARGEST {
            let class = Class::of(Layout::from_size_align(size, 8).unwrap()).unwrap();
            assert!(class.size() >= size);
            let smaller = class.0.checked_sub(1).map(|below| Class(below).size());
            assert!(smaller.is_none_or(|below| below < size), "{size}");
        }
        assert_eq!(
            Class::of(Layout::from_size_align(LARGEST + 1, 8).unwrap()),
            None
        );
        assert_eq!(Class(35).size(), LARGEST);
    }

    #[test]
    fn objects_are_aligned_as_asked_and_end_in_the_span() {
        for align_log2 in 0..=14 {
            for size in [1, 17, 100, 129, 1000, 5000, LARGEST] {
                let layout = Layout::from_size_align(size, 1 << align_log2).unwrap();
                let class = Class::of(layout).unwrap();
                for at in 0..class.capacity() {
                    let start = at * class.size();
                    assert_eq!(start % layout.align(), 0, "{layout:?}");
                    assert!(start + class.size() <= UNIT && class.size() >= size);
                }
            }
        }
    }
}
