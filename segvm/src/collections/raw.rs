//! A block of a heap, as a value in a segment knows it.

use std::{alloc::Layout, marker::PhantomData, ptr, ptr::NonNull};

use crate::heap::{Heap, HeapError};

/// Takes the address of something in a segment, to be stored there.
pub(super) fn address<T>(place: NonNull<T>) -> u64 {
    place.as_ptr().expose_provenance() as u64
}

/// The pointer to an address that was stored in a segment; null for 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "an address in an image has 64 bits, and so have the machines that segvm runs on"
)]
pub(super) fn pointer<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(address as usize)
}

/// A length that was stored in a segment; it was a `usize` when it was.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a length in an image has 64 bits, and so have the machines that segvm runs on"
)]
pub(super) const fn length(stored: u64) -> usize {
    stored as usize
}

/// Ends a write that the heap has no room for.
#[cold]
pub(super) fn full(error: &HeapError) -> ! {
    panic!("{error}")
}

/// Room for some values of `T`, none of which it knows to be there.
#[repr(C)]
pub(super) struct Raw<T> {
    /// Address of the block; 0 while there is none.
    block: u64,
    /// Values that fit; 0 exactly while there is no block.
    room: u64,
    of: PhantomData<T>,
}

impl<T> Raw<T> {
    /// Where the first value goes; dangling, but aligned, while there is no room.
    pub(super) fn place(&self) -> NonNull<T> {
        NonNull::new(pointer(self.block)).unwrap_or(NonNull::dangling())
    }

    pub(super) const fn room(&self) -> usize {
        length(self.room)
    }

    /// Makes room for exactly `room` values; moves those that are there and fit.
    ///
    /// - **Panics**: where the heap is full.
    pub(super) fn resize(&mut self, room: usize, heap: &Heap) {
        let result = match (self.room(), room) {
            (old, new) if old == new => return,
            (0, _) => heap.allocate(layout::<T>(room)),
            (_, 0) => return self.release(heap),
            // SAFETY: the block was taken from this heap (a collection never leaves its own) for this many values.
            (old, _) => unsafe {
                heap.reallocate(
                    self.place().cast(),
                    layout::<T>(old),
                    layout::<T>(room).size(),
                )
            },
        };
        match result {
            Ok(block) => {
                self.block = address(block);
                self.room = room as u64;
            }
            Err(error) => full(&error),
        }
    }

    /// Makes room for `more` values behind the first `len`, at least doubling.
    ///
    /// - **Panics**: where the heap is full.
    #[inline]
    pub(super) fn reserve(&mut self, len: usize, more: usize, heap: &Heap) {
        if self.room() - len < more {
            self.grow(len, more, heap);
        }
    }

    #[cold]
    fn grow(&mut self, len: usize, more: usize, heap: &Heap) {
        let needed = len
            .checked_add(more)
            .expect("a length in the address space");
        let least = (16 / size_of::<T>().max(1)).max(4);
        self.resize(needed.max(self.room() * 2).max(least), heap);
    }

    /// Gives the block back.
    pub(super) fn release(&mut self, heap: &Heap) {
        if self.room != 0 {
            // SAFETY: as in `resize`; nothing points into the block once this value forgets it.
            unsafe { heap.free(self.place().cast(), layout::<T>(self.room())) };
            (self.block, self.room) = (0, 0);
        }
    }
}

/// - **Panics**: over the address space, as std's collections do.
fn layout<T>(values: usize) -> Layout {
    Layout::array::<T>(values).expect("a length in the address space")
}
