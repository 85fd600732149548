//! Walks over stored trees: what differs between two, and all that one refers to.

use std::cmp::max;

use super::{
    codec::{HOLE, Head, RawId},
    error::TreeError,
    reader::{self, Reader, Spot},
    shape::FANOUT,
    source::NodeSource,
};
use crate::{
    id::{BlockId, NodeId, TreeId},
    unit::BlockIndex,
};

/// Visits, in order, each block that two trees do not have in common: its place, and what each has there.
///
/// Lengths may differ; what lies beyond the end of the shorter one counts as holes.
///
/// - **Cost**: O(differing blocks x height): descends only where ids differ.
/// - **Errors**: [`TreeError::BlockSizesDiffer`], and those of [`Tree::get`](super::Tree::get).
pub fn diff(
    source: &dyn NodeSource,
    a: TreeId,
    b: TreeId,
    visit: impl FnMut(BlockIndex, Option<BlockId>, Option<BlockId>),
) -> Result<(), TreeError> {
    diff_of::<FANOUT>(source, a, b, visit)
}

pub(super) fn diff_of<const F: usize>(
    source: &dyn NodeSource,
    a: TreeId,
    b: TreeId,
    mut visit: impl FnMut(BlockIndex, Option<BlockId>, Option<BlockId>),
) -> Result<(), TreeError> {
    if a == b {
        return Ok(());
    }
    let a = Side::<F>::new(source, reader::head::<F>(source, a)?);
    let b = Side::<F>::new(source, reader::head::<F>(source, b)?);
    if a.head.block_size != b.head.block_size {
        return Err(TreeError::BlockSizesDiffer {
            a: a.head.block_size,
            b: b.head.block_size,
        });
    }
    let level = max(a.head.height, b.head.height);
    let top = Spot { level, first: 0 };
    let (a_top, b_top) = (a.at(level), b.at(level));
    descend(&a, &b, a_top, b_top, top, &mut visit)
}

/// One of two trees, seen as if it had the height of the taller one.
struct Side<'a, const F: usize> {
    reader: Reader<'a, F>,
    head: Head,
}

/// A subtree of one side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sub {
    /// The hole, a node, or a block, as the level says.
    Id(RawId),
    /// The whole tree, seen from above its own root: its first descendant at its own height is the root.
    Raised,
}

impl<'a, const F: usize> Side<'a, F> {
    fn new(source: &'a dyn NodeSource, head: Head) -> Self {
        let blocks = head.block_size.count(head.len);
        Self {
            reader: Reader::new(source, blocks),
            head,
        }
    }

    fn at(&self, level: u8) -> Sub {
        match self.head.root {
            Some(_) if level > self.head.height => Sub::Raised,
            Some(root) => Sub::Id(*root.as_bytes()),
            None => Sub::Id(HOLE),
        }
    }

    fn children(&self, sub: Sub, spot: Spot) -> Result<Vec<Sub>, TreeError> {
        match sub {
            Sub::Raised => Ok(vec![self.at(spot.level - 1)]),
            Sub::Id(HOLE) => Ok(Vec::new()),
            Sub::Id(id) => {
                let ids = self.reader.children(id, spot)?;
                Ok(ids.into_iter().map(Sub::Id).collect())
            }
        }
    }
}

fn descend<const F: usize>(
    a: &Side<'_, F>,
    b: &Side<'_, F>,
    a_sub: Sub,
    b_sub: Sub,
    spot: Spot,
    visit: &mut dyn FnMut(BlockIndex, Option<BlockId>, Option<BlockId>),
) -> Result<(), TreeError> {
    let a_children = a.children(a_sub, spot)?;
    let b_children = b.children(b_sub, spot)?;
    let hole = Sub::Id(HOLE);
    for slot in 0..max(a_children.len(), b_children.len()) {
        let a_sub = a_children.get(slot).copied().unwrap_or(hole);
        let b_sub = b_children.get(slot).copied().unwrap_or(hole);
        if a_sub == b_sub {
            continue;
        }
        let below = spot.child::<F>(slot);
        if below.level == 0 {
            visit(BlockIndex(below.first), block(a_sub), block(b_sub));
        } else {
            descend(a, b, a_sub, b_sub, below, visit)?;
        }
    }
    Ok(())
}

fn block(sub: Sub) -> Option<BlockId> {
    match sub {
        Sub::Id(id) if id != HOLE => Some(BlockId::from_bytes(id)),
        _ => None,
    }
}

/// What a walk does with a node that it has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// Reads it and visits what is below.
    Into,
    /// Leaves it out with all that is below: it was seen before.
    Past,
}

/// Visits all that a tree refers to: the head and the nodes before what is below them, and the blocks in order.
///
/// A node is visited before it is read, so one that is missing has been visited when the error comes. Subtrees that
/// occur in several places are visited in each, unless `node` says that they were seen.
///
/// - **Cost**: O(what is visited). A hostile tree can be small and refer to 2^44 blocks: remember what was seen.
/// - **Errors**: as [`Tree::get`](super::Tree::get), at the first node that has one.
pub fn reachable(
    source: &dyn NodeSource,
    tree: TreeId,
    mut node: impl FnMut(NodeId) -> Descend,
    mut block: impl FnMut(BlockIndex, BlockId),
) -> Result<(), TreeError> {
    if node(tree.into()) == Descend::Past {
        return Ok(());
    }
    let head = reader::head::<FANOUT>(source, tree)?;
    let reader = Reader::<FANOUT>::new(source, head.block_size.count(head.len));
    let Some(root) = head.root else { return Ok(()) };
    let top = Spot {
        level: head.height,
        first: 0,
    };
    reach(&reader, *root.as_bytes(), top, &mut node, &mut block)
}

fn reach<const F: usize>(
    reader: &Reader<'_, F>,
    id: RawId,
    spot: Spot,
    node: &mut dyn FnMut(NodeId) -> Descend,
    block: &mut dyn FnMut(BlockIndex, BlockId),
) -> Result<(), TreeError> {
    if node(NodeId::from_bytes(id)) == Descend::Past {
        return Ok(());
    }
    for (slot, id) in reader.children(id, spot)?.into_iter().enumerate() {
        let below = spot.child::<F>(slot);
        match below.level {
            _ if id == HOLE => {}
            0 => block(BlockIndex(below.first), BlockId::from_bytes(id)),
            _ => reach(reader, id, below, node, block)?,
        }
    }
    Ok(())
}
