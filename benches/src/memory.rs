//! Memory as both sides write and read it: the same stores over a segment and over plain pages.

use std::{
    ffi::c_void,
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::{error::BenchError, rng::Rng};

/// The unit in which these benchmarks touch memory: the smallest page there is.
pub const PAGE: usize = 4096;

/// A cache line: reading one word of each brings in everything.
const LINE: usize = 64;

/// Memory that is read and written word by word, by several threads if need be.
///
/// Every access is an atomic word or a raw copy: no reference to the bytes ever exists, so that a
/// checkpoint may copy them at any time.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Page-aligned; `len` bytes from here can be written and read for `'a`.
    base: NonNull<u8>,
    /// A multiple of [`PAGE`].
    len: usize,
    memory: PhantomData<&'a AtomicU64>,
}

// SAFETY: a view is an address; every access through it is atomic, or documented as exclusive.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl<'a> View<'a> {
    /// Looks at `len` bytes from `base`.
    ///
    /// # Safety
    ///
    /// `base` is aligned to [`PAGE`], and until `'a` ends the bytes stay mapped, readable and writable,
    /// and nobody holds a reference to them.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self {
            base,
            len,
            memory: PhantomData,
        }
    }

    /// Bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Tells whether there is no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whole pages.
    #[must_use]
    pub const fn pages(self) -> usize {
        self.len / PAGE
    }

    /// The word at a byte offset.
    ///
    /// - **Panics**: if it is not a multiple of 8 inside the memory.
    #[inline]
    #[must_use]
    pub fn word(self, offset: usize) -> &'a AtomicU64 {
        assert!(
            offset < self.len && offset.is_multiple_of(8),
            "no word at {offset}"
        );
        // SAFETY: the offset is inside the memory, which is mapped for 'a (by `new`).
        let word = unsafe { self.base.add(offset) };
        // SAFETY: aligned to 8 (base to PAGE, offset to 8), valid for 'a, and only accessed atomically.
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
    }

    /// Copies a page's worth of words over page `page`.
    ///
    /// - **Panics**: if there is no such page.
    #[inline]
    pub fn write_page(self, page: usize, content: &[u64; PAGE / 8]) {
        assert!(page < self.pages(), "no page {page}");
        // SAFETY: the page is inside the memory.
        let target = unsafe { self.base.add(page * PAGE) };
        // SAFETY: both sides are PAGE bytes; the content is a Rust array and cannot overlap the memory,
        // to which there are no references. Callers give each page to one writer at a time.
        unsafe { ptr::copy_nonoverlapping(content.as_ptr().cast(), target.as_ptr(), PAGE) };
    }

    /// Copies page `from` of other memory over page `page`.
    ///
    /// - **Panics**: if there is no such page.
    #[inline]
    pub fn copy_page(self, page: usize, other: View<'_>, from: usize) {
        assert!(
            page < self.pages() && from < other.pages(),
            "no page {page} or {from}"
        );
        // SAFETY: the page is inside the memory.
        let target = unsafe { self.base.add(page * PAGE) };
        // SAFETY: as above, of the other memory.
        let source = unsafe { other.base.add(from * PAGE) };
        // SAFETY: PAGE mapped bytes on both sides; `copy` allows them to be the same page.
        unsafe { ptr::copy(source.as_ptr(), target.as_ptr(), PAGE) };
    }

    /// The bytes themselves.
    ///
    /// # Safety
    ///
    /// Nobody writes to them while the slice lives.
    ///
    /// - **Panics**: if they are not inside the memory.
    #[must_use]
    pub unsafe fn bytes(self, offset: usize, len: usize) -> &'a [u8] {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "no {len} bytes at {offset}"
        );
        // SAFETY: inside the memory, by the assertion.
        let start = unsafe { self.base.add(offset) };
        // SAFETY: mapped and initialised (by the kernel if by nobody else) for 'a; not written to
        // meanwhile, by the caller's word.
        unsafe { slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Fills everything with incompressible bytes, different for different seeds.
    pub fn fill(self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut content = [0; PAGE / 8];
        for page in 0..self.pages() {
            rng.fill(&mut content);
            self.write_page(page, &content);
        }
    }

    /// Stores one word in each of `n` random pages.
    pub fn dirty(self, rng: &mut Rng, n: usize) {
        for _ in 0..n {
            let page = rng.below(self.pages());
            let word = rng.below(PAGE / 8);
            self.word(page * PAGE + word * 8).store(rng.next(), Relaxed);
        }
    }

    /// Reads every cache line and gives a sum that the compiler cannot do without.
    #[must_use]
    pub fn read_all(self) -> u64 {
        let mut sum = 0_u64;
        for line in (0..self.len).step_by(LINE) {
            sum = sum.wrapping_add(self.word(line).load(Relaxed));
        }
        std::hint::black_box(sum)
    }
}

/// Anonymous memory of this process, unmapped when dropped.
#[derive(Debug)]
pub struct Plain {
    view: View<'static>,
}

/// Which pages the kernel may use for plain memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// The smallest, whatever the machine's setting: as a segment has them.
    Small,
    /// What the machine's setting gives.
    Default,
}

impl Plain {
    /// Maps `len` bytes (a multiple of [`PAGE`]), not yet touched.
    ///
    /// - **Errors**: [`BenchError::Kernel`].
    pub fn new(len: usize, pages: Pages) -> Result<Self, BenchError> {
        // SAFETY: a fresh mapping at a place of the kernel's choice touches nobody's memory.
        let base = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(BenchError::kernel("mmap"))?;
        let plain = Self::own(base, len);
        if pages == Pages::Small {
            // SAFETY: advice about a mapping of our own; its content does not change.
            unsafe { mm::madvise(base, len, Advice::LinuxNoHugepage) }
                .map_err(BenchError::kernel("madvise(NOHUGEPAGE)"))?;
        }
        Ok(plain)
    }

    /// Touches `len` bytes and gives them back, so that what is allocated next is memory that the machine has.
    ///
    /// A virtual machine may get each page from its host only when it is touched first, and give free ones back after
    /// seconds: 2 us a page on the machine where this was found, more than a copy to the page cache costs. Both sides
    /// of a row that fills the page cache do this first.
    ///
    /// - **Errors**: [`BenchError::Kernel`].
    pub fn touch_free(len: usize) -> Result<(), BenchError> {
        let memory = Self::new(len, Pages::Small)?;
        for page in 0..memory.view().pages() {
            memory.view().word(page * PAGE).store(1, Relaxed);
        }
        Ok(())
    }

    /// As [`new`](Self::new), filled with incompressible bytes.
    ///
    /// - **Errors**: [`BenchError::Kernel`].
    pub fn filled(len: usize, seed: u64) -> Result<Self, BenchError> {
        let plain = Self::new(len, Pages::Small)?;
        plain.view().fill(seed);
        Ok(plain)
    }

    /// How many bytes of it are in memory; of an untouched mapping of a file, how many are in the page cache.
    ///
    /// - **Errors**: [`BenchError::Kernel`].
    pub fn resident(&self) -> Result<usize, BenchError> {
        let page = rustix::param::page_size();
        let mut pages = vec![0_u8; self.view.len.div_ceil(page)];
        let base = self.view.base.as_ptr().cast();
        // SAFETY: the range is mapped as long as this value lives, and the vector has a byte for each of its pages.
        let done = unsafe { libc::mincore(base, self.view.len, pages.as_mut_ptr()) };
        if done != 0 {
            return Err(BenchError::kernel("mincore")(
                std::io::Error::last_os_error(),
            ));
        }
        Ok(pages.iter().filter(|page| **page & 1 == 1).count() * page)
    }

    /// Maps a file privately: what it holds is read on demand and copied when written.
    ///
    /// - **Errors**: [`BenchError::Kernel`].
    pub fn private(file: &std::fs::File, len: usize) -> Result<Self, BenchError> {
        // SAFETY: a fresh mapping at a place of the kernel's choice touches nobody's memory.
        let base = unsafe {
            mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
                file,
                0,
            )
        }
        .map_err(BenchError::kernel("mmap"))?;
        Ok(Self::own(base, len))
    }

    /// Shows part of a file privately in place of what was at `offset`, as a resume shows a run of a pack.
    ///
    /// - **Errors**: [`BenchError::Kernel`].
    /// - **Panics**: if the bytes are not inside the memory.
    pub fn show(
        &mut self,
        offset: usize,
        len: usize,
        file: &std::fs::File,
        place: u64,
    ) -> Result<(), BenchError> {
        let whole = self.view.len;
        assert!(
            offset <= whole && len <= whole - offset,
            "no {len} bytes at {offset}"
        );
        // SAFETY: inside the memory, by the assertion.
        let at = unsafe { self.view.base.add(offset) };
        // SAFETY: replaces pages of our own mapping; no view of it is there, since this borrows it exclusively.
        let shown = unsafe {
            mm::mmap(
                at.as_ptr().cast(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
                file,
                place,
            )
        };
        shown.map(drop).map_err(BenchError::kernel("mmap"))
    }

    fn own(base: *mut c_void, len: usize) -> Self {
        let base = NonNull::new(base.cast()).unwrap_or(NonNull::dangling());
        Self {
            // SAFETY: mapped by the caller just now, page-aligned, and until this value is dropped.
            // It leaves only through `view`, which ties it to the borrow.
            view: unsafe { View::new(base, len) },
        }
    }

    /// The memory, for as long as it is borrowed.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        self.view
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole; views borrow this value and are gone.
        let unmapped = unsafe { mm::munmap(self.view.base.as_ptr().cast(), self.view.len) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_memory_is_distinct_and_dirt_changes_it() {
        let memory = Plain::filled(64 * PAGE, 1).unwrap();
        let twin = Plain::filled(64 * PAGE, 1).unwrap();
        let sum = memory.view().read_all();
        assert_eq!(sum, twin.view().read_all());
        assert_ne!(
            memory.view().word(0).load(Relaxed),
            memory.view().word(PAGE).load(Relaxed)
        );
        memory.view().write_page(63, &[7; PAGE / 8]);
        assert_eq!(memory.view().word(64 * PAGE - 8).load(Relaxed), 7);
        assert_ne!(memory.view().read_all(), sum);
    }

    #[test]
    #[should_panic(expected = "no word")]
    fn a_word_outside_is_refused() {
        let memory = Plain::new(PAGE, Pages::Default).unwrap();
        let _ = memory.view().word(PAGE);
    }
}
