use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    fmt, io,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::layout::UNIT;

/// Why a space could not grow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// More than was reserved.
    #[error("{to} bytes are more than the {reserved} that were reserved")]
    Reservation {
        /// The length asked for.
        to: usize,
        /// The bytes reserved.
        reserved: usize,
    },
    /// The system refused.
    #[error("the system refused memory")]
    System(#[from] io::Error),
}

/// The memory that a heap lives in: a segment, or plain memory in tests.
///
/// # Safety
///
/// As long as the space lives, and whatever happens to its length, `[base, base + len)` is readable and writable memory
/// that nobody else touches; `base` and `reserved` never change, `len` never shrinks nor exceeds `reserved`; bytes that
/// growth adds are zero.
pub unsafe trait Space: Send + Sync {
    /// Address of the first byte.
    fn base(&self) -> NonNull<u8>;
    /// Bytes that can be used now.
    fn len(&self) -> usize;
    /// Bytes that `len` can grow to.
    fn reserved(&self) -> usize;
    /// Makes `len` at least `to`.
    ///
    /// - **Errors**: [`SpaceError`]; the length is then as it was.
    fn grow(&self, to: usize) -> Result<(), SpaceError>;
    /// Tells whether no byte can be used.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Plain memory of this process: for tests and for comparisons.
pub struct MemorySpace {
    /// The first multiple of a unit in the block.
    base: NonNull<u8>,
    reserved: usize,
    block: NonNull<u8>,
    layout: Layout,
    len: AtomicUsize,
}

// SAFETY: the memory is owned by this value and freed with it; the length is atomic.
unsafe impl Send for MemorySpace {}
// SAFETY: as for Send.
unsafe impl Sync for MemorySpace {}

impl MemorySpace {
    /// Takes `reserved` bytes, rounded up to whole units, of which none is in use.
    ///
    /// - **Panics**: if `reserved` is zero or over the address space.
    #[must_use]
    pub fn new(reserved: usize) -> Self {
        assert!(reserved > 0, "an empty space holds nothing");
        let reserved = reserved.next_multiple_of(UNIT);
        // A unit more, and aligned by hand: the system allocator clears what it aligns, but not fresh pages.
        let layout = Layout::from_size_align(reserved + UNIT, 16).expect("in the address space");
        // SAFETY: the size is not zero.
        let block = unsafe { alloc_zeroed(layout) };
        let block = NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout));
        let to_unit = block.align_offset(UNIT);
        Self {
            // SAFETY: less than a unit, which the block has more than `reserved`.
            base: unsafe { block.add(to_unit) },
            reserved,
            block,
            layout,
            len: AtomicUsize::new(0),
        }
    }
}

impl Drop for MemorySpace {
    fn drop(&mut self) {
        // SAFETY: taken in `new` with this layout, and given back once.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
    }
}

// SAFETY: the memory was taken zeroed in `new`, stays where it is and is nobody else's; all of it is accessible from the
// start, so that `len` is only a number, which `grow` raises and bounds.
unsafe impl Space for MemorySpace {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn reserved(&self) -> usize {
        self.reserved
    }

    fn grow(&self, to: usize) -> Result<(), SpaceError> {
        let reserved = self.reserved();
        if to > reserved {
            return Err(SpaceError::Reservation { to, reserved });
        }
        self.len.fetch_max(to, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for MemorySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MemorySpace({} of {} bytes)",
            self.len(),
            self.reserved()
        )
    }
}
