//! Tells a forked child from its parent, for less than a system call.

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering},
};

/// How many forks lie between this process and the one in which the first gate was made.
///
/// Written only by the child's one thread before `fork` returns in it; hence no ordering is needed.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A place in the line of forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForkMark(u32);

impl ForkMark {
    /// The mark of this process; from here on its children are told apart from it.
    pub(crate) fn here() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: `in_child` is a function for the whole life of the process (this library is not unloaded while
            // it is in use), and does nothing that is not async-signal-safe: it adds to an atomic.
            let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            assert_eq!(failed, 0, "no memory for the fork handler");
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Tells whether this process is the one that made the mark.
    pub(crate) fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.0
    }
}

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}
