//! Open addressing in groups of sixteen: what std's map does too, with a layout that never changes.
//!
//! ```text
//!   | slot n-1 | ... | slot 1 | slot 0 | control 0 | control 1 | ... | control n-1 | control 0..15 again |
//!                                      ^ `controls`
//! ```
//!
//! A control byte is EMPTY, DELETED, or the top seven bits of the entry's hash. `n` is a power of two, 16 at least; a search
//! goes in triangular steps of a group, which reach every group, and ends at the first group with an EMPTY.

use std::{alloc::Layout, marker::PhantomData, mem, ptr::NonNull};

use super::{
    group::{DELETED, EMPTY, Group, WIDTH},
    raw::{address, full, length, pointer},
};
use crate::heap::Heap;

/// A table of `T`, whose hashes the caller knows. All zeros: empty, and owning nothing.
#[repr(C)]
pub(super) struct Table<T> {
    /// Address of the first control byte; 0 while there is no block.
    controls: u64,
    /// Slots; 0 or a power of two, 16 at least.
    slots: u64,
    /// Entries.
    len: u64,
    /// EMPTY slots that may still be filled before the table grows: there is always an EMPTY one, so that searches end.
    room: u64,
    own: PhantomData<T>,
}

const LEAST: usize = WIDTH;

const fn room_of(slots: usize) -> usize {
    slots / 8 * 7
}

const fn tag(hash: u64) -> u8 {
    (hash >> 57) as u8 & 0x7f
}

/// The slots at which a search for a hash looks, a group at a time.
struct Probe {
    at: usize,
    step: usize,
    mask: usize,
}

impl Probe {
    #[inline]
    const fn next(&mut self) {
        self.step += WIDTH;
        self.at = (self.at + self.step) & self.mask;
    }
}

impl<T> Table<T> {
    pub(super) const fn len(&self) -> usize {
        length(self.len)
    }

    #[inline]
    fn mask(&self) -> usize {
        length(self.slots).wrapping_sub(1)
    }

    #[inline]
    fn controls(&self) -> NonNull<u8> {
        NonNull::new(pointer(self.controls)).unwrap_or(NonNull::dangling())
    }

    #[inline]
    const fn probe(&self, hash: u64) -> Probe {
        let mask = length(self.slots).wrapping_sub(1);
        Probe {
            at: length(hash) & mask,
            step: 0,
            mask,
        }
    }

    /// The group of control bytes from slot `at` on.
    #[inline]
    fn group(&self, at: usize) -> Group {
        // SAFETY: `at < slots`, and there are `slots + 16` control bytes.
        let place = unsafe { self.controls().add(at) };
        // SAFETY: so at least 16 lie from there on.
        unsafe { Group::load(place) }
    }

    /// The place of slot `at`.
    #[inline]
    pub(super) fn slot(&self, at: usize) -> NonNull<T> {
        // SAFETY: slot `at < slots` lies `at + 1` entries before the control bytes, in the same block.
        unsafe { self.controls().cast::<T>().sub(at + 1) }
    }

    /// Finds the slot of the entry that has `hash` and that `is` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<usize> {
        if self.slots == 0 {
            return None;
        }
        let mut probe = self.probe(hash);
        loop {
            let group = self.group(probe.at);
            for offset in group.matching(tag(hash)) {
                let at = (probe.at + offset) & probe.mask;
                // SAFETY: a control byte with a tag says that there is an entry.
                if is(unsafe { self.slot(at).as_ref() }) {
                    return Some(at);
                }
            }
            if group.empty().first().is_some() {
                return None;
            }
            probe.next();
        }
    }

    /// The first vacant slot for `hash`; there is one.
    fn vacancy(&self, hash: u64) -> usize {
        let mut probe = self.probe(hash);
        loop {
            if let Some(offset) = self.group(probe.at).vacant().first() {
                return (probe.at + offset) & probe.mask;
            }
            probe.next();
        }
    }

    fn control(&self, at: usize) -> u8 {
        // SAFETY: `at < slots`.
        let place = unsafe { self.controls().add(at) };
        // SAFETY: within the block, written when the table was made.
        unsafe { place.read() }
    }

    fn set_control(&mut self, at: usize, control: u8) {
        // SAFETY: `at < slots`.
        let place = unsafe { self.controls().add(at) };
        // SAFETY: within the block, and this table's alone.
        unsafe { place.write(control) };
        if at < WIDTH {
            // SAFETY: the copy behind the last slot's: there are 16 of them.
            let place = unsafe { self.controls().add(length(self.slots) + at) };
            // SAFETY: within the block, and this table's alone.
            unsafe { place.write(control) };
        }
    }

    /// Makes room for one more entry; `hash_of` says an entry's hash.
    ///
    /// - **Panics**: where the heap is full; the table is then as it was.
    #[inline]
    pub(super) fn reserve_one(&mut self, heap: &Heap, hash_of: impl Fn(&T) -> u64) {
        if self.room == 0 {
            self.reserve(1, heap, hash_of);
        }
    }

    /// Makes room for `more` entries.
    ///
    /// - **Panics**: as above.
    #[cold]
    pub(super) fn reserve(&mut self, more: usize, heap: &Heap, hash_of: impl Fn(&T) -> u64) {
        if more <= length(self.room) {
            return;
        }
        // Where removed entries took the room, the same size may do; with a half to spare, or it would be done again soon.
        let needed = (self.len() + more).max(self.len() * 2);
        let slots = needed.div_ceil(7).saturating_mul(8).next_power_of_two();
        self.rebuild(slots.max(LEAST), heap, hash_of);
    }

    /// Moves all entries into a new block of `slots` slots.
    pub(super) fn rebuild(&mut self, slots: usize, heap: &Heap, hash_of: impl Fn(&T) -> u64) {
        let mut new = Self::with_slots(slots, heap);
        for at in self.full_slots() {
            // SAFETY: there is an entry.
            let hash = hash_of(unsafe { self.slot(at).as_ref() });
            let to = new.vacancy(hash);
            new.set_control(to, tag(hash));
            // SAFETY: both are slots of T in different blocks; the old one is not looked at again.
            unsafe { new.slot(to).copy_from_nonoverlapping(self.slot(at), 1) };
        }
        new.len = self.len;
        new.room -= self.len;
        let old = mem::replace(self, new);
        old.release(heap);
    }

    fn with_slots(slots: usize, heap: &Heap) -> Self {
        let layout = layout::<T>(slots);
        let block = heap.allocate(layout).unwrap_or_else(|error| full(&error));
        // SAFETY: the slots come first in the block.
        let controls = unsafe { block.byte_add(slots * size_of::<T>()) };
        // SAFETY: then `slots + 16` control bytes.
        unsafe { controls.write_bytes(EMPTY, slots + WIDTH) };
        Self {
            controls: address(controls),
            slots: slots as u64,
            len: 0,
            room: room_of(slots) as u64,
            own: PhantomData,
        }
    }

    fn release(self, heap: &Heap) {
        if self.slots != 0 {
            let slots = length(self.slots);
            // SAFETY: the slots come first in the block.
            let block = unsafe { self.controls().byte_sub(slots * size_of::<T>()) };
            // SAFETY: taken for this layout in `with_slots`; the table that knew it is gone.
            unsafe { heap.free(block, layout::<T>(slots)) };
        }
    }

    /// Puts an entry with `hash` that is not there yet: `fill` writes it to the place it is given.
    ///
    /// There is room ([`Table::reserve_one`] came before). Where `fill` panics the table is as it was.
    #[inline]
    pub(super) fn put(&mut self, hash: u64, fill: impl FnOnce(NonNull<T>)) -> usize {
        let at = self.vacancy(hash);
        fill(self.slot(at));
        let was_empty = self.control(at) == EMPTY;
        self.set_control(at, tag(hash));
        self.room -= u64::from(was_empty);
        self.len += 1;
        at
    }

    /// Forgets the entry in slot `at`; its bytes stay until the slot is filled again.
    pub(super) fn forget(&mut self, at: usize) {
        // An entry can be EMPTY again where no search ever went past it: where the run of slots without an EMPTY around it
        // is shorter than a group.
        let before = self.group(at.wrapping_sub(WIDTH) & self.mask()).empty().0;
        let behind = self.group(at).empty().0;
        let run = before.leading_zeros() + behind.trailing_zeros();
        let control = if run < 16 { EMPTY } else { DELETED };
        self.set_control(at, control);
        self.room += u64::from(control == EMPTY);
        self.len -= 1;
    }

    /// Tells whether slot `at` holds an entry.
    pub(super) fn is_full(&self, at: usize) -> bool {
        self.control(at) & 0x80 == 0
    }

    /// The slots that hold entries.
    pub(super) fn full_slots(&self) -> FullSlots<'_, T> {
        FullSlots {
            table: self,
            base: 0,
            bits: 0,
        }
    }

    /// Gives the block back. Entries must have been dropped.
    pub(super) fn release_all(&mut self, heap: &Heap) {
        let empty = Self {
            controls: 0,
            slots: 0,
            len: 0,
            room: 0,
            own: PhantomData,
        };
        mem::replace(self, empty).release(heap);
    }

    /// Makes every slot EMPTY. Entries must have been dropped.
    pub(super) fn wipe(&mut self) {
        let slots = length(self.slots);
        if slots != 0 {
            // SAFETY: the table's own control bytes.
            unsafe { self.controls().write_bytes(EMPTY, slots + WIDTH) };
            self.len = 0;
            self.room = room_of(slots) as u64;
        }
    }

    /// The fewest slots that hold the entries.
    pub(super) fn least_slots(&self) -> usize {
        let slots = self.len().div_ceil(7).saturating_mul(8);
        slots.next_power_of_two().max(LEAST)
    }

    pub(super) const fn slots(&self) -> usize {
        length(self.slots)
    }
}

/// - **Panics**: over the address space, as std's collections do.
fn layout<T>(slots: usize) -> Layout {
    let bytes = slots.checked_mul(size_of::<T>() + 1);
    let bytes = bytes.and_then(|bytes| bytes.checked_add(WIDTH));
    bytes
        .and_then(|bytes| Layout::from_size_align(bytes, align_of::<T>().max(WIDTH)).ok())
        .expect("a table in the address space")
}

/// Walks over the slots that hold entries.
pub(super) struct FullSlots<'t, T> {
    table: &'t Table<T>,
    /// The first slot of the next group.
    base: usize,
    /// Entries left in the group before.
    bits: u16,
}

impl<T> Iterator for FullSlots<'_, T> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            if self.base >= length(self.table.slots) {
                return None;
            }
            self.bits = !self.table.group(self.base).vacant().0;
            self.base += WIDTH;
        }
        let offset = self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(self.base - WIDTH + offset)
    }
}
