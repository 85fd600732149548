//! Sources that lie or lack nodes, costs, limits.

use std::{collections::BTreeSet, ops::ControlFlow};

use super::*;
use crate::tree::codec::{self, HOLE, RawId};

/// A node that a source gives under the id asked for, whatever that is: ids are the source's to check.
struct Liar {
    head: Vec<u8>,
    node: Vec<u8>,
}

impl NodeSource for Liar {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        Ok(if id == NodeId::of(&self.head) {
            self.head.clone()
        } else {
            self.node.clone()
        })
    }
}

impl Liar {
    /// Says that a segment of so many blocks consists of `children` at `level`, again and again.
    fn new(blocks: u64, level: u8, children: &[RawId]) -> (Self, TreeId) {
        let root = NodeId::from_bytes([1; 32]);
        let len = bytes(blocks);
        let height = TreeOf::<F>::new(SIZE, len).unwrap().height();
        let (mut head, mut node) = (Vec::new(), Vec::new());
        codec::encode_head(
            &mut head,
            &Head {
                len,
                block_size: SIZE,
                height,
                root: Some(root),
            },
        );
        codec::encode_node(&mut node, level, children.iter().copied());
        let tree = NodeId::of(&head).into();
        (Self { head, node }, tree)
    }

    fn get(
        blocks: u64,
        level: u8,
        children: &[RawId],
        at: u64,
    ) -> Result<Option<BlockId>, TreeError> {
        let (liar, id) = Self::new(blocks, level, children);
        TreeOf::<F>::open(&liar, id)?.get(&liar, BlockIndex(at))
    }
}

#[test]
fn a_node_in_the_wrong_place_is_refused() {
    let child = [1; 32];
    let id = Some(BlockId::from_bytes(child));
    assert_eq!(Liar::get(4, 1, &[child; 4], 3).unwrap(), id);
    let refusal = |blocks, level, children: &[RawId]| match Liar::get(blocks, level, children, 0) {
        Err(TreeError::Malformed { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    // A node that refers to itself ends at the next level.
    assert_eq!(refusal(16, 2, &[child]), DecodeError::Level { got: 2 });
    assert_eq!(refusal(16, 1, &[child]), DecodeError::Level { got: 1 });
    assert_eq!(
        refusal(3, 1, &[child; 4]),
        DecodeError::Count { got: 4, most: 3 }
    );
    assert_eq!(
        refusal(9, 2, &[child; 4]),
        DecodeError::Count { got: 4, most: 3 }
    );
    assert_eq!(
        refusal(4, 1, &[child; 5]),
        DecodeError::Count { got: 5, most: 4 }
    );
    assert_eq!(refusal(4, 1, &[]), DecodeError::Count { got: 0, most: 4 });
    assert_eq!(refusal(4, 1, &[child, HOLE]), DecodeError::TrailingHole);
}

#[test]
fn an_absent_node_is_told_from_a_broken_one_and_changes_nothing() {
    let mut nodes = Nodes::default();
    let model: Model = (0..64).map(|at| (at, block(at))).collect();
    let id = build::<F>(&model, bytes(64), &mut nodes).id().unwrap();
    let mut tree = TreeOf::<F>::open(&nodes, id).unwrap();
    tree.get(&nodes, BlockIndex(0)).unwrap();
    let nothing = Nodes::default();
    let absent = |result| matches!(result, Err(TreeError::Read(NodeReadError::Absent { .. })));
    assert_eq!(
        tree.get(&nothing, BlockIndex(0)).unwrap(),
        Some(block(0)),
        "loaded"
    );
    assert!(absent(tree.set(&nothing, BlockIndex(63), None)));
    assert!(absent(tree.set_len(&nothing, bytes(62))));
    assert!(absent(tree.set_len(&nothing, bytes(33))));
    assert_eq!((tree.id(), tree.len()), (Some(id), bytes(64)));
    assert_eq!(contents(&tree, &nodes), model);
}

#[test]
fn a_mosaic_of_holes_is_walked_and_compared_by_its_blocks_alone() {
    let len = 1 << 40;
    let mut nodes = Nodes::default();
    let mut tree = Tree::new(SIZE, len).unwrap();
    let places = [0, 1 << 20, (1 << 28) - 1];
    for at in places {
        tree.set(&nodes, BlockIndex(at), Some(block(at))).unwrap();
    }
    let a = tree.seal(&mut nodes).unwrap();
    tree.shrink();
    let mut found = Vec::new();
    tree.for_each_block(&nodes, BlockIndex(0)..BlockIndex(1 << 28), |at, _| {
        found.push(at.0);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(found, places);
    let height = usize::from(tree.height());
    assert!(nodes.reads.take() <= places.len() * height);
    // A range costs its own path, found or not.
    for at in [places[1], places[1] + 1] {
        let mut found = 0;
        tree.for_each_block(&nodes, BlockIndex(at)..BlockIndex(at + 1), |_, _| {
            found += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(found, u64::from(at == places[1]));
        assert!(nodes.reads.take() <= height);
    }

    tree.set(&nodes, BlockIndex(places[1]), None).unwrap();
    let b = tree.seal(&mut nodes).unwrap();
    nodes.reads.take();
    let mut changes = Vec::new();
    diff(&nodes, a, b, |at, a, b| changes.push((at.0, a, b))).unwrap();
    assert_eq!(changes, [(places[1], Some(block(places[1])), None)]);
    assert!(nodes.reads.take() <= 2 + 2 * height);
}

#[test]
fn reachable_is_all_that_was_put_and_can_be_told_what_was_seen() {
    let mut nodes = Nodes::default();
    let mut tree = Tree::new(SIZE, bytes(10_000)).unwrap();
    for at in (0..10_000).step_by(7) {
        tree.set(&nodes, BlockIndex(at), Some(block(at))).unwrap();
    }
    let first = tree.seal(&mut nodes).unwrap();
    let mut seen = BTreeSet::new();
    let mut blocks = Vec::new();
    let mut walk = |nodes: &Nodes, tree| {
        let mut fresh = 0;
        let mut found = Vec::new();
        let node = |id| {
            if !seen.insert(id) {
                return Descend::Past;
            }
            fresh += 1;
            Descend::Into
        };
        reachable(nodes, tree, node, |at, id| found.push((at.0, id))).unwrap();
        blocks = found;
        fresh
    };
    assert_eq!(walk(&nodes, first), nodes.by_id.len());
    let before = nodes.by_id.len();
    tree.set(&nodes, BlockIndex(5), Some(block(5))).unwrap();
    let second = tree.seal(&mut nodes).unwrap();
    assert_eq!(walk(&nodes, second), nodes.by_id.len() - before);
    assert_eq!(walk(&nodes, second), 0);
    assert!(blocks.is_empty());
}

#[test]
fn a_full_gibibyte_is_loaded_in_little_more_than_its_ids() {
    let mut nodes = Nodes::default();
    let len = 1 << 30;
    let mut tree = Tree::new(BlockSize::DEFAULT, len).unwrap();
    for at in 0..65_536u64 {
        let id = BlockId::from_bytes([at.to_le_bytes(); 4].concat().try_into().unwrap());
        tree.set(&nodes, BlockIndex(at), (at > 0).then_some(id))
            .unwrap();
    }
    let most = 2_300 << 10;
    assert!(tree.loaded_bytes() < most);
    tree.seal(&mut nodes).unwrap();
    tree.shrink();
    assert_eq!(tree.loaded_bytes(), 0);
    for at in 0..65_536 {
        tree.get(&nodes, BlockIndex(at)).unwrap();
    }
    assert!(65_535 * 32 < tree.loaded_bytes() && tree.loaded_bytes() < most);
}

#[test]
fn limits_have_names() {
    assert!(matches!(
        Tree::new(SIZE, MAX_LEN + 1),
        Err(TreeError::TooLong { .. })
    ));
    let mut nodes = Nodes::default();
    let mut tree = Tree::new(SIZE, MAX_LEN).unwrap();
    assert!(matches!(
        tree.set_len(&nodes, u64::MAX),
        Err(TreeError::TooLong { .. })
    ));
    let last = BlockIndex(tree.blocks() - 1);
    tree.set(&nodes, last, Some(block(1))).unwrap();
    let a = tree.seal(&mut nodes).unwrap();
    assert_eq!(
        Tree::open(&nodes, a).unwrap().get(&nodes, last).unwrap(),
        Some(block(1))
    );
    let b = Tree::new(BlockSize::DEFAULT, MAX_LEN)
        .unwrap()
        .seal(&mut nodes)
        .unwrap();
    let error = diff(&nodes, a, b, |_, _, _| {}).unwrap_err();
    assert!(matches!(error, TreeError::BlockSizesDiffer { .. }));
}
