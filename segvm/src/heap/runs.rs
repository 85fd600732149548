//! Runs of units: large blocks, and the free runs between them, which always merge with their neighbours.

use std::{alloc::Layout, ptr::NonNull};

use super::{
    HeapError,
    cell::Cell32,
    core::{Core, index},
    layout::{BINS, KIND_FREE, KIND_LARGE, KIND_NONE, UNIT},
    locks::Central,
};

/// How many runs of the request's own bin are looked at before a larger one is cut.
const LOOKS: usize = 8;

impl Core {
    /// How many units a large block takes.
    ///
    /// - **Errors**: where no heap of this reservation could have it.
    fn units_for(&self, layout: Layout) -> Result<u32, HeapError> {
        if layout.align() > UNIT {
            return Err(HeapError::Alignment {
                wanted: layout.align(),
            });
        }
        let units = layout.size().div_ceil(UNIT);
        if units > self.reserved() / UNIT {
            return Err(self.out_of_memory(layout.size()));
        }
        Ok(index(units))
    }

    pub(super) fn take_large(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let units = self.units_for(layout)?;
        let first_try = self.central().take_units(units, KIND_LARGE);
        let at = first_try.or_else(|_full| {
            self.give_empty_spans();
            self.central().take_units(units, KIND_LARGE)
        })?;
        Ok(self.address_of(at))
    }

    pub(super) fn refuse_other(&self, block: NonNull<u8>) {
        self.central().refuse_other(self.unit_of(block), block);
    }

    pub(super) fn give_large(&self, block: NonNull<u8>) {
        let central = self.central();
        let at = self.unit_of(block);
        central.refuse_other(at, block);
        central.give_units(at, self.unit(at).len.get());
    }

    /// Lets a large block grow or shrink where it lies; `false` if it must move.
    pub(super) fn resize_large(&self, block: NonNull<u8>, new: Layout) -> bool {
        let Ok(want) = u32::try_from(new.size().div_ceil(UNIT)) else {
            return false;
        };
        let central = self.central();
        let at = self.unit_of(block);
        central.refuse_other(at, block);
        let len = self.unit(at).len.get();
        if want > len && !central.take_behind(at, len, want) {
            return false;
        }
        self.unit(at).len.set(want);
        if want < len {
            central.give_units(at + want, len - want);
        }
        true
    }
}

impl Central<'_> {
    fn refuse_other(&self, at: u32, block: NonNull<u8>) {
        assert!(
            self.core.unit(at).kind.get() == KIND_LARGE && self.core.address_of(at) == block,
            "{block:?} is no live large block of this heap"
        );
    }

    /// Takes the units from `at + len` to `at + want`, if they are free or beyond the top.
    fn take_behind(&self, at: u32, len: u32, want: u32) -> bool {
        let (behind, more) = (at + len, want - len);
        let top = &self.core.header().top;
        if behind == top.get() {
            let end = at as usize + want as usize;
            if self.core.grow_to(end).is_err() {
                return false;
            }
            top.set(index(end));
            return true;
        }
        let unit = self.core.unit(behind);
        let free = unit.len.get();
        if unit.kind.get() != KIND_FREE || free < more {
            return false;
        }
        self.unlist(behind);
        if free > more {
            self.list(behind + more, free - more);
        }
        true
    }

    /// Takes `len` units in a run and marks its head with `kind`.
    pub(super) fn take_units(&self, len: u32, kind: u32) -> Result<u32, HeapError> {
        let at = match self.find_free(len) {
            Some(at) => {
                let had = self.core.unit(at).len.get();
                self.unlist(at);
                if had > len {
                    self.list(at + len, had - len);
                }
                at
            }
            None => {
                let top = &self.core.header().top;
                let at = top.get();
                let end = at as usize + len as usize;
                self.core.grow_to(end)?;
                top.set(index(end));
                at
            }
        };
        self.tag(at, kind, len, 0);
        Ok(at)
    }

    /// Gives a run back, merged with the free runs on both sides, or to what lies beyond the top.
    pub(super) fn give_units(&self, at: u32, len: u32) {
        let (mut at, mut len) = (at, len);
        let top = self.core.header().top.get();
        if at + len < top {
            let behind = self.core.unit(at + len);
            if behind.kind.get() == KIND_FREE {
                let more = behind.len.get();
                self.unlist(at + len);
                len += more;
            }
        }
        if let Some(before) = self.free_run_before(at) {
            let more = self.core.unit(before).len.get();
            self.unlist(before);
            at = before;
            len += more;
        }
        if at + len == top {
            self.core.unit(at).kind.set(KIND_NONE);
            self.core.header().top.set(at);
        } else {
            self.list(at, len);
        }
    }

    /// The free run that ends where `at` begins.
    ///
    /// The entry before `at` is the last of some run. If that run is free, the entry says so and how long it is. If it is
    /// a span or a large block of one unit, the entry is its head. Else it is stale; `list` and `unlist` keep stale
    /// entries from saying FREE.
    fn free_run_before(&self, at: u32) -> Option<u32> {
        if at == self.core.header().first_unit.get() {
            return None;
        }
        let last = self.core.unit(at - 1);
        (last.kind.get() == KIND_FREE).then(|| at - last.len.get())
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a bin of a 32-bit length is below 32"
    )]
    fn bin(&self, bin: u32) -> &Cell32 {
        &self.core.header().bins[bin as usize]
    }

    fn find_free(&self, len: u32) -> Option<u32> {
        let own = len.ilog2();
        let mut at = self.bin(own).get();
        for _ in 0..LOOKS {
            if at == 0 {
                break;
            }
            let unit = self.core.unit(at);
            if unit.len.get() >= len {
                return Some(at);
            }
            at = unit.next.get();
        }
        let larger = self.core.header().filled_bins.get() >> (own + 1);
        if larger == 0 {
            return None;
        }
        Some(self.bin(own + 1 + larger.trailing_zeros()).get())
    }

    fn list(&self, at: u32, len: u32) {
        let bin = len.ilog2();
        let next = self.bin(bin).replace(at);
        let filled = &self.core.header().filled_bins;
        filled.set(filled.get() | 1 << bin);
        if next != 0 {
            self.core.unit(next).prev.set(at);
        }
        self.tag(at + len - 1, KIND_FREE, len, next);
        self.tag(at, KIND_FREE, len, next);
    }

    fn tag(&self, at: u32, kind: u32, len: u32, next: u32) {
        let unit = self.core.unit(at);
        unit.kind.set(kind);
        unit.len.set(len);
        unit.prev.set(0);
        unit.next.set(next);
    }

    fn unlist(&self, at: u32) {
        let unit = self.core.unit(at);
        let (len, prev, next) = (unit.len.get(), unit.prev.get(), unit.next.get());
        let bin = len.ilog2();
        match prev {
            0 => {
                self.bin(bin).set(next);
                if next == 0 {
                    let filled = &self.core.header().filled_bins;
                    filled.set(filled.get() & !(1 << bin));
                }
            }
            prev => self.core.unit(prev).next.set(next),
        }
        if next != 0 {
            self.core.unit(next).prev.set(prev);
        }
        unit.kind.set(KIND_NONE);
        self.core.unit(at + len - 1).kind.set(KIND_NONE);
    }
}

const _: () = assert!(BINS == 32);
