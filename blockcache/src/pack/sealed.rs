//! A sealed pack: looked into, read, and given out to be mapped.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use parking_lot::RwLock;
use segvm_os::FileMap;

use super::{
    format::{
        Entry, FANOUT_LEN, Flaw, Kind, PAGE, SEAL_AT, Seal, check_pack_header, len64, zeroed,
    },
    index::{self, Index},
    walk::{WalkError, walk},
};
use crate::{
    disk::{Disk, DiskFile, Open},
    id::PackId,
    unit::Place,
};

/// Why a pack could not be opened or looked into.
#[derive(Debug)]
pub(crate) enum SealedError {
    /// It has no seal yet.
    NotSealed,
    /// Something is wrong with the bytes at `offset`.
    Damaged { offset: u64, flaw: Flaw },
    /// The file system failed at `offset`.
    Io { offset: u64, source: io::Error },
}

impl From<WalkError> for SealedError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Damaged { offset, flaw } => Self::Damaged { offset, flaw },
            WalkError::Io { offset, source } => Self::Io { offset, source },
        }
    }
}

/// Where the bytes of an index are.
pub(crate) enum Bytes {
    /// In the file, which is mapped as a whole; the index begins at the offset.
    Mapped(FileMap, usize),
    /// In memory: made again, or from a disk that has nothing to map.
    Read(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map, from) => map.get(*from..).unwrap_or_default(),
            Self::Read(bytes) => bytes,
        }
    }
}

/// An index up to this length is read instead of mapped: a store may have more packs than a process may have maps.
const SMALL_INDEX: u64 = 256 << 10;

/// A pack that never changes again. It holds no open file: a store may have more packs than a process may open.
pub(crate) struct SealedPack {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    seal: Seal,
    /// Whether its seal is durable, or on the list of those that are made so before the next record. Says nothing of other
    /// memory.
    pub(crate) is_relied_on: AtomicBool,
    /// Read when first needed. After the store's lists in the lock order; not held while reading.
    index: RwLock<Option<Arc<Index<Bytes>>>>,
}

impl fmt::Debug for SealedPack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedPack({}, {:?})", self.id, self.seal)
    }
}

impl SealedPack {
    /// Opens a pack and checks that it is whole.
    ///
    /// - **Cost**: one open, one read of two pages, one look at the length; nothing depends on the pack's size.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        id: PackId,
    ) -> Result<(Self, Arc<dyn DiskFile>), SealedError> {
        let io = |source| SealedError::Io { offset: 0, source };
        let file = disk.open(path, Open::Read).map_err(io)?;
        let mut pages = [0; 2 * PAGE];
        file.read_at(0, &mut pages)
            .map_err(|source| match source.kind() {
                // Its writer had not come to its first sync.
                io::ErrorKind::UnexpectedEof => SealedError::NotSealed,
                _ => io(source),
            })?;
        let (header, seal) = pages.split_at(PAGE);
        let at = |offset| move |flaw| SealedError::Damaged { offset, flaw };
        let page = |bytes: &[u8]| <[u8; PAGE]>::try_from(bytes).unwrap_or([0; PAGE]);
        let Some(seal) = Seal::decode(&page(seal), id).map_err(at(SEAL_AT))? else {
            return Err(SealedError::NotSealed);
        };
        check_pack_header(&page(header), id).map_err(at(0))?;
        let len = file.len().map_err(io)?;
        // The index may be short: see `seal`. The batches may not.
        if len < seal.batches_end {
            return Err(at(len)("the file was cut short after it was sealed"));
        }
        let pack = Self {
            id,
            path: path.to_owned(),
            seal,
            is_relied_on: AtomicBool::new(false),
            index: RwLock::new(None),
        };
        Ok((pack, file))
    }

    /// How many entries its index has.
    pub(crate) fn entries(&self) -> u64 {
        self.seal.entries
    }

    /// Visits the id of every entry. The index is read for this alone.
    pub(crate) fn each_id(
        &self,
        disk: &dyn Disk,
        visit: &mut dyn FnMut(&[u8; 32]),
    ) -> Result<(), SealedError> {
        let index = self.whole_index(&*self.file(disk)?)?;
        for first in 0..=255 {
            let (_, entries) = index.bucket(first).map_err(|flaw| SealedError::Damaged {
                offset: self.seal.batches_end,
                flaw,
            })?;
            entries.iter().for_each(|entry| visit(entry.id()));
        }
        Ok(())
    }

    /// The index, from the disk where all of it is whole, else made again.
    pub(crate) fn whole_index(&self, file: &dyn DiskFile) -> Result<Index<Bytes>, SealedError> {
        match load_index(file, &self.seal) {
            Ok(index) if index.check_all().is_ok() => Ok(index),
            Ok(_) | Err(SealedError::Damaged { .. }) => self.rebuild(file),
            Err(other) => Err(other),
        }
    }

    /// Where the batches end: a mark of this pack is not behind it.
    pub(crate) fn batches_end(&self) -> u64 {
        self.seal.batches_end
    }

    /// Finds a block or node.
    ///
    /// An index that is damaged, or that a power cut tore, is made again in memory from the directories.
    ///
    /// - **Errors**: where those are damaged too.
    pub(crate) fn find(
        &self,
        disk: &dyn Disk,
        kind: Kind,
        id: &[u8; 32],
    ) -> Result<Option<Place>, SealedError> {
        let loaded = self.index.read().clone();
        let index = match loaded {
            Some(index) => index,
            None => {
                let file = self.file(disk)?;
                self.keep(match load_index(&*file, &self.seal) {
                    Err(SealedError::Damaged { .. }) => self.rebuild(&*file)?,
                    other => other?,
                })
            }
        };
        let found = match index.find(kind, id) {
            Ok(found) => found,
            Err(_flaw) => self
                .keep(self.rebuild(&*self.file(disk)?)?)
                .find(kind, id)
                .map_err(|flaw| SealedError::Damaged {
                    offset: self.seal.batches_end,
                    flaw,
                })?,
        };
        Ok(found.map(|entry| entry.place(self.id)))
    }

    /// Opens the file once more.
    pub(crate) fn file(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, SealedError> {
        disk.open(&self.path, Open::Read)
            .map_err(|source| SealedError::Io { offset: 0, source })
    }

    fn keep(&self, index: Index<Bytes>) -> Arc<Index<Bytes>> {
        let index = Arc::new(index);
        *self.index.write() = Some(index.clone());
        index
    }

    fn rebuild(&self, file: &dyn DiskFile) -> Result<Index<Bytes>, SealedError> {
        let end = self.seal.batches_end;
        let walked = walk(file.as_mappable(), self.id, end)?;
        index_of(&walked.entries, end).map_err(|flaw| SealedError::Damaged { offset: end, flaw })
    }

    /// Tells whether a place can be one of this pack.
    pub(crate) fn covers(&self, place: &Place) -> bool {
        let end = place.offset.checked_add(u64::from(place.stored));
        end.is_some_and(|end| end <= self.seal.batches_end) && place.offset >= len64(2 * PAGE)
    }
}

/// The index that a seal speaks of: its fan-out table checked, the rest as it is looked into.
pub(crate) fn load_index(file: &dyn DiskFile, seal: &Seal) -> Result<Index<Bytes>, SealedError> {
    let offset = seal.batches_end;
    let damaged = |flaw| SealedError::Damaged { offset, flaw };
    let open = |bytes| Index::open(bytes, seal.entries, seal.fanout_crc, offset);
    let len = seal.file_len() - offset;
    if let Some(map) = map(file).filter(|_| len > SMALL_INDEX) {
        let from = usize::try_from(offset).map_err(|_wide| damaged("the pack is too long"))?;
        return open(Bytes::Mapped(map, from)).map_err(damaged);
    }
    // Bounded by the seal's own checks, and by what memory there is.
    let bytes = usize::try_from(len).ok().and_then(zeroed);
    let mut bytes = bytes.ok_or_else(|| damaged("the index does not fit into memory"))?;
    file.read_at(offset, &mut bytes)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => damaged("the index is cut short"),
            _ => SealedError::Io { offset, source },
        })?;
    open(Bytes::Read(bytes)).map_err(damaged)
}

/// The index of entries that were found in a pack's directories, for lack of one on disk.
pub(crate) fn index_of(entries: &[Entry], batches_end: u64) -> Result<Index<Bytes>, Flaw> {
    let built = index::build(entries);
    Index::open(
        Bytes::Read(built.bytes),
        built.entries,
        built.fanout_crc,
        batches_end,
    )
}

/// The index of a pack in which nothing can be found.
pub(crate) fn no_index() -> Index<Bytes> {
    Index::of_nothing(Bytes::Read(vec![0; FANOUT_LEN]))
}

/// The file as memory, where there is one: a long index is looked into here and there, not read as a whole.
fn map(file: &dyn DiskFile) -> Option<FileMap> {
    let fd = file.fd()?.try_clone_to_owned().ok()?;
    FileMap::of_sealed(&fd.into()).ok()
}
