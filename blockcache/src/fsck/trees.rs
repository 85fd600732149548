//! Every tree from its head to its blocks, each node once, and which roots lead to a finding.

use std::collections::{HashMap, HashSet, hash_map::Entry as Slot};

use super::{
    book::{Book, Number},
    report::{Severity, What},
};
use crate::{
    id::{BlockId, NodeId, TreeId},
    pack::format::Kind,
    root::TreeRoot,
    store::catalog::{Catalog, Spot},
    tree::{DecodeError, Head, TreeObject, decode_any, span_of},
    unit::{BlockIndex, BlockSize},
};

/// A node, as part of a tree of one block size.
type Key = (NodeId, u8);

/// What is known of a node that was walked.
#[derive(Clone, Copy)]
struct Walked {
    level: u8,
    /// Blocks from the first that the node covers to the last that is no hole.
    span: u64,
}

/// A way from a node to a finding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Here(Number),
    Below(Key),
}

/// A tree whose head was read.
struct Known {
    head: Option<Head>,
    ways: Vec<Way>,
}

/// A walk over the trees of a catalog.
pub(super) struct Walk<'a> {
    catalog: &'a Catalog,
    book: &'a mut Book,
    nodes: HashMap<Key, Walked>,
    /// Nodes on a way to a finding.
    ways: HashMap<Key, Vec<Way>>,
    trees: HashMap<TreeId, Known>,
    /// Findings that concern no place, so that there is one of each.
    absent: HashMap<(Kind, [u8; 32]), Number>,
    lengths: HashMap<(BlockId, u8), Number>,
    /// By pack, a finding for all that is in this one and in no sealed one. It holds for roots of other images than
    /// those that mark the pack.
    unsealed: HashMap<usize, Number>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(catalog: &'a Catalog, book: &'a mut Book) -> Self {
        Self {
            catalog,
            book,
            nodes: HashMap::new(),
            ways: HashMap::new(),
            trees: HashMap::new(),
            absent: HashMap::new(),
            lengths: HashMap::new(),
            unsealed: HashMap::new(),
        }
    }

    /// Packs that are not sealed and needed, with their findings.
    pub(super) fn into_unsealed(self) -> HashMap<usize, Number> {
        self.unsealed
    }

    pub(super) fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Nodes that were walked, heads included.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len() + self.trees.len()
    }

    /// Walks the tree of a root; position `at` in the list of roots is noted at all findings on the way.
    pub(super) fn root(&mut self, at: usize, root: &TreeRoot) {
        if !self.trees.contains_key(&root.tree) {
            let known = self.tree(root.tree);
            self.trees.insert(root.tree, known);
        }
        let Some(known) = self.trees.get(&root.tree) else {
            return;
        };
        let (head, mut ways) = (known.head, known.ways.clone());
        if let Some(head) = head
            && (head.len, head.block_size) != (root.len, root.block_size)
        {
            // Of this root alone: another commit may say what the head does.
            let what = What::HeadDiffers {
                tree: root.tree,
                len: head.len,
                block_size: head.block_size,
            };
            let number = self.book.add(Severity::Harm, None, 0, what);
            ways.push(Way::Here(number));
        }
        self.touch(at, ways);
    }

    fn touch(&mut self, at: usize, mut todo: Vec<Way>) {
        let mut seen = HashSet::new();
        while let Some(way) = todo.pop() {
            match way {
                Way::Here(number) => {
                    if let Some(finding) = self.book.findings.get_mut(number)
                        && finding.touches.last() != Some(&at)
                    {
                        finding.touches.push(at);
                    }
                }
                Way::Below(key) if seen.insert(key) => {
                    todo.extend(self.ways.get(&key).into_iter().flatten());
                }
                Way::Below(_) => {}
            }
        }
    }

    fn tree(&mut self, tree: TreeId) -> Known {
        let id = NodeId::from(tree);
        let mut ways = Vec::new();
        let head = match self.object(id, &mut ways) {
            Some(TreeObject::Head(head)) => Some(head),
            Some(TreeObject::Node { .. }) => {
                self.malformed(id, DecodeError::Kind { got: 1 }, &mut ways);
                None
            }
            None => None,
        };
        if let Some(head) = head
            && let Some(root) = head.root
        {
            let key = (root, head.block_size.log2());
            let span = self.node(key, head.height, 0, &mut ways);
            let room = head.block_size.count(head.len);
            if span > room {
                let what = What::TooManyBlocks {
                    tree,
                    blocks: span,
                    room,
                };
                ways.push(Way::Here(self.book.add(Severity::Harm, None, 0, what)));
            }
        }
        Known { head, ways }
    }

    /// Walks the node at a place; answers its span, as far as it is known. Levels go down, so this ends.
    fn node(&mut self, key: Key, level: u8, first: u64, ways: &mut Vec<Way>) -> u64 {
        if let Some(walked) = self.nodes.get(&key).copied() {
            if walked.level != level {
                let got = walked.level;
                self.malformed(key.0, DecodeError::Level { got }, ways);
            }
            if self.ways.contains_key(&key) {
                ways.push(Way::Below(key));
            }
            return walked.span;
        }
        let mut own = Vec::new();
        let (mut span, mut found_level) = (0, level);
        match self.object(key.0, &mut own) {
            Some(TreeObject::Node {
                level: got,
                children,
            }) => {
                found_level = got;
                if got == level {
                    span = self.children(key.1, level, first, &children, &mut own);
                } else {
                    self.malformed(key.0, DecodeError::Level { got }, &mut own);
                }
            }
            Some(TreeObject::Head(_)) => {
                self.malformed(key.0, DecodeError::Kind { got: 2 }, &mut own);
            }
            None => {}
        }
        let level = found_level;
        self.nodes.insert(key, Walked { level, span });
        if !own.is_empty() {
            self.ways.insert(key, own);
            ways.push(Way::Below(key));
        }
        span
    }

    fn children(
        &mut self,
        log2: u8,
        level: u8,
        first: u64,
        children: &[[u8; 32]],
        ways: &mut Vec<Way>,
    ) -> u64 {
        let each = span_of(level - 1);
        let mut span = 0;
        for (slot, child) in (0_u64..).zip(children) {
            if *child == [0; 32] {
                continue;
            }
            let begin = slot.saturating_mul(each);
            let at = first.saturating_add(begin);
            let within = if level == 1 {
                self.block(BlockId::from_bytes(*child), log2, BlockIndex(at), ways);
                1
            } else {
                let key = (NodeId::from_bytes(*child), log2);
                // A child that cannot be read has at least one block.
                self.node(key, level - 1, at, ways).max(1)
            };
            span = begin.saturating_add(within);
        }
        span
    }

    fn block(&mut self, id: BlockId, log2: u8, index: BlockIndex, ways: &mut Vec<Way>) {
        let spots = self.catalog.find(Kind::Block, id.as_bytes());
        if spots.is_empty() {
            self.absent(Kind::Block, id.as_bytes(), ways, || What::AbsentBlock {
                id,
                index,
            });
            return;
        }
        let wrong = spots
            .iter()
            .map(|spot| spot.entry.stored())
            .find(|stored| *stored != 1 << log2);
        if let (Some(stored), Some(size)) = (wrong, BlockSize::from_log2(u32::from(log2))) {
            let number = match self.lengths.entry((id, log2)) {
                Slot::Occupied(known) => *known.get(),
                Slot::Vacant(new) => {
                    let what = What::BlockLength { id, stored, size };
                    *new.insert(self.book.add(Severity::Harm, None, 0, what))
                }
            };
            ways.push(Way::Here(number));
        }
        self.concerns(id.as_bytes(), &spots, ways);
    }

    fn concerns(&mut self, id: &[u8; 32], spots: &[Spot], ways: &mut Vec<Way>) {
        let sealed = |spot: &Spot| {
            let held = self.catalog.pack(spot.pack);
            held.is_some_and(|held| held.sealed)
        };
        if let Some(first) = spots.first().filter(|_| !spots.iter().any(sealed))
            && let Some(held) = self.catalog.pack(first.pack)
        {
            let book = &mut *self.book;
            let number = self.unsealed.entry(first.pack).or_insert_with(|| {
                let what = What::NotShared { pack: held.id };
                book.add(Severity::Harm, Some(&held.path), 0, what)
            });
            ways.push(Way::Here(*number));
        }
        if self.book.is_clean() {
            return;
        }
        for spot in spots {
            let numbers = self.book.at(spot.pack, spot.entry.offset(), id);
            ways.extend(numbers.into_iter().map(Way::Here));
        }
    }

    /// Reads a node from any place that has it; every place is tried, so that each bad one is found.
    fn object(&mut self, id: NodeId, ways: &mut Vec<Way>) -> Option<TreeObject> {
        let spots = self.catalog.find(Kind::Node, id.as_bytes());
        if spots.is_empty() {
            self.absent(Kind::Node, id.as_bytes(), ways, || What::AbsentNode { id });
            return None;
        }
        let mut good = None;
        for spot in &spots {
            match self.catalog.read_node(id, spot) {
                Ok(Some(bytes)) => good = Some(bytes),
                Ok(None) => self.bad_node(id, spot, None),
                Err(source) => self.bad_node(id, spot, Some(What::Unreadable { source })),
            }
        }
        self.concerns(id.as_bytes(), &spots, ways);
        match decode_any(&good?) {
            Ok(object) => Some(object),
            Err(source) => {
                self.malformed(id, source, ways);
                None
            }
        }
    }

    fn bad_node(&mut self, id: NodeId, spot: &Spot, what: Option<What>) {
        let offset = spot.entry.offset();
        let known = self.book.copy(spot.pack, offset, id.as_bytes());
        let (None, Some(held)) = (known, self.catalog.pack(spot.pack)) else {
            return;
        };
        let what = what.unwrap_or(What::Node {
            id,
            pack: held.id,
            elsewhere: None,
        });
        let number = self
            .book
            .add(Severity::Harm, Some(&held.path), offset, what);
        self.book
            .bad_copy(spot.pack, offset, *id.as_bytes(), number);
    }

    fn absent(
        &mut self,
        kind: Kind,
        id: &[u8; 32],
        ways: &mut Vec<Way>,
        what: impl FnOnce() -> What,
    ) {
        let number = match self.absent.entry((kind, *id)) {
            Slot::Occupied(known) => *known.get(),
            Slot::Vacant(new) => *new.insert(self.book.add(Severity::Harm, None, 0, what())),
        };
        ways.push(Way::Here(number));
    }

    fn malformed(&mut self, id: NodeId, source: DecodeError, ways: &mut Vec<Way>) {
        let what = What::Malformed { id, source };
        ways.push(Way::Here(self.book.add(Severity::Harm, None, 0, what)));
    }
}
