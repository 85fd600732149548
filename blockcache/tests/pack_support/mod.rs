//! What the tests of packs share: painted blocks, and a twin that knows what must be readable.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use segvm_blockcache::{
    BlockId, BlockSize, NodeId, NodeSource, PackError, PackWriter, Store, disk::Disk,
};

/// Bytes of prime period, so that blocks that change places show.
pub fn paint(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| u8::try_from((at + seed * 17) % 251).unwrap() ^ seed.to_le_bytes()[0])
        .collect()
}

/// What must be readable.
#[derive(Clone, Default)]
pub struct Twin {
    pub blocks: HashMap<BlockId, Vec<u8>>,
    pub nodes: HashMap<NodeId, Vec<u8>>,
}

impl Twin {
    /// Reads everything back.
    pub fn check(&self, store: &Store) {
        for (id, bytes) in &self.blocks {
            let mut out = vec![0; bytes.len()];
            store.read_block(id, &mut out).unwrap();
            assert_eq!(&out, bytes);
            let place = store.locate(id).unwrap().unwrap();
            assert_eq!(place.offset % (bytes.len() as u64).min(65536), 0);
        }
        for (id, bytes) in &self.nodes {
            assert_eq!(&store.node(*id).unwrap(), bytes);
        }
    }
}

/// Puts blocks as a session does: fills the room in, names what is there, keeps what is new.
///
/// What was kept is in `twin` even when a later room fails.
pub fn put(
    writer: &mut PackWriter,
    log2: u32,
    seeds: &[Option<u64>],
    twin: &mut Twin,
) -> Result<(), PackError> {
    let size = BlockSize::from_log2(log2).unwrap();
    let mut seeds = seeds;
    while !seeds.is_empty() {
        let room = writer.room(size, seeds.len())?;
        assert_eq!(room.as_ptr().addr() % 4096, 0);
        let given = room.len() / size.bytes();
        assert!(given >= 1 && given <= seeds.len());
        let mut ids = Vec::new();
        for (seed, bytes) in seeds.iter().zip(room.chunks_mut(size.bytes())) {
            bytes.copy_from_slice(&paint(seed.unwrap_or(77), size.bytes()));
            ids.push(seed.map(|_| BlockId::of(bytes)));
            if seed.is_some() {
                twin.blocks.insert(BlockId::of(bytes), bytes.to_vec());
            }
        }
        let places = writer.keep(&ids)?;
        for (id, place) in ids.iter().zip(places) {
            assert_eq!(id.is_some(), place.is_some());
            if let Some(id) = id {
                let own = writer.locate(id).unwrap();
                assert_eq!(Some(own.pack), writer.pack());
            }
        }
        seeds = seeds.split_at(given).1;
    }
    Ok(())
}

/// The store of a test's disk.
pub fn store(disk: &Arc<dyn Disk>) -> Arc<Store> {
    Store::open(disk.clone(), PathBuf::from("/store")).unwrap()
}
