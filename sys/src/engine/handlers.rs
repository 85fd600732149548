//! Who is letting a write through at this moment, and waiting until that is over: a handler of SIGSEGV, or an attendant.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use parking_lot::Mutex;

/// How many handlers are at work, by the phase in which they began.
static AT_WORK: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// Its last bit says which of the two counts those who begin now.
static PHASE: AtomicUsize = AtomicUsize::new(0);

/// A handler at work. Async-signal-safe; all orders are sequential, since its mark and this count are compared by others.
pub(super) struct AtWork(&'static AtomicUsize);

impl AtWork {
    pub(super) fn begin() -> Self {
        let [even, odd] = &AT_WORK;
        let mine = if PHASE.load(Ordering::SeqCst).is_multiple_of(2) {
            even
        } else {
            odd
        };
        mine.fetch_add(1, Ordering::SeqCst);
        Self(mine)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until every handler that is at work now has ended. Those that begin meanwhile are not waited for: they count in the
/// other phase. Twice, since one may have read the phase and not counted itself yet.
///
/// A handler ends by itself: all signals are blocked in it, and it waits for nothing but the kernel's map of memory.
pub(super) fn wait_for_handlers() {
    // One at a time, or two would swap the phases under each other. Taken by nobody who can fault on a page of ours.
    static TURN: Mutex<()> = Mutex::new(());
    let [even, odd] = &AT_WORK;
    if even.load(Ordering::SeqCst) == 0 && odd.load(Ordering::SeqCst) == 0 {
        return;
    }
    let _turn = TURN.lock();
    for _ in 0..2 {
        let count = if PHASE.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            even
        } else {
            odd
        };
        while count.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
    }
}
