//! Trees that contradict their commits or themselves, and maps that are whole and wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fsck_support;
mod pack_support;

use std::sync::Arc;

use segvm_blockcache::{
    BlockIndex, BlockSize, Layout, NodeId, NodeSink, Tree, TreeRoot,
    disk::{Disk, MemDisk},
    fsck::{Depth, Severity, What},
};

use fsck_support::{
    DEPTHS, OLD, OPEN, Small, block, flip, open, pack_path, root, seeds, small, writer,
};
use pack_support::{Twin, put};

/// A map that is whole, and shows something else than the tree.
#[test]
fn a_false_map_is_found_without_hashing_anything() {
    let small = small();
    let store = open(&small.disk);
    let tree = small.roots[0].tree;
    let right = store.load_extents(tree).unwrap();
    type Change = fn(&mut Layout, &Layout);
    let changes: [(Change, bool); 5] = [
        (|_, _| {}, false),
        (
            |map, right| map.set(BlockIndex(0), right.get(BlockIndex(1))),
            true,
        ),
        (|map, _| map.set(BlockIndex(69), None), true),
        (
            |map, right| map.set(BlockIndex(5), right.get(BlockIndex(1))),
            true,
        ),
        (
            |map, right| {
                let place = right.get(BlockIndex(0)).unwrap();
                map.set(
                    BlockIndex(0),
                    Some(segvm_blockcache::Place {
                        pack: OPEN,
                        ..place
                    }),
                );
            },
            true,
        ),
    ];
    for (at, (change, wrong)) in changes.iter().enumerate() {
        let mut layout = right.clone();
        change(&mut layout, &right);
        store.save_extents(tree, &layout).unwrap();
        let report = small.check(Depth::Structure);
        assert_eq!(report.findings.len(), usize::from(*wrong), "change {at}");
        for finding in report.findings {
            assert!(matches!(finding.what, What::FalseMap { .. }));
            assert_eq!(
                (finding.severity, finding.touches),
                (Severity::Harm, vec![0, 2])
            );
        }
    }
    store
        .save_extents(tree, &Layout::new(BlockSize::DEFAULT))
        .unwrap();
    let report = small.check(Depth::Structure);
    assert!(matches!(report.findings[0].what, What::FalseMap { .. }));
}

/// A map may show a copy that the index does not know: the second of two in one pack.
#[test]
fn a_map_may_show_either_of_two_copies() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = open(&disk);
    let mut one = writer(&store, OLD);
    put(&mut one, 12, &seeds(&[1, 2, 1]), &mut Twin::default()).unwrap();
    let mut tree = Tree::new(BlockSize::MIN, 4096).unwrap();
    tree.set(&*store, BlockIndex(0), Some(block(1))).unwrap();
    let id = tree.seal(&mut one).unwrap();
    let mut second = one.locate(&block(1)).unwrap();
    second.offset += 2 * 4096;
    one.seal().unwrap();
    let mut layout = Layout::new(BlockSize::MIN);
    layout.set(BlockIndex(0), Some(second));
    store.save_extents(id, &layout).unwrap();
    let small = Small {
        disk: disk.clone(),
        roots: vec![root("a", 1, id, 4096)],
        marks: vec![],
        garbage: vec![],
    };
    for depth in DEPTHS {
        assert!(small.check(depth).findings.is_empty());
    }
    // Both copies are told from each other: the one that is fine is named.
    flip(
        &*disk,
        &pack_path(OLD),
        usize::try_from(second.offset).unwrap(),
        1,
    );
    let report = small.check(Depth::Deep);
    let block_found = report.findings.iter().find(|found| {
        matches!(
            found.what,
            What::Block {
                elsewhere: Some(OLD),
                ..
            }
        )
    });
    assert_eq!(block_found.unwrap().offset, second.offset);
    assert_eq!(block_found.unwrap().severity, Severity::Mendable);
    // But the map shows the one that is not.
    assert!(report.findings.iter().any(
        |found| matches!(found.what, What::FalseMap { .. }) && found.severity == Severity::Harm
    ));
}

#[test]
fn a_tree_that_is_not_what_its_commit_says_is_found() {
    let small = small();
    let mut other = small.roots[0].clone();
    other.len += 1;
    let mut size = small.roots[0].clone();
    size.block_size = BlockSize::DEFAULT;
    let mut nothing = small.roots[0].clone();
    nothing.tree = segvm_blockcache::TreeId::from_bytes([7; 32]);
    let roots: Vec<TreeRoot> = vec![other, size, nothing, small.roots[0].clone()];
    let small = Small { roots, ..small };
    let report = small.check(Depth::Structure);
    let mut touched: Vec<_> = report
        .findings
        .iter()
        .map(|found| (found.touches.clone(), found.severity))
        .collect();
    touched.sort();
    let harm = |root| (vec![root], Severity::Harm);
    assert_eq!(touched, [harm(0), harm(1), harm(2)]);
}

/// Objects that hash right and make no tree: only a program that writes nonsense leaves them.
#[test]
fn nodes_that_do_not_belong_where_they_are_are_found() {
    let node = |level: u8, children: &[[u8; 32]]| {
        let mut bytes = b"SEGT\x01\x01".to_vec();
        bytes.extend([level, 0]);
        bytes.extend(u32::try_from(children.len()).unwrap().to_le_bytes());
        bytes.extend([0; 4]);
        children.iter().for_each(|child| bytes.extend(child));
        bytes
    };
    let head = |len: u64, height: u8, root: NodeId| {
        let mut bytes = b"SEGT\x01\x02".to_vec();
        bytes.extend([height, 12]);
        bytes.extend(len.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(root.as_bytes());
        bytes
    };
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = open(&disk);
    let mut pack = writer(&store, OLD);
    put(&mut pack, 12, &seeds(&[1]), &mut Twin::default()).unwrap();
    put(&mut pack, 13, &seeds(&[2]), &mut Twin::default()).unwrap();
    let mut add = |bytes: Vec<u8>| {
        let id = NodeId::of(&bytes);
        pack.put_node(id, &bytes).unwrap();
        id
    };
    let one = *block(1).as_bytes();
    let leaf = add(node(1, &[one]));
    let two = add(node(1, &[one, one]));
    let long = add(node(
        1,
        &[*segvm_blockcache::BlockId::of(&pack_support::paint(2, 8192)).as_bytes()],
    ));
    let nonsense = add(b"nonsense".to_vec());
    let above = add(node(2, &[*leaf.as_bytes()]));
    let under = add(head(4096, 1, leaf));
    let wide = add(node(2, &[*leaf.as_bytes(); 64]));
    let trees = [
        add(head(4096, 1, leaf)),
        // A leaf where a node of level 2 belongs, and the other way round.
        add(head(65 * 4096, 2, leaf)),
        add(head(4096, 1, above)),
        // More blocks than the segment has.
        add(head(4096, 1, two)),
        // A block of another size.
        add(head(4096, 1, long)),
        add(head(4096, 1, nonsense)),
        nonsense,
        // A node where a head belongs, and the other way round.
        leaf,
        add(head(4096, 1, under)),
        // A node that is its own descendant would need a hash that contains itself; one that is everywhere does not.
        add(head(64 * 64 * 4096, 2, wide)),
    ];
    pack.seal().unwrap();
    let lens = [1, 65, 1, 1, 1, 1, 1, 1, 1, 64 * 64];
    let roots = trees.iter().zip(lens);
    let roots = roots.map(|(tree, blocks)| root("a", 1, (*tree).into(), blocks * 4096));
    let small = Small {
        disk,
        roots: roots.collect(),
        marks: vec![],
        garbage: vec![],
    };
    let report = small.check(Depth::Deep);
    let mut touched: Vec<usize> = report
        .findings
        .iter()
        .flat_map(|found| &found.touches)
        .copied()
        .collect();
    touched.sort_unstable();
    touched.dedup();
    assert_eq!(
        touched,
        (1..9).collect::<Vec<_>>(),
        "{:#?}",
        report.findings
    );
    assert!(
        report
            .findings
            .iter()
            .all(|found| found.severity == Severity::Harm)
    );
}
