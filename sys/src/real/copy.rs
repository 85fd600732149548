//! Bytes out of segments, and into them.
//!
//! A segment's memory may be written by the program at any time, so it is never seen through a `&[u8]` here. While
//! writers run, the kernel copies (`process_vm_readv`). When nobody writes, one machine instruction does, which the
//! compiler cannot look into: no assumption about the source enters the program's meaning.

use std::{io::IoSliceMut, ptr};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd,
};
use rustix::process::Pid;

use crate::{kernel::KernelError, page::PageRange};

/// The most ranges the kernel takes in one call (`UIO_MAXIOV`).
const MAX_RANGES: usize = 1024;

/// # Safety
/// As [`Kernel::fill`](crate::Kernel::fill).
pub(super) unsafe fn fill(at: usize, bytes: &[u8]) {
    let to = ptr::with_exposed_provenance_mut(at);
    // SAFETY: `bytes` is readable; the destination is committed memory of the caller, which nobody else uses now,
    // so it cannot overlap a live slice either.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
}

fn check_len(ranges: &[PageRange], out: &[u8]) {
    let wanted: usize = ranges.iter().map(|range| range.len()).sum();
    assert_eq!(out.len(), wanted, "the buffer is not as long as the ranges");
}

pub(super) fn copy_racing(
    pid: Pid,
    ranges: &[PageRange],
    out: &mut [u8],
) -> Result<(), KernelError> {
    check_len(ranges, out);
    let pid = unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    let wanted = out.len();
    let mut todo = Todo {
        ranges,
        into_first: 0,
    };
    let mut rest = out;
    // 16 KiB of stack rather than an allocation: this runs while writers wait.
    let mut remote = [RemoteIoVec { base: 0, len: 0 }; MAX_RANGES];
    while !rest.is_empty() {
        let batch = todo.fill(&mut remote);
        let len: usize = batch.iter().map(|piece| piece.len).sum();
        let (now, _) = rest.split_at_mut(len);
        match process_vm_readv(pid, &mut [IoSliceMut::new(now)], batch) {
            // Stopped in the middle (a page that cannot be read, a signal, 2 GiB): going on from there tells why.
            Ok(copied) if copied > 0 => {
                todo.advance(copied);
                let (_, after) = rest.split_at_mut(copied);
                rest = after;
            }
            Ok(_) => return Err(short(&todo, wanted, rest.len(), Errno::EFAULT)),
            Err(Errno::EINTR) => {}
            Err(errno @ (Errno::ENOSYS | Errno::EPERM)) => {
                return Err(KernelError::Unavailable {
                    feature: "process_vm_readv",
                    remedy: "allow it in the container's seccomp profile",
                    source: errno.into(),
                });
            }
            Err(errno) => return Err(short(&todo, wanted, rest.len(), errno)),
        }
    }
    Ok(())
}

fn short(todo: &Todo<'_>, wanted: usize, missing: usize, errno: Errno) -> KernelError {
    KernelError::ShortCopy {
        at: todo.next(),
        copied: wanted - missing,
        wanted,
        source: errno.into(),
    }
}

/// What is still to be copied.
struct Todo<'a> {
    ranges: &'a [PageRange],
    /// Bytes of the first range that are done; less than its length, but for empty ranges.
    into_first: usize,
}

impl Todo<'_> {
    /// The next pieces, as many as one call takes.
    fn fill<'v>(&self, remote: &'v mut [RemoteIoVec; MAX_RANGES]) -> &'v [RemoteIoVec] {
        let mut skip = self.into_first;
        let mut count = 0;
        for (slot, range) in remote.iter_mut().zip(self.ranges) {
            *slot = RemoteIoVec {
                base: range.start() + skip,
                len: range.len() - skip,
            };
            skip = 0;
            count += 1;
        }
        remote.get(..count).unwrap_or_default()
    }

    fn advance(&mut self, copied: usize) {
        self.into_first += copied;
        while let [first, rest @ ..] = self.ranges
            && self.into_first >= first.len()
        {
            self.into_first -= first.len();
            self.ranges = rest;
        }
    }

    /// Address of the next byte.
    fn next(&self) -> usize {
        let first = self.ranges.iter().find(|range| !range.is_empty());
        first.map_or(0, |range| range.start() + self.into_first)
    }
}

/// # Safety
/// As [`Kernel::copy_quiet`](crate::Kernel::copy_quiet).
pub(super) unsafe fn copy_quiet(ranges: &[PageRange], out: &mut [u8]) {
    check_len(ranges, out);
    let mut rest = out;
    for range in ranges {
        let (now, after) = rest.split_at_mut(range.len());
        rest = after;
        // SAFETY: the caller promises that the range is readable and that nobody writes to it; `now` is as long.
        unsafe { copy_opaque(range.start(), now) };
    }
}

/// Copies `out.len()` bytes from `from`, without the compiler knowing that memory is read there.
///
/// # Safety
/// `out.len()` bytes from `from`, which begins a page, are readable and not written meanwhile.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_opaque(from: usize, out: &mut [u8]) {
    // `rep movsb` runs at the speed of the best vector loop for whole pages (since Ivy Bridge).
    // SAFETY: reads `rcx` bytes at `rsi` (readable: the caller), writes as many at `rdi` (`out`, borrowed mutably);
    // the direction flag is clear on entry to every `asm!` block, and no flag or stack is touched.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") out.len() => _,
            inout("rdi") out.as_mut_ptr() => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
use copy_volatile as copy_opaque;

/// As `copy_opaque`, where there is no such instruction: volatile loads of eight bytes.
///
/// # Safety
/// As there, and `out.len()` is a multiple of 8.
#[cfg(any(test, not(target_arch = "x86_64")))]
unsafe fn copy_volatile(from: usize, out: &mut [u8]) {
    let from: *const u64 = ptr::with_exposed_provenance(from);
    for (at, word) in out.chunks_exact_mut(8).enumerate() {
        // SAFETY: `at` words lie within the range, which is readable to its end.
        let source = unsafe { from.add(at) };
        // SAFETY: readable, and aligned as a page is.
        let value = unsafe { source.read_volatile() };
        #[expect(
            clippy::host_endian_bytes,
            reason = "bytes of this machine's memory, as they lie there"
        )]
        word.copy_from_slice(&value.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AlignedBuf;

    #[test]
    fn both_ways_to_copy_copy_the_same() {
        let mut source = AlignedBuf::zeroed(3 * 4096).unwrap();
        for (byte, paint) in source.iter_mut().zip((0..=250).cycle()) {
            *byte = paint;
        }
        let from = source.as_ptr().expose_provenance();
        let mut out = vec![0; source.len()];
        // SAFETY: a live buffer, not written to.
        unsafe { copy_volatile(from, &mut out) };
        assert_eq!(out, *source);
        out.fill(0);
        // SAFETY: a live buffer, not written to.
        unsafe { copy_opaque(from, &mut out) };
        assert_eq!(out, *source);
    }

    #[test]
    fn what_is_left_to_copy_advances_over_ranges_and_empty_ones() {
        let range = |start: usize, len: usize| {
            PageRange::new(crate::PageSize::MIN, start << 12, len << 12).unwrap()
        };
        let ranges = [range(0, 0), range(1, 2), range(9, 0), range(5, 1)];
        let mut todo = Todo {
            ranges: &ranges,
            into_first: 0,
        };
        assert_eq!(todo.next(), 1 << 12);
        todo.advance(100);
        assert_eq!(todo.next(), (1 << 12) + 100);
        let mut remote = [RemoteIoVec { base: 0, len: 0 }; MAX_RANGES];
        let lens: Vec<_> = todo.fill(&mut remote).iter().map(|v| v.len).collect();
        assert_eq!(lens, [8192 - 100, 0, 4096]);
        todo.advance(8192 - 100 + 96);
        assert_eq!(todo.next(), (5 << 12) + 96);
    }
}
