//! Buffers that direct I/O accepts.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
};

use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap},
};

/// From this length on, huge pages are worth asking for.
const HUGE: usize = 2 << 20;

/// A buffer of fixed length that begins at a page, all zero at first, from the kernel rather than from an allocator.
///
/// Page alignment is what `O_DIRECT` asks of memory. A forked child has a copy of its own.
pub struct AlignedBuf {
    /// The first byte of a private anonymous mapping that this buffer owns and unmaps; dangling if `len` is 0.
    start: NonNull<u8>,
    /// Bytes of that mapping.
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; nothing about it depends on the thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: through `&AlignedBuf` it can only be read.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// Asks the kernel for `len` bytes, in huge pages if there are 2 MiB of it and the machine has them.
    ///
    /// - **Cost**: O(1); memory is charged when touched, see [`prefault`](Self::prefault).
    /// - **Errors**: `ENOMEM`.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        if len == 0 {
            let start = NonNull::dangling();
            return Ok(Self { start, len });
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without an address the kernel picks one where nothing is.
        let made = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE) }?;
        let start = NonNull::new(made.cast::<u8>()).ok_or(Errno::NOMEM)?;
        if len >= HUGE {
            // Advice: where it is refused, ordinary pages do.
            // SAFETY: changes how this very mapping is backed, not what it holds.
            let _refused = unsafe { madvise(made, len, Advice::LinuxHugepage) };
        }
        Ok(Self { start, len })
    }

    /// Brings all pages in now, so that no fault comes later.
    ///
    /// - **Errors**: `ENOMEM`; `EINVAL` before Linux 5.14, where faults simply come later.
    pub fn prefault(&mut self) -> io::Result<()> {
        if self.len > 0 {
            let start = self.start.as_ptr().cast();
            // SAFETY: faults this buffer's own pages in; their bytes stay.
            unsafe { madvise(start, self.len, Advice::LinuxPopulateWrite) }?;
        }
        Ok(())
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: this value owns the mapping, and no borrow of it is left.
            let done = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(done.is_ok(), "munmap of our own mapping: {done:?}");
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are mapped readable, initialised to zero by the kernel, and borrowed as
        // this value is.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; mapped writable, and borrowed mutably as this value is.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes at {:p})", self.len, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_page_is_zero_and_keeps_what_is_written() {
        for len in [1, 4096, 10_000, 3 << 20] {
            let mut buf = AlignedBuf::zeroed(len).unwrap();
            assert_eq!(buf.as_ptr().addr() % rustix::param::page_size(), 0);
            assert!(buf.len() == len && buf.iter().all(|byte| *byte == 0));
            buf[len - 1] = 7;
            buf.prefault().unwrap();
            let buf = std::thread::spawn(move || buf).join().unwrap();
            assert_eq!(buf[len - 1], 7);
        }
        assert!(AlignedBuf::zeroed(0).unwrap().is_empty());
        assert!(AlignedBuf::zeroed(usize::MAX / 2).is_err());
    }
}
