//! The bytes of trees, as format version 1 has them for ever.
//!
//! The file was made by a program in another language from the format's description alone.

use std::{cell::RefCell, collections::BTreeMap, error::Error, ops::ControlFlow};

use segvm_blockcache::{
    BlockId, BlockIndex, BlockSize, NodeId, NodeReadError, NodeSink, NodeSource, NodeWriteError,
    Tree, TreeId, decode_any,
};

const GOLDEN: &str = include_str!("golden/tree-v1.txt");

#[derive(Default)]
struct Nodes(RefCell<BTreeMap<NodeId, Vec<u8>>>);

impl NodeSource for Nodes {
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError> {
        self.0
            .borrow()
            .get(&id)
            .cloned()
            .ok_or(NodeReadError::Absent { id })
    }
}

impl NodeSink for Nodes {
    fn put_node(&mut self, id: NodeId, bytes: &[u8]) -> Result<(), NodeWriteError> {
        self.0.borrow_mut().insert(id, bytes.to_vec());
        Ok(())
    }
}

#[derive(Default)]
struct Golden {
    blocks: BTreeMap<BlockIndex, BlockId>,
    objects: BTreeMap<NodeId, Vec<u8>>,
    trees: BTreeMap<String, TreeId>,
}

fn hex(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err("half a byte".into());
    }
    pairs
        .iter()
        .map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?))
        .collect()
}

fn golden() -> Result<Golden, Box<dyn Error>> {
    let mut golden = Golden::default();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["block", at, id] => {
                golden.blocks.insert(BlockIndex(at.parse()?), id.parse()?);
            }
            ["object", id, bytes] => {
                golden.objects.insert(id.parse()?, hex(bytes)?);
            }
            ["tree", name, id] => {
                golden.trees.insert(name.to_owned(), id.parse()?);
            }
            _ => return Err(line.into()),
        }
    }
    Ok(golden)
}

#[test]
fn golden_trees_are_written_byte_for_byte() -> Result<(), Box<dyn Error>> {
    let golden = golden()?;
    assert_eq!(golden.blocks.len(), 3);
    let mut nodes = Nodes::default();
    let empty = Tree::new(BlockSize::MIN, 0)?.seal(&mut nodes)?;
    assert_eq!(empty, golden.trees["empty"]);

    let mut tree = Tree::new(BlockSize::MIN, 70 * 4096 - 100)?;
    for (&at, &id) in &golden.blocks {
        let painted: Vec<u8> = (0..4096)
            .map(|i| u8::try_from((at.0 + i) % 251).unwrap())
            .collect();
        assert_eq!(BlockId::of(&painted), id);
        tree.set(&nodes, at, Some(id))?;
    }
    let holey = tree.seal(&mut nodes)?;
    assert_eq!(holey, golden.trees["holey"]);
    assert_eq!(nodes.0.into_inner(), golden.objects);
    Ok(())
}

#[test]
fn golden_trees_are_read() -> Result<(), Box<dyn Error>> {
    let golden = golden()?;
    for (id, bytes) in &golden.objects {
        assert_eq!(NodeId::of(bytes), *id);
        decode_any(bytes)?;
    }
    let nodes = Nodes(RefCell::new(golden.objects));
    assert_eq!(Tree::open(&nodes, golden.trees["empty"])?.len(), 0);

    let tree = Tree::open(&nodes, golden.trees["holey"])?;
    assert_eq!((tree.len(), tree.block_size()), (286_620, BlockSize::MIN));
    let mut found = BTreeMap::new();
    tree.for_each_block(&nodes, BlockIndex(0)..BlockIndex(70), |at, id| {
        found.insert(at, id);
        ControlFlow::Continue(())
    })?;
    assert_eq!(found, golden.blocks);
    Ok(())
}
