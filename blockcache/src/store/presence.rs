//! Who uses a store: everybody together, or one alone.
//!
//! Whoever opens a store holds a share of the lock `in-use` in it, as long as anything of the store is in use: it may be
//! about to name packs, or to map them. Whoever deletes holds the lock alone. It dies with its process, so that nothing
//! is ever left to be cleaned up.

use std::{io, path::Path, sync::Arc};

use super::{Store, StoreError};
use crate::disk::{Disk, Lock, LockAttempt};

const NAME: &str = "in-use";

/// A lock that is held; none on a file system without one that nobody can write to, where nobody deletes either.
pub(super) type Presence = Option<Box<dyn Lock>>;

/// Announces a user beside others.
pub(super) fn share(disk: &dyn Disk, root: &Path) -> Result<Presence, StoreError> {
    let path = root.join(NAME);
    match disk.try_share(&path) {
        Ok(LockAttempt::Held(lock)) => Ok(Some(lock)),
        Ok(LockAttempt::Refused(holder)) => Err(StoreError::Closed {
            root: root.to_owned(),
            pid: holder.pid,
        }),
        Err(error) if cannot_be_written(&error) => Ok(None),
        Err(source) => Err(StoreError::io("lock", path, source)),
    }
}

/// The file is missing and cannot be made: after a store was copied to where nobody writes.
fn cannot_be_written(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
    )
}

fn alone(disk: &dyn Disk, root: &Path) -> Result<Presence, StoreError> {
    let path = root.join(NAME);
    match disk.try_lock(&path) {
        Ok(LockAttempt::Held(lock)) => Ok(Some(lock)),
        Ok(LockAttempt::Refused(holder)) => Err(StoreError::InUse {
            root: root.to_owned(),
            pid: holder.pid,
        }),
        Err(source) => Err(StoreError::io("lock", path, source)),
    }
}

/// A store that nobody else uses, in this process or in another, until this value is dropped.
///
/// Take it first, then read what refers to the store: what is read then stays true.
#[derive(Debug)]
pub struct Alone {
    store: Arc<Store>,
}

impl Alone {
    /// Opens a store and keeps everybody else out.
    ///
    /// - **Errors**: [`StoreError::InUse`] names one who is in.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, StoreError> {
        let store = Store::open_as(disk, root.to_owned(), alone)?;
        Ok(Self { store })
    }

    /// The store. Whoever keeps it keeps everybody else out as well.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
