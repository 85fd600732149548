//! An allocator that lives in one segment and owns all of it.
//!
//! ```text
//!   base                                                                     base + reserved
//!   | header | unit table (64 bytes for each 64 KiB of the reservation) | unit | unit | ... |
//!
//!   a unit is a span:              | object | object | ...  up to 64 KiB |   one size class
//!   or of a large run:             | one block of whole units                         |
//!   or of a free run, listed by the power of two below its length
//! ```
//!
//! Everything is `repr(C)` with sizes of 64 bits and absolute addresses: the next process finds it as it was, whatever
//! compiler made it. Nothing of the heap's state is outside the segment but the lock, so that a restore to an older
//! checkpoint needs no rebuilding. Units that were never used, and the ends of large blocks, are untouched zeros: they
//! cost address space, not memory or disk, which is why large blocks are rounded up to 64 KiB without regret.
//!
//! The heap does not know the gate: who calls it holds a write pass (see `root`).
//!
//! | file | what |
//! |---|---|
//! | `space` | the memory a heap lives in, as a trait |
//! | `layout` | what lies where, byte for byte, and the size classes |
//! | `core` | the only places that turn addresses into references |
//! | `runs`, `spans` | large blocks and free runs; small blocks |
//! | `directory` | roots by name |
//! | `check` | usage and the integrity check |

mod check;
mod core;
mod directory;
mod error;
mod layout;
mod runs;
mod space;
mod spans;

#[cfg(test)]
mod tests;

use std::{alloc::Layout, fmt, ptr, ptr::NonNull};

use parking_lot::Mutex;

pub use self::{
    check::{Finding, Usage},
    directory::{MAX_NAME, RootEntry},
    error::HeapError,
    layout::UNIT,
    space::{MemorySpace, Space, SpaceError},
};
use self::{core::Core, layout::Class};

/// A heap in a segment, and the lock that its users share.
pub struct Heap {
    /// The lock lives here, never in the segment: a lock in an image would be held for ever after a resume.
    /// A leaf: nothing is called while it is held but [`Space::grow`].
    core: Mutex<Core>,
    base: NonNull<u8>,
    reserved: usize,
    /// What keeps hash tables of different images from colliding alike; fixed when the heap is made.
    seed: u64,
}

// SAFETY: `base` is the address of memory that `core`'s `Space` owns, and that is Send and Sync; what lies there is
// reached through the lock only.
unsafe impl Send for Heap {}
// SAFETY: as for Send.
unsafe impl Sync for Heap {}

impl Heap {
    /// Makes an empty heap in `space`, whose bytes must all be zero. `seed` should differ from heap to heap.
    ///
    /// - **Cost**: touches one page, whatever the reservation.
    /// - **Errors**: [`HeapError::Unsuitable`] where base or reservation are not multiples of [`UNIT`],
    ///   [`HeapError::OutOfMemory`] where the reservation cannot hold the heap's own tables.
    pub fn create(space: Box<dyn Space>, seed: u64) -> Result<Self, HeapError> {
        Ok(Self::over(Core::create(space, seed)?))
    }

    /// Finds the heap that an earlier process left in `space`.
    ///
    /// - **Errors**: [`HeapError::NotAHeap`], [`HeapError::Version`], [`HeapError::Moved`], [`HeapError::Truncated`].
    pub fn open(space: Box<dyn Space>) -> Result<Self, HeapError> {
        Ok(Self::over(Core::open(space)?))
    }

    fn over(mut core: Core) -> Self {
        let seed = core.header().seed;
        Self {
            base: core.base(),
            reserved: core.reserved(),
            seed,
            core: Mutex::new(core),
        }
    }

    /// Looks at the header again, after the memory below was replaced by another checkpoint's.
    ///
    /// - **Errors**: as [`Heap::open`].
    pub fn revalidate(&self) -> Result<(), HeapError> {
        self.core.lock().validate()
    }

    /// Address of the heap's first byte.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How far the heap can grow, in bytes.
    #[must_use]
    pub const fn reserved(&self) -> usize {
        self.reserved
    }

    /// The number given to [`Heap::create`].
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Takes a block; its content is whatever was there.
    ///
    /// - **Cost**: O(1), but for the growth of the segment.
    /// - **Errors**: [`HeapError::OutOfMemory`] with the reservation, [`HeapError::Alignment`] over 64 KiB.
    pub fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let mut core = self.core.lock();
        match Class::of(layout) {
            Some(class) => core.take_small(class),
            None => core.take_large(layout),
        }
    }

    /// Takes a block of zeros.
    ///
    /// - **Errors**: as [`Heap::allocate`].
    pub fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let block = self.allocate(layout)?;
        // SAFETY: the block was just taken for `layout.size()` bytes and nobody else knows it.
        unsafe { ptr::write_bytes(block.as_ptr(), 0, layout.size()) };
        Ok(block)
    }

    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// `block` was taken from this heap for `layout`, and nothing uses it any more.
    pub unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        let mut core = self.core.lock();
        match Class::of(layout) {
            Some(class) => core.give_small(block, class),
            None => core.give_large(block),
        }
    }

    /// Moves a block to where `new_size` bytes fit, or lets it lie where it is if they do; keeps the bytes that both
    /// sizes have.
    ///
    /// - **Errors**: as [`Heap::allocate`]; the block is then as it was.
    ///
    /// # Safety
    ///
    /// `block` was taken from this heap for `layout`. After `Ok` only the answer may be used.
    pub unsafe fn reallocate(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        let new = Layout::from_size_align(new_size, layout.align())
            .map_err(|_too_large| self.core.lock().out_of_memory(new_size))?;
        match (Class::of(layout), Class::of(new)) {
            (Some(old), Some(new)) if old == new => return Ok(block),
            (None, None) if self.core.lock().resize_large(block, new) => return Ok(block),
            _ => {}
        }
        let to = self.allocate(new)?;
        let kept = layout.size().min(new_size);
        // SAFETY: `block` has `layout.size()` bytes (the caller's promise), `to` has `new_size`, and `to` was free until
        // now, so that they do not overlap.
        unsafe { ptr::copy_nonoverlapping(block.as_ptr(), to.as_ptr(), kept) };
        // SAFETY: the caller's promise; the block has just been copied and is not used again.
        unsafe { self.free(block, layout) };
        Ok(to)
    }

    /// How much is in use and how much is free.
    ///
    /// - **Cost**: O(units in use): a walk through the unit table.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.core.lock().usage()
    }

    /// Checks every structure of the heap against every other.
    ///
    /// - **Cost**: O(heap); holds the heap's lock meanwhile.
    /// - **Errors**: what is wrong, and where.
    pub fn check(&self) -> Result<(), Vec<Finding>> {
        self.core.lock().check()
    }

    /// Finds a root by name.
    #[must_use]
    pub fn root(&self, name: &str) -> Option<RootEntry> {
        self.core.lock().root(name)
    }

    /// Finds the root `name`, or makes it: `layout` bytes of zeros that carry `schema`.
    ///
    /// What is found may have another schema: it is the caller's to compare.
    ///
    /// - **Errors**: as [`Heap::allocate`], and [`HeapError::RootName`] for a name that is empty or over
    ///   [`MAX_NAME`] bytes long.
    pub fn root_or_new(
        &self,
        name: &str,
        layout: Layout,
        schema: [u8; 32],
    ) -> Result<RootEntry, HeapError> {
        directory::check_name(name)?;
        if let Some(found) = self.root(name) {
            return Ok(found);
        }
        let place = self.allocate_zeroed(layout)?;
        let mut core = self.core.lock();
        core.add_root(name, place, layout, schema)
    }

    /// The names of all roots, oldest first.
    #[must_use]
    pub fn root_names(&self) -> Vec<String> {
        self.core.lock().root_names()
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("base", &self.base)
            .field("reserved", &self.reserved)
            .finish_non_exhaustive()
    }
}
