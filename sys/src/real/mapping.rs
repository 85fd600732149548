//! Files shown in reserved memory, their population, and write access; memory freed in place, and kept out of dumps and children.

use std::{ptr, thread};

use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mprotect},
};

use super::failed;
use crate::{
    kernel::{KernelError, Mappable},
    page::PageRange,
};

/// How often population is tried again when the kernel says `EAGAIN` or was interrupted.
const POPULATE_TRIES: usize = 100;

/// # Safety
/// As [`Kernel::map_file`](crate::Kernel::map_file).
pub(super) unsafe fn map_file(
    range: PageRange,
    file: &dyn Mappable,
    offset: u64,
) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    // A double of a file, without a descriptor, can be shown by the model only.
    let fd = file
        .fd()
        .ok_or_else(|| failed("mmap", range, Errno::BADF))?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // NORESERVE: charged page by page when written, like all memory of a segment, not as a whole now.
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: MAP_FIXED replaces exactly these pages, which the caller owns and no longer needs; the file's bytes
    // neither change nor shrink (the caller's promise), so reads through the mapping are of stable memory.
    let done = unsafe { mmap(at, range.len(), access, flags, fd, offset) };
    done.map(|_same| ())
        .map_err(|errno| failed("mmap", range, errno))
}

pub(super) fn populate_read(range: PageRange) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    let at = ptr::with_exposed_provenance_mut(range.start());
    for _ in 0..POPULATE_TRIES {
        // SAFETY: POPULATE_READ faults pages in as a read would; it changes no byte and frees nothing, wherever the
        // range lies.
        match unsafe { madvise(at, range.len(), Advice::LinuxPopulateRead) } {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) => thread::yield_now(),
            Err(errno) => return Err(failed("madvise(MADV_POPULATE_READ)", range, errno)),
        }
    }
    Err(failed("madvise(MADV_POPULATE_READ)", range, Errno::AGAIN))
}

/// # Safety
/// As [`Kernel::set_writable`](crate::Kernel::set_writable).
pub(crate) unsafe fn set_writable(range: PageRange, writable: bool) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    let access = if writable {
        MprotectFlags::READ | MprotectFlags::WRITE
    } else {
        MprotectFlags::READ
    };
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: the caller owns these pages, and nobody writes to them while they are read-only.
    let done = unsafe { mprotect(at, range.len(), access) };
    done.map_err(|errno| failed("mprotect", range, errno))
}

/// # Safety
/// As [`Kernel::discard`](crate::Kernel::discard).
pub(super) unsafe fn discard(range: PageRange) -> Result<(), KernelError> {
    // SAFETY: the caller owns these pages, which are private anonymous memory that nothing refers to: they read as zeros
    // from now on.
    unsafe { advise(range, Advice::LinuxDontNeed, "madvise(MADV_DONTNEED)") }
}

/// # Safety
/// As [`Kernel::seclude`](crate::Kernel::seclude).
pub(super) unsafe fn seclude(range: PageRange) -> Result<(), KernelError> {
    // SAFETY: the caller's promise is the callee's.
    unsafe { leave_out_of_dumps(range) }?;
    // SAFETY: the caller owns these pages; a child of a fork has nothing there, which the caller says nothing relies on.
    unsafe { advise(range, Advice::LinuxDontFork, "madvise(MADV_DONTFORK)") }
}

/// Keeps pages out of core files until something else is mapped there. The kernel leaves out what nobody can read; `gcore` does not, and
/// would write 64 GiB of zeros for each segment.
///
/// # Safety
/// The pages are the caller's.
pub(super) unsafe fn leave_out_of_dumps(range: PageRange) -> Result<(), KernelError> {
    // SAFETY: changes what a core file has, no byte of the range.
    unsafe { advise(range, Advice::LinuxDontDump, "madvise(MADV_DONTDUMP)") }
}

/// # Safety
/// As the advice asks for.
unsafe fn advise(range: PageRange, advice: Advice, call: &'static str) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: the caller's promise.
    let done = unsafe { madvise(at, range.len(), advice) };
    done.map_err(|errno| failed(call, range, errno))
}
