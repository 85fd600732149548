//! Runs of units: large blocks, and the free runs between them, which always merge with their neighbours.

use std::{alloc::Layout, ptr::NonNull};

use super::{
    HeapError,
    core::{Core, index, word},
    layout::{BINS, KIND_FREE, KIND_LARGE, KIND_NONE, UNIT, Unit},
};

/// How many runs of the request's own bin are looked at before a larger one is cut.
const LOOKS: usize = 8;

impl Core {
    pub(super) fn take_large(&mut self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        if layout.align() > UNIT {
            return Err(HeapError::Alignment {
                wanted: layout.align(),
            });
        }
        let units = layout.size().div_ceil(UNIT);
        if units > self.reserved() / UNIT {
            return Err(self.out_of_memory(layout.size()));
        }
        let at = self.take_units(index(units), KIND_LARGE)?;
        let header = self.header();
        header.allocated += word(units * UNIT);
        header.blocks += 1;
        Ok(self.address_of(at))
    }

    pub(super) fn give_large(&mut self, block: NonNull<u8>) {
        let at = self.unit_of(block);
        let Unit { kind, len, .. } = *self.unit(at);
        assert!(
            kind == KIND_LARGE && self.address_of(at) == block,
            "{block:?} is no live large block of this heap"
        );
        let header = self.header();
        header.allocated -= u64::from(len) * word(UNIT);
        header.blocks -= 1;
        self.give_units(at, len);
    }

    /// Lets a large block grow or shrink where it lies; `false` if it must move.
    pub(super) fn resize_large(&mut self, block: NonNull<u8>, new: Layout) -> bool {
        let at = self.unit_of(block);
        let Unit { len, .. } = *self.unit(at);
        let Ok(want) = u32::try_from(new.size().div_ceil(UNIT)) else {
            return false;
        };
        if want > len && !self.take_behind(at, len, want) {
            return false;
        }
        self.unit(at).len = want;
        let header = self.header();
        header.allocated =
            header.allocated - u64::from(len) * word(UNIT) + u64::from(want) * word(UNIT);
        if want < len {
            self.give_units(at + want, len - want);
        }
        true
    }

    /// Takes the units from `at + len` to `at + want`, if they are free or beyond the top.
    fn take_behind(&mut self, at: u32, len: u32, want: u32) -> bool {
        let (behind, more) = (at + len, want - len);
        if behind == self.header().top {
            let end = at as usize + want as usize;
            if self.grow_to(end).is_err() {
                return false;
            }
            self.header().top = index(end);
            return true;
        }
        let Unit {
            kind, len: free, ..
        } = *self.unit(behind);
        if kind != KIND_FREE || free < more {
            return false;
        }
        self.unlist(behind);
        if free > more {
            self.list(behind + more, free - more);
        }
        true
    }

    /// Takes `len` units in a run and marks its head with `kind`.
    pub(super) fn take_units(&mut self, len: u32, kind: u32) -> Result<u32, HeapError> {
        let at = match self.find_free(len) {
            Some(at) => {
                let had = self.unit(at).len;
                self.unlist(at);
                if had > len {
                    self.list(at + len, had - len);
                }
                at
            }
            None => {
                let at = self.header().top;
                let end = at as usize + len as usize;
                self.grow_to(end)?;
                self.header().top = index(end);
                at
            }
        };
        self.tag(at, kind, len, 0);
        Ok(at)
    }

    /// Gives a run back, merged with the free runs on both sides, or to what lies beyond the top.
    pub(super) fn give_units(&mut self, at: u32, len: u32) {
        let (mut at, mut len) = (at, len);
        let top = self.header().top;
        if at + len < top {
            let behind = *self.unit(at + len);
            if behind.kind == KIND_FREE {
                self.unlist(at + len);
                len += behind.len;
            }
        }
        if let Some(before) = self.free_run_before(at) {
            let more = self.unit(before).len;
            self.unlist(before);
            at = before;
            len += more;
        }
        if at + len == top {
            self.unit(at).kind = KIND_NONE;
            self.header().top = at;
        } else {
            self.list(at, len);
        }
    }

    /// The free run that ends where `at` begins.
    ///
    /// The entry before `at` is the last of some run. If that run is free, the entry says so and how long it is. If it is
    /// a span or a large block of one unit, the entry is its head. Else it is stale; `list` and `unlist` keep stale
    /// entries from saying FREE.
    fn free_run_before(&mut self, at: u32) -> Option<u32> {
        if at == self.header().first_unit {
            return None;
        }
        let &mut Unit { kind, len, .. } = self.unit(at - 1);
        (kind == KIND_FREE).then(|| at - len)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a bin of a 32-bit length is below 32"
    )]
    fn find_free(&mut self, len: u32) -> Option<u32> {
        let own = len.ilog2();
        let mut at = self.header().bins[own as usize];
        for _ in 0..LOOKS {
            if at == 0 {
                break;
            }
            let unit = *self.unit(at);
            if unit.len >= len {
                return Some(at);
            }
            at = unit.next;
        }
        let larger = self.header().filled_bins >> (own + 1);
        if larger == 0 {
            return None;
        }
        let bin = own + 1 + larger.trailing_zeros();
        Some(self.header().bins[bin as usize])
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a bin of a 32-bit length is below 32"
    )]
    fn list(&mut self, at: u32, len: u32) {
        let bin = len.ilog2();
        let header = self.header();
        let next = std::mem::replace(&mut header.bins[bin as usize], at);
        header.filled_bins |= 1 << bin;
        if next != 0 {
            self.unit(next).prev = at;
        }
        self.tag(at + len - 1, KIND_FREE, len, next);
        self.tag(at, KIND_FREE, len, next);
    }

    fn tag(&mut self, at: u32, kind: u32, len: u32, next: u32) {
        let unit = self.unit(at);
        (unit.kind, unit.len, unit.prev, unit.next) = (kind, len, 0, next);
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a bin of a 32-bit length is below 32"
    )]
    fn unlist(&mut self, at: u32) {
        let Unit {
            len, prev, next, ..
        } = *self.unit(at);
        let bin = len.ilog2();
        match prev {
            0 => {
                let header = self.header();
                header.bins[bin as usize] = next;
                if next == 0 {
                    header.filled_bins &= !(1 << bin);
                }
            }
            prev => self.unit(prev).next = next,
        }
        if next != 0 {
            self.unit(next).prev = prev;
        }
        self.unit(at).kind = KIND_NONE;
        self.unit(at + len - 1).kind = KIND_NONE;
    }
}

const _: () = assert!(BINS == 32);
