//! The tree's tests: `twin` has the rules for all histories, `cases` what single ones have to show.
//!
//! Here are a store that counts, and the slow twin: a builder that makes all nodes afresh from a map of blocks.

mod cases;
mod twin;

use std::{cell::RefCell, collections::BTreeMap, ops::ControlFlow};

use super::{tree::TreeOf, *};
use crate::{BlockId, BlockIndex, BlockSize, NodeId, TreeId};

/// Small, so that a few dozen blocks make a tree of several levels.
const F: usize = 4;
const SIZE: BlockSize = BlockSize::MIN;

/// Nodes by id, with a count of what was put and read, and a tap to turn off.
#[derive(Default)]
struct Nodes {
    by_id: BTreeMap<NodeId, Vec<u8>>,
    puts: usize,
    puts_until_full: Option<usize>,
    reads: RefCell<usize>,
}

impl NodeSource for Nodes {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        *self.reads.borrow_mut() += 1;
        self.by_id
            .get(&id)
            .cloned()
            .ok_or(NodeReadError::Absent { id })
    }
}

impl NodeSink for Nodes {
    fn put_node(&mut self, id: NodeId, bytes: &[u8]) -> Result<(), NodeWriteError> {
        if let Some(left) = &mut self.puts_until_full {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| NodeWriteError::new(id, "full"))?;
        }
        assert_eq!(NodeId::of(bytes), id);
        self.puts += 1;
        self.by_id.insert(id, bytes.to_vec());
        Ok(())
    }
}

type Model = BTreeMap<u64, BlockId>;

fn block(n: u64) -> BlockId {
    BlockId::of(&n.to_le_bytes())
}

/// The slow twin: level by level from the blocks up, knowing nothing of the code under test but the format's words.
fn reference(blocks: &Model, size: BlockSize, len: u64, fanout: u64) -> (TreeId, Vec<Vec<u8>>) {
    let mut objects = Vec::new();
    let mut level: BTreeMap<u64, [u8; 32]> = blocks
        .iter()
        .map(|(&at, id)| (at, *id.as_bytes()))
        .collect();
    let mut covered = len.div_ceil(size.bytes() as u64);
    let mut height = 0u8;
    while height == 0 || covered > 1 {
        height += 1;
        covered = covered.div_ceil(fanout);
        let mut above: BTreeMap<u64, BTreeMap<u64, [u8; 32]>> = BTreeMap::new();
        for (at, id) in level {
            above
                .entry(at / fanout)
                .or_default()
                .insert(at % fanout, id);
        }
        level = BTreeMap::new();
        for (at, children) in above {
            let count = u32::try_from(*children.keys().last().unwrap()).unwrap() + 1;
            let mut bytes = b"SEGT\x01\x01".to_vec();
            bytes.extend([height, 0]);
            bytes.extend(count.to_le_bytes());
            bytes.extend([0; 4]);
            for slot in 0..u64::from(count) {
                bytes.extend(children.get(&slot).copied().unwrap_or([0; 32]));
            }
            level.insert(at, *NodeId::of(&bytes).as_bytes());
            objects.push(bytes);
        }
    }
    let mut head = b"SEGT\x01\x02".to_vec();
    head.extend([height, size.log2()]);
    head.extend(len.to_le_bytes());
    head.extend([0; 16]);
    head.extend(level.get(&0).copied().unwrap_or([0; 32]));
    let id = NodeId::of(&head).into();
    objects.push(head);
    (id, objects)
}

fn build<const F: usize>(blocks: &Model, len: u64, nodes: &mut Nodes) -> TreeOf<F> {
    let mut tree = TreeOf::new(SIZE, len).unwrap();
    for (&at, &id) in blocks {
        tree.set(nodes, BlockIndex(at), Some(id)).unwrap();
    }
    tree.seal(nodes).unwrap();
    tree
}

fn contents<const F: usize>(tree: &TreeOf<F>, nodes: &Nodes) -> Model {
    let mut found = Model::new();
    let all = BlockIndex(0)..BlockIndex(u64::MAX);
    tree.for_each_block(nodes, all, |at, id| {
        assert!(
            found.last_key_value().is_none_or(|(&last, _)| last < at.0),
            "in order"
        );
        found.insert(at.0, id);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn bytes(blocks: u64) -> u64 {
    blocks * SIZE.bytes() as u64
}
