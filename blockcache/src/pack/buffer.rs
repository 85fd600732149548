//! A piece of a pack on its way to the file: aligned for direct I/O in memory, in the file and in length.

use super::format::{PAGE, PAGE_LEN, align_up, len64};

/// A buffer's usual length: what direct I/O needs to run at the disk's speed.
pub(crate) const BUFFER: usize = 1 << 20;

/// Bytes `offset..offset + used` of a pack file.
pub(crate) struct Buffer {
    /// One page longer than the capacity, so that an aligned part can be cut out.
    memory: Vec<u8>,
    /// Where in `memory` the aligned part begins.
    skip: usize,
    /// A multiple of the page.
    capacity: usize,
    /// A multiple of the page whenever blocks or a write are next.
    used: usize,
    /// Place of the first byte in the file; a multiple of the page.
    offset: u64,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Buffer({:#x} + {:#x}/{:#x})",
            self.offset, self.used, self.capacity
        )
    }
}

impl Buffer {
    /// Allocates for at least `wanted` bytes, and at least a page.
    pub(crate) fn new(wanted: usize) -> Self {
        let capacity = wanted.max(PAGE).next_multiple_of(PAGE);
        let memory = vec![0; capacity + PAGE];
        let skip = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self {
            memory,
            skip,
            capacity,
            used: 0,
            offset: 0,
        }
    }

    /// Empties it for the file's bytes from `offset` on.
    pub(crate) fn reset(&mut self, offset: u64) {
        self.used = 0;
        self.offset = offset;
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file offset of the next byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + len64(self.used)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many bytes still fit.
    pub(crate) fn free(&self) -> usize {
        self.capacity - self.used
    }

    fn aligned(&mut self) -> &mut [u8] {
        let (_, aligned) = self.memory.split_at_mut(self.skip);
        aligned.split_at_mut(self.capacity).0
    }

    /// What was filled in.
    pub(crate) fn filled(&self) -> &[u8] {
        self.memory.split_at(self.skip).1.split_at(self.used).0
    }

    /// What was filled in at `offset` of the file, to be changed, if it is in this buffer.
    pub(crate) fn get_mut(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        let from = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let used = self.used;
        let filled = self.aligned().split_at_mut(used).0;
        filled.get_mut(from..from.checked_add(len)?)
    }

    /// Appends as much of `bytes` as fits and answers how much that was.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.free());
        let used = self.used;
        let rest = self.aligned().split_at_mut(used).1;
        rest.split_at_mut(n).0.copy_from_slice(bytes.split_at(n).0);
        self.used += n;
        n
    }

    /// How many bytes of zeros are missing until the file offset is a multiple of `align`.
    pub(crate) fn gap(&self, align: u64) -> usize {
        // At most 64 KiB: the largest alignment there is.
        usize::try_from(align_up(self.end(), align) - self.end()).unwrap_or(PAGE)
    }

    /// Appends up to `n` zeros and answers how many.
    pub(crate) fn push_zeros(&mut self, n: usize) -> usize {
        let n = n.min(self.free());
        let used = self.used;
        let rest = self.aligned().split_at_mut(used).1;
        rest.split_at_mut(n).0.fill(0);
        self.used += n;
        n
    }

    /// Zeros up to the end of the page; always fits.
    pub(crate) fn push_to_page(&mut self) {
        let gap = self.gap(PAGE_LEN);
        self.push_zeros(gap);
    }

    /// The free bytes, to be filled in by the caller and then taken with [`advance`](Self::advance).
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let used = self.used;
        self.aligned().split_at_mut(used).1
    }

    /// Takes the next `n` bytes of the room for filled.
    pub(crate) fn advance(&mut self, n: usize) {
        self.used += n.min(self.free());
    }
}
