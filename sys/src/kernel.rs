//! The seam between segvm and the kernel: what is asked of memory, as one trait.
//!
//! Two implementations obey one conformance suite: [`RealKernel`](crate::RealKernel), which is the system
//! calls of this process, and [`ModelKernel`](crate::ModelKernel), which keeps memory in a plain map so that
//! everything above runs, and can be made to fail, without a kernel. Files are another seam
//! (`segvm_blockcache::Disk`); the two meet in [`Mappable`].

use std::{fmt, io, os::fd::BorrowedFd};

use crate::page::{PageRange, PageSize};

/// Something whose bytes can be mapped into memory: a file of a store.
pub trait Mappable: fmt::Debug {
    /// The descriptor to map; `None` where there is no real file behind it (a double in a test), and then
    /// only [`ModelKernel`](crate::ModelKernel) can map it, by `read_at`.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Fills `buf` with the bytes from `offset`.
    ///
    /// - **Errors**: `UnexpectedEof` where the file is shorter.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Which pages a scan reports.
///
/// A scan that returns an error reports nothing and may have armed part of the range: the caller then takes
/// **the whole range for dirty**.
///
/// A page that was armed while it was not there looks to the kernel like one that was swapped out. So
/// [`Touched`](Query::Touched), [`Private`](Query::Private) and [`ArmAll`](Query::ArmAll) report it until it comes:
/// populate before arming by [`Watch::arm`], or let one `ArmAll` do the arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Pages that are mapped (present or swapped), private or not, other than by a huge page of a file.
    ///
    /// For deciding what to warm; says nothing about dirt. What a huge page of a file shows is left out: it is clean, and
    /// one entry describes 2 MiB, so asking about it costs nothing as it is.
    Touched,
    /// Pages that a huge page of a file shows.
    ///
    /// For splitting them before they are armed: the kernel forgets that a huge page was armed when a write splits it,
    /// and then takes all of it for written. May report none of them.
    Huge,
    /// Pages of an unregistered ("cold") range that are private: `not FILE and (PRESENT or SWAPPED)`.
    Private,
    /// Arms **every** page of a registered range and reports those that were private, in one step: the exact
    /// way from cold to warm (with [`Watch::arm`] followed by [`Query::Private`], the other exact way).
    ArmAll,
    /// Pages of a registered and armed ("warm") range written since they were armed.
    Written,
    /// As [`Query::Written`], and arms again what it reports, in the same step.
    WrittenRearm,
}

/// What went wrong in a call on memory: the call, where, and the kernel's own word for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Another mapping of this process lies in the range that was asked for.
    #[error("the address range {range} is taken by another mapping of this process{}", holder_text(.holder))]
    Taken {
        /// The range that was asked for.
        range: PageRange,
        /// The line of `/proc/self/maps` that is in the way, where it could be found.
        holder: Option<String>,
    },
    /// The machine lacks the mechanism, or forbids it to this process.
    #[error("{feature} is not available here ({source}): {remedy}")]
    Unavailable {
        /// The mechanism, by its usual name.
        feature: &'static str,
        /// What would make it available.
        remedy: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// A copy out of memory stopped short: a page in the range cannot be read.
    #[error("reading memory stopped at {at:#x}, {copied} of {wanted} bytes in: {source}")]
    ShortCopy {
        /// Address of the first byte that could not be read.
        at: usize,
        /// Bytes that were copied.
        copied: usize,
        /// Bytes that were asked for.
        wanted: usize,
        /// The kernel's word.
        source: io::Error,
    },
    /// A forked child called with what belongs to its parent.
    #[error("this process is a fork of {owner}, to which the session belongs")]
    Forked {
        /// The process that made it.
        owner: u32,
    },
    /// Any other failure of a system call.
    #[error("{call} on {range} failed: {source}")]
    Call {
        /// The system call or ioctl.
        call: &'static str,
        /// The range it was asked to work on.
        range: PageRange,
        /// The kernel's word, errno kept.
        source: io::Error,
    },
}

fn holder_text(holder: &Option<String>) -> String {
    holder
        .as_ref()
        .map(|line| format!(": {line}"))
        .unwrap_or_default()
}

/// What segvm asks of memory.
///
/// A page of a segment is in one of these states, and [`Query`] tells them apart:
///
/// ```text
///                map_file                      first write
///   reserved  ------------->  FILE (clean)  ------------------->  private (dirty)
///      |                                                            |   ^
///      | commit            first read or write                arm   v   |  write
///      +----->  hole  ---------------------------->  private     armed (clean)
/// ```
///
/// All ranges are whole pages. A method is `unsafe` when its misuse can change, free or make unreadable memory
/// that the caller does not own; the promise is always the same: *every page of the range lies in a range that
/// this caller reserved by [`reserve`](Kernel::reserve) and has not released*, plus what the method adds.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// The page size of this machine.
    fn page_size(&self) -> PageSize;

    /// Claims address space: nothing can be read or written there yet, and nothing else will be placed there.
    ///
    /// - **Cost**: O(1) whatever the length; no memory is charged.
    /// - **Errors**: [`KernelError::Taken`] if any page of it is mapped already.
    fn reserve(&self, range: PageRange) -> Result<(), KernelError>;

    /// Gives reserved address space back.
    ///
    /// # Safety
    /// As the [trait](Kernel) says, and no reference or pointer into the range is used ever after.
    unsafe fn release(&self, range: PageRange) -> Result<(), KernelError>;

    /// Makes a range readable and writable, all zero: holes, charged when touched.
    ///
    /// # Safety
    /// As the [trait](Kernel) says, and what lay in the range before is not needed or referenced any more.
    unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError>;

    /// Takes access away and frees what lay there; the range stays reserved, so a stale pointer faults.
    ///
    /// # Safety
    /// As the [trait](Kernel) says, and no reference into the range is used ever after.
    unsafe fn fence(&self, range: PageRange) -> Result<(), KernelError>;

    /// Maps `file` from `offset` privately over the range: readable, writable, changes stay in this process.
    ///
    /// - **Errors**: `Call` with `EINVAL` where `offset` is not a multiple of the page size.
    ///
    /// # Safety
    /// As the [trait](Kernel) says; what lay in the range before is not needed or referenced any more; and the
    /// file's bytes there never change nor shrink while the mapping lives.
    unsafe fn map_file(
        &self,
        range: PageRange,
        file: &dyn Mappable,
        offset: u64,
    ) -> Result<(), KernelError>;

    /// Copies `bytes` into committed memory from `at` on.
    ///
    /// # Safety
    /// As the [trait](Kernel) says for the pages touched, and no other thread uses those bytes meanwhile.
    unsafe fn fill(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError>;

    /// Brings pages of file mappings in for reading, so that arming keeps the kernel's fault-around.
    ///
    /// Never writes, never makes a page private.
    fn populate_read(&self, range: PageRange) -> Result<(), KernelError>;

    /// Changes whether the range may be written: `false` makes a stray write fault, `true` restores it.
    ///
    /// # Safety
    /// As the [trait](Kernel) says, and nobody writes to the range while it is read-only.
    unsafe fn set_writable(&self, range: PageRange, writable: bool) -> Result<(), KernelError>;

    /// Frees what lies in committed memory: it is zero again, and charged when it is touched.
    ///
    /// What was armed there is not any more: it counts as written.
    ///
    /// # Safety
    /// As the [trait](Kernel) says; the range is committed memory, not a mapped file (whose content would come back); and
    /// no reference into it is alive.
    unsafe fn discard(&self, range: PageRange) -> Result<(), KernelError>;

    /// Keeps committed memory out of core dumps and out of forked children, where touching it faults.
    ///
    /// Ends when the range is committed, fenced or mapped anew.
    ///
    /// # Safety
    /// As the [trait](Kernel) says, and nothing in a child of a fork relies on what lies there.
    unsafe fn seclude(&self, range: PageRange) -> Result<(), KernelError>;

    /// Opens a watch: one userfaultfd with asynchronous write-protection.
    ///
    /// - **Errors**: [`KernelError::Unavailable`] where the kernel lacks it or forbids it.
    fn watch(&self) -> Result<Box<dyn Watch>, KernelError>;

    /// Appends to `out`, in ascending order and merged, the runs of pages that `query` matches in `range`.
    ///
    /// - **Cost**: see docs/design/tracking.md; follows the kernel's `walk_end` when its vector fills.
    /// - **Errors**: on any, the range must be taken for dirty as a whole; `out` is as it was.
    fn scan(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError>;

    /// Copies the ranges, one after the other, into `out` while the program may be writing to them: each byte is
    /// from some instant during the call. `process_vm_readv` on this process.
    ///
    /// - **Panics**: if `out` is not as long as the ranges together.
    fn copy_racing(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError>;

    /// As [`copy_racing`](Kernel::copy_racing), twice as fast, for when nobody writes.
    ///
    /// # Safety
    /// Every page of the ranges is readable, and no thread writes to them during the call.
    unsafe fn copy_quiet(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError>;

    /// Says that system calls are going to write into the range: until [`end_kernel_write`](Kernel::end_kernel_write) with the
    /// same range it is not armed, and every scan of registered pages reports it.
    ///
    /// For engines that protect pages from writing: a system call cannot be let through as the program's own writes are, and
    /// would answer `EFAULT`. Elsewhere nothing to do. May be said several times; each has its end.
    fn begin_kernel_write(&self, range: PageRange) -> Result<(), KernelError> {
        let _the_kernel_notes_it_itself = range;
        Ok(())
    }

    /// Takes back what [`begin_kernel_write`](Kernel::begin_kernel_write) said.
    fn end_kernel_write(&self, range: PageRange) {
        let _nothing_was_said = range;
    }
}

/// A userfaultfd in asynchronous write-protect mode: which ranges it watches, and the arming of their pages.
///
/// While any range is registered it must stay open: dropping it un-arms everything, and dirt is lost from sight.
/// In a forked child every method answers [`KernelError::Forked`] and dropping it only closes the descriptor.
pub trait Watch: fmt::Debug + Send + Sync {
    /// Starts watching: pages can be armed from now on. A range that is registered already stays so.
    ///
    /// # Safety
    /// As the trait [`Kernel`] says.
    unsafe fn register(&self, range: PageRange) -> Result<(), KernelError>;

    /// Stops watching and disarms.
    ///
    /// # Safety
    /// As the trait [`Kernel`] says.
    unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError>;

    /// Arms every page of a registered range, forgetting what was written before: on its own it **erases dirt**.
    ///
    /// # Safety
    /// As the trait [`Kernel`] says.
    unsafe fn arm(&self, range: PageRange) -> Result<(), KernelError>;

    /// Installs `bytes` (whole pages) at `at`, armed, where no page is present: `UFFDIO_COPY` with write-protect.
    ///
    /// - **Errors**: `Call` with `EEXIST` where a page is already there.
    ///
    /// # Safety
    /// As the trait [`Kernel`] says for the pages filled.
    unsafe fn install(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError>;
}
