//! Which process a kernel or watch belongs to.
//!
//! A forked child inherits descriptors that act on its parent's memory: a scan through an inherited pagemap shows,
//! and arms, the *parent's* pages. So the process is compared before every use. `getpid` costs 50 ns; a cache that
//! `fork` invalidates (`MADV_WIPEONFORK`, `pthread_atfork`) was rejected: raw `clone` calls escape the second, and
//! the first costs a page per process to save what no caller can notice.

use rustix::process::{Pid, getpid};

use crate::kernel::KernelError;

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner(Pid);

impl Owner {
    pub(crate) fn this_process() -> Self {
        Self(getpid())
    }

    /// Answers the pid, or [`KernelError::Forked`] in any other process.
    pub(crate) fn check(self) -> Result<Pid, KernelError> {
        if getpid() == self.0 {
            Ok(self.0)
        } else {
            Err(KernelError::Forked {
                owner: self.0.as_raw_nonzero().get().unsigned_abs(),
            })
        }
    }
}
