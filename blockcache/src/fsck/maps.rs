//! Extent maps: whole, and showing the tree that they say they show. Mapped blocks are not hashed, so a map that is
//! wrong would show wrong bytes.

use std::{collections::HashMap, io, ops::ControlFlow, path::Path};

use super::{
    book::{Book, Number},
    report::{Severity, What},
};
use crate::{
    disk::{Disk, Open},
    extent::{Layout, file},
    id::{BlockId, NodeId, PackId, TreeId},
    pack::format::{Kind, zeroed},
    store::{EXTENTS_MAX_LEN, catalog::Catalog},
    tree::{NodeReadError, NodeSource, Tree},
    unit::{BlockIndex, Place},
};

/// A check of the maps of one store.
pub(super) struct Maps<'a> {
    disk: &'a dyn Disk,
    catalog: &'a Catalog,
    numbers: HashMap<PackId, usize>,
}

/// What a file in the directory of extent maps is called.
pub(super) fn tree_of(name: &str) -> Option<TreeId> {
    let tree: TreeId = name.strip_suffix(".ext")?.parse().ok()?;
    (format!("{tree}.ext") == name).then_some(tree)
}

impl<'a> Maps<'a> {
    pub(super) fn new(disk: &'a dyn Disk, catalog: &'a Catalog) -> Self {
        let numbers = (0..).zip(catalog.packs());
        let numbers = numbers.map(|(number, pack)| (pack.id, number)).collect();
        Self {
            disk,
            catalog,
            numbers,
        }
    }

    /// Checks the map of a tree; answers its finding, if there is one. A map that is gone is fine: it was superseded.
    pub(super) fn check(
        &self,
        book: &mut Book,
        path: &Path,
        tree: TreeId,
        reached: bool,
    ) -> Option<Number> {
        let mut add = |severity, what| Some(book.add(severity, Some(path), 0, what));
        let bytes = match self.read(path) {
            Ok(bytes) => bytes,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return None,
            Err(source) => return add(Severity::Mendable, What::Unreadable { source }),
        };
        let Some(layout) = file::decode(tree, &bytes) else {
            return add(Severity::Mendable, What::ExtentMap { tree });
        };
        if !reached {
            return None;
        }
        let (index, flaw) = self.against_tree(&layout, tree)?;
        add(Severity::Harm, What::FalseMap { tree, index, flaw })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.disk.open(path, Open::Read)?;
        let len = file.len()?;
        if len > EXTENTS_MAX_LEN {
            // Whatever it is, no reader takes it for a map.
            return Ok(Vec::new());
        }
        let len = usize::try_from(len).map_err(|_wide| io::ErrorKind::OutOfMemory)?;
        let mut bytes = zeroed(len).ok_or(io::ErrorKind::OutOfMemory)?;
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The first block that a map shows wrong. A tree that cannot be read has its own findings.
    fn against_tree(&self, layout: &Layout, id: TreeId) -> Option<(BlockIndex, &'static str)> {
        let tree = Tree::open(self, id).ok()?;
        if tree.block_size() != layout.block_size() {
            return Some((BlockIndex(0), "it is of another block size"));
        }
        let mut wrong = None;
        let mut blocks = 0_u64;
        let end = BlockIndex(tree.blocks());
        let walked = tree.for_each_block(self, BlockIndex(0)..end, |index, id| {
            blocks += 1;
            wrong = match layout.get(index) {
                Some(place) => self.shows(&place, &id),
                None => Some("it has a hole where the tree has a block"),
            }
            .map(|flaw| (index, flaw));
            match wrong {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        });
        walked.ok()?;
        let shown: u64 = layout.runs().map(|run| run.blocks).sum();
        if wrong.is_none() && shown != blocks {
            wrong = Some((BlockIndex(0), "it has blocks where the tree has holes"));
        }
        wrong
    }

    fn shows(&self, place: &Place, id: &BlockId) -> Option<&'static str> {
        let held = self.numbers.get(&place.pack);
        let held = held.and_then(|number| Some((*number, self.catalog.pack(*number)?)));
        let Some((number, pack)) = held else {
            return Some("it shows a pack that is not there, or neither sealed nor marked");
        };
        // A session saves maps of the pack that it still writes. Whoever opens the image after it seals that pack up to its
        // mark; whether every image that needs it marks it is another finding.
        if !pack.sealed && place.offset + u64::from(place.stored) > pack.index.batches_end() {
            return Some("it shows what lies behind the mark of a pack");
        }
        let spots = self.catalog.find(Kind::Block, id.as_bytes());
        let known = |spot: &crate::store::catalog::Spot| {
            spot.pack == number && spot.entry.offset() == place.offset
        };
        if spots.iter().any(known) {
            return None;
        }
        // A block that is in one pack twice: the index has one of its places.
        let mut bytes = zeroed(place.stored as usize)?;
        let read = self.catalog.read(number, place.offset, &mut bytes);
        (read.is_err() || BlockId::of(&bytes) != *id).then_some("it shows other bytes")
    }
}

impl NodeSource for Maps<'_> {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        let spots = self.catalog.find(Kind::Node, id.as_bytes());
        let mut copies = spots.iter().map(|spot| self.catalog.read_node(id, spot));
        copies
            .find_map(|copy| copy.ok().flatten())
            .ok_or(NodeReadError::Absent { id })
    }
}
