//! Copies of memory that others write to, where `process_vm_readv` is forbidden: the kernel copies into a pipe and out again.
//!
//! Half as fast, and the same in what matters: no reference to the bytes is ever made, and a page that cannot be read is an
//! error and no signal.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::{kernel::KernelError, page::PageRange};

/// What an empty pipe takes without anybody reading: 16 pages, on every kernel that is not told otherwise.
const PIECE: usize = 64 << 10;

/// As [`Kernel::copy_racing`](crate::Kernel::copy_racing).
pub(super) fn copy_racing(ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
    let wanted: usize = ranges.iter().map(|range| range.len()).sum();
    assert_eq!(out.len(), wanted, "the buffer is not as long as the ranges");
    let unavailable = |errno: Errno| KernelError::Unavailable {
        feature: "a pipe",
        remedy: "raise the limit on open files",
        source: errno.into(),
    };
    // Not blocking: a pipe that is smaller than it should be ends in an error and no wait.
    let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(unavailable)?;
    let mut copied = 0;
    for range in ranges {
        let mut at = range.start();
        while at < range.end() {
            let short = |source: io::Error| KernelError::ShortCopy {
                at,
                copied,
                wanted,
                source,
            };
            let len = push(&to, at, PIECE.min(range.end() - at)).map_err(short)?;
            let into = out.get_mut(copied..copied + len).unwrap_or_default();
            pull(&from, into).map_err(short)?;
            at += len;
            copied += len;
        }
    }
    Ok(())
}

/// Puts up to `len` bytes from `at` into the pipe; tells how many.
fn push(to: &OwnedFd, at: usize, len: usize) -> io::Result<usize> {
    let from: *const libc::c_void = ptr::with_exposed_provenance(at);
    loop {
        // SAFETY: the kernel reads the memory, and answers EFAULT where it cannot. No byte of it changes.
        let done = unsafe { libc::write(to.as_raw_fd(), from, len) };
        match usize::try_from(done) {
            Ok(0) => return Err(Errno::FAULT.into()),
            Ok(done) => return Ok(done),
            Err(_negative) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Takes exactly what was put in.
fn pull(from: &OwnedFd, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match rustix::io::read(from, &mut *into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(done) => into = into.get_mut(done..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
