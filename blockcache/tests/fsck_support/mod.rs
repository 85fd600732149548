//! A small store with all that a check has to look at: three packs, an extent map, two images.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::{path::PathBuf, sync::Arc};

use segvm_blockcache::{
    BlockId, BlockIndex, BlockSize, CommitId, ImageMark, Layout, PackId, PackMark, PackWriter,
    Store, Tree, TreeId, TreeRoot, WriterOptions,
    disk::{Disk, MemDisk, Open},
    fsck::{Depth, Options, Report, check},
};

use crate::pack_support::{Twin, paint, put};

/// The pack of two sessions' worth: `OLD` is sealed, `OPEN` is marked, `DEAD` is neither.
pub const OLD: PackId = PackId(1);
pub const OPEN: PackId = PackId(2);
pub const DEAD: PackId = PackId(3);

pub const DEPTHS: [Depth; 2] = [Depth::Structure, Depth::Deep];

pub fn seeds(seeds: &[u64]) -> Vec<Option<u64>> {
    seeds.iter().copied().map(Some).collect()
}

pub struct Small {
    pub disk: Arc<dyn Disk>,
    pub roots: Vec<TreeRoot>,
    pub marks: Vec<ImageMark>,
    /// Blocks that no root reaches.
    pub garbage: Vec<BlockId>,
}

pub fn root(image: &str, commit: u8, tree: TreeId, len: u64) -> TreeRoot {
    TreeRoot {
        image: image.into(),
        commit: CommitId::of(&[commit]),
        segment: "heap".into(),
        tree,
        len,
        block_size: BlockSize::MIN,
    }
}

pub fn open(disk: &Arc<dyn Disk>) -> Arc<Store> {
    Store::open(disk.clone(), PathBuf::from("/store")).unwrap()
}

pub fn writer(store: &Arc<Store>, id: PackId) -> PackWriter {
    store.writer(WriterOptions {
        id: Some(id),
        ..WriterOptions::default()
    })
}

pub fn block(seed: u64) -> BlockId {
    BlockId::of(&paint(seed, 4096))
}

fn write(writer: &mut PackWriter, seeds: &[u64]) {
    put(writer, 12, &self::seeds(seeds), &mut Twin::default()).unwrap();
}

/// Image `a` has a first commit in the sealed pack; its second changes one block, in the pack that is open. Image `b`
/// is a branch of the first.
pub fn small() -> Small {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = open(&disk);
    let len = 70 * 4096;

    let mut old = writer(&store, OLD);
    write(&mut old, &[1, 2, 3]);
    let mut tree = Tree::new(BlockSize::MIN, len).unwrap();
    // Block 69 is in another leaf.
    for (index, seed) in [(0, 1), (1, 2), (69, 1)] {
        tree.set(&*store, BlockIndex(index), Some(block(seed)))
            .unwrap();
    }
    let first = tree.seal(&mut old).unwrap();
    let mut layout = Layout::new(BlockSize::MIN);
    for (index, seed) in [(0, 1), (1, 2), (69, 1)] {
        layout.set(BlockIndex(index), old.locate(&block(seed)));
    }
    old.seal().unwrap().unwrap();
    store.save_extents(first, &layout).unwrap();

    let mut next = writer(&store, OPEN);
    write(&mut next, &[4]);
    tree.set(&*store, BlockIndex(1), Some(block(4))).unwrap();
    let second = tree.seal(&mut next).unwrap();
    let mark = next.sync().unwrap().unwrap();
    write(&mut next, &[5]);
    next.sync().unwrap().unwrap();
    drop(next);

    let mut dead = writer(&store, DEAD);
    write(&mut dead, &[6]);
    dead.sync().unwrap();
    drop(dead);

    Small {
        disk,
        roots: vec![
            root("a", 1, first, len),
            root("a", 2, second, len),
            root("b", 1, first, len),
        ],
        marks: vec![ImageMark {
            image: "a".into(),
            mark,
        }],
        garbage: vec![block(3)],
    }
}

pub fn pack_path(pack: PackId) -> PathBuf {
    PathBuf::from(format!("/store/packs/{pack}.pack"))
}

pub fn mark(pack: PackId, len: u64) -> PackMark {
    PackMark { pack, len }
}

pub fn bytes_of(disk: &dyn Disk, path: &std::path::Path) -> Vec<u8> {
    let file = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Flips bits of one byte.
pub fn flip(disk: &dyn Disk, path: &std::path::Path, at: usize, bits: u8) {
    let file = disk.open(path, Open::Write).unwrap();
    let mut byte = [0];
    file.read_at(at as u64, &mut byte).unwrap();
    file.write_at(at as u64, &[byte[0] ^ bits]).unwrap();
}

impl Small {
    pub fn check(&self, depth: Depth) -> Report {
        let options = Options {
            depth,
            ..Options::default()
        };
        check(
            &open(&self.disk),
            &self.roots,
            &self.marks,
            options,
            &mut |_| {},
        )
        .unwrap()
    }
}
