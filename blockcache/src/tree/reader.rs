//! Reads nodes for a tree of one length, and refuses those that do not belong where they were found.

use super::{
    codec::{self, Head, RawId},
    error::TreeError,
    shape,
    source::NodeSource,
};
use crate::id::{NodeId, TreeId};

/// Where a node is: how high, and which block is the first below it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) level: u8,
    pub(super) first: u64,
}

impl Spot {
    /// The first block that is no longer below this node.
    pub(super) const fn end<const F: usize>(self) -> u64 {
        self.first + shape::span::<F>(self.level)
    }

    /// The spot of a child of this one; for level 1 that of a block.
    pub(super) const fn child<const F: usize>(self, slot: usize) -> Self {
        let level = self.level - 1;
        Self {
            level,
            first: self.first + slot as u64 * shape::span::<F>(level),
        }
    }
}

/// A source of nodes together with how many blocks the tree has.
///
/// A source cannot make a walk go round in circles: every step down asks for the level below.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a, const F: usize> {
    source: &'a dyn NodeSource,
    blocks: u64,
}

impl<'a, const F: usize> Reader<'a, F> {
    pub(super) const fn new(source: &'a dyn NodeSource, blocks: u64) -> Self {
        Self { source, blocks }
    }

    /// The children of the node `id`, which is at `spot`.
    pub(super) fn children(&self, id: RawId, spot: Spot) -> Result<Vec<RawId>, TreeError> {
        let id = NodeId::from_bytes(id);
        let bytes = self.source.node(id)?;
        let below = self.blocks.saturating_sub(spot.first);
        let room = below.div_ceil(shape::span::<F>(spot.level - 1));
        codec::decode_node::<F>(&bytes, spot.level, room)
            .map_err(|source| TreeError::Malformed { id, source })
    }
}

pub(super) fn head<const F: usize>(
    source: &dyn NodeSource,
    tree: TreeId,
) -> Result<Head, TreeError> {
    let id = NodeId::from(tree);
    let bytes = source.node(id)?;
    codec::decode_head::<F>(&bytes).map_err(|source| TreeError::Malformed { id, source })
}
