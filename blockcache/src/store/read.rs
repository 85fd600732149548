//! Bytes by id or by place. Every read that copies checks the hash.

use std::{io, path::PathBuf, sync::Arc};

use super::{ReadError, Store, StoreError};
use crate::{
    disk::DiskFile,
    id::{BlockId, NodeId},
    pack::{
        format::{Kind, MAX_NODE, len64, zeroed},
        io::Readable,
    },
    tree::{NodeReadError, NodeSource},
    unit::Place,
};

/// A file that has a place, and the path to name in an error.
struct Found {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
}

enum NotFound {
    Unwritten(PathBuf),
    Failed(PathBuf, io::Error),
    Outside(PathBuf),
    Store(StoreError),
}

impl Store {
    /// Reads a block and checks that its bytes are what the id names.
    ///
    /// - **Shape**: `out` is as long as the block.
    /// - **Errors**: [`ReadError::Absent`] where this store does not have it.
    pub fn read_block(&self, id: &BlockId, out: &mut [u8]) -> Result<(), ReadError> {
        let place = self
            .find(Kind::Block, id.as_bytes())
            .map_err(|source| ReadError::Store { id: *id, source })?
            .ok_or(ReadError::Absent { id: *id })?;
        self.read_place(id, place, out)
    }

    /// Reads a block whose place is known and checks that its bytes are what the id names.
    ///
    /// A block that is on its way to the file is waited for.
    ///
    /// - **Errors**: [`ReadError::Unwritten`] for a block that its writer neither flushed nor synced.
    pub fn read_place(&self, id: &BlockId, place: Place, out: &mut [u8]) -> Result<(), ReadError> {
        let (id, offset) = (*id, place.offset);
        if len64(out.len()) != u64::from(place.stored) {
            return Err(ReadError::Length {
                id,
                stored: u64::from(place.stored),
                wanted: len64(out.len()),
            });
        }
        let Found { file, path } = self.file_of(&place).map_err(|why| match why {
            NotFound::Unwritten(path) => ReadError::Unwritten { id, path, offset },
            NotFound::Failed(path, source) => ReadError::Io {
                path,
                offset,
                source,
            },
            NotFound::Outside(path) => ReadError::Damaged { id, path, offset },
            NotFound::Store(source) => ReadError::Store { id, source },
        })?;
        match file.read_at(offset, out) {
            Ok(()) if BlockId::of(out) == id => Ok(()),
            Ok(()) => Err(ReadError::Damaged { id, path, offset }),
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ReadError::Damaged { id, path, offset })
            }
            Err(source) => Err(ReadError::Io {
                path,
                offset,
                source,
            }),
        }
    }

    fn file_of(&self, place: &Place) -> Result<Found, NotFound> {
        if let Some(open) = self.open_pack(place.pack) {
            let path = open.output.path.clone();
            return match open.wait(place) {
                Readable::Yes => Ok(Found {
                    file: open.output.file.clone(),
                    path,
                }),
                Readable::NotYet => Err(NotFound::Unwritten(path)),
                Readable::Failed(failure) => Err(NotFound::Failed(path, failure.source())),
            };
        }
        if let Some(along) = self.along_of(place) {
            return Ok(Found {
                file: along.file.clone(),
                path: along.path.clone(),
            });
        }
        let pack = self.sealed_pack(place.pack).map_err(NotFound::Store)?;
        let path = pack.path.clone();
        if !pack.covers(place) {
            return Err(NotFound::Outside(path));
        }
        let file = self.sealed_file(place.pack).map_err(NotFound::Store)?;
        Ok(Found { file, path })
    }

    fn read_node(&self, id: NodeId, place: Place) -> Result<Vec<u8>, NodeReadError> {
        let damaged = |path, flaw| NodeReadError::Damaged {
            id,
            source: Box::new(StoreError::Damaged {
                path,
                offset: place.offset,
                flaw,
            }),
        };
        let io = |path, source| NodeReadError::Io {
            id,
            source: Box::new(StoreError::Io {
                op: "read",
                path,
                offset: place.offset,
                source,
            }),
        };
        let Found { file, path } = self.file_of(&place).map_err(|why| match why {
            NotFound::Unwritten(path) => damaged(path, "a durable node is not written"),
            NotFound::Failed(path, source) => io(path, source),
            NotFound::Outside(path) => damaged(path, "the node lies behind the batches"),
            NotFound::Store(source) => wrap(id, source),
        })?;
        // Bounded by the entry's check; asked again because this is where memory is taken.
        let len = place.stored.min(MAX_NODE) as usize;
        let mut bytes =
            zeroed(len).ok_or_else(|| io(path.clone(), io::ErrorKind::OutOfMemory.into()))?;
        match file.read_at(place.offset, &mut bytes) {
            Ok(()) if NodeId::of(&bytes) == id => Ok(bytes),
            Ok(()) => Err(damaged(path, "a node's bytes do not have its hash")),
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged(path, "the file ends before the node"))
            }
            Err(source) => Err(io(path, source)),
        }
    }
}

fn wrap(id: NodeId, source: StoreError) -> NodeReadError {
    let damaged = matches!(
        source,
        StoreError::Damaged { .. } | StoreError::Missing { .. }
    );
    let source = Box::new(source);
    if damaged {
        NodeReadError::Damaged { id, source }
    } else {
        NodeReadError::Io { id, source }
    }
}

impl NodeSource for Store {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        match self.find(Kind::Node, id.as_bytes()) {
            Ok(Some(place)) => self.read_node(id, place),
            Ok(None) => Err(NodeReadError::Absent { id }),
            Err(source) => Err(wrap(id, source)),
        }
    }
}
