//! An allocator that lives in one segment and owns all of it.
//!
//! ```text
//!   base                                                                     base + reserved
//!   | header | shards | unit table (64 bytes for each 64 KiB of the reservation) | unit | unit | ... |
//!
//!   a unit is a span:              | object | object | ...  up to 64 KiB |   one size class
//!   or of a large run:             | one block of whole units                         |
//!   or of a free run, listed by the power of two below its length
//! ```
//!
//! Everything is `repr(C)` with sizes of 64 bits and absolute addresses: the next process finds it as it was, whatever
//! compiler made it. Nothing of the heap's state is outside the segment but the locks, so that a restore to an older
//! checkpoint needs no rebuilding.
//!
//! Threads meet rarely: each has a *shard*, which owns the spans that it took and has a lock of its own (docs/design/heap.md).
//! Units that were never used, and the ends of large blocks, are untouched zeros: they
//! cost address space, not memory or disk, which is why large blocks are rounded up to 64 KiB without regret.
//!
//! The heap does not know the gate: who calls it holds a write pass (see `root`).
//!
//! | file | what |
//! |---|---|
//! | `space` | the memory a heap lives in, as a trait |
//! | `layout`, `cell` | what lies where, byte for byte, and the size classes; the numbers in it |
//! | `core` | the only place that turns addresses into references |
//! | `locks` | who may touch what, and in which order |
//! | `threads` | which thread uses which shard |
//! | `runs` | large blocks and free runs |
//! | `spans`, `shards` | small blocks in one shard; where a shard finds room when it has none |
//! | `directory` | roots by name |
//! | `check` | usage and the integrity check |

mod cell;
mod check;
mod core;
mod directory;
mod error;
mod layout;
mod locks;
mod runs;
mod shards;
mod space;
mod spans;
mod threads;

#[cfg(test)]
mod tests;

use std::{alloc::Layout, fmt, ptr::NonNull};

pub(crate) use self::layout::{MAGIC as HEAP_MAGIC, VERSION as HEAP_VERSION};
pub use self::{
    check::{Finding, Usage},
    directory::{MAX_NAME, RootEntry, RootType},
    error::HeapError,
    layout::UNIT,
    space::{MemorySpace, Space, SpaceError},
};
use self::{
    core::Core,
    layout::{Class, SHARDS},
    shards::clear,
};

/// How a heap is made. It is recorded in the heap and holds for its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapOptions {
    zero_on_free: bool,
}

impl HeapOptions {
    /// The defaults: what is freed lies there until it is used again.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            zero_on_free: false,
        }
    }

    /// Makes every block zeros when it is freed, moved or cut: a checkpoint that begins later holds no trace of it, and the
    /// blocks of a heap that has been emptied are holes, which are not stored.
    ///
    /// What a collection keeps as room for more is not freed: `clear` or drop what must go. Checkpoints that were
    /// made while it was there hold it still.
    ///
    /// - **Cost**: freeing writes the block.
    #[must_use]
    pub const fn zero_on_free(mut self) -> Self {
        self.zero_on_free = true;
        self
    }
}

/// A heap in a segment, and the locks that its users share.
pub struct Heap {
    core: Core,
    /// What keeps hash tables of different images from colliding alike; fixed when the heap is made.
    seed: u64,
}

impl Heap {
    /// Makes an empty heap in `space`, whose bytes must all be zero. `seed` should differ from heap to heap.
    ///
    /// - **Cost**: touches one page, whatever the reservation; the shards' pages when they are first used.
    /// - **Errors**: [`HeapError::Unsuitable`] where base or reservation are not multiples of [`UNIT`],
    ///   [`HeapError::OutOfMemory`] where the reservation cannot hold the heap's own tables.
    pub fn create(space: Box<dyn Space>, seed: u64) -> Result<Self, HeapError> {
        Self::create_with(space, seed, HeapOptions::new())
    }

    /// As [`Heap::create`], with options.
    pub fn create_with(
        space: Box<dyn Space>,
        seed: u64,
        options: HeapOptions,
    ) -> Result<Self, HeapError> {
        Ok(Self::over(Core::create(space, seed, SHARDS, options)?))
    }

    /// Finds the heap that an earlier process left in `space`.
    ///
    /// - **Errors**: [`HeapError::NotAHeap`], [`HeapError::Version`], [`HeapError::Shards`], [`HeapError::Moved`],
    ///   [`HeapError::Truncated`], [`HeapError::Flags`].
    pub fn open(space: Box<dyn Space>) -> Result<Self, HeapError> {
        Ok(Self::over(Core::open(space)?))
    }

    fn over(core: Core) -> Self {
        let seed = core.header().seed.get();
        Self { core, seed }
    }

    /// Looks at the header again, after the memory below was replaced by another checkpoint's.
    ///
    /// - **Blocks**: until nobody is in the middle of a call; the locks of the heap are all that it keeps about it.
    /// - **Errors**: as [`Heap::open`].
    pub fn revalidate(&self) -> Result<(), HeapError> {
        let _still = self.core.all();
        self.core.validate()
    }

    /// Address of the heap's first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.core.base()
    }

    /// How far the heap can grow, in bytes.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.core.reserved()
    }

    /// How it was made.
    #[must_use]
    pub const fn options(&self) -> HeapOptions {
        HeapOptions {
            zero_on_free: self.core.zero_on_free,
        }
    }

    /// The number given to [`Heap::create`].
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Takes a block; its content is whatever was there.
    ///
    /// - **Cost**: O(1), but for the growth of the segment, and a heap that is nearly full. Threads that take and give
    ///   small blocks do not wait for each other, as long as there are no more of them than shards.
    /// - **Errors**: [`HeapError::OutOfMemory`] with the reservation, [`HeapError::Alignment`] over 64 KiB.
    pub fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        self.core.take(layout, threads::number())
    }

    /// Takes a block of zeros.
    ///
    /// - **Errors**: as [`Heap::allocate`].
    pub fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        self.core.take_zeroed(layout, threads::number())
    }

    /// Gives a block back, on any thread.
    ///
    /// # Safety
    ///
    /// `block` was taken from this heap for `layout`, and nothing uses it any more.
    pub unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        self.core.give(block, layout);
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
            .map_err(|_too_large| self.core.out_of_memory(new_size))?;
        match (Class::of(layout), Class::of(new)) {
            (Some(old), Some(new)) if old == new => {
                self.cut(block, layout.size(), new_size);
                return Ok(block);
            }
            (None, None) => {
                self.cut(block, layout.size(), new_size);
                if self.core.resize_large(block, new) {
                    return Ok(block);
                }
            }
            _ => {}
        }
        let to = self.allocate(new)?;
        let kept = layout.size().min(new_size);
        // SAFETY: `block` has `layout.size()` bytes (the caller's promise), `to` has `new_size`, and `to` was free until
        // now, so that they do not overlap.
        unsafe { block.copy_to_nonoverlapping(to, kept) };
        // SAFETY: the caller's promise; the block has just been copied and is not used again.
        unsafe { self.free(block, layout) };
        Ok(to)
    }

    /// Clears what a block that stays where it is has no more; one that grows has as much as before.
    fn cut(&self, block: NonNull<u8>, old: usize, new: usize) {
        if self.core.zero_on_free && new < old {
            // SAFETY: `new` is within the block of `old` bytes.
            let end = unsafe { block.byte_add(new) };
            // SAFETY: the rest of that block, which is given up.
            unsafe { clear(end, old - new) };
        }
    }

    /// How much is in use and how much is free.
    ///
    /// - **Cost**: O(units in use): a walk through the unit table; holds all locks of the heap meanwhile.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.core.all().usage()
    }

    /// Checks every structure of the heap against every other.
    ///
    /// - **Cost**: O(heap); holds all locks of the heap meanwhile.
    /// - **Errors**: what is wrong, and where.
    pub fn check(&self) -> Result<(), Vec<Finding>> {
        self.core.all().check()
    }

    /// Finds a root by name.
    #[must_use]
    pub fn root(&self, name: &str) -> Option<RootEntry> {
        self.core.roots().find(name)
    }

    /// Finds the root `name`, or makes it: zeros of that type.
    ///
    /// What is found may be of another type: it is the caller's to compare.
    ///
    /// - **Errors**: as [`Heap::allocate`], and [`HeapError::RootName`] for a name that is empty or over
    ///   [`MAX_NAME`] bytes long.
    pub fn root_or_new(&self, name: &str, of: RootType<'_>) -> Result<RootEntry, HeapError> {
        directory::check_name(name)?;
        let mut roots = self.core.roots();
        match roots.find(name) {
            Some(found) => Ok(found),
            None => roots.add(name, of),
        }
    }

    /// What is kept of the type of the root `name`: the bytes that it was made with.
    #[must_use]
    pub fn root_described(&self, name: &str) -> Option<Vec<u8>> {
        self.core.roots().described(name)
    }

    /// Says that the root `name` is of another type now; the value lies where it lay.
    ///
    /// # Safety
    ///
    /// Its value is one of the new type, and whoever reaches it takes it for that from now on.
    pub(crate) unsafe fn retype_root(&self, name: &str, of: RootType<'_>) -> Result<(), HeapError> {
        self.core.roots().replace(name, of, None)?;
        Ok(())
    }

    /// Gives the root `name` another value, of another type; answers what it was, whose block is the caller's from now on.
    ///
    /// # Safety
    ///
    /// At `place` lies a value of the new type, in a block that was taken from this heap for its layout, and is the root's from
    /// now on. Nobody reaches the root meanwhile.
    pub(crate) unsafe fn replace_root(
        &self,
        name: &str,
        of: RootType<'_>,
        place: NonNull<u8>,
    ) -> Result<RootEntry, HeapError> {
        self.core.roots().replace(name, of, Some(place))
    }

    /// The names of all roots, oldest first.
    #[must_use]
    pub fn root_names(&self) -> Vec<String> {
        self.core.roots().names()
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("base", &self.base())
            .field("reserved", &self.reserved())
            .finish_non_exhaustive()
    }
}
