//! Bytes by id or by place. Every read that copies checks the hash.

use std::{io, path::PathBuf, sync::Arc};

use super::{ReadError, Store, StoreError, copies::Asked};
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
    /// Reads a block and checks that its bytes are what the id names. Where a copy is bad, the others are tried, and
    /// [`on_bad_copy`](Self::on_bad_copy) is told.
    ///
    /// - **Shape**: `out` is as long as the block.
    /// - **Errors**: [`ReadError::Absent`] where this store does not have it; [`ReadError::EveryCopy`] names all that are bad.
    pub fn read_block(&self, id: &BlockId, out: &mut [u8]) -> Result<(), ReadError> {
        let attempt = |place| self.read_place(id, place, out);
        let (id, bad, closed) = match self.ask_all(Kind::Block, id.as_bytes(), attempt) {
            Asked::Good((), bad) => {
                for (place, why) in bad {
                    self.tell(&place, why);
                }
                return Ok(());
            }
            Asked::None(bad, closed) => (*id, bad, closed),
        };
        let closed = closed.map(|source| ReadError::Store { id, source });
        let mut copies: Vec<ReadError> = bad.into_iter().chain(closed).collect();
        // The buffer is what is wrong, not the copies.
        let length = |error: &ReadError| matches!(error, ReadError::Length { .. });
        if let Some(at) = copies.iter().position(length) {
            return Err(copies.swap_remove(at));
        }
        match (copies.pop(), copies.is_empty()) {
            (None, _) => Err(ReadError::Absent { id }),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                copies.push(last);
                Err(ReadError::EveryCopy { id, copies })
            }
        }
    }

    /// Reads a block from where it is known to lie, and from anywhere else if that copy is bad.
    ///
    /// - **Errors**: as [`read_place`](Self::read_place) where there is no other copy, else as [`read_block`](Self::read_block).
    pub fn read_best(&self, id: &BlockId, place: Place, out: &mut [u8]) -> Result<(), ReadError> {
        let bad = match self.read_place(id, place, out) {
            Err(
                bad @ (ReadError::Damaged { .. } | ReadError::Io { .. } | ReadError::Store { .. }),
            ) => bad,
            other => return other,
        };
        match self.read_block(id, out) {
            Ok(()) => {
                self.tell(&place, bad);
                Ok(())
            }
            Err(ReadError::Absent { .. }) => Err(bad),
            Err(other) => Err(other),
        }
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

    fn read_node(&self, id: NodeId, place: Place) -> Result<Vec<u8>, StoreError> {
        let offset = place.offset;
        let damaged = |path, flaw| StoreError::Damaged { path, offset, flaw };
        let io = |path, source| StoreError::Io {
            op: "read",
            path,
            offset,
            source,
        };
        let Found { file, path } = self.file_of(&place).map_err(|why| match why {
            NotFound::Unwritten(path) => damaged(path, "a durable node is not written"),
            NotFound::Failed(path, source) => io(path, source),
            NotFound::Outside(path) => damaged(path, "the node lies behind the batches"),
            NotFound::Store(source) => source,
        })?;
        // Bounded by the entry's check; asked again because this is where memory is taken.
        let len = place.stored.min(MAX_NODE) as usize;
        let mut bytes =
            zeroed(len).ok_or_else(|| io(path.clone(), io::ErrorKind::OutOfMemory.into()))?;
        match file.read_at(offset, &mut bytes) {
            Ok(()) if NodeId::of(&bytes) == id => Ok(bytes),
            Ok(()) => Err(damaged(path, "a node's bytes do not have its hash")),
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged(path, "the file ends before the node"))
            }
            Err(source) => Err(io(path, source)),
        }
    }
}

impl NodeSource for Store {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        let attempt = |place| self.read_node(id, place);
        let (bad, closed) = match self.ask_all(Kind::Node, id.as_bytes(), attempt) {
            Asked::Good(bytes, bad) => {
                for (place, why) in bad {
                    self.tell(&place, why);
                }
                return Ok(bytes);
            }
            Asked::None(bad, closed) => (bad, closed),
        };
        let mut copies: Vec<StoreError> = bad.into_iter().chain(closed).collect();
        let damaged = |error: &StoreError| {
            matches!(
                error,
                StoreError::Damaged { .. } | StoreError::Missing { .. }
            )
        };
        let is_damaged = copies.iter().any(damaged);
        let source = match (copies.pop(), copies.is_empty()) {
            (None, _) => return Err(NodeReadError::Absent { id }),
            (Some(only), true) => only,
            (Some(last), false) => {
                copies.push(last);
                StoreError::EveryCopy { copies }
            }
        };
        let source = Box::new(source);
        Err(if is_damaged {
            NodeReadError::Damaged { id, source }
        } else {
            NodeReadError::Io { id, source }
        })
    }
}
