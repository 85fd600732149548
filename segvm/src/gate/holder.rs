//! What each thread holds of each gate.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
};

use super::{Closing, Gate, Kind, Label};

/// One thread's passes of one gate. Only that thread changes the counts; closers of any thread read them.
///
/// Relaxed throughout: the counts are for messages and for this thread's own questions. What orders memory is the
/// gate's word.
pub(super) struct Holder {
    gate: u64,
    thread: Box<str>,
    writes: AtomicU32,
    reads: AtomicU32,
    /// Odd while this thread is on its way into a write pass, or in one, or in several within each other; every stay has a number
    /// of its own. Set before the gate counts the pass and changed after it counted it out, so nobody is in whom this does not show.
    stay: AtomicU64,
    /// The label of the newest pass.
    label: AtomicU32,
    /// Set when the thread ends.
    gone: AtomicBool,
}

impl Holder {
    fn new(gate: u64) -> Self {
        let here = thread::current();
        let thread = here
            .name()
            .map_or_else(|| format!("{:?}", here.id()), str::to_owned);
        Self {
            gate,
            thread: thread.into(),
            writes: AtomicU32::new(0),
            reads: AtomicU32::new(0),
            stay: AtomicU64::new(0),
            label: AtomicU32::new(0),
            gone: AtomicBool::new(false),
        }
    }

    const fn count(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Write => &self.writes,
            Kind::Read => &self.reads,
        }
    }

    pub(super) fn add(&self, kind: Kind, label: Label) {
        let count = self.count(kind);
        // Not a read-modify-write: nobody else writes it.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.label.store(label.0, Ordering::Relaxed);
    }

    fn sub(&self, kind: Kind) {
        let count = self.count(kind);
        count.store(count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// Before the gate is asked for a pass.
    pub(super) fn comes(&self, kind: Kind) {
        if kind == Kind::Write && self.writes.load(Ordering::Relaxed) == 0 {
            self.next_stay();
        }
    }

    /// After the gate counted a pass out, or gave none.
    pub(super) fn went(&self, kind: Kind) {
        if kind == Kind::Write && self.writes.load(Ordering::Relaxed) == 0 {
            self.next_stay();
        }
    }

    fn next_stay(&self) {
        // Not a read-modify-write: nobody else writes it. Released: the changes of a stay come before its end. That its beginning
        // comes before the changes is the doing of the gate's word, which is added to in between.
        let stay = self.stay.load(Ordering::Relaxed) + 1;
        self.stay.store(stay, Ordering::Release);
    }

    /// Which stay this thread is in, if it is in one.
    pub(super) fn stay(&self) -> Option<u64> {
        let stay = self.stay.load(Ordering::Acquire);
        (stay % 2 == 1).then_some(stay)
    }

    /// What this thread holds that `closing` waits for.
    pub(super) fn holds(&self, closing: Closing) -> Option<Label> {
        let writes = self.writes.load(Ordering::Relaxed) != 0;
        let reads = self.reads.load(Ordering::Relaxed) != 0;
        let held = writes || (closing == Closing::Everybody && reads);
        held.then(|| Label(self.label.load(Ordering::Relaxed)))
    }

    pub(super) fn thread(&self) -> &str {
        &self.thread
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn is_gone_with_nothing(&self) -> bool {
        self.is_gone() && self.holds(Closing::Everybody).is_none()
    }
}

/// This thread's holders, one for each gate it ever entered: a handful, so a walk beats a hash.
#[derive(Default)]
struct Table(RefCell<Vec<Arc<Holder>>>);

impl Drop for Table {
    fn drop(&mut self) {
        for holder in self.0.borrow().iter() {
            holder.gone.store(true, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static TABLE: Table = Table::default();
}

/// Calls `then` with this thread's holder for `gate`.
///
/// - **Panics**: in a destructor of another thread-local, after the table is gone: a pass taken there could not be
///   told from a forgotten one.
pub(super) fn with<R>(gate: &Gate, then: impl FnOnce(&Holder) -> R) -> R {
    TABLE.with(|table| {
        if let Some(holder) = table.0.borrow().iter().find(|h| h.gate == gate.id) {
            return then(holder);
        }
        let holder = Arc::new(Holder::new(gate.id));
        gate.register(Arc::clone(&holder));
        let mut table = table.0.borrow_mut();
        // What only this table still knows belongs to gates that are gone.
        table.retain(|holder| Arc::strong_count(holder) > 1);
        table.push(Arc::clone(&holder));
        drop(table);
        then(&holder)
    })
}

/// Takes one pass off this thread's account, while `leave` gives it back to the gate.
pub(super) fn remove(gate: &Gate, kind: Kind, leave: impl FnOnce()) {
    let mut leave = Some(leave);
    // A guard that outlives the table (kept in another thread-local) is on no account any more.
    let _gone = TABLE.try_with(|table| {
        if let Some(holder) = table.0.borrow().iter().find(|h| h.gate == gate.id) {
            holder.sub(kind);
            if let Some(leave) = leave.take() {
                leave();
            }
            holder.went(kind);
        }
    });
    if let Some(leave) = leave {
        leave();
    }
}
