//! Typed values in a heap, found by name: where a program begins to read its state after a resume.
//!
//! | file | what |
//! |---|---|
//! | `shared` | what all roots of one heap share, and the table of those that are open |
//! | `guard` | reading and writing, one thread at a time |
//! | `mismatch` | what differs where a root is of another type |
//! | `error` | [`RootError`], [`GuardError`] |

mod error;
mod guard;
mod mismatch;
mod shared;

#[cfg(test)]
mod tests;

use std::{fmt, marker::PhantomData, sync::Arc};

use self::shared::State;
pub(crate) use self::shared::Wanted;
pub use self::{
    error::{GuardError, RootError},
    guard::{ReadGuard, WriteGuard},
    mismatch::Mismatch,
    shared::HeapShared,
};
use crate::persist::Persist;

/// A typed value in a heap, found by name.
///
/// A cheap handle: clone it, send it to other threads. It does not keep the session open; once that has ended, its
/// guards are refused.
pub struct Root<T: Persist> {
    shared: Arc<HeapShared>,
    state: Arc<State>,
    of: PhantomData<fn() -> T>,
}

impl<T: Persist> Root<T> {
    /// The name it is found by.
    #[must_use]
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// Gives the value to read, together with other readers.
    ///
    /// - **Blocks**: while another thread writes this root, and while a suspend or restore is under way.
    /// - **Panics**: with [`GuardError`]'s text where [`Root::try_read`] fails.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.try_read().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Gives the value to change, to this thread alone.
    ///
    /// - **Blocks**: while another thread reads or writes this root, and while a checkpoint copies its residue.
    /// - **Panics**: with [`GuardError`]'s text where [`Root::try_write`] fails.
    pub fn write(&self) -> WriteGuard<'_, T> {
        self.try_write().unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Root::read`], but says why not.
    ///
    /// - **Errors**: [`GuardError::HeldHere`] where this thread writes this root, [`GuardError::Closed`] after the
    ///   session, [`GuardError::Forked`] in a child process, [`GuardError::WrongType`] after a restore to a time when
    ///   the root was of another type.
    pub fn try_read(&self) -> Result<ReadGuard<'_, T>, GuardError> {
        ReadGuard::new(&self.shared, &self.state)
    }

    /// As [`Root::write`], but says why not.
    ///
    /// - **Errors**: as [`Root::try_read`]; [`GuardError::HeldHere`] where this thread reads this root, too.
    pub fn try_write(&self) -> Result<WriteGuard<'_, T>, GuardError> {
        WriteGuard::new(&self.shared, &self.state)
    }
}

impl<T: Persist> Clone for Root<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            state: Arc::clone(&self.state),
            of: PhantomData,
        }
    }
}

impl<T: Persist> fmt::Debug for Root<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({:?})", self.name())
    }
}
