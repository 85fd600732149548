//! What lies where in a heap. Part of the image format: a change here is a new [`VERSION`].

use std::{alloc::Layout, mem};

use super::cell::{Cell32, Cell64};

/// The unit in which a heap hands out its segment: the size of a span and the grain of large blocks, in bytes.
pub const UNIT: usize = 1 << 16;

/// The first eight bytes: `segvmhp` and a zero byte.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"segvmhp\0");
pub(crate) const VERSION: u32 = 3;

/// Size classes: 16 to 128 in steps of 16, then four to a doubling, up to 16 KiB.
pub(super) const CLASSES: usize = 36;
const LARGEST: usize = 16 << 10;
/// Every block is aligned to this at least, and no class is smaller: room for a link and a mark in a free block.
pub(super) const GRAIN: usize = 16;

/// Bins of free runs, by the base-2 logarithm of their length in units.
pub(super) const BINS: usize = 32;

/// Shards of a new heap: a power of two. A heap keeps the number that it was made with, in its header.
pub(super) const SHARDS: u32 = 32;
/// The most that a heap can have: as many as there are numbers of threads (see `threads`).
pub(super) const MAX_SHARDS: u32 = 64;

/// The first bytes of the segment.
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: Cell64,
    pub(super) version: Cell32,
    /// How many [`Shard`]s follow, at [`SHARD_TABLE`].
    pub(super) shards: Cell32,
    /// Absolute address of this header.
    pub(super) base: Cell64,
    /// Bytes reserved: what the unit table was made for.
    pub(super) reserved: Cell64,
    pub(super) seed: Cell64,
    /// Units before this one hold header, shards and table.
    pub(super) first_unit: Cell32,
    /// Units from here on were never used, or are whole again: zeros or old bytes, in no list.
    pub(super) top: Cell32,
    /// The directory of roots: address, entries, entries that fit.
    pub(super) roots: Cell64,
    pub(super) roots_len: Cell64,
    pub(super) roots_cap: Cell64,
    /// Bit b is set where `bins[b]` is not empty.
    pub(super) filled_bins: Cell64,
    /// Units at the head of each list of free runs; 0 where there is none.
    pub(super) bins: [Cell32; BINS],
    /// [`ZERO_ON_FREE`] or nothing; a heap keeps what it was made with.
    pub(super) flags: Cell64,
}

/// What is freed is zeroed at once.
pub(super) const ZERO_ON_FREE: u64 = 1;

/// Where the shards begin, in bytes from the base.
pub(super) const SHARD_TABLE: usize = 256;
const _: () = assert!(mem::size_of::<Header>() <= SHARD_TABLE);

/// The lists of one shard. Two cache lines of the pairs that processors fetch, so that shards share none.
#[repr(C)]
pub(super) struct Shard {
    /// The shard's spans of each class that have room; 0 where there is none.
    pub(super) open_spans: [Cell32; CLASSES],
    pub(super) zero: [Cell64; 14],
}

const _: () = assert!(mem::size_of::<Shard>() == 256);

/// Where the unit table begins, in bytes from the base: header and shards have pages of their own.
pub(super) const fn unit_table(shards: u32) -> usize {
    (SHARD_TABLE + shards as usize * mem::size_of::<Shard>()).next_multiple_of(4096)
}

pub(super) const KIND_NONE: u32 = 0;
pub(super) const KIND_SPAN: u32 = 1;
pub(super) const KIND_LARGE: u32 = 2;
pub(super) const KIND_FREE: u32 = 3;

/// One unit's entry in the table: the truth for the first unit of a run; of a free run's last unit, `kind` and `len`
/// too, so that its neighbour behind finds the run's head. Entries in between are stale and never read, but for `owner`.
///
/// A span's state is here and not in the span: headers at multiples of 64 KiB would share one set of every cache (measured:
/// 400 ns for a pair of take and give), and a page of entries serves 64 spans when a checkpoint looks for what changed.
#[repr(C)]
pub(super) struct Unit {
    pub(super) kind: Cell32,
    /// Length of the run, in units.
    pub(super) len: Cell32,
    /// Of a free run: its neighbours in the bin; 0 where there is none.
    pub(super) prev: Cell32,
    pub(super) next: Cell32,
    /// Of a span: its shard's number and 1. Of every other unit, whatever it belongs to: 0.
    pub(super) owner: Cell32,
    pub(super) zero: Cell32,
    /// Where `owner` is not 0.
    pub(super) span: Span,
}

/// The state of a span: one unit of objects of one size.
#[repr(C)]
pub(super) struct Span {
    pub(super) class: Cell32,
    pub(super) used: Cell32,
    /// Objects from this one on were never handed out since the span was made.
    pub(super) fresh: Cell32,
    pub(super) capacity: Cell32,
    /// Address of the first free object before `fresh`, or 0. A free object holds the next one's address and a mark.
    pub(super) free: Cell64,
    /// Neighbours in its shard's list of spans of the class with room.
    pub(super) prev: Cell32,
    pub(super) next: Cell32,
    pub(super) zero: Cell64,
}

const _: () = assert!(mem::size_of::<Unit>() == 64);

/// Whole units that the tables for `reserved` bytes of segment take, header and shards included.
pub(super) const fn overhead_units(reserved: usize, shards: u32) -> usize {
    (unit_table(shards) + reserved / UNIT * mem::size_of::<Unit>()).div_ceil(UNIT)
}

const fn class_of(size: usize) -> usize {
    if size <= 8 * GRAIN {
        size.saturating_sub(1) / GRAIN
    } else {
        let log = (size - 1).ilog2();
        let quarter = ((size - 1) >> (log - 2)) & 3;
        8 + (log as usize - 7) * 4 + quarter
    }
}

/// The class of every size up to 1 KiB, by grains: nearly all that programs ask for, and quicker than to work it out.
const CLASS_OF_GRAINS: [u8; 65] = {
    let mut table = [0; 65];
    let mut grains = 0;
    while grains < table.len() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::indexing_slicing,
            reason = "a class is below CLASSES, and this is worked out when it is compiled"
        )]
        {
            table[grains] = class_of(grains * GRAIN) as u8;
        }
        grains += 1;
    }
    table
};

/// A size class, below [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// The class for a block, or `None` for a large one.
    #[inline]
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
        match CLASS_OF_GRAINS.get(size.div_ceil(GRAIN)) {
            Some(&class) => Some(Self(class)),
            None => u8::try_from(class_of(size)).ok().map(Self),
        }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).filter_map(|at| u8::try_from(at).ok().map(Self))
    }

    pub(super) fn from_index(index: u32) -> Option<Self> {
        let index = u8::try_from(index).ok()?;
        (usize::from(index) < CLASSES).then_some(Self(index))
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The size of the class's objects, in bytes.
    #[inline]
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
