//! From the roots to everything that they need. Whatever cannot be followed ends the collection.

use super::{GcError, Progress, inventory::Inventory};
use crate::{
    id::{BlockId, NodeId},
    pack::format::{Kind, len64},
    root::TreeRoot,
    store::catalog::{Catalog, Spot},
    tree::{DecodeError, TreeObject, decode_any},
};

/// Positions of one pack's index.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn get(&self, at: usize) -> bool {
        self.0
            .get(at / 64)
            .is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    fn set(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }
}

/// Copies in one pack that are needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copies {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// What the roots need: of each block and node one copy, in the first pack that has a good one.
pub(super) struct Marked {
    /// By pack number.
    bits: Vec<Bits>,
    /// The copies, by pack number.
    pub(super) copies: Vec<Copies>,
    pub(super) blocks: u64,
    pub(super) nodes: u64,
}

impl Marked {
    pub(super) fn from_roots(
        inventory: &Inventory,
        roots: &[TreeRoot],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, GcError> {
        let catalog = &inventory.catalog;
        let packs = catalog.packs();
        let mut marked = Self {
            bits: packs
                .iter()
                .map(|pack| Bits::new(pack.index.len()))
                .collect(),
            copies: vec![Copies::default(); packs.len()],
            blocks: 0,
            nodes: 0,
        };
        let total = len64(roots.len());
        for (done, root) in (1..).zip(roots) {
            Marking {
                catalog,
                marked: &mut marked,
                root,
            }
            .tree()?;
            progress(Progress::Marking { done, total });
        }
        Ok(marked)
    }

    /// Whether this very copy is the one that was chosen.
    pub(super) fn has(&self, pack: usize, position: usize) -> bool {
        self.bits.get(pack).is_some_and(|bits| bits.get(position))
    }

    fn take(&mut self, spot: &Spot) {
        if let (Some(bits), Some(copies)) =
            (self.bits.get_mut(spot.pack), self.copies.get_mut(spot.pack))
        {
            bits.set(spot.position);
            copies.count += 1;
            copies.bytes += u64::from(spot.entry.stored());
        }
    }

    fn taken(&self, spots: &[Spot]) -> bool {
        spots.iter().any(|spot| self.has(spot.pack, spot.position))
    }
}

/// One root's marking.
struct Marking<'a> {
    catalog: &'a Catalog,
    marked: &'a mut Marked,
    root: &'a TreeRoot,
}

impl Marking<'_> {
    fn tree(&mut self) -> Result<(), GcError> {
        let id = NodeId::from(self.root.tree);
        match self.node(id)? {
            None => Ok(()),
            Some(TreeObject::Head(head)) => match head.root {
                Some(root) => self.below(root, head.height),
                None => Ok(()),
            },
            Some(TreeObject::Node { .. }) => Err(self.malformed(id, DecodeError::Kind { got: 1 })),
        }
    }

    /// Levels go down, so this ends.
    fn below(&mut self, id: NodeId, level: u8) -> Result<(), GcError> {
        let children = match self.node(id)? {
            None => return Ok(()),
            Some(TreeObject::Node {
                level: got,
                children,
            }) if got == level => children,
            Some(TreeObject::Node { level: got, .. }) => {
                return Err(self.malformed(id, DecodeError::Level { got }));
            }
            Some(TreeObject::Head(_)) => {
                return Err(self.malformed(id, DecodeError::Kind { got: 2 }));
            }
        };
        for child in children.iter().filter(|child| **child != [0; 32]) {
            if level == 1 {
                self.block(BlockId::from_bytes(*child))?;
            } else {
                self.below(NodeId::from_bytes(*child), level - 1)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, id: BlockId) -> Result<(), GcError> {
        let spots = self.catalog.find(Kind::Block, id.as_bytes());
        if self.marked.taken(&spots) {
            return Ok(());
        }
        let Some(first) = spots.first() else {
            return Err(GcError::AbsentBlock {
                root: Box::new(self.root.clone()),
                id,
            });
        };
        self.marked.take(first);
        self.marked.blocks += 1;
        Ok(())
    }

    /// Marks and reads a node; `None` where it was marked before.
    fn node(&mut self, id: NodeId) -> Result<Option<TreeObject>, GcError> {
        let spots = self.catalog.find(Kind::Node, id.as_bytes());
        if self.marked.taken(&spots) {
            return Ok(None);
        }
        if spots.is_empty() {
            return Err(GcError::AbsentNode {
                root: Box::new(self.root.clone()),
                id,
            });
        }
        let mut failed = None;
        for spot in &spots {
            match self.catalog.read_node(id, spot) {
                Ok(Some(bytes)) => {
                    self.marked.take(spot);
                    self.marked.nodes += 1;
                    let object = decode_any(&bytes);
                    return object
                        .map(Some)
                        .map_err(|source| self.malformed(id, source));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        Err(GcError::Node {
            root: Box::new(self.root.clone()),
            id,
            source: failed,
        })
    }

    fn malformed(&self, id: NodeId, source: DecodeError) -> GcError {
        GcError::Malformed {
            root: Box::new(self.root.clone()),
            id,
            source,
        }
    }
}
