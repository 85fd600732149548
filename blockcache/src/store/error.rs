//! What can go wrong with a store.

use std::{io, path::PathBuf};

use crate::{
    id::{BlockId, PackId},
    pack::sealed::SealedError,
};

/// Why a store, or something in it, could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A newer program made the store.
    #[error(
        "the store {} has format version {version}, this program knows {known}: use a newer program",
        root.display()
    )]
    Future {
        /// The store.
        root: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// The store needs something that this program lacks.
    #[error(
        "the store {} uses {feature:?}, which this program does not know: use a newer program",
        root.display()
    )]
    UnknownFeature {
        /// The store.
        root: PathBuf,
        /// The feature's name.
        feature: String,
    },
    /// Somebody works on the store as a whole, and nobody else may use it meanwhile.
    #[error(
        "the store {} is being cleaned up by process {pid}: try again when it has ended",
        root.display()
    )]
    Closed {
        /// The store.
        root: PathBuf,
        /// The process; 0 where it is not one of this machine.
        pid: u32,
    },
    /// Somebody uses a store that was wanted alone.
    #[error(
        "the store {} is in use by process {pid}: end what it does there first",
        root.display()
    )]
    InUse {
        /// The store.
        root: PathBuf,
        /// One of the processes, this one included; 0 where it is not one of this machine.
        pid: u32,
    },
    /// Bytes of the store are not what they must be.
    #[error("{} is damaged at offset {offset}: {flaw}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        flaw: &'static str,
    },
    /// A pack that is known to be part of the store is not there.
    #[error("the pack {} is missing", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A pack has no seal, so that it can be neither mapped nor shared.
    #[error("the pack {pack} is not sealed")]
    NotSealed {
        /// The pack.
        pack: PackId,
    },
    /// Something is in several packs, and none of them gives it.
    #[error("no copy is good: {}", all(copies))]
    EveryCopy {
        /// What is wrong with each.
        copies: Vec<StoreError>,
    },
    /// A file operation failed.
    #[error("{op} at offset {offset} of {} failed: {source}", path.display())]
    Io {
        /// The operation.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Where in the file; 0 where that means nothing.
        offset: u64,
        /// The kernel's word.
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.into(),
            offset: 0,
            source,
        }
    }

    pub(crate) fn sealed(error: SealedError, pack: PackId, path: PathBuf) -> Self {
        match error {
            SealedError::NotSealed => Self::NotSealed { pack },
            SealedError::Damaged { offset, flaw } => Self::Damaged { path, offset, flaw },
            SealedError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::Missing { path }
            }
            SealedError::Io { offset, source } => Self::Io {
                op: "read",
                path,
                offset,
                source,
            },
        }
    }
}

/// Why a block could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The block is known by id but is not in this store: it has to be fetched, nothing is broken.
    #[error("block {id:.12} is not in this store")]
    Absent {
        /// The block.
        id: BlockId,
    },
    /// Bytes are there, and they are not what the id names.
    #[error("block {id:.12} is damaged, at offset {offset} of {}", path.display())]
    Damaged {
        /// The block.
        id: BlockId,
        /// The pack.
        path: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// The block has another length than the buffer it was to be read into.
    #[error("block {id:.12} has {stored} bytes, and {wanted} were asked for")]
    Length {
        /// The block.
        id: BlockId,
        /// Its length.
        stored: u64,
        /// The buffer's length.
        wanted: u64,
    },
    /// The block is still in its writer's buffer: `PackWriter::flush` comes first.
    #[error("block {id:.12} is not written yet, at offset {offset} of {}", path.display())]
    Unwritten {
        /// The block.
        id: BlockId,
        /// The pack.
        path: PathBuf,
        /// Where in it the block will be.
        offset: u64,
    },
    /// The bytes could not be read.
    #[error("reading at offset {offset} of {} failed: {source}", path.display())]
    Io {
        /// The pack.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The kernel's word.
        source: io::Error,
    },
    /// The block is in several packs, and none of them gives it.
    #[error("no copy of block {id:.12} is good: {}", all(copies))]
    EveryCopy {
        /// The block.
        id: BlockId,
        /// What is wrong with each.
        copies: Vec<ReadError>,
    },
    /// The pack that has the block, or may have it, cannot be used.
    #[error("block {id:.12} could not be looked for")]
    Store {
        /// The block.
        id: BlockId,
        /// What is wrong with the pack.
        source: StoreError,
    },
}

fn all<T: ToString>(copies: &[T]) -> String {
    let said: Vec<String> = copies.iter().map(T::to_string).collect();
    said.join("; ")
}
