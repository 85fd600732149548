//! Extent maps in the store: which runs of which packs show a tree. Caches, each beside none or all of its packs.

use std::{io, ops::ControlFlow, path::PathBuf};

use super::{Store, StoreError, find::Finder};
use crate::{
    disk::Open,
    extent::{Layout, file},
    id::{BlockId, TreeId},
    tree::{Tree, TreeError},
    unit::BlockIndex,
};

/// An extent map is not longer: 8 million extents.
pub(crate) const EXTENTS_MAX_LEN: u64 = 256 << 20;

/// Why a layout could not be made again from its tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The tree could not be read.
    #[error("the tree could not be read")]
    Tree(#[from] TreeError),
    /// A pack could not be read.
    #[error("block {index:?} could not be looked for")]
    Store {
        /// The block's place in the segment.
        index: BlockIndex,
        /// What is wrong.
        source: StoreError,
    },
    /// Blocks are known by id but are not in this store: they have to be fetched.
    #[error("block {id:.12} is not in this store{}", more(*blocks))]
    Absent {
        /// The first one's place in the segment.
        index: BlockIndex,
        /// The first one.
        id: BlockId,
        /// How many there are.
        blocks: u64,
    },
}

fn more(blocks: u64) -> String {
    match blocks {
        0 | 1 => String::new(),
        blocks => format!(", nor are {} more of the segment", blocks - 1),
    }
}

impl Store {
    /// Keeps the layout of a tree for the next resume.
    ///
    /// - **Durable**: no: a map that is lost is made again from tree and index.
    pub fn save_extents(&self, tree: TreeId, layout: &Layout) -> Result<(), StoreError> {
        let path = self.extents_path(tree);
        // Two writers of one tree write the same: whichever rename is last.
        let draft = self
            .extents_dir
            .join(format!("{tree}.{}", std::process::id()));
        let bytes = file::encode(tree, layout);
        let write = || {
            let file = self.disk.open(&draft, Open::Create)?;
            file.set_len(0)?;
            file.write_at(0, &bytes)
        };
        write().map_err(|source| StoreError::io("write", &draft, source))?;
        self.disk
            .rename(&draft, &path)
            .map_err(|source| StoreError::io("rename", &draft, source))
    }

    /// The layout of a tree, if it was kept; `None` where it is missing or not whole.
    ///
    /// It says where the tree lay when it was saved: a pack that has gone since is found when it is opened.
    ///
    /// - **Cost**: one read; O(extents).
    #[must_use]
    pub fn load_extents(&self, tree: TreeId) -> Option<Layout> {
        let file = self.disk.open(&self.extents_path(tree), Open::Read).ok()?;
        let len = file.len().ok().filter(|&len| len <= EXTENTS_MAX_LEN)?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        file.read_at(0, &mut bytes).ok()?;
        file::decode(tree, &bytes)
    }

    /// Removes the map of a tree that has been superseded; one that is not there is fine.
    pub fn forget_extents(&self, tree: TreeId) -> Result<(), StoreError> {
        let path = self.extents_path(tree);
        match self.disk.remove(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path, source))
            }
            _ => Ok(()),
        }
    }

    /// Makes the layout of a tree again, from its nodes and the packs' indexes.
    ///
    /// - **Cost**: reads every node; one look-up a block.
    /// - **Errors**: [`RebuildError::Absent`] for a tree of which this store has a part only; the first pack that could not be
    ///   read, where one may have a block that nobody else has.
    pub fn rebuild_extents(&self, tree: TreeId) -> Result<Layout, RebuildError> {
        let tree = Tree::open(self, tree)?;
        let mut layout = Layout::new(tree.block_size());
        let mut finder = Finder::new(self);
        let (mut failed, mut absent) = (None, None);
        let end = BlockIndex(tree.block_size().count(tree.len()));
        tree.for_each_block(self, BlockIndex(0)..end, |index, id| {
            match finder.block(&id) {
                Ok(Some(place)) => layout.set(index, Some(place)),
                // All of them are counted: what is lost is said once, and as a whole.
                Ok(None) => absent.get_or_insert((index, id, 0)).2 += 1,
                Err(source) => {
                    failed = Some(RebuildError::Store { index, source });
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        match (failed, absent) {
            (Some(failed), _) => Err(failed),
            (None, Some((index, id, blocks))) => Err(RebuildError::Absent { index, id, blocks }),
            (None, None) => Ok(layout),
        }
    }

    fn extents_path(&self, tree: TreeId) -> PathBuf {
        self.extents_dir.join(format!("{tree}.ext"))
    }
}
