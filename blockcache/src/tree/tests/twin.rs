//! The tree against its slow twin.

use std::{collections::BTreeSet, ops::ControlFlow};

use proptest::prelude::*;

use super::*;
use crate::tree::{codec, diff::diff_of};

#[derive(Clone, Debug)]
enum Op {
    Set(u64, Option<u64>),
    Len(u64),
    Seal,
    Fail(usize),
    Shrink,
    Reopen,
}

/// Up to 300 blocks: five levels at fan-out four; a bias to few places, so that subtrees empty again.
fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u64..300, proptest::option::weighted(0.6, 0u64..5)).prop_map(|(at, id)| Op::Set(at, id)),
        4 => (0u64..20, proptest::option::weighted(0.4, 0u64..5)).prop_map(|(at, id)| Op::Set(at, id)),
        3 => (0u64..bytes(300)).prop_map(Op::Len),
        2 => (0u64..bytes(5)).prop_map(Op::Len),
        3 => Just(Op::Seal),
        2 => (0usize..6).prop_map(Op::Fail),
        2 => Just(Op::Shrink),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_history_ends_in_what_the_twin_builds(
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let mut nodes = Nodes::default();
        let mut len = bytes(300);
        let mut model = Model::new();
        let mut tree = TreeOf::<F>::new(SIZE, len).unwrap();
        for op in ops {
            match op {
                Op::Set(at, id) if at < SIZE.count(len) => {
                    let id = id.map(block);
                    tree.set(&nodes, BlockIndex(at), id).unwrap();
                    match id {
                        Some(id) => model.insert(at, id),
                        None => model.remove(&at),
                    };
                    prop_assert_eq!(tree.get(&nodes, BlockIndex(at)).unwrap(), id);
                }
                Op::Set(at, _) => {
                    let error = tree.set(&nodes, BlockIndex(at), None).unwrap_err();
                    let out_of_range = matches!(error, TreeError::OutOfRange { .. });
                    prop_assert!(out_of_range);
                }
                Op::Len(new) => {
                    tree.set_len(&nodes, new).unwrap();
                    len = new;
                    model.retain(|&at, _| at < SIZE.count(new));
                }
                Op::Seal => {
                    let id = tree.seal(&mut nodes).unwrap();
                    prop_assert_eq!(id, reference(&model, SIZE, len, F as u64).0);
                    prop_assert_eq!(tree.id(), Some(id));
                }
                Op::Fail(after) => {
                    nodes.puts_until_full = Some(after);
                    // What an abandoned seal put is lost.
                    let before = nodes.by_id.clone();
                    if tree.seal(&mut nodes).is_err() {
                        nodes.by_id = before;
                        prop_assert_eq!(tree.id(), None);
                    }
                    nodes.puts_until_full = None;
                }
                Op::Shrink => tree.shrink(),
                Op::Reopen => {
                    let id = tree.seal(&mut nodes).unwrap();
                    tree = TreeOf::open(&nodes, id).unwrap();
                }
            }
            prop_assert_eq!(tree.len(), len);
        }
        prop_assert_eq!(&contents(&tree, &nodes), &model);
        let id = tree.seal(&mut nodes).unwrap();
        let (wanted, objects) = reference(&model, SIZE, len, F as u64);
        prop_assert_eq!(id, wanted);
        // Every object of the tree is there, byte for byte.
        for object in objects {
            prop_assert_eq!(nodes.by_id.get(&NodeId::of(&object)), Some(&object));
        }
        let reopened = TreeOf::<F>::open(&nodes, id).unwrap();
        prop_assert_eq!(&contents(&reopened, &nodes), &model);
        tree.shrink();
        prop_assert_eq!(tree.loaded_bytes(), 0);
    }

    #[test]
    fn a_range_is_the_part_of_the_whole(
        model in proptest::collection::btree_map(0u64..300, (0u64..9).prop_map(block), 0..40),
        start in 0u64..310,
        count in 0u64..310,
        most in 1usize..50,
    ) {
        let mut nodes = Nodes::default();
        let mut tree = build::<F>(&model, bytes(300), &mut nodes);
        tree.shrink();
        let mut found = Vec::new();
        tree.for_each_block(&nodes, BlockIndex(start)..BlockIndex(start + count), |at, id| {
            found.push((at.0, id));
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }).unwrap();
        let wanted: Vec<_> =
            model.range(start..start + count).map(|(&at, &id)| (at, id)).take(most).collect();
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(tree.loaded_bytes(), 0);
    }

    #[test]
    fn diff_is_the_difference(
        a in proptest::collection::btree_map(0u64..300, (0u64..3).prop_map(block), 0..60),
        b in proptest::collection::btree_map(0u64..300, (0u64..3).prop_map(block), 0..60),
        a_blocks in 0u64..300,
        b_blocks in 0u64..300,
        shared in any::<bool>(),
    ) {
        let mut nodes = Nodes::default();
        let mut b = if shared { a.clone().into_iter().chain(b.into_iter().take(3)).collect() } else { b };
        let mut a = a;
        a.retain(|&at, _| at < a_blocks);
        b.retain(|&at, _| at < b_blocks);
        let a_id = build::<F>(&a, bytes(a_blocks), &mut nodes).id().unwrap();
        let b_id = build::<F>(&b, bytes(b_blocks), &mut nodes).id().unwrap();
        let mut found = Vec::new();
        diff_of::<F>(&nodes, a_id, b_id, |at, a, b| found.push((at.0, a, b))).unwrap();
        let places: BTreeSet<u64> = a.keys().chain(b.keys()).copied().collect();
        let wanted: Vec<_> = places
            .into_iter()
            .map(|at| (at, a.get(&at).copied(), b.get(&at).copied()))
            .filter(|(_, a, b)| a != b)
            .collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn dirty_blocks_cost_their_paths(
        dirty in proptest::collection::btree_set(0u64..1024, 1..20),
    ) {
        let mut nodes = Nodes::default();
        let model: Model = (0..1024).map(|at| (at, block(at))).collect();
        let mut tree = build::<F>(&model, bytes(1024), &mut nodes);
        let height = usize::from(tree.height());
        prop_assert_eq!(height, 5);

        let before = nodes.puts;
        tree.seal(&mut nodes).unwrap();
        for (at, id) in model {
            tree.set(&nodes, BlockIndex(at), Some(id)).unwrap();
        }
        tree.seal(&mut nodes).unwrap();
        prop_assert_eq!(nodes.puts, before, "nothing changed, nothing put");

        for &at in &dirty {
            tree.set(&nodes, BlockIndex(at), Some(block(at + 5000))).unwrap();
        }
        tree.seal(&mut nodes).unwrap();
        let paths: BTreeSet<_> =
            (1..=5u32).flat_map(|level| dirty.iter().map(move |at| (level, at / 4u64.pow(level)))).collect();
        prop_assert_eq!(nodes.puts - before, paths.len() + 1);
        prop_assert!(nodes.puts - before <= dirty.len() * height + 1);
    }

    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _any = decode_any(&bytes);
        // Past the magic, where the interesting errors are.
        let mut framed = b"SEGT\x01".to_vec();
        framed.extend(bytes.iter().map(|byte| byte % 4));
        let _any = decode_any(&framed);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        at in 0usize..400, bit in 0u8..8, cut in 0usize..400, which in 0usize..5,
    ) {
        let model: Model = [0, 3, 9, 130].map(|at| (at, block(at))).into();
        let (_, objects) = reference(&model, SIZE, bytes(200) + 17, FANOUT as u64);
        let mut object = objects[which % objects.len()].clone();
        let whole = object.clone();
        let at = at % object.len();
        object[at] ^= 1 << bit;
        prop_assert!(decode_any(&object).is_err() || NodeId::of(&object) != NodeId::of(&whole));
        for object in [&object[..], &whole[..], &whole[..cut % whole.len()]] {
            if let Ok(decoded) = decode_any(object) {
                prop_assert_eq!(encode(&decoded), object);
            }
        }
    }
}

fn encode(object: &TreeObject) -> Vec<u8> {
    let mut out = Vec::new();
    match object {
        TreeObject::Head(head) => codec::encode_head(&mut out, head),
        TreeObject::Node { level, children } => {
            codec::encode_node(&mut out, *level, children.iter().copied());
        }
    }
    out
}
