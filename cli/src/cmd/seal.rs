//! Before another image, or another commit, may rely on what a commit names: all of it is in packs that are sealed,
//! durably.

use std::sync::Arc;

use segvm_blockcache::{Store, StoreError};
use segvm_home::{ImageName, Record, WriterLease};

use crate::{
    failure::Failure,
    local::{Local, marks_of},
};

/// Seals the packs that an image's newest commit relies on. Its lease says that whoever wrote them is gone.
pub(super) fn as_holder(store: &Store, lease: &WriterLease) -> Result<(), Failure> {
    let Some(head) = lease.head() else {
        return Ok(());
    };
    for mark in marks_of(lease.image(), head)? {
        if let Some(&pid) = lease.fenced_alive().first()
            && !store.has_sealed(mark.pack)
        {
            // It was stolen from and does not know yet: it may still write behind its mark.
            return Err(Failure::Unsealed {
                image: lease.image().clone(),
                pack: mark.pack,
                pid,
            });
        }
        store.adopt(mark)?;
    }
    Ok(store.settle()?)
}

/// Passes where all that a commit relies on is sealed, whoever has its image. A record marks every pack that was not
/// when it was made.
pub(super) fn check(
    store: &Store,
    image: &ImageName,
    record: &Record,
    pid: u32,
) -> Result<(), Failure> {
    for mark in marks_of(image, record)? {
        match store.rely_on(mark.pack) {
            // It was sealed once, and a collection wrote elsewhere what is needed of it.
            Ok(()) | Err(StoreError::Missing { .. }) => {}
            Err(StoreError::NotSealed { pack }) => {
                return Err(Failure::Unsealed {
                    image: image.clone(),
                    pack,
                    pid,
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Whoever sealed them may have died before the sync.
    Ok(store.settle()?)
}

/// Makes it so by taking the image's lease for a moment, where nobody has it; else passes only if it is so already.
pub(super) fn of(
    local: &Local,
    store: &Arc<Store>,
    image: &ImageName,
    record: &Record,
) -> Result<(), Failure> {
    let pid = match local.home.acquire(image, local.holder()) {
        Ok(lease) => {
            as_holder(store, &lease)?;
            0
        }
        Err(segvm_home::AcquireError::Held { pid, .. }) => pid,
        Err(error) => return Err(error.into()),
    };
    check(store, image, record, pid)
}
