//! Nodes in memory: what is loaded, what is dirty, and how a change travels up.
//!
//! A [`Link`] is a place for a node: a hole, the id of one that is stored, or one that is loaded. All operations
//! are on links, because a change can make a node appear or vanish.

use std::{mem, ops::ControlFlow, ops::Range};

use super::{
    codec::{self, HOLE, RawId},
    error::TreeError,
    reader::{Reader, Spot},
    shape,
    source::{NodeSink, NodeWriteError},
};
use crate::{
    id::{BlockId, NodeId},
    unit::BlockIndex,
};

#[derive(Debug)]
pub(super) struct Link {
    /// The node's id. Means nothing while `node` is dirty; all zero with no node is a hole.
    id: RawId,
    node: Option<Box<Node>>,
}

#[derive(Debug)]
struct Node {
    /// Changed since it was last sealed. Then so is every node above it.
    dirty: bool,
    children: Children,
}

/// Never more than the fan-out, and the last one is never a hole: a node without children is a hole itself.
#[derive(Debug)]
enum Children {
    /// At level 1.
    Blocks(Vec<RawId>),
    /// Above.
    Nodes(Vec<Link>),
}

impl Node {
    const fn empty(level: u8) -> Self {
        let children = match level {
            1 => Children::Blocks(Vec::new()),
            _ => Children::Nodes(Vec::new()),
        };
        Self {
            dirty: true,
            children,
        }
    }

    const fn is_hole(&self) -> bool {
        match &self.children {
            Children::Blocks(ids) => ids.is_empty(),
            Children::Nodes(links) => links.is_empty(),
        }
    }

    fn trim(&mut self) {
        match &mut self.children {
            Children::Blocks(ids) => while ids.pop_if(|id| *id == HOLE).is_some() {},
            Children::Nodes(links) => while links.pop_if(|link| link.is_hole()).is_some() {},
        }
    }
}

impl Link {
    pub(super) const fn hole() -> Self {
        Self {
            id: HOLE,
            node: None,
        }
    }

    pub(super) const fn stored(id: NodeId) -> Self {
        Self {
            id: *id.as_bytes(),
            node: None,
        }
    }

    pub(super) fn is_hole(&self) -> bool {
        self.node.is_none() && self.id == HOLE
    }

    /// The id of what was sealed last; none for a hole.
    pub(super) fn id(&self) -> Option<NodeId> {
        (self.id != HOLE).then(|| NodeId::from_bytes(self.id))
    }

    /// The node, read where it is not loaded; an empty one in place of a hole.
    fn load<const F: usize>(
        &mut self,
        reader: &Reader<'_, F>,
        spot: Spot,
    ) -> Result<&mut Node, TreeError> {
        let node = match self.node.take() {
            Some(node) => node,
            None if self.id == HOLE => Box::new(Node::empty(spot.level)),
            None => Box::new(read(self.id, reader, spot)?),
        };
        Ok(self.node.insert(node))
    }

    pub(super) fn get<const F: usize>(
        &mut self,
        reader: &Reader<'_, F>,
        spot: Spot,
        index: u64,
    ) -> Result<RawId, TreeError> {
        if self.is_hole() {
            return Ok(HOLE);
        }
        let slot = shape::slot::<F>(spot.level, index);
        match &mut self.load(reader, spot)?.children {
            Children::Blocks(ids) => Ok(ids.get(slot).copied().unwrap_or(HOLE)),
            Children::Nodes(links) => match links.get_mut(slot) {
                Some(link) => link.get(reader, spot.child::<F>(slot), index),
                None => Ok(HOLE),
            },
        }
    }

    /// Tells whether anything changed. On an error nothing did: reading ends before the first change.
    pub(super) fn set<const F: usize>(
        &mut self,
        reader: &Reader<'_, F>,
        spot: Spot,
        index: u64,
        id: RawId,
    ) -> Result<bool, TreeError> {
        if self.is_hole() && id == HOLE {
            return Ok(false);
        }
        let slot = shape::slot::<F>(spot.level, index);
        let node = self.load(reader, spot)?;
        let changed = match &mut node.children {
            Children::Blocks(ids) => match entry::<F, _>(ids, slot, id == HOLE, || HOLE) {
                Some(old) => mem::replace(old, id) != id,
                None => false,
            },
            Children::Nodes(links) => match entry::<F, _>(links, slot, id == HOLE, Self::hole) {
                Some(link) => link.set(reader, spot.child::<F>(slot), index, id)?,
                None => false,
            },
        };
        if changed {
            self.changed();
        }
        Ok(changed)
    }

    /// Makes holes of all blocks from `end` on. Tells whether anything changed; on an error nothing did.
    pub(super) fn cut<const F: usize>(
        &mut self,
        reader: &Reader<'_, F>,
        spot: Spot,
        end: u64,
    ) -> Result<bool, TreeError> {
        if self.is_hole() || spot.end::<F>() <= end {
            return Ok(false);
        }
        if end <= spot.first {
            *self = Self::hole();
            return Ok(true);
        }
        // The child that holds the last block to keep is cut in its turn; those after it go.
        let last = shape::slot::<F>(spot.level, end - 1);
        let changed = match &mut self.load(reader, spot)?.children {
            Children::Blocks(ids) => shorten(ids, last + 1),
            Children::Nodes(links) => {
                let inner = match links.get_mut(last) {
                    Some(link) => link.cut(reader, spot.child::<F>(last), end)?,
                    None => false,
                };
                shorten(links, last + 1) || inner
            }
        };
        if changed {
            self.changed();
        }
        Ok(changed)
    }

    /// After a child changed: marks the node, drops trailing holes, becomes a hole where nothing is left.
    fn changed(&mut self) {
        if let Some(node) = &mut self.node {
            node.dirty = true;
            node.trim();
            if node.is_hole() {
                *self = Self::hole();
            }
        }
    }

    /// Puts a node above this one, of which it becomes the first child.
    pub(super) fn raise(&mut self) {
        if !self.is_hole() {
            let child = mem::replace(self, Self::hole());
            let children = Children::Nodes(vec![child]);
            self.node = Some(Box::new(Node {
                dirty: true,
                children,
            }));
        }
    }

    /// Takes the node away from above its first child, the only one left after a cut, which has loaded it.
    pub(super) fn lower(&mut self) {
        let node = mem::replace(self, Self::hole()).node;
        if let Some(Children::Nodes(links)) = node.map(|node| node.children)
            && let Some(first) = links.into_iter().next()
        {
            *self = first;
        }
    }

    /// Puts every dirty node, children first. Marks nothing clean: see [`Link::settle`].
    pub(super) fn seal(
        &mut self,
        level: u8,
        sink: &mut dyn NodeSink,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NodeWriteError> {
        let Some(node) = self.node.as_mut().filter(|node| node.dirty) else {
            return Ok(());
        };
        match &mut node.children {
            Children::Blocks(ids) => codec::encode_node(scratch, level, ids.iter().copied()),
            Children::Nodes(links) => {
                for link in &mut *links {
                    link.seal(level - 1, sink, scratch)?;
                }
                codec::encode_node(scratch, level, links.iter().map(|link| link.id));
            }
        }
        let id = NodeId::of(scratch);
        sink.put_node(id, scratch)?;
        self.id = *id.as_bytes();
        Ok(())
    }

    /// Marks everything clean, once all of a seal has succeeded: a sink may lose what an abandoned one put.
    pub(super) fn settle(&mut self) {
        let Some(node) = self.node.as_mut().filter(|node| node.dirty) else {
            return;
        };
        node.dirty = false;
        if let Children::Nodes(links) = &mut node.children {
            links.iter_mut().for_each(Self::settle);
        }
    }

    /// Forgets loaded nodes that are clean.
    pub(super) fn shrink(&mut self) {
        match &mut self.node {
            Some(node) if node.dirty => {
                if let Children::Nodes(links) = &mut node.children {
                    links.iter_mut().for_each(Self::shrink);
                }
            }
            _ => self.node = None,
        }
    }

    /// Bytes on the heap for what is loaded here and below.
    pub(super) fn loaded_bytes(&self) -> usize {
        let Some(node) = &self.node else { return 0 };
        let children = match &node.children {
            Children::Blocks(ids) => ids.capacity() * size_of::<RawId>(),
            Children::Nodes(links) => {
                let own = links.capacity() * size_of::<Self>();
                own + links.iter().map(Self::loaded_bytes).sum::<usize>()
            }
        };
        size_of::<Node>() + children
    }

    /// Visits the blocks of `range` in order. What it has to read it does not keep.
    pub(super) fn visit<const F: usize>(
        &self,
        reader: &Reader<'_, F>,
        spot: Spot,
        range: &Range<BlockIndex>,
        visit: &mut dyn FnMut(BlockIndex, BlockId) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TreeError> {
        if self.is_hole() || range.end.0 <= spot.first || spot.end::<F>() <= range.start.0 {
            return Ok(ControlFlow::Continue(()));
        }
        let read_now;
        let node = match &self.node {
            Some(node) => node,
            None => {
                read_now = read(self.id, reader, spot)?;
                &read_now
            }
        };
        match &node.children {
            Children::Blocks(ids) => {
                for (slot, id) in ids.iter().enumerate() {
                    let index = BlockIndex(spot.child::<F>(slot).first);
                    if *id != HOLE
                        && range.contains(&index)
                        && visit(index, BlockId::from_bytes(*id)).is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Children::Nodes(links) => {
                for (slot, link) in links.iter().enumerate() {
                    if link
                        .visit(reader, spot.child::<F>(slot), range, visit)?
                        .is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn read<const F: usize>(id: RawId, reader: &Reader<'_, F>, spot: Spot) -> Result<Node, TreeError> {
    let ids = reader.children(id, spot)?;
    let children = match spot.level {
        1 => Children::Blocks(ids),
        _ => Children::Nodes(ids.into_iter().map(|id| Link { id, node: None }).collect()),
    };
    Ok(Node {
        dirty: false,
        children,
    })
}

/// The child at `slot`, made with those before it where there are none yet; `clearing` makes none.
fn entry<const F: usize, T>(
    children: &mut Vec<T>,
    slot: usize,
    clearing: bool,
    hole: impl FnMut() -> T,
) -> Option<&mut T> {
    let len = slot + 1;
    if len > children.len() && !clearing {
        // Doubling, but never beyond the fan-out: a full node wastes nothing.
        if len > children.capacity() {
            let capacity = len.max(2 * children.capacity()).min(F);
            children.reserve_exact(capacity - children.len());
        }
        children.resize_with(len, hole);
    }
    children.get_mut(slot)
}

fn shorten<T>(children: &mut Vec<T>, len: usize) -> bool {
    let longer = children.len() > len;
    children.truncate(len);
    longer
}
