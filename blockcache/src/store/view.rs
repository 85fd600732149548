//! Reading a store without a lease: beside the sealed packs, those that are not sealed yet, up to their marks.
//!
//! Whoever holds a lease adopts what a dead writer left. Who only looks must not: the writer may live. What a mark covers is durable and
//! does not change any more, so it can be read as it is.

use std::{collections::HashMap, io, path::PathBuf, sync::Arc};

use super::{ReadError, Store, StoreError};
use crate::{
    disk::{DiskFile, Open},
    id::{BlockId, NodeId, PackId},
    pack::{
        PackMark,
        format::{Entry, Kind, MAX_NODE, len64, zeroed},
        index::Index,
        sealed::{Bytes, SealedError, index_of},
        walk::walk,
    },
    tree::{NodeReadError, NodeSource},
};

/// A store, and the packs that some marks speak of, read up to there.
pub struct View {
    store: Arc<Store>,
    marked: Vec<Marked>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({:?}, {} marked)", self.store, self.marked.len())
    }
}

/// A pack that is not sealed, up to its mark.
struct Marked {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    index: Index<Bytes>,
}

impl View {
    /// Looks at a store, and into what `marks` speak of. The same pack may be marked more than once.
    ///
    /// - **Cost**: two small reads for each batch of a pack that is not sealed; 48 bytes of memory for each block in it.
    /// - **Errors**: [`StoreError::Damaged`] where a batch before a mark is not whole. A pack that is sealed meanwhile, or
    ///   that a collection removed, is fine.
    pub fn open(store: Arc<Store>, marks: &[PackMark]) -> Result<Self, StoreError> {
        let mut ends: HashMap<PackId, u64> = HashMap::new();
        for mark in marks {
            let end = ends.entry(mark.pack).or_default();
            *end = mark.len.max(*end);
        }
        let mut marked = Vec::new();
        for (pack, end) in ends {
            // Whatever else is wrong with it, the read that needs it says.
            if let Err(StoreError::NotSealed { .. }) = store.sealed_pack(pack) {
                marked.push(look(&store, pack, end)?);
            }
        }
        Ok(Self { store, marked })
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Reads a block and checks that its bytes are what the id names.
    ///
    /// - **Shape**: `out` is as long as the block.
    /// - **Errors**: [`ReadError::Absent`] where neither the store nor a marked pack has it.
    pub fn read_block(&self, id: &BlockId, out: &mut [u8]) -> Result<(), ReadError> {
        // First: a look in vain into the store lists its packs again.
        let Some((pack, entry)) = self.find(Kind::Block, id.as_bytes()) else {
            return self.store.read_block(id, out);
        };
        let (id, offset, path) = (*id, entry.offset(), pack.path.clone());
        if len64(out.len()) != u64::from(entry.stored()) {
            return Err(ReadError::Length {
                id,
                stored: u64::from(entry.stored()),
                wanted: len64(out.len()),
            });
        }
        match pack.file.read_at(offset, out) {
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

    fn find(&self, kind: Kind, id: &[u8; 32]) -> Option<(&Marked, Entry)> {
        // Made just now, from directories that were checked: nothing in it fails.
        let find = |pack: &Marked| pack.index.find(kind, id).ok().flatten();
        self.marked
            .iter()
            .find_map(|pack| Some((pack, find(pack)?)))
    }
}

impl NodeSource for View {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        let Some((pack, entry)) = self.find(Kind::Node, id.as_bytes()) else {
            return self.store.node(id);
        };
        let (offset, path) = (entry.offset(), pack.path.clone());
        let damaged = |flaw| NodeReadError::Damaged {
            id,
            source: Box::new(StoreError::Damaged {
                path: pack.path.clone(),
                offset,
                flaw,
            }),
        };
        let io = |source| NodeReadError::Io {
            id,
            source: Box::new(StoreError::Io {
                op: "read",
                path,
                offset,
                source,
            }),
        };
        let len = entry.stored().min(MAX_NODE) as usize;
        let Some(mut bytes) = zeroed(len) else {
            return Err(io(io::ErrorKind::OutOfMemory.into()));
        };
        match pack.file.read_at(offset, &mut bytes) {
            Ok(()) if NodeId::of(&bytes) == id => Ok(bytes),
            Ok(()) => Err(damaged("a node's bytes do not have its hash")),
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged("the file ends before the node"))
            }
            Err(source) => Err(io(source)),
        }
    }
}

fn look(store: &Store, pack: PackId, end: u64) -> Result<Marked, StoreError> {
    let path = store.pack_path(pack);
    let file = store
        .disk()
        .open(&path, Open::Read)
        .map_err(|source| StoreError::io("open", &path, source))?;
    let failed = |error: SealedError| StoreError::sealed(error, pack, path.clone());
    let walked = walk(file.as_mappable(), pack, end).map_err(|error| failed(error.into()))?;
    let index = index_of(&walked.entries, end)
        .map_err(|flaw| failed(SealedError::Damaged { offset: end, flaw }))?;
    Ok(Marked { path, file, index })
}
