//! What the signal handler does with a write to a page of ours: note it, lift the protection, try again.
//!
//! It may call: what `ledger::let_through` does (loads and changes of atomics, arithmetic) and `mprotect` as a raw system call,
//! which leaves errno alone. No allocation, lock, panic or log.

use std::{
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use libc::{c_int, c_void};
use rustix::mm::{MprotectFlags, mprotect};

use super::ledger;
use crate::page::{PageRange, PageSize};

/// Pages as of this machine, from the first engine on: log2 of their size, 0 before.
static PAGE: AtomicU32 = AtomicU32::new(0);

/// Says how large pages are, before any page is ours.
pub(super) fn set_page(page: PageSize) {
    PAGE.store(page.log2(), Ordering::Release);
}

fn page() -> Option<PageSize> {
    match PAGE.load(Ordering::Acquire) {
        0 => None,
        log2 => PageSize::new(1 << log2),
    }
}

/// Lifts the write protection of pages; tells whether it could.
fn lift(run: PageRange) -> bool {
    let at = ptr::with_exposed_provenance_mut(run.start());
    // SAFETY: pages that are ours, readable and meant to be writable; no byte changes.
    unsafe { mprotect(at, run.len(), MprotectFlags::READ | MprotectFlags::WRITE) }.is_ok()
}

/// Lets the write through that a SIGSEGV at `at` was about, if the page is ours; tells whether it may be tried again.
///
/// # Safety
/// `context` is what the kernel passed to the handler of this signal.
pub(crate) unsafe fn let_through(at: usize, code: c_int, context: *const c_void) -> bool {
    const PROTECTED: c_int = 2; // SEGV_ACCERR, which libc does not have on every target.
    let Some(page) = page() else {
        return false;
    };
    // SAFETY: the caller's promise.
    code == PROTECTED && unsafe { is_write(at, context) } && ledger::let_through(page, at, lift)
}

/// Tells whether it was a write. Pages of ours can always be read, so what is left is an attempt to run code there: with the
/// protection lifted it would only fault again, for ever.
///
/// # Safety
/// As [`let_through`].
#[cfg(target_arch = "x86_64")]
unsafe fn is_write(_at: usize, context: *const c_void) -> bool {
    const WRITE: i64 = 1 << 1; // of the page fault's error code
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a ucontext_t that lives as long as the handler runs.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    let error = usize::try_from(libc::REG_ERR).ok();
    let error = error.and_then(|at| registers.get(at));
    error.is_some_and(|error| error & WRITE != 0)
}

/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn is_write(at: usize, context: *const c_void) -> bool {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a ucontext_t that lives as long as the handler runs.
    let pc = unsafe { (*context).uc_mcontext.pc };
    pc != at as u64
}

/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn is_write(_at: usize, _context: *const c_void) -> bool {
    true
}
