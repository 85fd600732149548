//! The [`Kernel`] that is the system calls of this process.
//!
//! It owns no memory: ranges belong to whoever reserved them, and stay when it is dropped. What it owns are
//! descriptors, and one of them (`/proc/self/pagemap`) keeps showing the memory of the process that opened it. Hence
//! the rule of this folder: every method first makes sure that it runs in that process ([`owner`]).
mod copy;
mod mapping;
mod owner;
mod reserve;
mod scan;
mod uffd;
mod userfaultfd;

use rustix::io::Errno;

pub(crate) use self::{
    mapping::set_writable,
    owner::Owner,
    userfaultfd::{Faults, Userfaultfd, open as open_userfaultfd},
};
use self::{scan::Scanner, uffd::AsyncWatch};
use crate::{
    kernel::{Kernel, KernelError, Mappable, Query, Watch},
    page::{PageRange, PageSize},
};

/// The system calls of this process, as a [`Kernel`].
///
/// In a forked child every method but [`copy_quiet`](Kernel::copy_quiet) and [`fill`](Kernel::fill), which are plain
/// copies, answers [`KernelError::Forked`].
#[derive(Debug)]
pub struct RealKernel {
    page: PageSize,
    owner: Owner,
    scanner: Scanner,
}

impl RealKernel {
    /// Asks for the page size and opens `/proc/self/pagemap`.
    ///
    /// A process that is going to drop privileges makes it first: afterwards the file cannot be opened. Where it
    /// cannot be opened now, only [`scan`](Kernel::scan) is missing, and says so.
    ///
    /// - **Errors**: [`KernelError::Unavailable`] where pages are larger than 64 KiB.
    pub fn new() -> Result<Self, KernelError> {
        let page = PageSize::new(rustix::param::page_size()).ok_or(KernelError::Unavailable {
            feature: "a page size from 4 KiB to 64 KiB",
            remedy: "boot a kernel with smaller pages",
            source: Errno::NOTSUP.into(),
        })?;
        Ok(Self {
            page,
            owner: Owner::this_process(),
            scanner: Scanner::open(),
        })
    }

    /// Tells whether `PAGEMAP_SCAN` works here.
    pub(crate) fn can_scan(&self) -> bool {
        let nothing = PageRange::covering(self.page, 0, self.page.bytes());
        nothing.is_some_and(|page| {
            self.scanner
                .scan(self.page, page, Query::Touched, &mut Vec::new())
                .is_ok()
        })
    }
}

impl Kernel for RealKernel {
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn reserve(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        reserve::reserve(range)
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { reserve::release(range) }
    }

    unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { reserve::commit(range) }
    }

    unsafe fn fence(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { reserve::fence(range) }
    }

    unsafe fn map_file(
        &self,
        range: PageRange,
        file: &dyn Mappable,
        offset: u64,
    ) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { mapping::map_file(range, file, offset) }
    }

    unsafe fn fill(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { copy::fill(at, bytes) };
        Ok(())
    }

    fn populate_read(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        mapping::populate_read(range)
    }

    unsafe fn set_writable(&self, range: PageRange, writable: bool) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { mapping::set_writable(range, writable) }
    }

    unsafe fn discard(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { mapping::discard(range) }
    }

    unsafe fn seclude(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { mapping::seclude(range) }
    }

    fn watch(&self) -> Result<Box<dyn Watch>, KernelError> {
        self.owner.check()?;
        Ok(Box::new(AsyncWatch::open(self.page, self.owner)?))
    }

    fn scan(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        self.owner.check()?;
        self.scanner.scan(self.page, range, query, out)
    }

    fn copy_racing(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        let pid = self.owner.check()?;
        copy::copy_racing(pid, ranges, out)
    }

    unsafe fn copy_quiet(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { copy::copy_quiet(ranges, out) };
        Ok(())
    }
}

/// The error of a system call on a range.
pub(crate) fn failed(call: &'static str, range: PageRange, errno: Errno) -> KernelError {
    KernelError::Call {
        call,
        range,
        source: errno.into(),
    }
}
