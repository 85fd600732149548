//! A store: one directory on this machine with packs and extent maps.
//!
//! | file | for |
//! |---|---|
//! | `error` | what can go wrong |
//! | `format` | the file that says which version and features a store has |
//! | `presence` | who uses the store: everybody together, or one alone |
//! | `packs` | which packs are open and sealed |
//! | `find`, `lookup` | which of them has an id |
//! | `copies` | all the places that have it, where one is bad |
//! | `read` | bytes by id or place, their hash checked |
//! | `adopt` | seals what a dead writer left |
//! | `along` | what a living one made durable |
//! | `extents` | the extent maps kept beside the packs |
//!
//! Opening looks at the format file only. Packs are listed and indexes read when an id is first looked for.

mod adopt;
mod along;
pub(crate) mod catalog;
mod copies;
mod error;
mod extents;
mod find;
mod format;
mod lookup;
mod packs;
mod presence;
mod read;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

pub use copies::BadCopy;
pub use error::{ReadError, StoreError};
pub(crate) use extents::EXTENTS_MAX_LEN;
pub use extents::RebuildError;
pub use presence::Alone;

use crate::{
    disk::Disk,
    id::PackId,
    pack::{PackWriter, WriterOptions},
};
use packs::Packs;
use presence::Presence;

/// One directory of packs and extent maps, shared by everything in a process that uses it.
pub struct Store {
    root: PathBuf,
    packs_dir: PathBuf,
    extents_dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Kept for its drop: who else may use the store meanwhile.
    _presence: Presence,
    /// Outermost lock of the store; never held while a file is used.
    packs: RwLock<Packs>,
    /// Packs of living writers elsewhere, as far as they were durable; a leaf lock.
    along: RwLock<Vec<Arc<along::Along>>>,
    /// Before the lists in the lock order, and only ever tried for: held while indexes are read.
    tabling: Mutex<()>,
    /// Nothing else of the store is locked while it is held.
    bad_copies: Mutex<copies::Listeners>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.root.display())
    }
}

impl Store {
    /// Opens a store, making it where it is missing.
    ///
    /// - **Cost**: one small read; nothing depends on how much is stored.
    /// - **Durable**: a store that was made is, on `Ok`.
    /// - **Errors**: [`StoreError::Future`] and [`StoreError::UnknownFeature`] for a store that a newer program made;
    ///   [`StoreError::Closed`] while somebody has it [alone](Alone).
    pub fn open(disk: Arc<dyn Disk>, root: PathBuf) -> Result<Arc<Self>, StoreError> {
        Self::open_as(disk, root, presence::share)
    }

    fn open_as(
        disk: Arc<dyn Disk>,
        root: PathBuf,
        announce: fn(&dyn Disk, &Path) -> Result<Presence, StoreError>,
    ) -> Result<Arc<Self>, StoreError> {
        let packs_dir = root.join("packs");
        let extents_dir = root.join("extents");
        format::open_or_make(&*disk, &root, &[&packs_dir, &extents_dir])?;
        let presence = announce(&*disk, &root)?;
        Ok(Arc::new(Self {
            root,
            packs_dir,
            extents_dir,
            disk,
            _presence: presence,
            packs: RwLock::new(Packs::default()),
            along: RwLock::default(),
            tabling: Mutex::new(()),
            bad_copies: Mutex::default(),
        }))
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file system that the store is on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Makes a writer of a new pack; nothing happens on disk before something is put.
    #[must_use]
    pub fn writer(self: &Arc<Self>, options: WriterOptions) -> PackWriter {
        PackWriter::new(self.clone(), options)
    }

    /// The directory that the packs are in.
    #[must_use]
    pub fn packs_dir(&self) -> &Path {
        &self.packs_dir
    }

    pub(crate) fn extents_dir(&self) -> &Path {
        &self.extents_dir
    }

    /// Where a pack lies.
    #[must_use]
    pub fn pack_path(&self, id: PackId) -> PathBuf {
        self.packs_dir.join(format!("{id}.pack"))
    }
}
