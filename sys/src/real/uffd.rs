//! userfaultfd in asynchronous write-protect mode: arming pages, and installing armed ones. Linux 6.7.
//!
//! The kernel itself lifts the protection of an armed page when it is written, for system calls that write into it
//! as well, so no thread ever waits for us and nothing is read from the descriptor. That is also why
//! `UFFD_USER_MODE_ONLY` is enough, which needs no privilege.

use linux_raw_sys::general::{
    UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_UNPOPULATED,
    UFFDIO_COPY_MODE_WP, uffdio_copy,
};
use rustix::{
    io::Errno,
    ioctl::{Opcode, Updater, ioctl, opcode},
};

use super::{
    owner::Owner,
    userfaultfd::{Faults, TYPE, Userfaultfd, open},
};
use crate::{
    kernel::{KernelError, Watch},
    page::{PageRange, PageSize},
};

const COPY: Opcode = opcode::read_write::<uffdio_copy>(TYPE, 0x03);

/// WP_UNPOPULATED makes arming hold for pages that are not there yet: without it, the first write to one is unseen.
const FEATURES: u64 =
    (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC) as u64;

/// The [`Watch`] of the real kernel.
#[derive(Debug)]
pub(super) struct AsyncWatch {
    /// Speaks the API with [`FEATURES`]. Closing it disarms everything; in a forked child it closes a copy only.
    uffd: Userfaultfd,
    page: PageSize,
}

impl AsyncWatch {
    pub(super) fn open(page: PageSize, owner: Owner) -> Result<Self, KernelError> {
        let uffd = open(Faults::OfPrograms)?;
        let uffd = Userfaultfd::settle(uffd, owner, FEATURES).map_err(no_async)?;
        Ok(Self { uffd, page })
    }
}

fn no_async(errno: Errno) -> KernelError {
    KernelError::Unavailable {
        feature: "userfaultfd with asynchronous write-protection",
        remedy: "Linux 6.7 or newer, built with CONFIG_PTE_MARKER_UFFD_WP",
        source: errno.into(),
    }
}

impl Watch for AsyncWatch {
    unsafe fn register(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller owns the range; asynchronous write-protection blocks nobody.
        unsafe { self.uffd.register(range) }
    }

    unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.uffd.unregister(range) }
    }

    unsafe fn arm(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.uffd.protect(range) }
    }

    unsafe fn install(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        let range = PageRange::new(self.page, at, bytes.len());
        let range = range.expect("whole pages are installed, at the address of a page");
        let mut rest = bytes;
        self.uffd.persist("ioctl(UFFDIO_COPY)", range, |uffd| {
            let done = bytes.len() - rest.len();
            let mut arg = uffdio_copy {
                dst: (at + done) as u64,
                src: rest.as_ptr().expose_provenance() as u64,
                len: rest.len() as u64,
                mode: u64::from(UFFDIO_COPY_MODE_WP),
                copy: 0,
            };
            // SAFETY: COPY reads and writes a uffdio_copy.
            let call = unsafe { Updater::<COPY, _>::new(&mut arg) };
            // SAFETY: the source is a live slice of that length; the caller owns the destination, and the kernel
            // fills only pages that are not there.
            let result = unsafe { ioctl(uffd, call) };
            // A copy that stopped in the middle says EAGAIN, and how far it came; a negative count is an errno.
            if let Some(left) = usize::try_from(arg.copy).ok().and_then(|n| rest.get(n..)) {
                rest = left;
            }
            if result == Err(Errno::AGAIN) && rest.is_empty() {
                return Ok(());
            }
            result
        })
    }
}
