use std::{
    cell::RefCell,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::{RecursiveRwLockReadGuard, RecursiveRwLockWriteGuard};

use super::{
    GuardError,
    shared::{HeapShared, State},
};
use crate::{
    gate::{GateError, Kind, Pass},
    persist::{Persist, Plain},
};

thread_local! {
    /// The roots that this thread reads, once for each guard.
    static READING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// A number that no other thread of this process has or had; never 0.
fn this_thread() -> u64 {
    THREAD.with(|id| *id)
}

/// Enters the gate for a root, and finds its value there.
fn enter<'r, T: Persist>(
    shared: &'r HeapShared,
    state: &State,
    kind: Kind,
) -> Result<(Pass<'r>, NonNull<T>), GuardError> {
    let (root, image) = (|| state.shared_name(), || shared.image());
    let pass = match shared.gate().enter(kind, state.label) {
        Ok(pass) => pass,
        Err(GateError::Forked) => {
            return Err(GuardError::Forked {
                root: root(),
                image: image(),
            });
        }
        Err(_shut) => {
            return Err(GuardError::Closed {
                root: root(),
                image: image(),
            });
        }
    };
    // Within the pass nobody replaces the memory.
    let place = state.place().ok_or_else(|| GuardError::WrongType {
        root: root(),
        image: image(),
    })?;
    Ok((pass, place.cast()))
}

/// A root's value, to read. Other threads may read it too.
///
/// It belongs to its thread, and keeps suspend and restore waiting, but not checkpoints.
#[must_use]
pub struct ReadGuard<'r, T: Persist> {
    place: NonNull<T>,
    state: &'r State,
    // In this order: the root's lock is given back before the pass.
    _lock: RecursiveRwLockReadGuard<'r, ()>,
    _pass: Pass<'r>,
}

impl<'r, T: Persist> ReadGuard<'r, T> {
    pub(super) fn new(shared: &'r HeapShared, state: &'r State) -> Result<Self, GuardError> {
        if state.writer.load(Ordering::Relaxed) == this_thread() {
            return Err(GuardError::HeldHere {
                root: state.shared_name(),
            });
        }
        let (pass, place) = enter(shared, state, Kind::Read)?;
        // Recursive: a second guard on this thread must not wait for a writer that waits for the first.
        let lock = state.lock.read();
        READING.with_borrow_mut(|reading| reading.push(state.id));
        Ok(Self {
            place,
            state,
            _lock: lock,
            _pass: pass,
        })
    }
}

impl<T: Persist> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // Where the table is gone, the thread ends and asks no more.
        let _gone = READING.try_with(|reading| {
            let mut reading = reading.borrow_mut();
            if let Some(at) = reading.iter().rposition(|id| *id == self.state.id) {
                reading.swap_remove(at);
            }
        });
    }
}

impl<T: Persist> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the directory says that a T lies there (its fingerprint was compared); the pass keeps it there, and the
        // lock keeps writers away.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A root's value, to change. Nobody else reaches it meanwhile.
///
/// It belongs to its thread and keeps checkpoints waiting: hold it for one change. A panic while it is held poisons the
/// session, because the change may be half made.
#[must_use]
pub struct WriteGuard<'r, T: Persist> {
    place: NonNull<T>,
    state: &'r State,
    shared: &'r HeapShared,
    own: PhantomData<&'r mut T>,
    // In this order: the root's lock is given back before the pass.
    _lock: RecursiveRwLockWriteGuard<'r, ()>,
    _pass: Pass<'r>,
}

impl<'r, T: Persist> WriteGuard<'r, T> {
    pub(super) fn new(shared: &'r HeapShared, state: &'r State) -> Result<Self, GuardError> {
        let here = this_thread();
        let reads = READING.with_borrow(|reading| reading.contains(&state.id));
        if reads || state.writer.load(Ordering::Relaxed) == here {
            return Err(GuardError::HeldHere {
                root: state.shared_name(),
            });
        }
        let (pass, place) = enter(shared, state, Kind::Write)?;
        let lock = state.lock.write();
        // Relaxed: only this thread asks for its own number, and only this thread writes it.
        state.writer.store(here, Ordering::Relaxed);
        Ok(Self {
            place,
            state,
            shared,
            own: PhantomData,
            _lock: lock,
            _pass: pass,
        })
    }

    /// The value's parts, each as what changes it: `&mut` for plain data, a handle for a collection.
    pub fn as_mut(&mut self) -> T::Mut<'_> {
        // SAFETY: the directory says that a T lies there; the pass keeps it there, the lock makes it this guard's alone, and
        // the guard is borrowed for as long as the projection lives.
        unsafe { T::project(self.place, self.shared.heap()) }
    }
}

impl<T: Persist> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        self.state.writer.store(0, Ordering::Relaxed);
    }
}

impl<T: Persist> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as for `as_mut`; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Plain> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `as_mut`; a plain value owns nothing that could be carried out.
        unsafe { self.place.as_mut() }
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Persist + fmt::Display> fmt::Display for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: Persist + fmt::Display> fmt::Display for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}
