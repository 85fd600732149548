//! Where a block comes from: the thread's shard, and when that has no room, another shard's spans or a new one.
//!
//! Shards must not keep room to themselves for ever: a heap that eight threads have filled goes on in a process that has one.

use std::{alloc::Layout, ptr::NonNull};

use super::{
    HeapError,
    core::Core,
    layout::{Class, KIND_SPAN, Unit},
    locks::Shard,
    threads::Live,
};

/// How many spans are taken over at a time from a shard that no thread uses.
const BATCH: usize = 16;
/// How many spans of a shard that is in use are looked at for one that is half empty.
const LOOKS: usize = 4;

impl Core {
    /// Takes a block for the thread with this number.
    #[inline(always)]
    pub(super) fn take(&self, layout: Layout, thread: u32) -> Result<NonNull<u8>, HeapError> {
        let Some(class) = Class::of(layout) else {
            return self.take_large(layout);
        };
        let shard = self.shard(thread & (self.shards() - 1));
        match shard.take(class) {
            Some(object) => Ok(object),
            None => self.take_elsewhere(shard, class),
        }
    }

    /// As [`Core::take`], and clears the block.
    pub(super) fn take_zeroed(
        &self,
        layout: Layout,
        thread: u32,
    ) -> Result<NonNull<u8>, HeapError> {
        let block = self.take(layout, thread)?;
        // SAFETY: the block was just taken for `layout.size()` bytes and nobody else knows it.
        unsafe { block.write_bytes(0, layout.size()) };
        Ok(block)
    }

    /// Gives a block back that was taken for this layout.
    #[inline]
    pub(super) fn give(&self, block: NonNull<u8>, layout: Layout) {
        let Some(class) = Class::of(layout) else {
            if self.zero_on_free {
                self.refuse_other(block);
                // SAFETY: a live large block of this layout (just checked, but for the layout, which is the caller's promise),
                // which nobody uses any more.
                unsafe { clear(block, layout.size()) };
            }
            return self.give_large(block);
        };
        let at = self.unit_of(block);
        let unit = self.unit(at);
        self.owner_of(unit, block)
            .give(at, &unit.span, block, class);
    }

    /// Locks the shard that owns the span in `unit`, in which `block` lies.
    ///
    /// A live block keeps its span a span, but the span may change hands until the lock is held.
    #[inline(always)]
    fn owner_of(&self, unit: &Unit, block: NonNull<u8>) -> Shard<'_> {
        let owner = &unit.owner;
        loop {
            let now = owner.get();
            let number = now.wrapping_sub(1);
            assert!(
                number < self.shards(),
                "{block:?} is no live small block of this heap"
            );
            let shard = self.shard(number);
            if owner.get() == now {
                return shard;
            }
        }
    }

    #[cold]
    fn take_elsewhere(&self, shard: Shard<'_>, class: Class) -> Result<NonNull<u8>, HeapError> {
        if let Some(at) = self.adopt(&shard, class) {
            return Ok(shard.take_from(at, class));
        }
        let new = self.central().take_units(1, KIND_SPAN);
        match new {
            Ok(at) => {
                shard.add_span(class, at);
                Ok(shard.take_from(at, class))
            }
            Err(_full) => {
                let number = shard.number;
                drop(shard);
                self.take_the_last(number, class)
            }
        }
    }

    /// Takes spans over from another shard: from one that no thread uses what there is, from others what they will
    /// hardly miss. Answers one that has room.
    fn adopt(&self, shard: &Shard<'_>, class: Class) -> Option<u32> {
        let (live, shards) = (Live::now(), self.shards());
        for number in (0..shards).filter(|&number| number != shard.number) {
            let idle = !live.uses(number, shards);
            // A peek, without the lock: mostly there is nothing to be had.
            let head = self.open_list(number, class);
            if head == 0 || (!idle && self.unit(head).span.next.get() == 0) {
                continue;
            }
            let Some(other) = self.try_shard(number) else {
                continue;
            };
            let found = if idle {
                shard.adopt_some(&other, class)
            } else {
                shard.adopt_half_empty(&other, class)
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// When there are no units left: an object from any shard's spans, in order; else a span of units that were kept
    /// for another class.
    fn take_the_last(&self, number: u32, class: Class) -> Result<NonNull<u8>, HeapError> {
        for other in 0..self.shards() {
            if let Some(object) = self.shard(other).take(class) {
                return Ok(object);
            }
        }
        self.give_empty_spans();
        let shard = self.shard(number);
        let at = self.central().take_units(1, KIND_SPAN)?;
        shard.add_span(class, at);
        Ok(shard.take_from(at, class))
    }

    /// Gives all empty spans of all shards back to central.
    pub(super) fn give_empty_spans(&self) {
        for number in 0..self.shards() {
            self.shard(number).give_empty_spans();
        }
    }

    /// The first span with room in a shard, without its lock: a hint.
    #[expect(clippy::indexing_slicing, reason = "a class is below CLASSES")]
    fn open_list(&self, number: u32, class: Class) -> u32 {
        self.shard_lists(number).open_spans[class.index()].get()
    }
}

/// Makes memory zeros that is freed, or is about to be.
///
/// # Safety
/// `len` bytes from `place` on are this heap's, and nobody refers to them.
#[inline]
pub(super) unsafe fn clear(place: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { place.write_bytes(0, len) };
}

impl Shard<'_> {
    fn adopt_some(&self, other: &Shard<'_>, class: Class) -> Option<u32> {
        let mut last = None;
        for _ in 0..BATCH {
            let at = other.open_list(class).get();
            if at == 0 {
                break;
            }
            self.adopt(other, class, at);
            last = Some(at);
        }
        last
    }

    /// Never the first one, from which `other` is taking objects.
    fn adopt_half_empty(&self, other: &Shard<'_>, class: Class) -> Option<u32> {
        let mut at = other.open_list(class).get();
        for _ in 0..LOOKS {
            if at == 0 {
                break;
            }
            at = other.span(at).next.get();
            if at != 0 && other.span(at).used.get() <= other.span(at).capacity.get() / 2 {
                self.adopt(other, class, at);
                return Some(at);
            }
        }
        None
    }
}
